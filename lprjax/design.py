"""Design rows: the Jacobian of every observable with respect to the coefficients, exact.

Any trainable potential is differentiated in its coefficients. For an ACE basis there is a faster
way: its observables are derivatives of E = sum_i B(i) . c, so that a row is a derivative of
sum_i B(i), and the chain rule goes through the channels A_v(j), v = (z, n, l, m):

    d(sum_j B_k(j)) / dx = sum_{v, j} W_kv(j) dA_v(j)/dx,      W_kv(j) = dB_k(j) / dA_v(j).

W costs a few products per (function, channel); dA/dx, x = positions and strain, holds one gradient
per (edge, channel). For each (z, n, l) the rows of all functions, all atoms and all kinds are then
*one* matrix product, instead of one reverse pass per function. Force-constant rows are a forward
derivative of the force rows.

Signs and units are those of `observables`: forces -dE/dR (eV/Å), virial -dE/d(strain) (eV), force
constants d2E/dR dR (eV/Å^2), each per unit coefficient (eV).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.ace import (
    atomic_base,
    check_graph,
    radial_functions,
    species_one_hot,
)
from lprjax.adjoint import Group, adjoint_tables, adjoint_weights, slot_sums
from lprjax.angular import spherical_harmonics_and_slopes
from lprjax.neighbours import Graph, moved
from lprjax.observables import as_argument, checked_atoms, checked_kinds, observe
from lprjax.predictions import coefficients_of, prediction_rows
from lprjax.spec import ACESpec, tables

CHUNK = 8  # atoms whose rows are made at a time: their neighbours' weights fit the cache


class Rows(NamedTuple):
    """Rows of one structure, d(observable)/dc for C coefficients c; None if not asked for.

    energy: (C,); forces: (n, 3, C); virial: (3, 3, C); force_constants: (n_a, 3, n, 3, C).
    """

    energy: jax.Array | None = None
    forces: jax.Array | None = None
    virial: jax.Array | None = None
    force_constants: jax.Array | None = None


class _Edges(NamedTuple):
    """What the rows need of some atoms' edges; zero on padded ones. Shapes (n, K, …)."""

    vectors: jax.Array  # (3,) Å
    is_own: jax.Array  # (n, 1, n_elements) one-hot species of the centre
    is_other: jax.Array  # (n_elements,) one-hot species of the neighbour
    radial: jax.Array  # (n_max,)
    radial_slope: jax.Array  # (3, n_max) gradient with respect to the vector, 1/Å
    angular: jax.Array  # ((l_max+1)^2,)
    angular_slope: jax.Array  # (3, (l_max+1)^2)
    pair: jax.Array  # (n_max,)
    pair_slope: jax.Array  # (3, n_max)


def _edges(spec: ACESpec, graph: Graph) -> _Edges:
    vectors = graph.vectors()
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    unit = vectors / r[..., None]
    (radial, pair), (radial_slope, pair_slope) = jax.jvp(
        lambda r: radial_functions(spec, r, graph.edge_mask), (r,), (jnp.ones_like(r),)
    )
    angular, angular_slope = spherical_harmonics_and_slopes(unit, r, tables(spec).l_max)
    along = lambda slope: unit[..., None] * slope[..., None, :]  # noqa: E731
    return _Edges(
        vectors,
        species_one_hot(spec, graph.species)[:, None],
        species_one_hot(spec, graph.species[graph.neighbours]),
        radial,
        along(radial_slope),
        angular,
        angular_slope,
        pair,
        along(pair_slope),
    )


def _channel_slopes(group: Group, edges: _Edges) -> jnp.ndarray:
    """d phi_nlm / d r_ij of one group, (n, K, 3, 2l+1), whatever the species."""
    n, here = group.n - 1, slice(group.l**2, (group.l + 1) ** 2)
    return (
        edges.radial_slope[..., n, None] * edges.angular[..., None, here]
        + edges.radial[..., n, None, None] * edges.angular_slope[..., here]
    )


