"""Arithmetic on the host compiles nothing, and takes tracers where there are any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.structures import bcc, rattled, strained, supercell, without_atoms
from lprjax.crystals.strain_norm import reference_lattice, without_sites
from lprjax.numerics.host import namespace, on_device, on_host, traced
from tests.helpers.compilations import compilations


def doubled(x):
    return on_device(2.0 * on_host(x))


def test_numbers_stay_numbers_and_nothing_is_compiled():
    x = jax.device_put(np.arange(7.0))
    with compilations() as made:
        y = doubled(x)
    assert isinstance(y, jax.Array) and not made
    np.testing.assert_array_equal(y, 2.0 * np.arange(7.0))
    assert not traced(x, {"a": y}) and namespace(x) is np


def test_what_is_traced_passes_and_is_differentiated():
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.jit(doubled)(x), doubled(x))
    np.testing.assert_array_equal(jax.jacobian(doubled)(x), 2.0 * np.eye(3))
    assert jax.make_jaxpr(lambda x: jnp.float64(traced([x]) and namespace(x) is jnp))(x).eqns == []


CELL = bcc("W", 3.165)
LATTICE = without_sites(reference_lattice(CELL, (3, 3, 3)), [5])
V = np.random.default_rng(0).normal(size=(54, 3))
PREPARED = {
    "supercell": lambda: supercell(CELL, (2, 3, 1)),
    "strained": lambda: strained(CELL, 0.01 * np.ones((3, 3))),
    "without_atoms": lambda: without_atoms(supercell(CELL, (2, 1, 1)), [1]),
    "volume": lambda: CELL.volume,
    "solve": lambda: LATTICE.solve(V),
    "apply": lambda: LATTICE.apply(V),
    "strain_norm": lambda: LATTICE.strain_norm(V),
    "negative_norm": lambda: LATTICE.negative_norm(V),
    "complete": lambda: LATTICE.complete,
}


@pytest.mark.parametrize("name", PREPARED)
def test_what_prepares_a_calculation_compiles_nothing(name):
    with compilations() as made:
        found = PREPARED[name]()
    assert not made and all(isinstance(x, jax.Array) for x in jax.tree.leaves(found))


@pytest.mark.parametrize("name", ["solve", "apply", "strain_norm", "negative_norm"])
def test_the_lattice_computes_the_same_inside_jit(name):
    """To the rounding of a transform of 54 numbers."""
    method = getattr(type(LATTICE), name)
    inside = jax.jit(method)(LATTICE, V)
    np.testing.assert_allclose(inside, method(LATTICE, V), rtol=1e-13, atol=1e-14)


def test_structures_may_be_traced():
    """The volume's derivative in a strain is V times the unit matrix."""
    cell = rattled(CELL, jax.random.key(0), 0.1)
    slope = jax.grad(lambda e: strained(supercell(cell, (2, 1, 1)), e).volume)(jnp.zeros((3, 3)))
    np.testing.assert_allclose(slope, 2.0 * float(CELL.volume) * np.eye(3), atol=1e-13)
