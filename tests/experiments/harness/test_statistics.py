"""The statistics of two columns, on columns whose answers are known."""

from math import comb

import numpy as np
import pytest
from scipy.stats import rankdata

from experiments.harness.statistics import extremes, rank_within, relation, share_interval

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("power, rank", [(1.5, 1.0), (-2.0, -1.0), (1.0, 1.0)])
def test_a_power_law_is_found_exactly(power, rank):
    """y = 3 x^p: slope p without error, ranks in order or reversed; only p = 1 has no scatter.

    Rounding: logarithms of order ten, so 1e-14 of sums of 40 terms."""
    x = RNG.permutation(np.geomspace(1e-3, 1e2, 40))
    found = relation(x, 3.0 * x**power)
    assert found["n"] == 40
    assert found["spearman"] == pytest.approx(rank, abs=1e-14)
    assert found["slope"] == pytest.approx(power, abs=1e-12)
    assert found["slope_error"] == pytest.approx(0.0, abs=1e-7)  # of a root of rounding, 1e-15
    spread = abs(power - 1.0) * np.std(np.log10(x), ddof=1)
    assert found["scatter"] == pytest.approx(spread, abs=1e-12)


def test_noisy_columns_give_the_textbook_line_and_ranks():
    """By normal equations and their covariance; Spearman's is Pearson's of the ranks."""
    x = RNG.lognormal(size=30)
    y = x**0.7 * RNG.lognormal(size=30)
    found = relation(x, y)
    design = np.stack([np.log10(x), np.ones(30)], axis=1)
    line, squares, *_ = np.linalg.lstsq(design, np.log10(y))
    covariance = squares[0] / (30 - 2) * np.linalg.inv(design.T @ design)
    assert found["slope"] == pytest.approx(line[0], rel=1e-10)
    assert found["slope_error"] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-10)
    ranks = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
    assert found["spearman"] == pytest.approx(ranks, rel=1e-10)
    assert 0.0 < found["slope_error"] < 0.5 and 0.0 < ranks < 1.0


def test_the_scatter_is_that_of_the_noise_whatever_the_factor():
    """In decades: ratios of 10^(+-0.3) about any factor scatter by 0.3 (n / (n - 1))^(1/2)."""
    x, n = RNG.lognormal(size=50), 50
    noise = 10.0 ** np.tile([0.3, -0.3], n // 2)
    for factor in (1.0, 1e-4):
        found = relation(x, factor * x * noise)
        assert found["scatter"] == pytest.approx(0.3 * np.sqrt(n / (n - 1)), rel=1e-10)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_points_have_no_relation(n):
    x = np.arange(1.0, n + 1.0)
    none = dict.fromkeys(("spearman", "slope", "slope_error", "scatter"))
    assert relation(x, 2.0 * x) == {"n": n} | none
    assert set(relation(np.arange(1.0, 4.0), np.arange(1.0, 4.0))) == {"n", *none}


def test_extremes_are_of_what_is_finite():
    values = [np.nan, 2.0, np.inf, -3.0, -np.inf, 0.5]
    assert extremes(values) == (-3.0, 2.0) == extremes(np.array(values))
    assert extremes([7.0]) == (7.0, 7.0)


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf]])
def test_nothing_finite_has_no_extremes(values):
    assert np.isnan(extremes(values)).all()


def test_ranks_at_fixed_groups_do_not_see_what_both_follow():
    """Both follow the group, over all by rank 0.9 and more; inside x and y are reversed. Groups
    of fewer than three are left out; without any there is no number."""
    group = np.repeat([1.0, 10.0, 100.0], 4)
    inside = np.tile(np.arange(4.0), 3)
    x, y = group + 0.1 * inside, group - 0.1 * inside
    assert relation(x, y)["spearman"] > 0.7
    assert rank_within(x, y, group) == pytest.approx(-1.0)
    mixed = np.append(group, [7.0, 7.0])
    assert rank_within(np.append(x, [1, 2]), np.append(y, [1, 2]), mixed) == pytest.approx(-1.0)
    assert rank_within(x[:2], y[:2], group[:2]) is None


@pytest.mark.parametrize("hits, n", [(14, 24), (15, 16), (3, 40)])
def test_the_interval_of_a_share_leaves_two_and_a_half_percent_on_either_side(hits, n):
    """Its ends are the probabilities under which as many hits or more, and as few or fewer, are
    that rare, by the binomial sum itself."""

    def chance(p, these):
        return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in these)

    low, high = share_interval(hits / n, n)
    assert chance(low, range(hits, n + 1)) == pytest.approx(0.025, rel=1e-6)
    assert chance(high, range(hits + 1)) == pytest.approx(0.025, rel=1e-6)
    assert share_interval(0.0, n)[0] == 0.0 and share_interval(1.0, n)[1] == 1.0


def test_one_abscissa_has_no_relation():
    assert relation(np.ones(5), np.arange(1.0, 6.0))["spearman"] is None
