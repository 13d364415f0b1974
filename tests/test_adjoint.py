"""W = dB/dA is the derivative of the products, term by term."""

import jax
import numpy as np
import pytest

from lprjax.adjoint import adjoint_tables, adjoint_weights, slot_sums
from lprjax.spec import ACESpec, tables

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


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"order {spec.order}")
def test_weights_are_derivatives_of_the_products(spec):
    """For any A, not only one that atoms make: each entry (channel, slot) of each group, and by
    Euler's theorem sum_v A_v dB/dA_v = v B for products of v factors."""
    t, base = tables(spec), np.random.default_rng(0).normal(size=(1, N_SITES))
    base = np.concatenate([np.random.default_rng(1).normal(size=(t.n_channels, N_SITES)), base])
    base[-1] = 1.0
    weights = np.asarray(jax.jit(lambda a: adjoint_weights(spec, a))(base))
    expected = derivatives(spec, base)
    seen = np.zeros_like(expected, bool)
    slots = []
    for g in adjoint_tables(spec).groups:
        assert {tuple(t.channels[v, :3]) for v in g.channels} == {(g.z, g.n, g.l)}
        mine = weights[g.start : g.start + g.size].reshape(len(g.channels), -1, N_SITES)
        wanted = expected[np.ix_(g.functions, g.channels)].swapaxes(0, 1)
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-13 * np.abs(expected).max())
        seen[np.ix_(g.functions, g.channels)] = True
        slots.append(np.einsum("mi,mti->it", base[g.channels], mine))
    assert not np.any(expected[~seen]), "a derivative that is not zero has no slot"
    sums = np.asarray(slot_sums(spec, np.concatenate(slots, axis=-1)))
    orders = np.array([len(f.factors) for f in t.functions])
    products = np.zeros_like(sums)
    for k, channels, value in zip(t.term_function, t.term_channels, t.term_value, strict=True):
        products[:, k] += value * np.prod(base[channels], axis=0)
    np.testing.assert_allclose(sums, orders * products, atol=1e-12 * np.abs(sums).max())
