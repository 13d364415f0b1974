"""The maps over the loss weights: their fits, their true errors, and the theory's constants."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import loss_weights as figure
from experiments.panels.weight_maps import ERRORS, MISMATCHES
from experiments.studies.defect_fits import mismatches, simulate, training_factors, weighted_fit
from experiments.studies.predictions import constants, recommended
from lprjax.atoms.structures import supercell
from lprjax.crystals.strain_norm import reference_lattice
from tests.helpers.figures import check_figure

TINY = ["--preset", "smoke", "--grid", "2"]
CONFIG = dataclasses.replace(figure.PRESETS["smoke"], grid=2)


@pytest.fixture(scope="module")
def planes(summary, results):
    run = figure.start("loss_weights", figure.PRESETS, [*TINY, "--results", str(results)])
    return figure.gathered(run.config, list(run.records(figure.points(run.config), None)))[1]


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, planes, results, capsys, drawn, monkeypatch
):
    monkeypatch.delattr(figure, "training_factors")
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    last = json.loads(out.splitlines()[-1])
    assert last == again
    assert {k: v for k, v in last.items() if k != "wall_seconds"} == {
        k: v for k, v in summary.items() if k != "wall_seconds"
    }
    png = results / "loss_weights" / "loss_weights.png"
    panels = check_figure(drawn["loss_weights"], png, out, 24)
    names = [name for row in (ERRORS, MISMATCHES) for name, *_ in row]
    for k, arrays in enumerate(planes):
        for name, panel in zip(names, panels[8 * k : 8 * k + 8], strict=True):
            shown = panel.collections[0].get_array()
            np.testing.assert_array_equal(shown.ravel(), np.abs(arrays[name]).ravel(), name)


def test_a_point_of_the_map_is_a_full_fit_and_a_relaxation(planes):
    """Against `fit` and `simulate`, which share neither the solver nor the preconditioner here.

    Relaxed to 1e-6 eV/Å against stiffnesses of 1 eV/Å^2 in 53 atoms: to 1e-5 Å.
    """
    factors = training_factors(CONFIG, CONFIG.size)
    for k, plane in enumerate(figure.PLANES):
        weights = CONFIG.weights | {
            plane.x: CONFIG.axis(plane.x_decades)[1],
            plane.y: CONFIG.axis(plane.y_decades)[0],
            **dict.fromkeys(plane.left_out, 0.0),
        }
        fitted = weighted_fit(CONFIG, factors, weights=weights)
        true = simulate(CONFIG, fitted.coefficients)
        expected = mismatches(CONFIG, factors, fitted.coefficients)
        here = {name: values[0, 1] for name, values in planes[k].items()}
        assert here["geometry_error"] == pytest.approx(true.geometry_error, abs=2e-5)
        assert here["energy_error"] == pytest.approx(true.energy_error, abs=1e-6)
        for name in ("forces", "virial", "elastic", "force_constants"):
            assert here[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-8), name
        assert not figure.failed(here)


def test_what_weighs_more_fits_better(planes):
    """Of one plane, along either axis: least squares trades one residual for the others."""
    virials_and_constants = planes[0]
    assert np.all(np.diff(virials_and_constants["virial"], axis=1) < 0)
    assert np.all(np.diff(virials_and_constants["force_constants"], axis=0) < 0)


def test_small_errors_are_predicted(summary):
    """First order: the relative error of the prediction is at most about the error itself, in Å
    (the lattice's anharmonicity is of order 1/Å against its stiffness)."""
    assert summary["prediction_converged"]
    for mark in summary["marks"].values():
        assert not mark["failed"]
        ratio = mark["geometry_predicted"] / mark["geometry_error"]
        assert abs(ratio - 1) < 2 * mark["geometry_error"]


@pytest.fixture(scope="module")
def theory():
    return constants(CONFIG, CONFIG.size)


def test_tail_and_bend_are_the_sums_over_the_lattice(theory):
    """(c_u r^-3)^2 and (6 c_u r^-5)^2 summed over the sites of bcc beyond L = 4 a, where the
    sphere's surface cutting through cells is some per cent; 1 - (L/R)^3 of the first is inside R.
    """
    length, reach = CONFIG.radius(8), CONFIG.radius(38)
    crystal = supercell(CONFIG.crystal.unit_cell, (40,) * 3)
    positions = np.asarray(crystal.positions)
    middle = np.argmin(np.linalg.norm(positions - positions.mean(axis=0), axis=1))
    r = np.linalg.norm(positions - positions[middle], axis=1)
    r = r[(r >= length) & (r < reach)]
    here = CONFIG.radius(CONFIG.size) / length
    tail, bend = theory.tail * here**1.5, theory.bend * here**3.5
    inside = np.sqrt(1 - (length / reach) ** 3)
    assert tail * inside == pytest.approx(theory.decay * np.sqrt(np.sum(r**-6.0)), rel=0.05)
    assert bend == pytest.approx(6 * theory.decay * np.sqrt(np.sum(r**-10.0)), rel=0.1)


def test_moment_is_the_long_wave_limit_of_the_strain_norm(theory):
    """K(k) -> M k^2: of the longest wave of 16 cubes, to (k a)^2 / 12 = 1 %."""
    cell, m = CONFIG.crystal.unit_cell, 16
    lattice = reference_lattice(cell, (m, 1, 1))
    k = 2 * np.pi / (m * CONFIG.crystal.lattice_constant)
    x = np.asarray(supercell(cell, (m, 1, 1)).positions)[:, 0]
    wave = jnp.asarray(np.cos(k * x))[:, None]
    ratio = float(lattice.strain_norm(wave) ** 2 / jnp.sum(wave**2))
    assert ratio == pytest.approx(theory.moment * k**2, rel=0.02)


def test_softness_is_the_mean_square_of_the_negative_norm(theory):
    """||f||_{-1}^2 = g |f|^2 on average over white forces: 400 samples, to a few per cent."""
    lattice = reference_lattice(CONFIG.crystal.unit_cell, (CONFIG.size,) * 3)
    f = jax.random.normal(jax.random.key(0), (400, lattice.n_sites, 3))
    squares = jax.vmap(lattice.negative_norm)(f) ** 2
    assert theory.softness == pytest.approx(float(squares.sum() / jnp.sum(f**2)), rel=0.03)


def test_recommended_weights_scale_with_the_data():
    """Strains twice as large measure dC twice as strongly, and so need half the weight."""
    once = recommended(CONFIG, CONFIG.size)
    stronger = dataclasses.replace(CONFIG, strain=2 * CONFIG.strain)
    assert once["virial"] > 0 and once["force_constants"] > 0 and once[figure.E] > 0
    half = recommended(stronger, CONFIG.size)
    assert half["virial"] == pytest.approx(once["virial"] / 2, rel=1e-9)
    assert half["force_constants"] == pytest.approx(once["force_constants"], rel=1e-9)


def test_a_crystal_of_two_sublattices_is_refused():
    with pytest.raises(ValueError, match="no Bravais lattice"):
        recommended(dataclasses.replace(CONFIG, material="Si-SW"), 2)


def test_fits_that_are_not_finite_are_failures_and_drawn_as_such(summary, planes):
    nothing = simulate(CONFIG, np.full(3, np.nan))
    assert np.isnan(nothing.geometry_error) and np.isnan(nothing.energy_error)
    assert nothing.unconverged and nothing.left_basin
    lost = [{name: v.copy() for name, v in arrays.items()} for arrays in planes]
    lost[0]["geometry_error"][0, 1] = np.nan
    lost[1]["left_basin"][1, 0] = True
    bad = [figure.failed(arrays) for arrays in lost]
    assert [b.sum() for b in bad] == [1, 1, 0]
    axes = [[CONFIG.axis(p.x_decades), CONFIG.axis(p.y_decades)] for p in figure.PLANES]
    drawn = figure.plot(summary, axes, lost, bad)
    crosses = [line for ax in drawn.axes for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses) == 16 and all(len(line.get_xdata()) == 1 for line in crosses)
