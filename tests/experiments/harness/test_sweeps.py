"""A sweep computes what has no valid record of its code, and nothing else."""

import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import lprjax
from experiments.harness.records import load
from experiments.harness.sweeps import Failure, PointsFailed, Sweep, run_points, run_sweeps


@dataclass(frozen=True)
class Point:
    size: int


def compute(point):
    return {"ramp": np.arange(point.size)}


def path_of(folder, point):
    return Sweep((), compute, folder).path(point)


def test_a_file_cut_short_is_recomputed(tmp_path):
    (want,) = run_points([Point(3)], compute, tmp_path)
    path = path_of(tmp_path, Point(3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match="cut short"):
        (record,) = run_points([Point(3)], compute, tmp_path)
    np.testing.assert_array_equal(record.arrays["ramp"], want.arrays["ramp"])
    assert load(tmp_path, Point(3)) is not None


def test_only_what_is_missing_is_computed(tmp_path):
    asked = []

    def noting(point):
        asked.append(point.size)
        return compute(point)

    def sizes(points, **options):
        asked.clear()
        records = list(run_points(map(Point, points), noting, tmp_path, **options))
        assert [r.point.size for r in records] == points
        assert all(r.arrays["ramp"].shape == (r.point.size,) for r in records)
        return list(asked)

    assert sizes([2, 5]) == [2, 5]
    assert sizes([5, 3, 2]) == [3]
    assert sizes([5, 2], fresh=True) == [5, 2]
    assert sizes([5, 2], version=2) == [5, 2]
    assert sizes([5, 2], experiment="another") == [5, 2]
    assert sizes([5, 3, 2]) == []


def test_reading_only_computes_nothing_and_names_what_is_missing(tmp_path):
    list(run_points([Point(2)], compute, tmp_path))
    assert len(list(run_points([Point(2)], None, tmp_path, fresh=True))) == 1
    with pytest.raises(FileNotFoundError, match=r"size=3.*run once without --plot-only"):
        list(run_points([Point(2), Point(3)], None, tmp_path))


def test_a_failed_point_leaves_no_file_and_keeps_the_others(tmp_path):
    def failing(point):
        return compute(point) if point.size < 3 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        list(run_points([Point(2), Point(3)], failing, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [path_of(tmp_path, Point(2)).name]


def test_records_of_other_code_are_computed_anew_and_named(tmp_path, monkeypatch):
    """Of another hash, of another version of the library, and of the time before there were
    hashes; where nothing is to be computed, they are taken and named."""
    asked = []

    def noting(point):
        asked.append(point.size)
        return compute(point)

    def run(code, compute=noting):
        asked.clear()
        list(run_points([Point(2), Point(3)], compute, tmp_path, code=code))
        return list(asked)

    assert run(None) == [2, 3] and run(None) == []
    with pytest.warns(RuntimeWarning, match="code None, and this is .*code aaaa.* computed anew"):
        assert run("a" * 64) == [2, 3]
    assert run("a" * 64) == []
    with pytest.warns(RuntimeWarning, match="code aaaaaaaa, and this .*bbbbbbbb: .*computed anew"):
        assert run("b" * 64) == [2, 3]
    monkeypatch.setattr(lprjax, "__version__", "99.1")
    with pytest.warns(RuntimeWarning, match=r"DRAWN AS THEY ARE; leave out --plot-only"):
        assert run("b" * 64, None) == []
    with pytest.warns(RuntimeWarning, match=r"this is lprjax 99\.1") as caught:
        assert run("b" * 64) == [2, 3]
    assert len({str(warning.message) for warning in caught}) == 1
    assert run("b" * 64) == run(None) == []


@pytest.mark.parametrize("below", ["file", "proc"])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_point(tmp_path, below):
    (tmp_path / "file").touch()
    folder = {"file": tmp_path / "file" / "results", "proc": Path("/proc/results")}[below]
    with pytest.raises(OSError, match="results folder .*cannot be written.*choose it with --res"):
        list(run_points([Point(2)], lambda point: pytest.fail("computed"), folder))


def test_several_sweeps_are_one_after_the_other(tmp_path):
    """Each in its folder, all points in their order, what is stored among them; workers begin with
    the first of each, so that the others find compiled what they share with it."""
    list(run_points([Point(3)], compute, tmp_path / "b"))
    asked = []

    def noting(point):
        asked.append(point.size)
        return compute(point)

    def sweeps(folder):
        points = {"a": (1, 2), "b": (3, 4, 5)}
        return [Sweep([*map(Point, points[name])], noting, folder / name) for name in points]

    assert [record.point.size for record in run_sweeps(sweeps(tmp_path))] == [1, 2, 3, 4, 5]
    assert asked == [1, 2, 4, 5]
    assert [len(list((tmp_path / name).glob("*.npz"))) for name in "ab"] == [2, 3]
    asked.clear()
    with ThreadPoolExecutor(1) as executor:
        found = run_sweeps(sweeps(tmp_path / "workers"), executor)
        assert [record.point.size for record in found] == [1, 2, 3, 4, 5]
    assert asked == [1, 3, 2, 4, 5]


def test_an_executor_makes_the_records_that_are_missing(tmp_path):
    """In the order of the points; where nothing is to be computed it is not asked."""
    list(run_points([Point(2)], compute, tmp_path))
    asked = []

    def noting(point):
        asked.append(point.size)
        return compute(point)

    with ThreadPoolExecutor(2) as executor:
        for missing in ([3, 4], []):
            found = run_points(map(Point, (4, 3, 2)), noting, tmp_path, executor=executor)
            assert [record.arrays["ramp"].size for record in found] == [4, 3, 2]
            assert sorted(asked) == missing
            asked.clear()
        with pytest.raises(FileNotFoundError, match="run once without --plot-only"):
            list(run_points([Point(5)], None, tmp_path, executor=executor))


def test_leaving_a_sweep_calls_off_what_has_not_begun(tmp_path):
    futures = []

    class Noting(ThreadPoolExecutor):
        def submit(self, *arguments):
            futures.append(super().submit(*arguments))
            return futures[-1]

    def slow(point):
        time.sleep(0.1)
        return compute(point)

    with Noting(1) as executor:
        records = run_points(map(Point, range(50)), slow, tmp_path, executor=executor)
        assert next(records).point == Point(0)
        records.close()
    assert sum(future.cancelled() for future in futures) >= 47
    assert len(list(tmp_path.iterdir())) <= 3  # records; no marks


def test_what_workers_could_not_compute_is_raised_after_all_else(tmp_path):
    def failing(point):
        return compute(point) if point.size != 3 else 1 / 0

    found = []
    with ThreadPoolExecutor(2) as executor, pytest.raises(PointsFailed) as failed:
        for record in run_points(map(Point, (2, 3, 4)), failing, tmp_path, executor=executor):
            found.append(record.point.size)
    assert found == [2, 4]
    assert failed.value.failures == (Failure(Point(3), "ZeroDivisionError: division by zero"),)


def test_a_folder_that_workers_do_not_see_is_noticed(tmp_path):
    """Here: an executor that says it is done and is not."""

    class Idle(Executor):
        def submit(self, *_):
            future = Future()
            future.set_result("")
            return future

    (outcome,) = run_sweeps([Sweep([Point(2)], compute, tmp_path)], Idle())
    assert "no record of it: wanted a folder all workers see" in outcome.message
