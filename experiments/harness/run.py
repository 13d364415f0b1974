"""What every run shares: flags from a frozen dataclass, presets, records, the last line.

tyro makes the flags: of each field one, whose help is the comment beside it, or `#:` above.
"""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

from experiments.harness.engines import engine, share_gpu
from experiments.harness.records import Record
from experiments.harness.session import begin_session
from experiments.harness.sources import code_hash
from experiments.harness.style import figure_style
from experiments.harness.sweeps import Sweep, run_sweeps
from lprjax.commands.flags import read_flags
from lprjax.numerics.plain_values import json_line, plain_values

EITHER = tyro.conf.create_mutex_group(required=False, title="either of two")


@dataclasses.dataclass(frozen=True)
class Flags:
    """How to run: the flags of every script."""

    #: where records, figures and summaries go
    results: Annotated[Path, arg(metavar="DIR")] = Path("results")
    #: compute every point anew
    fresh: Annotated[FlagCreatePairsOff[bool], EITHER] = False
    #: read records, compute nothing
    plot_only: Annotated[FlagCreatePairsOff[bool], EITHER] = False


@dataclasses.dataclass(frozen=True)
class SharedFlags(Flags):
    """How to run what workers can compute, see `engines.engine`."""

    jobs: int = 1  # points at a time: processes, or SLURM jobs
    #: dask:ADDRESS or slurm: who computes them, instead of processes of this machine
    engine: Annotated[str, arg(metavar="ENGINE")] = ""

    def __post_init__(self) -> None:
        """Raise ValueError for an engine that there is not."""
        if not re.fullmatch("dask:.+|slurm|", self.engine):
            raise ValueError(f"engine is {self.engine!r}: wanted dask:ADDRESS or slurm.")


@dataclasses.dataclass(frozen=True)
class Run(SharedFlags):
    """One run of an experiment: what to compute and where it goes.

    Attributes:
        figure: name of the experiment.
        preset: name of the preset.
        config: the frozen dataclass of the preset, with what the flags changed.
    """

    figure: str = ""
    preset: str = ""
    config: Any = None

    @property
    def tiny(self) -> bool:
        """Whether it only shows that the figure is made, see `begin_session`."""
        return self.preset == "smoke"

    @property
    def folder(self) -> Path:
        """Where records, figure and summary go: results/<figure>."""
        return self.results / self.figure

    def sweep(
        self,
        points: Iterable[Any],
        compute: Callable[[Any], Mapping[str, Any]] | None,
        *,
        version: int = 1,
    ) -> Sweep:
        """The points of the run and what computes them, as the flags say.

        Args:
            points: dataclass instances or mappings of plain values, see `records.identity`.
            compute: the arrays of a point, by name, from nothing but the point; None: read only,
                whatever code the records are of.
            version: version of the experiment, to be raised when `compute` computes something else.
        """
        return Sweep(
            list(points),
            None if self.plot_only else compute,
            self.folder,
            self.fresh,
            experiment=self.figure,
            version=version,
            code=None if compute is None else code_hash(compute),
            tiny=self.tiny,
        )

    def records(
        self,
        points: Iterable[Any],
        compute: Callable[[Any], Mapping[str, Any]] | None,
        *,
        version: int = 1,
    ) -> Iterator[Record]:
        """The records of the points, each as soon as it is there, computed by this process.

        Args:
            points, compute, version: see `sweep`.

        Raises:
            FileNotFoundError: the run is plot-only and a point has no valid record.
        """
        return run_sweeps([self.sweep(points, compute, version=version)])

    def executor(self) -> AbstractContextManager[Executor | None]:
        """Whose workers are to compute the points; None: this process."""
        return engine("" if self.plot_only else self.engine, self.jobs, self.results)


def start(
    figure: str,
    presets: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    *,
    alone: bool = False,
) -> Run:
    """Read the flags, switch JAX to float64 and its cache on, set the figures' style.

    Args:
        figure: name of the experiment.
        presets: instances of one frozen dataclass, by name; the first is the default.
        argv: the flags; those of the command line if None.
        description: shown by `--help`.
        alone: nothing is computed by workers, so there are no `--jobs` and no `--engine`.

    Returns:
        the run, see `parse`.

    Raises:
        TypeError: the dataclass is not frozen, or a field has a type that no flag can set.
        SystemExit: a flag is wrong.
    """
    run = parse(figure, presets, argv, description, alone=alone)
    begin_session(run.tiny)
    figure_style()
    return run


def parse(
    figure: str,
    presets: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    *,
    alone: bool = False,
) -> Run:
    """Turn command-line flags into a run.

    Every field of the configuration is a flag (`--order 3 --sizes 2 3 4`, `--no-relax` for a bool)
    that overrides the preset's value; its help is the comment beside the field, or above it after
    `#:`, and `Literal[*NAMES]` lists the names that there are.

    Args:
        figure: name of the experiment.
        presets: instances of one frozen dataclass, by name; the first is the default.
        argv: the flags; those of the command line if None.
        description: shown by `--help`.
        alone: without `--jobs` and `--engine`.

    Returns:
        the run, its configuration the preset's with what the flags changed.

    Raises:
        TypeError: the dataclass is not frozen, so that it cannot be a point's.
        SystemExit: a flag is wrong.
    """
    kind = type(next(iter(presets.values())))
    if not kind.__dataclass_params__.frozen:
        raise TypeError(
            f"presets are instances of {kind.__name__}: wanted a frozen dataclass; "
            "use @dataclass(frozen=True)."
        )
    names, argv = tuple(presets), sys.argv[1:] if argv is None else list(argv)

    def named(preset: Literal[*names] = names[0]) -> str:
        return preset

    preset, _ = tyro.cli(named, args=argv, return_unknown_args=True, add_help=False)
    start = presets[preset]

    def made(
        run: OmitArgPrefixes[Flags if alone else SharedFlags],
        configuration: OmitArgPrefixes[kind] = start,
        preset: Literal[*names] = names[0],
    ) -> Run:
        return Run(figure=figure, preset=preset, config=configuration, **vars(run))

    found = read_flags(made, f"python -m experiments.{figure}", description, argv)
    for name, value in vars(found.config).items():
        if value == () != getattr(start, name):
            print(f"--{name.replace('_', '-')} has no value: wanted one or more.", file=sys.stderr)
            raise SystemExit(2)
    if found.jobs > 1:
        share_gpu()
    return found


def data_folder(named: str) -> str:
    """The folder of data that people download: the named one or LPRJAX_DATA, "" where neither is.

    It is absolute, for workers may run elsewhere.
    """
    folder = named or os.environ.get("LPRJAX_DATA", "")
    return os.path.abspath(folder) if folder else ""


def finish(summary: Mapping[str, Any], results: str | Path = "results") -> dict[str, Any]:
    """Write results/<figure>/summary.json and print it as the script's last line.

    The JSON is strict: arrays become lists, and numbers that are not finite become null.

    Args:
        summary: headline numbers, with the name of the figure under "figure".
        results: the folder of all results.

    Returns:
        the summary as it was written.

    Raises:
        TypeError: a value is neither a number, string, array, nor a list or mapping of them.
    """
    summary = plain_values(summary)
    folder = Path(results) / summary["figure"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    print(json_line(summary), flush=True)
    return summary
