"""Answers are those of the cells that were asked for, in whatever order, and of no others."""

import dataclasses

import numpy as np
import pytest

from lprjax.atoms.extxyz import write_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, bcc, rattled, supercell
from lprjax.defects.answers import SAME, Answers
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe
from tests.helpers.potentials import lennard_jones

TUNGSTEN, PERFECT = zhou_eam("W"), supercell(bcc("W", 3.164849), (2, 2, 2))


def labelled(structure):
    labels = observe(TUNGSTEN, build_graph(structure, TUNGSTEN.r_cut), ("energy", "forces"))
    n = structure.n_atoms
    return structure, Labels(np.asarray(labels.energy), np.asarray(labels.forces)[:n])


def moved(structure, by):
    return dataclasses.replace(structure, positions=np.asarray(structure.positions) + by)


@pytest.fixture(scope="module")
def cells():
    import jax

    return [rattled(PERFECT, jax.random.key(k), 0.1) for k in range(3)]


def test_a_file_in_another_order_answers_as_the_potential_does(cells, tmp_path):
    frames = [labelled(cells[k]) for k in (2, 0, 1)]
    write_extxyz(tmp_path / "cells.xyz", *map(list, zip(*frames, strict=True)))
    potential = Answers(TUNGSTEN)
    for told in (Answers(tmp_path / "cells.xyz"), Answers(frames)):
        for cell in cells:
            mine, theirs = potential.of(cell), told.of(cell)
            assert theirs.energy == pytest.approx(mine.energy, abs=1e-10)
            np.testing.assert_allclose(theirs.forces, mine.forces, atol=1e-12)
        assert told.calls == 3


def test_the_geometry_is_that_of_the_answer(cells):
    """Codes write few digits, and wrap: the forces are those of the atoms where they were."""
    period = np.asarray(PERFECT.cell)[0]
    wrapped = moved(cells[0], period + 0.3 * SAME)
    found = Answers([labelled(wrapped)]).of(cells[0])
    shifts = np.asarray(found.structure.positions) - np.asarray(cells[0].positions)
    np.testing.assert_allclose(shifts, 0.3 * SAME, atol=1e-12)


def test_another_geometry_is_refused_and_another_cell_passed_over(cells):
    far = np.zeros((PERFECT.n_atoms, 3))
    far[3, 1] = 1.01 * SAME
    with pytest.raises(ValueError, match=r"frame 0 has an atom 0\.00101 Å from where"):
        Answers([labelled(moved(cells[0], far))]).of(cells[0])
    assert Answers([labelled(cells[1])]).of(cells[0], forces=False) is None
    assert Answers([labelled(supercell(bcc("W", 3.164849), (3, 3, 3)))]).of(cells[0]) is None
    assert Answers(()).of(cells[0]) is None
    twice = Answers([labelled(cells[0])])
    assert twice.of(cells[0]) is not None and twice.of(cells[0]) is None


def test_what_an_answer_lacks_is_named(cells):
    structure, labels = labelled(cells[0])
    for kind in ("energy", "forces"):
        with pytest.raises(ValueError, match=f"frame 0 has no {kind}"):
            Answers([(structure, labels._replace(**{kind: None}))]).of(structure)
    energy_only = Answers([(structure, labels._replace(forces=None))])
    assert energy_only.of(structure, forces=False).forces is None
    for name, wrong in (("energy", np.nan), ("forces", np.full((PERFECT.n_atoms, 3), np.inf))):
        with pytest.raises(ValueError, match="reference's .*finite"):
            Answers([(structure, labels._replace(**{name: wrong}))]).of(structure)
    with pytest.raises(ValueError, match=r"forces has shape \(15, 3\): wanted \(16, 3\)"):
        Answers([(structure, labels._replace(forces=np.zeros((15, 3))))]).of(structure)
    with pytest.raises(TypeError, match="r_cut"):
        Answers(lambda graph: graph)
    with pytest.raises(TypeError, match="a LennardJones: wanted a potential.*ase_potential"):
        Answers(lennard_jones())
