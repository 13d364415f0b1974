"""One site at a time: energies of environments, mapped over the atoms of a graph block by block.

A potential of short range is a function of one environment, written for K neighbours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lprjax.atoms.graphs import Graph
from lprjax.numerics.blocks import sites_in_blocks
from lprjax.numerics.guarded import length

EDGES = 2**17
"""Edges per block: a choice, so that a dozen arrays of them fit into the cache of a core or two."""
MAX_BLOCKS = 64
"""A choice: the derivative visits the forces of all atoms once per block, so that many small blocks
would cost more."""


class Environment(NamedTuple):
    """The K slots of one site, r_ij = (x, y, z).

    The components are kept apart because XLA vectorises over the last axis, which should be the
    neighbours and not the three components.
    """

    x: jax.Array  # (K,) Å, 1 on padded slots
    y: jax.Array  # (K,) Å, 0 on padded slots
    z: jax.Array  # (K,) Å, 0 on padded slots
    mask: jax.Array  # (K,) bool
    neighbours: jax.Array  # (K,) int32

    @property
    def lengths(self) -> jax.Array:
        """|r_ij|, (K,) Å; 1 on padded slots."""
        return length(self.x * self.x + self.y * self.y + self.z * self.z)


def over_sites(function: Callable[..., jax.Array], graph: Graph, *by_atom: jax.Array) -> jax.Array:
    """function(environment, *values) of each atom; differentiable to any order.

    Args:
        function: of one `Environment` and what the arrays of `by_atom` hold for its atom.
        graph: n atoms, padding included.
        *by_atom: arrays (n, ...).

    Returns:
        What the function returns for each atom, (n, ...).
    """

    def site(
        own: jax.Array, neighbours: jax.Array, shifts: jax.Array, mask: jax.Array, *values: Any
    ) -> jax.Array:
        def component(k: int) -> jax.Array:
            image = sum(shifts[:, a] * graph.cell[a, k] for a in range(3))
            ends = graph.positions[:, k].at[neighbours].get(mode="promise_in_bounds")
            # so that no root is taken of zero
            return jnp.where(mask, ends - own[k] + image, 1.0 if k == 0 else 0.0)

        return function(Environment(*map(component, range(3)), mask, neighbours), *values)

    sites = (graph.positions, graph.neighbours, graph.shifts, graph.edge_mask, *by_atom)
    block = _block(*graph.neighbours.shape)
    return sites_in_blocks(lambda sites: jax.vmap(site)(*sites), sites, block)


def _block(n: int, k: int) -> int:
    """Atoms per block: n over a power of two, which divides the n of a `bucket`."""
    blocks = 1
    while blocks < MAX_BLOCKS and n * k > blocks * EDGES:
        blocks *= 2
    return -(-n // blocks)
