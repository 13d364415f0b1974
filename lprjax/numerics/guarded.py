"""Functions with finite derivatives where the plain formula has none, and a smooth step."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Numbers = TypeVar("Numbers", jax.Array, np.ndarray)


def root(square: Numbers) -> Numbers:
    """x^(1/2), with slope zero at zero, and zero where rounding made the square negative.

    Args:
        square: (...), in any unit, of NumPy or of JAX. NaN stays NaN.

    Returns:
        The root, (...), in the root of that unit, of the same kind.
    """
    xp: Any = np if isinstance(square, np.ndarray | np.generic) else jnp
    not_positive = square <= 0
    return xp.where(not_positive, 0.0, xp.sqrt(xp.where(not_positive, 1.0, square)))


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x, infinite at zero, where its slope is zero.

    Args:
        x: (...), in any unit. NaN stays NaN.

    Returns:
        1 / x, (...), in one over that unit.
    """
    zero = x == 0.0
    return jnp.where(zero, jnp.inf, 1.0 / jnp.where(zero, 1.0, x))


@jax.custom_jvp
def inverse(x: jax.Array) -> jax.Array:
    """1 / x, whose derivatives of any order are products with itself: XLA divides once.

        d(1 / x) = -(1 / x)^2 dx

    Args:
        x: (...), not zero.

    Returns:
        1 / x, (...).
    """
    return 1.0 / x


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    y = inverse(*primals)
    return y, -(y * y) * tangents[0]


@jax.custom_jvp
def length(square: jax.Array) -> jax.Array:
    """x^(1/2) of a positive number, whose derivatives are products with one `inverse` of it.

        d x^(1/2) = 1/2 dx / x^(1/2)

    Args:
        square: (...), positive.

    Returns:
        The root, (...).
    """
    return jnp.sqrt(square)


@length.defjvp
def _length_jvp(primals, tangents):
    r = length(*primals)
    return r, 0.5 * inverse(r) * tangents[0]


def smoothstep(t: Numbers, order: int = 2) -> Numbers:
    """A step from 0 at t <= 0 to 1 at t >= 1, `order` times differentiable.

        s(t) = t^3 (10 - 15 t + 6 t^2)   on [0, 1] for order 2 (C2)

    the polynomial of degree 2 order + 1 whose derivatives up to that order vanish at both ends.

    Args:
        t: (...), dimensionless; of NumPy or of JAX.
        order: how many derivatives are continuous, >= 0.

    Returns:
        s(t), (...), dimensionless, of the same kind.
    """
    x: Any = t.clip(0.0, 1.0)
    n = order
    inner = float(math.comb(2 * n + 1, n))
    for k in range(1, n + 1):
        inner = inner + (-1.0) ** k * math.comb(n + k, k) * math.comb(2 * n + 1, n - k) * x**k
    return x ** (n + 1) * inner
