"""Rows of any prediction: its derivative in the coefficients of the potential that makes it.

A *trainable potential* is a potential with a flat array `coefficients` (K,) among its fields, in a
frozen dataclass: `LinearPotential`, `KernelPotential`, `NetworkPotential`.  What it predicts is
any function of it,

    g = dp / dc,   (K,) for each number that is predicted,

and g is all that rigidity and posterior ask of a prediction.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lprjax.ace.rows import Rows, ace_rows
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64
from lprjax.potentials.observables import checked_atoms, checked_kinds, observe
from lprjax.potentials.potential import as_argument, check

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


def design_rows(
    model,
    graph: Graph,
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
) -> Rows:
    """The rows of one structure, d(observable)/d(coefficients), exact to roundoff.

    model: an ACESpec, whose observables are row . c; or a trainable potential (see `predictions`),
    whose rows are the Jacobians at its present coefficients. graph: n atoms, padding included;
    kinds: as in `observables.observe`, whose shapes, units and signs the rows share; atoms: those
    displaced for the force constants. Compiled once per shape. Of an ACESpec's rows derivatives are
    taken in forward mode only: the loop over atoms leaves out padding, and has no reverse.
    Raises ValueError for unknown species, kinds or atoms, TypeError for a model that is neither,
    RuntimeError without float64.
    """
    kinds = checked_kinds(kinds)
    displaced = checked_atoms(atoms, graph) if "force_constants" in kinds else None
    if not isinstance(model, ACESpec):
        coefficients_of(model)
        check(model, graph)
        found = _jacobian(as_argument(model, "model"), graph, displaced, kinds)
        return Rows(**dict(zip(kinds, found, strict=True)))
    return ace_rows(model, graph, kinds, displaced)


@partial(jax.jit, static_argnames="kinds")
def _jacobian(potential, graph: Graph, atoms, kinds: tuple[str, ...]) -> list[jnp.ndarray]:
    """Rows of each kind, of any trainable potential, by differentiation in its coefficients."""

    def observed(potential):
        labels = observe(potential, graph, kinds, atoms=atoms)
        return jnp.concatenate([getattr(labels, kind).ravel() for kind in kinds])

    rows = prediction_rows(observed, potential)
    shapes = [getattr(observe(potential, graph, kinds, atoms=atoms), kind).shape for kind in kinds]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    parts = jnp.split(rows, ends)
    return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]
