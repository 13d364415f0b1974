"""Error of a defect simulation against the size of the training cell, by observation set.

For each number m of cubic cells per side, a linear ACE is fitted to rattled defect cells of that
size (energies E, forces F) and, by observation set, to strained bulk cells (virials V) and the
perfect lattice (force constants FC). The defect is then relaxed with the fit in a much larger
cell, the same for all, and compared with the reference's there, and with what first-order theory
and the bound say from the forces at the reference's geometry. L = m a / 2, the radius of the
sphere inside the training cell. What the weights multiply, and failures: see `defect_fits`.

Drawn beside them are rates of the theory for mismatches that do not change with L. In diamond, a
multilattice, virials do not see the internal strain: without force constants the slope of the
geometry, though not that of the energy, is that of energies and forces alone.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import linregress

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import extremes
from experiments.harness.style import label_axes, reference_slope
from experiments.panels.errors import (
    COLOURS,
    LABELS,
    MARKERS,
    curve_of,
    draw_errors,
    draw_flags,
    effectivity,
    flag_caption,
    flag_counts,
    sizes,
    ticks_at,
)
from experiments.studies.defect_fits import (
    TINY,
    assess,
    mismatches,
    reference_simulation,
    training_factors,
    weighted_fit,
)
from experiments.studies.size_sweep import Config, points
from experiments.systems.observations import OBSERVATION_SETS
from lprjax.ace.basis import site_basis
from lprjax.atoms.graphs import build_graph
from lprjax.defects.rates import fitted_rate
from lprjax.regression.rigidity import local_prediction_rigidity

VERSION = 2
"""Of the records."""


def compute(point: Config) -> dict[str, Any]:
    """All observation sets at one size; arrays over the sets, in the order of `fitted`."""
    (m,) = point.sizes
    factors = training_factors(point, m)
    defect, displacement, formation_energy, converged = reference_simulation(point)
    geometry = build_graph(defect.displaced(displacement), point.spec.r_cut)
    sites = np.asarray(site_basis(point.spec, geometry))[: defect.structure.n_atoms]
    found: dict[str, list] = {}
    for fitted in point.fitted:
        result = weighted_fit(point, factors, OBSERVATION_SETS[fitted])
        for name, value in {
            **assess(point, result, m),
            **{f"e_{k}": v for k, v in mismatches(point, factors, result.coefficients).items()},
            "rank": result.rank,
            "condition": result.condition,
            "rigidity": np.asarray(local_prediction_rigidity(result.factor, sites)),
        }.items():
            found.setdefault(name, []).append(value)
    return {
        "radius": point.radius(m),
        "n_functions": point.spec.n_columns,
        "distance": defect.distances()[np.asarray(defect.site_of_atom)],
        "formation_energy_reference": formation_energy,
        "reference_converged": converged,
        **{name: np.array(values) for name, values in found.items()},
    }


def fitted_slope(radius: Sequence[float], error: np.ndarray) -> tuple[float, float]:
    """Slope of log(error) against log(radius) and its standard error; NaN with too few points."""
    x, y = np.log(radius), np.log(error)
    if len(x) < 3 or not np.all(np.isfinite(y)):
        slope = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) == 2 else np.nan
        return float(slope), float("nan")
    found = linregress(x, y)
    return float(found.slope), float(found.stderr)


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: the curves, their slopes, effectivities, smaller bases, and failures."""
    by_degree = {}
    for record in records:
        by_degree.setdefault(record.point.degree, []).append(record.arrays)
    sweep = by_degree.pop(config.degree)
    curves = {name: curve_of(sweep, k) for k, name in enumerate(config.fitted)}
    for curve in curves.values():
        for quantity in ("geometry", "energy"):
            slope, spread = fitted_slope(curve["L"], sizes(curve, f"{quantity}_error"))
            curve[f"{quantity}_slope"], curve[f"{quantity}_slope_error"] = slope, spread
            curve[f"{quantity}_effectivity"] = effectivity(curve, quantity)
        curve["bound_effectivity"] = effectivity(curve, "geometry", "bound")
    smaller = {str(degree): curve_of(arrays, 0) for degree, arrays in by_degree.items()}
    return {
        "figure": config.name,
        "preset": preset,
        "material": config.crystal.name,
        "crystal": config.crystal.crystal,
        "defect": config.defect,
        "n_functions": int(sweep[0]["n_functions"]),
        "n_sizes": len(sweep),
        "target_atoms": len(sweep[0]["distance"]),
        "formation_energy_reference": float(sweep[0]["formation_energy_reference"]),
        "reference_converged": all(bool(r.arrays["reference_converged"]) for r in records),
        "flags": flag_counts(curves),
        "flags_of_smaller_bases": flag_counts(smaller),
        "curves": curves,
        "smaller_bases_EF": smaller,
    }


