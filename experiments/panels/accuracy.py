"""Panels of `fit_accuracy`: errors against what predicts them, fit by fit."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from experiments.harness.statistics import extremes
from experiments.harness.style import PALETTE, label_axes
from experiments.panels.errors import draw_flags
from experiments.systems.observations import FLAGS

ABSCISSAE = {
    "held_out_rmse": "force RMSE, held-out cells",
    "rmse": "force RMSE, reference's geometry",
    "eta": r"$\eta$, reference's geometry",
}
COLOURS = {1: PALETTE[3], 2: PALETTE[1], 3: PALETTE[0], 4: PALETTE[2]}  # by order
MARKERS = "os^Dv"  # by ridge
ESTIMATES = {  # of the energy error: colour, marker and label
    "e_E": (PALETTE[4], "v", "$e_E$"),
    "eta^2/2c": (PALETTE[5], "s", r"$\eta^2 / 2c$"),
    "sum": (PALETTE[0], "o", r"bound, $e_E + \eta^2 / 2c$"),
    "first order": (PALETTE[6], "x", "first order, signed"),
}


def draw_geometry(ax: Axes, summary: dict, abscissa: str) -> None:
    """Every fit's error against one measure of its accuracy, and the middle line of slope 1.

    Args:
        ax: the axes.
        summary: of `fit_accuracy`.
        abscissa: one of ABSCISSAE.
    """
    table = {name: np.array(values) for name, values in summary["fits"].items()}
    x, y = table[abscissa], table["geometry_error"]
    for order in summary["orders"]:
        for marker, ridge in zip(MARKERS, summary["ridges"], strict=False):
            of = (table["order"] == order) & (table["ridge"] == ridge)
            label = f"order {order}, ridge {ridge:g}"
            ax.loglog(x[of], y[of], marker, color=COLOURS[order], alpha=0.7, label=label)
    draw_flags(ax, x, y, table)
    found, sound = summary["geometry_error_against"][abscissa], table["sound"]
    if sound.any():
        ends = np.array(extremes(x[sound]))
        middle = np.exp(np.mean(np.log(y[sound] / x[sound])))
        ax.loglog(ends, middle * ends, "--", color="0.5", lw=0.9, label="slope 1")
    if found["spearman"] is not None:
        title = f"rank correlation {found['spearman']:.3f}, scatter {found['scatter']:.2f} decades"
        ax.set_title(title, fontsize=9)
    label_axes(ax, (ABSCISSAE[abscissa], "eV/Å"), ("geometry error", "Å"))


def draw_energy(ax: Axes, summary: dict) -> None:
    """The terms of the energy error against the true one, for relaxed defects; equal is exact."""
    sound = np.array(summary["fits"]["sound"])
    true = np.abs(np.array(summary["fits"]["energy_error"], float))[sound]
    for name, (colour, marker, label) in ESTIMATES.items():
        estimate = np.array(summary["energy_estimates"][name], float)[sound]
        ax.loglog(true, estimate, marker, color=colour, alpha=0.7, label=label)
    ends = np.array(extremes(true))
    ax.loglog(ends, ends, "--", color="0.5", lw=0.9, label="equal")
    label_axes(ax, ("energy error", "eV"), ("predicted", "eV"))
    ax.legend(fontsize=7)


def draw_bases(ax: Axes, summary: dict) -> None:
    """Geometry error, eta and RMSE of the least regularised fits against the size of the basis."""
    table = {name: np.array(values) for name, values in summary["fits"].items()}
    styles = {"geometry_error": "o-", "eta": "s--", "held_out_rmse": "v:"}
    labels = dict(zip(styles, ("geometry error (Å)", r"$\eta$ (eV/Å)", "RMSE (eV/Å)"), strict=True))
    for order in summary["orders"]:
        of = (table["order"] == order) & (table["ridge"] == min(summary["ridges"]))
        x = table["n_functions"][of]
        for name, style in styles.items():
            label = labels[name] if order == max(summary["orders"]) else None
            ax.loglog(x, table[name][of], style, color=COLOURS[order], label=label)
        rows = {flag: table[flag][of] for flag in FLAGS}
        draw_flags(ax, x, table["geometry_error"][of], rows)
    ax.set_xticks(x, labels=map(str, x))  # those of the highest order, which comes last
    ax.xaxis.set_minor_locator(NullLocator())
    label_axes(ax, ("basis functions", None), ("error, and mismatch of forces", "Å, eV/Å"))
    ax.set_title(f"ridge {min(summary['ridges']):g}", fontsize=9)
    ax.legend(fontsize=7)
