"""Potentials site by site and block by block: the numbers, and all derivatives, of all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, diamond, make_structure, rattled, supercell
from lprjax.potentials import environments, stillinger_weber, zhou_eam
from tests.helpers import oracles

W, TA_W, SI = zhou_eam("W"), zhou_eam("Ta", "W"), stillinger_weber()
PLAIN = {
    W: lambda graph: oracles.zhou_sites(graph, W.r_cut),
    TA_W: lambda graph: oracles.zhou_sites(graph, TA_W.r_cut),
    SI: oracles.silicon_sites,
}


def rattled_graph(potential, n_atoms=20):
    """15 atoms, padding, and a skin."""
    if potential is SI:
        crystal = supercell(diamond("Si", 5.43095), (2, 1, 1))
    else:
        crystal = supercell(bcc("W", 3.165), (2, 2, 2))
    species = np.asarray(crystal.species)
    if potential is TA_W:
        species = np.where(np.arange(16) % 3, 74, 73)
    positions = rattled(crystal, jax.random.key(4), 0.15).positions
    structure = make_structure(positions[:-1], crystal.cell, species[:-1])
    return build_graph(structure, potential.r_cut, skin=0.4, n_atoms=n_atoms)


@pytest.fixture
def in_blocks(monkeypatch):
    """Sets the number of blocks of a graph; the last one is smaller where it does not divide n."""

    def cut(graph, blocks):
        monkeypatch.setattr(environments, "EDGES", -(-graph.neighbours.size // blocks))

    return cut


def derivatives(potential, graph):
    """Site energies; the gradient in positions and cell; its first and second derivative along
    two directions: forward over reverse, as force constants and elastic constants are taken."""
    keys = jax.random.split(jax.random.key(5), 4)
    at = (graph.positions, graph.cell)
    u, v = (
        (jax.random.normal(a, at[0].shape), 0.1 * jax.random.normal(b, (3, 3)))
        for a, b in (keys[:2], keys[2:])
    )

    def slope(*x):
        return jax.grad(lambda *x: jnp.sum(potential(moved(graph, *x))), (0, 1))(*x)

    def bend(*x):
        return jax.jvp(slope, x, u)[1]

    return jax.jit(lambda: (potential(graph), slope(*at), *jax.jvp(bend, at, v)))()


@pytest.fixture(scope="module")
def plain():
    """What the plain forms say, by potential."""
    return {p: derivatives(PLAIN[p], rattled_graph(p)) for p in (W, TA_W, SI)}


def close(found, wanted, share=1e-10):
    """Each array to a share of its largest entry."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=share * float(jnp.max(jnp.abs(y))))


CASES = [(W, 4), (TA_W, 1), (TA_W, 4), (SI, 1), (SI, 4)]


@pytest.mark.parametrize(
    "potential, blocks", CASES, ids=["W-4", "Ta-W-1", "Ta-W-4", "Si-1", "Si-4"]
)
def test_derivatives_to_third_order_are_those_of_the_plain_form(
    potential, blocks, plain, in_blocks
):
    graph = rattled_graph(potential)
    in_blocks(graph, blocks)
    assert environments._block(*graph.neighbours.shape) == 20 // blocks
    close(derivatives(potential, graph), plain[potential])


def test_padding_is_nothing_in_any_block(in_blocks):
    """Blocks of 5, 5, 5 and 3 atoms, and of 6, 6, 6 and 6, one of padding alone."""
    graphs = [rattled_graph(SI, n_atoms=18), rattled_graph(SI, n_atoms=24)]
    found = []
    for graph in graphs:
        in_blocks(graph, 4)
        slope = jax.jit(jax.grad(lambda x, g=graph: jnp.sum(SI(moved(g, x)))))(graph.positions)
        found.append(np.asarray(slope))
    close(found[1][:15], found[0][:15], 1e-14)
    assert not np.any(found[1][15:]) and not np.any(found[0][15:])


def test_force_constants_in_blocks_are_those_of_all_at_once(in_blocks):
    """`vmap` of a linearised gradient goes through the blocks, too."""
    graph = rattled_graph(SI)
    directions = jnp.pad(jnp.eye(6).reshape(6, 2, 3), ((0, 0), (0, 18), (0, 0)))

    def hessian():
        gradient = jax.grad(lambda x: jnp.sum(SI(moved(graph, x))))
        return jax.jit(lambda x: jax.vmap(jax.linearize(gradient, x)[1])(directions))(
            graph.positions
        )

    at_once = hessian()
    in_blocks(graph, 4)
    close(hessian(), at_once, 1e-13)


def test_blocks_divide_the_atoms_of_a_bucket():
    """And hold at most EDGES edges, as long as they are not too many."""
    for n, k in ((8192, 64), (6144, 24), (131072, 96)):
        block = environments._block(n, k)
        assert n % block == 0
        assert block * k <= environments.EDGES or n // block == environments.MAX_BLOCKS
