"""Fits in many bases out of one set of rows: every basis is a set of columns of the largest one.

A function depends on its own factors only, not on the order and degree that the basis ends with.
So the rows of the largest basis hold those of all smaller ones, and every fit is the same compiled
potential, with zeros for the functions that its basis does not have.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from experiments.studies.defect_fits import Config, weighted_fit
from lprjax.ace.spec import ACESpec, tables
from lprjax.regression.factors import projected
from lprjax.regression.fitting import Fit


def columns(spec: ACESpec, order: int, degree: int) -> np.ndarray:
    """Which columns of a basis of one species are the basis of that order and degree.

    Args:
        spec: the largest basis.
        order: of the smaller one.
        degree: of the smaller one.

    Returns:
        numbers of the columns, ascending.

    Raises:
        ValueError: the smaller basis is not inside.
    """
    if not (1 <= order <= spec.order and 1 <= degree <= spec.degree):
        raise ValueError(
            f"order is {order} and degree {degree}: wanted 1 to those of the largest basis, "
            f"{spec.order} and {spec.degree}; raise --order or --degree."
        )
    t = tables(spec)
    many_body = [
        len(f.factors) <= order and sum(c.degree for c in f.factors) <= degree for f in t.functions
    ]
    pairs = [n <= degree for n in range(1, t.n_max + 1)]
    return np.flatnonzero(many_body + pairs)


def sub_fit(config: Config, factors: Mapping, order: int, degree: int) -> tuple[Fit, bool]:
    """The fit in a smaller basis.

    Args:
        config: of the largest basis.
        factors: in its columns.
        order: of the smaller basis.
        degree: of the smaller basis.

    Returns:
        the fit, its coefficients those of the largest basis; and whether its rank is full.
    """
    kept = columns(config.spec, order, degree)
    onto = np.eye(config.spec.n_columns)[:, kept]
    parts = {key: projected(factor, onto) for key, factor in factors.items()}
    result = weighted_fit(replace(config, order=order, degree=degree), parts)
    full = jnp.zeros(config.spec.n_columns).at[kept].set(result.coefficients)
    return result._replace(coefficients=full), result.rank == len(kept)
