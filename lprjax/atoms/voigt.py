"""Voigt order, once for all: xx, yy, zz, yz, xz, xy.

Stresses and virials are six components as they are; strains are six with engineering shears, twice
the components off the diagonal, so that stress . strain is the double contraction of the tensors.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Tensor = TypeVar("Tensor", jax.Array, np.ndarray)

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Index pairs of xx, yy, zz, yz, xz, xy."""
ROWS, COLUMNS = np.array(VOIGT).T
VOIGT_TENSOR = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Position in Voigt order of each component: six[VOIGT_TENSOR] is the symmetric tensor."""
SHEARS = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""What turns the components of a symmetric tensor into those of an engineering strain."""


def six_components(tensor: Tensor) -> Tensor:
    """A tensor as six components, the mean of the two off the diagonal.

    Args:
        tensor: (3, 3, ...), of NumPy or of JAX, in any unit: a stress, a virial, or rows of one.

    Returns:
        The components in Voigt order, (6, ...), of the same kind and unit.
    """
    both: Any = tensor
    return 0.5 * (both[ROWS, COLUMNS] + both[COLUMNS, ROWS])


def engineering_strain(tensor: jax.Array) -> jax.Array:
    """A strain as xx, yy, zz, 2 yz, 2 xz, 2 xy.

    Args:
        tensor: (3, 3), dimensionless.

    Returns:
        The six numbers, (6,), dimensionless.
    """
    return six_components(tensor) * SHEARS


def strain_tensor(strain: ArrayLike) -> jax.Array:
    """The symmetric strain of six numbers with engineering shears.

    Args:
        strain: (6,) in Voigt order, dimensionless.

    Returns:
        The tensor, (3, 3), dimensionless.
    """
    return (jnp.asarray(strain) / SHEARS)[VOIGT_TENSOR]
