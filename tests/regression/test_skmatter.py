"""scikit-matter's LPR: equal to ours where it is right, and where it is not."""

import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import (
    component_rigidity,
    local_prediction_rigidity,
    skmatter_rigidity,
)

K = 6
RNG = np.random.default_rng(2)
SIZES = (2, 4, 3, 8, 1, 5, 2, 6, 4)
TRAIN = [RNG.normal(size=(n, K)) for n in SIZES]
SITES = [RNG.normal(size=(n, K)) for n in (3, 5)]
A, B = np.eye(2)


@pytest.fixture(scope="module")
def metrics():
    return pytest.importorskip("skmatter.metrics")


def theirs(metrics, training, sites, alpha):
    (lpr,), rank_difference = metrics.local_prediction_rigidity(training, [np.array(sites)], alpha)
    return lpr, rank_difference


def ours(training, sites, ridge):
    """With a ridge that does not depend on the training set."""
    rows = np.array([rows.mean(axis=0) for rows in training])
    data = {"energy": compress(rows, np.zeros(len(rows)))}
    factor = fit(data, {"energy": 1.0}, ridge=ridge).factor
    return np.asarray(local_prediction_rigidity(factor, np.array(sites)))


@pytest.mark.parametrize("alpha", [1e-8, 1e-2, 10.0])
def test_what_theirs_means_by_a_dense_inverse(alpha):
    """x = B / s, s^2 the mean of |B|^2 over all atoms, of whatever structure."""
    scale = np.sqrt(np.mean([row @ row for rows in TRAIN for row in rows]))
    x = np.array([sum(rows) / len(rows) for rows in TRAIN]) / scale
    compliance = np.linalg.inv(x.T @ x + alpha * np.eye(K))
    for sites in SITES:
        expected = [1.0 / (site @ compliance @ site) for site in sites / scale]
        np.testing.assert_allclose(skmatter_rigidity(TRAIN, sites, alpha), expected, rtol=1e-11)


@pytest.mark.oracle
@pytest.mark.parametrize("alpha", [1e-8, 1e-2, 10.0])
def test_same_numbers_where_theirs_are_right(metrics, alpha):
    """Full rank: rounding, times a condition number of about 1e2 that forming X^T X squares."""
    expected, rank_difference = metrics.local_prediction_rigidity(TRAIN, SITES, alpha)
    assert rank_difference == 0
    for sites, lpr in zip(SITES, expected, strict=True):
        np.testing.assert_allclose(skmatter_rigidity(TRAIN, sites, alpha), lpr, rtol=1e-11)


@pytest.mark.oracle
def test_components_where_theirs_are_right(metrics):
    """Of sites, and of structures as means of their sites; their units, alpha s^2 as the ridge."""
    alpha, sizes = 1e-2, np.array([2, 1, 3])
    structures, sites, _ = metrics.componentwise_prediction_rigidity(TRAIN, SITES, alpha, sizes)
    squared = np.mean(np.sum(np.vstack(TRAIN) ** 2, axis=1))
    rows = np.array([x.mean(axis=0) for x in TRAIN])
    data = {"energy": compress(rows, np.zeros(len(rows)))}
    factor = fit(data, {"energy": 1.0}, ridge=alpha * squared).factor
    masks = np.repeat(np.arange(3), sizes)[None, :] == np.arange(3)[:, None]
    means = np.array([x.mean(axis=0) for x in SITES])
    np.testing.assert_allclose(component_rigidity(factor, means, masks), structures, rtol=1e-11)
    for x, lcpr in zip(SITES, sites, strict=True):
        np.testing.assert_allclose(component_rigidity(factor, x, masks), lcpr, rtol=1e-11)


