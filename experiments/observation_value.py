"""Which observations buy the smallest defect error: error against what the labels cost.

For each labelling budget and strategy (more cells of one size, larger cells, virials, force
constants, mixtures) a linear ACE is fitted, and the defect relaxed with it in a larger cell. All
strategies share basis and loss weights. What labels cost: see `studies.labelling_costs`. Theory
(after Ortner–Wang, derived), at a fixed mismatch of each kind: a larger training cell, of radius L,
takes the far-field part of the geometry error down as L^-1.5; virials take away what the elastic
constants get wrong in it, force constants the rest of first order; more cells of one size can
lower the mismatches only as far as the basis and the weights let them.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import extremes, relation
from experiments.panels.errors import flag_caption
from experiments.panels.value import draw, table
from experiments.studies.defect_fits import (
    TINY,
    bulk_factors,
    reference_simulation,
    residual_norm,
    weighted_fit,
)
from experiments.studies.labelling_costs import (
    Config,
    allocation,
    cost,
    n_atoms,
    strategies,
    training_data,
    weights,
)
from experiments.studies.many_fits import elastic_rows
from experiments.studies.predictions import predicted, simulated
from experiments.systems.observations import FAILED, FLAGS
from lprjax.regression.fitting import Fit


@dataclass(frozen=True)
class Point:
    config: Config
    strategy: str


def points(config: Config) -> list[Point]:
    """One point per draw of the rattles and strategy; its arrays run over the budgets."""
    return [
        Point(replace(config, seeds=(), seed=seed), name)
        for seed in config.seeds
        for name in strategies(config)
    ]


VERSION = 2
"""Of the records."""
NUMBERS = (
    "geometry_error", "energy_error", "geometry_predicted", "energy_predicted",
    "eta", "rmse", "energy", "elastic", "force_constants",
)  # fmt: skip


def compute(point: Point) -> dict[str, Any]:
    """One strategy and draw; NaN where a budget does not pay for it."""
    config = point.config
    strategy = strategies(config)[point.strategy]
    rows = []
    for budget in config.budgets:
        counts = allocation(config, strategy, budget)
        spent = cost(config, counts, strategy.kinds)
        row = dict.fromkeys(NUMBERS, np.nan) | dict.fromkeys(FLAGS, False)
        if counts:
            factors = training_data(config, counts, strategy.kinds)
            row |= outcome(config, weighted_fit(config, factors, weights=weights(config, strategy)))
        rows.append(
            row
            | {"affordable": bool(counts), **spent._asdict()}
            | {f"cells_{m}": counts.get(m, 0) for m in config.sizes}
        )
    defect, _, _, converged = reference_simulation(config)
    return {
        "n_functions": config.spec.n_columns,
        "target_atoms": defect.structure.n_atoms,
        "smallest_atoms": n_atoms(config, config.sizes[0]),
        "reference_converged": converged,
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
    }


def outcome(config: Config, result: Fit) -> dict[str, Any]:
    """Errors, predicted and true, mismatches and failures of a fit."""
    constants = bulk_factors(config)["force_constants"]
    return {
        **predicted(config, result),
        **simulated(config, result),
        "elastic": elastic_rows(config).mismatch(np.asarray(result.coefficients)),
        "force_constants": residual_norm(constants, result.coefficients),
    }


def curve_of(records: list[Record]) -> dict[str, list]:
    """One strategy against the budgets: means over the draws, and their least and largest error.

    Means are geometric, of sizes, over the fits that ended in a relaxed defect; a flag is up where
    it is for any draw.
    """
    stacked = {
        name: np.array([record.arrays[name] for record in records]) for name in records[0].arrays
    }
    paid = stacked["affordable"][0]
    sound = ~np.any([stacked[flag] for flag in FAILED], axis=0) & stacked["affordable"]
    bought = ("calls", "atom_calls", *(n for n in stacked if n.startswith("cells_")))
    curve = {"budget": np.array(records[0].point.config.budgets)[paid].tolist()}
    curve |= {name: stacked[name][0][paid].tolist() for name in bought}
    curve |= {flag: np.any(stacked[flag], axis=0)[paid].tolist() for flag in FLAGS}
    logs = {n: np.log(np.where(sound, np.abs(stacked[n]), np.nan)) for n in NUMBERS}
    for name, values in logs.items():
        curve[name] = [_mean(column) for column in values.T[paid]]
    for name in ("geometry_error", "energy_error"):
        ends = [extremes(np.exp(column)) for column in logs[name].T[paid]]
        curve[f"{name}_least"], curve[f"{name}_largest"] = map(list, zip(*ends, strict=True))
    return curve


def _mean(logs: np.ndarray) -> float:
    finite = logs[np.isfinite(logs)]
    return float(np.exp(np.mean(finite))) if len(finite) else float("nan")


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: the curves, their slopes, the best buy of each budget, and failures."""
    by_strategy: dict[str, list[Record]] = {}
    for record in records:
        by_strategy.setdefault(record.point.strategy, []).append(record)
    curves = {name: curve_of(found) for name, found in by_strategy.items()}
    first = records[0].arrays
    for curve in curves.values():
        for quantity in ("geometry", "energy"):
            pairs = np.array([curve["atom_calls"], curve[f"{quantity}_error"]], float)
            found = relation(*pairs[:, np.isfinite(pairs[1])])
            curve[f"{quantity}_slope"] = found["slope"]
            curve[f"{quantity}_slope_error"] = found["slope_error"]
    everything = {n: np.concatenate([r.arrays[n] for r in records]) for n in (*NUMBERS, *FAILED)}
    sound = ~np.any([everything[flag] for flag in FAILED], axis=0)
    sound &= np.isfinite(everything["geometry_error"])
    x = {n: np.abs(everything[n][sound]) for n in NUMBERS}
    return {
        "figure": "observation_value",
        "preset": preset,
        "material": config.crystal.name,
        "defect": config.defect,
        "n_functions": int(first["n_functions"]),
        "target_atoms": int(first["target_atoms"]),
        "smallest_atoms": int(first["smallest_atoms"]),
        "target": config.target,
        "sizes": config.sizes,
        "budgets": config.budgets,
        "draws": len(config.seeds),
        "reference_converged": all(bool(r.arrays["reference_converged"]) for r in records),
        "weights": {str(key): weight for key, weight in config.weights.items()},
        "light": config.light,
        "fits": sum(int(record.arrays["affordable"].sum()) for record in records),
        "flags": {f: int(sum(r.arrays[f].sum() for r in records)) for f in FLAGS},
        "geometry_error_against": {
            name: relation(x[name], x["geometry_error"])
            for name in (*MISMATCHES.values(), "geometry_predicted")
        },
        "predicted_over_true": {
            quantity: extremes(x[f"{quantity}_predicted"] / x[f"{quantity}_error"])
            for quantity in ("geometry", "energy")
        },
        "best": best(config, curves),
        "curves": curves,
    }


