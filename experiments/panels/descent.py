"""Descents on loss weights and what they did to the errors: the figure of `optimal_weights`."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes

COLOURS = {"configured": PALETTE[0], "equal": PALETTE[1]}
QUANTITIES = (("geometry", "Å"), ("energy", "eV"))


def plot(summary: Mapping, records: Sequence[Record]) -> Figure:
    """Per training size: errors along the descents, weights along them; then before and after."""
    sizes = sorted({record.point.size for record in records})
    figure = plt.figure(figsize=(15.0, 3.3 * (len(sizes) + 1) + 1.6))
    grid = figure.add_gridspec(len(sizes) + 1, 12)
    for row, size in enumerate(sizes):
        chosen = [record for record in records if record.point.size == size]
        for column, (quantity, unit) in enumerate(QUANTITIES):
            ax = figure.add_subplot(grid[row, 4 * column : 4 * column + 4])
            draw_descents(ax, chosen, quantity, unit)
        draw_weights(figure.add_subplot(grid[row, 8:]), chosen)
    for column, (quantity, unit) in enumerate(QUANTITIES):
        draw_ends(
            figure.add_subplot(grid[-1, 6 * column : 6 * column + 6]), summary, quantity, unit
        )
    text = "\n".join(textwrap.fill(line, 215) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def draw_descents(ax: Axes, records: Sequence[Record], quantity: str, unit: str) -> None:
    """Predicted errors as lines; true ones, in the large cell, as points; failures in red."""
    for record in records:
        a, colour = record.arrays, COLOURS[record.point.start]
        y = np.abs(a[f"{quantity}_predicted"])
        ax.semilogy(y, "-", color=colour, label=f"predicted, from {record.point.start}")
        ax.axvline(int(a["last"]), color=colour, ls=":", lw=0.9)
        looks, true = a["looks"], np.abs(a[f"{quantity}_error_along"])
        ax.semilogy(looks, true, "o", color=colour, mfc="none", label="true, large cell")
        lost = a["failed_along"]
        ax.semilogy(looks[lost], true[lost], "x", color="red", ms=9)
    ax.set_title(
        f"{quantity} error, trained on L = {float(records[0].arrays['L']):.1f} Å", fontsize=9
    )
    ax.legend(fontsize=6.5)
    label_axes(ax, ("step", None), (f"{quantity} error", unit))


def draw_weights(ax: Axes, records: Sequence[Record]) -> None:
    """Solid from the configured weights, dashed from equal ones."""
    for record in records:
        style = "-" if record.point.start == "configured" else "--"
        for k, name in enumerate(record.arrays["names"]):
            named = str(name) if style == "-" else None
            weight = np.exp(record.arrays["logs"][:, k])
            ax.semilogy(weight, style, color=PALETTE[k], label=named)
    ax.set_title("weights (forces: 1 Å/eV); dashed: from equal", fontsize=9)
    ax.legend(fontsize=6.5, ncols=5)
    label_axes(ax, ("step", None), ("weight; ridge", "1/unit of the row"))


def draw_ends(ax: Axes, summary: Mapping, quantity: str, unit: str) -> None:
    """True errors before (pale) and after (full), by defect, training size and start."""
    names, spots = [], []
    defects = list(summary["descents"][0]["true"])
    for place, defect in enumerate(defects):
        for k, descent in enumerate(summary["descents"]):
            x = place * (len(summary["descents"]) + 1) + k
            true = descent["true"][defect]
            heights = np.abs(np.asarray(true[f"{quantity}_error"], float))
            for shift, height, lost, pale in zip(
                (-0.2, 0.2), heights, true["failed"], (0.35, 1.0), strict=True
            ):
                ax.bar(x + shift, height, 0.38, color=COLOURS[descent["start"]], alpha=pale)
                if lost:
                    ax.plot(x + shift, height, "x", color="red", ms=8, mew=1.5)
            spots.append(x)
            seen = "" if defect == summary["defect"] else " (unseen)"
            names.append(f"m = {descent['size']}" + (f"\n{defect}{seen}" if k == 1 else ""))
    ax.set_yscale("log")
    ax.set_xticks(spots, labels=names, fontsize=7)
    ax.set_title(
        f"true {quantity} error before (pale) and after; blue from configured, "
        "orange from equal weights",
        fontsize=9,
    )
    label_axes(ax, ("", None), (f"{quantity} error", unit))


def caption(summary: Mapping) -> str:
    """What was expected, what came out, and the measured mismatches beside it."""
    lines = []
    for d in summary["descents"]:
        seen = d["true"][summary["defect"]]
        others = "; ".join(
            f"{name} (unseen) {_arrow(t['geometry_error'])} Å, {_arrow(t['energy_error'])} eV"
            + (" FAILED" if np.any(t["failed"]) else "")
            for name, t in d["true"].items()
            if name != summary["defect"]
        )
        lines.append(
            f"L = {float(d['L']):.1f} Å from {d['start']}: predicted "
            f"{_arrow(d['geometry_predicted'])} Å and {_arrow(d['energy_predicted'])} eV, true "
            f"{_arrow(seen['geometry_error'])} Å and {_arrow(seen['energy_error'])} eV; {others}. "
            f"Weight of the bulk energy {_arrow(d['weights']['bulk'])} atom/eV, "
            f"ridge {_arrow(d['weights']['ridge'])}. "
            f"Force RMSE {_arrow(d['e_forces'])} eV/Å, virials {_arrow(d['e_virial'])} eV, "
            f"acoustic tensor {_arrow(d['e_elastic'])} GPa, force constants "
            f"{_arrow(d['e_force_constants'])} eV/Å$^2$."
        )
    return (
        f"{summary['defect']} in {summary['material']}, {int(summary['n_functions'])} functions: "
        "loss weights moved by Adam downhill in the predicted errors, in a cell one cube wider "
        f"than the training cells; true errors afterwards in {summary['target_cells']} cubes per "
        "side. Dotted: the step of least predicted error, which is 'after'. Expected: the true "
        "errors of the defect follow the predicted ones; nothing is promised for defects that the "
        "descent and the training cells have not seen.\nCame out, before -> after: "
        + "\n".join(lines)
        + _stuck(summary)
    )


def _stuck(summary) -> str:
    """A residual that is as good as a constraint has no gradient in its weight."""
    moved = [np.divide(*d["weights"]["bulk"]) for d in summary["descents"]]
    count = sum(0.9 < ratio < 1.1 for ratio in moved)
    if not count:
        return ""
    return (
        f"\n{count} of the descents left the weight of the bulk energy where it was: so large that "
        "its residual is as good as a constraint, it has no gradient."
    )


def _arrow(pair) -> str:
    before, after = np.abs(np.asarray(pair, float))
    return f"{before:.2g} -> {after:.2g}"
