"""Sparse kernel potentials: GAP by dense algebra, the choice of environments, smoothness."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg.lapack import dpstrf

from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure, rattled, strained, supercell
from lprjax.models.features import column_statistics
from lprjax.models.kernels import (
    KernelPotential,
    kernel_potential,
    pivoted_cholesky,
    site_features,
    unit_features,
    unseen_variance,
)
from lprjax.potentials.observables import KINDS, observe
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import local_prediction_rigidity
from lprjax.regression.rows import design_rows

SPEC = ACESpec(("W", "Mo"), 2, 4, 3.6, 2.7)
E0 = {"W": -0.3, "Mo": 0.7}
WEIGHTS, RIDGE = {"energy": 2.0, "forces": 0.5}, 0.1
RNG = np.random.default_rng(3)


def alloy(seed):
    """Eight atoms, W and Mo in disorder, rattled and strained."""
    key = jax.random.key(seed)
    cell = strained(supercell(bcc("W", 3.16), (2, 2, 1)), 0.02 * jax.random.normal(key, (3, 3)))
    species = np.random.default_rng(seed).permutation(4 * ["W", "Mo"])
    return rattled(make_structure(cell.positions, cell.cell, list(species), True), key, 0.15)


def graph_of(structure):
    return build_graph(structure, SPEC.r_cut, n_atoms=12, n_neighbours=32)  # four padding atoms


GRAPHS = [graph_of(alloy(seed)) for seed in range(4)]
REAL = np.arange(8)
basis = jax.jit(site_basis, static_argnums=0)
features_of = jax.jit(site_features)
ENVIRONMENTS = np.concatenate([np.asarray(basis(SPEC, g))[:8] for g in GRAPHS[:3]])
POTENTIAL = kernel_potential(SPEC, ENVIRONMENTS, 10, zeta=2, reference_energies=E0)


def everything(potential, graph):
    return observe(potential, graph, KINDS, atoms=(1,))


@pytest.fixture(scope="module")
def trained():
    return replace(POTENTIAL, coefficients=jnp.asarray(RNG.normal(size=10)))


def plain_kernel(graph, potential):
    """k_M(i) by loops over pairs, from the definition."""
    rows = np.asarray(basis(SPEC, graph)) / np.asarray(potential.scale)
    kernel = np.zeros((8, len(potential.sparse)))
    for i, b in enumerate(rows[:8]):
        for m, u in enumerate(np.asarray(potential.sparse)):
            kernel[i, m] = (b @ u / np.sqrt(1 + b @ b)) ** potential.zeta
    return kernel


def displaced(graph, step):
    """The graph with each coordinate of each real atom moved by +step and -step."""
    for a in range(24):
        shift = np.zeros((12, 3))
        shift[a // 3, a % 3] = step
        yield moved(graph, graph.positions + shift), moved(graph, graph.positions - shift)


@pytest.fixture(scope="module")
def dense():
    """K_NM and targets of three energies and the forces of one structure, by plain algebra; the
    forces by central differences, whose error is of order step^2 = 1e-8 times third derivatives."""
    energy = [plain_kernel(g, POTENTIAL).sum(axis=0) for g in GRAPHS[:3]]
    step = 1e-4
    forces = [
        (plain_kernel(minus, POTENTIAL) - plain_kernel(plus, POTENTIAL)).sum(axis=0) / (2 * step)
        for plus, minus in displaced(GRAPHS[0], step)
    ]
    rows = {"energy": np.array(energy), "forces": np.array(forces)}
    return rows, {kind: RNG.normal(size=len(x)) for kind, x in rows.items()}


@pytest.fixture(scope="module")
def whitened(dense):
    """The same fit as that of any trainable potential."""
    found = [design_rows(POTENTIAL, g) for g in GRAPHS[:3]]
    energy = np.array([rows.energy for rows in found])
    rows = {"energy": energy, "forces": np.asarray(found[0].forces)[:8].reshape(24, -1)}
    factors = {kind: compress(x, dense[1][kind]) for kind, x in rows.items()}
    return fit(factors, WEIGHTS, ridge=RIDGE)


def gap_matrix(rows):
    """K_MN S^-1 K_NM + ridge K_MM and K_MN S^-1, S^-1 = W^2."""
    lower = np.asarray(POTENTIAL.triangular)
    weighted = np.concatenate([w**2 * rows[kind] for kind, w in WEIGHTS.items()])
    stacked = np.concatenate([rows[kind] for kind in WEIGHTS])
    return weighted.T @ stacked + RIDGE * lower @ lower.T, weighted.T


def test_rigidity_is_that_of_dense_gap(dense, whitened):
    h, _ = gap_matrix(dense[0])
    k = plain_kernel(GRAPHS[3], POTENTIAL)
    expected = 1.0 / np.einsum("im,mi->i", k, np.linalg.solve(h, k.T))
    found = local_prediction_rigidity(whitened.factor, features_of(POTENTIAL, GRAPHS[3])[REAL])
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # finite differences


def test_variance_is_that_of_the_gaussian_process(dense, whitened):
    """Subset of regressors, in the space of the data: Q** - Q*N (Q + S)^-1 QN* with the low-rank
    covariance Q = K_.M K_MM^-1 K_M. / ridge, which never meets the matrix H."""
    lower = np.asarray(POTENTIAL.triangular)
    stacked = np.concatenate([dense[0][kind] for kind in WEIGHTS])
    noise = np.concatenate([np.full(len(dense[0][k]), w**-2.0) for k, w in WEIGHTS.items()])
    new = plain_kernel(GRAPHS[3], POTENTIAL)
    q = lambda a, b: a @ np.linalg.solve(lower @ lower.T, b.T) / RIDGE  # noqa: E731
    cross = q(new, stacked)
    gain = np.linalg.solve(q(stacked, stacked) + np.diag(noise), cross.T)
    expected = np.diag(q(new, new) - cross @ gain)
    features = features_of(POTENTIAL, GRAPHS[3])[REAL]
    found = 1.0 / np.asarray(local_prediction_rigidity(whitened.factor, features))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_predictions_are_those_of_the_textbook_solve(dense, whitened):
    rows, targets = dense
    h, weighted = gap_matrix(rows)
    alpha = np.linalg.solve(h, weighted @ np.concatenate([targets[kind] for kind in WEIGHTS]))
    e0 = np.where(np.asarray(GRAPHS[3].species)[:8] == 74, E0["W"], E0["Mo"])
    found = replace(POTENTIAL, coefficients=whitened.coefficients)(GRAPHS[3])
    expected = plain_kernel(GRAPHS[3], POTENTIAL) @ alpha + e0
    np.testing.assert_allclose(found[REAL], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[8:], 0.0)


def test_zeta_one_with_enough_environments_is_the_linear_model():
    """k = u . u': as many sparse environments as there are features span all that a ridge
    |theta|^2 on E_i = u_i . theta can use, and the rigidities are those of that linear model."""
    more = [graph_of(alloy(seed)) for seed in range(4, 24)]
    rows = np.concatenate([np.asarray(basis(SPEC, g))[:8] for g in more])
    scale = np.sqrt(np.mean(rows**2, axis=0))
    potential = kernel_potential(SPEC, rows, zeta=1, scale=scale, tolerance=1e-13)
    assert len(potential.sparse) == SPEC.n_columns == 60
    assert np.linalg.cond(potential.triangular) < 1e8  # hence eight digits of phi
    linear = [unit_features(basis(SPEC, g), potential.scale) for g in GRAPHS]
    kernel = [features_of(potential, g) for g in GRAPHS]
    sums = [np.array([f.sum(axis=0) for f in x]) for x in (linear, kernel)]
    factors = [compress(x, np.zeros(4)) for x in sums]
    a, b = (fit({"energy": x}, {"energy": 3.0}, ridge=RIDGE).factor for x in factors)
    expected = local_prediction_rigidity(a, jnp.stack(linear)[:, REAL])
    found = local_prediction_rigidity(b, jnp.stack(kernel)[:, REAL])
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_choice_is_pivoted_cholesky():
    """LAPACK's, on the whole matrix: the same environments in the same order, the same L."""
    rows = np.asarray(unit_features(ENVIRONMENTS, POTENTIAL.scale))
    chosen, lower = pivoted_cholesky(rows, 2, 10, 1e-8)
    full, pivots, _, _ = dpstrf((rows @ rows.T) ** 2, tol=1e-8, lower=1)
    np.testing.assert_array_equal(chosen, pivots[:10] - 1)
    np.testing.assert_allclose(lower, np.tril(full)[:10, :10], atol=1e-12)
    np.testing.assert_array_equal(POTENTIAL.sparse, rows[chosen])
    np.testing.assert_allclose(lower @ lower.T, (rows[chosen] @ rows[chosen].T) ** 2, atol=1e-14)


