"""The cells of the mlearn benchmark, their design rows, and a stand-in where the files are absent.

The files are those of materialsvirtuallab/mlearn as extended XYZ, with `config_type` as the group
of a cell (Zuo et al., J. Phys. Chem. A 124 (2020) 731). Rows of energy and virial are *per atom*,
so that one weight suits cells of every size; forces are as they are.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from experiments.systems.materials import material
from experiments.systems.observations import labelled_frames
from experiments.systems.random_keys import random_keys
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph, build_graph, build_graphs
from lprjax.atoms.structures import Labels, Structure, make_structure, rattled, strained, supercell
from lprjax.potentials.observables import observe
from lprjax.regression.factors import Factor, compress
from lprjax.regression.samples import stacked_rows

KINDS = ("energy", "forces", "virial")
GROUPS = ("AIMD-NVT", "Elastic", "Surface", "Vacancy")
SYNTHETIC = "Si-SW"  # the material that needs no file
RATTLE = {"AIMD-NVT": 0.15, "Elastic": 0.0, "Surface": 0.03, "Vacancy": 0.1}  # Å, a choice
STAND_IN = {  # how many cells of each group: a choice, small
    "train": {"AIMD-NVT": 14, "Elastic": 8, "Surface": 4, "Vacancy": 12},
    "test": {"AIMD-NVT": 4, "Elastic": 2, "Surface": 2, "Vacancy": 4},
}


class Cell(NamedTuple):
    """A labelled cell."""

    structure: Structure
    labels: Labels  # energy eV, forces eV/Å, virial eV
    group: str  # one of GROUPS


class CellRows(NamedTuple):
    """The rows of one cell of n atoms by kind, energy and virial per atom."""

    group: str  # one of GROUPS
    rows: dict[str, np.ndarray]  # (r, K)
    targets: dict[str, np.ndarray]  # (r,) eV or eV/Å
    sites: np.ndarray  # (n, K) B(i)


def file_of(name: str, split: str, folder: str) -> Path:
    """The file of a material's split.

    Args:
        name: "Mo" or "Si".
        split: "train" or "test".
        folder: where the files are; empty for none.

    Returns:
        the path.

    Raises:
        FileNotFoundError: it is absent; the message says where it comes from.
    """
    path = Path(folder) / f"mlearn_{name}_{split}.xyz"
    if not (folder and path.is_file()):
        raise FileNotFoundError(
            f"no {path.name} in {folder or 'any folder, since none was given'}: wanted --data DIR "
            "(or LPRJAX_DATA) with mlearn_Si_train.xyz, mlearn_Si_test.xyz, "
            "mlearn_Mo_train.xyz and mlearn_Mo_test.xyz, made from the data of "
            "github.com/materialsvirtuallab/mlearn (Zuo et al., J. Phys. Chem. A 124 (2020) 731): "
            "extended XYZ with energy, forces, stress and config_type."
        )
    return path


def digest(names: Sequence[str], folder: str) -> str:
    """Which data the records belong to, wherever they lie.

    Args:
        names: "Mo" and "Si", or one of them.
        folder: where the files are.

    Returns:
        "mlearn", and the first digits of the SHA-256 of all their files.

    Raises:
        FileNotFoundError: a file is absent.
    """
    files = [file_of(name, split, folder) for name in names for split in ("train", "test")]
    whole = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return f"mlearn {whole.hexdigest()[:16]}"


def cells(name: str, split: str, folder: str) -> list[Cell]:
    """All cells of one split, labelled.

    Args:
        name: "Mo", "Si", or SYNTHETIC for the stand-in.
        split: "train" or "test".
        folder: where the files are; not looked at for the stand-in.

    Returns:
        the cells.

    Raises:
        FileNotFoundError: the file is absent.
        ValueError: a frame lacks a label or its group.
    """
    if name == SYNTHETIC:
        return stand_in(split)
    frames = labelled_frames(file_of(name, split, folder), KINDS, ("config_type",))
    return [Cell(structure, labels, info["config_type"]) for structure, labels, info in frames]


def stand_in(split: str) -> list[Cell]:
    """Small cells of Stillinger-Weber silicon of the same four groups, labelled by it."""
    crystal = material(SYNTHETIC)
    keys = iter(random_keys({"train": 0, "test": 1}[split], 100))
    found = []
    for group, count in STAND_IN[split].items():
        for _ in range(count):
            cell = undisturbed(group, crystal.unit_cell, next(keys))
            cell = rattled(cell, next(keys), RATTLE[group])
            graph = build_graph(cell, crystal.potential.r_cut, n_atoms=16, n_neighbours=24)
            labels = observe(crystal.potential, graph, KINDS)
            labels = labels._replace(forces=labels.forces[: cell.n_atoms])
            found.append(Cell(cell, labels, group))
    return found


def undisturbed(group: str, cube: Structure, key: jax.Array) -> Structure:
    """A strained cube, a pair of cubes, the same less an atom, or a slab with vacuum."""
    if group == "Elastic":
        return strained(cube, 0.05 * np.asarray(jax.random.normal(key, (3, 3))))
    pair = supercell(cube, (2, 1, 1))
    if group == "Surface":
        return make_structure(pair.positions, pair.cell * np.array([[1.0], [1.0], [1.8]]), "Si")
    if group == "Vacancy":
        return make_structure(pair.positions[1:], pair.cell, "Si")
    return pair


@lru_cache(maxsize=2)
def cell_rows(spec: ACESpec, name: str, split: str, folder: str) -> list[CellRows]:
    """The rows of every cell; all share padded shapes, so that they compile once.

    Args:
        spec: the basis.
        name: see `cells`.
        split: see `cells`.
        folder: see `cells`.

    Returns:
        the rows, cell by cell.
    """
    data = cells(name, split, folder)
    graphs = build_graphs([cell.structure for cell in data], spec.r_cut)
    return [rows_of(spec, cell, graph) for cell, graph in zip(data, graphs, strict=True)]


def rows_of(spec: ACESpec, cell: Cell, graph: Graph) -> CellRows:
    """The rows and targets of one cell, and the basis functions of its atoms.

    Args:
        spec: the basis.
        cell: labelled.
        graph: of the cell, padded or not.

    Returns:
        energy and virial per atom.
    """
    found = stacked_rows(spec, graph, cell.labels, KINDS, per_atom=("energy", "virial"))
    rows, targets = ({kind: both[part] for kind, both in found.items()} for part in (0, 1))
    sites = np.asarray(site_basis(spec, graph))[: cell.structure.n_atoms]
    return CellRows(cell.group, rows, targets, sites)


def factors_of(data: Iterable[CellRows]) -> dict[str, Factor]:
    """One factor per kind of all the cells."""
    data = list(data)
    return {
        kind: compress(
            np.concatenate([cell.rows[kind] for cell in data]),
            np.concatenate([cell.targets[kind] for cell in data]),
        )
        for kind in KINDS
    }


def of_groups(data: Iterable[CellRows], groups: Sequence[str]) -> list[CellRows]:
    """The cells of these groups."""
    return [cell for cell in data if cell.group in groups]


def mean_errors(data: Iterable[CellRows], coefficients: ArrayLike) -> tuple[float, float]:
    """Mean absolute errors over cells.

    Args:
        data: rows of the cells.
        coefficients: (K,).

    Returns:
        of energies (eV/atom) and of force components (eV/Å).
    """
    data = list(data)
    energy, forces = (
        np.concatenate([cell.rows[kind] @ coefficients - cell.targets[kind] for cell in data])
        for kind in ("energy", "forces")
    )
    return float(np.mean(np.abs(energy))), float(np.mean(np.abs(forces)))
