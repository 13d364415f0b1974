"""The decay of real defects: the slope it fits, and a tiny run from end to end."""

import json

import numpy as np
import pytest

from experiments import strain_decay as figure

TINY = "--preset smoke --pairs W:vacancy".split()


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


def test_envelope_is_the_least_decreasing_bound():
    upper = figure.envelope(np.arange(4.0), np.array([3.0, 1.0, 2.0, 0.5]))
    np.testing.assert_array_equal(upper, [3.0, 2.0, 2.0, 0.5])


def test_tiny_run_and_its_last_line(tmp_path, capsys):
    summary = figure.main([*TINY, "--results", str(tmp_path)])
    again = figure.main([*TINY, "--results", str(tmp_path), "--plot-only"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == again
    assert summary["curves"] == again["curves"] and summary["all_converged"]
    # An empty site of W draws the crystal together: a small negative dipole.
    assert -5.0 < summary["curves"]["W:vacancy"]["dipole"] < -0.5
    assert (tmp_path / "strain_decay" / "strain_decay.png").stat().st_size > 10_000
