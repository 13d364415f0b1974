"""`kill -9` at any moment and several processes at once: nothing is lost but the running point."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from experiments.harness.records import load
from tests.helpers import squares
from tests.helpers.killed import COUNT, FOUR, KILLS, RUNS, SIZE

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def run(task, folder):
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed", task, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_whole(folder, n):
    """The record of point n, without a warning and with its numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = load(folder, {"n": n}, experiment="sweep")
    assert record is not None and np.array_equal(record.arrays["x"], np.full(SIZE, float(n)))


def test_a_sweep_that_is_killed_loses_the_running_point_only(tmp_path):
    """50 times, at random moments: what was handed out stays whole, no file is half a record, and
    every run goes through all points that those before it completed."""
    done = run("sweeps", tmp_path)
    records = len(list(tmp_path.glob("*.npz")))
    for n in range(records):  # in their order, so that none is left out
        assert_whole(tmp_path, n)
    assert len(done) == KILLS and all(points == list(range(len(points))) for points in done)
    assert records - max(map(len, done)) in (0, 1)  # written, and killed before it was handed out
    assert records > 5  # more where the machine is idle
    assert len(list(tmp_path.glob(".*.tmp"))) <= KILLS  # what was being written


def test_a_save_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
    """50 times, at random moments: the file is one of the two potentials, to the last bit."""
    seen = run("saves", tmp_path)
    assert len(seen) == KILLS and set(seen) == {0, 1}
    assert len(list(tmp_path.glob(".*.tmp"))) <= KILLS


def test_four_processes_share_a_folder(tmp_path):
    """In four orders: every one gets all its records, and they are those of one process."""
    assert run("four", tmp_path) == [0, 0, 0, 0]
    for n in range(FOUR):
        assert_whole(tmp_path, n)
    assert len(list(tmp_path.iterdir())) == FOUR


def test_a_run_with_workers_that_is_killed_loses_the_running_points_only(tmp_path):
    """20 times, at random moments, its workers left alone: they end with it; no record is lost or
    torn, none is computed again but the two that were running, and a rerun ends in the numbers of
    an undisturbed run."""
    seen = run("runs", tmp_path / "killed")
    flags = ["--count", str(COUNT), "--seconds", "0.01"]
    last = squares.main([*flags, "--results", str(tmp_path / "killed"), "--jobs", "2"])
    assert len(seen) == RUNS and seen[-1]["there"]
    for before, after in zip(seen, [*seen[1:], {"there": range(COUNT)}], strict=True):
        assert set(before["there"]) <= set(after["there"])
        assert not set(before["there"]) & set(before["began"])
    for before, after in zip(seen[:-1], seen[1:], strict=True):
        new = set(after["there"]) - set(before["there"])
        assert new <= set(before["began"]) and len(before["began"]) <= len(new) + 2
    notes = tmp_path / "killed/squares/notes"
    assert len(list(notes.iterdir())) <= COUNT + 2 * RUNS
    records = list((tmp_path / "killed/squares").glob("*.npz"))
    undisturbed = squares.main(["--count", str(COUNT), "--results", str(tmp_path / "whole")])
    assert len(records) == COUNT and last["squares"] == undisturbed["squares"]
