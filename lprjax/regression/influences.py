"""What each structure does to a fit: leverages, exact leave-one-out, covariances of misfit, POPS.

One pass over the rows, nothing refitted. With the factor R of a fit (R^T R = H, prior and ridge
included), X_b and r_b the weighted rows and residuals `y - X c` of structure b, and, whitened,

    V_b = X_b R^-1,   P_b = V_b V_b^T,   w = R^-T g of a prediction g . c ,

everything here is a triangular solve and an eigendecomposition of the smaller of P_b (r, r) and
V_b^T V_b (K, K). A leave-one-out fit is exact, with any weights, ridge and prior:

    c without b = c - R^-1 m_b,   m_b = V_b^T (I - P_b)^-1 r_b .

Rows are dropped as soon as they are used: what is kept is a number or a few for each observation
(its residual, leverage, left-out residual), and K-by-K triangles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sized
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.numerics.checks import check_at_least_zero, named, refuse_traced
from lprjax.regression.factors import checked_triangular
from lprjax.regression.fitting import Fit
from lprjax.regression.influence_results import Influence, checked_predictions, whitened
from lprjax.regression.influence_shares import (
    Found,
    InfluenceShare,
    Stack,
    checked_keys,
    of_all_processes,
)
from lprjax.regression.left_out import ALONE, together
from lprjax.regression.samples import checked_rows, padded_length
from lprjax.regression.streams import checked_mesh, on_each, share_of, spread

LEAST = 1e-10
"""Leverage at and below which a row, or a direction of a structure, takes no part in POPS: a
choice, above the squares of what rounding leaves of rows that vanish by symmetry."""
_AGREE = 1e-6  # relative, between the rms of the fit and that of the rows: a choice
_ROUNDING = 1e-9  # the same, of the labels' own size


def influence(
    fit: Fit,
    samples: Iterable[Mapping[Any, tuple[ArrayLike, ArrayLike]] | tuple[int, Mapping[Any, Any]]],
    *,
    predictions: ArrayLike | None = None,
    least_leverage: float = LEAST,
    mesh: Mesh | None = None,
) -> Influence:
    """What each structure does to a fit, from one more pass over the rows it was made of.

        left-out residuals:  (I - P_b)^-1 r_b             exactly those of a refit without b
        moves without b:     - w . m_b,  m_b = V_b^T (I - P_b)^-1 r_b
        POPS, a row:         (w . v_i) r_i / |v_i|^2      the least change, in the norm of H,
        POPS, a structure:   w . V_b^T P_b^+ r_b          that fits the row, or the structure

    The samples must be those of the fit, all of them, as left-out fits are of the others; numbers
    of rows and their rms are compared with the fit's. `structure_rows` makes them, with the options
    that made the factors.

    >>> rows = lp.structure_rows(spec, samples)
    >>> found = lp.influence(fit, rows)
    >>> bool(found.cross_validated["forces"] > found.rms["forces"])
    True

    Args:
        fit: with its factor, of full rank.
        samples: of each structure its unweighted rows (r, K) and labels (r,) by key, as
            `stacked_rows` gives them; or pairs of its number and these, in any order. A key is
            one of the fit's weights, or (kind, group) where those are of kinds.
        predictions: g (M, K), derivatives of predictions, whose `Influence.moves` are wanted; a
            pass costs r K M more for r rows.
        least_leverage: >= 0, of rows (or directions of a structure) that take part in POPS: those
            above it.
        mesh: of one axis, the D devices that share the work, as in `compress_structures`; the
            default device alone if None. With several processes each passes structures of its own,
            with numbers that no other has, and every one gets the Influence of all.

    Returns:
        The Influence. A structure of leverage 1 is in `undetermined`, and its left-out residuals
        and moves are infinite.

    Raises:
        ValueError: a fit that is not of full rank; no samples; a key without a weight; shapes that
            do not match, NaN or infinity (the structure is named); a number that occurs twice;
            rows that are not those of the fit.
        TypeError: other than float64; traced values; samples that are no mappings.

    Source: blocks of PRESS derived from Allen, Technometrics 16 (1974) 125; POPS: Swinburne and
    Perez, Mach. Learn.: Sci. Technol. 6 (2025) 015008, who draw from a box round these moves.
    """
    options: dict[str, Any] = dict(predictions=predictions, least_leverage=least_leverage)
    share = influence_share(fit, samples, **options, mesh=mesh)
    return merged_influence(fit, of_all_processes(share, checked_mesh(mesh)))


def influence_share(
    fit: Fit,
    samples: Iterable[Mapping[Any, tuple[ArrayLike, ArrayLike]] | tuple[int, Mapping[Any, Any]]],
    *,
    predictions: ArrayLike | None = None,
    least_leverage: float = LEAST,
    mesh: Mesh | None = None,
) -> InfluenceShare:
    """What some of the structures of a fit do to it: for one of several workers.

        with ProcessPoolExecutor() as executor:  # or of dask, or of a cluster
            shares = executor.map(work, range(8))  # work(k): influence_share(fit, rows of part k)
            found = merged_influence(fit, shares)

    A share holds numbers of its structures and triangles, as a factor does, and no rows.

    Args:
        fit: to all structures.
        samples: as in `influence`, some of its structures, with numbers that no other share has.
        predictions: as in `influence`, the same in all shares.
        least_leverage: as in `influence`, the same in all shares.
        mesh: as in `influence`.

    Returns:
        The InfluenceShare, which may be empty.

    Raises:
        ValueError, TypeError: as `influence`, but for what only all samples tell.
    """
    refuse_traced("influence", coefficients=fit.coefficients, factor=fit.factor)
    check_at_least_zero("least_leverage", least_leverage)
    factor, mesh = checked_triangular(fit.factor), checked_mesh(mesh)
    n_features = len(fit.coefficients)
    if fit.rank < n_features:
        raise ValueError(
            f"rank of the fit is {fit.rank}: wanted {n_features}, one for each coefficient; fit "
            "with a ridge > 0 and a prior without zeros there, or add data."
        )
    empty = np.zeros((0, n_features))
    g = None if predictions is None else checked_predictions(predictions, n_features)
    w = whitened(factor, empty if g is None else g)
    common = tuple(map(np.asarray, (factor, fit.coefficients, w, least_leverage)))
    share = InfluenceShare(n_features, g)
    waiting: dict[int, list[tuple[int, Stack]]] = {}
    seen: set[int] = set()
    total = len(samples) if isinstance(samples, Sized) else None
    for place, sample in enumerate(
        tqdm(samples, desc="influence", unit=" cells", delay=5, total=total)
    ):
        number, parts = sample if isinstance(sample, tuple) else (place, sample)
        with named(f"structure {number}"):
            stack = _stack(fit.weights, parts, n_features)
            if number in seen:
                raise ValueError("is there twice: wanted a number of its own for each structure.")
        seen.add(number)
        length = padded_length(len(stack.targets))
        ready = waiting.setdefault(length, [])
        ready.append((number, stack))
        if len(ready) == share_of(mesh) * together(length, n_features + 1):
            _add(share, mesh, common, ready)
            ready.clear()
    for ready in filter(None, waiting.values()):
        _add(share, mesh, common, ready)
    return share


def merged_influence(fit: Fit, shares: Iterable[InfluenceShare]) -> Influence:
    """What all structures do to a fit, from the shares of several workers, in any order.

    Args:
        fit: that the shares are of.
        shares: as `influence_share` returns them; they are used up.

    Returns:
        The Influence: that of one pass, to rounding.

    Raises:
        ValueError: no samples; a structure in two shares; other predictions; rows that are not
            those of the fit, all of them.
    """
    whole = reduce(_merged, shares, None)
    if whole is None or not whole.kept:
        raise ValueError("samples is empty: wanted the structures of the fit, at least one.")
    _check_same_data(fit, whole)
    return whole.result(fit.coefficients, checked_triangular(fit.factor))


def _merged(whole: InfluenceShare | None, share: InfluenceShare) -> InfluenceShare:
    if whole is None:
        return share
    whole.merge(share)
    return whole


def _add(share: InfluenceShare, mesh: Mesh, common, ready: list[tuple[int, Stack]]) -> None:
    """Structures of one padded length, as many for each device of this process as go together."""
    length = padded_length(len(ready[0][1].targets))
    size = together(length, len(common[1]) + 1)
    stacks = [_padded(stack) for _, stack in ready]
    # Of weight zero, and of no matter, where a device has fewer.
    stacks += [[np.zeros_like(x) for x in stacks[0]]] * (share_of(mesh) * size - len(stacks))
    batches = [
        [np.stack(part) for part in zip(*stacks[d * size : (d + 1) * size], strict=True)]
        for d in range(share_of(mesh))
    ]
    found = jax.device_get(_of_batches(mesh, common, *spread(mesh, batches)))
    for k, (number, stack) in enumerate(ready):
        share.add(number, stack, Found(*(x[k // size, k % size] for x in found)))


@partial(jax.jit, static_argnums=0)
def _of_batches(mesh: Mesh, common, *own):
    def of_one(common, *batch):
        return jax.vmap(partial(_of_structure, *common))(*batch)

    return on_each(mesh, of_one)(common, *own)


def _of_structure(factor, coefficients, w, least, rows, targets, weights):
    plain = whitened(factor, rows).T  # V without weights, for rows of weight zero too
    residuals = targets - rows @ coefficients
    v, r = weights[:, None] * plain, weights * residuals
    score = v.T @ r
    short = len(rows) <= len(coefficients)
    values, vectors = jnp.linalg.eigh(v @ v.T if short else v.T @ v)
    values = jnp.clip(values, 0.0, 1.0)

    def filtered(f):
        """V^T f(P) r, for f of the eigenvalues."""
        inner = vectors @ (f * (vectors.T @ (r if short else score)))
        return v.T @ inner if short else inner

    gap, part = 1.0 - values, values > least
    determined = gap[-1] > ALONE
    move = filtered(1.0 / jnp.where(gap > ALONE, gap, 1.0))
    fitting = filtered(jnp.where(part, 1.0 / jnp.where(part, values, 1.0), 0.0))
    inner = (plain @ v.T if short else plain) @ vectors  # (I - G)^-1 = I + V^T (I - P)^-1 V
    variances = (inner**2) @ (1.0 / jnp.where(gap > ALONE, gap, 1.0))
    variances += jnp.sum(plain**2, axis=1) if short else 0.0
    leverages = jnp.sum(v**2, axis=1)
    kept = leverages > least
    by_row = (v @ w) * (r / jnp.where(kept, leverages, 1.0))[:, None]
    bounded = lambda none: jnp.where(kept[:, None], by_row, none)  # noqa: E731
    return Found(
        residuals,
        jnp.where(determined, residuals + plain @ move, jnp.inf),
        leverages,
        jnp.where(determined, variances, jnp.inf),
        values[-1],
        determined,
        score,
        move,
        jnp.where(determined, -(move @ w), jnp.inf),
        fitting @ w,
        jnp.any(part),
        jnp.min(bounded(jnp.inf), axis=0),
        jnp.max(bounded(-jnp.inf), axis=0),
        jnp.sum(bounded(0.0) ** 2, axis=0),
        jnp.sum(kept),
    )


def _stack(weights: Mapping[Any, float], parts: Any, n_features: int) -> Stack:
    """The rows of a structure, checked."""
    keys, blocks, of_weights = {}, [], {}
    start = 0
    for key, (rows, targets) in checked_rows(parts, n_features).items():
        own = checked_keys(weights, key)
        keys[key] = slice(start, start := start + len(targets))
        of_weights.setdefault(own, []).append(key)
        blocks.append((rows, targets, np.full(len(targets), weights[own])))
    return Stack(keys, *(np.concatenate(x) for x in zip(*blocks, strict=True)), of_weights)


def _padded(stack: Stack) -> list[np.ndarray]:
    """Rows, targets and weights with zeros below, up to one of four sizes in each octave."""
    missing = padded_length(len(stack.targets)) - len(stack.targets)
    arrays = (stack.rows, stack.targets, stack.weights)
    return [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in arrays]


def _check_same_data(fit: Fit, share: InfluenceShare) -> None:
    """That the rows are those that the fit was made of."""
    for key, n in fit.n_rows.items():
        told, square, size = share.tally.get(key, np.zeros(3))
        if told != n:
            raise ValueError(
                f"samples have {int(told)} rows of {key!r}: wanted the {n} of the fit; give all "
                "its structures, and no others."
            )
        if n and abs(math.sqrt(square / n) - fit.rms[key]) > (
            _AGREE * fit.rms[key] + _ROUNDING * math.sqrt(size / n)
        ):
            raise ValueError(
                f"rms of the residuals of {key!r} is {math.sqrt(square / n):.6g}: wanted the "
                f"fit's, {fit.rms[key]:.6g}; make rows with the per_atom, reference_energies and "
                "origin that its factors were made with."
            )
