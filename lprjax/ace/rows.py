"""Design rows: the Jacobian of every observable with respect to the coefficients, exact.

Any trainable potential is differentiated in its coefficients. For an ACE basis there is a faster
way: its observables are derivatives of E = sum_i B(i) . c, so that a row is a derivative of
sum_i B(i), and the chain rule goes through the channels A_znlm and the functions Q of `adjoint`:

    d(sum_j B_k(j)) / dx = sum_(znl in k) sum_q C_(k,znl),q Y_znq ,
    Y_znq = sum_j sum_m dA_znlm(j)/dx Q_qm(j) .

For x the position of atom i, j runs over i and its neighbours: one matrix product for each atom and
degree l, whose inner index is (m, neighbour), makes the rows of all functions. Atoms are taken in
chunks whose size does not depend on the structure. A displaced atom changes Q at its neighbours,
and the slopes of its own edges: force-constant rows cost three such products.

Signs and units are those of `observables`: forces -dE/dR (eV/Å), virial -dE/d(strain) (eV), force
constants d2E/dR dR (eV/Å^2), each per unit coefficient (eV).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint

from lprjax.ace.adjoint import Block, adjoint_tables, block_functions, channels_of, rows_of
from lprjax.ace.angular import harmonic_gradients, spherical_harmonics
from lprjax.ace.basis import (
    atomic_base,
    base_of_edges,
    centres,
    check_graph,
    radial_functions_and_slopes,
    sites_of,
    species_one_hot,
)
from lprjax.ace.spec import ACESpec, tables
from lprjax.atoms.graphs import Graph, moved
from lprjax.atoms.voigt import COLUMNS, ROWS, VOIGT_TENSOR

CACHE = 4_000_000
"""Bytes that a chunk of atoms may gather from its neighbours: a choice, to fit a CPU's cache."""
ACCELERATOR = 256
"""How many times more on an accelerator, which wants much work at a time: a choice."""


ACE_KINDS = ("energy", "forces", "virial", "force_constants")
"""The kinds of observables that have a kernel here; others are differentiated in general."""


class Rows(NamedTuple):
    """Rows of one structure, d(observable)/dc for C coefficients c; None if not asked for.

    In the unit of the observable (eV, eV/Å, eV, eV/Å^2) per unit of c.
    """

    energy: jax.Array | None = None  # (C,)
    forces: jax.Array | None = None  # (n, 3, C)
    virial: jax.Array | None = None  # (3, 3, C)
    force_constants: jax.Array | None = None  # (n_a, 3, n, 3, C)


class _Edges(NamedTuple):
    """The K edges of n atoms, and what slopes on them are made of; atoms come last but one."""

    unit: jax.Array  # (3, n, K) r_ij / r
    over_r: jax.Array  # (n_max, n, K) R / r, 1/Å
    radial: jax.Array  # (n_max, n, K) dR / dr, 1/Å
    pair: jax.Array  # (n_max, n, K) slopes of the pair functions, 1/Å
    angular: jax.Array  # ((l_max+1)^2, n, K) Y
    vectors: jax.Array  # (3, n, K) Å
    mask: jax.Array  # (n, K)


class _Atoms(NamedTuple):
    """What the rows of c atoms depend on: the atoms and their surroundings, K edges each."""

    index: jax.Array  # (c,)
    own: jax.Array  # (c, n_elements) one-hot species
    neighbours: jax.Array  # (c, K)
    others: jax.Array  # (c, n_elements, K) one-hot species of the neighbours
    edges: _Edges


class _Slopes(NamedTuple):
    """d phi / d r_ij of the one-particle functions on the edges of c atoms, in 1/Å."""

    many_body: list[jax.Array]  # for each block (c, 3, n_max, 2l+1, K)
    pair: jax.Array  # (c, 3, n_max, K)


