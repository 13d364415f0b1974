"""A script reads, computes, sums up and draws; what failed is in its summary."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.harness.run import start
from experiments.harness.script import Plan
from experiments.harness.sweeps import PointsFailed, run_sweeps
from tests.helpers import squares

ROOT = Path(__file__).parents[3]


def test_seconds_are_those_of_the_records_and_the_figure_bears_the_summarys_name(tmp_path, capsys):
    """A second run computes nothing and takes no time, but says what the numbers took."""
    calls = []

    def compute(point):
        time.sleep(0.2)
        calls.append(point)
        return {"value": np.float64(point["order"])}

    def summarise(config, records, preset):
        values = [float(record.arrays["value"]) for record in records]
        return {"figure": "named", "preset": preset, "count": config.count, "values": values}

    run = start("figure", squares.PRESETS, ["--results", str(tmp_path)])
    points = [{"order": 1}, {"order": 2}]
    plan = Plan(run, points, compute, summarise, lambda *_: plt.figure(), lambda _: "what it shows")
    first, again = (plan.made(run_sweeps([plan.sweep])) for _ in range(2))
    assert len(calls) == 2 and again["values"] == [1.0, 2.0]
    assert first["seconds"] == again["seconds"] >= 0.4
    assert first["wall_seconds"] >= 0.4 and first["wall_seconds"] > again["wall_seconds"]
    assert "what it shows" in capsys.readouterr().out
    assert (tmp_path / "named" / "named.png").exists() and again["count"] == 4


def test_any_executor_computes_the_points(tmp_path):
    """Those of the standard library among them."""
    with ThreadPoolExecutor(3) as executor:
        summary = squares.main(["--results", str(tmp_path)], executor)
    assert summary["squares"] == [0, 1, 4, 9]
    assert squares.main(["--results", str(tmp_path), "--plot-only"])["squares"] == [0, 1, 4, 9]


def test_what_failed_is_in_the_summary_and_the_rest_is_kept(tmp_path, capsys):
    flags = ["--results", str(tmp_path), "--wrong", "1"]
    with ThreadPoolExecutor(2) as executor, pytest.raises(PointsFailed, match="1 of 4 .*run again"):
        squares.main(flags, executor)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((tmp_path / "squares/summary.json").read_text())
    point = {"n": 1, "seconds": 0.0, "fate": "wrong"}
    assert summary["failed"] == [{"point": point, "message": "ValueError: no square of 1"}]
    assert summary["points"] == 4 and len(list(tmp_path.glob("squares/*.npz"))) == 3
    assert not list(tmp_path.glob("squares/.*")) and not list(tmp_path.rglob("*.png"))


def test_a_script_that_runs_as_main_gives_workers_what_they_can_import(tmp_path):
    """Its records and figures are those of the module; a death of a worker is no matter."""
    flags = "--count 6 --jobs 2 --seconds 0.05 --dying 2".split()
    command = [sys.executable, "-m", "tests.helpers.squares", "--results", str(tmp_path), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["squares"] == [n**2 for n in range(6)]
    assert "squares: 100%" in done.stderr and done.stderr.count("100%|") <= 2  # one bar
    again = squares.main(["--results", str(tmp_path), *flags[:2], *flags[4:]])
    assert again["squares"] == [n**2 for n in range(6)]
    times = [len(squares.begun(tmp_path / "squares/notes", n)) for n in range(6)]
    assert times == [1, 1, 2, 1, 1, 1]
