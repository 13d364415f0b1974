"""Whoever folds which row, the factor is the same: streams, eight devices, two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lprjax.regression.factors import block_size, compress
from lprjax.regression.streams import checked_mesh, finished, push, share_of, spread, stream

K = 5
ROOT = Path(__file__).parents[2]


def chunks(sizes, seed=0):
    """Rows and targets by chunk, each padded with numbers that must not count."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(r, K)), rng.normal(size=r), count) for r, count in sizes]


def folded(parts):
    flow = stream(K)
    for rows, targets, count in parts:
        flow = push(flow, *spread(flow.mesh, [(rows, targets)]), np.array([count]))
    return finished(flow)


def assert_same(found, wanted):
    """To 1e-12, far above the rounding of K columns and far below any row left out."""
    assert found.n_rows == wanted.n_rows and isinstance(found.n_rows, int)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.max(np.abs(wanted.triangular)))


SIZES = {
    "less than a buffer": [(7, 7), (7, 3)],
    "several buffers": [(100, 100 - k) for k in range(12)],
    "a chunk larger than the buffer": [(30, 20), (1000, 900), (30, 30), (400, 1)],
    "chunks of which nothing counts": [(7, 0), (300, 0), (7, 7)],
    "none": [],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_stream_has_the_factor_of_its_rows(sizes):
    """Padding, here random numbers, is written over or not read, whatever the chunks' shapes."""
    parts = chunks(sizes)
    rows = np.concatenate([np.zeros((0, K)), *(x[:n] for x, _, n in parts)])
    targets = np.concatenate([np.zeros(0), *(y[:n] for _, y, n in parts)])
    assert_same(folded(parts), compress(rows, targets))


def test_padding_may_be_nan():
    (rows, targets, _), *_ = chunks([(9, 4)])
    rows[4:], targets[4:] = np.nan, np.inf
    assert_same(folded([(rows, targets, 4)]), compress(rows[:4], targets[:4]))


def test_memory_is_one_buffer():
    """However many rows came: the arrays of a stream do not grow."""
    flow, sizes = stream(K), set()
    for rows, targets, count in chunks([(64, 64)] * 20):
        flow = push(flow, *spread(flow.mesh, [(rows, targets)]), np.array([count]))
        sizes.add(flow.rows.size)
    assert sizes == {block_size(K) * K}


def test_an_accelerator_takes_more_rows_after_the_first(monkeypatch):
    """Few rows are folded among few zeros, many among many; the factor is that of all of them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    flow, sizes, k, rng = stream(40), [], 40, np.random.default_rng(0)
    parts = [(rng.normal(size=(64, k)), rng.normal(size=64)) for _ in range(40)]
    for part in parts:
        flow = push(flow, *spread(flow.mesh, [part]), np.array([64]))
        sizes.append(flow.rows.shape[1])
    assert sorted(set(sizes)) == [256, 1024] and sizes == sorted(sizes)
    rows, targets = (np.concatenate(both) for both in zip(*parts, strict=True))
    found, wanted = finished(flow), compress(rows, targets)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.max(np.abs(wanted.triangular)))


def test_a_mesh_has_one_axis():
    grid = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("a", "b"))
    with pytest.raises(ValueError, match=r"axes \('a', 'b'\): wanted one"):
        stream(K, grid)
    assert share_of(checked_mesh(None)) == 1


@pytest.mark.parametrize(
    "flags, n_devices",
    [(("--devices", "8"), 8), (("--processes", "2"), 2)],
    ids=["eight devices", "two processes"],
)
def test_many_devices_make_the_factor_of_one(flags, n_devices, tmp_path):
    """The documented commands. 21 cells are a multiple of neither: some devices idle at the end,
    and one process feeds more than the other. R is well determined, so it is itself compared."""
    command = [sys.executable, "-m", "experiments.sharded_factors", "--preset", "smoke", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "sharded_factors" / "summary.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == summary
    assert summary["n_devices"] == n_devices and summary["n_structures"] % n_devices
    assert summary["n_processes"] == (2 if "--processes" in flags else 1)
    assert summary["n_rows"] == {"energy": 21, "forces": 3 * 8 * 21, "virial": 6 * 21}
    assert summary["relative_difference"] < 1e-9
    assert summary["influence_difference"] < 1e-8
