"""The honeycomb lattice of the multilattice rates: blocks, moduli, and what changes keep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.systems import two_atom_lattice as lattice
from experiments.systems.bond_lattice import CHANGE, LATTICE
from experiments.systems.two_atom_lattice import SECOND, blocks, change, moduli

KINDS = ("elastic", "internal_strain", "force_constants")


@pytest.fixture(scope="module")
def model():
    return lattice.reference(5)


def field(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 2)))


def test_blocks_are_the_hessian_and_the_solver_undoes_it(model):
    plain, v = model.only(LATTICE), field(50)
    product = jax.jvp(plain.gradient, (jnp.zeros_like(v),), (v,))[1]
    waves = np.fft.fft2(np.asarray(v).reshape(5, 5, 4), axes=(0, 1))
    waves = np.einsum("xyab,xyb->xya", blocks(np.array(SECOND), 5), waves)
    expected = np.fft.ifft2(waves, axes=(0, 1)).real.reshape(50, 2)
    np.testing.assert_allclose(product, expected, atol=1e-12)
    solver = lattice.transform(5)
    np.testing.assert_allclose(solver.solve(product), v - v.mean(axis=0, keepdims=True), atol=1e-10)
    squares = lattice.strain_squares(v, solver.table)
    assert float(solver.strain_norm(v)) == pytest.approx(float(jnp.sqrt(squares.sum())))


def test_every_bond_is_there_from_both_ends(model):
    table, n = np.asarray(model.table), 50
    pairs = {(i, j): (table == j)[i].sum() for i in range(n) for j in table[i]}
    assert table.shape == (n, 18) and all(pairs[j, i] == count for (i, j), count in pairs.items())
    np.testing.assert_allclose(np.diff(np.linalg.norm(lattice.VECTORS, axis=-1), axis=0), 0.0,
                               atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_moduli_are_those_of_long_waves(kind):
    """(C1 + C2) / 2 k^2 along, C2 / 2 k^2 across, per cell of two atoms that move by one."""
    second = np.array(SECOND) + (change(kind, 0.1)[:, 1] if kind else 0.0)
    m = 400
    phi = long_wave(second, m)
    size = 2 * np.pi / m / np.sqrt(0.75)  # of the reciprocal vector's m-th part
    values = 2 * np.linalg.eigvalsh(phi)[:2] / size**2
    bulk, shear, _ = moduli(second)
    np.testing.assert_allclose(values, sorted([shear / 2, (bulk + shear) / 2]), rtol=1e-3)


def long_wave(second, m):
    """The block at the first wave vector of a box of m cells along one side."""
    found = np.zeros((2, 2, 2, 2), complex)
    for start in range(2):
        for rho, shift, end, shell in zip(
            lattice.VECTORS[start], lattice.SHIFTS[start], lattice.ENDS[start], lattice.SHELLS,
            strict=True,
        ):  # fmt: skip
            stiffness = second[shell] * np.outer(rho, rho)
            found[start, :, start, :] += stiffness
            found[start, :, end, :] -= stiffness * np.exp(2j * np.pi * shift[0] / m)
    return found.reshape(4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_keeps_what_it_says_and_nothing_else(kind, model):
    second, added = np.array(SECOND), change(kind, 0.1)
    assert not added[:, [0, 2, 3]].any() and np.abs(added[:, 1]).max() > 0.01
    ratio = moduli(second + added[:, 1]) / moduli(second)
    wanted = {
        "elastic": (1.1, 1.1, 1),
        "internal_strain": (1, 1, 1.1),
        "force_constants": (1, 1, 1),
    }
    np.testing.assert_allclose(ratio, wanted[kind], rtol=1e-10)
    wrong = dataclasses.replace(model, coefficients=model.coefficients.at[CHANGE].set(added))
    assert 0.1 < lattice.stability_of(wrong) <= lattice.stability_of(model)


def test_the_shift_under_shear_is_where_forces_vanish(model):
    """Shear the box: with the shift of `moduli` no force is left, without it there is one."""
    shear = np.diag([1.0, -1.0]) / np.sqrt(2)
    stretch = lattice.VECTORS @ shear
    forces = []
    for shift in (moduli(np.array(SECOND))[2], 0.0):
        relative = (lattice.ENDS - np.arange(2)[:, None])[..., None] * np.array([0.0, shift])
        along = np.sum(lattice.VECTORS * (stretch + relative), axis=-1)
        pulls = np.array(SECOND)[lattice.SHELLS][:, None] * along[..., None] * lattice.VECTORS
        forces.append(np.abs(pulls.sum(axis=1)).max())
    assert forces[0] < 1e-12 < 0.01 < forces[1]