def _edges_of(
    spec: ACESpec, edges: jax.Array, edge_mask: jax.Array
) -> tuple[_Edges, tuple[jax.Array, jax.Array, jax.Array]]:
    """Of edges (n, K, 3) in Å, and radial, pair and angular functions, zero where masked."""
    vectors = jnp.moveaxis(edges, -1, 0)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=0))
    (radial, pair), (radial_slope, pair_slope) = radial_functions_and_slopes(spec, r, edge_mask)
    unit = vectors / r[None]
    angular = spherical_harmonics(unit, tables(spec).l_max)
    over_r = radial / r[None]
    found = _Edges(unit, over_r, radial_slope, pair_slope, angular, vectors, edge_mask)
    return found, (radial, pair, angular)


def _edge_slopes(spec: ACESpec, edges: _Edges) -> _Slopes:
    """grad(R Y) = (R' - l R/r) u Y + R/r g, with g the gradient of the polynomial r^l Y at u."""
    gradients = harmonic_gradients(edges.angular, tables(spec).l_max)
    features = jax.lax.optimization_barrier((*edges[:5], gradients))

    def make() -> _Slopes:
        u, over_r, radial, pair, y, g = (jnp.moveaxis(x, -2, 0) for x in features)

        def of(block: Block) -> jax.Array:
            n, lm = slice(block.n_max), slice(block.l**2, (block.l + 1) ** 2)
            outward = radial[:, n] - block.l * over_r[:, n]
            along = u[:, :, None] * y[:, None, lm]
            return (
                outward[:, None, :, None] * along[:, :, None]
                + over_r[:, None, n, None] * g[:, :, None, lm]
            )

        blocks = adjoint_tables(spec).blocks
        return _Slopes([of(b) for b in blocks], u[:, :, None] * pair[:, None])

    if jax.default_backend() != "cpu":
        return make()
    # A branch of its own keeps them in this shape: XLA would otherwise make them again in that of
    # every product they enter, where it no longer sees that one radial function serves all m. An
    # accelerator would wait for the host at the branch.
    none = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(make))  # noqa: E731
    return jax.lax.cond(jnp.any(edges.mask), make, none)


def _block_forces(
    block: Block, atoms: _Atoms, slopes: jax.Array, q_own: jax.Array, q_others: jax.Array
) -> jax.Array:
    """One block's share of the forces on c atoms, (c, x, centre, z, n_max, n_q) of any x.

    Atom i moves its own site energy through r_ij and its neighbours' through r_ji = -r_ij, for
    which grad phi(-r) = (-1)^(l+1) grad phi(r).
    slopes: (c, x, n_max, m, K); q_own: Q at the atoms, (c, m, n_q); q_others: at their neighbours,
    (c, m, K, n_q).
    """
    reflected = (-1.0) ** block.l * q_others
    contract = partial(jnp.einsum, "cxnms,cmsq->cxnq")
    if atoms.own.shape[1] == 1:  # centre and neighbour are always of the same species
        return contract(slopes, reflected + q_own[:, :, None])[:, :, None, None]
    of_species = atoms.others[:, :, None, None, None] * slopes[:, None]  # (c, species, x, n, m, K)
    n_species = of_species.shape[1]
    shape = (len(slopes), -1, *slopes.shape[2:])
    split = lambda y: y.reshape(len(y), n_species, slopes.shape[1], *y.shape[2:])  # noqa: E731
    sites = split(contract(of_species.reshape(shape), reflected))
    site = split(jnp.einsum("cxnm,cmq->cxnq", of_species.sum(-1).reshape(*shape[:-1]), q_own))
    return jnp.einsum("ctxnq,cz->cxtznq", sites, atoms.own) + jnp.einsum(
        "ctxnq,cz->cxztnq", site, atoms.own
    )


def _pair_forces(atoms: _Atoms, slopes: jax.Array) -> jax.Array:
    """The same of the pair functions: slopes (c, x, n_max, K), result (c, x, centre, z, n_max)."""
    by_species = jnp.moveaxis(_over_edges(slopes, atoms.others), -1, 2)
    return (
        by_species[:, :, :, None] * atoms.own[:, None, None, :, None]
        + by_species[:, :, None] * atoms.own[:, None, :, None, None]
    )


def _columns(
    spec: ACESpec, many_body: jax.Array, pair: jax.Array, constant: jax.Array
) -> jax.Array:
    """Rows (…, C) of the functions' parts, each (…, centre, functions)."""
    constant = jnp.broadcast_to(constant[..., None], (*pair.shape[:-2], int(spec.constant)))
    pair = pair.reshape(*pair.shape[:-2], -1)
    rows = jnp.concatenate([many_body, pair, constant], axis=-1)
    return rows.reshape(*rows.shape[:-2], -1)


