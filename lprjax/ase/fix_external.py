"""Any potential in LAMMPS: its `fix external` asks a Python function for the forces of every step.

What LAMMPS has for integrating, heating, pressing and measuring works as ever; neighbours and
forces are a calculator's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

FIX = "lprjax"
"""The name of the fix."""


def in_lammps(program: Any, atoms: Atoms, calculator: Any) -> Atoms:
    """Put periodic atoms into a LAMMPS, which then moves them by a calculator.

        program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        atoms = in_lammps(program, atoms, lprjax.ase.Calculator(model))
        program.commands_list(["velocity all create 600 1", "fix 1 all nve", "run 1000"])

    It wants the first lattice vector along x and the second in the xy plane, so the crystal is
    turned. Units are metal's. Where the calculator raises an error, LAMMPS gets NaN for forces.

    Args:
        program: `lammps.lammps`, of one process, to which nothing was said yet.
        atoms: periodic in all directions; they stay as they are.
        calculator: of ASE, with energy (eV), forces (eV/Å) and stress (eV/Å^3).

    Returns:
        The atoms as LAMMPS has them, which follow it.

    Raises:
        ValueError: atoms that are not periodic in all directions.
    """
    if not all(atoms.pbc):
        raise ValueError(
            f"pbc of the atoms is {atoms.pbc.tolist()}: wanted three times True; give them a cell "
            "with room around them."
        )
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.calc = calculator
    _fill(program, atoms)
    program.command(f"fix {FIX} all external pf/callback 1 1")
    program.command(f"fix_modify {FIX} energy yes virial yes")

    def forces(caller: Any, step: int, n: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        f[:] = np.nan  # what stays where an error is raised, which LAMMPS does not see
        (low, high, xy, yz, xz, *_), order = program.extract_box(), np.ravel(tag) - 1
        lx, ly, lz = np.subtract(high, low)
        atoms.set_cell([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
        atoms.positions[order] = x
        f[:] = atoms.get_forces()[order]
        program.fix_external_set_energy_global(FIX, atoms.get_potential_energy())
        virial = -atoms.get_volume() * atoms.get_stress()  # eV, and LAMMPS has xy, xz, yz
        program.fix_external_set_virial_global(FIX, virial[[0, 1, 2, 5, 4, 3]])

    program.set_fix_external_callback(FIX, forces)
    return atoms


def _fill(program: Any, atoms: Atoms) -> None:
    """Box, kinds and masses, and the atoms, whose cell is as LAMMPS wants it."""
    lx, ly, lz = atoms.cell.array.diagonal()
    tilts = " ".join(f"{tilt:.17g}" for tilt in atoms.cell.array[[1, 2, 2], [0, 0, 1]])
    numbers = sorted(set(atoms.numbers))
    masses = {number: mass for number, mass in zip(atoms.numbers, atoms.get_masses(), strict=True)}
    program.commands_list(
        ["units metal", "atom_style atomic", "atom_modify map array", "boundary p p p"]
        + ["box tilt large", f"region all prism 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} {tilts}"]
        + [f"create_box {len(numbers)} all", "pair_style zero 3.0 nocoeff", "pair_coeff * *"]
        + [f"mass {kind} {masses[number]:.17g}" for kind, number in enumerate(numbers, 1)]
    )
    types = [numbers.index(number) + 1 for number in atoms.numbers]
    ids = list(range(1, len(atoms) + 1))
    program.create_atoms(len(atoms), ids, types, atoms.positions.ravel().tolist())
