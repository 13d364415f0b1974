"""Which cells to label next, on DFT data: prediction rigidity in the mlearn benchmark (Mo, Si).

A linear ACE model is fitted to AIMD and elastic cells only, then vacancy cells of the training set
are added one after the other: chosen for the test set's vacancy cells, by the mean variance 1/PR of
all that their labels would hold, by the mean variance or the log-mean rigidity of their energies,
by the mean LPR of their atoms, by D-optimality, or at random. No choice looks at a label. Shown are
the LPR of every group of test cells, and errors on the test set's vacancy cells against the number
of cells that were added. (After the claims of Chong et al., J. Chem. Theory Comput. 19 (2023) 8020,
on other data.) The test set has few vacancy cells, 3 of Mo and 7 of Si: `choosing_rules` compares
rules on test sets that are large enough to tell.

LPR runs over decades, and its arithmetic mean over the few most rigid atoms: shown is the log-mean.

The mean absolute errors of the fit to the whole training set stand beside published ones, as far as
they were at hand. Its weights, prior and ridge are those that do best on a validation split of the
training set.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import Run, data_folder, start
from experiments.harness.script import Plan, script
from experiments.panels.mlearn import caption, plot
from experiments.studies.mlearn_loss import (
    ADDED,
    PUBLISHED,
    TRAINED,
    Config,
    Loss,
    Point,
    chosen_loss,
    fit_of,
    mark,
    spec_of,
    split,
    trained_kinds,
    weighted,
    weighted_rows,
)
from experiments.systems.mlearn import (
    GROUPS,
    SYNTHETIC,
    CellRows,
    cell_rows,
    cells,
    digest,
    factors_of,
    mean_errors,
    of_groups,
)
from lprjax.ace.spec import ACESpec
from lprjax.atoms.chemiscope import write_chemiscope
from lprjax.regression.factors import Factor, extend, merge
from lprjax.regression.fitting import Fit
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import vanishing
from lprjax.regression.selection import choose

VERSION = 3
"""Of the records."""
TASKS = {  # rule of `choose`, and whose rigidity it is about
    "loss": ("variance", "labels"),
    "log_rigidity": ("log_rigidity", "cells"),
    "energies": ("variance", "cells"),
    "rigidity": ("rigidity", "atoms"),
    "d_optimal": ("d_optimal", "atoms"),
    "random": ("random", "atoms"),
}


def points(config: Config, data: str) -> list[Point]:
    """The fit, each rule and each draw, of each material; the stand-in is one by itself.

    `data` says which data, not where they are: "synthetic", or a digest of the files.
    """
    label, synthetic = replace(config, data=data), data == "synthetic"
    return [
        Point(label, name, task, seed)
        for name in ((SYNTHETIC,) if synthetic else config.materials)
        for task, seed in [
            *[(task, 0) for task in ("fit", *TASKS) if task != "random"],
            *[("random", seed) for seed in range(config.seeds)],
        ]
    ]


def compute(folder: str, point: Point) -> dict[str, Any]:
    """The arrays of one point, from the data in the folder."""
    name, spec = point.material, spec_of(point.config, point.material)
    loss, tried = chosen_loss(point.config, name, folder)
    train, test = (cell_rows(spec, name, part, folder) for part in ("train", "test"))
    base = trained_kinds(point.config, name, folder)
    if point.task != "fit":
        return choice(point, spec, loss, base, train, test)
    rest = of_groups(train, [group for group in GROUPS if group not in TRAINED])
    whole = merge(base, weighted(factors_of(rest), loss))
    fits = {"base": fit_of(spec, base, loss), "whole": fit_of(spec, whole, loss)}
    found = {"loss": np.array(loss), "tried": tried, "n_functions": spec.n_columns}
    _, held = split(train, point.config.validation)
    found |= {"cells": [len(train), len(held), len(test)]}
    found |= {"test_cells": [len(of_groups(test, (group,))) for group in GROUPS]}
    found |= {"group": np.concatenate([[c.group] * len(c.sites) for c in test])}
    for label, result in fits.items():
        c, by_group = result.coefficients, [of_groups(test, (group,)) for group in GROUPS]
        errors = [mean_errors(part, c) for part in (test, *by_group)]
        found |= {f"errors_{label}": errors, f"rank_{label}": result.rank}
        found |= {f"lpr_{label}": rigidity_of(result, test)}
    return found


def expected_errors(result: Fit, cells: Sequence[CellRows]) -> list[float]:
    """Mean absolute errors of energies and forces if variance were all.

    They are those of a normal distribution of standard deviation sigma |R^-T g|, sigma the root
    mean square of the weighted residuals of the fit.

    Args:
        result: the fit.
        cells: where errors are expected.

    Returns:
        eV/atom, eV/Å.
    """
    found = []
    for kind in ("energy", "forces"):
        rows = np.concatenate([cell.rows[kind] for cell in cells])
        spread = result.rms["all"] / np.sqrt(prediction_rigidity(result.factor, rows))
        found.append(float(np.sqrt(2.0 / np.pi) * np.mean(spread)))
    return found


def rigidity_of(result: Fit, cells: Sequence[CellRows]) -> np.ndarray:
    """LPR of all atoms of the cells, 1/eV^2 where weighted residuals have variance one."""
    sites = np.concatenate([cell.sites for cell in cells])
    return np.asarray(local_prediction_rigidity(result.factor, sites))


def choice(
    point: Point,
    spec: ACESpec,
    loss: Loss,
    base: Factor,
    train: Sequence[CellRows],
    test: Sequence[CellRows],
) -> dict[str, Any]:
    """Order of choice, and test errors and LPR of the vacancy cells after some of the picks.

    Args:
        point: rule, draw and settings.
        spec: the basis.
        loss: weights and prior.
        base: the weighted factor of the trained kinds.
        train: rows of the training cells.
        test: rows of the test cells.

    Returns:
        arrays of the record.
    """
    config = point.config
    pool, wanted = of_groups(train, (ADDED,)), of_groups(test, (ADDED,))
    candidates = [weighted_rows(cell, loss) for cell in pool]
    targets = {
        "atoms": np.concatenate([cell.sites for cell in wanted])[:: config.stride],
        "cells": np.concatenate([cell.rows["energy"] for cell in wanted]),
        "labels": np.concatenate([weighted_rows(cell, loss)[0] for cell in wanted]),
    }
    targets["labels"] = targets["labels"][~np.asarray(vanishing(targets["labels"]))]
    rule, about = TASKS[point.task]
    key = jax.random.key(point.seed) if point.task == "random" else None
    first = fit_of(spec, base, loss)
    chosen = choose(
        first.factor,
        [rows for rows, _ in candidates],
        targets[about],
        min(config.added[-1], len(pool)),
        rule=rule,
        key=key,
    )
    errors, expected, lpr, data, last = [], [], [], base, 0
    for count in [n for n in config.added if n <= len(pool)]:
        for pick in chosen.order[last:count]:
            data = extend(data, *candidates[pick], block_rows=256)
        result, last = fit_of(spec, data, loss), count
        errors.append(mean_errors(wanted, result.coefficients))
        expected.append(expected_errors(result, wanted))
        lpr.append(rigidity_of(result, wanted))
    return {
        "order": chosen.order,
        "added": [n for n in config.added if n <= len(pool)],
        "errors": errors,
        "expected": expected,
        "pool_forces": [np.sqrt(np.mean(cell.targets["forces"] ** 2)) for cell in pool],
        "lpr": np.stack(lpr),
        "mean_target_rigidity": chosen.rigidity.mean(axis=1),
        "log_det": chosen.log_det,
        "lpr_last": rigidity_of(result, test),
    }


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    names = list(dict.fromkeys(record.point.material for record in records))
    return {
        "figure": "mlearn_rigidity",
        "preset": preset,
        "data": records[0].point.config.data,
        "trained_kinds": TRAINED,
        "added_kind": ADDED,
        "materials": {
            name: summary_of(config, [r for r in records if r.point.material == name])
            for name in names
        },
    }


def summary_of(config: Config, records: Sequence[Record]) -> dict[str, Any]:
    """The numbers of one material; energies in meV/atom, forces in eV/Å, LPR in 1/eV^2."""
    name, whole = records[0].point.material, records[0].arrays
    spec, goal = spec_of(config, name), mark(name)
    choices = {
        task: curves(config, [r.arrays for r in records if r.point.task == task]) for task in TASKS
    }
    tried = whole["tried"]
    validated = tried[(tried[:, :4] == whole["loss"]).all(axis=1)][0, 4:]
    reached = whole["errors_whole"][0]
    counts = dict(zip(GROUPS, whole["test_cells"].tolist(), strict=True))
    stages = {"base": "lpr_base", "whole": "lpr_whole"}
    lpr = {stage: quantiles(whole[key], whole["group"]) for stage, key in stages.items()}
    greedy = next(r.arrays for r in records if r.point.task == "log_rigidity")
    lpr["chosen"] = quantiles(greedy["lpr_last"], whole["group"])
    return {
        "functions": int(whole["n_functions"]),
        "basis": {"r_cut": spec.r_cut, "r0": spec.r0, "cutoff_power": spec.cutoff_power},
        "cells": dict(zip(("train", "validation", "test"), whole["cells"].tolist(), strict=True)),
        "loss": Loss(*whole["loss"].tolist())._asdict(),
        "losses_tried": len(tried),
        "validation": in_units(validated),
        "test": {k: error_table(whole[f"errors_{k}"]) for k in stages},
        "test_cells": counts,
        "share_of_energy_error": shares(counts, error_table(whole["errors_whole"])),
        "price": config.price,
        "rank": {k: int(whole[f"rank_{k}"]) for k in stages},
        "published": {code: in_units(errors) for code, errors in PUBLISHED.get(name, {}).items()},
        "best_linear_ace": in_units(goal) if name in PUBLISHED else None,
        "no_worse": [bool(ours <= theirs) for ours, theirs in zip(reached, goal, strict=True)]
        if name in PUBLISHED
        else None,
        "lpr": lpr,
        "choices": choices,
    }


def in_units(errors: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Energy and force error (eV/atom, eV/Å) in meV/atom and eV/Å."""
    return {"energy": 1e3 * float(errors[0]), "forces": float(errors[1])}


