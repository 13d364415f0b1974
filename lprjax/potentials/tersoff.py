"""Tersoff silicon (1988, 1989).

    E_i = 1/2 sum_j f(r_ij) [A exp(-lambda1 r_ij) - b_ij B exp(-lambda2 r_ij)]
    b_ij = (1 + (beta zeta_ij)^n)^(-1/(2n)),   zeta_ij = sum_{k != j} f(r_ik) g(theta_jik)
    g(theta) = 1 + c^2/d^2 - c^2 / (d^2 + (h - cos theta)^2)
    f(r) = 1 for r < R - D,  1/2 - 1/2 sin(pi/2 (r - R)/D),  0 for r > R + D

The energy is once continuously differentiable and no more: f'' jumps at R - D and at R + D, and
where the last other neighbour of a bond leaves at R + D, zeta^n with n < 1 has a second
derivative without bound. A structure with bonds exactly there (2.7 and 3.0 Å) has no force
constants; the numbers returned are finite, and mean nothing. Diamond, its elastic constants and
its vacancies are far from both: the second neighbours of the crystal are at 3.84 Å.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64
from lprjax.potentials.potential import (
    check,
    check_species,
    nan_unless,
    reaches,
    species_index,
)

SILICON = 14  # atomic number


@dataclass(frozen=True)
class Tersoff:
    """Site energies of Tersoff silicon; make it by `tersoff`.

    A frozen, hashable value, so a valid static argument of `jit`. The energy of a bond, which
    differs between its two ends, is shared half and half of each. The angles are taken pair by
    pair: work and memory grow as the square of the graph's slots per atom, so give it no wider a
    graph than it needs.
    """

    A: float = 1830.8  # eV
    B: float = 471.18  # eV
    lambda1: float = 2.4799  # 1/Å
    lambda2: float = 1.7322  # 1/Å
    beta: float = 1.1e-6
    n: float = 0.78734
    c: float = 1.0039e5
    d: float = 16.217
    h: float = -0.59825
    R: float = 2.85  # Å
    D: float = 0.15  # Å

    @property
    def r_cut(self) -> float:
        """R + D, Å."""
        return self.R + self.D

    def check(self, graph: Graph) -> None:
        """Refuse a graph of other elements than silicon.

        Args:
            graph: what is traced of it passes unchecked.

        Raises:
            ValueError: another element.
        """
        check_species(graph.species, {"Si": SILICON}, "tersoff")

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms."""
        require_x64()
        check(self, graph)
        vectors = graph.vectors()
        r = jnp.linalg.norm(vectors, axis=-1)
        cutoff = jnp.where(graph.edge_mask, self._cutoff(r), 0.0)
        order = self._bond_order(cutoff, vectors / r[:, :, None])
        repulsion = self.A * jnp.exp(-self.lambda1 * r)
        attraction = self.B * jnp.exp(-self.lambda2 * r)
        energies = 0.5 * jnp.sum(cutoff * (repulsion - order * attraction), axis=1)
        index = species_index(graph.species, (SILICON,))
        known = reaches(graph, self.r_cut) & jnp.all(index >= 0)
        return nan_unless(known, jnp.where(graph.atom_mask, energies, 0.0))

    def _cutoff(self, r: jax.Array) -> jax.Array:
        return 0.5 - 0.5 * jnp.sin(0.5 * jnp.pi * jnp.clip((r - self.R) / self.D, -1.0, 1.0))

    def _bond_order(self, cutoff: jax.Array, units: jax.Array) -> jax.Array:
        """b_ij (n, K): 1 for the bond of a dimer, less the more other bonds atom i has."""
        cosines = jnp.einsum("ija,ika->ijk", units, units)
        c2, d2 = self.c**2, self.d**2
        angular = 1.0 + c2 / d2 - c2 / (d2 + (self.h - cosines) ** 2)
        others = 1.0 - jnp.eye(cutoff.shape[1])
        x = self.beta * jnp.einsum("ik,ijk,jk->ij", cutoff, angular, others)
        # the argument is guarded: x^n with n < 1 has an infinite slope at zero
        power = jnp.where(x > 0.0, jnp.where(x > 0.0, x, 1.0) ** self.n, 0.0)
        return (1.0 + power) ** (-0.5 / self.n)


def tersoff() -> Tersoff:
    """Tersoff silicon: diamond at a = 5.432 Å with -4.6296 eV per atom.

    The parameters are those of 1989 (LAMMPS's SiC_1989.tersoff). The potential of 1988 that they
    round, "T3" or Si(C), has a further factor exp(lambda3^3 (r_ij - r_ik)^3) in zeta, which leaves
    the crystal's derivatives up to the third as they are, but not its defects.

    Returns:
        The potential.

    Source: J. Tersoff, Phys. Rev. B 39, 5566 (1989), and 38, 9902 (1988).
    """
    return Tersoff()
