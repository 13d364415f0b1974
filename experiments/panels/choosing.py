"""The panels of `choosing_rules` and its caption, from its summary."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes

LABELS = {
    "log_rigidity": "energies: log-mean rigidity",
    "variance": "energies: mean variance",
    "left_out": "… times leave-one-out errors",
    "pops": "energies: width by POPS",
    "loss": "all labels: mean variance",
    "site_log_rigidity": "sites: log-mean rigidity",
    "site_variance": "sites: mean variance",
    "site_rigidity": "sites: mean rigidity",
    "d_optimal": "D-optimal",
    "spread": "spread by composition",
    "compositions": "compositions of the first, at random",
}
SHOWN = ("log_rigidity", "variance", "loss", "site_rigidity", "spread", "compositions")
"""Whose curves are drawn."""
CURVES = {"energy_rms": "energy", "force_rms": "force"}


def plot(summary: dict, records: Sequence[Record]) -> Figure:
    """The whole figure: a row for each alloy."""
    systems = summary["systems"]
    figure, axes = plt.subplots(
        len(systems), 3, figsize=(13.5, 3.5 * len(systems) + 1.2), squeeze=False
    )
    for row, (name, found) in zip(axes, systems.items(), strict=True):
        for ax, (quantity, label) in zip(row, CURVES.items(), strict=False):
            draw_curves(ax, summary, found, quantity)
            label_axes(ax, ("cells added", None), (f"{label} error over random's", None))
        draw_rules(row[2], found)
        row[0].set_title(f"{name}: {found['functions']} functions, {found['tests']} test cells")
    axes[0, 1].legend(fontsize=7, loc="lower left")
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def draw_curves(ax: Axes, summary: dict, found: dict, quantity: str) -> None:
    """Errors over those of random choice against the number of cells added."""
    ax.axhline(1.0, color="k", ls="--", lw=1.0, label="random")
    for colour, rule in zip(PALETTE, SHOWN, strict=False):
        style = ":" if rule in ("spread", "compositions") else "-"
        ratios = found["rules"][rule][quantity]["over_random"]
        ax.plot(summary["added"], ratios, f"o{style}", color=colour, label=LABELS[rule])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(summary["added"], [str(k) for k in summary["added"]])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ticks = [t for t in (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])


def draw_rules(ax: Axes, found: dict) -> None:
    """Each rule's errors over random's, mean over draws and numbers of cells, with 95 % bars."""
    for k, rule in enumerate(LABELS):
        for shift, colour, (quantity, label) in zip(
            (-0.15, 0.15), PALETTE, CURVES.items(), strict=False
        ):
            mean, low, high = found["rules"][rule][quantity]["all"]
            ax.plot([low, high], [k + shift] * 2, "-", color=colour)
            ax.plot([mean], [k + shift], "o", color=colour, label=None if k else label)
    ax.axvline(1.0, color="k", ls="--", lw=1.0)
    ax.set_yticks(range(len(LABELS)), list(LABELS.values()), fontsize=7)
    ax.invert_yaxis()
    label_axes(ax, ("error over random's", None), ("", None))
    ax.legend(fontsize=7)


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    return (
        f"Errors (r.m.s.) after {summary['start']} cells at 1:1 and up to "
        f"{summary['added'][-1]} of {summary['pool']} of all compositions, over those that random "
        f"choice leaves; geometric means of {summary['draws']} draws of start and pool. Right: "
        "mean over draws and numbers of cells, bars: where it lies with 95 % confidence. Targets "
        "are cells of the pool, without labels.\n"
        + "\n".join(sentence(name, found) for name, found in summary["systems"].items())
    )


def sentence(name: str, found: dict) -> str:
    """What came out for one alloy."""
    random, whole = np.array(found["random"])[-1], found["whole_pool"]
    listed = "; ".join(
        f"{LABELS[rule]} {found['rules'][rule]['energy_rms']['all'][0]:.2f}, "
        f"{found['rules'][rule]['force_rms']['all'][0]:.2f}"
        for rule in SHOWN
    )
    share = found["share_of_composition"]
    return (
        f"{name}: energy and force error over random's: {listed}. Compositions alone make "
        f"{share['energy_rms']:.0%} and {share['force_rms']:.0%} of what the first gains (in the "
        f"logarithm). In the end random leaves {1e3 * random[0]:.2g} meV/atom, {random[1]:.2g} "
        f"eV/Å, the whole pool {1e3 * whole[0]:.2g} and {whole[1]:.2g}."
    )
