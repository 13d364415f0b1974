"""Committees, bootstrap and calibration on silicon cells, each against its definition; a run."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import rigidity_and_disagreement as figure
from experiments.studies.silicon_models import (
    Point,
    all_cells,
    fitted,
    graphs_of,
    halves,
    observations,
    refits,
    site_rows,
)
from experiments.systems.silicon_cells import FAMILIES, draw
from lprjax.regression.factors import compress
from lprjax.regression.fitting import solution
from lprjax.regression.posterior import committee
from tests.helpers.figures import check_figure, drawn_line

CONFIG = replace(
    figure.PRESETS["smoke"], near=("crystal", "vacancy"), counts=(5, 3), validation=3, test=1
)
POINT = Point(CONFIG, 5, 4.4)
FLAGS = "--preset smoke --counts 5 3 --validation 3 --test 1"


@pytest.fixture(scope="module")
def summary(results):
    return figure.main([*FLAGS.split(), "--results", str(results)])


@pytest.fixture(scope="module")
def model():
    """The fit of the smoke preset's central model, its rows and labels in full."""
    cells = all_cells(CONFIG)
    graphs = graphs_of(POINT, cells)
    whole, parts, prior = fitted(POINT, graphs.train, cells.train)
    per_atom = [
        observations(POINT, [g], [c]) for g, c in zip(graphs.train, cells.train, strict=True)
    ]
    return cells, graphs, whole, parts, prior, per_atom


def dense_rows(model):
    """Weighted rows and targets of each training cell, from total energies and forces."""
    cells, _, _, _, _, per_atom = model
    for cell, found in zip(cells.train, per_atom, strict=True):
        scale = {"energy": CONFIG.weight_energy * len(cell.sites), "forces": CONFIG.weight_forces}
        parts = [[scale[kind] * x for x in found[kind]] for kind in figure.KINDS]
        yield tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def test_a_bootstrap_of_triangles_is_a_fit_to_repeated_rows(model):
    """Structures drawn with replacement, their rows repeated, by dense least squares."""
    _, _, whole, parts, prior, _ = model
    data, counts = list(dense_rows(model)), np.array([2.0, 0, 1, 3, 0, 1, 1, 0])
    repeated = [data[j] for j, n in enumerate(counts) for _ in range(int(n))]
    floor = np.sqrt(CONFIG.ridge) * np.diag(prior)
    rows = np.concatenate([*(x for x, _ in repeated), floor])
    targets = np.concatenate([*(y for _, y in repeated), np.zeros(len(prior))])
    found = refits(parts, np.stack([counts, np.ones(8)]), CONFIG.ridge, prior)
    # Compared as predictions of the rows: coefficients of the least determined directions carry
    # the condition number, of about 1e6.
    dense = np.linalg.lstsq(rows, targets)[0]
    np.testing.assert_allclose(rows @ found[0], rows @ dense, atol=1e-7 * np.abs(targets).max())
    np.testing.assert_allclose(found[1], whole.coefficients, rtol=1e-6)


