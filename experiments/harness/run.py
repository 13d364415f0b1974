"""What every experiment shares: flags from a frozen dataclass, float64, figure style, last line.

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
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record, run_points

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart."""

MIN_COMPILE_SECONDS = 0.2
"""Of functions worth a file in the persistent cache."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of an experiment: what to compute and where it goes."""

    figure: str
    preset: str
    config: Any
    """The frozen dataclass of the preset, with what the flags changed."""
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
        compute: Callable[[Any], Mapping[str, Any]],
        *,
        version: int = 1,
    ) -> Iterator[Record]:
        """The records of the points: read, or computed where missing, as the flags say."""
        compute = None if self.plot_only else compute
        return run_points(
            points, compute, self.folder, self.fresh, experiment=self.figure, version=version
        )


def start(
    figure: str,
    presets: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    description: str | None = None,
) -> Run:
    """Read the flags, switch JAX to float64 and its cache on, set the figures' style.

    Arguments of `parse`.
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
    that overrides the preset's value; its help is the field's `metadata["help"]`.

    Args:
        figure: name of the experiment.
        presets: instances of one frozen dataclass, by name; the first is the default. Fields are
            int, float, str, bool or tuples of the first three.
        argv: the flags; those of the command line if None.
        description: shown by `--help`.

    Raises:
        TypeError: the dataclass is not frozen, or a field has another type.
        SystemExit: a flag is wrong.
    """
    kind = type(next(iter(presets.values())))
    if not (dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen):
        raise TypeError(f"presets are instances of a frozen dataclass, got {kind.__name__}")
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
            help=field.metadata.get("help", "").replace("%", "%%"),
            **_flag(f"{kind.__name__}.{field.name}", hints[field.name]),
        )
    flags = vars(parser.parse_args(argv))
    run = {name: flags.pop(name) for name in ("preset", "results", "fresh", "plot_only")}
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in flags.items()}
    config = dataclasses.replace(presets[run["preset"]], **changes)
    return Run(figure=figure, config=config, **run)


def add_run_flags(parser: argparse.ArgumentParser, presets: Iterable[str]) -> None:
    """The flags of every script: `--preset`, `--results`, and `--fresh` or `--plot-only`."""
    presets = list(presets)
    parser.add_argument("--preset", choices=presets, default=presets[0], help="(%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--fresh", action="store_true", help="compute every point anew")
    either.add_argument("--plot-only", action="store_true", help="read records, compute nothing")


def figure_style() -> None:
    """Draw to files only, in a style fit for print: type-42 fonts, colour-blind safe colours."""
    matplotlib.use("Agg")
    plt.rcParams.update(
        {
            "figure.figsize": (5.0, 3.6),
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "font.size": 9,
            "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.markersize": 4,
        }
    )


def label_axes(ax: Axes, x: tuple[str, str | None], y: tuple[str, str | None]) -> None:
    """Label both axes with (quantity, unit); the unit None is for pure numbers and counts."""
    for axis, (quantity, unit) in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_label_text(quantity if unit is None else f"{quantity} ({unit})")


def reference_slope(ax: Axes, x: Any, y: Any, slope: float, label: str | None = None) -> None:
    """Draw y ~ x^slope through the last point of a curve, where the theory gives a slope."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ax.plot(x, y[-1] * (x / x[-1]) ** slope, "--", color="0.5", lw=0.9, zorder=1, label=label)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write `path`.pdf and `path`.png, byte for byte the same for the same figure, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{path}.pdf", metadata={"CreationDate": None})
    figure.savefig(f"{path}.png", metadata={"Software": None})
    plt.close(figure)


def gather(
    run: Run,
    points: Iterable[Any],
    compute: Callable[[Any], Mapping[str, Any]],
    summarise: Callable[[Any, list[Record], str], dict[str, Any]],
    *,
    version: int = 1,
) -> tuple[list[Record], dict[str, Any]]:
    """The records of a run and their summary, `summarise(config, records, preset)`.

    Added to it: "seconds", what computing all of the records took, and "wall_seconds", what this
    run took, which may have found some of them stored.
    """
    began = time.perf_counter()
    records = list(run.records(points, compute, version=version))
    summary = summarise(run.config, records, run.preset)
    summary["seconds"] = round(sum(record.meta["seconds"] or 0.0 for record in records), 1)
    summary["wall_seconds"] = round(time.perf_counter() - began, 1)
    return records, summary


def conclude(run: Run, summary: dict[str, Any], figure: Figure, caption: str) -> dict[str, Any]:
    """Save the figure, print its caption, `finish`."""
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
        The summary as it was written.

    Raises:
        TypeError: a value is neither a number, string, array, nor a list or mapping of them.
    """
    summary = _strict(summary)
    folder = Path(results) / summary["figure"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    print(json.dumps(summary, allow_nan=False), flush=True)
    return summary


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
        f"{name}: a field that is a flag is int, float, str, bool or a tuple of one of the "
        f"first three (tuple[int, ...]), got {hint}"
    )


def _strict(value: Any) -> Any:
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
    raise TypeError(f"a summary holds numbers, strings, lists and mappings, got {value!r}")