def one_hot(*counts):
    return np.repeat(np.eye(2), counts, axis=0)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "more, lpr",
    [([], (2e-8, 2e-8)), ([one_hot(2, 1)], (0.110, 0.107)), ([one_hot(1, 0)], (1.00, 0.93))],
    ids=["AB", "AB and A2B", "AB and pure A"],
)
def test_worked_oracle_of_fixed_stoichiometry(metrics, more, lpr):
    """50 structures AB and one more, alpha = 1e-8: the same from both codes.

    Their X^T X + alpha I has condition 25 / 1e-8, so 2.5e9 eps of rounding, and pinv as much again.
    """
    training = [one_hot(1, 1)] * 50 + more
    expected, _ = theirs(metrics, training, (A, B), 1e-8)
    found = np.asarray(skmatter_rigidity(training, (A, B), 1e-8))
    np.testing.assert_allclose(found, lpr, rtol=5e-3 if more else 1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("alpha, limit", [(0.0, 0.0), (1e-18, 2e-18)])
def test_their_pseudo_inverse_calls_the_undetermined_well_determined(metrics, alpha, limit):
    """AB only: A - B is free, so LPR_A is 2 alpha. Theirs is 1 / (A^T (X^T X)^+ A) = 50; the
    difference of ranks tells that something is free, but not which atoms."""
    training = [one_hot(1, 1)] * 50
    wrong, rank_difference = theirs(metrics, training, (A, B), alpha)
    np.testing.assert_allclose(wrong, 50.0, rtol=1e-9)
    assert rank_difference == 1
    found = np.asarray(skmatter_rigidity(training, (A, B), alpha))
    # R of size 5 is rounded where it is alpha^1/2 = 1e-9: 5 eps / 1e-9 = 1e-6 relative.
    np.testing.assert_allclose(found, limit, rtol=5e-6)


@pytest.mark.oracle
def test_their_scale_makes_training_sets_incomparable(metrics):
    """More data lower their LPR. The added structure has small features, hence the rms norm falls
    from 1 to 0.71, and with it what alpha amounts to: 2 alpha s^2 for A, from AB alone.

    With the ridge fixed no LPR falls: H only grows.
    """
    alpha, poor = 1e-3, [one_hot(1, 1)] * 50
    small = [1e-3 * one_hot(1, 1)] * 50
    before, after = (theirs(metrics, t, (A,), alpha)[0][0] for t in (poor, poor + small))
    squared = 0.5 * (1 + 1e-6)
    assert before == pytest.approx(2 * alpha, rel=1e-4)  # up to alpha / 50
    assert after == pytest.approx(2 * alpha * squared, rel=1e-4)
    named = [float(skmatter_rigidity(t, A, alpha)) for t in (poor, poor + small)]
    np.testing.assert_allclose(named, [before, after], rtol=1e-9)
    (ours_before,), (ours_after,) = (ours(t, (A,), alpha) for t in (poor, poor + small))
    assert ours_after >= ours_before * (1 - 1e-12)


def test_adding_any_structure_never_lowers_ours():
    """Random structures of every size of features: each LPR rises, or stays to rounding."""
    sites = np.vstack(SITES)
    for ridge in (0.0, 1e-3):
        last = ours(TRAIN[:3], sites, ridge)
        for n in range(4, len(TRAIN) + 1):
            scale = 10.0 ** RNG.uniform(-3, 1)
            now = ours([*TRAIN[: n - 1], scale * TRAIN[n - 1]], sites, ridge)
            assert (now >= last * (1 - 1e-10)).all()
            last = ours(TRAIN[:n], sites, ridge)


@pytest.mark.parametrize(
    "training, alpha, message",
    [
        ([], 1.0, "shapes \\[\\]"),
        ([np.ones((2, 3)), np.ones((2, 4))], 1.0, "wanted .* one K"),
        ([np.ones((0, 3))], 1.0, "n_A >= 1"),
        ([np.ones(3)], 1.0, r"\(n_A, K\)"),
        ([np.ones((2, 3))], -1.0, "alpha is -1.0"),
        ([np.ones((2, 3))], np.inf, "alpha is inf"),
    ],
)
def test_bad_arguments_are_refused(training, alpha, message):
    with pytest.raises(ValueError, match=message):
        skmatter_rigidity(training, np.ones((1, 3)), alpha)


def test_no_features_at_all_hold_nothing():
    """Zero features have no scale to divide by; nothing is rigid then, not even by alpha."""
    assert (np.asarray(skmatter_rigidity([np.zeros((2, 3))], np.eye(3), 1e-2)) == 0.0).all()
