"""Many items in blocks of one size: bounded memory, one shape, arrays that stay in the cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_blocks(function: Callable[[Any], Any], items: Any, size: int) -> Any:
    """function(items), at most `size` items at a time, in a loop.

    Args:
        function: of a pytree of arrays (b, ...), item by item, to a pytree of arrays (b, ...).
        items: that pytree, of n items.
        size: largest b. The last block is filled up by repeating the last item.

    Returns:
        What `function` returns for all items: a pytree of arrays (n, ...).
    """
    n = len(jax.tree.leaves(items)[0])
    if n <= size:
        return function(items)

    def blocks(x: jax.Array) -> jax.Array:
        padding = [(0, -n % size)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding, mode="edge").reshape(-1, size, *x.shape[1:])

    found = jax.lax.map(function, jax.tree.map(blocks, items))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], found)


def sites_in_blocks(function: Callable[[Any], jax.Array], sites: Any, size: int) -> jax.Array:
    """function(sites), `size` sites at a time where they are more than twice as many.

    What is made for all atoms at once is dozens of arrays, and on a CPU it is their first touch
    that costs, not the arithmetic: they are allocated anew in every call. Block by block they are
    reused; what a block made is dropped and computed again when its derivative is asked for, which
    is cheaper than to fetch it back from memory. An accelerator wants all its work at once and
    gets it. Differentiable to any order.

    Args:
        function: as in `in_blocks`, to one array (b, ...).
        sites: a pytree of arrays (n, ...).
        size: sites per block; of no account on an accelerator.

    Returns:
        What `function` returns for all sites, (n, ...).
    """
    n = len(jax.tree.leaves(sites)[0])
    if n <= 2 * size or jax.default_backend() != "cpu":
        return function(sites)
    return in_blocks(jax.checkpoint(function), sites, size)
