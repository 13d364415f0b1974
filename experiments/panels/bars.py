"""The panels of `trustworthy_bars` and its caption, from its summary."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes
from experiments.panels.defect_bars import draw_audit, draw_ratios, sentences

KINDS = {"energy": ("E", "eV/atom"), "forces": ("F", "eV/Å")}
HEIGHTS = {"data_sets": (3.6, 3.6, 4.3), "defects": (4.3,)}  # inches, of the rows of each part
SHORT = {
    "random cells": "random",
    "test set": "test set",
    "no vacancies": "no\nvacancies",
    "no surfaces": "no\nsurfaces",
    "ordered cells": "ordered",
    "pure elements": "pure",
    "one composition": "8:8\nonly",
    "two compositions": "6:10 and\n10:6 only",
}


def plot(summary: dict, records: Sequence[Record]) -> Figure:
    """The whole figure: (a) two tables and a row of panels, (b) a row."""
    parts = [part for part in HEIGHTS if summary[part]]
    heights = [height for part in parts for height in HEIGHTS[part]]
    figure = plt.figure(figsize=(15, 1.0 + sum(heights)))
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    if summary["data_sets"]:
        draw_data_sets(figure, grid, summary, [r for r in records if "group" in r.arrays])
    if summary["defects"]:
        of_defects = [r for r in records if "failed" in r.arrays]
        row = grid[len(heights) - 1].subgridspec(1, 4)
        for k, quantity in enumerate(("geometry", "energy")):
            draw_ratios(figure.add_subplot(row[k]), summary["defects"], of_defects, quantity)
            draw_audit(figure.add_subplot(row[2 + k]), of_defects, quantity)
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def draw_data_sets(
    figure: Figure, grid: GridSpec, summary: dict, records: Sequence[Record]
) -> None:
    """(a): the first three rows of the grid."""
    columns = [
        (name, question, kind)
        for name, by_question in summary["data_sets"].items()
        for question in by_question
        for kind in KINDS
    ]
    for row, (key, title) in enumerate(
        (("covered", "covered by 90 % intervals, %"), ("or_outside", "covered, or outside, %"))
    ):
        draw_table(figure.add_subplot(grid[row]), summary, columns, key, title)
    lower = grid[2].subgridspec(1, 4)
    draw_best(figure.add_subplot(lower[0]), summary)
    draw_levels(figure.add_subplot(lower[1]), summary)
    for k, kind in enumerate(KINDS):
        draw_widths(figure.add_subplot(lower[2 + k]), summary, records, kind)


def share_of(bar: dict[str, Any], key: str) -> float:
    """Covered, or covered or outside, at 90 %."""
    return bar["covered"][2] if key == "covered" else bar["covered_or_outside"]


def draw_table(
    ax: Axes, summary: dict, columns: Sequence[tuple[str, str, str]], key: str, title: str
) -> None:
    """A row for each bar and a column for each question and kind: coverage in per cent."""
    sets, names = summary["data_sets"], summary["bars"]
    found = [[sets[n][q]["kinds"][k]["bars"][bar] for n, q, k in columns] for bar in names]
    shares = 100 * np.array([[share_of(bar, key) for bar in row] for row in found])
    ax.imshow(shares, cmap="RdYlBu", vmin=40, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(shares):
        colour = "w" if value < 55 or value > 92 else "k"
        ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_yticks(range(len(names)), list(names.values()), fontsize=8)
    labels = [
        f"{KINDS[k][0]}\n{sets[n][q]['kinds'][k]['cells']}\n" + (SHORT[q] if k == "energy" else "")
        for n, q, k in columns
    ]
    ax.set_xticks(range(len(columns)), labels, fontsize=7)
    ends = [j for j in range(1, len(columns)) if columns[j][0] != columns[j - 1][0]]
    for j in ends:
        ax.axvline(j - 0.5, color="k", lw=1.5)
    for first, last in zip([0, *ends], [*ends, len(columns)], strict=True):
        middle = 0.5 * (first + last - 1)
        ax.text(middle, -0.6, columns[first][0], ha="center", va="bottom", fontsize=9)
    ax.set_title(title, fontsize=9, loc="left", pad=18)
    ax.set_xlabel("asked (kind, cells, question)", fontsize=8)
    ax.set_ylabel("bar (of the training cells)", fontsize=8)
    ax.grid(False)


def draw_best(ax: Axes, summary: dict) -> None:
    """The recommended bar at 90 %: coverage with its 95 % confidence by cells."""
    best, labels, place = summary["best"], [], 0
    low, high = summary["wanted"]["in distribution"]
    ax.axvspan(100 * low, 100 * high, color="0.9")
    for name, by_question in summary["data_sets"].items():
        for question, found in by_question.items():
            for k, kind in enumerate(KINDS):
                bar = found["kinds"][kind]["bars"][best]
                share, (lower, upper) = bar["covered"][2], bar["interval"]
                at, colour = place + 0.3 * k, PALETTE[k]
                ax.plot([100 * lower, 100 * upper], [at, at], "-", color=colour, lw=1)
                ax.plot(100 * share, at, "o", color=colour)
                ax.plot(
                    100 * bar["covered_or_outside"], at, "o", color=colour, mfc="none", ms=7, lw=0
                )
            labels.append((place + 0.15, f"{name}, {question}"))
            place += 1
    ax.set_yticks(*zip(*labels, strict=True), fontsize=7)
    ax.invert_yaxis()
    for k, kind in enumerate(KINDS):
        ax.plot([], [], "o-", color=PALETTE[k], label=kind)
    ax.plot([], [], "o", color="0.3", mfc="none", ms=7, label="or outside")
    ax.legend(fontsize=7, loc="lower left")
    ax.set_title(f"{summary['bars'][best]}, 90 %", fontsize=9)
    ax.set_xlabel("covered (%)")


def draw_levels(ax: Axes, summary: dict) -> None:
    """Observed against nominal coverage, random cells: the recommended bar and s / PR^1/2."""
    levels = 100 * np.array(summary["levels"])
    ax.plot([40, 100], [40, 100], "--", color="0.5", lw=0.9)
    for colour, (name, by_question) in zip(PALETTE, summary["data_sets"].items(), strict=False):
        for kind, style in (("energy", "o-"), ("forces", "s--")):
            bars = by_question["random cells"]["kinds"][kind]["bars"]
            label = f"{name}, {kind}"
            shares = 100 * np.array(bars[summary["best"]]["covered"])
            ax.plot(levels, shares, style, color=colour, label=label, lw=1)
            shares = 100 * np.array(bars["rigidity"]["covered"])
            ax.plot(levels, shares, style, color=colour, lw=0.8, alpha=0.35)
    ax.legend(fontsize=7)
    ax.set_title("random cells: error_bars, pale: s / PR^1/2", fontsize=9)
    label_axes(ax, ("nominal", "%"), ("covered", "%"))


def draw_widths(ax: Axes, summary: dict, records: Sequence[Record], kind: str) -> None:
    """Half widths of the recommended 90 % intervals against true errors, cell by cell."""
    best, names = list(summary["bars"]).index(summary["best"]), list(summary["data_sets"])
    sizes = []
    for record in records:
        if f"{kind}_width" not in record.arrays:
            continue
        width, error = record.arrays[f"{kind}_width"][best], record.arrays[f"{kind}_error"]
        good = (error > 0.0) & np.isfinite(width) & (width > 0.0)
        near = summary["data_sets"][record.point.data_set][record.point.question]
        style = (
            dict(marker="o", mfc="none", ms=2.5)
            if near["in_distribution"]
            else dict(marker="x", ms=3)
        )
        colour = PALETTE[names.index(record.point.data_set)]
        ax.plot(error[good], width[good], lw=0, alpha=0.5, color=colour, mew=0.6, **style)
        sizes.append(error[good])
    sizes = np.concatenate(sizes)
    ends = np.quantile(sizes, [0.001, 1.0])
    ax.plot(ends, ends, "k-", lw=0.8)
    for name, colour in zip(names, PALETTE, strict=False):
        ax.plot([], [], "o", color=colour, label=name)
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(left=ends[0])
    ax.legend(fontsize=7)
    unit = KINDS[kind][1]
    ax.set_title(f"{kind}; o: in distribution, x: elsewhere", fontsize=9)
    label_axes(ax, ("true error of a cell", unit), ("half width, 90 %", unit))


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    lines = [of_data_sets(summary)] if summary["data_sets"] else []
    return "\n".join(lines + ([sentences(summary["defects"])] if summary["defects"] else []))


def of_data_sets(summary: dict) -> str:
    """(a)."""
    synthetic = summary["data"] == "synthetic"
    lead = "SYNTHETIC DATA: Stillinger-Weber silicon stands in for DFT. " if synthetic else ""
    return (
        f"{lead}90 % intervals of every kind on cells that were not fitted, made of the training "
        "cells alone; shares are means over cells, lines their 95 % confidence by cells. "
        '"Outside": less rigid than 95 % of the training rows were before their cells were there.\n'
        + "\n".join(sentence(summary, name) for name in summary["data_sets"])
    )


def sentence(summary: dict, name: str) -> str:
    """What came out for one data set."""
    parts = []
    for question, found in summary["data_sets"][name].items():
        words = []
        for kind, (letter, _) in KINDS.items():
            of = found["kinds"][kind]
            bar, plain = of["bars"][summary["best"]], of["bars"]["rigidity"]
            words.append(
                f"{letter} {bar['covered'][2]:.0%} ({bar['covered_or_outside']:.0%} with the "
                f"flag, s/PR^1/2 {plain['covered'][2]:.0%}), width/error "
                f"{bar['width_over_error']:.1f}"
            )
        parts.append(f"{question}: {'; '.join(words)}")
    return f"{name}: {'. '.join(parts)}."
