"""Structures and bases that the tests of rows and assembly share, and their rows.

Two bases (one species with four factors; two species with three, and constants) and one padded
shape for all structures of a basis, so that each kind of row is compiled once per basis.
"""

from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from lprjax.ace.rows import Rows
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Structure, bcc, make_structure, rattled, strained, supercell
from lprjax.potentials.observables import KINDS
from lprjax.regression.rows import design_rows

R_CUT = 3.6
N_ATOMS, N_NEIGHBOURS = 16, 24
PAIR = (0, 1)  # the atoms that are displaced for the force constants

SPECS = {
    "four factors": ACESpec("W", 4, 7, R_CUT, 2.7),
    "two species": ACESpec(("W", "Mo"), 3, 5, R_CUT, 2.7, constant=True),
}


def coloured(structure, elements):
    """The structure with the elements in turn, in a fixed disorder."""
    order = np.random.default_rng(4).permutation(structure.n_atoms)
    species = np.array([elements[i % len(elements)] for i in order])
    return make_structure(structure.positions, structure.cell, list(species), structure.pbc)


def small_cell():
    """Two atoms in a skewed cell narrower than the cutoff: each is its own neighbour."""
    skew = np.array([[0.02, 0.1, -0.05], [0.0, -0.03, 0.08], [0.04, 0.0, 0.06]])
    return rattled(strained(bcc("W", 3.16), skew), jax.random.key(1), 0.15)


def vacancy_cell():
    """Fifteen atoms round a vacancy, rattled."""
    perfect = supercell(bcc("W", 3.16), (2, 2, 2))
    defective = make_structure(perfect.positions[1:], perfect.cell, "W", True)
    return rattled(defective, jax.random.key(0), 0.1)


class Case(NamedTuple):
    spec: ACESpec
    structure: Structure
    graph: Graph
    rows: Rows

    @property
    def n(self):
        return self.structure.n_atoms


def graph_of(structure):
    return build_graph(structure, R_CUT, n_atoms=N_ATOMS, n_neighbours=N_NEIGHBOURS)


@cache
def case_of(name, make):
    spec = SPECS[name]
    structure = coloured(make(), spec.elements)
    graph = graph_of(structure)
    return Case(spec, structure, graph, design_rows(spec, graph, KINDS, atoms=PAIR))
