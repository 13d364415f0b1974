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
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sized
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.numerics.checks import check_at_least_zero, named, refuse_traced
from lprjax.numerics.qr import triangle
from lprjax.regression.factors import checked_triangular
from lprjax.regression.fitting import Fit
from lprjax.regression.influence_results import (
    Envelope,
    Influence,
    Moves,
    checked_predictions,
    whitened,
)
from lprjax.regression.left_out import ALONE
from lprjax.regression.samples import checked_rows, padded_length

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
    refuse_traced("influence", coefficients=fit.coefficients, factor=fit.factor)
    check_at_least_zero("least_leverage", least_leverage)
    factor, coefficients = checked_triangular(fit.factor), fit.coefficients
    n_features = len(coefficients)
    if fit.rank < n_features:
        raise ValueError(
            f"rank of the fit is {fit.rank}: wanted {n_features}, one for each coefficient; fit "
            "with a ridge > 0, or add data."
        )
    empty = np.zeros((0, n_features))
    g = empty if predictions is None else checked_predictions(predictions, n_features)
    of_fit = factor, coefficients, whitened(factor, g)
    sums = _Sums(n_features, len(g))
    total = len(samples) if isinstance(samples, Sized) else None
    for place, sample in enumerate(
        tqdm(samples, desc="influence", unit=" cells", delay=5, total=total)
    ):
        number, parts = sample if isinstance(sample, tuple) else (place, sample)
        with named(f"structure {number}"):
            stack = _stack(fit.weights, parts, n_features)
            if number in sums.kept:
                raise ValueError("is there twice: wanted a number of its own for each structure.")
        padded = _padded(stack)
        sums.add(number, stack, jax.device_get(_of_structure(*of_fit, *padded, least_leverage)))
    if not sums.kept:
        raise ValueError("samples is empty: wanted the structures of the fit, at least one.")
    _check_same_data(fit, sums)
    return sums.result(coefficients, factor, None if predictions is None else g)


class _Stack(NamedTuple):
    """The rows of one structure, one key after the other."""

    keys: dict[Any, slice]
    rows: np.ndarray  # (r, K)
    targets: np.ndarray  # (r,)
    weights: np.ndarray  # (r,)
    of_weights: dict[Any, list[Any]]  # the keys by the key of the fit that their weight is of


class _Found(NamedTuple):
    """What `_of_structure` says of one structure; of padded rows (B,)."""

    residuals: Any  # (B,) y - X c
    left_out: Any  # (B,)
    leverages: Any  # (B,)
    variances: Any  # (B,) of the unweighted rows, without the structure
    top: Any  # () largest eigenvalue of P_b
    determined: Any  # () bool
    score: Any  # (K,) V^T r
    move: Any  # (K,) m
    shift: Any  # (M,) - w . m
    by_structure: Any  # (M,) w . V^T P^+ r
    fits: Any  # () bool, whether any direction takes part in it
    lows: Any  # (M,) of the moves by rows
    highs: Any  # (M,)
    squares: Any  # (M,) their sum of squares
    count: Any  # () how many


