"""The theory's rates of decay: a surrogate that is exact within L and wrong in one way outside.

On a square and on a simple cubic lattice with a defect, the surrogate is the reference for
|l| < L; outside, one kind of derivative of its site energies is off: the elastic constants, the
force constants with the elastic constants kept, the third derivatives, these with the
third-order elastic constants kept, the fourth. Both are relaxed, fully nonlinear, in one box, and
compared in geometry, ||D(uhat - ubar)||, and energy. Nothing changes with L but where the change
begins, so that here, unlike with a fit, slopes can be compared with the theory.
"""

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import linregress

from experiments.common import PALETTE, finish, label_axes, save_figure, start
from experiments.decay_study import KINDS, Point, compute
from experiments.records import Record

COLOURS = dict(zip(KINDS, (*PALETTE[:5], "0.45"), strict=True))
MARKERS = dict(zip(KINDS, "os^vDx", strict=True))


@dataclass(frozen=True)
class Config:
    half_widths_plane: tuple[int, ...] = field(
        default=(256, 512), metadata={"help": "half the sites per side of the boxes in d = 2"}
    )
    half_widths_space: tuple[int, ...] = field(
        default=(40, 80), metadata={"help": "the same in d = 3; slopes are those of the last"}
    )
    radii_plane: tuple[float, ...] = (4.0, 5.7, 8.0, 11.3, 16.0, 22.6, 32.0, 45.3, 64.0)
    radii_space: tuple[float, ...] = (2.5, 3.7, 5.4, 7.9, 11.6, 17.0, 25.0)
    window_plane: tuple[float, float] = field(
        default=(11.0, 65.0), metadata={"help": "range of L that slopes are fitted to, d = 2"}
    )
    window_space: tuple[float, float] = field(default=(5.0, 18.0), metadata={"help": "d = 3"})
    strength: float = field(
        default=0.3, metadata={"help": "largest change of a shell, relative to its own derivative"}
    )

    def of(self, dimension: int) -> tuple[tuple, tuple, tuple]:
        """Half widths, radii and window."""
        if dimension == 2:
            return self.half_widths_plane, self.radii_plane, self.window_plane
        return self.half_widths_space, self.radii_space, self.window_space


def points(config: Config) -> list[Point]:
    """Box by box: the reference, then every kind at every radius that fits into the box."""
    found = []
    for dimension in (2, 3):
        half_widths, radii, _ = config.of(dimension)
        for m in half_widths:
            found.append(Point(dimension, m))
            found += [
                Point(dimension, m, kind, radius, config.strength)
                for kind in KINDS
                for radius in radii
                if 2 * radius <= m
            ]
    return found


QUANTITIES = ("geometry", "energy", "relaxing")


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Curves, fitted and local slopes beside the theory's, box dependence, and failures."""
    found = {}
    for dimension in (2, 3):
        half_widths, _, window = config.of(dimension)
        boxes = {m: box_of(records, dimension, m, window) for m in half_widths}
        largest = boxes[half_widths[-1]]
        largest["smaller_boxes"] = {
            str(m): {"curves": boxes[m]["curves"], **box_effect(boxes[m], largest, window)}
            for m in half_widths[:-1]
        }
        found[str(dimension)] = largest | {"half_width": half_widths[-1], "window": window}
    return {
        "figure": "decay_rates",
        "preset": preset,
        "strength": config.strength,
        "seconds": round(sum(record.meta["seconds"] for record in records), 1),
        "unconverged": sum(not r.arrays["converged"] for r in records if r.point.radius),
        "dimensions": found,
    }


