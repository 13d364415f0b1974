"""One simulation on the two-atom lattice with a surrogate that is exact within L, wrong outside."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from experiments.studies.decay import ROUNDOFF, TOLERANCE, outside
from experiments.systems import two_atom_lattice
from experiments.systems.bond_lattice import CHANGE, equilibrium, residual, response
from experiments.systems.two_atom_lattice import Model, Transform
from lprjax.defects.rates import error_rate
from lprjax.numerics.checks import require_x64
from lprjax.numerics.host import on_device

RATES = {
    "elastic": error_rate(2, 2),
    "internal_strain": error_rate(2, 2, elastic_kept=True, internal_kept=False),
    "force_constants": error_rate(2, 2, elastic_kept=True),
}
"""What is wrong outside, and the theory's slopes; the lattice has centres of inversion."""


@dataclass(frozen=True)
class Point:
    """One surrogate."""

    cells: int  # per side of the box
    kind: str  # one of RATES
    radius: float  # L, lattice constants
    strength: float  # of the change, relative


@lru_cache(maxsize=1)
def reference(m: int) -> tuple[Model, Transform, jax.Array, jax.Array]:
    """Model, solver, equilibrium ubar and what forces rounding leaves there."""
    require_x64()
    model, solver = two_atom_lattice.reference(m), two_atom_lattice.transform(m)
    zero = np.zeros((2 * m * m, 2))
    found = equilibrium(model, zero, zero, solver, ROUNDOFF)
    load, _ = residual(model, found.displacement, zero, solver)
    return model, solver, found.displacement, load


_energy = jax.jit(two_atom_lattice.energy)
_strain_norm = jax.jit(Transform.strain_norm)
_negative_norm = jax.jit(Transform.negative_norm)


def compute(point: Point) -> dict[str, Any]:
    """True errors, first-order ones and the bound, as `decay.compare` has them."""
    model, solver, ubar, load = reference(point.cells)
    chi = outside(two_atom_lattice.distances(point.cells), point.radius, sharp=False)
    coefficients = np.array(model.coefficients)
    coefficients[CHANGE] = two_atom_lattice.change(point.kind, point.strength)
    surrogate = on_device(dataclasses.replace(model, coefficients=coefficients, outside=chi))
    only, ubar = surrogate.only(CHANGE), np.asarray(ubar)
    force = -np.asarray(residual(only, ubar, np.zeros_like(ubar), solver)[0])
    eta = float(_negative_norm(solver, force))
    linear = response(model, ubar, force, solver, TOLERANCE)
    tolerance = max(TOLERANCE * eta, ROUNDOFF)
    solution = np.asarray(linear.solution)
    found = equilibrium(surrogate, ubar + solution, load, solver, tolerance, 1e-3)
    moved = np.asarray(found.displacement) - ubar
    halfway, _ = residual(surrogate, ubar + 0.5 * moved, load, solver)
    relaxing = float(4.0 * np.vdot(halfway, moved) - np.vdot(force, moved)) / 6.0
    at_ubar, rounding = map(float, _energy(only, ubar))
    c = two_atom_lattice.stability_of(surrogate)
    return {
        "geometry": float(_strain_norm(solver, moved)),
        "geometry_predicted": float(_strain_norm(solver, linear.solution)),
        "geometry_bound": eta / c,
        "eta": eta,
        "stability": c,
        "energy": at_ubar + relaxing,
        "energy_predicted": at_ubar - 0.5 * float(np.vdot(force, solution)),
        "energy_floor": rounding,
        "converged": bool(linear.converged) and found.residuals[-1] <= tolerance,
    }
