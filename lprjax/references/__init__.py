"""Reference potentials with published parameters: hashable, from a graph to site energies."""

from lprjax.references.bonds import PolynomialBonds, polynomial_bonds
from lprjax.references.eam import ZHOU_2004, ZhouEAM, zhou_eam
from lprjax.references.stillinger_weber import StillingerWeber, stillinger_weber

__all__ = [
    "ZHOU_2004",
    "PolynomialBonds",
    "StillingerWeber",
    "ZhouEAM",
    "polynomial_bonds",
    "stillinger_weber",
    "zhou_eam",
]
