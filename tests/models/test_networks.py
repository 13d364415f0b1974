"""Network potentials: training, Gauss-Newton and last-layer rigidities, invariances."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import Labels, bcc, make_structure, rattled, strained, supercell
from lprjax.models.networks import NetworkPotential, last_layer, network_potential, train
from lprjax.potentials.observables import observe
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import design_rows, prediction_rows

SPEC = ACESpec(("W", "Mo"), 2, 3, 3.6, 2.7)
E0 = {"W": -0.3, "Mo": 0.7}
KINDS = ("energy", "forces", "virial")
WEIGHTS, RIDGE = {"energy": 1.0, "forces": 2.0, "virial": 0.5}, 1e-3
REAL = np.arange(8)
STEPS = 600


def alloy(seed):
    """Eight atoms, W and Mo in disorder and in different proportions, rattled and strained."""
    key = jax.random.key(seed)
    cell = strained(supercell(bcc("W", 3.16), (2, 2, 1)), 0.02 * jax.random.normal(key, (3, 3)))
    n = 2 + seed % 5
    species = np.random.default_rng(seed).permutation(n * ["W"] + (8 - n) * ["Mo"])
    return rattled(make_structure(cell.positions, cell.cell, list(species), True), key, 0.15)


def graph_of(structure, n_atoms=12, n_neighbours=32):
    return build_graph(structure, SPEC.r_cut, n_atoms=n_atoms, n_neighbours=n_neighbours)


GRAPHS = [graph_of(alloy(seed)) for seed in range(6)]
basis = jax.jit(site_basis, static_argnums=0)
site_rows = jax.jit(lambda p, g: prediction_rows(lambda q: q(g), p)[:8])


def fresh(hidden, seed=0):
    environments = np.concatenate([np.asarray(basis(SPEC, g))[:8] for g in GRAPHS])
    return network_potential(SPEC, environments, hidden, jax.random.key(seed), E0)


@pytest.fixture(scope="module")
def samples():
    """Labels of a smooth linear potential, a network without hidden layer: the others come near."""
    smooth = smoothness_prior(replace(SPEC, constant=True), 2.0)
    noise = np.random.default_rng(5).normal(size=len(smooth)) / np.maximum(10 * smooth, 1.0)
    target = replace(fresh(()), coefficients=jnp.asarray(noise))
    return [(g, observe(target, g, KINDS)) for g in GRAPHS]


@pytest.fixture(scope="module")
def training(samples):
    return run_training(samples)


def run_training(samples):
    options = dict(batch=1, learning_rate=0.03, ridge=1e-5)
    return train(fresh((3,)), samples, WEIGHTS, jax.random.key(1), STEPS, **options)


@pytest.fixture(scope="module")
def gauss_newton(training, samples):
    """The factor of H of the trained network under three of the structures."""
    data = compress_structures(training.potential, samples[:3], KINDS)
    return fit(data, WEIGHTS, ridge=RIDGE).factor


def test_training_fits_a_linear_target(training):
    """Three units near the middle of silu come near a linear target: the loss falls a hundredfold,
    from where the network knows nothing to a tenth of the labels."""
    assert training.losses.shape == (STEPS,)
    assert training.losses[-20:].mean() < 1e-2 * training.losses[:20].mean()


def test_loss_is_that_of_the_fit(samples):
    """Row for row, virials as six numbers: where next to nothing is learnt, each batch of one has
    6 sum_k w_k^2 |y_k|^2 + ridge |c|^2 of one of the six structures, y_k what compression makes of
    labels and network; each comes in turn, and it does not matter how the graphs are padded. One
    structure has no forces, which are no zero forces."""
    network = fresh((3,))
    samples = [*samples[:-1], (samples[-1][0], samples[-1][1]._replace(forces=None))]
    single = []
    for sample in samples:
        kinds = [kind for kind in KINDS if getattr(sample[1], kind) is not None]
        factors = compress_structures(network, [sample], kinds)
        squares = [WEIGHTS[k] ** 2 * (f.target @ f.target + f.residual) for k, f in factors.items()]
        single.append(6 * sum(map(float, squares)))
    single = np.array(single) + RIDGE * float(jnp.sum(network.coefficients**2))
    options = dict(batch=1, learning_rate=1e-14, ridge=RIDGE)
    forces = samples[0][1].forces[:8]
    tight = graph_of(alloy(0), n_atoms=8), samples[0][1]._replace(forces=forces)
    padded = [tight, *samples[1:]]
    for given in (samples, padded):
        found = train(network, given, WEIGHTS, jax.random.key(3), 60, **options).losses
        nearest = np.argmin(abs(found[:, None] - single[None, :]), axis=1)
        assert set(nearest) == set(range(6))
        np.testing.assert_allclose(found, single[nearest], rtol=1e-9)


def test_training_is_reproducible(training, samples):
    np.testing.assert_array_equal(run_training(samples).losses, training.losses)


def test_forces_are_derivatives(training):
    """Central differences; error of order step^2 = 1e-8 times third derivatives."""
    graph, step = GRAPHS[3], 1e-4
    found = observe(training.potential, graph, KINDS).forces
    np.testing.assert_array_equal(found[8:], 0.0)
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        shift = np.zeros((12, 3))
        shift[atom, axis] = step
        ends = [moved(graph, graph.positions + s * shift) for s in (-1, 1)]
        below, above = (float(observe(training.potential, g, KINDS).energy) for g in ends)
        assert float(found[atom, axis]) == pytest.approx((below - above) / (2 * step), abs=1e-6)


def scalars(labels):
    """Each kind's weight and its scalar observations, or their rows."""
    upper = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    yield WEIGHTS["energy"], labels.energy[None]
    yield WEIGHTS["forces"], labels.forces[:8].reshape(24, *labels.energy.shape)
    yield WEIGHTS["virial"], labels.virial[upper]  # symmetric: energies do not turn


