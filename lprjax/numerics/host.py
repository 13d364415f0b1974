"""Arithmetic on the host, where nothing is compiled: NumPy for numbers, JAX for what is traced.

Every array operation outside `jit` is compiled by XLA, once for each shape: milliseconds, for
microseconds of work. What prepares a calculation is done by NumPy instead, in formulas that also
take tracers, so that they may stand inside a user's `jit` or `grad`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def traced(*trees: Any) -> bool:
    """Whether any array of some pytrees is traced."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def namespace(*trees: Any) -> Any:
    """The module whose functions take some pytrees' arrays: jax.numpy if any is traced, or numpy.

    Args:
        *trees: pytrees of arrays.

    Returns:
        The module.
    """
    return jnp if traced(trees) else np


def on_host(x: Any) -> Any:
    """An array as one of NumPy, without a copy on a CPU; what is traced passes.

    Args:
        x: an array, or what makes one.

    Returns:
        The array.
    """
    return x if isinstance(x, Tracer) else np.asarray(x)


def on_device(tree: Any) -> Any:
    """The NumPy arrays of a pytree as JAX's; what is traced passes.

    Args:
        tree: a pytree of arrays.

    Returns:
        The same with arrays of JAX.
    """
    return jax.tree.map(lambda x: x if isinstance(x, Tracer) else jax.device_put(x), tree)
