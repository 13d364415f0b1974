"""Amorphous silicon: is a model that saw only four neighbours rigid at atoms of three and five?

After Chong et al., J. Chem. Theory Comput. 19 (2023) 8020. Cells of 64 atoms are molten and
quenched (`melt_quench`); in a pristine cell every atom has four neighbours closer than 2.85 Å. A
linear ACE model is trained on the energies per atom of pristine cells, then of as many cells, some
of which are swapped for cells with coordination defects. Shown: the local prediction rigidity of
atoms of cells in neither training set, by coordination, and a cell coloured by it. Rigidity rises
with every swap; the errors of defective cells, in the caption, need not fall with every one.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.style import PALETTE, label_axes
from experiments.panels.atoms import colour_scale, draw_atoms
from experiments.studies.amorphous import CLASSES, Study, by_class, quartiles, study
from experiments.systems.melt_quench import (
    BOND,
    Cells,
    Protocol,
    angle_spread,
    coordination,
    crystal,
    melt_quench,
    sort_cells,
)
from lprjax.ace.spec import ACESpec
from lprjax.atoms.chemiscope import write_chemiscope
from lprjax.atoms.extxyz import write_extxyz
from lprjax.atoms.structures import Labels

COLOURS = dict(zip(CLASSES, PALETTE, strict=False))
STYLES = dict(zip(CLASSES, ("o-", "s-", "^-", "D:"), strict=True))


@dataclass(frozen=True)
class Config(Protocol):
    """Settings of the figure, those of the quench among them; each field is a flag."""

    cells: int = 900  # molten and quenched; seeds 0, 1, ...
    batch: int = 30  # cells of one record
    training: int = 450  # training cells, if so many are pristine
    #: training cells that have defects; the first and --shown are compared
    swapped: tuple[int, ...] = (0, 2, 5, 10, 20, 50, 100)
    shown: int = 50  # swapped cells of the second training set
    held_out: int = 40  # cells of each kind in no training set
    order: int = 3  # of the ACE basis
    degree: int = 8  # of the ACE basis
    r_cut: float = 3.77  # of the ACE basis, Å
    force_weight: float = 0.01  # Å, of forces beside energies per atom of weight 1; 0: no such fits

    @property
    def protocol(self) -> Protocol:
        """The settings of the quench alone."""
        return Protocol(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Protocol)})

    @property
    def spec(self) -> ACESpec:
        """The basis."""
        options = dict(order=self.order, degree=self.degree, r_cut=self.r_cut)
        return ACESpec(("Si",), r0=2.35, constant=True, **options)


@dataclass(frozen=True)
class Point(Protocol):
    """One batch of quenches."""

    first_seed: int = 0
    batch: int = 1


def points(config: Config) -> list[Point]:
    """All batches."""
    protocol = dataclasses.asdict(config.protocol)
    firsts = range(0, config.cells, config.batch)
    return [
        Point(**protocol, first_seed=first, batch=min(config.batch, config.cells - first))
        for first in firsts
    ]


def compute(point: Point) -> dict[str, Any]:
    """The cells of one batch."""
    return melt_quench(point, range(point.first_seed, point.first_seed + point.batch))


def study_of(config: Config, cells: Cells) -> Study:
    """The fits that the figure shows."""
    names = ("training", "held_out", "swapped", "shown", "force_weight")
    return study(config.spec, cells, **{name: getattr(config, name) for name in names})


def shares(arrays: Sequence[np.ndarray]) -> dict[str, float]:
    """The share of atoms of each coordination."""
    counts = np.bincount(np.concatenate([a.ravel() for a in arrays]))
    return {str(z): float(n / counts.sum()) for z, n in enumerate(counts) if n}


def summarise(
    found: Study, cells: Cells, config: Config, records: Sequence[Record], preset: str
) -> dict[str, Any]:
    """Headline numbers of the figure."""
    every = {
        name: [
            coordination(dataclasses.replace(crystal(record.point), positions=x))
            for record in records
            for x in record.arrays[name]
        ]
        for name in ("restrained", "free")
    }
    kinds = {"pristine": cells.pristine, "defective": cells.defective}
    rigidities = {m: by_class(found, pair) for m, pair in found.rigidities.items()}
    forces = {m: by_class(found, pair) for m, pair in found.with_forces.items()}
    first, shown = 0, shown_of(found, config)
    return {
        "figure": "amorphous_silicon",
        "preset": preset,
        "bond": BOND,
        "lattice_constant": config.lattice_constant,
        "lam": config.lam,
        "kappa": config.kappa,
        "atoms_per_cell": int(crystal(config).n_atoms),
        "quenched": sum(len(record.arrays["sound"]) for record in records),
        **{kind: len(some) for kind, some in kinds.items()},
        **{name: getattr(cells, name) for name in ("unsound", "crystalline", "healed")},
        "coordination": {name: shares(some) for name, some in every.items()}
        | {"defective cells": shares([coordination(s) for s in cells.defective])},
        "angle_spread": {
            kind: float(np.mean([angle_spread(s) for s in some])) for kind, some in kinds.items()
        },
        "training": found.training,
        "held_out": config.held_out,
        "features": config.spec.n_columns,
        "ridge": found.ridge,
        "atoms": {name: int(values.size) for name, values in rigidities[0].items()},
        "swapped": list(rigidities),
        "shown": shown,
        "lpr": {name: [quartiles(r[name]) for r in rigidities.values()] for name in CLASSES},
        "rms_meV_per_atom": {
            kind: [1e3 * pair[k] for pair in found.errors.values()] for k, kind in enumerate(kinds)
        },
        "raised": {name: ratio(rigidities, name, first, shown) for name in CLASSES},
        "below_4_fold": below_4_fold(rigidities[0]),
        "lpr_with_forces": {
            name: [quartiles(r[name]) for r in forces.values()] for name in CLASSES
        },
        "raised_with_forces": {name: ratio(forces, name, first, shown) for name in CLASSES},
        "below_4_fold_by_ridge": {
            f"{ridge:.0e}": below_4_fold(by_class(found, pair))
            for ridge, pair in found.other_ridges.items()
        },
    }


def shown_of(found: Study, config: Config) -> int:
    """How many cells are swapped in the second training set, of as many as there are."""
    return min(config.shown, max(found.rigidities))


def below_4_fold(rigidities: dict[str, np.ndarray]) -> dict[str, float]:
    """By how much the median LPR of defects is below that of 4-fold atoms, a quotient."""
    middle = {name: np.median(rigidities[name]) for name in ("3-fold", "4-fold", "5-fold")}
    return {name: float(middle["4-fold"] / middle[name]) for name in ("3-fold", "5-fold")}


def ratio(rigidities: dict[int, dict], name: str, first: int, second: int) -> float | None:
    """The median LPR of the second training set over that of the first; None without fits."""
    if not rigidities:
        return None
    return float(np.median(rigidities[second][name]) / np.median(rigidities[first][name]))


def write_cells(folder: Path, found: Study, config: Config) -> None:
    """The cells held out as extended XYZ and for chemiscope, `lpr` of each atom: files of each
    training set shown."""
    structures = [*found.structures[0], *found.structures[1]]
    energies = np.concatenate([d.energies * d.coordination.shape[1] for d in found.data])
    counts = np.concatenate([d.coordination for d in found.data])
    for m in (0, shown_of(found, config)):
        arrays = {"lpr": np.concatenate(found.rigidities[m]), "coordination": counts}
        labels = [Labels(energy=energy) for energy in energies]
        write_extxyz(folder / f"held_out_swapped_{m}.xyz", structures, labels, arrays)
        title = f"amorphous silicon, {m} training cells swapped"
        path = folder / f"held_out_swapped_{m}.json.gz"
        write_chemiscope(path, structures, arrays, labels, title=title)


def example(found: Study) -> int:
    """The defective cell held out that is drawn: the richest in both, 3- and 5-fold atoms."""
    counts = found.data[1].coordination
    return int(np.argmax(np.minimum((counts == 3).sum(axis=1), (counts == 5).sum(axis=1))))


def plot(summary: dict, found: Study) -> Figure:
    """The whole figure."""
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 7.6), height_ratios=(1.0, 1.15))
    draw_classes(axes[0, 0], summary, found)
    draw_swaps(axes[0, 1], summary)
    k = example(found)
    pair = [found.rigidities[m][1][k] for m in (0, summary["shown"])]
    inside = np.log10(np.concatenate(pair))
    limits = (float(inside.min()), float(inside.max()))
    counts = found.data[1].coordination[k]
    for ax, values, m in zip(axes[1], pair, (0, summary["shown"]), strict=True):
        structure = found.structures[1][k]
        draw_atoms(ax, structure, values, bond=BOND, label=None, limits=limits, marked=counts != 4)
        ax.set_title(f"trained with {m} cells swapped; rings: not 4-fold", fontsize=9)
    scale = colour_scale(np.concatenate(pair), limits)
    figure.colorbar(scale, ax=axes[1], label="log10 (LPR eV²)", shrink=0.8)
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def draw_classes(ax: Axes, summary: dict, found: Study) -> None:
    """LPR by coordination for both training sets: quartiles, and whiskers over 90 % of atoms."""
    both = (0, "trained on pristine cells"), (summary["shown"], f"{summary['shown']} swapped")
    for k, (m, label) in enumerate(both):
        colour = ("0.6", "black")[k]
        values = [by_class(found, found.rigidities[m])[name] for name in CLASSES]
        style = dict(color=colour, lw=1.2)
        ax.boxplot(
            values, positions=np.arange(len(CLASSES)) + 0.36 * (k - 0.5), widths=0.3,
            whis=(5, 95), showfliers=False, boxprops=style, whiskerprops=style, capprops=style,
            medianprops=style | {"lw": 2.5},
        )  # fmt: skip
        ax.plot([], [], color=colour, lw=2.5, label=label)
    ax.set_xticks(range(len(CLASSES)), [name.replace(", ", ",\n") for name in CLASSES])
    ax.set_yscale("log")
    ax.set_ylim(top=5.0 * ax.get_ylim()[1])  # room for the legend
    label_axes(ax, ("atoms of cells held out", None), ("LPR", "1/eV²"))
    ax.legend(fontsize=8, loc="upper left")


def draw_swaps(ax: Axes, summary: dict) -> None:
    """Median LPR against the number of swapped cells, quartiles shaded; open: with forces."""
    x = np.array(summary["swapped"])
    for name in CLASSES:
        low, middle, high = np.array(summary["lpr"][name], float).T
        ax.plot(x, middle, STYLES[name], color=COLOURS[name], label=name)
        ax.fill_between(x, low, high, color=COLOURS[name], alpha=0.15, lw=0)
        forces = [middle for _, middle, _ in summary["lpr_with_forces"][name]]
        if forces:
            marker, ends = STYLES[name][0], (0, summary["shown"])
            ax.plot(ends, forces, marker + "--", color=COLOURS[name], mfc="none", lw=0.9)
    ax.set_xscale("symlog", linthresh=2, linscale=0.5)
    ax.set_xticks(x, [str(m) for m in x])
    ax.minorticks_off()
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.2 * ax.get_ylim()[0])
    label_axes(ax, (f"defective cells among {summary['training']}", None), ("LPR", "1/eV²"))
    ax.legend(fontsize=8, loc="lower right", ncols=2)


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    raised, below = summary["raised"], summary["below_4_fold"]
    rms = summary["rms_meV_per_atom"]
    at = summary["swapped"].index(summary["shown"])
    forces = summary["raised_with_forces"]
    with_forces = ""
    if forces["3-fold"] is not None:
        with_forces = (
            " With forces in both fits (open signs) they rise: "
            + ", ".join(f"{name} {forces[name]:.2g} times" for name in CLASSES[:3])
            + "."
        )
    return (
        f"{summary['quenched']} quenches of {summary['atoms_per_cell']} Si atoms, as dense as "
        f"diamond with a = {summary['lattice_constant']:g} Å, with three-body strength "
        f"{summary['lam']:g} gave {summary['pristine']} pristine cells under a "
        f"restraint to four neighbours\nand {summary['defective']} defective ones, relaxed "
        "without it; labels: Stillinger–Weber as published.\n"
        f"Trained on the energies of {summary['training']} cells ({summary['features']} features, "
        f"ridge {summary['ridge']:.0e}). Pristine cells only: the median LPR of 3- and 5-fold "
        f"atoms is {below['3-fold']:.0f} and {below['5-fold']:.0f} times below that of 4-fold "
        "ones.\n"
        f"{summary['shown']} swapped: it rises {raised['3-fold']:.2g} and {raised['5-fold']:.2g} "
        f"times, that of 4-fold atoms {raised['4-fold']:.2g} times; energy error of defective "
        f"cells {rms['defective'][0]:.2g} → {rms['defective'][at]:.2g} meV/atom, of pristine ones "
        f"{rms['pristine'][0]:.2g} → {rms['pristine'][at]:.2g}.{with_forces}{risen(summary)}"
    )


def risen(summary: dict) -> str:
    """A sentence on the numbers of swapped cells after which defective cells have larger errors."""
    before, *after = summary["rms_meV_per_atom"]["defective"]
    worse = [(m, e) for m, e in zip(summary["swapped"][1:], after, strict=True) if e > before]
    if not worse:
        return ""
    named = ", ".join(f"{error:.2g} with {m} swapped" for m, error in worse)
    return f" The error of defective cells RISES to {named}."


PRESETS = {
    "smoke": Config(
        cells=12, batch=6, training=8, swapped=(1,), shown=1, held_out=1, leg_steps=120, legs=3,
        kappa=3.0, degree=5, force_weight=0.0,
    ),
    "paper": Config(),
}  # fmt: skip


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("amorphous_silicon", PRESETS, argv, __doc__)
    kept = {}

    def summed_up(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
        kept["cells"] = sort_cells(config.protocol, [record.arrays for record in records])
        kept["found"] = study_of(config, kept["cells"])
        return summarise(**kept, config=config, records=records, preset=preset)

    def drawn(summary: dict[str, Any], _: list[Record]) -> Figure:
        write_cells(run.folder, kept["found"], run.config)
        return plot(summary, kept["found"])

    return Plan(run, points(run.config), compute, summed_up, drawn, caption)


main = script(plan)


if __name__ == "__main__":
    main()
