"""What is computed of numbers in intervals lies in the interval computed; derivatives by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.numerics.intervals import (
    Interval,
    Series,
    argument,
    either,
    hull,
    in_pieces,
    interval,
)

FUNCTIONS = {
    "polynomial": lambda x, exp, inv, log, power: x * x * 0.3 - x * 2.0 + 1.5,
    "decay": lambda x, exp, inv, log, power: exp((x - 1.0) * -4.0) * inv(power(x - 0.3, 20) + 1.0),
    "logarithm": lambda x, exp, inv, log, power: (log(x) * -0.4 + 1.0) * exp(log(x) * 0.4),
    "powers": lambda x, exp, inv, log, power: power(x, 7) - power(x, 3) + inv(x),
}
PLAIN = jnp.exp, lambda x: 1.0 / x, jnp.log, lambda x, n: x**n
RANGED = Series.exp, Series.reciprocal, Series.log, Series.power


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("width", [0.0, 0.01, 0.3])
def test_derivatives_at_any_number_are_inside(name, width):
    """At 20 numbers of each of 50 intervals, to third order; JAX's own rounding is 1e-12."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0.5, 2.0, 50)
    x = Interval(low, low + width)
    found = FUNCTIONS[name](argument(x), *RANGED)
    f = lambda x: FUNCTIONS[name](x, *PLAIN)  # noqa: E731
    for k in range(4):
        inside = low[:, None] + width * rng.uniform(size=(50, 20))
        values = np.asarray(jax.vmap(f)(inside.ravel())).reshape(inside.shape)
        slack = 1e-12 * np.abs(values).max()
        ranged = found.derivative(k)
        assert (ranged.low[:, None] - slack <= values).all()
        assert (values <= ranged.high[:, None] + slack).all()
        if width == 0.0:
            np.testing.assert_allclose(ranged.low, values[:, 0], rtol=1e-9, atol=1e-9)
        f = jax.grad(f)


def test_ends_move_outwards():
    """0.1 + 0.2 is no number of the machine; the interval holds the real sum and is narrow."""
    found = interval(0.1) + interval(0.2)
    assert found.low < 0.3 < found.high and found.high - found.low < 1e-14
    third = interval(3.0).reciprocal()
    assert third.low < 1.0 / 3.0 < third.high


def test_signs_and_zero():
    a, b = Interval(np.array(-2.0), np.array(3.0)), Interval(np.array(-5.0), np.array(1.0))
    product = a * b
    assert product.low == pytest.approx(-15.0) and product.high == pytest.approx(10.0)
    assert a.largest == 3.0 and (a - a).holds(5.0) and a.holds(0.0) and not a.holds(3.1)
    assert (1.0 - a).low == pytest.approx(-2.0)
    everything = a.reciprocal()
    assert everything.low == -np.inf and everything.high == np.inf
    assert a.log().high == np.inf
    unknown = everything * interval(0.0)
    assert unknown.holds(1e300), "infinity times zero says nothing"


def test_pieces_cover_and_narrow_the_range():
    """The range of x (1 - x) on [0, 1] is [0, 1/4]: 1 in one piece, less than 0.3 in 32."""
    whole = Interval(np.array([0.0]), np.array([1.0]))
    pieces = in_pieces(whole, 32)
    assert (pieces.high[:, :-1] >= pieces.low[:, 1:]).all()
    assert pieces.low[0, 0] <= 0.0 and pieces.high[0, -1] >= 1.0
    one, many = (hull(x * (1.0 - x)) for x in (in_pieces(whole, 1), pieces))
    assert one.high[0] == pytest.approx(1.0) and 0.25 <= many.high[0] < 0.3


def test_either():
    x = argument(Interval(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    found = either(np.array([True, False]), x * x, x.reciprocal())
    np.testing.assert_allclose(found.derivative(1).low, [2.0, -0.25], rtol=1e-12)
