"""Conjugate gradients and Lanczos against dense solvers, for matrices whose spectrum is chosen.

A has eigenvalues of our choice against a random K, so that the answer is known; roundoff grows
with the condition of K, below 1e2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from lprjax.numerics.krylov import CHECK_EVERY, conjugate_gradients, extreme_eigenpair


class Dense(NamedTuple):
    a: jax.Array
    k: jax.Array

    def operator(self):
        return lambda v: self.a @ v

    def metric(self, v):
        return self.k @ v

    def precondition(self, f):
        return jnp.linalg.solve(self.k, f)

    def project(self, v):
        return v


def pencil(values, seed=0):
    """A = Y diag(values) Y^T with Y^T K^-1 Y = 1."""
    rng = np.random.default_rng(seed)
    n = len(values)
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    root = q * np.sqrt(rng.uniform(1.0, 50.0, n))
    y = root @ np.linalg.qr(rng.normal(size=(n, n)))[0]
    return Dense(jnp.asarray(y * values @ y.T), jnp.asarray(root @ root.T)), rng.normal(size=n)


@jax.jit
def solve(dense, f, tolerance, most):
    return conjugate_gradients(dense.operator(), dense.precondition, f, tolerance, most)


def smallest(values, tolerance=1e-8, most=100):
    dense, start = pencil(np.asarray(values, float))
    return dense, extreme_eigenpair(dense.operator(), dense, start, np.argmin, tolerance, most)


def test_solution_and_its_residual():
    dense, f = pencil(np.linspace(0.5, 4.0, 60))
    found = solve(dense, f, 1e-10, 100)
    assert bool(found.converged) and not bool(found.indefinite)
    rest = f - dense.a @ found.solution
    ratio = (rest @ dense.precondition(rest)) / (f @ dense.precondition(f))
    assert float(found.residual) == pytest.approx(np.sqrt(ratio), rel=1e-2)
    assert float(found.residual) <= 1e-10
    exact = np.linalg.solve(dense.a, f)
    np.testing.assert_allclose(found.solution, exact, atol=1e-9 * np.abs(exact).max())


def test_as_many_products_as_there_are_different_values():
    dense, f = pencil(np.repeat([1.0, 2.0, 7.0], 20))
    assert int(solve(dense, f, 1e-10, 100).iterations) == 3


def test_nothing_to_solve():
    dense, f = pencil(np.ones(4))
    found = solve(dense, 0.0 * f, 1e-10, 100)
    assert bool(found.converged) and int(found.iterations) == 0 and not np.any(found.solution)


def test_a_move_that_costs_nothing_is_no_minimum():
    """Flat along f: v^T A v = 0 exactly, no solution and no infinite step."""
    dense = Dense(jnp.diag(jnp.array([1.0, 0.0, 2.0])), jnp.eye(3))
    found = solve(dense, jnp.array([0.0, 1.0, 0.0]), 1e-10, 100)
    assert bool(found.indefinite) and not bool(found.converged)
    assert int(found.iterations) == 1 and not np.any(found.solution)


@pytest.mark.parametrize("lowest", [-0.3, -1e-3])
def test_negative_curvature_is_met(lowest):
    dense, f = pencil(np.append(np.linspace(0.5, 4.0, 59), lowest))
    found = solve(dense, f, 1e-10, 100)
    assert bool(found.indefinite) and not bool(found.converged)


def test_too_few_products_and_numbers_that_are_not_finite_say_so():
    dense, f = pencil(np.linspace(0.5, 4.0, 60))
    found = solve(dense, f, 1e-10, 5)
    assert not bool(found.converged) and int(found.iterations) == 5 and float(found.residual) > 1e-5
    assert not bool(solve(dense, jnp.nan * f, 1e-10, 5).converged)


@pytest.mark.parametrize("lowest", [0.3, 0.0, -1e-3, -5.0])
def test_smallest_value_of_either_sign(lowest):
    dense, found = smallest(np.append(np.linspace(0.5, 4.0, 150), lowest))
    assert found.converged and found.iterations < 100
    assert found.value == pytest.approx(lowest, abs=1e-12)
    assert float(found.mode @ dense.metric(found.mode)) == pytest.approx(1.0, abs=1e-12)
    rest = dense.a @ found.mode - found.value * (dense.k @ found.mode)
    true = float(jnp.sqrt(rest @ dense.precondition(rest)))
    assert true == pytest.approx(found.residual, abs=1e-10) and found.residual <= 1e-8 * 5.0


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_search_ends_at_the_same_step_in_any_unit_of_a(unit):
    """The tolerance is relative to the largest value."""
    values = np.append(np.linspace(0.5, 4.0, 150), 0.1)
    (_, plain), (_, scaled) = smallest(values), smallest(unit * values)
    assert plain.converged and scaled.converged and scaled.iterations == plain.iterations
    assert scaled.value == pytest.approx(unit * plain.value, rel=1e-9)


def test_values_that_are_all_negative():
    _, found = smallest(-np.linspace(0.5, 4.0, 60))
    assert found.converged and found.value == pytest.approx(-4.0, abs=1e-12)


def test_a_part_of_one_in_ten_million_of_the_start_is_enough():
    """A space that is closed but for 1e-7 of a step is not closed: what lies beyond is found."""
    dense, start = Dense(jnp.diag(jnp.array([2.0, 3.0, -1.0])), jnp.eye(3)), np.array([1, 0, 1e-7])
    found = extreme_eigenpair(dense.operator(), dense, start, np.argmin, 1e-8, 20)
    assert found.converged and found.value == pytest.approx(-1.0, abs=1e-12)


def test_basis_stays_orthogonal_long_after_convergence():
    """Without reorthogonalisation copies of the converged value would appear, and drift away."""
    _, found = smallest(np.append(np.linspace(0.5, 4.0, 150), 0.1), tolerance=1e-30)
    assert not found.converged and found.iterations == 100
    assert found.value == pytest.approx(0.1, abs=1e-12)


@pytest.mark.parametrize("values", [[2.0, 1.0, 3.0], [2.0] * 5, [0.0] * 5, [-1.0, -1.0, 4.0]])
def test_basis_that_closes(values):
    """Fewer different values than steps: exact, and no spurious zeros from empty vectors."""
    _, found = smallest(values)
    assert found.converged and found.iterations == CHECK_EVERY
    assert found.value == pytest.approx(min(values), abs=1e-12)


def test_largest_in_absolute_value():
    values = np.append(np.linspace(-1.0, 1.0, 100), -1.5)
    dense, start = pencil(values)
    found = extreme_eigenpair(
        dense.operator(), dense, start, lambda x: np.argmax(np.abs(x)), 1e-8, 100
    )
    assert found.converged and found.value == pytest.approx(-1.5, abs=1e-12)


def test_not_finite_is_not_converged():
    dense, start = pencil(np.ones(6))
    found = extreme_eigenpair(lambda v: jnp.nan * v, dense, start, np.argmin, 1e-8, 100)
    assert not found.converged and np.isnan(found.value) and np.isnan(found.mode).all()


def test_the_null_space_of_the_norm_does_not_grow():
    """Steps of a few per cent of what is taken out of them, forty times over: rounding along the
    constant, which K does not see, would be multiplied by 20 each time."""
    n = 60
    k = np.diag(np.linspace(1.0, 2.0, n))

    class Free:
        def project(self, v):
            return v - np.mean(v)

        def metric(self, v):
            return self.project(k @ self.project(v))

        def precondition(self, f):
            v = np.linalg.solve(k, self.project(f))
            w = np.linalg.solve(k, np.ones(n))
            return self.project(v - w * np.sum(v) / np.sum(w))

    rng, free = np.random.default_rng(0), Free()
    soft = free.project(rng.normal(size=n))
    soft /= np.sqrt(soft @ free.metric(soft))
    ripple = np.diag(rng.uniform(-0.02, 0.02, n))

    def apply(v):
        image = free.metric(v) - 0.3 * free.metric(soft) * (soft @ free.metric(v))
        return image + free.project(ripple @ free.project(v))

    found = extreme_eigenpair(apply, free, free.project(rng.normal(size=n)), np.argmin, 0.0, 50)
    basis = np.linalg.qr(np.eye(n)[:, 1:] - 1.0 / n)[0]
    a, m = (basis.T @ np.array([f(e) for e in np.eye(n)]) @ basis for f in (apply, free.metric))
    expected = scipy.linalg.eigh(a, m, eigvals_only=True)[0]
    assert found.value == pytest.approx(expected, abs=1e-9)
