"""Real spherical harmonics Y_lm as polynomials of a unit vector.

Convention: orthonormal on the unit sphere, real, without the Condon–Shortley sign:
Y_1 = sqrt(3/4pi) (y, z, x); order l = 0 … l_max, m = -l … l, index l^2 + l + m.
"""

from __future__ import annotations

from functools import cache, partial
from math import comb, factorial, pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np

Polynomial = dict[tuple[int, int, int], float]
"""{(a, b, c): coefficient of x^a y^b z^c}."""
ROUNDING = 1e-12
"""Coefficients are of order one: what falls below is rounding."""


def _harmonic(l: int, m: int) -> Polynomial:
    """The homogeneous polynomial r^l Y_lm.

    r^l Y_lm = N_lm Pi_lm(z, r) * (Re or Im)(x + i y)^|m|, with Pi the polynomial left of the
    associated Legendre function (Helgaker, Jorgensen, Olsen 2000, section 6.4).
    """
    mu = abs(m)
    norm = sqrt((2 * l + 1) / (4 * pi) * factorial(l - mu) / factorial(l + mu))
    norm *= sqrt(2) if m else 1.0
    terms: Polynomial = {}
    for k in range((l - mu) // 2 + 1):
        # d^mu/dz^mu of the Legendre polynomial's term z^(l-2k), times r^(2k) expanded
        legendre = (-1) ** k * comb(l, k) * comb(2 * l - 2 * k, l) / 2**l
        legendre *= factorial(l - 2 * k) / factorial(l - 2 * k - mu)
        for i in range(k + 1):
            for j in range(k - i + 1):
                radius = factorial(k) / (factorial(i) * factorial(j) * factorial(k - i - j))
                for p in range(mu + 1):
                    # (x + i y)^mu: term x^(mu-p) (i y)^p; even p are real, odd p imaginary
                    if (p % 2 == 1) != (m < 0):
                        continue
                    sign = (-1) ** (p // 2)
                    key = (2 * i + mu - p, 2 * j + p, l - 2 * k - mu + 2 * (k - i - j))
                    value = norm * legendre * radius * comb(mu, p) * sign
                    terms[key] = terms.get(key, 0.0) + value
    return terms


def _derivative(terms: Polynomial, axis: int) -> Polynomial:
    """d/dx_axis of a polynomial."""
    out: Polynomial = {}
    for key, value in terms.items():
        if key[axis]:
            lower = (key[0] - (axis == 0), key[1] - (axis == 1), key[2] - (axis == 2))
            out[lower] = out.get(lower, 0.0) + key[axis] * value
    return out


@cache
def _polynomials(l_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Exponents (n_monomials, 3) and the matrix (n_monomials, 4, (l_max+1)^2) that makes the
    harmonics and their three derivatives of the monomials."""
    harmonics = [_harmonic(l, m) for l in range(l_max + 1) for m in range(-l, l + 1)]
    columns = [harmonics] + [[_derivative(h, axis) for h in harmonics] for axis in range(3)]
    keys = sorted({key for column in columns for terms in column for key in terms})
    matrix = np.zeros((len(keys), 4, len(harmonics)))
    for c, column in enumerate(columns):
        for h, terms in enumerate(column):
            for key, value in terms.items():
                matrix[keys.index(key), c, h] = value
    return np.array(keys), matrix


@cache
def _gradients_in_harmonics(l_max: int) -> np.ndarray:
    """The matrix (3, (l_max+1)^2, l_max^2) of `harmonic_gradients`; one column of zeros without."""
    _, matrix = _polynomials(l_max)
    lower = matrix[:, 0, : max(1, l_max**2)]
    made = np.linalg.lstsq(lower, matrix[:, 1:].reshape(len(matrix), -1))[0]
    made = np.where(np.abs(made) > ROUNDING, made, 0.0)
    return np.moveaxis(made.reshape(-1, *matrix[0, 1:].shape), 0, -1)


def _monomials(unit: jax.Array, l_max: int) -> jax.Array:
    """All x^a y^b z^c that the harmonics up to l_max need, (n_monomials, ...)."""
    exponents, _ = _polynomials(l_max)
    powers = [jnp.ones_like(unit)]
    for _ in range(l_max):
        powers.append(powers[-1] * unit)
    powers = jnp.stack(powers)  # (l_max + 1, 3, ...)
    x, y, z = exponents.T
    return powers[x, 0] * powers[y, 1] * powers[z, 2]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def spherical_harmonics(unit: jax.Array, l_max: int) -> jax.Array:
    """Real spherical harmonics of unit vectors, Y_lm.

    Args:
        unit: (3, ...), dimensionless, |unit| = 1. Off the sphere the value is that of the
            homogeneous polynomial r^l Y_lm; derivatives of R(r) Y_lm(r/|r|) are right because they
            pass through r/|r|.
        l_max: highest degree, >= 0.

    Returns:
        Y_lm, ((l_max+1)^2, ...), dimensionless, at index l^2 + l + m.

    Source: Helgaker, Jorgensen, Olsen, Molecular Electronic-Structure Theory (2000), section 6.4.
    """
    _, matrix = _polynomials(l_max)
    return jnp.tensordot(matrix[:, 0].T, _monomials(unit, l_max), 1)


@spherical_harmonics.defjvp
def _spherical_harmonics_jvp(l_max, primals, tangents):
    """By the gradients themselves: reverse mode then takes one product instead of a chain."""
    values, gradients = spherical_harmonics_and_gradients(*primals, l_max)
    return values, jnp.sum(gradients * tangents[0][:, None], axis=0)


def spherical_harmonics_and_gradients(unit: jax.Array, l_max: int) -> tuple[jax.Array, jax.Array]:
    """Y_lm and the gradients of the homogeneous polynomials r^l Y_lm at unit vectors.

    Args:
        unit: (3, ...), dimensionless, |unit| = 1.
        l_max: highest degree, >= 0.

    Returns:
        Y_lm, ((l_max+1)^2, ...), and the gradients, (3, (l_max+1)^2, ...), dimensionless.
    """
    values = spherical_harmonics(unit, l_max)
    return values, harmonic_gradients(values, l_max)


def harmonic_gradients(values: jax.Array, l_max: int) -> jax.Array:
    """The gradients of the homogeneous polynomials r^l Y_lm at unit vectors, from Y_lm there.

    A derivative of a harmonic polynomial of degree l is one of degree l - 1.

    Args:
        values: Y_lm, ((l_max+1)^2, ...), of `spherical_harmonics`.
        l_max: highest degree, >= 0.

    Returns:
        The gradients, (3, (l_max+1)^2, ...), dimensionless.
    """
    return jnp.tensordot(_gradients_in_harmonics(l_max), values[: max(1, l_max**2)], 1)
