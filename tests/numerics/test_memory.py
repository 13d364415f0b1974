"""Compiled functions are dropped before they fill the process's memory maps, and only then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lprjax.numerics import memory

needs_maps = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux only")


@pytest.fixture
def dropped(monkeypatch):
    """How often the compiled functions were dropped."""
    calls = []
    monkeypatch.setattr(memory.jax, "clear_caches", lambda: calls.append(True))
    monkeypatch.setattr(memory, "PAUSE", 0.0)
    return calls


@needs_maps
def test_compiled_functions_are_dropped_where_maps_run_short(dropped, monkeypatch):
    """And only there: compiling anew costs seconds."""
    memory.spare_maps()
    assert not dropped
    monkeypatch.setattr(memory, "MANY_MAPS", 0)
    memory.spare_maps()
    assert len(dropped) == 1


@needs_maps
def test_it_looks_once_a_second(dropped, monkeypatch):
    """Looking takes milliseconds where there are many maps; a loop passes by every microsecond."""
    now = [10.0]
    monkeypatch.setattr(memory, "PAUSE", 1.0)
    monkeypatch.setattr(memory, "MANY_MAPS", 0)
    monkeypatch.setattr(memory, "_last_look", 0.0)
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    for _ in range(3):
        memory.spare_maps()
    assert len(dropped) == 1
    now[0] = 11.5
    memory.spare_maps()
    assert len(dropped) == 2


COMPILES = """
import jax
from lprjax.numerics import memory

memory.QUICK = 0.0
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)
print(memory.use_compilation_cache({folder!r}))
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones(3))
print(len(hits))
"""


def test_another_process_reads_what_one_compiled(tmp_path):
    """From the folder that is given, the one of the environment, the user's own: in this order."""
    given, named, home = (str(tmp_path / name) for name in ("given", "named", "home"))
    plain = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    plain["XDG_CACHE_HOME"] = home
    cases = (
        (given, plain | {"JAX_COMPILATION_CACHE_DIR": named}, given),
        (None, plain | {"JAX_COMPILATION_CACHE_DIR": named}, named),
        (None, plain, f"{home}/lprjax/jax"),
    )
    for folder, environment, expected in cases:
        command = [sys.executable, "-c", COMPILES.format(folder=folder)]
        counts = []
        for _ in range(2):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            where, count = done.stdout.split()
            counts.append(int(count))
            assert where == expected and os.listdir(expected)
        assert counts[0] == 0 and counts[1] > 0
