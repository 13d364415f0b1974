"""Every function that takes a defect measures in the norm of its lattice; oracles are dense."""

import jax
import numpy as np
import pytest
import scipy.linalg

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, square
from lprjax.crystals.energy_norm import EnergyLattice
from lprjax.defects.bounds import far_field_spectrum, far_field_weights
from lprjax.defects.budget import MEASURED, error_budget
from lprjax.defects.catalogue import dumbbell, micro_crack
from lprjax.defects.defect import clamped, geometry_error, relax_defect, vacancy
from lprjax.defects.first_order import first_order_error
from lprjax.defects.hessian import energy_at
from lprjax.defects.norms import with_energy_norm
from lprjax.defects.response import hessian_solve, lipschitz_estimate, stability_constant
from lprjax.potentials import polynomial_bonds, zhou_eam
from lprjax.potentials.observables import observe
from tests.helpers.potentials import Softened

SHELLS = [2.0, np.sqrt(8.0)]
BONDS = polynomial_bonds(SHELLS, [[0, -0.02, 1.0, -0.6], [0, 0.02 / 2**0.5, 0.5, 0.3]])
TUNGSTEN = zhou_eam("W")
DEFECTS = {
    "crack": (BONDS, lambda: micro_crack(square("W", 2.0), 8, 3)),
    "clamped": (BONDS, lambda: clamped(vacancy(square("W", 2.0), 8), 6.5)),
    "dumbbell": (TUNGSTEN, lambda: dumbbell(bcc("W", 3.165), 3, (1, 1, 0))),
}


@pytest.fixture(scope="module", params=DEFECTS)
def case(request):
    """The potential, the defect in both norms and its relaxed geometry."""
    potential, make = DEFECTS[request.param]
    plain = make()
    found = relax_defect(potential, plain, force_tolerance=1e-9)
    assert found.relaxed.converged
    return potential, plain, with_energy_norm(plain, potential), found.displacement


def dense(at, function):
    """The matrix of a map over the moves that are allowed, (m, m)."""
    moving = np.argwhere(np.asarray(at.moves.moving))
    columns = []
    for atom, axis in moving:
        v = np.zeros(at.moves.moving.shape)
        v[atom, axis] = 1.0
        columns.append(np.asarray(function(v))[tuple(moving.T)])
    return np.array(columns).T


def test_constants_against_dense_eigenvalues(case):
    """c, and M along a line; their signs are those of the plain norm (Sylvester)."""
    potential, plain, defect, u = case
    at = energy_at(potential, defect, u)
    s, h = dense(at, at.moves.metric), dense(at, at.product)
    values, modes = np.linalg.eigh(s)
    basis = modes[:, values > 1e-9 * values.max()]
    s, h = basis.T @ s @ basis, basis.T @ h @ basis
    expected = scipy.linalg.eigh(h, s, eigvals_only=True)[0]
    found = stability_constant(potential, defect, u)
    assert found.converged and found.constant == pytest.approx(expected, rel=1e-6)
    assert np.sign(expected) == np.sign(stability_constant(potential, plain, u).constant)
    direction = defect.on_sites(np.random.default_rng(0).normal(size=(defect.structure.n_atoms, 3)))
    along = np.asarray(at.moves.of_sites(direction))
    size = float(defect.lattice.strain_norm(at.moves.on_sites(along)))
    third = basis.T @ dense(at, lambda v: at.third(along / size, v)) @ basis
    values = scipy.linalg.eigh(0.5 * (third + third.T), s, eigvals_only=True)
    found = lipschitz_estimate(potential, defect, u, direction)
    assert abs(found.constant) == pytest.approx(np.abs(values).max(), rel=1e-5)


def test_responses_and_relaxed_geometries_do_not_know_the_norm(case):
    potential, plain, defect, u = case
    rng = np.random.default_rng(1)
    f = plain.on_sites(rng.normal(size=(plain.structure.n_atoms, 3)))
    both = [hessian_solve(potential, d, u, f) for d in (plain, defect)]
    size = np.abs(both[0].displacement).max()
    np.testing.assert_allclose(both[1].displacement, both[0].displacement, atol=1e-8 * size)
    again = relax_defect(potential, defect, force_tolerance=1e-9)
    assert again.relaxed.converged
    assert float(geometry_error(plain, again.displacement, u)) < 1e-7


