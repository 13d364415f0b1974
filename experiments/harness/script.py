"""A script: its points, what computes them, and the figure made of their records.

It reads:

@dataclass(frozen=True)
class Config:
    order: int = 3
    sizes: tuple[int, ...] = (2, 3, 4)  # cubic cells per side: the flag's help

PRESETS = {"smoke": Config(order=2, sizes=(2,)), "paper": Config()}

def plan(argv=None) -> Plan:
    run = start("my_figure", PRESETS, argv, __doc__)
    return Plan(run, points(run.config), compute, summarise, plot, caption)

main = script(plan)

if __name__ == "__main__":
    main()
"""

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.harness.records import Record, identity
from experiments.harness.run import Run, finish
from experiments.harness.style import save_figure
from experiments.harness.sweeps import Failure, PointsFailed, Sweep, run_sweeps


class Plan(NamedTuple):
    """What a script makes, with nothing computed yet.

    Attributes:
        run: what the flags say.
        points: what records are needed of, see `records.identity`.
        compute: the arrays of a point, by name.
        summarise: headline numbers, with the name of the figure under "figure", from configuration,
            records and the preset's name.
        plot: the figure, from the summary and the records.
        caption: what the figure shows, from the summary.
        version: of the experiment, to be raised when `compute` computes something else.
    """

    run: Run
    points: Sequence[Any]
    compute: Callable[[Any], Mapping[str, Any]]
    summarise: Callable[[Any, list[Record], str], dict[str, Any]]
    plot: Callable[[dict[str, Any], list[Record]], Figure]
    caption: Callable[[dict[str, Any]], str]
    version: int = 1

    @property
    def sweep(self) -> Sweep:
        """The points and what computes them."""
        return self.run.sweep(self.points, self.compute, version=self.version)

    def made(self, outcomes: Iterable[Record | Failure]) -> dict[str, Any]:
        """Wait for what becomes of the points; sum up, draw, write, and print the last line.

        Args:
            outcomes: of the points, in their order, see `sweeps.run_sweeps`.

        Returns:
            the summary as it was written, with "seconds", what computing all of the records took,
            and "wall_seconds", what this run took, which may have found some of them stored.

        Raises:
            PointsFailed: the summary that was written says which, under "failed", and why.
        """
        begun = time.perf_counter()
        found = list(outcomes)
        failures = [outcome for outcome in found if isinstance(outcome, Failure)]
        if failures:
            self._report(failures)
            raise PointsFailed(failures, len(found))
        summary = self.summarise(self.run.config, found, self.run.preset)
        summary["seconds"] = round(sum(record.meta["seconds"] or 0.0 for record in found), 1)
        summary["wall_seconds"] = round(time.perf_counter() - begun, 1)
        figure = self.plot(summary, found)
        save_figure(figure, self.run.results / summary["figure"] / summary["figure"])
        print(self.caption(summary))
        return finish(summary, self.run.results)

    def _report(self, failures: Sequence[Failure]) -> None:
        """The summary of a figure that cannot be drawn."""
        failed = [
            {"point": identity(point, self.run.figure)["point"], "message": message}
            for point, message in failures
        ]
        summary = {"figure": self.run.figure, "preset": self.run.preset}
        finish(summary | {"points": len(self.points), "failed": failed}, self.run.results)


def script(plan: Callable[[Sequence[str] | None], Plan]) -> Callable[..., dict[str, Any]]:
    """The `main` of a script.

    Args:
        plan: what the flags ask for.

    Returns:
        the function that makes the figure.
    """

    def main(argv: Sequence[str] | None = None, executor: Executor | None = None) -> dict[str, Any]:
        """Make the figure.

        Args:
            argv: the flags; those of the command line if None.
            executor: whose workers compute the points; None: as the flags say.

        Returns:
            the summary as it was written.
        """
        made = _by_its_name(plan)(argv)
        with nullcontext(executor) if executor is not None else made.run.executor() as workers:
            return made.made(run_sweeps([made.sweep], workers))

    return main


def _by_its_name(function: Callable) -> Callable:
    """The same function of the module that workers can import, where this is that of a script."""
    if function.__module__ != "__main__":
        return function
    module = importlib.import_module(sys.modules["__main__"].__spec__.name)
    return getattr(module, function.__name__)
