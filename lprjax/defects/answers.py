"""What a reference says of the cells it is asked for: computed here, or somewhere else before.

A reference is a potential, which is called; or labelled structures that somebody computed, in
memory or in an extended-XYZ file, among which the cells that are asked for are found again.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.structures import Labels, Structure, minimum_image
from lprjax.numerics.checks import finite_array
from lprjax.numerics.host import on_device
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential, cutoff_of, graph_for

SAME = 1e-3
"""Å; an answer whose atoms are all within this of where they were asked for is of that cell: a
choice, well above the digits that codes write and below any error that is of interest."""


class Answer(NamedTuple):
    """Energy and forces of one cell."""

    structure: Structure  # the cell as it was computed, atoms near where they were asked for
    energy: float  # eV
    forces: np.ndarray | None  # (n, 3) eV/Å; None where only the energy was wanted and is there


class Answers:
    """A reference to be asked for cells one after the other.

    Attributes:
        calls: how many cells were answered.
    """

    def __init__(self, reference: Potential | str | Path | Iterable[tuple[Any, ...]]) -> None:
        """Of a potential, of a file, or of (structure, labels, ...) for each computed cell.

        Raises TypeError for anything else.
        """
        self.calls = 0
        self._potential: Potential | None = None
        self._frames: list[tuple[Structure, Labels]] = []
        if callable(reference):
            self._potential = cast(Potential, reference)
            cutoff_of(self._potential)
        else:
            on_disk = isinstance(reference, str | Path)
            if not isinstance(reference, Iterable | Path):
                raise TypeError(
                    f"reference is a {type(reference).__name__}: wanted a potential, a file, or "
                    "(structure, labels) of computed cells; of a calculator of ASE, "
                    "ase_potential(calculator, r_cut=...)."
                )
            frames = read_extxyz(reference) if on_disk else reference
            self._frames = [(frame[0], frame[1]) for frame in frames]
        self._used: set[int] = set()

    def of(self, structure: Structure, *, forces: bool = True) -> Answer | None:
        """What it says of a cell; None where the cell was not computed.

        Args:
            structure: the cell.
            forces: whether they are wanted; then a computed cell of the same atoms in another
                geometry is refused, and else passed over.

        Returns:
            Answer, or None.

        Raises:
            ValueError: the same atoms in another geometry; an answer without energy or forces, or
                with some that are not finite, or forces of other atoms.
        """
        potential = self._potential
        found = _computed(potential, structure) if potential else self._found(structure, forces)
        if found is None:
            return None
        self.calls += 1
        finite_array("the reference's energy", found.energy, (), "eV")
        if forces:
            finite_array("the reference's forces", found.forces, (structure.n_atoms, 3), "eV/Å")
        return found

    def _found(self, structure: Structure, forces: bool) -> Answer | None:
        nearest = None
        for number, (frame, labels) in enumerate(self._frames):
            if number in self._used or not _same_atoms(frame, structure):
                continue
            moves = np.asarray(frame.positions) - np.asarray(structure.positions)
            moves, lengths = minimum_image(moves, structure)
            if (farthest := float(lengths.max())) < SAME:
                self._used.add(number)
                return _answer(number, structure, moves, labels, forces)
            nearest = min(nearest or (farthest, number), (farthest, number))
        if nearest and forces:
            raise ValueError(
                f"frame {nearest[1]} has an atom {nearest[0]:.3g} Å from where it was asked for: "
                f"wanted the cell that was asked for, within {SAME} Å and in its order of atoms; "
                "compute that one, without relaxing it."
            )
        return None


def _computed(potential: Potential, structure: Structure) -> Answer:
    labels = observe(potential, graph_for(potential, structure), ("energy", "forces"))
    forces = np.asarray(labels.forces)[: structure.n_atoms]
    return Answer(structure, float(labels.energy), forces)


def _same_atoms(one: Structure, other: Structure) -> bool:
    return (
        np.array_equal(one.species, other.species)
        and one.pbc == other.pbc
        and np.allclose(one.cell, other.cell, atol=1e-6)
    )


def _answer(
    number: int, structure: Structure, moves: np.ndarray, labels: Labels, forces: bool
) -> Answer:
    for kind in ("energy", "forces")[: 1 + forces]:
        if getattr(labels, kind) is None:
            raise ValueError(f"frame {number} has no {kind}: wanted the cell with it.")
    positions = np.asarray(structure.positions) + moves
    there = on_device(dataclasses.replace(structure, positions=positions))
    of_atoms = None if labels.forces is None else np.asarray(labels.forces)
    return Answer(there, float(labels.energy), of_atoms)
