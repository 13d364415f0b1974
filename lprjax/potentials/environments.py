"""One site at a time: energies of environments, mapped over the atoms of a graph block by block.

A potential of short range is a function of one environment, written for K neighbours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lprjax.atoms.graphs import Graph
from lprjax.numerics.blocks import sites_in_blocks

# Edges per block: a dozen arrays of them fit into the cache of a core or two.
EDGES = 2**17
# The derivative visits the forces of all atoms once per block: many small ones would cost more.
MAX_BLOCKS = 64


class Environment(NamedTuple):
    """The K slots of one site: r_ij = (x, y, z), kept apart because XLA vectorises over the last
    axis, which should be the neighbours and not the three components.

    x, y, z: (K,) A; (1, 0, 0) on padded slots.  mask: (K,) bool.  neighbours: (K,) int32.
    """

    x: Array
    y: Array
    z: Array
    mask: Array
    neighbours: Array

    @property
    def lengths(self) -> Array:
        """|r_ij|, (K,) A; 1 on padded slots."""
        return jnp.sqrt(self.x * self.x + self.y * self.y + self.z * self.z)


def over_sites(function: Callable, graph: Graph, *by_atom: Array) -> Array:
    """function(environment, *values) of each atom, (n, ...), differentiable to any order.

    function: of one `Environment` and what `by_atom`, (n, ...) each, hold for its atom.
    """

    def site(own, neighbours, shifts, mask, *values):
        def component(k):
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
