"""Lattice fields round a defect that has the lattice's own symmetry: one orthant is all of them.

The box is periodic, of 2 m sites per side, the defect at the origin. On the orthant
0 <= x_i <= m, mirrored at both of its ends, scalars are arrays (m + 1,) * d and vector fields
(d,) + (m + 1,) * d, component first. Scalars are even in every x_i; component i of a vector field
is odd in x_i and even in the others. A sum over the box is one over the orthant with
`multiplicity`, and a vector field's transform is a product of sines along each component's own
axis and cosines along the others: dense matrices, and no mode is free.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

REACH = 2  # sites beyond the orthant's ends that `mirrored` adds


def mirrored(field: jax.Array, odd_axis: int | None = None) -> jax.Array:
    """A component continued by REACH sites beyond both ends of every axis.

    Args:
        field: over the orthant.
        odd_axis: the axis along which it is odd; None where it is even along all.

    Returns:
        longer by 2 REACH along every axis.
    """
    for axis in range(field.ndim):
        width = [(REACH, REACH) if a == axis else (0, 0) for a in range(field.ndim)]
        field = jnp.pad(field, width, mode="reflect")
        if axis == odd_axis:
            index = jnp.arange(field.shape[axis])
            inside = (index >= REACH) & (index < field.shape[axis] - REACH)
            field = field * _along(axis, field.ndim, jnp.where(inside, 1.0, -1.0))
    return field


def mirrored_vector(u: jax.Array) -> list[jax.Array]:
    """All components of a vector field (d, ...), each continued as `mirrored` does."""
    return [mirrored(component, axis) for axis, component in enumerate(u)]


def shifted(padded: jax.Array, bond: Sequence[int]) -> jax.Array:
    """The field at l + bond, for l on the orthant.

    Args:
        padded: by `mirrored`.
        bond: whole numbers, at most REACH in size.

    Returns:
        over the orthant.
    """
    ends = zip(bond, padded.shape, strict=True)
    return padded[tuple(slice(REACH + x, n - REACH + x) for x, n in ends)]


@partial(jax.jit, static_argnums=(0, 1))
def multiplicity(m: int, dimension: int) -> jax.Array:
    """How many sites of the box a site of the orthant stands for.

    Args:
        m: half the sites per side of the box.
        dimension: d.

    Returns:
        (m + 1,) * d.
    """
    line = jnp.full(m + 1, 2.0).at[jnp.array([0, m])].set(1.0)
    return math.prod(_along(axis, dimension, line) for axis in range(dimension))


def distances(m: int, dimension: int) -> np.ndarray:
    """|l|, with l over the orthant.

    Args:
        m: half the sites per side of the box.
        dimension: d.

    Returns:
        (m + 1,) * d, lattice constants.
    """
    return np.sqrt(np.sum(np.square(np.indices((m + 1,) * dimension)), axis=0))


def waves(m: int, dimension: int) -> np.ndarray:
    """The wave vectors, k_i = 0, pi / m ... pi.

    Args:
        m: half the sites per side of the box.
        dimension: d.

    Returns:
        (d, m + 1, ...).
    """
    return np.indices((m + 1,) * dimension) * (np.pi / m)


def strain_squares(v: jax.Array) -> jax.Array:
    """|Dv(l)|^2 over the nearest neighbours, each bond counted from both of its ends.

    Args:
        v: (d, ...) vector field.

    Returns:
        over the orthant.
    """
    total = 0.0
    for i, padded in enumerate(mirrored_vector(v)):
        for axis in range(padded.ndim):
            for sign in (1, -1):
                bond = tuple(sign * (a == axis) for a in range(padded.ndim))
                total += (shifted(padded, bond) - v[i]) ** 2
    return total


def strain_norm(v: jax.Array) -> jax.Array:
    """||Dv||, the square root of the sum of `strain_squares` over the box; v: (d, ...)."""
    return jnp.sqrt(jnp.sum(multiplicity(v.shape[1] - 1, len(v)) * strain_squares(v)))


def seminorm_symbol(wave: np.ndarray) -> np.ndarray:
    """K(k) of ||Dv||^2 = v^T K v.

    Args:
        wave: (d, ...), wave vectors.

    Returns:
        (...).
    """
    return np.sum(4.0 * (1.0 - np.cos(wave)), axis=0)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("sines", "cosines", "inverse", "seminorm_inverse"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Transform:
    """Exact inverses of a homogeneous Hessian and of K, by sines and cosines; see `transform`.

    With v = T vhat the synthesis, Phi^-1 = T Phi(k)^-1 T / norms: T is symmetric, and Phi(k) the
    real d x d block of plane waves.
    """

    sines: jax.Array  # (m + 1, m + 1)
    cosines: jax.Array  # (m + 1, m + 1)
    inverse: jax.Array  # (d, d, ...), Phi(k)^-1 / norms
    seminorm_inverse: jax.Array  # (...), 1 / K(k) / norms

    def _turned(self, field: jax.Array) -> jax.Array:
        """T applied to a vector field."""
        components = []
        for i, component in enumerate(field):
            for axis in range(component.ndim):
                matrix = self.sines if axis == i else self.cosines
                component = jnp.moveaxis(jnp.tensordot(matrix, component, axes=(1, axis)), 0, axis)
            components.append(component)
        return jnp.stack(components)

    def solve(self, f: jax.Array) -> jax.Array:
        """Phi^-1 f of a gradient f (d, ...) with respect to the orthant's variables."""
        return self._turned(jnp.einsum("ij...,j...->i...", self.inverse, self._turned(f)))

    def negative_norm(self, f: jax.Array) -> jax.Array:
        """(f^T K^-1 f)^(1/2), the largest f . v / ||Dv||; f: (d, ...)."""
        return jnp.sqrt(jnp.sum(self.seminorm_inverse[None] * self._turned(f) ** 2))


def transform(stiffness: np.ndarray, wave: np.ndarray) -> Transform:
    """The exact inverses of a homogeneous Hessian and of K, computed on the host.

    Args:
        stiffness: (d, d, ...), the Hessian's blocks at the wave vectors.
        wave: (d, m + 1, ...), see `waves`.

    Returns:
        the transform.
    """
    dimension, m = len(wave), wave.shape[1] - 1
    index = np.arange(m + 1)
    angle = np.pi * (np.outer(index, index) % (2 * m)) / m
    sines = np.sin(angle)
    sines[[0, m]] = sines[:, [0, m]] = 0.0
    norms = (2.0 * m) ** dimension / np.asarray(multiplicity(m, dimension))
    # Where k_i is 0 or pi component i has no mode, and nothing couples to it: any number will do.
    edge = np.isin(np.indices(wave.shape[1:]), (0, m))
    blocks = (
        np.moveaxis(stiffness, (0, 1), (-2, -1))
        + np.eye(dimension) * np.moveaxis(edge, 0, -1)[..., None, :]
    )
    symbol = seminorm_symbol(wave)
    return Transform(
        jnp.asarray(sines),
        jnp.asarray(np.cos(angle)),
        jnp.asarray(np.moveaxis(np.linalg.inv(blocks), (-2, -1), (0, 1)) / norms),
        jnp.asarray(1.0 / np.where(symbol > 0, symbol, 1.0) / norms),
    )


def _along(axis: int, dimension: int, line: jax.Array) -> jax.Array:
    """A line of numbers as an array that varies along one axis."""
    return line.reshape([-1 if a == axis else 1 for a in range(dimension)])
