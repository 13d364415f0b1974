"""The core of a basis: below the data nuclei repel, within them nothing has changed.

One spec with a core whose radii lie among the distances of the cells shows that rows, labels and
potentials agree about it: a fit to a potential with a core finds its coefficients again.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.basis import site_basis
from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.models import kernel_potential, last_layer, load, network_potential, save
from lprjax.potentials import zbl, zhou_eam
from lprjax.potentials.observables import KINDS, observe
from lprjax.regression import compress_structures, fit
from tests.helpers.compilations import optimised

BARE = ACESpec(("W",), order=2, degree=6, r_cut=5.0, r0=2.74)
BELOW = dataclasses.replace(BARE, core=(1.6, 2.2))  # of all distances in the cells
AMONG = ACESpec(("W",), 2, 3, 4.0, 2.74, core=(2.3, 3.0))  # nearest neighbours are in between
RADII = np.array([2.2, 1.9, 1.6, 1.3, 1.0, 0.6])


@pytest.fixture(scope="module")
def graphs():
    crystal = supercell(bcc("W", 3.165), (2, 2, 2))
    cells = [rattled(crystal, key, 0.08) for key in jax.random.split(jax.random.key(0), 12)]
    return [build_graph(cell, 5.7) for cell in cells]


def pair_energies(potential):
    """Of two atoms in vacuum, at RADII."""
    found = []
    for r in RADII:
        pair = make_structure([[0, 0, 0], [0, 0, r]], np.eye(3), "W", False)
        graph = build_graph(pair, potential.r_cut, n_neighbours=8)
        found.append(float(observe(potential, graph, "energy").energy))
    return np.array(found)


def fitted(spec, graphs, labels):
    data = compress_structures(spec, zip(graphs, labels, strict=True))
    return fit(data, {"energy": 10.0, "forces": 1.0}, ridge=1e-10)


@pytest.fixture(scope="module")
def fits(graphs):
    """To tungsten's EAM, without a core and with one. Their condition, 1e8, is what a difference of
    rounding grows by: both are compiled with care, so that there is little of it."""
    eam = zhou_eam("W", r_cut=5.7)
    labels = [observe(eam, graph) for graph in graphs]
    with optimised():
        return [fitted(spec, graphs, labels) for spec in (BARE, BELOW)]


def test_a_fit_repels_where_it_has_no_data(fits):
    """Without a core it falls to hundreds of eV below zero; with one it is ZBL below the inner
    radius, to the last digit, and rises all the way there."""
    bare, cored = (
        pair_energies(linear_potential(spec, found.coefficients))
        for spec, found in zip((BARE, BELOW), fits, strict=True)
    )
    assert bare.min() < -100.0
    assert np.all(np.diff(cored) > 0.0) and cored[0] > 0.0
    below = RADII <= 1.6
    np.testing.assert_allclose(cored[below], pair_energies(zbl(1.6, 2.2))[below], rtol=1e-14)


def test_within_the_data_nothing_changes(fits):
    """The same rows and labels, and so the same fit: residuals, rigidities, coefficients."""
    bare, cored = fits
    size = np.abs(bare.coefficients).max()
    np.testing.assert_allclose(cored.coefficients, bare.coefficients, atol=1e-9 * size)
    np.testing.assert_allclose(np.abs(cored.factor), np.abs(bare.factor), atol=1e-10)
    assert dict(cored.rms) == pytest.approx(dict(bare.rms), rel=1e-9)


@pytest.fixture(scope="module")
def teacher():
    c = np.random.default_rng(0).normal(size=AMONG.n_columns)
    return linear_potential(AMONG, c, {"W": -3.0})


def test_labels_rows_and_potential_agree_about_the_core(graphs, teacher):
    """Energies, forces and virials, by differentiation, are what rows and coefficients make."""
    labels = [observe(teacher, graph, KINDS[:3]) for graph in graphs[:3]]
    data = compress_structures(
        AMONG, zip(graphs[:3], labels, strict=True), KINDS[:3], reference_energies={"W": -3.0}
    )
    for kind, factor in data.items():
        misfit = factor.triangular @ teacher.coefficients - factor.target
        size = np.abs(factor.target).max()
        assert np.abs(misfit).max() < 1e-10 * size, kind
        assert factor.residual < (1e-10 * size) ** 2 * factor.n_rows, kind


def test_atoms_below_the_inner_radius_do_not_see_each_other():
    pair = make_structure([[0, 0, 0], [0, 0, 1.5]], np.eye(3), "W", False)
    assert not np.any(site_basis(BELOW, build_graph(pair, BELOW.r_cut)))


def trained(name, graphs):
    """A kernel, a network and its last layer with a core, coefficients drawn."""
    environments = np.concatenate([site_basis(AMONG, graph)[:16] for graph in graphs[:2]])
    e0 = {"W": -3.0}
    if name == "kernel":
        made = kernel_potential(AMONG, environments, 5, reference_energies=e0)
    else:
        made = network_potential(AMONG, environments, (3,), jax.random.key(0), e0)
    made = last_layer(made) if name == "last layer" else made
    c = np.random.default_rng(1).normal(size=made.coefficients.shape)
    return dataclasses.replace(made, coefficients=jnp.asarray(c))


@pytest.mark.parametrize("name", ["linear", "kernel", "network", "last layer"])
def test_every_model_adds_it_and_keeps_it_in_its_file(tmp_path, graphs, teacher, name):
    """Two nuclei have the energy of the repulsion and that of two atoms alone."""
    potential = teacher if name == "linear" else trained(name, graphs)
    alone = make_structure([[0, 0, 0], [0, 0, 4.1]], np.eye(3), "W", False)
    apart = float(observe(potential, build_graph(alone, 4.0, n_neighbours=8), "energy").energy)
    expected = pair_energies(zbl(*AMONG.core)) + apart
    below = RADII <= AMONG.core[0]
    np.testing.assert_allclose(pair_energies(potential)[below], expected[below], rtol=1e-12)
    save(tmp_path / "p.npz", potential)
    again = load(tmp_path / "p.npz")
    assert again.spec == potential.spec and hash(again.spec) == hash(potential.spec)
    np.testing.assert_array_equal(pair_energies(again), pair_energies(potential))


def test_a_saved_fit_brings_its_core(tmp_path, fits):
    save(tmp_path / "f.npz", fits[1], spec=BELOW)
    assert load(tmp_path / "f.npz").potential().spec == BELOW


@pytest.mark.parametrize(
    "core, words",
    [
        ((2.2, 1.6), "0 < inner < outer"),
        (1.6, "radii of core are 1.6"),
        ((1.6, 5.0), "outer radius below r_cut"),
        ((1.6, np.nan), "0 < inner < outer"),
    ],
)
def test_radii_that_are_none(core, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(BARE, core=core)
