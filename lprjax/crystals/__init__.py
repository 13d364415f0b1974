"""The homogeneous lattice: size, elasticity, phonons, and the norm of its strains."""

from lprjax.crystals.elasticity import (
    GPA_PER_EV_A3,
    Elasticity,
    Equilibrium,
    ThirdOrderElasticity,
    acoustic_tensors,
    elastic_constants,
    equilibrium,
    third_order_constants,
)
from lprjax.crystals.energy_norm import EnergyLattice, energy_lattice
from lprjax.crystals.phonons import ForceConstants, LatticeStability, force_constants, stability
from lprjax.crystals.strain_norm import (
    NormUnits,
    ReferenceLattice,
    reference_lattice,
    with_extra_sites,
    with_held_sites,
    without_sites,
)

__all__ = [
    "GPA_PER_EV_A3",
    "Elasticity",
    "EnergyLattice",
    "Equilibrium",
    "ForceConstants",
    "LatticeStability",
    "NormUnits",
    "ReferenceLattice",
    "ThirdOrderElasticity",
    "acoustic_tensors",
    "elastic_constants",
    "energy_lattice",
    "equilibrium",
    "force_constants",
    "reference_lattice",
    "stability",
    "third_order_constants",
    "with_extra_sites",
    "with_held_sites",
    "without_sites",
]
