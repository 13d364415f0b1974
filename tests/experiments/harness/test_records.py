"""A record is trusted only when it is whole and of the point asked for; all else is recomputed."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.records import identity, load, record_path, save

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Point:
    size: int
    weight: float = 1.0
    kinds: tuple[str, ...] = ("energy", "forces")


@dataclass(frozen=True)
class Twin:
    size: int
    weight: float = 1.0
    kinds: tuple[str, ...] = ("energy", "forces")


def compute(point):
    return {"ramp": jnp.arange(point.size) * point.weight, "name": "W", "converged": True}


def path_of(folder, point, version=1):
    return record_path(folder, identity(point, folder.name, version))


def test_a_record_comes_back_as_it_was_written(tmp_path):
    arrays = {"matrix": np.random.default_rng(0).normal(size=(3, 4)), "empty": np.zeros((0, 3))}
    arrays |= {"not_finite": np.array([np.nan, np.inf]), "count": np.int32(7), "file": "a b"}
    saved = save(tmp_path, Point(3), arrays, seconds=1.25)
    loaded = load(tmp_path, Point(3))
    assert loaded.meta == saved.meta and loaded.point == Point(3)
    assert loaded.arrays.keys() == arrays.keys()
    for name, value in arrays.items():
        want = np.asarray(value)
        assert loaded.arrays[name].dtype == want.dtype
        np.testing.assert_array_equal(loaded.arrays[name], want)
    assert loaded.meta["seconds"] == 1.25
    assert loaded.meta["versions"].keys() == {"lprjax", "jax", "numpy", "python"}
    assert loaded.meta["identity"]["point"]["kinds"] == ["energy", "forces"]


def test_the_file_is_an_archive_numpy_opens(tmp_path):
    save(tmp_path, Point(3), {"x": np.arange(5)})
    with np.load(path_of(tmp_path, Point(3))) as archive:
        np.testing.assert_array_equal(archive["x"], np.arange(5))


def test_the_name_tells_points_experiments_and_versions_apart():
    others = [(Point(4), "a", 1), (Point(3, 2.0), "a", 1), (Twin(3), "a", 1)]
    others += [({"size": 3}, "a", 1), (Point(3), "b", 1), (Point(3), "a", 2), (Point(3), "a", 1)]
    assert len({record_path("", identity(*who)) for who in others}) == len(others)
    # The same on every machine and day: a changed name would orphan every stored record.
    stem = "23a32fbbe21e487b4e2587dd4d3069c8"
    assert record_path("", identity(Point(3), "a")).stem.startswith(stem)


def test_a_file_cut_short_is_noticed(tmp_path):
    save(tmp_path, Point(3), compute(Point(3)))
    path = path_of(tmp_path, Point(3))
    whole = path.read_bytes()
    for length in (0, 1, 31, 32, 33, len(whole) // 2, len(whole) - 32, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.warns(RuntimeWarning, match=f"{path.name}.*cut short"):
            assert load(tmp_path, Point(3)) is None


def test_a_flipped_byte_anywhere_is_noticed(tmp_path):
    save(tmp_path, Point(3), {"x": np.arange(5.0)})
    path = path_of(tmp_path, Point(3))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.warns(RuntimeWarning, match="altered"):
            assert load(tmp_path, Point(3)) is None


def test_a_record_of_another_point_is_not_trusted(tmp_path):
    save(tmp_path, Point(4), compute(Point(4)))
    shutil.copy(path_of(tmp_path, Point(4)), path_of(tmp_path, Point(3)))
    with pytest.warns(RuntimeWarning, match="'size': 4"):
        assert load(tmp_path, Point(3)) is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, Point(3), compute(Point(3)))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_stored_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match="'bad' holds Python objects"):
        save(tmp_path, Point(3), {"bad": [object()]})
    with pytest.raises(ValueError, match="finite"):
        identity(Point(3, float("nan")), "a")
    with pytest.raises(TypeError, match="plain"):
        identity(Point(np.zeros(2)), "a")
    with pytest.raises(TypeError, match="dataclass"):
        identity(3, "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
def test_a_reader_never_sees_half_a_record(tmp_path):
    """One process rewrites a record without pause; every read of it here is whole."""
    code = """
import sys, numpy as np
from experiments.harness.records import save
i = 0
while True:
    save(sys.argv[1], {"size": 1}, {"x": np.full(50_000, i)}, experiment="busy")
    i += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        seen, limit = set(), time.monotonic() + 60
        while len(seen) < 20 and time.monotonic() < limit:
            record = load(tmp_path, {"size": 1}, experiment="busy")
            if record is not None:
                seen.add(int(record.arrays["x"][0]))
                assert np.ptp(record.arrays["x"]) == 0
        assert len(seen) == 20
    finally:
        writer.kill()
        writer.wait()
