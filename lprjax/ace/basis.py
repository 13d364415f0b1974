"""The site basis of the linear atomic cluster expansion.

    E_i = sum_k c_k B_k(i),   B_k = sum_p U_kp A_p1 … A_pv,   A_znlm(i) = sum_{j: z_j = z} R_n Y_lm

(Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454 (2022) 110946.)
The indices are those of `spec`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from lprjax.ace.angular import spherical_harmonics
from lprjax.ace.radial import many_body_radial, pair_radial
from lprjax.ace.spec import ACESpec, tables
from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64
from lprjax.potentials.potential import check_reach


def species_one_hot(spec: ACESpec, species: jnp.ndarray) -> jnp.ndarray:
    """One-hot rows of atomic numbers, (..., n_elements); zero rows for padding (species 0)."""
    return (species[..., None] == jnp.asarray(spec.numbers)).astype(float)


def radial_functions_and_slopes(spec: ACESpec, r: jnp.ndarray, edge_mask: jnp.ndarray):
    """Many-body and pair radial functions of distances r (...) in Å, each (n_max, ...), and their
    slopes in 1/Å; zero on padded edges and beyond the cutoff."""
    options = dict(r0=spec.r0, r_cut=spec.r_cut, n_max=spec.degree, power=spec.cutoff_power)
    found = many_body_radial(r, **options), pair_radial(r, **options)
    return tuple(
        zip(*jax.tree.map(lambda x: jnp.where(edge_mask[None], x, 0.0), found), strict=True)
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def radial_functions(spec: ACESpec, r: jnp.ndarray, edge_mask: jnp.ndarray):
    """Many-body and pair radial functions, as above; differentiated by their slopes."""
    return radial_functions_and_slopes(spec, r, edge_mask)[0]


@radial_functions.defjvp
def _radial_functions_jvp(spec, primals, tangents):
    values, slopes = radial_functions_and_slopes(spec, *primals)
    return values, tuple(slope * tangents[0][None] for slope in slopes)


class Sites(NamedTuple):
    """What the site functions of n atoms depend on."""

    edges: jax.Array  # (n, K, 3) Å
    edge_mask: jax.Array  # (n, K)
    others: jax.Array  # (n, K) atomic numbers of the neighbours


def sites_of(graph: Graph) -> Sites:
    """The surroundings of every atom."""
    return Sites(graph.vectors(), graph.edge_mask, graph.species[graph.neighbours])


def atomic_base(spec: ACESpec, sites: Sites) -> tuple[jnp.ndarray, jnp.ndarray]:
    """A, shape (V + 1, n) with the unit channel last, and pair sums (n_elements * n_max, n).

    Atoms are the last axis from here on: products gather whole rows.
    """
    vectors = jnp.moveaxis(sites.edges, -1, 0)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=0))
    radial, pair = radial_functions(spec, r, sites.edge_mask)
    angular = spherical_harmonics(vectors / r[None], tables(spec).l_max)
    one_hot = species_one_hot(spec, sites.others)
    by_species = jnp.moveaxis(one_hot, -1, 0)[:, None] * radial[None]  # (z, n_max, n, K)
    grid = jnp.einsum("znis,yis->znyi", by_species, angular)
    z, n, l, m = tables(spec).channels.T
    base = grid[z, n - 1, l * l + l + m]
    pairs = jnp.einsum("isz,nis->zni", one_hot, pair)
    unit = jnp.ones((1, base.shape[1]))
    return jnp.concatenate([base, unit]), pairs.reshape(-1, pairs.shape[-1])


@partial(jax.jit, static_argnums=0)
def _site_functions(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    """B_k(i) of each atom's own species, (n_functions, n)."""
    t = tables(spec)
    base, pairs = atomic_base(spec, sites_of(graph))
    constant = jnp.ones((int(spec.constant), base.shape[1]))
    return jnp.concatenate([t.sums(base), pairs, constant])


def site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    """The basis functions of every site, B(i), shape (n, n_columns), dimensionless.

    E_i = B(i) . c; row i is zero outside the block of its own species and on padding atoms.
    Raises ValueError for species that the specification lacks, RuntimeError without float64.
    """
    check_graph(spec, graph)
    return _site_basis(spec, graph)


@partial(jax.jit, static_argnums=0)
def _site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    own = species_one_hot(spec, graph.species)
    blocks = own[:, :, None] * _site_functions(spec, graph).T[:, None, :]
    return blocks.reshape(len(own), -1)


def check_graph(spec: ACESpec, graph: Graph) -> None:
    """Raise ValueError unless every atom's species is among `spec.elements` and the graph reaches
    as far as the basis; traced graphs pass unchecked."""
    require_x64()
    check_reach(graph, spec.r_cut, "the ACE basis")
    if isinstance(graph.species, jax.core.Tracer):
        return
    strangers = set(np.unique(np.asarray(graph.species)).tolist()) - {0, *spec.numbers}
    if strangers:
        names = sorted(chemical_symbols[z] for z in strangers)
        raise ValueError(
            f"unknown species: the structure has {', '.join(names)}, the basis was built for "
            f"{', '.join(spec.elements)}; add them to ACESpec(elements=...)"
        )


class OnBasis:
    """What every potential with a `spec` has: the reach of its basis, and what it refuses."""

    spec: ACESpec

    @property
    def r_cut(self) -> float:
        """Cutoff in Å."""
        return self.spec.r_cut

    def check(self, graph: Graph) -> None:
        """Raise ValueError for species that the specification lacks, or a graph that ends short."""
        check_graph(self.spec, graph)