def _group_rows(group: Group, edges: _Edges, seen_by, weights, base):
    """One group's share of the rows of a few atoms, by slot.

    weights: (c, K + 1, m, n_slots), W at the neighbours and, last, at the atom itself;
    seen_by: (c, K + 1, n_elements), their species; base: (m, c).
    Returns forces (c, 3, n_elements, n_slots); virial and A (10, n_elements, n_slots).
    """
    slopes = _channel_slopes(group, edges)
    own = slopes * edges.is_other[..., group.z, None, None]
    # Site j sees atom i along r_ji = -r_ij: grad phi_nlm(-r) = (-1)^(l+1) grad phi_nlm(r).
    seen = (-1.0) ** group.l * slopes * edges.is_own[..., group.z, None, None]
    forces = jnp.concatenate([seen, jnp.sum(own, axis=1, keepdims=True)], axis=1)
    forces = jnp.stack(
        [
            jnp.einsum("ikam,ikmt->iat", forces * seen_by[..., c, None, None], weights)
            for c in range(seen_by.shape[-1])
        ],
        axis=2,
    )
    virial = -jnp.einsum("ika,ikbm->abim", edges.vectors, own)
    sums = jnp.concatenate([virial.reshape(9, *virial.shape[2:]), base.T[None]])
    sums = sums[:, None] * edges.is_own[:, 0].T[None, :, :, None]
    return forces, jnp.einsum("scim,imt->sct", sums, weights[:, -1])


def _many_body_rows(spec: ACESpec, graph: Graph, edges: _Edges):
    """Rows of the many-body functions: forces (n, 3, n_elements, n_many_body); virial and energy
    (10, n_elements, n_many_body). Atom by atom, from the sites that feel it move."""
    groups, t = adjoint_tables(spec).groups, tables(spec)
    base, _ = atomic_base(spec, graph)
    # Atoms first: the neighbours' weights are then gathered as whole rows.
    weights = adjoint_weights(spec, base).T
    weights = [
        weights[:, g.start : g.start + g.size].reshape(len(weights), len(g.channels), -1)
        for g in groups
    ]

    def receive(part):
        atoms, neighbours, edges = part
        sites = jnp.concatenate([neighbours, atoms[:, None]], axis=1)
        seen_by = species_one_hot(spec, graph.species[sites])
        parts = [
            _group_rows(g, edges, seen_by, w[sites], base[g.channels][:, atoms])
            for g, w in zip(groups, weights, strict=True)
        ]
        return tuple(slot_sums(spec, jnp.concatenate(p, -1)) for p in zip(*parts, strict=True))

    n = len(graph.positions)
    chunked = partial(jax.tree.map, lambda x: x.reshape(-1, gcd(n, CHUNK), *x.shape[1:]))
    forces, sums = jax.lax.map(receive, chunked((jnp.arange(n), graph.neighbours, edges)))
    sums = jnp.sum(sums, axis=0)
    # B of order v is homogeneous of degree v in A: sum_v A_v dB/dA_v = v B.
    orders = np.array([len(f.factors) for f in t.functions])
    return forces.reshape(n, *forces.shape[2:]), sums.at[-1].divide(orders[None, :])


def _pair_rows(spec: ACESpec, edges: _Edges):
    """Rows of the pair functions, shaped as the many-body ones.

    An atom feels its own site and its neighbour's: centre c that sees z, and the reverse.
    """
    centre = edges.is_own[..., :, None] * edges.is_other[..., None, :]  # (n, K, c, z)
    both = centre + jnp.swapaxes(centre, 2, 3)
    forces = jnp.einsum("ikcz,ikan->iaczn", both, edges.pair_slope)
    virial = -jnp.einsum("ikcz,ika,ikbn->abczn", centre, edges.vectors, edges.pair_slope)
    energy = jnp.einsum("ikcz,ikn->czn", centre, edges.pair)
    sums = jnp.concatenate([virial.reshape(9, *energy.shape), energy[None]])
    flat = lambda x: x.reshape(*x.shape[:-2], -1)  # noqa: E731
    return flat(forces), flat(sums)