def dense_jacobian(network, samples, step=1e-4):
    """Weighted rows of energies and forces by central differences in the weights."""

    def observed(c):
        labels = (observe(replace(network, coefficients=c), g, KINDS) for g, _ in samples)
        return np.concatenate([w * np.asarray(x) for y in labels for w, x in scalars(y)])

    c, unit = network.coefficients, step * np.eye(len(network.coefficients))
    columns = [(observed(c + e) - observed(c - e)) / (2 * step) for e in unit]
    return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def jacobian(training, samples):
    return dense_jacobian(training.potential, samples[:3])


def test_h_is_the_gauss_newton_matrix(gauss_newton, jacobian):
    h = jacobian.T @ jacobian + RIDGE * np.eye(jacobian.shape[1])
    factor = np.asarray(gauss_newton)
    np.testing.assert_allclose(factor.T @ factor, h, atol=1e-7 * abs(h).max())


def test_definition_by_the_constrained_loss(training, gauss_newton, jacobian):
    """In the linearised network, moving one site energy by d from where the loss, ridge on the
    step, is least raises that loss, 1/2 |..|^2, by d^2/2 LPR."""
    sites = site_rows(training.potential, GRAPHS[4])
    g = np.asarray(sites[5])
    rows = np.concatenate([jacobian, np.sqrt(RIDGE) * np.eye(len(g))])
    targets = np.concatenate([np.random.default_rng(0).normal(size=len(jacobian)), 0 * g])
    free = np.linalg.lstsq(rows, targets)[0]
    d = 0.1
    held = free + d * g / (g @ g)
    null = np.linalg.svd(g[None])[2][1:].T
    held = held + null @ np.linalg.lstsq(rows @ null, targets - rows @ held)[0]
    rise = 0.5 * (np.sum((rows @ held - targets) ** 2) - np.sum((rows @ free - targets) ** 2))
    rigidity = local_prediction_rigidity(gauss_newton, sites)[5]
    assert 0.5 * d**2 * float(rigidity) == pytest.approx(rise, rel=1e-5)  # J by differences


