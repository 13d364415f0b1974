"""One simulation with a surrogate that is exact within L and wrong in one way outside.

The surrogate is the reference of `bond_lattice` and, weighted by chi(l), a change of one kind of
derivative of its site energies. Both are relaxed in the same box and compared.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from experiments.systems import bond_lattice, symmetric_fields
from experiments.systems.bond_lattice import (
    CHANGE,
    LATTICE,
    SECOND,
    Model,
    equilibrium,
    keeping,
    residual,
    response,
)
from experiments.systems.decay_kinds import KINDS, Kind
from lprjax.numerics.checks import require_x64
from lprjax.numerics.guarded import smoothstep
from lprjax.numerics.host import on_device

TOLERANCE = 1e-5  # of a surrogate's residual and of linear solves, relative to the forces it leaves
ROUNDOFF = 1e-15  # of a residual: where Newton's method on the reference ends, about


@dataclass(frozen=True)
class Point:
    """One simulation: the reference alone, or a surrogate."""

    dimension: int
    half_width: int  # of the box, sites
    kind: str = "reference"  # or one of KINDS
    radius: float = 0.0  # L, lattice constants
    strength: float = 0.0  # of the change, relative


class Reference(NamedTuple):
    """The reference's box and equilibrium."""

    model: Model
    solver: symmetric_fields.Transform
    displacement: jax.Array  # ubar
    load: jax.Array  # E'(ubar), rounding errors: ubar is exact under them
    residuals: list[float]  # of Newton's method
    products: int  # with the Hessian


@lru_cache(maxsize=1)
def reference(dimension: int, m: int) -> Reference:
    """The reference's equilibrium in a box of 2 m sites per side."""
    require_x64()
    model = bond_lattice.reference(m, dimension)
    wave = symmetric_fields.waves(m, dimension)
    solver = symmetric_fields.transform(bond_lattice.stiffness(SECOND[dimension], wave), wave)
    zero = np.zeros(wave.shape)
    found = equilibrium(model, zero, zero, solver, ROUNDOFF)
    load, _ = residual(model, found.displacement, zero, solver)
    return Reference(model, solver, found.displacement, load, found.residuals, found.products)


_energy = jax.jit(bond_lattice.energy)
_strain_norm = jax.jit(symmetric_fields.strain_norm)
_strain_squares = jax.jit(symmetric_fields.strain_squares)
_negative_norm = jax.jit(symmetric_fields.Transform.negative_norm)


def change(kind: Kind, dimension: int, strength: float) -> np.ndarray:
    """What the surrogate adds outside, of alternating sign from shell to shell.

    Args:
        kind: of derivative.
        dimension: 2 or 3.
        strength: largest change of a shell, relative to its own derivative.

    Returns:
        (shells, 4), a_1 to a_4.
    """
    second = np.array(SECOND[dimension])
    size = second * {2: 1.0, 3: bond_lattice.THIRD, 4: bond_lattice.FOURTH}[kind.order]
    direction = size * (-1.0) ** np.arange(len(size))
    if kind.keeps:
        direction = keeping(dimension, 2 * kind.order, direction)
    found = np.zeros((len(size), 4))
    found[:, kind.order - 1] = strength * direction / np.max(np.abs(direction / size))
    return found


def outside(distance: np.ndarray, radius: float, sharp: bool) -> ArrayLike:
    """chi: 0 within the radius, 1 beyond it (sharp) or beyond twice the radius, smooth between.

    Energies that are cut sharply leave unbalanced forces at the cut, of first order in the strain
    there whatever the moments: only a smooth cut separates a far field from its rim.
    """
    if sharp:
        return 1.0 * (distance >= radius)
    return smoothstep(distance / radius - 1.0)


def compute(point: Point) -> dict[str, Any]:
    """The arrays of one point."""
    if point.kind == "reference":
        return describe_reference(point)
    ref = reference(point.dimension, point.half_width)
    kind = KINDS[point.kind]
    distance = symmetric_fields.distances(point.half_width, point.dimension)
    coefficients, weights = map(np.array, (ref.model.coefficients, ref.model.weights))
    coefficients[CHANGE] = change(kind, point.dimension, point.strength)
    weights[0] = outside(distance, point.radius, kind.sharp)
    return compare(ref, on_device(Model(coefficients, weights)))


def compare(ref: Reference, surrogate: Model) -> dict[str, Any]:
    """True errors, first-order ones, the bound, and the floors that rounding sets.

    First order: ||D H^-1 f|| and dE(ubar) - f . H^-1 f / 2, f the forces that the change leaves at
    ubar and H the reference's Hessian there. The true energy error is the change's own energy at
    ubar and what relaxing gains, the integral of the gradient along the way (Simpson's rule; the
    energy is close to quadratic there): no two large numbers are subtracted.
    """
    ubar, only = np.asarray(ref.displacement), surrogate.only(CHANGE)
    force = -np.asarray(residual(only, ubar, np.zeros_like(ubar), ref.solver)[0])
    eta = float(_negative_norm(ref.solver, force))
    linear = response(ref.model, ubar, force, ref.solver, TOLERANCE)
    tolerance = max(TOLERANCE * eta, ROUNDOFF)
    solution = np.asarray(linear.solution)
    found = equilibrium(surrogate, ubar + solution, ref.load, ref.solver, tolerance, 1e-3)
    moved = np.asarray(found.displacement) - ubar
    halfway, _ = residual(surrogate, ubar + 0.5 * moved, ref.load, ref.solver)
    relaxing = float(4.0 * np.vdot(halfway, moved) - np.vdot(force, moved)) / 6.0
    at_ubar, rounding = map(float, _energy(only, ubar))
    c = stability_of(surrogate)
    return {
        "geometry": float(_strain_norm(moved)),
        "geometry_predicted": float(_strain_norm(linear.solution)),
        "geometry_bound": eta / c,
        "geometry_floor": ROUNDOFF / np.sqrt(c),
        "eta": eta,
        "stability": c,
        "energy": at_ubar + relaxing,
        "energy_predicted": at_ubar - 0.5 * float(np.vdot(force, solution)),
        "energy_floor": rounding,
        "relaxing": relaxing,
        "converged": bool(linear.converged) and found.residuals[-1] <= tolerance,
        "products": found.products + int(linear.iterations),
    }


def stability_of(model: Model) -> float:
    """The smaller c of the lattice with and without the change, K's being the unit."""
    second = np.asarray(model.coefficients[..., 1])
    wave = symmetric_fields.waves(16, model.weights.ndim - 1)
    lattice = bond_lattice.stability(second[LATTICE], wave)
    return min(lattice, bond_lattice.stability(second[LATTICE] + second[CHANGE], wave))


def describe_reference(point: Point) -> dict[str, Any]:
    """How ubar was found and how its strain decays: the largest |Du(l)| in each shell of |l|."""
    ref = reference(point.dimension, point.half_width)
    distance = symmetric_fields.distances(point.half_width, point.dimension)
    strain = np.sqrt(np.asarray(_strain_squares(ref.displacement)))
    shell = np.round(distance).astype(int)
    largest = np.zeros(point.half_width + 1)
    inside = shell <= point.half_width
    np.maximum.at(largest, shell[inside], strain[inside])
    return {
        "newton_residuals": ref.residuals,
        "products": ref.products,
        "distance": np.arange(point.half_width + 1),
        "strain": largest,
    }
