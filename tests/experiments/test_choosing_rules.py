"""Rules of choice on alloys: what they may look at, what they are, and a run from end to end."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from experiments import choosing_rules as figure
from experiments.studies import choosing
from experiments.studies.choosing import CHANCE, RULES, Cell, Question
from experiments.systems import alloys
from lprjax.atoms.extxyz import write_extxyz
from lprjax.atoms.structures import Labels
from lprjax.regression.influences import influence
from lprjax.regression.rigidity import prediction_rigidity
from tests.helpers.figures import check_figure, drawn_line

TINY = dataclasses.replace(figure.PRESETS["smoke"], data="", draws=0, systems=())
POINT = figure.Point(TINY, "Mo-Ta", 0)
RIDGE = 1e-2


@pytest.fixture(scope="module")
def parts():
    """Start, pool and tests of a tiny draw."""
    return figure.simulated_cells(POINT, np.random.default_rng(0), "")


@pytest.fixture(scope="module")
def question(parts):
    first, pool, _ = parts
    return Question(choosing.fit_of(choosing.data_of(first), RIDGE), first, pool, 2, 4)


# --- what is asked -------------------------------------------------------------------------------


def test_start_pool_and_tests_are_different_cells(parts):
    first, pool, tests = parts
    assert [c.count for c in first] == [8] * TINY.start
    assert len(pool) == TINY.pool and len(tests) == TINY.tests
    assert len({c.rows.tobytes() for part in parts for c in part}) == sum(map(len, parts))
    assert len({c.count for c in pool}) > 3
    again = figure.simulated_cells(POINT, np.random.default_rng(1), "")
    assert again[2] is tests and again[1][0].rows.tobytes() != pool[0].rows.tobytes()


def test_no_rule_looks_at_a_label_of_the_pool(question):
    rng = np.random.default_rng(0)
    wrong = [c._replace(targets=rng.normal(size=c.targets.shape)) for c in question.pool]
    for name, rule in RULES.items():
        order = rule(question)
        assert len(set(order.tolist())) == question.count, name
        np.testing.assert_array_equal(order, rule(question._replace(pool=wrong)))


def test_rows_are_weighted_as_in_the_fit(parts):
    """The constants of both species: their shares of the energy per atom over its error."""
    for cell in parts[1][:4]:
        shares = np.array([16 - cell.count, cell.count]) / 16
        constant = cell.rows[:, (cell.rows[1:] == 0.0).all(axis=0) & (cell.rows[0] != 0.0)]
        np.testing.assert_allclose(
            np.sort(constant[0]), np.sort(shares[shares > 0] / TINY.errors[0]), rtol=1e-12
        )
        assert len(cell.rows) == len(cell.targets) == 1 + 3 * len(cell.sites)
        np.testing.assert_allclose(
            cell.sites.mean(axis=0) / TINY.errors[0], cell.rows[0], rtol=1e-9, atol=1e-9
        )


def test_the_triangle_of_everything_has_the_mean_variance_of_all_rows(question):
    factor = question.fitted.factor
    rows = np.concatenate([cell.rows for cell in question.aimed])
    rows = rows[np.linalg.norm(rows, axis=1) > 1e-9]
    wanted, found = (
        np.sum(1.0 / np.asarray(prediction_rigidity(factor, x)))
        for x in (rows, question.everything)
    )
    assert found == pytest.approx(wanted, rel=1e-8)


# --- rules that know residuals -------------------------------------------------------------------


def test_the_factor_of_pops_has_the_widths_of_pops(question):
    """Its 1/PR in units of the mean square residual are the mean squares of the moves that the
    library has of every prediction."""
    fitted, rows = question.fitted, question.energies
    samples = [{"all": (c.rows, c.targets)} for c in question.start]
    moves = influence(fitted, samples, predictions=rows, least_leverage=choosing.LEAST).moves
    x, y = (np.concatenate([c[k] for c in question.start]) for k in (1, 2))
    square = np.mean((y - x @ np.asarray(fitted.coefficients)) ** 2)
    factor = choosing.pops_factor(question)
    assert np.allclose(factor, np.triu(factor))
    found = square / prediction_rigidity(factor, rows)
    np.testing.assert_allclose(found, moves.rows.rms**2, rtol=1e-5)


def test_errors_near_a_target_are_those_of_fits_without_a_cell(question):
    """Of a target that is a cell of the fit and like no other: that cell's, by a refit."""
    start = list(question.start)
    refits = [
        choosing.fit_of(choosing.data_of(start[:b] + start[b + 1 :]), RIDGE)
        for b in range(len(start))
    ]
    errors = [c.targets[0] - c.rows[0] @ f.coefficients for c, f in zip(start, refits, strict=True)]
    found = choosing.near_left_out(question._replace(pool=start, stride=1))
    w = np.linalg.solve(
        np.asarray(question.fitted.factor).T, np.stack([c.rows[0] for c in start]).T
    )
    w /= np.linalg.norm(w, axis=0)
    near = (w.T @ w) ** 2
    wanted = np.sqrt(near @ np.square(errors) / near.sum(axis=1))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


