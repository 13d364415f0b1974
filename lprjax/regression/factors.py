"""One triangular factor and one projected target per kind of observation and group of structures.

A linear model meets its data only through `|X c - y|^2`, and that is kept without loss by the
factor of `[X | y] = Q [R q; 0 rho]`:

    |X c - y|^2 = |R c - q|^2 + rho^2      for every c and whatever the rank of X.

`X^T X` is never formed, so a condition number is never squared.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.numerics.checks import (
    as_float64,
    check_at_least_zero,
    refuse_traced,
    require_x64,
)
from lprjax.numerics.qr import triangle

RCOND = 1e-12
"""Relative accuracy to which design rows are taken to be known, rounding included (a choice): a
singular value of the column-equilibrated factor below RCOND times the largest counts as zero."""

_SWEEPS = 8  # of the estimate of rank: s_1 and s_K within K^(1/16) on average (power iteration)
_MARGIN = 30.0  # on that estimate: a choice, see `clearly_full_rank`
_PANEL = 64  # columns in a panel of `stacked_triangle`: a choice


class Factor(NamedTuple):
    """What a least-squares problem in K unknowns keeps of its rows X (r, K) and targets y (r,).

    Attributes:
        triangular: (K, K) upper R with R^T R = X^T X and a diagonal >= 0; its lower rows are zero
            if there are fewer than K rows. Units of the rows.
        target: (K,) q = Q^T y, units of the targets.
        residual: () rho^2 with |X c - y|^2 = |R c - q|^2 + rho^2; at full rank the sum of squares
            of the part of y outside range(X). Units of the targets squared.
        n_rows: how many rows went in; an array () under jit.
    """

    triangular: jax.Array
    target: jax.Array
    residual: jax.Array
    n_rows: int | jax.Array


def empty(n_features: int) -> Factor:
    """The factor of no rows at all in K = n_features unknowns: the identity of `merge`.

    Args:
        n_features: K, the number of unknowns.

    Returns:
        The Factor of K columns that is zero.

    Raises:
        ValueError: n_features < 1.
        RuntimeError: float64 is off.
    """
    require_x64()
    if n_features < 1:
        raise ValueError(f"n_features is {n_features}: wanted at least one column.")
    arrays: Any = [np.zeros(shape) for shape in ((n_features, n_features), n_features, ())]
    return Factor(*arrays, 0)


def fold(
    factor: Factor, rows: jax.Array, targets: jax.Array, n_rows: int | jax.Array | None = None
) -> Factor:
    """Add rows to a factor by one QR, pure and jit-able: the kernel without checks.

        [R' q'; 0 rho'] = triangle of QR([R q; 0 rho; X y])

    Backward stable column by column, on every device: see `numerics.qr`.

    Args:
        factor: of K columns.
        rows: X (r, K).
        targets: y (r,).
        n_rows: how many of the rows count: all of them if None, fewer where zero rows pad a block.

    Returns:
        The Factor of the old rows and the new ones. A NaN goes through to the result.

    Source: sequential TSQR (Demmel, Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34 (2012) A206).
    """
    n = factor.triangular.shape[0]
    last = jnp.zeros(n + 1).at[n].set(jnp.sqrt(factor.residual))
    stack = jnp.concatenate(
        [
            jnp.concatenate([factor.triangular, factor.target[:, None]], axis=1),
            last[None],
            jnp.concatenate([rows, targets[:, None]], axis=1),
        ]
    )
    whole = triangle(stack)
    added = rows.shape[0] if n_rows is None else n_rows
    return Factor(whole[:n, :n], whole[:n, n], jnp.square(whole[n, n]), factor.n_rows + added)


_fold = jax.jit(fold)


def extend(
    factor: Factor, rows: ArrayLike, targets: ArrayLike, *, block_rows: int | None = None
) -> Factor:
    """Add any number of rows to a factor, block by block, so that memory stays bounded.

    Each block of `block_rows` rows is folded in by one QR; the last is padded with zero rows, so
    one shape is compiled for each K. Rows may be a memory map: a block at a time is read.

    Args:
        factor: of K columns.
        rows: X (r, K) float64, any r >= 0.
        targets: y (r,) float64.
        block_rows: rows in a block, by default `block_size(K)`; smaller wastes less on few rows.

    Returns:
        The Factor of the old rows and the new ones.

    Raises:
        ValueError: wrong shapes; NaN or infinity (it names the row); block_rows < 1.
        TypeError: other number types than float64 and integers.
        RuntimeError: float64 is off.
    """
    require_x64()
    refuse_traced("extend (fold is for jit)", factor=factor, rows=rows, targets=targets)
    rows, targets = _checked_rows(rows, targets)
    n = factor.triangular.shape[0]
    if rows.shape[1] != n:
        raise ValueError(
            f"rows have {rows.shape[1]} columns: wanted {n}, as the factor has; take both from one "
            "basis."
        )
    size = block_size(n) if block_rows is None else int(block_rows)
    if size < 1:
        raise ValueError(f"block_rows is {block_rows}: wanted at least 1, or None to choose.")
    total = int(factor.n_rows) + rows.shape[0]
    for start in range(0, rows.shape[0], size):
        block, values = rows[start : start + size], targets[start : start + size]
        _check_finite(block, values, start)
        missing = size - len(block)
        if missing:
            block, values = np.pad(block, ((0, missing), (0, 0))), np.pad(values, (0, missing))
        jax.block_until_ready(factor.triangular)  # or else all blocks wait in memory at once
        factor = _fold(factor, block, values)
    return factor._replace(n_rows=total)


def block_size(n_features: int, *, first: bool = False) -> int:
    """How many rows to fold at a time into K = n_features columns: max(3 (K + 1), 256).

    A choice: a QR of fewer rows spends most of its work on the triangle it started from, and one
    of more leaves the cache. On an accelerator, which few rows leave idle, it is 24 (K + 1).

    Args:
        n_features: K.
        first: of rows that may stay few (energies of a small set): 3 (K + 1) everywhere.
    """
    few = first or jax.default_backend() == "cpu"
    return max((3 if few else 24) * (n_features + 1), 256)


def compress(rows: ArrayLike, targets: ArrayLike, *, block_rows: int | None = None) -> Factor:
    """Compress rows X and targets y into one triangular factor.

        [X | y] = Q [R q; 0 rho]

    Fewer rows than columns are allowed (R is padded with zero rows).

    Args:
        rows: X (r, K) float64, one row per scalar observation.
        targets: y (r,) float64.
        block_rows: as in `extend`.

    Returns:
        The Factor of K columns.

    Raises:
        ValueError: as `extend`, and rows without columns.
        TypeError: as `extend`.
        RuntimeError: float64 is off.
    """
    require_x64()
    refuse_traced("compress (fold is for jit)", rows=rows, targets=targets)
    rows, targets = _checked_rows(rows, targets)
    return extend(empty(rows.shape[1]), rows, targets, block_rows=block_rows)


def kind_of(key: Any) -> Any:
    """The kind of observations of a factor.

    Args:
        key: of the factor, a kind or (kind, group).

    Returns:
        The kind.
    """
    return key[0] if isinstance(key, tuple) else key


def merge(a: Factor, b: Factor) -> Factor:
    """The factor of the rows of a and of b together.

        R^T R = Ra^T Ra + Rb^T Rb

    By one QR of the stacked triangles; commutative and associative up to rounding.

    Args:
        a: of K columns.
        b: of K columns.

    Returns:
        The Factor of all rows.

    Raises:
        ValueError: the numbers of columns differ.
        RuntimeError: float64 is off.
    """
    require_x64()
    if a.triangular.shape != b.triangular.shape:
        raise ValueError(
            f"the factors have {a.triangular.shape[0]} and {b.triangular.shape[0]} columns: wanted "
            "one number; take both from one basis."
        )
    both = _fold(a, b.triangular, b.target)
    return both._replace(residual=both.residual + b.residual, n_rows=a.n_rows + b.n_rows)


def projected(factor: Factor, onto: np.ndarray) -> Factor:
    """The factor of the same data in fewer unknowns z, c = P z: that of rows X P.

    `[R P | q]` compressed again; P = I[:, kept] keeps some of the columns.

    Args:
        factor: of K columns.
        onto: P (K, k).

    Returns:
        The Factor of k columns.

    Raises:
        ValueError: P is no matrix of K rows.
    """
    if np.ndim(onto) != 2 or len(onto) != len(factor.target):
        raise ValueError(
            f"onto has shape {np.shape(onto)}: wanted ({len(factor.target)}, k); give a row for "
            "each column of the factor."
        )
    small = compress(np.asarray(factor.triangular) @ onto, np.asarray(factor.target))
    return small._replace(residual=small.residual + factor.residual, n_rows=factor.n_rows)


def weighed(factor: Factor, weight: float) -> Factor:
    """The factor of the same rows and targets, each times a weight >= 0 of the residual.

    Args:
        factor: of K columns.
        weight: >= 0, in 1 / (unit of the targets); its square multiplies the loss.

    Returns:
        The Factor of the weighted rows.

    Raises:
        ValueError: a weight that is no finite number >= 0 (where it is known, not under jit).
    """
    if not isinstance(weight, Tracer):
        check_at_least_zero("weight", weight)
    triangular, target = weight * factor.triangular, weight * factor.target
    return Factor(triangular, target, weight**2 * factor.residual, factor.n_rows)


def equilibrate(triangular: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scale each column to unit norm, so that what follows does not depend on units of features.

        scaled = R D,   D = diag(1 / |R e_k|),   D_kk = 1 for a zero column

    Jit-able.

    Args:
        triangular: R (K, K).

    Returns:
        scaled (K, K), dimensionless, and the diagonal of D (K,).
    """
    squares = jnp.sum(jnp.square(triangular), axis=0)
    scale = 1.0 / jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0))
    return triangular * scale[None, :], scale


