"""Reference potentials with published parameters: hashable, from a graph to site energies."""

from lprjax.potentials.bonds import PolynomialBonds, polynomial_bonds
from lprjax.potentials.eam import ZHOU_2004, ZhouEAM, zhou_eam
from lprjax.potentials.from_ase import ASEPotential, ase_potential
from lprjax.potentials.stillinger_weber import StillingerWeber, stillinger_weber
from lprjax.potentials.tersoff import Tersoff, tersoff

__all__ = [
    "ZHOU_2004",
    "ASEPotential",
    "PolynomialBonds",
    "StillingerWeber",
    "Tersoff",
    "ZhouEAM",
    "ase_potential",
    "polynomial_bonds",
    "stillinger_weber",
    "tersoff",
    "zhou_eam",
]
