"""The theory's rates of decay: a surrogate that is exact within L and wrong in one way outside.

On a square and on a simple cubic lattice with a defect, the surrogate is the reference for
|l| < L; outside, one kind of derivative of its site energies is off: the elastic constants, the
force constants with the elastic constants kept, the third derivatives, these with the
third-order elastic constants kept, the fourth. Both are relaxed, fully nonlinear, in one box, and
compared in geometry, ||D(uhat - ubar)||, and energy. Nothing changes with L but where the change
begins, so that here, unlike with a fit, slopes can be compared with the theory. It has none for the
energy of a change that is cut sharply at L: that is a sum of two powers.
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
from experiments.harness.statistics import extremes
from experiments.panels.decay import (
    COLOURS,
    MARKERS,
    draw_errors,
    draw_local,
    draw_strain,
    slope_label,
)
from experiments.studies.decay import Point, compute
from experiments.studies.slopes import fitted, slope_of
from experiments.systems.decay_kinds import KINDS


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    half_widths_plane: tuple[int, ...] = (256, 512)  # half the sites per side of the boxes in d = 2
    #: the same in d = 3; slopes are those of the last
    half_widths_space: tuple[int, ...] = (40, 56, 80)
    radii_plane: tuple[float, ...] = (4.0, 5.7, 8.0, 11.3, 16.0, 22.6, 32.0, 45.3, 64.0)
    radii_space: tuple[float, ...] = (2.5, 3.7, 5.4, 7.9, 11.6, 17.0, 25.0)
    window_plane: tuple[float, float] = (7.0, 33.0)  # range of L that slopes are fitted to, d = 2
    window_space: tuple[float, float] = (5.0, 18.0)  # d = 3
    strength: float = 0.3  # largest change of a shell, relative to its own derivative

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


# Choices.
LITTLE = 0.2  # relative change of an error from box to box that is taken for first order
PLATEAU = 0.1  # standard error of a slope above which a curve is not called straight
QUANTITIES = ("geometry", "energy", "relaxing")


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Curves, fitted and local slopes beside the theory's, box dependence, and failures."""
    found = {}
    for dimension in (2, 3):
        half_widths, _, window = config.of(dimension)
        boxes = {m: box_of(records, dimension, m, window) for m in half_widths}
        *smaller, m = half_widths
        for half in smaller:
            extrapolate(boxes[half], boxes[m], (m / half) ** dimension, window)
        found[str(dimension)] = boxes[m] | {
            "half_width": m,
            "window": window,
            "smaller_boxes": {str(half): errors_alone(boxes[half]) for half in smaller},
        }
    return {
        "figure": "decay_rates",
        "preset": preset,
        "strength": config.strength,
        "unconverged": sum(not r.arrays["converged"] for r in records if r.point.radius),
        "dimensions": found,
    }


def box_of(
    records: list[Record], dimension: int, m: int, window: Sequence[float]
) -> dict[str, Any]:
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
    shown = np.unique(np.geomspace(1, m, 100).round().astype(int))
    return {
        "newton_residuals": base["newton_residuals"],
        "distance": r[shown],
        "strain": strain[shown],
        "strain_slope": decay | {"theory": -dimension, "window": far},
        "curves": curves,
    }


