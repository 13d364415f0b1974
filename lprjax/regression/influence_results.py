"""What one pass over the rows of a fit says: see `influences`, which makes it, for the symbols."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from lprjax.numerics.checks import as_float64, is_number, refuse_traced
from lprjax.numerics.tables import Table

DEVIATIONS = ("rigidity", "sandwich", "jackknife")
"""Kinds of standard deviations that an `Influence` gives."""


class Envelope(NamedTuple):
    """How far predictions move when single observations are fitted exactly.

    Attributes:
        low: (M,) the least move, of either sign; unit of the predictions.
        high: (M,) the greatest move, the same unit.
        rms: (M,) root of the mean square of the moves, the same unit.
        count: how many moves there were; low, high and rms are NaN if none.
    """

    low: np.ndarray
    high: np.ndarray
    rms: np.ndarray
    count: int


class Moves(NamedTuple):
    """How M predictions change, exactly, with the data; unit of the predictions.

    Attributes:
        values: (M,) g . c, with all structures.
        left_out: (n, M) their change when structure b is left out, `- w . m_b`; inf where that is
            undetermined.
        rows: the Envelope of `(w . v_i) r_i / |v_i|^2` over rows.
        structures: the Envelope of `w . V_b^T P_b^+ r_b` over structures.
    """

    values: np.ndarray
    left_out: np.ndarray
    rows: Envelope
    structures: Envelope


class Influence(NamedTuple):
    """What the structures of a fit do to it; see `influence`.

    Dictionaries have the keys of the rows, (N,) numbers each: structure after structure, in the
    order of a structure's rows.

    Attributes:
        coefficients: (K,) of the fit.
        factor: (K, K) R of the fit.
        residuals: y - X c, unit of the labels (no weight).
        left_out: y - X c_b of the fit c_b without the row's structure, the same unit; inf where
            that is undetermined.
        leverages: h_i = |R^-T x_i|^2 of the weighted row, dimensionless, 0 to 1.
        left_out_variances: |R_b^-T x|^2 of the row without weight, R_b the factor without its
            structure: what 1/PR was before the structure was there. inf where undetermined.
        owners: the number of the structure that each row is of.
        structure_leverages: (n,) the largest eigenvalue of P_b, 0 to 1: how much of what a
            structure knows best is known through it alone.
        undetermined: numbers of the structures of leverage 1, without which H is singular.
        numbers: (n,) of the structures, rising: the order of all that has an axis n.
        scores: (K, K) triangular S, S^T S = sum_b t_b t_b^T of whitened scores t_b = V_b^T r_b.
        jackknife: (K, K) triangular J, J^T J = (n - 1)/n sum_b m_b m_b^T, without the undetermined.
        moves: of the predictions that were given; None without.
    """

    coefficients: jax.Array
    factor: jax.Array
    residuals: OrderedDict[Any, np.ndarray]
    left_out: OrderedDict[Any, np.ndarray]
    leverages: OrderedDict[Any, np.ndarray]
    left_out_variances: OrderedDict[Any, np.ndarray]
    owners: OrderedDict[Any, np.ndarray]
    structure_leverages: np.ndarray
    undetermined: tuple[int, ...]
    numbers: np.ndarray
    scores: jax.Array
    jackknife: jax.Array
    moves: Moves | None

    @property
    def rms(self) -> OrderedDict[Any, float]:
        """By key the root mean square of the residuals, unit of the labels: as `Fit.rms`."""
        return OrderedDict((key, _root_mean_square(x)) for key, x in self.residuals.items())

    @property
    def cross_validated(self) -> OrderedDict[Any, float]:
        """By key the root mean square of the left-out residuals, unit of the labels.

            (1/N sum_b |y_b - X_b c_b|^2)^1/2,   c_b fitted without structure b

        Infinite where a structure's own left-out residuals are. Source: PRESS (Allen,
        Technometrics 16 (1974) 125), in blocks.
        """
        return OrderedDict((key, _root_mean_square(x)) for key, x in self.left_out.items())

    def deviations(self, gradients: ArrayLike, kind: str = "sandwich") -> np.ndarray:
        """Standard deviations of predictions g . c.

            rigidity:   |w|      1/PR^(1/2): residuals white, and of variance one once weighted
            sandwich:   |S w|    g^T H^-1 (sum_b s_b s_b^T) H^-1 g,  s_b = X_b^T r_b
            jackknife:  |J w|    (n - 1)/n sum_b (change of the prediction without structure b)^2

        with w = R^-T g. The last two take structures as independent and ask nothing of residuals
        within one; the sandwich is too small where leverages are not (residuals of a fit are
        smaller than errors), the jackknife rather too large. Neither contains an error that all
        structures share, nor the bias of a ridge.

        Args:
            gradients: g, (..., K), derivatives of the predictions, in their unit.
            kind: one of DEVIATIONS.

        Returns:
            (...,), unit of the predictions; sandwich and jackknife do not depend on the unit of
            the weights. The jackknife's are infinite if a structure is `undetermined`.

        Raises:
            ValueError: an unknown kind; rows of another length, or not finite.
            TypeError: other than float64.

        Source: sandwich: White, Econometrica 48 (1980) 817; of clusters: Liang and Zeger,
        Biometrika 73 (1986) 13. Jackknife: Tukey, Ann. Math. Stat. 29 (1958) 614.
        """
        spread = self._spread(kind)
        shape = np.shape(gradients)
        flat = np.reshape(np.asarray(gradients), (-1, *shape[-1:]))
        g = checked_predictions(flat, len(self.coefficients))
        if kind == "jackknife" and self.undetermined:
            return np.full(shape[:-1], math.inf)
        return np.asarray(_deviations(self.factor, spread, g)).reshape(shape[:-1])

    def committee(self, key: jax.Array, n: int, kind: str = "sandwich") -> jax.Array:
        """Models whose predictions spread as `deviations` says: their mean square is its square.

            c + R^-1 A^T z,   z white,   A = 1, S or J for rigidity, sandwich or jackknife

        Args:
            key: jax PRNG key.
            n: how many models.
            kind: one of DEVIATIONS.

        Returns:
            (n, K), unit of the coefficients.

        Raises:
            ValueError: an unknown kind; n < 1; the jackknife of a fit with structures that are
                `undetermined`, whose variances are infinite.
        """
        spread = self._spread(kind)
        if not (isinstance(n, int | np.integer) and n >= 1):
            raise ValueError(f"n is {n!r}: wanted a whole number, at least one member.")
        if kind == "jackknife" and self.undetermined:
            raise ValueError(
                f"structures {self.undetermined} are undetermined if left out: wanted a jackknife "
                "of finite variance; fit with a ridge > 0."
            )
        white = jax.random.normal(key, (int(n), len(self.coefficients)))
        return _drawn(self.coefficients, self.factor, spread, white)

    def intervals(self, key: Any, miss: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """Jackknife+ intervals for labels of one key at the predictions that were given.

            from the floor(a (n + 1))-th smallest of g . c_b - |r_b|
            to the ceil((1 - a)(n + 1))-th smallest of g . c_b + |r_b|,   a = miss

        c_b is the fit without structure b, r_b its left-out residual. Each of the m rows of the
        key that a structure has counts 1/m. They hold the label of a new structure with
        probability 1 - 2 a at least, and 1 - a in practice, if structures are exchangeable with it
        and have one row of the key each; with several rows that is so for many structures only.
        Nothing is said of a structure of another origin: see `beyond`.

        Args:
            key: of the rows that a prediction is like, e.g. "energy" for energies of structures.
            miss: a, 0 < a < 1.

        Returns:
            lower and upper, (M,) each, unit of the labels; infinite where structures are too few,
            n < 1/a - 1, or too many are undetermined.

        Raises:
            ValueError: no predictions were given; an unknown key; a miss out of range.

        Source: Barber, Candes, Ramdas, Tibshirani, Ann. Stat. 49 (2021) 486. The pooling of rows:
        Dunn, Wasserman, Ramdas, J. Am. Stat. Assoc. 118 (2023) 2491.
        """
        if self.moves is None:
            raise ValueError("moves is None: wanted predictions; give `influence` predictions=g.")
        self._check_key(key)
        if not (is_number(miss) and 0.0 < miss < 1.0):
            raise ValueError(f"miss is {miss!r}: wanted a fraction, 0 < miss < 1; 0.1 for 90 %.")
        owners, size = self.owners[key], np.abs(self.left_out[key])
        at = np.searchsorted(self.numbers, owners)
        _, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
        shares = 1.0 / (counts[place] * (len(counts) + 1.0))
        open_ones = np.isinf(size)
        change = np.where(open_ones[:, None], 0.0, self.moves.left_out[at])
        centre = self.moves.values[None] + change
        upper = _quantile(centre + size[:, None], shares, 1.0 - miss)
        return -_quantile(size[:, None] - centre, shares, 1.0 - miss), upper

    def beyond(self, gradients: ArrayLike, key: Any) -> np.ndarray:
        """Which predictions lie outside the data: no row of the key did before it was added.

            |R^-T g|^2 > max_i |R_b(i)^-T x_i|^2

        The right side is of rows x_i and factors R_b without their structures, so that both are of
        rows that a fit has not seen. Of n structures exchangeable with a new one, of one row each,
        it is flagged with a probability of 1/(n + 1) at most or so (the factors differ by a
        structure). Error bars of flagged predictions rest on the model being right.

        Args:
            gradients: g, (..., K), of predictions in the unit of the key's labels.
            key: of the rows that they are compared with.

        Returns:
            (...,) bool.

        Raises:
            ValueError: an unknown key; rows of another length, or not finite.
            TypeError: other than float64.
        """
        self._check_key(key)
        return self.deviations(gradients, "rigidity") ** 2 > np.max(
            self.left_out_variances[key], initial=0.0
        )

    def _spread(self, kind: str) -> jax.Array | None:
        if kind not in DEVIATIONS:
            wanted = ", ".join(map(repr, DEVIATIONS))
            raise ValueError(f"kind is {kind!r}: wanted one of {wanted}.")
        return {"sandwich": self.scores, "jackknife": self.jackknife}.get(kind)

    def _check_key(self, key: Any) -> None:
        if key not in self.owners:
            held = ", ".join(map(repr, self.owners))
            raise ValueError(f"key is {key!r}: wanted one that rows were given of: {held}.")

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        left_out = self.cross_validated
        rows = [
            [
                " ".join(map(str, key)) if isinstance(key, tuple) else str(key),
                f"{len(self.residuals[key])}",
                f"{rms:.4g}",
                f"{left_out[key]:.4g}",
                f"{np.max(self.leverages[key], initial=0.0):.3f}",
            ]
            for key, rms in self.rms.items()
        ]
        top = int(np.argmax(self.structure_leverages))
        notes = [
            f"largest leverage of a structure: {self.structure_leverages[top]:.4f} of "
            f"structure {self.numbers[top]}"
        ]
        if self.undetermined:
            notes.append(
                f"leverage 1, undetermined without: {', '.join(map(str, self.undetermined))}"
            )
        return Table(
            f"Influence of {len(self.structure_leverages)} structures on "
            f"{len(self.coefficients)} coefficients",
            ("observations", "number", "rms", "rms left out", "largest leverage"),
            rows,
            notes,
        )


@jax.jit
def whitened(factor: jax.Array, g: jax.Array) -> jax.Array:
    """R^-T g^T, whose columns are the w of predictions.

    Args:
        factor: R (K, K), upper triangular.
        g: (M, K).

    Returns:
        (K, M).
    """
    return solve_triangular(factor, g.T, trans="T")


def checked_predictions(predictions: Any, n_features: int) -> np.ndarray:
    """Derivatives of predictions, checked.

    Args:
        predictions: g (M, K).
        n_features: K.

    Returns:
        g, on the host.

    Raises:
        ValueError: another shape, NaN or infinity.
        TypeError: other than float64, or traced.
    """
    refuse_traced("influence", predictions=predictions)
    g = np.asarray(as_float64("predictions", predictions))
    if g.ndim != 2 or g.shape[1] != n_features:
        raise ValueError(
            f"predictions have shape {g.shape}: wanted (M, {n_features}); give one row of "
            "derivatives for each."
        )
    if not np.isfinite(g).all():
        raise ValueError("predictions hold NaN or infinity: wanted finite derivatives.")
    return g


@jax.jit
def _deviations(factor, spread, g):
    w = whitened(factor, g)
    return jnp.linalg.norm(w if spread is None else spread @ w, axis=0)


@jax.jit
def _drawn(coefficients, factor, spread, white):
    turned = white if spread is None else white @ spread
    return coefficients[None] + solve_triangular(factor, turned.T).T


def _quantile(values: np.ndarray, shares: np.ndarray, level: float) -> np.ndarray:
    """The smallest of values (N, M) up to which shares (N,) sum to level; infinity if none."""
    order = np.argsort(values, axis=0)
    sums = np.cumsum(shares[order], axis=0)
    reached = sums >= level - 1e-12  # a sum of shares is exact to rounding
    ordered = np.take_along_axis(values, order, axis=0)
    found = np.take_along_axis(ordered, np.argmax(reached, axis=0)[None], axis=0)[0]
    return np.where(reached.any(axis=0), found, math.inf)


def _root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2))) if len(x) else math.nan
