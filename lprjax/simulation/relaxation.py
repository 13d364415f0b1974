"""Minimisation of the energy over atomic positions in a fixed cell.

    minimise E(R) = sum_i E_i(R)   until   max_i |F_i| < force_tolerance,   F = -dE/dR

Preconditioned L-BFGS in one compiled loop that evaluates the gradient once per turn, so that
evaluations, not steps, are what is counted. The neighbour topology is fixed inside the loop, and
no point is ever evaluated at which an atom has moved more than half the skin: the loop hands back
to the host, which rebuilds the graph and goes on with the same search direction and memory.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.atoms.structures import Structure
from lprjax.numerics.checks import check_positive, require_x64
from lprjax.numerics.host import on_device
from lprjax.numerics.krylov import QUICK
from lprjax.potentials.derivatives import site_energies_and_forces
from lprjax.potentials.potential import Potential, as_argument, check, cutoff_of

MEMORY = 10
"""Pairs of differences kept: a choice."""
SUFFICIENT = 0.1
"""Armijo's constant: a choice."""
MAX_TRIALS = 20
"""Points tried along one direction before the memory is dropped: a choice."""
ENERGY_NOISE = 1e4
"""Rounding of a site energy in units of its last digit: a choice.

That of a linear model with condition 1e10 is the sum of far larger terms that cancel. The slopes
decide where the energy cannot.
"""

RUNNING, CONVERGED, LEAVES_SKIN, BUDGET_SPENT, NO_DESCENT, NOT_FINITE = range(6)
_MESSAGES = {
    CONVERGED: "converged",
    BUDGET_SPENT: "max_evaluations spent before the forces fell below force_tolerance",
    NO_DESCENT: "no descent along the preconditioned gradient: the potential jumps, or the "
    "preconditioner is not positive definite, or force_tolerance is below roundoff",
    NOT_FINITE: "energy or forces are not finite at the start",
}


class Relaxed(NamedTuple):
    """What a relaxation ended with; look at `converged` before using the rest."""

    positions: jax.Array  # (n, 3) Å, not wrapped into the cell
    energy: float  # eV
    forces: jax.Array  # (n, 3) eV/Å, also those on the atoms that were held
    max_force: float  # eV/Å, the largest norm among the free atoms
    steps: int  # accepted steps
    evaluations: int  # evaluations of energy and gradient
    converged: bool
    message: str  # "converged", or why not
    graph: Graph  # the last topology, at `positions`


VectorMap = Callable[[jax.Array], jax.Array]
"""A linear map of vectors on the atoms, (n, 3) -> (n, 3)."""


class _State(NamedTuple):
    positions: jax.Array  # (n, 3) Å
    trial: jax.Array  # (n, 3) Å, the point to try next
    site_energies: jax.Array  # (n,), eV
    gradient: jax.Array  # (n, 3) eV/Å
    direction: jax.Array  # (n, 3) Å
    length: jax.Array  # of the step to try next, in units of `direction`
    scale: jax.Array  # so that scale * preconditioner ~ Hessian^-1
    moves: jax.Array  # (MEMORY, n, 3) Å, differences of positions, newest first
    turns: jax.Array  # (MEMORY, n, 3) eV/Å, differences of gradients
    weights: jax.Array  # (MEMORY,) 1 / <move, turn>, zero where the slot is empty
    trials: jax.Array  # points tried along this direction
    steps: jax.Array  # accepted steps
    evaluations: jax.Array  # of energy and gradient
    status: jax.Array  # RUNNING, CONVERGED, ...


class _Limits(NamedTuple):
    force_tolerance: float  # eV/Å
    max_evaluations: int
    max_move: float  # Å, of an atom in one step
    drift: float  # Å, of an atom from the positions the graph was built at


