"""Silicon cells by family: near the crystal, and far from it; labelled by Stillinger and Weber.

    cell = draw("vacancy", cells=2, entropy=(seed, "test", 0))
    cell.structure, cell.labels, cell.sites      # sites: the reference's own energies, eV

Stillinger and Weber give each atom half of its pair energies and the three-body energy of the
angles at it. Another split of the same total is as good: site energies are not observable.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import (
    Labels,
    Structure,
    bcc,
    diamond,
    fcc,
    make_structure,
    simple_cubic,
    supercell,
)
from lprjax.potentials import stillinger_weber
from lprjax.potentials.derivatives import site_energies_and_forces
from lprjax.potentials.potential import as_argument

LATTICE_CONSTANT = 5.43095  # Å, of diamond in this potential
BOND = np.sqrt(3) / 4 * LATTICE_CONSTANT  # Å, between nearest neighbours


class Cell(NamedTuple):
    """A labelled cell."""

    family: str  # one of FAMILIES
    structure: Structure
    labels: Labels  # energy eV and forces eV/Å
    sites: np.ndarray  # (n,) site energies of the reference, eV


class _Atoms(NamedTuple):
    """In NumPy: every family has sizes of its own, and JAX would compile for each."""

    positions: np.ndarray  # (n, 3) Å
    cell: np.ndarray  # (3, 3) Å


_Make = Callable[[int, np.random.Generator], _Atoms]


@lru_cache
def _repeated(crystal: Callable, a: float, repeats: int) -> _Atoms:
    found = supercell(crystal("Si", a), (repeats,) * 3)
    return _Atoms(np.asarray(found.positions), np.asarray(found.cell))


def _crystal(cells: int, rng: np.random.Generator) -> _Atoms:
    return _repeated(diamond, LATTICE_CONSTANT, cells)


def _vacancy(cells: int, rng: np.random.Generator) -> _Atoms:
    whole = _crystal(cells, rng)
    return whole._replace(positions=np.delete(whole.positions, rng.integers(8 * cells**3), axis=0))


def _slab(cells: int, rng: np.random.Generator) -> _Atoms:
    """Unrelaxed (001) surfaces, a vacuum as thick as the cell."""
    whole = _crystal(cells, rng)
    return whole._replace(cell=np.diag([1.0, 1.0, 2.0]) @ whole.cell)


def _strained(atoms: _Atoms, strain: np.ndarray) -> _Atoms:
    return _Atoms(*(x @ (np.eye(3) + strain) for x in atoms))


def _sheared(cells: int, rng: np.random.Generator) -> _Atoms:
    strain = 0.03 * rng.normal(size=(3, 3))
    return _strained(_crystal(cells, rng), 0.5 * (strain + strain.T))


def _scaled(low: float, high: float) -> _Make:
    return lambda cells, rng: _strained(_crystal(cells, rng), rng.uniform(low, high) * np.eye(3))


def _other(crystal: Callable, low: float, high: float) -> _Make:
    """Another crystal with bonds of low to high (Å)."""
    atoms, edge = {simple_cubic: (1, 1.0), bcc: (2, 2 / np.sqrt(3)), fcc: (4, np.sqrt(2))}[crystal]

    def make(cells: int, rng: np.random.Generator) -> _Atoms:
        repeats = int((8 * cells**3 / atoms) ** (1 / 3) + 1e-9)
        unit = _repeated(crystal, 1.0, repeats)
        a = edge * rng.uniform(low, high)
        return _Atoms(*(a * x for x in unit))

    return make


class _Family(NamedTuple):
    """How cells of one family are made and rattled."""

    make: _Make
    rattle: tuple[float, float]  # Å, least and largest


FAMILIES = {
    "crystal": _Family(_crystal, (0.02, 0.12)),
    "strained": _Family(_sheared, (0.04, 0.04)),
    "vacancy": _Family(_vacancy, (0.08, 0.08)),
    "liquid-like": _Family(_crystal, (0.18, 0.25)),
    "expanded": _Family(_scaled(0.05, 0.15), (0.05, 0.05)),
    "dense": _Family(_scaled(-0.10, -0.05), (0.05, 0.05)),
    "slab": _Family(_slab, (0.08, 0.08)),
    "simple cubic": _Family(_other(simple_cubic, 2.4, 2.8), (0.05, 0.05)),
    "bcc": _Family(_other(bcc, 2.5, 2.9), (0.05, 0.05)),
    "fcc": _Family(_other(fcc, 2.6, 3.0), (0.05, 0.05)),
}
"""How cells of each are made, by choice. At most 8 cells^3 atoms."""


def draw(family: str, cells: int, entropy: Sequence[int | str]) -> Cell:
    """One labelled cell. The same entropy gives the same one, whatever else is drawn.

    Args:
        family: one of FAMILIES.
        cells: cubes of diamond per side.
        entropy: whole numbers and words that seed the draw.

    Returns:
        the cell.

    Raises:
        ValueError: the family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}: wanted one of {', '.join(FAMILIES)}.")
    numbers = [e if isinstance(e, int) else zlib.crc32(e.encode()) for e in (*entropy, family)]
    rng = np.random.default_rng(numbers)
    atoms, sigma = FAMILIES[family].make(cells, rng), rng.uniform(*FAMILIES[family].rattle)
    positions = atoms.positions + sigma * rng.normal(size=atoms.positions.shape)
    structure = make_structure(positions, atoms.cell, "Si")
    reference = stillinger_weber()
    graph = build_graph(structure, reference.r_cut, n_atoms=8 * cells**3, n_neighbours=24)
    found, n = site_energies_and_forces(as_argument(reference, "reference"), graph), len(positions)
    labels = Labels(energy=float(found.energy), forces=np.asarray(found.forces)[:n])
    return Cell(family, structure, labels, np.asarray(found.sites)[:n])