def best(config: Config, curves: dict) -> dict[str, list]:
    """For every budget the strategy with the smallest error, None where none succeeded."""
    found: dict[str, list] = {"budget": list(config.budgets)}
    for quantity in ("geometry", "energy"):
        for budget in config.budgets:
            errors = {
                name: curve[f"{quantity}_error"][curve["budget"].index(budget)]
                for name, curve in curves.items()
                if budget in curve["budget"]
            }
            finite = {name: error for name, error in errors.items() if np.isfinite(error)}
            winner = min(finite, key=finite.get) if finite else None
            found.setdefault(quantity, []).append(winner)
            found.setdefault(f"{quantity}_error", []).append(finite.get(winner, np.nan))
    return found


PANELS = {
    "geometry_error": ("geometry error", "Å"),
    "energy_error": ("energy error", "eV"),
    "eta": (r"mismatch: forces, $\eta$", "eV/Å"),
    "elastic": ("mismatch: acoustic tensor", "GPa"),
    "force_constants": ("mismatch: force constants", "eV/Å$^2$"),
}


def plot(summary: dict) -> Figure:
    """Errors above, with the table's legend; the mismatches that explain them below."""
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 8.4))
    legend, drawn = axes[0, 2], [*axes[0, :2], *axes[1]]
    for ax, (quantity, labels) in zip(drawn, PANELS.items(), strict=True):
        draw(ax, summary, quantity, *labels)
    handles, names = drawn[0].get_legend_handles_labels()
    legend.axis("off")
    legend.legend(handles, names, title="rattled defect cells, and", loc="center", fontsize=8)
    text = "\n".join(textwrap.fill(line, 195) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: dict) -> str:
    """What theory expects and what came out, with this run's numbers."""
    lost = "" if summary["reference_converged"] else " THE REFERENCE'S RELAXATION DID NOT CONVERGE."
    bests, against = summary["best"], summary["geometry_error_against"]

    def winners(quantity: str, unit: float, name: str) -> str:
        rows = zip(bests["budget"], bests[quantity], bests[f"{quantity}_error"], strict=True)
        return "; ".join(f"{b} calls: {who} ({unit * e:.2g} {name})" for b, who, e in rows if who)

    opening = (
        f"{summary['defect']} in {summary['material']}, {summary['target_atoms']} atoms; "
        f"{summary['fits']} fits of {summary['n_functions']} functions, {summary['draws']} draws "
        "of the rattles (band: least to largest). m: cubic cells per side of the rattled defect "
        f"cells (E+F), {summary['target']} of the simulated one. A call of the smallest "
        f"has {summary['smallest_atoms']} atoms. Light: V and FC with {summary['light']:g} "
        "times the weight."
    )
    if against["eta"]["spearman"] is None:
        return opening + flag_caption(summary["flags"]) + lost
    ratio = summary["predicted_over_true"]["geometry"]
    ranks = {n: against[f]["spearman"] for n, f in MISMATCHES.items()}
    others = max(abs(against[name]["spearman"]) for name in ("elastic", "force_constants"))
    repaired = "explain it too" if others > 0.8 else "are not what limits the geometry here"
    slopes = ", ".join(
        f"{n} {c['geometry_slope']:.2f} ± {c['geometry_slope_error']:.2f}"
        for n, c in summary["curves"].items()
        if c["geometry_slope"] is not None
    )
    return (
        f"{opening}\nExpected at fixed mismatches: larger cells take the far field down as "
        "L^-1.5, virials and force constants take their terms out of it; more cells of one size "
        "only lower the mismatches. Best buy by geometry, "
        f"{winners('geometry', 1.0, 'Å')}. By energy, {winners('energy', 1e3, 'meV')}.\n"
        f"Slopes of the geometry error against cost: {slopes}.\n"
        "Rank correlation of the geometry error with its mismatches: "
        f"{', '.join(f'{n} {rank:.2f}' for n, rank in ranks.items())}; the errors of elasticity "
        f"and force constants {repaired}. Against eta the slope is {against['eta']['slope']:.2f} ± "
        f"{against['eta']['slope_error']:.2f}, the scatter {against['eta']['scatter']:.2f} "
        f"decades, against that RMSE {against['rmse']['scatter']:.2f}. "
        f"First order / true lies between {ratio[0]:.4g} and {ratio[1]:.4g}."
        + flag_caption(summary["flags"])
        + lost
    )


MISMATCHES = {
    "eta": "eta",
    "the plain force RMSE at the same geometry": "rmse",
    "acoustic tensor": "elastic",
    "force constants": "force_constants",
}

PRESETS = {
    "smoke": Config(**TINY, sizes=(2, 3), budgets=(2, 40), seeds=(0,)),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("observation_value", PRESETS, argv, __doc__)

    def drawn(summary: dict[str, Any], _: list[Record]) -> Figure:
        (run.folder / f"{run.figure}.md").write_text(table(summary) + "\n")
        print(table(summary))
        return plot(summary)

    return Plan(run, points(run.config), compute, summarise, drawn, caption, VERSION)


main = script(plan)


if __name__ == "__main__":
    main()
