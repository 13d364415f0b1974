"""Structures, their graphs of neighbours, Voigt order, files."""

from lprjax.atoms.chemiscope import write_chemiscope
from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.graphs import Graph, build_graph, build_graphs, moved
from lprjax.atoms.structures import (
    Labels,
    Structure,
    bcc,
    diamond,
    fcc,
    from_ase,
    make_structure,
    minimum_image,
    rattled,
    simple_cubic,
    square,
    strained,
    supercell,
    to_ase,
    without_atoms,
)
from lprjax.atoms.training_sets import TrainingSet, read_training_set
from lprjax.atoms.voigt import VOIGT, engineering_strain, six_components, strain_tensor

__all__ = [
    "VOIGT",
    "Graph",
    "Labels",
    "Structure",
    "TrainingSet",
    "bcc",
    "build_graph",
    "build_graphs",
    "diamond",
    "engineering_strain",
    "fcc",
    "from_ase",
    "make_structure",
    "minimum_image",
    "moved",
    "rattled",
    "read_extxyz",
    "read_training_set",
    "simple_cubic",
    "six_components",
    "square",
    "strain_tensor",
    "strained",
    "supercell",
    "to_ase",
    "without_atoms",
    "write_chemiscope",
    "write_extxyz",
]
