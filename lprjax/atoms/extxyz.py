"""Extended XYZ: structures with their labels and numbers per atom, for ASE, OVITO and back.

Energies in eV, forces in eV/Å, stress in eV/Å^3 with ASE's sign: W = -V * stress (eV).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lprjax.atoms.dialects import DIALECTS, checked_keys, labels_left, labels_of, names_a_label
from lprjax.atoms.structures import (
    Labels,
    Structure,
    check_labels,
    completed,
    make_structure,
    to_ase,
)
from lprjax.atoms.voigt import VOIGT_TENSOR
from lprjax.numerics.disk import read_text, write_text

_SPECIES, _POSITIONS = ("species", "symbols", "Z", "numbers"), ("pos", "positions")
_TAKEN = (*_SPECIES, *_POSITIONS, "move_mask", "stresses", "dipole", "magmom")
"""Columns that extended XYZ, or ASE in reading it, gives a meaning to, besides labels."""
_SIX = "\x1a"
"""Put behind names while ASE reads them: in no text."""


def read_extxyz(
    path: str | Path, *, labelled: bool = True, keys: Mapping[str, str] | None = None
) -> list[tuple[Structure, Labels, dict[str, Any]]]:
    """Every frame of an extended-XYZ file, with its labels.

    ========  ==========================================  =======  ==============================
    label     found under                                 unit     sign, choice
    ========  ==========================================  =======  ==============================
    energy    free_energy, energy                         eV       of the cell; free_energy where
                                                                   both are there: forces are its
                                                                   derivative
    forces    forces, force (columns)                     eV/Å     -dE/dR
    virial    virial, virials                             eV       W = -dE/d(strain), as quippy,
                                                                   MACE and NequIP have it
    virial    stress                                      eV/Å^3   tension positive, as ASE has
                                                                   it: W = -V * stress
    ========  ==========================================  =======  ==============================

    Each in capitals or not, and as REF_... (MACE) or DFT_... (QUIP) as well. Tensors are nine
    numbers, row by row, or six in Voigt order xx yy zz yz xz xy, as ASE and MACE write and read
    them; VASP and LAMMPS print the shears in orders of their own, and `check_virials` tells whether
    a file was made of those. What is there twice, as virial and stress, of six and of nine, or as
    energy and REF_energy, has to agree. A warning names, in one line, what the file holds that
    looks like a label and was not taken.

    Args:
        path: of the file, taken as it is (`run@0` is a file of that name); unpacked where it ends
            in .gz, .bz2 or .xz.
        labelled: False also takes frames without any label.
        keys: where the table does not say it, under which names labels are found, e.g.
            {"energy": "MACE_energy", "forces": "MACE_forces", "stress": "sigma"}; a label that is
            named here is looked for nowhere else.

    Returns:
        (structure, labels, info) for each frame; info holds the frame's other entries,
        `config_type` among them, and under `arrays` its other columns by name, (n,) or (n, m).

    Raises:
        ValueError: an empty file; a frame that is broken or cut short, that `make_structure` or
            `check_labels` refuses, whose labels contradict each other, whose virial or stress is
            not symmetric, or a stress with a cell of zero volume: it names the file and the frame.
            Names in `keys` that no frame has.
    """
    found = read_frames(path, labelled=labelled, keys=keys)
    check_names(keys, found.names, path)
    if found.left:
        warnings.warn(
            f"{path} holds {', '.join(found.left)}, not taken as labels: give `keys` to take them.",
            stacklevel=2,
        )
    return found.frames


class Reading(NamedTuple):
    """The frames of a file, and what was taken of it."""

    frames: list[tuple[Structure, Labels, dict[str, Any]]]  # as `read_extxyz` returns them
    taken: dict[tuple[str, str], int]  # (label, name it was found under) -> in how many frames
    left: list[str]  # names that look like a label and were not taken
    names: set[str]  # of all entries and columns


def read_frames(
    path: str | Path, *, labelled: bool = True, keys: Mapping[str, str] | None = None
) -> Reading:
    """Every frame of an extended-XYZ file, and under which names its labels were.

    Args:
        path: as in `read_extxyz`.
        labelled: as there.
        keys: as there; names that no frame has are no error here, see `check_names`.

    Returns:
        The Reading.

    Raises:
        ValueError: as `read_extxyz`.
    """
    keys = checked_keys(keys)
    lines = read_text(path).rstrip().split("\n")
    if lines == [""]:
        raise ValueError(f"{path} is empty: wanted extended XYZ, of at least one frame.")
    frames, at, names, left = [], 0, set(), {}
    taken: Counter[tuple[str, str]] = Counter()
    bar = tqdm(total=len(lines), desc=f"reading {Path(path).name}", unit=" lines", delay=5)
    with bar:
        while at < len(lines):
            try:
                count = _count(lines[at])
                entries, columns = _parsed(lines[at + 1 : at + 2 + count], count)
                names |= {*entries, *columns}
                frame, found = _frame(entries, columns, keys, labelled)
            except ValueError as error:
                raise ValueError(
                    f"{path}, frame {len(frames)}: {error} The frame begins at line {at + 1}."
                ) from error
            left |= dict.fromkeys(labels_left(frame[2]))
            taken.update((label, names_of[0]) for label, names_of in found.items())
            frames.append(frame)
            at += 2 + count
            bar.update(2 + count)
    return Reading(frames, dict(taken), list(left), names)


def check_names(keys: Mapping[str, str] | None, names: set[str], where: Any) -> None:
    """Refuse keys that name what is nowhere.

    Args:
        keys: names by label, see `read_extxyz`.
        names: of all entries and columns that there are.
        where: in which file, for the message.

    Raises:
        ValueError: names in keys that are not among them.
    """
    absent = sorted(set((keys or {}).values()) - names)
    if absent:
        raise ValueError(f"keys has {absent}: wanted names that {where} holds: {sorted(names)}.")


def _count(line: str) -> int:
    if not line.strip().isdecimal():
        raise ValueError(f"number of atoms is {line.strip()!r}: wanted an integer on its own.")
    return int(line)


def _parsed(lines: list[str], count: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The entries of a frame's second line, and its columns, (n,) or (n, m), by name."""
    from ase.io.extxyz import key_val_str_to_dict  # loads as long as all else of `import lprjax`

    if len(lines) != count + 1:
        raise ValueError(
            f"number of atoms is {count}: wanted {max(len(lines) - 1, 0)}, as many as follow; the "
            "file is cut short."
        )
    # ASE takes these two names for nine numbers only, which six are none of.
    line = re.sub(r"(?<!\S)(virial|stress)(?==)", r"\1" + _SIX, lines[0])
    try:
        entries = key_val_str_to_dict(line) if line.strip() else {}
    except ValueError as error:
        raise ValueError(
            f"second line cannot be read ({error}): wanted key=value entries, nine numbers in "
            "Lattice."
        ) from error
    entries = {name.replace(_SIX, ""): _without_mark(value) for name, value in entries.items()}
    layout = str(entries.pop("Properties", "species:S:1:pos:R:3")).split(":")
    if len(layout) % 3 or not all(width.isdecimal() for width in layout[2::3]):
        raise ValueError(f"Properties is {':'.join(layout)!r}: wanted name:type:width, repeated.")
    names, widths = layout[::3], [int(width) for width in layout[2::3]]
    rows = [line.split() for line in lines[1:]]
    for number, row in enumerate(rows):
        if len(row) != sum(widths):
            raise ValueError(
                f"atom {number} has {len(row)} columns: wanted {sum(widths)}, as in Properties "
                f"({':'.join(layout)})."
            )
    table = np.array(rows, dtype=object).reshape(count, sum(widths))
    columns: dict[str, np.ndarray] = {}
    for name, kind, part in zip(
        names, layout[1::3], np.split(table, np.cumsum(widths)[:-1], axis=1), strict=True
    ):
        if name in columns:
            raise ValueError(f"Properties has {name!r} twice: wanted each column once.")
        columns[name] = _column(name, kind, part[:, 0] if part.shape[1] == 1 else part)
    return entries, columns


