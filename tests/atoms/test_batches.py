"""Packs: every structure's edges and no others, sums and strains of its own, few shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprjax.atoms.batches import ALONE, TILE, Pack, Room, capacity, gathered, pack
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, rattled, square, strained, supercell
from tests.helpers.strategies import FEW

ROOM = Room(32, 16)
SHEAR = np.array([[0.0, 0.1, 0.0], [0.0, 0.02, 0.0], [0.05, 0.0, -0.03]])


def cells():
    """A cell smaller than the cutoff, a skewed one, a plane, each with padding of its own."""
    cube = supercell(bcc("W", 3.16), (2, 2, 1))
    return [
        bcc("W", 3.16, primitive=True),
        strained(rattled(cube, jax.random.key(0), 0.1), SHEAR),
        square("Mo", 2.9),
    ]


@pytest.fixture(scope="module")
def graphs():
    return [build_graph(cell, 4.0, n_neighbours=32) for cell in cells()]


@pytest.fixture(scope="module")
def packed(graphs):
    return jax.device_put(pack(graphs, ROOM))


def own(graphs):
    """Real atoms of each graph, and where they are in the pack."""
    sizes = [int(graph.atom_mask.sum()) for graph in graphs]
    starts = np.cumsum([0, *sizes])
    return zip(graphs, starts, starts[1:], strict=False)


def test_edges_are_those_of_each_structure(graphs, packed):
    """Vectors, species at their ends, masks; all that a potential looks at."""
    graph = packed.graph
    for alone, start, end in own(graphs):
        n = end - start
        np.testing.assert_allclose(graph.vectors()[start:end], alone.vectors()[:n], atol=1e-14)
        np.testing.assert_array_equal(graph.edge_mask[start:end], alone.edge_mask[:n])
        np.testing.assert_array_equal(graph.species[start:end], alone.species[:n])
        inside = (graph.neighbours[start:end] - start)[alone.edge_mask[:n]]
        np.testing.assert_array_equal(inside, alone.neighbours[:n][alone.edge_mask[:n]])
    assert graph.positions.shape == (32, 3) and not graph.edge_mask[end:].any()
    assert graph.atom_mask.sum() == end and graph.reach == 4.0


def test_sums_are_over_each_structure(graphs, packed):
    values = np.random.default_rng(0).normal(size=(32, 2))
    sums = packed.sums(jnp.asarray(values))
    assert sums.shape == (16, 2)
    for s, (_, start, end) in enumerate(own(graphs)):
        np.testing.assert_allclose(sums[s], values[start:end].sum(axis=0), atol=1e-14)
    assert not sums[len(graphs) :].any()


def test_each_structure_has_a_strain_of_its_own(graphs, packed):
    """Its edges are those of the strained structure, which has the same neighbours."""
    strains = 0.01 * np.random.default_rng(1).normal(size=(16, 3, 3))
    found = packed.strained(jnp.asarray(strains)).vectors()
    for s, (alone, start, end) in enumerate(own(graphs)):
        mask = np.asarray(alone.edge_mask)[: end - start]
        wanted = np.asarray(alone.vectors())[: end - start][mask] @ (np.eye(3) + strains[s]).T
        np.testing.assert_allclose(found[start:end][mask], wanted, atol=1e-14)


tiles = jax.jit(Pack.tiles)


@FEW
@given(st.lists(st.integers(1, 40), min_size=1, max_size=16))
def test_tiles_hold_every_atom_once(sizes):
    """Each of one structure, and never more of them than their fixed number."""
    n = 16 * 40
    slots = np.zeros(16, np.int32)
    slots[: len(sizes)] = sizes
    owner = np.full(n, 16, np.int32)
    owner[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    atoms, owners = tiles(Pack(None, owner, slots))
    assert atoms.shape == (len(owners), TILE) == (-(-n // TILE) + 16, TILE)
    there = np.asarray(atoms) < n
    np.testing.assert_array_equal(np.sort(np.asarray(atoms)[there]), np.arange(sum(sizes)))
    for tile, mine, structure in zip(np.asarray(atoms), there, np.asarray(owners), strict=True):
        assert mine.any() == (structure < 16)
        assert (owner[tile[mine]] == structure).all()


@FEW
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), max_size=30))
def test_items_are_gathered_into_packs_that_hold_them(items):
    """All of them once and in order, of one key, within the room; and packs are not half empty but
    for the last of each key and those before a large item."""
    chunks = list(gathered(items, ROOM, lambda item: (item[0], item[1], max(32, item[1]))))
    for chunk in chunks:
        assert len({key for key, _ in chunk}) == 1 and len(chunk) <= ROOM.structures
        assert sum(n for _, n in chunk) <= max(32, chunk[0][1])
    for key in "ab":
        of_key = [chunk for chunk in chunks if chunk[0][0] == key]
        assert [item for chunk in of_key for item in chunk] == [i for i in items if i[0] == key]
        for one, after in zip(of_key, of_key[1:], strict=False):
            together = sum(n for _, n in one) + after[0][1]
            assert together > 32 or len(one) == ROOM.structures


def test_shapes_are_few(graphs):
    """One for all that fit into the room; a bucket for those that do not; their own if alone."""
    large = build_graph(supercell(bcc("W", 3.16), (3, 3, 3)), 3.0)  # 54 atoms
    assert [capacity(graph, 1, ROOM) for graph in graphs] == [32, 32, 32]
    assert capacity(large, 54, ROOM) == 64
    assert capacity(graphs[1], 8, ALONE) == len(graphs[1].positions) == 8
    alone = pack([graphs[1]], ALONE)
    assert alone.graph.positions.shape == (8, 3) and alone.sizes.tolist() == [8]