def box_of(records: list[Record], dimension: int, m: int, window) -> dict[str, Any]:
    """All curves of one box, with their slopes, and the decay of its reference's strain."""
    here = [r for r in records if (r.point.dimension, r.point.half_width) == (dimension, m)]
    base = next(r.arrays for r in here if r.point.kind == "reference")
    curves = {}
    for name, kind in KINDS.items():
        mine = [r for r in here if r.point.kind == name]
        curve = {"L": [r.point.radius for r in mine]}
        curve |= {k: [r.arrays[k].item() for r in mine] for k in mine[0].arrays}
        expected = kind.geometry(dimension), kind.energy(dimension), 2 * kind.geometry(dimension)
        for quantity, theory in zip(QUANTITIES, expected, strict=True):
            curve[f"{quantity}_slope"] = slope_of(curve, quantity, window) | {"theory": theory}
        curves[name] = curve
    r, strain = base["distance"], base["strain"]
    far = max(2, m // 16), max(4, m // 4)
    seen = (r >= far[0]) & (r <= far[1])
    decay = fitted(r[seen], strain[seen])
    return {
        "newton_residuals": base["newton_residuals"],
        "distance": r,
        "strain": strain,
        "strain_slope": decay | {"theory": -dimension, "window": far},
        "curves": curves,
    }


def slope_of(curve: Mapping[str, Any], quantity: str, window: Sequence[float]) -> dict[str, Any]:
    """Regression in the window, without what failed or lies below ten times the floor."""
    x, y = np.array(curve["L"]), np.abs(curve[quantity])
    floor = 10 * np.array(curve.get(f"{quantity}_floor", np.zeros_like(x)))
    good = np.array(curve["converged"], bool) & (y > floor)
    used = good & (x >= window[0]) & (x <= window[1])
    local = np.diff(np.log(y)) / np.diff(np.log(x))
    return fitted(x[used], y[used]) | {
        "left_out": x[(x >= window[0]) & (x <= window[1]) & ~good],
        "local": np.where(good[1:] & good[:-1], local, np.nan),
    }


def fitted(x, y) -> dict[str, float]:
    """Slope of log y against log x and its standard error."""
    if len(x) < 3:
        return {"slope": float("nan"), "error": float("nan")}
    found = linregress(np.log(x), np.log(y))
    return {"slope": found.slope, "error": found.stderr}


def box_effect(small: Mapping, large: Mapping, window: Sequence[float]) -> dict[str, Any]:
    """By kind: the largest relative change of an error in the window, from the large box."""
    found = {}
    for quantity in ("geometry", "energy"):
        found[f"{quantity}_change"] = {}
        for name, curve in small["curves"].items():
            n = len(curve["L"])
            inside = (np.array(curve["L"]) >= window[0]) & (np.array(curve["L"]) <= window[1])
            ratio = np.array(curve[quantity]) / np.array(large["curves"][name][quantity][:n])
            found[f"{quantity}_change"][name] = np.max(np.abs(ratio - 1)[inside], initial=0.0)
    return found


def told(slope: Mapping[str, float]) -> str:
    return f"{slope['slope']:.2f} ± {slope['error']:.2f} ({slope['theory']:g})"


def draw_errors(ax: Axes, box: Mapping[str, Any], quantity: str) -> None:
    """True errors (filled), first order (open), the bound (dotted), smaller boxes (pale)."""
    for small in box["smaller_boxes"].values():
        for name, curve in small["curves"].items():
            ax.loglog(curve["L"], np.abs(curve[quantity]), color=COLOURS[name], alpha=0.4, lw=0.7)
    for name, curve in box["curves"].items():
        x, y, colour = np.array(curve["L"]), np.abs(curve[quantity]), COLOURS[name]
        slope = curve[f"{quantity}_slope"]
        ax.loglog(x, y, MARKERS[name] + "-", color=colour, lw=1, label=told(slope))
        predicted = np.abs(curve[f"{quantity}_predicted"])
        ax.loglog(x, predicted, MARKERS[name], color=colour, mfc="none", ms=7, mew=0.7)
        if quantity == "geometry":
            ax.loglog(x, curve["geometry_bound"], ":", color=colour, lw=0.9)
        lost = ~np.array(curve["converged"], bool)
        ax.loglog(x[lost], y[lost], "x", color="red", ms=9)
        inside = (x >= box["window"][0]) & (x <= box["window"][1])
        middle = np.exp(np.mean(np.log(x[inside]))), np.exp(np.mean(np.log(y[inside])))
        ax.loglog(x, middle[1] * (x / middle[0]) ** slope["theory"], "--", color="0.5", lw=0.8)
    ax.axvspan(*box["window"], color="0.93", zorder=0)
    label_axes(ax, ("L", "lattice constants"), (f"{quantity} error", None))
    ax.legend(fontsize=6.5, title="slope (theory)", title_fontsize=6.5, loc="lower left")


def draw_local(ax: Axes, box: Mapping[str, Any], quantity: str) -> None:
    """Slopes between neighbouring L: the way into the asymptotic range and out to the box."""
    for name, curve in box["curves"].items():
        x, slope = np.array(curve["L"]), curve[f"{quantity}_slope"]
        local = np.array(slope["local"], float)
        ax.semilogx(np.sqrt(x[1:] * x[:-1]), local, MARKERS[name] + "-", color=COLOURS[name], lw=1)
        ax.axhline(slope["theory"], ls="--", color=COLOURS[name], lw=0.8)
    lowest = min(c[f"{quantity}_slope"]["theory"] for c in box["curves"].values())
    ax.set_ylim(1.35 * lowest, 0)
    ax.axvspan(*box["window"], color="0.93", zorder=0)
    label_axes(ax, ("L", "lattice constants"), (f"local slope, {quantity} error", None))


def draw_strain(ax: Axes, box: Mapping[str, Any]) -> None:
    r, strain, slope = np.array(box["distance"]), np.array(box["strain"]), box["strain_slope"]
    seen = (strain > 0) & (r > 0)
    ax.loglog(r[seen], strain[seen], ".", ms=3, color=PALETTE[0], label=told(slope))
    start, end = slope["window"]
    theory = strain[int(start)] * (r[seen] / start) ** slope["theory"]
    ax.loglog(r[seen], theory, "--", color="0.5", lw=0.8)
    ax.axvline(box["half_width"], color="0.5", lw=0.8, label="end of the box")
    ax.axvspan(start, end, color="0.93", zorder=0)
    label_axes(ax, ("|l|", "lattice constants"), ("largest |D$\\bar{u}$(l)|", None))
    ax.legend(fontsize=6.5, title="slope (theory)", title_fontsize=6.5, loc="lower left")


def plot(summary: Mapping[str, Any]) -> Figure:
    figure, axes = plt.subplots(2, 5, figsize=(17, 9.2))
    for row, (d, box) in zip(axes, summary["dimensions"].items(), strict=True):
        for ax, quantity in zip(row[:2], ("geometry", "energy"), strict=True):
            draw_errors(ax, box, quantity)
            ax.set_title(f"d = {d}: {quantity} error", fontsize=9)
        for ax, quantity in zip(row[2:4], ("geometry", "energy"), strict=True):
            draw_local(ax, box, quantity)
            ax.set_title(f"d = {d}: local slopes, {quantity}", fontsize=9)
        draw_strain(row[4], box)
        row[4].set_title(f"d = {d}: strain of the reference", fontsize=9)
    handles = [
        plt.Line2D([], [], color=COLOURS[n], marker=MARKERS[n], label=k.label)
        for n, k in KINDS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(KINDS), fontsize=8)
    text = "\n".join(textwrap.fill(line, 240) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: Mapping[str, Any]) -> str:
    """What was expected and what came out, with the numbers that explain it."""
    change = summary["strength"]
    lines = [
        "A surrogate that equals the reference for |l| < L; from L on, and in full from 2 L on, "
        f"one kind of derivative of its site energies is off by up to {change:.0%} of a shell's "
        "own. Central bonds of polynomial energy in Lagrangian strain, an atom that is too large "
        "at the origin, periodic box, both relaxed by Newton's method. Filled: true errors; open: "
        "first order; dotted: bound \u03b7/c; dashed: theory (after Ortner–Wang, derived); grey "
        "band: range of the fits; pale: smaller boxes."
    ]
    for d, box in summary["dimensions"].items():
        lines.append(f"d = {d}, {2 * box['half_width']}^{d} sites: " + told_of_box(box))
    lost = summary["unconverged"]
    if lost:
        lines.append(f"NOT CONVERGED: {lost} surrogates (red crosses), left out of the slopes.")
    return "\n".join(lines)


def told_of_box(box: Mapping[str, Any]) -> str:
    curves = box["curves"]
    smooth = {name: curve for name, curve in curves.items() if not KINDS[name].sharp}

    def worst(quantity):
        off = {n: c[f"{quantity}_slope"]["slope"] for n, c in smooth.items()}
        off = {n: s - smooth[n][f"{quantity}_slope"]["theory"] for n, s in off.items()}
        name = max(off, key=lambda n: abs(np.nan_to_num(off[n])))
        return f"{quantity} by at most {abs(off[name]):.2f} ({KINDS[name].label})"

    def span(above, below):
        x = np.concatenate([np.array(c[above]) / np.array(c[below]) for c in smooth.values()])
        return f"{x.min():.3g} to {x.max():.3g}"

    def of_box(name, small):
        both = (small[f"{quantity}_change"] for quantity in ("geometry", "energy"))
        return " and ".join(f"{each[name]:.1%}" for each in both)

    text = f"fitted slopes differ from the theory's in {worst('geometry')}, {worst('energy')}. "
    text += (
        f"First order / true: geometry {span('geometry_predicted', 'geometry')}, energy "
        f"{span('energy_predicted', 'energy')}; bound / true {span('geometry_bound', 'geometry')}. "
    )
    for m, small in box["smaller_boxes"].items():
        largest = max(smooth, key=lambda n: small["energy_change"][n])
        text += (
            f"In a box of {2 * int(m)} sites per side the errors of the band change most for "
            f"{KINDS[largest].label}: by {of_box(largest, small)} (geometry, energy), for "
            f"{KINDS['third_kept'].label} by {of_box('third_kept', small)}: bends at large L are "
            "the box. "
        )
    sharp = curves["sharp"]
    return text + (
        f"Cut sharply at L, energies leave unbalanced forces at the cut: geometry "
        f"{told(sharp['geometry_slope'])} instead of "
        f"{curves['force_constants']['geometry_slope']['theory']:g}, energy gained in relaxing "
        f"{told(sharp['relaxing_slope'])}. Strain of the reference {told(box['strain_slope'])}; "
        f"its residual {box['newton_residuals'][-1]:.0e} of {box['newton_residuals'][0]:.1g}, in "
        f"{len(box['newton_residuals']) - 1} steps."
    )


PRESETS = {
    "smoke": Config(
        half_widths_plane=(32,),
        half_widths_space=(12,),
        radii_plane=(4.0, 5.7, 8.0),
        radii_space=(3.0, 4.2, 6.0),
        window_plane=(3.0, 9.0),
        window_space=(2.5, 6.5),
    ),
    "paper": Config(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    run = start("decay_rates", PRESETS, argv, __doc__)
    began = time.perf_counter()
    records = list(run.records(points(run.config), compute))
    summary = summarise(run.config, records, run.preset)
    summary["wall_seconds"] = round(time.perf_counter() - began, 1)
    save_figure(plot(summary), run.folder / run.figure)
    print(caption(summary))
    return finish(summary, run.results)


if __name__ == "__main__":
    main()
