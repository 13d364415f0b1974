"""Weighted ridge least squares from one triangular factor per kind and group.

The loss is, up to the factor 1/2 of the prediction rigidity,

    L(c) = sum_k w_k^2 |X_k c - y_k|^2 + ridge |Gamma c|^2

**A weight multiplies the residual, so its square multiplies the loss.** All observations of one
factor share one weight. A change of weights costs a QR of the stacked K-by-K triangles and nothing
that grows with the data.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from lprjax.numerics.checks import (
    as_float64,
    check_at_least_zero,
    refuse_traced,
    require_x64,
)
from lprjax.regression.factors import (
    RCOND,
    Factor,
    checked_prior,
    clearly_full_rank,
    equilibrate,
    kind_of,
    singular_values,
    stacked_triangle,
)
from lprjax.regression.fit_summary import fit_figure, fit_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Fit(NamedTuple):
    """The minimiser of the loss, and the factor that every rigidity and bound is computed from.

    Attributes:
        coefficients: (K,) c.
        factor: (K, K) upper triangular R, R^T R = H = sum_k w_k^2 X_k^T X_k + ridge Gamma^2.
        rank: number of singular values of R, its columns scaled to unit norm, above rcond times
            the largest. Less than K: the data leave coefficients undetermined (see `fit`).
        rms: for each key of the factors, in their order, the root mean square of X_k c - y_k,
            without the weight, in the units of the targets; NaN if the factor has no rows. As a
            pytree it keeps its order: keys of mixed type cannot be sorted.
        weights: for each key the weight of its residuals, in 1 / (unit of the targets).
        n_rows: for each key how many residuals there were.
        ridge: as given.
        prior: (K,) the diagonal of Gamma, as given; None: ones.
    """

    coefficients: jax.Array
    factor: jax.Array
    rank: int
    rms: OrderedDict[Any, float]
    weights: OrderedDict[Any, float]
    n_rows: OrderedDict[Any, int]
    ridge: float
    prior: jax.Array | None

    @property
    def condition(self) -> float:
        """Largest over smallest of those singular values, inf if the smallest is zero. An SVD."""
        singular = singular_values(self.factor)
        return float(singular[0] / singular[-1]) if singular[-1] > 0.0 else math.inf

    def __str__(self) -> str:
        return str(fit_table(self))

    def _repr_html_(self) -> str:
        return fit_table(self)._repr_html_()

    def plot(self) -> Figure:
        """Residuals by kind and group, and the factor's singular values; see `fit_figure`."""
        return fit_figure(self)


def fit(
    factors: Mapping[Any, Factor],
    weights: Mapping[Any, float],
    *,
    ridge: float = 0.0,
    prior: ArrayLike | None = None,
    rcond: float = RCOND,
) -> Fit:
    """Fit a linear model to all kinds of observations at once.

        c = argmin sum_k w_k^2 |X_k c - y_k|^2 + ridge |Gamma c|^2

    If the rank is less than K (which needs ridge zero or tiny), c is, among the minimisers, the
    one of least |Gamma c|: the minimum-norm solution for Gamma = 1, and the limit ridge -> 0 in
    general. Rank is decided after scaling the columns to unit norm, so units of features do not
    matter. Rank deficiency is no error: look at `Fit.rank`. A column that takes part in a
    dependency of others by less than RCOND of its norm takes no part, for rounding says as much.

    Args:
        factors: key -> Factor of K columns; a key is a kind, or a tuple (kind, group).
        weights: kind or key -> w >= 0, in 1 / (unit of the targets). Weights multiply the
            residual, so their square multiplies the loss. A key's own weight goes before that of
            its kind; a weight of zero leaves the data out.
        ridge: >= 0, multiplies the squared norm.
        prior: (K,) diagonal of Gamma, >= 0, default ones.
        rcond: relative size below which a singular value counts as zero.

    Returns:
        The Fit.

    Raises:
        ValueError: no factors; different K; a weight for a kind the data lack; a key without a
            weight; a negative or non-finite weight, ridge, prior or rcond.
        TypeError: anything but mappings; factors that are not float64; traced values (`solution`
            takes those).
        RuntimeError: float64 is off.
    """
    require_x64()
    refuse_traced("fit (solution is for jit)", factors=factors, weights=weights, prior=prior)
    n_features = _check_factors(factors)
    resolved = resolve_weights(factors, weights)
    check_at_least_zero("ridge", ridge)
    check_at_least_zero("rcond", rcond)
    gamma = jnp.asarray(checked_prior(prior, n_features))
    triangular, target, coefficients = _solved(
        tuple(factors.values()), np.array(list(resolved.values())), float(ridge), gamma
    )
    rank = n_features
    if not clear_rank(triangular, rcond):
        scaled, scale = (np.asarray(x) for x in equilibrate(triangular))
        u, singular, vt = np.linalg.svd(scaled)
        rank = int(np.sum(singular > rcond * singular[0]))
        if rank < n_features:
            parts = u[:, :rank], singular[:rank], vt
            coefficients = _least_norm(parts, scale, np.asarray(target), np.asarray(gamma))
    rms = OrderedDict((key, _rms(factor, coefficients)) for key, factor in factors.items())
    n_rows = OrderedDict((key, int(factor.n_rows)) for key, factor in factors.items())
    given = None if prior is None else gamma
    return Fit(
        coefficients, triangular, rank, rms, OrderedDict(resolved), n_rows, float(ridge), given
    )