def test_linear_network_is_the_linear_model():
    """No hidden layer: an invertible change of features (centre and scale against the constant),
    which leaves every rigidity at ridge 0 as it is. Energies cannot tell which of W and Mo holds
    the energy of their bonds: six coefficients and every site energy are free in both models."""
    network, spec = fresh(()), replace(SPEC, constant=True)
    assert network.coefficients.shape == (SPEC.n_columns + 2,) == (spec.n_columns,)
    graphs = [graph_of(alloy(seed)) for seed in range(60)]
    found, ranks = [], []
    for rows_of in (partial(site_rows, network), lambda g: basis(spec, g)[:8]):
        sites = np.array([rows_of(g) for g in graphs])
        data = {"energy": compress(sites[:50].sum(axis=1), np.zeros(50))}
        trained = fit(data, {"energy": 1.0})
        wanted = np.concatenate([sites[50], sites.sum(axis=1)[50:]])
        found.append(prediction_rigidity(trained.factor, wanted))
        ranks.append(trained.rank)
    assert ranks == [spec.n_columns - 6] * 2
    np.testing.assert_array_equal(np.array(found)[:, :8], 0.0)
    assert (found[0][8:] > 0.0).all()
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_last_layer_is_the_rest_held_fixed(training, gauss_newton, samples):
    """The view says what the network says; its rows are the network's columns of that layer; and
    holding weights fixed can only stiffen:

        1/PR = max over c of (g.c)^2 / c^T H c,

    and the maximum over fewer c, zero on what is held, is no larger (same data, same ridge)."""
    network = training.potential
    last = last_layer(network)
    assert last.coefficients.shape == (3 + 2,) and last.r_cut == network.r_cut
    np.testing.assert_allclose(last(GRAPHS[0]), network(GRAPHS[0]), rtol=1e-13)
    np.testing.assert_array_equal(last.features(GRAPHS[0])[8:], 0.0)
    head = head_of(network)
    rows, whole = (design_rows(model, GRAPHS[0], KINDS) for model in (last, network))
    for kind in KINDS:
        np.testing.assert_allclose(getattr(rows, kind), getattr(whole, kind)[..., head], atol=1e-12)

    rows = [scalars(design_rows(last, g, KINDS)) for g, _ in samples[:3]]
    rows = np.concatenate([w * np.asarray(x) for y in rows for w, x in y])
    data = {"all": compress(rows, np.zeros(len(rows)))}
    held = fit(data, {"all": 1.0}, ridge=RIDGE)
    h = np.asarray(gauss_newton.T @ gauss_newton)
    unseen = graph_of(alloy(8))
    g = np.asarray(site_rows(network, unseen))
    np.testing.assert_allclose(last.features(unseen)[REAL], g[:, head], rtol=1e-12)
    found = 1.0 / np.asarray(prediction_rigidity(held.factor, g[:, head]))
    dense = np.linalg.solve(h[np.ix_(head, head)], g[:, head].T)
    np.testing.assert_allclose(found, np.einsum("ik,ki->i", g[:, head], dense), rtol=1e-9)
    everything = 1.0 / np.asarray(prediction_rigidity(gauss_newton, g))
    assert (found < everything).all()


def head_of(network):
    """Indices of the last layer's weights: those that the last layer's features are due to."""
    slopes = jax.jacobian(lambda c: last_layer(replace(network, coefficients=c)).coefficients)
    return np.argmax(np.asarray(slopes(network.coefficients)), axis=1)


def test_last_layer_of_a_linear_network_is_the_whole():
    """So the bound is tight: nothing is held fixed."""
    network = fresh(())
    last = last_layer(network)
    np.testing.assert_array_equal(last.coefficients, network.coefficients)
    rows = site_rows(network, GRAPHS[0])
    np.testing.assert_allclose(last.features(GRAPHS[0])[REAL], rows, rtol=1e-13)


