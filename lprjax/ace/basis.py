"""The site basis of the linear atomic cluster expansion.

    E_i = sum_k c_k B_k(i),   B_k = sum_p U_kp A_p1 … A_pv,   A_znlm(i) = sum_{j: z_j = z} R_n Y_lm

(Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454 (2022) 110946.)
The indices are those of `spec`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jax.core import Tracer

from lprjax.ace.angular import spherical_harmonics
from lprjax.ace.radial import many_body_radial, pair_radial
from lprjax.ace.spec import ACESpec, SharedSpec, tables
from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import require_x64
from lprjax.potentials.potential import check_reach, nan_unless, reaches
from lprjax.potentials.zbl import ZBL


def species_one_hot(spec: ACESpec | SharedSpec, species: jax.Array) -> jax.Array:
    """One-hot rows of atomic numbers.

    Args:
        spec: whose elements give the order of the columns.
        species: atomic numbers, (...).

    Returns:
        0 or 1, (..., n_elements); zero rows for padding (species 0), NaN for elements that the
        spec lacks, which no check can refuse under `jit`.
    """
    numbers = jnp.expand_dims(jnp.asarray(spec.numbers, int), tuple(range(species.ndim)))
    is_this = species[..., None] == numbers
    known = (species == 0) | is_this.any(axis=-1)
    return jnp.where(known[..., None], is_this.astype(float), jnp.nan)


def centres(spec: ACESpec | SharedSpec, graph: Graph) -> jax.Array:
    """One-hot species of the atoms of a graph, by which every site's values are multiplied.

    Args:
        spec: whose elements give the order of the columns.
        graph: of n atoms, padding included.

    Returns:
        As `species_one_hot`, (n, n_elements); NaN where the graph ends short of the basis.
    """
    return nan_unless(reaches(graph, spec.r_cut), species_one_hot(spec, graph.species))


def radial_functions_and_slopes(
    spec: ACESpec | SharedSpec, r: jax.Array, edge_mask: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Many-body and pair radial functions of the edges, and their slopes.

    Args:
        spec: of the basis.
        r: lengths, (...), Å.
        edge_mask: (...) bool, False on padded edges.

    Returns:
        (many-body, pair) functions, dimensionless, and (many-body, pair) slopes, 1/Å, each
        (n_max, ...); zero on padded edges and beyond the cutoff.
    """
    return _with_slopes(*_radial_kind(spec), r, edge_mask)


