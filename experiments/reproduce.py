"""Make every figure: `python -m experiments.reproduce --preset smoke|paper`."""

import argparse
import importlib
import time
from collections.abc import Sequence
from typing import Any

from experiments.common import add_run_flags, finish

FIGURES = (
    "strain_decay",
    "decay_rates",
    "vacancy_convergence",
    "defect_survey",
    "fit_accuracy",
    "loss_weights",
    "optimal_weights",
    "observation_value",
)
"""Modules of this package; each has `main(argv) -> summary`."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run each figure's module with the same flags; return their summaries and wall times (s)."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    add_run_flags(parser, ("smoke", "paper"))
    flags = parser.parse_args(argv)
    passed_on = ["--preset", flags.preset, "--results", str(flags.results)]
    passed_on += ["--fresh"] * flags.fresh + ["--plot-only"] * flags.plot_only
    summaries, seconds = {}, {}
    for figure in FIGURES:
        start = time.perf_counter()
        summaries[figure] = importlib.import_module(f"experiments.{figure}").main(passed_on)
        seconds[figure] = round(time.perf_counter() - start, 1)
    whole = {"figure": "reproduce", "preset": flags.preset}
    return finish(whole | {"seconds": seconds, "summaries": summaries}, flags.results)


if __name__ == "__main__":
    main()
