"""Make every figure: `python -m experiments.reproduce --preset smoke|paper [--jobs 2]`."""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from experiments.harness.run import add_run_flags, finish

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
    "mlearn_rigidity",
    "benchmark",
)
"""Modules of this package; each has `main(argv) -> summary`. Neighbours share what they compile."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run each figure's module with the same flags.

    Args:
        argv: the flags; those of the command line if None.

    Returns:
        "summaries" of the figures and their wall times "seconds" (s), by figure.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    add_run_flags(parser, ("smoke", "paper"))
    parser.add_argument("--jobs", type=int, default=1, help="figures made at a time (%(default)s)")
    flags = parser.parse_args(argv)
    passed_on = ["--preset", flags.preset, "--results", str(flags.results)]
    passed_on += ["--fresh"] * flags.fresh + ["--plot-only"] * flags.plot_only
    start, summaries, seconds = time.perf_counter(), {}, {}
    for figure, (summary, took) in zip(FIGURES, _made(passed_on, flags.jobs), strict=True):
        summaries[figure], seconds[figure] = summary, round(took, 1)
    whole = {"figure": "reproduce", "preset": flags.preset, "jobs": flags.jobs}
    whole["wall_seconds"] = round(time.perf_counter() - start, 1)
    return finish(whole | {"seconds": seconds, "summaries": summaries}, flags.results)


def _made(flags: list[str], jobs: int) -> Iterator[tuple[dict, float]]:
    """Summary and seconds of every figure, in order."""
    if jobs == 1:
        yield from (_make(figure, flags) for figure in FIGURES)
        return
    # New processes, not copies of this one: JAX has threads, which a copy loses.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for text, *made in pool.map(partial(_captured, flags=flags), FIGURES):
            print(text, end="", flush=True)
            yield tuple(made)


def _make(figure: str, flags: list[str]) -> tuple[dict, float]:
    """Summary and seconds of one figure."""
    start = time.perf_counter()
    module = importlib.import_module(f"experiments.{figure}")
    if not hasattr(module, "main"):  # a package
        module = importlib.import_module(f"experiments.{figure}.__main__")
    summary = module.main(flags)
    return summary, time.perf_counter() - start


def _captured(figure: str, flags: list[str]) -> tuple[str, dict, float]:
    """The same, with what the figure prints, so that figures made side by side do not mix."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        summary, seconds = _make(figure, flags)
    return text.getvalue(), summary, seconds


if __name__ == "__main__":
    main()
