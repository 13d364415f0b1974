"""Candidates hold every pair in reach as long as they say so, and say so no longer than that."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lprjax.ase.verlet_list import Candidates, VerletList
from lprjax.atoms.graphs import host_graph
from lprjax.atoms.structures import Structure, bcc, make_structure, rattled, supercell

R_CUT, SKIN = 3.6, 0.8


def on_host(structure):
    return jax.tree.map(np.asarray, structure)


BULK = on_host(rattled(supercell(bcc("W", 3.16), (2, 2, 2)), jax.random.key(0), 0.1))
SMALL = on_host(bcc("W", 3.16, primitive=True))  # every atom its own neighbour
SLAB = dataclasses.replace(BULK, pbc=(True, False, True))


def edges(graph):
    """(i, j, shift) of all true edges."""
    i, slot = np.nonzero(np.asarray(graph.edge_mask))
    shifts = np.asarray(graph.shifts)[i, slot].astype(int)
    return {
        (a, b, *s)
        for a, b, s in zip(i, np.asarray(graph.neighbours)[i, slot], shifts.tolist(), strict=True)
    }


@jax.jit
def kept(candidates: Candidates, positions, cell):
    return candidates.graph(positions, cell, jnp.asarray(R_CUT), 24)


def moved(structure, rng, size, strain):
    """Displaced by at most `size` Å each, under a random strain of that norm."""
    u = rng.normal(size=structure.positions.shape)
    u *= size * rng.uniform(size=(len(u), 1)) / np.linalg.norm(u, axis=1, keepdims=True)
    skew = rng.normal(size=(3, 3))
    change = np.eye(3) + strain * skew / np.linalg.norm(skew, 2)
    return dataclasses.replace(
        structure, positions=structure.positions @ change + u, cell=structure.cell @ change
    )


@pytest.mark.parametrize("structure", [BULK, SMALL, SLAB], ids=["bulk", "small", "slab"])
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(0, 0.5), strain=st.floats(0, 0.15))
@settings(deadline=None, max_examples=30)
def test_what_they_say_they_hold_they_hold(structure, seed, size, strain):
    """All edges of a search at the moved atoms, and no others, come out of the old candidates."""
    listed = VerletList(R_CUT, SKIN)
    listed.update(structure)
    later = moved(structure, np.random.default_rng(seed), size, strain)
    if not listed.holds(later):
        return
    n_pad = len(listed.candidates.atom_mask)
    positions = np.zeros((n_pad, 3))
    positions[: later.n_atoms] = later.positions
    graph, most = kept(listed.candidates, positions, later.cell)
    fresh = host_graph(later, R_CUT)
    assert edges(graph) == edges(fresh)
    assert int(most) == int(fresh.edge_mask.sum(axis=1).max())


def test_they_hold_exactly_half_the_skin_without_strain_and_less_with():
    listed = VerletList(R_CUT, SKIN)
    listed.update(BULK)
    for size, held in ((0.4999, True), (0.5001, False)):
        positions = BULK.positions.copy()
        positions[3, 1] += size * SKIN
        assert listed.holds(dataclasses.replace(BULK, positions=positions)) is held
    # (r_cut + 0) / (1 - e) <= r_cut + skin for a compression e
    for spare, held in ((-1e-6, True), (1e-6, False)):
        scale = R_CUT / (R_CUT + SKIN) - spare
        squeezed = dataclasses.replace(
            BULK, positions=BULK.positions * scale, cell=BULK.cell * scale
        )
        assert listed.holds(squeezed) is held


def test_half_the_skin_is_as_far_as_they_can_hold():
    """Two atoms just beyond cutoff and skin apart, that approach by the skin: a pair is lost."""
    pair = on_host(make_structure([[0, 0, 0], [R_CUT + SKIN + 1e-6, 0, 0]], np.eye(3) * 50, "W"))
    listed = VerletList(R_CUT, SKIN)
    listed.update(pair)
    towards = np.array([[0.5 * SKIN + 1e-6, 0, 0], [-0.5 * SKIN - 1e-6, 0, 0]])
    nearer = dataclasses.replace(pair, positions=pair.positions + towards)
    assert edges(host_graph(nearer, R_CUT)) and not np.any(listed.candidates.mask)
    assert not listed.holds(nearer)


@pytest.mark.parametrize(
    "change",
    [
        {"species": np.full(16, 42)},
        {"pbc": (True, True, False)},
        {"positions": np.full((16, 3), np.nan)},
        {"cell": np.full((3, 3), np.nan)},
    ],
    ids=["species", "pbc", "positions", "cell"],
)
def test_they_do_not_hold_another_structure(change):
    listed = VerletList(R_CUT, SKIN)
    listed.update(BULK)
    assert not listed.holds(dataclasses.replace(BULK, **change))
    fewer = Structure(BULK.positions[1:], BULK.cell, BULK.species[1:])
    assert not listed.holds(fewer) and listed.holds(BULK)


def test_a_refused_structure_leaves_no_candidates_behind():
    listed = VerletList(R_CUT, SKIN)
    listed.update(BULK)
    with pytest.raises(ValueError, match="positions is nan"):
        listed.update(dataclasses.replace(BULK, positions=np.full((16, 3), np.nan)))
    assert listed.candidates is None and not listed.holds(BULK)


def test_shapes_are_few():
    """Of clusters of 20 to 60 atoms, and of one whose neighbours come and go, no more than a
    handful; room far too large is given back."""
    rng = np.random.default_rng(0)
    listed, shapes = VerletList(R_CUT, SKIN), set()
    grid = supercell(bcc("W", 3.16), (4, 4, 4))
    for n in range(20, 61):
        positions = np.asarray(grid.positions)[:n] + rng.normal(size=(n, 3)) * 0.05
        listed.update(on_host(make_structure(positions, np.eye(3) * 60, "W", pbc=False)))
        shapes.add((*listed.candidates.table.shape, listed.n_neighbours))
    assert len(shapes) <= 8
    listed.update(on_host(make_structure([[0, 0, 0], [2.7, 0, 0]], np.eye(3) * 60, "W")))
    assert listed.candidates.table.shape == (2, 8) and listed.n_neighbours <= 16
