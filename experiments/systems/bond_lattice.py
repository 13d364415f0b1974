"""Square and simple cubic lattices of polynomial bonds round a defect; lattice constant 1.

A site l brings half of each of its bonds rho:

    E(u) = sum_l sum_g w_g(l) 1/2 sum_rho V_g,rho(s),     V_g,rho(s) = sum_k a_g,rho,k s^k / k!,
    s = rho . D_rho u + |D_rho u|^2 / 2,     D_rho u(l) = u(l + rho) - u(l),

s = (r^2 - rho^2) / 2 the Lagrangian strain of the bond: E is a polynomial in u, invariant under
rotations.  The groups g of terms and their weights are

    LATTICE  1: the reference, with a_1 = 0, and a_2, a_3, a_4 that alone make up the elastic
             constants of second, third and fourth order, as moments sum_rho a_k rho^(2 k);
    CHANGE   chi(l): what a surrogate adds to it away from the core;
    DEFECT   1 at the origin, 0 elsewhere: an atom that is too large, its bonds under tension.

Fields are those of `symmetric_fields`; gradients are with respect to the orthant's variables.
Derived, in the setting of Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

import dataclasses
import itertools
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments.systems import symmetric_fields
from experiments.systems.symmetric_fields import (
    REACH,
    mirrored,
    mirrored_vector,
    multiplicity,
)
from lprjax.numerics.host import on_device
from lprjax.numerics.krylov import Solved, conjugate_gradients

SHELLS = {
    2: ((1, 0), (1, 1), (2, 0)),
    3: ((1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 0, 0)),
}
"""One bond of each shell, by dimension: just enough to change one that keeps the moments."""

LATTICE, CHANGE, DEFECT = range(3)

SECOND = {2: (1.0, 0.5, 0.1), 3: (1.0, 0.5, 0.3, 0.1)}
"""The reference's a_2 by dimension and shell, which set the unit of energy."""
THIRD, FOURTH = -4.0, 20.0  # the reference's a_3 and a_4 in units of a_2: V'' > 0 at any strain
TENSION = {2: 2.0, 3: 3.0}  # of the defect's bonds, -a_1 in units of a_2
STIFFER = 8.0  # a_2 that they bring besides; a soft atom under such tension would leave its site

MAX_PRODUCTS = 200  # of the Hessian in one solve; half a dozen are enough for seven digits


def star(dimension: int) -> list[tuple[tuple[int, ...], int]]:
    """Every bond of a site, both rho and -rho.

    Args:
        dimension: 2 or 3.

    Returns:
        (rho, number of its shell) of each.
    """
    found = set()
    for shell, first in enumerate(SHELLS[dimension]):
        for bond in itertools.permutations(first):
            for signs in itertools.product((1, -1), repeat=dimension):
                found.add((shell, tuple(s * x for s, x in zip(signs, bond, strict=True))))
    return [(bond, shell) for shell, bond in sorted(found)]


def moments(dimension: int, rank: int) -> np.ndarray:
    """Sums over each shell of rho x rho x ..., `rank` factors.

    Args:
        dimension: 2 or 3.
        rank: number of factors.

    Returns:
        (d^rank, shells).
    """
    total = np.zeros((dimension**rank, len(SHELLS[dimension])))
    for bond, shell in star(dimension):
        power = np.ones(1)
        for _ in range(rank):
            power = np.multiply.outer(power, bond).reshape(-1)
        total[:, shell] += power
    return total


def keeping(dimension: int, rank: int, direction: ArrayLike) -> np.ndarray:
    """The part of a change of the shells' a_k that leaves the moments of a rank alone.

    Rank 2 k: 4 keeps the elastic constants (of a_2), 6 those of third order (of a_3).

    Args:
        dimension: 2 or 3.
        rank: of the moments.
        direction: (shells,) change of a_k.

    Returns:
        (shells,) its projection.

    Raises:
        ValueError: nothing is left of the direction.
    """
    direction = np.asarray(direction, float)
    _, values, modes = np.linalg.svd(moments(dimension, rank))
    null = modes[np.sum(values > 1e-10 * values[0]) :]
    kept = null.T @ (null @ direction)
    if np.linalg.norm(kept) < 1e-6 * np.linalg.norm(direction):
        raise ValueError(
            f"direction is {direction.tolist()}, of which nothing keeps the moments of rank "
            f"{rank}: wanted a direction with a part along {null.tolist()}."
        )
    return kept