def _force_rows(
    spec: ACESpec, atoms: _Atoms, slopes: _Slopes, functions: Sequence[jax.Array]
) -> jax.Array:
    """Force rows of c atoms, (c, 3, C)."""
    parts = [
        _block_forces(b, atoms, s, q[atoms.index], jnp.moveaxis(q[atoms.neighbours], 1, 2))
        for b, s, q in zip(adjoint_tables(spec).blocks, slopes.many_body, functions, strict=True)
    ]
    pair = _pair_forces(atoms, slopes.pair)
    return _columns(spec, rows_of(spec, parts), pair, jnp.zeros(pair.shape[:3]))


def _over_edges(slopes: jax.Array, values: jax.Array) -> jax.Array:
    """Sums over the K edges of c atoms, (c, …, v), of slopes (c, …, K) times values (c, v, K)."""
    flat = slopes.reshape(len(slopes), -1, slopes.shape[-1])
    # The slopes, many, come first and are not transposed.
    sums = jax.lax.dot_general(flat, jnp.swapaxes(values, 1, 2), (((2,), (1,)), ((0,), (0,))))
    return sums.reshape(*slopes.shape[:-1], -1)


def _strain_slopes(slopes: jax.Array, lever: jax.Array) -> jax.Array:
    """How sums over edges of phi change, less the sign, with a strain, components in Voigt order.

    Those of six components will do: sums that no rotation changes have symmetric virials.
    slopes: d phi/dr_ij (c, 3, …, K); lever: r_ij by species of the neighbour (c, z, 3, K).
    Returns (c, 6, z, …).
    """
    by_edge = lever.reshape(len(lever), -1, lever.shape[-1])
    moments = -_over_edges(slopes, by_edge).reshape(*slopes.shape[:-1], *lever.shape[1:3])
    moments = jnp.moveaxis(moments, (-1, -2), (2, 3))
    return moments[:, ROWS, COLUMNS]


def _sums(
    spec: ACESpec,
    own: jax.Array,
    functions: Sequence[jax.Array],
    channels: Sequence[jax.Array],
    pairs: jax.Array,
) -> jax.Array:
    """Rows of the virial (6, Voigt order) and of the energy, (7, C).

    own: (n, n_elements) one-hot species; channels: dA/d(strain), less the sign, and A of every
    degree, (n, 7, z, n_max, m); pairs: those of the pair functions, (n, 7, z, n_max).
    """
    parts = []
    for moving, q in zip(channels, functions, strict=True):
        of = lambda centre: jnp.einsum("ixznm,imq->xznq", moving * centre, q)  # noqa: B023, E731
        centres = own.T[..., None, None, None, None]
        parts.append(jnp.stack([of(centre) for centre in centres], axis=1))
    # B of order v is homogeneous of degree v in A: sum_v A_v dB/dA_v = v B.
    order = np.array([len(f.factors) for f in tables(spec).functions])
    many_body = rows_of(spec, parts).at[-1].divide(order[None, :])
    pair = jnp.einsum("ixzn,ic->xczn", pairs, own)
    constant = jnp.zeros((7, own.shape[1])).at[-1].set(jnp.sum(own, axis=0))
    return _columns(spec, many_body, pair, constant)