def test_dependent_environments_are_left_out():
    """Copies add nothing; what was left out lies in the span, to the tolerance."""
    twice = np.concatenate([ENVIRONMENTS, ENVIRONMENTS, np.zeros((2, SPEC.n_columns))])
    few = kernel_potential(SPEC, twice, 200, zeta=2)
    assert len(few.sparse) == len(few.coefficients) <= len(ENVIRONMENTS)
    coarse = kernel_potential(SPEC, twice, zeta=2, tolerance=0.05)
    assert 0 < len(coarse.sparse) < len(few.sparse)
    for potential, tolerance in ((few, 1e-8), (coarse, 0.05)):
        assert float(jnp.diag(potential.triangular).min()) > tolerance**0.5
        for graph in GRAPHS[:3]:
            left = unseen_variance(potential, graph)
            assert -1e-13 < float(left.min()) and float(left.max()) <= tolerance * (1 + 1e-6)
    assert float(unseen_variance(coarse, GRAPHS[3]).max()) < 1.0


def test_given_environments_are_the_sparse_ones():
    """Passed alone they are kept, in some order, with the scale of the training set."""
    scale = np.asarray(POTENTIAL.scale)
    given = kernel_potential(SPEC, ENVIRONMENTS[[1, 5, 12, 20]], zeta=2, scale=scale)
    expected = np.asarray(unit_features(ENVIRONMENTS[[1, 5, 12, 20]], scale))
    order = lambda x: np.asarray(x)[np.lexsort(np.asarray(x).T)]  # noqa: E731
    np.testing.assert_allclose(order(given.sparse), order(expected), rtol=1e-14)


