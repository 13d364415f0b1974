"""Groups in fixed proportions: the table of missing degrees of freedom, and a run end to end."""

import json
from fractions import Fraction

import numpy as np
import pytest

from experiments import toy_rigidity as figure
from experiments.harness.records import Record
from experiments.panels.toy import range_of
from tests.helpers.figures import check_figure, drawn_line, power_of

FACTOR_ROWS = np.random.default_rng(3).normal(size=(9, 6))


@pytest.fixture(scope="module")
def summary(results):
    flags = "--preset smoke --groups 2 3 5 --shown 3 --seeds 0 1 --dimension 8"
    return figure.main([*flags.split(), "--results", str(results)])


def exact_rank(rows):
    """Rank of integer rows in rational arithmetic."""
    rows, rank = [[Fraction(int(x)) for x in row] for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for i in range(rank + 1, len(rows)):
            ratio = rows[i][column] / rows[rank][column]
            rows[i] = [a - ratio * b for a, b in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    return rank


@pytest.mark.parametrize("design", figure.DESIGNS)
@pytest.mark.parametrize("groups", [2, 3, 5, 8])
def test_counting_equals_the_rank_of_the_compositions(groups, design):
    """Missing: G - rank. LPR_k = 0: the unit composition k is outside the rows' span."""
    point = figure.Point(groups, design, 12, 20, 0.0, seed=0)
    counts = figure.compositions(point, np.random.default_rng(1))
    for added in range(len(counts) - 20 + 1):
        rows = counts[: 20 + added]
        rank = exact_rank(rows)
        outside = [exact_rank([*rows, unit]) > rank for unit in np.eye(groups, dtype=int)]
        expected = figure.expected_counts(groups, figure.DESIGNS[design], added)
        assert expected == (groups - rank, sum(outside))
    assert expected == (0, 0)  # what is added last completes the set


def test_vanishing_rigidities_are_the_missing_degrees_of_freedom(summary):
    """The table: G groups in b blocks of fixed proportions, j structures added: G - b - j."""
    for row in summary["table"]:
        blocks = 2 if row["design"].startswith("two") else 1
        assert row["missing"] == row["groups"] - blocks - row["added"]
        assert row["undetermined"] == [row["missing"]] * 2  # two seeds
        assert row["vanishing"] == [row["vanishing_expected"]] * 2
        assert (min(row["smallest"]) > 1e-9) == (row["missing"] == 0)
    lengths = {(g, d): 0 for g in (2, 3, 5) for d in figure.DESIGNS}
    for row in summary["table"]:
        lengths[row["groups"], row["design"]] += 1
    expected = {(g, d): g - (1 if d.startswith("fixed") else 2) + 1 for g, d in lengths}
    assert lengths == expected
    assert summary["rows"] == summary["rows_as_expected"] == sum(expected.values())


def test_one_pure_structure_raises_its_group_to_one():
    """All groups in one proportion: nothing else holds the group, so its LPR is 1 to rounding."""
    point = figure.Point(3, "fixed + pure", 8, 20, 0.0, seed=0)
    lpr = figure.compute(point)["lpr"]
    np.testing.assert_array_equal(lpr[0], 0.0)
    np.testing.assert_allclose(lpr[1], [1.0, 0.0, 0.0], rtol=1e-9)
    assert (lpr[2] > 0.0).all()


def test_principal_rigidities_are_those_of_the_marginal_posterior():
    """Eigenvalues of (Q^T H^-1 Q)^-1 by dense inverses, where H has one."""
    factor = np.linalg.qr(FACTOR_ROWS)[1]
    centroids = np.random.default_rng(4).normal(size=(3, 6))
    span = np.linalg.qr(centroids.T)[0]
    marginal = span.T @ np.linalg.inv(FACTOR_ROWS.T @ FACTOR_ROWS) @ span
    expected = np.sort(1 / np.linalg.eigvalsh(marginal))
    np.testing.assert_allclose(figure.principal_rigidities(factor, centroids), expected)


def test_principal_rigidities_of_a_singular_factor_are_the_limit_of_a_small_ridge():
    """Two rows in six columns reach one direction of the span at most: the rest is zero."""
    factor = np.zeros((6, 6))
    factor[:2] = np.linalg.qr(FACTOR_ROWS[:2])[1]
    inside = FACTOR_ROWS[:1]
    centroids = np.concatenate([inside, np.random.default_rng(4).normal(size=(1, 6))])
    span = np.linalg.qr(centroids.T)[0]
    hessian = FACTOR_ROWS[:2].T @ FACTOR_ROWS[:2] + 1e-9 * np.eye(6)
    limit = np.sort(1 / np.linalg.eigvalsh(span.T @ np.linalg.inv(hessian) @ span))
    found = figure.principal_rigidities(factor, centroids)
    assert found[0] == 0.0 and limit[0] < 1e-7
    assert found[1] == pytest.approx(limit[1], rel=1e-6)


def test_the_smallest_lpr_is_a_geometric_mean_over_seeds():
    """Of the start of each training set: 1 and 100 have the mean 10."""
    drawn = [
        Record(figure.Point(2, "fixed + pure", 8, 20, 0.1, seed), {"lpr": np.array(lpr)}, {})
        for seed, lpr in enumerate(([[1.0, 5.0], [0.1, 0.1]], [[300.0, 100.0], [0.1, 0.1]]))
    ]
    found = figure.smallest_by_spread(drawn)
    assert found["spread"] == [0.1] and found["smallest_lpr"] == pytest.approx([10.0])


def test_spread_inside_groups_lifts_the_degeneracy_as_its_square(summary):
    """Rows move by the spread, so H gains spread^2 in the missing directions."""
    assert summary["in_group_spread"]["slope"] == pytest.approx(2.0, abs=0.05)


def test_the_last_line_and_a_second_run(summary, results, capsys, drawn):
    flags = "--preset smoke --groups 2 3 5 --shown 3 --seeds 0 1 --dimension 8 --plot-only"
    again = figure.main([*flags.split(), "--results", str(results)])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again and again["table"] == summary["table"]
    assert f"in all {summary['rows']} rows" in out
    png = results / "toy_rigidity" / "toy_rigidity.png"
    pure = [f"{what} added" for what in ("compositions", "pure structures")]
    pure += ["LPR at weight 1", "spread of features in a group", "smallest LPR, none added"]
    panels = check_figure(drawn["toy_rigidity"], png, out, 4, tuple(pure))
    found = again["in_group_spread"]
    spread = next(ax for ax in panels if "spread" in ax.get_title())
    drawn_line(spread, found["spread"], found["smallest_lpr"])
    assert power_of(spread.lines[-1]) == pytest.approx(2.0)  # the theory's


def test_a_table_that_contradicts_the_count_says_so(summary):
    wrong = summary | {"rows_as_expected": summary["rows"] - 1}
    assert "NOT in 1 of" in figure.caption(wrong)
    assert range_of([3, 2, 3]) == "2…3" and range_of([2, 2]) == "2"


@pytest.mark.parametrize("wrong", [{"shown": 4}, {"dimension": 2}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted one of groups"):
        figure.points(figure.Config(groups=(2, 3), **{"shown": 3} | wrong))