def singular_values(triangular: jax.Array) -> np.ndarray:
    """Singular values of a triangle with its columns scaled to unit norm, falling.

    The number of those above RCOND times the largest is its rank, whatever the units of the
    features. An SVD, on the host.

    Args:
        triangular: R (K, K).

    Returns:
        (K,), dimensionless.
    """
    return np.linalg.svd(np.asarray(equilibrate(triangular)[0]), compute_uv=False)


def rank_of(triangular: jax.Array, rcond: float = RCOND) -> int:
    """How many of the `singular_values` of a triangle (K, K) are above rcond times the largest."""
    singular = singular_values(triangular)
    return int(np.sum(singular > rcond * singular[0]))


def clearly_full_rank(scaled: jax.Array, rcond: ArrayLike) -> jax.Array:
    """Whether the smallest singular value of a triangle is well above rcond times the largest.

    Power iteration bounds s_1 from below and inverse iteration s_K from above, here within a
    factor of K^(1/16) on average; the margin makes the costly and exact way (the SVD, right for
    every rank) the one taken in doubt. Jit-able.

    Args:
        scaled: (K, K), the triangle of `equilibrate`.
        rcond: relative size below which a singular value counts as zero.

    Returns:
        () bool; False where the triangle holds NaN or a zero on its diagonal.
    """
    start = jax.random.normal(jax.random.key(0), scaled.shape[:1])

    def sweep(_, state):
        up, down, _, _ = state
        up = scaled.T @ (scaled @ up)
        half = jax.scipy.linalg.solve_triangular(scaled, down, trans="T")
        down = jax.scipy.linalg.solve_triangular(scaled, half)
        grown, shrunk = jnp.linalg.norm(up), jnp.linalg.norm(down)
        return up / grown, down / shrunk, grown, shrunk

    start = start / jnp.linalg.norm(start)
    _, _, grown, shrunk = jax.lax.fori_loop(0, _SWEEPS, sweep, (start, start, 0.0, 0.0))
    return 1.0 / jnp.sqrt(shrunk) > _MARGIN * rcond * jnp.sqrt(grown)


