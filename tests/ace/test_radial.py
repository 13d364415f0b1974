"""Radial functions: their definition, orthonormality, and how smoothly they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from lprjax.ace.radial import agnesi, many_body_radial, pair_radial
from lprjax.ace.spec import ACESpec
from tests.helpers import oracles

SPEC = ACESpec("W", order=1, degree=6, r_cut=5.0, r0=2.7)
KINDS = {
    "many-body": (many_body_radial, oracles.many_body_radial),
    "pair": (pair_radial, oracles.pair_radial),
}


def options(power=SPEC.cutoff_power):
    return dict(r0=SPEC.r0, r_cut=SPEC.r_cut, n_max=SPEC.degree, power=power)


@pytest.mark.parametrize("kind", KINDS)
def test_radial_functions_are_their_twins(kind):
    """Recurrence and closed-form norms against SciPy's polynomials normalised by quadrature."""
    ours, twin = KINDS[kind]
    r = np.linspace(0.3, 4.999, 60)
    expected = twin(r, SPEC)
    values, _ = ours(jnp.asarray(r), **options())
    np.testing.assert_allclose(values.T, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_derivatives(kind):
    """Against forward differentiation of the values, at the cutoff and beyond it too."""
    ours, _ = KINDS[kind]
    values = lambda r: ours(r, **options())[0]  # noqa: E731
    r = jnp.linspace(0.3, 5.5, 60)
    _, expected = jax.jvp(values, (r,), (jnp.ones_like(r),))
    _, slopes = ours(r, **options())
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert not np.any(np.asarray(slopes)[:, r >= SPEC.r_cut])


def test_one_function_is_the_envelope_alone():
    few = {**options(), "n_max": 1}
    r = jnp.linspace(0.5, 6.0, 9)
    for ours, _ in KINDS.values():
        for one, all_of_them in zip(ours(r, **few), ours(r, **options()), strict=True):
            np.testing.assert_allclose(one, all_of_them[:1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("p, q", [(2, 4), (1, 3)])
def test_transform_falls_from_one_and_is_steepest_at_r0(p, q):
    r = jnp.linspace(0.0, 6.0, 2001)
    slope = jax.vmap(jax.grad(lambda r: agnesi(r, 3.0, p, q)))(r[1:])
    assert agnesi(r[0], 3.0, p, q) == 1.0 and np.all(slope < 0)
    assert r[1:][np.argmin(slope)] == pytest.approx(3.0, abs=1e-12)
    curvature = jax.grad(jax.grad(lambda r: agnesi(r, 3.0, p, q)))(3.0)
    assert abs(curvature) < 1e-14


def test_many_body_functions_are_orthonormal_in_t():
    """Integral of R_m R_n over t in [-1, 1] is the unit matrix: polynomials of degree 22 in t,
    which 12 Gauss points integrate exactly. The distances of the points are found by bisection."""
    points, weights = np.polynomial.legendre.leggauss(12)
    end = oracles.agnesi(SPEC.r_cut, SPEC.r0, 2, 4)
    t = lambda r: 1 - 2 * (oracles.agnesi(r, SPEC.r0, 2, 4) - end) / (1 - end)  # noqa: E731
    r = [brentq(lambda r, x=x: t(r) - x, 0, SPEC.r_cut, xtol=1e-15) for x in points]
    values = np.asarray(many_body_radial(jnp.array(r), **options())[0])
    gram = np.einsum("q,mq,nq->mn", weights, values, values)
    np.testing.assert_allclose(gram, np.eye(SPEC.degree), atol=1e-11)


def test_many_body_functions_vanish_at_the_core():
    """(1 + t)^2 ~ r^8: no Y_lm counts where it is undefined."""
    inner, outer = many_body_radial(jnp.array([0.01, 0.02]), **options())[0].T
    np.testing.assert_allclose(outer / inner, 2.0**8, rtol=1e-3)


def with_derivatives(function, order):
    """r -> (f, f', …) up to the given order."""
    functions = [function]
    for _ in range(order):
        functions.append(jax.jacfwd(functions[-1]))
    return jax.jit(lambda r: jnp.stack([f(r) for f in functions]))


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_vanish_at_the_cutoff(kind, power):
    """The k-th derivative falls as h^(power - k) at r_cut - h, and is zero from r_cut on: to the
    rounding of 1 - t (1e-15) to that power, times factorials."""
    derivatives = with_derivatives(lambda r: KINDS[kind][0](r, **options(power))[0], power - 1)
    near, nearer = derivatives(SPEC.r_cut - 2e-4), derivatives(SPEC.r_cut - 1e-4)
    assert np.all(nearer != 0)
    falls = 2.0 ** (power - np.arange(power))
    np.testing.assert_allclose(near / nearer, np.broadcast_to(falls, near.T.shape).T, rtol=0.02)
    rounding = 1e3 * (1e-15) ** (power - np.arange(power))
    assert np.all(np.abs(derivatives(SPEC.r_cut)) < rounding[:, None])
    for r in (SPEC.r_cut + 1e-9, 2 * SPEC.r_cut):
        assert np.all(np.abs(derivatives(r)) < rounding[0])
