"""Which cells of a pool to label next, so that predictions become most rigid. No label is needed.

$ lprjax choose model.npz pool.xyz --count 20 -o chosen.xyz
$ lprjax choose model.npz pool.xyz --count 20 --targets defects.xyz --rule variance

Cells are chosen one after the other. What is made rigid are the site energies of the targets, of
the pool where none are named; by the rule "rigidity" their mean LPR, by "variance" the mean of
1/LPR, which counts the least rigid most, by "d_optimal" whatever there is to know, and "random" is
for comparison. Rows have the weights of the fit, energies and virials per atom as `lprjax fit` has
them.
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
    #: cells whose site energies are to become rigid; none: the pool's
    targets: Annotated[Path | None, arg(metavar="TARGETS.xyz")] = None
    rule: Literal["rigidity", "variance", "d_optimal", "random"] = "rigidity"
    #: what a label would hold
    kinds: tuple[Literal["energy", "forces", "virial"], ...] = ("energy", "forces")
    most_targets: int = 500  # site energies that count, evenly spread over the targets
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
        targets = _targets(saved, aimed, self.most_targets)
        candidates = _candidates(self, saved, pool)
        key = jax.random.key(self.seed) if self.rule == "random" else None
        chosen = lp.choose(
            saved.fit.factor, candidates, targets, self.count, rule=self.rule, key=key
        )
        rows = _rows(chosen, pool, self.group_by)
        say(table(COLUMNS, rows))
        summary: dict[str, Any] = {
            "pool": str(self.pool),
            "rule": self.rule,
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
            steps = np.arange(self.count + 1)
            ax.semilogy(steps, chosen.rigidity.mean(axis=1), ".-", label="mean")
            ax.semilogy(steps, chosen.rigidity.min(axis=1), ".-", label="least")
            ax.set(xlabel="cells chosen", ylabel="LPR of the targets (1/eV$^2$)")
            ax.legend(fontsize=7)
            beside.plot(steps, chosen.log_det, ".-")
            beside.set(xlabel="cells chosen", ylabel="ln det H, from the start")
            save_picture(figure, picture_of(self.output))
            summary |= {"output": str(self.output), "picture": str(picture_of(self.output))}
            say(f"wrote {self.output} and {picture_of(self.output)}")
        return Outcome(summary)


COLUMNS = ("pick", "frame", "config_type", "atoms", "mean LPR", "least LPR", "gain ln det H")
"""Of the table: rigidities of the targets, 1/eV^2, once the cell is labelled; pick 0 is now."""


def _rows(chosen: Selection, pool: Sequence[Frame], group_by: str) -> list[tuple]:
    mean, least = chosen.rigidity.mean(axis=1), chosen.rigidity.min(axis=1)
    rows: list[tuple] = [(0, "", "", "", float(mean[0]), float(least[0]), 0.0)]
    for k, place in enumerate(chosen.order.tolist(), start=1):
        structure, _, info = pool[place]
        gain = float(chosen.log_det[k] - chosen.log_det[k - 1])
        group = str(info.get(group_by, ""))
        about = k, place, group, structure.n_atoms
        rows.append((*about, float(mean[k]), float(least[k]), gain))
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


def _targets(saved: SavedFit, frames: Sequence[Frame], most: int) -> np.ndarray:
    """Rows of site energies, evenly spread, those left out that nothing moves."""
    structures = [structure for structure, _, _ in frames]
    graphs = lp.build_graphs(structures, saved.spec.r_cut, shapes=3)
    step = -(-sum(s.n_atoms for s in structures) // most)
    found, before = [], 0
    for structure, graph in zip(structures, graphs, strict=True):
        rows = np.asarray(lp.site_basis(saved.spec, graph))[: structure.n_atoms]
        found.append(rows[-before % step :: step])
        before += structure.n_atoms
    targets = np.concatenate(found)
    return targets[~np.asarray(lp.regression.vanishing(targets))]


def _candidates(flags: Flags, saved: SavedFit, pool: Sequence[Frame]) -> list[np.ndarray]:
    """Weighted rows of each cell, (r, K)."""
    most = max(3 * s.n_atoms for s, _, _ in pool) if "forces" in flags.kinds else 6
    size = saved.spec.n_columns
    if 8.0 * len(pool) * min(most, size) * size > MOST_BYTES:
        raise ValueError(
            f"{flags.pool} has {len(pool)} cells of up to {most} rows of {size} functions: wanted "
            f"no more than {MOST_BYTES:.0e} bytes; leave forces out, --kinds energy, or split it."
        )
    graphs = lp.build_graphs([s for s, _, _ in pool], saved.spec.r_cut, shapes=3)
    found = []
    for (structure, _, info), graph in zip(
        tqdm(pool, desc="rows", unit=" cells", delay=5), graphs, strict=True
    ):
        n, rows = structure.n_atoms, lp.design_rows(saved.spec, graph, flags.kinds)
        group = str(info.get(flags.group_by, ""))
        stacks = []
        for kind in flags.kinds:
            share = 1.0 if kind == "forces" or flags.per_cell else 1.0 / n
            weight = share * _weight(saved.fit.weights, kind, group)
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
