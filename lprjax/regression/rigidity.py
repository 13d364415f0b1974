"""How well the training data determine a prediction: PR, LPR and CPR from one triangular factor.

Constrain a prediction p to move by d. The least loss, 1/2 |W (X c - y)|^2 + ..., then rises by
`d^2/2 * PR`, with

    PR = 1 / (g^T H^-1 g),   g = dp/dc,   H = R^T R

in units of 1 / (unit of p)^2: 1/PR is the posterior variance of p where the weighted residuals
have variance one. Everything is computed from R, the `factor` of a Fit: no inverse and no H.
"""

import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import bucket
from lprjax.numerics.blocks import in_blocks
from lprjax.numerics.checks import as_float64, check_at_least_zero, refuse_traced, require_x64
from lprjax.numerics.guarded import reciprocal
from lprjax.numerics.host import traced
from lprjax.regression.factors import (
    RCOND,
    checked_triangular,
    compress,
    equilibrate,
)
from lprjax.regression.fitting import clear_rank
from lprjax.regression.rows import vanishing

BLOCK = 4096  # predictions solved for at a time: a choice, (BLOCK, K) numbers of memory
_EPS = float(np.finfo(np.float64).eps)  # rounding of float64


def prediction_rigidity(factor: ArrayLike, g: ArrayLike, *, rcond: float = RCOND) -> jax.Array:
    """The rigidity of any predictions under the data in the factor; jit-able.

        PR = 1 / |R^-T g|^2

    For singular H it is the exact limit of ridge -> 0: 0 if g has a part outside range(H), else
    `1 / (g^T H^+ g)`. A prediction with g = 0 does not depend on the coefficients, cannot be moved,
    and has PR = inf; so has one whose row is rounding beside the others (`rows.vanishing`), such as
    a force that is zero by symmetry.

    Columns of R are scaled to unit norm first (g with them, which leaves PR as it is), so rank
    does not depend on units of features. Singular values s below rcond times the largest, s_1,
    count as zero where the range is decided: g counts as inside range(H) if a change of R by at
    most rcond s_1 can put it there, `|g_null| <= rcond s_1 |R^-T g_range|` (sufficient, to first
    order; derived). The variance of a prediction inside has the parts of all directions, those of
    singular values between K eps s_1 (rounding) and rcond s_1 too. Below K eps s_1 a part of g up
    to rcond |g| counts as rounding, and leaves it out; a larger one is divided by K eps s_1.
    Differentiable where R has full rank.

    Args:
        factor: (K, K) upper triangular R, R^T R = H (`Fit.factor`).
        g: (..., K), derivatives of the predictions with respect to the coefficients.
        rcond: relative accuracy of the rows behind R.

    Returns:
        (...,) PR >= 0, in 1 / (unit of the prediction)^2. NaN in g or R gives NaN.

    Raises:
        ValueError: shapes that do not match, or (where its values are known, not under jit) a
            factor that is not upper triangular.
        TypeError: other than float64.
        RuntimeError: float64 is off.

    Source: Chong et al., J. Chem. Theory Comput. 19 (2023) 8020; the singular limit is derived.
    """
    require_x64()
    check_at_least_zero("rcond", rcond)
    factor, g = _checked(factor, g)
    if traced(factor, g) or jax.default_backend() != "cpu":
        return _rigidity(factor, g.reshape(-1, g.shape[-1]), rcond).reshape(g.shape[:-1])
    rows = np.asarray(g).reshape(-1, g.shape[-1])
    few = np.pad(rows, ((0, _places(len(rows)) - len(rows)), (0, 0)))
    clear = bool(clear_rank(factor, rcond))
    found = np.asarray(_rigidity(factor, few, rcond, clear))
    return jax.device_put(found[: len(rows)].reshape(g.shape[:-1]))


def _places(n: int) -> int:
    """One of few numbers of rows, so that each is compiled once; no more blocks than n rows are."""
    return bucket(n) if n <= BLOCK else BLOCK * -(-n // BLOCK)


def local_prediction_rigidity(
    factor: ArrayLike, site_rows: ArrayLike, *, rcond: float = RCOND
) -> jax.Array:
    """The rigidity LPR_i of each site energy: how well the data determine this atom's share.

        LPR_i = 1 / (B_i^T H^-1 B_i)

    B_i are the basis functions of site i (dE_i/dc). Adding one structure made of copies of site i
    alone, with its energy per atom at weight 1, raises LPR_i by exactly 1.

    Args:
        factor: (K, K) upper triangular R, R^T R = H (`Fit.factor`).
        site_rows: B (..., K).
        rcond: as in `prediction_rigidity`.

    Returns:
        (...,) LPR >= 0, in 1 / (unit of the energy)^2.

    Raises:
        ValueError, TypeError, RuntimeError: as `prediction_rigidity`.
    """
    return prediction_rigidity(factor, site_rows, rcond=rcond)


def component_rigidity(
    factor: ArrayLike, g: ArrayLike, mask: ArrayLike, *, rcond: float = RCOND
) -> jax.Array:
    """The rigidity of one part of a prediction, such as a body order or a species channel.

        CPR_c = 1 / (g_c^T H^-1 g_c)

    g_c equals g on the features of the component and is zero elsewhere.

    Args:
        factor: (K, K) upper triangular R, R^T R = H (`Fit.factor`).
        g: (..., K), derivatives of the predictions with respect to the coefficients.
        mask: (K,) bool, True on the features of the component (`ace.spec.components` has those of
            a basis); or (C, K) for C components at once.
        rcond: as in `prediction_rigidity`.

    Returns:
        (...,) for one mask and (..., C) for C of them, in 1 / (unit of the prediction)^2; inf
        where a component has no features with g != 0.

    Raises:
        TypeError: a mask that is not bool; and as `prediction_rigidity`.
        ValueError: a mask of another shape; and as `prediction_rigidity`.
        RuntimeError: float64 is off.

    Source: Chong et al., Faraday Discuss. (2024), arXiv:2408.14311.
    """
    require_x64()
    factor, g = _checked(factor, g)
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"mask has dtype {mask.dtype}: wanted bool; set True on the component.")
    if mask.ndim not in (1, 2) or mask.shape[-1] != g.shape[-1]:
        raise ValueError(
            f"mask has shape {mask.shape}: wanted ({g.shape[-1]},) or (C, {g.shape[-1]}); give "
            "one entry per column of the factor."
        )
    g = g.reshape(g.shape[:-1] + (1,) * (mask.ndim - 1) + g.shape[-1:])
    mask = mask.reshape((1,) * (g.ndim - mask.ndim) + mask.shape)
    return prediction_rigidity(factor, jnp.where(mask, g, 0.0), rcond=rcond)