def test_white_residuals_bootstrap_to_the_posterior():
    """Well-specified: rows in many structures, noise of variance one. Then the bootstrap's
    covariance is H^-1 up to the sampling error of replicates, (2/n)^1/2 = 7 % each, and of
    structures, about (2 / 60)^1/2 = 18 %; a mean over directions within 25 %."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(40, 5)) for _ in range(60)]
    factors = tuple(compress(x, rng.normal(size=40)) for x in parts)
    drawn = rng.multinomial(60, np.full(60, 1 / 60), 400).astype(float)
    models = np.asarray(refits(factors, drawn, 0.0, np.ones(5)))
    _, factor = solution(factors, np.ones(60), 0.0)
    white = (models - models.mean(axis=0)) @ np.asarray(factor).T
    assert np.mean(np.var(white, axis=0)) == pytest.approx(1.0, abs=0.25)


@pytest.fixture(scope="module")
def records(summary, results):
    flags = [*FLAGS.split(), "--results", str(results)]
    run = figure.start("rigidity_and_disagreement", figure.PRESETS, flags)
    return list(run.records(figure.points(run.config), None))


def test_spreads_are_over_the_models_they_name(summary, records):
    """Of halves without the fit to the whole; their power laws are in LPR^-1/2."""
    energies = np.stack([r.arrays["energies"] for r in records])
    own = next(k for k, r in enumerate(records) if r.point.central)
    wanted = {
        "degrees and cutoffs": energies[:, 0],
        "halves": energies[own, 1:],
        "all": np.concatenate(energies),
    }
    found = figure.spreads(records)
    lpr = records[own].arrays["lpr"]
    for name, models in wanted.items():
        squares = np.sum((models - models.mean(axis=0)) ** 2, axis=0)
        np.testing.assert_allclose(found[name] ** 2, squares / (len(models) - 1), rtol=1e-9)
        power = np.polyfit(np.log(lpr), np.log(found[name]), 1)[0]
        assert summary["spread_against_rigidity"][name]["slope"] == pytest.approx(-2 * power)


def test_deviations_are_calibrated_roots_of_the_variance(records):
    """alpha / LPR^1/2 where the calibration found no floor, at most that where it did."""
    arrays = figure.central(records).arrays
    for kind in figure.KINDS:
        bare = arrays[f"{kind}_alpha"] * arrays["lpr"] ** -0.5
        found = arrays[f"{kind}_site_deviation"]
        assert np.all(found <= bare * (1 + 1e-6))
        assert np.all(found > 1e-3 * bare) and (arrays[f"{kind}_s"] or np.allclose(found, bare))


def test_variances_of_committees_are_those_of_their_batches(records, model):
    """Unbiased, of 200 posterior samples in 10 batches, drawn anew."""
    cells, graphs, whole, *_ = model
    arrays = figure.central(records).arrays
    drawn = committee(whole.coefficients, whole.factor, jax.random.key(CONFIG.seed), CONFIG.samples)
    sites = np.asarray(drawn) @ site_rows(POINT, graphs.test, cells.test).T
    for k in range(10):
        batch = sites[20 * k : 20 * (k + 1)]
        squares = np.sum((batch - batch.mean(axis=0)) ** 2, axis=0)
        np.testing.assert_allclose(arrays["variance_posterior"][k], squares / 19, rtol=1e-6)


def test_observations_are_what_the_model_and_the_labels_say(model):
    """Rows times coefficients: energies per atom are means of site energies."""
    cells, graphs, whole, _, _, _ = model
    found = observations(POINT, graphs.test, cells.test)
    sites = site_rows(POINT, graphs.test, cells.test) @ whole.coefficients
    ends = np.cumsum([len(cell.sites) for cell in cells.test])[:-1]
    means = [part.mean() for part in np.split(sites, ends)]
    rows, labels = found["energy"]
    np.testing.assert_allclose(rows @ whole.coefficients, means, rtol=1e-9)
    truth = [cell.labels.energy / len(cell.sites) for cell in cells.test]
    np.testing.assert_allclose(labels, truth, rtol=1e-14)
    forces = np.concatenate([cell.labels.forces.ravel() for cell in cells.test])
    np.testing.assert_array_equal(found["forces"][1], forces)


def test_halves_are_halves():
    counts = halves(CONFIG, 9)
    assert set(counts.ravel()) == {0.0, 1.0} and (counts.sum(axis=1) == 4).all()
    assert (counts[0] != counts[1]).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_of_every_family(family):
    """Drawn by their entropy alone; no atoms too close; sites sum to the energy; it fits."""
    cell, again, other = (draw(family, 2, (0, "test", k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(cell.structure.positions, again.structure.positions)
    assert abs(cell.labels.energy - other.labels.energy) > 1e-6
    assert cell.sites.sum() == pytest.approx(cell.labels.energy, rel=1e-12)
    assert cell.labels.forces.shape == cell.structure.positions.shape
    assert len(cell.sites) == {"vacancy": 63, "bcc": 54, "fcc": 32}.get(family, 64)
    assert np.abs(cell.labels.forces).max() < 50.0  # eV/Å


def test_unknown_family():
    with pytest.raises(ValueError, match="family is 'glass': wanted one of crystal"):
        draw("glass", 2, (0,))


@pytest.mark.parametrize("slope, level", [(1.0, 1.0), (0.5, 3.0)])
def test_the_line_through_a_committee(slope, level):
    """Exact power law times chi-squared noise of 30 degrees of freedom: error 0.26 / 200^1/2 / 2.3
    of log spread 2.3, and the stated one of the same size."""
    rng = np.random.default_rng(1)
    lpr = np.exp(rng.uniform(-8, 8, size=200))
    noise = rng.chisquare(30, size=(10, 200)) / 30
    found = figure.line(level * lpr**-slope * noise, lpr)
    assert found["slope"] == pytest.approx(slope, abs=5 * found["slope_error"] + 1e-3)
    assert 3e-4 < found["slope_error"] < 5e-3
    if slope == 1.0:
        assert found["level"] == pytest.approx(level, rel=0.02)


def test_posterior_committee_has_slope_one(summary):
    """Expected 1 with a standard error that the batches give; level within the chi-squared error
    of 200 samples on the few directions that matter, (2/200)^1/2 = 10 % each."""
    found = summary["committees"]["posterior"]
    assert abs(found["slope"] - 1) < 4 * found["slope_error"] and found["slope_error"] < 0.05
    assert found["level"] == pytest.approx(1.0, abs=0.3)


def test_white_residuals_of_variance_one_have_level_one(summary):
    """Up to the draw of eight cells' residuals, which all directions share: a factor of two."""
    assert 0.5 < summary["committees"]["white"]["level"] < 2.0