def test_statistics_are_those_of_the_own_species():
    mean, deviation = column_statistics(SPEC, np.vstack([ENVIRONMENTS, 0 * ENVIRONMENTS]))
    c = SPEC.n_functions
    tungsten = ENVIRONMENTS[(ENVIRONMENTS[:, :c] != 0).any(axis=1)][:, :c]
    assert len(tungsten) == 12
    np.testing.assert_allclose(mean[:c], tungsten.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation[:c], tungsten.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(POTENTIAL.scale, deviation * smoothness_prior(SPEC, 2.0))
    rounding = np.where(np.arange(2 * c) == 3, 1e-30, 1.0)
    floor = 1e-8 * np.sqrt((tungsten**2).mean(axis=0)).max()
    assert column_statistics(SPEC, ENVIRONMENTS * rounding)[1][3] == pytest.approx(floor, rel=1e-12)


def test_kernel_is_invariant_and_species_do_not_meet(trained):
    turn, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    graph = GRAPHS[3]
    turned = moved(graph, graph.positions @ turn.T, graph.cell @ turn.T)
    np.testing.assert_allclose(trained.kernel(turned), trained.kernel(graph), atol=1e-13)
    swapped = replace(graph, species=jnp.where(graph.species == 74, 42, 74) * graph.atom_mask)
    whose = np.asarray(POTENTIAL.sparse)[:, : SPEC.n_functions].any(axis=1)  # W's environments
    for g in (graph, swapped):
        own = np.asarray(g.species)[:8, None] == np.where(whose, 74, 42)
        np.testing.assert_array_equal(np.asarray(trained.kernel(g))[:8] != 0.0, own)


def test_forces_and_force_constants_are_derivatives(trained):
    """Central differences; error of order step^2 times third derivatives, here below 1e-6."""
    graph, step = GRAPHS[3], 1e-4
    found, ends = everything(trained, graph), list(displaced(graph, step))
    energy = np.array([[float(everything(trained, g).energy) for g in pair] for pair in ends])
    slopes = (energy[:, 1] - energy[:, 0]).reshape(8, 3) / (2 * step)
    np.testing.assert_allclose(found.forces[:8], slopes, atol=1e-6)
    np.testing.assert_array_equal(found.forces[8:], 0.0)
    for axis, pair in enumerate(ends[3:6]):
        plus, minus = (np.asarray(everything(trained, g).forces) for g in pair)
        np.testing.assert_allclose(
            found.force_constants[0, axis], (minus - plus) / (2 * step), atol=1e-6
        )


def test_last_neighbour_leaves_smoothly(trained):
    """A dimer's energy goes to that of the atoms as it crosses the cutoff, and an isolated atom,
    or a padded one, has no NaN in any derivative."""

    def dimer(r):
        ends = make_structure([[0, 0, 0], [0, 0, r], [9, 9, 9]], 30 * np.eye(3), "W", False)
        return graph_of(ends)

    alone = 3 * E0["W"]
    inside = [
        float(everything(trained, dimer(3.6 * (1 - x))).energy) - alone for x in (0.1, 1e-2, 1e-3)
    ]
    assert abs(inside[2]) < 1e-6 < abs(inside[0])
    assert float(everything(trained, dimer(3.7)).energy) == pytest.approx(alone, abs=1e-15)
    for graph in (dimer(2.7), dimer(3.7)):
        found = (*everything(trained, graph), *design_rows(trained, graph)[:2])
        assert all(np.isfinite(x).all() for x in found)
        np.testing.assert_array_equal(features_of(trained, graph)[2:], 0.0)


def test_is_a_pytree_like_every_potential(trained):
    assert isinstance(jax.tree.map(lambda x: x, trained), KernelPotential)
    found = jax.jit(lambda p, g: p(g))(trained, GRAPHS[0])
    np.testing.assert_allclose(found, trained(GRAPHS[0]), rtol=1e-12)
    with pytest.raises(ValueError, match="unknown species: the structure has Cu"):
        observe(trained, build_graph(bcc("Cu", 3.0), 3.6))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(environments=ENVIRONMENTS[:, 1:]), r"wanted \(n, 60\), rows of site_basis"),
        (dict(environments=np.full((2, 60), np.nan)), "NaN"),
        (dict(environments=ENVIRONMENTS * (np.arange(60) < 30)), "no atom of Mo"),
        (dict(spec=replace(SPEC, constant=True)), "use constant=False"),
        (dict(zeta=1.5), "zeta is 1.5"),
        (dict(n_sparse=0), "n_sparse is 0"),
        (dict(tolerance=0.0), "tolerance is 0.0"),
        (dict(scale=np.zeros(60)), "60 positive numbers"),
        (dict(reference_energies={"W": 0.0}), "lack"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        kernel_potential(**(dict(spec=SPEC, environments=ENVIRONMENTS) | changes))