def draw_floors(ax: Axes, summary: dict, quantity: str, style: str = "-") -> None:
    """In grey E+F with smaller bases."""
    for grey, curve in zip(("0.6", "0.75"), summary["smaller_bases_EF"].values(), strict=False):
        x, y = np.array(curve["L"]), sizes(curve, quantity)
        ax.loglog(x, y, style, color=grey, lw=0.9, marker=MARKERS["EF"])
        draw_flags(ax, x, y, curve)


def draw_mismatch(ax: Axes, summary: dict, quantity: str, unit: str, label: str, style="-") -> None:
    """One curve per observation set."""
    draw_floors(ax, summary, quantity, style)
    for name, curve in summary["curves"].items():
        x = np.array(curve["L"])
        y = sizes(curve, quantity)
        ax.loglog(x, y, style, marker=MARKERS[name], color=COLOURS[name], label=LABELS[name])
    label_axes(ax, ("L", "Å"), (label, unit))
    ticks_at(ax, x)


def draw_rigidity(ax: Axes, summary: dict, record: Record) -> None:
    """The LPR of every atom of the large cell, after training on the cells of one size."""
    distance, radius = record.arrays["distance"], float(record.arrays["radius"])
    for name, rigidity in zip(summary["curves"], record.arrays["rigidity"], strict=True):
        # A prediction that nothing pins down has LPR 0, which no logarithm shows: draw it lowest.
        shown, style = np.maximum(rigidity, 1e-12), dict(color=COLOURS[name], rasterized=True)
        ax.semilogy(distance, shown, ".", ms=2, label=LABELS[name], **style)
    ax.axvline(radius, color="0.5", ls="--", lw=0.9)
    label_axes(ax, ("distance from the defect", "Å"), ("rigidity of site energy", "eV$^{-2}$"))
    ax.set_title(f"trained on L = {radius:.1f} Å", fontsize=9)


