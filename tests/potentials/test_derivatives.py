"""The three programs against central differences, and what shares them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace import ACESpec, linear_potential
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, rattled, supercell
from lprjax.potentials.derivatives import (
    each,
    hessian_product,
    site_energies_and_forces,
    third_product,
)
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.potential import as_argument
from tests.helpers.compilations import compilations

R_CUT, H = 5.0, 1e-4
CRYSTAL = rattled(supercell(bcc("W", 3.165), (2, 2, 2)), jax.random.key(0), 0.05)
GRAPH = build_graph(CRYSTAL, R_CUT, skin=0.1, n_atoms=18)


def ace(element, r0, seed=0):
    spec = ACESpec((element,), 2, 4, R_CUT, r0)
    return linear_potential(spec, np.random.default_rng(seed).normal(size=spec.n_columns))


POTENTIALS = {"EAM": zhou_eam("W", r_cut=R_CUT), "ACE": ace("W", 2.74)}


@pytest.fixture(scope="module")
def directions():
    v, w = np.random.default_rng(1).normal(size=(2, 18, 3))
    v[16:] = w[16:] = 0.0  # padding atoms
    return v, w


def forces(potential, shift):
    return np.asarray(
        site_energies_and_forces(potential, moved(GRAPH, GRAPH.positions + shift)).forces
    )


@pytest.mark.parametrize("name", POTENTIALS)
def test_products_are_differences_of_forces(name, directions):
    """Error H^2 / 6 of two derivatives more, about 1e2 per Å^2, and rounding over H or H^2."""
    potential, (v, w) = as_argument(POTENTIALS[name], name), directions
    scale = np.abs(hessian_product(potential, GRAPH, v)).max()
    slope = -(forces(potential, H * v) - forces(potential, -H * v)) / (2 * H)
    np.testing.assert_allclose(hessian_product(potential, GRAPH, v), slope, atol=1e-6 * scale)
    second, third = third_product(potential, GRAPH, v, w)
    np.testing.assert_allclose(second, hessian_product(potential, GRAPH, v), atol=1e-12 * scale)
    ahead, behind = (
        hessian_product(potential, moved(GRAPH, GRAPH.positions + s * H * w), v) for s in (1, -1)
    )
    change = (np.asarray(ahead) - np.asarray(behind)) / (2 * H)
    np.testing.assert_allclose(third, change, atol=1e-6 * np.abs(change).max())


@pytest.mark.parametrize("name", POTENTIALS)
def test_energy_is_the_sum_of_sites_and_padding_feels_nothing(name):
    potential = as_argument(POTENTIALS[name], name)
    found = site_energies_and_forces(potential, GRAPH)
    assert float(found.energy) == pytest.approx(float(np.sum(found.sites)), abs=1e-12)
    assert not np.any(found.forces[16:]) and not np.any(found.sites[16:])
    np.testing.assert_allclose(found.sites, POTENTIALS[name](GRAPH), atol=1e-12)


def test_metals_and_bases_of_one_kind_share_what_is_compiled(directions):
    """Other parameters, another element, another cutoff and r0: no compilation, other numbers."""
    v, _ = directions
    other = GRAPH.species * 42 // 74
    molybdenum = jax.tree.map(lambda x: x, GRAPH)
    object.__setattr__(molybdenum, "species", other)
    pairs = ((POTENTIALS["EAM"], zhou_eam("Mo", r_cut=4.9)), (POTENTIALS["ACE"], ace("Mo", 2.6)))
    for first, second in pairs:
        before = hessian_product(as_argument(first, "p"), GRAPH, v)
        site_energies_and_forces(as_argument(first, "p"), GRAPH)
        with compilations() as made:
            argument = as_argument(second, "p")
            after = hessian_product(argument, molybdenum, v)
            sites = site_energies_and_forces(argument, molybdenum).sites
        assert not made
        np.testing.assert_allclose(sites, second(molybdenum), atol=1e-12)
        assert not np.allclose(before, after, rtol=0.01)


def test_what_a_shared_potential_does_not_describe_is_nan():
    """An element it lacks, a graph that ends short of it."""
    for potential in POTENTIALS.values():
        for refused in (
            jax.tree.map(lambda x: x, GRAPH),
            build_graph(CRYSTAL, R_CUT - 1.0, n_atoms=18),
        ):
            if float(refused.reach) > R_CUT:
                object.__setattr__(refused, "species", GRAPH.species * 73 // 74)
            found = site_energies_and_forces(as_argument(potential, "p"), refused)
            assert np.isnan(found.energy) and np.isnan(np.asarray(found.forces)[:16]).all()


def test_each_is_a_loop_of_calls_or_inside_jit_one_of_xla():
    square = jax.jit(lambda a, x: a * x**2)
    items = np.arange(12.0).reshape(4, 3)
    expected = 2.0 * items**2
    outside = each(square, items, 2.0)
    assert isinstance(outside, np.ndarray)
    np.testing.assert_array_equal(outside, expected)
    np.testing.assert_array_equal(jax.jit(lambda a: each(square, items, a))(2.0), expected)
    jaxpr = jax.make_jaxpr(lambda a: each(square, items, a))(2.0)
    assert [eqn.primitive.name for eqn in jaxpr.eqns].count("scan") == 1
    slope = jax.jacobian(lambda a: each(square, jnp.asarray(items), a))(2.0)
    np.testing.assert_array_equal(slope, items**2)
