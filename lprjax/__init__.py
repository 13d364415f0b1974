"""Error bounds, fits and prediction rigidities for linear machine-learned potentials, in JAX.

The nouns are here; the verbs are in their rooms: `from lprjax.regression.fitting import fit`.
"""

from lprjax.ace.basis import site_basis
from lprjax.ace.potential import LinearPotential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Labels, Structure
from lprjax.crystals.strain_norm import ReferenceLattice
from lprjax.defects.defect import Defect
from lprjax.potentials.observables import KINDS, observe
from lprjax.regression.factors import Factor
from lprjax.regression.fitting import Fit

__all__ = [
    "KINDS",
    "ACESpec",
    "Defect",
    "Factor",
    "Fit",
    "Graph",
    "Labels",
    "LinearPotential",
    "ReferenceLattice",
    "Structure",
    "build_graph",
    "observe",
    "site_basis",
]
__version__ = "0.1.0"
