"""Which cells of a pool to label next, so that predictions become certain. No label is needed.

$ lprjax choose model.npz pool.xyz --count 20 -o chosen.xyz
$ lprjax choose model.npz pool.xyz --count 20 --targets defects.xyz
$ lprjax choose model.npz pool.xyz --count 20 --about labels --rule variance

Cells are chosen one after the other, for the targets, or for the pool itself where none are named.
What is to become certain are the energies of the target cells (of how the energy is shared among
sites no data say anything), by the rule "log_rigidity" the mean of the logarithms of their
rigidities, so that each counts alike. By "variance" the mean of 1/PR counts the least rigid most;
with `--about labels` that is the loss to expect on the targets: the choice where forces matter
most. "rigidity" is the mean PR, which the most rigid rule, "d_optimal" what there is to know at
all, "random" for comparison. Rows have the weights of the fit, energies and virials per atom as
`lprjax fit` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff, Positional, arg

import lprjax as lp
from lprjax.commands.command import Command, Outcome, Say, checked_output, table

if TYPE_CHECKING:
    from lprjax.commands.sources import Frame
    from lprjax.models.files import SavedFit
    from lprjax.regression.selection import Selection

MOST_BYTES = 4e9
"""Of the rows of all candidates: a choice."""


@dataclass(frozen=True, kw_only=True)
class Flags(Command):
    """From which pool, for which targets, how many."""

    #: a fit, as `lprjax fit` writes it
    model: Annotated[Positional[Path], arg(metavar="MODEL.npz")]
    #: the candidates: extended XYZ, or what else ASE reads
    pool: Annotated[Positional[Path], arg(metavar="POOL.xyz")]
    count: int  # how many to choose
    #: where the chosen cells go, in the order of choice: .xyz, as they are in the pool, or .json
    #: (.gz) for chemiscope, with the LPR of their atoms before and after
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="OUT.xyz|OUT.json")] = None
    #: cells that are to be predicted well; none: the pool's
    targets: Annotated[Path | None, arg(metavar="TARGETS.xyz")] = None
    #: of the targets, what is to become certain: the energies of the cells, all that a label
    #: holds, weighted as in the fit, or the energies of their sites
    about: Literal["energies", "labels", "sites"] = "energies"
    rule: Literal["log_rigidity", "variance", "rigidity", "d_optimal", "random"] = "log_rigidity"
    #: what a label would hold
    kinds: tuple[Literal["energy", "forces", "virial"], ...] = ("energy", "forces")
    #: sites (of --about sites) or cells that count, evenly spread over the targets
    most_targets: int = 500
    group_by: str = "config_type"  # the entry of a frame that names its group, for its weight
    #: the weights of the fit are of energies and virials of whole cells, as of `fit --per-cell`
    per_cell: FlagCreatePairsOff[bool] = False
    seed: int = 0  # of the rule "random"

    def run(self, say: Say) -> Outcome:
        """Rows, choice, what it brings."""
        import jax

        from lprjax.commands.pictures import new_figure, picture_of, save_picture
        from lprjax.commands.sources import copy_cells, read_cells, read_fit

        checked_output(self.output, ".xyz", ".extxyz", ".xyz.gz", ".json", ".json.gz")
        saved, pool = read_fit(self.model), read_cells(self.pool)
        aimed = pool if self.targets is None else read_cells(self.targets)
        targets = _targets(self, saved, aimed)
        candidates = _stacks(self, saved, pool, self.kinds)
        key = jax.random.key(self.seed) if self.rule == "random" else None
        chosen = lp.choose(
            saved.fit.factor, candidates, targets, self.count, rule=self.rule, key=key
        )
        rows = _rows(chosen, pool, self.group_by)
        say(table(COLUMNS, rows))
        summary: dict[str, Any] = {
            "pool": str(self.pool),
            "rule": self.rule,
            "about": self.about,
            "targets": len(targets),
            "chosen": chosen.order,
            "steps": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }
        if self.output is not None:
            if ".json" in self.output.name:
                _to_chemiscope(self.output, saved, chosen, pool)
            else:
                copy_cells(self.pool, pool, chosen.order.tolist(), self.output)
            figure, (ax, beside) = new_figure(2)
            steps, widths = np.arange(self.count + 1), _widths(chosen)
            ax.semilogy(steps, widths[0], ".-", label="r.m.s.")
            ax.semilogy(steps, widths[1], ".-", label="largest")
            ax.set(xlabel="cells chosen", ylabel=f"PR$^{{-1/2}}$ of the targets ({self._unit})")
            ax.legend(fontsize=7)
            beside.plot(steps, chosen.log_det, ".-")
            beside.set(xlabel="cells chosen", ylabel="ln det H, from the start")
            save_picture(figure, picture_of(self.output))
            summary |= {"output": str(self.output), "picture": str(picture_of(self.output))}
            say(f"wrote {self.output} and {picture_of(self.output)}")
        return Outcome(summary)

    @property
    def _unit(self) -> str:
        whole = "eV" if self.about == "sites" or self.per_cell else "eV/atom"
        return "weighted" if self.about == "labels" else whole


COLUMNS = ("pick", "frame", "config_type", "atoms", "r.m.s. width", "largest", "gain ln det H")
"""Of the table: widths PR^-1/2 of the targets, where weighted residuals have variance one, once the
cell is labelled; pick 0 is now. Widths of labels are weighted too, those of energies are in eV/atom
(with `--per-cell` in eV), of sites in eV."""


def _widths(chosen: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square and largest of PR^-1/2 over the targets, before and after each pick."""
    variances = 1.0 / chosen.rigidity
    return np.sqrt(variances.mean(axis=1)), np.sqrt(variances.max(axis=1))


