"""How wrong a surrogate's relaxed defect is, from one call of the reference.

Nobody has the reference's relaxed geometry who could not do without the surrogate. `audit` relaxes
with the *surrogate*, asks the reference once, for energy and forces there, and says how wrong
geometry and formation energy are. With uhat the surrogate's minimiser, G = F(uhat) - F̂(uhat) what
the reference's forces differ by there, and Ê - G . (u - uhat) the *tilted* surrogate, whose forces
at uhat are the reference's, of minimiser u1:

    ubar ~ u1 = uhat + H^+ G + ...                        H the surrogate's Hessian
    error of E_f ~ [Ê_f(uhat) - E_f(uhat)] + gain,        gain = what relaxing uhat -> u1 gains

Minimising the tilted surrogate takes all of its own anharmonicity along; what is left is how wrong
its Hessian is. Where the reference's is within a share delta of it, between (1 - delta) Ĥ and
(1 + delta) Ĥ,

    1 / (1 + delta) <= ||D(ubar - uhat)|| / ||D(u1 - uhat)|| <= 1 / (1 - delta)
    1 / (1 + delta) <= [E(uhat) - E(ubar)] / gain <= 1 / (1 - delta)

(of a quadratic energy, and the first in the norm of Ĥ, which is taken to be as good as that of D;
after more calls it is ||D(ubar - u2)|| <= delta / (1 - delta) ||D(u2 - u1)||). One call cannot know
delta. It is *estimated*: a force that is wrong by eta after a relaxation of ||D uhat|| comes from a
Hessian that is wrong by eta / ||D uhat|| or so, and curvatures are c at least,

    delta ~ LEAST + eta / (c ||D uhat||),

which is the plain bound eta / c of the geometry error over the relaxation itself. A further call,
at u1, tells the curvature along the step as well: the surrogate gets that of the secant (a
symmetric update of rank one), which is most of what soft defects have wrong. And it *measures*
delta, as MEASURED_MARGIN ||D(u2 - u1)|| / ||D(u1 - uhat)||, after n calls the (n - 1)-th root of
such a ratio of the last step to the first.

Source: derived.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Structure, minimum_image
from lprjax.defects.answers import Answer, Answers
from lprjax.defects.audit_result import Audit, AuditTerm, judged
from lprjax.defects.defect import (
    Defect,
    check_defect,
    checked_displacement,
    geometry_error,
    left_basin,
    relax_defect,
)
from lprjax.defects.formation import (
    chemical_potentials,
    energy_per_atom,
    formation_energy,
    undefined,
)
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.defects.response import solve_at, stability_at
from lprjax.numerics.checks import check_positive, is_number
from lprjax.numerics.differences import Noise
from lprjax.numerics.host import on_device
from lprjax.potentials.derivatives import site_energies_and_forces
from lprjax.potentials.potential import Potential, as_argument, by_differences, cutoff_of

LEAST = 0.1
"""Of delta as it is estimated from one call: a choice, from fits to silicon whose Hessians were
wrong by up to 5 % along the correction where the estimate said 0.5 %."""
MEASURED_MARGIN = 2.0
"""On delta as a further call measures it, along one direction: a choice."""
WIDEST = 0.5
"""From this delta on there is no range: a choice, there it spans a factor of 3."""
ALONG = 0.3
"""Cosine, in the norm, of the step and of what it turned the forces by, below which their secant is
not used: a choice, its curvature is divided by that."""
PUSH = 0.1
"""Of the length ||D v|| = 1 Å, how far a saddle point is left along its mode: a choice."""
PUSHES = 3
"""How often: a choice."""
TOLERANCE = 1e-3
"""Of eigenvalues, whose errors are about its square: as in `budget`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TiltedPotential:
    """A potential with forces and a curvature added.

    E - G . (x - x0) + sign [v . (x - x0)]^2 / 2
    """

    potential: Potential
    forces: jax.Array | np.ndarray  # G, (n, 3) eV/Å
    homes: jax.Array | np.ndarray  # x0, (n, 3) Å
    secant: jax.Array | np.ndarray  # v, (n, 3) eV^1/2/Å
    sign: float  # of the curvature; 0: none
    r_cut: float = dataclasses.field(metadata={"static": True})  # Å, the potential's

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies, (n,) eV, padding included."""
        n = len(self.homes)
        moves = graph.positions[:n] - self.homes
        work, along = jnp.sum(self.forces * moves, axis=1), jnp.sum(self.secant * moves)
        bent = 0.5 * self.sign * along**2
        return self.potential(graph).at[:n].add(bent / n - work)

    @property
    def by_differences(self) -> bool:
        """Whether the potential's derivatives are differences of a calculator's numbers."""
        return by_differences(self.potential) is not None

    def noise(self, graph: Graph) -> Noise:
        """That of the calculator.

        Args:
            graph: of the atoms.

        Returns:
            Noise.
        """
        return by_differences(self.potential).noise(graph)


def audit(
    surrogate: Potential,
    defect: Defect,
    reference: Potential | str | Path | Iterable[tuple[Any, ...]] = (),
    *,
    calls: int = 1,
    acceptable_geometry: float = 0.1,
    acceptable_energy: float = 0.02,
    radius: float | None = None,
    displacement: ArrayLike | None = None,
    reservoirs: Mapping[str, Structure] | None = None,
    bulk_energy: float | None = None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
) -> Audit:
    """How wrong a surrogate's relaxed defect is, by one call of the reference at its geometry.

    No relaxation is done with the reference. Besides the defect's cell it is asked for the energy
    of the perfect crystal in the same supercell, which formation energies need, unless
    `bulk_energy` says it, and for those of the reservoirs.

    >>> found = lp.audit(surrogate, defect, reference)
    >>> found.verdict in ("trust", "add data", "cannot say")
    True

    Of a reference that runs elsewhere, in two steps, between which it is run on the file's cells:

        lp.audit(surrogate, defect).write("ask.xyz")
        found = lp.audit(surrogate, defect, "answer.xyz")

    Where it cannot say, `found.cells` are next; all answers together are the reference then.

    Args:
        surrogate: graph -> site energies (n,), eV, with r_cut.
        defect: where and on which lattice.
        reference: likewise; or what it says of the cells it was asked for, an extended-XYZ file or
            (structure, labels) of each; empty: nothing yet, `cells` are what to ask.
        calls: of the reference for the defect's cell, at most; more than one is made only where
            the verdict is "cannot say" without.
        acceptable_geometry: Å, of ||D(uhat - ubar)||: the sum over bonds, not a move of one atom;
            in the unit of the defect's norm if that is another.
        acceptable_energy: eV, of the formation energy.
        radius: L, Å, how far training data reach round the core: the forces within and beyond are
            terms of their own; None: one term.
        displacement: (n_sites, 3) Å, where the surrogate's relaxation starts; None: the defect's
            start.
        reservoirs: by symbol, a structure of that element, as in `error_budget`.
        bulk_energy: eV per atom, the reference's, of the perfect crystal at this lattice constant.
        force_tolerance: eV/Å, of the surrogate's relaxations.
        max_evaluations: gradients of the surrogate that each may take.

    Returns:
        Audit. The verdict is "trust" where both errors are acceptable anywhere in their ranges,
        "add data" where one is not anywhere in its range, and "cannot say" else: `advice` says
        why, and `cells` what to ask next.

    Raises:
        ValueError: an answer for another geometry than asked; limits that are not positive; what
            the potentials refuse.
        TypeError: no defect; a potential without cutoff, or neither a pytree nor hashable.

    Source: derived; see the head of this file for what is a bound and what an estimate.
    """
    check_defect(defect)
    check_positive(
        calls=calls, acceptable_geometry=acceptable_geometry, acceptable_energy=acceptable_energy
    )
    cutoff_of(surrogate)
    if radius is not None:
        check_positive(radius=radius)
    if bulk_energy is not None and not is_number(bulk_energy):
        raise ValueError(f"bulk_energy is {bulk_energy!r}: wanted a number in eV per atom.")
    search = partial(relax_defect, force_tolerance=force_tolerance, max_evaluations=max_evaluations)
    acceptable, answers = (acceptable_geometry, acceptable_energy), Answers(reference)
    there, stability, failures = _minimum(surrogate, defect, displacement, search)
    energies = _Energies.of(surrogate, defect, answers, reservoirs, bulk_energy)
    about = _About(surrogate, defect, there, stability, energies, radius, failures)
    steps: list[_Step] = []
    found = judged(about.found(steps), acceptable)
    while not found.failures and len(steps) < calls and found.verdict == "cannot say":
        place = steps[-1].end if steps else there
        if (answer := answers.of(defect.displaced(place))) is None:
            break
        steps.append(_step(about, place, answer, search, steps[-1] if steps else None))
        found = judged(about.found(steps), acceptable)
    return found


def _minimum(
    surrogate: Potential, defect: Defect, start: ArrayLike | None, search: Callable[..., Any]
) -> tuple[np.ndarray, float, dict[str, str]]:
    """The surrogate's minimiser, (n_sites, 3) Å, its stability constant, and what went wrong. A
    stationary point that is no minimum is left along its mode."""
    displacement = checked_displacement(defect, defect.start if start is None else start)
    stability, failures = math.nan, {}
    for pushes in range(PUSHES + 1):
        try:
            ended = search(surrogate, defect, displacement=displacement)
        except ValueError as error:
            if not pushes:  # of the start it is the caller's
                raise
            return displacement, math.nan, {"unconverged": f"after a push: {error}"}
        displacement = np.asarray(ended.displacement)
        if not ended.relaxed.converged:
            failures["unconverged"] = f"the surrogate's relaxation: {ended.relaxed.message}"
            break
        lowest = stability_at(energy_at(surrogate, defect, displacement), TOLERANCE)
        stability = float(lowest.constant)
        if stability > 0:
            break
        displacement = displacement + PUSH * np.asarray(lowest.mode)
    else:
        failures["unstable"] = f"the surrogate found no minimum: c = {stability:.3g} eV/Å^2"
    return displacement, stability, failures


class _Energies(NamedTuple):
    """What formation energies subtract, by surrogate and reference."""

    defect: Defect
    ours: tuple[float, dict[str, float]]  # eV per atom, of the crystal and of the reservoirs
    theirs: tuple[float, dict[str, float]] | None  # None: not known
    undefined: str | None  # why not
    cells: tuple[Structure, ...] = ()  # what the reference is to say the energy of

    @classmethod
    def of(
        cls,
        surrogate: Potential,
        defect: Defect,
        answers: Answers,
        reservoirs: Mapping[str, Structure] | None,
        bulk_energy: float | None,
    ) -> "_Energies":
        if why := undefined(defect, reservoirs):
            return cls(defect, (math.nan, {}), None, why)
        per_atom = lambda cell: float(energy_per_atom(surrogate, cell))  # noqa: E731
        ours = per_atom(defect.reference), chemical_potentials(per_atom, defect, reservoirs)

        def asked(*cells: Structure) -> float:
            for cell in cells:
                if (found := answers.of(cell, forces=False)) is not None:
                    return found.energy / cell.n_atoms
            return math.nan

        bulk = asked(defect.reference, defect.unit_cell) if bulk_energy is None else bulk_energy
        mu = chemical_potentials(asked, defect, reservoirs)
        if math.isnan(sum(mu.values(), bulk)):
            cells = (defect.reference, *[(reservoirs or {})[symbol] for symbol in mu])
            why = (
                "the reference did not say what the perfect crystal, or a reservoir, has for "
                "energy: have `cells` computed, or give bulk_energy in eV per atom"
            )
            return cls(defect, ours, None, why, cells)
        return cls(defect, ours, (bulk, mu), None)

    def formed(self, energy: float, by: tuple[float, dict[str, float]] | None) -> float:
        """E_f, eV; NaN where it is not known."""
        if by is None or math.isnan(by[0]):
            return math.nan
        return formation_energy(energy, self.defect, *by)


class _Step(NamedTuple):
    """One call of the reference, at u."""

    at: EnergyAt  # the surrogate around u
    place: np.ndarray  # u, (n_sites, 3) Å
    forces: np.ndarray  # G, (n_sites, 3) eV/Å
    ours: float  # Ê_f(u), eV
    theirs: float  # E_f(u), eV
    end: np.ndarray  # minimiser of the tilted surrogate, (n_sites, 3) Å
    size: float  # ||D(end - u)||, Å
    gain: float  # eV, what the tilted surrogate gains from u to there
    trouble: str | None  # why there is none


def _step(
    about: "_About",
    place: np.ndarray,
    answer: Answer,
    search: Callable[..., Any],
    before: _Step | None,
) -> _Step:
    """What an answer at `place`, after another call, says of the reference's minimiser."""
    defect, surrogate = about.defect, about.surrogate
    asked = np.asarray(defect.displaced(place).positions)
    moved = minimum_image(np.asarray(answer.structure.positions) - asked, defect.reference)[0]
    u = place + np.asarray(defect.on_sites(moved))
    at = energy_at(surrogate, defect, u)
    here = site_energies_and_forces(at.potential, at.graph)
    own = np.asarray(here.forces)[: defect.structure.n_atoms]
    change = answer.forces - own
    tilted = TiltedPotential(
        as_argument(surrogate, "surrogate"),
        change,
        np.asarray(defect.displaced(u).positions),
        *_secant(defect, u, change, before),
        cutoff_of(surrogate),
    )
    ended = search(tilted, defect, displacement=u)
    if not ended.relaxed.converged and tilted.sign:
        ended = search(dataclasses.replace(tilted, sign=0.0), defect, displacement=u)
    end = np.asarray(ended.displacement)
    trouble = None if ended.relaxed.converged else ended.relaxed.message
    trouble = trouble or left_basin(defect, u, end)
    energy = float(here.energy)
    return _Step(
        at,
        u,
        np.asarray(defect.on_sites(change)),
        about.energies.formed(energy, about.energies.ours),
        about.energies.formed(answer.energy, about.energies.theirs),
        end,
        float(geometry_error(defect, end, u)),
        energy - float(ended.energy),
        trouble,
    )


