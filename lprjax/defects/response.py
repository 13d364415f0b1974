"""The response of a relaxed structure to small forces, and its stability.

The response H^+ f, and the extremes of v^T H v and D3E[d, v, v] against ||Dv||^2, in the notation
and over the moves of `hessian`. Each function comes in two forms: of (potential, defect,
displacement), for users; and, as `..._at`, of an `EnergyAt` that was made before, so that several
results at one geometry share its graph and its Hessian.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.defects.defect import Defect
from lprjax.defects.hessian import EnergyAt, Moves, energy_at
from lprjax.numerics.checks import check_positive
from lprjax.numerics.krylov import extreme_eigenpair, solve
from lprjax.potentials.potential import Potential


class Response(NamedTuple):
    """H^+ f; look at `converged` first."""

    displacement: jax.Array  # (n_sites, 3) Å, zero mean over the atoms; NaN where indefinite
    iterations: int  # products with the Hessian
    residual: float  # ||f - H v||_{-1} / ||f||_{-1}
    converged: bool
    indefinite: bool  # met a move along which the energy does not curve upward


class Extreme(NamedTuple):
    """An extreme of v^T A v / ||Dv||^2 over the moves v; look at `converged` first."""

    constant: float  # the extreme, eV/Å^2 for D2E, eV/Å^3 for D3E
    mode: jax.Array  # (n_sites, 3), where it is attained, ||D mode|| = 1
    iterations: int  # products with A
    residual: float  # ||A mode - constant K mode||_{-1}, in the unit of the constant
    converged: bool


class GoalError(NamedTuple):
    """The error of a quantity of the geometry; look at `adjoint.converged` first."""

    estimate: float  # first order, in the unit of the quantity; NaN where indefinite
    bound: float  # of |estimate|
    second_order: float  # what to add to the estimate: large beside it, neither is to be trusted
    by_site: jax.Array  # (n_sites,), shares in its unit, which add up to the estimate
    adjoint: Response  # its displacement z is in the unit of the quantity per eV/Å


def hessian_solve(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
    forces: ArrayLike,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> Response:
    """How the defect moves, to first order, under small forces: H^+ f.

    With f the forces of a surrogate at the minimiser ubar of a reference, and H the surrogate's
    Hessian there, it is what the surrogate's own minimiser differs by: uhat - ubar = H^+ f.
    Conjugate gradients, preconditioned by K^+.

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å, where the Hessian is taken.
        forces: f, (n_sites, 3) eV/Å; their mean, where no atom is held, and what acts on held
            atoms and missing sites is outside the range of H and dropped.
        tolerance: of the residual in the negative norm, relative to that of f.
        max_iterations: products with the Hessian allowed.

    Returns:
        Response. `indefinite`: the geometry is no minimum, and there is no response. Not indefinite
        does not prove a minimum, for f may have no part along a mode (by symmetry, say): see
        `stability_constant`.

    Raises:
        ValueError: arrays without a row per site; forces that are not finite; a tolerance or
            number of products not positive.
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    at = energy_at(potential, defect, displacement)
    if not np.isfinite(np.asarray(at.defect.on_atoms(forces))).all():
        raise ValueError("forces hold NaN or infinity: wanted finite numbers in eV/Å.")
    return solve_at(at, forces, tolerance, max_iterations)


def solve_at(
    at: EnergyAt, forces: ArrayLike, tolerance: float = 1e-10, max_iterations: int = 500
) -> Response:
    """`hessian_solve` at a geometry whose energy was made before.

    Args:
        at: the energy around u.
        forces: f, (n_sites, 3) eV/Å.
        tolerance: of the residual in the negative norm, relative to that of f.
        max_iterations: products with the Hessian allowed.

    Returns:
        Response.

    Raises:
        ValueError: forces without a row per site.
    """
    moves = at.moves
    found = solve(at.product, moves, moves.of_sites(forces), float(tolerance), int(max_iterations))
    there = np.where(found.indefinite, np.nan, np.asarray(moves.on_sites(found.solution)))
    return Response(
        displacement=jax.device_put(there),
        iterations=int(found.iterations),
        residual=float(found.residual),
        converged=bool(found.converged),
        indefinite=bool(found.indefinite),
    )