def relax(
    potential: Potential,
    start: Structure | Graph,
    *,
    preconditioner: VectorMap | None = None,
    free: ArrayLike | Sequence[bool] | None = None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    max_move: float = 0.1,
    skin: float = 0.5,
) -> Relaxed:
    """Relax the atoms to the nearest minimum of the energy, in the fixed cell.

    Preconditioned L-BFGS with the (approximate) Wolfe test of Hager and Zhang, SIAM J. Optim. 16
    (2005) 170, on differences of site energies, so that neither the test nor the result depends
    on digits that the total energy of many atoms has lost.

    Args:
        potential: callable graph -> site energies (n,), eV; a pytree (new leaves do not
            recompile), or else hashable.
        start: a Structure; or a Graph, whose topology is then kept however far the atoms go (for
            bonds that are pinned to it).
        preconditioner: callable (n, 3) -> (n, 3) from the gradient of the n real atoms, linear,
            symmetric, positive definite up to translations, near the inverse Hessian up to a
            factor; a pytree, or else hashable; None: the identity. Where atoms are held, one that
            takes account of it does better: the inverse of a part is not the part of the inverse.
        free: (n,) bool, atoms that may move; None: all.
        force_tolerance: largest norm of the force on a free atom at convergence, eV/Å.
        max_evaluations: evaluations of energy and gradient allowed.
        max_move: farthest that an atom goes in one step, Å.
        skin: margin of the neighbour search beyond the cutoff, Å; also bounds a step to skin / 2.

    Returns:
        Relaxed. Where a relaxation fails `converged` is False, and `message` gives the reason. A
        start that is stationary already is returned as it is, be it a minimum or not.

    Raises:
        RuntimeError: float64 is off.
        ValueError: a limit that is not positive; `free` that is not (n,) bool.
        TypeError: a potential or preconditioner that is neither a pytree nor hashable; a potential
            without cutoff.

    Source: Hager, Zhang, SIAM J. Optim. 16 (2005) 170; Nocedal, Wright, Numerical Optimization
    (2006), algorithm 7.4.
    """
    require_x64()
    check_positive(
        force_tolerance=force_tolerance,
        max_evaluations=max_evaluations,
        max_move=max_move,
        skin=skin,
    )
    fixed_topology = isinstance(start, Graph)
    if isinstance(start, Graph):
        rebuild, graph = None, start
    else:
        rebuild = _builder(start, cutoff_of(potential), skin)
        graph = rebuild(start.positions)
    check(potential, graph)
    free = _free_atoms(free, np.asarray(graph.atom_mask))
    limits = _Limits(
        float(force_tolerance),
        int(max_evaluations),
        float(max_move) if fixed_topology else min(float(max_move), 0.499 * skin),
        math.inf if fixed_topology else 0.5 * skin,
    )
    search = partial(
        _minimise,
        as_argument(potential, "potential"),
        as_argument(_identity if preconditioner is None else preconditioner, "preconditioner"),
        free=free,
        limits=limits,
        n_atoms=int(np.sum(np.asarray(graph.atom_mask))),
    )
    state = search(graph, _initial(graph))
    message = _MESSAGES.get(int(state.status))
    while message is None:  # an atom is about to leave the skin
        assert rebuild is not None  # with a fixed topology there is no skin to leave
        try:
            graph = rebuild(state.positions)
        except ValueError as error:  # no graph holds the pairs that came into reach
            return _collided(graph, free, state, error)
        state = search(graph, state._replace(status=on_device(np.asarray(RUNNING))))
        message = _MESSAGES.get(int(state.status))
    if rebuild is not None and message != _MESSAGES[CONVERGED]:
        try:  # without leaving the skin, as an attraction like -1/r has them do
            rebuild(state.positions)
        except ValueError as error:
            return _collided(graph, free, state, error)
    return _result(graph, free, state, message)


def _collided(graph: Graph, free: jax.Array, state: _State, error: ValueError) -> Relaxed:
    """Atoms so close that they are no structure any more have no energy."""
    state = state._replace(site_energies=on_device(np.full(len(free), np.nan)))
    return _result(graph, free, state, f"the atoms ran into each other: {error}")


def _identity(gradient: jax.Array) -> jax.Array:
    return gradient


def _builder(structure: Structure, r_cut: float, skin: float) -> Callable[[jax.Array], Graph]:
    def rebuild(positions: jax.Array) -> Graph:
        there = dataclasses.replace(structure, positions=positions[: structure.n_atoms])
        return build_graph(there, r_cut, skin=skin)

    return rebuild


