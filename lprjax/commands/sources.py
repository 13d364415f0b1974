"""What the subcommands read: potentials of any kind by one name, fits, and cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from lprjax.atoms import from_ase, read_extxyz, write_extxyz
from lprjax.atoms.structures import Labels, Structure
from lprjax.models.files import SavedFit, load
from lprjax.numerics.disk import read_text, write_text
from lprjax.potentials.named_references import named_reference, read_material
from lprjax.potentials.potential import Potential

Frame = tuple[Structure, Labels, dict[str, Any]]
"""A cell, its labels (None where absent), and the other entries of its frame."""
NOTHING = Labels(None, None, None, None)


def read_potential(name: str, elements: Sequence[str] = (), cache: str = "") -> Potential:
    """The potential of a name: a model file, a material's file, or as `named_reference` has it.

    Args:
        name: "model.npz", "copper.toml", or a reference.
        elements: in question, by symbol.
        cache: folder of the results of calculators; "": none.

    Returns:
        The potential.

    Raises:
        FileNotFoundError: no such model file.
        ValueError: as `load`, `read_material` and `named_reference`.
    """
    if name.endswith(".npz"):
        found = load(name)
        return found.potential() if isinstance(found, SavedFit) else found
    if name.endswith(".toml"):
        return read_material(name).build(cache or None)
    return named_reference(name, elements, cache=cache or None)


def read_fit(path: str | Path) -> SavedFit:
    """A fit with its factor, which rigidities need.

    Args:
        path: of the model file.

    Returns:
        The fit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `load`; a potential without a factor.
    """
    found = load(path)
    if not isinstance(found, SavedFit):
        raise ValueError(
            f"{path} holds a {type(found).__name__} without its factor: wanted a fit, as `lprjax "
            "fit` writes it, or `lprjax.save(path, fit, spec=spec)`."
        )
    return found


def read_cells(path: str | Path, keys: Mapping[str, str] | None = None) -> list[Frame]:
    """Cells from extended XYZ, or from any other file that ASE reads.

    Args:
        path: of the file; its name says the format (.xyz, .extxyz, packed or not; others ASE's).
        keys: under which names labels are, see `read_extxyz`.

    Returns:
        The frames.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `read_extxyz`; what ASE cannot read.
    """
    if _is_xyz(path):
        return read_extxyz(path, labelled=False, keys=keys)
    import ase.io

    try:
        images = ase.io.read(path, index=":")
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the reader of a format does with what is none
        raise ValueError(
            f"{path} cannot be read by ASE ({error or type(error).__name__}): wanted extended XYZ "
            "(.xyz), or a format that it knows."
        ) from error
    return [(from_ase(image), NOTHING, {"arrays": {}}) for image in images]


def elements_of(structures: Sequence[Structure]) -> list[str]:
    """The symbols of structures, by atomic number.

    Args:
        structures: any number of them.

    Returns:
        The symbols.
    """
    numbers = {z for structure in structures for z in np.asarray(structure.species).tolist()}
    return [chemical_symbols[z] for z in sorted(numbers)]


def copy_cells(
    path: str | Path, frames: Sequence[Frame], places: Sequence[int], output: Path
) -> None:
    """Write some cells of a file to another, with all that they had in it.

    Args:
        path: of the file that they were read from.
        frames: what `read_cells` made of it.
        places: of those to write, in their order.
        output: where they go, in one step.

    Raises:
        ValueError: what `write_extxyz` refuses, of a file that is no extended XYZ.
    """
    if not _is_xyz(path):
        write_extxyz(output, [frames[k][0] for k in places])
        return
    lines, texts, at = read_text(path).rstrip().split("\n"), [], 0
    while at < len(lines):
        after = at + 2 + int(lines[at])
        texts.append("\n".join(lines[at:after]) + "\n")
        at = after
    write_text(output, "".join(texts[k] for k in places))


def _is_xyz(path: str | Path) -> bool:
    return bool({".xyz", ".extxyz"} & set(Path(path).suffixes))
