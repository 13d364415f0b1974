"""The theory's rates in a crystal of two atoms per cell: what internal strain does that no virial
sees.

On a honeycomb lattice with a defect, the surrogate is the reference for |l| < L; outside, one of
three things is off: elastic constants with internal strain kept; internal strain with the elastic
constants kept, which is what perfect virials leave; the rest of the force constants with both kept.
Both are relaxed, fully nonlinear, in one box, and compared, as in `decay_rates`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.style import PALETTE, label_axes
from experiments.studies.slopes import slope_of
from experiments.studies.two_atom_decay import RATES, Point, compute

COLOURS = dict(zip(RATES, PALETTE, strict=False))
LABELS = {
    "elastic": "elastic constants",
    "internal_strain": "internal strain, C kept",
    "force_constants": "force constants, C and internal strain kept",
}
UNITS = {"geometry": "lattice constants", "energy": "$a_2$ of the shortest bond"}


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    cells: int = 192  # cells per side of the box
    radii: tuple[float, ...] = (4.0, 5.7, 8.0, 11.3, 16.0, 22.6)
    window: tuple[float, float] = (5.0, 17.0)  # range of L that slopes are fitted to
    strength: float = 0.1  # of the change, relative


def points(config: Config) -> list[Point]:
    """Every kind at every radius."""
    return [Point(config.cells, k, r, config.strength) for k in RATES for r in config.radii]


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Curves and their slopes beside the theory's."""
    curves = {}
    for kind, rate in RATES.items():
        mine = [r for r in records if r.point.kind == kind]
        curve = {"L": [r.point.radius for r in mine]}
        curve |= {k: [r.arrays[k].item() for r in mine] for k in mine[0].arrays}
        for quantity, theory in rate._asdict().items():
            slope = slope_of(curve, quantity, config.window)
            curve[f"{quantity}_slope"] = slope | {"theory": theory}
        curves[kind] = curve
    return {
        "figure": "multilattice_rates",
        "preset": preset,
        "cells": config.cells,
        "window": config.window,
        "strength": config.strength,
        "unconverged": sum(not r.arrays["converged"] for r in records),
        "curves": curves,
    }


def plot(summary: Mapping[str, Any]) -> Figure:
    """Errors (filled), first order (open), bound (dotted), theory (dashed)."""
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.6))
    for ax, (quantity, unit) in zip(axes, UNITS.items(), strict=True):
        for kind, curve in summary["curves"].items():
            x, y, slope = np.array(curve["L"]), np.abs(curve[quantity]), curve[f"{quantity}_slope"]
            colour, label = COLOURS[kind], f"{LABELS[kind]}: {slope_text(slope)}"
            ax.loglog(x, y, "o-", color=colour, label=label)
            predicted = np.abs(curve[f"{quantity}_predicted"])
            ax.loglog(x, predicted, "o", color=colour, mfc="none", ms=8)
            if quantity == "geometry":
                ax.loglog(x, curve["geometry_bound"], ":", color=colour)
            ax.loglog(x, y[0] * (x / x[0]) ** slope["theory"], "--", color="0.5", lw=0.8)
            lost = ~np.array(curve["converged"], bool)
            ax.loglog(x[lost], y[lost], "x", color="red", ms=9)
        ax.axvspan(*summary["window"], color="0.93", zorder=0)
        label_axes(ax, ("L", "lattice constants"), (f"{quantity} error", unit))
        ax.legend(fontsize=7, title="fitted slope (theory)", title_fontsize=7)
    text = "\n".join(textwrap.fill(line, 150) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def slope_text(slope: Mapping[str, float]) -> str:
    """A fitted slope, its error and the theory's."""
    return f"{slope['slope']:.2f} ± {slope['error']:.2f} ({slope['theory']:g})"


def caption(summary: Mapping[str, Any]) -> str:
    """What was expected and what came out."""
    lines = [
        "Two atoms per cell (honeycomb, four shells of polynomial bonds, one bond under tension), "
        f"{summary['cells']}^2 cells; a surrogate that equals the reference for |l| < L and is off "
        f"by {summary['strength']:.0%} in one way from 2 L on. Filled: true errors; open: first "
        "order; dotted: bound \u03b7/c; dashed: theory, through the first point."
    ]
    for quantity in UNITS:
        found = (f"{LABELS[k]} {slope_text(c[f'{quantity}_slope'])}" for k, c in
                 summary["curves"].items())  # fmt: skip
        lines.append(f"{quantity}: {'; '.join(found)}.")
    if summary["unconverged"]:
        lines.append(f"NOT CONVERGED: {summary['unconverged']} (red), left out of the slopes.")
    return "\n".join(lines)


PRESETS = {
    "smoke": Config(cells=48, radii=(3.0, 4.2, 6.0), window=(2.5, 6.5)),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("multilattice_rates", PRESETS, argv, __doc__)
    return Plan(
        run, points(run.config), compute, summarise, lambda summary, _: plot(summary), caption
    )


main = script(plan)


if __name__ == "__main__":
    main()