def stacked_triangle(triangles: jax.Array) -> jax.Array:
    """R of the QR of stacked upper triangles, at a third of the cost of one that ignores zeros.

    Columns go in panels: the rows of a panel, of all triangles, are zero before it, and those
    further down are zero in it. Jit-able.

    Args:
        triangles: (m, K, M), upper triangular, m >= 2 and M >= K.

    Returns:
        (M, M), or (m K, M) if that is fewer rows; diagonal >= 0.
    """
    n, done = triangles.shape[-1], []
    carried = jnp.zeros((0, n))
    for start in range(0, n, _PANEL):
        stop = min(start + _PANEL, n)
        new = triangles[:, start:stop, start:].reshape(-1, n - start)
        rows, width = jnp.concatenate([carried, new]), stop - start
        reflectors, sizes = jnp.linalg.qr(rows[:, :width], mode="raw")
        rest = rows[:, width:]
        if stop < n:
            rest = jax.lax.linalg.ormqr(reflectors.T, sizes, rest, left=True, transpose=True)
        top = jnp.concatenate([jnp.triu(reflectors.T[:width]), rest[:width]], axis=1)
        done.append(jnp.pad(top, ((0, 0), (start, 0))))
        carried = rest[width:]
    triangle = jnp.concatenate(done)
    return positive_diagonal(triangle)[:, None] * triangle


