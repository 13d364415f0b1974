"""The lattices of the decay rates: symmetries, dense twins on the whole box, moments, Newton."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from experiments.systems import bond_lattice, symmetric_fields
from experiments.systems.bond_lattice import (
    CHANGE,
    SECOND,
    Model,
    energy,
    equilibrium,
    gradient,
    hessian_product,
    keeping,
    moments,
    site_energies,
    star,
    stiffness,
)

SIZES = [(2, 5), (3, 3)]  # dimension and half the sites per side
energy = jax.jit(energy)
gradient = jax.jit(gradient)
hessian_product = jax.jit(hessian_product)
site_energies = jax.jit(site_energies)


def total(model, u):
    return energy(model, u)[0]


def allowed(m, d):
    """Where a vector field may differ from zero: not where it is its own mirror image."""
    index = np.indices((m + 1,) * d)
    return ~np.isin(index, (0, m))


def symmetric_field(m, d, size, seed=0):
    return size * np.random.default_rng(seed).normal(size=(d, *(m + 1,) * d)) * allowed(m, d)


@cache
def model_of(m, d):
    """Reference and defect, and a change of everything with rough weights."""
    random = np.random.default_rng(1)
    plain = bond_lattice.reference(m, d)
    added = jnp.asarray(0.2 * random.normal(size=plain.coefficients.shape[1:]))
    rough = jnp.asarray(random.uniform(size=(m + 1,) * d))
    return Model(plain.coefficients.at[CHANGE].set(added), plain.weights.at[0].set(rough))


def unfolded(field, odd_axis=None):
    """A component on the whole box, (2 m,) * d."""
    for axis in range(field.ndim):
        m = field.shape[axis] - 1
        x = np.arange(2 * m)
        field = np.take(field, np.minimum(x, 2 * m - x), axis=axis)
        if axis == odd_axis:
            sign = np.where(x > m, -1.0, 1.0)
            field = field * sign.reshape([-1 if a == axis else 1 for a in range(field.ndim)])
    return field


def on_the_box(u):
    return np.stack([unfolded(component, axis) for axis, component in enumerate(np.asarray(u))])


def half_bonds(model, u):
    """Of every site and bond of the whole box: rho + D_rho u, s, mixed coefficients (4, ...)."""
    whole, weights = on_the_box(u), [unfolded(np.asarray(w)) for w in model.weights]
    a = np.asarray(model.coefficients)
    axes = tuple(range(1, whole.ndim))
    for bond, shell in star(len(u)):
        rho = np.reshape(bond, (-1, *(1 for _ in axes)))
        stretch = np.roll(whole, [-x for x in bond], axes) - whole
        r = rho + stretch
        s = 0.5 * (np.sum(r**2, axis=0) - np.sum(rho**2))  # the definition
        groups = zip(a[:, shell], (1.0, *weights), strict=True)
        yield bond, r, s, sum(np.multiply.outer(c, w * np.ones_like(s)) for c, w in groups)


def dense_hessian(model, u):
    """On the whole box, (d n, d n), bond by bond: r V'' r^T + V'."""
    whole = on_the_box(u)
    d, n = len(whole), whole[0].size
    sites = np.arange(n).reshape(whole.shape[1:])
    total = np.zeros((n, d, n, d))
    for bond, r, s, (a1, a2, a3, a4) in half_bonds(model, u):
        slope = 0.5 * (a1 + s * (a2 + s * (a3 / 2 + s * a4 / 6)))
        curve = 0.5 * (a2 + s * (a3 + s * a4 / 2))
        block = np.einsum("...,i...,j...->...ij", curve, r, r) + slope[..., None, None] * np.eye(d)
        here = sites.ravel()
        there = np.roll(sites, [-x for x in bond], range(d)).ravel()
        block = block.reshape(n, d, d)
        for i, j, sign in (
            (here, here, 1),
            (there, there, 1),
            (here, there, -1),
            (there, here, -1),
        ):
            np.add.at(total, (i, slice(None), j), sign * block)
    return total.reshape(n * d, n * d)


def dense_seminorm(m, d):
    """K of one component on the whole box, (n, n)."""
    total, sites = 0.0, np.arange((2 * m) ** d).reshape((2 * m,) * d)
    for axis in range(d):
        difference = np.eye(sites.size)[np.roll(sites, -1, axis).ravel()] - np.eye(sites.size)
        total += 2.0 * difference.T @ difference
    return total


