"""Do first-order predictions hold across crystals and defects? True against predicted errors.

For each pair of a material and a defect, linear ACE potentials are fitted to rattled defect cells
of m cubes per side, to energies and forces (E+F) or to virials and force constants too
(E+F+V+FC); the defect is relaxed with each in a larger cell and compared with the reference's
there, and with what the forces at the reference's geometry predict. See `defect_fits`.

To first order u = Hess^-1 f, with the Hessian of the fit there; what that leaves out is of second
order in the error itself. The bound's first factor, eta / c, is set against the truth here, where
stiffnesses c differ by two orders: in one stiff defect it looks sharper than it is.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import extremes, relation
from experiments.harness.style import PALETTE, label_axes
from experiments.panels.errors import (
    LABELS,
    curve_of,
    draw_errors,
    draw_flags,
    effectivity,
    flag_caption,
    flag_counts,
    sizes,
)
from experiments.studies.defect_fits import reference_simulation, training_factors, weighted_fit
from experiments.studies.pairs import FITTED, Config, Point, points
from experiments.studies.predictions import predicted_and_enclosed, simulated
from experiments.systems.materials import MATERIALS, named_pair
from experiments.systems.observations import FLAGS, OBSERVATION_SETS

VERSION = 2
"""Of the records."""


def compute(point: Point) -> dict[str, Any]:
    """Both observation sets at one size; arrays over the sets, in the order of FITTED."""
    factors = training_factors(point, point.m)
    fits = [weighted_fit(point, factors, OBSERVATION_SETS[name]) for name in FITTED]
    found = [predicted_and_enclosed(point, r) | simulated(point, r) for r in fits]
    simulation = reference_simulation(point)
    return {
        "radius": point.radius(point.m),
        "n_functions": point.spec.n_columns,
        "target_atoms": simulation.defect.structure.n_atoms,
        "formation_energy_reference": simulation.formation_energy,
        "reference_converged": simulation.converged,
        **{name: np.array([values[name] for values in found]) for name in found[0]},
    }


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Curves and effectivities (predicted over true) of every pair and observation set."""
    pairs = {}
    for crystal, defect in (named_pair(pair, "/") for pair in config.pairs):
        who = crystal.key, defect
        arrays = [r.arrays for r in records if (r.point.material, r.point.defect) == who]
        about: dict[str, Any] = {"crystal": crystal.crystal} | {
            name: arrays[0][name].item()
            for name in ("n_functions", "target_atoms", "formation_energy_reference")
        }
        about["reference_converged"] = all(bool(a["reference_converged"]) for a in arrays)
        pairs[f"{crystal.name}/{defect}"] = about | {
            name: curve_of(arrays, k) for k, name in enumerate(FITTED)
        }
    curves = {f"{pair} {name}": pairs[pair][name] for pair in pairs for name in FITTED}
    return {
        "figure": "defect_survey",
        "preset": preset,
        "n_fits": sum(len(curve["L"]) for curve in curves.values()),
        "flags": flag_counts(curves),
        "effectivity": {
            name: {
                "geometry": effectivity(curve, "geometry"),
                "energy": effectivity(curve, "energy"),
            }
            for name, curve in curves.items()
        },
        **against_forces(curves),
        "enclosures": {quantity: enclosures_of(curves, quantity) for quantity in SLACK},
        "pairs": pairs,
    }


def enclosures_of(curves: dict[str, dict], quantity: str) -> dict[str, Any]:
    """How many true errors of unflagged fits are enclosed, and the far end over them."""
    names = (f"enclosure_{quantity}_low", f"enclosure_{quantity}", f"{quantity}_error", *FLAGS)
    column = {n: np.concatenate([np.array(c[n], float) for c in curves.values()]) for n in names}
    sound = ~np.any([column[flag] > 0 for flag in FLAGS], axis=0)
    low, high, true = (column[n][sound] for n in names[:3])
    far = np.maximum(np.abs(low), np.abs(high)) / np.abs(true)
    known = np.isfinite(far)
    held = (low - SLACK[quantity] <= true) & (true <= high + SLACK[quantity])
    return {
        "n": int(sum(known)),
        "of": int(sum(sound)),
        "held": int(sum(held)),
        "upper_over_true": [*extremes(far), float(np.median(far[known]))] if any(known) else None,
    }


