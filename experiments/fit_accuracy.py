"""Error of a defect simulation against the accuracy of the fit: by which measure of accuracy?

The training cells stay the same; basis (order, degree) and ridge vary. Each fit relaxes the defect
in a larger cell. Theory (after Ortner–Wang, derived): to first order the geometry error lies
between eta / C and eta / c, eta the *negative norm* of the forces that the fit leaves at the
reference's geometry, c and C the extreme stiffnesses; the energy error is at most
e_E + eta^2 / (2 c), e_E the error of the formation energy at the reference's geometry. A force
RMSE is no norm that theory knows, but it is what fits are judged by.

All fits share one set of rows and one compiled potential: see `studies.nested_bases`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import extremes, relation
from experiments.panels.accuracy import ABSCISSAE, draw_bases, draw_energy, draw_geometry
from experiments.panels.errors import flag_caption
from experiments.studies import defect_fits
from experiments.studies.defect_fits import (
    TINY,
    bulk,
    bulk_energy,
    defect_cells,
    labelled,
    reference_simulation,
    residual_norm,
)
from experiments.studies.nested_bases import columns, sub_fit
from experiments.studies.predictions import predicted_with_stability, simulated
from experiments.systems.observations import FAILED, FLAGS
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import Factor
from lprjax.regression.fitting import Fit


@dataclass(frozen=True)
class Config(defect_fits.Config):
    """`order` and `degree`, inherited, are those of the largest basis."""

    target: int = 7  # cubic cells per side of the simulation
    copies: int = 120  # rattled defect cells fitted to
    cells: int = 4  # cubic cells per side of the training cells
    held_out: int = 20  # rattled cells that measure the RMSE
    orders: tuple[int, ...] = (2, 3)  # orders of the bases
    degrees: tuple[int, ...] = (4, 5, 6, 7, 8, 10, 12)  # total degrees of the bases
    ridges: tuple[float, ...] = (1e-10, 1e-6, 1e-3)  # ridges of every basis


def cell_factors(config: Config) -> tuple[dict, Factor]:
    """Factors of the fit, and of the forces of held-out cells, in the largest basis."""
    return _cell_factors(replace(config, orders=(), degrees=(), ridges=()))


@lru_cache(maxsize=2)
def _cell_factors(config: Config) -> tuple[dict, Factor]:
    fitted = _factors_of(config, ("energy", "forces"))
    other = replace(config, seed=config.seed + 1000, copies=config.held_out)
    return {
        ("energy", "bulk"): bulk_energy(config),
        ("energy", "defect"): fitted["energy"],
        "forces": fitted["forces"],
    }, _factors_of(other, ("energy", "forces"))["forces"]


def _factors_of(config: Config, kinds: Sequence[str]) -> dict[str, Factor]:
    samples = labelled(config, defect_cells(config, config.cells), kinds)
    return compress_structures(config.spec, samples, kinds, origin=bulk(config))


def compute(point: Config) -> dict[str, Any]:
    """One basis; arrays over the ridges."""
    (order,), (degree,) = point.orders, point.degrees
    factors, held_out = cell_factors(point)
    defect, displacement, _, converged = reference_simulation(point)
    found: dict[str, list] = {}
    for ridge in point.ridges:
        config = replace(point, ridge=ridge)
        result, full_rank = sub_fit(config, factors, order, degree)
        for name, value in {
            **predicted_with_stability(config, result),
            **simulated(config, result),
            "training_rmse": _rmse(factors["forces"], result),
            "held_out_rmse": _rmse(held_out, result),
            "rank_deficient": not full_rank,
        }.items():
            found.setdefault(name, []).append(value)
    return {
        "n_functions": len(columns(point.spec, order, degree)),
        "n_atoms": defect.structure.n_atoms,
        "reference_converged": converged,
        **{name: np.array(values) for name, values in found.items()},
    }


def _rmse(factor: Factor, result: Fit) -> float:
    return residual_norm(factor, result.coefficients) / np.sqrt(factor.n_rows)


def points(config: Config) -> list[Config]:
    """One point per basis, each smaller one inside the largest."""
    return [
        replace(config, orders=(order,), degrees=(degree,))
        for order in config.orders
        for degree in config.degrees
    ]


def table_of(records: list[Record]) -> dict[str, list]:
    """One row per fit: its basis, its ridge and every number of the record."""
    table: dict[str, list] = {}
    for record in records:
        point, arrays = record.point, record.arrays
        for k, ridge in enumerate(point.ridges):
            row = {"order": point.orders[0], "degree": point.degrees[0], "ridge": ridge}
            row |= {n: v[k].item() if v.ndim else v.item() for n, v in arrays.items()}
            for name, value in row.items():
                table.setdefault(name, []).append(value)
    return table


def energy_estimates(table: Mapping[str, list]) -> dict[str, np.ndarray]:
    """Sizes of the terms of the energy error, of their sum, and of the first-order estimate, eV."""
    at_geometry = np.abs(table["energy"])
    stability = np.array(table["stability"], float)
    softening = np.square(table["eta"]) / (2.0 * np.where(stability > 0, stability, np.nan))
    return {
        "e_E": at_geometry,
        "eta^2/2c": softening,
        "sum": at_geometry + softening,
        "first order": np.abs(table["energy_predicted"]),
    }


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: every fit, what predicts its errors and how well, and failures."""
    table = table_of(records)
    column = {n: np.array(v, float) for n, v in table.items()}
    sound = ~np.any([np.array(table[flag], bool) for flag in FAILED], axis=0)
    estimates = energy_estimates(table)
    true, energy = column["geometry_error"][sound], np.abs(column["energy_error"])[sound]
    geometry = {
        name: relation(column[name][sound], true)
        for name in (*ABSCISSAE, "training_rmse", "geometry_predicted")
    }
    return {
        "figure": "fit_accuracy",
        "preset": preset,
        "material": config.crystal.name,
        "defect": config.defect,
        "L": config.radius(config.cells),
        "target_atoms": table["n_atoms"][0],
        "reference_converged": all(table["reference_converged"]),
        "orders": config.orders,
        "ridges": config.ridges,
        "flags": {flag: sum(map(bool, table[flag])) for flag in FLAGS},
        "sound_fits": int(sound.sum()),
        "geometry_error_against": geometry,
        "energy_error_against": {n: relation(e[sound], energy) for n, e in estimates.items()},
        "predicted_over_true": extremes(column["geometry_predicted"][sound] / true),
        "eta_over_c_over_true": extremes((column["eta"] / column["stability"])[sound] / true),
        "energy_sum_over_true": extremes(estimates["sum"][sound] / energy),
        "energy_ruled_by_e_E": int(np.sum(estimates["e_E"][sound] > estimates["eta^2/2c"][sound])),
        "energy_estimates": {name: e.tolist() for name, e in estimates.items()},
        "fits": table | {"sound": sound.tolist()},
    }


