"""Which cells to label next when the model is wrong: rules of choice on alloys.

A linear ACE model is fitted to a few cells of one composition, 1:1; then cells of a pool of all
compositions are added one after the other, by a rule of choice that sees no label of the pool.
Shown are errors of energies and forces on cells that take no part in it, over those that random
choice leaves with the same start and pool. The basis is small, so that most of the error in the
end is misfit. (a) Mo-Ta on four lattices and (b) Ta-W on bcc, by the embedded-atom potential of
Zhou et al. (2004); (c) Nb-Ta by density-functional theory, from files that the user has.

Targets of the rules are energies of cells of the pool, or site energies, or all rows that a label
would have. How much of it is the choice of compositions is seen from cells of the same compositions
drawn at random. (After the greedy choice of Chong et al., J. Chem. Theory Comput. 19 (2023) 8020.)
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import t as student
from tyro.conf import arg

from experiments.harness.records import Record
from experiments.harness.run import data_folder, start
from experiments.harness.script import Plan, script
from experiments.panels.choosing import caption, plot
from experiments.studies.choosing import (
    CHANCE,
    KINDS,
    RULES,
    Cell,
    Question,
    cells_of,
    curve,
    data_of,
    fit_of,
    mean_errors,
    orders_of,
)
from experiments.systems import alloys
from experiments.systems.alloys import LATTICES, N_ATOMS, TRAINING
from lprjax.ace.spec import ACESpec
from lprjax.potentials import ZHOU_2004, zhou_eam

SYSTEMS = {"Mo-Ta": tuple(LATTICES), "Ta-W": ("bcc",)}
"""The simulated alloys, and on which lattices their cells are."""
MEASURED = "Nb-Ta"
TEST_SEED = 1_000_000  # of the simulated test cells, which all draws share
QUANTITIES = ("energy_rms", "force_rms", "energy_mean", "force_mean")


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    systems: tuple[Literal[*SYSTEMS], ...] = tuple(SYSTEMS)  # simulated alloys
    order: int = 2  # correlation order of the ACE basis
    degree: int = 6  # total degree of the ACE basis
    r_cut: float = 5.0  # cutoff of the basis, Å
    start: int = 20  # cells at 1:1 that a fit begins with
    pool: int = 200  # cells to choose from
    stride: int = 2  # every how many-th of them is a target
    tests: int = 400  # cells of all compositions that the errors are of; measured: all others
    added: tuple[int, ...] = (1, 2, 5, 10, 20)  # how many cells are added, ascending
    draws: int = 20  # of start and pool
    repeats: int = 4  # how often chance chooses, in each draw
    #: 1/weights, and the ridge: E (eV/atom), F (eV/Å)
    errors: tuple[float, float] = (0.02, 0.2)
    ridge: float = 1e-2
    data: Annotated[
        str, arg(help=f"folder of {TRAINING} …; if empty, LPRJAX_DATA of the environment")
    ] = ""
    data_errors: tuple[float, float] = (0.001, 0.01)  # measured: 1/weights, as above
    data_ridge: float = 1.0


@dataclass(frozen=True)
class Point:
    """One draw of one alloy."""

    config: Config  # folder and number of draws left out: a draw belongs to its data
    system: str
    draw: int
    digest: str = ""  # of the data


def points(config: Config, folder: str) -> list[Point]:
    """All draws of the simulated alloys and, where its files are, of the measured one."""
    plain = replace(config, data="", draws=0, systems=())
    systems = dict.fromkeys(config.systems, "")
    if folder:
        systems[MEASURED] = alloys.digest(folder)
    return [
        Point(plain, system, draw, digest)
        for system, digest in systems.items()
        for draw in range(config.draws)
    ]


def compute(point: Point, folder: str) -> dict[str, Any]:
    """Orders of choice, and errors of all rules, of one draw."""
    config, measured = point.config, point.system == MEASURED
    rng = np.random.default_rng(point.draw)
    errors = config.data_errors if measured else config.errors
    ridge = config.data_ridge if measured else config.ridge
    first, pool, tests = (measured_cells if measured else simulated_cells)(point, rng, folder)
    data = data_of(first)
    question = Question(fit_of(data, ridge), first, pool, config.stride, config.added[-1])
    orders = orders_of(question, config.repeats, rng)
    found: dict[str, Any] = {"tests": len(tests), "functions": first[0].rows.shape[1]}

    def judged(cells: Sequence[Cell], counts: Sequence[int]) -> np.ndarray:
        return np.array([mean_errors(c, tests, errors) for c in curve(data, cells, counts, ridge)])

    found["errors_start"] = judged([], (0,))[0]
    found["errors_all"] = judged(pool, (len(pool),))[0]
    for name, several in orders.items():
        each = [judged([pool[k] for k in order], config.added) for order in several]
        found[f"errors_{name}"] = np.array(each)
        found[f"counts_{name}"] = np.array([[pool[k].count for k in order] for order in several])
    return found


def simulated_cells(point: Point, rng: np.random.Generator, folder: str) -> tuple[list[Cell], ...]:
    """Start, pool and tests of a simulated alloy."""
    config, half = point.config, N_ATOMS // 2
    counts = [half] * config.start + rng.integers(0, N_ATOMS + 1, config.pool).tolist()
    cells = labelled(config, point.system, counts, rng)
    return cells[: config.start], cells[config.start :], test_cells(config, point.system)


@lru_cache(maxsize=1)
def test_cells(config: Config, system: str) -> list[Cell]:
    """The cells that errors are of: all compositions equally likely, as in the pool."""
    rng = np.random.default_rng(TEST_SEED)
    counts = rng.integers(0, N_ATOMS + 1, config.tests).tolist()
    return labelled(config, system, counts, rng)


def labelled(
    config: Config, system: str, counts: Sequence[int], rng: np.random.Generator
) -> list[Cell]:
    """Random cells of these compositions, with the reference's labels."""
    elements = tuple(system.split("-"))
    near = float(np.mean([ZHOU_2004[element].re for element in elements]))
    spec = ACESpec(elements, config.order, config.degree, config.r_cut, near, constant=True)
    cells = [alloys.random_alloy(elements, n, rng, SYSTEMS[system]) for n in counts]
    samples = alloys.simulated(zhou_eam(*elements), spec, cells, KINDS, 0.0)
    return cells_of(spec, samples, config.errors)


