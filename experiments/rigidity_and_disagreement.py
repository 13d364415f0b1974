"""Where local energies are rigid, models agree; where they are not, models disagree.

Linear ACE models of several degrees, cutoffs and random halves of the training set are fitted to
energies and forces of Stillinger-Weber silicon, near the crystal. Their site energies are compared
with each other, and with the LPR, on cells like those and on cells unlike them (the experiment of
Chong et al., J. Chem. Theory Comput. 19 (2023) 8020, after its abstract, on other data).

Committees of one model: samples of the posterior, whose variance is 1/LPR (derived); bootstrap
replicates, that is fits to structures drawn with replacement, whose variance comes from the true
residuals; and the same replicates with residuals that are white noise of the assumed variance.

Site energies have a gauge freedom, since only their sums are observed. All models have the same
reference energy, none, and no constant: what is shown is the raw spread, without any alignment.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import linregress

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import relation, share_interval
from experiments.panels.disagreement import COMMITTEES, caption, plot
from experiments.studies.silicon_models import (
    BATCHES,
    KINDS,
    Config,
    Point,
    all_cells,
    calibrated,
    committees,
    fitted,
    graphs_of,
    halves,
    refits,
    site_rows,
)
from lprjax.regression.posterior import coverage
from lprjax.regression.rigidity import local_prediction_rigidity


def points(config: Config) -> list[Point]:
    """Every degree with every cutoff.

    Args:
        config: the settings.

    Returns:
        the points.

    Raises:
        ValueError: the central model is not among them, or committees do not divide into batches.
    """
    if config.samples % BATCHES or config.replicates % BATCHES:
        raise ValueError(
            f"samples is {config.samples} and replicates {config.replicates}: wanted multiples of "
            f"{BATCHES}, the number of batches."
        )
    if config.degree not in config.degrees or config.r_cut not in config.cutoffs:
        raise ValueError(
            f"degree is {config.degree} and r_cut {config.r_cut}: wanted members of degrees "
            f"{config.degrees} and cutoffs {config.cutoffs}."
        )
    return [Point(config, degree, r_cut) for degree in config.degrees for r_cut in config.cutoffs]


def compute(point: Point) -> dict[str, Any]:
    """Site energies of the test cells by the model and by the same fitted to halves, and LPR.

    Args:
        point: the model.

    Returns:
        arrays of the record, energies in eV; of the central model also the variances of its
        committees and its calibration.
    """
    config, cells = point.config, all_cells(point.config)
    graphs = graphs_of(point, cells)
    whole, parts, prior = fitted(point, graphs.train, cells.train)
    rows = site_rows(point, graphs.test, cells.test)
    refitted = refits(parts, halves(config, len(parts)), config.ridge, prior)
    families = (*config.near, *config.far)
    found = {
        "energies": np.vstack([whole.coefficients, refitted]) @ rows.T,
        "lpr": local_prediction_rigidity(whole.factor, rows),
        "true": np.concatenate([cell.sites for cell in cells.test]),
        "family": np.concatenate(
            [np.full(len(cell.sites), families.index(cell.family)) for cell in cells.test]
        ),
        "rms_energy": whole.rms["energy"],  # eV, of a cell
        "rms_forces": whole.rms["forces"],
        "rank_deficient": whole.rank < len(prior),
        "functions": len(prior),
    }
    if point.central:
        found |= committees(config, whole, parts, prior, rows)
        n_near = config.test * len(config.near)
        held_out = {
            "validation": (graphs.validation, cells.validation),
            "near": (graphs.test[:n_near], cells.test[:n_near]),
            "far": (graphs.test[n_near:], cells.test[n_near:]),
        }
        found |= calibrated(point, whole, prior, held_out, rows)
    return found


def line(variance: np.ndarray, lpr: np.ndarray) -> dict[str, float]:
    """A power law of the variance in 1/LPR.

        log variance = slope log(1/LPR) + log level

    Slope and level are from all batches; the error of the slope from their differences, as the
    sites of one committee are correlated and no sample of their own. Batches of a bootstrap share
    the training cells: what another draw of those would change is not in the error, and it is not
    small where few cells rule a direction.

    Args:
        variance: (batches, n_sites) eV^2.
        lpr: (n_sites,) 1/eV^2.

    Returns:
        "slope", "slope_error", "level" and "scatter_decades".
    """
    x = -np.log(lpr)
    slopes = [linregress(x, np.log(batch)).slope for batch in variance]
    pooled = np.mean(variance, axis=0)
    return {
        "slope": float(linregress(x, np.log(pooled)).slope),
        "slope_error": float(np.std(slopes, ddof=1) / np.sqrt(len(slopes))),
        "level": float(np.exp(np.mean(np.log(pooled * lpr)))),
        "scatter_decades": float(np.std(np.log10(pooled * lpr))),
    }


def spreads(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Standard deviation of each site energy over models.

    Args:
        records: of all models.

    Returns:
        (n_sites,) eV each: of all degrees and cutoffs fitted to everything, over halves of the
        data in the central model, and over all of them together.
    """
    energies = np.stack([record.arrays["energies"] for record in records])
    halved = central(records).arrays["energies"][1:]
    return {
        "degrees and cutoffs": np.std(energies[:, 0], axis=0, ddof=1),
        "halves": np.std(halved, axis=0, ddof=1),
        "all": np.std(energies.reshape(-1, energies.shape[-1]), axis=0, ddof=1),
    }


