"""Does a potential keep what this library takes for granted? For the author of a new one.

Everything is asked of the potential itself, on a structure of the author's choice, and compared
with what must follow from E = sum_i E_i over atoms that feel no more than r_cut around them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.atoms.structures import Labels, Structure, rattled, supercell
from lprjax.numerics.checks import require_x64
from lprjax.potentials.observables import checked_kinds, observe
from lprjax.potentials.potential import (
    Potential,
    as_argument,
    cutoff_of,
    graph_for,
    total_energy_of,
)

RATTLE = 0.03
"""Å, standard deviation of the displacements from the structure given, at whose perfect sites
forces may vanish and hide their errors: a choice."""
ROUNDING = 1e-9
"""Relative difference of two results that should be equal: a choice, far above the rounding of sums
over hundreds of neighbours."""
STEPS = (2e-3, 1e-3)
"""Å, of central differences; the error of theirs falls by four from one to the other."""
SKIN = 0.3
"""In cutoffs, how much further neighbours are searched that should change nothing: a choice."""
NEAR_CUTOFF = (1e-2, 1e-3)
"""Å, distances from the cutoff on both of its sides at which derivatives are compared."""
ORDER = {"energy": 0, "forces": 1, "virial": 1, "force_constants": 2}
"""Which derivative of the energy an observable is."""


class Requirement(NamedTuple):
    """One demand on a potential, and how far it is from being met."""

    name: str
    met: bool
    measured: float  # in the unit that the text says
    allowed: float
    text: str


class Validation(NamedTuple):
    """What `validate` found; prints as a table."""

    requirements: tuple[Requirement, ...]

    @property
    def passed(self) -> bool:
        """Whether all are met."""
        return all(r.met for r in self.requirements)

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if r.met else 'FAIL'} {r.name:<12} {r.measured:9.2e} "
            f"(at most {r.allowed:.0e}) {r.text}"
            for r in self.requirements
        ]
        return "\n".join(lines)


def validate(
    potential: Potential,
    structure: Structure,
    kinds: str | Sequence[str] = ("energy", "forces", "virial"),
) -> Validation:
    """Whether a potential keeps the contract of `potentials.potential`, requirement by requirement.

    On the structure, shaken by 0.03 Å:

        finite         energies and their derivatives are numbers
        shape          one site energy per atom, (n,)
        padding        further atoms and neighbours of padding change nothing, and have no energy
        cutoff         neighbours beyond r_cut change nothing
        extensive      twice the atoms have twice the energy, and each the same forces
        invariant      a rotation and another order of the atoms leave the energy
        derivatives    forces (virial, force constants) are those of central differences
        smooth         the derivatives that the kinds ask for are continuous at r_cut

    The last is asked of a trimer, one of whose bonds crosses the cutoff, and of no potential that
    takes its neighbours from elsewhere than the graph (a calculator).

    Args:
        potential: graph -> site energies (n,), eV.
        structure: which it describes, without forces or not; a few atoms are enough.
        kinds: what is to be observed of it, as in `observe`; force constants ask for a smoother
            cutoff than forces.

    Returns:
        Validation: print it, or ask for `passed`.

    Raises:
        RuntimeError: float64 is off.
        TypeError: no structure; a potential that `observe` cannot take at all.
        ValueError: a structure that the potential does not describe.
    """
    require_x64()
    kinds = checked_kinds(("energy", *((kinds,) if isinstance(kinds, str) else kinds)))
    as_argument(potential, "potential")
    if not isinstance(structure, Structure):
        raise TypeError(
            f"structure is a {type(structure).__name__}: wanted a Structure; graphs are made of it."
        )
    case = _case(potential, rattled(structure, jax.random.key(0), _in_its_plane(structure)), kinds)
    found: list[Requirement] = []
    for test in (_shape, _finite, _padding, _cutoff, _extensive, _invariant, _derivatives, _smooth):
        requirement = test(case)
        found += [] if requirement is None else [requirement]
        if test in (_shape, _finite) and not found[-1].met:  # there is nothing to compare
            break
    return Validation(tuple(found))


class _Case(NamedTuple):
    """A potential on a structure of n atoms; its graphs have one shape, to compile once."""

    potential: Potential
    structure: Structure
    kinds: tuple[str, ...]
    r_cut: float  # Å
    slots: int  # of neighbours, with room for a skin

    @property
    def n(self) -> int:
        return self.structure.n_atoms

    def graph(self, structure: Structure, skin: float = 0.0) -> Graph:
        """With room for twice the atoms."""
        sizes = {"n_atoms": 2 * self.n, "n_neighbours": self.slots}
        return build_graph(structure, self.r_cut, skin=skin, **sizes)

    def labels(self, graph: Graph) -> Labels:
        return observe(self.potential, graph, self.kinds)


def _case(potential: Potential, structure: Structure, kinds: tuple[str, ...]) -> _Case:
    r_cut = cutoff_of(potential)
    wide = build_graph(structure, r_cut, skin=SKIN * r_cut)
    return _Case(potential, structure, kinds, r_cut, wide.neighbours.shape[1])


def _in_its_plane(structure: Structure) -> np.ndarray:
    """Standard deviations of a rattle that leaves a plane or a line what it is, (3,) Å."""
    flat = np.ptp(np.asarray(structure.positions), axis=0) < 1e-9
    periods = np.asarray(structure.cell)[np.array(structure.pbc)].reshape(-1, 3)
    return np.where(flat & (np.abs(periods).sum(axis=0) == 0.0), 0.0, RATTLE)


def _judged(name: str, measured: float, allowed: float, text: str) -> Requirement:
    return Requirement(name, bool(measured <= allowed), float(measured), allowed, text)


def _apart(ours: Labels, theirs: Labels) -> float:
    """The largest difference of two sets of labels, relative to the largest entry of each kind."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            a, b = np.asarray(a), np.asarray(b)
            scale = max(float(np.abs(a).max()), float(np.abs(b).max()), 1e-3)
            worst = max(worst, float(np.abs(a - b).max()) / scale)
    return worst


