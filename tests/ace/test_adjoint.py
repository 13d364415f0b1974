"""dB/dA, made of few functions, is the derivative of the products, term by term."""

import jax
import numpy as np
import pytest

from lprjax.ace.adjoint import adjoint_tables, block_functions, channels_of, rows_of
from lprjax.ace.spec import ACESpec, tables

N_SITES = 2
SPECS = [
    ACESpec("W", 1, 3, 4.2, 2.7),
    ACESpec("W", 2, 8, 4.2, 2.7),
    ACESpec(("W", "Mo"), 3, 6, 4.2, 2.7),
    ACESpec("W", 4, 10, 4.2, 2.7),
]


def derivatives(spec, base):
    """dB_k/dA_v, (n_many_body, V, n), by the product rule on one term after the other."""
    t = tables(spec)
    out = np.zeros((t.n_many_body, t.n_channels, base.shape[1]))
    for k, channels, value in zip(t.term_function, t.term_channels, t.term_value, strict=True):
        real = [v for v in channels if v < t.n_channels]
        for taken, v in enumerate(real):
            rest = real[:taken] + real[taken + 1 :]
            out[k, v] += value * np.prod(base[rest], axis=0)
    return out


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: f"order {spec.order}")
def case(request):
    """A basis, channels A at a few sites (any numbers, not only those that atoms make) and Q."""
    spec = request.param
    base = np.random.default_rng(1).normal(size=(tables(spec).n_channels + 1, N_SITES))
    base[-1] = 1.0
    q = jax.jit(lambda a: block_functions(spec, adjoint_tables(spec).q(a)))(base)
    return spec, base, [np.asarray(x) for x in q]


def test_derivatives_are_made_of_the_functions(case):
    """Rows of D = one channel at one site are dB/dA of that channel at that site."""
    spec, base, q = case
    t, expected = tables(spec), derivatives(spec, base)
    seen = np.zeros_like(expected)
    for block, (b, functions) in enumerate(zip(adjoint_tables(spec).blocks, q, strict=True)):
        channels = channels_of(spec, b)
        assert np.all(t.channels[channels, 2] == b.l)
        for (z, n, m), v in np.ndenumerate(channels):
            y = [
                np.zeros((N_SITES, len(spec.elements), c.n_max, c.n_q))
                for c in adjoint_tables(spec).blocks
            ]
            y[block][:, z, n] = functions[:, m]
            seen[:, v] = np.asarray(rows_of(spec, y)).T
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_sums_of_products_are_homogeneous(case):
    """Euler's theorem, sum_v A_v dB/dA_v = v B, for products of v factors."""
    spec, base, q = case
    t = tables(spec)
    y = [
        np.einsum("znmi,imq->iznq", base[channels_of(spec, b)], x)
        for b, x in zip(adjoint_tables(spec).blocks, q, strict=True)
    ]
    sums = np.asarray(rows_of(spec, y))
    orders = np.array([len(f.factors) for f in t.functions])
    products = np.zeros_like(sums)
    for k, channels, value in zip(t.term_function, t.term_channels, t.term_value, strict=True):
        products[:, k] += value * np.prod(base[channels], axis=0)
    np.testing.assert_allclose(sums, orders * products, atol=1e-12 * np.abs(sums).max())
    np.testing.assert_allclose(t.sums(base).T, products, atol=1e-13 * np.abs(sums).max())


def test_taking_out_another_n_leaves_the_same_functions():
    """That is what makes them few: at degree 12, a third of the derivatives."""
    spec = ACESpec("Si", 3, 12, 5.5, 2.35)
    entries = adjoint_tables(spec).blocks[-1].entries.stop
    taken = {
        (k, *f) for k, g in enumerate(tables(spec).functions) for f in g.factors
    }  # slots (function, factor)
    derivatives = sum(2 * l + 1 for *_, l in taken)
    assert entries < 0.4 * derivatives
