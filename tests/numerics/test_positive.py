"""A matrix called surely positive is; exact integers tell which are."""

import numpy as np
import pytest

from lprjax.numerics.positive import surely_positive


def integers(n, seed):
    """L L^T of integers, exact in the machine, with determinant 1."""
    rng = np.random.default_rng(seed)
    low = np.tril(rng.integers(-2, 3, (n, n)), -1) + np.eye(n, dtype=int)
    return low @ low.T


@pytest.mark.parametrize("n", [2, 5, 40])
def test_positive_matrices_pass_and_others_do_not(n):
    a = integers(n, 0).astype(float)
    least = np.linalg.eigvalsh(a)[0]
    if least > 1e-9:
        assert surely_positive(a)
        assert not surely_positive(a, error=1.1 * least)
    assert surely_positive(a + np.eye(n)) and surely_positive(a + np.eye(n), 0.4)
    assert not surely_positive(a - (least + 1e-6) * np.eye(n))


def test_singular_and_broken_ones_never_pass():
    """Rank one short, exactly: sometimes Cholesky alone goes through."""
    passed = 0
    for seed in range(200):
        rows = np.random.default_rng(seed).integers(-3, 4, (4, 6)).astype(float)
        a = rows.T @ rows
        assert not surely_positive(a)
        try:
            np.linalg.cholesky(a + 1e-15 * np.eye(6))
            passed += 1
        except np.linalg.LinAlgError:
            pass
    assert passed > 0, "else this would be no test"
    assert not surely_positive(np.diag([1.0, np.nan]))
    assert not surely_positive(np.diag([1.0, -1.0])) and not surely_positive(np.zeros((2, 2)))


def test_little_is_asked():
    """A least eigenvalue of 1e-12 of the largest is seen."""
    assert surely_positive(np.diag([1.0, 1e-12]))
