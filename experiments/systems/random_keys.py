"""Keys of random numbers, one by one: JAX compiles a split for every number of keys."""

import jax
import numpy as np

AT_ONCE = 256
"""Keys are drawn in multiples of this, a choice: more than most sweeps need."""


def random_keys(seed: int, count: int) -> list[jax.Array]:
    """jax.random.split(jax.random.key(seed), count) as a list; JAX draws by place.

    Args:
        seed: of the first key.
        count: how many.

    Returns:
        The keys.
    """
    drawn = jax.random.split(jax.random.key(seed), AT_ONCE * -(-count // AT_ONCE))
    numbers = np.asarray(jax.random.key_data(drawn))
    return [jax.random.wrap_key_data(number) for number in numbers[:count]]
