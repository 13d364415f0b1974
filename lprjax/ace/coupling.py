"""Coupling of one-particle channels to O(3)- and permutation-invariant products.

Convention: real orthonormal spherical harmonics, m = -l … l, related to the complex ones
(Condon–Shortley phase) by

    Y_{l,m}  = sqrt(2) (-1)^m Re Y_l^m   (m > 0),      Y_{l,0} = Y_l^0,
    Y_{l,-m} = sqrt(2) (-1)^m Im Y_l^m   (m > 0).

All tables are exact up to rounding, made once on the host with NumPy and cached by l. The
polynomials in `angular` use the same convention.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import factorial, sqrt

import numpy as np

_ROUNDING = 1e-12
"""Couplings are sums of products of numbers of order one: what falls below is rounding."""
_RANK = 1e-8
"""Singular values below are zero: exact zeros against numbers of order one, between which any
threshold will do."""
_PIVOT = 1e-6
"""Lengths below are zero: exact zeros against numbers of order one, as above."""


def _clebsch_gordan(j1: int, m1: int, j2: int, m2: int, j3: int, m3: int) -> float:
    """<j1 m1 j2 m2 | j3 m3> by Racah's formula (Edmonds 1957, eq. 3.6.11)."""
    f = factorial
    norm = (2 * j3 + 1) * f(j1 + j2 - j3) * f(j1 - j2 + j3) * f(-j1 + j2 + j3) / f(j1 + j2 + j3 + 1)
    norm *= f(j1 + m1) * f(j1 - m1) * f(j2 + m2) * f(j2 - m2) * f(j3 + m3) * f(j3 - m3)
    first = max(0, j2 - j3 - m1, j1 - j3 + m2)
    last = min(j1 + j2 - j3, j1 - m1, j2 + m2)
    total = sum(
        (-1) ** k
        / (f(k) * f(j1 + j2 - j3 - k) * f(j1 - m1 - k) * f(j2 + m2 - k))
        / (f(j3 - j2 + m1 + k) * f(j3 - j1 - m2 + k))
        for k in range(first, last + 1)
    )
    return sqrt(norm) * total


def _complex_to_real(l: int) -> np.ndarray:
    """U with Y_real = U Y_complex, both ordered m = -l … l; shape (2l+1, 2l+1)."""
    u = np.zeros((2 * l + 1, 2 * l + 1), complex)
    u[l, l] = 1.0
    for m in range(1, l + 1):
        sign = (-1) ** m
        u[l + m, l + m], u[l + m, l - m] = sign / sqrt(2), 1 / sqrt(2)
        u[l - m, l + m], u[l - m, l - m] = -1j * sign / sqrt(2), 1j / sqrt(2)
    return u


@cache
def real_clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    """Tensor C[m1, m2, m3] that couples real Y_l1 and Y_l2 to a real tensor of degree l3.

    For odd l1+l2+l3 the coupling is imaginary in this convention and its imaginary part is
    returned: the overall phase is free.

    Args:
        l1: degree of the first factor.
        l2: degree of the second.
        l3: degree of what they are coupled to.

    Returns:
        The tensor, (2l1+1, 2l2+1, 2l3+1), dimensionless.
    """
    c = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1), complex)
    for m1, m2 in product(range(-l1, l1 + 1), range(-l2, l2 + 1)):
        if abs(m1 + m2) <= l3:
            c[l1 + m1, l2 + m2, l3 + m1 + m2] = _clebsch_gordan(l1, m1, l2, m2, l3, m1 + m2)
    u1, u2, u3 = _complex_to_real(l1), _complex_to_real(l2), _complex_to_real(l3)
    c = np.einsum("am,bn,co,mno->abc", u1.conj(), u2.conj(), u3, c)
    return np.ascontiguousarray(c.imag if (l1 + l2 + l3) % 2 else c.real)


