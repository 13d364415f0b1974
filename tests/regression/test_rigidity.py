"""Prediction rigidity: its definition, its identities, and its limit for singular H."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.regression import rigidity
from lprjax.regression.factors import clearly_full_rank, compress
from lprjax.regression.fitting import fit, solution
from lprjax.regression.rigidity import (
    component_rigidity,
    local_prediction_rigidity,
    prediction_rigidity,
)

K = 6
RNG = np.random.default_rng(1)
ROWS = RNG.normal(size=(40, K))
SITES = RNG.normal(size=(3, 5, K))


def factor_of(rows, ridge=0.0):
    """R of the rows at weight one, targets being of no consequence for a rigidity."""
    data = {"energy": compress(rows, np.zeros(len(rows)), block_rows=16)}
    return fit(data, {"energy": 1.0}, ridge=ridge).factor


def dense_rigidity(rows, g, ridge=0.0):
    inverse = np.linalg.inv(rows.T @ rows + ridge * np.eye(rows.shape[1]))
    return 1.0 / np.einsum("...k,kl,...l->...", g, inverse, g)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_equals_dense_inverse(ridge):
    expected = dense_rigidity(ROWS, SITES, ridge)
    factor = factor_of(ROWS, ridge)
    np.testing.assert_allclose(prediction_rigidity(factor, SITES), expected, rtol=1e-12)
    np.testing.assert_allclose(local_prediction_rigidity(factor, SITES[0, 0]), expected[0, 0])


def test_blocks_and_jit_change_nothing(monkeypatch):
    factor = factor_of(ROWS)
    whole = prediction_rigidity(factor, SITES)
    assert whole.shape == (3, 5)
    monkeypatch.setattr(rigidity, "BLOCK", 4)  # 15 rows: the last block is padded
    jitted = jax.jit(prediction_rigidity)
    rigidity._rigidity.clear_cache()
    np.testing.assert_allclose(jitted(factor, SITES), whole, rtol=1e-13)
    singular, inside = factor_of(ROWS[:2]), RNG.normal(size=(3, 5, 2)) @ ROWS[:2]
    whole = np.asarray(prediction_rigidity(singular, inside))
    assert (whole > 0.0).all()
    np.testing.assert_allclose(jitted(singular, inside), whole, rtol=1e-13)
    assert prediction_rigidity(factor, SITES[:0]).shape == (0, 5)


def test_definition_by_the_constrained_loss():
    """Moving one prediction by d raises the least loss, 1/2 |..|^2, by d^2/2 PR."""
    g, targets, ridge, d = SITES[0, 0], RNG.normal(size=40), 0.3, 0.7
    rows = np.concatenate([ROWS, np.sqrt(ridge) * np.eye(K)])
    targets = np.concatenate([targets, np.zeros(K)])
    free = np.linalg.lstsq(rows, targets)[0]
    # All c with g.c = g.free + d: a particular one and the null space of g.
    held = free + d * g / (g @ g)
    null = np.linalg.svd(g[None])[2][1:].T
    held = held + null @ np.linalg.lstsq(rows @ null, targets - rows @ held)[0]
    assert g @ (held - free) == pytest.approx(d, rel=1e-13)
    rise = 0.5 * (np.sum((rows @ held - targets) ** 2) - np.sum((rows @ free - targets) ** 2))
    rigidity = prediction_rigidity(factor_of(ROWS, ridge), g)
    assert 0.5 * d**2 * float(rigidity) == pytest.approx(rise, rel=1e-11)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_one_pure_structure_adds_one(ridge):
    """1/(g^T (H + g g^T)^-1 g) = 1/(g^T H^-1 g) + 1 (Sherman-Morrison), and n add n."""
    g = SITES[0]
    before = local_prediction_rigidity(factor_of(ROWS, ridge), g)
    for n in (1, 3):
        factors = [factor_of(np.vstack([ROWS] + n * [b]), ridge) for b in g]
        after = [local_prediction_rigidity(factor, g)[i] for i, factor in enumerate(factors)]
        np.testing.assert_allclose(np.array(after), np.asarray(before) + n, rtol=1e-12)


def test_one_pure_structure_adds_one_to_nothing():
    """From rigidity exactly 0 (outside range(H)) to 1, and by 1 inside it."""
    rows = ROWS[: K - 3]
    inside = RNG.normal(size=K - 3) @ rows
    for g, before in ((SITES[0, 0], 0.0), (inside, None)):
        start = float(local_prediction_rigidity(factor_of(rows), g))
        assert before is None or start == before
        after = float(local_prediction_rigidity(factor_of(np.vstack([rows, g])), g))
        assert after == pytest.approx(start + 1.0, rel=1e-12)


def test_never_falls_when_rows_are_added():
    """From no rows to forty, through every rank; 1e-12 relative is rounding."""
    history = np.array([prediction_rigidity(factor_of(ROWS[:n]), SITES[0]) for n in range(1, 41)])
    assert (history[: K - 1] == 0.0).all() and (history[K - 1 :] > 0.0).all()
    assert (history[1:] >= history[:-1] * (1.0 - 1e-12)).all()
    trained = np.array([prediction_rigidity(factor_of(ROWS[:n]), ROWS[0]) for n in range(1, 41)])
    assert (trained >= 1.0 - 1e-12).all()


def test_invariant_under_rotation_of_feature_space():
    rotation, _ = np.linalg.qr(RNG.normal(size=(K, K)))
    for rows, ridge in ((ROWS, 0.0), (ROWS, 0.3), (ROWS[:3], 0.0), (ROWS[:3], 0.3)):
        g = np.concatenate([SITES[0, :2], rows[:3]])
        plain = prediction_rigidity(factor_of(rows, ridge), g)
        turned = prediction_rigidity(factor_of(rows @ rotation, ridge), g @ rotation)
        np.testing.assert_allclose(turned, plain, rtol=1e-11)


def test_invariant_under_column_scaling_without_ridge():
    """Eighteen orders of magnitude in units; rank-deficient data included."""
    units = np.geomspace(1e-9, 1e9, K)[RNG.permutation(K)]
    for rows in (ROWS, ROWS[:3]):
        g = np.concatenate([SITES[0, :2], RNG.normal(size=(3, len(rows))) @ rows])
        plain = prediction_rigidity(factor_of(rows), g)
        scaled = prediction_rigidity(factor_of(rows * units), g * units)
        np.testing.assert_allclose(scaled, plain, rtol=1e-10)
    assert (np.asarray(plain)[:2] == 0.0).all() and (np.asarray(plain)[2:] > 0.0).all()


@pytest.mark.parametrize("rows", [ROWS, ROWS[:3]], ids=["full rank", "singular"])
def test_a_prediction_in_another_unit_is_as_rigid(rows):
    """PR(t g) = PR(g) / t^2, zero or not: what is in the range of H is so in any unit."""
    g = np.concatenate([SITES[0, :2], RNG.normal(size=(3, len(rows))) @ rows])
    plain = np.asarray(prediction_rigidity(factor_of(rows), g))
    assert (plain[:2] > 0.0).all() == (len(rows) >= K) and (plain[2:] > 0.0).all()
    for unit in (1e-15, 1e15):
        scaled = np.asarray(prediction_rigidity(factor_of(rows), unit * g)) * unit**2
        np.testing.assert_allclose(scaled, plain, rtol=1e-12)


def _exact_rigidity(rows, g, ridge):
    """1 / (g^T (X^T X + ridge)^-1 g) in rational arithmetic, by Gaussian elimination."""
    n = len(g)
    h = [
        [sum(Fraction(x[i]) * Fraction(x[j]) for x in rows) + ridge * (i == j) for j in range(n)]
        + [Fraction(g[i])]
        for i in range(n)
    ]
    for k in range(n):
        pivot = next(i for i in range(k, n) if h[i][k] != 0)
        h[k], h[pivot] = h[pivot], h[k]
        for i in range(n):
            if i != k:
                h[i] = [a - h[i][k] / h[k][k] * b for a, b in zip(h[i], h[k], strict=True)]
    return 1 / sum(Fraction(g[i]) * h[i][n] / h[i][i] for i in range(n))


def test_singular_h_gives_the_limit_of_a_vanishing_ridge():
    """Integer rows of rank 3 in 6 columns, the limit in rational arithmetic at ridge 1e-40."""
    rows = RNG.integers(-3, 4, size=(3, K))
    rows = np.concatenate([rows, rows[:1] + rows[1:2], 2 * rows[2:]])
    inside, outside = np.array([[1, -2, 1], [0, 3, 1]]) @ rows[:3], np.eye(K, dtype=int)[:3]
    computed = prediction_rigidity(factor_of(rows), np.concatenate([inside, outside]))
    exact = [
        _exact_rigidity(rows.tolist(), g.tolist(), Fraction(1, 10**40)) for g in (*inside, *outside)
    ]
    np.testing.assert_allclose(computed[:2], [float(x) for x in exact[:2]], rtol=1e-12)
    assert all(x < 1e-38 for x in exact[2:]) and not np.asarray(computed[2:]).any()


@pytest.mark.parametrize("angle, rigid", [(1e-15, True), (1e-13, True), (1e-10, False), (1, False)])
def test_the_tolerance_of_the_range_is_the_stated_one(angle, rigid):
    """The row e_1 + e_2: g along it with a part `angle` across is inside up to about rcond."""
    factor = factor_of(np.array([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]))
    g = np.array([1.0 + angle, 1.0 - angle, 0.5, 0.0, 0.0, 0.0])
    value = float(prediction_rigidity(factor, g))
    assert value == (pytest.approx(1 / 1.25, rel=1e-9) if rigid else 0.0)


@pytest.mark.parametrize("part, rigidity", [(1.7e-12, 1.0), (3e-12, 0.0)])
def test_the_tolerance_of_the_range_goes_with_the_largest_singular_value(part, rigidity):
    """One row of ones: s_1 = K^1/2 = 2.45, |R^-T g| = 1 for g along it."""
    g = np.ones(K) + part * np.sqrt(0.5) * (np.eye(K)[0] - np.eye(K)[1])
    found = float(prediction_rigidity(factor_of(np.ones((1, K))), g))
    assert found == pytest.approx(rigidity, rel=1e-9)


@pytest.mark.parametrize("condition", [1e12, 1e13, 1e14])
def test_beyond_condition_1e12_every_direction_counts(condition):
    """Training rows and sums of them, which all directions hold alike, against rational arithmetic.

    The least singular value is known to K eps s_1, and a rigidity to twice that, relatively.
    """
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.normal(size=(n, K)))[0] for n in (20, K))
    rows = left * np.geomspace(1.0, 1.0 / condition, K) @ right
    g = np.concatenate([rows[:12], rng.normal(size=(2, 20)) @ rows])
    exact = [_exact_rigidity(rows.tolist(), each.tolist(), Fraction(0)) for each in g]
    ratio = np.asarray(prediction_rigidity(factor_of(rows), g)) / np.array(exact, float)
    assert np.abs(ratio - 1).max() < 2 * K * np.finfo(float).eps * condition
    if condition > 1e12:  # and without the small singular values it would be far off
        kept = np.linalg.svd(rows)[1] > 1e-12
        whole, part = (np.sum(left[:12, use] ** 2, axis=1) for use in (kept | True, kept))
        assert (whole / part).max() > 1.05


@pytest.mark.parametrize("n_rows", [20, 400])
def test_dependent_columns_stay_dependent_after_rounding(n_rows):
    """Sixty columns made from forty: training rows are inside the range, unit vectors are not.

    Each training row has PR = 1 / leverage, its squared length in the range of the rows.
    """
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(n_rows, 40)) @ rng.normal(size=(40, 60)) * np.geomspace(1e-4, 1e4, 60)
    left, singular, _ = np.linalg.svd(rows / np.linalg.norm(rows, axis=0), full_matrices=False)
    leverage = np.sum(left[:20, singular > 1e-10] ** 2, axis=1)
    rigidity = np.asarray(prediction_rigidity(factor_of(rows), np.vstack([rows[:20], np.eye(60)])))
    np.testing.assert_allclose(rigidity[:20], 1 / leverage, rtol=1e-8)
    assert not rigidity[20:].any()


def _kahan(n, angle):
    """Unit columns, and nearly singular though no diagonal entry is small (Kahan 1966)."""
    rows = np.eye(n) - np.cos(angle) * np.triu(np.ones((n, n)), 1)
    return np.sin(angle) ** np.arange(n)[:, None] * rows


@pytest.mark.parametrize(
    "triangular, clear",
    [
        (np.eye(60), True),
        (_kahan(60, 1.3), True),  # smallest over largest singular value 3e-8
        (_kahan(60, 1.1), False),  # 7e-14, though the smallest diagonal entry is 1e-3
        (np.diag([1.0] * 59 + [1e-9]), True),
        (np.diag([1.0] * 59 + [1e-11]), False),  # within the margin of rcond: left to the SVD
        (np.diag([1.0] * 59 + [0.0]), False),
    ],
)
def test_solves_are_used_only_where_rank_is_beyond_doubt(triangular, clear):
    assert bool(jax.jit(clearly_full_rank)(triangular, 1e-12)) is clear


def test_no_data_and_no_dependence():
    """Nothing is rigid without data; a prediction without coefficients cannot be moved at all."""
    none, some = jnp.zeros((K, K)), factor_of(ROWS)
    assert float(prediction_rigidity(none, SITES[0, 0])) == 0.0
    for factor in (none, some):
        assert float(prediction_rigidity(factor, np.zeros(K))) == np.inf
    for factor, g in ((some, np.full(K, np.nan)), (np.triu(np.full((K, K), np.nan)), SITES[0, 0])):
        assert np.isnan(prediction_rigidity(factor, g))


def test_what_is_zero_by_symmetry_to_rounding_cannot_be_moved():
    """Among rows of order one a row of 1e-13 has PR = inf, and not the zero of its direction."""
    for factor in (factor_of(ROWS), factor_of(ROWS[:3])):
        g = np.concatenate([ROWS[:3], 1e-13 * RNG.normal(size=(2, K))])
        found = np.asarray(jax.jit(prediction_rigidity)(factor, g))
        assert np.isfinite(found[:3]).all() and np.isinf(found[3:]).all()


def test_components():
    masks = np.arange(K)[None, :] // 2 == np.arange(3)[:, None]
    factor = factor_of(ROWS, 0.3)
    result = component_rigidity(factor, SITES[0], masks)
    assert result.shape == (5, 3)
    for c, mask in enumerate(masks):
        expected = dense_rigidity(ROWS, SITES[0] * mask, 0.3)
        np.testing.assert_allclose(result[..., c], expected, rtol=1e-12)
        np.testing.assert_allclose(component_rigidity(factor, SITES[0], mask), expected, rtol=1e-12)
    everything = component_rigidity(factor, SITES, np.ones(K, bool))
    np.testing.assert_allclose(everything, prediction_rigidity(factor, SITES), rtol=1e-14)
    assert (np.asarray(component_rigidity(factor, SITES[0], np.zeros(K, bool))) == np.inf).all()


SPECIES = np.eye(K)  # one feature per species, A and B the first two


@pytest.mark.parametrize(
    "more, lpr_a, lpr_b",
    [
        ([], 2e-8, 2e-8),
        ([2 / 3 * SPECIES[0] + 1 / 3 * SPECIES[1]], 0.110, 0.107),
        ([SPECIES[0]], 1.00, 0.93),
    ],
)
def test_one_hot_oracle_of_fixed_stoichiometry(more, lpr_a, lpr_b):
    """Energies per atom of 50 structures AB and then one of another kind, alpha = 1e-8.

    1/LPR_A = (H^-1)_AA: LPR_A is 2 alpha for AB alone, 25/18 / 12.611 for A2B, 1 for pure A.
    """
    rows = np.array([(SPECIES[0] + SPECIES[1]) / 2] * 50 + more)
    lpr = np.asarray(local_prediction_rigidity(factor_of(rows, ridge=1e-8), SPECIES[:5]))
    # Two or three printed digits. For AB alone the terms left out are of relative size alpha / 50,
    # and R, of size 5, is rounded where it is alpha^1/2: eps 5 / 1e-4 relative.
    np.testing.assert_allclose(lpr[:2], [lpr_a, lpr_b], rtol=5e-3 if more else 1e-9)
    np.testing.assert_allclose(lpr[2:], 1e-8, rtol=1e-12)  # no data: only the ridge holds
    without_ridge = np.asarray(local_prediction_rigidity(factor_of(rows), SPECIES[:5]))
    assert not without_ridge[0 if not more else 2 :].any()
    np.testing.assert_allclose(without_ridge[:2], lpr[:2] if more else 0.0, rtol=1e-6)


def test_one_hot_groups_in_fixed_proportion_are_not_separable():
    """B:C always 1:1 beside A: A is determined, and so is B + C, but neither B nor C."""
    rows = np.array([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.8, 0.1, 0.1]]) @ SPECIES[:3]
    sites = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 1, 0], [0, 0, 1], [1, 1, 0]]) @ SPECIES[:3]
    lpr = np.asarray(local_prediction_rigidity(factor_of(rows), sites))
    assert not lpr[2:].any()
    folded = np.stack([rows[:, 0], rows[:, 1] + rows[:, 2]], axis=1)
    np.testing.assert_allclose(lpr[:2], dense_rigidity(folded, np.eye(2)), rtol=1e-12)


def test_gradient_with_respect_to_log_weights_equals_central_differences():
    """Errors O(h^2) at two steps: a ratio of four, and the extrapolation within O(h^4)."""
    parts = tuple(compress(x, np.zeros(20), block_rows=16) for x in (ROWS[:20], ROWS[20:]))

    @jax.jit
    def log_rigidity(log_weights):
        _, factor = solution(parts, jnp.exp(log_weights), 0.1)
        return jnp.log(prediction_rigidity(factor, SITES[0, 0]))

    at = jnp.array([0.3, -0.5])
    exact = jax.grad(log_rigidity)(at)

    def quotient(h):
        steps = h * np.eye(2)
        return np.array([(log_rigidity(at + s) - log_rigidity(at - s)) / (2 * h) for s in steps])

    coarse, fine = quotient(2e-2), quotient(1e-2)
    assert 3.8 < np.linalg.norm(coarse - exact) / np.linalg.norm(fine - exact) < 4.2
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, rtol=1e-7)


@pytest.mark.oracle
def test_agrees_with_skmatter_where_h_is_well_conditioned():
    """skmatter averages over atoms and divides features by s, their rms norm over training sites.

    That is alpha s^2 for features as they are: g/s (X^T X/s^2 + alpha)^-1 g/s.
    """
    metrics = pytest.importorskip("skmatter.metrics")
    train = [RNG.normal(size=(n, K)) for n in (2, 4, 3, 8, 1, 5, 2, 6, 4)]
    test, alpha = [SITES[0], SITES[1]], 1e-2
    expected, rank_difference = metrics.local_prediction_rigidity(train, test, alpha)
    assert rank_difference == 0
    squared = np.mean(np.sum(np.vstack(train) ** 2, axis=1))
    rows = np.array([np.mean(x, axis=0) for x in train])
    for scale, ridge in ((1.0, alpha * squared), (np.sqrt(squared), alpha)):
        factor = factor_of(rows / scale, ridge)
        for sites, lpr in zip(test, expected, strict=True):
            ours = local_prediction_rigidity(factor, sites / scale)
            np.testing.assert_allclose(ours, lpr, rtol=1e-11)


@pytest.mark.parametrize(
    "factor, g, error, message",
    [
        (np.eye(K)[:3], SITES, ValueError, r"factor has shape \(3, 6\)"),
        (np.eye(K), SITES[..., :4], ValueError, r"g has shape \(3, 5, 4\): wanted \(..., 6\)"),
        (np.eye(K), np.float64(1.0), ValueError, r"g has shape \(\)"),
        (np.ones((K, K)), SITES, ValueError, "not upper triangular.*not H"),
        (np.eye(K, dtype=np.float32), SITES, TypeError, "factor entries have dtype float32"),
        (np.eye(K), SITES.astype(np.float32), TypeError, "g entries have dtype float32"),
    ],
)
def test_bad_arguments_are_refused(factor, g, error, message):
    with pytest.raises(error, match=message):
        prediction_rigidity(factor, g)


def test_other_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="mask has dtype float64: wanted bool"):
        component_rigidity(np.eye(K), SITES, np.ones(K))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\): wanted \(6,\) or \(C, 6\)"):
        component_rigidity(np.eye(K), SITES, np.ones(3, bool))
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        prediction_rigidity(np.eye(K), SITES)
