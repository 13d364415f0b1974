"""The rates of a two-atom lattice at their smallest: virials alone leave -d / 2."""

import json

import numpy as np
import pytest

from experiments import multilattice_rates as figure
from experiments.studies.two_atom_decay import RATES, Point, compute

TINY = "--preset smoke --cells 64 --radii 4 5.7 8 --window 3 9".split()


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(summary, results, capsys):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((results / "multilattice_rates" / "summary.json").read_text())
    assert last == stored == again and last["unconverged"] == 0
    assert last["curves"]["elastic"]["geometry"] == summary["curves"]["elastic"]["geometry"]
    assert "internal strain, C kept" in figure.caption(last)


@pytest.mark.parametrize("kind", RATES)
def test_slopes(summary, kind):
    """Between L = 4 and 8 in a box of 64: lattice (1 / L^2) and box bend them."""
    for quantity in ("geometry", "energy"):
        slope = summary["curves"][kind][f"{quantity}_slope"]
        assert slope["slope"] == pytest.approx(slope["theory"], abs=0.4)
    theory = {"elastic": (-1, -2), "internal_strain": (-1, -4), "force_constants": (-3, -4)}
    assert tuple(RATES[kind]) == theory[kind]


def test_first_order_predicts_and_the_bound_holds(summary):
    for curve in summary["curves"].values():
        geometry = np.array(curve["geometry"])
        assert np.all(np.abs(np.array(curve["geometry_predicted"]) / geometry - 1) < 0.2)
        assert np.all(np.array(curve["geometry_bound"]) > geometry)


def test_no_change_is_no_error():
    found = compute(Point(64, "internal_strain", 4.0, 0.0))
    assert found["geometry"] < 1e-12 and abs(found["energy"]) < 1e-14 and found["converged"]
