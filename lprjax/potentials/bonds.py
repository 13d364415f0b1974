"""Lattices of polynomial bonds: a potential whose derivatives of each order are set one by one.

The site energy is half the energy of the site's bonds, each a polynomial in its extension
beyond the rest length of its shell of neighbours,

    E_i = 1/2 sum_j V(r_ij),   V(r) = sum_k c_{s,k} (r - r_s)^k,   s = the shell of bond ij.

If the r_s are the shell radii of a lattice, k! c_{s,k} is the k-th derivative of the bond energy
there: k = 1 sets the stress, k = 2 the force constants, k = 3 and 4 the third and fourth
derivatives of the lattice energy. One kind can thus be perturbed and the others kept, which is
what a study of error rates needs. A potential of this kind has no physics in it far from the
lattice (bonds cannot break). In the plane z = 0 forces stay in the plane; the out-of-plane
force constants are those of bonds under tension, V'(r) / r, and belong to no planar problem.
Source: derived.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PolynomialBonds:
    """Site energies of polynomial bonds; make it by `polynomial_bonds`.

    A pytree: new values of the same shapes need no recompilation, and results can be
    differentiated in `coefficients` and `rest_lengths`. The elements of the atoms play no part.

    As made, a bond belongs to the shell whose radius is nearest to its present length, and to
    none from r_cut on: right for any graph of the lattice as long as no bond changes by more than
    half the gap between shells, with a silent jump in energy if one does. `pinned` fixes the
    topology for good.

    Attributes:
        coefficients: c, (G, S, P + 1) eV/Å^k; G groups of sites, S shells, order P.
        rest_lengths: r_s, (S,) Å.
        shells: (n, K) int32, the shell of each edge of one graph, -1 for no bond; None: by the
            present lengths.
        groups: (n,) int32, the group of each site of that graph; None: one group.
        radii: the S shell radii that sort edges into shells, Å; static.
        r_cut: length from which an edge is no bond, Å; static.
    """

    coefficients: jax.Array
    rest_lengths: jax.Array
    shells: jax.Array | None
    groups: jax.Array | None
    radii: tuple[float, ...] = field(metadata=dict(static=True))
    r_cut: float = field(metadata=dict(static=True))

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms."""
        require_x64()
        if self.groups is None and self.coefficients.shape[0] > 1:
            raise ValueError(
                f"coefficients hold {self.coefficients.shape[0]} groups of sites: wanted one, or "
                "pinned bonds; use those that pinned(graph, groups) returns."
            )
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        shells = self._sorted_into_shells(graph) if self.shells is None else self.shells
        if shells.shape != r.shape:
            raise ValueError(
                f"the edge table of the graph has shape {r.shape}: wanted {shells.shape}, for the "
                "bonds are pinned to a graph of that shape; pin the unpinned bonds to this graph."
            )
        bonded = graph.edge_mask & (shells >= 0)
        safe = jnp.where(bonded, shells, 0)
        extension = jnp.where(bonded, r - self.rest_lengths[safe], 0.0)
        table = self._edge_table(safe)
        energy = table[..., -1]
        for k in range(table.shape[-1] - 2, -1, -1):
            energy = table[..., k] + extension * energy
        return 0.5 * jnp.sum(jnp.where(bonded, energy, 0.0), axis=1)

    def pinned(
        self, graph: Graph, groups: ArrayLike | Sequence[int] | None = None
    ) -> "PolynomialBonds":
        """The same bonds with the topology, shells and groups of one graph, kept when atoms move.

        Args:
            graph: the *reference* configuration, whose bond lengths decide the shells.
            groups: an integer from 0 to G - 1 for each atom of the graph (padding atoms may be
                left off); None where there is one group. A bond between two groups has the mean
                of their polynomials (each end brings half a bond).

        Returns:
            The bonds for this graph, and for what `moved` makes of it.

        Raises:
            ValueError: groups missing, of the wrong length or outside 0 ... G - 1.
        """
        n, n_groups = graph.species.shape[0], self.coefficients.shape[0]
        if groups is None:
            if n_groups > 1:
                raise ValueError(
                    f"groups is None, but coefficients hold {n_groups} groups of sites: wanted one "
                    "integer per atom of the graph."
                )
            return replace(self, shells=self._sorted_into_shells(graph), groups=None)
        given = np.asarray(groups)
        n_real = int(np.sum(np.asarray(graph.atom_mask)))
        if given.ndim != 1 or not n_real <= len(given) <= n:
            raise ValueError(
                f"groups has shape {given.shape}: wanted one integer for each of the {n_real} "
                f"atoms of the graph ({n} with padding)."
            )
        if np.any((given < 0) | (given >= n_groups)):
            raise ValueError(
                f"groups run from {given.min()} to {given.max()}: wanted 0 ... {n_groups - 1}, "
                "the first axis of coefficients."
            )
        padded = np.zeros(n, dtype=np.int32)
        padded[: len(given)] = given
        shells = self._sorted_into_shells(graph)
        return replace(self, shells=shells, groups=jnp.asarray(padded))

    def _sorted_into_shells(self, graph: Graph) -> jax.Array:
        """Index of the nearest shell by present length, -1 from r_cut on; shape (n, K)."""
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        radii = np.array(self.radii)
        nearest = jnp.searchsorted(jnp.asarray(0.5 * (radii[1:] + radii[:-1])), r)
        return jnp.where(graph.edge_mask & (r < self.r_cut), nearest, -1).astype(jnp.int32)

    def _edge_table(self, shells: jax.Array) -> jax.Array:
        """Coefficients of each edge, shape (n, K, P + 1)."""
        if self.groups is None:
            return self.coefficients[0][shells]
        return self.coefficients[self.groups[:, None], shells]


