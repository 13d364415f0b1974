"""Labelled cells to fit to, and others to ask about: at random, of other kinds, other compositions.

A cell of mlearn is in one of four groups; one of the binary alloy is in the group of its
composition, "8:8", or of its test set.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from experiments.systems import alloys, mlearn
from experiments.systems.mlearn import SYNTHETIC, Cell
from experiments.systems.observations import labelled_frames
from lprjax.ace.spec import ACESpec

ALLOY = "NbTa"
SETS = ("Mo", "Si", ALLOY)
HALF = "8:8"
ORDERED = "ordered"  # the binary test set: small cells, most of their forces zero by symmetry

RANDOM = "random cells"
MLEARN = {  # question: which training cells are left out, and of which groups those asked are
    "test set": ((), None),
    "no vacancies": (("Vacancy",), ("Vacancy",)),
    "no surfaces": (("Surface",), ("Surface",)),
}
ALLOYS = {  # question: which compositions are fitted to (None: all), and what is asked
    "ordered cells": (None, (ORDERED,)),
    "pure elements": (None, ("Nb", "Ta")),
    "one composition": ((HALF,), None),
    "two compositions": (("6:10", "10:6"), None),
}
IN_DISTRIBUTION = (RANDOM, "test set")
"""Questions whose cells are like those that were fitted, or nearly: the others are not."""


class Split(NamedTuple):
    """Which cells are fitted and which are asked, by their numbers in `all_cells`."""

    fitted: np.ndarray
    asked: np.ndarray


def questions(name: str) -> tuple[str, ...]:
    """What can be asked of a data set.

    Args:
        name: one of SETS, or SYNTHETIC.

    Returns:
        RANDOM first.
    """
    return (RANDOM, *(ALLOYS if name == ALLOY else MLEARN))


@lru_cache(maxsize=2)
def all_cells(name: str, folder: str) -> tuple[list[Cell], np.ndarray]:
    """Every labelled cell of a data set.

    Args:
        name: one of SETS, or SYNTHETIC.
        folder: where the files are.

    Returns:
        The cells, and (n,) bool, which are of the training set.

    Raises:
        FileNotFoundError: a file is absent; the message says where it comes from.
    """
    if name != ALLOY:
        parts = [mlearn.cells(name, part, folder) for part in ("train", "test")]
    else:
        alloys.require_data(folder)
        files = (alloys.TRAINING, *alloys.TESTS)
        frames = [labelled_frames(Path(folder) / file, ("energy", "forces")) for file in files]
        kinds: tuple[Callable[[Cell], str] | str, ...] = (composition, ORDERED, "Nb", "Ta")
        parts = [
            [Cell(s, labels, kind if isinstance(kind, str) else kind(s)) for s, labels, _ in part]
            for part, kind in zip(frames, kinds, strict=True)
        ]
        parts = [parts[0], [cell for part in parts[1:] for cell in part]]
    return [*parts[0], *parts[1]], np.repeat([True, False], [len(part) for part in parts])


def composition(structure) -> str:
    """Atoms of each element, in alphabetical order of their symbols: "8:8"."""
    symbols = np.array(chemical_symbols)[np.asarray(structure.species)]
    return ":".join(str(int(np.sum(symbols == name))) for name in ("Nb", "Ta"))


def split(name: str, folder: str, question: str, fold: int, folds: int, seed: int = 0) -> Split:
    """The cells of one question.

    Args:
        name: of the data set.
        folder: where the files are.
        question: one of `questions`.
        fold: which of the folds is asked, of RANDOM; 0 of the others.
        folds: how many.
        seed: of the order that the folds are cut from.

    Returns:
        The Split.
    """
    cells, training = all_cells(name, folder)
    groups, numbers = np.array([cell.group for cell in cells]), np.arange(len(cells))
    if question == RANDOM:
        order = np.random.default_rng(seed).permutation(numbers[training])
        return Split(np.sort(np.delete(order, np.s_[fold::folds])), np.sort(order[fold::folds]))
    if name == ALLOY:
        wanted, asked = ALLOYS[question]
        fitted = training if wanted is None else training & np.isin(groups, wanted)
        others = training & ~fitted if asked is None else np.isin(groups, asked)
    else:
        left_out, asked = MLEARN[question]
        fitted = training & ~np.isin(groups, left_out)
        others = ~training if asked is None else np.isin(groups, asked)
    return Split(numbers[fitted], numbers[others])


def basis(name: str, order: int, degree: int) -> ACESpec:
    """The basis of a data set, with a constant for each element.

    Args:
        name: one of SETS, or SYNTHETIC.
        order: correlation order.
        degree: total degree.

    Returns:
        The spec; cutoffs are those of `mlearn_rigidity` and `alloy_composition`.
    """
    r_cut, r0, power = BASES[name]
    elements = ("Nb", "Ta") if name == ALLOY else (name.partition("-")[0],)
    return ACESpec(elements, order, degree, r_cut, r0, power, constant=True)


BASES = {  # r_cut and r0 (Å), order of the zero at r_cut
    "Mo": (5.5, 2.73, 4),
    "Si": (5.5, 2.35, 2),
    SYNTHETIC: (4.5, 2.35, 2),
    ALLOY: (5.0, 2.87, 2),
}


def digest(names: Sequence[str], folder: str) -> str:
    """Which data the records belong to, wherever they lie.

    Args:
        names: of SETS, or SYNTHETIC alone.
        folder: where the files are.

    Returns:
        "synthetic", or digits of the SHA-256 of the files.

    Raises:
        FileNotFoundError: a file is absent.
    """
    if tuple(names) == (SYNTHETIC,):
        return "synthetic"
    found = [mlearn.digest([name], folder) for name in names if name != ALLOY]
    if ALLOY in names:
        alloys.require_data(folder)
        found.append(f"maml {alloys.digest(folder)[:16]}")
    return "; ".join(found)