def _constant_rows(spec: ACESpec, edges: _Edges):
    """Rows of the constant function, where there is one: the energy counts atoms, all else is 0."""
    counts = jnp.sum(edges.is_own, axis=(0, 1))[:, None]
    forces = jnp.zeros((len(edges.is_own), 3, *counts.shape))
    sums = jnp.zeros((10, *counts.shape)).at[9].set(counts)
    return forces[..., : int(spec.constant)], sums[..., : int(spec.constant)]


def _energy_forces_virial(spec: ACESpec, graph: Graph):
    """Rows of all first-order kinds: energy (C,), forces (n, 3, C), virial (3, 3, C)."""
    edges = _edges(spec, graph)
    parts = (
        _many_body_rows(spec, graph, edges),
        _pair_rows(spec, edges),
        _constant_rows(spec, edges),
    )
    forces, sums = (jnp.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    sums = sums.reshape(10, -1)
    return sums[9], forces.reshape(*forces.shape[:2], -1), sums[:9].reshape(3, 3, -1)


@partial(jax.jit, static_argnums=0)
def _first_order(spec: ACESpec, graph: Graph):
    return _energy_forces_virial(spec, graph)


@partial(jax.jit, static_argnums=0)
def _force_constants(spec: ACESpec, graph: Graph, atoms: jax.Array) -> jnp.ndarray:
    """(n_a, 3, n, 3, C): minus the derivative of the force rows along each displacement."""

    def column(direction):
        atom, axis = direction
        tangent = jnp.zeros_like(graph.positions).at[atom, axis].set(1.0)
        forces = lambda x: _energy_forces_virial(spec, moved(graph, x))[1]  # noqa: E731
        return -jax.jvp(forces, (graph.positions,), (tangent,))[1]

    axes = jnp.tile(jnp.arange(3), len(atoms))
    columns = jax.lax.map(column, (jnp.repeat(atoms, 3), axes))
    return columns.reshape(len(atoms), 3, *columns.shape[1:])


@partial(jax.jit, static_argnames="kinds")
def _jacobian(potential, graph: Graph, atoms, kinds: tuple[str, ...]) -> list[jnp.ndarray]:
    """Rows of each kind, of any trainable potential, by differentiation in its coefficients."""

    def observed(potential):
        labels = observe(potential, graph, kinds, atoms=atoms)
        return jnp.concatenate([getattr(labels, kind).ravel() for kind in kinds])

    rows = prediction_rows(observed, potential)
    shapes = [getattr(observe(potential, graph, kinds, atoms=atoms), kind).shape for kind in kinds]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    parts = jnp.split(rows, ends)
    return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def design_rows(
    model,
    graph: Graph,
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
) -> Rows:
    """The rows of one structure, d(observable)/d(coefficients), exact to roundoff.

    model: an ACESpec, whose observables are row . c; or a trainable potential (see `predictions`),
    whose rows are the Jacobians at its present coefficients. graph: n atoms, padding included;
    kinds: as in `observables.observe`, whose shapes, units and signs the rows share; atoms: those
    displaced for the force constants. Compiled once per shape.
    Raises ValueError for unknown species, kinds or atoms, TypeError for a model that is neither,
    RuntimeError without float64.
    """
    kinds = checked_kinds(kinds)
    displaced = checked_atoms(atoms, graph) if "force_constants" in kinds else None
    if not isinstance(model, ACESpec):
        coefficients_of(model)
        if hasattr(model, "check"):
            model.check(graph)
        found = _jacobian(as_argument(model, "model"), graph, displaced, kinds)
        return Rows(**dict(zip(kinds, found, strict=True)))
    check_graph(model, graph)
    rows = {}
    if set(kinds) - {"force_constants"}:
        found = zip(("energy", "forces", "virial"), _first_order(model, graph), strict=True)
        rows |= {kind: value for kind, value in found if kind in kinds}
    if "force_constants" in kinds:
        rows["force_constants"] = _force_constants(model, graph, displaced)
    return Rows(**rows)
