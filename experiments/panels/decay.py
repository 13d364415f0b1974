"""Panels of the decay rates: errors, local slopes, and the strain of the reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from experiments.harness.style import PALETTE, label_axes
from experiments.systems.decay_kinds import KINDS

COLOURS = dict(zip(KINDS, (*PALETTE[:5], "0.45"), strict=True))
MARKERS = dict(zip(KINDS, "os^vDx", strict=True))
UNITS = {"geometry": "lattice constants", "energy": "$a_2$ of the shortest bond"}


def slope_label(slope: Mapping[str, float]) -> str:
    """A fitted slope, its error and the theory's, if it has one; or a change of sign."""
    theory = f"{slope['theory']:g}" if np.isfinite(slope["theory"]) else "no single power"
    if slope.get("changes_sign"):
        return f"changes sign ({theory})"
    return f"{slope['slope']:.2f} ± {slope['error']:.2f} ({theory})"


def draw_errors(ax: Axes, box: Mapping[str, Any], quantity: str) -> None:
    """True errors (filled), first order (open), the bound (dotted), smaller boxes (pale)."""
    for small in box["smaller_boxes"].values():
        for name, curve in small["curves"].items():
            ax.loglog(curve["L"], np.abs(curve[quantity]), color=COLOURS[name], alpha=0.4, lw=0.7)
    for name, curve in box["curves"].items():
        x, y, colour = np.array(curve["L"]), np.abs(curve[quantity]), COLOURS[name]
        slope = curve[f"{quantity}_slope"]
        ax.loglog(x, y, MARKERS[name] + "-", color=colour, lw=1, label=slope_label(slope))
        predicted = np.abs(curve[f"{quantity}_predicted"])
        ax.loglog(x, predicted, MARKERS[name], color=colour, mfc="none", ms=7, mew=0.7)
        if quantity == "geometry":
            ax.loglog(x, curve["geometry_bound"], ":", color=colour, lw=0.9)
        lost = ~np.array(curve["converged"], bool)
        ax.loglog(x[lost], y[lost], "x", color="red", ms=9)
        inside = (x >= box["window"][0]) & (x <= box["window"][1])
        middle = np.exp(np.mean(np.log(x[inside]))), np.exp(np.mean(np.log(y[inside])))
        ax.loglog(x, middle[1] * (x / middle[0]) ** slope["theory"], "--", color="0.5", lw=0.8)
    low, high = ax.get_ylim()
    ax.set_ylim(low * (low / high) ** 0.35, high)  # room for the legend
    mark_radii(ax, box)
    label_axes(ax, ("L", "lattice constants"), (f"{quantity} error", UNITS[quantity]))
    ax.legend(fontsize=6.5, title="fitted slope (theory)", title_fontsize=6.5, loc="lower left")


def mark_radii(ax: Axes, box: Mapping[str, Any]) -> None:
    """Ticks at every L, and the band that slopes are fitted to."""
    x = next(iter(box["curves"].values()))["L"]
    ax.set_xticks(x, labels=[f"{radius:g}" for radius in x])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvspan(*box["window"], color="0.93", zorder=0)


def draw_local(ax: Axes, box: Mapping[str, Any], quantity: str) -> None:
    """Slopes between neighbouring L, in the box (filled) and in an infinite one (open).

    They show the way into the asymptotic range and, in the box, out of it again.
    """
    for name, curve in box["curves"].items():
        x, slope = np.array(curve["L"]), curve[f"{quantity}_slope"]
        local = np.array(slope["local"], float)
        ax.semilogx(np.sqrt(x[1:] * x[:-1]), local, MARKERS[name] + "-", color=COLOURS[name], lw=1)
        ax.axhline(slope["theory"], ls="--", color=COLOURS[name], lw=0.8)
        unbounded = np.array(curve.get(f"{quantity}_unbounded_slope", {}).get("local", []), float)
        x = np.sqrt(x[1:] * x[:-1])[: len(unbounded)]
        ax.semilogx(x, unbounded, MARKERS[name], color=COLOURS[name], mfc="none", ms=8, mew=0.7)
    lowest = np.nanmin([c[f"{quantity}_slope"]["theory"] for c in box["curves"].values()])
    ax.set_ylim(1.35 * lowest, 0)
    mark_radii(ax, box)
    label_axes(ax, ("L", "lattice constants"), (f"local slope, {quantity} error", None))


def draw_strain(ax: Axes, box: Mapping[str, Any]) -> None:
    """The strain of the reference by shells, the theory's slope, and the end of the box."""
    r, strain, slope = np.array(box["distance"]), np.array(box["strain"]), box["strain_slope"]
    ax.loglog(r, strain, ".", ms=3, color=PALETTE[0], label=slope_label(slope))
    start, end = slope["window"]
    middle = np.argmin(np.abs(r - np.sqrt(start * end)))
    theory = strain[middle] * (r / r[middle]) ** slope["theory"]
    ax.loglog(r, theory, "--", color="0.5", lw=0.8)
    ax.axvline(box["half_width"], color="0.5", lw=0.8, label="end of the box")
    ax.axvspan(start, end, color="0.93", zorder=0)
    label_axes(ax, ("|l|", "lattice constants"), ("largest |D$\\bar{u}$(l)|", "lattice constants"))
    ax.legend(fontsize=6.5, title="fitted slope (theory)", title_fontsize=6.5, loc="lower left")