@cache
def invariant_tensors(degrees: tuple[int, ...]) -> np.ndarray:
    """All rotation- and inversion-invariant tensors in the product of one to four harmonics.

    Four factors are coupled as ((l1 l2) L (l3 l4) L) 0 over all L.

    Args:
        degrees: l of each factor.

    Returns:
        The tensors, (n_invariants, 2l_1+1, …, 2l_v+1); n_invariants = 0 if sum l is odd
        (inversion) or no coupling exists.

    Raises:
        ValueError: more than four factors.
    """
    shape = tuple(2 * l + 1 for l in degrees)
    if sum(degrees) % 2:
        return np.zeros((0, *shape))
    if len(degrees) == 1:
        return np.ones((int(degrees[0] == 0), *shape))
    if len(degrees) == 2:
        return np.eye(shape[0])[None] if degrees[0] == degrees[1] else np.zeros((0, *shape))
    if len(degrees) == 3:
        l1, l2, l3 = degrees
        possible = abs(l1 - l2) <= l3 <= l1 + l2
        return real_clebsch_gordan(*degrees)[None] if possible else np.zeros((0, *shape))
    if len(degrees) == 4:
        l1, l2, l3, l4 = degrees
        middle = range(max(abs(l1 - l2), abs(l3 - l4)), min(l1 + l2, l3 + l4) + 1)
        coupled = [
            np.tensordot(real_clebsch_gordan(l1, l2, L), real_clebsch_gordan(l3, l4, L), (2, 2))
            for L in middle
        ]
        return np.stack(coupled) if coupled else np.zeros((0, *shape))
    raise ValueError(f"order is {len(degrees)}: wanted 1 to 4, the orders of the couplings.")


@cache
def symmetric_invariants(
    degrees: tuple[int, ...], labels: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Linearly independent invariants after symmetrising over factors with equal labels.

    Two factors with the same label are the same channel, so products that differ by swapping them
    are the same monomial. The invariant tensors are summed over equal monomials and the redundant
    ones removed by SVD.

    Args:
        degrees: l of each factor.
        labels: one for each factor, equal where (species, n, l) is equal, ascending.

    Returns:
        Monomials (n_monomials, order) of m values, and coefficients (rank, n_monomials) with
        orthonormal rows.

    Raises:
        ValueError: more than four factors.

    Source: Dusson et al., J. Comput. Phys. 454 (2022) 110946.
    """
    tensors = invariant_tensors(degrees)
    ranges = [range(-l, l + 1) for l in degrees]
    columns: dict[tuple, int] = {}
    column_of = np.empty(tensors[0].size if len(tensors) else 0, int)
    for flat, m in enumerate(product(*ranges) if len(tensors) else ()):
        monomial = tuple(sorted(zip(labels, m, strict=True)))
        column_of[flat] = columns.setdefault(monomial, len(columns))
    summed = np.zeros((len(tensors), len(columns)))
    for row, tensor in zip(summed, tensors, strict=True):
        np.add.at(row, column_of, tensor.ravel())
    _, sigma, vt = np.linalg.svd(summed, full_matrices=False)
    rank = int(np.sum(sigma > _RANK))
    coefficients = _echelon(vt[:rank])
    coefficients = np.where(np.abs(coefficients) > _ROUNDING, coefficients, 0.0)
    used = np.any(coefficients != 0, axis=0)
    monomials = np.array([[m for _, m in key] for key in columns], int).reshape(-1, len(degrees))
    return monomials[used], coefficients[:, used]


def _echelon(rows: np.ndarray) -> np.ndarray:
    """The orthonormal rows in echelon form, pivots positive, with the span of given ones.

    An SVD leaves signs, and rotations among equal singular values, to rounding; these rows depend
    on the span alone, so that saved coefficients mean the same functions on every machine.
    """
    chosen = np.zeros((0, len(rows)))
    for column in rows.T:
        rest = column - chosen.T @ (chosen @ column)
        if np.linalg.norm(rest) > _PIVOT:
            chosen = np.concatenate([chosen, rest[None] / np.linalg.norm(rest)])
    return chosen @ rows
