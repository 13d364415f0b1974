"""How the strain of a point defect decays: |Du(l)| against |l|, for real potentials.

An equilibrium defect in d = 3 has |Du(l)| <~ (1 + |l|)^-3 (Ehrlacher, Ortner and Shapeev, Arch.
Ration. Mech. Anal. 222 (2016) 1217). It is on this decay that every rate of the theory rests.
Shown: the largest |Du(l)| of each shell of sites, in a periodic cell of the reference potential.
What falls faster obeys the bound; what falls slower, over the window of the fit, does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import linregress

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.style import PALETTE, label_axes, reference_slope
from experiments.systems.materials import distinct, material, named_pair
from lprjax.defects.catalogue import named_defect
from lprjax.defects.defect import decay_profile, relax_defect
from lprjax.potentials.observables import observe

DIMENSION = 3
SITES_IN_CUBE = {"bcc": 2, "fcc": 4, "diamond": 8}
SHALLOW = 1.0  # standard errors from which a slope above the bound is named
DRAWN = 1e-7  # Å; below, the tolerance of the relaxation shows


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    #: material:defect
    pairs: tuple[str, ...] = (
        "W:vacancy",
        "W:divacancy-1",
        "W:dumbbell-111",
        "W:dumbbell-110",
        "Cu:vacancy",
        "Cu:dumbbell-100",
        "Si-SW:tetrahedral",
        "Si-SW:dumbbell-110",
        "Si-Tersoff:vacancy",
    )
    sites: int = 12000  # of the cell, about
    inner: float = 2.0  # start of the fit, nearest neighbours
    outer: float = 0.6  # end of the fit, share of the radius inside the cell


@dataclass(frozen=True)
class Point:
    """One defect in one material."""

    material: str
    defect: str
    cells: int  # cubic cells per side

    @property
    def pair(self) -> str:
        """As figures name it."""
        return f"{material(self.material).name}:{self.defect}"


def points(config: Config) -> list[Point]:
    """Every pair, in a cell of about as many sites as asked for."""
    found = []
    for crystal, defect in distinct([named_pair(pair, ":") for pair in config.pairs]):
        cells = round((config.sites / SITES_IN_CUBE[crystal.crystal]) ** (1 / 3))
        found.append(Point(crystal.key, defect, cells))
    return found


def compute(point: Point) -> dict[str, Any]:
    """The arrays of one point: the relaxed defect and its strain."""
    crystal = material(point.material)
    defect = named_defect(point.defect, crystal.unit_cell, point.cells)
    found = relax_defect(crystal.potential, defect)
    profile = decay_profile(defect, found.displacement)
    virial = observe(crystal.potential, found.relaxed.graph, ("virial",)).virial
    return {
        "distances": profile.distances,
        "strains": profile.strains,
        "converged": found.relaxed.converged,
        "evaluations": found.relaxed.evaluations,
        "sites": defect.reference.n_atoms,
        "radius": 0.5 * point.cells * crystal.lattice_constant,
        "nearest_neighbour": crystal.nearest_neighbour,
        # The elastic dipole, what the leading term of the far field is made of: the perfect
        # crystal has no virial at its lattice constant.
        "dipole": np.trace(np.asarray(virial)) / 3.0,
    }


def envelope(distances: np.ndarray, strains: np.ndarray) -> np.ndarray:
    """The largest strain at this distance or beyond: a decay is a bound from above.

    Args:
        distances: (n,) ascending, Å.
        strains: (n,) Å.

    Returns:
        (n,) Å.
    """
    return np.maximum.accumulate(strains[::-1])[::-1]


def slope_of(config: Config, arrays: dict) -> dict[str, Any]:
    """Slope of the envelope's logarithm over the window, by shells at equal steps of log |l|."""
    distances, strains = arrays["distances"], arrays["strains"]
    low = config.inner * float(arrays["nearest_neighbour"])
    high = config.outer * float(arrays["radius"])
    grid = np.geomspace(low, high, 12)
    upper = envelope(distances, strains)[np.searchsorted(distances, grid).clip(0, len(strains) - 1)]
    found = linregress(np.log(grid), np.log(upper))
    return {
        "window": [low, high],
        "slope": float(found.slope),
        "slope_error": float(found.stderr),
        "excess": excess(found.slope, found.stderr),
        "converged": bool(arrays["converged"]),
        "evaluations": int(arrays["evaluations"]),
        "sites": int(arrays["sites"]),
        "dipole": float(arrays["dipole"]),
    }


