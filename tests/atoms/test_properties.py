"""What must hold of any structure, on structures that hypothesis draws and shrinks."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import make_structure, minimum_image, supercell
from tests.helpers.strategies import FEW, skewed_structures

R_CUT = 3.0


def bonds(structure):
    """The lengths of the bonds of each atom, sorted; None where atoms are on top of each other."""
    try:
        graph = build_graph(structure, R_CUT)
    except ValueError:
        return None
    lengths, mask = np.linalg.norm(graph.vectors(), axis=-1), np.asarray(graph.edge_mask)
    found = [np.sort(lengths[i][mask[i]]) for i in range(structure.n_atoms)]
    # a bond that rounding puts on either side of the cutoff is of no account
    return [x[x < R_CUT - 1e-6] for x in found]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


@FEW
@given(skewed_structures(), st.lists(st.integers(-2, 2), min_size=15, max_size=15))
def test_atoms_may_lie_in_any_image(structure, shifts):
    whole = np.resize(shifts, (structure.n_atoms, 3)) * np.array(structure.pbc)
    there = structure.positions + jnp.asarray(whole @ np.asarray(structure.cell))
    here = bonds(structure)
    assume(here is not None)
    same(bonds(dataclasses.replace(structure, positions=there)), here)


@FEW
@given(skewed_structures(), st.permutations([0, 1, 2]), st.integers(-2, 2))
def test_any_basis_of_the_lattice_will_do(structure, order, multiple):
    """Its vectors in another order; and one plus a multiple of another, where both are periods."""
    here = bonds(structure)
    assume(here is not None)
    cell, pbc = np.asarray(structure.cell)[order], np.array(structure.pbc)[order]
    if pbc[0] and pbc[1]:
        cell[0] += multiple * cell[1]
    same(bonds(make_structure(structure.positions, cell, structure.species, pbc)), here)


@FEW
@given(skewed_structures(), st.integers(0, 2**20))
def test_a_rotation_changes_no_length(structure, seed):
    here = bonds(structure)
    assume(here is not None)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turned = dataclasses.replace(
        structure, positions=structure.positions @ turn, cell=structure.cell @ turn
    )
    same(bonds(turned), here)


@FEW
@given(skewed_structures(), st.integers(1, 3), st.integers(1, 2))
def test_every_copy_in_a_supercell_has_the_bonds_of_the_atom(structure, m1, m2):
    here = bonds(structure)
    assume(here is not None)
    repeats = np.where(structure.pbc, [m1, m2, 1], 1)
    same(bonds(supercell(structure, repeats)), here * int(np.prod(repeats)))


@FEW
@given(skewed_structures(), st.lists(st.floats(-20, 20), min_size=3, max_size=3))
def test_no_image_is_nearer_than_the_nearest(structure, offset):
    """Against all images within three periods, and the vector is one of them."""
    found, length = minimum_image(np.array([offset]), structure)
    shift = np.linalg.solve(np.asarray(structure.cell).T, found[0] - np.array(offset))
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-6)
    assert not np.abs(shift[~np.array(structure.pbc)]).max(initial=0.0) > 1e-6
    around = (np.stack(np.meshgrid(*3 * [np.arange(-3, 4)]), -1).reshape(-1, 3)) * structure.pbc
    others = np.linalg.norm(found[0] + around @ np.asarray(structure.cell), axis=1)
    assert length[0] <= others.min() + 1e-9
