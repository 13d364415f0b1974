"""What ASE is told is what `observe` says, whenever neighbours were looked for; and ASE's own
drivers do with it what they should."""

import jax
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators import calculator as ase_calculator
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

import lprjax as lp
from lprjax.ace.potential import linear_potential
from lprjax.ase.calculator import Calculator
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond, rattled, supercell, to_ase
from lprjax.crystals.elasticity import equilibrium
from lprjax.models.files import save
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from tests.helpers.calculators import Plain
from tests.helpers.cases import SPECS, coloured, small_cell, vacancy_cell
from tests.helpers.compilations import compilations
from tests.helpers.potentials import lennard_jones

EAM, SW = zhou_eam("W"), stillinger_weber()
ALLOY = SPECS["two species"]
ACE = linear_potential(
    ALLOY, 0.05 * np.random.default_rng(0).normal(size=ALLOY.n_columns), {"W": -1.0, "Mo": 0.5}
)
A_W = float(equilibrium(EAM, bcc("W", 3.165)).structure.cell[0, 0])


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
    calc = Calculator(ACE)
    for _ in range(2):  # whoever asks again is told again
        with pytest.raises(ValueError, match="the structure has Si"):
            calc.get_property("energy", Atoms("Si2", [[0, 0, 0], [2, 0, 0]]))
