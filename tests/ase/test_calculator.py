"""What ASE is told is what `observe` says, whenever neighbours were looked for; and ASE's own
drivers do with it what they should."""

import jax
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators import calculator as ase_calculator
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS

import lprjax as lp
from lprjax.ace.potential import linear_potential
from lprjax.ase.calculator import Calculator
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond, from_ase, rattled, supercell, to_ase
from lprjax.crystals.elasticity import equilibrium
from lprjax.defects.catalogue import vacancy
from lprjax.defects.defect import relax_defect
from lprjax.models.files import save
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from tests.helpers.cases import SPECS, coloured, small_cell, vacancy_cell
from tests.helpers.compilations import compilations
from tests.helpers.potentials import lennard_jones

EAM, SW = zhou_eam("W"), stillinger_weber()
ALLOY = SPECS["two species"]
ACE = linear_potential(
    ALLOY, 0.05 * np.random.default_rng(0).normal(size=ALLOY.n_columns), {"W": -1.0, "Mo": 0.5}
)
A_W = float(equilibrium(EAM, bcc("W", 3.165)).structure.cell[0, 0])


class Plain(ase_calculator.Calculator):
    """The oracle: a new search and `observe` for every call."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential):
        super().__init__()
        self.potential = potential

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        structure = from_ase(atoms)
        graph = build_graph(structure, self.potential.r_cut)
        labels = observe(self.potential, graph, ("energy", "forces", "virial"))
        energy = float(labels.energy)
        self.results = {"energy": energy, "free_energy": energy}
        self.results["forces"] = np.asarray(labels.forces)[: len(atoms)]
        stress = -np.asarray(labels.virial) / structure.volume
        self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def alloy(structure):
    return to_ase(coloured(structure, ALLOY.elements))


def tungsten(repeats=(3, 3, 3), atom=None):
    atoms = to_ase(supercell(bcc("W", A_W), repeats))
    if atom is not None:
        del atoms[atom]
    return atoms


SLAB = Atoms(alloy(vacancy_cell()), pbc=(True, True, False))
OPEN_SLAB = Atoms(SLAB, cell=SLAB.cell.array * [[1], [1], [0]])
ALONE = Atoms("W", [[1, 2, 3]])
MOLECULE = Atoms("WMo2", [[0, 0, 0], [2.5, 0.3, 0], [0.2, 2.4, 0.4]])


@pytest.mark.parametrize(
    "potential, atoms",
    [
        (ACE, alloy(small_cell())),
        (ACE, alloy(vacancy_cell())),
        (ACE, SLAB),
        (ACE, OPEN_SLAB),
        (ACE, MOLECULE),
        (ACE, ALONE),
        (EAM, tungsten((2, 2, 2))),
        (SW, to_ase(rattled(diamond("Si", 5.43), jax.random.key(0), 0.1))),
        (ase_potential(lennard_jones()), alloy(vacancy_cell())),
    ],
    ids=["small", "vacancy", "slab", "open slab", "molecule", "alone", "eam", "sw", "ase"],
)
def test_results_are_those_of_observe(potential, atoms):
    """To rounding, which for a sum of n terms is some eps times their sizes."""
    atoms = atoms.copy()
    atoms.calc, plain = Calculator(potential), Plain(potential)
    expected = {name: plain.get_property(name, atoms) for name in plain.implemented_properties}
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert np.sum(atoms.get_potential_energies()) == pytest.approx(
        atoms.get_potential_energy(), abs=1e-13
    )
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-12)
    if atoms.cell.rank == 3:
        np.testing.assert_allclose(atoms.get_stress(), expected["stress"], atol=1e-13)
    else:
        with pytest.raises(ase_calculator.PropertyNotImplementedError):
            atoms.get_stress()


def test_a_cluster_in_a_box_has_no_stress():
    atoms = Atoms(MOLECULE, cell=[20, 20, 20])
    atoms.calc = Calculator(ACE)
    with pytest.raises(ase_calculator.PropertyNotImplementedError):
        atoms.get_stress()


def test_stress_is_the_slope_of_the_energy():
    """Central differences of h^2 f''' / 6 = 1e-8 / 6 times some f''' of 10 f'."""
    atoms = alloy(small_cell())
    atoms.calc = Calculator(ACE)
    stress, h = atoms.get_stress(voigt=False), 1e-4
    for a, b in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain.T, scale_atoms=True)
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert slope == pytest.approx(stress[a, b], abs=1e-6)


def test_results_do_not_depend_on_when_neighbours_were_looked_for():
    """Along a walk with strain, beside a calculator that looks for them in every step."""
    rng = np.random.default_rng(1)
    atoms = alloy(vacancy_cell())
    lazy, eager = Calculator(ACE, skin=0.6), Calculator(ACE, skin=0.0)
    for _ in range(25):
        atoms.positions += rng.normal(size=(15, 3)) * 0.04
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.004 * rng.normal(size=(3, 3))), scale_atoms=True)
        for name in ("energy", "forces", "stress"):
            ours, theirs = (c.get_property(name, atoms) for c in (lazy, eager))
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert 2 <= lazy.neighbours.built < 15 and eager.neighbours.built == 25


