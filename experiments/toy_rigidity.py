"""Pseudo-structures of groups of environments: which data distinguish which groups.

A structure holds environments of several groups and only its energy per atom is known, linear in
features: its row is the mean of its environments' features. Groups that always come in the same
proportion cannot be distinguished; one more composition, or a pure structure, adds one degree of
freedom (the experiment of Chong et al., J. Chem. Theory Comput. 19 (2023) 8020, after its
abstract; counts derived). As long as compositions span f directions out of G groups, G - f
directions in the span of the groups have rigidity zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.panels.toy import caption, plot
from lprjax.regression.factors import RCOND, compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import local_prediction_rigidity

LARGEST_COUNT = 20  # environments of one group in an added structure: a generic composition


class Design(NamedTuple):
    """How a training set starts, and what is added to it one by one."""

    blocks: int  # the groups come in so many blocks, each of fixed proportions inside
    pure: bool  # added are pure structures; else other compositions of all groups


DESIGNS = {
    "fixed + compositions": Design(1, False),
    "fixed + pure": Design(1, True),
    "two blocks + compositions": Design(2, False),
    "two blocks + pure": Design(2, True),
}


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    groups: tuple[int, ...] = (2, 3, 5, 8)  # numbers of groups of environments
    shown: int = 5  # number of groups in the curves
    dimension: int = 12  # features; at least the most groups
    structures: int = 50  # structures at the start
    #: standard deviation of a feature in a group, of centroids it is 1
    spreads: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    seeds: tuple[int, ...] = (0, 1, 2)  # draws of everything


@dataclass(frozen=True)
class Point:
    """One draw of one design."""

    groups: int
    design: str
    dimension: int
    structures: int
    spread: float
    seed: int


def points(config: Config) -> list[Point]:
    """Every design without spread in the groups; the first for one number of groups with it.

    Args:
        config: the settings.

    Returns:
        the points.

    Raises:
        ValueError: the number shown is not among the groups, or features are fewer than groups.
    """
    if config.shown not in config.groups or config.dimension < max(config.groups):
        raise ValueError(
            f"shown is {config.shown} and dimension {config.dimension}: wanted one of groups "
            f"{config.groups}, and at least the largest of them."
        )
    fixed = (config.dimension, config.structures)
    found = [
        Point(groups, design, *fixed, 0.0, seed)
        for groups in config.groups
        for design in DESIGNS
        for seed in config.seeds
    ]
    first = next(iter(DESIGNS))
    return found + [
        Point(config.shown, first, *fixed, spread, seed)
        for spread in config.spreads
        for seed in config.seeds
    ]


def block_of(groups: int, blocks: int) -> np.ndarray:
    """The block that each group belongs to: neighbours together, sizes as equal as can be.

    Args:
        groups: number of groups G.
        blocks: number of blocks.

    Returns:
        (G,).
    """
    return np.arange(groups) * blocks // groups


def compositions(point: Point, rng: np.random.Generator) -> np.ndarray:
    """Environments of each group in each structure: the start, then G - f added ones.

    f = blocks: the start spans as many directions, and G - f more are what is missing.

    Args:
        point: design and sizes.
        rng: decides the numbers.

    Returns:
        (n, G).
    """
    design, groups = DESIGNS[point.design], point.groups
    blocks = block_of(groups, design.blocks)
    inside = rng.integers(1, 5, size=groups)  # the proportions
    amounts = rng.integers(1, 7, size=(point.structures, design.blocks))
    first = amounts[:, blocks] * inside[None, :]
    if design.pure:
        more = LARGEST_COUNT * np.eye(groups, dtype=int)
        order = np.concatenate([np.flatnonzero(blocks == b)[:-1] for b in range(design.blocks)])
        return np.concatenate([first, more[order]])  # the last of a block is then known too
    more = rng.integers(1, LARGEST_COUNT + 1, size=(groups - design.blocks, groups))
    return np.concatenate([first, more])


def compute(point: Point) -> dict[str, Any]:
    """LPR of every group's centroid and the principal rigidities, against what is added."""
    rng = np.random.default_rng(point.seed)
    centroids = rng.normal(size=(point.groups, point.dimension))
    counts = compositions(point, rng)
    rows = np.stack([structure_row(centroids, c, point.spread, rng) for c in counts])
    found = {"lpr": [], "principal": []}
    for n in range(point.structures, len(rows) + 1):
        data = {"energy": compress(rows[:n], np.zeros(n))}
        factor = fit(data, {"energy": 1.0}).factor
        found["lpr"].append(local_prediction_rigidity(factor, centroids))
        found["principal"].append(principal_rigidities(np.asarray(factor), centroids))
    return {"counts": counts} | {name: np.array(value) for name, value in found.items()}


