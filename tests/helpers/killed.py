"""A process that is killed, or that shares its folder, again and again.

    python -m tests.helpers.killed sweeps|saves|four|runs FOLDER

It imports JAX and never runs it, so it has one thread and can make copies of itself, which takes
milliseconds where starting anew takes seconds. What the copies completed is printed, in JSON.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from experiments.harness import sweeps as sweeping
from lprjax.ace.potential import LinearPotential
from lprjax.ace.spec import ACESpec
from lprjax.models import files
from tests.helpers import squares

KILLS = 50
SIZE = 10_000  # numbers of a point, a file of 80 kB
FOUR = 40  # points of the four that share a folder
RUNS = 20  # killed with their workers
COUNT = 400  # points of theirs


def compute(point):
    time.sleep(0.001)
    return {"x": np.full(SIZE, float(point["n"]))}


def copy_of_this(work, *arguments):
    """The process number of a copy that does the work and ends."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work(*arguments)
        status = 0
    finally:
        os._exit(status)


def kill_soon(process, seconds=0.01):
    time.sleep(random.uniform(0.0, seconds))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def sweeps(folder):
    """Points whose record was handed out, of each killed sweep."""

    def sweep(log):
        def noting(point):
            os.write(log, b"computes ")
            return compute(point)

        points = [{"n": n} for n in range(1000)]
        for record in sweeping.run_points(points, noting, folder, experiment="sweep"):
            os.write(log, f"{record.point['n']} ".encode())

    done = []
    for _ in range(KILLS):
        reading, log = os.pipe()
        process = copy_of_this(sweep, log)
        os.close(log)
        noted = b""
        while b"computes" not in noted:  # it has read what is there
            noted += os.read(reading, 1000) or sys.exit("nothing was left to compute")
        kill_soon(process)
        with open(reading, "rb") as rest:
            words = (noted + rest.read()).split()
        done.append([int(word) for word in words if word != b"computes"])
        for path in folder.glob("*.npz"):
            content = path.read_bytes()
            assert hashlib.sha256(content[:-32]).digest() == content[-32:], "half a record"
    return done


def saves(folder):
    """Which of two potentials was there after each kill."""
    spec, path, whole = ACESpec("W", 1, 2, 3.6, 2.7), folder / "p.npz", []
    both = [
        LinearPotential(coefficients=np.full(SIZE, x), reference_energies=np.zeros(1), spec=spec)
        for x in (1.0, 2.0)
    ]
    for potential in both:
        files.save(path, potential)
        whole.append(path.read_bytes())

    def save():
        while True:
            for potential in both:
                files.save(path, potential)

    seen = []
    for _ in range(KILLS):
        kill_soon(copy_of_this(save))
        seen.append(whole.index(path.read_bytes()))
    return seen


def four(folder):
    """How the four ended, each of which asked for all points in an order of its own."""

    def sweep(seed):
        order = random.Random(seed).sample([{"n": n} for n in range(FOUR)], FOUR)
        found = sweeping.run_points(order, compute, folder, experiment="sweep")
        assert [record.point for record in found] == order

    processes = [copy_of_this(sweep, seed) for seed in range(4)]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def runs(folder):
    """Of each killed run with two workers: the records that there were, and what it began with."""
    serve_copies()
    notes, seen = folder / "squares/notes", []
    flags = f"--count {COUNT} --seconds 0.01 --jobs 2 --results {folder}".split()
    for _ in range(RUNS):
        there, noted = stored(folder), set(notes.glob("*"))
        process = copy_of_this(squares.main, flags)
        while not set(notes.glob("*")) - noted:
            assert not os.waitpid(process, os.WNOHANG)[0], "nothing was left to compute"
            time.sleep(0.001)
        kill_soon(process, 0.15)
        new = [path.name.split("_") for path in set(notes.glob("*")) - noted]
        while any(lives(process) for _, _, process in new):  # they notice that it is gone
            time.sleep(0.001)
        new = [path.name.split("_") for path in set(notes.glob("*")) - noted]
        seen.append({"there": there, "began": sorted(int(n) for n, _, _ in new)})
    return seen


def serve_copies():
    """Let workers begin as copies of one process that has imported all, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.squares"])
    forkserver.ensure_running()
    forkserver._forkserver.ensure_running = lambda: None  # the copies of this one have the same
    multiprocessing.get_context = lambda _: context


def stored(folder):
    """The points with a record, all of which are whole."""
    plan = squares.plan(["--count", str(COUNT), "--seconds", "0.01", "--results", str(folder)])
    known = [point for point in plan.points if plan.sweep.looks_stored(point)]
    records = [plan.sweep.read(point) for point in known]
    assert all(np.all(record.arrays["square"] == record.point.n**2) for record in records)
    assert len(known) == len(list(plan.run.folder.glob("*.npz")))
    return [point.n for point in known]


def lives(process):
    """Whether the process is there, and more than an entry that nobody asked for."""
    with contextlib.suppress(OSError):
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    return False


if __name__ == "__main__":
    random.seed(0)
    # Neither JAX's threads nor those of the bar: a copy would lose them.
    jax.devices = lambda: [SimpleNamespace(platform="cpu", device_kind="none")]
    # What is written survives the process that wrote it; waiting for the disk is for power cuts.
    os.fsync = lambda _: None
    sweeping.tqdm = lambda **_: contextlib.nullcontext(SimpleNamespace(update=lambda n=1: None))
    task = {"sweeps": sweeps, "saves": saves, "four": four, "runs": runs}[sys.argv[1]]
    print(json.dumps(task(Path(sys.argv[2]))))
