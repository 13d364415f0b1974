"""Leave-one-structure-out errors as a function of weights, ridge and prior: exact, no refit.

The rows of a structure b and of one key (a kind, or a kind and a group) enter any error as

    |X_b c - y_b|^2 = |A_b c - q_b|^2 ,   [A_b | q_b] = Q^T [X_b | y_b]

of min(r, K + 1) rows. Kept apart for each structure they say, for any weights, ridge and prior,

    left-out residuals  e_b = r_b + V_b (W_b V_b)^T (I - P_b)^-1 W_b r_b ,

with r_b = q_b - A_b c and V_b = A_b R^-1 of the fit to all, W_b the weights and
P_b = W_b V_b V_b^T W_b (see `influences`). One QR of the factors of all structures, a triangular
solve and a Cholesky factor for each structure: differentiable, and structures of one shape go
together.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sized
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax.linalg import triangular_solve
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.numerics.checks import check_at_least_zero, named, refuse_traced, require_x64
from lprjax.regression.factors import Factor, checked_prior, compress
from lprjax.regression.fitting import resolve_weights, solution
from lprjax.regression.samples import checked_rows, padded_length

ALONE = 1e-10
"""A structure of leverage above 1 - ALONE is taken to be alone in what it determines: a choice,
above the rounding of leverages in fits with a condition of some 1e6."""
_NUMBERS = {"cpu": 2**17, "accelerator": 2**25}
"""Numbers of rows that go together: a choice. Those of a CPU stay in its cache."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class StructureFactors:
    """The rows of each structure by itself, compressed key by key, in batches of one shape.

    Attributes:
        factors: of each key the Factor of all structures, as `fit` takes them.
        rows: of each batch [A | q] (n, m, K + 1), zeros below.
        places: of each batch (n, m), which of the keys a row is of.
        numbers: of each batch (n,), the numbers of its structures.
        keys: kinds or (kind, group), in the order that errors and weights have.
        counts: how many rows of each key there were before compression.
    """

    factors: tuple[Factor, ...]
    rows: tuple[jax.Array, ...]
    places: tuple[jax.Array, ...]
    numbers: tuple[np.ndarray, ...]
    keys: tuple[Any, ...] = dataclasses.field(metadata={"static": True})
    counts: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def n_features(self) -> int:
        """K."""
        return self.factors[0].triangular.shape[0]

    @property
    def by_key(self) -> OrderedDict[Any, Factor]:
        """Key -> Factor of all structures, for `fit`."""
        return OrderedDict(zip(self.keys, self.factors, strict=True))

    @property
    def order(self) -> np.ndarray:
        """(n,) numbers of the structures, as `left_out_squares` has them."""
        return np.concatenate(self.numbers)


def structure_factors(
    samples: Iterable[Mapping[Any, tuple[ArrayLike, ArrayLike]] | tuple[int, Mapping[Any, Any]]],
) -> StructureFactors:
    """What leave-one-structure-out errors need of the rows, for any weights, ridge and prior.

    One pass. Of a structure min(r, K + 1) rows are kept for each key: unlike factors they grow with
    the data, 8 (K + 1) bytes for each row.

    >>> parts = lp.structure_factors(lp.structure_rows(spec, samples))
    >>> errors = lp.left_out_errors(parts, weights, ridge=1e-8)
    >>> bool(errors["forces"] > lp.fit(parts.by_key, weights, ridge=1e-8).rms["forces"])
    True

    Args:
        samples: as in `influence`: of each structure its unweighted rows (r, K) and labels (r,) by
            key, or pairs of its number and these, as `structure_rows` gives them.

    Returns:
        The StructureFactors.

    Raises:
        ValueError: no samples; shapes that do not match, NaN or infinity (the structure is named);
            a number that occurs twice.
        TypeError: other than float64; samples that are no mappings.
        RuntimeError: float64 is off.
    """
    require_x64()
    kept: dict[int, dict[Any, np.ndarray]] = {}
    counts: dict[Any, int] = {}
    n_features = None
    total = len(samples) if isinstance(samples, Sized) else None
    for place, sample in enumerate(
        tqdm(samples, desc="rows of structures", unit=" cells", delay=5, total=total)
    ):
        number, parts = sample if isinstance(sample, tuple) else (place, sample)
        with named(f"structure {number}"):
            if number in kept:
                raise ValueError("is there twice: wanted a number of its own for each structure.")
            found = checked_rows(parts, n_features)
        kept[number] = {key: _compressed(*both) for key, both in found.items()}
        n_features = next(iter(found.values()))[0].shape[1]
        for key, (_, y) in found.items():
            counts[key] = counts.get(key, 0) + len(y)
    if not kept:
        raise ValueError("samples is empty: wanted the structures of a fit, at least one.")
    keys = tuple(counts)
    factors = tuple(_factor(kept, key)._replace(n_rows=counts[key]) for key in keys)
    return StructureFactors(factors, *_batches(kept, keys), keys, tuple(counts.values()))