def polynomial_bonds(
    radii: ArrayLike | Sequence[float],
    coefficients: ArrayLike | Sequence[Any],
    *,
    r_cut: float | None = None,
) -> PolynomialBonds:
    """Bonds to the given shells of neighbours, each a polynomial in its extension.

    Args:
        radii: r_s, (S,) Å, ascending shell radii; also the rest lengths the polynomials are
            expanded about.
        coefficients: c_{s,k}, (S, P + 1) eV/Å^k, k = 0 ... P the power, of any order P; or
            (G, S, P + 1) for G groups of sites, to be used after `pinned`.
        r_cut: length from which an edge is no bond, Å; by default the last radius plus half the
            smallest gap between neighbouring radii (half the radius for one shell).

    Returns:
        The bonds, not pinned to a graph.

    Raises:
        RuntimeError: float64 is off.
        ValueError: radii not positive and ascending, shapes that do not fit, values that are not
            finite, or r_cut below the last radius.
    """
    require_x64()
    radii = np.asarray(radii, dtype=float)
    ascend = radii.ndim == 1 and len(radii) and np.all(np.diff(radii, prepend=0.0) > 0.0)
    if not (ascend and np.isfinite(radii[-1])):
        raise ValueError(
            f"radii is {radii}: wanted positive, finite numbers that ascend, shape (S,), in Å."
        )
    gap = np.min(np.diff(radii)) if len(radii) > 1 else radii[0]
    r_cut = float(radii[-1] + 0.5 * gap) if r_cut is None else float(r_cut)
    if not radii[-1] < r_cut < np.inf:
        raise ValueError(
            f"r_cut is {r_cut} Å: wanted a length beyond the last shell, {radii[-1]} Å."
        )
    coefficients = jnp.asarray(coefficients, dtype=float)
    if coefficients.ndim == 2:
        coefficients = coefficients[None]
    if coefficients.ndim != 3 or coefficients.shape[1] != len(radii) or not coefficients.shape[2]:
        raise ValueError(
            f"coefficients has shape {coefficients.shape}: wanted (S, P + 1) or (G, S, P + 1) "
            f"with S = {len(radii)} shells."
        )
    if not np.all(np.isfinite(np.asarray(coefficients))):
        raise ValueError("coefficients hold NaN or infinity: wanted finite numbers.")
    return PolynomialBonds(
        coefficients=coefficients,
        rest_lengths=jnp.asarray(radii),
        shells=None,
        groups=None,
        radii=tuple(radii.tolist()),
        r_cut=r_cut,
    )
