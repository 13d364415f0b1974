"""The statistics of two columns, on columns whose answers are known."""

import numpy as np
import pytest
from scipy.stats import rankdata

from experiments.harness.statistics import extremes, relation

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
