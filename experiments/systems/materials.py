"""The crystals of the experiments: a reference potential, the lattice it has, a basis that fits it.

material("Cu").lattice_constant      # Å, where the reference's pressure vanishes
material("Cu").potential             # graph -> site energies
material("Cu").unit_cell             # the conventional cube
material("copper.toml").potential    # of a file, see `material_files`
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

from experiments.systems import material_files
from lprjax.atoms.structures import Structure
from lprjax.crystals.elasticity import Equilibrium, equilibrium
from lprjax.defects.catalogue import DEFECTS
from lprjax.potentials import ZHOU_2004, stillinger_weber, tersoff, zhou_eam
from lprjax.potentials.named_references import BONDS, CRYSTALS, FCC_CUTOFF
from lprjax.potentials.potential import Potential

REACH = {"bcc": 2.01, "fcc": 2.1, "diamond": 1.9}
"""Cutoff of the basis over nearest-neighbour distance: five, four and two shells lie inside."""


@dataclass(frozen=True)
class Material:
    """A reference potential and its crystal, at the lattice constant that the potential has.

    Attributes:
        name: as in MATERIALS.
        element: chemical symbol.
        crystal: bcc, fcc or diamond.
        guess: Å, the lattice constant where the search for the true one starts.
        build: makes the potential.
        basis_cutoff: Å, of the basis; 0: the crystal's.
        file: where it is from, as records have it; "" for those of MATERIALS.
    """

    name: str
    element: str
    crystal: str
    guess: float
    build: Callable[[], Potential] = field(repr=False)
    basis_cutoff: float = 0.0
    file: str = ""

    @property
    def key(self) -> str:
        """What names it in configurations and records."""
        return self.file or self.name

    @cached_property
    def potential(self) -> Potential:
        """The reference potential."""
        return self.build()

    @cached_property
    def equilibrium(self) -> Equilibrium:
        """The crystal at zero pressure.

        Raises:
            RuntimeError: the search does not settle.
        """
        start = CRYSTALS[self.crystal](self.element, self.guess, primitive=True)
        found = equilibrium(self.potential, start)
        if not found.converged:
            raise RuntimeError(
                f"{self.name} has no {self.crystal} crystal near guess = {self.guess} Å: wanted a "
                "minimum of the energy there; give another guess, or another crystal."
            )
        return found

    @property
    def lattice_constant(self) -> float:
        """Edge of the cube, Å."""
        return self.guess * self.equilibrium.scale

    @property
    def nearest_neighbour(self) -> float:
        """Distance of the nearest neighbours, Å."""
        return BONDS[self.crystal] * self.lattice_constant

    @property
    def r_cut(self) -> float:
        """Cutoff of the basis, Å."""
        return self.basis_cutoff or REACH[self.crystal] * self.nearest_neighbour

    @property
    def unit_cell(self) -> Structure:
        """The conventional cube: 2 atoms in bcc, 4 in fcc, 8 in diamond."""
        return CRYSTALS[self.crystal](self.element, self.lattice_constant)

    @property
    def primitive_cell(self) -> Structure:
        """The smallest cell: 1 atom, 2 in diamond."""
        return CRYSTALS[self.crystal](self.element, self.lattice_constant, primitive=True)

    @property
    def basis_atoms(self) -> tuple[int, ...]:
        """The atoms of `unit_cell` that no translation of the lattice takes into each other."""
        return (0, 4) if self.crystal == "diamond" else (0,)


def _zhou(element: str, crystal: str) -> Material:
    """A metal of the table, whose r_e is the distance of nearest neighbours but for rounding."""
    guess = ZHOU_2004[element].re / BONDS[crystal]
    r_cut = FCC_CUTOFF * guess if crystal == "fcc" else None
    return Material(element, element, crystal, guess, partial(zhou_eam, element, r_cut=r_cut))


MATERIALS = {
    **{element: _zhou(element, "bcc") for element in ("W", "Mo", "Ta", "Fe")},
    **{element: _zhou(element, "fcc") for element in ("Cu", "Ni", "Al")},
    "Si-SW": Material("Si-SW", "Si", "diamond", 5.43, stillinger_weber),
    "Si-Tersoff": Material("Si-Tersoff", "Si", "diamond", 5.43, tersoff),
}


def named_pair(pair: str, mark: str) -> tuple[Material, str]:
    """The material and the name of the defect that a flag names.

    Args:
        pair: such as "W/vacancy" or "copper.toml/vacancy".
        mark: what stands between the two.

    Returns:
        the material, and one of `lprjax.defects.DEFECTS`.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    name, _, defect = pair.rpartition(mark)
    if not name or defect not in DEFECTS:
        raise ValueError(
            f"{pair!r} is no pair: wanted material{mark}defect, such as W{mark}vacancy, the defect "
            f"one of {', '.join(DEFECTS)}."
        )
    return material(name), defect


def distinct(pairs: Sequence[tuple[Material, str]]) -> Sequence[tuple[Material, str]]:
    """The pairs, as `named_pair` finds them, whose names figures can tell apart.

    Raises:
        ValueError: two files whose materials have one name.
    """
    files = {crystal.key: crystal.name for crystal, _ in pairs}
    twice = sorted({name for name in files.values() if list(files.values()).count(name) > 1})
    if twice:
        raise ValueError(f"several files name their material {twice}: give each a name of its own.")
    return pairs


def material(name: str) -> Material:
    """The material of that name.

    Args:
        name: one of MATERIALS, or a file, see `material_files`.

    Returns:
        the material.

    Raises:
        ValueError: there is none of that name, the message lists those there are; a file that
            `material_files.read` refuses.
    """
    if material_files.is_file(name):
        return _of_file(material_files.canonical(name))
    if name not in MATERIALS:
        raise ValueError(
            f"material is {name!r}: wanted one of {', '.join(MATERIALS)}, or a file, name.toml."
        )
    return MATERIALS[name]


@lru_cache(maxsize=16)
def _of_file(name: str) -> Material:
    found = material_files.read(name)
    if found.name in MATERIALS:
        raise ValueError(
            f"name of {found.path} is {found.name!r}, that of a built-in material: give another."
        )
    about = found.name, found.element, found.crystal, found.lattice_constant
    return Material(*about, found.build, found.r_cut, name)