def _without_mark(value: Any) -> Any:
    return value.replace(_SIX, "") if isinstance(value, str) else value


def _column(name: str, kind: str, text: np.ndarray) -> np.ndarray:
    logical = {"T": True, "True": True, "F": False, "False": False}
    try:
        if kind == "L":
            return np.vectorize(logical.__getitem__, otypes=[bool])(text)
        return text.astype({"R": np.float64, "I": np.int64, "S": np.str_}[kind])
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"column {name}:{kind} cannot be read ({error}): wanted numbers such as 1.5e-3 for R, "
            "1 for I, T or F for L, or text for S."
        ) from error


def _frame(
    entries: dict[str, Any], columns: dict[str, np.ndarray], keys: dict[str, str], labelled: bool
) -> tuple[tuple[Structure, Labels, dict[str, Any]], dict[str, list[str]]]:
    """Structure, labels and the rest; under which names the labels were."""
    lattice = entries.pop("Lattice", None)
    periodic = entries.pop("pbc", lattice is not None)
    flags = np.ravel(periodic).tolist()
    if len(flags) not in (1, 3) or not all(flag in (True, False) for flag in flags):
        raise ValueError(f"pbc is {periodic!r}: wanted three of T and F.")
    pbc = np.broadcast_to(np.array(flags, bool), 3)
    cell = np.zeros((3, 3)) if lattice is None else lattice.T  # ASE reads tensors by columns
    structure = make_structure(
        _only(columns, _POSITIONS), completed(cell, pbc), _only(columns, _SPECIES), pbc
    )
    volume = abs(float(np.linalg.det(cell))) if cell.any(axis=1).all() else None
    labels, found = labels_of(entries, columns, keys, volume)
    used = {name for names in found.values() for name in names}
    info = {name: value for name, value in entries.items() if name not in used}
    info["arrays"] = {name: value for name, value in columns.items() if name not in used}
    if labelled and all(value is None for value in labels):
        raise ValueError(
            f"labels is empty, all of {', '.join(DIALECTS)} are absent: wanted at least one of "
            f"them beside {sorted({*info, *info['arrays']} - {'arrays'})}; name it in `keys`, or "
            "read with labelled=False."
        )
    if any(value is not None for value in labels):
        labels = check_labels(structure, labels)
    return (structure, labels, info), found


