"""The crystal that a potential has: for defects in it, by the words of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ase.data import atomic_numbers, covalent_radii, reference_states

from lprjax.atoms.structures import Structure
from lprjax.commands.sources import read_potential
from lprjax.crystals.elasticity import equilibrium
from lprjax.potentials.named_references import BONDS, CRYSTALS, read_material
from lprjax.potentials.potential import Potential


class Host(NamedTuple):
    """A potential in a crystal at zero pressure."""

    potential: Potential
    name: str  # as given
    element: str
    crystal: str  # one of CRYSTALS
    lattice_constant: float  # Å, that of the potential
    energy_per_atom: float  # eV

    @property
    def unit_cell(self) -> Structure:
        """The conventional cube."""
        return CRYSTALS[self.crystal](self.element, self.lattice_constant)


def read_host(name: str, crystal: Sequence[str] = (), guess: float = 0.0, cache: str = "") -> Host:
    """A potential of a name, in its crystal.

    Args:
        name: as `read_potential` has it; a material's file says its crystal itself.
        crystal: "bcc" and "W", e.g.; none: the material's.
        guess: of the lattice constant, Å, where the search for the true one starts; 0: the
            material's, or the element's as ASE has it.
        cache: folder of the results of calculators; "": none.

    Returns:
        The Host.

    Raises:
        ValueError: words that name no crystal; as `read_potential`.
        RuntimeError: the potential has no such crystal near the guess.
    """
    words = tuple(crystal)
    if not words and name.endswith(".toml"):
        material = read_material(name)
        words, guess = (material.crystal, material.element), guess or material.lattice_constant
    lattice, element = crystal_of(words)
    potential = read_potential(name, [element], cache)
    guess = guess or _usual(lattice, element)
    found = equilibrium(potential, CRYSTALS[lattice](element, guess, primitive=True))
    if not found.converged:
        raise RuntimeError(
            f"{name} has no {lattice} {element} near a = {guess:.3f} Å: wanted a minimum of its "
            "energy there; give another --lattice-constant, or another crystal."
        )
    return Host(potential, name, element, lattice, guess * found.scale, found.energy_per_atom)


def crystal_of(words: Sequence[str]) -> tuple[str, str]:
    """The crystal and the element that words of a command line name.

    Args:
        words: "bcc" and "W", e.g.

    Returns:
        Both, the first one of CRYSTALS.

    Raises:
        ValueError: words that name no crystal.
    """
    if len(words) != 2 or words[0] not in CRYSTALS or words[1] not in atomic_numbers:
        raise ValueError(
            f"--crystal is {' '.join(words) or 'not given'}: wanted one of {', '.join(CRYSTALS)} "
            "and a chemical symbol, e.g. --crystal bcc W; or a material's TOML file as reference."
        )
    return words[0], words[1]


def _usual(lattice: str, element: str) -> float:
    """The lattice constant that ASE has, or one of touching atoms, Å."""
    number = atomic_numbers[element]
    state: Any = reference_states[number] or {}
    if state.get("symmetry") == lattice and "a" in state:
        return float(state["a"])
    return 2.0 * float(covalent_radii[number]) / BONDS[lattice]
