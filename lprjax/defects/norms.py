"""A defect in another norm: that of a crystal's own force constants.

Every function that takes a defect measures in the norm of its `lattice`. With the one that this
file gives it stability constants, negative norms, errors of geometry, Lipschitz constants and the
bounds made of them are those of the harmonic energy: ||D.|| and ||.||_{-1} in eV^1/2, c and e_C to
e_FC without unit, M in eV^-1/2, h and energies as before; see `ReferenceLattice.units`. What is
shown with Å or eV/Å beside it was written for the plain norm. Strains by site and the weights of
higher orders stay those of bonds.
"""

import dataclasses

from lprjax.crystals.energy_norm import energy_lattice
from lprjax.crystals.phonons import force_constants
from lprjax.defects.defect import Defect, check_defect
from lprjax.potentials.potential import Potential


def with_energy_norm(defect: Defect, reference: Potential) -> Defect:
    """The same defect, measured by the energy that displacements cost in the perfect crystal.

        ||Dv||^2 = v^T Phi v,    ||f||_{-1}^2 = f^T Phi^+ f,    in eV

    Phi the reference's force constants of the homogeneous lattice; missing sites are where the
    crystal would hold an atom at rest, and extra ones are bound to their neighbours by the spring
    that holds an atom there (`crystals.energy_norm`). Relaxations take it as their preconditioner.

    Args:
        defect: where and on which lattice.
        reference: graph -> site energies (n,), eV, whose crystal is stable.

    Returns:
        The defect; its atoms and sites are the same, `lattice` is an `EnergyLattice`.

    Raises:
        RuntimeError: float64 is off.
        TypeError: no defect; a potential without cutoff, or neither a pytree nor hashable.
        ValueError: a crystal that is not stable.

    Source: derived.
    """
    check_defect(defect)
    constants = force_constants(reference, defect.unit_cell, defect.lattice.repeats)
    return dataclasses.replace(defect, lattice=energy_lattice(defect.lattice, constants))