def errors_alone(box: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn of a smaller box."""
    names = ("L", "geometry", "energy")
    return {"curves": {k: {n: curve[n] for n in names} for k, curve in box["curves"].items()}}


def extrapolate(small: dict, large: dict, growth: float, window: Sequence[float]) -> None:
    """Add to the large box's curves what they would be in an infinite one.

    What the box changes is in proportion to one over its sites, `growth` times more in the small
    one, as long as it is little: NaN elsewhere. `box_effect`: by what share the large box is off.

    Args:
        small: the smaller box, see `box_of`.
        large: the larger box, which is changed.
        growth: sites of the larger box over those of the smaller one.
        window: least and largest L of the slopes.
    """
    for name, curve in large["curves"].items():
        other = small["curves"][name]
        n = len(other["L"])
        good = np.array(curve["converged"][:n]) & np.array(other["converged"])
        both = {"L": curve["L"][:n], "converged": good}
        for quantity in ("geometry", "energy"):
            ours, theirs = np.array(curve[quantity][:n]), np.array(other[quantity])
            little = np.abs(ours - theirs) < LITTLE * np.abs(ours)
            both[quantity] = np.where(little, ours + (ours - theirs) / (growth - 1.0), np.nan)
            curve[f"{quantity}_unbounded"] = both[quantity]
            curve[f"{quantity}_box_effect"] = ours / both[quantity] - 1.0
            theory = {"theory": curve[f"{quantity}_slope"]["theory"]}
            curve[f"{quantity}_unbounded_slope"] = slope_of(both, quantity, window) | theory


def plot(summary: Mapping[str, Any]) -> Figure:
    """The whole figure."""
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
    text = "\n".join(textwrap.fill(line, 300) for line in caption(summary).splitlines())
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
        lines.append(f"d = {d}, {2 * box['half_width']}^{d} sites: " + caption_of_box(box))
    lost = summary["unconverged"]
    if lost:
        lines.append(f"NOT CONVERGED: {lost} surrogates (red crosses), left out of the slopes.")
    return "\n".join(lines)


def caption_of_box(box: Mapping[str, Any]) -> str:
    """What came out in one dimension."""
    curves = box["curves"]
    smooth = {name: curve for name, curve in curves.items() if not KINDS[name].sharp}

    last = sum(radius <= box["window"][1] for radius in curves["elastic"]["L"]) - 2

    def farthest(quantity):
        slopes = {KINDS[name].label: curve[f"{quantity}_slope"] for name, curve in smooth.items()}
        off = {label: abs(s["slope"] - s["theory"]) for label, s in slopes.items()}
        label = max(off, key=lambda label: np.nan_to_num(off[label]))
        end = slopes[label]["local"][last]
        return f"{label} {slope_label(slopes[label])}, {end:.2f} at the band's upper end"

    def span(above, below):
        x = np.concatenate([np.array(c[above]) / np.array(c[below]) for c in smooth.values()])
        return f"{x.min():.3g} to {x.max():.3g}"

    text = (
        f"fitted slopes farthest from theory: geometry, {farthest('geometry')}; energy, "
        f"{farthest('energy')}. First order / true: geometry "
        f"{span('geometry_predicted', 'geometry')}, energy {span('energy_predicted', 'energy')}; "
        f"bound / true {span('geometry_bound', 'geometry')}. "
    )
    if bent := bent_curves(smooth):
        text += f"No straight line (standard error above {PLATEAU:g}): {'; '.join(bent)}. "
    if box["smaller_boxes"]:
        unbounded = (curves["elastic"][f"{q}_unbounded_slope"] for q in QUANTITIES[:2])
        both = map(slope_label, unbounded)
        text += (
            "The box bends the right ends: extrapolated to an infinite one (open marks of the "
            f"local slopes), elastic constants geometry {next(both)}, energy {next(both)}. "
        )
    sharp, base = curves["sharp"], box["newton_residuals"]
    return text + (
        "Cut sharply at L, site energies leave unbalanced forces at the cut: geometry "
        f"{slope_label(sharp['geometry_slope'])} instead of "
        f"{curves['force_constants']['geometry_slope']['theory']:g}, energy gained in relaxing "
        f"{slope_label(sharp['relaxing_slope'])}; the whole energy error, of which relaxing is "
        f"{relaxing_share(sharp, box['window'])}, {slope_label(sharp['energy_slope'])}. "
        "Strain of the reference "
        f"{slope_label(box['strain_slope'])}; "
        f"its residual {base[-1]:.0e} of {base[0]:.1g}, in {len(base) - 1} steps."
    )


def relaxing_share(curve: Mapping[str, Any], window: Sequence[float]) -> str:
    """What relaxing gains over the whole energy error, over the L of the window."""
    x = np.array(curve["L"])
    share = np.abs(np.array(curve["relaxing"]) / np.array(curve["energy"]))
    low, high = extremes(share[(x >= window[0]) & (x <= window[1])])
    return f"{low:.2g} to {high:.2g} times"


def bent_curves(curves: Mapping[str, Any]) -> list[str]:
    """What a fitted slope does not describe."""
    return [
        f"{quantity}, {KINDS[name].label}"
        for quantity in ("geometry", "energy")
        for name, curve in curves.items()
        if curve[f"{quantity}_slope"]["error"] > PLATEAU
    ]


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


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("decay_rates", PRESETS, argv, __doc__)
    return Plan(
        run, points(run.config), compute, summarise, lambda summary, _: plot(summary), caption
    )


main = script(plan)


if __name__ == "__main__":
    main()