@partial(jax.tree_util.register_dataclass, data_fields=("coefficients", "weights"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Model:
    """Bonds and where they act; arrays over the sites are on the orthant."""

    coefficients: jax.Array  # (3, shells, 4), a_1 to a_4 by group
    weights: jax.Array  # (2, ...), chi and that of the defect

    def only(self, *groups: int) -> "Model":
        """The model without the other groups, each one of LATTICE, CHANGE, DEFECT."""
        kept = np.isin(np.arange(3), groups)
        return dataclasses.replace(self, coefficients=self.coefficients * kept[:, None, None])

    def gradient(self, u: jax.Array) -> jax.Array:
        """dE/du (d, ...), see `gradient`."""
        return gradient(self, u)


def _over_bonds(term, start, model: Model, u) -> jax.Array:
    """start + the sum over the bonds of a site, as a loop that is compiled once.

    term(r, s, here, there, a): r = rho + D_rho u, s the strain, here and there the weights at the
    two ends, a (3, 4) the coefficients of the shell.
    """
    padded = jnp.stack(mirrored_vector(u))
    weights = jnp.stack([mirrored(w) for w in model.weights])
    bonds, shells = zip(*star(len(u)), strict=True)

    def add(total, each):
        bond, a = each
        corner = (0, *(bond + REACH))
        stretch = jax.lax.dynamic_slice(padded, corner, u.shape) - u
        rho = bond.astype(u.dtype).reshape(-1, *(1 for _ in u[0].shape))
        s = sum(x * q + 0.5 * q * q for x, q in zip(rho, stretch, strict=True))
        there = jax.lax.dynamic_slice(weights, corner, model.weights.shape)
        return total + term(rho + stretch, s, model.weights, there, a), None

    shell_first = jnp.moveaxis(model.coefficients, 1, 0)
    return jax.lax.scan(add, start, (jnp.array(bonds), shell_first[jnp.array(shells)]))[0]


def _mixed(a, share):
    """The coefficients a_1 ... a_4 of what the groups bring together."""
    return [a[LATTICE, k] + share[0] * a[CHANGE, k] + share[1] * a[DEFECT, k] for k in range(4)]


def site_energies(model: Model, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energy of every site, and the sum of the sizes of its terms.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement on the orthant.

    Returns:
        two arrays over the orthant.
    """

    def half_bond(r, s, here, there, a):
        a1, a2, a3, a4 = _mixed(a, here)
        found = 0.5 * s * (a1 + s * (a2 / 2 + s * (a3 / 6 + s * a4 / 24)))
        return jnp.stack([found, jnp.abs(found)])

    return tuple(_over_bonds(half_bond, jnp.zeros((2, *u[0].shape)), model, u))


def energy(model: Model, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energy of the whole box, and what rounding may add to it: terms may cancel.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement on the orthant.

    Returns:
        two scalars.
    """
    found, size = site_energies(model, u)
    count = multiplicity(u.shape[1] - 1, len(u))
    return jnp.sum(count * found), 10 * jnp.finfo(u.dtype).eps * jnp.sum(count * size)


def gradient(model: Model, u: jax.Array) -> jax.Array:
    """dE/du, gathered at each site from its bonds: no pass backwards, no memory.

    A bond pulls at l along rho + D_rho u by V'(s), V the mean of what its two ends bring.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement on the orthant.

    Returns:
        (d, ...), with respect to the orthant's variables.
    """

    def pull(r, s, here, there, a):
        a1, a2, a3, a4 = _mixed(a, 0.5 * (here + there))
        return -(a1 + s * (a2 + s * (a3 / 2 + s * a4 / 6)))[None] * r

    pulls = _over_bonds(pull, jnp.zeros_like(u), model, u)
    return multiplicity(u.shape[1] - 1, len(u))[None] * pulls


def hessian_product(model: Model, u: jax.Array, v: jax.Array) -> jax.Array:
    """E''(u) v, exact.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement on the orthant.
        v: (d, ...) vector field on the orthant.

    Returns:
        (d, ...).
    """
    return jax.jvp(partial(gradient, model), (u,), (v,))[1]


def stiffness(second: ArrayLike, wave: np.ndarray) -> np.ndarray:
    """The Hessian of a homogeneous lattice for plane waves.

        Phi(k) = sum_rho a_2 rho rho^T (1 - cos k . rho)

    Args:
        second: (shells,), a_2.
        wave: (d, ...), wave vectors.

    Returns:
        (d, d, ...).
    """
    total = np.zeros((len(wave), *wave.shape))
    for bond, shell in star(len(wave)):
        phase = np.tensordot(bond, wave, axes=1)
        total += np.multiply.outer(second[shell] * np.outer(bond, bond), 1.0 - np.cos(phase))
    return total


def stability(second: ArrayLike, wave: np.ndarray) -> float:
    """The smallest eigenvalue of Phi(k) / K(k) over the wave vectors but k = 0.

    Args:
        second: (shells,), a_2.
        wave: (d, ...), wave vectors.

    Returns:
        the stability constant, K's being the unit.
    """
    blocks = np.moveaxis(stiffness(second, wave), (0, 1), (-2, -1))
    symbol = symmetric_fields.seminorm_symbol(wave)
    return float(np.min(np.linalg.eigvalsh(blocks)[symbol > 0] / symbol[symbol > 0, None]))


def reference(m: int, dimension: int) -> Model:
    """The lattice with its defect, and no change.

    Args:
        m: half the sites per side of the box; the orthant has (m + 1)^d sites.
        dimension: d, 2 or 3.

    Returns:
        the model.
    """
    second = np.array(SECOND[dimension])
    nothing = np.zeros_like(second)
    lattice = np.stack([nothing, second, THIRD * second, FOURTH * second], axis=1)
    defect = np.stack([-TENSION[dimension] * second, STIFFER * second, nothing, nothing], axis=1)
    core = np.zeros((m + 1,) * dimension)
    core[(0,) * dimension] = 1.0
    return on_device(
        Model(np.stack([lattice, 0.0 * lattice, defect]), np.stack([0.0 * core, core]))
    )


class Bonds(Protocol):
    """A model of any lattice: a pytree with a gradient."""

    def gradient(self, u: jax.Array) -> jax.Array:
        """dE/du, of the shape of u."""
        ...


class Solver(Protocol):
    """The inverse of a homogeneous lattice's Hessian."""

    def solve(self, f: jax.Array) -> jax.Array:
        """Phi^-1 f, of the shape of f."""
        ...


class Equilibrium(NamedTuple):
    """Where E'(u) equals a given load."""

    displacement: jax.Array  # (d, ...)
    residuals: list[float]  # before each Newton step and after the last, in Phi's negative norm
    products: int  # with the Hessian


def equilibrium(
    model: Bonds,
    start: jax.Array,
    load: jax.Array,
    solver: Solver,
    tolerance: float,
    inner: float = 1e-7,
) -> Equilibrium:
    """Newton's method for E'(u) = load, each step by conjugate gradients.

    Ends also where two steps do not halve the residual: look at the last one.

    Args:
        model: bonds and where they act.
        start: (d, ...) displacement.
        load: (d, ...).
        solver: the inverse of the homogeneous lattice's Hessian.
        tolerance: of the residual.
        inner: of a linear solve, relative; convergence is quadratic down to that factor a step.

    Returns:
        the displacement, with the residuals on the way.
    """
    u, residuals, products = start, [], 0
    while True:
        rest, size = residual(model, u, load, solver)
        residuals.append(float(size))
        stuck = len(residuals) > 2 and not residuals[-1] < 0.5 * residuals[-3]
        if residuals[-1] <= tolerance or stuck:
            return Equilibrium(u, residuals, products)
        step = response(model, u, np.negative(rest), solver, inner)
        u, products = np.add(u, step.solution), products + int(step.iterations)


@jax.jit
def residual(
    model: Bonds, u: jax.Array, load: jax.Array, solver: Solver
) -> tuple[jax.Array, jax.Array]:
    """E'(u) - load, and its size in the negative norm of Phi.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement.
        load: (d, ...).
        solver: the inverse of Phi.

    Returns:
        (d, ...) and a scalar.
    """
    rest = model.gradient(u) - load
    return rest, jnp.sqrt(jnp.vdot(rest, solver.solve(rest)))


@jax.jit
def response(
    model: Bonds, u: jax.Array, f: jax.Array, solver: Solver, tolerance: ArrayLike
) -> Solved:
    """E''(u)^-1 f by conjugate gradients, preconditioned by the homogeneous lattice's inverse.

    Args:
        model: bonds and where they act.
        u: (d, ...) displacement.
        f: (d, ...) force.
        solver: the inverse of the homogeneous lattice's Hessian.
        tolerance: relative, of the solve.

    Returns:
        the solution and how it was found.
    """

    def hessian(v):
        return jax.jvp(model.gradient, (u,), (v,))[1]

    return conjugate_gradients(hessian, solver.solve, f, tolerance, MAX_PRODUCTS)