@pytest.mark.parametrize(("d", "m"), SIZES)
def test_the_orthant_is_the_whole_box(d, m):
    model, u = model_of(m, d), symmetric_field(m, d, 0.05)
    whole = sum(
        np.sum(0.5 * s * (a1 + s * (a2 / 2 + s * (a3 / 6 + s * a4 / 24))))
        for _, _, s, (a1, a2, a3, a4) in half_bonds(model, u)
    )
    found, rounding = energy(model, jnp.asarray(u))
    assert float(found) == pytest.approx(whole, abs=float(rounding))
    assert 0 < rounding < 1e-12
    count = np.asarray(symmetric_fields.multiplicity(m, d))
    assert count.sum() == (2 * m) ** d
    v = symmetric_field(m, d, 1.0, seed=3)
    product = np.asarray(hessian_product(model, jnp.asarray(u), jnp.asarray(v))) / count
    twin = (dense_hessian(model, u) @ np.moveaxis(on_the_box(v), 0, -1).ravel()).reshape(-1, d)
    inside = tuple(slice(m + 1) for _ in range(d))
    twin = np.moveaxis(twin.reshape(*(2 * m,) * d, d), -1, 0)[(slice(None), *inside)]
    np.testing.assert_allclose(product, twin, atol=1e-12 * np.abs(twin).max())


@pytest.mark.parametrize(("d", "m"), SIZES)
def test_gradient_is_that_of_the_energy(d, m):
    """By autodiff to rounding; by differences to the square of the step."""
    model = model_of(m, d)
    u, v = jnp.asarray(symmetric_field(m, d, 0.05)), jnp.asarray(symmetric_field(m, d, 1.0, seed=2))
    given = np.asarray(gradient(model, u))
    exact = np.asarray(jax.jit(jax.grad(total, argnums=1))(model, u)) * allowed(m, d)
    np.testing.assert_allclose(given, exact, atol=1e-13 * np.abs(exact).max())
    slope = float(jnp.vdot(given, v))
    errors = [
        abs(float(total(model, u + h * v) - total(model, u - h * v)) / (2 * h) - slope)
        for h in (2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("d", [2, 3])
def test_rigid_motions_cost_nothing_and_turn_nothing(d):
    """Of sites whose bonds stay within the orthant: the mirrors do not turn with it."""
    m, random = 6, np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(d, d)))
    sites = np.indices((m + 1,) * d)
    inside = tuple(slice(2, m - 1) for _ in range(d))

    def energies(deformation):
        moved = np.tensordot(deformation, sites, axes=1) - sites
        u = moved + random.normal(size=d).reshape(-1, *(1 for _ in range(d)))
        return np.asarray(site_energies(model_of(m, d), jnp.asarray(u))[0])[inside]

    strained = np.eye(d) + 0.05 * random.normal(size=(d, d))
    np.testing.assert_allclose(energies(turn), 0.0, atol=1e-11)
    np.testing.assert_allclose(energies(turn @ strained), energies(strained), atol=1e-11)
    assert np.min(np.abs(energies(strained))) > 1e-4


@pytest.mark.parametrize(("d", "m"), SIZES)
def test_transforms_invert_the_homogeneous_hessian_and_the_seminorm(d, m):
    plain = bond_lattice.reference(m, d).only(bond_lattice.LATTICE)
    wave = symmetric_fields.waves(m, d)
    solver = symmetric_fields.transform(stiffness(SECOND[d], wave), wave)
    v = jnp.asarray(symmetric_field(m, d, 1.0))
    force = hessian_product(plain, jnp.zeros_like(v), v)
    np.testing.assert_allclose(solver.solve(force), v, atol=1e-12)
    # K is the lattice of springs |D_rho u|^2: its dual norm by the largest f . w / ||Dw||
    f = jnp.asarray(symmetric_field(m, d, 1.0, seed=4))
    square = jax.grad(lambda w: 0.5 * symmetric_fields.strain_norm(w) ** 2)
    best = solver._turned(solver.seminorm_inverse[None] * solver._turned(f))
    np.testing.assert_allclose(square(best) * allowed(m, d), f, atol=1e-12)
    assert float(solver.negative_norm(f)) == pytest.approx(
        float(symmetric_fields.strain_norm(best))
    )


