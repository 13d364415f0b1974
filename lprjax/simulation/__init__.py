"""Relaxation and molecular dynamics."""

from lprjax.simulation.dynamics import Trajectory, molecular_dynamics
from lprjax.simulation.relaxation import Relaxed, relax

__all__ = [
    "Relaxed",
    "Trajectory",
    "molecular_dynamics",
    "relax",
]
