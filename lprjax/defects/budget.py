"""The error budget of a defect simulation: what is wrong, where it comes from, what to do next.

`error_budget(reference, surrogate, defect, radius)` is to be printed: a table of terms, each with
its mismatch, weight, and share of both errors; then the errors, predicted over true; then what to
add. `radius` is L, how far the training data reach round the core. Both potentials are any two of
this library, or any ASE calculators by `ase_potential`. All terms are those of `bounds`; all norms
are those of the defect, and the weights of the terms that are bounded contain kappa, what its
missing sites cost there (`transfer`).

What is a bound, and of what. Of elastic, internal_strain, force_constants and third_elastic,
mismatch * weight bounds the norm, whatever the defect (some times above it; third_elastic some
hundreds of times in d = 3). Of core, third and remainder it *is* the norm, by construction: their
mismatch is measured along the actual far field. Both errors are enclosed from both sides after a
step or a few towards the surrogate's minimiser (`enclosures`), closely where first order is good.
The plain bounds beside them are Kantorovich's from the reference's geometry, with an estimate of M,
and hold for h = M eta / c^2 <= 1/2; beyond, `failures` has "unproven", and even the first order may
be far off.

Beside a calculator whose numbers have noise every term has a bar, what the noise makes of it
(`noise_bars`), and there is no advice where bars leave open which term is the largest. `notes` say
how large the noise is, how far apart calls were, at what force relaxing ended, and how many calls
there were; a bar of them with the time left is shown meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.structures import Structure
from lprjax.crystals.strain_norm import PLAIN, NormUnits
from lprjax.defects.bounds import (
    PIECES,
    Residual,
    Side,
    elastic_mismatch,
    far_field_spectrum,
    far_field_weights,
    force_constant_mismatch,
    geometry_bound,
    internal_strain_mismatch,
    kantorovich,
    mismatch_of,
    partition,
    relaxing_bound,
    third_elastic_mismatch,
)
from lprjax.defects.budget_summary import budget_figure, budget_table
from lprjax.defects.defect import (
    Defect,
    RelaxedDefect,
    check_defect,
    checked_displacement,
    geometry_error,
    left_basin,
    relax_defect,
)
from lprjax.defects.enclosures import MARGIN, Enclosure, enclosure_after_steps
from lprjax.defects.far_field import CauchyBorn, far_field
from lprjax.defects.first_order import FirstOrder, first_order_at
from lprjax.defects.formation import undefined
from lprjax.defects.hessian import EnergyAt
from lprjax.defects.noise_bars import Bar, calls_to_come, noise_of_pieces, note_of
from lprjax.defects.response import lipschitz_at, stability_at
from lprjax.defects.transfer import transfer_constant
from lprjax.potentials.potential import Potential, by_differences, cutoff_of
from lprjax.potentials.recorded_calls import Recorder, recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAILURES = ("unstable", "unpredicted", "unproven", "unconverged", "left_basin")
"""A surrogate without stability at the reference's geometry; a prediction that did not converge;
one that no theorem covers, h > 1/2; a relaxation that did not converge; one that ended in another
basin."""

TOLERANCE = 1e-3
"""Of eigenvalues, whose errors are about its square: a choice, three digits of a prediction."""

SURE = 2.0
"""Standard deviations of noise by which a term is to lead for an advice: a choice."""

CURES = {
    "core": "defect cells: energies and forces, a larger weight on them, or a larger basis",
    "elastic": "virials of bulk cells under small strains",
    "internal_strain": "forces on bulk cells under small strains, or force constants (virials do "
    "not see it)",
    "force_constants": "force constants of the perfect lattice",
    "third_elastic": "virials of bulk cells under strains of a few per cent",
    "third": "forces of rattled bulk cells, or a larger training cell",
    "remainder": "a larger training cell",
}
"""What to add to the training data against each of PIECES."""

MEASURED = ("core", "third", "remainder")
"""The pieces whose mismatch is the norm over the weight: no bound, an equality by construction."""


PARTS = 4
"""Of the work of a budget, as its bar of progress counts it."""


class Term(NamedTuple):
    """One cause of error. Its geometry error is at most norm / c, to first order, and
    norm <= mismatch * weight: an equality by construction for MEASURED, a bound for the others."""

    name: str  # one of PIECES
    mismatch: float  # e, the norm's unit over the weight's
    weight: float  # of the far field, Å, Å^2 or Å^3, times kappa where it bounds; 1 for the core
    norm: float  # of this piece of the residual, ||f_p||_{-1}, eV/Å
    geometry: float  # norm / c, Å; NaN where c <= 0
    energy: float  # eV, its share of the error at the reference's geometry, signed
    noise: float = 0.0  # eV/Å, what the noise of calculators makes of the norm
    energy_noise: float = 0.0  # eV, and of the energy


class Budget(NamedTuple):
    """What `error_budget` finds; `print` it.

    Look at `failures` first: numbers beside one are NaN or describe another minimum.
    """

    radius: float  # L, Å
    terms: tuple[Term, ...]
    eta: float  # ||f||_{-1}, eV/Å
    stability: float  # c of the surrogate at the reference's geometry, eV/Å^2
    lipschitz: float  # M, eV/Å^3, an estimate
    kantorovich: float  # h = M eta / c^2; above 1/2 no theorem: bounds NaN, first order unproven
    geometry_sum: float  # sum of the terms, Å
    geometry_first_order: float  # ||D Hess^-1 f||, Å
    geometry_bound: float  # Kantorovich, Å; NaN where it does not apply
    geometry_true: float  # ||D uhat - D ubar||, Å
    energy_first_order: float  # eV, error of E_f at the reference's geometry less f . Hess^-1 f / 2
    energy_bound: float  # eV, |error there| or |error there less eta^2 / 2c (1 + h/3 + ...)|
    energy_true: float  # eV, signed, surrogate less reference
    advice: str  # what to do next
    failures: Mapping[str, str]  # among FAILURES -> what happened
    enclosure: Enclosure  # of both errors, after one step or a few: narrower than the bounds
    undefined: str | None = None  # why E_f has no value, and energies are NaN
    notes: tuple[str, ...] = ()  # of calculators: their noise, steps, calls, where relaxing ended
    units: NormUnits = PLAIN  # of geometries, eta, c and M: here Å ..., of energy norms eV^1/2 ...

    @property
    def effectivity(self) -> dict[str, float]:
        """Predicted over true, 1 for a perfect prediction.

        Of first order, of the upper end of the enclosure and of the plain bound, of geometry and
        (absolute) energy; NaN where the truth is zero.
        """
        of_energy = max(map(abs, self.enclosure.energy_range))
        pairs = {
            "geometry_first_order": (self.geometry_first_order, self.geometry_true),
            "geometry_enclosure": (self.enclosure.geometry_range[1], self.geometry_true),
            "geometry_bound": (self.geometry_bound, self.geometry_true),
            "energy_first_order": (abs(self.energy_first_order), abs(self.energy_true)),
            "energy_enclosure": (of_energy, abs(self.energy_true)),
            "energy_bound": (self.energy_bound, abs(self.energy_true)),
        }
        return {k: p / t if t > 0 else math.nan for k, (p, t) in pairs.items()}

    def __str__(self) -> str:
        return _table(self)

    def _repr_html_(self) -> str:
        return budget_table(self)._repr_html_()

    def plot(self) -> Figure:
        """Terms, predictions and truth of both errors as bars; see `budget_figure`."""
        return budget_figure(self)


def error_budget(
    reference: Potential,
    surrogate: Potential,
    defect: Defect,
    radius: float,
    *,
    displacement: ArrayLike | None = None,
    reservoirs: Mapping[str, Structure] | None = None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    certify: bool = False,
) -> Budget:
    """The errors of a surrogate's relaxed defect, predicted term by term, beside the true ones.

    With ubar the reference's relaxed geometry, f the forces that the surrogate leaves there and H
    its Hessian there, uhat - ubar = H^+ f and the error of E_f is (error at ubar) - f . H^+ f / 2,
    to first order; see `bounds` for the terms and the bound.

    Args:
        reference: graph -> site energies (n,), eV, with r_cut.
        surrogate: graph -> site energies (n,), eV, with r_cut.
        defect: where and on which lattice.
        radius: L, Å, how far the training data reach round the core.
        displacement: (n_sites, 3) Å, the reference's relaxed geometry; None: relax it.
        reservoirs: by symbol, a structure of that element, whose energy per atom each potential
            computes; see `defects.formation` for which are needed. Where one is missing the
            energies are NaN, and `undefined` names it.
        force_tolerance: eV/Å, of both relaxations; the surrogate's starts from the reference's.
        max_evaluations: gradients that each relaxation may take.
        certify: the enclosure's constants on their safe side; see `enclosures`.

    Returns:
        Budget. What failed is in its `failures`.

    Raises:
        ValueError: as `far_field` for the radius, and what the potentials refuse.
        TypeError: no defect; a potential without cutoff, or neither a pytree nor hashable.
    """
    check_defect(defect)
    for potential in (reference, surrogate):
        cutoff_of(potential)  # refuses what is none before anything costs time
    with recorded(reference=reference, surrogate=surrogate) as (recorder, pair):
        relax = partial(
            relax_defect, force_tolerance=force_tolerance, max_evaluations=max_evaluations
        )
        return _budget(*pair, defect, radius, displacement, reservoirs, relax, recorder, certify)


def _budget(
    reference: Potential,
    surrogate: Potential,
    defect: Defect,
    radius: float,
    displacement: ArrayLike | None,
    reservoirs: Mapping[str, Structure] | None,
    relax: Callable[..., RelaxedDefect],
    recorder: Recorder,
    certify: bool,
) -> Budget:
    """`error_budget` of potentials whose calls are recorded."""
    failures: dict[str, str] = {}
    ended: dict[str, RelaxedDefect] = {}
    pair = {"reference": reference, "surrogate": surrogate}
    recorder.expect(sum(calls_to_come(p, defect, displacement is None) for p in pair.values()))
    if displacement is None:
        ended["reference"] = relax(reference, defect)
        displacement = _displacement("reference", ended["reference"], failures)
        recorder.expect(sum(calls_to_come(p, defect, False) for p in pair.values()))

    checked_displacement(defect, displacement)
    recorder.step("the reference's geometry", PARTS)
    # The residual at the reference's geometry, by its causes.
    theirs, ours = (
        Side(p, defect, displacement, reservoirs=reservoirs) for p in (reference, surrogate)
    )
    for side in (theirs, ours):
        if itself := by_differences(side.potential):
            itself.noise(side.at.graph)
    model = mismatch_of(theirs, ours)
    w = far_field(defect, displacement, radius, model.followed)
    theirs, ours = theirs.under(w), ours.under(w)
    split = partition(theirs, ours, model, w, radius)
    recorder.step("causes of forces", PARTS)

    # The surrogate's Hessian there: its least curvature, its response, how fast it changes.
    stability = _stability(ours.at, failures)
    first = first_order_at(ours.at, split.forces, split.energy, TOLERANCE**2)
    lipschitz = _lipschitz(ours.at, first, failures)
    x = first.response.displacement if first.response.converged else math.nan * displacement
    enclosure = enclosure_after_steps(
        ours.at,
        displacement,
        x,
        split.energy,
        (stability, MARGIN * lipschitz),
        certify=certify,
    )
    constants = first.eta, stability, lipschitz
    if (h := kantorovich(*constants)) > 0.5:
        failures["unproven"] = (
            f"h = M eta / c^2 = {h:.2g} is above 1/2: no theorem bounds the error, and first order "
            "may be far off"
        )

    recorder.step("response and stability", PARTS)
    # The truth, by relaxing.
    ended["surrogate"] = relaxed = relax(surrogate, defect, displacement=displacement)
    there = _displacement("surrogate", relaxed, failures)
    if why := left_basin(defect, displacement, there):
        failures["left_basin"] = f"between the reference's and the surrogate's geometry {why}"

    recorder.step("the surrogate's geometry", PARTS)
    noise = noise_of_pieces(theirs, ours, split, recorder)
    terms = _terms(theirs, ours, model, split, stability, noise)
    return Budget(
        radius=float(radius),
        terms=terms,
        eta=first.eta,
        stability=stability,
        lipschitz=lipschitz,
        kantorovich=h,
        geometry_sum=sum(term.geometry for term in terms),
        geometry_first_order=first.geometry,
        geometry_bound=geometry_bound(*constants),
        geometry_true=float(geometry_error(defect, there, displacement)),
        energy_first_order=first.energy,
        energy_bound=_energy_bound(split.energy, relaxing_bound(*constants)),
        energy_true=split.energy + relaxed.energy - float(ours.labels.energy),
        advice=_advice(defect, displacement, split, terms, model.followed),
        failures=failures,
        enclosure=enclosure,
        undefined=undefined(defect, reservoirs),
        units=defect.lattice.units,
        notes=tuple(
            note_of(who, p, ours.at.graph, ended.get(who), recorder)
            for who, p in pair.items()
            if by_differences(p)
        ),
    )


def _energy_bound(at_reference: float, relaxing: float) -> float:
    """|E_f error|, which lies between that at the reference's geometry and that less the gain."""
    return math.nan if math.isnan(relaxing) else max(abs(at_reference), relaxing - at_reference)


