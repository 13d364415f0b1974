"""Numbers that say how two columns of a table go together."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import linregress, spearmanr


def relation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How well x foretells y: rank correlation; slope of log y against log x, with its standard
    error; scatter, the standard deviation of log10(y / x), that is about a line of slope 1."""
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
    """Least and largest of the finite values; NaN where there are none."""
    finite = [v for v in values if np.isfinite(v)]
    return (min(finite), max(finite)) if finite else (np.nan, np.nan)