def _shape(case: _Case) -> Requirement:
    graph = case.graph(case.structure)
    sites = jax.eval_shape(case.potential, graph)
    shape = getattr(sites, "shape", type(sites).__name__)
    text = f"site energies of shape {shape}, {graph.species.shape} wanted"
    return _judged("shape", float(shape != graph.species.shape), 0.0, text)


def _finite(case: _Case) -> Requirement:
    values = [np.asarray(v) for v in case.labels(case.graph(case.structure)) if v is not None]
    lost = sum(int((~np.isfinite(v)).sum()) for v in values)
    return _judged("finite", lost, 0.0, "numbers that are NaN or infinite, padding included")


def _padding(case: _Case) -> Requirement:
    padded, n = case.graph(case.structure), case.n
    exact = graph_for(case.potential, case.structure, n_atoms=n)
    ours, theirs = case.labels(exact), case.labels(padded)
    if theirs.forces is not None:
        theirs = theirs._replace(forces=theirs.forces[:n])
    if theirs.force_constants is not None:
        theirs = theirs._replace(force_constants=theirs.force_constants[:, :, :n])
    ghosts = float(np.abs(np.asarray(case.potential(padded))[n:]).max())
    text = "eV on padding atoms, or relative change by padding"
    return _judged("padding", max(ghosts, _apart(ours, theirs)), ROUNDING, text)


def _cutoff(case: _Case) -> Requirement:
    graphs = (case.graph(case.structure, skin) for skin in (0.0, SKIN * case.r_cut))
    apart = _apart(*map(case.labels, graphs))
    return _judged("cutoff", apart, ROUNDING, "relative change by neighbours beyond r_cut")


def _extensive(case: _Case) -> Requirement:
    one = case.labels(case.graph(case.structure))
    two = case.labels(case.graph(_twice(case.structure, case.r_cut)))
    twice = Labels(energy=2.0 * one.energy)
    if one.forces is not None:
        twice = twice._replace(forces=np.tile(np.asarray(one.forces)[: case.n], (2, 1)))
    here = Labels(energy=two.energy, forces=two.forces)
    return _judged("extensive", _apart(here, twice), ROUNDING, "relative error of twice the atoms")


def _twice(structure: Structure, r_cut: float) -> Structure:
    """Twice the structure: two cells of a crystal, or two clusters out of each other's reach."""
    if any(structure.pbc):
        repeats = [1, 1, 1]
        repeats[structure.pbc.index(True)] = 2
        return supercell(structure, repeats)
    shift = (2.0 * r_cut + jnp.ptp(structure.positions[:, 0])) * jnp.array([[1.0, 0.0, 0.0]])
    return dataclasses.replace(
        structure,
        positions=jnp.concatenate([structure.positions, structure.positions + shift]),
        species=jnp.tile(structure.species, 2),
    )


def _invariant(case: _Case) -> Requirement:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    order = np.random.default_rng(1).permutation(case.structure.n_atoms)
    other = dataclasses.replace(
        case.structure,
        positions=case.structure.positions[order] @ turn.T,
        species=case.structure.species[order],
        cell=case.structure.cell @ turn.T,
    )
    energies = (case.labels(case.graph(s)).energy for s in (case.structure, other))
    apart = _apart(*(Labels(energy=energy) for energy in energies))
    return _judged("invariant", apart, ROUNDING, "relative change by a rotation and a permutation")


