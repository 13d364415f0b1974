"""The figure of `benchmark`: cost per atom against basis size and against cell size."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.style import PALETTE, label_axes

COLOURS = dict(zip(("lprjax", "ace-jax", "python-ace", "X^T X", "LAMMPS"), PALETTE, strict=False))
STYLES = {"rows": "o-", "forces": "s--", "SW": "^:", "EAM": "v-."}
TITLES = {"X^T X": "floor: $X^T X$", "rows": "rows", "forces": "ACE energy + forces"}


def point(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Medians and minima, µs per atom, of every code at one size."""
    scale = 1e6 / float(arrays["atoms"])
    sizes = {key: value.item() for key, value in arrays.items() if value.ndim == 0}
    curves = {k: scale * v for k, v in arrays.items() if v.ndim}
    return sizes | {
        "median": {code: float(np.median(v)) for code, v in curves.items()},
        "min": {code: float(np.min(v)) for code, v in curves.items()},
    }


def plot(degrees: Sequence[dict[str, Any]], sizes: Sequence[dict[str, Any]]) -> Figure:
    """The whole figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.8))
    _curves(left, degrees, "functions")
    left.xaxis.set_minor_formatter("")  # its labels would run into each other
    label_axes(left, ("basis functions", None), ("rows E+F+V", "µs per atom"))
    _curves(right, sizes, "atoms")
    label_axes(right, ("atoms", None), ("cost", "µs per atom"))
    left.legend(fontsize=7)
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _curves(axes: Axes, points: Sequence[dict[str, Any]], size: str) -> None:
    """A line for every code of every path, its minimum shaded."""
    for curve in dict.fromkeys(name for p in points for name in p["median"]):
        path, _, code = curve.rpartition(", ")
        there = [p for p in points if curve in p["median"]]
        x, y, low = ([p[size] for p in there], *_values(there, curve))
        style = "k:" if code == "X^T X" else STYLES[path or "rows"]
        colour = {} if code == "X^T X" else {"color": COLOURS[code]}
        label = ", ".join(TITLES.get(part, part) for part in (path, code) if part)
        (drawn,) = axes.loglog(x, y, style, label=label, **colour)
        axes.fill_between(x, low, y, color=drawn.get_color(), alpha=0.2, lw=0)


def _values(points: Sequence[dict[str, Any]], curve: str) -> tuple[list[float], list[float]]:
    return [p["median"][curve] for p in points], [p["min"][curve] for p in points]
