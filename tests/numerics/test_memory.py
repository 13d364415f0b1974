"""Compiled functions are dropped before they fill the process's memory maps, and only then."""

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
