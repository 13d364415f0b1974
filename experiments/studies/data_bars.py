"""Intervals of every kind for energies and forces of cells that a fit has not seen.

A cell's energy is per atom. Some components of the forces are drawn of each cell, of those that do
not vanish by symmetry. The two bars that need cells of their own, calibrated and split conformal,
are of a fit to the rest of the training cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from experiments.studies.defect_bars import SOURCES
from experiments.systems.held_out_cells import SETS, all_cells, basis, split
from experiments.systems.mlearn import KINDS
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import build_graphs
from lprjax.regression.assembly import structure_rows
from lprjax.regression.factors import compress
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.influence_results import Influence, Moves
from lprjax.regression.influences import influence
from lprjax.regression.intervals import LEAST_VARIANCE, error_bars
from lprjax.regression.new_structures import conformal
from lprjax.regression.posterior import NOMINAL, calibrate

ASKED = ("energy", "forces")
BARS = {  # name, and what a figure calls it
    "rigidity": "s / PR^1/2",
    "sandwich": "sandwich",
    "jackknife": "jackknife",
    "pops_rms": "POPS, rms",
    "pops": "POPS, envelope",
    "calibrated": "calibrated, alpha",
    "calibrated_noise": "calibrated, alpha and sigma",
    "split_conformal": "split conformal",
    "jackknife_plus": "jackknife+",
    "split_scores": "split conformal, scores",
    "left_out_scores": "left-out scores: error_bars",
}
BEST = "left_out_scores"
CHUNK = 100  # predictions at a time that are sorted against every left-out residual


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    data: str = ""  # folder of mlearn_*_*.xyz and Nb*Ta*.xyz (default: $LPRJAX_DATA)
    parts: tuple[Literal["data_sets", "defects"], ...] = ("data_sets", "defects")  # (a) and (b)
    sources: tuple[Literal[*SOURCES], ...] = (
        SOURCES  # (b): whose fits are asked; none: two small ones
    )
    sets: tuple[Literal[*SETS], ...] = SETS  # (a): of DFT data
    order: int = 3  # (a): correlation order of the ACE basis of an element
    degree: int = 11  # (a): its total degree
    alloy_order: int = 2  # (a): the same of the binary alloy
    alloy_degree: int = 6  # (a): the same of the binary alloy
    folds: int = 4  # (a): each is asked once, of a fit to the others
    energy_weight: float = 100.0  # (a): atom/eV; forces: 1 Å/eV
    virial_weight: float = 1.0  # (a): atom/eV
    ridge: float = 1e-6  # (a): of the smoothness prior of power 4, and of constants
    apart: int = 4  # (a): every how many-th training cell calibrates, for bars that need it
    components: int = 8  # (a): force components asked of each cell
    most: int = 400  # (a): force components that `calibrate` is given, at most


@dataclass(frozen=True)
class CellPoint:
    """One question about one data set."""

    config: Config  # its `data` says which data, not where they are
    data_set: str
    question: str
    fold: int = 0


class Rows(NamedTuple):
    """The rows of one cell by kind, energy and virial per atom."""

    rows: dict[str, np.ndarray]  # (r, K)
    targets: dict[str, np.ndarray]  # (r,) eV or eV/Å


class Asked(NamedTuple):
    """Observations of one kind that are asked about."""

    rows: np.ndarray  # (M, K)
    targets: np.ndarray  # (M,)
    owners: np.ndarray  # (M,) place of the cell among those asked


def spec_of(config: Config, name: str) -> ACESpec:
    """The basis of a data set."""
    alloy = len(basis(name, 1, 1).elements) > 1
    sizes = (config.alloy_order, config.alloy_degree) if alloy else (config.order, config.degree)
    return basis(name, *sizes)


@lru_cache(maxsize=2)
def rows_of(spec: ACESpec, name: str, folder: str) -> list[Rows]:
    """The rows of every cell of a data set."""
    cells, _ = all_cells(name, folder)
    graphs = build_graphs([cell.structure for cell in cells], spec.r_cut)
    samples = [(graph, cell.labels) for graph, cell in zip(graphs, cells, strict=True)]
    kinds = tuple(k for k in KINDS if all(getattr(c.labels, k) is not None for c in cells))
    per_atom = tuple(kind for kind in kinds if kind != "forces")
    found = dict(structure_rows(spec, samples, kinds, per_atom=per_atom))
    return [
        Rows(*({kind: both[part] for kind, both in found[k].items()} for part in (0, 1)))
        for k in range(len(cells))
    ]


def compute_cells(folder: str, point: CellPoint) -> dict[str, Any]:
    """The arrays of one question: whether each bar holds, how wide it is, how large the error.

    Args:
        folder: where the data are.
        point: the question.

    Returns:
        "group" (cells,) and for "energy" and "forces": "covered" (bars, levels, cells), the share
        of a cell's observations; "width" (bars, cells) of 90 % intervals, half of it, and "error"
        (cells,), r.m.s.; "outside" (cells,), share that is flagged; "safe" (bars, levels, cells),
        the share that is covered or flagged. Units eV/atom and eV/Å. NaN where no observation of a
        cell is asked about.
    """
    config, name = point.config, point.data_set
    spec = spec_of(config, name)
    everything, cells = rows_of(spec, name, folder), all_cells(name, folder)[0]
    chosen = split(name, folder, point.question, point.fold, config.folds)
    training, tests = ([everything[k] for k in part] for part in chosen)
    whole, held = fitted(config, spec, training), np.arange(len(training)) % config.apart == 0
    rest = fitted(config, spec, [c for c, h in zip(training, held, strict=True) if not h])
    apart = [cell for cell, h in zip(training, held, strict=True) if h]
    asked = {kind: of_kind(tests, kind, config.components) for kind in ASKED}
    gradients = np.concatenate([asked[kind].rows for kind in ASKED])
    samples = [
        {kind: (cell.rows[kind], cell.targets[kind]) for kind in cell.rows} for cell in training
    ]
    found = influence(whole, samples, predictions=gradients)
    spread = residual_scale(whole, found)
    out: dict[str, Any] = {"group": [cells[k].group for k in chosen.asked]}
    out |= {"functions": spec.n_columns, "rank": whole.rank, "fitted": len(training)}
    start = 0
    for kind in ASKED:
        part = slice(start, start := start + len(asked[kind].rows))
        own = found._replace(moves=part_of(found.moves, part))
        away = of_kind(apart, kind, None)
        bars = dict(intervals(config, kind, whole, own, spread, asked[kind], rest, away))
        outside = error_bars(own, asked[kind].rows, kind).outside
        out |= judged(kind, bars, own.moves.values, asked[kind], outside, len(tests))
        out[f"{kind}_rms"] = found.rms[kind]
        out[f"{kind}_left_out"] = found.cross_validated[kind]
    return out


def fitted(config: Config, spec: ACESpec, cells: Sequence[Rows]) -> Fit:
    """The fit to cells, by kind."""
    given = {"energy": config.energy_weight, "forces": 1.0, "virial": config.virial_weight}
    kinds = list(cells[0].rows)
    factors = {
        kind: compress(
            np.concatenate([cell.rows[kind] for cell in cells]),
            np.concatenate([cell.targets[kind] for cell in cells]),
        )
        for kind in kinds
    }
    weights = {kind: given[kind] for kind in kinds}
    return fit(factors, weights, ridge=config.ridge, prior=prior_of(spec))


def prior_of(spec: ACESpec) -> np.ndarray:
    """The smoothness prior, and 1 for the constants.

    Without it cells of one composition leave the difference of two constants undetermined, and what
    has infinite variance can be asked of nothing.
    """
    prior = smoothness_prior(spec, 4.0)
    return np.where(prior > 0.0, prior, 1.0)


def residual_scale(result: Fit, found: Influence) -> float:
    """s of the weighted residuals, with as many degrees of freedom less as the fit has.

    s^2 = sum_i w_i^2 r_i^2 / (N - sum_i h_i)
    """
    square = sum(np.sum((result.weights[k] * r) ** 2) for k, r in found.residuals.items())
    free = sum(len(h) - np.sum(h) for h in found.leverages.values())
    return float(np.sqrt(square / free))


def of_kind(cells: Sequence[Rows], kind: str, most: int | None) -> Asked:
    """Observations of one kind, without those whose rows vanish by symmetry.

    Args:
        cells: the cells.
        kind: of the observations.
        most: how many of each cell, drawn at random; None: all.

    Returns:
        The Asked.
    """
    rng, rows, targets, owners = np.random.default_rng(0), [], [], []
    sizes = [np.linalg.norm(cell.rows[kind], axis=1) for cell in cells]
    least = np.sqrt(LEAST_VARIANCE) * np.max(np.concatenate(sizes))
    for place, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
        known = np.flatnonzero(size > least)
        if most is not None and len(known) > most:
            known = np.sort(rng.choice(known, most, replace=False))
        rows.append(cell.rows[kind][known])
        targets.append(cell.targets[kind][known])
        owners.append(np.full(len(known), place))
    return Asked(*(np.concatenate(part) for part in (rows, targets, owners)))


def part_of(moves: Moves, part: slice) -> Moves:
    """The moves of some of the predictions."""
    envelopes = [
        one._replace(low=one.low[part], high=one.high[part], rms=one.rms[part])
        for one in (moves.rows, moves.structures)
    ]
    return Moves(moves.values[part], moves.left_out[:, part], *envelopes)


def intervals(
    config: Config,
    kind: str,
    whole: Fit,
    found: Influence,
    spread: float,
    asked: Asked,
    rest: Fit,
    away: Asked,
) -> Iterator[tuple[str, np.ndarray]]:
    """Every bar of BARS: lower and upper ends (2, levels, M) at the levels NOMINAL.

    Args:
        config: the settings.
        kind: of the observations.
        whole: fit to all training cells.
        found: its influence, with the moves of the asked observations.
        spread: s of its weighted residuals.
        asked: the observations.
        rest: fit without the cells apart.
        away: observations of those.

    Yields:
        Name and ends.
    """
    times = ndtri(0.5 * (1.0 + np.array(NOMINAL)))
    centre, rows = asked.rows @ np.asarray(whole.coefficients), found.moves.rows
    for name, scale in (("rigidity", spread), ("sandwich", 1.0), ("jackknife", 1.0)):
        yield name, about(centre, times, scale * found.deviations(asked.rows, name))
    yield "pops_rms", about(centre, times, rows.rms)
    same = np.ones((len(times), 1))
    yield "pops", np.stack([same * (centre + rows.low), same * (centre + rows.high)])
    ends = [jackknife_plus(found, kind, 1.0 - level) for level in NOMINAL]
    yield "jackknife_plus", np.moveaxis(np.array(ends), 0, 1)
    bars = [error_bars(found, asked.rows, kind, 1.0 - level).half_widths for level in NOMINAL]
    yield "left_out_scores", np.stack([centre - np.array(bars), centre + np.array(bars)])
    centre = asked.rows @ np.asarray(rest.coefficients)
    missed = away.targets - away.rows @ np.asarray(rest.coefficients)
    thin = np.linspace(0, len(missed) - 1, min(len(missed), config.most)).astype(int)
    for name, noise in (("calibrated", False), ("calibrated_noise", True)):
        model = calibrate(rest.factor, away.rows[thin], missed[thin], prior=rest.prior, noise=noise)
        yield name, about(centre, times, np.asarray(model.deviations(asked.rows)))
    old, new = (deviations(rest, part.rows) for part in (away, asked))
    for name, sigma, width in (
        ("split_conformal", np.ones(len(missed)), np.ones(len(centre))),
        ("split_scores", old, new),
    ):
        made = [conformal(missed, sigma, away.owners, miss=1.0 - level) for level in NOMINAL]
        yield name, about(centre, np.array([one.score for one in made]), width)


def about(centre: np.ndarray, times: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Ends (2, levels, M) of symmetric intervals."""
    half = times[:, None] * width
    return np.stack([centre - half, centre + half])


