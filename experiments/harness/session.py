"""What every process that computes points begins with: float64, and what others compiled."""

import gc
import os
from importlib.metadata import version

import jax

from lprjax.numerics.memory import use_compilation_cache


def begin_session(tiny: bool = False) -> None:
    """Switch JAX to float64 and its cache on; the second time it changes nothing.

    Args:
        tiny: all is so small that it takes longer to compile than to run: XLA leaves out most of
            its optimisations and, if nothing was compiled before, takes its older generator of
            code, for this process and those that it starts.
    """
    jax.config.update("jax_enable_x64", True)
    asked = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "").lower() in ("1", "true")
    jax.config.update("jax_disable_most_optimizations", tiny or asked)
    if tiny:
        gc.set_threshold(10_000)  # traces are many objects and few cycles
        if version("jaxlib").startswith("0.10."):  # later ones have one generator, and no such flag
            os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    use_compilation_cache()
