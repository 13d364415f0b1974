"""Pictures of what the subcommands find: PNG files beside the output, whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lprjax.commands.errors import UNITS, Compared
from lprjax.numerics.disk import replace_file

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Told apart by people of any colour vision (Okabe and Ito)."""
_LABELS = {"energy": "energy (eV/atom)", "forces": "force (eV/Å)", "virial": "virial (eV/atom)"}
_LEAST = 0.02  # of the errors are below what is drawn
_MOST = 20_000  # points in a panel: more are not seen


def picture_of(path: Path) -> Path:
    """Where the picture of an output goes: beside it, its name ending in .png.

    Args:
        path: of the output.

    Returns:
        The path of the picture.
    """
    stem = path.name
    for end in (".gz", ".bz2", ".xz", ".npz", ".json", ".xyz", ".extxyz"):
        stem = stem.removesuffix(end)
    return path.with_name(stem + ".png")


def new_figure(columns: int, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure of panels that belongs to no window.

    Args:
        columns: how many panels side by side.
        rows: of them.

    Returns:
        The figure, and its panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns, 3.3 * rows), layout="constrained", dpi=150)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def save_picture(figure: Any, path: Path) -> None:
    """Write a figure as PNG, in one step.

    Args:
        figure: of Matplotlib.
        path: where it goes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    replace_file(path, buffer.getvalue())


def draw_parity(ax: Any, kind: str, sets: Mapping[str, Sequence[Compared]]) -> None:
    """Predictions against labels of one kind.

    Args:
        ax: the panel.
        kind: among "energy", "forces" and "virial".
        sets: by name, such as "train".
    """
    low, high = np.inf, -np.inf
    for colour, (name, found) in zip(COLOURS, sets.items(), strict=False):
        parts = [c for c in found if c.kind == kind and c.group != "all"]
        if not parts:
            continue
        true = np.concatenate([c.true for c in parts])
        ours = np.concatenate([c.predicted for c in parts])
        rmse = float(np.sqrt(np.mean(np.square(np.concatenate([c.errors for c in parts])))))
        step = -(-len(true) // _MOST)
        label = f"{name}: RMSE {rmse:.3g} {UNITS[kind]}"
        ax.plot(true[::step], ours[::step], ".", ms=3, color=colour, label=label, rasterized=True)
        low, high = min(low, true.min(), ours.min()), max(high, true.max(), ours.max())
    if high > -np.inf:
        ax.plot([low, high], [low, high], color="0.6", lw=0.8, zorder=0)
        ax.legend(fontsize=7)
    ax.set(xlabel=f"labelled {_LABELS[kind]}", ylabel="predicted")


def draw_cumulative(ax: Any, kind: str, sets: Mapping[str, Sequence[Compared]]) -> None:
    """Which fraction of the errors of one kind is larger than a size.

    Args:
        ax: the panel.
        kind: among "energy", "forces" and "virial".
        sets: by name, such as "train".
    """
    least = np.inf
    for colour, (name, found) in zip(COLOURS, sets.items(), strict=False):
        parts = [np.abs(c.errors) for c in found if c.kind == kind and c.group != "all"]
        if parts:
            sizes = np.sort(np.concatenate(parts))
            least = min(least, float(sizes[int(_LEAST * len(sizes))]))
            left = 1.0 - np.arange(len(sizes)) / len(sizes)
            step = -(-len(sizes) // _MOST)
            ax.plot(sizes[::step], left[::step], color=colour, label=name)
    ax.set(xscale="log", yscale="log", xlabel=f"|error| of {kind} ({UNITS[kind]})")
    ax.set(ylabel="fraction of larger errors")
    if np.isfinite(least):
        ax.set_xlim(left=max(least, 1e-12))  # some forces are zero by symmetry
        ax.legend(fontsize=7)


def draw_by_species(ax: Any, values: np.ndarray, species: Sequence[str], label: str) -> None:
    """The spread of positive numbers of atoms, by element.

    Args:
        ax: the panel.
        values: (n,), of which those that are finite and positive are drawn.
        species: (n,), symbols.
        label: of the axis.
    """
    symbols = list(dict.fromkeys(species))
    kept = np.isfinite(values) & (values > 0)
    parts = [values[kept & (np.asarray(species) == symbol)] for symbol in symbols]
    drawn = [(s, p) for s, p in zip(symbols, parts, strict=True) if len(p)]
    if drawn:
        ax.boxplot([p for _, p in drawn], whis=(0, 100), widths=0.5)
        ax.set_xticks(range(1, len(drawn) + 1), [s for s, _ in drawn])
    ax.set(ylabel=label, yscale="log")


def fit_picture(
    sets: Mapping[str, Sequence[Compared]],
    lpr: np.ndarray,
    species: Sequence[str],
    front: Sequence[tuple[float, float]] = (),
    chosen: int | None = None,
) -> Any:
    """Parity, cumulative errors and rigidities of a fit, and the front that it was chosen on.

    Args:
        sets: labels beside predictions, by the name of the set.
        lpr: (n,) of atoms, 1/eV^2.
        species: of each, its symbol.
        front: held-out errors, meV/atom and eV/Å; none: no such panel.
        chosen: which of them.

    Returns:
        The figure.
    """
    kinds = ("energy", "forces", "virial")
    figure, axes = new_figure(4, 2)
    for above, below, kind in zip(axes[:3], axes[4:7], kinds, strict=True):
        if any(c.kind == kind for found in sets.values() for c in found):
            draw_parity(above, kind, sets)
            draw_cumulative(below, kind, sets)
        else:
            above.set_axis_off()
            below.set_axis_off()
    draw_by_species(axes[3], lpr, species, "LPR (1/eV$^2$), training atoms")
    if not front:
        axes[7].set_axis_off()
        return figure
    axes[7].plot(*zip(*front, strict=True), ".-", color=COLOURS[0], label="front")
    if chosen is not None:
        axes[7].plot(*front[chosen], "o", ms=8, mfc="none", color=COLOURS[5], label="chosen")
    axes[7].set(xlabel="held-out energies (meV/atom)", ylabel="held-out forces (eV/Å)")
    axes[7].legend(fontsize=7)
    return figure


def parity_picture(sets: Mapping[str, Sequence[Compared]]) -> Any:
    """Parity of every kind that there is.

    Args:
        sets: labels beside predictions, by the name of the set.

    Returns:
        The figure.
    """
    kinds = [
        kind for kind in UNITS if any(c.kind == kind for found in sets.values() for c in found)
    ]
    figure, axes = new_figure(len(kinds))
    for ax, kind in zip(axes, kinds, strict=True):
        draw_parity(ax, kind, sets)
    return figure
