"""What must hold of fits to any rows, weights and groups, on drawn ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lprjax.regression.factors import compress, merge, weighed
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import prediction_rigidity
from tests.helpers.strategies import FEW

K = 4
RIDGE = 1e-3  # so that every problem has one solution, and errors are at most eps times 1e3 or so
REALS = st.floats(-3.0, 3.0, allow_subnormal=False)
WEIGHTS = st.floats(0.01, 10.0)
PROBES = np.random.default_rng(0).normal(size=(5, K))


@st.composite
def problems(draw):
    """Two to four groups of rows and targets, one of them possibly empty, and their weights."""
    count = draw(st.integers(2, 4))
    data, weights = {}, {}
    for number in range(count):
        r = draw(st.integers(0 if number else 1, 5))
        rows = draw(arrays(float, (r, K), elements=REALS))
        key = ("energy", number) if draw(st.booleans()) else f"kind {number}"
        data[key] = rows, draw(arrays(float, r, elements=REALS))
        weights[key] = draw(WEIGHTS)
    return data, weights


def fitted(data, weights, **options):
    factors = {key: compress(*pair, block_rows=8) for key, pair in data.items()}
    return fit(factors, weights, ridge=RIDGE, **options)


def same(one, other):
    """Coefficients, and R up to the rounding of H = R^T R."""
    size = 1.0 + np.abs(one.factor).max() ** 2
    off = np.abs(np.asarray(other.coefficients - one.coefficients))
    assert off.max() < 1e-11 * size / RIDGE
    h, k = (np.asarray(f.factor).T @ np.asarray(f.factor) for f in (one, other))
    np.testing.assert_allclose(k, h, rtol=0, atol=1e-13 * size)
    assert (np.diag(other.factor) >= 0.0).all()


@FEW
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_groups_weights_and_rows_does_not_matter(problem, random):
    data, weights = problem
    keys, others = list(data), list(weights)
    random.shuffle(keys)
    random.shuffle(others)
    mixed = {}
    for key in keys:
        rows, targets = data[key]
        order = list(range(len(rows)))
        random.shuffle(order)
        mixed[key] = rows[order], targets[order]
    again = fitted(mixed, {key: weights[key] for key in others})
    same(fitted(data, weights), again)
    assert list(again.weights) == keys and dict(again.weights) == weights


@FEW
@given(problems(), st.integers(0, 5))
def test_a_group_may_be_split(problem, at):
    """Into two keys of one kind with its weight, or compressed apart and merged."""
    data, weights = problem
    first, *rest = data
    rows, targets = data[first]
    parts = {("first", 0): (rows[:at], targets[:at]), ("first", 1): (rows[at:], targets[at:])}
    split = parts | {key: data[key] for key in rest}
    whole = fitted(data, weights)
    same(whole, fitted(split, {"first": weights[first]} | {key: weights[key] for key in rest}))
    merged = merge(*(compress(*part, block_rows=8) for part in parts.values()))
    factors = {first: merged} | {key: compress(*data[key], block_rows=8) for key in rest}
    again = fit(factors, weights, ridge=RIDGE)
    same(whole, again)
    assert again.n_rows[first] == len(rows)
    np.testing.assert_allclose(again.rms[first], whole.rms[first], rtol=0, atol=1e-6)


@FEW
@given(problems())
def test_a_weight_is_rows_and_targets_times_it(problem):
    data, weights = problem
    whole = fitted(data, weights)
    scaled = {key: (weights[key] * x, weights[key] * y) for key, (x, y) in data.items()}
    same(whole, fitted(scaled, dict.fromkeys(data, 1.0)))
    factors = {k: weighed(compress(*v, block_rows=8), weights[k]) for k, v in data.items()}
    same(whole, fit(factors, dict.fromkeys(data, 1.0), ridge=RIDGE))


@FEW
@given(problems())
def test_a_weight_of_zero_is_absence(problem):
    data, weights = problem
    last = list(data)[-1]
    without = {key: pair for key, pair in data.items() if key != last}
    zero = fitted(data, weights | {last: 0.0})
    same(zero, fitted(without, {key: weights[key] for key in without}))
    assert zero.n_rows[last] == len(data[last][0])


@FEW
@given(problems(), WEIGHTS)
def test_one_factor_on_all_weights_is_one_on_the_ridge(problem, scale):
    """(t w)^2 and t^2 ridge: the same minimum, a factor t times, rigidities t^2 times."""
    data, weights = problem
    one = fitted(data, weights)
    factors = {key: compress(*pair, block_rows=8) for key, pair in data.items()}
    other = fit(factors, {k: scale * w for k, w in weights.items()}, ridge=scale**2 * RIDGE)
    same(one, other._replace(factor=other.factor / scale))
    ratio = np.asarray(prediction_rigidity(other.factor, PROBES) / scale**2)
    np.testing.assert_allclose(ratio, prediction_rigidity(one.factor, PROBES), rtol=1e-8)


@FEW
@given(problems(), WEIGHTS)
def test_more_weight_makes_no_prediction_less_rigid(problem, more):
    data, weights = problem
    first = next(iter(data))
    before = prediction_rigidity(fitted(data, weights).factor, PROBES)
    raised = fitted(data, weights | {first: weights[first] + more})
    assert (prediction_rigidity(raised.factor, PROBES) >= before * (1 - 1e-9)).all()
