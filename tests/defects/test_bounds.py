"""Each error term holds, and is reached: against dense eigenvalues and worst cases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import eigh

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond
from lprjax.crystals.phonons import force_constants
from lprjax.crystals.strain_norm import reference_lattice
from lprjax.defects.bounds import (
    PIECES,
    elastic_mismatch,
    far_field_spectrum,
    far_field_weights,
    force_constant_mismatch,
    force_residual,
    geometry_bound,
    internal_strain_mismatch,
    kantorovich,
    relaxing_bound,
    split_residual,
    third_elastic_mismatch,
)
from lprjax.defects.catalogue import dumbbell, tetrahedral
from lprjax.defects.defect import relax_defect, vacancy
from lprjax.defects.far_field import cauchy_born_mismatch, far_field, lattice_orders, site_gradient
from lprjax.potentials import stillinger_weber, zhou_eam
from lprjax.potentials.observables import energy_and_forces, observe
from tests.helpers.potentials import SizeBiased, Softened

TUNGSTEN, CELL = zhou_eam("W"), bcc("W", 3.164849)


SURROGATE = Softened(TUNGSTEN, 0.1)


@pytest.fixture(scope="module")
def solved():
    defect = vacancy(CELL, 4)
    return defect, relax_defect(TUNGSTEN, defect).displacement


@pytest.fixture(scope="module")
def model(solved):
    return cauchy_born_mismatch(TUNGSTEN, SURROGATE, solved[0])


@pytest.fixture(scope="module")
def split(solved, model):
    return split_residual(TUNGSTEN, SURROGATE, *solved, 5.0, model=model)


@pytest.fixture(scope="module")
def dense(solved):
    """K of the complete lattice, (3 n, 3 n), bond by bond from the table."""
    table = np.asarray(solved[0].lattice.neighbours)
    n = len(table)
    k = np.zeros((n, n))
    for site, row in enumerate(table):
        for other in row:
            k[[site, other], [site, other]] += 1.0
            k[[site, other], [other, site]] -= 1.0
    return np.kron(k, np.eye(3))


def matrix(linear, n):
    """The matrix of a linear map (n, 3) -> (n, 3)."""
    return np.stack([linear(v.reshape(n, 3)).ravel() for v in np.eye(3 * n)], axis=1)


def largest_ratio(matrix, norm):
    """max |v^T A v| / v^T K v, translations left out, by a dense generalised eigenproblem."""
    n = len(norm) // 3
    shift = np.kron(np.ones((n, n)) / n, np.eye(3))
    strained = np.linalg.svd(np.eye(3 * n) - shift)[0][:, : 3 * n - 3]
    values = eigh(strained.T @ matrix @ strained, strained.T @ norm @ strained, eigvals_only=True)
    return np.abs(values).max()


def negative(lattice, forces):
    return float(lattice.negative_norm(forces))


def test_residual_is_the_difference_of_forces_and_of_formation_energies(solved):
    defect, u = solved
    forces, energy = force_residual(TUNGSTEN, SURROGATE, defect, u)
    n, expected = defect.structure.n_atoms, []
    for potential in (TUNGSTEN, SURROGATE):
        graphs = (build_graph(s, potential.r_cut) for s in (defect.displaced(u), defect.reference))
        (e, f), (bulk, _) = (energy_and_forces(potential, graph) for graph in graphs)
        expected.append((f[:n], e - n / (n + 1) * bulk))
    np.testing.assert_allclose(defect.on_atoms(forces), expected[1][0] - expected[0][0], atol=1e-12)
    assert energy == pytest.approx(float(expected[1][1] - expected[0][1]), abs=1e-9)


def test_pieces_add_up(solved, split):
    assert tuple(split.pieces) == tuple(split.energies) == PIECES
    np.testing.assert_allclose(sum(split.pieces.values()), split.forces, atol=1e-13)
    assert sum(split.energies.values()) == pytest.approx(split.energy, abs=1e-12)
    eta = negative(solved[0].lattice, split.forces)
    parts = [negative(solved[0].lattice, f) for f in split.pieces.values()]
    assert max(parts) <= sum(parts) and eta <= sum(parts) * (1 + 1e-9)


def test_the_core_is_inside(solved, model):
    """Where all of a site's surroundings are in the far field, the lattice accounts for all.

    L = 4 Å and the perturbation reaches 5 Å: from 9 Å on there is nothing but rounding.
    """
    defect = vacancy(CELL, 7)
    u = relax_defect(TUNGSTEN, defect).displacement
    split = split_residual(TUNGSTEN, SURROGATE, defect, u, 4.0)
    outside = defect.distances() > 9.2
    core = np.abs(np.asarray(split.pieces["core"]))
    assert core[outside].max() < 1e-12 < core.max()


def test_equal_potentials_have_no_error(solved):
    split = split_residual(TUNGSTEN, TUNGSTEN, *solved, 5.0)
    assert not np.any(np.asarray(split.forces)) and split.energy == 0.0
    assert all(not np.any(np.asarray(piece)) for piece in split.pieces.values())


def test_elastic_mismatch_is_the_dense_worst_case(solved, model, dense):
    a = matrix(lambda v: -model.forces(v)[0], 128)
    assert elastic_mismatch(model, solved[0]) == pytest.approx(largest_ratio(a, dense), rel=1e-9)


def test_an_energy_that_depends_on_the_cell_alone_is_no_error(solved):
    """The same for every atom of the defect's cell and of the lattice's: E_f does not have it. In
    the unit cell it is 64 times as large, and 127 atoms would miss it by 390 eV."""
    forces, energy = force_residual(TUNGSTEN, SizeBiased(TUNGSTEN), *solved)
    assert abs(energy) < 1e-9  # rounding of 127 atoms of 9 eV
    assert float(jnp.max(jnp.abs(forces))) < 1e-12


def constants(defect):
    cell, repeats = defect.unit_cell, defect.lattice.repeats
    return [force_constants(p, cell, repeats) for p in (TUNGSTEN, SURROGATE)]


def test_force_constant_mismatch_is_the_dense_worst_case(solved, model, dense):
    graph = build_graph(solved[0].reference, TUNGSTEN.r_cut)
    phi = [
        np.asarray(observe(p, graph, ("force_constants",), atoms=range(128)).force_constants)
        for p in (TUNGSTEN, SURROGATE)
    ]
    a = matrix(lambda v: -model.forces(v)[0], 128)
    rest = (phi[1] - phi[0])[:, :, :128].reshape(384, 384) - a
    found = force_constant_mismatch(*constants(solved[0]), model, solved[0])
    assert found.shape == (4, 4, 4)
    assert found.max() == pytest.approx(largest_ratio(rest, dense), rel=1e-8)


def test_force_constants_differ_from_elasticity_as_k_squared():
    """In the primitive cell, every site a centre of symmetry: 4 times less at half the k."""
    defect = vacancy(bcc("W", 3.164849, primitive=True), (24, 4, 4))
    model = cauchy_born_mismatch(TUNGSTEN, SURROGATE, defect)
    found = force_constant_mismatch(*constants(defect), model, defect)[:, 0, 0]
    assert found[0] < 1e-10
    np.testing.assert_allclose(found[2] / found[1], 4.0, rtol=0.1)
    np.testing.assert_allclose(found[-3:], found[1:4][::-1], rtol=1e-8)  # k and -k


def test_linear_bounds_hold_for_the_actual_far_field(solved, model, split):
    """And are not idle: the norm is within a factor of 20 of the worst far field of that size."""
    defect = solved[0]
    complete = vacancy_free(defect)
    weights = far_field_weights(defect, split.far)
    orders = [lattice_orders(p, defect.reference, split.far) for p in (TUNGSTEN, SURROGATE)]
    first = orders[1].first - orders[0].first
    elastic = model.forces(split.far)[0]
    bound = elastic_mismatch(model, defect) * weights.linear
    assert bound / 20 < negative(complete, elastic) <= bound
    per_wave = force_constant_mismatch(*constants(defect), model, defect)
    bound = np.sqrt(np.sum(per_wave**2 * far_field_spectrum(defect, split.far)))
    assert bound / 5 < negative(complete, first - elastic) <= bound


def test_internal_strain_of_diamond():
    """Its bound is the dense worst case, its shares are parts of the whole, and the energy is half
    the work of its forces. Tetrahedral interstitial, 65 atoms, stiffer angles."""
    silicon, cell = stillinger_weber(), diamond("Si", 5.430949778405213)
    stiffer = dataclasses.replace(silicon, lam=23.0)
    defect = tetrahedral(cell, 2)
    w = 0.05 * jax.random.normal(jax.random.key(3), (64, 3))
    u = defect.on_sites(jnp.zeros((65, 3))).at[:64].add(w)
    split = split_residual(silicon, stiffer, defect, u, 5.0)
    model = cauchy_born_mismatch(silicon, stiffer, defect)
    whole = reference_lattice(cell, (2, 2, 2))
    k = np.kron(np.asarray(whole.apply(jnp.eye(64))), np.eye(3))
    values, modes = np.linalg.eigh(k)
    root = modes[:, 3:] / np.sqrt(values[3:])
    a = matrix(lambda v: -model.internal_forces(v), 64)
    worst = np.linalg.norm(root.T @ a @ root, ord=2)
    found = internal_strain_mismatch(model, defect)
    assert found == pytest.approx(worst, rel=1e-8) and found > 5e-3
    forces = model.internal_forces(split.far)
    work = -0.5 * float(jnp.vdot(forces, split.far))
    assert split.energies["internal_strain"] == pytest.approx(work, rel=1e-9)
    np.testing.assert_allclose(split.pieces["internal_strain"][:64], forces, atol=1e-12)
    np.testing.assert_allclose(sum(split.pieces.values()), split.forces, atol=1e-12)
    assert sum(split.energies.values()) == pytest.approx(split.energy, abs=1e-10)


def vacancy_free(defect):
    from lprjax.crystals.strain_norm import reference_lattice

    return reference_lattice(CELL, defect.lattice.repeats)


def test_third_elastic_bound_holds_and_is_within_a_factor(solved, model):
    """For the worst far field that 60 steps of ascent find; three inequalities are chained."""
    complete = vacancy_free(solved[0])
    table = complete.neighbours

    def ratio(w):
        squares = jnp.sum((w[table] - w[:, None]) ** 2, axis=(1, 2))
        return complete.negative_norm(model.forces(w)[1]) / jnp.sqrt(jnp.sum(squares**2))

    bound = third_elastic_mismatch(model)
    step = jax.jit(lambda w: w + 0.1 * complete.solve(jax.grad(lambda x: jnp.log(ratio(x)))(w)))
    w = jax.random.normal(jax.random.key(0), (128, 3))
    for _ in range(60):
        w = step(w)
        w = w / complete.strain_norm(w)
    assert bound / 10 < float(ratio(w)) <= bound


def test_weights_are_norms_of_the_far_field(solved, split):
    defect = solved[0]
    weights = far_field_weights(defect, split.far)
    complete = vacancy_free(defect)
    by_site = np.asarray(complete.strain_by_site(split.far))
    assert weights.linear == pytest.approx(float(complete.strain_norm(split.far)), rel=1e-12)
    assert weights.quadratic == pytest.approx(np.sqrt(np.sum(by_site**4)), rel=1e-12)
    assert weights.cubic == pytest.approx(np.sqrt(np.sum(by_site**6)), rel=1e-12)
    spectrum = far_field_spectrum(defect, split.far)
    assert np.all(spectrum >= -1e-15)
    assert np.sum(spectrum) == pytest.approx(weights.linear**2, rel=1e-10)
    farther = far_field_weights(defect, far_field(defect, solved[1], 6.0))
    assert all(f < w for f, w in zip(farther[:3], weights[:3], strict=True))


def test_the_complete_lattice_knows_of_no_defect():
    """Far field and elasticity live on the regular sites: the same bonds, gradients and weights
    whether one of them is missing or an extra atom is bonded to some."""
    without, beside = vacancy(CELL, 3), dumbbell(CELL, 3, (1, 1, 0))
    assert beside.lattice.n_sites == beside.lattice.n_regular + 1
    w = jax.random.normal(jax.random.key(1), (beside.lattice.n_regular, 3))
    pure = reference_lattice(CELL, (3, 3, 3))
    for defect in (without, beside):
        assert far_field_weights(defect, w).linear == pytest.approx(float(pure.strain_norm(w)))
        assert np.sum(far_field_spectrum(defect, w)) == pytest.approx(
            float(pure.strain_norm(w)) ** 2
        )
    gradients = (site_gradient(defect)(w) for defect in (without, beside))
    np.testing.assert_allclose(*gradients, rtol=1e-12, atol=1e-12)


def test_geometry_bound_is_reached_by_a_cubic():
    """E(x) = c x^2 / 2 - M x^3 / 6 - eta x has its minimum just there."""
    for c, m, eta in ((2.0, 0.7, 0.5), (1.0, 1.0, 0.5), (3.0, 0.0, 0.2)):
        x = geometry_bound(eta, c, m)
        assert c * x - 0.5 * m * x**2 == pytest.approx(eta, rel=1e-12)
        assert eta / c <= x <= 2 * eta / c * (1 + 1e-15)


def test_the_gain_of_relaxing_is_reached_by_a_cubic_and_of_second_order():
    """E(x) = c x^2 / 2 - M x^3 / 6 - eta x falls by just that much; M -> 0 leaves eta^2 / (2 c)."""
    for c, m, eta in ((2.0, 0.7, 0.5), (1.0, 1.0, 0.5), (3.0, 0.0, 0.2)):
        x = (c - np.sqrt(c**2 - 2 * m * eta)) / m if m else eta / c
        gain = eta * x + m * x**3 / 6 - c * x**2 / 2
        assert relaxing_bound(eta, c, m) == pytest.approx(gain, rel=1e-12)
        assert gain >= eta**2 / (2 * c) * (1 - 1e-12)
    small = relaxing_bound(1e-4, 2.0, 0.7) / (1e-8 / 4.0)  # 1 + h / 3 + ...
    assert small == pytest.approx(1.0 + kantorovich(1e-4, 2.0, 0.7) / 3.0, abs=1e-9)


@pytest.mark.parametrize("c, m, eta", [(1.0, 1.0, 0.51), (0.0, 1.0, 0.1), (-1.0, 0.0, 0.1)])
def test_no_bound_where_there_is_no_theorem(c, m, eta):
    assert np.isnan(geometry_bound(eta, c, m)) and np.isnan(relaxing_bound(eta, c, m))
    assert np.isnan(kantorovich(eta, c, m)) == (c <= 0)
