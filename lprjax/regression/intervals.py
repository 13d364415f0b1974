"""Error bars of a misspecified fit: left-out residuals over what was known without their structure.

Residuals of a model that cannot be right are misfit, not noise, and |R^-T g| = 1/PR^(1/2) says what
they are worth somewhere else but for a factor. That factor is measured, from the exact
leave-one-structure-out fits that an `Influence` holds, with nothing refitted and nothing held out:

    t_i = |y_i - x_i . c_b| / |R_b^-T x_i|,   b the structure of row i,

what is missed in structures that a fit has not seen, over what that fit said of them. A quantile of
these scores makes a bar that is of the right size where data are dense and that grows as
1/PR^(1/2) where they are not; further out than any of the data it is marked as `outside`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lprjax.numerics.checks import is_number
from lprjax.regression.influence_results import Influence
from lprjax.regression.new_structures import quantile_of_structures

LEAST_VARIANCE = 1e-12
"""Rows of less left-out variance, relative to the largest of their key, have no score: a choice,
above the squares of what rounding leaves of rows that vanish by symmetry."""


class ErrorBars(NamedTuple):
    """Bars of M predictions; see `error_bars`.

    Attributes:
        half_widths: (M,) a label is within this of its prediction, unit of the labels; infinite
            where structures are too few for a quantile.
        outside: (M,) bool, whether a prediction is less rigid than all but a few rows of the key
            were before their structures were there: its bar rests on the model being right.
        score: q, what standard deviations 1/PR^(1/2) are multiplied by, in the unit of the labels
            over that of 1/w; infinite where structures are too few.
        n_structures: how many had a score.
    """

    half_widths: np.ndarray
    outside: np.ndarray
    score: float
    n_structures: int


def error_bars(
    found: Influence,
    gradients: ArrayLike,
    key: Any,
    miss: float = 0.1,
    *,
    alarm: float = 0.05,
) -> ErrorBars:
    """Bars that hold labels of new structures with probability 1 - miss, and a flag where not.

        g . c ± q |R^-T g|,   q the ceil((1 - a)(n + 1))-th smallest of n scores, a = miss,

        t_i = |y_i - x_i . c_b| / |R_b^-T x_i|

    of the exact fit c_b and factor R_b without the structure b of row i. Each of the m rows of the
    key that a structure has counts 1/m. If n structures and a new one are exchangeable, and fits
    without one of them are alike, it is covered with probability 1 - a (the jackknife with scores
    that are normalised; jackknife+ would say 1 - 2 a without the second condition). With several
    rows of the key that is of its rows on average. Nothing is promised of structures of another
    origin, such as a defect that was never sampled, or labels of other settings. There the bar is
    right as far as errors grow as 1/PR^(1/2) does, and a prediction is outside where

        |R^-T g|^2 > the ceil((1 - d)(n + 1))-th smallest |R_b^-T x_i|^2,   d = alarm,

    or, if n < 1/d - 1, the largest: it is less rigid than what the scores were taken from. Of
    structures like those of the fit a share d is. (`Influence.beyond` compares with the largest,
    which one strange structure of the fit makes as large as it likes.)

    Scores are ratios, so that half-widths of a cell's energy and of one per atom are as their
    predictions are; `outside` compares with the key's rows as they were counted. Labels with noise
    of their own have scores as if it were misfit, and far bars that are wider than they must be.
    Rows that vanish by symmetry, such as forces of a perfect crystal, have no score. A weight of
    zero leaves a key's labels out of the fit and not out of its scores.

    >>> found = lp.influence(fit, lp.structure_rows(spec, samples))
    >>> rows = lp.design_rows(spec, graph, ("forces",)).forces.reshape(3 * 16, -1)
    >>> bars = lp.error_bars(found, rows, "forces", miss=0.5)
    >>> bars.half_widths.shape == bars.outside.shape == (48,)
    True

    Args:
        found: of the fit.
        gradients: g (M, K), of predictions in the unit of the key's labels.
        key: of the rows that predictions are like: "energy" for energies of structures, per atom if
            the fit's are. A kind is all of its groups, if the fit's keys are (kind, group).
        miss: a, 0 < a < 1.
        alarm: d, 0 < d < 1.

    Returns:
        The ErrorBars. Infinite where n < 1/a - 1, or where too many structures are undetermined
        without themselves.

    Raises:
        ValueError: an unknown key; a miss or alarm out of range; gradients of another length or
            not finite.
        TypeError: other than float64.

    Source: conformal scores normalised by a predicted deviation: Papadopoulos, Gammerman, Vovk
    (2008), and Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, J. Am. Stat. Assoc. 113 (2018) 1094,
    section 5.2. The jackknife: Barber, Candes, Ramdas, Tibshirani, Ann. Stat. 49 (2021) 486. With
    left-out rigidities: derived.
    """
    for name, share in (("miss", miss), ("alarm", alarm)):
        if not (is_number(share) and 0.0 < share < 1.0):
            raise ValueError(f"{name} is {share!r}: wanted a fraction, 0 < {name} < 1; see there.")
    owners, residuals, variances = _rows_of(found, key)
    deviations = found.deviations(gradients, "rigidity")
    finite = np.isfinite(variances)
    least = LEAST_VARIANCE * np.max(variances[finite], initial=0.0)
    known = variances > least
    owners, residuals, variances = owners[known], residuals[known], variances[known]
    closed = np.isfinite(variances)
    scores = np.full(len(variances), math.inf)  # of rows that their structure alone determines
    scores[closed] = np.abs(residuals[closed]) / np.sqrt(variances[closed])
    score, n_structures = quantile_of_structures(scores, owners, 1.0 - miss)
    most, _ = quantile_of_structures(variances, owners, 1.0 - alarm)
    most = min(most, np.max(variances, initial=0.0))
    nothing = deviations**2 <= least
    widths = np.where(nothing, 0.0, score * np.where(nothing, 1.0, deviations))
    return ErrorBars(widths, deviations**2 > most, score, n_structures)


def _rows_of(found: Influence, key: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owners, left-out residuals and left-out variances of a key, or of all groups of a kind."""
    keys = [own for own in found.owners if own == key]
    keys = keys or [own for own in found.owners if isinstance(own, tuple) and own[0] == key]
    if not keys:
        held = ", ".join(map(repr, found.owners))
        raise ValueError(f"key is {key!r}: wanted one that rows were given of: {held}.")
    parts = (found.owners, found.left_out, found.left_out_variances)
    owners, residuals, variances = (np.concatenate([x[own] for own in keys]) for x in parts)
    return owners, residuals, variances
