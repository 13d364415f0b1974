"""What is observed of many structures at once is what is observed of each."""

import jax
import numpy as np
import pytest
from ase.calculators.emt import EMT

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph, build_graphs
from lprjax.atoms.structures import bcc, diamond, fcc, make_structure, rattled, strained, supercell
from lprjax.potentials.data_sets import observe_all, observe_pack
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.observables import KINDS, observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.potentials.tersoff import tersoff

SHEAR = np.array([[0.02, 0.1, -0.05], [0.0, -0.03, 0.08], [0.04, 0.0, 0.06]])
SPEC = ACESpec(("W", "Mo"), 2, 4, 4.0, 2.7, core=(0.5, 2.9))


def crystals(crystal, elements=None):
    """A small skewed cell, a larger one with a hole, a cell of many atoms; in no order of size."""
    large = rattled(supercell(crystal, (2, 2, 1)), jax.random.key(0), 0.1)
    cells = [
        rattled(strained(crystal, SHEAR), jax.random.key(1), 0.05),
        make_structure(large.positions[1:], large.cell, np.asarray(large.species)[1:]),
        rattled(supercell(crystal, (3, 1, 1)), jax.random.key(2), 0.05),
        strained(crystal, -0.5 * SHEAR),
    ]
    if elements is None:
        return cells
    draw = np.random.default_rng(0)
    return [
        make_structure(c.positions, c.cell, list(draw.choice(elements, c.n_atoms))) for c in cells
    ]


SYSTEMS = {
    "Stillinger-Weber": (stillinger_weber, lambda: crystals(diamond("Si", 5.43))),
    "Tersoff": (tersoff, lambda: crystals(diamond("Si", 5.43))),
    "EAM of an alloy": (
        lambda: zhou_eam("W", "Mo"),
        lambda: crystals(bcc("W", 3.2), ("W", "Mo")),
    ),
    "linear ACE with a core": (
        lambda: linear_potential(SPEC, np.random.default_rng(3).normal(size=SPEC.n_columns)),
        lambda: crystals(bcc("W", 3.2), ("W", "Mo")),
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_many_at_once_are_each_alone(name):
    """All kinds, the force constants of an atom that every structure has, and of another."""
    potential, structures = (make() for make in SYSTEMS[name])
    pads = (None, 96, None, 96)  # two shapes, in turn
    most = max(structure.n_atoms for structure in structures)
    graphs = [
        build_graph(structure, potential.r_cut, n_neighbours=pad)
        for structure, pad in zip(structures, pads, strict=True)
    ]
    found = observe_all(potential, graphs, KINDS, atoms=(1, 0))
    for structure, labels in zip(structures, found, strict=True):
        # Of one shape, so that what they are compared with compiles once.
        graph = build_graph(structure, potential.r_cut, n_atoms=most, n_neighbours=96)
        alone, n = observe(potential, graph, KINDS, atoms=(1, 0)), structure.n_atoms
        wanted = alone._replace(
            forces=alone.forces[:n], force_constants=alone.force_constants[:, :, :n]
        )
        for kind, ours, theirs in zip(KINDS, labels, wanted, strict=True):
            assert np.shape(ours) == theirs.shape
            scale = max(np.abs(getattr(each, kind)).max() for each in found)  # some are zero
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * scale, err_msg=kind)


def test_only_what_was_asked_for_is_there():
    eam = zhou_eam("W")
    graphs = build_graphs([bcc("W", 3.16), supercell(bcc("W", 3.16), (1, 1, 2))], eam.r_cut)
    for kind in KINDS:
        for labels in observe_all(eam, graphs, kind):
            assert [k for k, value in labels._asdict().items() if value is not None] == [kind]
    assert observe_all(eam, []) == []


def test_one_shape_is_compiled_for_any_number_of_sizes():
    eam = zhou_eam("W")
    rows = [supercell(bcc("W", 3.16), (n, 1, 1)) for n in range(1, 20)]
    graphs = [build_graph(cell, eam.r_cut, n_neighbours=96) for cell in rows]
    before = observe_pack._cache_size()
    energies = [labels.energy for labels in observe_all(eam, graphs, "energy")]
    assert observe_pack._cache_size() == before + 1
    np.testing.assert_allclose(np.array(energies) / np.arange(1, 20), energies[0], rtol=1e-12)


def test_a_calculator_gets_one_cell_at_a_time():
    """It needs the cell itself, which a pack has not."""
    potential = ase_potential(EMT())
    cells = [
        fcc("Cu", 3.61),
        rattled(supercell(fcc("Cu", 3.61), (2, 1, 1)), jax.random.key(0), 0.1),
    ]
    graphs = [build_graph(cell, potential.r_cut) for cell in cells]
    for cell, graph, labels in zip(cells, graphs, observe_all(potential, graphs), strict=True):
        alone = observe(potential, graph)
        assert labels.energy == alone.energy and labels.forces.shape == (cell.n_atoms, 3)
        np.testing.assert_array_equal(labels.forces, alone.forces[: cell.n_atoms])


def test_what_is_refused_is_named():
    good, bad = build_graphs([bcc("W", 3.16), bcc("Cu", 3.0)], zhou_eam("W").r_cut)
    with pytest.raises(ValueError, match=r"structure 1: the graph holds atomic number\(s\) \[29\]"):
        observe_all(zhou_eam("W"), [good, bad])
    with pytest.raises(ValueError, match="structure 0: atoms is .2,.: wanted .* 0 to 1"):
        observe_all(zhou_eam("W"), [good], "force_constants", atoms=(2,))
