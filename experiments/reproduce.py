"""Make every figure: `python -m experiments.reproduce --preset smoke|paper [--jobs 2]`.

Workers compute the points of all figures; meanwhile this process draws those that are complete.
"""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any, Literal

from experiments.harness.engines import engine, share_gpu
from experiments.harness.run import SharedFlags, finish
from experiments.harness.sweeps import PointsFailed, run_sweeps
from lprjax.commands.flags import read_flags

FIGURES = (
    "vacancy_convergence",
    "defect_rigidity",
    "defect_survey",
    "bound_survey",
    "fit_accuracy",
    "loss_weights",
    "optimal_weights",
    "observation_value",
    "strain_decay",
    "decay_rates",
    "multilattice_rates",
    "toy_rigidity",
    "rigidity_and_disagreement",
    "amorphous_silicon",
    "alloy_composition",
    "choosing_rules",
    "mlearn_rigidity",
    "trustworthy_bars",
)
"""Scripts of this package, each with a `plan`. Neighbours share what they compile."""

BENCHMARK = "benchmark.__main__"
"""What measures this machine: it comes last, when no worker is busy."""


@dataclass(frozen=True)
class Flags(SharedFlags):
    """How to run: the flags that go to every figure."""

    preset: Literal["smoke", "paper"] = "smoke"


def main(argv: Sequence[str] | None = None, executor: Executor | None = None) -> dict[str, Any]:
    """Make each figure with the same flags.

    Args:
        argv: the flags; those of the command line if None.
        executor: whose workers compute the points; None: as the flags say.

    Returns:
        "summaries" of the figures, the "seconds" (s) that this process waited for each and drew,
        by figure, and the names of those that "failed", their points being without records.
    """
    flags = read_flags(Flags, "python -m experiments.reproduce", __doc__, argv)
    if flags.jobs > 1:
        share_gpu()
    passed_on = ["--preset", flags.preset, "--results", str(flags.results)]
    passed_on += ["--fresh"] * flags.fresh + ["--plot-only"] * flags.plot_only
    start, seconds, summaries, failed = time.perf_counter(), {}, {}, []

    def make(figure: str, making: Callable[[], dict[str, Any]]) -> None:
        begun = time.perf_counter()
        try:
            summaries[figure] = making()
        except PointsFailed as error:
            print(f"{figure}: {error}", file=sys.stderr)
            failed.append(figure)
        seconds[figure] = round(time.perf_counter() - begun, 1)

    plans = {figure: _module(figure).plan(passed_on) for figure in FIGURES}
    workers = engine("" if flags.plot_only else flags.engine, flags.jobs, flags.results)
    with workers if executor is None else nullcontext(executor) as executor:
        outcomes = run_sweeps([plan.sweep for plan in plans.values()], executor)
        for figure, plan in plans.items():
            make(figure, partial(plan.made, islice(outcomes, len(plan.points))))
    make("benchmark", partial(_module(BENCHMARK).main, passed_on))
    whole = {"figure": "reproduce", "preset": flags.preset, "jobs": flags.jobs}
    whole |= {"engine": flags.engine, "wall_seconds": round(time.perf_counter() - start, 1)}
    return finish(
        whole | {"failed": failed, "seconds": seconds, "summaries": summaries}, flags.results
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


if __name__ == "__main__":
    sys.exit(len(main()["failed"]))
