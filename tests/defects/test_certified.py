"""The certified stability constant is never above the true one, which dense algebra finds."""

import numpy as np
import pytest
import scipy.linalg

from lprjax.atoms.structures import bcc, square
from lprjax.defects.certified import certified_stability, random_moves, stability_certificate
from lprjax.defects.defect import clamped, relax_defect, vacancy
from lprjax.defects.hessian import energy_at
from lprjax.defects.norms import with_energy_norm
from lprjax.potentials import ase_potential, polynomial_bonds, zhou_eam
from tests.helpers.potentials import lennard_jones

SHELLS = [2.0, np.sqrt(8.0)]


def bonds(second=0.5):
    return polynomial_bonds(SHELLS, [[0, -0.02, 1.0, -0.6], [0, 0.02 / 2**0.5, second, 0.3]])


PLANE, TUNGSTEN = vacancy(square("W", 2.0), 6), vacancy(bcc("W", 3.165), 2)
CASES = {
    "plane": (bonds(), PLANE),
    "clamped": (bonds(), clamped(vacancy(square("W", 2.0), 7), 5.5)),
    "metal": (zhou_eam("W"), TUNGSTEN),
    "energy norm": (bonds(), with_energy_norm(PLANE, bonds())),
    "unstable": (bonds(-0.3), PLANE),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """The energy at a geometry and c by a dense eigenproblem, of columns in other coordinates."""
    potential, defect = CASES[request.param]
    stable = bonds() if request.param == "unstable" else potential
    at = energy_at(potential, defect, relax_defect(stable, defect).displacement)
    size = at.moves.moving.size
    units = np.eye(size).reshape(size, *at.moves.moving.shape)
    h, k = (
        np.stack([np.asarray(f(v)).ravel() for v in units]) for f in (at.product, at.moves.metric)
    )
    values, modes = np.linalg.eigh(k)
    basis = modes[:, values > 1e-9 * values.max()]
    return at, scipy.linalg.eigvalsh(basis.T @ h @ basis, basis.T @ k @ basis)


def test_it_is_below_and_near(case):
    """Below the dense value, by less than a millionth of it or of a thousandth of the largest."""
    at, values = case
    found = certified_stability(at)
    assert found.guaranteed and found.why_not == "" and found.confidence == 1.0
    assert found.value < values[0] <= found.value + 1e-5 * max(abs(values[0]), 1e-2 * values[-1])
    assert found.estimate == pytest.approx(values[0], rel=1e-7, abs=1e-10)


def test_from_a_random_start_it_is_below_and_says_what_it_rests_on(case):
    at, values = case
    found = certified_stability(at, dense=0, steps=100)
    assert not found.guaranteed and "probability 1e-06" in found.why_not
    assert found.confidence == 1.0 - 1e-6
    assert found.value <= values[0] <= found.estimate + 1e-9
    assert found.value > values[0] - 0.1 * (values[-1] - values[0])
    few = certified_stability(at, dense=0, steps=10)
    assert few.value < found.value


def test_random_moves_prefer_no_direction(case):
    """In coordinates in which the norm is |y| the mean of y y^T is 1 / N, within 6 deviations."""
    at, _ = case
    rng = np.random.default_rng(0)
    draws = np.stack([random_moves(at, rng) for _ in range(400)])
    n = int(np.asarray(at.moves.moving).sum()) - int((np.asarray(at.moves.shares) > 0).sum())
    test = np.stack([random_moves(at, rng) for _ in range(10)])  # of norm 1
    duals = np.stack([np.asarray(at.moves.metric(v)) for v in test])
    squares = np.einsum("kia,xia->kx", draws, duals) ** 2 * n
    np.testing.assert_allclose(squares.mean(axis=0), 1.0, atol=6 * np.sqrt(2 / 400))
    sizes = [np.vdot(v, at.moves.metric(v)) for v in draws[:5]]
    np.testing.assert_allclose(sizes, 1.0, rtol=1e-10)


def test_calculators_and_broken_potentials_are_not_certified():
    potential = ase_potential(lennard_jones(), r_cut=4.6)
    defect = vacancy(bcc("W", 2.9), 2)
    found = certified_stability(energy_at(potential, defect, defect.start), steps=10)
    assert not found.guaranteed and found.confidence == 0.0
    assert "differences of a calculator" in found.why_not
    broken = polynomial_bonds(SHELLS, [[0, 0.0, 1e308, 1e308], [0, 0.0, 1e308, 0.0]])
    u = np.asarray(PLANE.start) + np.random.default_rng(0).normal(size=PLANE.start.shape) * 0.1
    u[:, 2] = 0.0
    found = stability_certificate(broken, PLANE, u)
    assert not found.guaranteed and "NaN or infinity" in found.why_not