@jax.jit
def _of_structure(factor, coefficients, w, rows, targets, weights, least):
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
    return _Found(
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


@jax.jit
def _folded(triangular, block):
    return triangle(jnp.concatenate([triangular, block]))


class _Triangle:
    """The triangle of vectors (K,) that come one by one, folded K at a time."""

    def __init__(self, n_features: int) -> None:
        self.triangular = jnp.asarray(np.zeros((n_features, n_features)))
        self.block, self.filled = np.zeros((n_features, n_features)), 0

    def add(self, vector: np.ndarray) -> None:
        self.block[self.filled] = vector
        self.filled += 1
        if self.filled == len(self.block):
            self.finished()

    def finished(self) -> jax.Array:
        if self.filled:
            self.triangular = _folded(self.triangular, self.block)
            self.block, self.filled = np.zeros_like(self.block), 0  # JAX may still read the old one
        return self.triangular


class _Kept(NamedTuple):
    """What is kept of one structure."""

    rows: dict[Any, tuple[np.ndarray, ...]]  # by key, (r,) of each that an Influence has by key
    top: float
    determined: bool
    shift: np.ndarray  # (M,)


class _Sums:
    """What is kept of the structures so far."""

    def __init__(self, n_features: int, n_predictions: int) -> None:
        self.kept: dict[int, _Kept] = {}
        self.scores, self.moves = _Triangle(n_features), _Triangle(n_features)
        self.keys: dict[Any, None] = {}
        self.tally: dict[Any, np.ndarray] = {}  # by key of the fit: number, r^2, y^2
        self.low = np.full((2, n_predictions), math.inf)  # of rows, of structures
        self.high, self.squares = -self.low, np.zeros((2, n_predictions))
        self.count = np.zeros(2, int)

    def add(self, number: int, stack: _Stack, found: _Found) -> None:
        self.scores.add(found.score)
        if found.determined:
            self.moves.add(found.move)
        parts: dict[Any, tuple[np.ndarray, ...]] = {
            key: (*(x[at].copy() for x in found[:4]), np.full(at.stop - at.start, number))
            for key, at in stack.keys.items()
        }
        self.kept[number] = _Kept(parts, float(found.top), bool(found.determined), found.shift)
        self.keys |= dict.fromkeys(stack.keys)
        for own, keys in stack.of_weights.items():
            for key in keys:
                y, r = stack.targets[stack.keys[key]], parts[key][0]
                self.tally[own] = self.tally.get(own, 0) + np.array([len(r), r @ r, y @ y])
        one = found.by_structure
        moved = ((found.lows, found.highs, found.squares, found.count), (one, one, one**2, 1))
        for k, (low, high, squares, count) in enumerate(moved if found.fits else moved[:1]):
            self.low[k] = np.minimum(self.low[k], low)
            self.high[k] = np.maximum(self.high[k], high)
            self.squares[k] += squares
            self.count[k] += count

    def result(self, coefficients, factor, g: np.ndarray | None) -> Influence:
        numbers = sorted(self.kept)
        kept, n = [self.kept[number] for number in numbers], len(numbers)
        of_rows = [
            OrderedDict(
                (key, np.concatenate([one.rows[key][k] for one in kept if key in one.rows]))
                for key in self.keys
            )
            for k in range(5)
        ]
        moves = None
        if g is not None:
            changes = np.array([one.shift for one in kept])
            moves = Moves(g @ np.asarray(coefficients), changes, *map(self._envelope, (0, 1)))
        return Influence(
            coefficients,
            factor,
            *of_rows,
            np.array([one.top for one in kept]),
            tuple(k for k, one in zip(numbers, kept, strict=True) if not one.determined),
            np.array(numbers),
            self.scores.finished(),
            math.sqrt((n - 1) / n) * self.moves.finished(),
            moves,
        )

    def _envelope(self, k: int) -> Envelope:
        count = int(self.count[k])
        if not count:
            return Envelope(*[np.full(self.low.shape[1], math.nan)] * 3, 0)
        return Envelope(self.low[k], self.high[k], np.sqrt(self.squares[k] / count), count)


def _stack(weights: Mapping[Any, float], parts: Any, n_features: int) -> _Stack:
    """The rows of a structure, checked."""
    keys, blocks, of_weights = {}, [], {}
    start = 0
    for key, (rows, targets) in checked_rows(parts, n_features).items():
        own = key if key in weights or not isinstance(key, tuple) else key[0]
        if own not in weights:
            held = ", ".join(map(repr, weights))
            raise ValueError(
                f"rows of {key!r} have no weight: wanted keys of the fit, which has {held}; name "
                "rows as the factors of the fit were."
            )
        keys[key] = slice(start, start := start + len(targets))
        of_weights.setdefault(own, []).append(key)
        blocks.append((rows, targets, np.full(len(targets), weights[own])))
    return _Stack(keys, *(np.concatenate(x) for x in zip(*blocks, strict=True)), of_weights)


def _padded(stack: _Stack) -> list[np.ndarray]:
    """Rows, targets and weights with zeros below, up to one of four sizes in each octave."""
    missing = padded_length(len(stack.targets)) - len(stack.targets)
    arrays = (stack.rows, stack.targets, stack.weights)
    return [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in arrays]


def _check_same_data(fit: Fit, sums: _Sums) -> None:
    """That the rows are those that the fit was made of."""
    for key, n in fit.n_rows.items():
        told, square, size = sums.tally.get(key, np.zeros(3))
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
