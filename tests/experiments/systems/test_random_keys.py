"""Keys one by one are those of a split."""

import jax
import numpy as np
import pytest

from experiments.systems.random_keys import AT_ONCE, random_keys


@pytest.mark.parametrize("count", [0, 1, 12, AT_ONCE, AT_ONCE + 1])
def test_keys_are_those_of_a_split(count):
    wanted = jax.random.split(jax.random.key(3), count)
    found = random_keys(3, count)
    assert len(found) == count
    for key, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(other))