def test_models_disagree_where_local_energies_are_not_rigid(summary):
    assert summary["lpr_decades"] > 2
    assert summary["spread_against_rigidity"]["halves"]["spearman"] > 0.5
    near, far = (summary["families"][f]["lpr"] for f in ("crystal", "simple cubic"))
    assert near > 10 * far
    for kind in ("energy", "forces"):
        found = summary["calibration"][kind]
        assert found["alpha"] > 0 and len(found["covered_far"]) == 4


def test_the_last_line_and_a_second_run(summary, results, capsys, drawn):
    again = figure.main([*FLAGS.split(), "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again
    assert again["committees"] == summary["committees"]
    assert "posterior samples; expected slope 1" in out
    png = results / "rigidity_and_disagreement" / "rigidity_and_disagreement.png"
    pure = "nominal coverage", "observed coverage"
    *_, covered = check_figure(drawn["rigidity_and_disagreement"], png, out, 6, pure)
    for kind, found in again["calibration"].items():
        for group in again["cells"]:
            drawn_line(covered, found["expected"], found[f"covered_{group}"]), (kind, group)
    bars = np.concatenate([bars.get_segments() for bars in covered.collections])[:, :, 1]
    between = np.concatenate(list(again["energies_covered_between"].values()))
    np.testing.assert_array_equal(bars, between)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"degree": 9}, "degree is 9 and r_cut 4.4: wanted"),
        ({"r_cut": 6.0}, "r_cut 6.0: wanted"),
        ({"replicates": 55}, "replicates 55: wanted multiples of 10"),
    ],
)
def test_what_cannot_be_computed_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        figure.points(replace(CONFIG, **wrong))


def test_counts_for_other_families():
    with pytest.raises(ValueError, match=r"counts is \(1,\): wanted one number for each of near"):
        all_cells(replace(CONFIG, counts=(1,)))
