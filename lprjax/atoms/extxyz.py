"""Extended XYZ: structures with their labels and numbers per atom, for ASE, OVITO and back.

Energies in eV, forces in eV/Å, stress in eV/Å^3 with ASE's sign: W = -V * stress (eV).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from lprjax.atoms.structures import Labels, Structure, check_labels, from_ase, to_ase
from lprjax.atoms.voigt import VOIGT_TENSOR

_EXTXYZ_TAKEN = ("species", "pos", "forces", "symbols", "positions", "numbers", "Z", "move_mask")
"""Columns that extended XYZ, or ASE in reading it, gives a meaning to."""


def _labels_of(atoms: Atoms) -> Labels:
    results = {} if atoms.calc is None else atoms.calc.results
    virial = atoms.info.get("virial")
    if results.get("stress") is not None:
        stress = np.asarray(results["stress"], dtype=np.float64)
        stress = stress[VOIGT_TENSOR] if stress.shape == (6,) else stress
        if atoms.cell.rank < 3:
            raise ValueError(
                f"cell is {np.array(atoms.cell).tolist()}, of zero volume: wanted three "
                "independent lattice vectors beside a stress; give them, or leave the stress out."
            )
        virial = -atoms.get_volume() * stress
    return Labels(results.get("energy"), results.get("forces"), virial)


def read_extxyz(
    path: str | Path, *, labelled: bool = True
) -> list[tuple[Structure, Labels, dict[str, Any]]]:
    """Every frame of an extended-XYZ file, with its labels.

    Energies in eV, forces in eV/Å, stress in eV/Å^3 with ASE's sign, turned into the virial
    W = -V * stress (eV); without a stress, an entry `virial` (eV, W itself, as quippy writes it).

    Args:
        path: of the file.
        labelled: False also takes frames without any label.

    Returns:
        (structure, labels, info) for each frame; info holds the frame's other entries,
        `config_type` among them.

    Raises:
        ValueError: what `make_structure` and `check_labels` refuse, or a stress with a cell of
            zero volume; it names the frame.
    """
    from ase.io import read  # takes as long to load as all else of `import lprjax`

    frames = []
    for number, atoms in enumerate(read(path, index=":", format="extxyz")):
        try:
            structure, labels = from_ase(atoms), _labels_of(atoms)
            if labelled or any(value is not None for value in labels):
                labels = check_labels(structure, labels)
        except ValueError as error:
            raise ValueError(f"{path}, frame {number}: {error}") from error
        frames.append((structure, labels, dict(atoms.info)))
    return frames


def write_extxyz(
    path: str | Path,
    structures: Sequence[Structure],
    labels: Sequence[Labels | None] | None = None,
    arrays: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write structures, their labels and numbers per atom to one extended-XYZ file, a frame each.

    ASE, OVITO and `read_extxyz` read it. Numbers have 17 digits and come back as they were (ASE's
    own writer keeps 8 decimals, which is nothing of a rigidity of 1e-10). Infinity, the rigidity
    of what cannot be moved, is written `inf`, which all three take for the number it is.

    Args:
        path: of the file; it is not written where an error is raised.
        structures: one for each frame.
        labels: one per structure (None where there are none): energy (eV), forces (eV/Å), and the
            virial (eV) as a stress (eV/Å^3).
        arrays: name -> per structure an array (n,) or (n, m) of floats or integers, such as
            {"lpr": [...]}; n without padding.

    Raises:
        ValueError: other lengths, a NaN, what `check_labels` refuses, or a name that is not a word
            or is taken.
        TypeError: other than numbers.
    """
    structures = list(structures)
    columns = {name: list(values) for name, values in (arrays or {}).items()}
    labels = [None] * len(structures) if labels is None else list(labels)
    for name, values in {"labels": labels, **columns}.items():
        if len(values) != len(structures):
            raise ValueError(
                f"{name} has length {len(values)}: wanted {len(structures)}, one per structure."
            )
    frames = []
    for number, structure in enumerate(structures):
        try:
            extra = {name: values[number] for name, values in columns.items()}
            frames.append(_extxyz_frame(structure, labels[number], extra))
        except (TypeError, ValueError) as error:
            raise type(error)(f"structure {number}: {error}") from error
    with open(path, "w") as file:
        file.writelines(frames)


def _extxyz_frame(structure: Structure, labels: Labels | None, extra: dict[str, Any]) -> str:
    atoms = to_ase(structure, labels)
    results = {} if atoms.calc is None else atoms.calc.results
    columns = {"pos": atoms.positions}
    if "forces" in results:
        columns["forces"] = results["forces"]
    for name, values in extra.items():
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in _EXTXYZ_TAKEN:
            raise ValueError(
                f"name of an array is {name!r}: wanted a word without a meaning in extended XYZ, "
                "e.g. 'lpr'."
            )
        columns[name] = _per_atom(name, values, structure.n_atoms)
    kinds = [
        f"{name}:{'I' if c.dtype.kind == 'i' else 'R'}:{c[0].size}" for name, c in columns.items()
    ]
    numbers = lambda values: " ".join(f"{x:.17g}" for x in np.ravel(values))  # noqa: E731
    info = [f'Lattice="{numbers(atoms.cell)}"', f"Properties=species:S:1:{':'.join(kinds)}"]
    if "energy" in results:
        info.append(f"energy={numbers(results['energy'])}")
    if "stress" in results:
        info.append(f'stress="{numbers(results["stress"][VOIGT_TENSOR])}"')
    info.append(f'pbc="{" ".join("FT"[flag] for flag in structure.pbc)}"')
    rows = zip(atoms.symbols, *columns.values(), strict=True)
    lines = [" ".join([symbol, *map(numbers, row)]) for symbol, *row in rows]
    return "\n".join([str(len(atoms)), " ".join(info), *lines, ""])


def _per_atom(name: str, values: Any, n: int) -> np.ndarray:
    """Numbers of n atoms, (n,) or (n, m), as float64 or int64."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}: wanted floats or integers.")
    array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    if array.ndim not in (1, 2) or len(array) != n or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: wanted ({n},) or ({n}, m), no padding.")
    if np.isnan(array).any():
        atom = int(np.argwhere(np.isnan(array))[0, 0])
        raise ValueError(f"{name} is NaN at atom {atom}: wanted numbers; infinity is allowed.")
    return array
