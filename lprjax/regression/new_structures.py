"""Intervals from residuals of structures that were not fitted, whatever their distribution.

Of n structures and a new one, in no order, the new one is as likely to be in any place: so the
ceil((1 - a)(n + 1))-th smallest of their scores is not exceeded by the new one's with probability
1 - a at least. If n < 1/a - 1 there is no such score, and the interval is infinite. Rows of one
structure are not independent, and more of them make up for no structure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lprjax.numerics.checks import as_float64, is_number, named, refuse_traced
from lprjax.regression.fitting import Fit
from lprjax.regression.influence_results import whitened
from lprjax.regression.samples import checked_rows

WHAT = ("row", "atom", "structure")
"""What a conformal interval holds: a row of a new structure, all three components of one of its
atoms, or all of its rows."""


class Conformal(NamedTuple):
    """How many predicted deviations wide an interval for new structures is; see `conformal`.

    Attributes:
        score: q >= 0, half the width of intervals in units of the predicted deviations; infinite
            where structures are too few.
        miss: a, the probability that it does not hold.
        of: what it holds, one of WHAT.
        n_structures: n, how many it was taken from.
        largest: of the predicted deviations it was taken from; for larger ones, see `outside`.
    """

    score: float
    miss: float
    of: str
    n_structures: int
    largest: float

    @property
    def wanted(self) -> int:
        """How many structures an interval takes to be finite, ceil(1/a) - 1."""
        return math.ceil(1.0 / self.miss - 1e-9) - 1

    def half_widths(self, deviations: ArrayLike) -> np.ndarray:
        """q sigma, of predictions with deviations sigma.

        Args:
            deviations: sigma (M,) >= 0, made as those were that it was taken from.

        Returns:
            (M,), unit of the residuals; infinite where structures are too few.

        Raises:
            ValueError: deviations that are negative or NaN.
            TypeError: other than float64.
        """
        sigma = _checked_deviations(deviations)
        if math.isinf(self.score):
            return np.full(sigma.shape, math.inf)
        return np.where(sigma > 0.0, self.score * np.where(sigma > 0.0, sigma, 1.0), 0.0)

    def outside(self, deviations: ArrayLike) -> np.ndarray:
        """Which predictions are less certain than any that the interval was taken from.

        Of n structures exchangeable with a new one, one row each, it is flagged with probability
        1/(n + 1) at most. An interval of a flagged one rests on sigma being right further out.

        Args:
            deviations: as in `half_widths`.

        Returns:
            (M,) bool.

        Raises:
            ValueError, TypeError: as `half_widths`.
        """
        return _checked_deviations(deviations) > self.largest * (1.0 + 1e-12)  # rounding

    def __str__(self) -> str:
        held = {"row": "a row", "atom": "an atom", "structure": "all rows"}[self.of]
        text = f"{1 - self.miss:.3g} of intervals hold {held} of a new structure: "
        if math.isinf(self.score):
            few = (
                f"too few for it, wanted {self.wanted}"
                if self.n_structures < self.wanted
                else ("of which too many have no finite score")
            )
            return f"{text}infinite, from {self.n_structures} structures, {few}"
        return f"{text}± {self.score:.4g} deviations, from {self.n_structures} structures"


def conformal(
    residuals: ArrayLike,
    deviations: ArrayLike | None = None,
    owners: ArrayLike | None = None,
    *,
    miss: float = 0.1,
    of: str = "row",
) -> Conformal:
    """The quantile of |r| / sigma on structures not fitted, whose intervals hold new structures.

        row:        least q with sum_b 1/m_b #(i in b: t_i <= q) >= (1 - a)(n + 1), t = |r| / sigma
        atom:       the same of the largest t of the three components of each atom
        structure:  the ceil((1 - a)(n + 1))-th smallest of max_(i in b) t_i

    of n structures b with m_b rows (or atoms) of the kind. They hold a row drawn from a new
    structure (or an atom; or all its rows at once) with probability 1 - a at least, for any n,
    any distribution and any sigma, **if the structures are exchangeable with the new one** and took
    no part in the fit nor in sigma. (Row: with the new structure among them, all n + 1 pooled, each
    of weight 1/(n + 1), a row of one of them drawn at random is at most their quantile; that of n
    with infinity for the new one is no smaller.) sigma decides how widths differ, not how often
    intervals hold. Nothing is said of structures of another origin: see `Conformal.outside`.

    >>> lp.conformal([0.3, -0.1, 0.2, 0.4], miss=0.2).score
    0.4
    >>> lp.conformal([0.3, -0.1, 0.2, 0.4], miss=0.1).score
    inf

    Args:
        residuals: r (N,) of one kind of observations, in one unit.
        deviations: sigma (N,) >= 0, predicted; ones if None. A residual of deviation zero that is
            not zero has an infinite score.
        owners: (N,) numbers of the structures that the rows are of; each its own if None.
        miss: a, 0 < a < 1.
        of: "row", "atom" (rows of forces, by three) or "structure".

    Returns:
        The Conformal.

    Raises:
        ValueError: shapes that differ, none, NaN; a miss out of range; an unknown `of`; rows of
            atoms that do not come in threes.
        TypeError: other than float64, or traced.

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005); with deviations,
    Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, J. Am. Stat. Assoc. 113 (2018) 1094. Pooled rows:
    Dunn, Wasserman, Ramdas, J. Am. Stat. Assoc. 118 (2023) 2491; for any n, Lee, Barber, Willett,
    arXiv:2306.06342.
    """
    refuse_traced("conformal", residuals=residuals, deviations=deviations)
    r = np.asarray(as_float64("residuals", residuals))
    sigma = np.ones(r.shape) if deviations is None else _checked_deviations(deviations)
    owners = np.arange(len(r)) if owners is None and r.ndim == 1 else np.asarray(owners)
    if r.ndim != 1 or not r.shape == sigma.shape == owners.shape or not len(r):
        raise ValueError(
            f"residuals have shape {r.shape}, deviations {sigma.shape} and owners {owners.shape}: "
            "wanted (N,) with N >= 1 for all; give one of each for every row."
        )
    if np.isnan(r).any():
        raise ValueError("residuals hold NaN: wanted numbers; leave those rows out.")
    if not (is_number(miss) and 0.0 < miss < 1.0):
        raise ValueError(f"miss is {miss!r}: wanted a fraction, 0 < miss < 1; 0.1 for 90 %.")
    if of not in WHAT:
        raise ValueError(f"of is {of!r}: wanted one of {', '.join(map(repr, WHAT))}.")
    scores = _scores(r, sigma)
    if of == "atom":
        scores, owners = _of_atoms(scores, owners)
    elif of == "structure":
        scores, owners = _of_structures(scores, owners)
    score, n = quantile_of_structures(scores, owners, 1.0 - miss)
    return Conformal(score, float(miss), of, n, float(np.max(sigma)))


def split_conformal(
    fit: Fit,
    samples: Iterable[Mapping[Any, tuple[ArrayLike, ArrayLike]] | tuple[int, Mapping[Any, Any]]],
    *,
    miss: float = 0.1,
    of: str = "row",
) -> OrderedDict[Any, Conformal]:
    """`conformal`, of each kind of observations, from structures that were not fitted.

        t_i = |y_i - x_i . c| / |R^-T x_i|

    so that deviations are 1/PR^(1/2), `found[key].half_widths(prediction_rigidity(R, g) ** -0.5)`.
    Assumption and guarantee are those of `conformal`.

    >>> found = lp.split_conformal(fit, lp.structure_rows(spec, samples), miss=0.25)
    >>> found["energy"].n_structures, found["forces"].of
    (4, 'row')

    Args:
        fit: with its factor.
        samples: structures that it was **not** made of, as in `influence`: with those it was made
            of, intervals are too narrow (`error_bars` takes these).
        miss: as in `conformal`.
        of: as in `conformal`; energies and virials have no atoms, and are taken by row.

    Returns:
        By key of the rows.

    Raises:
        ValueError: no samples, rows that do not fit; and as `conformal`.
        TypeError: other than float64; samples that are no mappings.
    """
    found: OrderedDict[Any, list[tuple[np.ndarray, ...]]] = OrderedDict()
    coefficients, factor = np.asarray(fit.coefficients), fit.factor
    for place, sample in enumerate(samples):
        number, parts = sample if isinstance(sample, tuple) else (place, sample)
        with named(f"structure {number}"):
            checked = checked_rows(parts, len(coefficients))
        for key, (rows, targets) in checked.items():
            whole = targets - rows @ coefficients, rows, np.full(len(targets), number)
            found.setdefault(key, []).append(whole)
    if not found:
        raise ValueError("samples is empty: wanted structures that were not fitted, at least one.")
    result = OrderedDict()
    for key, parts in found.items():
        residuals, rows, owners = (np.concatenate(x) for x in zip(*parts, strict=True))
        deviations = np.linalg.norm(np.asarray(whitened(factor, rows)), axis=0)
        kind = key[0] if isinstance(key, tuple) else key
        what = "row" if of == "atom" and kind in ("energy", "virial") else of
        result[key] = conformal(residuals, deviations, owners, miss=miss, of=what)
    return result


def quantile_of_structures(
    scores: np.ndarray, owners: np.ndarray, level: float
) -> tuple[float, int]:
    """The least score up to which n structures and a new one share `level`, and n.

    Args:
        scores: (N,); infinite ones are no matter but that they are large.
        owners: (N,) of which structure each is: one of m counts 1 / (m (n + 1)).
        level: from 0 to 1.

    Returns:
        the score, infinity where structures are too few, and how many there are.
    """
    if not len(scores):
        return math.inf, 0
    _, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
    shares = 1.0 / (counts[place] * (len(counts) + 1.0))
    order = np.argsort(scores)
    reached = np.cumsum(shares[order]) >= level - 1e-12  # a sum of shares is exact to rounding
    first = int(np.argmax(np.append(reached, True)))
    return float(np.append(scores[order], math.inf)[first]), len(counts)


def _scores(residuals: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    size, known = np.abs(residuals), deviations > 0.0
    scores = np.where(size > 0.0, math.inf, 0.0)
    scores[known] = size[known] / deviations[known]
    return scores


def _of_atoms(scores: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    by_atom = owners.reshape(-1, 3) if len(owners) % 3 == 0 else owners[:, None]
    if len(owners) % 3 or (by_atom != by_atom[:, :1]).any():
        raise ValueError(
            f"{len(owners)} rows are of no whole atoms: wanted three of each, as forces have; take "
            "them by row."
        )
    return scores.reshape(-1, 3).max(axis=1), by_atom[:, 0]


def _of_structures(scores: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers, place = np.unique(owners, return_inverse=True)
    largest = np.zeros(len(numbers))
    np.maximum.at(largest, place, scores)
    return largest, numbers


def _checked_deviations(deviations: ArrayLike) -> np.ndarray:
    sigma = np.asarray(as_float64("deviations", deviations))
    if not (sigma >= 0.0).all():
        raise ValueError("deviations are negative or NaN: wanted numbers >= 0.")
    return sigma