def test_atoms_cells_and_boundaries_may_change():
    """One calculator for everything, in turn and back."""
    calc, plain = Calculator(ACE), Plain(ACE)
    other = alloy(vacancy_cell())
    other.symbols[3] = "W" if other.symbols[3] == "Mo" else "Mo"
    wrapped = alloy(vacancy_cell())
    wrapped.positions += [20.0, -3.0, 7.0]
    wrapped.wrap()
    for atoms in (alloy(vacancy_cell()), other, SLAB, wrapped, MOLECULE, alloy(small_cell()), SLAB):
        expected = plain.get_property("energy", atoms.copy())
        assert calc.get_property("energy", atoms) == pytest.approx(expected, abs=1e-12)


def test_neighbours_that_have_no_room_are_not_lost():
    """A crystal pressed together in one step: four times the neighbours."""
    atoms = alloy(supercell(bcc("W", 4.4), (2, 2, 2)))
    calc = Calculator(ACE, skin=2.0)
    calc.get_potential_energy(atoms)
    room, built = calc.neighbours.n_neighbours, calc.neighbours.built
    atoms.set_cell(atoms.cell * 0.68, scale_atoms=True)
    expected = Plain(ACE).get_property("energy", atoms)
    assert calc.get_property("energy", atoms) == pytest.approx(expected, abs=1e-12)
    assert calc.neighbours.n_neighbours > room and calc.neighbours.built == built


def test_a_hundred_steps_compile_nothing_after_the_first():
    """Nor does a second calculator, of other coefficients."""
    atoms = to_ase(supercell(bcc("W", 3.16), (3, 3, 3)))
    atoms.symbols[::2] = "Mo"
    shallow = [linear_potential(ALLOY, c * np.asarray(ACE.coefficients)) for c in (0.1, 0.09)]
    atoms.calc = Calculator(shallow[0])
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, units.fs)
    dynamics.run(1)
    with compilations() as names:
        dynamics.run(99)
        atoms.calc = Calculator(shallow[1])
        atoms.get_stress()
    assert names == []


# ---- a fit, and its deviations


@pytest.fixture(scope="module")
def fitted():
    graphs = [build_graph(c, ALLOY.r_cut) for c in (coloured(vacancy_cell(), ALLOY.elements),)]
    labels = [observe(ACE, graph) for graph in graphs]
    data = lp.compress_structures(ALLOY, zip(graphs, labels, strict=True))
    return lp.fit(data, {"energy": 10.0, "forces": 1.0}, ridge=1e-3)


def test_a_fit_its_file_and_its_potential_are_one(fitted, tmp_path):
    e0 = {"W": -2.0, "Mo": 1.0}
    save(tmp_path / "fit.npz", fitted, spec=ALLOY, reference_energies=e0)
    potential = linear_potential(ALLOY, fitted.coefficients, e0)
    save(tmp_path / "potential.npz", potential)
    atoms = alloy(small_cell())
    calculators = (
        Calculator(fitted, spec=ALLOY, reference_energies=e0),
        Calculator(lp.load(tmp_path / "fit.npz")),
        Calculator(tmp_path / "fit.npz"),
        Calculator(str(tmp_path / "potential.npz")),
    )
    energy = Calculator(potential).get_property("energy", atoms)
    assert [calc.get_property("energy", atoms) for calc in calculators] == [energy] * 4


def test_deviations_are_there_on_request(fitted):
    atoms = alloy(small_cell())
    asked, always = Calculator(fitted, spec=ALLOY), Calculator(fitted, spec=ALLOY, deviations=True)
    asked.get_potential_energy(atoms)
    always.get_potential_energy(atoms)
    assert "energy_deviation" not in asked.results
    for name in ("energy_deviation", "force_deviation"):
        np.testing.assert_array_equal(asked.get_property(name, atoms), always.results[name])
        assert always.results[name].shape == (2,)
    with pytest.raises(ase_calculator.PropertyNotImplementedError, match="of a fit with its"):
        Calculator(ACE).get_property("energy_deviation", atoms)


@pytest.mark.parametrize(
    "model, options, error, message",
    [
        (ACE, {"spec": ALLOY}, TypeError, "spec or reference_energies are given beside a Linear"),
        (ACE, {"skin": -1.0}, ValueError, "skin is -1.0: wanted a length >= 0"),
        (ACE, {"deviations": True}, ValueError, "a potential that has no factor"),
        (3.0, {}, TypeError, "float: wanted a callable"),
    ],
)
def test_what_is_no_model_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        Calculator(model, **options)


def test_a_fit_without_its_basis_and_unknown_elements_are_refused(fitted):
    with pytest.raises(TypeError, match="spec is None: wanted the ACESpec"):
        Calculator(fitted)
    with pytest.raises(ValueError, match="the structure has Si"):
        Calculator(ACE).get_property("energy", Atoms("Si2", [[0, 0, 0], [2, 0, 0]]))


# ---- drivers of ASE


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
