"""Training sets: labelled structures in groups, from files as people have them.

What describes one atom alone is no structure of a set but an energy that the others are counted
from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols

from lprjax.atoms.dialects import DIALECTS
from lprjax.atoms.extxyz import Reading, check_names, read_frames
from lprjax.atoms.structures import Labels, Structure

NO_GROUP = "default"
"""Group of the structures whose frames name none."""
_SAME = 1e-4  # eV: two energies of one isolated atom that are further apart are two energies


class TrainingSet(NamedTuple):
    """Labelled structures, each of one group; the four lists have one length.

    Attributes:
        structures: without the isolated atoms.
        labels: of each, energy (eV, of the cell), forces (eV/Å), virial (eV); None where absent.
        groups: of each its name.
        reference_energies: by symbol, eV, of the isolated atoms that the files hold; may lack any.
        reports: of each file one line, what was taken from it and what left out.
    """

    structures: list[Structure]
    labels: list[Labels]
    groups: list[str]
    reference_energies: dict[str, float]
    reports: list[str]

    def __str__(self) -> str:
        return "\n".join(self.reports)

    def __repr__(self) -> str:
        groups = ", ".join(f"{name} {count}" for name, count in Counter(self.groups).items())
        return f"TrainingSet of {len(self.structures)} structures ({groups})"

    @property
    def elements(self) -> tuple[str, ...]:
        """The symbols of all structures, by atomic number."""
        numbers = {int(z) for structure in self.structures for z in np.asarray(structure.species)}
        return tuple(chemical_symbols[z] for z in sorted(numbers))

    def part(self, places: Sequence[int] | np.ndarray) -> TrainingSet:
        """The set of some of the structures, with the energies of the isolated atoms.

        Args:
            places: of the structures, in the order that they are wanted in.

        Returns:
            The smaller set; its reports are those of the whole.
        """
        return self._replace(
            structures=[self.structures[k] for k in places],
            labels=[self.labels[k] for k in places],
            groups=[self.groups[k] for k in places],
        )


def read_training_set(
    paths: str | Path | Sequence[str | Path],
    *,
    keys: Mapping[str, str] | None = None,
    group_by: str | None = "config_type",
) -> TrainingSet:
    """A training set from extended-XYZ files, whatever labels their frames have.

    Names, signs and units are those of `read_extxyz`; a structure has the labels that its frame
    has, and frames without any are left out. A frame of one atom is an isolated atom if it has no
    periodicity or its group is called isolated_atom (IsolatedAtom, in whatever letters): its energy
    becomes the reference energy of its element.

        data = lp.read_training_set(["bulk.xyz", "surfaces.xyz.gz"], keys={"energy": "E0"})
        print(data)  # one line per file

    Args:
        paths: of the files, or of one; .gz, .bz2 and .xz are unpacked.
        keys: see `read_extxyz`; each name has to be in one of the files at least.
        group_by: the entry of a frame that names its group; None: all are one group. Frames without
            the entry are of the group "default".

    Returns:
        The TrainingSet, in the order of the files.

    Raises:
        ValueError: as `read_extxyz`; no paths; no labelled structure in any of the files; two
            energies of one element's isolated atom; an entry of group_by, other than config_type,
            that no frame has.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise ValueError("paths is empty: wanted at least one file of extended XYZ.")
    data = TrainingSet([], [], [], {}, [])
    names: set[str] = set()
    for path in files:
        found = read_frames(path, labelled=False, keys=keys)
        names |= found.names
        _add(data, path, found, group_by)
    where = ", ".join(str(path) for path in files)
    check_names(keys, names, where)
    if group_by not in {None, "config_type", *names}:
        raise ValueError(
            f"group_by is {group_by!r}: wanted an entry that {where} holds: {sorted(names)}."
        )
    if not data.structures:
        raise ValueError(
            f"no structure of {where} is labelled: wanted {', '.join(DIALECTS)}, or names of them "
            f"in `keys` among {sorted(names)}."
        )
    return data


def _add(data: TrainingSet, path: str | Path, found: Reading, group_by: str | None):
    """The frames of one file, put where they belong, and the line about them."""
    before, alone, bare = len(data.structures), {}, 0
    for number, (structure, labels, info) in enumerate(found.frames):
        group = NO_GROUP if group_by is None else str(info.get(group_by, NO_GROUP))
        if all(value is None for value in labels):
            bare += 1
        elif _isolated(structure, group):
            symbol = chemical_symbols[int(np.asarray(structure.species)[0])]
            if labels.energy is None:
                bare += 1
                continue
            energy, known = float(labels.energy), data.reference_energies
            if abs(known.setdefault(symbol, energy) - energy) > _SAME:
                raise ValueError(
                    f"{path}, frame {number}: energy of the isolated atom {symbol} is {energy} eV, "
                    f"and {known[symbol]} eV before: wanted one for each element."
                )
            alone[symbol] = known[symbol]
        else:
            data.structures.append(structure)
            data.labels.append(labels)
            data.groups.append(group)
    groups = Counter(data.groups[before:])
    data.reports.append(_line(path, found, groups, group_by, alone, bare))


def _isolated(structure: Structure, group: str) -> bool:
    if structure.n_atoms != 1:
        return False
    called = "".join(letter for letter in group.lower() if letter.isalnum())
    return not any(structure.pbc) or called == "isolatedatom"


def _line(
    path: Any,
    found: Reading,
    groups: Mapping[str, int],
    group_by: str | None,
    alone: Mapping[str, float],
    bare: int,
) -> str:
    """What was taken and what was not, in one line."""
    by = "" if group_by is None else f" by {group_by}"
    parts = [f"{sum(groups.values())} of {len(found.frames)} frames{by}"]
    parts[0] += f" ({', '.join(f'{name} {count}' for name, count in groups.items())})"
    taken = [f"{label} from {name} ({n})" for (label, name), n in found.taken.items()]
    parts.append("labels: " + (", ".join(taken) or "none"))
    if alone:
        energies = ", ".join(f"{symbol} {energy:.9g} eV" for symbol, energy in alone.items())
        parts.append(f"isolated atoms: {energies}")
    unlabelled = [f"{bare} frame{'s' * (bare > 1)} without labels"] if bare else []
    left = [*unlabelled, *found.left]
    parts.append(f"left out: {', '.join(left) or 'nothing'}")
    return f"{Path(path).name}: {'; '.join(parts)}"
