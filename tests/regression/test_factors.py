"""Factors lose nothing: |X c - y|^2 is the same function of c however the rows were folded in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.regression.factors import (
    _PANEL,
    _fold,
    compress,
    empty,
    equilibrate,
    extend,
    fold,
    merge,
    stacked_triangle,
    weighed,
)

K = 6
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(53, K)) * np.array([1.0, 1e3, 1e-3, 1.0, 10.0, 0.1])
TARGETS = RNG.normal(size=53)
# Householder QR is backward stable column by column: a few eps times a small power of the sizes.
EPS = 100 * np.finfo(float).eps


def column_error(triangular, rows):
    """The largest error of R^T R against X^T X in units of |x_i| |x_j|."""
    norms = np.linalg.norm(rows, axis=0)
    norms = np.where(norms > 0, norms, 1.0)
    error = np.asarray(triangular.T @ triangular) - rows.T @ rows
    return np.max(np.abs(error) / np.outer(norms, norms))


def assert_same_loss(factor, rows, targets):
    """|X c - y|^2 = |R c - q|^2 + rho^2 for random c, and R upper triangular with diagonal >= 0."""
    assert not np.tril(factor.triangular, -1).any()
    assert (np.diagonal(factor.triangular) >= 0).all()
    assert factor.n_rows == len(rows) and isinstance(factor.n_rows, int)
    assert column_error(factor.triangular, rows) < EPS
    for c in RNG.normal(size=(3, K)):
        kept = np.sum((factor.triangular @ c - factor.target) ** 2) + factor.residual
        assert kept == pytest.approx(np.sum((rows @ c - targets) ** 2), rel=EPS)


@pytest.mark.parametrize("n_rows", [0, 1, K - 1, K, 16, 17, 53])
def test_loss_is_kept_for_any_number_of_rows(n_rows):
    factor = compress(ROWS[:n_rows], TARGETS[:n_rows], block_rows=16)
    assert_same_loss(factor, ROWS[:n_rows], TARGETS[:n_rows])


def test_loss_is_kept_for_dependent_columns():
    rows = ROWS.copy()
    rows[:, 3] = rows[:, 0] - 2.0 * rows[:, 4]
    rows[:, 5] = 0.0
    assert_same_loss(compress(rows, TARGETS, block_rows=16), rows, TARGETS)


def test_residual_is_the_part_outside_the_range():
    factor = compress(ROWS, TARGETS)
    _, residual, rank, _ = np.linalg.lstsq(ROWS / np.linalg.norm(ROWS, axis=0), TARGETS)
    assert rank == K
    assert float(factor.residual) == pytest.approx(residual[0], rel=1e-12)


def test_exact_targets_leave_no_residual():
    # rho, not rho^2, is accurate to eps |y|: no difference of squares is taken.
    targets = ROWS @ np.ones(K)
    assert compress(ROWS, targets).residual < (EPS * np.linalg.norm(targets)) ** 2


def test_block_size_and_order_do_not_matter():
    one = compress(ROWS, TARGETS, block_rows=53)
    many = compress(ROWS[::-1], TARGETS[::-1], block_rows=16)
    scale = np.linalg.norm(ROWS, axis=0)
    np.testing.assert_allclose(
        np.asarray(one.triangular) / scale, np.asarray(many.triangular) / scale, atol=EPS
    )
    np.testing.assert_allclose(one.target, many.target, atol=EPS * np.linalg.norm(TARGETS))


def test_one_shape_is_compiled_for_any_number_of_rows():
    compress(ROWS[:3], TARGETS[:3], block_rows=16)
    compiled = _fold._cache_size()
    for n_rows in (1, 16, 17, 40, 53):
        compress(ROWS[:n_rows], TARGETS[:n_rows], block_rows=16)
    assert _fold._cache_size() == compiled


def test_merge_and_extend_equal_compress_of_all_rows():
    parts = [compress(ROWS[s], TARGETS[s], block_rows=16) for s in (slice(20), slice(20, 53))]
    assert_same_loss(merge(*parts), ROWS, TARGETS)
    assert_same_loss(merge(parts[1], parts[0]), ROWS, TARGETS)
    assert_same_loss(extend(parts[0], ROWS[20:], TARGETS[20:], block_rows=16), ROWS, TARGETS)
    assert_same_loss(merge(parts[0], empty(K)), ROWS[:20], TARGETS[:20])


def test_a_weighed_factor_is_that_of_the_weighed_rows():
    rng = np.random.default_rng(7)
    rows, targets = rng.normal(size=(30, 5)), rng.normal(size=30)
    found = weighed(compress(rows, targets), 3.0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        found,
        compress(3.0 * rows, 3.0 * targets),
    )


def test_fold_is_pure_and_counts_the_rows_that_count():
    padded = np.concatenate([ROWS[:10], np.zeros((4, K))])
    targets = np.concatenate([TARGETS[:10], np.zeros(4)])
    factor = jax.jit(lambda r, t: fold(empty(K), r, t, 10))(padded, targets)
    plain = compress(ROWS[:10], TARGETS[:10], block_rows=16)
    np.testing.assert_allclose(factor.triangular, plain.triangular, atol=EPS * 1e3)
    assert int(factor.n_rows) == 10


@pytest.mark.parametrize("n", [1, _PANEL, _PANEL + 1, 2 * _PANEL + 3])
def test_stacked_triangles_make_one_triangle(n):
    """Of any number of panels, some triangles zero or of low rank: R^T R = sum_k R_k^T R_k."""
    rng = np.random.default_rng(n)
    triangles = np.triu(rng.normal(size=(4, n, n + 1)))
    triangles[1], triangles[2, n // 2 :] = 0.0, 0.0
    found = np.asarray(jax.jit(stacked_triangle)(triangles))
    assert found.shape == (n + 1, n + 1)
    assert not np.tril(found, -1).any() and (np.diagonal(found) >= 0).all()
    rows = triangles.reshape(-1, n + 1)
    assert column_error(found, rows) < EPS
    np.testing.assert_allclose(np.abs(found), np.abs(np.linalg.qr(rows, mode="r")), atol=1e-12)


def test_equilibrate_gives_unit_columns_and_leaves_zero_columns():
    triangular = np.triu(ROWS[:K])
    triangular[:, 2] = 0.0
    scaled, scale = equilibrate(jnp.asarray(triangular))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=0), [1, 1, 0, 1, 1, 1], rtol=EPS)
    np.testing.assert_allclose(scaled, triangular * np.asarray(scale), rtol=EPS)


def test_integers_and_lists_are_taken():
    factor = compress([[1, 0], [0, 2]], [3, 4])
    np.testing.assert_allclose(factor.triangular, [[1, 0], [0, 2]], atol=EPS)
    np.testing.assert_allclose(factor.target, [3, 4], atol=EPS)


@pytest.mark.parametrize(
    "rows, targets, error, message",
    [
        (ROWS[0], TARGETS[:1], ValueError, r"rows have shape \(6,\)"),
        (ROWS[:, :0], TARGETS, ValueError, "K >= 1"),
        (ROWS, TARGETS[:-1], ValueError, r"targets have shape \(52,\).*\(53,\)"),
        (ROWS.astype(np.float32), TARGETS, TypeError, "rows have dtype float32.*float64"),
        (ROWS, TARGETS.astype(np.float32), TypeError, "targets have dtype float32"),
        (ROWS > 0, TARGETS, TypeError, "bool"),
        (np.where(np.arange(53)[:, None] == 21, np.nan, ROWS), TARGETS, ValueError, "row 21"),
        (ROWS, np.where(np.arange(53) == 40, np.inf, TARGETS), ValueError, "targets.*row 40"),
    ],
)
def test_bad_rows_are_refused(rows, targets, error, message):
    with pytest.raises(error, match=message):
        compress(rows, targets, block_rows=16)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="6 and 4 columns"):
        merge(empty(K), empty(4))
    with pytest.raises(ValueError, match="rows have 6 columns: wanted 4, as the factor has"):
        extend(empty(4), ROWS, TARGETS)
    with pytest.raises(ValueError, match="block_rows is 0"):
        compress(ROWS, TARGETS, block_rows=0)
    with pytest.raises(ValueError, match="n_features is 0"):
        empty(0)


def test_single_precision_is_refused():
    factor = empty(K)
    calls = [lambda: compress(ROWS, TARGETS), lambda: empty(K), lambda: merge(factor, factor)]
    with jax.enable_x64(False):
        for call in calls:
            with pytest.raises(RuntimeError, match="jax_enable_x64"):
                call()
