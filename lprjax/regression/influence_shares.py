"""What an `influence` keeps of the structures so far: shares of several workers go together.

Numbers for each row and structure are kept by structure; sums of squares and outer products as
tallies and triangles. So shares are merged in any order, as factors are, and a share is small
enough to be sent: nothing of the rows is in it.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lprjax.numerics.qr import triangle
from lprjax.regression.influence_results import Envelope, Influence, Moves
from lprjax.regression.streams import share_of


class Stack(NamedTuple):
    """The rows of one structure, one key after the other."""

    keys: dict[Any, slice]
    rows: np.ndarray  # (r, K)
    targets: np.ndarray  # (r,)
    weights: np.ndarray  # (r,)
    of_weights: dict[Any, list[Any]]  # the keys by the key of the fit that their weight is of


class Found(NamedTuple):
    """What one pass says of one structure; of padded rows (B,)."""

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


class Kept(NamedTuple):
    """What is kept of one structure."""

    rows: dict[Any, tuple[np.ndarray, ...]]  # by key, (r,) of each that an Influence has by key
    top: float
    determined: bool
    shift: np.ndarray  # (M,)


@jax.jit
def _folded(triangular, block):
    return triangle(jnp.concatenate([triangular, block]))


class _Triangle:
    """The triangle of vectors (K,) that come one by one, folded K at a time."""

    def __init__(self, n_features: int) -> None:
        self.triangular = np.zeros((n_features, n_features))
        self.block, self.filled = np.zeros((n_features, n_features)), 0

    def add(self, vector: np.ndarray) -> None:
        self.block[self.filled] = vector
        self.filled += 1
        if self.filled == len(self.block):
            self.finished()

    def finished(self) -> np.ndarray:
        if self.filled:
            self.triangular = np.asarray(_folded(self.triangular, self.block))
            self.block, self.filled = np.zeros_like(self.block), 0
        return self.triangular

    def merge(self, other: _Triangle) -> None:
        self.triangular = np.asarray(_folded(self.finished(), other.finished()))


class InfluenceShare:
    """What some of the structures of a fit do to it; see `influence_share`.

    It can be pickled, and is merged with others by `merged_influence`. Of n structures with N rows
    and M predictions it holds some 5 N + n M numbers and two K-by-K triangles.
    """

    def __init__(self, n_features: int, predictions: np.ndarray | None) -> None:
        """Of no structures.

        Args:
            n_features: K.
            predictions: g (M, K), or None.
        """
        n_predictions = 0 if predictions is None else len(predictions)
        self.predictions = predictions
        self.kept: dict[int, Kept] = {}
        self.scores, self.moves = _Triangle(n_features), _Triangle(n_features)
        self.keys: dict[Any, None] = {}
        self.tally: dict[Any, np.ndarray] = {}  # by key of the fit: number, r^2, y^2
        self.low = np.full((2, n_predictions), math.inf)  # of rows, of structures
        self.high, self.squares = -self.low, np.zeros((2, n_predictions))
        self.count = np.zeros(2, int)

    def add(self, number: int, stack: Stack, found: Found) -> None:
        """Add a structure.

        Args:
            number: of it, one that is not there yet.
            stack: its rows.
            found: what the pass says of it.
        """
        self.scores.add(found.score)
        if found.determined:
            self.moves.add(found.move)
        parts: dict[Any, tuple[np.ndarray, ...]] = {
            key: (*(x[at].copy() for x in found[:4]), np.full(at.stop - at.start, number))
            for key, at in stack.keys.items()
        }
        shift = np.array(found.shift)
        self.kept[number] = Kept(parts, float(found.top), bool(found.determined), shift)
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

    def merge(self, other: InfluenceShare) -> None:
        """Take over what another share holds, of other structures of the same fit.

        Args:
            other: used up.

        Raises:
            ValueError: other predictions, another number of coefficients, a structure of both.
        """
        mine, theirs = (x.scores.triangular.shape[0] for x in (self, other))
        g, h = self.predictions, other.predictions
        same = g is None and h is None if g is None or h is None else np.array_equal(g, h)
        if mine != theirs or not same:
            raise ValueError(
                "shares are of different fits or predictions: wanted those of one; give every "
                "worker the same."
            )
        if twice := sorted(self.kept.keys() & other.kept.keys()):
            raise ValueError(
                f"structure {twice[0]} is in two shares: wanted a number of its own for each "
                "structure; give pairs of numbers and rows, numbered over all shares."
            )
        self.kept |= other.kept
        self.keys |= other.keys
        self.scores.merge(other.scores)
        self.moves.merge(other.moves)
        for key, tally in other.tally.items():
            self.tally[key] = self.tally.get(key, 0) + tally
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.squares, self.count = self.squares + other.squares, self.count + other.count

    def result(self, coefficients: jax.Array, factor: jax.Array) -> Influence:
        """The Influence of all structures that were added.

        Args:
            coefficients: (K,) of the fit.
            factor: (K, K) of the fit.

        Returns:
            The Influence.
        """
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
        if self.predictions is not None:
            changes = np.array([one.shift for one in kept])
            values = self.predictions @ np.asarray(coefficients)
            moves = Moves(values, changes, *map(self._envelope, (0, 1)))
        return Influence(
            coefficients,
            factor,
            *of_rows,
            np.array([one.top for one in kept]),
            tuple(k for k, one in zip(numbers, kept, strict=True) if not one.determined),
            np.array(numbers),
            jnp.asarray(self.scores.finished()),
            jnp.asarray(math.sqrt((n - 1) / n) * self.moves.finished()),
            moves,
        )

    def _envelope(self, k: int) -> Envelope:
        count = int(self.count[k])
        if not count:
            return Envelope(*[np.full(self.low.shape[1], math.nan)] * 3, 0)
        return Envelope(self.low[k], self.high[k], np.sqrt(self.squares[k] / count), count)


def of_all_processes(share: InfluenceShare, mesh: Mesh) -> list[InfluenceShare]:
    """The shares of all processes of a mesh, in their order; all must call it.

    Args:
        share: of this process.
        mesh: of all devices of a `jax.distributed` job, or of some of this process.

    Returns:
        Those of all, this one alone where the mesh is of this process.
    """
    if share_of(mesh) == mesh.size:
        return [share]
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(pickle.dumps(share), np.uint8)
    sizes = np.asarray(process_allgather(np.array([len(own)], np.int32))).ravel()
    padded = np.pad(own, (0, int(sizes.max()) - len(own)))
    whole = np.asarray(process_allgather(padded)).reshape(len(sizes), -1)
    return [
        pickle.loads(part[:size].tobytes()) for part, size in zip(whole, sizes, strict=True)
    ]  # what the job's own processes made


def checked_keys(weights: Mapping[Any, float], key: Any) -> Any:
    """The key of the fit that the weight of a key of rows is of: its own, or else its kind's.

    Args:
        weights: of the fit.
        key: of the rows, a kind or (kind, group).

    Returns:
        One of the keys of weights.

    Raises:
        ValueError: there is none.
    """
    own = key if key in weights or not isinstance(key, tuple) else key[0]
    if own not in weights:
        held = ", ".join(map(repr, weights))
        raise ValueError(
            f"rows of {key!r} have no weight: wanted keys of the fit, which has {held}; name "
            "rows as the factors of the fit were."
        )
    return own
