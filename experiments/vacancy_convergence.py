"""Error of a vacancy simulation against the size of the training cell, by observation set.

For each number m of cubic cells per side, a linear ACE is fitted to rattled vacancy cells of that
size (energies E, forces F) and, by observation set, to strained bulk cells (virials V) and the
perfect lattice (force constants FC). The vacancy is then relaxed with the fit in a much larger
cell, the same for all, and compared with the reference's there. L = m a / 2, the radius of the
sphere inside the training cell. What the weights multiply: see `vacancy_fits`.
"""

import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import linregress

from experiments.common import PALETTE, finish, label_axes, reference_slope, save_figure, start
from experiments.records import Record
from experiments.vacancy_fits import (
    LATTICE_CONSTANT,
    OBSERVATION_SETS,
    Config,
    bulk_factors,
    defect_factors,
    mismatches,
    reference_simulation,
    simulate,
    weighted_fit,
)
from lprjax.ace import site_basis
from lprjax.neighbours import build_graph
from lprjax.rigidity import local_prediction_rigidity


def compute(point: Config) -> dict[str, Any]:
    """All observation sets at one size; arrays over the sets, in the order of OBSERVATION_SETS."""
    (m,) = point.sizes
    factors = bulk_factors(replace(point, sizes=(), copies=0)) | defect_factors(point, m)
    simulation = reference_simulation(point.target)
    defect = simulation.defect
    geometry = build_graph(defect.displaced(simulation.displacement), point.r_cut)
    sites = site_basis(point.spec, geometry)[: defect.structure.n_atoms]
    found: dict[str, list] = {}
    for kinds in OBSERVATION_SETS.values():
        result = weighted_fit(point, factors, kinds)
        for name, value in {
            **simulate(point, result),
            **{f"e_{k}": v for k, v in mismatches(point, factors, result.coefficients).items()},
            "rank": result.rank,
            "condition": result.condition,
            "rigidity": np.asarray(local_prediction_rigidity(result.factor, sites)),
        }.items():
            found.setdefault(name, []).append(value)
    return {
        "radius": m * LATTICE_CONSTANT / 2,
        "n_functions": point.spec.n_columns,
        "distance": defect.distances()[np.asarray(defect.site_of_atom)],
        "formation_energy_reference": simulation.formation_energy,
        "reference_converged": simulation.converged,
        **{name: np.array(values) for name, values in found.items()},
    }


def points(config: Config) -> list[Config]:
    """One point per size and degree, the basis of the figure first."""
    degrees = (config.degree, *config.floor_degrees)
    return [
        replace(config, sizes=(m,), degree=degree, floor_degrees=())
        for degree in degrees
        for m in config.sizes
    ]


