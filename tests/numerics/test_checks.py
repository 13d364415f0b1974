"""The checks let good numbers pass unchanged, and say of a bad one what and where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.numerics.checks import (
    as_float64,
    check_at_least_zero,
    check_positive,
    finite_array,
    require_x64,
)


def test_single_precision_is_refused_with_the_option_that_ends_it():
    require_x64()
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        require_x64()


# --- types ----------------------------------------------------------------------------------


def test_float64_passes_as_it_is():
    for array in (np.linspace(0.0, 1.0, 3), jnp.linspace(0.0, 1.0, 3)):
        assert as_float64("numbers", array) is array


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_integers_become_the_float64_of_the_same_value(dtype):
    for array in (np.arange(5, dtype=dtype), jnp.arange(5, dtype=dtype)):
        found = as_float64("numbers", array)
        assert found.dtype == np.float64 and type(found) is type(array)
        np.testing.assert_array_equal(found, [0.0, 1.0, 2.0, 3.0, 4.0])


def test_lists_and_plain_numbers_are_arrays_too():
    for given in ([1, 2], [1.0, 2.0], 3, 0.1):
        found = as_float64("numbers", given)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, jnp.bfloat16, np.complex128, bool], ids=lambda d: d.__name__
)
def test_other_types_are_refused_by_name(dtype):
    """float32 above all: widened, its rounding would be taken for data."""
    for array in (np.ones(2).astype(dtype), jnp.ones(2).astype(dtype)):
        with pytest.raises(TypeError, match=rf"targets .*{np.dtype(dtype).name}.*float64"):
            as_float64("targets", array)


def test_a_traced_array_is_judged_by_its_type():
    traced = jax.jit(lambda x: as_float64("numbers", x))
    assert traced(jnp.arange(3)).dtype == np.float64
    with pytest.raises(TypeError, match="float32"):
        traced(jnp.ones(3, np.float32))


# --- arrays ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, shape",
    [
        (1.5, ()),
        (jnp.ones((4, 3)), (None, 3)),
        ([[1, 2, 3]], (None, 3)),
        (np.zeros((0, 3)), (None, 3)),
        (np.ones((2, 3, 5), np.float32), (2, None, None)),
    ],
)
def test_an_array_that_fits_is_returned_on_the_host(value, shape):
    found = finite_array("forces", value, shape, "eV/Å")
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
    assert found.shape == np.shape(value)
    np.testing.assert_array_equal(found, np.asarray(value))


@pytest.mark.parametrize(
    "value, shape, wanted",
    [
        (np.ones(3), (None, 3), r"\(3,\).*\(n, 3\)"),
        (np.ones((3, 2)), (None, 3), r"\(3, 2\).*\(n, 3\)"),
        (np.ones((3, 4)), (None, 3), r"\(3, 4\).*\(n, 3\)"),
        (np.ones((3, 3, 1)), (3, 3), r"\(3, 3, 1\).*\(3, 3\)"),
        (np.ones(1), (), r"\(1,\).*\(\)"),
    ],
)
def test_another_shape_is_refused_with_the_one_that_is_wanted(value, shape, wanted):
    with pytest.raises(ValueError, match=rf"forces .*{wanted}.*eV/Å"):
        finite_array("forces", value, shape, "eV/Å")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_entry_that_is_not_finite_is_named(bad):
    value = np.arange(12.0).reshape(4, 3)
    value[1, 2] = value[3, 0] = bad
    with pytest.raises(ValueError, match=rf"\(1, 2\) of forces is {bad}.*eV/Å"):
        finite_array("forces", value, (None, 3), "eV/Å")


# --- signs ----------------------------------------------------------------------------------

NEVER = (np.nan, np.inf, -np.inf, -1e-300, -1)


@pytest.mark.parametrize("value", [*NEVER, 0, 0.0, -0.0])
def test_what_is_not_positive_and_finite_is_refused_by_its_own_name(value):
    check_positive(skin=1e-300, steps=10, size=np.float64(2.0))
    with pytest.raises(ValueError, match="skin is .*positive"):
        check_positive(steps=10, skin=value)


@pytest.mark.parametrize("value", [*NEVER, np.ones(1), [0.0]])
def test_what_is_not_one_finite_number_from_zero_on_is_refused(value):
    for good in (0, 0.0, 1e-300, np.float64(3.0), jnp.asarray(2.0)):
        check_at_least_zero("ridge", good)
    with pytest.raises(ValueError, match="ridge is .*>= 0"):
        check_at_least_zero("ridge", value)
