"""What every experiment shares: flags from a frozen dataclass, presets, records, last line.

A script reads:

@dataclass(frozen=True)
class Config:
    order: int = 3
    sizes: tuple[int, ...] = field(default=(2, 3, 4), metadata={"help": "cubic cells per side"})

PRESETS = {"smoke": Config(order=2, sizes=(2,)), "paper": Config()}

def main(argv=None) -> dict:
    run = start("my_figure", PRESETS, argv, __doc__)
    records, summary = gather(run, points(run.config), compute, summarise)
    return conclude(run, summary, plot(summary, records), caption(summary))
"""

import argparse
import dataclasses
import json
import math
import os
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record, run_points
from experiments.harness.sources import code_hash
from experiments.harness.style import figure_style, save_figure

MIN_COMPILE_SECONDS = 0.2
"""Compilation time (s) from which a function is worth a file in the persistent cache: a choice."""


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
    """

    figure: str
    preset: str
    config: Any
    results: Path = Path("results")
    fresh: bool = False
    plot_only: bool = False

    @property
    def folder(self) -> Path:
        """Where records, figure and summary go: results/<figure>."""
        return self.results / self.figure

    def records(
        self,
        points: Iterable[Any],
        compute: Callable[[Any], Mapping[str, Any]] | None,
        *,
        version: int = 1,
    ) -> Iterator[Record]:
        """The records of the points: read, or computed where missing, as the flags say.

        Args:
            points: dataclass instances or mappings of plain values, see `records.identity`.
            compute: the arrays of a point, by name, from nothing but the point; None: read only,
                whatever code the records are of.
            version: version of the experiment, to be raised when `compute` computes something else.

        Returns:
            the records in the order of the points, each as soon as it is there.

        Raises:
            FileNotFoundError: the run is plot-only and a point has no valid record.
        """
        return run_points(
            points,
            None if self.plot_only else compute,
            self.folder,
            self.fresh,
            experiment=self.figure,
            version=version,
            code=None if compute is None else code_hash(compute),
        )


def start(
    figure: str,
    presets: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    description: str | None = None,
) -> Run:
    """Read the flags, switch JAX to float64 and its cache on, set the figures' style.

    Args:
        figure: name of the experiment.
        presets: instances of one frozen dataclass, by name; the first is the default.
        argv: the flags; those of the command line if None.
        description: shown by `--help`.

    Returns:
        the run, see `parse`.

    Raises:
        TypeError: the dataclass is not frozen, or a field has a type that no flag can set.
        SystemExit: a flag is wrong.
    """
    run = parse(figure, presets, argv, description)
    jax.config.update("jax_enable_x64", True)
    keep_compiled()
    figure_style()
    return run


def keep_compiled() -> None:
    """Let the next process read what this one compiles, from ~/.cache/lprjax/jax.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
    What compiles within MIN_COMPILE_SECONDS is not kept.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "lprjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def parse(
    figure: str,
    presets: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    description: str | None = None,
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
    run = {name: flags.pop(name) for name in ("preset", "results", "fresh", "plot_only")}
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in flags.items()}
    config = dataclasses.replace(presets[run["preset"]], **changes)
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


def gather(
    run: Run,
    points: Iterable[Any],
    compute: Callable[[Any], Mapping[str, Any]],
    summarise: Callable[[Any, list[Record], str], dict[str, Any]],
    *,
    version: int = 1,
) -> tuple[list[Record], dict[str, Any]]:
    """The records of a run and their summary, `summarise(config, records, preset)`.

    Args:
        run: the run, see `start`.
        points: see `records.identity`.
        compute: the arrays of a point, by name.
        summarise: headline numbers from configuration, records and the preset's name.
        version: version of the experiment.

    Returns:
        the records, and the summary with "seconds", what computing all of the records took, and
        "wall_seconds", what this run took, which may have found some of them stored.

    Raises:
        FileNotFoundError: the run is plot-only and a point has no valid record.
    """
    began = time.perf_counter()
    records = list(run.records(points, compute, version=version))
    summary = summarise(run.config, records, run.preset)
    summary["seconds"] = round(sum(record.meta["seconds"] or 0.0 for record in records), 1)
    summary["wall_seconds"] = round(time.perf_counter() - began, 1)
    return records, summary


def conclude(run: Run, summary: dict[str, Any], figure: Figure, caption: str) -> dict[str, Any]:
    """Save the figure under the summary's name, print its caption, and `finish`.

    Args:
        run: the run, see `start`.
        summary: headline numbers, with the name of the figure under "figure".
        figure: saved as results/<figure>/<figure>.pdf and .png, and closed.
        caption: what the figure shows, printed before the last line.

    Returns:
        the summary as it was written.
    """
    name = summary["figure"]
    save_figure(figure, run.results / name / name)
    print(caption)
    return finish(summary, run.results)


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
