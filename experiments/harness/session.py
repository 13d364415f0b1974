"""What every process that computes points begins with: float64, and what others compiled."""

import jax

from lprjax.numerics.memory import use_compilation_cache


def begin_session() -> None:
    """Switch JAX to float64 and its cache on; the second time it changes nothing."""
    jax.config.update("jax_enable_x64", True)
    use_compilation_cache()
