"""Error against the accuracy of a fit, smallest case: nested bases, what is predicted, flags."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import fit_accuracy as figure
from experiments.harness.statistics import relation
from experiments.studies.defect_fits import residual_norm
from experiments.studies.nested_bases import columns, sub_fit
from experiments.systems.observations import FLAGS
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, rattled, supercell
from lprjax.regression.factors import compress, projected
from tests.helpers.figures import check_figure, drawn_line, power_of

TINY = "--preset smoke --orders 1 2 --degrees 4 6 --ridges 1e-10".split()
TINY += "--degree 6 --cells 3 --copies 8".split()


@pytest.fixture(scope="module")
def config(summary):
    return figure.start("fit_accuracy", figure.PRESETS, TINY).config


def sound(summary, name):
    return np.array(summary["fits"][name], float)[summary["fits"]["sound"]]


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    stored = json.loads((results / "fit_accuracy" / "summary.json").read_text())
    assert json.loads(out.splitlines()[-1]) == stored == again
    assert again["fits"] == summary["fits"] and again["seconds"] == summary["seconds"]
    png = results / "fit_accuracy" / "fit_accuracy.png"
    panels = check_figure(drawn["fit_accuracy"], png, out, 5, ("basis functions",))
    fits = {name: np.array(values) for name, values in again["fits"].items()}
    for name, panel in zip(figure.ABSCISSAE, panels[2:], strict=True):
        for order in again["orders"]:
            mine = fits["order"] == order
            drawn_line(panel, fits[name][mine], fits["geometry_error"][mine])
        assert power_of(panel.lines[-1]) == pytest.approx(1.0)  # the theory's


def test_a_smaller_basis_is_a_set_of_columns_of_the_largest():
    """Site energies of both specifications agree to roundoff, function by function."""
    structure = rattled(supercell(bcc("W", 3.16), (2, 2, 2)), jax.random.key(0), 0.1)
    graph = build_graph(structure, 4.5)
    large, small = (ACESpec(("W",), order, degree, 4.5, 2.74) for order, degree in ((3, 6), (2, 4)))
    kept = columns(large, 2, 4)
    np.testing.assert_allclose(
        site_basis(large, graph)[:, kept], site_basis(small, graph), rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(smoothness_prior(large)[kept], smoothness_prior(small))
    assert len(columns(ACESpec(("W",), 3, 12, 4.5, 2.74), 2, 10)) == 51 + 10  # published sizes


def test_a_basis_that_is_not_inside_is_refused():
    spec = ACESpec(("W",), 2, 6, 4.5, 2.74)
    for order, degree in ((3, 6), (2, 8), (0, 6)):
        with pytest.raises(ValueError, match="largest basis"):
            columns(spec, order, degree)


def test_restricting_a_factor_is_restricting_its_rows():
    rng = np.random.default_rng(0)
    rows, targets, kept = rng.normal(size=(40, 7)), rng.normal(size=40), np.array([0, 2, 3, 6])
    onto = np.eye(rows.shape[1])[:, kept]
    found, wanted = projected(compress(rows, targets), onto), compress(rows[:, kept], targets)
    np.testing.assert_allclose(found.triangular, wanted.triangular, atol=1e-13)
    np.testing.assert_allclose(found.target, wanted.target, atol=1e-13)
    np.testing.assert_allclose(found.residual, wanted.residual, rtol=1e-12)
    assert int(found.n_rows) == 40


def test_the_residual_of_one_kind_falls_as_nested_bases_grow(config):
    """min over more columns is no larger: exact at ridge zero, here up to the ridge's share."""
    factors, _ = figure.cell_factors(config)
    forces = {"forces": factors["forces"]}
    norms = []
    for order, degree in ((1, 4), (2, 4), (2, 6)):
        result, _ = sub_fit(replace(config, ridge=1e-14), forces, order, degree)
        norms.append(residual_norm(factors["forces"], result.coefficients))
    assert norms[0] > norms[1] > norms[2] > 0
    # and not by the largest basis for each: what lies outside is zero
    result, full_rank = sub_fit(config, forces, 2, 4)
    outside = np.setdiff1d(np.arange(config.spec.n_columns), columns(config.spec, 2, 4))
    assert full_rank and len(outside) and not np.any(result.coefficients[outside])


def test_true_errors_are_those_predicted(summary):
    """First order is exact but for terms of the error squared, at most 5 % here; and the bounds
    hold: ||D H^-1 f|| <= eta / c, |energy| <= e_E + eta^2 / 2c."""
    error, predicted = sound(summary, "geometry_error"), sound(summary, "geometry_predicted")
    assert len(error) >= 2
    np.testing.assert_allclose(predicted, error, rtol=0.05)
    np.testing.assert_allclose(
        sound(summary, "energy_predicted"), sound(summary, "energy_error"), rtol=0.05
    )
    assert np.all(predicted <= sound(summary, "eta") / sound(summary, "stability") * (1 + 1e-3))
    assert summary["energy_sum_over_true"][0] > 0.95
    assert np.all(sound(summary, "eta") > 0) and np.all(sound(summary, "rmse") > 0)


def test_relation_of_a_known_law():
    x = np.geomspace(1e-3, 1.0, 7)
    assert relation(x, 5.0 * x) == pytest.approx(
        {"n": 7, "spearman": 1.0, "slope": 1.0, "slope_error": 0.0, "scatter": 0.0}, abs=1e-7
    )
    bent = relation(x, x**2)
    assert bent["slope"] == pytest.approx(2.0) and bent["scatter"] == pytest.approx(
        np.std(np.log10(x), ddof=1)
    )
    assert relation(x[:2], x[:2])["slope"] is None


def test_pair_potentials_fail_and_it_shows(summary):
    """Order 1 has no many-body term: it cannot hold a vacancy of W where the EAM has it."""
    table = summary["fits"]
    assert all(any(table[flag][k] for flag in FLAGS) for k, o in enumerate(table["order"]) if o < 2)
    assert summary["flags"]["unstable"] > 0 and "unstable" in figure.caption(summary)
    assert summary["sound_fits"] == sum(table["sound"]) < len(table["order"])
    drawn = figure.plot(summary)
    red = [line for line in drawn.axes[3].lines if line.get_color() == "red"]
    assert sum(len(line.get_xdata()) for line in red) == sum(summary["flags"].values())
