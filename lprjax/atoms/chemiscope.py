"""Files for chemiscope: structures and numbers per atom beside a map of them, in a browser.

Open them at https://chemiscope.org, or with `chemiscope.show_input` in a notebook. The format is
chemiscope's JSON, written here because its package brings the widgets of Jupyter with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lprjax.atoms.extxyz import beside, per_atom
from lprjax.atoms.structures import Labels, Structure, check_labels, to_ase
from lprjax.numerics.disk import write_text

UNITS = {
    "lpr": "1/eV^2",
    "energy_deviation": "eV",
    "force_deviation": "eV/Å",
    "energy": "eV",
    "energy per atom": "eV",
    "force": "eV/Å",
}
"""Units of the numbers that this library writes, by the name it gives them."""
ENVIRONMENT = 4.0
"""How far around the chosen atom others are drawn in colour, Å: a choice."""
DECADES = 2.0
"""Numbers that are positive and span more decades are coloured by their logarithms: a choice."""

_TAKEN = ("atom", "element", "structure", "atoms", "energy", "energy per atom", "force")
"""What the properties that are always there, and those of labels, are called."""


def write_chemiscope(
    path: str | Path,
    structures: Sequence[Structure],
    arrays: Mapping[str, Sequence[Any]],
    labels: Sequence[Labels | None] | None = None,
    *,
    title: str = "",
    description: str = "",
    units: Mapping[str, str] | None = None,
) -> None:
    """Write structures and numbers per atom to one file for chemiscope.

    It opens with the atoms coloured by the first of the arrays, and with a map of the first two,
    by their logarithms where they are positive and span more than two decades. An infinite number,
    the rigidity of what cannot be moved, has no place in the format: it is written NaN, which the
    map leaves out.

    Args:
        path: of the file, ending in .json or .json.gz; replaced in one step, and left as it was
            where an error is raised.
        structures: at least one.
        arrays: name -> per structure an array (n,) or (n, m) of floats or integers, such as
            {"lpr": [...]}; n without padding. Of (n, m) each column is a property, name[1] and so
            on.
        labels: one per structure (None where there are none): energy (eV), also per atom, and the
            size of each force (eV/Å).
        title: of the data set; "" for the name of the file.
        description: of the data set, in words.
        units: name -> unit of an array, where UNITS does not have it.

    Raises:
        ValueError: another end of the path; no structures or arrays, other lengths, a NaN, what
            `check_labels` refuses, a name that is empty or taken, or units of no array.
        TypeError: other than numbers.
    """
    name = Path(path).name
    if not name.endswith((".json", ".json.gz")):
        raise ValueError(f"path is {str(path)!r}: wanted a name that ends in .json or .json.gz.")
    structures, labels, columns = beside(structures, labels, arrays)
    if not columns:
        raise ValueError('arrays is empty: wanted numbers per atom, such as {"lpr": [...]}.')
    if lost := sorted(set(units or {}) - set(columns)):
        raise ValueError(f"units has {lost}: wanted some of {sorted(columns)}.")
    shown = _columns(structures, columns)
    checked = [
        Labels() if one is None else check_labels(structure, one)
        for structure, one in zip(structures, labels, strict=True)
    ]
    properties = _properties(structures, checked, shown, {**UNITS, **(units or {})})
    content = {
        "meta": {"name": title or name.split(".")[0]}
        | ({"description": description} if description else {}),
        "settings": _settings(list(shown), shown),
        "structures": [_structure(structure) for structure in structures],
        "environments": [
            {"structure": k, "center": i, "cutoff": ENVIRONMENT}
            for k, structure in enumerate(structures)
            for i in range(structure.n_atoms)
        ],
        "properties": properties,
    }
    write_text(path, json.dumps(content))


def _columns(
    structures: Sequence[Structure], arrays: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """Numbers of all atoms, (N,), one array for each column."""
    found: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        if not name or name in _TAKEN:
            raise ValueError(
                f"name of an array is {name!r}: wanted one besides {', '.join(_TAKEN)}."
            )
        parts = []
        for k, (structure, one) in enumerate(zip(structures, values, strict=True)):
            try:
                parts.append(per_atom(name, one, structure.n_atoms))
            except (TypeError, ValueError) as error:
                raise type(error)(f"structure {k}: {error}") from error
        widths = sorted({part[0].size for part in parts})
        if len(widths) > 1:
            raise ValueError(f"{name} has {widths} columns: wanted as many in every structure.")
        whole = np.concatenate([part.reshape(len(part), -1) for part in parts]).astype(float)
        names = [name] if widths == [1] else [f"{name}[{k + 1}]" for k in range(widths[0])]
        found |= dict(zip(names, whole.T, strict=True))
    return found


def _properties(
    structures: Sequence[Structure],
    labels: Sequence[Labels],
    arrays: Mapping[str, np.ndarray],
    units: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    counts = np.array([structure.n_atoms for structure in structures])
    of_atoms: dict[str, Any] = dict(arrays)
    of_structures: dict[str, Any] = {"structure": np.arange(len(counts)), "atoms": counts}
    if any(one.forces is not None for one in labels):
        sizes = [
            np.full(n, np.nan) if one.forces is None else np.linalg.norm(one.forces, axis=1)
            for n, one in zip(counts, labels, strict=True)
        ]
        of_atoms["force"] = np.concatenate(sizes)
    if any(one.energy is not None for one in labels):
        energies = np.array([np.nan if one.energy is None else float(one.energy) for one in labels])
        of_structures |= {"energy": energies, "energy per atom": energies / counts}
    # a map needs two properties, of atoms and of structures
    of_atoms["atom"] = np.concatenate([np.arange(n) for n in counts])
    symbols = [str(symbol) for structure in structures for symbol in to_ase(structure).symbols]
    found = {
        name: _property(target, values, units.get(name.partition("[")[0], ""))
        for target, some in (("atom", of_atoms), ("structure", of_structures))
        for name, values in some.items()
    }
    return found | {"element": {"target": "atom", "values": symbols}}


def _property(target: str, values: np.ndarray, unit: str) -> dict[str, Any]:
    finite = np.where(np.isfinite(values), values, np.nan).tolist()
    return {"target": target, "values": finite} | ({"units": unit} if unit else {})


def _structure(structure: Structure) -> dict[str, Any]:
    atoms = to_ase(structure)
    x, y, z = atoms.positions.T.tolist()
    found: dict[str, Any] = {"size": len(atoms), "names": list(atoms.symbols)}
    found |= {"x": x, "y": y, "z": z}
    return found | ({"cell": atoms.cell.array.ravel().tolist()} if atoms.cell.rank == 3 else {})


def _settings(names: list[str], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is shown at first."""
    first, second = names[0], [*names, "atom"][1]
    axes = {
        axis: {"property": name, "scale": _scale(arrays.get(name))}
        for axis, name in (("x", second), ("y", first))
    }
    colour = {"property": first}
    return {
        "target": "atom",
        "map": axes | {"color": colour | {"mode": _scale(arrays[first])}},
        "structure": [{"unitCell": True, "color": colour | {"transform": _scale(arrays[first])}}],
    }


def _scale(values: np.ndarray | None) -> str:
    if values is None:
        return "linear"
    finite = values[np.isfinite(values)]
    wide = finite.size and finite.min() > 0.0 and finite.max() > 10.0**DECADES * finite.min()
    return "log" if wide else "linear"
