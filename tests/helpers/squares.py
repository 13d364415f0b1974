"""The smallest script there is, some of whose workers die: `python -m tests.helpers.squares`.

Each point leaves a note when it begins, so that a test can say how often it did, and in which
process.
"""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments.harness.run import start
from experiments.harness.script import Plan, script

SIZE = 1000  # numbers of a record, a file of 8 kB


@dataclass(frozen=True)
class Config:
    count: int = 4
    seconds: float = 0.0
    dying: tuple[int, ...] = ()  # whose worker is killed when they begin the first time
    lost: tuple[int, ...] = ()  # every time
    wrong: tuple[int, ...] = ()  # what raises an error


@dataclass(frozen=True)
class Point:
    n: int
    seconds: float
    fate: str


def points(config: Config) -> list[Point]:
    fates = {n: fate for fate in ("dying", "lost", "wrong") for n in getattr(config, fate)}
    return [Point(n, config.seconds, fates.get(n, "")) for n in range(config.count)]


def compute(point: Point, notes: Path) -> dict:
    first = not begun(notes, point.n)
    notes.mkdir(parents=True, exist_ok=True)
    (notes / f"{point.n}_{time.time_ns()}_{os.getpid()}").touch()
    time.sleep(point.seconds)
    if point.fate == "lost" or (point.fate == "dying" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if point.fate == "wrong":
        raise ValueError(f"no square of {point.n}")
    return {"square": np.full(SIZE, point.n**2), "process": os.getpid()}


def begun(notes: Path, n: int) -> list[int]:
    """The processes that began with a point, one for each time, in their order."""
    found = (path.name.split("_") for path in notes.glob(f"{n}_*"))
    return [int(process) for _, _, process in sorted(found)]


def summarise(config, records, preset) -> dict:
    squares = [int(record.arrays["square"][-1]) for record in records]
    return {"figure": "squares", "preset": preset, "squares": squares}


def plot(summary, records):
    figure, ax = plt.subplots()
    ax.plot([record.point.n for record in records], summary["squares"])
    return figure


def caption(summary) -> str:
    return f"{len(summary['squares'])} squares."


PRESETS = {"smoke": Config(), "paper": Config(count=8)}


def plan(argv: Sequence[str] | None = None) -> Plan:
    run = start("squares", PRESETS, argv, __doc__)
    noting = partial(compute, notes=(run.folder / "notes").absolute())
    return Plan(run, points(run.config), noting, summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
