"""Error bars of relaxed defects, whose truth is two relaxations: without, with one, with all calls.

The fits are those of `defect_survey` (many crystals and defects), `vacancy_convergence` (sizes of
training cells and observation sets) and `fit_accuracy` (bases and ridges). Each relaxes its defect
from the lattice, as somebody would who has no reference, and is asked how wrong geometry and
formation energy are:

- without any reference call: deviations of the formation energy g . c at the fit's own geometry and
  of the geometry, to first order H^+ X dc, by what the rows of the fit say (`influence`), and the
  residual of the training cells set into the simulation (`transferred_error`);
- with one call, at the fit's geometry: `audit`, and a second where one cannot say;
- with the reference's relaxed geometry: first order, plain bound, enclosure.

||D H^+ X dc||^2 is the mean of (z . D H^+ X dc)^2 over white noise z on the bonds; PROBES of them
make a prediction each, linear in c, of which every bar is known. 90 % bars of deviations are
1.645 of them, of the norm as of the energy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import jax
import numpy as np

from experiments.studies import defect_fits
from experiments.studies.defect_fits import (
    NUDGE,
    TRAINING,
    bulk,
    defect_cells,
    labelled,
    only,
    reference_simulation,
    strained_cells,
    surrogate,
    training_factors,
    weighted_fit,
)
from experiments.studies.nested_bases import columns
from experiments.studies.pairs import FITTED
from experiments.studies.pairs import Config as SurveyConfig
from experiments.studies.pairs import points as survey_points
from experiments.studies.predictions import predicted_and_enclosed
from experiments.studies.size_sweep import Config as SweepConfig
from experiments.studies.size_sweep import points as sweep_points
from experiments.systems.observations import OBSERVATION_SETS
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import rattled, supercell
from lprjax.defects import Defect, audit, geometry_error, left_basin
from lprjax.defects.bounds import geometry_bound
from lprjax.defects.formation import formation_energy
from lprjax.defects.hessian import energy_at
from lprjax.defects.residual_transfer import transferred_error
from lprjax.defects.response import solve_at
from lprjax.potentials.observables import observe
from lprjax.regression.assembly import structure_rows
from lprjax.regression.factors import projected
from lprjax.regression.fitting import Fit
from lprjax.regression.influences import influence
from lprjax.regression.intervals import error_bars
from lprjax.regression.rows import design_rows

PROBES = 12
"""Of the geometry: their mean square is good to 40 %, the norm to 20 %: a choice."""
NINETY = 1.645
"""Standard deviations of a normal distribution that hold 90 %."""
UNCALLED = ("rigidity", "sandwich", "jackknife", "pops_rms", "pops", "left_out_scores", "transfer")
"""Bars that need no reference call."""
CALLED = ("audit", "first_order", "enclosure", "plain_bound")
QUANTITIES = ("geometry", "energy")
SOURCES = ("survey", "sizes", "accuracy")
FITS = tuple[tuple[str, int, int, float], ...]


@dataclass(frozen=True)
class DefectPoint(defect_fits.Config):
    """All fits to one set of training cells; order and degree are those of the largest basis."""

    m: int = 2  # cubic cells per side of the training cells
    source: Literal[*SOURCES] = "survey"  # where the fits are from
    fits: FITS = ()  # observation set, order, degree, ridge of each


def defect_points(sources: Sequence[str]) -> list[DefectPoint]:
    """The fits of three experiments.

    Args:
        sources: among SOURCES; empty: two small fits in their place.

    Returns:
        A point for each set of training cells.
    """
    if not sources:
        one = defect_fits.Config(**defect_fits.TINY)
        fits = (("EF", 2, 4, one.ridge), ("EFVFC", 2, 4, one.ridge))
        return [DefectPoint(**vars(one), m=2, fits=fits)]
    found = []
    if "survey" in sources:
        for p in survey_points(SurveyConfig()):
            fits = tuple((name, p.order, p.degree, p.ridge) for name in FITTED)
            found.append(DefectPoint(**vars(p), fits=fits))
    if "sizes" in sources:
        for p in sweep_points(SweepConfig()):
            fits = tuple((name, p.order, p.degree, p.ridge) for name in p.fitted)
            shared = vars(only_fields(p))
            found.append(DefectPoint(**shared, m=p.sizes[0], source="sizes", fits=fits))
    if "accuracy" in sources:
        bases = [(o, d) for o in (2, 3) for d in (4, 5, 6, 7, 8, 10, 12)]
        fits = tuple(("EF", o, d, r) for o, d in bases for r in (1e-10, 1e-6, 1e-3))
        found.append(DefectPoint(target=7, copies=120, m=4, source="accuracy", fits=fits))
    return found


def only_fields(config: defect_fits.Config) -> defect_fits.Config:
    """The configuration of `defect_fits` inside that of a figure."""
    return only(config, *defect_fits.Config.__dataclass_fields__)


def compute_defects(point: DefectPoint) -> dict[str, Any]:
    """The arrays of one point, over its fits.

    Returns:
        "geometry_true" Å and "energy_true" eV (signed); "failed", and why in "failure"; by bar
        "<bar>_geometry" and "<bar>_energy", how large the error is at most with 90 % (of first
        order: predicted); of "audit", "enclosure" also "..._low" and "..._predicted", of audit
        "calls" and "hessian_error".
    """
    found = [one_fit(point, *fit) for fit in point.fits]
    names = list(dict.fromkeys(name for one in found for name in one))
    return {
        name: np.array([one.get(name, "" if name == "failure" else np.nan) for one in found])
        for name in names
    }


def one_fit(point: DefectPoint, name: str, order: int, degree: int, ridge: float) -> dict[str, Any]:
    """Truth and bars of one fit."""
    kept = columns(point.spec, order, degree)
    onto = np.eye(point.spec.n_columns)[:, kept]
    factors = {key: projected(f, onto) for key, f in training_factors(point, point.m).items()}
    config = replace(point, order=order, degree=degree, ridge=ridge)
    result = weighted_fit(config, factors, OBSERVATION_SETS[name])
    whole = np.zeros(point.spec.n_columns)
    whole[kept] = result.coefficients
    of_whole = result._replace(coefficients=whole)
    found: dict[str, Any] = {"rank_deficient": result.rank < len(kept)}
    asked = by_one_call(point, of_whole)
    found |= asked
    if asked["failed"]:
        return found
    there = found.pop("displacement")
    if result.rank == len(kept):
        found |= by_the_rows(point, result, kept, there)
    return found | by_transfer(point, of_whole, there) | by_the_reference(point, of_whole)


def by_one_call(point: DefectPoint, result: Fit) -> dict[str, Any]:
    """`audit`, and the truth beside it."""
    defect, ubar, true, _ = reference_simulation(point)
    reference, potential = point.crystal.potential, surrogate(point, result)
    found = audit(potential, defect, reference, displacement=start_of(defect))
    there = found.displacement
    why = "; ".join(f"{kind}: {text}" for kind, text in found.failures.items())
    why = why or left_basin(defect, ubar, there) or ""
    if why:
        return {"failed": True, "failure": why}
    if math.isnan(found.geometry_range[1]):
        found = audit(potential, defect, reference, displacement=there, calls=2)
    return {
        "failed": False,
        "failure": "",
        "geometry_true": float(geometry_error(defect, there, ubar)),
        "energy_true": found.formation_energy - true,
        "calls": found.calls,
        "hessian_error": found.hessian_error,
        "audit_geometry_predicted": found.geometry,
        "audit_geometry_low": found.geometry_range[0],
        "audit_geometry": found.geometry_range[1],
        "audit_energy_predicted": found.energy,
        "audit_energy_low": found.energy_range[0],
        "audit_energy": found.energy_range[1],
        "displacement": np.asarray(there),
    }


def start_of(defect: Defect) -> np.ndarray:
    """The lattice with its atoms nudged, as the reference's relaxation starts."""
    moved = rattled(defect.structure, jax.random.key(0), NUDGE).positions
    nudge = np.subtract(moved, defect.structure.positions)
    return np.add(defect.start, defect.on_sites(nudge))