# --- composition ---------------------------------------------------------------------------------


def of_counts(counts):
    """Cells of which nothing but the composition is known."""
    return [Cell(n, np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1))) for n in counts]


def test_spreading_takes_the_farthest_composition_and_then_the_rarest():
    asked = Question(None, of_counts([8, 8]), of_counts([7, 16, 9, 16, 1, 8]), 1, 5)
    order = choosing.spread(asked)
    # 8 away: 16; then 1, 7 away; of all, 7 and 9 are one away; then 16 and 8 are there, 16 once.
    assert [asked.pool[k].count for k in order] == [16, 1, 7, 9, 16]


def test_chance_takes_other_cells_of_the_same_compositions(question):
    pool, order = of_counts([3, 3, 3, 5, 5, 8]), [0, 5, 3, 1]
    asked = question._replace(pool=pool)
    found = [choosing.same_compositions(asked, order, np.random.default_rng(k)) for k in range(9)]
    for one in found:
        assert [pool[k].count for k in one] == [3, 8, 5, 3] and len(set(one.tolist())) == 4
    assert len({tuple(one) for one in found}) > 3


# --- errors --------------------------------------------------------------------------------------


def test_errors_by_hand():
    """Rows are weighted, errors are not: of energies 3 and -4 eV, of forces 1, 1, 1 and 3 eV/Å."""
    cells = [
        Cell(8, np.array([[300.0], [10.0], [-10.0]]), np.zeros(3), None),
        Cell(8, np.array([[-400.0], [10.0], [30.0]]), np.zeros(3), None),
    ]
    found = choosing.mean_errors(np.ones(1), cells, (0.01, 0.1))
    np.testing.assert_allclose(found, [np.sqrt(12.5), np.sqrt(3.0), 3.5, 1.5])


def test_a_curve_is_that_of_fits_to_all_cells_together(question):
    added = question.pool[:4]
    found = choosing.curve(choosing.data_of(question.start), added, (0, 1, 4), RIDGE)
    for count, coefficients in zip((0, 1, 4), found, strict=True):
        together = choosing.data_of([*question.start, *added[:count]])
        rows = np.stack([c.rows[0] for c in question.pool])
        wanted = rows @ np.asarray(choosing.fit_of(together, RIDGE).coefficients)
        np.testing.assert_allclose(rows @ coefficients, wanted, rtol=1e-7)


def test_summary_by_hand():
    """Ratios are of one draw each; chance's repeats are averaged first, in the logarithm."""
    flat = {f"errors_{name}": np.full((1, 1, 4), 2.0) for name in RULES}
    draws = []
    for factor in (1.0, 4.0):
        draw = {k: factor * v for k, v in flat.items()} | {"functions": 3, "tests": 5}
        draw["errors_log_rigidity"] = np.full((1, 1, 4), factor)
        draw["errors_random"] = factor * np.array([2.0, 8.0])[:, None, None] * np.ones((2, 1, 4))
        draw["errors_compositions"] = np.full((2, 1, 4), 2.0 * factor)
        draws.append(draw | {"errors_start": np.ones(4), "errors_all": np.full(4, factor)})
    found = figure.summary_of(draws)
    best, other = (found["rules"][k]["force_rms"] for k in ("log_rigidity", "variance"))
    np.testing.assert_allclose(best["over_random"], [0.25])
    np.testing.assert_allclose(other["all"], [0.5] * 3)
    np.testing.assert_allclose(other["all_over_log_rigidity"], [2.0] * 3)
    assert best["better"] == [2]
    np.testing.assert_allclose(found["random"], np.full((1, 4), 8.0))
    np.testing.assert_allclose(found["whole_pool"], np.full(4, 2.0))
    assert found["share_of_composition"]["energy_rms"] == pytest.approx(0.5)


