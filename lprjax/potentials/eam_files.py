"""Files of embedded-atom potentials: funcfl, setfl (eam/alloy) and Finnis-Sinclair (eam/fs).

All three tabulate F(rho), f(r) and r phi(r) on even grids from zero. funcfl has one element, and an
effective charge Z(r) in place of r phi = 27.2 0.529 eV Å Z^2 (the constants of LAMMPS); setfl one
density for each element, eam/fs one for every pair. What is inside decides, not the name: whether
the fourth line names elements, and how many numbers follow.

Source: the documentation of LAMMPS, pair_style eam.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lprjax.numerics.disk import read_text

CHARGES = 27.2 * 0.529
"""eV Å: of two charges of funcfl, as LAMMPS has it (14.3888; e^2 / 4 pi eps_0 is 14.3996)."""
FEWEST = 6
"""Numbers of a table: a spline of degree five needs as many."""
HEAD = 5
"""Most words before an element's numbers in setfl: number, mass, lattice constant, lattice, one."""


class Tables(NamedTuple):
    """What a file holds, for E elements, on grids from zero."""

    elements: tuple[str, ...]
    drho: float  # step of rho, in the file's unit of density
    dr: float  # step of r, Å
    r_cut: float  # Å
    embedding: np.ndarray  # F (E, n_rho), eV
    density: np.ndarray  # f_ab (E, E, n_r), of centre a and neighbour b
    pair: np.ndarray  # r phi_ab (E, E, n_r), eV Å


class _Words:
    """The lines of a file, taken one by one, or as many numbers as are wanted."""

    def __init__(self, path: str | Path) -> None:
        """Read the file."""
        self.path, self.lines = Path(path), read_text(path).splitlines()
        self.next = 0

    def line(self) -> list[str]:
        """The words of the next line that has some."""
        while self.next < len(self.lines):
            words = self.lines[self.next].split()
            self.next += 1
            if words:
                return words
        raise self.wrong("it ends before its tables", "it is cut short; get it anew")

    def numbers(self, n: int) -> np.ndarray:
        """The next n numbers, whole lines of them."""
        found: list[str] = []
        while len(found) < n:
            found += self.line()
        if len(found) > n:
            raise self.wrong(f"line {self.next} goes on behind a table", "see the formats")
        where = f"a table up to line {self.next}"
        try:
            values = np.array([_number(word) for word in found])
        except ValueError as error:
            raise self.wrong(f"{where}: {error}", "see the formats") from None
        if not np.isfinite(values).all():
            raise self.wrong(f"{where} holds NaN or infinity", "get it anew")
        return values

    def wrong(self, what: str, fix: str) -> ValueError:
        """An error that names the file."""
        return ValueError(
            f"{self.path}: {what}: wanted an EAM table in the format funcfl, setfl (eam/alloy) or "
            f"eam/fs; {fix}."
        )


def read_eam(path: str | Path) -> Tables:
    """The tables of a file: funcfl (`.eam`), setfl (`.eam.alloy`) or eam/fs.

    Args:
        path: of the file, unpacked where it ends in .gz, .bz2 or .xz.

    Returns:
        Its tables.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut short, is of another format, or holds numbers that are none;
            an element that is none.
    """
    words = _Words(path)
    if len(words.lines) < 6:
        raise words.wrong(f"it has {len(words.lines)} lines", "see the formats")
    fourth = words.lines[3].split()
    named = len(fourth) > 1 and fourth[0].isdigit() and all(w[0].isalpha() for w in fourth[1:])
    return _setfl(words) if named else _funcfl(words)


def _number(word: str) -> float:
    """Of text, with the D of Fortran's exponents."""
    return float(word.replace("D", "E").replace("d", "e"))


