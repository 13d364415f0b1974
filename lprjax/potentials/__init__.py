"""What a potential is, what is observed of any, and the references with published parameters."""

from lprjax.potentials.bonds import PolynomialBonds, polynomial_bonds
from lprjax.potentials.calculator_cache import CachedCalculator, cached_calculator
from lprjax.potentials.data_sets import observe_all
from lprjax.potentials.eam import ZHOU_2004, ZhouEAM, zhou_eam
from lprjax.potentials.eam_files import read_eam
from lprjax.potentials.eam_tables import TabulatedEAM, eam_from_file, table_noise, tabulated_eam
from lprjax.potentials.from_ase import ASEPotential, ase_potential
from lprjax.potentials.named_references import MaterialFile, named_reference, read_material
from lprjax.potentials.observables import KINDS, energy_and_forces, observe, total_energy
from lprjax.potentials.potential import Potential, check_reach, check_species, cutoff_of, graph_for
from lprjax.potentials.stillinger_weber import StillingerWeber, stillinger_weber
from lprjax.potentials.tersoff import Tersoff, tersoff
from lprjax.potentials.validation import Validation, validate
from lprjax.potentials.zbl import ZBL, zbl

__all__ = [
    "KINDS",
    "ZBL",
    "ZHOU_2004",
    "ASEPotential",
    "CachedCalculator",
    "MaterialFile",
    "PolynomialBonds",
    "Potential",
    "StillingerWeber",
    "TabulatedEAM",
    "Tersoff",
    "Validation",
    "ZhouEAM",
    "ase_potential",
    "cached_calculator",
    "check_reach",
    "check_species",
    "cutoff_of",
    "eam_from_file",
    "energy_and_forces",
    "graph_for",
    "named_reference",
    "observe",
    "observe_all",
    "polynomial_bonds",
    "read_eam",
    "read_material",
    "stillinger_weber",
    "table_noise",
    "tabulated_eam",
    "tersoff",
    "total_energy",
    "validate",
    "zbl",
    "zhou_eam",
]
