"""Bars of defects: rows are the factors' own, probes see the norm, the truth is relaxed."""

import numpy as np
import pytest

from experiments.studies import defect_bars
from experiments.studies.defect_bars import (
    DefectPoint,
    compute_defects,
    defect_points,
    gradients,
    rows_key,
    start_of,
    training_rows,
)
from experiments.studies.defect_fits import (
    bulk,
    reference_simulation,
    surrogate,
    training_factors,
    weighted_fit,
)
from experiments.systems.observations import OBSERVATION_SETS
from lprjax.defects import geometry_error, relax_defect


@pytest.fixture(scope="module")
def point():
    (found,) = defect_points(())
    return DefectPoint(**vars(found) | {"fits": found.fits[1:]})


@pytest.fixture(scope="module")
def fitted(point):
    return weighted_fit(point, training_factors(point, point.m), OBSERVATION_SETS["EFVFC"])


def test_rows_are_those_that_the_factors_were_made_of(point):
    """Of every key R^T R is the sum of rows^T rows, and as many rows there are."""
    factors = training_factors(point, point.m)
    for key, factor in factors.items():
        samples = training_rows(rows_key(point), point.m)
        rows = np.concatenate([sample[key][0] for sample in samples if key in sample])
        gram = np.asarray(factor.triangular).T @ np.asarray(factor.triangular)
        assert len(rows) == factor.n_rows
        np.testing.assert_allclose(rows.T @ rows, gram, atol=1e-9 * np.abs(gram).max())


def test_probes_see_the_change_of_the_formation_energy_and_of_the_geometry(
    point, fitted, monkeypatch
):
    """By another fit with coefficients a little off, relaxed: its formation energy and the norm of
    its geometry's change, of which the mean of 200 squares is good to 10 %."""
    monkeypatch.setattr(defect_bars, "PROBES", 200)
    defect, *_ = reference_simulation(point)
    here = relax_defect(surrogate(point, fitted), defect, displacement=start_of(defect))
    kept = np.arange(len(fitted.coefficients))
    g = gradients(point, fitted, kept, np.asarray(here.displacement))
    change = 1e-4 * np.random.default_rng(1).normal(size=len(kept)) * np.abs(fitted.coefficients)
    other = fitted._replace(coefficients=fitted.coefficients + change)
    there = relax_defect(surrogate(point, other), defect, displacement=here.displacement)
    n, row = defect.structure.n_atoms, bulk(point).row
    energy = there.energy - here.energy - n * float(row @ change)
    assert g[0] @ change == pytest.approx(energy, rel=0.02)
    moved = float(geometry_error(defect, there.displacement, here.displacement))
    assert np.sqrt(np.mean((g[1:] @ change) ** 2)) == pytest.approx(moved, rel=0.15)


def test_truth_is_that_of_two_relaxations(point, fitted):
    found = compute_defects(point)
    defect, ubar, true, _ = reference_simulation(point)
    there = relax_defect(surrogate(point, fitted), defect, displacement=start_of(defect))
    geometry = float(geometry_error(defect, there.displacement, ubar))
    assert found["geometry_true"] == pytest.approx([geometry], rel=1e-3)
    energy = there.energy - defect.structure.n_atoms * float(bulk(point).row @ fitted.coefficients)
    assert found["energy_true"] == pytest.approx([energy - true], abs=1e-6)
    for quantity in ("geometry", "energy"):
        low, high, truth = (
            found[f"{name}"][0]
            for name in (f"audit_{quantity}_low", f"audit_{quantity}", f"{quantity}_true")
        )
        assert low <= truth <= high
    assert not found["failed"][0] and found["calls"][0] in (1, 2)