def against_forces(curves: dict[str, dict]) -> dict[str, Any]:
    """The geometry error beside what is made of the forces at the reference's geometry.

    Of the fits without a flag: eta, eta / c and the plain RMSE as predictors, and how far eta / c
    overestimates.
    """
    names = ("eta", "rmse", "stability", "geometry_error", *FLAGS)
    column = {n: np.concatenate([np.array(c[n], float) for c in curves.values()]) for n in names}
    sound = ~np.any([column[flag] > 0 for flag in FLAGS], axis=0)
    eta, rmse, c, true = (column[n][sound] for n in names[:4])
    predictors = {"eta": eta, "eta/c": eta / c, "rmse": rmse}
    return {
        "geometry_error_against": {n: relation(x, true) for n, x in predictors.items()},
        "eta_over_c_over_true": [*extremes(eta / c / true), float(np.median(eta / c / true))],
    }


SLACK = {"geometry": 1e-5, "energy": 1e-7}
"""Å and eV, by which enclosures may miss: relaxations end at forces of 1e-6 eV/Å."""
COLOURS = {"bcc": PALETTE[0], "fcc": PALETTE[1], "diamond": PALETTE[2]}
MARKERS = dict(zip(MATERIALS, "os^DosDos", strict=True))
OTHER = "P"  # of materials from files


def draw_scatter(ax: Axes, summary: dict, quantity: str, unit: str) -> None:
    """Predicted against true, every fit of every pair."""
    for pair, found in summary["pairs"].items():
        for fitted in FITTED:
            x, y = (sizes(found[fitted], f"{quantity}_{of}") for of in ("error", "predicted"))
            if quantity == "geometry":
                ends = (sizes(found[fitted], f"enclosure_geometry{of}") for of in ("_low", ""))
                ax.vlines(x, *ends, color="0.6", lw=3, alpha=0.5, zorder=1)
            ax.loglog(x, y, **sign_of(pair, found, fitted))
            draw_flags(ax, x, y, found[fitted])
    ends = np.array(ax.get_xlim())
    ax.plot(ends, ends, "--", color="0.5", lw=0.9, zorder=1)
    label_axes(ax, (f"true {quantity} error", unit), (f"predicted {quantity} error", unit))


def draw_deviation(ax: Axes, summary: dict) -> None:
    """What first order leaves out of the geometry, as a share of it: of first order itself."""
    for pair, found in summary["pairs"].items():
        for fitted in FITTED:
            true = sizes(found[fitted], "geometry_error")
            y = np.abs(np.array(effectivity(found[fitted], "geometry")) - 1.0)
            ax.loglog(true, y, **sign_of(pair, found, fitted))
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    ratio = np.nanmedian(points[:, 1] / points[:, 0])
    ends = np.array(ax.get_xlim())
    ax.plot(ends, ratio * ends, "--", color="0.5", lw=0.9, zorder=1, label="slope 1")
    ax.legend(fontsize=8)
    label_axes(ax, ("true geometry error", "Å"), ("|predicted / true - 1|", None))


def sign_of(pair: str, found: dict, fitted: str) -> dict[str, Any]:
    """How a pair's fits are drawn."""
    name, defect = pair.split("/")
    fill = dict(mfc="none") if fitted != FITTED[0] else {}
    size, colour = 5 if defect == "vacancy" else 8, COLOURS[found["crystal"]]
    return dict(ls="", marker=MARKERS.get(name, OTHER), color=colour, ms=size, alpha=0.8, **fill)


def draw_key(ax: Axes, summary: dict) -> None:
    """What colours, signs and fillings mean."""
    ax.axis("off")
    crystals = {pair.split("/")[0]: found["crystal"] for pair, found in summary["pairs"].items()}
    for name, crystal in crystals.items():
        ax.plot([], [], MARKERS.get(name, OTHER), color=COLOURS[crystal], label=name)
    ax.plot([], [], "o", color="0.4", ms=8, label="large: not a vacancy")
    ax.plot([], [], "o", color="0.4", label=f"filled: fitted to {LABELS[FITTED[0]]}")
    ax.plot([], [], "o", color="0.4", mfc="none", label=f"open: to {LABELS[FITTED[1]]}")
    ax.legend(loc="center", fontsize=8)


