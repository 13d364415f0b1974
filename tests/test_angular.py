"""Spherical harmonics against SciPy, and their slopes against differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from lprjax.angular import spherical_harmonics, spherical_harmonics_and_slopes

L_MAX = 6
VECTORS = np.concatenate(
    [np.random.default_rng(0).normal(size=(20, 3)), np.eye(3), -np.eye(3), [[1.0, 1.0, 0.0]]]
)
R = np.linalg.norm(VECTORS, axis=1)
UNIT = jnp.asarray(VECTORS / R[:, None])


@pytest.mark.parametrize("l_max", [0, 1, L_MAX])
def test_harmonics_are_those_of_scipy(l_max):
    """Poles and axes included. Monomials of degree 6 cancel to a few digits at most."""
    ours = spherical_harmonics(UNIT, l_max)
    assert ours.shape == (len(VECTORS), (l_max + 1) ** 2)
    np.testing.assert_allclose(ours, oracles.real_harmonics(VECTORS, l_max), rtol=0, atol=1e-13)


def test_first_degree_is_y_z_x():
    np.testing.assert_allclose(
        spherical_harmonics(UNIT, 1)[:, 1:],
        np.sqrt(3 / (4 * np.pi)) * UNIT[:, [1, 2, 0]],
        rtol=1e-15,
    )


def test_off_the_sphere_they_are_homogeneous_polynomials():
    """r^l Y_lm: what differentiation passes through is smooth everywhere, the origin included."""
    degree = np.repeat(np.arange(L_MAX + 1), 2 * np.arange(L_MAX + 1) + 1)
    near, far = spherical_harmonics(UNIT, L_MAX), spherical_harmonics(2 * UNIT, L_MAX)
    np.testing.assert_allclose(far, 2.0**degree * near, rtol=0, atol=1e-11)


def test_slopes_are_derivatives():
    """Against jvp of v -> Y(v / |v|); no slope along v, and even (odd) l have odd (even) slopes."""
    slopes_at = jax.jit(lambda u, r: spherical_harmonics_and_slopes(u, r, L_MAX))
    values, slopes = slopes_at(UNIT, jnp.asarray(R))
    np.testing.assert_allclose(values, spherical_harmonics(UNIT, L_MAX), rtol=0, atol=1e-13)
    through = lambda v: spherical_harmonics(v / jnp.linalg.norm(v), L_MAX)  # noqa: E731
    expected = jax.jit(jax.vmap(jax.jacfwd(through)))(jnp.asarray(VECTORS))
    np.testing.assert_allclose(slopes, np.swapaxes(expected, 1, 2), rtol=0, atol=1e-11)
    np.testing.assert_allclose(np.einsum("va,vah->vh", VECTORS, slopes), 0, atol=1e-11)
    parity = np.repeat((-1.0) ** np.arange(L_MAX + 1), 2 * np.arange(L_MAX + 1) + 1)
    np.testing.assert_allclose(slopes_at(-UNIT, jnp.asarray(R))[1], -parity * slopes, atol=1e-11)
