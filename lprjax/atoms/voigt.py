"""Voigt order, once for all: xx, yy, zz, yz, xz, xy.

Stresses and virials are six components as they are; strains are six with engineering shears, twice
the components off the diagonal, so that stress . strain is the double contraction of the tensors.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # xx, yy, zz, yz, xz, xy
ROWS, COLUMNS = np.array(VOIGT).T
VOIGT_TENSOR = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Position in Voigt order of each component: six[VOIGT_TENSOR] is the symmetric tensor."""
SHEARS = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""What turns the components of a symmetric tensor into those of an engineering strain."""


def six_components(tensor: Any) -> Any:
    """A tensor (3, 3, ...) as six components (6, ...), the mean of the two off the diagonal.

    Of NumPy or of JAX, in any unit: a stress, a virial, or rows of one.
    """
    return 0.5 * (tensor[ROWS, COLUMNS] + tensor[COLUMNS, ROWS])


def engineering_strain(tensor: jax.Array) -> jax.Array:
    """A strain (3, 3) as xx, yy, zz, 2 yz, 2 xz, 2 xy: (6,), dimensionless."""
    return six_components(tensor) * SHEARS


def strain_tensor(strain: jax.Array) -> jax.Array:
    """The symmetric strain (3, 3) of six numbers with engineering shears, dimensionless."""
    return (jnp.asarray(strain) / SHEARS)[VOIGT_TENSOR]
