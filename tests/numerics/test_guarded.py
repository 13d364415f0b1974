"""Guarded functions are the plain ones away from the edge, and have finite derivatives at it.

Tolerances: a dozen float64 operations on numbers of order one lose less than 1e-14.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BPoly

from lprjax.numerics.guarded import inverse, length, reciprocal, root, smoothstep

POSITIVE = np.geomspace(1e-12, 1e12, 25)


def slopes(function, x):
    """f', f'' and f' by forward differentiation, at each x."""
    first = jax.grad(function)
    ways = first, jax.grad(first), jax.jacfwd(function)
    return [np.asarray(jax.vmap(way)(jnp.asarray(x, float))) for way in ways]


def test_root_is_the_root_of_what_is_positive():
    np.testing.assert_allclose(root(jnp.asarray(POSITIVE)), np.sqrt(POSITIVE), rtol=1e-15)
    first, second, forward = slopes(root, POSITIVE)
    np.testing.assert_allclose(first, 0.5 / np.sqrt(POSITIVE), rtol=1e-14)
    np.testing.assert_allclose(second, -0.25 * POSITIVE**-1.5, rtol=1e-14)
    np.testing.assert_allclose(forward, first, rtol=1e-14)


def test_root_is_zero_and_flat_where_there_is_no_positive_square():
    """A square that rounding made negative is zero; no derivative there is infinite or NaN."""
    edge = [0.0, -0.0, -1e-300, -1e-17, -2.0]
    np.testing.assert_array_equal(root(jnp.asarray(edge)), 0.0)
    for slope in slopes(root, edge):
        np.testing.assert_array_equal(slope, 0.0)


def test_a_norm_made_with_root_has_gradient_zero_at_zero():
    """And the unit vector elsewhere: d|x|/dx = x / |x|."""

    def norm(x):
        return root(jnp.sum(x**2))

    np.testing.assert_array_equal(jax.grad(norm)(jnp.zeros(3)), 0.0)
    x = jnp.array([3.0, -4.0, 12.0])
    np.testing.assert_allclose(jax.grad(norm)(x), x / 13.0, rtol=1e-15)
    assert np.isfinite(jax.hessian(norm)(jnp.zeros(3))).all()


def test_reciprocal_is_one_over_x():
    x = np.concatenate([POSITIVE, -POSITIVE])
    np.testing.assert_allclose(reciprocal(jnp.asarray(x)), 1.0 / x, rtol=1e-15)
    first, second, forward = slopes(reciprocal, x)
    np.testing.assert_allclose(first, -1.0 / x**2, rtol=1e-14)
    np.testing.assert_allclose(second, 2.0 / x**3, rtol=1e-14)
    np.testing.assert_allclose(forward, first, rtol=1e-14)


def test_reciprocal_is_infinite_and_flat_at_zero():
    np.testing.assert_array_equal(reciprocal(jnp.array([0.0, -0.0])), np.inf)
    for slope in slopes(reciprocal, [0.0, -0.0]):
        np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("function", [root, reciprocal])
def test_nan_stays_nan(function):
    """What is lost must not come back as the number zero."""
    assert np.isnan(function(jnp.asarray(np.nan))) and not np.isnan(function(jnp.asarray(2.0)))


def test_the_step_is_the_quintic_that_is_flat_to_second_order_at_both_ends():
    """Six conditions, s = 0 and 1 with s' = s'' = 0, have one quintic: SciPy's from them."""
    t = np.linspace(0.0, 1.0, 101)
    expected = BPoly.from_derivatives([0.0, 1.0], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(smoothstep(t), expected(t), atol=1e-14)
    first, second, _ = slopes(smoothstep, t[1:-1])
    np.testing.assert_allclose(first, expected(t[1:-1], nu=1), atol=1e-13)
    np.testing.assert_allclose(second, expected(t[1:-1], nu=2), atol=1e-12)


def test_the_step_is_constant_outside():
    outside = np.array([-np.inf, -3.0, -1e-9, 1.0 + 1e-9, 7.0, np.inf])
    np.testing.assert_array_equal(smoothstep(outside), [0, 0, 0, 1, 1, 1])
    for slope in slopes(smoothstep, outside[1:-1]):
        np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_two_derivatives_of_the_step_are_continuous_at_an_edge(edge):
    """Across 2 h they change by no more than (2 h) max |next derivative|, 60 of the third.

    From the values alone: s leaves its constant as 10 h^3 - 15 h^4 + ..., so no lower power; near
    one, terms up to 16 are rounded, to some 1e-14.
    """
    h = 1e-4
    first, second, _ = slopes(smoothstep, [edge - h, edge, edge + h])
    assert np.ptp(second) <= 60.0 * 2 * h and np.ptp(first) <= 60.0 * (2 * h) ** 2
    inside = edge + h if edge == 0.0 else edge - h
    left = abs(float(smoothstep(np.asarray(inside))) - edge)
    assert left == pytest.approx(10.0 * h**3, rel=2 * h, abs=1e-14)


def test_the_step_returns_what_it_is_given():
    assert type(smoothstep(np.linspace(0.0, 1.0, 3))) is np.ndarray
    assert isinstance(smoothstep(jnp.linspace(0.0, 1.0, 3)), jax.Array)


@pytest.mark.parametrize("order", range(6))
def test_a_step_of_any_order_is_flat_to_that_order_and_odd_about_its_middle(order):
    """It is the polynomial of degree 2 order + 1 with s' in proportion to (t (1 - t))^order."""
    t = np.linspace(0.0, 1.0, 41)
    slope = np.polynomial.Polynomial([0.0, 1.0, -1.0]) ** order
    whole = slope.integ()
    np.testing.assert_allclose(smoothstep(t, order), whole(t) / whole(1.0), atol=1e-13)
    np.testing.assert_allclose(smoothstep(t, order) + smoothstep(1.0 - t, order), 1.0, atol=1e-13)


@pytest.mark.parametrize(
    "function, plain", [(inverse, lambda x: 1.0 / x), (length, lambda x: jnp.sqrt(x))]
)
def test_inverses_and_lengths_have_the_derivatives_of_any_order(function, plain):
    """Of four orders, forward and in reverse: each is some products, one ulp apiece."""
    x = jnp.array([0.3, 1.0, 7.0])
    for _ in range(4):
        np.testing.assert_allclose(function(x), plain(x), rtol=1e-14)
        function, plain = (
            lambda x, f=f: jax.grad(lambda x: jnp.sum(f(x)))(x) for f in (function, plain)
        )
    np.testing.assert_allclose(jax.jvp(function, (x,), (x,))[1], jax.jvp(plain, (x,), (x,))[1])