def by_the_rows(
    point: DefectPoint, result: Fit, kept: np.ndarray, there: np.ndarray
) -> dict[str, Any]:
    """What the rows of the fit say of its formation energy and geometry."""
    g = gradients(point, result, kept, there)
    samples = [
        {key: (rows[:, kept], y) for key, (rows, y) in sample.items() if key in result.weights}
        for sample in training_rows(rows_key(point), point.m)
    ]
    moves = influence(result, [s for s in samples if s], predictions=g)
    weighted = [w * moves.residuals[key] for key, w in result.weights.items()]
    n = sum(map(len, weighted))
    s = math.sqrt(sum(float(r @ r) for r in weighted) / max(n - len(kept), 1))
    widest = np.maximum(np.abs(moves.moves.rows.low), np.abs(moves.moves.rows.high))
    bars = {
        "rigidity": NINETY * s * moves.deviations(g, "rigidity"),
        "sandwich": NINETY * moves.deviations(g, "sandwich"),
        "jackknife": NINETY * moves.deviations(g, "jackknife"),
        "pops_rms": NINETY * moves.moves.rows.rms,
        "pops": widest,
    }
    scores = [error_bars(moves, g, key) for key in (("energy", "defect"), "forces")
              if key in result.weights]  # fmt: skip
    bars["left_out_scores"] = np.append(scores[0].half_widths[:1], scores[-1].half_widths[1:])
    outside = bool(scores[0].outside[0])
    found = {f"{name}_energy": float(bar[0]) for name, bar in bars.items()}
    norm = {f"{k}_geometry": math.sqrt(np.mean(np.square(bar[1:]))) for k, bar in bars.items()}
    return found | norm | {"outside_energy": outside}


