"""Panels and table of `observation_value`: one curve, or row, per strategy."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from experiments.harness.style import PALETTE, label_axes
from experiments.panels.errors import draw_flags
from experiments.systems.observations import FLAGS


def table(summary: dict) -> str:
    """Markdown: geometry error (Å) / energy error (meV) by strategy and budget."""
    budgets = summary["budgets"]
    lines = [
        "| fitted to \\ budget | " + " | ".join(map(str, budgets)) + " |",
        "|---" * (1 + len(budgets)) + "|",
    ]
    for name, curve in summary["curves"].items():
        cells = []
        for budget in budgets:
            if budget not in curve["budget"]:
                cells.append("not affordable")
                continue
            k = curve["budget"].index(budget)
            numbers = f"{curve['geometry_error'][k]:.1e} / {1e3 * curve['energy_error'][k]:.2g}"
            raised = [flag.replace("_", " ") for flag in FLAGS if curve[flag][k]]
            cells.append(", ".join([numbers, *raised]))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    unit = f"one call of the smallest cell, {summary['smallest_atoms']} atom-calls"
    return "\n".join([*lines, "", f"Geometry error in Å / energy error in meV. Budget: {unit}."])


def draw(ax: Axes, summary: dict, quantity: str, label: str, unit: str) -> None:
    """One quantity against what the labels cost, one curve per strategy."""
    for name, curve in summary["curves"].items():
        x, y = np.array(curve["atom_calls"]), np.array(curve[quantity])
        (line,) = ax.loglog(x, y, label=name, **style(summary, name))
        if f"{quantity}_least" in curve:
            ends = curve[f"{quantity}_least"], curve[f"{quantity}_largest"]
            ax.fill_between(x, *ends, color=line.get_color(), alpha=0.12, lw=0)
        draw_flags(ax, x, y, curve)
    ax.xaxis.set_minor_formatter(NullFormatter())
    label_axes(ax, ("atom-calls of the reference", None), (label, unit))


def style(summary: dict, name: str) -> dict[str, str]:
    """Colour by size of cell, marker and line by what else is fitted."""
    size, _, extra = name.partition("+")  # a half and half is no size: black
    sizes = [f"m={m}" for m in summary["sizes"]]
    colour = PALETTE[sizes.index(size)] if size in sizes else PALETTE[6]
    marker, line = LINES[extra]
    return {"color": colour, "marker": marker, "ls": line}


LINES = {
    "": ("o", "-"),
    "V": ("v", "--"),
    "FC": ("^", "-."),
    "V+FC": ("D", ":"),
    "V+FC light": ("s", (0, (5, 1, 1, 1, 1, 1))),
}
