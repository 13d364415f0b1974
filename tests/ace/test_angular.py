"""Spherical harmonics against SciPy, and their slopes against differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.angular import spherical_harmonics, spherical_harmonics_and_gradients
from tests.helpers import oracles

L_MAX = 6
VECTORS = np.concatenate(
    [np.random.default_rng(0).normal(size=(20, 3)), np.eye(3), -np.eye(3), [[1.0, 1.0, 0.0]]]
)
R = np.linalg.norm(VECTORS, axis=1)
UNIT = jnp.asarray(VECTORS / R[:, None]).T


@pytest.mark.parametrize("l_max", [0, 1, L_MAX])
def test_harmonics_are_those_of_scipy(l_max):
    """Poles and axes included. Monomials of degree 6 cancel to a few digits at most."""
    ours = spherical_harmonics(UNIT, l_max)
    assert ours.shape == ((l_max + 1) ** 2, len(VECTORS))
    np.testing.assert_allclose(ours.T, oracles.real_harmonics(VECTORS, l_max), rtol=0, atol=1e-13)


def test_first_degree_is_y_z_x():
    np.testing.assert_allclose(
        spherical_harmonics(UNIT, 1)[1:],
        np.sqrt(3 / (4 * np.pi)) * UNIT[np.array([1, 2, 0])],
        rtol=1e-15,
    )


def test_off_the_sphere_they_are_homogeneous_polynomials():
    """r^l Y_lm: what differentiation passes through is smooth everywhere, the origin included."""
    degree = np.repeat(np.arange(L_MAX + 1), 2 * np.arange(L_MAX + 1) + 1)
    near, far = spherical_harmonics(UNIT, L_MAX), spherical_harmonics(2 * UNIT, L_MAX)
    np.testing.assert_allclose(far, 2.0 ** degree[:, None] * near, rtol=0, atol=1e-11)


def test_gradients_are_those_of_the_polynomials():
    """Against central differences, exact up to the sixth derivative times h^2 / 6; and by Euler's
    theorem u . grad(r^l Y) = l Y."""
    values, gradients = spherical_harmonics_and_gradients(UNIT, L_MAX)
    np.testing.assert_allclose(values, spherical_harmonics(UNIT, L_MAX), rtol=0, atol=1e-13)
    h = 1e-5
    for axis, gradient in enumerate(gradients):
        step = h * jnp.eye(3)[axis][:, None]
        difference = spherical_harmonics(UNIT + step, L_MAX) - spherical_harmonics(
            UNIT - step, L_MAX
        )
        np.testing.assert_allclose(gradient, difference / (2 * h), rtol=0, atol=1e-8)
    degree = np.repeat(np.arange(L_MAX + 1), 2 * np.arange(L_MAX + 1) + 1)
    along = np.einsum("av,ahv->hv", UNIT, gradients)
    np.testing.assert_allclose(along, degree[:, None] * values, rtol=0, atol=1e-12)


def test_differentiation_goes_by_the_gradients():
    """Forward, and forward over reverse, through v -> Y(v / |v|): no slope along v, and the second
    derivative is that of SciPy's functions by differences of the first."""
    through = lambda v: spherical_harmonics(v / jnp.linalg.norm(v), L_MAX)  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.jacfwd(through)))(jnp.asarray(VECTORS))
    np.testing.assert_allclose(np.einsum("va,vha->vh", VECTORS, slopes), 0, atol=1e-11)
    v, h = jnp.asarray(VECTORS[0]), 1e-4
    curvature = jax.jit(jax.jacfwd(jax.jacrev(through)))(v)
    for axis in range(3):
        steps = VECTORS[0] + h * np.outer([-2, -1, 1, 2], np.eye(3)[axis])
        y = oracles.real_harmonics(steps, L_MAX)
        middle = oracles.real_harmonics(VECTORS[:1], L_MAX)[0]
        second = (-y[0] + 16 * y[1] - 30 * middle + 16 * y[2] - y[3]) / (12 * h**2)
        np.testing.assert_allclose(curvature[:, axis, axis], second, rtol=0, atol=1e-5)
