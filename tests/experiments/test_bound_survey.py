"""The survey of bounds at its smallest: nothing is violated, and a violation would be seen."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import bound_survey as figure
from experiments.bound_survey import BOUNDED, QUANTITIES, bounds_of, ratio_of, spread
from experiments.systems.perturbed_defects import CASES
from lprjax.defects.bounds import PIECES
from lprjax.defects.budget import FAILURES, MEASURED
from lprjax.defects.enclosures import NOWHERE

TINY = "--preset smoke --count 2 --sizes 0.01 0.1 --defects".split()
TINY += ["crack 4", "honeycomb vacancy"]


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(summary, results, capsys):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((results / "bound_survey" / "summary.json").read_text())
    assert last == stored == again
    assert last["tightness"] == summary["tightness"] and last["perturbations"] == 4


def test_no_bound_is_violated(summary):
    """Of a crack, whose norm is far from the lattice's, and of a lattice with internal strain."""
    assert set(BOUNDED) | set(MEASURED) == set(PIECES)
    for name in QUANTITIES:
        found = summary["tightness"][name]
        assert found["violated"] == 0 and found["count"] >= (2 if name == "internal_strain" else 1)
        assert found["least"] >= 1.0 - figure.SLACK
    assert summary["by_defect"]["internal_strain"]["crack 4"]["count"] == 0
    for name in ("elastic", "internal_strain", "force_constants", "response"):
        assert summary["tightness"][name]["median"] < 10.0
    tight = {name: found["median"] for name, found in summary["tightness"].items()}
    assert tight["energy-norm response"] < 0.7 * tight["response"]
    assert tight["enclosed geometry"] < 1.1 < tight["geometry"]


def test_a_violation_is_counted_and_drawn(run):
    records = list(run.records(figure.points(run.config), figure.compute, version=figure.VERSION))
    arrays = records[0].arrays | {"elastic bound": 0.5 * records[0].arrays["elastic true"]}
    summary = figure.summarise(run.config, [records[0]._replace(arrays=arrays)], "smoke")
    assert summary["tightness"]["elastic"]["violated"] == 2
    assert "elastic 2 of 2 violated" in figure.caption(summary)
    (ax,) = figure.plot(summary).axes
    assert sum(len(x.get_xdata()) for x in ax.lines if x.get_color() == "red") == 2


def test_what_failed_has_no_truth():
    class Found:
        eta, stability, geometry_first_order = 1.0, 2.0, 0.4
        geometry_bound, geometry_true, energy_bound, energy_true = 0.6, 0.5, 0.2, -0.1
        enclosure = NOWHERE._replace(geometry=0.5, radius=0.05, energy=-0.08, gain=0.04)
        terms, failures = (), {}

    found = bounds_of(Found())
    enclosed = {"enclosed geometry": (0.55, 0.5), "enclosed energy": (0.12, 0.1)}
    of = {"response": (0.5, 0.4), "geometry": (0.6, 0.5), "energy": (0.2, 0.1)} | enclosed
    assert found.keys() == of.keys()
    for name, pair in of.items():
        assert found[name] == pytest.approx(pair)
    for flag in FAILURES:
        other = type("Other", (Found,), {"failures": {flag: "why"}})()
        lost = np.isnan(bounds_of(other)["geometry"][1])
        assert lost == (flag in ("unstable", "unconverged", "left_basin"))


def test_ratios_and_their_spread():
    arrays = {
        "x bound": np.array([2.0, 3.0, np.nan, 0.9]),
        "x true": np.array([1.0, 1.0, 1.0, 1.0]),
    }
    ratio = ratio_of(arrays, "x")
    assert ratio.tolist() == [2.0, 3.0, 0.9]
    assert spread(ratio) == {
        "count": 3, "violated": 1, "least": 0.9, "median": 2.0, "largest": 3.0
    }  # fmt: skip
    assert spread(ratio[:0]) == {"count": 0, "violated": 0}


def test_names_are_checked_at_the_door(run):
    assert len(CASES) == 8
    with pytest.raises(ValueError, match="'hole'.*crack 4"):
        figure.points(replace(run.config, defects=("hole",)))
