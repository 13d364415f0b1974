"""The crystals of the experiments: at rest, at their published size, and themselves."""

import numpy as np
import pytest

from experiments.systems.materials import BONDS, MATERIALS, REACH, material
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import supercell
from lprjax.potentials.observables import observe

ATOMS = {"bcc": (2, 1), "fcc": (4, 1), "diamond": (8, 2)}
PUBLISHED = {  # lattice constant, Å, to the digits given; cohesive energy, eV/atom
    "W": (3.164849, 5e-7, -8.759994),
    "Cu": (3.6150, 1e-4, -3.5400),
    "Si-SW": (5.43095, 1e-5, -4.336600),
    "Si-Tersoff": (5.4320, 1e-4, -4.6296),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_lattice_constant_and_cohesive_energy(name):
    """Zhou 2004, Stillinger and Weber 1985 and Tersoff 1988, as LAMMPS and matscipy have them."""
    a, digits, energy = PUBLISHED[name]
    found = material(name)
    assert found.lattice_constant == pytest.approx(a, abs=digits)
    assert found.equilibrium.energy_per_atom == pytest.approx(energy, abs=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_cube_is_at_rest(name):
    """No virial and no forces in the conventional cell, which the search did not use, and the same
    energy per atom as in the primitive one: a zero found to 1e-12 in ln a leaves B V 1e-12."""
    found = material(name)
    labels = observe(
        found.potential,
        build_graph(found.unit_cell, found.potential.r_cut),
        ("energy", "forces", "virial"),
    )
    n = found.unit_cell.n_atoms
    assert (n, found.primitive_cell.n_atoms) == ATOMS[found.crystal]
    assert np.abs(labels.forces).max() < 1e-12 and np.abs(labels.virial).max() < 1e-9
    assert float(labels.energy) / n == pytest.approx(found.equilibrium.energy_per_atom, abs=1e-12)


@pytest.mark.parametrize("name", ["W", "Cu", "Si-SW"])
def test_shells_within_the_cutoffs(name):
    """The basis reaches over 5 (bcc), 4 (fcc) and 2 (diamond) shells; no shell of any crystal lies
    within 0.3 % of a cutoff, where rounding, or a strain of an experiment, would decide."""
    found = material(name)
    wide = supercell(found.unit_cell, (5, 5, 5))
    offsets = np.asarray(wide.positions) - np.asarray(wide.positions[0])
    period = 5 * found.lattice_constant
    offsets -= period * np.round(offsets / period)
    shells = np.unique(np.round(np.linalg.norm(offsets, axis=1), 6))[1:]
    assert shells[0] == pytest.approx(found.nearest_neighbour, abs=1e-6)
    inside = {"bcc": 5, "fcc": 4, "diamond": 2}[found.crystal]
    assert np.sum(shells < found.r_cut) == inside
    for r_cut in (found.r_cut, found.potential.r_cut):
        assert np.abs(shells / r_cut - 1).min() > 0.003


def test_atoms_of_the_basis_see_different_surroundings():
    """In diamond neighbours point the other way round from atoms 0 and 4; every other atom of the
    cube is a translation of one of them."""
    cell = material("Si-SW").unit_cell
    graph = build_graph(cell, 1.01 * material("Si-SW").nearest_neighbour)
    vectors, mask = np.asarray(graph.vectors()), np.asarray(graph.edge_mask)
    bonds = [
        {tuple(np.sign(v).astype(int)) for v in vectors[i][mask[i]]} for i in range(cell.n_atoms)
    ]
    first, second = material("Si-SW").basis_atoms
    assert bonds[first] == {tuple(-x for x in v) for v in bonds[second]} != bonds[second]
    assert all(b in (bonds[first], bonds[second]) for b in bonds)


def test_names_are_checked_at_the_door():
    with pytest.raises(ValueError, match="material is 'Pb': wanted one of W, Mo"):
        material("Pb")
    assert set(BONDS) == set(REACH) == {m.crystal for m in MATERIALS.values()}
    assert all(name == found.name for name, found in MATERIALS.items())