def _grids(words: _Words) -> tuple[int, float, int, float, float]:
    """n_rho, step, n_r, step and cutoff."""
    found = words.line()
    try:
        n_rho, drho, n_r, dr, r_cut = map(_number, found)
        counts = int(n_rho), int(n_r)
    except (ValueError, OverflowError):  # other words, or other than five of them
        raise words.wrong(
            f"line {words.next} is {' '.join(found)[:60]!r}, and not n_rho, its step, n_r, its "
            "step, cutoff",
            "give a file of one of these",
        ) from None
    lengths = all(0.0 < length < np.inf for length in (drho, dr, r_cut))
    if counts != (n_rho, n_r) or min(counts) < FEWEST or not lengths:
        raise words.wrong(f"line {words.next} has no grid", "see the formats")
    return counts[0], drho, counts[1], dr, r_cut


def _funcfl(words: _Words) -> Tables:
    words.next = 1
    head = words.line()
    number = int(head[0]) if head[0].isdigit() else 0
    if not 0 < number < len(chemical_symbols):
        raise words.wrong(
            f"line 2 begins with {head[0]!r}, and no atomic number", "see the formats"
        )
    n_rho, drho, n_r, dr, r_cut = _grids(words)
    numbers = words.numbers(n_rho + 2 * n_r)
    embedding, charge, density = np.split(numbers, [n_rho, n_rho + n_r])
    _check_end(words)
    pair = CHARGES * charge**2
    whole = embedding[None], density[None, None], pair[None, None]
    return Tables((chemical_symbols[number],), drho, dr, r_cut, *whole)


def _setfl(words: _Words) -> Tables:
    words.next = 3
    elements = tuple(words.line()[1:])
    unknown = [e for e in elements if e not in atomic_numbers]
    known = len(set(elements)) == int(words.lines[3].split()[0]) == len(elements)
    if unknown or not known:
        raise words.wrong(f"line 4 is {words.lines[3].strip()[:60]!r}", "name each element there")
    n_rho, drho, n_r, dr, r_cut = _grids(words)
    n, pairs = len(elements), len(elements) * (len(elements) + 1) // 2
    left = sum(len(line.split()) for line in words.lines[words.next :])
    wanted = {own: n * (n_rho + own * n_r) + pairs * n_r for own in (1, n)}
    own = next((own for own, m in wanted.items() if 2 * n <= left - m <= HEAD * n), None)
    if own is None:
        raise words.wrong(
            f"it has {left} words behind line {words.next}, where {n} elements need "
            f"{' or '.join(str(m + 4 * n) for m in wanted.values())}",
            "it is cut short or of another format",
        )
    embedding, density = np.empty((n, n_rho)), np.empty((n, n, n_r))
    for a in range(n):
        words.line()
        embedding[a] = words.numbers(n_rho)
        # setfl: what a sends to anyone; eam/fs: what a sends to each
        density[:, a] = words.numbers(own * n_r).reshape(own, n_r)
    pair = np.empty((n, n, n_r))
    for a in range(n):
        for b in range(a + 1):
            pair[a, b] = pair[b, a] = words.numbers(n_r)
    _check_end(words)
    return Tables(elements, drho, dr, r_cut, embedding, density, pair)


def _check_end(words: _Words) -> None:
    if any(line.split() for line in words.lines[words.next :]):
        raise words.wrong(f"it goes on behind its tables, line {words.next + 1}", "see the formats")


def part_of(tables: Tables, elements: Sequence[str], name: str) -> Tables:
    """The tables of some of the elements.

    Args:
        tables: as `read_eam` returns them.
        elements: symbols, in the order wanted.
        name: of the file, for the message.

    Returns:
        The tables of these.

    Raises:
        ValueError: an element that they lack, one twice, or none at all.
    """
    wanted = (elements,) if isinstance(elements, str) else tuple(elements)
    lacking = [e for e in wanted if e not in tables.elements]
    if lacking or not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"{name} has no table of {lacking or wanted}: wanted elements of "
            f"{', '.join(tables.elements)}, each once."
        )
    index = [tables.elements.index(e) for e in wanted]
    both = np.ix_(index, index)
    return tables._replace(
        elements=wanted,
        embedding=tables.embedding[index],
        density=tables.density[both],
        pair=tables.pair[both],
    )
