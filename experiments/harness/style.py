"""How figures look: colours for colour-blind readers, axes with units, reproducible files."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can distinguish."""


def figure_style() -> None:
    """Draw to files only, in a style fit for print: type-42 fonts, colour-blind safe colours."""
    matplotlib.use("Agg")
    plt.rcParams.update(
        {
            "figure.figsize": (5.0, 3.6),
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "font.size": 9,
            "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.markersize": 4,
        }
    )


def label_axes(ax: Axes, x: tuple[str, str | None], y: tuple[str, str | None]) -> None:
    """Label both axes with quantity and unit.

    Args:
        ax: the axes.
        x: (quantity, unit) of the horizontal axis; the unit None is for pure numbers and counts.
        y: the same of the vertical axis.
    """
    for axis, (quantity, unit) in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_label_text(quantity if unit is None else f"{quantity} ({unit})")


def reference_slope(ax: Axes, x: Any, y: Any, slope: float, label: str | None = None) -> None:
    """Draw the power law that the theory gives, through the last point of a curve.

        y ~ x^slope

    Args:
        ax: the axes.
        x: (n,) abscissae of the curve.
        y: (n,) ordinates of the curve.
        slope: the exponent.
        label: entry in the legend; None for none.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ax.plot(x, y[-1] * (x / x[-1]) ** slope, "--", color="0.5", lw=0.9, zorder=1, label=label)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PDF and PNG, byte for byte the same for the same figure, and close it.

    Args:
        figure: the figure.
        path: where, without suffix; folders are made if they are not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.get_layout_engine().execute(figure)  # once for both files
    with plt.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # not "none", with which each file would be drawn twice
        figure.savefig(f"{path}.pdf", metadata={"CreationDate": None})
        figure.savefig(f"{path}.png", metadata={"Software": None})
    plt.close(figure)
