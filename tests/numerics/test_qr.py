"""Triangles: one bound by reflections and by products, at any condition, and a way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.numerics.qr import by_cholesky, by_products, by_reflections, triangle
from lprjax.regression.factors import block_size, empty, fold

EPS = np.finfo(float).eps
CONDITIONS = [1.0, 1e6, 1e9, 1e12, 1e15]
cholesky, products = jax.jit(by_cholesky), jax.jit(by_products)


def matrix(condition, m=300, n=40):
    """Of a condition number, whose columns are then scaled by anything from 1e-6 to 1e6."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(k, n)))[0] for k in (m, n))
    spectrum = condition ** -np.linspace(0.0, 1.0, n)
    return (left * spectrum) @ right.T * 10.0 ** rng.uniform(-6.0, 6.0, size=n)


def assert_triangle(found, a):
    """A diagonal >= 0, and R^T R = A^T A in units of |a_i| |a_j|."""
    found, size = np.asarray(found), np.linalg.norm(a, axis=0)
    size = np.where(size > 0.0, size, 1.0)
    assert not np.tril(found, -1).any() and (np.diagonal(found) >= 0.0).all()
    error = (found / size).T @ (found / size) - (a / size).T @ (a / size)
    assert np.abs(error).max() < 20 * EPS


@pytest.mark.parametrize("condition", CONDITIONS)
def test_cholesky_keeps_the_bound_of_reflections(condition):
    """R is the triangle of A + E with |e_j| <= c u |a_j|, c = 20 for 40 columns. So its singular
    values, columns scaled, are those of A to |E|; at a condition of 1e12 the smallest has four
    digits left, and that of A^T A would have none."""
    a = matrix(condition)
    found, good = (np.asarray(x) for x in cholesky(a))
    assert good
    assert_triangle(found, a)
    size = np.linalg.norm(a, axis=0)
    ours, exact = (np.linalg.svd(x / size, compute_uv=False) for x in (found, a))
    assert exact[0] / exact[-1] > 0.1 * condition
    np.testing.assert_allclose(ours, exact, rtol=0, atol=20 * EPS * exact[0])
    # The factor itself is as sensitive as the condition says.
    off = np.abs(found - np.asarray(by_reflections(jnp.asarray(a)))) / size
    assert off.max() < 100 * EPS * condition


def test_rows_of_a_basis_need_the_second_shift():
    """Many columns, that depend on each other to 1e-15: after one shift a condition of 4e8 is left,
    whose square is beyond rounding. The bound is the same: 20 for any number of columns tried."""
    a = matrix(1e15, m=700, n=200)
    found, good = (np.asarray(x) for x in cholesky(a))
    assert good
    assert_triangle(found, a)


def test_least_squares_are_as_good_as_by_reflections():
    """At a condition of 1e12, where normal equations have no digit left: the residual is the least.

    The range of A is known to 1e-16 times the condition, and the residual to about its square."""
    a = matrix(1e12)
    y = (a / np.linalg.norm(a, axis=0)) @ np.ones(a.shape[1]) + np.cos(np.arange(len(a)))
    q, _ = np.linalg.qr(a / np.linalg.norm(a, axis=0))
    best = np.linalg.norm(y - q @ (q.T @ y))
    found, good = (np.asarray(x) for x in cholesky(np.column_stack([a, y])))
    assert good and found[-1, -1] == pytest.approx(best, rel=1e-6)
    c = np.linalg.solve(found[:-1, :-1], found[:-1, -1])
    assert np.linalg.norm(a @ c - y) == pytest.approx(best, rel=1e-6)


DEFICIENT = {
    "dependent columns": lambda a: np.column_stack([a, a[:, 0] - 2.0 * a[:, 3]]),
    "fewer rows than columns": lambda a: np.concatenate([a[:10], np.zeros((90, 40))]),
    "a condition of 1e17": lambda a: matrix(1e17),
    "no rows at all": lambda a: np.zeros((50, 40)),
}


@pytest.mark.parametrize("name", DEFICIENT)
def test_what_cholesky_cannot_do_reflections_do(name):
    """Where there is anything it cannot do: a pivot of rounding may pass, and keeps the bound."""
    a = DEFICIENT[name](matrix(10.0))
    assert_triangle(products(a), a)
    if name == "fewer rows than columns":
        assert not cholesky(a)[1]


def test_empty_columns_stay_empty():
    """They make no matrix deficient here: species that have not come yet."""
    a = matrix(1e6)
    a[:, 5] = a[:, 30] = 0.0
    found, good = (np.asarray(x) for x in cholesky(a))
    assert good and not found[:, [5, 30]].any() and not found[[5, 30]].any()
    assert_triangle(found, a)


def test_a_nan_goes_through():
    a = matrix(10.0)
    a[3, 4] = np.nan
    assert np.isnan(products(a)).any()


def test_an_accelerator_folds_by_products(monkeypatch):
    """Many rows at a time; the factor is that of a CPU."""
    a = matrix(1e9)
    y, on_cpu = a @ np.ones(40), block_size(684)
    plain = jax.jit(lambda x, y: fold(empty(40), x, y))(a, y + 1.0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert block_size(684) == 8 * on_cpu and block_size(684, first=True) == on_cpu
    text = str(jax.make_jaxpr(triangle)(a))
    assert "cholesky" in text and "cond" in text
    other = jax.jit(lambda x, y: fold(empty(40), x, y))(a, y + 1.0)
    whole = np.column_stack([other.triangular, other.target])
    assert_triangle(other.triangular, a)
    gram = np.column_stack([a, y + 1.0])
    scale = np.linalg.norm(gram, axis=0)
    error = (whole.T @ whole)[:-1] - (gram.T @ gram)[:-1]
    assert np.abs(error / np.outer(scale[:-1], scale)).max() < 20 * EPS
    assert float(other.residual) == pytest.approx(float(plain.residual), rel=1e-9)
