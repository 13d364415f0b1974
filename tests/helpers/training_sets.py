"""A small training set of an alloy whose groups have different labels."""

import jax
import numpy as np

from lprjax.atoms.graphs import build_graphs
from lprjax.atoms.structures import Labels, bcc, make_structure, rattled, strained, supercell
from lprjax.atoms.training_sets import TrainingSet
from lprjax.potentials import observe_all, zhou_eam

KINDS = ("energy", "forces", "virial")


def cells(elements):
    """Cells of 4 and of 8 atoms and several compositions."""
    rng = np.random.default_rng(3)
    made = []
    for k, key in enumerate(jax.random.split(jax.random.key(0), 12)):
        block = supercell(bcc("W", 3.16), (2, 1, 1) if k % 3 else (2, 2, 1))
        block = strained(block, 0.03 * rng.normal(size=(3, 3)))
        species = rng.choice(elements, size=block.n_atoms)
        block = make_structure(block.positions, block.cell, list(species))
        made.append(rattled(block, key, 0.1))
    return made


def alloy_set(elements=("W", "Mo"), references=None):
    """Three groups: of all labels, of no virials, and of energies alone; by an EAM."""
    structures, alloy = cells(elements), zhou_eam("W", "Mo")
    graphs = build_graphs(structures, alloy.r_cut)
    labels = [Labels(*map(np.asarray, y[:3])) for y in observe_all(alloy, graphs, KINDS)]
    groups = [("all", "no virials", "energies")[k % 3] for k in range(len(labels))]
    cut = {"all": {}, "no virials": {"virial": None}}
    cut["energies"] = {"virial": None, "forces": None}
    labels = [y._replace(**cut[group]) for y, group in zip(labels, groups, strict=True)]
    return TrainingSet(structures, labels, groups, references or {}, [])