def test_a_budget_holds_in_this_norm(case):
    """Bounds of the terms, of the response, of the geometry; first-order energies are the same."""
    potential, plain, defect, u = case
    if potential is TUNGSTEN:
        pytest.skip("half a minute of compiling, for what the others show")
    surrogate, radius = Softened(potential, 0.002), 3.0
    if isinstance(defect.lattice.held, jax.Array):
        radius = 4.0
    plain, found = (
        error_budget(potential, surrogate, d, radius, displacement=u, force_tolerance=1e-9)
        for d in (plain, defect)
    )
    assert not set(found.failures) - {"unproven"}
    for term in found.terms:
        if term.name not in MEASURED:
            assert term.norm <= term.mismatch * term.weight * (1 + 1e-9) + 1e-12 * found.eta
    assert found.geometry_first_order <= found.eta / found.stability
    if found.kantorovich <= 0.5:
        assert found.geometry_true <= found.geometry_bound
        assert abs(found.energy_true) <= found.energy_bound
    assert found.energy_first_order == pytest.approx(plain.energy_first_order, rel=1e-6)


def test_weights_are_those_of_the_energy():
    """||w|| of the far field is w^T Phi w, here by differences of the energy of the whole."""
    defect = with_energy_norm(vacancy(bcc("W", 3.165), 2), TUNGSTEN)
    w = np.random.default_rng(0).normal(size=(16, 3))
    perfect = dense_hessian_of_crystal(defect) @ w.ravel()
    weights = far_field_weights(defect, w)
    assert weights.linear**2 == pytest.approx(w.ravel() @ perfect, rel=1e-10)
    assert np.sum(far_field_spectrum(defect, w)) == pytest.approx(weights.linear**2, rel=1e-10)


def dense_hessian_of_crystal(defect):
    n = defect.reference.n_atoms
    graph = build_graph(defect.reference, TUNGSTEN.r_cut)
    found = observe(TUNGSTEN, graph, "force_constants", atoms=range(n)).force_constants
    return np.asarray(found)[:, :, :n].reshape(3 * n, 3 * n)


def test_eta_over_c_is_near_the_truth():
    """The W vacancy: within 1.5 of the first-order response, where the plain norm is above 2.5."""
    plain = vacancy(bcc("W", 3.165), 3)
    u = relax_defect(TUNGSTEN, plain, force_tolerance=1e-8).displacement
    surrogate = Softened(TUNGSTEN, 0.01)
    ratios = []
    for defect in (plain, with_energy_norm(plain, TUNGSTEN)):
        first = first_order_error(TUNGSTEN, surrogate, defect, u)
        c = stability_constant(surrogate, defect, u).constant
        ratios.append(first.eta / c / first.geometry)
    assert ratios[0] > 2.5 and 1.0 <= ratios[1] < 1.5


def test_the_plain_lattice_of_a_defect_is_kept():
    plain = vacancy(bcc("W", 3.165), 2)
    found = with_energy_norm(plain, TUNGSTEN)
    assert isinstance(found.lattice, EnergyLattice)
    v = np.random.default_rng(0).normal(size=(16, 3))
    np.testing.assert_array_equal(
        found.lattice.strain_by_site(v), plain.lattice.strain_by_site(v)
    )  # fmt: skip
    twice = with_energy_norm(found, TUNGSTEN)
    np.testing.assert_array_equal(twice.lattice.apply(v), found.lattice.apply(v))


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="wanted a Defect"):
        with_energy_norm(bcc("W", 3.165), TUNGSTEN)
    soft = polynomial_bonds(SHELLS, [[0, 0.0, 1.0], [0, 0.0, -0.8]])
    with pytest.raises(ValueError, match="wanted a stable crystal"):
        with_energy_norm(vacancy(square("W", 2.0), 5), soft)