def positive_diagonal(triangular: jax.Array) -> jax.Array:
    """The row signs (K,), +1 or -1, that make the diagonal of a triangle non-negative."""
    return jnp.where(jnp.diagonal(triangular) < 0.0, -1.0, 1.0)


def checked_triangular(factor: ArrayLike) -> jax.Array:
    """The factor as a JAX array, after checking that it is what `Fit.factor` is.

    Args:
        factor: R (K, K), traced or not.

    Returns:
        R (K, K).

    Raises:
        ValueError: another shape, or (where its values are known, not under jit) entries below
            the diagonal.
        TypeError: other than float64 or integers.
    """
    factor = jnp.asarray(as_float64("factor entries", factor))
    if factor.ndim != 2 or factor.shape[0] != factor.shape[1]:
        raise ValueError(
            f"factor has shape {factor.shape}: wanted a square triangle (K, K); pass Fit.factor."
        )
    if not isinstance(factor, Tracer) and bool(jnp.tril(factor, -1).any()):
        raise ValueError(
            "factor is not upper triangular: wanted the R of R^T R = H; pass Fit.factor, not H."
        )
    return factor


def checked_prior(prior: ArrayLike | None, n_features: int) -> np.ndarray:
    """The diagonal of Gamma, after checking it.

    Args:
        prior: (K,), >= 0; ones for None.
        n_features: K.

    Returns:
        (K,) float64.

    Raises:
        ValueError: another shape, or entries that are negative or not finite.
        TypeError: other than float64 or integers.
    """
    if prior is None:
        return np.ones(n_features)
    gamma = np.asarray(as_float64("prior entries", prior))
    if gamma.shape != (n_features,):
        raise ValueError(
            f"prior has shape {gamma.shape}: wanted ({n_features},); give the diagonal of Gamma."
        )
    if not (np.isfinite(gamma).all() and (gamma >= 0.0).all()):
        raise ValueError(
            "prior holds a negative or non-finite entry: wanted finite numbers >= 0; give the "
            "diagonal of Gamma."
        )
    return gamma


def _checked_rows(rows, targets) -> tuple[np.ndarray, np.ndarray]:
    rows, targets = as_float64("rows", rows), as_float64("targets", targets)
    if len(rows.shape) != 2 or rows.shape[1] < 1:
        raise ValueError(
            f"rows have shape {tuple(rows.shape)}: wanted (r, K) with K >= 1; reshape force or "
            "virial rows to one row per scalar component."
        )
    if tuple(targets.shape) != (rows.shape[0],):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}: wanted ({rows.shape[0]},); give one per "
            "row."
        )
    return np.asarray(rows), np.asarray(targets)


def _check_finite(block, values, start):
    for name, array in (("rows", block), ("targets", values[:, None])):
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.sum(array)):  # one pass and no mask: the common case
                continue
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{name} hold NaN or infinity, first at row {start + int(np.argmin(finite))}: "
                "wanted finite numbers; leave out missing observations instead of marking them."
            )