def deviations(result: Fit, rows: np.ndarray) -> np.ndarray:
    """|R^-T g| of rows, (M,)."""
    return np.linalg.norm(np.linalg.solve(np.asarray(result.factor).T, rows.T), axis=0)


def jackknife_plus(found: Influence, kind: str, miss: float) -> np.ndarray:
    """Ends (2, M) of the library's jackknife+ intervals, some predictions at a time."""
    n, ends = len(found.moves.values), []
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        own = found._replace(moves=part_of(found.moves, part))
        ends.append(np.stack(own.intervals(kind, miss)))
    return np.concatenate(ends, axis=1)


def judged(
    kind: str,
    bars: dict[str, np.ndarray],
    values: np.ndarray,
    asked: Asked,
    outside: np.ndarray,
    n_cells: int,
) -> dict[str, Any]:
    """What `compute_cells` keeps of one kind."""
    counts = np.bincount(asked.owners, minlength=n_cells)

    def mean(each: np.ndarray) -> np.ndarray:
        """Means over each cell's observations, of (..., M)."""
        sums = np.zeros((*each.shape[:-1], n_cells))
        np.add.at(np.moveaxis(sums, -1, 0), asked.owners, np.moveaxis(each, -1, 0))
        with np.errstate(invalid="ignore"):
            return sums / np.where(counts, counts, np.nan)

    ends = np.stack([bars[name] for name in BARS])  # (bars, 2, levels, M)
    held = (ends[:, 0] <= asked.targets) & (asked.targets <= ends[:, 1])
    at = NOMINAL.index(0.9)
    half = 0.5 * (ends[:, 1, at] - ends[:, 0, at])
    return {
        f"{kind}_covered": mean(held.astype(float)),
        f"{kind}_safe": mean((held | outside).astype(float)),
        f"{kind}_outside": mean(outside.astype(float)),
        f"{kind}_width": np.sqrt(mean(half**2)),
        f"{kind}_error": np.sqrt(mean((asked.targets - values) ** 2)),
    }
