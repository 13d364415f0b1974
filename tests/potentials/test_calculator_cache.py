"""Results of a calculator that are kept: the same numbers, and none computed twice."""

import jax
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from lprjax.atoms.structures import fcc, rattled, supercell
from lprjax.numerics.differences import POINTS
from lprjax.potentials import ase_potential, cached_calculator, observe
from lprjax.potentials.potential import graph_for
from lprjax.simulation.relaxation import relax

KINDS = ("energy", "forces", "virial")


class Interrupted(EMT):
    """Works so many times, and then no more."""

    left = 12

    def calculate(self, *args, **options):
        if self.left == 0:
            raise RuntimeError("the queue ended the job")
        self.left -= 1
        super().calculate(*args, **options)


@pytest.fixture(scope="module")
def shaken():
    return rattled(supercell(fcc("Cu", 3.6), (2, 2, 2)), jax.random.key(0), 0.1)


def asked(calculator, structure):
    potential = ase_potential(calculator)
    return observe(potential, graph_for(potential, structure), KINDS)


def test_numbers_are_the_calculators_and_none_is_computed_twice(shaken, tmp_path):
    first = cached_calculator(EMT(), tmp_path)
    plain, kept = asked(EMT(), shaken), asked(first, shaken)
    again = cached_calculator(EMT(), tmp_path)
    for kind in KINDS:
        read = getattr(asked(again, shaken), kind)
        np.testing.assert_array_equal(getattr(plain, kind), getattr(kept, kind))
        np.testing.assert_array_equal(read, getattr(kept, kind))
    assert first.calls == 1 and again.calls == 0 and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_relaxation_goes_on_where_it_was(shaken, tmp_path):
    """Every evaluation of the whole one, and the eight calls that measure the noise, but the twelve
    that were there already. Positions are equal to what EMT's own sums are, whose order depends on
    where its neighbours were found."""
    broken = Interrupted()
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="the queue ended"):
        relax(ase_potential(cached_calculator(broken, tmp_path)), shaken, force_tolerance=1e-3)
    broken.left = np.inf
    rest = cached_calculator(broken, tmp_path)
    found = relax(ase_potential(rest), shaken, force_tolerance=1e-3)
    whole = relax(ase_potential(EMT()), shaken, force_tolerance=1e-3)
    np.testing.assert_allclose(found.positions, whole.positions, rtol=0, atol=1e-12)
    assert rest.calls == whole.evaluations + POINTS - 12 > 0


def test_a_structure_is_all_its_numbers(tmp_path):
    """Another bit of a position, cell, periodicity, moment or element; -0 is 0."""
    calculator = cached_calculator(LennardJones(), tmp_path)
    atoms = bulk("Cu", cubic=True)
    variants = [atoms.copy() for _ in range(6)]
    variants[1].positions[0, 0] = np.nextafter(0.0, 1.0)
    variants[2].set_cell(atoms.cell * (1 + 1e-15))
    variants[3].pbc = (True, True, False)
    variants[4].set_initial_magnetic_moments([1.0] * 4)
    variants[5].symbols[0] = "Ag"
    assert len({calculator._key(a) for a in variants}) == 6
    negative = atoms.copy()
    negative.positions[0] = -0.0
    assert calculator._key(negative) == calculator._key(atoms)
    assert cached_calculator(EMT(), tmp_path)._key(atoms) != calculator._key(atoms)


def test_what_is_missing_or_damaged_is_computed(tmp_path):
    """Energies that were kept are joined by forces; half a file is none."""

    class OneByOne(LennardJones):
        def get_property(self, name, atoms=None, allow_calculation=True):
            value = super().get_property(name, atoms, allow_calculation)
            self.results = {name: value}
            return value

    atoms = bulk("Cu", cubic=True)
    calculator = cached_calculator(OneByOne(), tmp_path)
    energy = calculator.get_property("energy", atoms)
    (file,) = tmp_path.iterdir()
    assert set(np.load(file)) == {"energy"}
    forces = calculator.get_property("forces", atoms)
    assert set(np.load(file)) == {"energy", "forces"} and calculator.calls == 2
    file.write_bytes(file.read_bytes()[:100])
    other = cached_calculator(OneByOne(), tmp_path)
    assert other.get_property("energy", atoms) == energy and other.calls == 1
    np.testing.assert_array_equal(other.get_property("forces", atoms), forces)


def test_it_is_a_calculator_of_ase(tmp_path):
    """Whatever drives one drives it: here, ASE's own way to ask."""
    atoms = bulk("Cu", cubic=True)
    atoms.calc = cached_calculator(EMT(), tmp_path)
    energy = atoms.get_potential_energy()
    atoms.rattle(0.1)
    assert atoms.get_potential_energy() > energy and np.any(atoms.get_forces())
    assert atoms.calc.calls == 2
    file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    file.unlink()
    assert np.any(atoms.get_forces()) and atoms.calc.calls == 2  # nor is a file read twice


def test_what_it_refuses(tmp_path):
    for wrong in (EMT, 3.0):
        with pytest.raises(TypeError, match="wanted one of ase.calculators"):
            cached_calculator(wrong, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        cached_calculator(EMT(), tmp_path / "file")
