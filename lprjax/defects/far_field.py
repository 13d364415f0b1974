"""What two potentials disagree about in the far field of a defect, order by order.

Far from its core a defect is the homogeneous lattice under a small, slowly varying displacement.
With w the displacement there, cut off smoothly towards the core, and E(w) the energy of the
*complete* lattice, the forces of the lattice are

    F(w) = F_1[w] + 1/2 F_2[w, w] + ... ,     F_n the (n + 1)-th derivatives of -E at w = 0,

and each order has a part that the elastic constants carry: the force of the Cauchy-Born energy, the
crystal's energy density (to third order) of the gradient at each site times the volume per site,

    E_CB(w) = V_0 sum_l W(Gw(l)),   Gw(l) = sum_rho (w(l + rho) - w(l)) rho^T M^-1,
    M = sum_rho rho rho^T .

Site energies play no part: they are not observable, total forces are.
Derived, in the setting of Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import Structure, minimum_image
from lprjax.atoms.voigt import engineering_strain
from lprjax.crystals.elasticity import elastic_constants, third_order_constants
from lprjax.defects.defect import Defect
from lprjax.numerics.guarded import smoothstep
from lprjax.potentials.potential import as_argument, cutoff_of


def far_field(defect: Defect, displacement, radius: float) -> Array:
    """The displacement of a defect beyond its core, zero inside: what the lattice is under there.

    w(l) = chi(|l| / radius) (u(l) - a), chi rising smoothly (C2) from 0 at radius / 2 to 1 at
    radius, a the mean of u between the two, so that cutting off adds no strain of its own.

    displacement: (n_sites, 3) A. radius: A. Returns (n_regular, 3) A, on the complete lattice.
    Raises ValueError where no atom lies between radius / 2 and radius, or none beyond it.
    """
    n = defect.reference.n_atoms
    distances = defect.distances()[:n]
    present = np.asarray(defect.lattice.present)[:n]
    rim = present & (distances > 0.5 * radius) & (distances < radius)
    if not (rim.any() and np.any(distances > radius)):
        raise ValueError(
            f"radius is {radius} A, but the sites reach from 0 to {distances.max():.2f} A: wanted "
            "one with atoms beyond it and between half of it and it."
        )
    chi = smoothstep(2.0 * jnp.asarray(distances) / radius - 1.0)
    u = jnp.asarray(displacement)[:n]
    return chi[:, None] * (u - jnp.mean(u, axis=0, where=jnp.asarray(rim)[:, None]))


class Orders(NamedTuple):
    """Forces (n, 3) eV/A and energies eV of the complete lattice under w, order by order."""

    first: Array  # F_1[w]
    second: Array  # F_2[w, w] / 2
    rest: Array  # F(w) - F(0) - first - second
    at_rest: Array  # F(0), zero where every site is a centre of symmetry
    energies: Array  # (3,): of first, second and rest, E(w) - E(0) less the linear term


def lattice_orders(potential, reference: Structure, w) -> Orders:
    """The forces of the complete lattice under a displacement, split by order, by autodiff.

    potential: callable graph -> site energies (n,), eV. reference: the supercell, its n atoms on
    their sites. w: (n, 3) A.
    """
    w = jnp.asarray(w)
    farthest = float(jnp.max(jnp.linalg.norm(w, axis=1)))
    graph = build_graph(reference, cutoff_of(potential), skin=2.0 * farthest + 1e-6)
    return _orders(as_argument(potential, "potential"), graph, w)


@jax.jit
def _orders(potential, graph, w):
    n = w.shape[0]
    padded = jnp.zeros_like(graph.positions).at[:n].set(w)

    def sites(t):
        moving = moved(graph, graph.positions + t * padded)
        return jnp.where(graph.atom_mask, potential(moving), 0.0)

    def forces(t):
        energy = lambda x: jnp.sum(potential(moved(graph, x)), where=graph.atom_mask)  # noqa: E731
        return -jax.grad(energy)(graph.positions + t * padded)[:n]

    def slope(t):
        return jax.jvp(forces, (t,), (jnp.ones_like(t),))

    zero = jnp.zeros(())
    (at_rest, first), (_, second) = jax.jvp(slope, (zero,), (zero + 1.0,))
    second = 0.5 * second
    rest = forces(zero + 1.0) - at_rest - first - second
    # Site by site, so that the energies of many atoms do not drown the difference.
    rise = jnp.sum(sites(zero + 1.0) - sites(zero)) + jnp.vdot(at_rest, w)
    orders = jnp.stack([-0.5 * jnp.vdot(first, w), -jnp.vdot(second, w) / 3.0])
    return Orders(first, second, rest, at_rest, jnp.append(orders, rise - jnp.sum(orders)))


class SiteGradient(NamedTuple):
    """Gw(l), the gradient of a lattice function: exact for a homogeneous one.

    neighbours: (n, S) int32. weights: (n, S, 3) 1/A, M^-1 rho; zero on padded slots.
    """

    neighbours: Array
    weights: Array

    def __call__(self, w) -> Array:
        """(n, 3) A -> (n, 3, 3), [l, i, j] = dw_i / dx_j."""
        return jnp.einsum("lsi,lsj->lij", w[self.neighbours] - w[:, None, :], self.weights)


def site_gradient(defect: Defect) -> SiteGradient:
    """The gradient over the bonds of the defect's seminorm, on the complete lattice.

    The supercell must be wider than twice the stencil: bonds go to the nearest image.
    """
    n = defect.reference.n_atoms
    table = np.asarray(defect.lattice.complete)
    positions = np.asarray(defect.reference.positions)
    offsets = (positions[table] - positions[:, None]).reshape(-1, 3)
    bonds = minimum_image(offsets, defect.reference)[0].reshape(*table.shape, 3)
    bonds[table == np.arange(n)[:, None]] = 0.0  # padded slots
    moments = np.einsum("lsi,lsj->lij", bonds, bonds)
    # A pseudo-inverse for lattices in the plane, whose bonds know nothing of z.
    return SiteGradient(jnp.asarray(table), jnp.asarray(bonds @ np.linalg.pinv(moments)))


class CauchyBorn(NamedTuple):
    """The energy of a lattice that feels its own gradient only, to third order.

    Per volume, with H the gradient, e = (H + H^T) / 2, and from the crystal's stress s, elastic
    constants C and third-order ones C3 (Brugger's, in the Lagrangian strain e + H^T H / 2):

        second order   C[e, e] / 2 + s : (H^T H - e e) / 2
        third order    (C[e, g] - s : (e g + g e) / 2) + C3[e, e, e] / 6,   g = H^T H / 2
    """

    gradient: SiteGradient
    site_volume: float  # A^3
    stress: Array  # (6,) eV/A^3, Voigt
    second: Array  # (6, 6) eV/A^3, as `lattice.elastic_constants` defines them
    third: Array  # (6, 6, 6) eV/A^3

    def densities(self, slope) -> Array:
        """(2,) eV/A^3, of second and of third order in a homogeneous gradient H (3, 3)."""
        e, g = 0.5 * (slope + slope.T), 0.5 * slope.T @ slope
        strain, stretch = engineering_strain(e), engineering_strain(g)
        stress = lambda m: self.stress @ engineering_strain(m)  # noqa: E731
        second = 0.5 * strain @ self.second @ strain + stress(g - 0.5 * e @ e)
        third = strain @ self.second @ stretch - stress(e @ g)
        cubic = jnp.einsum("ijk,i,j,k->", self.third, strain, strain, strain)
        return jnp.stack([second, third + cubic / 6.0])

    def energies(self, w) -> Array:
        """(2,) eV of a lattice function w (n, 3) A: of second and of third order."""
        return _cauchy_born_energies(self, w)

    def forces(self, w) -> tuple[Array, Array]:
        """Two (n, 3) eV/A: of first and of second order in w."""
        first, second = _cauchy_born_forces(self, w)
        return first, second


@jax.jit
def _cauchy_born_energies(model: CauchyBorn, w):
    return model.site_volume * jnp.sum(jax.vmap(model.densities)(model.gradient(w)), axis=0)


@jax.jit
def _cauchy_born_forces(model: CauchyBorn, w):
    return -jax.jacrev(_cauchy_born_energies, argnums=1)(model, w)


def cauchy_born(potential, defect: Defect) -> CauchyBorn:
    """The Cauchy-Born energy of the crystal that a defect lives in.

    The crystal is the cell that the defect repeats, with no forces on its atoms; in a multilattice
    the sublattices follow the strain (relaxed constants).
    """
    cell = defect.unit_cell
    elasticity, third = elastic_constants(potential, cell), third_order_constants(potential, cell)
    return CauchyBorn(
        gradient=site_gradient(defect),
        site_volume=float(defect.reference.volume) / defect.reference.n_atoms,
        stress=jnp.asarray(elasticity.stress),
        second=jnp.asarray(elasticity.relaxed),
        third=jnp.asarray(third.relaxed),
    )


def cauchy_born_mismatch(reference, surrogate, defect: Defect) -> CauchyBorn:
    """The Cauchy-Born energy of the surrogate less that of the reference."""
    theirs, ours = (cauchy_born(potential, defect) for potential in (reference, surrogate))
    return ours._replace(
        stress=ours.stress - theirs.stress,
        second=ours.second - theirs.second,
        third=ours.third - theirs.third,
    )
