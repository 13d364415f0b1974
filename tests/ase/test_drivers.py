"""ASE's own drivers, phonopy and matscipy do with our calculator what they should."""

import numpy as np
import pytest
from ase import units
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS

from lprjax.ase.calculator import Calculator
from lprjax.atoms.structures import bcc, diamond, supercell, to_ase
from lprjax.atoms.voigt import COLUMNS, ROWS
from lprjax.crystals.elasticity import elastic_constants, equilibrium
from lprjax.crystals.phonons import force_constants
from lprjax.defects.catalogue import vacancy
from lprjax.defects.defect import relax_defect
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.stillinger_weber import stillinger_weber
from tests.helpers.calculators import Plain

EAM, SW = zhou_eam("W"), stillinger_weber()
A_W = float(equilibrium(EAM, bcc("W", 3.165)).structure.cell[0, 0])
A_SI = float(equilibrium(SW, diamond("Si", 5.43)).structure.cell[0, 0])
CRYSTALS = {
    "W": (EAM, bcc("W", A_W, primitive=True)),
    "Si": (SW, diamond("Si", A_SI, primitive=True)),
}


def tungsten(repeats=(3, 3, 3), atom=None):
    atoms = to_ase(supercell(bcc("W", A_W), repeats))
    if atom is not None:
        del atoms[atom]
    return atoms


def test_bfgs_finds_the_relaxed_vacancy():
    """Energies at forces below f differ from the minimum's by f^2 / curvature at most: 53 atoms of
    1e-4 eV/Å over 1 eV/Å^2 are 5e-7 eV."""
    defect = vacancy(bcc("W", A_W), 3)
    atoms = to_ase(defect.structure)
    atoms.calc = Calculator(EAM)
    assert BFGS(atoms, logfile=None).run(fmax=1e-4)
    expected = relax_defect(EAM, defect)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-6)


def test_a_cell_filter_finds_the_lattice_constant():
    atoms = to_ase(bcc("W", 3.3))
    atoms.calc = Calculator(EAM)
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-6)
    assert atoms.cell[0, 0] == pytest.approx(A_W, abs=1e-6)


def test_the_path_of_a_vacancy_is_symmetric():
    """A neighbour hops into it: forth and back are one path, and images mirror each other as well
    as forces have converged."""
    ends = [tungsten(atom=0), tungsten(atom=0)]
    ends[1].positions[0] = tungsten().positions[0]  # the first that is left, its neighbour
    for atoms in ends:
        atoms.calc = Calculator(EAM)
        assert BFGS(atoms, logfile=None).run(fmax=1e-3)
    images = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    band = NEB(images, method="improvedtangent")
    band.interpolate(mic=True)
    for image in images[1:-1]:
        image.calc = Calculator(EAM)
    assert BFGS(band, logfile=None).run(fmax=0.02, steps=100)
    energies = np.array([image.get_potential_energy() for image in images])
    energies -= energies[0]
    np.testing.assert_allclose(energies, energies[::-1], atol=1e-3)
    assert energies[2] == energies.max() > 1.0


def spread(time_step, steps):
    """How far the energy per atom spreads in NVE, eV."""
    atoms = tungsten((3, 3, 3), atom=0)
    atoms.calc = Calculator(EAM, skin=0.3)
    thermalize_momenta(atoms, 600.0, rng=np.random.default_rng(0))
    energies = []
    dynamics = VelocityVerlet(atoms, time_step * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)))
    dynamics.run(steps)
    assert atoms.calc.neighbours.built > 1  # the candidates of the start do not do for all
    return np.ptp(energies)


def test_energy_is_conserved():
    """Half a picosecond. The energy of velocity Verlet wavers by a multiple of the step squared,
    for steps far below a period: a quarter for half the step, which a drift or a jump where
    neighbours are looked for would not be. So at 0.5 fs it stays within 1e-5 eV."""
    coarse, fine = spread(2.0, 250), spread(1.0, 500)
    assert 3.8 < coarse / fine < 4.2
    assert fine / 4 < 1e-5


