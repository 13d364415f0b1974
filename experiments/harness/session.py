"""What every process that computes points begins with: float64, and what others compiled."""

import os

import jax

from lprjax.numerics.memory import use_compilation_cache


def begin_session(tiny: bool = False) -> None:
    """Switch JAX to float64 and its cache on; the second time it changes nothing.

    Args:
        tiny: all is so small that it takes longer to compile than to run: XLA leaves out most of
            its optimisations, and compiles in half the time.
    """
    jax.config.update("jax_enable_x64", True)
    asked = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "").lower() in ("1", "true")
    jax.config.update("jax_disable_most_optimizations", tiny or asked)
    use_compilation_cache()
