"""What every run shares: flags from a frozen dataclass, presets, records, the last line."""

import argparse
import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness.engines import engine, share_gpu
from experiments.harness.records import Record
from experiments.harness.session import begin_session
from experiments.harness.sources import code_hash
from experiments.harness.style import figure_style
from experiments.harness.sweeps import Sweep, run_sweeps


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of an experiment: what to compute and where it goes.

    Attributes:
        figure: name of the experiment.
        preset: name of the preset.
        config: the frozen dataclass of the preset, with what the flags changed.
        results: the folder of all results.
        fresh: compute every point, stored or not.
        plot_only: read records, compute nothing.
        jobs: processes, or SLURM jobs, that compute points.
        engine: whose they are, see `engines.engine`.
    """

    figure: str
    preset: str
    config: Any
    results: Path = Path("results")
    fresh: bool = False
    plot_only: bool = False
    jobs: int = 1
    engine: str = ""

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
    that overrides the preset's value; its help is the field's `metadata["help"]`, and where it is a
    name, `metadata["choices"]` lists what there is.

    Args:
        figure: name of the experiment.
        presets: instances of one frozen dataclass, by name; the first is the default. Fields are
            int, float, str, bool or tuples of the first three.
        argv: the flags; those of the command line if None.
        description: shown by `--help`.
        alone: without `--jobs` and `--engine`.

    Returns:
        the run, its configuration the preset's with what the flags changed.

    Raises:
        TypeError: the dataclass is not frozen, or a field has another type.
        SystemExit: a flag is wrong.
    """
    kind = type(next(iter(presets.values())))
    if not (dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen):
        raise TypeError(
            f"presets are instances of {kind.__name__}: wanted a frozen dataclass; "
            "use @dataclass(frozen=True)."
        )
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{figure}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_run_flags(parser, presets)
    if not alone:
        add_engine_flags(parser)
    group = parser.add_argument_group("configuration (default: the preset's)")
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=_help(field).replace("%", "%%"),
            choices=field.metadata.get("choices"),
            **_flag(f"{kind.__name__}.{field.name}", hints[field.name]),
        )
    flags = vars(parser.parse_args(argv))
    names = {field.name for field in dataclasses.fields(Run)} & flags.keys()
    run = {name: flags.pop(name) for name in names}
    if run.get("jobs", 1) > 1:
        share_gpu()
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in flags.items()}
    try:
        config = dataclasses.replace(presets[run["preset"]], **changes)
    except ValueError as error:  # what a field of the configuration refuses
        parser.error(str(error))
    return Run(figure=figure, config=config, **run)


def add_run_flags(parser: argparse.ArgumentParser, presets: Iterable[str]) -> None:
    """Add the flags of every script: `--preset`, `--results`, and `--fresh` or `--plot-only`.

    Args:
        parser: what they are added to.
        presets: the names of the presets; the first is the default.
    """
    presets = list(presets)
    parser.add_argument("--preset", choices=presets, default=presets[0], help="(%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--fresh", action="store_true", help="compute every point anew")
    either.add_argument("--plot-only", action="store_true", help="read records, compute nothing")


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what workers can compute: `--jobs` and `--engine`.

    Args:
        parser: what they are added to.
    """
    parser.add_argument("--jobs", type=int, default=1, help="points at a time (%(default)s)")
    parser.add_argument(
        "--engine", type=_engine, default="", metavar="ENGINE",
        help="dask:ADDRESS or slurm: who computes them, instead of processes of this machine",
    )  # fmt: skip


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
    summary = _strict(summary)
    folder = Path(results) / summary["figure"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    print(json.dumps(summary, allow_nan=False), flush=True)
    return summary


def _engine(name: str) -> str:
    if not re.fullmatch("dask:.+|slurm|", name):
        raise argparse.ArgumentTypeError(f"{name!r}: wanted dask:ADDRESS or slurm")
    return name


def _help(field: dataclasses.Field) -> str:
    text, choices = field.metadata.get("help", ""), field.metadata.get("choices", ())
    return f"{text}: {', '.join(choices)}" if choices else text


def _flag(name: str, hint: Any) -> dict[str, Any]:
    """How argparse reads a value of that type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (int, float, str):
        return {"type": hint, "metavar": hint.__name__.upper()}
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        inner, *rest = hint.__args__
        if inner in (int, float, str) and (rest == [...] or set(rest) <= {inner}):
            count = "+" if rest == [...] else 1 + len(rest)
            return {"type": inner, "nargs": count, "metavar": inner.__name__.upper()}
    raise TypeError(
        f"{name} is of type {hint}: wanted int, float, str, bool or a tuple of one of the first "
        "three, e.g. tuple[int, ...], which a flag can set."
    )


def _strict(value: Any) -> Any:
    """The value in plain Python types, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _strict(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"a value of the summary is {value!r}: wanted a number, string, array, list or mapping."
    )
