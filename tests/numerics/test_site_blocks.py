"""Sites block by block: the numbers, and all derivatives, of all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace import potential as ace_potential
from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.numerics.blocks import sites_in_blocks


def of_sites(sites):
    """Two numbers for each site, from all leaves of a pytree."""
    x = jnp.where(sites["real"], jnp.sum(sites["x"] ** 3, axis=1), 0.0)
    return jnp.stack([x, sites["z"] * jnp.exp(-x)], axis=1)


@pytest.mark.parametrize("n", [1, 8, 9, 12, 14])
def test_blocks_put_together_are_the_whole(n):
    """Four at a time where there are more than eight; the last block may be smaller."""
    rng = np.random.default_rng(n)
    sites = {"x": rng.normal(size=(n, 3)), "z": np.arange(n), "real": rng.random(n) < 0.7}
    sites = jax.tree.map(jnp.asarray, sites)
    whole = of_sites(sites)
    np.testing.assert_allclose(sites_in_blocks(of_sites, sites, 4), whole, rtol=1e-14)
    looped = "scan" in str(jax.make_jaxpr(lambda s: sites_in_blocks(of_sites, s, 4))(sites))
    assert looped is (n > 8)

    def slope(function):
        return jax.grad(lambda x: jnp.sum(function(sites | {"x": x})))

    along = jnp.asarray(rng.normal(size=(n, 3)))
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