def _displacement(who: str, found: RelaxedDefect, failures: dict[str, str]) -> jax.Array:
    if not found.relaxed.converged:
        failures["unconverged"] = f"the {who}'s relaxation: {found.relaxed.message}"
    return found.displacement


def _stability(at: EnergyAt, failures: dict[str, str]) -> float:
    """c, eV/Å^2."""
    found = stability_at(at, TOLERANCE)
    if not found.constant > 0:
        failures["unstable"] = (
            f"the surrogate at the reference's geometry has c = {found.constant:.3g} eV/Å^2"
        )
    if not found.converged:
        failures["unpredicted"] = "the stability constant did not converge"
    return float(found.constant)


def _lipschitz(at: EnergyAt, first: FirstOrder, failures: dict[str, str]) -> float:
    """M along the response, eV/Å^3; NaN where there is none."""
    if not first.response.converged:
        failures["unpredicted"] = "the response did not converge or met negative curvature"
        return math.nan
    if not first.geometry > 0:
        return 0.0
    return abs(lipschitz_at(at, first.response.displacement, 10 * TOLERANCE).constant)


def _terms(
    theirs: Side,
    ours: Side,
    model: CauchyBorn,
    split: Residual,
    stability: float,
    noise: Mapping[str, Bar],
) -> tuple[Term, ...]:
    defect = ours.defect
    norms = {name: float(defect.lattice.negative_norm(f)) for name, f in split.pieces.items()}
    mismatches = _mismatches(theirs, ours, model, split, norms)
    return tuple(
        Term(
            name,
            *mismatches[name],
            norms[name],
            norms[name] / stability if stability > 0 else math.nan,
            float(split.energies[name]),
            *noise[name],
        )
        for name in PIECES
    )


