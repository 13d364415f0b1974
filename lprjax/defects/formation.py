"""Formation energies: a defect's energy beside that of what its atoms are taken from.

    E_f = E_defect - x E_cell - sum_s y_s mu_s,      n_s = x m_s + y_s   for every element s

n_s and m_s count the atoms of element s in the defective cell and in one cell of its crystal: x
cells of the perfect crystal and y_s atoms of reservoirs, of chemical potentials mu_s in eV per
atom, become the defect. The convention:

- An element with a reservoir exchanges its atoms with that one. Where all have one, x is the number
  of cells of the perfect supercell, and y_s what the defect adds to it.
- Elements without one come from the crystal, which is in equilibrium with the reservoirs,
  sum_s m_s mu_s = E_cell.

So a crystal of one element needs no reservoir: E_f = E_defect - N e. Nor does a compound whose
defect exchanges nothing or whole formula units (displaced atoms, an antisite pair, a Schottky
defect). Otherwise a compound needs one for all its elements but one, and a foreign atom its own;
what is missing is refused, or where several errors are reported, the formation energy's is NaN.

The atoms balance, so that the zero of energy of an element cancels: d eV more for each atom of it
changes E_f by d (n_s - x m_s - y_s) = 0, if mu_s moves along. Each potential has a zero of its own
and so its own mu: whatever evaluates potentials takes as reservoirs *structures*, one of each
element, and lets each potential compute its energy per atom. They are kept as they are given, as
the crystal is.

Source: S. B. Zhang, J. E. Northrup, Phys. Rev. Lett. 67 (1991) 2339.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lprjax.atoms.structures import Structure
from lprjax.defects.defect import Defect, check_defect
from lprjax.potentials.observables import total_energy
from lprjax.potentials.potential import Potential, graph_for

Energy = TypeVar("Energy", float, jax.Array, np.ndarray)


class Sources(NamedTuple):
    """Where the atoms of a defective cell come from; see the top of the file."""

    crystal: float  # how many from the perfect crystal, of all elements: x sum_s m_s
    reservoirs: Mapping[str, float]  # by symbol, y_s, where it is not zero


def formation_energy(
    energy: Energy,
    defect: Defect,
    bulk_energy_per_atom: Energy,
    chemical_potentials: Mapping[str, Energy] | None = None,
) -> Energy:
    """The formation energy of a defect, referred to the perfect crystal and reservoirs.

        E_f = E_defect - x E_cell - sum_s y_s mu_s

    For a crystal of one element, E_defect - N e: an error of e counts N times.

    Args:
        energy: eV, of the defective cell.
        defect: whose atoms are counted, and in which crystal.
        bulk_energy_per_atom: e, eV, in the perfect crystal of the same potential and lattice
            constants, E_cell over its atoms.
        chemical_potentials: by symbol, mu_s, eV per atom, by the same potential; None: there is no
            reservoir besides the crystal.

    Returns:
        E_f, eV.

    Raises:
        ValueError: a reservoir that is missing, see the top of the file; it is named.
        TypeError: a number of atoms in place of the defect; chemical potentials that are not
            numbers by symbol.
    """
    chemical_potentials = {} if chemical_potentials is None else chemical_potentials
    by_symbol = isinstance(chemical_potentials, Mapping)
    given = chemical_potentials.values() if by_symbol else ()
    if not by_symbol or any(isinstance(mu, Structure) for mu in given):
        raise TypeError(
            f"chemical_potentials is a {type(chemical_potentials).__name__} of "
            f"{', '.join(sorted({type(mu).__name__ for mu in given})) or 'no numbers'}: wanted "
            "numbers by symbol, in eV per atom, e.g. {'Ni': -4.45}; structures are for functions "
            "with reservoirs=."
        )
    taken = sources(defect, chemical_potentials)
    formed: Any = energy - taken.crystal * bulk_energy_per_atom
    for symbol, n in taken.reservoirs.items():
        formed = formed - n * chemical_potentials[symbol]
    return formed


def sources(defect: Defect, reservoirs: Iterable[str] = ()) -> Sources:
    """What the defective cell is made of: the x and y_s of the top of the file.

    Args:
        defect: whose atoms are counted, and in which crystal.
        reservoirs: the elements that have one, by symbol.

    Returns:
        Sources.

    Raises:
        ValueError: atoms that neither the crystal nor a reservoir accounts for; a symbol unknown.
        TypeError: no `Defect`.
    """
    check_defect(defect)
    given = set(reservoirs)
    if unknown := sorted(s for s in given if atomic_numbers.get(s, 0) == 0):
        raise ValueError(f"the reservoirs are of {unknown}: wanted chemical symbols, e.g. 'Ni'.")
    repeats = int(np.prod(defect.lattice.repeats))
    species = np.asarray(defect.reference.species)
    cell = _counts(species[: len(species) // repeats])
    atoms = _counts(np.asarray(defect.structure.species))
    change = {s: atoms[s] - repeats * cell[s] for s in sorted(atoms | cell)}
    left = [s for s in change if s not in given]  # these come from the crystal
    cells_more = {Fraction(change[s], cell[s]) for s in left if cell[s]}
    if len(cells_more) > 1 or not all(cell[s] for s in left):
        raise ValueError(_missing(change, cell, left))
    x = repeats + (cells_more.pop() if cells_more else 0)
    more = {s: float(atoms[s] - x * cell[s]) for s in change if atoms[s] != x * cell[s]}
    return Sources(float(x * cell.total()), more)


def _counts(species: np.ndarray) -> Counter[str]:
    return Counter(chemical_symbols[z] for z in species.tolist())


def _missing(change: Mapping[str, int], cell: Counter[str], left: list[str]) -> str:
    """Which reservoirs are missing, in words."""
    foreign = [s for s in left if not cell[s]]
    own = [s for s in left if cell[s]]
    changed = [s for s in own if change[s]]
    if len({Fraction(change[s], cell[s]) for s in own}) > 1:
        foreign += changed if len(changed) < len(own) else changed[:-1]
    moves = ", ".join(f"{s} {n:+d}" for s, n in change.items() if n)
    named = ", ".join(f"{s!r}: ..." for s in foreign)
    return (
        f"the defect changes the atoms of its crystal of {', '.join(sorted(cell))} by {moves}, and "
        f"no reservoir is given for {', '.join(foreign)}, so that its formation energy has no "
        f"value: wanted one; give chemical_potentials={{{named}}} in eV per atom, or, where "
        f"potentials are evaluated, reservoirs={{{named}}}, a Structure of each element."
    )


def undefined(defect: Defect, reservoirs: Iterable[str] | None) -> str | None:
    """Why the formation energy has no value; None where it has one.

    Args:
        defect: whose atoms are counted, and in which crystal.
        reservoirs: the elements that have one, by symbol; None: no element.

    Returns:
        The reason, in words, or None.
    """
    try:
        sources(defect, reservoirs or ())
    except ValueError as reason:
        return str(reason)
    return None


def chemical_potentials(
    per_atom: Callable[[Structure], Energy],
    defect: Defect,
    reservoirs: Mapping[str, Structure] | None,
) -> dict[str, Energy]:
    """mu_s of the reservoirs that a defect draws on, for `formation_energy`.

    Args:
        per_atom: structure -> energy per atom, eV, by one potential; or its row (K,).
        defect: whose atoms are counted, and in which crystal.
        reservoirs: by symbol, a structure of that element; None: there is none.

    Returns:
        By symbol, what `per_atom` returns for its structure.

    Raises:
        ValueError: as `sources`; a structure of another element.
        TypeError: a reservoir that is no structure.
    """
    reservoirs = reservoirs or {}
    for symbol, structure in reservoirs.items():
        _check(symbol, structure)
    return {s: per_atom(reservoirs[s]) for s in sources(defect, reservoirs).reservoirs}


def _check(symbol: str, structure: Structure) -> None:
    """Refuse a reservoir that is no structure of its element alone."""
    if not isinstance(structure, Structure):
        raise TypeError(
            f"the reservoir of {symbol} is {structure!r}: wanted a Structure of that element, "
            "whose energy per atom each potential computes; numbers go to formation_energy."
        )
    if set(_counts(np.asarray(structure.species))) != {symbol}:
        raise ValueError(
            f"the reservoir of {symbol} has atomic numbers "
            f"{np.unique(np.asarray(structure.species)).tolist()}: wanted that element alone."
        )


def energy_per_atom(potential: Potential, structure: Structure) -> jax.Array:
    """The energy per atom of a structure.

    Args:
        potential: graph -> site energies (n,), eV.
        structure: kept as it is.

    Returns:
        E / n, (), eV.
    """
    return total_energy(potential, graph_for(potential, structure)) / structure.n_atoms
