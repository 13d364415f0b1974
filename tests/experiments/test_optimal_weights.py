"""The descent on the loss weights: its gradient, what it knows, what it reports."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import optimal_weights as figure
from experiments.studies.defect_fits import Simulated, simulate, training_factors, weighted_fit
from experiments.studies.predictions import error_forms
from lprjax.defects import predicted_error
from tests.helpers.figures import check_figure, drawn_line

TINY = ["--preset", "smoke", "--looks", "2", "--unseen", "vacancy"]
CONFIG = dataclasses.replace(figure.PRESETS["smoke"], looks=2, unseen=("vacancy",))
SIZE = 2


@pytest.fixture(scope="module")
def known():
    return figure.problem(CONFIG, SIZE)


@pytest.fixture(scope="module")
def names():
    return list(figure.ordered(CONFIG, SIZE))


def test_the_gradient_is_that_of_finite_differences(known, names):
    """Through the factors, the fit and the prediction; the error of central differences falls
    fourfold where the step is halved, down to rounding (condition 1e8 of the fit)."""
    logs = figure.first_logs(CONFIG, "configured", names)
    value = jax.jit(lambda logs: figure.objective(known, logs)[0])
    slope = jax.jit(jax.grad(lambda logs: figure.objective(known, logs)[0]))(logs)
    assert slope.shape == (len(names),) and jnp.all(jnp.isfinite(slope))
    for k in range(len(names)):
        step = jnp.zeros(len(names)).at[k].set(1.0)
        off = [
            abs(float(value(logs + h * step) - value(logs - h * step)) / (2 * h) - float(slope[k]))
            for h in (0.1, 0.05)
        ]
        assert off[0] < 0.05 * float(jnp.linalg.norm(slope)), names[k]
        assert off[1] < 0.35 * off[0] + 1e-5, names[k]


def test_the_start_is_the_configured_fit(known, names):
    logs = figure.first_logs(CONFIG, "configured", names)
    fitted = weighted_fit(CONFIG, training_factors(CONFIG, SIZE))
    found, wanted = (
        predicted_error(known.forms, c)
        for c in (figure.coefficients_at(known, logs), fitted.coefficients)
    )
    assert found.geometry == pytest.approx(float(wanted.geometry), rel=1e-5)
    assert found.energy == pytest.approx(float(wanted.energy), rel=1e-5)
    assert figure.first_logs(CONFIG, "equal", names)[:-1] == pytest.approx(0.0)


def test_the_descent_knows_nothing_of_the_large_cell(known):
    larger = figure.problem(dataclasses.replace(CONFIG, target=9), SIZE)
    assert larger.forms is known.forms is error_forms(CONFIG, SIZE + 1)


def test_the_descent_goes_down_and_its_path_is_whole(summary):
    for descent in summary["descents"]:
        geometry, energy = (np.abs(descent[f"{name}_predicted"]) for name in ("geometry", "energy"))
        value = np.log(geometry) + 0.5 * np.log(energy**2 + CONFIG.energy_scale**2)
        assert value[1] < value[0] and descent["steps"] > 0
        assert descent["prediction_converged"]


def test_true_errors_are_those_of_the_fit(summary, names):
    """Before, from the configured weights: `weighted_fit` and `simulate` by themselves."""
    first = summary["descents"][0]
    assert first["start"] == "configured"
    fitted = weighted_fit(CONFIG, training_factors(CONFIG, SIZE))
    wanted = simulate(CONFIG, fitted.coefficients)
    true = first["true"]["vacancy"]
    assert true["geometry_error"][0] == pytest.approx(wanted.geometry_error, abs=2e-5)
    assert true["energy_error"][0] == pytest.approx(wanted.energy_error, abs=1e-6)
    assert true["failed"] == [False, False]


def test_a_rank_deficient_fit_is_said(names, monkeypatch):
    """One row, and next to no ridge, for all coefficients; the relaxation is given as fine."""
    fine = Simulated(None, 0.1, 0.1, unconverged=False, left_basin=False)
    monkeypatch.setattr(figure, "simulate", lambda config, result: fine)
    factors = figure.ordered(CONFIG, SIZE)
    empty = {key: f._replace(triangular=0 * f.triangular) for key, f in factors.items()}
    bulk = ("energy", "bulk")
    logs = np.array([0.0] * (len(names) - 1) + [-100.0])
    assert figure.true_errors(CONFIG, factors, logs, ["vacancy"])["failed"] == [False]
    few = empty | {bulk: factors[bulk]}
    assert figure.true_errors(CONFIG, few, logs, ["vacancy"])["failed"] == [True]


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, run, results, capsys, drawn, monkeypatch
):
    monkeypatch.delattr(figure, "training_factors")
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again
    assert again["descents"] == summary["descents"]
    png = results / "optimal_weights" / "optimal_weights.png"
    panels = check_figure(drawn["optimal_weights"], png, out, 5, ("step",))
    records = run.records(figure.points(run.config), None)
    for record, descent in zip(records, again["descents"], strict=True):
        for quantity, panel in zip(("geometry", "energy"), panels, strict=False):
            path, ends = (a[f"{quantity}_predicted"] for a in (record.arrays, descent))
            drawn_line(panel, range(len(path)), np.abs(path))
            assert [path[0], path[int(record.arrays["last"])]] == ends