def _free_atoms(free: ArrayLike | Sequence[bool] | None, atom_mask: np.ndarray) -> jax.Array:
    n = int(atom_mask.sum())
    if free is None:
        return jax.device_put(atom_mask)
    mask = np.asarray(free)
    if mask.shape != (n,) or mask.dtype != bool:
        raise ValueError(f"free is {mask.dtype} of shape {mask.shape}: wanted bool, ({n},).")
    return jax.device_put(np.pad(mask, (0, len(atom_mask) - n)))


def _initial(graph: Graph) -> _State:
    """A state of no direction: the first turn finds energy and gradient, and is always accepted."""
    n, x = len(graph.positions), graph.positions
    sizes = {"moves": (MEMORY, n, 3), "turns": (MEMORY, n, 3), "weights": (MEMORY,)}
    sizes |= {"site_energies": (n,), "gradient": (n, 3), "direction": (n, 3), "length": ()}
    zeros = {name: np.zeros(shape) for name, shape in sizes.items()}
    counts = dict.fromkeys(("trials", "steps", "evaluations", "status"), np.zeros((), int))
    return _State(positions=x, trial=x, scale=on_device(np.ones(())), **on_device(zeros | counts))


def _result(graph: Graph, free: jax.Array, state: _State, message: str) -> Relaxed:
    real = np.asarray(graph.atom_mask)
    n = int(real.sum())
    squares = np.sum(np.asarray(state.gradient) ** 2, axis=1)
    return Relaxed(
        positions=jax.device_put(np.asarray(state.positions)[:n]),
        energy=float(np.sum(np.asarray(state.site_energies))),
        forces=jax.device_put(-np.asarray(state.gradient)[:n]),
        max_force=float(np.sqrt(np.max(squares, where=np.asarray(free), initial=0.0))),
        steps=int(state.steps),
        evaluations=int(state.evaluations),
        converged=message == _MESSAGES[CONVERGED],
        message=message,
        graph=moved(graph, state.positions),
    )


def _max_norm(v: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.max(jnp.sum(v**2, axis=1), where=where, initial=0.0))


def _minimise(potential, preconditioner, graph, state, *, free, limits, n_atoms):
    """Turns until the status is no longer RUNNING; `graph.positions` are where it was built."""
    while int(state.status) == RUNNING:
        found = site_energies_and_forces(potential, moved(graph, state.trial))
        state = _turn(preconditioner, state, found, graph.positions, free, limits, n_atoms=n_atoms)
    return state


@partial(jax.jit, static_argnames="n_atoms", compiler_options=QUICK)
def _turn(preconditioner, state, found, built, free, limits, *, n_atoms) -> _State:
    """The state after a look at `found` at the point tried; `built`: where the graph was."""
    here, sites, gradient = state.trial, found.sites, -found.forces

    def precondition(v):
        moves = preconditioner(jnp.where(free[:, None], v, 0.0)[:n_atoms])
        return jnp.where(free[:, None], jnp.zeros_like(v).at[:n_atoms].set(moves), 0.0)

    def arrive(state):
        state = _remember(state, here, gradient, precondition)
        return state._replace(
            positions=here,
            site_energies=sites,
            gradient=gradient,
            trials=jnp.zeros_like(state.trials),
            steps=state.steps + (state.evaluations > 1),
        )

    def set_off(state):
        direction = _two_loops(state, precondition)
        farthest = _max_norm(direction, free)
        length = jnp.minimum(1.0, limits.max_move / jnp.where(farthest > 0, farthest, 1.0))
        return state._replace(direction=direction, length=length)

    state = state._replace(evaluations=state.evaluations + 1)
    accepted = (state.evaluations == 1) | _descends(state, sites, gradient)
    shorter = lambda state: _shorten(state, gradient)  # noqa: E731
    state = jax.lax.cond(accepted, arrive, shorter, state)
    state = jax.lax.cond(state.trials == 0, set_off, lambda state: state, state)
    state = state._replace(trial=state.positions + state.length * state.direction)
    drift = state.trial - built
    return _judged(state, _max_norm(state.gradient, free), _max_norm(drift, free), limits)