def test_an_interval_is_student_s():
    """Of the logarithms -1, 0, 1 with t(0.975, 2) = 4.302653: e^(+-4.302653 / 3^1/2)."""
    mean, low, high = figure.interval(np.array([-1.0, 0.0, 1.0]))
    assert mean == pytest.approx(1.0)
    assert -np.log(low) == pytest.approx(4.302653 / np.sqrt(3.0), rel=1e-6)
    assert low * high == pytest.approx(1.0)
    assert figure.interval(np.array([np.log(2.0)])) == pytest.approx([2.0] * 3)


# --- from end to end -----------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Files of the names and shapes of the real ones, labels those of Mo-Ta's atoms alone."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    counts = [8] * 12 + rng.integers(1, 16, 20).tolist()
    cells = [alloys.random_alloy(("Mo", "Ta"), n, rng) for n in counts]
    labels = [Labels(-1.0 * n, rng.normal(size=(16, 3))) for n in counts]
    write_extxyz(folder / alloys.TRAINING, cells, labels)
    for name in alloys.TESTS:
        (folder / name).touch()
    return folder


def test_tiny_run_and_its_last_line(tmp_path, capsys, drawn, data):
    flags = ["--preset", "smoke", "--results", str(tmp_path), "--data", str(data)]
    summary = figure.main(flags)
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == summary
    assert list(summary["systems"]) == ["Mo-Ta", figure.MEASURED]
    for found in summary["systems"].values():
        assert set(found["rules"]) == {*RULES, *CHANCE}
        for errors in found["rules"]["random"].values():
            assert errors["all"] == pytest.approx([1.0] * 3)
    assert summary["systems"][figure.MEASURED]["tests"] == 32 - TINY.start - TINY.pool
    png = tmp_path / "choosing_rules" / "choosing_rules.png"
    pure = ("cells added", "energy error over random's", "force error over random's")
    panels = check_figure(drawn["choosing_rules"], png, out, 6, (*pure, "error over random's"))
    for row, found in zip((panels[:3], panels[3:]), summary["systems"].values(), strict=True):
        for panel, quantity in zip(row, ("energy_rms", "force_rms"), strict=False):
            for rule in ("log_rigidity", "site_rigidity"):
                curve = found["rules"][rule][quantity]["over_random"]
                drawn_line(panel, summary["added"], curve)


def test_measured_cells_are_parted(data):
    point = figure.Point(TINY, figure.MEASURED, 3, "")
    parts = figure.measured_cells(point, np.random.default_rng(3), str(data))
    assert tuple(map(len, parts)) == (TINY.start, TINY.pool, 32 - TINY.start - TINY.pool)
    assert {c.count for c in parts[0]} == {8}
    everything = Counter(c.rows.tobytes() for part in parts for c in part)
    assert set(everything.values()) == {1}
    other = figure.measured_cells(point, np.random.default_rng(4), str(data))
    assert {c.rows.tobytes() for c in other[1]} != {c.rows.tobytes() for c in parts[1]}


def test_without_files_the_measured_alloy_is_left_out(monkeypatch, data):
    monkeypatch.delenv("LPRJAX_DATA", raising=False)
    config = figure.PRESETS["smoke"]
    assert {p.system for p in figure.points(config, "")} == {"Mo-Ta"}
    with_data = figure.points(dataclasses.replace(config, data=str(data)), str(data))
    assert len(with_data) == 2 * config.draws and with_data[:2] == figure.points(config, "")
    (data / alloys.TRAINING).write_text("other data")
    assert figure.points(config, str(data))[-1].digest != with_data[-1].digest
    with pytest.warns(UserWarning, match="Nb-Ta is left out"):
        assert figure.plan(["--preset", "smoke"]).points == figure.points(config, "")
