"""Rigidity of a defect simulation, at its smallest: against dense algebra and another route."""

import gzip
import json

import numpy as np
import pytest

from experiments import defect_rigidity as figure
from experiments.studies.defect_fits import (
    bulk_energy,
    reference_simulation,
    simulate,
    surrogate,
    training_factors,
    weighted_fit,
)
from experiments.systems.observations import OBSERVATION_SETS
from lprjax.atoms.graphs import build_graph
from lprjax.defects.implicit_derivatives import relaxed_formation_energy
from lprjax.regression.rows import design_rows, prediction_rows
from tests.helpers.figures import check_figure, drawn_line

TINY = "--preset smoke --copies 10 --fitted EF EFV".split()


@pytest.fixture(scope="module")
def config(results):
    run = figure.start("defect_rigidity", figure.PRESETS, [*TINY, "--results", str(results)])
    return run.config


@pytest.fixture(scope="module")
def result(config, summary):
    return weighted_fit(config, training_factors(config, 2), OBSERVATION_SETS["EF"])


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again
    assert again["fits"] == summary["fits"] and again["sound_fits"] == 2
    png = results / "defect_rigidity" / "defect_rigidity.png"
    pure = ("rank correlation with the true error",)
    panels = check_figure(drawn["defect_rigidity"], png, out, 6, pure)
    pairs = ("energy_spread", "energy_error"), ("force_spread", "geometry_error")
    for (name, error), panel in zip(pairs, panels[3:], strict=False):
        for x, y in zip(again["fits"][name], again["fits"][error], strict=True):
            drawn_line(panel, [x], [y])
    in_browser = results / "defect_rigidity" / "defect_rigidity.json.gz"
    found = json.loads(gzip.decompress(in_browser.read_bytes()))
    lpr = np.array(found["properties"]["lpr, E+F"]["values"])
    assert len(lpr) == found["structures"][0]["size"]  # of one size
    assert lpr.max() / lpr.min() == pytest.approx(again["lpr_range_over_atoms"]["EF"][0])


def test_rigidity_of_the_formation_energy_by_implicit_differentiation(config, result, summary):
    """The same 1 / (g^T H^-1 g), with g by differentiation through the relaxation, H inverted."""
    defect, *_ = reference_simulation(config)
    u = simulate(config, result.coefficients).displacement
    potential = surrogate(config, result)
    g = prediction_rows(lambda p: relaxed_formation_energy(p, defect, u), potential)
    half = np.linalg.solve(np.asarray(result.factor).T, np.asarray(g))
    found = summary["fits"]["formation_rigidity"][0]
    # Bulk and defect energies cancel to some 1e-3 of their size in g.
    assert found == pytest.approx(1.0 / (half @ half), rel=1e-6)


def test_spread_of_the_forces_is_a_trace(config, result, summary):
    """tr(K^+ X H^-1 X^T), K^+ column by column and H^-1 from the rows' own normal equations."""
    defect, *_ = reference_simulation(config)
    n, u = defect.structure.n_atoms, simulate(config, result.coefficients).displacement
    graph = build_graph(defect.displaced(u), config.spec.r_cut)
    x = np.asarray(design_rows(config.spec, graph, "forces").forces)[:n].reshape(3 * n, -1)
    units = np.eye(3 * n).reshape(-1, n, 3)
    flexibility = np.stack(
        [defect.on_atoms(defect.lattice.solve(defect.on_sites(unit))).ravel() for unit in units]
    )
    factor = np.asarray(result.factor)
    covariance = x @ np.linalg.solve(factor, np.linalg.solve(factor.T, x.T))
    expected = np.sqrt(np.trace(flexibility @ covariance))
    assert summary["fits"]["force_compliance"][0] == pytest.approx(expected, rel=1e-6)


def test_the_scale_is_that_of_the_weighted_residual(config, result, summary):
    """s^2 (rows - K) is the loss without the ridge: bulk energy, defect energies, forces."""
    factors, loss, rows = training_factors(config, 2), 0.0, 0
    for key in (("energy", "bulk"), ("energy", "defect"), "forces"):
        misfit = factors[key].triangular @ result.coefficients - factors[key].target
        loss += config.weights[key] ** 2 * float(misfit @ misfit + factors[key].residual)
        rows += int(factors[key].n_rows)
    assert int(bulk_energy(config).n_rows) == 1
    assert summary["fits"]["s"][0] == pytest.approx(np.sqrt(loss / (rows - result.rank)), rel=1e-9)
