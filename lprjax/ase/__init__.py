"""Any potential as a calculator of ASE, for its optimisers, dynamics and the codes built on it."""

from lprjax.ase.calculator import Calculator

__all__ = ["Calculator"]
