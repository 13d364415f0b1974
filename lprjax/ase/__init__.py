"""Any potential as a calculator of ASE, for its optimisers, dynamics and the codes built on it."""

from lprjax.ase.calculator import Calculator
from lprjax.ase.fix_external import in_lammps

__all__ = ["Calculator", "in_lammps"]
