"""How two columns of a table are related."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, linregress, spearmanr


def relation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How well x predicts y: rank correlation and a power law.

    Args:
        x: (n,) positive.
        y: (n,) positive.

    Returns:
        "n"; "spearman", the rank correlation; "slope" of log y against log x and "slope_error",
        its standard error; "scatter", the standard deviation of log10(y / x), that is about a line
        of slope 1. All but "n" are None for fewer than three points, or where all x are one.
    """
    if len(x) < 3 or np.ptp(x) == 0.0:
        return {"n": len(x)} | dict.fromkeys(("spearman", "slope", "slope_error", "scatter"))
    line = linregress(np.log10(x), np.log10(y))
    return {
        "n": len(x),
        "spearman": float(spearmanr(x, y).statistic),
        "slope": float(line.slope),
        "slope_error": float(line.stderr),
        "scatter": float(np.std(np.log10(y / x), ddof=1)),
    }


def rank_within(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float | None:
    """Rank correlation of x and y at a fixed third quantity, which both may follow.

    Args:
        x: (n,).
        y: (n,).
        groups: (n,) the third quantity, of few values.

    Returns:
        the mean over its values of the rank correlation of x and y there, of those with three
        points or more; None if there are none.
    """
    found = [
        spearmanr(x[groups == group], y[groups == group]).statistic
        for group in np.unique(groups)
        if np.sum(groups == group) >= 3
    ]
    return float(np.mean(found)) if found else None


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Where the probability behind an observed share lies, with 95 % confidence.

    Args:
        share: of n, that were successes.
        n: independent trials.

    Returns:
        (low, high), exact.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    low, high = binomtest(round(share * n), n).proportion_ci(0.95, method="exact")
    return float(low), float(high)


def extremes(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest of the finite values.

    Args:
        values: numbers, some of which may be infinite or NaN.

    Returns:
        (least, largest); NaN where no value is finite.
    """
    finite = [v for v in values if np.isfinite(v)]
    return (min(finite), max(finite)) if finite else (np.nan, np.nan)
