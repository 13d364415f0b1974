"""Error bounds, fits and prediction rigidities for linear machine-learned potentials, in JAX.

The nouns are here; the verbs are in their rooms: `from lprjax.fit import fit`.
"""

from lprjax.ace import ACESpec, LinearPotential, site_basis
from lprjax.defects import Defect
from lprjax.factors import Factor
from lprjax.fit import Fit
from lprjax.neighbours import Graph, build_graph
from lprjax.observables import KINDS, observe
from lprjax.seminorm import ReferenceLattice
from lprjax.structures import Labels, Structure

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