def _slope(gradient: jax.Array, state: _State) -> jax.Array:
    return jnp.vdot(gradient, state.direction)


def _shorten(state: _State, gradient: jax.Array) -> _State:
    """Step to where the slope would vanish if it were linear; after many, forget the memory."""
    old, new = _slope(state.gradient, state), _slope(gradient, state)
    secant = jnp.clip(old / jnp.where(new > 0, old - new, 1.0), 0.1, 0.7)
    ratio = jnp.where(jnp.isfinite(new), jnp.where(new > 0, secant, 0.5), 0.25)
    lost = state.trials + 1 == MAX_TRIALS
    hopeless = lost & jnp.all(state.weights == 0)
    return state._replace(
        length=state.length * ratio,
        trials=jnp.where(lost, 0, state.trials + 1),
        weights=jnp.where(lost, 0.0, state.weights),
        status=jnp.where(hopeless, NO_DESCENT, state.status),
    )


def _descends(state: _State, sites: jax.Array, gradient: jax.Array) -> jax.Array:
    """Armijo's test or, once the energy's digits are spent, that of Hager and Zhang on slopes."""
    old, new = _slope(state.gradient, state), _slope(gradient, state)
    change = jnp.sum(sites - state.site_energies)
    roundoff = ENERGY_NOISE * jnp.finfo(sites.dtype).eps * jnp.sum(jnp.abs(sites))
    enough = change <= SUFFICIENT * state.length * old
    flat = (change <= roundoff) & (new <= (2.0 * SUFFICIENT - 1.0) * old)
    return (old < 0) & jnp.isfinite(new) & (enough | flat)


def _remember(
    state: _State, here: jax.Array, gradient: jax.Array, precondition: VectorMap
) -> _State:
    """Keep the pair (move, turn) if the energy curves upward along it, else lengthen the steps."""
    move, turn = here - state.positions, gradient - state.gradient
    conditioned = precondition(turn)
    curvature, size = jnp.vdot(move, turn), jnp.vdot(turn, conditioned)
    upward = (state.evaluations > 1) & (curvature > 0) & (size > 0)
    scale = jnp.where(upward, curvature / jnp.where(upward, size, 1.0), 2.0 * state.scale)

    def pushed(history, newest):
        return jnp.where(upward, jnp.roll(history, 1, axis=0).at[0].set(newest), history)

    return state._replace(
        scale=jnp.where(state.evaluations > 1, scale, state.scale),
        moves=pushed(state.moves, move),
        turns=pushed(state.turns, turn),
        weights=pushed(state.weights, 1.0 / jnp.where(upward, curvature, 1.0)),
    )


def _two_loops(state: _State, precondition: VectorMap) -> jax.Array:
    """-H g, with the limited-memory inverse Hessian H (Nocedal and Wright 2006, algorithm 7.4)."""

    def back(v, pair):
        move, turn, weight = pair
        share = weight * jnp.vdot(move, v)
        return v - share * turn, share

    def forth(v, pair_and_share):
        (move, turn, weight), share = pair_and_share
        return v + (share - weight * jnp.vdot(turn, v)) * move, None

    pairs = (state.moves, state.turns, state.weights)
    v, shares = jax.lax.scan(back, state.gradient, pairs)
    v = state.scale * precondition(v)
    return -jax.lax.scan(forth, v, (pairs, shares), reverse=True)[0]


def _judged(state: _State, max_force: jax.Array, drift: jax.Array, limits: _Limits) -> _State:
    """The status: the first that holds of the cases below."""
    slope = _slope(state.gradient, state)
    cases = (
        (state.status != RUNNING, state.status),
        (~jnp.isfinite(max_force), NOT_FINITE),
        (max_force < limits.force_tolerance, CONVERGED),
        (state.evaluations >= limits.max_evaluations, BUDGET_SPENT),
        (~(slope < 0), NO_DESCENT),
        (drift > limits.drift, LEAVES_SKIN),
    )
    status = jnp.select([case for case, _ in cases], [value for _, value in cases], RUNNING)
    return state._replace(status=status.astype(state.status.dtype))