def test_site_energies_and_their_rows_are_invariant(training):
    """Under rotations; they follow the atoms under permutations; padding changes nothing."""
    network, graph = training.potential, GRAPHS[3]
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    structure, order = alloy(3), np.random.default_rng(6).permutation(8)
    shuffled = make_structure(
        structure.positions[order], structure.cell, structure.species[order], True
    )
    turned = moved(graph, graph.positions @ turn.T, graph.cell @ turn.T)
    energies, rows = np.asarray(network(graph)[:8]), np.asarray(site_rows(network, graph))
    np.testing.assert_allclose(network(turned)[:8], energies, atol=1e-11)
    np.testing.assert_allclose(site_rows(network, turned), rows, atol=1e-11)
    np.testing.assert_allclose(network(graph_of(shuffled))[:8], energies[order], atol=1e-11)
    np.testing.assert_allclose(site_rows(network, graph_of(shuffled)), rows[order], atol=1e-11)
    np.testing.assert_allclose(network(graph_of(structure, 8, 40)), energies, atol=1e-11)
    np.testing.assert_array_equal(network(graph)[8:], 0.0)


def test_isolated_atoms_and_padding_give_no_nan(training):
    lone = make_structure([[0, 0, 0], [9, 9, 9]], 30 * np.eye(3), "W", False)
    graph = graph_of(lone)
    found = (*observe(training.potential, graph, KINDS)[:3], site_rows(training.potential, graph))
    assert all(np.isfinite(x).all() for x in found)


def test_is_a_pytree_like_every_potential(training):
    copy = jax.tree.map(lambda x: x, training.potential)
    assert isinstance(copy, NetworkPotential) and copy.r_cut == SPEC.r_cut
    for model in (copy, last_layer(copy)):
        with pytest.raises(ValueError, match="unknown species: the structure has Cu"):
            observe(model, build_graph(bcc("Cu", 3.0), 3.6))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(spec=replace(SPEC, constant=True)), "constant=False"),
        (dict(hidden=(4, 0)), r"hidden is \(4, 0\)"),
        (dict(environments=np.zeros((3, 4))), "rows of site_basis"),
        (dict(reference_energies={"W": 0.0}), "lack"),
    ],
)
def test_bad_networks_are_refused(changes, message):
    environments = np.ones((3, SPEC.n_columns))
    given = dict(spec=SPEC, environments=environments, hidden=(3,), key=jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        network_potential(**(given | changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(samples=[]), "0 structures"),
        (dict(samples=[(GRAPHS[0], Labels(energy=0.0))]), "has a label of kind 'forces'"),
        (dict(samples=[(GRAPHS[0], Labels())]), "structure 0 has no label among"),
        (dict(samples=[(GRAPHS[0], Labels(0.0, np.zeros((7, 3))))]), "forces of structure 0"),
        (dict(samples=[(GRAPHS[0], Labels(np.nan, np.zeros((8, 3))))]), "energy of structure 0"),
        (dict(samples=[(build_graph(bcc("W", 3.0), 3.0), Labels(0.0))]), "reaches 3.6"),
        (dict(weights={"force_constants": 1.0}), "wanted numbers >= 0"),
        (dict(weights={"energy": -1.0}), "weight of 'energy' is -1.0"),
        (dict(weights={"energy": None}), "weight of 'energy' is None"),
        (dict(batch=2), "1 structures, batch 2"),
        (dict(steps=0), "steps 0"),
        (dict(ridge=-1.0), "ridge -1.0"),
    ],
)
def test_bad_training_is_refused(changes, message):
    good = (GRAPHS[0], Labels(0.0, np.zeros((8, 3)), np.zeros((3, 3))))
    given = dict(samples=[good], weights=WEIGHTS, key=jax.random.key(0), steps=1)
    with pytest.raises(ValueError, match=message):
        train(fresh(()), **(given | changes))
