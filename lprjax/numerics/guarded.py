"""Functions with finite derivatives where the plain formula has none, and a smooth step."""

from typing import Any

import jax
import jax.numpy as jnp


def root(square: Any) -> jax.Array:
    """x^(1/2), with slope zero at zero, and zero where rounding made the square negative.

    square: (...), in any unit. NaN stays NaN.
    """
    lost = square <= 0
    return jnp.where(lost, 0.0, jnp.sqrt(jnp.where(lost, 1.0, square)))


def reciprocal(x: Any) -> jax.Array:
    """1 / x, infinite at zero, where its slope is zero.

    x: (...), in any unit. NaN stays NaN.
    """
    zero = x == 0.0
    return jnp.where(zero, jnp.inf, 1.0 / jnp.where(zero, 1.0, x))


def smoothstep(t: Any) -> Any:
    """s(t) = t^3 (10 - 15 t + 6 t^2), from 0 at t <= 0 to 1 at t >= 1, twice differentiable (C2).

    t: (...), a pure number; of NumPy or of JAX.
    """
    t = t.clip(0.0, 1.0)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
