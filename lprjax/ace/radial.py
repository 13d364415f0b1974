"""Radial functions: transformed distance, smooth cutoff, orthogonal polynomials.

Conventions (those of ACEpotentials, except for the power of the cutoff, which is free here):

- generalised Agnesi transform  x(r) = 1 / (1 + a s^q / (1 + s^(q-p))),  s = r / r0,
  with `a` such that |dx/dr| is largest at r = r0;
- t = affine image of x with t(0) = -1, t(r_cut) = +1;
- R_n = P_{n-1}(t) * envelope, n = 1 … n_max, P_n the Jacobi polynomials that make the many-body
  functions orthonormal in t.

Every function and its first `power - 1` derivatives vanish at the cutoff. Force constants are
second and third-order elastic constants third derivatives, so the default power 4 keeps both
continuous when a neighbour crosses the cutoff.

The polynomials and their slopes are two matrix products with the Chebyshev polynomials of t, which
double in number with every array operation; n is the first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import exp, lgamma, log
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from lprjax.numerics.guarded import inverse, smoothstep
from lprjax.potentials.zbl import SMOOTHNESS

Length = TypeVar("Length", jax.Array, float)

CORE_POWER = 2
"""A choice: many-body functions vanish as (1+t)^2 ~ r^8 at r = 0, where Y_lm is undefined."""
MANY_BODY_AGNESI = (2, 4)
"""(p, q) of the distance transform of the many-body functions; those of ACEpotentials."""
PAIR_AGNESI = (1, 3)
"""(p, q) of the distance transform of the pair functions; those of ACEpotentials."""


def agnesi(r: Length, r0: float, p: int, q: int) -> Length:
    """Generalised Agnesi transform of a distance, decreasing from 1 at r = 0.

        x = 1 / (1 + a s^q / (1 + s^(q-p))),  s = r / r0

    At s = 1 the slope has an extremum, d2x/ds2 = 0, for
    a = (-2q + p(-2 + 4q)) / (p + p^2 + q + q^2).

    Args:
        r: distances, (...), Å, >= 0.
        r0: where the slope is steepest, Å.
        p: x falls as r^-p at large distances.
        q: 1 - x rises as r^q from r = 0; q > p.

    Returns:
        x, (...), dimensionless.

    Source: the family of Witt et al., J. Chem. Phys. 159 (2023) 164101.
    """
    a = (-2 * q + p * (-2 + 4 * q)) / (p + p**2 + q + q**2)
    s: Any = r * (1.0 / r0)
    rest = 1.0 + s ** (q - p)
    return rest * (1.0 / (rest + a * s**q) if isinstance(r, float) else inverse(rest + a * s**q))


def _jacobi(t: np.ndarray, alpha: int, beta: int, n_max: int) -> np.ndarray:
    """Jacobi polynomials P_0 … P_{n_max-1}, (..., n_max), orthonormal for (1-t)^alpha (1+t)^beta on
    [-1, 1], by their recurrence on the host."""
    values = [np.ones_like(t), (alpha + 1) + (alpha + beta + 2) * (t - 1) / 2]
    for n in range(2, n_max):
        c = 2 * n + alpha + beta
        scale = 2 * n * (n + alpha + beta) * (c - 2)
        slope, shift = (c - 1) * c * (c - 2) / scale, (c - 1) * (alpha**2 - beta**2) / scale
        back = 2 * (n + alpha - 1) * (n + beta - 1) * c / scale
        values.append((slope * t + shift) * values[-1] - back * values[-2])
    norms = [_jacobi_norm(n, alpha, beta) for n in range(n_max)]
    return np.stack(values[:n_max], axis=-1) / norms


def _jacobi_norm(n: int, alpha: int, beta: int) -> float:
    """Square root of the integral of (1-t)^alpha (1+t)^beta P_n^2 (Abramowitz–Stegun 22.2.1)."""
    log_square = (alpha + beta + 1) * log(2) - log(2 * n + alpha + beta + 1)
    log_square += lgamma(n + alpha + 1) + lgamma(n + beta + 1)
    log_square -= lgamma(n + alpha + beta + 1) + lgamma(n + 1)
    return exp(log_square / 2)


@cache
def _jacobi_in_chebyshev(alpha: int, beta: int, n_max: int, order: int) -> np.ndarray:
    """The matrix (n_max, n_max) that makes the derivatives of P_n of T_0 … T_{n_max-1}."""
    nodes = np.cos(np.pi * (np.arange(n_max) + 0.5) / n_max)
    # at Chebyshev's own nodes the interpolation is orthogonal up to scale: no digits are lost
    values = np.linalg.solve(
        chebyshev.chebvander(nodes, n_max - 1), _jacobi(nodes, alpha, beta, n_max)
    )
    derivatives = np.zeros_like(values)
    if order < n_max:
        derivatives[: n_max - order] = chebyshev.chebder(values, order)
    return derivatives.T


def _chebyshev(t: jax.Array, n_max: int) -> jax.Array:
    """T_0 … T_{n_max-1} of t, (n_max, ...), doubled by T_{m+k} = 2 T_m T_k - T_{m-k}."""
    values = jnp.stack([jnp.ones_like(t), t])
    while len(values) < n_max:
        last, k = values[-1:], values[1:]
        values = jnp.concatenate([values, 2.0 * last * k - values[-2::-1]])
    return values[:n_max]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _polynomials(kind: tuple[int, int, int], order: int, t: jax.Array) -> jax.Array:
    """The derivatives of some order of P_0 … P_{n_max-1}, kind = (alpha, beta, n_max), at t.

    Derivatives of any order are products with the same Chebyshev polynomials.
    """
    return jnp.tensordot(_jacobi_in_chebyshev(*kind, order), _chebyshev(t, kind[-1]), 1)


@_polynomials.defjvp
def _polynomials_jvp(kind, order, primals, tangents):
    slopes = _polynomials(kind, order + 1, *primals)
    return _polynomials(kind, order, *primals), slopes * tangents[0][None]


def _with_slopes(
    parts: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    r: jax.Array,
    alpha: int,
    beta: int,
    n_max: int,
) -> tuple[jax.Array, jax.Array]:
    """P_{n-1}(t) e and its derivative in r, where parts(r) is the pair t, e."""
    (t, e), (t_slope, e_slope) = jax.jvp(parts, (r,), (jnp.ones_like(r),))
    p, p_slope = (_polynomials((alpha, beta, n_max), order, t) for order in (0, 1))
    return p * e[None], p_slope * (e * t_slope)[None] + p * e_slope[None]


def _transformed(r: jax.Array, r0: float, r_cut: float, p: int, q: int) -> jax.Array:
    """t(r) in [-1, 1]; distances beyond the cutoff are taken to it, where the envelope vanishes."""
    inside = jnp.minimum(r, r_cut)
    end = agnesi(r_cut, r0, p, q)
    return 1.0 - 2.0 / (1.0 - end) * (agnesi(inside, r0, p, q) - end)


def _faded(r: jax.Array, core: tuple[float, float] | None) -> jax.Array | float:
    """What the functions are multiplied by towards the core: 0 below its inner radius."""
    if core is None:
        return 1.0
    return smoothstep((r - core[0]) / (core[1] - core[0]), SMOOTHNESS)


def many_body_radial(
    r: jax.Array,
    *,
    r0: float,
    r_cut: float,
    n_max: int,
    power: int,
    core: tuple[float, float] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Radial functions of the one-particle basis, orthonormal in t, and their slopes.

        R_n = P_{n-1}(t) (1-t)^power (1+t)^2,  Agnesi (p, q) = (2, 4)

    Args:
        r: distances, (...), Å, > 0; the functions vanish beyond r_cut.
        r0: where the distance transform is steepest, Å.
        r_cut: cutoff, Å.
        n_max: number of functions, >= 1.
        power: order of the zero at the cutoff.
        core: (inner, outer), Å, between which the functions fade out towards smaller r; None: not.

    Returns:
        R_n, dimensionless, and dR_n/dr, 1/Å, each (n_max, ...).
    """

    def parts(r):
        t = _transformed(r, r0, r_cut, *MANY_BODY_AGNESI)
        return t, (1.0 - t) ** power * (1.0 + t) ** CORE_POWER * _faded(r, core)

    return _with_slopes(parts, r, 2 * power, 2 * CORE_POWER, n_max)


def pair_radial(
    r: jax.Array,
    *,
    r0: float,
    r_cut: float,
    n_max: int,
    power: int,
    core: tuple[float, float] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Radial functions of the separate pair basis and their slopes.

        P_{n-1}(t) (r0/r) (1 - r/r_cut)^power,  Agnesi (p, q) = (1, 3)

    Repulsive as 1/r towards the core.

    Args:
        r: distances, (...), Å, > 0; the functions vanish beyond r_cut.
        r0: where the distance transform is steepest, Å.
        r_cut: cutoff, Å.
        n_max: number of functions, >= 1.
        power: order of the zero at the cutoff.
        core: (inner, outer), Å, between which the functions fade out towards smaller r; None: not.

    Returns:
        The functions, dimensionless, and their derivatives in r, 1/Å, each (n_max, ...).
    """

    def parts(r):
        t = _transformed(r, r0, r_cut, *PAIR_AGNESI)
        envelope = (1.0 - jnp.minimum(r, r_cut) * (1.0 / r_cut)) ** power
        return t, r0 * inverse(r) * envelope * _faded(r, core)

    return _with_slopes(parts, r, 2 * power, 0, n_max)
