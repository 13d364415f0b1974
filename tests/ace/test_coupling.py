"""Couplings are equivariant, complete, and the same on every machine."""

from itertools import product

import numpy as np
import pytest

from lprjax.ace import coupling
from lprjax.ace.coupling import invariant_tensors, real_clebsch_gordan, symmetric_invariants
from tests.helpers import oracles

L_MAX = 4
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
ROTATION *= np.linalg.det(ROTATION)
IMPROPER = ROTATION @ np.diag([1.0, 1.0, -1.0])
TRIANGLES = [
    (a, b, c) for a, b, c in product(range(L_MAX + 1), repeat=3) if abs(a - b) <= c <= a + b
]
# Rounding of the entries of D (1e-15) and of sums over (2 l + 1)^4 of them.
TIGHT = 1e-11


@pytest.fixture(scope="module")
def d():
    return [oracles.wigner(l, ROTATION) for l in range(L_MAX + 1)]


def test_clebsch_gordan_couples_rotations(d):
    """D^a_{im} D^b_{jn} C_{mnk} = C_{ijo} D^c_{ok} for every triangle, and sum_ij C_ijk C_ijl = 1.

    With the harmonics of SciPy: the conventions of `angular` and `coupling` are one."""
    for a, b, c in TRIANGLES:
        tensor = real_clebsch_gordan(a, b, c)
        turned = np.einsum("im,jn,mnk->ijk", d[a], d[b], tensor)
        np.testing.assert_allclose(turned, tensor @ d[c], atol=TIGHT, err_msg=str((a, b, c)))
        gram = np.einsum("ijk,ijl->kl", tensor, tensor)
        np.testing.assert_allclose(gram, np.eye(2 * c + 1), atol=TIGHT)


DEGREES = [
    *[(l,) for l in range(3)],
    *product(range(4), repeat=2),
    *product(range(4), repeat=3),
    *[
        (1, 1, 1, 1),
        (0, 1, 1, 2),
        (1, 1, 2, 2),
        (1, 2, 2, 3),
        (2, 2, 2, 2),
        (1, 1, 1, 2),
        (0, 0, 0, 4),
    ],
]


def test_invariant_tensors_are_all_invariants_of_distinct_factors():
    """Invariant under rotations and inversions, independent, and as many as the group allows."""
    improper = [oracles.wigner(l, IMPROPER) for l in range(L_MAX + 1)]
    for degrees in DEGREES:
        tensors = turned = invariant_tensors(degrees)
        for axis, l in enumerate(degrees, start=1):
            turned = np.moveaxis(np.tensordot(turned, improper[l], (axis, 1)), -1, axis)
        np.testing.assert_allclose(turned, tensors, atol=TIGHT, err_msg=str(degrees))
        gram = np.tensordot(tensors, tensors, (range(1, tensors.ndim),) * 2)
        rank = np.linalg.matrix_rank(gram, tol=1e-8) if len(gram) else 0
        assert len(tensors) == rank == oracles.n_invariants(degrees, range(len(degrees))), degrees


SYMMETRIC = [
    ((2, 2), (0, 0)),
    ((1, 1, 1), (0, 0, 0)),  # a.(a x a) = 0, and odd under inversion
    ((1, 1, 2), (0, 0, 2)),
    ((1, 1, 2), (0, 1, 2)),
    ((2, 2, 2), (0, 0, 0)),
    ((2, 3, 3), (0, 1, 1)),
    ((0, 1, 1, 2), (0, 1, 1, 3)),
    ((1, 1, 1, 1), (0, 0, 0, 0)),
    ((1, 1, 1, 1), (0, 0, 0, 3)),
    ((1, 1, 1, 1), (0, 0, 2, 2)),
    ((1, 1, 1, 1), (0, 0, 2, 3)),
    ((1, 1, 1, 1), (0, 1, 2, 3)),
    ((2, 2, 2, 2), (0, 0, 0, 0)),
    ((1, 1, 2, 2), (0, 0, 2, 2)),
    ((2, 2, 3, 3), (0, 1, 2, 2)),
    ((3, 3, 3, 3), (0, 0, 0, 0)),
    ((4, 4, 4, 4), (0, 0, 0, 0)),
]


@pytest.mark.parametrize("degrees, labels", SYMMETRIC)
def test_symmetric_invariants_are_all_invariants(degrees, labels):
    """The rows, read as polynomials of one vector a_z per label, are invariant under rotation of
    random a_z and under inversion, orthonormal, and as many as the characters of O(3) count: so
    they span all invariants."""
    monomials, rows = symmetric_invariants(degrees, labels)
    assert len(rows) == oracles.n_invariants(degrees, labels)
    assert len({tuple(sorted(zip(labels, m, strict=True))) for m in monomials}) == len(monomials)
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-13)

    l_of = dict(zip(labels, degrees, strict=True))
    rng = np.random.default_rng(0)
    vectors = {z: rng.normal(size=2 * l + 1) for z, l in l_of.items()}

    def values(vectors):
        factors = [
            vectors[z][monomials[:, a] + l]
            for a, (z, l) in enumerate(zip(labels, degrees, strict=True))
        ]
        return rows @ np.prod(factors, axis=0)

    before = values(vectors)
    assert np.all(np.abs(before) > 1e-6)
    turned = {z: oracles.wigner(l_of[z], IMPROPER) @ v for z, v in vectors.items()}
    np.testing.assert_allclose(values(turned), before, atol=TIGHT)


@pytest.mark.parametrize("degrees, labels", SYMMETRIC)
def test_rows_depend_on_the_span_alone(degrees, labels, monkeypatch):
    """Any other basis of the invariants (another sign, another coupling tree, the rounding of
    another LAPACK) gives the same functions, or saved coefficients would change their meaning."""
    monomials, rows = symmetric_invariants(degrees, labels)
    tensors = invariant_tensors(degrees)
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(len(tensors), len(tensors))) - np.eye(len(tensors))
    mixed = np.tensordot(mixing, tensors, 1)
    monkeypatch.setattr(coupling, "invariant_tensors", lambda _: mixed)
    again, mixed_rows = symmetric_invariants.__wrapped__(degrees, labels)
    np.testing.assert_array_equal(again, monomials)
    np.testing.assert_allclose(mixed_rows, rows, atol=1e-11)


def test_five_factors_are_refused():
    with pytest.raises(ValueError, match="order is 5: wanted 1 to 4"):
        invariant_tensors((1, 1, 1, 1, 0))
