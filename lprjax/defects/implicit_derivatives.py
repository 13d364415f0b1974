"""Relaxed quantities as functions of the potential: derivatives through their equilibrium."""

from collections.abc import Mapping
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lprjax.atoms.graphs import moved
from lprjax.atoms.structures import Structure
from lprjax.defects.defect import Defect
from lprjax.defects.formation import chemical_potentials, energy_per_atom, formation_energy
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.numerics.checks import check_positive
from lprjax.numerics.krylov import conjugate_gradients
from lprjax.potentials.potential import Potential, total_energy_of


def minimiser(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> jax.Array:
    """The relaxed geometry as a function of the potential's own arrays.

        F(theta, u(theta)) = 0,   so   du/dtheta = H^+ dF/dtheta,   H = D2E,   F = -DE

    The atoms follow the change of the forces. The displacement that is given, which must be relaxed
    already, comes back with these derivatives, forward and in reverse, of any order:

    >>> length = lambda p: jax.numpy.linalg.norm(minimiser(p, defect, u))
    >>> jax.grad(length)(potential).coefficients.shape == potential.coefficients.shape
    True

    One gradient costs one solve with H, however many arrays there are.

    Args:
        potential: a pytree, traced or not; its arrays are theta.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å, not traced. What force is left on it, as a share of the
            forces that changes of theta bring, is the error of the derivatives.
        tolerance: of the residual in the negative norm, relative to that of the forces.
        max_iterations: products with the Hessian allowed.

    Returns:
        u, (n_sites, 3) Å. Where no atom is held, the mean of the derivatives over the atoms is
        zero. They are NaN where a solve met a move without curvature or did not converge.

    Raises:
        ValueError, TypeError: as `response.hessian_solve`.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    point = energy_at(potential, defect, displacement)
    # the potential goes in as an argument of its own: the derivatives are taken in it alone
    rest = point._replace(potential=cast(Potential, None))
    still = jnp.zeros(point.moves.moving.shape)
    moves = _stationary_jit(point.potential, rest, still, float(tolerance), int(max_iterations))
    return jnp.asarray(displacement) + point.moves.on_sites(moves)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _stationary(
    potential: Potential, point: EnergyAt, moves: jax.Array, tolerance: float, max_iterations: int
) -> jax.Array:
    """The stationary point near `moves`, which is one; differentiable in the potential alone."""
    return moves


@_stationary.defjvp
def _stationary_jvp(tolerance, max_iterations, primals, tangents):
    potential, point, start = primals
    moves = _stationary(potential, point, start, tolerance, max_iterations)

    def at(potential):
        graph = moved(point.graph, point.graph.positions + moves)
        return point._replace(potential=potential, graph=graph)

    def solve(apply, f):
        precondition = point.moves.precondition
        found = conjugate_gradients(apply, precondition, f, tolerance, max_iterations)
        return jnp.where(found.converged, found.solution, jnp.nan)

    _, change = jax.jvp(lambda p: at(p).forces(), (potential,), (tangents[0],))
    hessian = at(potential).operator()
    return moves, jax.lax.custom_linear_solve(hessian, change, solve, symmetric=True)


_stationary_jit = jax.jit(_stationary, static_argnums=(3, 4))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _relaxed_energy(
    potential: Potential, point: EnergyAt, tolerance: float, max_iterations: int
) -> jax.Array:
    """E(u(theta); theta), differentiable in the potential alone: its first derivative is that at a
    fixed geometry (Hellmann and Feynman), so that only those beyond it take a solve."""
    return total_energy_of(potential, point.graph)


@_relaxed_energy.defjvp
def _relaxed_energy_jvp(tolerance, max_iterations, primals, tangents):
    potential, point = primals
    still = jnp.zeros(point.moves.moving.shape)
    moves = _stationary(potential, point, still, tolerance, max_iterations)
    there = moved(point.graph, point.graph.positions + moves)
    slope = jax.jvp(lambda p: total_energy_of(p, there), (potential,), (tangents[0],))[1]
    return _relaxed_energy(potential, point, tolerance, max_iterations), slope


_relaxed_energy_jit = jax.jit(_relaxed_energy, static_argnums=(2, 3))


def relaxed_formation_energy(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    reservoirs: Mapping[str, Structure] | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> jax.Array:
    """The formation energy of a relaxed defect as a function of the potential's own arrays.

        E_f(theta) = E(u(theta); theta) - N e(theta)

    for a crystal of one element, and as `defects.formation` says for others. e is the energy per
    atom of the perfect crystal on the defect's reference lattice, which is kept. To first order the
    geometry does not matter (Hellmann and Feynman); it does to the second, -1/2 f . H^+ f with f
    the change of the forces.

    Its rows are those of any prediction; an example is in `regression.prediction_rows`.

    Args:
        potential: a pytree, traced or not; its arrays are theta.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å, relaxed with this potential; not traced.
        reservoirs: by symbol, a structure of that element, whose energy per atom by this potential
            is the chemical potential; see `defects.formation` for which are needed.
        tolerance: of the residual in the negative norm, relative to that of the forces.
        max_iterations: products with the Hessian allowed.

    Returns:
        E_f, (), eV.

    Raises:
        ValueError, TypeError: as `response.hessian_solve`; a reservoir that is missing.
    """
    per_atom = partial(energy_per_atom, potential)
    mu = chemical_potentials(per_atom, defect, reservoirs)
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    point = energy_at(potential, defect, displacement)
    rest = point._replace(potential=cast(Potential, None))
    energy = _relaxed_energy_jit(point.potential, rest, float(tolerance), int(max_iterations))
    with jax.ensure_compile_time_eval():  # inside a user's `jit`, where the potential is traced
        cell = defect.unit_cell
    return formation_energy(energy, defect, per_atom(cell), mu)
