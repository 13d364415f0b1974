"""Rows of packed structures are the rows of each."""

import jax
import numpy as np
import pytest

from lprjax.ace.packed_rows import packed_rows
from lprjax.atoms.batches import Room, pack
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.atoms.voigt import six_components
from lprjax.regression.rows import design_rows
from tests.helpers.cases import N_NEIGHBOURS, R_CUT, SPECS, coloured, small_cell, vacancy_cell

FIRST_ORDER = ("energy", "forces", "virial")


def lone_atom():
    return make_structure(np.zeros((1, 3)), 9.0 * np.eye(3), "W")


def long_cell():
    """More atoms than the largest of the others, of several tiles."""
    return rattled(supercell(bcc("W", 3.16), (9, 1, 1)), jax.random.key(5), 0.1)


@pytest.mark.parametrize("name", SPECS)
def test_rows_of_a_pack_are_those_of_each_structure(name):
    """Of 2, 15, 1, 18, 2 and 2 atoms, in a pack with padding and empty places, to rounding; the
    scale is that of the rows of all structures, since some are zero by symmetry."""
    spec = SPECS[name]
    makers = (small_cell, vacancy_cell, lone_atom, long_cell, small_cell, small_cell)
    cells = [coloured(make(), spec.elements) for make in makers]
    graphs = [build_graph(cell, R_CUT, n_neighbours=N_NEIGHBOURS) for cell in cells]
    packed = jax.device_put(pack(graphs, Room(48, 7)))
    rows = jax.jit(lambda pack: packed_rows(spec, pack, FIRST_ORDER))(packed)
    assert rows.energy.shape == (7, spec.n_columns) and rows.forces.shape[:2] == (48, 3)
    start = 0
    for s, (cell, graph) in enumerate(zip(cells, graphs, strict=True)):
        alone, n = design_rows(spec, graph, FIRST_ORDER), cell.n_atoms
        found = rows.energy[s], rows.forces[start : start + n], rows.virial[s]
        wanted = alone.energy, alone.forces[:n], six_components(alone.virial)
        for kind, ours, theirs in zip(FIRST_ORDER, found, wanted, strict=True):
            scale = np.abs(getattr(rows, kind)).max()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * scale, err_msg=kind)
        start += n
    for rest in (rows.energy[6:], rows.forces[start:], rows.virial[6:]):
        assert not np.any(rest)
