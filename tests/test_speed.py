"""The benchmark runs without ace-jax, forgets what it should, and judges by converged medians."""

import numpy as np
import pytest

from experiments import speed
from experiments.records import Record
from lprjax.ace import tables
from lprjax.coupling import symmetric_invariants

TINY = speed.Config(degrees=(2,), tables=3, first=2, cells=1, vacancy=2, repeats=2)


def record(name, size, **arrays):
    return Record(speed.Task(name, size, TINY), arrays, {"device": "none"})


def test_a_first_call_finds_no_tables():
    tables(speed.Task("rows", 2, TINY).spec)
    assert tables.cache_info().currsize and symmetric_invariants.cache_info().currsize
    speed.forget()
    assert not tables.cache_info().currsize and not symmetric_invariants.cache_info().currsize


@pytest.mark.parametrize("name", ["tables", "rows"])
def test_every_call_is_timed_and_warm_ones_have_one_more(name, monkeypatch):
    monkeypatch.setattr(speed, "find_spec", lambda _: None)
    found = speed.compute(speed.Task(name, 2, TINY))
    samples = np.array(found["lprjax"])
    assert list(found) == ["lprjax"] and samples.shape == (2 + (name == "rows"), 2)
    assert np.all(samples[:, 0] > 0)


def test_warm_medians_leave_out_the_first_call_and_ratios_compare_like_with_like():
    ours = np.array([[9.0, 9.0], [1e-3, 2e-3], [3e-3, 2e-3], [2e-3, 2e-3]])
    both = {"lprjax": ours, "ace-jax": 2 * ours}
    mine, theirs = speed.lines([record("rows", 16, **both)])
    assert mine["unit"] == "µs/atom" and mine["n_atoms"] == 8
    expected = {"median": 250.0, "min": 125.0, "cpu": 250.0, "first": 9.0}
    assert {k: mine[k] for k in expected} == pytest.approx(expected, rel=1e-12)
    assert mine["wanted"] == 2000 and mine["met"]
    assert theirs["ratio"] == pytest.approx(dict.fromkeys(expected, 0.5), rel=1e-12)


@pytest.mark.parametrize(("seconds", "converged", "met"), [(59, 1, 1), (61, 1, 0), (59, 0, 0)])
def test_a_relaxation_that_did_not_converge_meets_no_demand(seconds, converged, met):
    outcome = {"lprjax": np.array([[seconds, 1.0]]), "converged": np.array(bool(converged))}
    (line,) = speed.lines([record("relaxation", 16, **outcome)])
    assert line["met"] is bool(met) and line["median"] == seconds
