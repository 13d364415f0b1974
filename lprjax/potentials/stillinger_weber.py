"""Stillinger–Weber silicon (1985).

With x = r / sigma and the soft step u(x; c) = exp(c / (x - a)) for x < a, 0 beyond,

    E_i = 1/2 sum_j epsilon A (B x_ij^-4 - 1) u(x_ij; 1)
        + sum_{j<k} epsilon lambda u(x_ij; gamma) u(x_ik; gamma) (cos theta_jik + 1/3)^2.

The sum over pairs of neighbours is not taken pair by pair: with weights u_j and unit vectors n_j,

    sum_{j,k} u_j u_k (n_j . n_k + 1/3)^2 = |sum u n n^T|^2 + 2/3 |sum u n|^2 + 1/9 (sum u)^2,

an identity, so the cost is linear in the number of neighbours; the diagonal j = k is subtracted.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64
from lprjax.numerics.guarded import inverse
from lprjax.potentials.environments import Environment, over_sites
from lprjax.potentials.potential import (
    check,
    check_species,
    nan_unless,
    reaches,
    species_index,
)

SILICON = 14  # atomic number


@dataclass(frozen=True)
class StillingerWeber:
    """Site energies of Stillinger–Weber silicon; make it by `stillinger_weber`.

    A frozen, hashable value, so a valid static argument of `jit`. The three-body energy belongs to
    the atom at the vertex. All derivatives vanish at the cutoff.
    """

    epsilon: float = 2.1683  # eV
    sigma: float = 2.0951  # Å
    a: float = 1.80  # the cutoff, in sigma
    lam: float = 21.0  # lambda
    gamma: float = 1.20
    A: float = 7.049556277
    B: float = 0.6022245584

    @property
    def r_cut(self) -> float:
        """a sigma, Å."""
        return self.a * self.sigma

    def check(self, graph: Graph) -> None:
        """Refuse a graph of other elements than silicon.

        Args:
            graph: what is traced of it passes unchecked.

        Raises:
            ValueError: another element.
        """
        check_species(graph.species, {"Si": SILICON}, "stillinger_weber")

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms."""
        require_x64()
        check(self, graph)
        energies = over_sites(self._site, graph)
        index = species_index(graph.species, (SILICON,))
        known = reaches(graph, self.r_cut) & jnp.all(index >= 0)
        return nan_unless(known, jnp.where(graph.atom_mask, energies, 0.0))

    def _site(self, site: Environment) -> jax.Array:
        r = site.lengths
        mask = site.mask & (r < self.r_cut)
        # the argument is guarded: at and beyond the cutoff the exponent's derivatives are infinite
        x = jnp.where(mask, r * (1.0 / self.sigma), 0.5 * self.a)
        soft, one_over_r = inverse(x - self.a), inverse(r)
        u = jnp.where(mask, jnp.exp(self.gamma * soft), 0.0)
        pair = jnp.where(mask, (self.B * inverse((x * x) ** 2) - 1.0) * jnp.exp(soft), 0.0)
        angles = self._angles(u, tuple(a * one_over_r for a in (site.x, site.y, site.z)))
        return self.epsilon * (0.5 * self.A * jnp.sum(pair) + self.lam * angles)

    @staticmethod
    def _angles(u: jax.Array, n: tuple[jax.Array, ...]) -> jax.Array:
        """sum_{j<k} u_j u_k (n_j . n_k + 1/3)^2, shape ()."""
        weighted = [u * n_a for n_a in n]
        tensor = sum(
            (1.0 if a == b else 2.0) * jnp.sum(weighted[a] * n[b]) ** 2
            for a in range(3)
            for b in range(a + 1)
        )
        vector = sum(jnp.sum(w) ** 2 for w in weighted)
        all_pairs = tensor + 2.0 / 3.0 * vector + jnp.sum(u) ** 2 / 9.0
        diagonal = 16.0 / 9.0 * jnp.sum(u * u)
        return 0.5 * (all_pairs - diagonal)


def stillinger_weber() -> StillingerWeber:
    """Stillinger–Weber silicon: diamond at a = 5.43095 Å with -4.336600 eV per atom.

    epsilon = 2.1683 eV and sigma = 2.0951 Å, the rounding in general use (LAMMPS's table).

    Returns:
        The potential.

    Source: F. H. Stillinger, T. A. Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.7.
    """
    return StillingerWeber()