def structure_row(
    centroids: np.ndarray, counts: np.ndarray, spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Mean of the features of the environments in a structure.

    Args:
        centroids: (G, K) features of the groups.
        counts: (G,) environments of each group.
        spread: standard deviation of a feature in a group.
        rng: decides the features.

    Returns:
        (K,).
    """
    features = np.repeat(centroids, counts, axis=0)
    return np.mean(features + spread * rng.normal(size=features.shape), axis=0)


def principal_rigidities(factor: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """How rigid the data make the directions in the span of the groups.

    With Q an orthonormal basis of the span and P of the rest: moving Q^T c by a costs at least
    `a^T S^T S a / 2`, S = (1 - projector on range(R P)) R Q.

    Args:
        factor: (K, K) R of the fit.
        centroids: (G, K) features of the groups.

    Returns:
        (G,) squares of the singular values of S, ascending, whose zeros are the directions that no
        data determine.
    """
    basis, _ = np.linalg.qr(centroids.T, mode="complete")
    span, rest = np.split(basis, [len(centroids)], axis=1)
    left, singular, _ = np.linalg.svd(factor @ rest)
    size = np.linalg.norm(factor)
    reached = left[:, : len(singular)][:, singular > RCOND * size]
    held = factor @ span
    held = held - reached @ (reached.T @ held)
    found = np.linalg.svd(held, compute_uv=False)[::-1]
    return np.where(found > RCOND * size, found, 0.0) ** 2


def expected_counts(groups: int, design: Design, added: int) -> tuple[int, int]:
    """Missing degrees of freedom, and groups with LPR = 0, by counting.

    A block of m groups misses m - 1 degrees of freedom. A pure structure settles its own group,
    and the last but one of a block settles the last as well; compositions settle all groups, or
    none as long as they are too few.

    Args:
        groups: number of groups.
        design: of the training set.
        added: structures added to the start.

    Returns:
        the two counts.
    """
    missing = groups - design.blocks - added
    floating = 0
    for size in np.bincount(block_of(groups, design.blocks)).tolist():
        settled = min(added, size - 1) if design.pure else (size - 1) * (missing == 0)
        added -= settled
        floating += size - settled if settled < size - 1 else 0
    return missing, floating


def table_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row for each number of groups, design and number of added structures, over the seeds."""
    rows: dict[tuple, dict[str, Any]] = {}
    for record in records:
        point, arrays = record.point, record.arrays
        if point.spread:
            continue
        for added, lpr in enumerate(arrays["lpr"]):
            key = (point.groups, point.design, added)
            row = rows.setdefault(key, {"undetermined": [], "vanishing": [], "smallest": []})
            row["undetermined"].append(int(np.sum(arrays["principal"][added] == 0.0)))
            row["vanishing"].append(int(np.sum(lpr == 0.0)))
            row["smallest"].append(float(lpr.min()))
    table = []
    for (groups, design, added), row in rows.items():
        missing, floating = expected_counts(groups, DESIGNS[design], added)
        named = {"groups": groups, "design": design, "added": added}
        counted = {"missing": missing, "vanishing_expected": floating}
        right = {missing} == set(row["undetermined"]) and {floating} == set(row["vanishing"])
        table.append(named | counted | row | {"as_expected": right})
    return table


def smallest_by_spread(records: Sequence[Record]) -> dict[str, list]:
    """Smallest LPR at the start of the first design, by spread; geometric mean over the seeds."""
    found: dict[float, list] = {}
    for record in records:
        if record.point.spread:
            found.setdefault(record.point.spread, []).append(record.arrays["lpr"].min(axis=1)[0])
    means = [float(np.exp(np.mean(np.log(values)))) for values in found.values()]
    return {"spread": list(found), "smallest_lpr": means}


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    table, spread = table_of(records), smallest_by_spread(records)
    slope = np.polyfit(np.log(spread["spread"]), np.log(spread["smallest_lpr"]), 1)[0]
    resolved = [min(row["smallest"]) for row in table if row["missing"] == 0]
    return {
        "figure": "toy_rigidity",
        "preset": preset,
        "rows": len(table),
        "rows_as_expected": sum(row["as_expected"] for row in table),
        "smallest_lpr_when_none_is_missing": min(resolved),
        "in_group_spread": spread | {"slope": float(slope)},
        "dimension": config.dimension,
        "structures": config.structures,
        "shown": config.shown,
        "table": table,
    }


PRESETS = {
    "smoke": Config(groups=(2, 3), shown=3, structures=20, spreads=(0.01, 0.1), seeds=(0,)),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("toy_rigidity", PRESETS, argv, __doc__)
    return Plan(run, points(run.config), compute, summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
