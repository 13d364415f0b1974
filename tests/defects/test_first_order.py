"""First order is first order: what it misses falls with the perturbation, by known powers.

The surrogate is tungsten plus a small smooth pair term, the truth two relaxations to 1e-9 eV/Å.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc
from lprjax.defects.defect import relax_defect, vacancy
from lprjax.defects.first_order import FirstOrder, first_order_error
from lprjax.defects.formation import formation_energy
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import energy_and_forces, total_energy
from tests.helpers.potentials import Softened

TUNGSTEN, CELL = zhou_eam("W"), bcc("W", 3.164849)
DEFECT = vacancy(CELL, 3)
SIZES = (0.1, 0.2, 0.4)


class Solved(NamedTuple):
    found: FirstOrder
    moves: np.ndarray  # true
    energy: float  # true


def relaxed_formation(potential, start=None):
    """Displacement and formation energy by relaxing, the bulk by itself."""
    relaxed = relax_defect(potential, DEFECT, displacement=start, force_tolerance=1e-9)
    assert relaxed.relaxed.converged
    bulk = float(total_energy(potential, build_graph(CELL, potential.r_cut))) / 2
    return relaxed.displacement, formation_energy(relaxed.energy, DEFECT, bulk)


@pytest.fixture(scope="module")
def reference():
    return relaxed_formation(TUNGSTEN)


@pytest.fixture(scope="module")
def solved(reference):
    u, energy = reference

    def solve(size):
        surrogate = Softened(TUNGSTEN, size)
        there, theirs = relaxed_formation(surrogate, u)
        found = first_order_error(TUNGSTEN, surrogate, DEFECT, u)
        return Solved(found, np.asarray(there - u), theirs - energy)

    return {size: solve(size) for size in SIZES}


def norm(v):
    return float(DEFECT.lattice.strain_norm(jnp.asarray(v)))


def test_halving_the_perturbation_halves_the_relative_error(solved):
    """Of the moves, and of their norm; the next order adds some 10 % to a ratio of two.

    The energy is right to second order: what is missing is a quarter of itself, relative to it.
    """
    misses = {
        size: np.array(
            [
                norm(s.found.response.displacement - s.moves) / norm(s.moves),
                abs(s.found.geometry / norm(s.moves) - 1.0),
                2.0 * np.sqrt(abs(s.found.energy / s.energy - 1.0)),
            ]
        )
        for size, s in solved.items()
    }
    for size in SIZES[:-1]:
        ratios = misses[2 * size] / misses[size]
        np.testing.assert_allclose(ratios, 2.0, atol=0.3)
    assert np.all(misses[SIZES[0]] < 0.1)


def test_the_signs_are_those_of_the_truth(solved):
    """Moves point the right way, and energies go up or down as they do."""
    for s in solved.values():
        cosine = np.vdot(s.found.response.displacement, s.moves)
        assert cosine > 0.9 * np.linalg.norm(s.moves) ** 2
        assert s.found.energy * s.energy > 0
        assert s.found.energy < s.found.energy_at_reference  # relaxing gains energy


def test_forces_and_energy_are_differences_at_the_references_geometry(reference, solved):
    u, _ = reference
    found, sides = solved[0.2].found, []
    for potential in (TUNGSTEN, Softened(TUNGSTEN, 0.2)):
        energy, forces = energy_and_forces(
            potential, build_graph(DEFECT.displaced(u), potential.r_cut)
        )
        bulk = float(total_energy(potential, build_graph(CELL, potential.r_cut))) / 2
        sides.append((forces[:53], formation_energy(float(energy), DEFECT, bulk)))
    expected = DEFECT.on_sites(sides[1][0] - sides[0][0])
    np.testing.assert_allclose(found.forces, expected, atol=1e-12)
    assert found.energy_at_reference == pytest.approx(sides[1][1] - sides[0][1], abs=1e-9)
    assert found.eta == pytest.approx(float(DEFECT.lattice.negative_norm(expected)), rel=1e-10)
    work = float(jnp.vdot(expected, found.response.displacement))
    assert found.energy == pytest.approx(found.energy_at_reference - work / 2, abs=1e-12)


def test_no_difference_no_error(reference):
    found = first_order_error(TUNGSTEN, Softened(TUNGSTEN, 0.0), DEFECT, reference[0])
    assert found.eta < 1e-12 and found.geometry < 1e-12 and abs(found.energy) < 1e-10


def test_without_a_stable_surrogate_there_is_no_prediction_and_it_says_so(reference):
    """A pair term so large that the crystal gives way; what needs no Hessian is still reported.

    Atoms are shaken a little: forces with the symmetry of the vacancy are blind to most modes.
    """
    noise = 0.01 * np.random.default_rng(0).normal(size=(53, 3))
    shaken = reference[0] + DEFECT.on_sites(noise)
    found = first_order_error(TUNGSTEN, Softened(TUNGSTEN, 40.0), DEFECT, shaken)
    assert found.response.indefinite and not found.response.converged
    assert np.isnan(found.geometry) and np.isnan(found.energy)
    assert np.isnan(np.asarray(found.response.displacement)[np.asarray(DEFECT.site_of_atom)]).all()
    assert found.eta > 1.0 and np.isfinite(found.energy_at_reference)


def test_an_unfinished_solve_is_no_prediction(reference):
    surrogate = Softened(TUNGSTEN, 0.2)
    found = first_order_error(TUNGSTEN, surrogate, DEFECT, reference[0], max_iterations=1)
    assert not found.response.converged and not found.response.indefinite
    assert found.response.iterations == 1 and found.response.residual > 1e-10
    assert np.isnan(found.geometry) and np.isnan(found.energy)