@pytest.mark.parametrize("driver", ["langevin", "npt"])
def test_trajectories_are_those_of_a_plain_calculator(driver):
    """With the same random numbers; rounding grows by some factor per vibration, here one."""
    found = []
    for calc in (Calculator(EAM, skin=0.3), Plain(EAM)):
        atoms = tungsten((2, 2, 2))
        atoms.calc = calc
        thermalize_momenta(atoms, 900.0, rng=np.random.default_rng(0))
        if driver == "langevin":
            dynamics = Langevin(
                atoms,
                units.fs,
                temperature_K=900.0,
                friction=0.02,
                fixcm=False,
                rng=np.random.RandomState(0),
            )
        else:
            dynamics = npt(atoms, 1.0)
        dynamics.run(40)
        found.append((atoms.positions, atoms.cell.array))
    np.testing.assert_allclose(*(x for x, _ in found), atol=1e-10)
    np.testing.assert_allclose(*(h for _, h in found), atol=1e-10)


def npt(atoms, time_step):
    return MTKNPT(
        atoms, time_step * units.fs, temperature_K=900.0, pressure_au=0.0,
        tdamp=50 * units.fs, pdamp=200 * units.fs,
    )  # fmt: skip


def test_what_constant_pressure_conserves_is_conserved():
    """The conserved energy of the chains and the cell: to second order of the step, which a stress
    that were not the slope of the energy would not be."""
    spreads = []
    for time_step, steps in ((2.0, 50), (1.0, 100)):
        atoms = tungsten((2, 2, 2))
        atoms.calc = Calculator(EAM)
        thermalize_momenta(atoms, 900.0, rng=np.random.default_rng(0))
        Stationary(atoms)
        dynamics, conserved = npt(atoms, time_step), []
        dynamics.attach(lambda d=dynamics, c=conserved: c.append(d.get_conserved_energy()))
        dynamics.run(steps)
        spreads.append(np.ptp(conserved) / len(atoms))
    assert abs(atoms.cell[0, 0] / (2 * A_W) - 1.0) > 1e-4  # it breathes
    assert spreads[1] < 1e-4
    assert 2.5 < spreads[0] / spreads[1] < 6.0


@pytest.mark.oracle
@pytest.mark.parametrize("name", CRYSTALS)
def test_phonopy_finds_our_bands(name):
    """At wave vectors that do not fit into the supercell: both take every pair at its nearest
    images. Central differences of 1e-3 Å are good to some 1e-6 of a force constant, and so are
    the squares of frequencies, of some THz; force constants of at most their supercells' range."""
    phonopy = pytest.importorskip("phonopy")
    from phonopy.structure.atoms import PhonopyAtoms

    potential, crystal = CRYSTALS[name]
    atoms = to_ase(crystal)
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(), masses=atoms.get_masses(),
    )  # fmt: skip
    phonons = phonopy.Phonopy(cell, np.diag([3, 3, 3]), primitive_matrix="P")
    phonons.generate_displacements(distance=1e-3, is_plusminus=True)
    calc, forces = Calculator(potential), []
    for displaced in phonons.supercells_with_displacements:
        moved = atoms.__class__(
            displaced.symbols, displaced.positions, cell=displaced.cell, pbc=True, calculator=calc
        )
        forces.append(moved.get_forces())
    phonons.forces = forces
    phonons.produce_force_constants()
    waves = np.random.default_rng(0).uniform(0.1, 0.5, size=(6, 3))
    phonons.run_qpoints(waves)
    found = phonons.qpoints.frequencies
    reciprocal = 2 * np.pi * np.linalg.inv(atoms.cell.array).T
    expected = force_constants(potential, crystal, (3, 3, 3)).frequencies(waves @ reciprocal)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("name", CRYSTALS)
def test_matscipy_finds_our_elastic_constants(name):
    """Central differences of a strain of 1e-4: 1e-8 of what is above the third order, times some
    ten; atoms follow the strain to 1e-6 eV/Å."""
    elasticity = pytest.importorskip("matscipy.elasticity")
    potential, crystal = CRYSTALS[name]
    atoms = to_ase(crystal)
    atoms.calc = Calculator(potential)
    found = elasticity.measure_triclinic_elastic_constants(
        atoms, delta=1e-4, optimizer=BFGS, fmax=1e-7
    )
    found = found[ROWS[:, None], COLUMNS[:, None], ROWS[None], COLUMNS[None]]
    expected = np.asarray(elastic_constants(potential, crystal).relaxed)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
