"""What every process that computes points begins with: float64, and what others compiled."""

import os
from pathlib import Path

import jax

MIN_COMPILE_SECONDS = 0.2
"""Compilation time (s) from which a function is worth a file in the persistent cache: a choice."""


def begin_session() -> None:
    """Switch JAX to float64 and its cache on; the second time it changes nothing."""
    jax.config.update("jax_enable_x64", True)
    keep_compiled()


def keep_compiled() -> None:
    """Let the next process read what this one compiles, from ~/.cache/lprjax/jax.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
    What compiles within MIN_COMPILE_SECONDS is not kept.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "lprjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
