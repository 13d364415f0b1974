"""Slopes of errors against L, in a window, without what failed or is rounding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import linregress


def slope_of(curve: Mapping[str, Any], quantity: str, window: Sequence[float]) -> dict[str, Any]:
    """Regression in the window, without what failed or lies below ten times the floor.

    Args:
        curve: lists over L.
        quantity: one of QUANTITIES.
        window: least and largest L.

    Returns:
        "slope" and "error", NaN where the quantity changes sign in the window, or has fewer than
        three points; "changes_sign"; "left_out", the L that are not used; "local", slopes between
        neighbouring L.
    """
    x, value = np.array(curve["L"]), np.array(curve[quantity])
    y, sign = np.abs(value), np.sign(value)
    floor = 10 * np.array(curve.get(f"{quantity}_floor", np.zeros_like(x)))
    good = np.array(curve["converged"], bool) & (y > floor)
    inside = (x >= window[0]) & (x <= window[1])
    used = good & inside
    changes = len(set(sign[used])) > 1
    local = np.diff(np.log(y)) / np.diff(np.log(x))
    both = good[1:] & good[:-1] & (sign[1:] == sign[:-1])
    return fitted(x[used & (not changes)], y[used & (not changes)]) | {
        "changes_sign": changes,
        "left_out": x[inside & ~good],
        "local": np.where(both, local, np.nan),
    }


def fitted(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Slope of log y against log x and its standard error; NaN for fewer than three points.

    Args:
        x: (n,) positive.
        y: (n,) positive.

    Returns:
        "slope" and "error".
    """
    if len(x) < 3:
        return {"slope": float("nan"), "error": float("nan")}
    found = linregress(np.log(x), np.log(y))
    return {"slope": found.slope, "error": found.stderr}
