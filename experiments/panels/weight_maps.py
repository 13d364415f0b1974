"""Maps of errors over planes of loss weights: for the figure of `loss_weights`."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.harness.style import label_axes

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
MARKED = {  # name: marker and colour, which stands out from viridis
    "best": ("*", "#E69F00"),
    "recommended": ("D", "#D55E00"),
    "configured": ("s", "white"),
}
MANY = 100  # a map of more points is an image in the PDF
LEAST = 1e-4  # a map shows sizes from this share of its largest on


def plot(
    summary: Mapping,
    axes: Sequence[Sequence[np.ndarray]],
    planes: Sequence[Mapping[str, np.ndarray]],
    lost: Sequence[np.ndarray],
) -> Figure:
    """Errors in large, mismatches in small.

    Args:
        summary: of `loss_weights`.
        axes: W_x and W_y over W_F, for each plane.
        planes: arrays (W_y, W_x) by name, for each plane.
        lost: (W_y, W_x) bool, fits that failed, for each plane.
    """
    figure = plt.figure(figsize=(14.5, 6.2 * len(planes) + 2.4))
    grid = figure.add_gridspec(2 * len(planes), 4, height_ratios=(3, 2) * len(planes))
    for k, (plane, arrays, bad) in enumerate(zip(summary["planes"], planes, lost, strict=True)):
        for row, wanted in enumerate((ERRORS, MISMATCHES)):
            for column, (name, title, unit) in enumerate(wanted):
                ax = figure.add_subplot(grid[2 * k + row, column])
                pair = arrays[_pair(name)] if row == 0 else arrays[name]
                title += ", no bulk energy" if plane["left_out"] else ""
                draw_map(ax, axes[k], arrays[name], bad, title, unit, scale_of=(pair, bad))
                draw_marks(ax, summary, plane, best=not name.startswith("energy"))
                label_axes(ax, *((f"$W_{{{plane[c]}}}/W_F$", UNITS[plane[c]]) for c in "xy"))
    figure.axes[0].legend(fontsize=7, loc="lower left", facecolor="0.7", frameon=True)
    text = "\n".join(textwrap.fill(line, 205) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def _pair(name: str) -> str:
    """A prediction is drawn on the scale of what it predicts."""
    return name.replace("predicted", "error")


def draw_map(
    ax: Axes,
    axes: Sequence[np.ndarray],
    values: np.ndarray,
    lost: np.ndarray,
    title: str,
    unit: str,
    scale_of: tuple[np.ndarray, np.ndarray],
) -> None:
    """Sizes in colour and contours, a change of sign as a dotted line, failures as red crosses.

    Args:
        ax: the axes.
        axes: W_x (n,) and W_y (m,) over W_F.
        values: (m, n).
        lost: (m, n) bool, fits that failed.
        title: of the map.
        unit: of the values.
        scale_of: values and failures that set the scale of colours.
    """
    x, y = axes
    edges = [_edges(axis) for axis in axes]
    shown = np.ma.masked_where(lost | ~np.isfinite(values), np.abs(values))
    scale = np.ma.masked_where(scale_of[1], np.abs(scale_of[0]))
    high = scale.max()
    low = max(scale.min(), LEAST * high)
    norm = LogNorm(low, max(high, 1.001 * low))
    many = shown.size > MANY
    mesh = ax.pcolormesh(*edges, shown, norm=norm, cmap="viridis", rasterized=many)
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
    quantity = title.partition(",")[0]
    bar = ax.figure.colorbar(mesh, ax=ax, label=f"{quantity} ({unit})", pad=0.02)
    bar.solids.set_rasterized(many)  # an image takes a canvas of its own, of the figure's size
    ax.minorticks_off()


def _edges(axis: np.ndarray) -> np.ndarray:
    """Of the cells around the points of a logarithmic axis."""
    half = 0.5 * np.log10(axis[1] / axis[0])
    return np.append(axis * 10**-half, axis[-1] * 10**half)


def draw_marks(ax: Axes, summary: Mapping, plane: Mapping, best: bool) -> None:
    """The best point of the plane for geometry, the recommended and the configured one.

    A weight of zero is drawn at the edge.

    Args:
        ax: the axes of a map.
        summary: of `loss_weights`.
        plane: its entry of the plane.
        best: whether to mark the best point.
    """
    at = {
        name: [summary["marks"][plane[of]]["ratios"][list(summary["factors"]).index(plane[c])]
               for c in "xy"]
        for name, of in (("recommended", "recommended"), ("configured", "base"))
    }  # fmt: skip
    if best:
        at["best"] = plane["geometry"]["best_at"]
    for name, (x, y) in at.items():
        marker, colour = MARKED[name]
        style = dict(ls="", mec="black", ms=12 if marker == "*" else 7, zorder=5, clip_on=False)
        spot = max(x, ax.get_xlim()[0]), max(y, ax.get_ylim()[0])
        ax.plot(*spot, marker=marker, color=colour, label=name, **style)


def caption(summary: Mapping) -> str:
    """What was expected, what came out, and the measured mismatches that explain it."""
    planes, marks = summary["planes"], summary["marks"]
    failures = sum(sum(plane["failures"].values()) for plane in planes)
    spans = {
        quantity: ", ".join(_span(plane[quantity]["predicted_over_true"]) for plane in planes)
        for quantity in ("geometry", "energy")
    }
    lines = [
        f"{summary['defect']} in {summary['material']}: training cells of "
        f"{summary['training_cells']} cubes per side (L = {float(summary['L']):.1f} Å), relaxed in "
        f"{summary['target_cells']}; {int(summary['n_functions'])} functions; "
        f"{sum(plane['fits'] for plane in planes)} fits and relaxations. Left to right: true "
        "errors beside those predicted by first-order theory, on one scale; below, what the fits "
        "get wrong. Dotted: the energy error changes sign. "
        + (f"Red crosses: {failures} failures, not to be read." if failures else "No fit failed."),
        "Expected (derived after Ortner–Wang): first order predicts the true errors, and weights "
        "that balance its terms, with none on the energy of the bulk, are near the best. Came out: "
        f"predicted / true, 5th to 95th percentile by plane, geometry {spans['geometry']}, energy "
        f"{spans['energy']}.",
        *(_sentence(plane) for plane in planes),
        "The formula for FC expands in waves of length L: (mu^1/4 / L)^2 = "
        f"{float(summary['theory_reach']) ** 0.5 / float(summary['L']) ** 2:.2f} is not small. "
        "Measured, from the configured weights to without bulk energy to all as recommended: "
        + "; ".join(
            f"{name} {', '.join(f'{abs(marks[m][key]):.2g}' for m in PATH)} {unit}"
            for key, name, unit in MEASURED
        )
        + ". The energy error passes zero: its best point says little and is not marked.",
    ]
    return "\n".join(lines)


PATH = ("configured", "bulk", "all")
MEASURED = (
    ("geometry_error", "geometry", "Å"),
    ("energy_error", "energy", "eV"),
    ("eta", r"$\eta$", "eV/Å"),
    ("forces", "force RMSE", "eV/Å"),
    ("elastic", "acoustic tensor", "GPa"),
    ("force_constants", "force constants", "eV/Å$^2$"),
)


def _sentence(plane: Mapping) -> str:
    """What came out in one plane."""
    g, without = plane["geometry"], ", no bulk energy" if plane["left_out"] else ""
    x, y = g["best_at"]
    return (
        f"({plane['x']}, {plane['y']}{without}): geometry error from {g['best']:.2g} (at {x:.2g}, "
        f"{y:.2g}) to {g['worst']:.2g} Å; over the best, recommended "
        f"{g['recommended_over_best']:.2f}, configured {g['configured_over_best']:.2f}, chosen by "
        f"prediction {g['best_by_prediction_over_best']:.2f}; "
        f"{g['share_better_than_recommended']:.0%} of the plane is better than the recommended "
        f"weights (energy: {plane['energy']['share_better_than_recommended']:.0%})."
    )


def _span(percentiles) -> str:
    """The 5th and the 95th percentile, as text."""
    _, low, _, high, _ = percentiles
    return f"{low:.2f}–{high:.2f}"