def left_out_squares(
    parts: StructureFactors, weights: ArrayLike, ridge: ArrayLike, prior: ArrayLike | None = None
) -> jax.Array:
    """Sums of squares of left-out residuals, pure: to be jitted, and differentiated.

        sum_i in b, k  (y_i - x_i . c_b)^2,   c_b fitted without structure b

    Differentiable in weights, ridge > 0 and prior, in forward and in reverse mode. No value is
    checked. At a structure of leverage 1 it is infinite, and derivatives are NaN.

    Args:
        parts: of n structures and k keys.
        weights: (k,) in the order of `parts.keys`, multiply the residual.
        ridge: () >= 0.
        prior: (K,) diagonal of Gamma; ones if None.

    Returns:
        (n, k), in the order of `parts.order`; unit of the labels squared, no weight.
    """
    weights = jnp.asarray(weights)
    coefficients, triangular = solution(parts.factors, weights, ridge, prior)
    of_fit = coefficients, triangular, weights
    found = [
        _mapped(partial(_of_structure, of_fit), rows, places)
        for rows, places in zip(parts.rows, parts.places, strict=True)
    ]
    return jnp.concatenate(found)


def left_out_errors(
    parts: StructureFactors,
    weights: Mapping[Any, float],
    *,
    ridge: float = 0.0,
    prior: ArrayLike | None = None,
) -> OrderedDict[Any, float]:
    """Root mean squares of left-out residuals: those of n refits, for any weights, ridge and prior.

        (1/N sum_b |y_b - X_b c_b|^2)^1/2,   c_b fitted without structure b

    The same as `influence(fit, samples).cross_validated`, without another pass over the rows.

    Args:
        parts: as `structure_factors` returns it.
        weights: as in `fit`, by kind or key.
        ridge: as in `fit`.
        prior: as in `fit`.

    Returns:
        By key, unit of the labels; infinite where a structure of leverage 1 (alone in what it
        determines) has rows of the key, or where H is singular.

    Raises:
        ValueError: as `fit`, of weights, ridge and prior.
        TypeError: traced values (`left_out_squares` takes those).
    """
    refuse_traced("left_out_errors", parts=parts, weights=weights, ridge=ridge, prior=prior)
    resolved = resolve_weights(parts.by_key, weights)
    check_at_least_zero("ridge", ridge)
    gamma = checked_prior(prior, parts.n_features)
    squares = np.asarray(_squares(parts, np.array(list(resolved.values())), float(ridge), gamma))
    means = np.sum(squares, axis=0) / np.array(parts.counts)
    means = np.where(np.isnan(means), np.inf, means)
    return OrderedDict(zip(parts.keys, np.sqrt(means).tolist(), strict=True))


_squares = jax.jit(left_out_squares)


def _of_structure(of_fit, rows, places):
    """Sums of squares by key (k,) of one structure."""
    coefficients, triangular, weights = of_fit
    n, w = len(coefficients), weights[places]
    x, y = rows[:, :n], rows[:, n]
    plain = triangular_solve(triangular, x, left_side=False)  # V without weights
    residuals = y - x @ coefficients
    v, r = w[:, None] * plain, w * residuals
    if len(rows) <= n:
        move, determined = _solved(v @ v.T, r)
        move = v.T @ move
    else:  # V^T (I - P)^-1 = (I - V^T V)^-1 V^T
        move, determined = _solved(v.T @ v, v.T @ r)
    left_out = jnp.where(determined, residuals + plain @ move, jnp.inf)
    left_out = jnp.where(jnp.any(rows != 0.0, axis=1), left_out, 0.0)  # nothing below
    return jax.ops.segment_sum(left_out**2, places, len(weights))


def _solved(part, r):
    """(I - P)^-1 r, and whether I - P is clearly positive."""
    lower = jnp.linalg.cholesky(jnp.eye(len(r)) - part, symmetrize_input=False)
    determined = jnp.min(jnp.diagonal(lower)) ** 2 > ALONE  # False where there is no factor
    return cho_solve((lower, True), r), determined


def _mapped(function, rows, places):
    """Structure by structure, as many at a time as suit the device; nothing is kept for reverse
    derivatives, which compute it again."""
    size = together(rows.shape[1], rows.shape[2])
    mapped = partial(jax.lax.map, batch_size=min(size, len(rows)))
    return mapped(jax.checkpoint(lambda both: function(*both)), (rows, places))


def together(n_rows: int, n_columns: int) -> int:
    """How many structures of so many rows go together on the default device: a choice."""
    kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    return max(_NUMBERS[kind] // (n_rows * n_columns), 1)


def _compressed(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[A | q] of min(r, K + 1) rows."""
    whole = np.column_stack([rows, targets])
    return np.asarray(np.linalg.qr(whole, mode="r")) if len(whole) > whole.shape[1] else whole


def _factor(kept: Mapping[int, Mapping[Any, np.ndarray]], key: Any) -> Factor:
    whole = np.concatenate([parts[key] for parts in kept.values() if key in parts])
    return compress(whole[:, :-1], whole[:, -1])


def _batches(kept: Mapping[int, Mapping[Any, np.ndarray]], keys: tuple[Any, ...]) -> tuple:
    """Rows, places and numbers, by the number of rows that structures are padded to."""
    found: dict[int, list] = {}
    for number, parts in kept.items():
        rows = np.concatenate(list(parts.values()))
        places = np.repeat([keys.index(key) for key in parts], [len(x) for x in parts.values()])
        missing = padded_length(len(rows)) - len(rows)
        padded = np.pad(rows, ((0, missing), (0, 0))), np.pad(places, (0, missing))
        found.setdefault(len(padded[0]), []).append((*padded, number))
    batches = [[np.stack(part) for part in zip(*of, strict=True)] for of in found.values()]
    rows, places, numbers = zip(*batches, strict=True)
    return tuple(map(jnp.asarray, rows)), tuple(map(jnp.asarray, places)), numbers
