"""Does the rigidity of a prediction predict the error of a defect simulation?

Over the fits of `vacancy_convergence` (sizes of training cells, observation sets, degrees), all of
it from the factor of the fit and the geometry that the fit itself relaxes to, without a reference:

- LPR of every atom against its distance from the defect, 1 / (B_i^T H^-1 B_i);
- the rigidity PR of the formation energy, by implicit differentiation (to first order the geometry
  does not matter);
- the spread of the forces at equilibrium in the negative norm,
  E ||X_F dc||_{-1}^2 = sum_k ||X_F R^-1 e_k||_{-1}^2 over dc ~ N(0, H^-1).

A rigidity has the unit of its prediction^-2 and knows no targets. With the weighted residual per
degree of freedom, s^2 = sum_k w_k^2 |X_k c - y_k|^2 / (rows - K), it becomes an error, s / PR^1/2
in eV. These are compared with the true errors, beside what first-order theory says *with* the
reference's forces, and beside L alone: errors and rigidities both follow it, so that what a
rigidity says of its own is its rank correlation at fixed L.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.linalg import solve_triangular
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import Run, start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import rank_within, relation
from experiments.harness.style import PALETTE, label_axes
from experiments.panels.errors import COLOURS, LABELS, MARKERS, ticks_at
from experiments.studies.defect_fits import (
    TINY,
    bulk,
    reference_simulation,
    simulate,
    training_factors,
    weighted_fit,
)
from experiments.studies.predictions import predicted
from experiments.studies.size_sweep import Config, points
from experiments.systems.observations import FAILED, FLAGS, OBSERVATION_SETS
from lprjax.ace.basis import site_basis
from lprjax.atoms.chemiscope import write_chemiscope
from lprjax.atoms.graphs import build_graph
from lprjax.regression.fitting import Fit
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import design_rows

PREDICTORS = {
    "energy_error": {
        "energy_spread": "PR of $E_f$: $s\\,/\\,PR^{1/2}$",
        "energy_compliance": "PR of $E_f$: $PR^{-1/2}$ alone",
        "energy_predicted": "first order, with the reference's forces",
        "1/L": "1/L alone",
    },
    "geometry_error": {
        "force_spread": "spread of the forces, times $s$",
        "force_compliance": "spread of the forces alone",
        "eta": r"$\eta$, with the reference's forces",
        "rmse": "force RMSE at the defect",
        "1/L": "1/L alone",
    },
}
"""Of each true error: what may predict it, and what it is called."""
WORDS = {
    "energy_spread": "s / PR^1/2",
    "energy_compliance": "PR^-1/2 alone",
    "energy_predicted": "first order, which knows the reference's forces,",
    "force_spread": "the spread of the forces times s",
    "force_compliance": "that spread alone",
    "eta": "eta",
    "rmse": "the plain RMSE of eta's forces",
    "1/L": "1/L alone",
}
"""The same in the caption."""


def compute(point: Config) -> dict[str, Any]:
    """All observation sets at one size and degree; arrays over the sets, in their order."""
    (m,) = point.sizes
    factors = training_factors(point, m)
    found: dict[str, list] = {}
    for fitted in point.fitted:
        result = weighted_fit(point, factors, OBSERVATION_SETS[fitted])
        for name, value in {
            **predicted(point, result),
            **rigidities(point, result),
            "s": residual_scale(point, factors, result),
        }.items():
            found.setdefault(name, []).append(value)
    defect, _, formation_energy, converged = reference_simulation(point)
    return {
        "radius": point.radius(m),
        "n_functions": point.spec.n_columns,
        "distance": defect.distances()[np.asarray(defect.site_of_atom)],
        "formation_energy_reference": formation_energy,
        "reference_converged": converged,
        **{name: np.array(values) for name, values in found.items()},
    }


def rigidities(config: Config, result: Fit) -> dict[str, Any]:
    """The defect relaxed with the fit: true errors, and how rigid its predictions are
    (NaN where it did not relax)."""
    defect, *_ = reference_simulation(config)
    found, spec, n = simulate(config, result.coefficients), config.spec, defect.structure.n_atoms
    errors = {name: getattr(found, name) for name in found._fields if name != "displacement"}
    if found.unconverged or found.left_basin:
        nothing = dict.fromkeys(("formation_rigidity", "force_compliance"), np.nan)
        return errors | nothing | {"rigidity": np.full(n, np.nan)}
    graph = build_graph(defect.displaced(found.displacement), spec.r_cut)
    rows = design_rows(spec, graph, ("energy", "forces"))
    # d E_f / dc at the relaxed geometry (Hellmann and Feynman): `relaxed_formation_energy`'s row.
    formation = rows.energy - n * bulk(config).row
    return errors | {
        "rigidity": local_prediction_rigidity(result.factor, site_basis(spec, graph)[:n]),
        "formation_rigidity": float(prediction_rigidity(result.factor, formation)),
        "force_compliance": force_compliance(result.factor, rows.forces[:n], defect),
    }


def force_compliance(factor, force_rows, defect) -> float:
    """(sum_k ||X_F R^-1 e_k||_{-1}^2)^(1/2): the negative norm of forces that are as uncertain as
    the data leave them; eV/Å for s = 1. force_rows: X_F (n, 3, K)."""
    spread = solve_triangular(factor, force_rows.reshape(-1, len(factor)).T, trans="T")
    patterns = spread.reshape(len(factor), *force_rows.shape[:2])
    norms = jax.lax.map(lambda f: defect.lattice.negative_norm(defect.on_sites(f)), patterns)
    return float(jnp.linalg.norm(norms))


def residual_scale(config: Config, factors, result: Fit) -> float:
    """s: what a weighted residual is on average, per degree of freedom; no unit."""
    rows = {key: int(factors[key].n_rows) for key in result.rms}
    loss = sum(n * (config.weights[key] * result.rms[key]) ** 2 for key, n in rows.items())
    return float(np.sqrt(loss / max(sum(rows.values()) - result.rank, 1)))


def table_of(config: Config, records: Sequence[Record]) -> dict[str, np.ndarray]:
    """One row per fit: basis, observation set, L, true errors and what may predict them."""
    rows = []
    for record in records:
        a = record.arrays
        for k, fitted in enumerate(record.point.fitted):
            one = {name: a[name][k] for name in (*FLAGS, "s", "formation_rigidity")}
            one |= {
                name: a[name][k] for found in PREDICTORS.values() for name in found if name in a
            }
            one |= {name: abs(a[name][k]) for name in ("geometry_error", "energy_error")}
            rows.append(
                {"degree": record.point.degree, "fitted": fitted, "L": float(a["radius"])} | one
            )
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    table["1/L"] = 1.0 / table["L"]
    table["energy_predicted"] = np.abs(table["energy_predicted"])
    table["energy_compliance"] = 1.0 / np.sqrt(table["formation_rigidity"])
    table["energy_spread"] = table["s"] * table["energy_compliance"]
    table["force_spread"] = table["s"] * table["force_compliance"]
    return table


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    table = table_of(config, records)
    sound = ~np.any([table[flag] for flag in FAILED], axis=0)
    held = {  # the largest LPR over the smallest, of atoms
        fitted: [float(np.max(r.arrays["rigidity"][k]) / np.min(r.arrays["rigidity"][k]))
                 for r in records if fitted in r.point.fitted and r.point.degree == config.degree]
        for k, fitted in enumerate(config.fitted)
    }  # fmt: skip
    return {
        "figure": "defect_rigidity",
        "preset": preset,
        "material": config.crystal.name,
        "defect": config.defect,
        "target_atoms": len(records[0].arrays["distance"]),
        "n_functions": int(records[0].arrays["n_functions"]),
        "reference_converged": all(bool(r.arrays["reference_converged"]) for r in records),
        "fits": table | {"fitted": [str(f) for f in table["fitted"]]},
        "sound_fits": int(sound.sum()),
        "flags": {flag: int(table[flag].sum()) for flag in FLAGS},
        "lpr_range_over_atoms": held,
        "relations": relations(table, sound),
        "energy_error_over_spread": _quantiles(
            table["energy_error"] / table["energy_spread"], sound
        ),
    }


def relations(table: dict[str, np.ndarray], sound: np.ndarray) -> dict[str, dict[str, dict]]:
    """How well each predictor predicts its error, over all fits and among those of one L."""
    at_fixed = table["L"][sound]
    return {
        error: {
            name: relation(x := table[name][sound], y := table[error][sound])
            | {"spearman_at_fixed_L": None if name == "1/L" else rank_within(x, y, at_fixed)}
            for name in predictors
        }
        for error, predictors in PREDICTORS.items()
    }


def _quantiles(ratio: np.ndarray, sound: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(ratio[sound], (0.1, 0.5, 0.9)) if sound.any() else [np.nan] * 3
    return {"10%": float(low), "median": float(middle), "90%": float(high)}


def draw_profile(ax: Axes, record: Record, k: int, label: str, colour, marker: str) -> None:
    """LPR of the atoms of one fit by shells: the least rigid atom of each distance."""
    distance, rigidity = record.arrays["distance"], record.arrays["rigidity"][k]
    shells = np.round(distance, 1)
    x = np.unique(shells)
    y = [np.min(rigidity[shells == shell]) for shell in x]
    ax.semilogy(x, y, marker=marker, ms=3, lw=0.8, color=colour, label=label)


def draw_relation(ax: Axes, summary: dict, table: dict, name: str, error: str, units) -> None:
    sound = ~np.any([table[flag] for flag in FAILED], axis=0)
    for fitted in dict.fromkeys(table["fitted"]):
        chosen = sound & (table["fitted"] == fitted)
        style = dict(marker=MARKERS[fitted], color=COLOURS[fitted], ls="")
        ax.loglog(table[name][chosen], table[error][chosen], label=LABELS[fitted], **style)
    found = summary["relations"][error][name]
    if found["spearman"] is not None:
        ax.set_title(f"rank correlation {found['spearman']:.2f}", fontsize=9)
    label_axes(
        ax, (PREDICTORS[error][name], units[0]), ("true " + error.replace("_", " "), units[1])
    )


def draw_correlations(ax: Axes, summary: dict) -> None:
    """Over all fits (bars), and at fixed L (ticks)."""
    bars = [
        (f"{error.split('_')[0]}: {label}", summary["relations"][error][name], colour)
        for colour, (error, names) in zip(PALETTE, PREDICTORS.items(), strict=False)
        for name, label in names.items()
    ]
    names, found, colours = zip(*bars, strict=True)
    overall, fixed = (
        [np.nan if f[key] is None else f[key] for f in found]
        for key in ("spearman", "spearman_at_fixed_L")
    )
    ax.barh(range(len(bars)), overall, color=colours, alpha=0.5)
    ax.plot(fixed, range(len(bars)), "k|", ms=12, label="at fixed L")
    ax.axvline(0.0, color="0.5", lw=0.8)
    ax.set_xlim(-0.4, 1.0)
    ax.legend(fontsize=6.5, loc="lower left")
    for place, name in enumerate(names):
        ax.text(0.02, place, name, va="center", fontsize=7)
    ax.set_yticks([])
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlabel("rank correlation with the true error")


def plot(summary: dict, records: list[Record], config: Config) -> Figure:
    figure, axes = plt.subplots(2, 3, figsize=(14.0, 8.0))
    table, sweep = (
        table_of(config, records),
        [r for r in records if r.point.degree == config.degree],
    )
    which = config.fitted.index("EF") if "EF" in config.fitted else 0
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(sweep)))
    for record, shade in zip(sweep, shades, strict=True):
        radius = float(record.arrays["radius"])
        draw_profile(axes[0, 0], record, which, f"L = {radius:.1f} Å", shade, ".")
        axes[0, 0].axvline(radius, color=shade, lw=0.7, ls=":")
    axes[0, 0].set_title(f"fitted to {LABELS[config.fitted[which]]}", fontsize=9)
    middle = sweep[len(sweep) // 2]
    for k, fitted in enumerate(config.fitted):
        draw_profile(axes[0, 1], middle, k, LABELS[fitted], COLOURS[fitted], MARKERS[fitted])
    axes[0, 1].set_title(f"trained on L = {float(middle.arrays['radius']):.1f} Å", fontsize=9)
    for ax in axes[0, :2]:
        label_axes(ax, ("distance from the defect", "Å"), ("least LPR of a shell", "eV$^{-2}$"))
    for fitted in config.fitted:
        chosen = (table["fitted"] == fitted) & (table["degree"] == config.degree)
        x, y = table["L"][chosen], table["formation_rigidity"][chosen]
        style = dict(marker=MARKERS[fitted], color=COLOURS[fitted], label=LABELS[fitted])
        axes[0, 2].loglog(x, y, **style)
    label_axes(axes[0, 2], ("L", "Å"), ("rigidity of the formation energy", "eV$^{-2}$"))
    ticks_at(axes[0, 2], np.unique(table["L"]))
    draw_relation(axes[1, 0], summary, table, "energy_spread", "energy_error", ("eV", "eV"))
    ends = np.array(axes[1, 0].get_xlim())
    axes[1, 0].plot(ends, ends, "--", color="0.5", lw=0.9, label="equal")
    draw_relation(axes[1, 1], summary, table, "force_spread", "geometry_error", ("eV/Å", "Å"))
    draw_correlations(axes[1, 2], summary)
    for ax in axes.flat[:5]:
        ax.legend(fontsize=6.5)
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def caption(summary: dict) -> str:
    relations, ratio = summary["relations"], summary["energy_error_over_spread"]

    def ranks(error: str) -> str:
        parts = []
        for name, found in relations[error].items():
            overall, fixed = found["spearman"], found["spearman_at_fixed_L"]
            text = "undetermined" if overall is None else f"{overall:.2f}"
            fixed = "" if fixed is None else f" ({fixed:.2f} at fixed L)"
            parts.append(f"{WORDS[name]} {text}{fixed}")
        return f"{error.split('_')[0]}, with " + ", with ".join(parts)

    lost = "" if summary["reference_converged"] else " THE REFERENCE'S RELAXATION DID NOT CONVERGE."
    return (
        f"{summary['defect']} in {summary['material']}, {summary['target_atoms']} atoms, relaxed "
        f"with {summary['sound_fits']} fits of vacancy_convergence. Upper row: what the training "
        "data pin down (dotted: L). Lower row: does it predict the true error? Rank correlations: "
        + "; ".join(map(ranks, PREDICTORS))
        + f".\nTrue energy error over s / PR^1/2: median {ratio['median']:.2g}, 10 and 90 % "
        f"quantiles {ratio['10%']:.2g} and {ratio['90%']:.2g}; "
        "the median would be 0.67 if residuals were noise as independent as the loss takes them."
        + lost
    )


PRESETS = {
    "smoke": Config(**TINY, sizes=(2,), floor_degrees=()),
    "paper": Config(floor_degrees=(8, 6)),
}


def write_cells(run: Run, records: Sequence[Record]) -> None:
    """The defect for chemiscope, once per size of the training cells: LPR of each atom by fit.

    At the reference's geometry, which differs little from that of each fit, where they are of."""
    defect, displacement, *_ = reference_simulation(run.config)
    sweep = [record for record in records if record.point.degree == run.config.degree]
    sound = [record for record in sweep if not np.isnan(record.arrays["rigidity"]).any()]
    if sound:
        arrays = {
            f"lpr, {LABELS[fitted]}": [record.arrays["rigidity"][k] for record in sound]
            for k, fitted in enumerate(run.config.fitted)
        }
        write_chemiscope(
            run.folder / "defect_rigidity.json.gz",
            [defect.displaced(displacement)] * len(sound),
            arrays,
            title=f"{run.config.defect} in {run.config.crystal.name}",
            description="trained on L = "
            + ", ".join(f"{float(record.arrays['radius']):.1f}" for record in sound)
            + " Å, one structure each",
            units=dict.fromkeys(arrays, "1/eV^2"),
        )


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("defect_rigidity", PRESETS, argv, __doc__)

    def drawn(summary: dict[str, Any], records: list[Record]) -> Figure:
        write_cells(run, records)
        return plot(summary, records, run.config)

    return Plan(run, points(run.config), compute, summarise, drawn, caption)


main = script(plan)


if __name__ == "__main__":
    main()
