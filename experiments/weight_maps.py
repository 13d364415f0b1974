"""Maps of errors over planes of loss weights: for the figure of `loss_weights`."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.common import label_axes

UNITS = {"E": "Å", "bulk": "Å", "V": "Å", "FC": "1/Å"}
"""Of a weight over that of the forces: what multiplies it is in eV, eV or eV/Å^2."""
ERRORS = (
    ("geometry_error", "geometry error, true", "Å"),
    ("geometry_predicted", "geometry error, predicted", "Å"),
    ("energy_error", "|energy error|, true", "eV"),
    ("energy_predicted", "|energy error|, predicted", "eV"),
)
MISMATCHES = (
    ("eta", r"$\eta$", "eV/Å"),
    ("forces", "force RMSE", "eV/Å"),
    ("elastic", "acoustic tensor", "GPa"),
    ("force_constants", "force constants", "eV/Å$^2$"),
)
MARKED = {  # name: marker and colour; colours tell apart on viridis
    "best": ("*", "#E69F00"),
    "recommended": ("D", "#D55E00"),
    "configured": ("s", "white"),
}
LEAST = 1e-4  # a map shows sizes from this share of its largest on


def plot(
    summary: Mapping,
    axes: Sequence[Sequence[np.ndarray]],
    planes: Sequence[Mapping[str, np.ndarray]],
    lost: Sequence[np.ndarray],
) -> Figure:
    """Errors in large, mismatches in small.

    axes: W_x and W_y over W_F, for each plane; planes: arrays (W_y, W_x); lost: fits that failed.
    """
    figure = plt.figure(figsize=(14.5, 14.5))
    grid = figure.add_gridspec(4, 4, height_ratios=(3, 2, 3, 2))
    for k, (told, arrays, bad) in enumerate(zip(summary["planes"], planes, lost, strict=True)):
        for row, wanted in enumerate((ERRORS, MISMATCHES)):
            for column, (name, title, unit) in enumerate(wanted):
                ax = figure.add_subplot(grid[2 * k + row, column])
                pair = arrays[_pair(name)] if row == 0 else arrays[name]
                draw_map(ax, axes[k], arrays[name], bad, title, unit, scale_of=(pair, bad))
                draw_marks(ax, summary, told, name.split("_")[0] if row == 0 else "geometry")
                label_axes(ax, *((f"$W_{{{told[c]}}}/W_F$", UNITS[told[c]]) for c in "xy"))
    figure.axes[0].legend(fontsize=7, loc="lower left", facecolor="0.7", frameon=True)
    text = "\n".join(textwrap.fill(line, 205) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def _pair(name: str) -> str:
    """A prediction is drawn on the scale of what it predicts."""
    return name.replace("predicted", "error")


def draw_map(ax: Axes, axes, values, lost, title, unit, scale_of) -> None:
    """Sizes in colour and contours, a change of sign as a dotted line, failures as red crosses."""
    x, y = axes
    edges = [_edges(axis) for axis in axes]
    shown = np.ma.masked_where(lost | ~np.isfinite(values), np.abs(values))
    scale = np.ma.masked_where(scale_of[1], np.abs(scale_of[0]))
    high = scale.max()
    low = max(scale.min(), LEAST * high)
    norm = LogNorm(low, max(high, 1.001 * low))
    mesh = ax.pcolormesh(*edges, shown, norm=norm, cmap="viridis", rasterized=True)
    levels = [level for level in 10.0 ** np.arange(-8, 5, 0.5) if low < level < high]
    if levels and not shown.mask.all():
        ax.contour(x, y, shown, levels=levels, colors="white", linewidths=0.5, alpha=0.7)
    if np.any(values > 0) and np.any(values < 0):
        ax.contour(x, y, values, levels=[0.0], colors="black", linewidths=1.0, linestyles=":")
    if lost.any():
        rows, columns = np.nonzero(lost)
        ax.plot(x[columns], y[rows], "x", color="red", ms=4, mew=1.0, label="failed")
    ax.set(xscale="log", yscale="log", xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    ax.set_title(title, fontsize=9)
    ax.grid(False)
    ax.figure.colorbar(mesh, ax=ax, label=unit, pad=0.02)


def _edges(axis: np.ndarray) -> np.ndarray:
    """Of the cells around the points of a logarithmic axis."""
    half = 0.5 * np.log10(axis[1] / axis[0])
    return np.append(axis * 10**-half, axis[-1] * 10**half)


def draw_marks(ax: Axes, summary: Mapping, told: Mapping, quantity: str) -> None:
    """The best point of the plane for geometry, the recommended and the configured one."""
    names = list(summary["factors"])
    spots = {
        "configured": [
            summary["marks"]["configured"]["ratios"][names.index(told[c])] for c in "xy"
        ],
        "recommended": told["recommended_at"],
    }
    if quantity == "geometry":
        spots["best"] = told["geometry"]["best_at"]
    for name, (marker, colour) in MARKED.items():
        if name in spots:
            style = dict(ls="", mec="black", ms=12 if marker == "*" else 7, zorder=5)
            ax.plot(*spots[name], marker=marker, color=colour, label=name, **style)


def caption(summary: Mapping) -> str:
    """What was expected, what came out, and the measured mismatches that explain it."""
    far, energy = summary["planes"]
    marks = summary["marks"]
    was, became = marks["configured"], marks["recommended E, V, FC"]
    failures = sum(sum(p["failures"].values()) for p in summary["planes"])
    told = [p[q]["predicted_over_true"] for p in summary["planes"] for q in ("geometry", "energy")]
    gain = [abs(m["energy_error"]) for m in (was, became)]
    return (
        f"{summary['defect']} in {summary['material']}: training cells of "
        f"{summary['training_cells']} cubes per side (L = {float(summary['L']):.1f} Å), relaxed in "
        f"{summary['target_cells']}; {int(summary['n_functions'])} functions; "
        f"{far['fits'] + energy['fits']} fits and relaxations. "
        "Left to right: true errors beside what first-order theory predicts, on one scale; below, "
        "what the fits get wrong. Dotted: the energy error changes sign. "
        + (f"Red crosses: {failures} failures, not to be read." if failures else "No fit failed.")
        + "\nExpected: V and FC weights that balance the terms do best (diamond; derived after "
        "Ortner–Wang), and first order predicts the true error. "
        f"Came out: predicted / true, 5th to 95th percentile, geometry {_span(told[0])} and "
        f"{_span(told[2])}, energy {_span(told[1])} and {_span(told[3])}. "
        f"Over the plane of V and FC the geometry error goes from {far['geometry']['best']:.2g} to "
        f"{far['geometry']['worst']:.2g} Å; the recommended weights are "
        f"{far['geometry']['recommended_over_best']:.2f} of the best, the configured ones "
        f"{far['geometry']['configured_over_best']:.2f}, and the ones best by prediction "
        f"{far['geometry']['best_by_prediction_over_best']:.2f}.\n"
        f"Recommended E ({energy['recommended_at'][0]:.2g} Å): geometry "
        f"{energy['geometry']['recommended_over_best']:.2f} of the best of its plane. "
        f"All three recommended against configured: geometry {became['geometry_error']:.2g} for "
        f"{was['geometry_error']:.2g} Å, energy {gain[1]:.2g} for {gain[0]:.2g} eV, "
        f"eta {became['eta']:.2g} for {was['eta']:.2g} eV/Å, force RMSE {became['forces']:.2g} for "
        f"{was['forces']:.2g} eV/Å, acoustic tensor {became['elastic']:.2g} for "
        f"{was['elastic']:.2g} GPa, force constants {became['force_constants']:.2g} for "
        f"{was['force_constants']:.2g} eV/Å$^2$. The energy error passes zero: its best point "
        "means nothing and is not marked."
    )


def _span(percentiles) -> str:
    _, low, _, high, _ = percentiles
    return f"{low:.2f}–{high:.2f}"