def error_table(errors: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors of all cells and of each group."""
    return {group: in_units(row) for group, row in zip(("all", *GROUPS), errors, strict=True)}


def shares(counts: dict[str, int], errors: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the cells of each group make of the mean error of all energies."""
    whole = sum(counts.values()) * errors["all"]["energy"]
    return {group: n * errors[group]["energy"] / whole for group, n in counts.items()}


def quantiles(lpr: np.ndarray, groups: np.ndarray) -> dict[str, list[float]]:
    """5 %, 50 % and 95 % of each group."""
    return {g: np.quantile(lpr[groups == g], [0.05, 0.5, 0.95]).tolist() for g in GROUPS}


def curves(config: Config, runs: Sequence[dict]) -> dict[str, Any]:
    """Mean and standard deviation over the draws (one, for a rule) against the cells added."""
    energy = np.array([1e3 * run["errors"][:, 0] for run in runs])
    forces = np.array([run["errors"][:, 1] for run in runs])
    targets = [run["lpr"][:, :: config.stride] for run in runs]
    lpr = np.array([one.mean(axis=1) for one in targets])
    log_mean = np.array([np.exp(np.log(one).mean(axis=1)) for one in targets])
    least = np.array([np.quantile(run["lpr"], 0.05, axis=1) for run in runs])
    expected = np.mean([run["expected"] for run in runs], axis=0)
    half = len(runs[0]["order"]) // 2
    hot = [
        run["pool_forces"][run["order"][:half]].mean() / run["pool_forces"].mean() for run in runs
    ]
    found = {"added": runs[0]["added"], "order": [run["order"].tolist() for run in runs]}
    for label, values in (
        ("energy", energy), ("forces", forces),
        ("lpr", lpr), ("lpr_log_mean", log_mean), ("lpr_5_percent", least),
    ):  # fmt: skip
        found |= {label: values.mean(axis=0), f"{label}_sd": values.std(axis=0)}
    found |= {"energy_expected": 1e3 * expected[:, 0], "forces_expected": expected[:, 1]}
    # Root mean square forces of the first half of the picks, over those of the pool.
    return found | {"first_half_forces": float(np.mean(hot))}


SMOKE = Config(
    materials=("Si",), order=2, degree=8, energy_weights=(30.0, 100.0), virial_weights=(1.0,),
    ridges=(1e-8, 1e-6), powers=(4.0,), added=(0, 1, 3, 6), seeds=2, stride=2,
)  # fmt: skip
PRESETS = {"smoke": SMOKE, "paper": Config()}


def write_cells(run: Run, records: Sequence[Record], folder: str) -> None:
    """The test cells for chemiscope, LPR of each atom in the fits to `TRAINED` and to all data."""
    for record in records:
        if record.point.task != "fit":
            continue
        name = record.point.material
        test = cells(name, "test", folder)
        ends = np.cumsum([cell.structure.n_atoms for cell in test])[:-1]
        arrays = {
            f"lpr, {fitted}": np.split(record.arrays[f"lpr_{fitted}"], ends)
            for fitted in ("base", "whole")
        }
        path, units = run.folder / f"test_{name}.json.gz", dict.fromkeys(arrays, "1/eV^2")
        structures, labels = [cell.structure for cell in test], [cell.labels for cell in test]
        write_chemiscope(path, structures, arrays, labels, title=f"mlearn, {name}", units=units)


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("mlearn_rigidity", PRESETS, argv, __doc__)
    folder = data_folder(run.config.data)
    synthetic = run.preset == "smoke" and not folder
    if synthetic:
        print("No data given: SYNTHETIC cells of Stillinger-Weber silicon stand in for mlearn.")
    data = "synthetic" if synthetic else digest(run.config.materials, folder)
    found = points(run.config, data)

    def drawn(summary: dict[str, Any], records: list[Record]) -> Figure:
        write_cells(run, records, folder)
        return plot(summary, records)

    return Plan(run, found, partial(compute, folder), summarise, drawn, caption, VERSION)


main = script(plan)


if __name__ == "__main__":
    main()