def _chunk_size(spec: ACESpec, graph: Graph, copies: int) -> int:
    """Atoms whose rows are made at a time: what they gather from their neighbours fits the cache.

    copies: arrays of that size alive at a time. Four atoms at least, a choice; on an accelerator,
    where few chunks are visited, they are of one size, so that the last does little twice.
    """
    n, n_neighbours = graph.neighbours.shape
    gathered = 8 * copies * n_neighbours * adjoint_tables(spec).blocks[-1].entries.stop
    if jax.default_backend() == "cpu":
        return min(n, max(4, CACHE // gathered))
    most = max(4, ACCELERATOR * CACHE // gathered)
    return -(-n // -(-n // most))


def _by_chunks(
    spec: ACESpec, graph: Graph, edges: _Edges, make: Callable[[_Atoms], Any], copies: int = 1
) -> Any:
    """make(atoms), arrays (c, …) for c atoms, put together for all, (n, …); zero on padding atoms.

    Chunks of padding atoms are not visited, so that padding costs nothing here. The last chunk
    begins early enough to be a whole one. A single chunk is no loop: an accelerator would wait for
    the host at each turn of one.
    """
    size = _chunk_size(spec, graph, copies)

    def chunk(begin):
        of = lambda x, axis=-2: jax.lax.dynamic_slice_in_dim(x, begin, size, axis)  # noqa: E731
        index = begin + jnp.arange(size)
        own_edges = jax.tree.map(of, edges)
        return make(_surroundings(spec, graph, index, of(graph.neighbours), own_edges))

    if size == len(graph.positions):
        return chunk(0)

    def add(number, result):
        begin = jnp.minimum(number * size, len(graph.positions) - size)
        place = lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, begin, 0)  # noqa: E731
        return jax.tree.map(place, result, chunk(begin))

    empty = lambda x: jnp.zeros((len(graph.positions), *x.shape[1:]), x.dtype)  # noqa: E731
    start = jax.tree.map(empty, jax.eval_shape(chunk, 0))
    n_chunks = (jnp.sum(graph.atom_mask) + size - 1) // size
    return jax.lax.fori_loop(0, n_chunks, add, start)


def _surroundings(
    spec: ACESpec,
    graph: Graph,
    index: jax.Array,
    neighbours: jax.Array,
    edges: _Edges,
) -> _Atoms:
    """The atoms of these indices (c,) with neighbours (c, K) and edges given."""
    own = centres(spec, graph)[index]
    others = jnp.swapaxes(species_one_hot(spec, graph.species[neighbours]), 1, 2)
    return _Atoms(index, own, neighbours, others, edges)


@partial(jax.jit, static_argnums=0)
def _first_order(spec: ACESpec, graph: Graph) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows of all first-order kinds: energy (C,), forces (n, 3, C), virial (3, 3, C)."""
    forces, (*channels, pairs), functions = of_sites(spec, graph)
    sums = _sums(spec, centres(spec, graph), functions, channels, pairs)
    return sums[6], forces, sums[VOIGT_TENSOR]


def of_sites(spec: ACESpec, graph: Graph) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """What all rows of first order are made of, atom by atom; for use inside `jit`.

    Args:
        spec: of the basis; species and reach are not checked here, and give NaN.
        graph: n atoms, padding included.

    Returns:
        force rows (n, 3, C), in eV/Å per unit of the coefficients; dA/d(strain), less the sign, in
        Voigt order, and A itself of every degree (n, 7, z, n_max, m), last those of the pairs
        (n, 7, z, n_max); Q (n, m, n_q) of every degree.
    """
    edges, values = _edges_of(spec, graph.vectors(), graph.edge_mask)
    base, pairs = base_of_edges(spec, graph.species[graph.neighbours], *values)
    functions = [_site_by_site(q) for q in block_functions(spec, adjoint_tables(spec).q(base))]

    def make(atoms: _Atoms) -> tuple[jax.Array, list[jax.Array]]:
        slopes = _edge_slopes(spec, atoms.edges)
        lever = jnp.moveaxis(atoms.edges.vectors, 0, 1)[:, None] * atoms.others[:, :, None]
        moving = [_strain_slopes(s, lever) for s in (*slopes.many_body, slopes.pair)]
        return _force_rows(spec, atoms, slopes, functions), moving

    forces, moving = _by_chunks(spec, graph, edges, make)
    still = [base[channels_of(spec, b)] for b in adjoint_tables(spec).blocks]
    still.append(pairs.reshape(len(spec.elements), spec.degree, -1))
    channels = [
        jnp.concatenate([m, jnp.moveaxis(v, -1, 0)[:, None]], axis=1)
        for m, v in zip(moving, still, strict=True)
    ]
    return forces, channels, functions


def _site_by_site(values: jax.Array) -> jax.Array:
    """The same (n, ...), what belongs to a site side by side: so sites can be gathered quickly."""
    if jax.default_backend() == "cpu":
        return values
    return with_layout_constraint(values, Layout(major_to_minor=tuple(range(values.ndim))))


@partial(jax.jit, static_argnums=0)
def _force_constants(spec: ACESpec, graph: Graph, atoms: jax.Array) -> jax.Array:
    """(n_a, 3, n, 3, C): minus the derivative of the force rows along each displacement.

    An atom that moves changes the functions Q of its neighbours, on which forces further out
    depend, and the slopes of its own edges only.
    """
    axes, vectors = jnp.arange(3), graph.vectors()
    edges, _ = _edges_of(spec, vectors, graph.edge_mask)

    def functions(positions: jax.Array) -> list[jax.Array]:
        base, _ = atomic_base(spec, sites_of(moved(graph, positions)))
        return block_functions(spec, adjoint_tables(spec).q(base))

    at_rest = functions(graph.positions)

    def columns(atom: jax.Array) -> jax.Array:
        directions = jnp.zeros((3, *graph.positions.shape)).at[axes, atom, axes].set(1.0)
        along = lambda d: jax.jvp(functions, (graph.positions,), (d,))[1]  # noqa: E731
        changes = jax.vmap(along)(directions)

        def make(atoms: _Atoms) -> jax.Array:
            slopes = _edge_slopes(spec, atoms.edges)
            slopes = slopes._replace(pair=jnp.zeros_like(slopes.pair))
            return jax.vmap(lambda q: _force_rows(spec, atoms, slopes, q), out_axes=1)(changes)

        far = jnp.swapaxes(_by_chunks(spec, graph, edges, make, copies=3), 0, 1)
        near = _stiffness(spec, graph, vectors, at_rest, atom)
        change = far.at[:, graph.neighbours[atom]].add(near).at[:, atom].add(-jnp.sum(near, axis=1))
        return -change

    return jax.lax.map(columns, atoms)


def _stiffness(
    spec: ACESpec,
    graph: Graph,
    vectors: jax.Array,
    functions: Sequence[jax.Array],
    atom: jax.Array,
) -> jax.Array:
    """How the forces along one atom's K edges change with the edges, (3, K, 3, C): the edge moves
    in the first direction; the force on its atom changes so, that on its neighbour oppositely."""
    neighbours, edges = graph.neighbours[atom], vectors[atom][:, None]
    index, mask = jnp.full_like(neighbours, atom), graph.edge_mask[atom][:, None]
    of = lambda edges: _edges_of(spec, edges, mask)[0]  # noqa: E731
    # Atoms of one edge each.
    ends = _surroundings(spec, graph, index, neighbours[:, None], of(edges))

    def change(direction: jax.Array) -> jax.Array:
        slopes = lambda edges: _edge_slopes(spec, of(edges))  # noqa: E731
        _, change = jax.jvp(slopes, (edges,), (jnp.broadcast_to(direction, edges.shape),))
        return _force_rows(spec, ends, change, functions)

    return jax.vmap(change)(jnp.eye(3)[:, None, None])


def ace_rows(spec: ACESpec, graph: Graph, kinds: tuple[str, ...], atoms: jax.Array | None) -> Rows:
    """The rows of an ACE basis, as `regression.rows.design_rows` returns them.

    Args:
        spec: of the basis.
        graph: of n atoms, padding included.
        kinds: of "energy", "forces", "virial", "force_constants"; not checked here.
        atoms: indices (n_a,) of those displaced for the force constants, not checked here; None
            where these are not among the kinds.

    Returns:
        The rows of these kinds.

    Raises:
        RuntimeError: without float64.
        ValueError: species that the specification lacks, or a graph that reaches less far than the
            basis.

    Source: derived.
    """
    check_graph(spec, graph)
    rows: dict[str, jax.Array] = {}
    if set(kinds) - {"force_constants"}:
        found = zip(("energy", "forces", "virial"), _first_order(spec, graph), strict=True)
        rows |= {kind: value for kind, value in found if kind in kinds}
    if "force_constants" in kinds:
        rows["force_constants"] = _force_constants(spec, graph, atoms)
    return Rows(**rows)