def _mismatches(
    theirs: Side, ours: Side, model: CauchyBorn, split: Residual, norm: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """(e, weight) of each piece. e_FC is the mean over the spectrum of the actual far field; those
    of MEASURED are what makes the product the norm."""
    defect, weights = ours.defect, far_field_weights(ours.defect, split.far)
    kappa = transfer_constant(defect.lattice)
    linear = kappa * weights.linear
    constants = theirs.force_constants(), ours.force_constants()
    per_wave = force_constant_mismatch(*constants, model, defect)
    spectrum = far_field_spectrum(defect, split.far)
    mean = math.sqrt(np.sum(per_wave**2 * spectrum) / np.sum(spectrum))
    return {
        "core": (norm["core"], 1.0),
        "elastic": (elastic_mismatch(model, defect), linear),
        "internal_strain": (internal_strain_mismatch(model, defect), linear),
        "force_constants": (mean, linear),
        "third_elastic": (third_elastic_mismatch(model), kappa * weights.quadratic),
        "third": (norm["third"] / weights.quadratic, weights.quadratic),
        "remainder": (norm["remainder"] / weights.cubic, weights.cubic),
    }


def _advice(
    defect: Defect,
    displacement: ArrayLike,
    split: Residual,
    terms: tuple[Term, ...],
    internal: ArrayLike | None,
) -> str:
    """The cure of the largest term and, where it lies outside L, the L that would do instead; none
    where noise decides which is the largest."""
    largest = max(terms, key=lambda term: term.norm)
    rivals = [
        term
        for term in terms
        if term is not largest
        and 0 < math.hypot(term.noise, largest.noise)
        and largest.norm - term.norm < SURE * math.hypot(term.noise, largest.noise)
    ]
    if rivals:
        bars = ", ".join(f"{t.name} {t.norm:.2g} ± {t.noise:.1g}" for t in (largest, *rivals))
        return (
            f"No advice: the noise of the forces decides which term is the largest ({bars} eV/Å). "
            "Lower it: double precision, tighter self-consistency, denser sampling."
        )
    if largest.name == "core":
        return f"The core rules: add {CURES['core']}. A larger L alone would not help."
    core = next(term.norm for term in terms if term.name == "core")
    enough = _enough_radius(defect, displacement, split.radius, terms, core, internal)
    instead = f"; or training cells of L >= {enough:.1f} Å" if math.isfinite(enough) else ""
    return f"The far field rules ({largest.name}): add {CURES[largest.name]}{instead}."


POWERS = {
    "elastic": 0,
    "internal_strain": 0,
    "force_constants": 0,
    "third_elastic": 1,
    "third": 1,
    "remainder": 2,
}
"""Which of `Weights` is that of a piece."""


def _enough_radius(
    defect: Defect,
    displacement: ArrayLike,
    radius: float,
    terms: tuple[Term, ...],
    core: float,
    internal: ArrayLike | None,
) -> float:
    """The least L at which the far field, scaled by its weights, is below the core; inf if none."""
    here = far_field_weights(defect, far_field(defect, displacement, radius, internal))
    reach = float(np.max(defect.distances()))
    for larger in np.geomspace(radius, reach, 12)[1:-1]:
        w = far_field(defect, displacement, float(larger), internal)
        falls = [there / now for there, now in zip(far_field_weights(defect, w), here, strict=True)]
        if sum(t.norm * falls[POWERS[t.name]] for t in terms if t.name in POWERS) <= core:
            return float(larger)
    return math.inf


def _table(budget: Budget) -> str:
    norm, dual, curvature, change = budget.units
    columns = ("mismatch", "weight", f"norm {dual}", f"geometry {norm}", "energy eV")
    noisy = any(term.noise or term.energy_noise for term in budget.terms)
    columns += (f"± {dual}", "± eV") if noisy else ()
    effect = {name: f"{value:.2f}" for name, value in budget.effectivity.items()}
    lines = [
        f"Error budget, training data to L = {budget.radius:.2f} Å",
        f"{'term':<17}" + "".join(f"{column:>12}" for column in columns),
    ]
    for name, *numbers in (term[: 1 + len(columns)] for term in budget.terms):
        mark = "=" if name in MEASURED else " "
        lines.append(f"{name:<16}{mark}" + "".join(f"{number:>12.3e}" for number in numbers))
    unproven = ", ABOVE 1/2: NO BOUND" if budget.kantorovich > 0.5 else ""
    return "\n".join(
        [
            *lines,
            "norm <= mismatch x weight; =: equal by construction, no bound",
            f"eta {budget.eta:.3e} {dual}, c {budget.stability:.3e} {curvature}, "
            f"M {budget.lipschitz:.3e} {change}, h {budget.kantorovich:.2g}{unproven}",
            f"geometry: true {budget.geometry_true:.3e} {norm}, enclosed in "
            f"{_range(budget.enclosure.geometry_range)}; predicted / true: first order "
            f"{effect['geometry_first_order']}, plain bound {effect['geometry_bound']}",
            f"energy: undefined; {budget.undefined}"
            if budget.undefined
            else f"energy: true {budget.energy_true:.3e} eV, enclosed in "
            f"{_range(budget.enclosure.energy_range)}; predicted / true: first order "
            f"{effect['energy_first_order']}, plain bound {effect['energy_bound']}",
            _certainty(budget.enclosure),
            budget.advice,
            *budget.notes,
            *(f"FAILED, {kind}: {text}" for kind, text in budget.failures.items()),
        ]
    )


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"[{low:.3e}, {high:.3e}]" if math.isfinite(low + high) else "nothing"


def _certainty(found: Enclosure) -> str:
    """Whether an enclosure is proven."""
    steps = f"enclosures after {found.steps} step{'s' * (found.steps != 1)}"
    return f"{steps}: " + ("guaranteed" if found.guaranteed else f"estimates, as {found.why_not}")
