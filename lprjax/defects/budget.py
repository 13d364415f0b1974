"""The error budget of a defect simulation: what is wrong, where it comes from, what to do next.

    print(error_budget(reference, surrogate, defect, radius))

`radius` is L, how far the training data reach round the core. Both potentials are any two of this
library, or any ASE calculators by `references.ase_potential`. All terms are those of `bounds`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import build_graph
from lprjax.defects.bounds import (
    PIECES,
    Residual,
    Weights,
    elastic_mismatch,
    far_field_spectrum,
    far_field_weights,
    force_constant_mismatch,
    geometry_bound,
    split_residual,
    third_elastic_mismatch,
)
from lprjax.defects.defect import Defect, geometry_error, relax_defect
from lprjax.defects.far_field import cauchy_born_mismatch, far_field
from lprjax.defects.response import hessian_solve, lipschitz_estimate, stability_constant
from lprjax.potentials.observables import total_energy
from lprjax.potentials.potential import cutoff_of

FAILURES = ("unstable", "unpredicted", "unconverged", "left_basin")
"""A surrogate without stability at the reference's geometry; a prediction that did not converge; a
relaxation that did not; one that ended in another basin."""

# Of eigenvalues; their errors are about its square. Three digits of a prediction are plenty.
TOLERANCE = 1e-3

CURES = {
    "core": "defect cells: energies and forces, a larger weight on them, or a larger basis",
    "elastic": "virials of bulk cells under small strains",
    "force_constants": "force constants of the perfect lattice",
    "third_elastic": "virials of bulk cells under strains of a few per cent",
    "third": "forces of rattled bulk cells, or a larger training cell",
    "remainder": "a larger training cell",
}


class Term(NamedTuple):
    """One cause of error. Its geometry error is at most norm / c <= mismatch * weight / c."""

    name: str
    mismatch: float  # e, eV/A^2 (core: eV/A; third: eV/A^2; remainder: eV/A^3)
    weight: float  # of the far field, A, A^2 or A^3; 1 for the core
    norm: float  # of this piece of the residual, ||f_p||_{-1}, eV/A
    geometry: float  # norm / c, A; NaN where c <= 0
    energy: float  # eV, its share of the error at the reference's geometry, signed


class Budget(NamedTuple):
    """What `error_budget` finds; `print` it. Look at `failures` first: numbers beside one are NaN
    or describe another minimum.

    predicted / true: the effectivity of a prediction, 1 for a perfect one.
    """

    radius: float  # L, A
    terms: tuple[Term, ...]
    eta: float  # ||f||_{-1}, eV/A
    stability: float  # c of the surrogate at the reference's geometry, eV/A^2
    lipschitz: float  # M, eV/A^3, an estimate
    geometry_sum: float  # sum of the terms, A
    geometry_first_order: float  # ||D Hess^-1 f||, A
    geometry_bound: float  # Kantorovich, A; NaN where it does not apply
    geometry_true: float  # ||D uhat - D ubar||, A
    energy_first_order: float  # eV, error of E_f at the reference's geometry less f . Hess^-1 f / 2
    energy_bound: float  # eV, |error at the reference's geometry| + eta * geometry_bound
    energy_true: float  # eV, signed, surrogate less reference
    advice: str
    failures: Mapping[str, str]  # among FAILURES -> what happened

    @property
    def effectivity(self) -> dict[str, float]:
        """Predicted over true: first order and bound, of geometry and (absolute) energy."""
        pairs = {
            "geometry_first_order": (self.geometry_first_order, self.geometry_true),
            "geometry_bound": (self.geometry_bound, self.geometry_true),
            "energy_first_order": (abs(self.energy_first_order), abs(self.energy_true)),
            "energy_bound": (self.energy_bound, abs(self.energy_true)),
        }
        return {k: p / t if t > 0 else math.nan for k, (p, t) in pairs.items()}

    def __str__(self) -> str:
        return _table(self)


def error_budget(
    reference,
    surrogate,
    defect: Defect,
    radius: float,
    *,
    displacement=None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
) -> Budget:
    """The errors of a surrogate's relaxed defect, predicted term by term, beside the true ones.

    First order: uhat - ubar = Hess^-1 f with the surrogate's Hessian at ubar, and
    E_f error = (error at ubar) - f . Hess^-1 f / 2; see `bounds` for terms and bound.

    reference, surrogate: callables graph -> site energies, with r_cut. defect: on which lattice.
    radius: L, A. displacement: (n_sites, 3) A, the reference's relaxed geometry; None: relax it.
    force_tolerance: eV/A, of both relaxations; the surrogate's starts from the reference's.
    """
    failures = {}
    if displacement is None:
        displacement = _relaxed(
            "reference", reference, defect, None, force_tolerance, max_evaluations, failures
        )
    model = cauchy_born_mismatch(reference, surrogate, defect)
    split = split_residual(reference, surrogate, defect, displacement, radius, model=model)
    weights = far_field_weights(defect, split.far)
    mismatches = _mismatches(reference, surrogate, model, defect, split, weights)

    eta = float(defect.lattice.negative_norm(split.forces))
    stability, response, lipschitz = _response(surrogate, defect, displacement, split, failures)
    terms = tuple(_term(name, defect, split, mismatches, stability) for name in PIECES)
    bound = geometry_bound(eta, stability, lipschitz)
    there = _relaxed(
        "surrogate", surrogate, defect, displacement, force_tolerance, max_evaluations, failures
    )
    _check_basin(defect, displacement, there, failures)
    relaxation = _energy_change(surrogate, defect, displacement, there)
    return Budget(
        radius=float(radius),
        terms=terms,
        eta=eta,
        stability=stability,
        lipschitz=lipschitz,
        geometry_sum=sum(term.geometry for term in terms),
        geometry_first_order=float(defect.lattice.strain_norm(response)),
        geometry_bound=bound,
        geometry_true=float(geometry_error(defect, there, displacement)),
        energy_first_order=split.energy - 0.5 * float(jnp.vdot(split.forces, response)),
        energy_bound=abs(split.energy) + eta * bound,
        energy_true=split.energy + relaxation,
        advice=_advice(defect, displacement, split, terms),
        failures=failures,
    )


def _relaxed(who, potential, defect, start, force_tolerance, max_evaluations, failures):
    """The relaxed displacement, its mean taken out as that of the start is."""
    found = relax_defect(
        potential,
        defect,
        displacement=start,
        force_tolerance=force_tolerance,
        max_evaluations=max_evaluations,
    )
    if not found.relaxed.converged:
        failures["unconverged"] = f"the {who}'s relaxation: {found.relaxed.message}"
    return found.displacement


def _check_basin(defect, displacement, there, failures):
    """Half the shortest bond is farther than any atom moves within one basin."""
    moved = float(jnp.max(jnp.linalg.norm(there - displacement, axis=1)))
    limit = 0.5 * float(_shortest_bond(defect))
    if not moved < limit:
        failures["left_basin"] = (
            f"an atom of the surrogate's ended {moved:.2f} A from the reference's, more than half "
            f"the shortest bond, {limit:.2f} A"
        )


def _shortest_bond(defect):
    graph = build_graph(defect.reference, 1.1 * float(_spacing(defect)))
    lengths = jnp.linalg.norm(graph.vectors(), axis=-1)
    return jnp.min(lengths, where=graph.edge_mask, initial=math.inf)


def _spacing(defect):
    """Longest distance to the nearest atom that a crystal of this density can have (fcc), A."""
    return (math.sqrt(2.0) * defect.reference.volume / defect.reference.n_atoms) ** (1 / 3)


def _energy_change(potential, defect, before, after) -> float:
    """eV; NaN where a bad surrogate has put atoms on top of each other, which no graph can have."""

    def energy(u):
        return float(
            total_energy(potential, build_graph(defect.displaced(u), cutoff_of(potential)))
        )

    first = energy(before)
    try:
        return energy(after) - first
    except ValueError:
        return math.nan


def _response(surrogate, defect, displacement, split, failures):
    """c, Hess^-1 f and M along it."""
    stability = stability_constant(surrogate, defect, displacement, tolerance=TOLERANCE)
    if not stability.constant > 0:
        failures["unstable"] = (
            f"the surrogate at the reference's geometry has c = {stability.constant:.3g} eV/A^2"
        )
    if not stability.converged:
        failures["unpredicted"] = "the stability constant did not converge"
    response = hessian_solve(surrogate, defect, displacement, split.forces, tolerance=TOLERANCE**2)
    if not response.converged:
        failures["unpredicted"] = "the response did not converge or met negative curvature"
        shift = jnp.full_like(split.forces, jnp.nan)
        return float(stability.constant), shift, math.nan
    lipschitz = 0.0
    if float(defect.lattice.strain_norm(response.displacement)) > 0:
        along = response.displacement
        found = lipschitz_estimate(surrogate, defect, displacement, along, tolerance=10 * TOLERANCE)
        lipschitz = abs(found.constant)
    return float(stability.constant), response.displacement, lipschitz


def _mismatches(reference, surrogate, model, defect, split: Residual, weights: Weights):
    """(e, weight) of each piece. e_FC is the mean over the spectrum of the actual far field; those
    of third derivatives and beyond are measured along it."""
    per_wave = force_constant_mismatch(reference, surrogate, model, defect)
    spectrum = far_field_spectrum(defect, split.far)
    mean = math.sqrt(np.sum(per_wave**2 * spectrum) / np.sum(spectrum))
    norm = {name: float(defect.lattice.negative_norm(f)) for name, f in split.pieces.items()}
    return {
        "core": (norm["core"], 1.0),
        "elastic": (elastic_mismatch(model, defect), weights.linear),
        "force_constants": (mean, weights.linear),
        "third_elastic": (third_elastic_mismatch(model, defect), weights.quadratic),
        "third": (norm["third"] / weights.quadratic, weights.quadratic),
        "remainder": (norm["remainder"] / weights.cubic, weights.cubic),
    }


def _term(name, defect, split: Residual, mismatches, stability: float) -> Term:
    mismatch, weight = mismatches[name]
    norm = float(defect.lattice.negative_norm(split.pieces[name]))
    geometry = norm / stability if stability > 0 else math.nan
    return Term(name, mismatch, weight, norm, geometry, float(split.energies[name]))


def _advice(defect, displacement, split: Residual, terms) -> str:
    """The cure of the largest term and, where it lies outside L, the L that would do instead."""
    largest = max(terms, key=lambda term: term.norm)
    if largest.name == "core":
        return f"The core rules: add {CURES['core']}. A larger L alone would not help."
    core = next(term.norm for term in terms if term.name == "core")
    enough = _enough_radius(defect, displacement, split.radius, terms, core)
    instead = f"; or training cells of L >= {enough:.1f} A" if math.isfinite(enough) else ""
    return f"The far field rules ({largest.name}): add {CURES[largest.name]}{instead}."


def _enough_radius(defect, displacement, radius, terms, core) -> float:
    """The least L at which the far field, scaled by its weights, is below the core; inf if none."""
    powers = {"elastic": 0, "force_constants": 0, "third_elastic": 1, "third": 1, "remainder": 2}
    reach = float(np.max(defect.distances()))
    for larger in np.geomspace(radius, reach, 12)[1:-1]:
        there = far_field_weights(defect, far_field(defect, displacement, float(larger)))
        norms = [t.norm * there[powers[t.name]] / t.weight for t in terms if t.name in powers]
        if sum(norms) <= core:
            return float(larger)
    return math.inf


def _table(budget: Budget) -> str:
    columns = ("mismatch", "weight", "norm eV/A", "geometry A", "energy eV")
    effect = {name: f"{value:.2f}" for name, value in budget.effectivity.items()}
    lines = [
        f"Error budget, training data to L = {budget.radius:.2f} A",
        f"{'term':<16}" + "".join(f"{column:>12}" for column in columns),
    ]
    for name, *numbers in budget.terms:
        lines.append(f"{name:<16}" + "".join(f"{number:>12.3e}" for number in numbers))
    return "\n".join(
        [
            *lines,
            f"eta {budget.eta:.3e} eV/A, c {budget.stability:.3e} eV/A^2, "
            f"M {budget.lipschitz:.3e} eV/A^3",
            f"geometry: true {budget.geometry_true:.3e} A; predicted / true: first order "
            f"{effect['geometry_first_order']}, bound {effect['geometry_bound']}",
            f"energy: true {budget.energy_true:.3e} eV; predicted / true: first order "
            f"{effect['energy_first_order']}, bound {effect['energy_bound']}",
            budget.advice,
            *(f"FAILED, {kind}: {text}" for kind, text in budget.failures.items()),
        ]
    )
