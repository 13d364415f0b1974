"""Compiled functions: kept on disk for other processes, and the memory maps that they take."""

import os
import time
from pathlib import Path

import jax

MANY_MAPS = 30_000
"""Half of what Linux allows a process (vm.max_map_count)."""
PAUSE = 1.0
"""s between two looks, each of which takes up to 50 ms: no process compiles its way through the
other half of the maps in that time."""

QUICK = 0.2
"""s; what XLA compiles faster is not kept: a choice, for files cost time and room too."""

_last_look = -PAUSE


def use_compilation_cache(folder: str | Path | None = None) -> Path:
    """Keep what is compiled on disk: the next process reads it back instead of compiling it.

    JAX's persistent cache, with a folder and a threshold that suit this library. Call it before
    the first calculation. The folder may be shared by processes, and deleted at any time.
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing whatever is called.

    Args:
        folder: None: JAX_COMPILATION_CACHE_DIR or, where that is not set,
            $XDG_CACHE_HOME/lprjax/jax, ~/.cache/lprjax/jax.

    Returns:
        The folder.
    """
    known = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 (its type is not known)
    if folder is None and known is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "lprjax" / "jax"
    path = Path(known if folder is None else folder)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", QUICK)
    return path


def spare_maps() -> None:
    """Drop JAX's compiled functions where they are about to fill the process's memory maps.

    Each takes a few of them; out of maps, LLVM ends the process with "Cannot allocate memory". It
    is called where loops over cutoffs, bases or sizes of cells pass by, and looks once a second.
    """
    global _last_look
    now = time.monotonic()
    if now - _last_look < PAUSE:
        return
    _last_look = now
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