def plot(summary: dict) -> Figure:
    pairs = summary["pairs"]
    columns, rows = min(max(len(pairs), 4), 7), math.ceil(len(pairs) / 7)
    width = 2.1 * columns
    figure = plt.figure(figsize=(width, 4.4 + 2.3 * rows))
    upper, lower = figure.add_gridspec(2, 1, height_ratios=(3.2, 2.0 * rows))
    geometry, energy, deviation, key = upper.subgridspec(
        1, 4, width_ratios=(1, 1, 1, 0.5)
    ).subplots()
    draw_scatter(geometry, summary, "geometry", "Å")
    draw_scatter(energy, summary, "energy", "eV")
    draw_deviation(deviation, summary)
    draw_key(key, summary)
    panels = lower.subgridspec(rows, columns).subplots(sharey=True, squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    for ax, (pair, found) in zip(panels.flat, pairs.items(), strict=False):
        ax.axis("on")
        for fitted in FITTED:
            draw_errors(ax, found[fitted], "geometry", fitted, "Å")
        ax.set_title(pair.replace("/", " "), fontsize=8)
        label_axes(ax, ("L", "Å"), ("", None))
    for ax in panels[:, 0]:
        label_axes(ax, ("L", "Å"), ("geometry error", "Å"))
    text = "\n".join(textwrap.fill(x, int(15 * width)) for x in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: dict) -> str:
    """What the figure shows, with this run's numbers."""

    def span(quantity: str) -> str:
        values = [v for found in summary["effectivity"].values() for v in found[quantity]]
        low, high = extremes(values)
        return f"{low:.4g} and {high:.4g} (median {np.nanmedian(values):.4g})"

    lost = [pair for pair, found in summary["pairs"].items() if not found["reference_converged"]]
    return (
        f"{summary['n_fits']} fits for {len(summary['pairs'])} defects: true errors of the relaxed "
        "defect against those predicted, to first order, from the forces of the fit at the "
        "reference's geometry. In the fits without a flag predicted / true lies between "
        f"{span('geometry')} for the geometry, {span('energy')} for the formation energy. Right: "
        f"what first order leaves out. {about_enclosures(summary)}{about_forces(summary)}\n"
        "Lower panels: the geometry error against the radius of the training cell, fitted to "
        f"{LABELS[FITTED[0]]} (squares) and "
        f"{LABELS[FITTED[1]]} (diamonds); filled: true, open: predicted."
        + flag_caption(summary["flags"])
        + (f" THE REFERENCE'S RELAXATION DID NOT CONVERGE for {', '.join(lost)}." if lost else "")
    )


def about_enclosures(summary: dict) -> str:
    """How many of the enclosures there are and hold, and how wide they are."""
    words = []
    for quantity, found in summary["enclosures"].items():
        if found["upper_over_true"] is None:
            return ""
        _, high, middle = found["upper_over_true"]
        words.append(
            f"{quantity} {found['held']} of {found['n']} ({found['of'] - found['n']} without), far "
            f"end over true {middle:.4g} in the median and {high:.3g} at most"
        )
    return f"Enclosures after steps (grey) hold the true error: {'; '.join(words)}. "


def about_forces(summary: dict) -> str:
    """How well the bound and two norms of the forces tell the geometry error."""
    low, high, middle = summary["eta_over_c_over_true"]
    found = summary["geometry_error_against"]
    if found["eta"]["spearman"] is None:
        return ""
    ranks = ", ".join(f"{name} {f['spearman']:.2f}" for name, f in found.items())
    return (
        f"eta / c over true lies between {low:.2g} and {high:.2g} (median {middle:.2g}). Rank "
        f"correlation with the geometry error: {ranks}, rmse that of the same forces."
    )


PRESETS = {
    "smoke": Config(
        pairs=("W/vacancy", "W/divacancy-1"),
        sizes=(2,),
        target_atoms=50,
        order=2,
        degree=4,
        copies=20,
        lattice_cells=3,
    ),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("defect_survey", PRESETS, argv, __doc__)
    return Plan(
        run,
        points(run.config),
        compute,
        summarise,
        lambda summary, _: plot(summary),
        caption,
        VERSION,
    )


main = script(plan)


if __name__ == "__main__":
    main()