def _derivatives(case: _Case) -> Requirement:
    """Each derivative against central differences of the one below, along random directions."""
    graph = case.graph(case.structure, 4.0 * STEPS[0])
    labels, draw = case.labels(graph), np.random.default_rng(2)
    moves, strain = draw.normal(size=graph.positions.shape), draw.normal(size=(3, 3))
    moves /= np.abs(moves).max()
    strain /= np.abs(graph.positions @ strain.T).max() + np.abs(strain).max()

    def below(kind: str, t: float) -> np.ndarray:
        """What the kind is minus the derivative of, at t along its direction."""
        turn = (np.eye(3) + t * strain).T
        if kind == "virial":
            there = moved(graph, graph.positions @ turn, graph.cell @ turn)
        else:
            there = moved(graph, graph.positions + t * moves)
        found = observe(case.potential, there, ("energy", "forces"))
        return np.asarray(found.forces[:1] if kind == "force_constants" else found.energy)

    worst = 0.0
    for kind in (kind for kind in case.kinds if ORDER[kind]):
        direction = strain if kind == "virial" else moves
        slope = np.tensordot(np.asarray(getattr(labels, kind)), direction, 2)
        coarse, fine = ((below(kind, -t) - below(kind, t)) / (2.0 * t) for t in STEPS)
        error = np.abs((4.0 * fine - coarse) / 3.0 - slope).max()
        worst = max(worst, float(error) / max(float(np.abs(slope).max()), 1e-2))
    return _judged("derivatives", worst, 1e-4, "relative error against central differences")


def _smooth(case: _Case) -> Requirement | None:
    """Jumps of the derivatives of E where one bond of a trimer crosses the cutoff."""
    r_cut, order = case.r_cut, max(ORDER[kind] for kind in case.kinds)
    graph = build_graph(_trimer(case.structure, r_cut), r_cut, skin=0.1 * r_cut, n_atoms=3)
    outwards = graph.positions[2] / r_cut
    potential = as_argument(case.potential, "potential")

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def derivatives(edge_mask: jax.Array, r: jax.Array) -> jax.Array:
        """E, E', E'' ... at the bond length r, (order + 1,)."""
        there = dataclasses.replace(graph, edge_mask=edge_mask)

        def energy(r: jax.Array) -> jax.Array:
            positions = graph.positions.at[2].set(r * outwards)
            return total_energy_of(potential, moved(there, positions))[None]

        function = energy
        for _ in range(order):
            function = partial(_with_slope, function)
        return function(r)

    offsets = np.array([*NEAR_CUTOFF, 0.2 * r_cut])
    inside, outside = (
        np.asarray(derivatives(graph.edge_mask, r_cut + s * offsets)) for s in (-1.0, 1.0)
    )
    alone = np.asarray(derivatives(jnp.zeros_like(graph.edge_mask), r_cut - offsets))
    if np.array_equal(alone[:, 0], inside[:, 0]):
        return None
    far, near, _ = np.abs(inside - outside)
    # Where it is continuous the difference falls with the distance; one of rounding is none.
    small = near < 1e-7 * np.maximum(1.0, np.abs(inside).max(axis=0))
    ratios = np.where(small, 0.0, near / np.where(small, 1.0, far))
    worst = int(np.argmax(ratios))
    text = f"is left of the jump of d^{worst}E/dr^{worst} at r_cut, {near[worst]:.1e} eV/Å^{worst}"
    return _judged("smooth", ratios[worst], 0.3, f"{text}, ten times nearer")


def _with_slope(function: Callable[[jax.Array], jax.Array], r: jax.Array) -> jax.Array:
    """Its values and one derivative more, in forward mode, which calculators have too."""
    values, slopes = jax.jvp(function, (r,), (jnp.ones_like(r),))
    return jnp.concatenate([values, slopes[-1:]])


def _trimer(structure: Structure, r_cut: float) -> Structure:
    """Three atoms: at the origin, at 0.6 r_cut, and at r_cut, 30 degrees off and in reach of it."""
    angle = np.radians(30.0)
    positions = r_cut * np.array([[0, 0, 0], [0.6, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    species = np.resize(np.asarray(structure.species), 3)
    return dataclasses.replace(
        structure,
        positions=jnp.asarray(positions),
        cell=jnp.asarray(10.0 * r_cut * np.eye(3)),
        species=jnp.asarray(species),
        pbc=(False, False, False),
    )
