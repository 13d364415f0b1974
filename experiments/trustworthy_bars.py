"""Which error bars hold, how wide they are, and which flag says where they cannot.

(a) Energies and forces of DFT data, mlearn's Mo and Si and binary Nb-Ta: 90 % intervals of every
kind on random held-out cells and published test sets, and where the fit has seen no vacancies, no
surfaces, or one composition only. Each of the bars is made of the training cells alone. A bar is
good if it covers what it says and is not wider than it must be; "or outside" counts what is
covered, or flagged by leverage as less rigid than nearly all that was fitted.

(b) Relaxed defects, whose true errors are those of two relaxations: bars of geometry and formation
energy without any call of the reference, with one or two (`audit`), with its relaxed geometry. See
`studies.defect_bars`.

Cells are independent of each other, components of the forces of one cell are not: shares are means
over cells, and their intervals of confidence are by cells.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.harness.records import Record
from experiments.harness.run import data_folder, start
from experiments.harness.script import Plan, script
from experiments.harness.statistics import rank_within, share_interval
from experiments.panels.bars import caption, plot
from experiments.panels.defect_bars import LARGEST, ratios, with_largest_score
from experiments.studies.data_bars import ASKED, BARS, BEST, CellPoint, Config, compute_cells
from experiments.studies.defect_bars import (
    CALLED,
    QUANTITIES,
    UNCALLED,
    DefectPoint,
    compute_defects,
    defect_points,
)
from experiments.systems.held_out_cells import IN_DISTRIBUTION, RANDOM, digest, questions
from experiments.systems.mlearn import SYNTHETIC
from lprjax.regression.posterior import NOMINAL

VERSION = 1
"""Of the records."""
SLACK = {"geometry": 1e-5, "energy": 1e-7}
"""Å and eV, by which ranges may miss: relaxations end at forces of 1e-6 eV/Å."""
WANTED = {"in distribution": (0.87, 0.95), "elsewhere": (0.85, 1.0)}
"""Shares that 90 % intervals are to cover; elsewhere, or to be flagged."""


def points(config: Config, data: str) -> list[CellPoint | DefectPoint]:
    """Every question about every data set, then (b).

    Args:
        config: the settings.
        data: which data, not where they are: "synthetic", or a digest of the files.
    """
    label = replace(config, data=data, sets=(), parts=(), sources=())
    names = (SYNTHETIC,) if data == "synthetic" else config.sets
    found = [
        CellPoint(label, name, question, fold)
        for name in names
        for question in questions(name)
        for fold in range(config.folds if question == RANDOM else 1)
    ]
    found = found if "data_sets" in config.parts else []
    of_defects = defect_points(config.sources) if "defects" in config.parts else []
    return [*found, *of_defects]


def compute(folder: str, point: CellPoint | DefectPoint) -> dict[str, Any]:
    """The arrays of one point, of either part."""
    if isinstance(point, DefectPoint):
        return compute_defects(point)
    return compute_cells(folder, point)


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    of_cells = [record for record in records if isinstance(record.point, CellPoint)]
    of_defects = [record for record in records if isinstance(record.point, DefectPoint)]
    return {
        "figure": "trustworthy_bars",
        "preset": preset,
        "data": of_cells[0].point.config.data if of_cells else None,
        "levels": NOMINAL,
        "bars": BARS,
        "best": BEST,
        "wanted": WANTED,
        "data_sets": summary_of_cells(of_cells),
        "defects": summary_of_defects(of_defects) if of_defects else None,
    }


def summary_of_defects(records: Sequence[Record]) -> dict[str, Any]:
    """Coverages and widths of every bar over all fits that relaxed.

    Args:
        records: of `compute_defects`.

    Returns:
        "fits", "failed", "calls" (fits by number of calls), "hessian_error" (median); by bar and
        quantity "n", "covered", "interval" (95 % confidence), "ratio" (bar over true error:
        least, median, largest; None for infinity), "rank_at_fixed_L" (its rank correlation with the
        true error among fits to one size of cells, of those with three or more); "audit_within",
        the share that is predicted well enough; "transfer_by_L".
    """
    arrays = [record.arrays | with_largest_score(record.arrays) for record in records]
    cells = [(p.source, p.material, p.defect, p.m) for p in (record.point for record in records)]
    groups = np.repeat([cells.index(one) for one in cells], [len(a["failed"]) for a in arrays])
    names = dict.fromkeys(name for one in arrays for name in one)
    table = {name: _joined(arrays, name) for name in names}
    kept = ~table["failed"].astype(bool)
    table = {name: values[kept] for name, values in table.items()} | {"group": groups[kept]}
    calls = table["calls"].astype(int)
    bars = {
        bar: {q: _of_bar(table, bar, q) for q in QUANTITIES if f"{bar}_{q}" in table}
        for bar in (*UNCALLED, LARGEST, *CALLED)
    }
    return {
        "fits": len(kept),
        "failed": int(np.sum(~kept)),
        "calls": {str(n): int(np.sum(calls == n)) for n in sorted(set(calls.tolist()))},
        "hessian_error": float(np.median(table["hessian_error"])),
        "bars": bars,
        "audit_within": {q: _within(table, q) for q in QUANTITIES},
        "transfer_by_L": _transfer_by_size(records),
        "outside_energy": float(np.nanmean(table["outside_energy"].astype(float))),
    }


def _transfer_by_size(records: Sequence[Record]) -> dict[str, list[float]]:
    """Transferred over true geometry, least, median and largest, by L in Å of the size sweep."""
    found: dict[str, list[np.ndarray]] = {}
    for point, arrays, _ in records:
        if point.source == "sizes":
            key = f"{point.radius(point.m):.1f}"
            found.setdefault(key, []).append(ratios(arrays, "transfer", "geometry"))
    whole = {key: np.concatenate(parts) for key, parts in found.items()}
    return {key: np.quantile(x, [0.0, 0.5, 1.0]).tolist() for key, x in sorted(whole.items())}


def _joined(arrays: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """One column over all fits; NaN where a point has none of it."""
    return np.concatenate(
        [
            np.asarray(one[name]) if name in one else np.full(len(one["failed"]), np.nan)
            for one in arrays
        ]
    )


def _of_bar(table: dict[str, np.ndarray], bar: str, quantity: str) -> dict[str, Any]:
    true, high = (table[name].astype(float) for name in (f"{quantity}_true", f"{bar}_{quantity}"))
    low = table.get(f"{bar}_{quantity}_low")
    if low is None:  # a bar, of whatever sign the error is
        held, size = np.abs(true) <= high, high
    else:
        low = low.astype(float)
        slack = SLACK[quantity]
        held = (low - slack <= true) & (true <= high + slack)
        size = np.maximum(np.abs(low), np.abs(high))
    known = ~np.isnan(size)
    held, ratio = held[known], (size / np.abs(true))[known]
    n, share = len(held), float(held.mean()) if len(held) else None
    return {
        "n": n,
        "covered": share,
        "interval": (0.0, 1.0) if share is None else share_interval(share, n),
        "ratio": [_finite(x) for x in np.sort(ratio)[[0, n // 2, -1]]] if n else [],
        "rank_at_fixed_L": rank_within(size[known], np.abs(true)[known], table["group"][known]),
    }


def _finite(x: float) -> float | None:
    """None for infinity, which JSON has no number for."""
    return float(x) if math.isfinite(x) else None


def _within(table: dict[str, np.ndarray], quantity: str) -> float:
    """The share that one call predicts within 0.8 to 1.25, or of energies within 10 % or 1 meV."""
    true, found = table[f"{quantity}_true"], table[f"audit_{quantity}_predicted"]
    if quantity == "geometry":
        return float(np.mean((found > 0.8 * true) & (found < 1.25 * true)))
    return float(np.mean(np.abs(found - true) < np.maximum(0.1 * np.abs(true), 1e-3)))


def summary_of_cells(records: Sequence[Record]) -> dict[str, Any]:
    """(a): by data set and question, the numbers of every bar."""
    found: dict[str, Any] = {}
    for record in records:
        point = record.point
        found.setdefault(point.data_set, {}).setdefault(point.question, []).append(record.arrays)
    return {
        name: {question: of_question(question, runs) for question, runs in by_question.items()}
        for name, by_question in found.items()
    }


def of_question(question: str, runs: Sequence[dict]) -> dict[str, Any]:
    """One question, all of its folds together."""
    groups = np.concatenate([run["group"] for run in runs])
    return {
        "in_distribution": question in IN_DISTRIBUTION,
        "functions": int(runs[0]["functions"]),
        "fitted_cells": [int(run["fitted"]) for run in runs],
        "cells": len(groups),
        "kinds": {kind: of_kind(kind, runs, groups) for kind in ASKED},
    }


def of_kind(kind: str, runs: Sequence[dict], groups: np.ndarray) -> dict[str, Any]:
    """Coverages and widths of energies (eV/atom) or forces (eV/Å) of one question."""
    covered, safe, width, error, outside = (
        np.concatenate([run[f"{kind}_{name}"] for run in runs], axis=-1)
        for name in ("covered", "safe", "width", "error", "outside")
    )
    asked = np.isfinite(error)  # a perfect crystal has no force to ask about
    groups, error, outside = groups[asked], error[asked], outside[asked]
    at = NOMINAL.index(0.9)
    bars = {}
    for k, name in enumerate(BARS):
        shares, kept = covered[k, :, asked].T, safe[k, :, asked].T
        bars[name] = {
            "covered": shares.mean(axis=1),
            "interval": interval_by_cells(shares[at]),
            "covered_or_outside": float(kept[at].mean()),
            "width_over_error": float(np.median(width[k, asked]) / np.median(error)),
            "rank_correlation": rank_correlation(width[k, asked], error),
        }
    names = list(dict.fromkeys(groups.tolist()))
    best = list(BARS).index(BEST)
    return {
        "cells": int(asked.sum()),
        "median_error": float(np.median(error)),
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "outside": float(outside.mean()),
        "bars": bars,
        "by_group": {
            group: {
                "cells": int(np.sum(groups == group)),
                "covered": float(covered[best, at, asked][groups == group].mean()),
                "covered_or_outside": float(safe[best, at, asked][groups == group].mean()),
                "outside": float(outside[groups == group].mean()),
            }
            for group in names
        },
    }


def rank_correlation(width: np.ndarray, error: np.ndarray) -> float | None:
    """How well widths order the cells by their errors; None where all widths are one."""
    if len(set(width.tolist())) < 2:
        return None
    return float(spearmanr(width, error).statistic)


def interval_by_cells(shares: np.ndarray) -> tuple[float, float]:
    """Where the mean share of cells lies, with 95 % confidence.

    Clopper and Pearson's interval of as many independent observations as have the variance that
    the cells show: of single observations it is theirs.

    Args:
        shares: (n,) of each cell's observations.

    Returns:
        (low, high).
    """
    mean, n = float(shares.mean()), len(shares)
    variance = float(shares.var())
    trials = n * mean * (1.0 - mean) / variance if variance > 0.0 else n
    return share_interval(mean, round(max(trials, 1.0)))


SMOKE = Config(order=2, degree=7, folds=2, components=4, most=100, sources=())
PRESETS = {"smoke": SMOKE, "paper": Config()}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("trustworthy_bars", PRESETS, argv, __doc__)
    folder = data_folder(run.config.data)
    synthetic = run.preset == "smoke" and not folder
    if synthetic:
        print("No data given: SYNTHETIC cells of Stillinger-Weber silicon stand in for DFT data.")
    data = digest((SYNTHETIC,) if synthetic else run.config.sets, folder)
    found = points(run.config, data)
    return Plan(run, found, partial(compute, folder), summarise, plot, caption, VERSION)


main = script(plan)


if __name__ == "__main__":
    main()