def central(records: Sequence[Record]) -> Record:
    """The record of the model that has committees."""
    return next(record for record in records if record.point.central)


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    arrays, spread = central(records).arrays, spreads(records)
    lpr, families = arrays["lpr"], (*config.near, *config.far)
    error = np.abs(arrays["energies"][0] - arrays["true"])
    own = [arrays["family"] == k for k in range(len(families))]
    columns = {"lpr": lpr, "spread": spread["all"], "true_error": error}
    deviation = {kind: arrays[f"{kind}_site_deviation"] for kind in KINDS}
    return {
        "figure": "rigidity_and_disagreement",
        "preset": preset,
        "sites": len(lpr),
        "lpr_decades": float(np.log10(lpr.max() / lpr.min())),
        "training_cells": sum(config.counts),
        "models": [
            {"degree": r.point.degree, "r_cut": r.point.r_cut}
            | {n: r.arrays[n].item() for n in ("functions", "rms_energy", "rms_forces")}
            for r in records
        ],
        "central": [config.degree, config.r_cut],
        "rank_deficient": sum(bool(r.arrays["rank_deficient"]) for r in records),
        "committees": {n: line(arrays[f"variance_{n}"], lpr) for n in COMMITTEES},
        "samples": config.samples,
        "replicates": config.replicates,
        "spread_over": len(records) * (1 + config.halves),
        "spread_against_rigidity": {n: relation(lpr**-0.5, x) for n, x in spread.items()},
        "true_error_against": {"rigidity": relation(lpr**-0.5, error)}
        | {f"deviation from {kind}": relation(deviation[kind], error) for kind in KINDS},
        "sites_covered": {kind: coverage(error, deviation[kind]) for kind in KINDS},
        "calibration": {kind: calibration_of(arrays, kind) for kind in KINDS},
        "cells": (cells := cells_of(config)),
        "energies_covered_between": intervals_of(arrays, cells),
        "families": {
            family: {name: float(np.median(x[mine])) for name, x in columns.items()}
            for family, mine in zip(families, own, strict=True)
        },
        "near": config.near,
    }


def cells_of(config: Config) -> dict[str, int]:
    """How many cells, each of one energy, a group has."""
    near, far = len(config.near), len(config.far)
    return {
        "validation": config.validation * near,
        "near": config.test * near,
        "far": config.test * far,
    }


def intervals_of(
    arrays: dict[str, np.ndarray], cells: dict[str, int]
) -> dict[str, list[tuple[float, float]]]:
    """Where the coverage behind the observed one of the energies lies, with 95 % confidence.

    Cells are independent of each other. Force components of one cell are not: no such intervals.
    """
    return {
        group: [share_interval(share, n) for share in arrays[f"energy_covered_{group}"]]
        for group, n in cells.items()
    }


def calibration_of(arrays: dict[str, np.ndarray], kind: str) -> dict[str, Any]:
    """alpha, s, log likelihood and coverage of one kind, and errors of every group of cells."""
    found = {n: arrays[f"{kind}_{n}"].item() for n in ("alpha", "s", "log_likelihood")}
    found["expected"] = arrays["expected"]
    for group in ("validation", "near", "far"):
        found |= {f"{n}_{group}": arrays[f"{kind}_{n}_{group}"] for n in ("covered", "rms")}
    apart = [[arrays[f"{kind}_{n}_{g}"] for g in ("near", "far")] for n in ("deviation", "error")]
    deviation, error = (np.concatenate(x) for x in apart)
    return found | {"test_error_against_deviation": relation(deviation, np.abs(error))}


PRESETS = {
    "smoke": Config(
        order=2,
        degree=5,
        r_cut=4.4,
        degrees=(5,),
        cutoffs=(4.4, 5.0),
        halves=2,
        near=("crystal", "vacancy"),
        counts=(8, 4),
        far=("dense", "simple cubic"),
        validation=4,
        test=2,
        samples=200,
        replicates=50,
    ),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("rigidity_and_disagreement", PRESETS, argv, __doc__)

    def drawn(summary: dict[str, Any], records: list[Record]) -> Figure:
        return plot(summary, central(records), spreads(records))

    return Plan(run, points(run.config), compute, summarise, drawn, caption)


main = script(plan)


if __name__ == "__main__":
    main()
