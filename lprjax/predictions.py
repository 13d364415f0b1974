"""Rows of any prediction: its derivative in the coefficients of the potential that makes it.

A *trainable potential* is a potential with a flat array `coefficients` (K,) among its fields, in a
frozen dataclass: `LinearPotential`, `KernelPotential`, `NetworkPotential`.  What it predicts is
any function of it,

    g = dp / dc,   (K,) for each number that is predicted,

and g is all that rigidity and posterior ask of a prediction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lprjax.structures import require_x64

BATCH = 8  # derivatives taken at a time: memory grows with it


def prediction_rows(prediction: Callable[[Any], Array], potential) -> Array:
    """How a prediction changes with the coefficients, g = dp/dc, exact by differentiation.

        prediction_rows(lambda p: p(graph), potential)                         # site energies
        prediction_rows(lambda p: elastic_constants(p, cell).relaxed, potential)
        prediction_rows(lambda p: relaxed_formation_energy(p, defect, u, cell), potential)

    A relaxed geometry is differentiated through its own equilibrium where the prediction uses
    `implicit.minimiser`. Reverse mode where numbers predicted are fewer than coefficients, forward
    mode otherwise. May be jitted, with the potential as an argument.

    prediction: differentiable callable, potential -> array (...), in any unit.
    potential: trainable, K coefficients; they are where the derivative is taken, which a linear
    potential's observables do not depend on.
    Returns (..., K), unit of the prediction per unit of the coefficients.
    Raises TypeError for a potential without `coefficients`, RuntimeError without float64.
    """
    require_x64()
    coefficients = coefficients_of(potential)

    def of(c):
        return jnp.asarray(prediction(dataclasses.replace(potential, coefficients=c)))

    value, push = jax.linearize(of, coefficients)
    if value.size > coefficients.size:
        columns = jax.lax.map(push, jnp.eye(coefficients.size), batch_size=BATCH)
        return jnp.moveaxis(columns, 0, -1)
    pull = jax.linear_transpose(push, coefficients)
    ones = jnp.eye(value.size).reshape(value.size, *value.shape)
    rows = jax.lax.map(lambda one: pull(one)[0], ones, batch_size=BATCH)
    return rows.reshape(*value.shape, coefficients.size)


def coefficients_of(potential) -> Array:
    """The coefficients (K,) of a trainable potential; TypeError for any other."""
    coefficients = getattr(potential, "coefficients", 0.0)
    if not dataclasses.is_dataclass(potential) or jnp.ndim(coefficients) != 1:
        raise TypeError(
            f"a {type(potential).__name__} arrived; wanted a dataclass with an array "
            "`coefficients` (K,), such as a LinearPotential"
        )
    return coefficients