def radial_functions(
    spec: ACESpec | SharedSpec, r: jax.Array, edge_mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Many-body and pair radial functions of the edges; differentiated by their slopes.

    Args:
        spec: of the basis, whose lengths are constants.
        r: lengths, (...), Å.
        edge_mask: (...) bool, False on padded edges.

    Returns:
        (many-body, pair), dimensionless, each (n_max, ...), as `radial_functions_and_slopes`.
    """
    return _radial_functions(*_radial_kind(spec), r, edge_mask)


class _Lengths(NamedTuple):
    r0: Any  # Å
    r_cut: Any  # Å
    core: Any  # two, Å, or None


def _radial_kind(spec: ACESpec | SharedSpec) -> tuple[tuple[int, int], _Lengths]:
    """Number of functions and power of the cutoff, and the lengths, which may be traced."""
    return (spec.degree, spec.cutoff_power), _Lengths(spec.r0, spec.r_cut, spec.core)


def _with_slopes(kind: tuple[int, int], lengths: _Lengths, r: jax.Array, edge_mask: jax.Array):
    options: dict[str, Any] = lengths._asdict() | dict(n_max=kind[0], power=kind[1])
    found = many_body_radial(r, **options), pair_radial(r, **options)
    found = jax.tree.map(lambda x: jnp.where(edge_mask[None], x, 0.0), found)
    (many_body, many_body_slopes), (pair, pair_slopes) = found
    return (many_body, pair), (many_body_slopes, pair_slopes)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _radial_functions(kind, lengths, r, edge_mask):
    return _with_slopes(kind, lengths, r, edge_mask)[0]


@_radial_functions.defjvp
def _radial_functions_jvp(kind, primals, tangents):
    values, slopes = _with_slopes(kind, *primals)
    return values, tuple(slope * tangents[1][None] for slope in slopes)


class Sites(NamedTuple):
    """What the site functions of n atoms depend on."""

    edges: jax.Array  # (n, K, 3) Å
    edge_mask: jax.Array  # (n, K) bool
    others: jax.Array  # (n, K) atomic numbers of the neighbours


def sites_of(graph: Graph) -> Sites:
    """The surroundings of every atom."""
    return Sites(graph.vectors(), graph.edge_mask, graph.species[graph.neighbours])


def atomic_base(spec: ACESpec | SharedSpec, sites: Sites) -> tuple[jax.Array, jax.Array]:
    """The channels A of every site, and the sums of its pair functions.

    Atoms are the last axis from here on: products gather whole rows.

    Args:
        spec: of the basis.
        sites: the surroundings of n atoms.

    Returns:
        A, (V + 1, n) with the unit channel last, and the pair sums, (n_elements * n_max, n),
        dimensionless.
    """
    vectors = jnp.moveaxis(sites.edges, -1, 0)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=0))
    radial, pair = radial_functions(spec, r, sites.edge_mask)
    angular = spherical_harmonics(vectors / r[None], tables(spec).l_max)
    return base_of_edges(spec, sites.others, radial, pair, angular)


def base_of_edges(
    spec: ACESpec | SharedSpec,
    others: jax.Array,
    radial: jax.Array,
    pair: jax.Array,
    angular: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The same from the functions of the edges.

    Args:
        spec: of the basis.
        others: atomic numbers of the neighbours, (n, K).
        radial: many-body radial functions, (n_max, n, K), zero on padded edges.
        pair: pair functions, (n_max, n, K), zero there too.
        angular: spherical harmonics, ((l_max+1)^2, n, K).

    Returns:
        As `atomic_base`.
    """
    one_hot = species_one_hot(spec, others)
    by_species = jnp.moveaxis(one_hot, -1, 0)[:, None] * radial[None]  # (z, n_max, n, K)
    grid = jnp.einsum("znis,yis->znyi", by_species, angular)
    z, n, l, m = tables(spec).channels.T
    base = grid[z, n - 1, l * l + l + m]
    pairs = jnp.einsum("isz,nis->zni", one_hot, pair)
    unit = jnp.ones((1, base.shape[1]))
    return jnp.concatenate([base, unit]), pairs.reshape(-1, pairs.shape[-1])


@partial(jax.jit, static_argnums=0)
def _site_functions(spec: ACESpec, graph: Graph) -> jax.Array:
    """B_k(i) of each atom's own species, (n_functions, n)."""
    t = tables(spec)
    base, pairs = atomic_base(spec, sites_of(graph))
    constant = jnp.ones((int(spec.constant), base.shape[1]))
    return jnp.concatenate([t.sums(base), pairs, constant])


def site_basis(spec: ACESpec, graph: Graph) -> jax.Array:
    """The basis functions of every site, B(i).

        E_i = B(i) . c

    Args:
        spec: of the basis.
        graph: of n atoms, padding included, reaching at least as far as the basis.

    Returns:
        B, (n, n_columns), dimensionless; row i is zero outside the block of its own species and on
        padding atoms.

    Raises:
        RuntimeError: without float64.
        ValueError: species that the specification lacks, or a graph that reaches less far than the
            basis.

    Source: Drautz, Phys. Rev. B 99 (2019) 014104; Dusson et al., J. Comput. Phys. 454 (2022)
    110946.
    """
    check_graph(spec, graph)
    return _site_basis(spec, graph)


@partial(jax.jit, static_argnums=0)
def _site_basis(spec: ACESpec, graph: Graph) -> jax.Array:
    own = centres(spec, graph)
    blocks = own[:, :, None] * _site_functions(spec, graph).T[:, None, :]
    return blocks.reshape(len(own), -1)


def check_graph(spec: ACESpec, graph: Graph) -> None:
    """Refuse a graph that the basis does not describe.

    Args:
        spec: of the basis.
        graph: to be checked; a traced one passes unchecked.

    Raises:
        RuntimeError: without float64.
        ValueError: a species that is not among `spec.elements`, or a graph that reaches less far
            than the basis.
    """
    require_x64()
    check_reach(graph, spec.r_cut, "the ACE basis")
    if isinstance(graph.species, Tracer):
        return
    unknown = set(np.asarray(graph.species).tolist()) - {0, *spec.numbers}
    if unknown:
        names = sorted(chemical_symbols[z] for z in unknown)
        raise ValueError(
            f"unknown species: the structure has {', '.join(names)}: wanted those of the basis, "
            f"{', '.join(spec.elements)}; add the others to ACESpec(elements=...)."
        )


def core_of(spec: ACESpec | SharedSpec) -> ZBL | None:
    """The repulsion that every potential on the basis adds.

    Args:
        spec: of the basis.

    Returns:
        The repulsion; None for a basis without a core.
    """
    return None if spec.core is None else ZBL(*spec.core)


class _HasSpec(Protocol):
    @property
    def spec(self) -> ACESpec: ...


class OnBasis:
    """What every potential with a field `spec` has: cutoff, core, and the check of graphs."""

    def core(self: _HasSpec, graph: Graph) -> jax.Array | float:
        """Site energies of the repulsion of nuclei.

        Args:
            graph: n atoms, padding included.

        Returns:
            (n,), eV; 0 for a basis without a core.
        """
        core = core_of(self.spec)
        return 0.0 if core is None else core(graph)

    @property
    def r_cut(self: _HasSpec) -> float:
        """Cutoff in Å."""
        return self.spec.r_cut

    def check(self: _HasSpec, graph: Graph) -> None:
        """Refuse a graph as `check_graph` does.

        Args:
            graph: to be checked; a traced one passes unchecked.

        Raises:
            RuntimeError: without float64.
            ValueError: species that the specification lacks, or a graph that reaches less far
                than the basis.
        """
        check_graph(self.spec, graph)
