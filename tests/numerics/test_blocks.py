"""Items block by block: the numbers, and all derivatives, of all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace import potential as ace_potential
from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.numerics.blocks import in_blocks, sites_in_blocks


def of_sites(sites):
    """Two numbers for each site, from all leaves of a pytree."""
    x = jnp.where(sites["real"], jnp.sum(sites["x"] ** 3, axis=1), 0.0)
    return jnp.stack([x, sites["z"] * jnp.exp(-x)], axis=1)


def items_of(n):
    rng = np.random.default_rng(n)
    items = {"x": rng.normal(size=(n, 3)), "z": np.arange(n), "real": rng.random(n) < 0.7}
    return jax.tree.map(jnp.asarray, items)


def two_results(items):
    """A pytree: an array as it was, of integers too, and one of another shape."""
    return {"sites": of_sites(items), "count": 2 * items["z"]}


# Fewer than the size, just as many, one more, a multiple of it, and a last block of one item.
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_blocks_of_any_pytree_put_together_are_the_whole(n, wrap):
    """Item by item it is the same arithmetic: equal to a few rounding errors."""
    items = items_of(n)
    found = wrap(lambda items: in_blocks(two_results, items, 4))(items)
    expected = two_results(items)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    np.testing.assert_allclose(found["sites"], expected["sites"], rtol=1e-14)
    np.testing.assert_array_equal(found["count"], expected["count"])
    assert found["count"].dtype == expected["count"].dtype


@pytest.mark.parametrize("n", [3, 4, 9])
def test_no_block_is_larger_than_the_size_and_the_last_is_filled_with_the_last_item(n):
    """So that the function never meets an item that nobody gave it, such as zero."""
    seen = []

    def watched(x):
        jax.debug.callback(lambda block: seen.append(np.asarray(block)), x)
        return 1.0 / x

    x = jnp.arange(1.0, n + 1.0)
    np.testing.assert_allclose(in_blocks(watched, x, 4), 1.0 / x, rtol=1e-15)
    jax.effects_barrier()
    assert {len(block) for block in seen} == {min(n, 4)}
    given = np.sort(np.concatenate(seen))
    np.testing.assert_array_equal(given[:n], x)
    np.testing.assert_array_equal(given[n:], float(n))


def test_what_fills_up_the_last_block_adds_nothing_to_a_derivative():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)))
    found, expected = (
        jax.grad(lambda x, f=f: jnp.sum(f(x)))(x)
        for f in (lambda x: in_blocks(jnp.sin, x, 4), jnp.sin)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(expected, np.cos(x), rtol=1e-14)


def test_an_accelerator_gets_all_sites_at_once(monkeypatch):
    sites = items_of(20)
    jaxpr = lambda: str(jax.make_jaxpr(lambda s: sites_in_blocks(of_sites, s, 4))(sites))  # noqa: E731
    assert "scan" in jaxpr()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "scan" not in jaxpr()


@pytest.mark.parametrize("n", [1, 8, 9, 12, 14])
def test_blocks_put_together_are_the_whole(n):
    """Four at a time where there are more than eight; the last block may be smaller."""
    sites = items_of(n)
    whole = of_sites(sites)
    np.testing.assert_allclose(sites_in_blocks(of_sites, sites, 4), whole, rtol=1e-14)
    looped = "scan" in str(jax.make_jaxpr(lambda s: sites_in_blocks(of_sites, s, 4))(sites))
    assert looped is (n > 8)

    def slope(function):
        return jax.grad(lambda x: jnp.sum(function(sites | {"x": x})))

    along = jnp.asarray(np.random.default_rng(n + 1).normal(size=(n, 3)))
    for take in (
        lambda f: slope(f)(sites["x"]),
        lambda f: jax.jvp(slope(f), (sites["x"],), (along,)),
    ):
        found, expected = take(lambda s: sites_in_blocks(of_sites, s, 4)), take(of_sites)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), found, expected)


def test_a_linear_potential_in_blocks_is_the_same(monkeypatch):
    """Energies, the gradient and its derivative, of two species, padding included."""
    crystal = supercell(bcc("W", 3.16), (1, 1, 3))
    structure = make_structure(crystal.positions, crystal.cell, ["W", "Mo", "W"] * 2, True)
    spec = ACESpec(("W", "Mo"), 3, 6, 4.2, 2.7, constant=True)
    coefficients = jax.random.normal(jax.random.key(0), (spec.n_columns,))
    potential = linear_potential(spec, coefficients, {"W": -8.9, "Mo": 4.4})
    graph = build_graph(rattled(structure, jax.random.key(3), 0.2), 4.2, n_atoms=11)
    along = jax.random.normal(jax.random.key(1), graph.positions.shape)

    def derivatives():
        energies = jax.jit(lambda x: potential(moved(graph, x)))
        gradient = jax.grad(lambda x: jnp.sum(energies(x)))
        return energies(graph.positions), *jax.jvp(gradient, (graph.positions,), (along,))

    whole = derivatives()
    monkeypatch.setattr(ace_potential, "BLOCK", 4)
    assert "scan" in str(jax.make_jaxpr(potential)(graph))
    for found, expected in zip(derivatives(), whole, strict=True):
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