def solution(
    factors: Sequence[Factor],
    weights: ArrayLike,
    ridge: ArrayLike = 0.0,
    prior: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Coefficients and factor of a full-rank fit, pure: to be jitted, and differentiated.

        c = R^-1 Q^T b,   Q R = [w_1 R_1; w_2 R_2; ...; sqrt(ridge) Gamma]

    As fast as `fit`: Q is not formed. Differentiable, any number of times, in weights, in a ridge
    > 0 and in the factors themselves. No value is checked; if H is singular, the result and its
    derivatives are infinite or NaN (use `fit`).

    Args:
        factors: m factors of K columns.
        weights: (m,), multiply the residual, so their square multiplies the loss.
        ridge: () >= 0.
        prior: (K,) diagonal of Gamma, default ones.

    Returns:
        coefficients (K,), and upper triangular R (K, K), R^T R = H.

    Raises:
        ValueError: another number of weights than of factors.
    """
    if jnp.shape(weights) != (len(factors),) or not len(factors):
        raise ValueError(
            f"weights have shape {jnp.shape(weights)} for {len(factors)} factors: wanted as many "
            "of both, and at least one; give a weight for each factor, in their order."
        )
    gamma = jnp.ones(factors[0].triangular.shape[0]) if prior is None else prior
    return _least_squares(jnp.stack(_weighted_system(factors, weights, ridge, gamma)))


@jax.custom_jvp
def _least_squares(system: jax.Array) -> tuple[jax.Array, jax.Array]:
    """c and R of stacked triangles [A | b] (m, K, K + 1), by panels, which have no derivative."""
    n = system.shape[1]
    triangle = stacked_triangle(system)[:n]
    return solve_triangular(triangle[:, :n], triangle[:, n]), triangle[:, :n]


@_least_squares.defjvp
def _least_squares_jvp(primals, tangents):
    """Of c = A^+ b, and of the triangle of A^T A as that of a Cholesky factor, with dA and db:

    dc = A^+ (db - dA c) + R^-1 R^-T dA^T (b - A c)
    dR = upper(X + X^T) R,   X = R A^+ dA R^-1,   upper: the diagonal counts half
    """
    coefficients, triangular = _least_squares(*primals)
    n = len(coefficients)
    matrix, target = jnp.split(primals[0].reshape(-1, n + 1), [n], axis=1)
    d_matrix, d_target = jnp.split(tangents[0].reshape(-1, n + 1), [n], axis=1)
    solved = partial(solve_triangular, triangular)

    def fitted(x):
        """A^+ x = R^-1 R^-T A^T x, and once more for what rounding left, as if Q were known."""
        first = solved(solved(matrix.T @ x, trans="T"))
        return first + solved(solved(matrix.T @ (x - matrix @ first), trans="T"))

    c = coefficients[:, None]
    pull = solved(solved(d_matrix.T @ (target - matrix @ c), trans="T"))
    change = fitted(d_target - d_matrix @ c) + pull
    turned = solved((triangular @ fitted(d_matrix)).T, trans="T").T
    upper = jnp.triu(turned + turned.T) - jnp.diag(jnp.diagonal(turned))
    return (coefficients, triangular), (change[:, 0], upper @ triangular)


def resolve_weights(
    factors: Mapping[Any, Factor], weights: Mapping[Any, float]
) -> dict[Any, float]:
    """The weight of each factor, in the order of the factors, from weights of kinds or of keys.

    A weight for the key itself goes before one for its kind, key[0] of a tuple (kind, group).

    Args:
        factors: key -> Factor, as in `fit`.
        weights: kind or key -> w >= 0, as in `fit`.

    Returns:
        key -> w, for every key of the factors.

    Raises:
        ValueError: a weight for a kind the data lack, that is negative or not finite; a key
            without a weight.
        TypeError: anything but mappings.
    """
    for name, mapping in (("factors", factors), ("weights", weights)):
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"{name} is a {type(mapping).__name__}: wanted a mapping from kinds, e.g. "
                "{'energy': ..., 'forces': ...}."
            )
    known = set(factors) | {kind_of(key) for key in factors}
    for key, weight in weights.items():
        if key not in known:
            raise ValueError(
                f"weights hold {key!r}: wanted kinds or keys of the data, which hold "
                f"{_listed(factors)}; leave the weight out or add the observations."
            )
        check_at_least_zero(f"weight of {key!r}", weight)
    missing = [key for key in factors if key not in weights and kind_of(key) not in weights]
    if missing:
        raise ValueError(
            f"weights lack {_listed(missing)}: wanted one for each factor, and they hold "
            f"{_listed(weights)}; a weight of 0 leaves data out."
        )
    return {k: float(weights[k] if k in weights else weights[kind_of(k)]) for k in factors}


@jax.jit
def clear_rank(triangular: jax.Array, rcond: ArrayLike) -> jax.Array:
    """Whether the rank of a triangle is clearly full, see `factors.clearly_full_rank`; compiled
    once for each number of columns.

    Args:
        triangular: R, (K, K).
        rcond: relative size below which a singular value counts as zero.

    Returns:
        () bool.
    """
    # A decision has no derivative; without stop_gradient the iteration would be differentiated.
    return clearly_full_rank(equilibrate(jax.lax.stop_gradient(triangular))[0], rcond)


@jax.jit
def _solved(factors, weights, ridge, gamma):
    """R, Q^T b and R^-1 Q^T b (zeros where that is not finite), from `[A | b]` without Q."""
    n = len(gamma)
    triangle = stacked_triangle(jnp.stack(_weighted_system(factors, weights, ridge, gamma)))[:n]
    triangular, target = triangle[:, :n], triangle[:, n]
    solved = solve_triangular(triangular, target)
    return triangular, target, jnp.where(jnp.all(jnp.isfinite(solved)), solved, 0.0)


def _weighted_system(factors, weights, ridge, gamma) -> list[jax.Array]:
    """[w_k R_k | w_k q_k] of every factor and, last, [ridge^(1/2) Gamma | 0]: (K, K + 1) each."""
    n = len(gamma)
    stack = [
        w * jnp.concatenate([f.triangular, f.target[:, None]], axis=1)
        for w, f in zip(weights, factors, strict=True)
    ]
    return [*stack, jnp.eye(n, n + 1) * (jnp.sqrt(ridge) * gamma)[:, None]]


def _least_norm(parts, scale, target, gamma):
    """Among the minimisers of |R c - q| (small singular values cut) the one of least |Gamma c|."""
    u, singular, vt = parts
    rank = len(singular)
    coefficients = scale * (vt[:rank].T @ ((u.T @ target) / singular))
    null = scale[:, None] * _dependencies(vt[rank:]).T
    weighed_null = gamma[:, None] * null
    size = np.linalg.norm(weighed_null, axis=0)
    size = np.where(size > 0.0, size, 1.0)
    null, weighed_null = null / size, weighed_null / size
    among = weighed_null.any(axis=1)  # the others are no matter of the norm, whatever their units
    for _ in range(2):  # once more for the digits that the first step cancelled
        step = np.linalg.lstsq(weighed_null[among], (gamma * coefficients)[among])[0]
        coefficients = coefficients - null @ step
    return jnp.asarray(coefficients)


def _dependencies(null):
    """The null space (m, K) with m columns of its own for each of its vectors: those of few columns
    stay apart from the others, and parts below RCOND, which are rounding, are zero."""
    _, triangle, order = scipy.linalg.qr(null, mode="economic", pivoting=True)
    m = len(null)
    reduced = np.zeros_like(null)
    reduced[:, order] = scipy.linalg.solve_triangular(triangle[:, :m], triangle)
    return np.where(np.abs(reduced) > RCOND, reduced, 0.0)


def _rms(factor, coefficients):
    triangular, target = np.asarray(factor.triangular), np.asarray(factor.target)
    misfit = triangular @ np.asarray(coefficients) - target
    n_rows = int(factor.n_rows)
    return math.sqrt((misfit @ misfit + float(factor.residual)) / n_rows) if n_rows else math.nan


def _listed(keys):
    return ", ".join(repr(key) for key in keys) or "nothing"


def _check_factors(factors):
    if not isinstance(factors, Mapping):
        raise TypeError(
            f"factors is a {type(factors).__name__}: wanted a mapping from kind or (kind, group) "
            "to Factor, e.g. what compress_structures returns."
        )
    if not factors:
        raise ValueError("factors is empty: wanted at least one; see compress_structures.")
    for key, factor in factors.items():
        if not isinstance(factor, Factor):
            raise TypeError(
                f"factors[{key!r}] is a {type(factor).__name__}: wanted a Factor; use "
                "lprjax.regression.factors.compress(rows, targets)."
            )
        if not np.isfinite(as_float64(f"factors[{key!r}]", factor.triangular)).all():
            raise ValueError(
                f"factors[{key!r}] hold NaN or infinity: wanted finite numbers; check the rows "
                "behind them."
            )
    sizes = {key: factor.triangular.shape[0] for key, factor in factors.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"factors have columns {sizes}: wanted one number; use one basis.")
    return next(iter(sizes.values()))
