"""Compiled functions, and the memory maps of the process that they take."""

import time
from pathlib import Path

import jax

MANY_MAPS = 30_000
"""Half of what Linux allows a process (vm.max_map_count)."""
PAUSE = 1.0
"""s between two looks, each of which takes up to 50 ms: no process compiles its way through the
other half of the maps in that time."""

_last_look = -PAUSE


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
