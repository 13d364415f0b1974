"""The universal screened repulsion of nuclei at short distances (Ziegler, Biersack, Littmark).

    V(r) = e^2 / (4 pi eps0) Z_i Z_j / r phi(r / a),      a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    phi(x) = 0.18175 exp(-3.19980 x) + 0.50986 exp(-0.94229 x)
           + 0.28022 exp(-0.40290 x) + 0.02817 exp(-0.20162 x)

No elements need naming. V is multiplied by a step that falls from 1 at an inner to 0 at an outer
radius, four times differentiable:

    E_i = 1/2 sum_j V(r_ij) (1 - s(t)),      t = (r_ij - inner) / (outer - inner)

Below the inner radius it is ZBL as published, above the outer nothing. As the core of a basis
(`ACESpec.core`) it replaces what a fit would make up where it has no data.

Source: J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Solids,
Pergamon (1985); the step is a choice.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import check_radii, require_x64
from lprjax.numerics.guarded import smoothstep
from lprjax.potentials.environments import Environment, over_sites
from lprjax.potentials.potential import check, nan_unless, reaches

COULOMB = 14.399645
"""e^2 / (4 pi eps0), eV Å."""
LENGTH, POWER = 0.46850, 0.23
"""Of the screening: a = LENGTH / (Z_i^POWER + Z_j^POWER), Å."""
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""(share, decay) of the exponentials of phi; the shares add up to one."""
SMOOTHNESS = 4
"""How many derivatives are continuous at the radii: of the energy up to the fourth, which the terms
of an error budget take."""


@dataclass(frozen=True)
class ZBL:
    """Site energies of the screened repulsion; make it by `zbl`.

    A frozen, hashable value, so a valid static argument of `jit`.
    """

    inner: float  # Å
    outer: float  # Å

    @property
    def r_cut(self) -> float:
        """The outer radius, Å."""
        return self.outer

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms."""
        require_x64()
        check(self, graph)
        charges = graph.species.astype(float)
        energies = over_sites(self._site, graph, charges, charges[graph.neighbours])
        energies = jnp.where(graph.atom_mask, energies, 0.0)
        return nan_unless(reaches(graph, self.r_cut), energies)

    def _site(self, site: Environment, here: jax.Array, there: jax.Array) -> jax.Array:
        """E_i of a nucleus of charge `here` () among those of charges `there` (K,)."""
        mask = site.mask & (site.lengths < self.outer)
        # beyond, every number is replaced, so that no derivative has anything to go by
        r = jnp.where(mask, site.lengths, self.outer)
        x = r * (here**POWER + there**POWER) / LENGTH
        phi = sum(share * jnp.exp(-decay * x) for share, decay in SCREENING)
        fall = 1.0 - smoothstep((r - self.inner) / (self.outer - self.inner), SMOOTHNESS)
        return 0.5 * jnp.sum(jnp.where(mask, COULOMB * here * there / r * phi * fall, 0.0))


def zbl(inner: float, outer: float) -> ZBL:
    """The universal repulsion of nuclei, switched off between two radii.

    Args:
        inner: Å, up to where it is ZBL as published.
        outer: Å, from where it is zero: below the distances that other terms describe.

    Returns:
        The potential, for all elements.

    Raises:
        ValueError: radii that are not 0 < inner < outer.

    Source: Ziegler, Biersack, Littmark (1985); see the top of the file.
    """
    inner, outer = check_radii("the radii of zbl", (inner, outer))
    return ZBL(inner, outer)