def gradients(point: DefectPoint, result: Fit, kept: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(1 + PROBES, K): of the formation energy, and of the geometry along white noise on bonds."""
    defect, *_ = reference_simulation(point)
    whole = np.zeros(point.spec.n_columns)
    whole[kept] = result.coefficients
    potential = surrogate(point, result._replace(coefficients=whole))
    graph = build_graph(defect.displaced(there), point.spec.r_cut)
    rows: Any = design_rows(point.spec, graph, ("energy", "forces"))
    n, at = defect.structure.n_atoms, energy_at(potential, defect, there)
    of_energy = formation_energy(np.asarray(rows.energy), defect, bulk(point).row)
    forces, rng = np.asarray(rows.forces)[:n], np.random.default_rng(0)
    found = [of_energy]
    for _ in range(PROBES):
        pull = defect.lattice.random_force(rng)
        adjoint = solve_at(at, pull, 1e-3).displacement
        found.append(np.einsum("ni,nik->k", np.asarray(defect.on_atoms(adjoint)), forces))
    return np.stack(found)[:, kept]


def rows_key(point: DefectPoint) -> defect_fits.Config:
    """What the training rows depend on."""
    return only(point, *TRAINING)


@lru_cache(maxsize=1)
def training_rows(config: defect_fits.Config, m: int) -> list[dict[Any, Any]]:
    """The rows that `training_factors` compresses, of every structure."""
    lattice = [supercell(config.crystal.unit_cell, (config.lattice_cells,) * 3)]
    atoms, perfect = config.crystal.basis_atoms, bulk(config)
    parts = (
        (defect_cells(config, m), ("energy", "forces"), (0,), perfect),
        (strained_cells(config), ("virial",), (0,), None),
        (lattice, ("force_constants",), atoms, None),
    )
    found: list[dict[Any, Any]] = [
        {("energy", "bulk"): (perfect.row[None], np.array([perfect.energy]))}
    ]
    for structures, kinds, which, origin in parts:
        samples = labelled(config, structures, kinds, which)
        rows = structure_rows(config.spec, samples, kinds, atoms=which, origin=origin)
        found += [
            {("energy", "defect") if k == "energy" else k: both for k, both in sample.items()}
            for _, sample in sorted(rows, key=lambda pair: pair[0])
        ]
    return found


@lru_cache(maxsize=1)
def training_cells(config: defect_fits.Config, m: int) -> list[tuple[Any, Any]]:
    """The defect cells with the reference's labels."""
    reference = config.crystal.potential
    return [
        (cell, observe(reference, build_graph(cell, reference.r_cut), ("energy", "forces")))
        for cell in defect_cells(config, m)
    ]


def by_transfer(point: DefectPoint, result: Fit, there: np.ndarray) -> dict[str, Any]:
    """What the training cells' residuals say."""
    defect, small = (reference_simulation(point, m).defect for m in (point.target, point.m))
    perfect = bulk(point)
    found = transferred_error(
        surrogate(point, result),
        defect,
        there,
        small,
        training_cells(rows_key(point), point.m),
        bulk=(float(perfect.row @ result.coefficients), perfect.energy),
        draws=1,
    )
    return {"transfer_geometry": found.geometry, "transfer_energy": abs(found.energy)}


def by_the_reference(point: DefectPoint, result: Fit) -> dict[str, Any]:
    """First order, plain bound and enclosure from the reference's relaxed geometry."""
    found = predicted_and_enclosed(point, result)
    if found["unstable"] or found["unpredicted"]:
        return {}
    c, eta = found["stability"], found["eta"]
    return {
        "first_order_geometry": found["geometry_predicted"],
        "first_order_energy": abs(found["energy_predicted"]),
        "plain_bound_geometry": geometry_bound(eta, c, found["kantorovich"] * c**2 / eta),
        "stability": c,
        "eta": eta,
        **{name: value for name, value in found.items() if name.startswith("enclosure")},
    }