def fitted_slope(radius: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Slope of log(error) against log(radius) and its standard error; NaN with too few points."""
    x, y = np.log(radius), np.log(error)
    if len(x) < 3 or not np.all(np.isfinite(y)):
        slope = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) == 2 else np.nan
        return float(slope), float("nan")
    found = linregress(x, y)
    return float(found.slope), float(found.stderr)


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: the curves, their slopes, smaller bases, and what did not converge."""
    by_degree = {}
    for record in records:
        by_degree.setdefault(record.point.degree, []).append(record.arrays)
    sweep = by_degree.pop(config.degree)
    curves = {name: curve_of(sweep, k) for k, name in enumerate(OBSERVATION_SETS)}
    for curve in curves.values():
        for quantity in ("geometry_error", "energy_error"):
            slope, spread = fitted_slope(np.array(curve["L"]), np.array(curve[quantity]))
            curve[f"{quantity}_slope"], curve[f"{quantity}_slope_error"] = slope, spread
    which = list(OBSERVATION_SETS).index("EF")
    return {
        "figure": "vacancy_convergence",
        "preset": preset,
        "seconds": round(sum(record.meta["seconds"] for record in records), 1),
        "n_functions": int(sweep[0]["n_functions"]),
        "target_sites": 2 * config.target**3,
        "formation_energy_reference": float(sweep[0]["formation_energy_reference"]),
        "all_converged": all(
            bool(np.all(r.arrays["converged"]) and r.arrays["reference_converged"]) for r in records
        ),
        "curves": curves,
        "smaller_bases_EF": {str(d): curve_of(a, which) for d, a in by_degree.items()},
    }


def curve_of(sweep: list[dict], k: int) -> dict[str, list]:
    """Every number of one observation set over the sizes."""
    scalars = [q for q in sweep[0] if sweep[0][q].shape == (len(OBSERVATION_SETS),)]
    return {
        "L": [float(a["radius"]) for a in sweep],
        **{quantity: [a[quantity][k].item() for a in sweep] for quantity in scalars},
    }


LABELS = {"E": "E", "EF": "E+F", "EFV": "E+F+V", "EFFC": "E+F+FC", "EFVFC": "E+F+V+FC"}
MARKERS = dict(zip(OBSERVATION_SETS, "osv^D", strict=True))
THEORY = {  # observations: slope of geometry and energy error in d = 3 (after Ortner–Wang, derived)
    "E+F": (-1.5, -3.0),
    "+V": (-3.5, -5.0),
    "+FC": (-4.5, -6.0),
}


def draw_curves(ax: Axes, summary: dict, quantity: str, unit: str, label: str, style="-") -> None:
    """One curve per observation set, and in grey those of E+F with smaller bases."""
    for grey, curve in zip(("0.6", "0.75"), summary["smaller_bases_EF"].values(), strict=False):
        ax.loglog(curve["L"], curve[quantity], style, color=grey, lw=0.9, marker=MARKERS["EF"])
    for colour, (name, curve) in zip(PALETTE, summary["curves"].items(), strict=False):
        x, y = np.array(curve["L"]), np.array(curve[quantity], float)
        ax.loglog(x, y, style, marker=MARKERS[name], color=colour, label=LABELS[name])
        draw_lost(ax, x, y, ~np.array(curve["converged"], bool))
    label_axes(ax, ("training-cell radius L", "Å"), (label, unit))
    ax.set_xticks(x, labels=[f"{radius:.1f}" for radius in x])
    ax.xaxis.set_minor_locator(NullLocator())


def draw_lost(ax: Axes, x: np.ndarray, y: np.ndarray, lost: np.ndarray) -> None:
    """Red crosses where the relaxation did not converge."""
    ax.loglog(x[lost], y[lost], "x", color="red", ms=9, mew=2)


def draw_guides(ax: Axes, summary: dict, quantity: str, which: int) -> None:
    """The theory's slopes, through the first point of the curve E+F."""
    curve = summary["curves"]["EF"]
    x, y = np.array(curve["L"])[::-1], np.array(curve[quantity])[::-1]
    for observed, slopes in THEORY.items():
        reference_slope(ax, x, y, slopes[which])
        end = (x[0], y[-1] * (x[0] / x[-1]) ** slopes[which])
        label = f"{observed}: {slopes[which]:g}"
        ax.annotate(label, end, fontsize=7, color="0.3", ha="right", va="bottom")


def draw_rigidity(ax: Axes, record: Record) -> None:
    """The LPR of every atom of the large cell, after training on the cells of one size."""
    distance, radius = record.arrays["distance"], float(record.arrays["radius"])
    rows = zip(PALETTE, OBSERVATION_SETS, record.arrays["rigidity"], strict=False)
    for colour, name, rigidity in rows:
        # A prediction that nothing pins down has LPR 0, which no logarithm shows: draw it lowest.
        shown = np.maximum(rigidity, 1e-12)
        ax.semilogy(distance, shown, ".", ms=2, color=colour, label=LABELS[name], rasterized=True)
    ax.axvline(radius, color="0.5", ls="--", lw=0.9)
    label_axes(ax, ("distance from the vacancy", "Å"), ("local prediction rigidity", "eV$^{-2}$"))
    ax.set_title(f"trained on L = {radius:.1f} Å (dashed)", fontsize=9)


def plot(summary: dict, records: list[Record]) -> Figure:
    figure, axes = plt.subplots(2, 4, figsize=(14.5, 7.6))
    (geometry, energy, forces, rigidity), (gap, virial, elastic, constants) = axes
    eta, tensor = r"$\eta$ in the large cell; RMSE (dotted)", "acoustic tensor; $C_{ij}$ (dotted)"
    draw_curves(geometry, summary, "geometry_error", "Å", "geometry error $||Du-Dû||$")
    draw_curves(energy, summary, "energy_error", "eV", "formation-energy error")
    draw_curves(forces, summary, "e_forces_negative_norm", "eV/Å", eta)
    draw_curves(forces, summary, "e_forces", "eV/Å", eta, ":")
    draw_curves(gap, summary, "e_energy", "eV", "error of $E - Ne$ at the reference's geometry")
    draw_curves(virial, summary, "e_virial", "eV", "virial RMSE, strained bulk")
    draw_curves(elastic, summary, "e_elastic", "GPa", tensor)
    draw_curves(elastic, summary, "e_elastic_constants", "GPa", tensor, ":")
    draw_curves(constants, summary, "e_force_constants", "eV/Å$^2$", "norm of one atom's")
    draw_guides(geometry, summary, "geometry_error", 0)
    draw_guides(energy, summary, "energy_error", 1)
    draw_rigidity(rigidity, records[len(summary["curves"]["EF"]["L"]) - 1])
    geometry.legend(fontsize=7, title="fitted to", title_fontsize=7)
    titles = {
        geometry: "Errors of the simulation: geometry",
        energy: "formation energy",
        forces: "Measured mismatches: forces",
        gap: "Measured mismatches: energy",
        virial: "virial",
        elastic: "elasticity",
        constants: "force constants",
    }
    for ax, title in titles.items():
        ax.set_title(title, fontsize=9)
    text = "\n".join(textwrap.fill(line, 230) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: dict) -> str:
    """What the figure shows and what it does not, with this run's numbers."""

    def slopes(quantity: str) -> str:
        return ", ".join(
            f"{LABELS[n]} {c[quantity + '_slope']:.1f}" for n, c in summary["curves"].items()
        )

    bases = summary["smaller_bases_EF"]
    floors = ", ".join(f"{c['geometry_error'][-1]:.1e} Å at degree {d}" for d, c in bases.items())
    grey = (
        f"Grey: E+F with smaller bases, down to {floors}: where a curve levels off, and the level "
        "moves with the basis, it shows the accuracy floor of the fit, not a rate."
    )
    ratios = [
        error / eta
        for c in summary["curves"].values()
        for error, eta in zip(c["geometry_error"], c["e_forces_negative_norm"], strict=True)
    ]
    lost = "" if summary["all_converged"] else " Red crosses: the relaxation did not converge."
    return (
        f"Vacancy in W (Zhou EAM), {summary['target_sites'] - 1} atoms, relaxed with linear ACE "
        f"potentials of {summary['n_functions']} functions that were fitted to cells of radius L. "
        + (grey if bases else "")
        + "\n"
        "Dashed: rates of the theory (after Ortner–Wang, derived) for mismatches that do NOT "
        "change with L. Here every fit changes all of them (panels), so the slopes can neither "
        "confirm nor refute the theory. What explains the curves is η, the force residual of the "
        "fit at the reference's geometry in the negative norm: geometry error / η lies between "
        f"{min(ratios):.1f} and {max(ratios):.1f} Å²/eV in every fit.\n"
        f"Slopes over all sizes, floors included: geometry {slopes('geometry_error')}; "
        f"energy {slopes('energy_error')}." + lost
    )


PRESETS = {
    "smoke": Config(
        sizes=(2, 3), target=5, order=2, degree=8, copies=40, lattice_cells=4, floor_degrees=()
    ),
    "paper": Config(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    run = start("vacancy_convergence", PRESETS, argv, __doc__)
    began = time.perf_counter()
    records = list(run.records(points(run.config), compute))
    summary = summarise(run.config, records, run.preset)
    summary["wall_seconds"] = round(time.perf_counter() - began, 1)
    save_figure(plot(summary, records), run.folder / run.figure)
    print(caption(summary))
    return finish(summary, run.results)


if __name__ == "__main__":
    main()