def stability_constant(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 200,
) -> Extreme:
    """The stability of a geometry: the smallest curvature of the energy against the strain.

        c = min_v v^T D2E(u) v / ||Dv||^2

    It is positive at a stable minimum, and then ||D H^+ f|| <= ||f||_{-1} / c; zero or negative:
    unstable along `mode`. A Lanczos search with K^+ H, symmetric in the inner product of K, from a
    random start, which every mode has a part of. `constant` is v^T H v of the `mode`, so the true c
    is never above it.

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å.
        tolerance: of the residual, relative to the largest curvature. The error of c is below
            the residual, and about its square over the distance to the next curvature.
        max_iterations: products with the Hessian allowed (as many arrays (n, 3) are kept),
            rounded up to tens.

    Returns:
        Extreme, its constant c, eV/Å^2.

    Raises:
        ValueError, TypeError: as `hessian_solve`.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    at = energy_at(potential, defect, displacement)
    return stability_at(at, tolerance, max_iterations)


def stability_at(at: EnergyAt, tolerance: float = 1e-5, max_iterations: int = 200) -> Extreme:
    """`stability_constant` at a geometry whose energy was made before.

    Args:
        at: the energy around u.
        tolerance: of the residual, relative to the largest curvature.
        max_iterations: products with the Hessian allowed, rounded up to tens.

    Returns:
        Extreme, its constant c, eV/Å^2.
    """
    return _extreme(at.product, at.moves, np.argmin, tolerance, max_iterations)


def lipschitz_estimate(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
    direction: ArrayLike,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 200,
) -> Extreme:
    """How fast the curvatures change as the atoms set off along a direction.

        M = max_v |D3E(u)[d, v, v]| / ||Dv||^2,   d = direction / ||D direction||

    Its sign is kept. It is the Lipschitz constant of the Hessian along this one line at this one
    point, an estimate and *not a bound* of the one over a neighbourhood. With c and
    eta = ||f||_{-1}, h = M eta / c^2 <= 1/2 suggests a minimiser uhat with
    ||D(uhat - u)|| <= eta / c * 2 / (1 + (1 - 2 h)^(1/2)).

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å.
        direction: (n_sites, 3), of any length; the correction H^+ f is the one that matters.
        tolerance: of the residual, relative to the largest |value|.
        max_iterations: products with D3E[d] allowed, rounded up to tens.

    Returns:
        Extreme, its constant M, eV/Å^3.

    Raises:
        ValueError: a direction without strain; as `hessian_solve`.
        TypeError: as `hessian_solve`.

    Source: of the bound, Newton and Kantorovich.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    at = energy_at(potential, defect, displacement)
    return lipschitz_at(at, direction, tolerance, max_iterations)


def lipschitz_at(
    at: EnergyAt, direction: ArrayLike, tolerance: float = 1e-5, max_iterations: int = 200
) -> Extreme:
    """`lipschitz_estimate` at a geometry whose energy was made before.

    Args:
        at: the energy around u.
        direction: (n_sites, 3), of any length.
        tolerance: of the residual, relative to the largest |value|.
        max_iterations: products with D3E[d] allowed, rounded up to tens.

    Returns:
        Extreme, its constant M, eV/Å^3.

    Raises:
        ValueError: a direction without strain, or without a row per site.
    """
    along = at.moves.of_sites(direction)
    size = float(at.defect.lattice.strain_norm(at.moves.on_sites(along)))
    if not size > 0:
        raise ValueError(f"||D direction|| is {size}: wanted a direction that strains the lattice.")
    apply = partial(at.third, np.asarray(along) / size)
    return _extreme(apply, at.moves, lambda x: np.argmax(np.abs(x)), tolerance, max_iterations)


def _extreme(
    apply: Callable[[jax.Array], jax.Array],
    moves: Moves,
    choose: Callable[[np.ndarray], int | np.integer],
    tolerance: float,
    max_iterations: int,
) -> Extreme:
    n = moves.defect.structure.n_atoms
    start = np.zeros(moves.moving.shape)
    start[:n] = np.random.default_rng(0).normal(size=(n, 3))
    start = moves.project(start)
    found = extreme_eigenpair(apply, moves, start, choose, tolerance, max_iterations)
    mode = moves.on_sites(found.mode)
    return Extreme(found.value, mode, found.iterations, found.residual, found.converged)


def goal_error(
    quantity: Callable[[jax.Array], jax.Array],
    surrogate: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> GoalError:
    """What a surrogate's error does to one quantity of the relaxed geometry.

        q(uhat) - q(ubar) = z . f + O(|uhat - ubar|^2),   H z = Dq(ubar),   f = -DE(ubar),

    E the surrogate's energy, H its Hessian, uhat its minimiser, ubar the reference's. The dual
    bound |z . f| <= ||Dz|| ||f||_{-1} limits it, and the terms z(l) . f(l) are its shares by site:
    sites with large terms are what the training data lack. The *surrogate's* Hessian is taken:
    the reference's would leave one more term, Dq Hbar^-1 (Hbar - H)(uhat - ubar). With it the
    second order is (D2q[e, e] - D3E[z, e, e]) / 2, e = H^+ f, after which O(|uhat - ubar|^3) is
    left.

    Args:
        quantity: q, of (n_sites, 3) Å to (), differentiable. What it takes from the potential
            directly does not count: the error of a relaxed energy is, to first order, that at the
            fixed geometry ubar, where the reference's energy is stationary.
        surrogate: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å.
        tolerance: of the residuals of two solves in the negative norm, relative to that of f.
        max_iterations: products with the Hessian allowed in each.

    Returns:
        GoalError, in the unit of the quantity.

    Raises:
        ValueError, TypeError: as `hessian_solve`.

    Source: derived.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    at = energy_at(surrogate, defect, displacement)
    there = jnp.asarray(displacement)
    pull, forces = jax.grad(quantity)(there), at.moves.on_sites(at.forces())
    adjoint, step = (solve_at(at, f, tolerance, max_iterations) for f in (pull, forces))
    z, e = adjoint.displacement, step.displacement
    _, bend = jax.jvp(jax.grad(quantity), (there,), (e,))
    moves = at.moves.of_sites(e)
    third = jnp.vdot(moves, at.third(at.moves.of_sites(z), moves))
    by_site = jnp.sum(z * forces, axis=1)
    return GoalError(
        estimate=float(jnp.sum(by_site)),
        bound=float(defect.lattice.strain_norm(z) * defect.lattice.negative_norm(forces)),
        second_order=0.5 * float(jnp.vdot(bend, e) - third),
        by_site=by_site,
        adjoint=adjoint,
    )
