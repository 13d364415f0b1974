"""True errors beside predicted ones, and failures in plain sight: for figures of `assess`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from experiments.harness.style import PALETTE, label_axes
from experiments.systems.observations import ALL_FLAGS, OBSERVATION_SETS

LABELS = {"E": "E", "EF": "E+F", "EFV": "E+F+V", "EFFC": "E+F+FC", "EFVFC": "E+F+V+FC"}
COLOURS = dict(zip(OBSERVATION_SETS, PALETTE, strict=False))
MARKERS = dict(zip(OBSERVATION_SETS, "osv^D", strict=True))
FLAG_MARKERS = dict(zip(ALL_FLAGS, "+123x*", strict=True))
PREDICTED = "predicted, first order"

Curve = Mapping[str, Any]
"""Lists over the sizes: L in Å, the numbers of `assess`, its flags."""


def curve_of(arrays: Sequence[Mapping[str, np.ndarray]], k: int) -> dict[str, list]:
    """Every number of the k-th observation set, over records that hold arrays over the sets.

    Args:
        arrays: of the records, one for each size.
        k: number of the observation set.

    Returns:
        lists over the sizes, with "L" the radius, Å.
    """
    n = {len(a["geometry_error"]) for a in arrays}.pop()
    numbers = [name for name, value in arrays[0].items() if value.shape == (n,)]
    return {
        "L": [float(a["radius"]) for a in arrays],
        **{name: [a[name][k].item() for a in arrays] for name in numbers},
    }


def draw_errors(ax: Axes, curve: Curve, quantity: str, name: str, unit: str) -> None:
    """Size of the true error (filled), the first-order prediction (open), the bound if any.

    Args:
        ax: the axes.
        curve: lists over the sizes.
        quantity: "geometry" or "energy".
        name: of the observation set.
        unit: of the error.
    """
    x, colour, marker = np.array(curve["L"]), COLOURS[name], MARKERS[name]
    true = sizes(curve, f"{quantity}_error")
    ax.loglog(x, true, marker + "-", color=colour, label="true")
    predicted = sizes(curve, f"{quantity}_predicted")
    ax.loglog(x, predicted, marker + "--", color=colour, mfc="none", ms=7, label=PREDICTED)
    if f"{quantity}_bound" in curve:
        ax.loglog(x, sizes(curve, f"{quantity}_bound"), ":", color=colour, label="bound")
    draw_flags(ax, x, true, curve)
    label_axes(ax, ("training-cell radius L", "Å"), (f"{quantity} error", unit))
    ticks_at(ax, x)


def sizes(curve: Curve, quantity: str) -> np.ndarray:
    """Absolute values of a quantity over the sizes."""
    return np.abs(np.array(curve[quantity], float))


def ticks_at(ax: Axes, x: np.ndarray) -> None:
    """Ticks at these abscissae only."""
    ax.set_xticks(x, labels=[f"{radius:.1f}" for radius in x])
    ax.xaxis.set_minor_locator(NullLocator())


def draw_flags(ax: Axes, x: np.ndarray, y: np.ndarray, curve: Curve) -> None:
    """A red sign over each number that is not to be read, at the top where there is no number.

    Args:
        ax: the axes.
        x: (n,) abscissae.
        y: (n,) ordinates, NaN where there is no number.
        curve: the flags, each a list of n; those that a figure does not know are left out.
    """
    for flag, marker in FLAG_MARKERS.items():
        if flag not in curve:
            continue
        raised = np.array(curve[flag], bool)
        style = dict(color="red", ms=9, mew=1.5, ls="", marker=marker, zorder=5)
        shown, lost = raised & np.isfinite(y), raised & ~np.isfinite(y)
        if shown.any():
            ax.plot(x[shown], y[shown], **style)
        if lost.any():
            ax.plot(x[lost], 0.95 * lost[lost], transform=ax.get_xaxis_transform(), **style)


def flag_counts(curves: Mapping[str, Curve]) -> dict[str, int]:
    """How many fits carry each flag."""
    return {flag: sum(sum(map(bool, c[flag])) for c in curves.values()) for flag in ALL_FLAGS}


def flag_caption(counts: Mapping[str, int]) -> str:
    """A sentence on what the red signs mean; empty where there are none."""
    signs = {"+": "plus", "1": "tripod", "2": "upright tripod", "3": "tripod to the left"}
    signs |= {"x": "cross", "*": "star"}
    named = [
        f"{n} {f.replace('_', ' ')} ({signs[FLAG_MARKERS[f]]})" for f, n in counts.items() if n
    ]
    return f" NOT to be read as numbers, in red: {', '.join(named)}." if named else ""


def effectivity(curve: Curve, quantity: str, of: str = "predicted") -> list[float]:
    """|predicted or bound| over |true| error, for the fits without a flag.

    Args:
        curve: lists over the sizes.
        quantity: "geometry" or "energy".
        of: "predicted" or "bound".

    Returns:
        one ratio for each fit, NaN for a fit with a flag.
    """
    failed = np.any([np.array(curve[flag], bool) for flag in ALL_FLAGS], axis=0)
    ratio = sizes(curve, f"{quantity}_{of}") / sizes(curve, f"{quantity}_error")
    return np.where(failed, np.nan, ratio).tolist()