def _rows(chosen: Selection, pool: Sequence[Frame], group_by: str) -> list[tuple]:
    mean, most = _widths(chosen)
    rows: list[tuple] = [(0, "", "", "", float(mean[0]), float(most[0]), 0.0)]
    for k, place in enumerate(chosen.order.tolist(), start=1):
        structure, _, info = pool[place]
        gain = float(chosen.log_det[k] - chosen.log_det[k - 1])
        group = str(info.get(group_by, ""))
        about = k, place, group, structure.n_atoms
        rows.append((*about, float(mean[k]), float(most[k]), gain))
    return rows


def _to_chemiscope(path: Path, saved: SavedFit, chosen: Selection, pool: Sequence[Frame]) -> None:
    """The chosen cells, each atom with its rigidity now and once all of them are labelled."""
    cells = [pool[k] for k in chosen.order.tolist()]
    graphs = lp.build_graphs([s for s, _, _ in cells], saved.spec.r_cut, shapes=3)
    arrays: dict[str, list[np.ndarray]] = {"lpr": [], "lpr_then": []}
    for (structure, _, _), graph in zip(cells, graphs, strict=True):
        rows = np.asarray(lp.site_basis(saved.spec, graph))[: structure.n_atoms]
        for name, factor in (("lpr", saved.fit.factor), ("lpr_then", chosen.factor)):
            arrays[name].append(np.asarray(lp.local_prediction_rigidity(factor, rows)))
    structures, labels = [s for s, _, _ in cells], [y for _, y, _ in cells]
    lp.write_chemiscope(path, structures, arrays, labels, units={"lpr_then": "1/eV^2"})


def _targets(flags: Flags, saved: SavedFit, frames: Sequence[Frame]) -> np.ndarray:
    """Rows of labels, energies or sites, evenly spread, those left out that nothing moves."""
    if flags.about == "sites":
        graphs = lp.build_graphs([s for s, _, _ in frames], saved.spec.r_cut, shapes=3)
        sites = np.concatenate(
            [
                np.asarray(lp.site_basis(saved.spec, graph))[: structure.n_atoms]
                for (structure, _, _), graph in zip(frames, graphs, strict=True)
            ]
        )
        targets = sites[:: -(-len(sites) // flags.most_targets)]
    else:
        few = frames[:: -(-len(frames) // flags.most_targets)]
        kinds = flags.kinds if flags.about == "labels" else ("energy",)
        targets = np.concatenate(_stacks(flags, saved, few, kinds, flags.about == "labels"))
    return targets[~np.asarray(lp.regression.vanishing(targets))]


def _stacks(
    flags: Flags,
    saved: SavedFit,
    frames: Sequence[Frame],
    kinds: Sequence[str],
    weighted: bool = True,
) -> list[np.ndarray]:
    """Rows of each cell, (r, K), by default times the weights of the fit."""
    most = max(3 * s.n_atoms for s, _, _ in frames) if "forces" in kinds else 6
    size = saved.spec.n_columns
    if 8.0 * len(frames) * min(most, size) * size > MOST_BYTES:
        raise ValueError(
            f"{len(frames)} cells have up to {most} rows of {size} functions: wanted no more than "
            f"{MOST_BYTES:.0e} bytes; of a pool, leave forces out, --kinds energy, or split it; of "
            "targets, a smaller --most-targets."
        )
    graphs = lp.build_graphs([s for s, _, _ in frames], saved.spec.r_cut, shapes=3)
    found = []
    for (structure, _, info), graph in zip(
        tqdm(frames, desc="rows", unit=" cells", delay=5), graphs, strict=True
    ):
        n, rows = structure.n_atoms, lp.design_rows(saved.spec, graph, kinds)
        group = str(info.get(flags.group_by, ""))
        stacks = []
        for kind in kinds:
            share = 1.0 if kind == "forces" or flags.per_cell else 1.0 / n
            weight = share * _weight(saved.fit.weights, kind, group) if weighted else share
            stack = lp.regression.stacked(kind, getattr(rows, kind), n)
            stacks.append(weight * np.asarray(stack))
        found.append(np.concatenate(stacks))
    return found


def _weight(weights: Mapping[Any, float], kind: str, group: str) -> float:
    """Of the cell's group where the fit knows it, else the median of the kind's."""
    if (kind, group) in weights:
        return weights[kind, group]
    same = [w for key, w in weights.items() if key == kind or (key[0] == kind and key != kind)]
    if not same:
        raise ValueError(f"--kinds has {kind!r}: wanted kinds that the model was fitted to.")
    return float(np.median(same))
