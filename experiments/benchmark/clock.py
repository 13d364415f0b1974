"""How `benchmark` takes time: codes in turn, first calls apart, cold things in fresh processes."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

ROOT = Path(__file__).parents[2]


class Turns(NamedTuple):
    """How codes take turns."""

    number: int
    seconds: float  # length of a turn at least; one call at least


def in_turn(
    calls: Mapping[str, Callable[[], Any]], turns: Turns, limit: float = 60.0
) -> dict[str, np.ndarray]:
    """Seconds of a call of each code; they take turns, so that a busy machine slows all.

    In its turn a code is called again and again, and the median counts: the first call after
    another code finds cold caches, which a sweep over structures does not. The very first calls,
    which compile, are apart.

    Args:
        calls: by code.
        turns: how often, and how long.
        limit: no further turn once they took so long (s).

    Returns:
        (turns,) s, by code.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    found: dict[str, list[float]] = {code: [] for code in calls}
    began = time.perf_counter()
    for _ in range(turns.number):
        for code, call in calls.items():
            found[code].append(_turn(call, turns.seconds))
        if time.perf_counter() - began > limit:
            break
    return {code: np.array(seconds) for code, seconds in found.items()}


def _turn(call: Callable[[], Any], at_least: float) -> float:
    """Median seconds of a call in one turn."""
    seconds = [once(call)[0]]
    while sum(seconds) < at_least:
        seconds.append(once(call)[0])
    return statistics.median(seconds)


def once(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


class Elsewhere:
    """How many cores others (processes, guests of the host) kept busy since it was made; NaN where
    /proc is missing.

    With XLA's threads on all cores, whoever takes one of them slows our side more than a peer that
    runs on one core.
    """

    def __init__(self) -> None:
        """Start to count."""
        self.began = self._now()

    def _now(self) -> np.ndarray:
        """Seconds since boot; of all cores, busy; of this process and its children."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return np.full(3, np.nan)
        user, nice, system, _, _, irq, soft, stolen = map(int, stat.read_text().split()[1:9])
        busy = (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")
        return np.array([time.monotonic(), busy, sum(os.times()[:4])])

    def cores(self) -> float:
        """Cores that others kept busy since, on average."""
        passed, busy, ours = self._now() - self.began
        return max(0.0, (busy - ours) / passed) if passed > 0 else np.nan


def faster(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Of several ways to do one thing, the samples of that with the least median."""
    return min(samples, key=statistics.median)


def in_fresh_process(task: str, *, threads: int = 1, **arguments: Any) -> dict[str, Any]:
    """What a task of `benchmark.cold` returns in a Python of its own.

    Without JAX's persistent cache.

    Args:
        task: one of its TASKS.
        threads: of LAPACK and BLAS; XLA's own are not touched.
        **arguments: of the task.

    Returns:
        what the task returns.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_ENABLE_X64": "true"}
    for library in ("OPENBLAS", "OMP", "MKL"):
        environment[f"{library}_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", "experiments.benchmark.cold", task, json.dumps(arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])