def excess(slope: float, error: float) -> float:
    """By how many of its standard errors a slope is shallower than the theory's bound permits.

    The errors are those of the regression: points of an envelope are no independent ones.
    """
    return float((slope + DIMENSION) / error)


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    curves = {r.point.pair: slope_of(config, r.arrays) for r in records}
    return {
        "figure": "strain_decay",
        "preset": preset,
        "expected_slope": -DIMENSION,
        "curves": curves,
        "all_converged": all(curve["converged"] for curve in curves.values()),
    }


def plot(summary: dict, records: Sequence[Record]) -> Figure:
    """The whole figure: a panel for each material."""
    names = list(dict.fromkeys(material(record.point.material).name for record in records))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.4 * len(names), 3.9), sharex=True, sharey=True, squeeze=False
    )
    for ax, name in zip(axes[0], names, strict=True):
        chosen = [r for r in records if material(r.point.material).name == name]
        for colour, record in zip(PALETTE, chosen, strict=False):
            draw(ax, summary, record, colour)
        ax.set_title(name, fontsize=9)
        label_axes(ax, ("distance |l|", "Å"), ("largest |Du(l)| of a shell", "Å"))
        ax.legend(fontsize=7)
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def draw(ax: Axes, summary: dict, record: Record, colour: str) -> None:
    """The strain of one defect by shells, and the theory's slope."""
    curve = summary["curves"][record.point.pair]
    x, y = record.arrays["distances"], record.arrays["strains"]
    shown = (x > 0) & (y > DRAWN)
    slope = f"{curve['slope']:.2f} ± {curve['slope_error']:.2f}"
    label = f"{record.point.defect}: {slope}; P = {curve['dipole']:.2g} eV"
    style = "." if curve["converged"] else "x"
    ax.loglog(x[shown], y[shown], style, ms=3, color=colour, label=label)
    low, high = curve["window"]
    inside = (x >= low) & (x <= high)
    reference_slope(ax, x[inside], envelope(x, y)[inside], summary["expected_slope"])
    ax.axvline(float(record.arrays["radius"]), color="0.7", lw=0.8)


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    curves = summary["curves"]
    slopes = {name: curve["slope"] for name, curve in curves.items()}
    steepest, flattest = min(slopes, key=slopes.get), max(slopes, key=slopes.get)
    weakest = min(curves, key=lambda name: abs(curves[name]["dipole"]))
    shallow = {name: curve["excess"] for name, curve in curves.items() if curve["excess"] > SHALLOW}
    against = ""
    if shallow:
        named = ", ".join(f"{name} by {value:.1f}" for name, value in shallow.items())
        against = f" Shallower than the bound permits, in standard errors: {named}."
    lost = "" if summary["all_converged"] else " Crosses: the relaxation did not converge."
    return (
        "Strain of relaxed point defects by shells of sites; dashed: the slope "
        f"{summary['expected_slope']} of the theory, over the window of the fit. Legend: slope of "
        "the envelope there, and a third of the trace of the elastic dipole P.\n"
        "Grey line: radius inside the periodic cell, where images take over. Slopes from "
        f"{slopes[flattest]:.2f} ({flattest}) to {slopes[steepest]:.2f} ({steepest}). The leading "
        f"term is proportional to P, least for {weakest}: a small one leaves the field to the "
        "steeper terms beyond it over such a window." + against + lost
    )


PRESETS = {
    "smoke": Config(pairs=("W:vacancy", "W:divacancy-1"), sites=54, inner=0.9, outer=1.0),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("strain_decay", PRESETS, argv, __doc__)
    return Plan(run, points(run.config), compute, summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
