"""Minimisation of the energy over atomic positions in a fixed cell.

    minimise E(R) = sum_i E_i(R)   until   max_i |F_i| < force_tolerance,   F = -dE/dR

Preconditioned L-BFGS in a loop that evaluates the gradient once per turn, so that evaluations, not
steps, are what is counted. It runs on the host, in NumPy, around two compiled functions, the forces
and the preconditioner. The neighbour topology is fixed inside the loop, and no point is ever
evaluated at which an atom has moved more than half the skin: then the graph is built anew, and the
search goes on with the same direction and memory.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.atoms.structures import Structure
from lprjax.numerics.checks import check_positive, require_x64
from lprjax.potentials.derivatives import Forces, site_energies_and_forces
from lprjax.potentials.potential import (
    Potential,
    as_argument,
    by_differences,
    check,
    cutoff_of,
)

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

FLOOR = 5.0
"""Force at which a relaxation ends in noise, over the noise of a component: a choice; the largest
of 50 random forces is four times that."""

RUNNING, CONVERGED, LEAVES_SKIN, BUDGET_SPENT, NO_DESCENT, NOT_FINITE, NOISE = range(7)
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
    positions: np.ndarray  # (n, 3) Å
    trial: np.ndarray  # (n, 3) Å, the point to try next
    site_energies: np.ndarray  # (n,), eV
    gradient: np.ndarray  # (n, 3) eV/Å
    direction: np.ndarray  # (n, 3) Å
    moves: np.ndarray  # (MEMORY, n, 3) Å, differences of positions, newest first
    turns: np.ndarray  # (MEMORY, n, 3) eV/Å, differences of gradients
    weights: np.ndarray  # (MEMORY,) 1 / <move, turn>, zero where the slot is empty
    length: float = 0.0  # of the step to try next, in units of `direction`
    scale: float = 1.0  # so that scale * preconditioner ~ Hessian^-1
    trials: int = 0  # points tried along this direction
    steps: int = 0  # accepted steps
    evaluations: int = 0  # of energy and gradient
    status: int = RUNNING  # or CONVERGED, ...


class _Limits(NamedTuple):
    force_tolerance: float  # eV/Å
    floor: float  # eV/Å, the force that noise leaves
    energy_noise: float  # eV
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
    itself = by_differences(potential)
    noise = itself.noise(graph) if itself else None
    limits = _Limits(
        float(force_tolerance),
        FLOOR * noise.forces if noise else 0.0,
        noise.energy if noise else 0.0,
        int(max_evaluations),
        float(max_move) if fixed_topology else min(float(max_move), 0.499 * skin),
        math.inf if fixed_topology else 0.5 * skin,
    )
    chosen = _identity if preconditioner is None else preconditioner
    precondition = partial(
        _preconditioned,
        as_argument(chosen, "preconditioner"),
        free,
        n_atoms=int(np.sum(np.asarray(graph.atom_mask))),
    )
    search = partial(
        _minimise,
        as_argument(potential, "potential"),
        lambda v: np.asarray(precondition(v)),
        free=free,
        limits=limits,
    )
    state = search(graph, _initial(graph))
    message = _message(state, free)
    while message is None:  # an atom is about to leave the skin
        assert rebuild is not None  # with a fixed topology there is no skin to leave
        try:
            graph = rebuild(state.positions)
        except ValueError as error:  # no graph holds the pairs that came into reach
            return _collided(graph, free, state, error)
        state = search(graph, state._replace(status=RUNNING))
        message = _message(state, free)
    if rebuild is not None and state.status not in (CONVERGED, NOISE):
        try:  # without leaving the skin, as an attraction like -1/r has them do
            rebuild(state.positions)
        except ValueError as error:
            return _collided(graph, free, state, error)
    return _result(graph, free, state, message)


def _message(state: _State, free: np.ndarray) -> str | None:
    """Why it ended; None: it has not, an atom is about to leave the skin."""
    if state.status == NOISE:
        force = _max_norm(state.gradient, free)
        return f"converged to the noise of the forces: the largest is {force:.2g} eV/Å"
    return _MESSAGES.get(state.status)


def _collided(graph: Graph, free: np.ndarray, state: _State, error: ValueError) -> Relaxed:
    """Atoms so close that they are no structure any more have no energy."""
    state = state._replace(site_energies=np.full(len(free), np.nan))
    return _result(graph, free, state, f"the atoms ran into each other: {error}")


def _identity(gradient: jax.Array) -> jax.Array:
    return gradient


def _builder(structure: Structure, r_cut: float, skin: float) -> Callable[[Any], Graph]:
    def rebuild(positions: Any) -> Graph:
        there = jax.device_put(np.asarray(positions)[: structure.n_atoms])
        there = dataclasses.replace(structure, positions=there)
        return build_graph(there, r_cut, skin=skin)

    return rebuild


def _free_atoms(free: ArrayLike | Sequence[bool] | None, atom_mask: np.ndarray) -> np.ndarray:
    n = int(atom_mask.sum())
    if free is None:
        return atom_mask
    mask = np.asarray(free)
    if mask.shape != (n,) or mask.dtype != bool:
        raise ValueError(f"free is {mask.dtype} of shape {mask.shape}: wanted bool, ({n},).")
    return np.pad(mask, (0, len(atom_mask) - n))


def _initial(graph: Graph) -> _State:
    """A state of no direction: the first turn finds energy and gradient, and is always accepted."""
    x = np.asarray(graph.positions)
    history, zeros = np.zeros((MEMORY, *x.shape)), np.zeros(x.shape)
    return _State(x, x, np.zeros(len(x)), zeros, zeros, history, history, np.zeros(MEMORY))


def _result(graph: Graph, free: np.ndarray, state: _State, message: str) -> Relaxed:
    n, energy = int(np.asarray(graph.atom_mask).sum()), float(np.sum(state.site_energies))
    return Relaxed(
        positions=jax.device_put(state.positions[:n]),
        energy=energy,
        forces=jax.device_put(-state.gradient[:n]),
        max_force=_max_norm(state.gradient, free),
        steps=state.steps,
        evaluations=state.evaluations,
        converged=state.status in (CONVERGED, NOISE) and math.isfinite(energy),
        message=message,
        graph=moved(graph, jax.device_put(state.positions)),
    )


def _max_norm(v: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt(np.max(np.sum(v**2, axis=1), where=where, initial=0.0)))


@partial(jax.jit, static_argnames="n_atoms")
def _preconditioned(preconditioner: VectorMap, free: jax.Array, v: jax.Array, *, n_atoms: int):
    """The map of the real atoms between free ones, (n, 3), padding included."""
    moves = preconditioner(jnp.where(free[:, None], v, 0.0)[:n_atoms])
    return jnp.where(free[:, None], jnp.zeros_like(v).at[:n_atoms].set(moves), 0.0)


_HostMap = Callable[[np.ndarray], np.ndarray]


def _minimise(potential, precondition: _HostMap, graph: Graph, state: _State, *, free, limits):
    """Turns until the status is no longer RUNNING; `graph.positions` are where it was built."""
    built = np.asarray(graph.positions)
    while state.status == RUNNING:
        found = site_energies_and_forces(potential, moved(graph, jax.device_put(state.trial)))
        with np.errstate(all="ignore"):  # what is not finite is found by `_judged`
            state = _turn(state, found, precondition, built, free, limits)
    return state


def _turn(
    state: _State,
    found: Forces,
    precondition: _HostMap,
    built: np.ndarray,
    free: np.ndarray,
    limits: _Limits,
) -> _State:
    """The state after a look at `found` at the point tried; `built`: where the graph was."""
    sites, gradient = np.asarray(found.sites), -np.asarray(found.forces)
    state = state._replace(evaluations=state.evaluations + 1)
    if state.evaluations == 1 or _descends(state, sites, gradient, limits.energy_noise):
        if state.evaluations > 1:
            state = _remember(state, gradient, precondition)._replace(steps=state.steps + 1)
        state = state._replace(
            positions=state.trial, site_energies=sites, gradient=gradient, trials=0
        )
    else:
        state = _shorten(state, gradient)
    if state.trials == 0:
        direction = _two_loops(state, precondition)
        farthest = _max_norm(direction, free)
        length = min(1.0, limits.max_move / (farthest if farthest > 0 else 1.0))
        state = state._replace(direction=direction, length=length)
    trial = state.positions + state.length * state.direction
    drift = _max_norm(trial - built, free)
    status = _judged(state, _max_norm(state.gradient, free), drift, limits)
    return state._replace(trial=trial, status=status)


def _slope(gradient: np.ndarray, state: _State) -> float:
    return float(np.vdot(gradient, state.direction))


def _shorten(state: _State, gradient: np.ndarray) -> _State:
    """Step to where the slope would vanish if it were linear; after many, forget the memory."""
    old, new = _slope(state.gradient, state), _slope(gradient, state)
    if math.isfinite(new):
        ratio = min(max(old / (old - new), 0.1), 0.7) if new > 0 else 0.5
    else:
        ratio = 0.25
    state = state._replace(length=state.length * ratio, trials=state.trials + 1)
    if state.trials < MAX_TRIALS:
        return state
    status = state.status if state.weights.any() else NO_DESCENT
    return state._replace(trials=0, weights=np.zeros(MEMORY), status=status)


def _descends(state: _State, sites: np.ndarray, gradient: np.ndarray, noise: float) -> bool:
    """Armijo's test or, once the energy's digits are spent, that of Hager and Zhang on slopes."""
    old, new = _slope(state.gradient, state), _slope(gradient, state)
    change = float(np.sum(sites - state.site_energies))
    roundoff = ENERGY_NOISE * np.finfo(float).eps * float(np.sum(np.abs(sites)))
    enough = change <= SUFFICIENT * state.length * old
    flat = change <= roundoff + 3.0 * noise and new <= (2.0 * SUFFICIENT - 1.0) * old
    return old < 0 and math.isfinite(new) and (enough or flat)


def _remember(state: _State, gradient: np.ndarray, precondition: _HostMap) -> _State:
    """Keep the pair (move, turn) if the energy curves upward along it, else lengthen the steps."""
    move, turn = state.trial - state.positions, gradient - state.gradient
    curvature, size = float(np.vdot(move, turn)), float(np.vdot(turn, precondition(turn)))
    if not (curvature > 0 and size > 0):
        return state._replace(scale=2.0 * state.scale)

    def pushed(history: np.ndarray, newest: Any) -> np.ndarray:
        return np.concatenate([np.asarray(newest)[None], history[:-1]])

    return state._replace(
        scale=curvature / size,
        moves=pushed(state.moves, move),
        turns=pushed(state.turns, turn),
        weights=pushed(state.weights, 1.0 / curvature),
    )


def _two_loops(state: _State, precondition: _HostMap) -> np.ndarray:
    """-H g, with the limited-memory inverse Hessian H (Nocedal and Wright 2006, algorithm 7.4)."""
    slots = zip(state.moves, state.turns, state.weights, strict=True)
    pairs = [slot for slot in slots if slot[2]]
    v, shares = state.gradient, []
    for move, turn, weight in pairs:
        shares.append(weight * np.vdot(move, v))
        v = v - shares[-1] * turn
    v = state.scale * precondition(v)
    for (move, turn, weight), share in zip(reversed(pairs), reversed(shares), strict=True):
        v = v + (share - weight * np.vdot(turn, v)) * move
    return -v


def _judged(state: _State, max_force: float, drift: float, limits: _Limits) -> int:
    """The status: the first that holds of the cases below."""
    cases = (
        (state.status != RUNNING, state.status),
        (not math.isfinite(max_force), NOT_FINITE),
        (max_force < limits.force_tolerance, CONVERGED),
        (max_force < limits.floor, NOISE),
        (state.evaluations >= limits.max_evaluations, BUDGET_SPENT),
        (not _slope(state.gradient, state) < 0, NO_DESCENT),
        (drift > limits.drift, LEAVES_SKIN),
    )
    return next((status for holds, status in cases if holds), RUNNING)
