"""Voigt order and factors: an explicit list, ASE's, and the work that strain does on stress.

Tolerance: a dot product of nine float64 numbers of order one, 1e-14.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_strain

from lprjax.atoms.voigt import VOIGT_TENSOR, engineering_strain, six_components, strain_tensor

ORDER = ["xx", "yy", "zz", "yz", "xz", "xy"]
RNG = np.random.default_rng(0)


def unit(name):
    """The symmetric tensor of one component and its transpose."""
    tensor = np.zeros((3, 3))
    i, j = ("xyz".index(letter) for letter in name)
    tensor[i, j] = tensor[j, i] = 1.0
    return tensor


def symmetric():
    tensor = RNG.normal(size=(3, 3))
    return tensor + tensor.T


def test_components_come_in_the_order_of_the_list():
    for position, name in enumerate(ORDER):
        np.testing.assert_array_equal(six_components(unit(name)), np.eye(6)[position])
        shear = 1.0 if name in ("xx", "yy", "zz") else 2.0
        np.testing.assert_array_equal(engineering_strain(unit(name)), shear * np.eye(6)[position])
        np.testing.assert_allclose(strain_tensor(np.eye(6)[position]), unit(name) / shear)


def test_the_order_is_that_of_ase():
    stress, strain = symmetric(), RNG.normal(size=6)
    np.testing.assert_array_equal(six_components(stress), full_3x3_to_voigt_6_stress(stress))
    deformation = voigt_6_to_full_3x3_strain(strain)  # what ASE calls so is 1 + strain
    np.testing.assert_allclose(np.eye(3) + strain_tensor(strain), deformation, atol=1e-15)


def test_six_components_spread_by_the_table_are_the_tensor():
    stress = symmetric()
    np.testing.assert_array_equal(six_components(stress)[VOIGT_TENSOR], stress)


def test_stress_dot_engineering_strain_is_the_double_contraction():
    """Also of a strain with a rotation in it, which does no work on a symmetric stress."""
    for strain in (symmetric(), RNG.normal(size=(3, 3))):
        stress = symmetric()
        work = six_components(stress) @ engineering_strain(strain)
        assert float(work) == pytest.approx(np.sum(stress * strain), rel=1e-14)


def test_a_tensor_without_symmetry_is_its_mean_with_its_transpose():
    tensor = RNG.normal(size=(3, 3))
    expected = six_components(0.5 * (tensor + tensor.T))
    np.testing.assert_allclose(six_components(tensor), expected, rtol=1e-15)


def test_strains_go_there_and_back():
    strain, six = symmetric(), RNG.normal(size=6)
    np.testing.assert_allclose(strain_tensor(engineering_strain(strain)), strain, rtol=1e-15)
    np.testing.assert_allclose(engineering_strain(strain_tensor(six)), six, rtol=1e-15)


def test_rows_of_a_tensor_keep_their_other_axes_and_their_kind():
    rows = RNG.normal(size=(3, 3, 4, 2))
    found = six_components(rows)
    assert type(found) is np.ndarray and found.shape == (6, 4, 2)
    for k in np.ndindex(4, 2):
        np.testing.assert_array_equal(found[(slice(None), *k)], six_components(rows[:, :, *k]))
    traced = jax.jit(six_components)(jnp.asarray(rows))
    assert isinstance(traced, jax.Array)
    np.testing.assert_allclose(traced, found, rtol=1e-15)