def plot(summary: dict, records: list[Record]) -> Figure:
    figure = plt.figure(figsize=(15.5, 9.6))
    upper, lower = figure.add_gridspec(2, 1, height_ratios=(2, 1))
    errors = upper.subgridspec(2, len(OBSERVATION_SETS)).subplots(sharey="row")
    multilattice = summary["crystal"] == "diamond"
    for which, (quantity, unit) in enumerate((("geometry", "Å"), ("energy", "eV"))):
        for ax, (name, curve) in zip(errors[which], summary["curves"].items(), strict=False):
            if name == "EF":
                draw_floors(ax, summary, f"{quantity}_error")
            draw_errors(ax, curve, quantity, name, unit)
            ax.set_title(f"{quantity} error, fitted to {LABELS[name]}", fontsize=9)
            if "forces" in (kinds := OBSERVATION_SETS[name]):
                x, y = np.array(curve["L"])[::-1], sizes(curve, f"{quantity}_error")[::-1]
                slope = getattr(fitted_rate(kinds, 3, multilattice=multilattice), quantity)
                reference_slope(ax, x, y, slope, f"theory, fixed mismatch: {slope:g}")
            ax.label_outer(remove_inner_ticks=False)
            ax.legend(fontsize=6.5)
    *mismatched, rigidity = lower.subgridspec(1, 6).subplots()
    draw_mismatches(mismatched, summary)
    draw_rigidity(rigidity, summary, records[summary["n_sizes"] - 1])
    text = "\n".join(textwrap.fill(line, 230) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def draw_mismatches(axes: list[Axes], summary: dict) -> None:
    forces, gap, virial, elastic, constants = axes
    eta, tensor = r"$\eta$ in the large cell; RMSE (dotted)", "acoustic tensor; $C_{ij}$ (dotted)"
    draw_mismatch(forces, summary, "eta", "eV/Å", eta)
    draw_mismatch(forces, summary, "e_forces", "eV/Å", eta, ":")
    draw_mismatch(gap, summary, "e_energy", "eV", "error of $E - Ne$, unrelaxed")
    draw_mismatch(virial, summary, "e_virial", "eV", "virial RMSE, strained bulk")
    draw_mismatch(elastic, summary, "e_elastic", "GPa", tensor)
    draw_mismatch(elastic, summary, "e_elastic_constants", "GPa", tensor, ":")
    draw_mismatch(constants, summary, "e_force_constants", "eV/Å$^2$", "norm of one cell's")
    titles = ("forces", "energy", "virial", "elasticity", "force constants")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(f"mismatch: {title}", fontsize=9)
    handles, labels = gap.get_legend_handles_labels()
    gap.legend(handles, labels, fontsize=6.5, title="fitted to", title_fontsize=6.5)


def caption(summary: dict) -> str:
    """What the figure shows and what it does not, with this run's numbers."""
    curves = summary["curves"]

    def span(quantity: str) -> str:
        low, high = extremes([v for c in curves.values() for v in c[quantity]])
        return f"{low:.4g} and {high:.4g}"

    def slopes(quantity: str) -> str:
        return ", ".join(
            f"{LABELS[name]} {c[f'{quantity}_slope']:.1f} ± {c[f'{quantity}_slope_error']:.1f}"
            for name, c in curves.items()
        )

    bases = summary["smaller_bases_EF"]
    floors = ", ".join(f"{c['geometry_error'][-1]:.1e} Å at degree {d}" for d, c in bases.items())
    grey = (
        f"Grey: E+F with smaller bases, down to {floors}: where a curve levels off, and the level "
        "moves with the basis, it shows the accuracy floor of the fit, not a rate."
    )
    lost = "" if summary["reference_converged"] else " THE REFERENCE'S RELAXATION DID NOT CONVERGE."
    return (
        f"{summary['defect']} in {summary['material']}, {summary['target_atoms']} atoms, relaxed "
        f"with linear ACE potentials of {summary['n_functions']} functions that were fitted to "
        "cells of radius L. " + (grey if bases else "") + "\n"
        "True errors and what theory says from the forces the fit leaves at the reference's "
        "geometry. In the fits without a flag predicted / true lies between "
        f"{span('geometry_effectivity')} (geometry) and {span('energy_effectivity')} (energy), "
        f"bound / true between {span('bound_effectivity')}.\n"
        "Dashed grey: rates of the theory (after Ortner–Wang, derived) for mismatches that do NOT "
        "change with L. Here every fit changes all of them (lowest row), so the slopes neither "
        f"confirm nor refute them; over {summary['n_sizes']} sizes, floors included: geometry "
        f"{slopes('geometry')}; energy {slopes('energy')}." + flag_caption(summary["flags"]) + lost
    )


PRESETS = {
    "smoke": Config(**TINY, sizes=(2,), floor_degrees=()),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("vacancy_convergence", PRESETS, argv, __doc__)
    return Plan(run, points(run.config), compute, summarise, plot, caption, VERSION)


main = script(plan)


if __name__ == "__main__":
    main()