def skmatter_rigidity(
    training_rows: Iterable[ArrayLike], site_rows: ArrayLike, alpha: float
) -> jax.Array:
    """The LPR that scikit-matter's `local_prediction_rigidity` means, for comparison with it only.

        LPR_i = 1 / (x_i^T (X^T X + alpha I)^-1 x_i),   x_i = B_i / s

    Row A of X is the mean of B / s over the atoms of structure A, and s^2 = <|B|^2> over all
    training atoms.

    As s belongs to the training set, so does the unit: it is our LPR for energies per atom at
    weight 1 and a ridge of alpha s^2, another one for every training set. Do not compare such
    numbers between training sets: more data can lower them (`local_prediction_rigidity` with a
    fixed ridge never falls). Through the factor, hence exact where X^T X + alpha I is singular to
    rounding, which the pseudo-inverse over there is not.

    Args:
        training_rows: per structure, (n_A, K) site rows.
        site_rows: (..., K).
        alpha: >= 0.

    Returns:
        (...,), dimensionless.

    Raises:
        ValueError: no structures, one without atoms, different K, or alpha < 0 or not finite.
        TypeError: other than float64.
        RuntimeError: float64 is off.

    Source: scikit-matter, metrics._prediction_rigidities, after Chong et al. (2023).
    """
    training_rows = list(training_rows)
    require_x64()
    refuse_traced("skmatter_rigidity", training_rows=training_rows, alpha=alpha)
    training_rows = [np.asarray(as_float64("training rows", rows)) for rows in training_rows]
    shapes = [rows.shape for rows in training_rows]
    if len({shape[1:] for shape in shapes}) != 1 or any(len(s) != 2 or s[0] < 1 for s in shapes):
        raise ValueError(
            f"training rows have shapes {shapes}: wanted (n_A, K) with n_A >= 1 and one K; give "
            "one such array for each of one or more structures."
        )
    check_at_least_zero("alpha", alpha)
    ridge = alpha * np.mean(np.sum(np.concatenate(training_rows) ** 2, axis=1))
    n_features = shapes[0][1]
    means = [np.mean(rows, axis=0) for rows in training_rows]
    stack = np.concatenate([means, math.sqrt(ridge) * np.eye(n_features)])
    factor = compress(stack, np.zeros(len(stack))).triangular
    return local_prediction_rigidity(factor, site_rows)


@partial(jax.jit, static_argnames="clear")
def _rigidity(triangular, g, rcond, clear=None):
    """clear: whether the rank is clearly full, where that is known."""
    scaled, scale = equilibrate(triangular)
    given = scaled, g * scale[None, :], rcond
    if clear is None:
        found = jax.lax.cond(clear_rank(triangular, rcond), _full_rank, _any_rank, *given)
    else:
        found = (_full_rank if clear else _any_rank)(*given)
    return jnp.where(vanishing(g), jnp.inf, found)


def _full_rank(scaled, g, rcond):
    def solve(rows):
        compliance = jax.lax.linalg.triangular_solve(scaled, rows, left_side=False, lower=False)
        return reciprocal(jnp.sum(jnp.square(compliance), axis=1))

    return in_blocks(solve, g, BLOCK)


def _any_rank(scaled, g, rcond):
    """Each direction by itself: kept, small but known, or rounding."""
    _, singular, vt = jnp.linalg.svd(scaled)
    smallest, rounding = rcond * singular[0], len(singular) * _EPS * singular[0]
    kept = (singular > smallest)[None, :]
    known = jnp.maximum(singular, rounding)
    inverse = (1.0 / jnp.where(known > 0.0, known, 1.0))[None, :]

    def solve(rows):
        squares = jnp.square(rows @ vt.T)
        outside = jnp.sum(jnp.where(kept, 0.0, squares), axis=1)
        # Where a singular value is rounding, so is a part of the row that its own accuracy allows.
        allowed = rcond**2 * jnp.sum(squares, axis=1, keepdims=True)
        nothing = (singular <= rounding)[None, :] & (squares <= allowed)
        parts = jnp.where(nothing, 0.0, squares * inverse**2)
        inside = jnp.sum(jnp.where(kept, parts, 0.0), axis=1)
        variance = jnp.sum(parts, axis=1)
        return jnp.where(outside > smallest**2 * inside, 0.0, reciprocal(variance))

    return in_blocks(solve, g, BLOCK)


def _checked(factor, g):
    factor = checked_triangular(factor)
    g = jnp.asarray(as_float64("g entries", g))
    if g.ndim < 1 or g.shape[-1] != factor.shape[0]:
        raise ValueError(
            f"g has shape {g.shape}: wanted (..., {factor.shape[0]}); give one entry per column "
            "of the factor."
        )
    return factor, g