@pytest.mark.parametrize(("d", "m"), SIZES)
def test_blocks_of_plane_waves_are_those_of_the_dense_hessian(d, m):
    """Spectrum of the whole box: eigenvalues of Phi(k) over all k, by multiplicity."""
    plain = bond_lattice.reference(m, d).only(bond_lattice.LATTICE)
    dense = np.linalg.eigvalsh(dense_hessian(plain, np.zeros((d, *(m + 1,) * d))))
    blocks = np.moveaxis(stiffness(SECOND[d], symmetric_fields.waves(m, d)), (0, 1), (-2, -1))
    count = np.asarray(symmetric_fields.multiplicity(m, d)).astype(int).ravel()
    by_wave = np.linalg.eigvalsh(blocks).reshape(-1, d)
    np.testing.assert_allclose(
        np.sort(np.repeat(by_wave, count, axis=0).ravel()), dense, atol=1e-11
    )
    assert bond_lattice.stability(SECOND[d], symmetric_fields.waves(m, d)) > 0.2


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("order", [2, 3])
def test_kept_constants_are_kept_at_any_strain(d, order):
    """A homogeneous deformation has the same strain tensor at every bond: sum a s^k = 0 exactly."""
    m, random = 5, np.random.default_rng(2)
    direction = random.normal(size=len(SECOND[d]))
    kept = keeping(d, 2 * order, direction)
    assert np.linalg.norm(kept) > 0.01
    np.testing.assert_allclose(moments(d, 2 * order) @ kept, 0.0, atol=1e-12)
    assert np.max(np.abs(moments(d, 2 * order + 2) @ kept)) > 0.1  # and no more than that
    np.testing.assert_allclose(keeping(d, 2 * order, kept), kept, atol=1e-12)
    plain = bond_lattice.reference(m, d).only()
    strained = 0.05 * random.normal(size=(d, d))
    u = jnp.asarray(np.tensordot(strained, np.indices((m + 1,) * d), axes=1))
    found = []
    for shells in (direction, kept):
        only = plain.coefficients.at[bond_lattice.LATTICE, :, order - 1].set(shells)
        sites, _ = site_energies(Model(only, plain.weights), u)
        found.append(abs(float(sites[(2,) * d])))
    assert found[1] < 1e-12 * found[0]


def test_nothing_left_to_keep_is_an_error():
    """Of rank 2, the square's moments are multiples of one: a direction along it has no rest."""
    row = moments(2, 2)[0]
    with pytest.raises(ValueError, match="wanted a direction with a part along"):
        keeping(2, 2, row)


@pytest.mark.parametrize(("d", "m"), SIZES)
def test_newton_converges_quadratically_to_a_minimum_of_the_whole_box(d, m):
    model = bond_lattice.reference(m, d)
    wave = symmetric_fields.waves(m, d)
    solver = symmetric_fields.transform(stiffness(SECOND[d], wave), wave)
    zero = jnp.zeros(wave.shape)
    found = equilibrium(model, zero, zero, solver, 1e-14, inner=1e-9)
    size = np.array(found.residuals)
    assert size[-1] < 1e-14 < 1e-1 < size[0] and len(size) <= 7
    late = (size[:-1] < 0.1) & (size[:-1] > 1e-7)
    assert late.sum() >= 2 and np.all((size[1:] / size[:-1] ** 2)[late] < 2.0)
    assert float(found.displacement[(0, 1) + (0,) * (d - 1)]) > 0.05  # the neighbour is pushed away
    # Stable in every direction, also those that break the symmetry, and no less than the lattice.
    n = (2 * m) ** d
    free = np.kron(np.ones((n, n)), np.eye(d))  # translations, out of the way
    hessian = dense_hessian(model, found.displacement)
    assert np.max(np.abs(hessian @ free)) < 1e-11
    unit = np.kron(dense_seminorm(m, d), np.eye(d))
    c = scipy.linalg.eigh(hessian + free, unit + free, eigvals_only=True, subset_by_index=[0, 0])[0]
    assert c > 0.99 * bond_lattice.stability(SECOND[d], wave)
