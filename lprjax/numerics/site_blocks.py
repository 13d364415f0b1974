"""Many sites in blocks that stay in the cache.

What is made for all atoms at once is dozens of arrays, and on a CPU it is their first touch that
costs, not the arithmetic: they are allocated anew in every call. Block by block they are reused;
each block is forgotten and computed again when its derivative is asked for, which is cheaper than
to fetch it back, and memory does not grow with the atoms.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def in_blocks(function: Callable, sites, size: int):
    """function(sites), `size` sites at a time where they are more than twice as many.

    On a CPU only: an accelerator wants all its work at once. Differentiable to any order.

    function: of a pytree of arrays (n, ...) for any n, site by site, to an array (n, ...).
    sites: that pytree.
    """
    n = len(jax.tree.leaves(sites)[0])
    if n <= 2 * size or jax.default_backend() != "cpu":
        return function(sites)

    def blocks(x):  # the last site, repeated, fills the last one
        padding = [(0, -n % size)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding, mode="edge").reshape(-1, size, *x.shape[1:])

    found = jax.lax.map(jax.checkpoint(function), jax.tree.map(blocks, sites))
    return found.reshape(-1, *found.shape[2:])[:n]