def measured_cells(point: Point, rng: np.random.Generator, folder: str) -> tuple[list[Cell], ...]:
    """Start, pool and tests of the measured alloy: its cells in another order."""
    config, cells = point.config, files_cells(point.config, folder)
    order = rng.permutation(len(cells)).tolist()
    first = [k for k in order if 2 * cells[k].count == len(cells[k].sites)][: config.start]
    rest = [cells[k] for k in order if k not in first]
    return [cells[k] for k in first], rest[: config.pool], rest[config.pool :]


@lru_cache(maxsize=1)
def files_cells(config: Config, folder: str) -> list[Cell]:
    """All cells of the file, in a fixed order."""
    pool = alloys.read_binary(Path(folder) / TRAINING, np.random.default_rng(0))
    frames = [frame for count in sorted(pool) for frame in pool[count]]
    example = frames[0][0]
    numbers = sorted({z for s, _ in frames for z in np.asarray(s.species).tolist()})
    elements = tuple(chemical_symbols[z] for z in numbers)
    near = np.sqrt(3) / 2 * float(2 * example.volume / example.n_atoms) ** (1 / 3)
    spec = ACESpec(elements, config.order, config.degree, config.r_cut, near, constant=True)
    return cells_of(spec, alloys.measured(spec, frames), config.data_errors)


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    systems = dict.fromkeys(record.point.system for record in records)
    return {
        "figure": "choosing_rules",
        "preset": preset,
        "added": list(config.added),
        "start": config.start,
        "pool": config.pool,
        "draws": config.draws,
        "systems": {
            name: summary_of([r.arrays for r in records if r.point.system == name])
            for name in systems
        },
    }


def summary_of(draws: Sequence[dict]) -> dict[str, Any]:
    """The numbers of one alloy; of each draw, geometric means over what chance chose."""
    logs = {
        name: np.stack([np.log(draw[f"errors_{name}"]).mean(axis=0) for draw in draws])
        for name in (*RULES, *CHANCE)
    }  # (draws, counts, quantities)
    random, best = logs["random"], logs["log_rigidity"]
    rules = {}
    for name, log in logs.items():
        found = {}
        for k, quantity in enumerate(QUANTITIES):
            ratio, paired = (log - random)[..., k], (log - best)[..., k]
            found[quantity] = {
                "over_random": np.exp(ratio.mean(axis=0)),
                "spread": np.exp(ratio.std(axis=0, ddof=1)) if len(ratio) > 1 else None,
                "better": np.sum(ratio < 0.0, axis=0),
                "all": interval(ratio.mean(axis=1)),
                "all_over_log_rigidity": interval(paired.mean(axis=1)),
            }
        rules[name] = found
    share = logs["compositions"] - random, best - random
    return {
        "functions": int(draws[0]["functions"]),
        "tests": int(draws[0]["tests"]),
        "start": np.exp(np.mean([np.log(d["errors_start"]) for d in draws], axis=0)),
        "random": np.exp(random.mean(axis=0)),
        "whole_pool": np.exp(np.mean([np.log(d["errors_all"]) for d in draws], axis=0)),
        "share_of_composition": dict(
            zip(QUANTITIES, np.divide(*(x.mean(axis=(0, 1)) for x in share)), strict=True)
        ),
        "rules": rules,
    }


def interval(logs: np.ndarray) -> list[float]:
    """Geometric mean over draws, and where it lies with 95 % confidence, by Student's t.

    Args:
        logs: (draws,) of ratios.

    Returns:
        mean, low, high; the mean thrice for one draw.
    """
    n, mean = len(logs), float(np.mean(logs))
    half = student.ppf(0.975, n - 1) * np.std(logs, ddof=1) / np.sqrt(n) if n > 1 else 0.0
    return np.exp([mean, mean - half, mean + half]).tolist()


PRESETS = {
    "smoke": Config(
        systems=("Mo-Ta",), degree=3, start=8, pool=12, tests=10, added=(1, 2, 4), draws=2,
        repeats=2,
    ),
    "paper": Config(),
}  # fmt: skip


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("choosing_rules", PRESETS, argv, __doc__)
    folder = data_folder(run.config.data)
    if folder:
        alloys.require_data(folder)
    else:
        warnings.warn(
            f"Nb-Ta is left out: --data DIR with {TRAINING}, …; from {alloys.SOURCE}", stacklevel=2
        )
    found = points(run.config, folder)
    return Plan(run, found, partial(compute, folder=folder), summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
