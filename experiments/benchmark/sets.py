"""What `benchmark` measures of whole data sets: from a file to factors, of cells of any sizes.

Every function returns arrays: seconds of "ours" and "theirs" (calls,), and extras; where two sets
or cells of other sizes are compared these are seconds per atom, and "atoms" is 1.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark.cells import R_CUT, TUNGSTEN, ace_spec, rattled_silicon, silicon_shape
from experiments.benchmark.clock import Turns, in_turn
from lprjax.ace.spec import ACESpec
from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.graphs import build_graph, build_graphs
from lprjax.atoms.structures import Structure, bcc, rattled, strained, supercell
from lprjax.potentials.data_sets import observe_all
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.potential import Potential
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.assembly import compress_structures
from lprjax.regression.rows import design_rows

KINDS = ("energy", "forces", "virial")
SILICON = "mlearn_Si_train.xyz"
RATTLE, STRAIN = 0.05, 0.02  # Å; of a choice of cells
LIMIT = 120.0  # s, of all turns of a set

Found = dict[str, Any]


def file_to_factors(spec: ACESpec, path: Path) -> Any:
    """Factors of energies and virials per atom, and of forces, of all frames of a file."""
    samples = ((structure, labels) for structure, labels, _ in read_extxyz(path))
    return compress_structures(spec, samples, KINDS, per_atom=("energy", "virial"))


def written(path: Path, cells: list[Structure], potential: Potential) -> int:
    """How many atoms the cells have that were labelled by a potential and written to a file."""
    graphs = build_graphs(cells, potential.r_cut)
    write_extxyz(path, cells, observe_all(potential, graphs, KINDS))
    return sum(cell.n_atoms for cell in cells)


def per_atom(calls: dict[str, tuple[Callable[[], Any], int]], turns: Turns) -> Found:
    """Seconds per atom of calls on so many atoms each, in turn."""
    found = in_turn({code: call for code, (call, _) in calls.items()}, turns, limit=LIMIT)
    return {code: found[code] / n for code, (_, n) in calls.items()} | {"atoms": 1}


def file_set(degree: int, folder: str, n_atoms: int, turns: Turns) -> Found:
    """mlearn's silicon, from file to factors, against the bare row kernel on one cell, per atom.

    Without a folder of files, cells of 64 atoms that Stillinger-Weber labelled.
    """
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    graph = build_graph(cell, spec.r_cut, n_atoms=n_atoms)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(folder) / SILICON
        if not folder:
            path = Path(scratch) / SILICON
            cube = rattled_silicon(silicon_shape(min(64, n_atoms)))
            keys = jax.random.split(jax.random.key(0), max(2, n_atoms // 5))
            written(path, [rattled(cube, key, RATTLE) for key in keys], stillinger_weber())
        sizes = [structure.n_atoms for structure, _, _ in read_extxyz(path)]
        calls = {
            "ours": (partial(file_to_factors, spec, path), sum(sizes)),
            "theirs": (partial(design_rows, spec, graph, KINDS), n_atoms),
        }
        found = per_atom(calls, turns)
    about = {"functions": spec.n_columns, "cells": len(sizes), "atoms_in_all": sum(sizes)}
    return found | about | {"real_data": bool(folder)}


def small_cells(degree: int, n_cells: int, turns: Turns) -> Found:
    """Strained tungsten, cells of 2 to 16 atoms against cells of 54, file to factors, per atom."""
    spec = ACESpec(("W",), order=3, degree=degree, r_cut=R_CUT, r0=TUNGSTEN * np.sqrt(3) / 2)
    cube, draw = bcc("W", TUNGSTEN), np.random.default_rng(0)

    def cell(repeats: tuple[int, int, int]) -> Structure:
        bent = strained(supercell(cube, repeats), STRAIN * draw.normal(size=(3, 3)))
        return rattled(bent, jax.random.key(draw.integers(2**31)), RATTLE)

    small = [cell((1 + k % 2, 1 + k // 2 % 2, 1 + k // 4 % 2)) for k in range(n_cells)]
    large = [cell((3, 3, 3)) for _ in range(max(2, n_cells // 8))]
    with tempfile.TemporaryDirectory() as scratch:
        calls = {}
        for code, cells in (("ours", small), ("theirs", large)):
            path = Path(scratch) / f"{code}.xyz"
            n = written(path, cells, zhou_eam("W"))
            calls[code] = (partial(file_to_factors, spec, path), n)
        found = per_atom(calls, turns)
    about = {"functions": spec.n_columns, "small": n_cells, "large": len(large)}
    return found | about | {"mean_size": calls["ours"][1] / n_cells}


def packed(degree: int, n_cells: int, cell_atoms: int, turns: Turns) -> Found:
    """Graphs of rattled silicon to factors; the target is one for accelerators."""
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(cell_atoms))
    cells = [rattled(cell, key, RATTLE) for key in jax.random.split(jax.random.key(1), n_cells)]
    labels = observe_all(stillinger_weber(), build_graphs(cells, spec.r_cut), KINDS)
    samples = list(zip(build_graphs(cells, spec.r_cut), labels, strict=True))
    call = partial(compress_structures, spec, samples, KINDS)
    found = in_turn({"ours": call}, turns, limit=LIMIT)
    found |= {"atoms": n_cells * cell_atoms, "functions": spec.n_columns}
    if jax.default_backend() == "cpu":
        return found | {"skipped": "the target is an accelerator's"}
    return found | {"ratio": 1e6 * np.median(found["ours"]) / found["atoms"]}
