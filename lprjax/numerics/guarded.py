"""Functions with finite derivatives where the plain formula has none, and a smooth step."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Numbers = TypeVar("Numbers", jax.Array, np.ndarray)


def root(square: jax.Array) -> jax.Array:
    """x^(1/2), with slope zero at zero, and zero where rounding made the square negative.

    Args:
        square: (...), in any unit. NaN stays NaN.

    Returns:
        The root, (...), in the root of that unit.
    """
    not_positive = square <= 0
    return jnp.where(not_positive, 0.0, jnp.sqrt(jnp.where(not_positive, 1.0, square)))


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x, infinite at zero, where its slope is zero.

    Args:
        x: (...), in any unit. NaN stays NaN.

    Returns:
        1 / x, (...), in one over that unit.
    """
    zero = x == 0.0
    return jnp.where(zero, jnp.inf, 1.0 / jnp.where(zero, 1.0, x))


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