def _only(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """The one column of these names, taken out."""
    found = [columns.pop(name) for name in names if name in columns]
    if len(found) != 1:
        raise ValueError(
            f"Properties has {len(found)} of {', '.join(names)}: wanted one, e.g. "
            "species:S:1:pos:R:3."
        )
    (column,) = found
    return np.char.capitalize(column) if column.dtype.kind == "U" else column


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
        path: of the file, packed where it ends in .gz, .bz2 or .xz; it is replaced in one step,
            and left as it was where an error is raised.
        structures: one for each frame.
        labels: one per structure (None where there are none): energy (eV), forces (eV/Å), and the
            virial (eV) as a stress (eV/Å^3), or as it is where the cell has no volume.
        arrays: name -> per structure an array (n,) or (n, m) of floats or integers, such as
            {"lpr": [...]}; n without padding.

    Raises:
        ValueError: no structures, other lengths, a NaN, what `check_labels` refuses, force
            constants, for which there is no place, or a name that is not a word or is taken.
        TypeError: other than numbers.
    """
    structures, labels, columns = beside(structures, labels, arrays)
    frames = []
    for number, structure in enumerate(structures):
        try:
            extra = {name: values[number] for name, values in columns.items()}
            frames.append(_written_frame(structure, labels[number], extra))
        except (TypeError, ValueError) as error:
            raise type(error)(f"structure {number}: {error}") from error
    write_text(path, "".join(frames))


def beside(
    structures: Sequence[Structure],
    labels: Sequence[Labels | None] | None,
    arrays: Mapping[str, Sequence[Any]] | None,
) -> tuple[list[Structure], list[Labels | None], dict[str, list[Any]]]:
    """Structures with what belongs to each of them.

    Args:
        structures: at least one.
        labels: one per structure; None for none.
        arrays: name -> one entry per structure; None for none.

    Returns:
        The three as lists, as long as each other.

    Raises:
        ValueError: no structures, or other lengths.
    """
    structures = list(structures)
    columns = {name: list(values) for name, values in (arrays or {}).items()}
    given = [None for _ in structures] if labels is None else list(labels)
    if not structures:
        raise ValueError("structures is empty: wanted at least one, a frame each.")
    for name, values in {"labels": given, **columns}.items():
        if len(values) != len(structures):
            raise ValueError(
                f"{name} has length {len(values)}: wanted {len(structures)}, one per structure."
            )
    return structures, given, columns


def _written_frame(structure: Structure, labels: Labels | None, extra: dict[str, Any]) -> str:
    atoms = to_ase(structure, labels)
    results = {} if atoms.calc is None else atoms.calc.results
    columns = {"pos": atoms.positions}
    if "forces" in results:
        columns["forces"] = results["forces"]
    for name, values in extra.items():
        taken = name in _TAKEN or names_a_label(name)
        if taken or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(
                f"name of an array is {name!r}: wanted a word without a meaning in extended XYZ, "
                "e.g. 'lpr'."
            )
        columns[name] = per_atom(name, values, structure.n_atoms)
    kinds = [
        f"{name}:{'I' if c.dtype.kind == 'i' else 'R'}:{c[0].size}" for name, c in columns.items()
    ]
    info = [f"Properties=species:S:1:{':'.join(kinds)}"]
    if atoms.cell.any():
        info.insert(0, f'Lattice="{_digits(atoms.cell)}"')
    if "energy" in results:
        info.append(f"energy={_digits(results['energy'])}")
    if "stress" in results:
        info.append(f'stress="{_digits(results["stress"][VOIGT_TENSOR])}"')
    if "virial" in atoms.info:
        info.append(f'virial="{_digits(atoms.info["virial"])}"')
    info.append(f'pbc="{" ".join("FT"[flag] for flag in structure.pbc)}"')
    rows = zip(atoms.symbols, *columns.values(), strict=True)
    lines = [" ".join([symbol, *map(_digits, row)]) for symbol, *row in rows]
    return "\n".join([str(len(atoms)), " ".join(info), *lines, ""])


def _digits(values: Any) -> str:
    """Numbers that come back bit for bit."""
    return " ".join(
        str(x) if isinstance(x, int) else f"{x:.17g}" for x in np.ravel(values).tolist()
    )


def per_atom(name: str, values: Any, n: int) -> np.ndarray:
    """Numbers of n atoms as float64 or int64.

    Args:
        name: of the numbers, for messages.
        values: (n,) or (n, m), floats or integers.
        n: number of atoms.

    Returns:
        The numbers, (n,) or (n, m).

    Raises:
        ValueError: another shape, a NaN, or integers above 2^63.
        TypeError: other than numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}: wanted floats or integers.")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} is {array.max()} at most: wanted integers below 2^63.")
    array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    if array.ndim not in (1, 2) or len(array) != n or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: wanted ({n},) or ({n}, m), no padding.")
    if np.isnan(array).any():
        atom = int(np.argwhere(np.isnan(array))[0, 0])
        raise ValueError(f"{name} is NaN at atom {atom}: wanted numbers; infinity is allowed.")
    return array