def plot(summary: dict) -> Figure:
    """Basis size and energy above; geometry against three measures of accuracy below."""
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 8.4))
    draw_bases(axes[0, 0], summary)
    draw_energy(axes[0, 1], summary)
    for ax, abscissa in zip(axes[1], ABSCISSAE, strict=True):
        draw_geometry(ax, summary, abscissa)
        ax.sharey(axes[1, 0])
    axes[0, 2].axis("off")
    axes[0, 2].legend(*axes[1, 0].get_legend_handles_labels(), loc="center")
    text = "\n".join(textwrap.fill(line, 195) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: dict) -> str:
    """What theory expects and what came out, with this run's numbers."""
    lost = "" if summary["reference_converged"] else " THE REFERENCE'S RELAXATION DID NOT CONVERGE."
    opening = (
        f"{summary['defect']} in {summary['material']}, {summary['target_atoms']} atoms; "
        f"{len(summary['fits']['order'])} fits to cells of L = {summary['L']:.1f} Å, of which "
        f"{summary['sound_fits']} ended in a relaxed defect."
    )
    if summary["sound_fits"] < 3:
        return opening + " Too few to compare." + flag_caption(summary["flags"]) + lost
    geometry, energy = summary["geometry_error_against"], summary["energy_error_against"]
    eta, held_out, there = (geometry[name] for name in ("eta", "held_out_rmse", "rmse"))

    def span(name: str) -> str:
        return "{:.4g} and {:.4g}".format(*summary[name])

    scatter = {name: f"{found['scatter']:.2g}" for name, found in energy.items()}
    where = "does no worse" if there["scatter"] <= eta["scatter"] else "does worse"
    return (
        f"{opening}\nGeometry. Expected: error proportional to eta, at most eta / c. Came out: "
        f"against eta {rank(eta)}; against the RMSE of held-out forces {rank(held_out)}. The "
        f"better of the two is {'eta' if eta['scatter'] < held_out['scatter'] else 'the RMSE'}. "
        f"The plain RMSE of the very forces that eta is made of {where} than eta "
        f"({rank(there)}): the gap between it and the held-out RMSE is due to where forces "
        "are compared, the rest to the norm. First order / true lies between "
        f"{span('predicted_over_true')}, eta / c over true between "
        f"{span('eta_over_c_over_true')}.\n"
        "Energy. Expected: at most e_E + eta^2 / 2c. Came out: that sum over true lies between "
        f"{span('energy_sum_over_true')}; e_E is the larger term in "
        f"{summary['energy_ruled_by_e_E']} of the fits. Scatter: e_E alone {scatter['e_E']}, "
        f"the sum {scatter['sum']}, first order {scatter['first order']} decades."
        + flag_caption(summary["flags"])
        + lost
    )


def rank(found: Mapping[str, float]) -> str:
    """A relation in words."""
    return (
        f"rank correlation {found['spearman']:.3f}, scatter about slope 1 {found['scatter']:.2f} "
        f"decades, slope {found['slope']:.2f} ± {found['slope_error']:.2f}"
    )


PRESETS = {
    "smoke": Config(
        **TINY, cells=2, held_out=4, orders=(1, 2), degrees=(3, 4), ridges=(1e-10, 1e-2)
    ),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("fit_accuracy", PRESETS, argv, __doc__)
    return Plan(
        run, points(run.config), compute, summarise, lambda summary, _: plot(summary), caption
    )


main = script(plan)


if __name__ == "__main__":
    main()
