"""What codes call energies, forces, virials and stresses in the files that they write.

The table is in `read_extxyz`; here is which of the names that are there count.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from lprjax.atoms.structures import Labels, check_symmetric
from lprjax.atoms.voigt import VOIGT_TENSOR
from lprjax.numerics.checks import finite_array

DIALECTS = {
    "energy": ("free_energy", "energy"),
    "forces": ("forces", "force"),
    "virial": ("virial", "virials"),
    "stress": ("stress",),
}
"""What a label is called in files, in capitals or not, plain or after one of PREFIXES."""
PREFIXES = ("ref_", "dft_")

# but what says how well one is known, as `lprjax rigidity` writes it
_LIKE_A_LABEL = re.compile(
    "^(?!.*(deviation|uncertainty|error)).*(energ|forc|virial|stress|grad)", re.I
)
_SLACK = {"energy": (1e-4, 0.0), "forces": (1e-4, 0.0), "virial": (1e-3, 1e-3)}
"""How far two entries of one label may be apart, in its unit and relative to the largest number:
above the rounding of printed numbers, below any change of sign, unit or method."""


def names_a_label(name: str) -> bool:
    """Whether an entry or a column of that name would be read as a label."""
    return any(_plain(name) in names for names in DIALECTS.values())


def checked_keys(keys: Mapping[str, str] | None) -> dict[str, str]:
    """Names by label, as a user gives them to a reader.

    Args:
        keys: see `read_extxyz`.

    Returns:
        The same; empty for None.

    Raises:
        ValueError: a label that there is not.
    """
    unknown = sorted(set(keys or {}) - set(DIALECTS))
    if unknown:
        raise ValueError(f"keys names {unknown}: wanted some of {', '.join(DIALECTS)}.")
    return dict(keys or {})


def labels_of(
    entries: dict[str, Any],
    columns: dict[str, np.ndarray],
    keys: dict[str, str],
    volume: float | None,
) -> tuple[Labels, dict[str, list[str]]]:
    """The labels of a frame.

    Args:
        entries: of its second line, by name.
        columns: (n,) or (n, m), by name.
        keys: names by label, see `read_extxyz`.
        volume: of its cell, Å^3; None where it has none.

    Returns:
        The labels, and by label the names that it was found under, first the one that was taken.

    Raises:
        ValueError: no numbers, labels that contradict each other, a virial or stress that is not
            symmetric or of another number of components, or a stress without a volume.
    """
    energies, forces, virials = (
        {name: _numbers(name, pool[name], shape, unit) for name in _names(label, pool, keys)}
        for label, pool, shape, unit in (
            ("energy", entries, (), "eV"),
            ("forces", columns, (None, 3), "eV/Å"),
            ("virial", entries, (3, 3), "eV"),
        )
    )
    energies = dict(sorted(energies.items(), key=lambda item: "free_" not in item[0].lower()))
    for free in [name for name in energies if "free_" in name.lower()]:
        for name in set(energies) - {free}:
            beside = name.lower() == free.lower().replace("free_", "")
            if beside and _gap("energy", energies[free], energies[name]) > 0:
                del energies[name]  # another quantity, of which the forces are no derivative
    for name in _names("stress", entries, keys):
        if volume is None:
            raise ValueError(
                "cell is of zero volume: wanted three independent lattice vectors beside a "
                "stress; give them, or leave the stress out."
            )
        virials[name] = -volume * _numbers(name, entries[name], (3, 3), "eV/Å^3")
    labels = Labels(_one("energy", energies), _one("forces", forces), _one("virial", virials))
    names = {"energy": [*energies], "forces": [*forces], "virial": [*virials]}
    return labels, {label: found for label, found in names.items() if found}


def _names(label: str, pool: Mapping[str, Any], keys: dict[str, str]) -> list[str]:
    """Under which names of the pool a label is."""
    same = ("virial", "stress") if label in ("virial", "stress") else (label,)
    if any(other in keys for other in same):
        return [name for name in pool if name == keys.get(label)]
    return [name for name in pool if _plain(name) in DIALECTS[label]]


def _plain(name: str) -> str:
    """Without capitals and prefix."""
    for prefix in PREFIXES:
        name = name.lower().removeprefix(prefix)
    return name


def _numbers(name: str, value: Any, shape: tuple[int | None, ...], unit: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {value!r}: wanted numbers in {unit}, such as 1.5e-3.")
    if shape != (3, 3):
        return finite_array(name, array, shape, unit)
    if array.size == 6:
        return finite_array(name, np.ravel(array), (6,), unit)[VOIGT_TENSOR]
    if array.size != 9:
        raise ValueError(
            f"{name} has shape {array.shape}: wanted nine numbers, row by row, or six in the order "
            f"xx yy zz yz xz xy, in {unit}."
        )
    tensor = finite_array(name, np.ravel(array), (9,), unit).reshape(3, 3)
    check_symmetric(name, tensor)
    return tensor


def _gap(label: str, first: np.ndarray, second: np.ndarray) -> float:
    """By how much they are further apart than rounding explains."""
    absolute, relative = _SLACK[label]
    allowed = absolute + relative * np.max(np.abs(first))
    return float(np.max(np.abs(first - second)) - allowed)


def _one(label: str, found: dict[str, np.ndarray]) -> np.ndarray | None:
    """What all of them say."""
    for first, second in pairwise(found):
        if _gap(label, found[first], found[second]) > 0:
            raise ValueError(
                f"{first} and {second} contradict each other: wanted one {label}; say in `keys` "
                "which of them is right."
            )
    return next(iter(found.values()), None)


def labels_left(info: dict[str, Any]) -> list[str]:
    """Names that promise a label, and columns of three numbers, which may be forces."""
    entries, columns = [name for name in info if name != "arrays"], info["arrays"]
    return [name for name in (*entries, *columns) if _LIKE_A_LABEL.search(name)] + [
        name
        for name, column in columns.items()
        if column.shape[1:] == (3,) and column.dtype.kind == "f" and not _LIKE_A_LABEL.search(name)
    ]
