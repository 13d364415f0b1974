"""How two columns of a table are related."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import linregress, spearmanr


def relation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How well x predicts y: rank correlation and a power law.

    Args:
        x: (n,) positive.
        y: (n,) positive.

    Returns:
        "n"; "spearman", the rank correlation; "slope" of log y against log x and "slope_error",
        its standard error; "scatter", the standard deviation of log10(y / x), that is about a line
        of slope 1. All but "n" are None for fewer than three points.
    """
    if len(x) < 3:
        return {"n": len(x)} | dict.fromkeys(("spearman", "slope", "slope_error", "scatter"))
    line = linregress(np.log10(x), np.log10(y))
    return {
        "n": len(x),
        "spearman": float(spearmanr(x, y).statistic),
        "slope": float(line.slope),
        "slope_error": float(line.stderr),
        "scatter": float(np.std(np.log10(y / x), ddof=1)),
    }


def extremes(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest of the finite values.

    Args:
        values: numbers, some of which may be infinite or NaN.

    Returns:
        (least, largest); NaN where no value is finite.
    """
    finite = [v for v in values if np.isfinite(v)]
    return (min(finite), max(finite)) if finite else (np.nan, np.nan)