def _secant(
    defect: Defect, u: np.ndarray, change: np.ndarray, before: _Step | None
) -> tuple[np.ndarray, float]:
    """v and the sign that give the surrogate, between two calls, the reference's change of forces:
    the symmetric update of rank one. None where it would hardly act along the step between them,
    or take half the surrogate's curvature there."""
    none = np.zeros(change.shape), 0.0
    if before is None:
        return none
    moved = u - before.place
    turn = before.forces - np.asarray(defect.on_sites(change))  # (H - Ĥ) moved
    bend = float(np.vdot(turn, moved))
    sizes = (
        defect.lattice.negative_norm(on_device(turn)),
        defect.lattice.strain_norm(on_device(moved)),
    )
    if abs(bend) < ALONG * float(sizes[0]) * float(sizes[1]) or not bend:
        return none
    if bend < -WIDEST * float(np.vdot(before.forces, moved)):
        return none
    v = np.asarray(defect.on_atoms(turn)) / math.sqrt(abs(bend))
    return v, math.copysign(1.0, bend)


@dataclasses.dataclass(frozen=True)
class _About:
    """What all steps share."""

    surrogate: Potential
    defect: Defect
    there: np.ndarray  # uhat, (n_sites, 3) Å
    stability: float  # c there, eV/Å^2
    energies: _Energies
    radius: float | None  # L, Å
    failures: dict[str, str]

    def found(self, steps: Sequence[_Step]) -> Audit:
        """The audit after some steps, without verdict."""
        failures = dict(self.failures)
        if steps and steps[-1].trouble:
            failures["no_minimum"] = f"relaxing the tilted surrogate: {steps[-1].trouble}"
        place = steps[-1].end if steps and not failures else self.there
        cells = (self.defect.displaced(place), *(self.energies.cells if not steps else ()))
        nothing = Audit(
            "cannot say", "", len(steps), *_NOTHING, (), *[math.nan] * 3, on_device(self.there),
            on_device(place), cells, failures, self.energies.undefined, self.defect.lattice.units,
        )  # fmt: skip
        if not steps or failures:
            return nothing._replace(stability=self.stability)
        first, last = steps[0], steps[-1]
        eta = float(self.defect.lattice.negative_norm(on_device(first.forces)))
        delta = self._hessian_error(steps, eta)
        size = float(geometry_error(self.defect, last.end, self.there))
        lead = first.ours - last.theirs
        wide = delta if delta < WIDEST else math.nan
        rest = wide / (1.0 - wide) * last.size
        nearest = size / (1.0 + wide) if len(steps) == 1 else max(size - rest, 0.0 * rest)
        return nothing._replace(
            geometry=size,
            geometry_range=(nearest, size + rest),
            energy=lead + last.gain,
            energy_range=(lead + last.gain / (1.0 + wide), lead + last.gain / (1.0 - wide)),
            formation_energy=first.ours,
            terms=self._terms(first),
            eta=eta,
            stability=self.stability,
            hessian_error=delta,
        )

    def _hessian_error(self, steps: Sequence[_Step], eta: float) -> float:
        """delta: measured by how fast steps became shorter, or estimated from the one there is."""
        if len(steps) > 1:
            first, last = steps[0].size, steps[-1].size
            rate = (last / first) ** (1.0 / (len(steps) - 1)) if first > 0 else 0.0
            return MEASURED_MARGIN * rate
        relaxation = float(geometry_error(self.defect, self.there, 0.0))
        if not eta > 0:
            return 0.0
        scale = self.stability * relaxation
        return LEAST + eta / scale if scale > 0 else math.inf

    def _terms(self, step: _Step) -> tuple[AuditTerm, ...]:
        """The error at the surrogate's geometry, and what its forces there bring, by region."""
        lattice, force = self.defect.lattice, step.forces
        parts = {"forces": force}
        if self.radius is not None:
            near = self.defect.distances()[:, None] < self.radius
            parts = {"core": np.where(near, force, 0.0), "far field": np.where(near, 0.0, force)}
        terms = [AuditTerm("energies", 0.0, 0.0, step.ours - step.theirs)]
        for name, part in parts.items():
            shift = solve_at(step.at, part).displacement
            work = 0.5 * float(np.vdot(np.asarray(shift), force))
            norms = lattice.negative_norm(on_device(part)), lattice.strain_norm(shift)
            terms.append(AuditTerm(name, *map(float, norms), work))
        return tuple(terms)


_NO = math.nan
_NOTHING = (_NO, (_NO, _NO), _NO, (_NO, _NO), _NO)
"""Errors, their ranges and the formation energy, where the reference was not asked yet."""
