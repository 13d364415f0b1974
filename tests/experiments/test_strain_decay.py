"""The decay of real defects: the slope it fits, and a tiny run from end to end."""

import json

import numpy as np
import pytest

from experiments import strain_decay as figure
from tests.helpers.figures import check_figure, power_of

TINY = "--preset smoke --pairs W:vacancy --sites 1000 --inner 2 --outer 0.6".split()


def curve(power, scale=1.0):
    """Shells that decay as a power, every other one with less strain, as symmetry makes them."""
    distances = np.linspace(1.0, 40.0, 400)
    strains = distances**power * np.where(np.arange(400) % 2, 1.0, 0.1)
    return {
        "distances": distances,
        "strains": scale * strains,
        "converged": True,
        "evaluations": 1,
        "sites": 400,
        "radius": 40.0,
        "nearest_neighbour": 2.5,
        "dipole": 1.0,
    }


@pytest.mark.parametrize("power", [-3.0, -2.0])
def test_slope_of_the_envelope(power):
    """Exact for a power law, up to the step of the shells, whatever lies below the envelope."""
    found = figure.slope_of(figure.Config(), curve(power))
    assert found["slope"] == pytest.approx(power, abs=0.03)
    assert found["slope_error"] < 0.02


def test_a_slope_shallower_than_the_bound_is_named():
    """-2.6 ± 0.2 is two standard errors above -3, which is a bound from above; -3.4 obeys it."""
    assert figure.excess(-2.6, 0.2) == pytest.approx(2.0)
    curve = dict(dipole=1.0, slope_error=0.2)
    curves = {
        name: curve | {"slope": slope, "excess": figure.excess(slope, 0.2)}
        for name, slope in (("flat", -2.6), ("steep", -3.4))
    }
    summary = dict(expected_slope=-3, curves=curves, all_converged=True)
    assert "permits, in standard errors: flat by 2.0." in figure.caption(summary)
    only = summary | {"curves": {"steep": curves["steep"]}}
    assert "permits" not in figure.caption(only)


def test_envelope_is_the_least_decreasing_bound():
    upper = figure.envelope(np.arange(4.0), np.array([3.0, 1.0, 2.0, 0.5]))
    np.testing.assert_array_equal(upper, [3.0, 2.0, 2.0, 0.5])


def test_tiny_run_and_its_last_line(tmp_path, capsys, drawn):
    summary = figure.main([*TINY, "--results", str(tmp_path)])
    again = figure.main([*TINY, "--results", str(tmp_path), "--plot-only"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again
    assert summary["curves"] == again["curves"] and summary["all_converged"]
    # An empty site of W draws the crystal together: a small negative dipole.
    assert -5.0 < summary["curves"]["W:vacancy"]["dipole"] < -0.5
    png = tmp_path / "strain_decay" / "strain_decay.png"
    (panel,) = check_figure(drawn["strain_decay"], png, out, 1)
    theory, radius = (line for line in panel.lines if line.get_linestyle() == "--"), panel.lines[-1]
    assert [power_of(line) for line in theory] == [pytest.approx(-3.0)]
    assert radius.get_xdata()[0] == pytest.approx(0.5 * 8 * 3.16484945834639)
