"""The first figure, at its smallest: what is computed, recorded, said and drawn."""

import json

import numpy as np
import pytest

from experiments import vacancy_convergence as figure
from experiments.vacancy_fits import OBSERVATION_SETS, reference_simulation

TINY = (
    "--preset smoke --sizes 2 --target 3 --degree 5 --floor-degrees 4 --copies 10 --lattice-cells 3"
).split()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def summary(results):
    return figure.main([*TINY, "--results", str(results)])


@pytest.fixture(scope="module")
def records(summary, results):
    run = figure.start("vacancy_convergence", figure.PRESETS, [*TINY, "--results", str(results)])
    return list(run.records(figure.points(run.config), None))


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(summary, results, capsys):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((results / "vacancy_convergence" / "summary.json").read_text())
    assert last == stored == again
    assert last["curves"] == summary["curves"]
    assert last["figure"] == "vacancy_convergence" and set(last["curves"]) == set(OBSERVATION_SETS)
    assert (results / "vacancy_convergence" / "vacancy_convergence.png").stat().st_size > 10_000


def test_formation_energy_of_the_reference(summary):
    """N = 53 of 54 sites against the unfitted reference, relaxed by another route."""
    assert summary["formation_energy_reference"] == pytest.approx(
        reference_simulation(3).formation_energy, abs=1e-9
    )
    assert 3.5 < summary["formation_energy_reference"] < 3.85  # below the unrelaxed 3.85087 eV


def test_kinds_that_are_fitted_fit_better(summary):
    """The least-squares theorem: of one basis and one weight, adding a kind lowers its residual."""
    curves = summary["curves"]
    assert curves["EFV"]["e_virial"][0] < curves["EF"]["e_virial"][0]
    assert curves["EFFC"]["e_force_constants"][0] < curves["EF"]["e_force_constants"][0]
    assert curves["EF"]["e_forces"][0] < curves["E"]["e_forces"][0]
    # and raises, or leaves, that of the forces
    assert curves["EFV"]["e_forces"][0] > curves["EF"]["e_forces"][0]


def test_rigidity_grows_with_every_kind_of_observation(records):
    """H only grows, so no atom's LPR falls: E < E+F < E+F+V < E+F+V+FC and E+F < E+F+FC."""
    rigidity = dict(zip(OBSERVATION_SETS, records[0].arrays["rigidity"], strict=True))
    assert rigidity["E"].shape == records[0].arrays["distance"].shape == (53,)
    for less, more in (("E", "EF"), ("EF", "EFV"), ("EF", "EFFC"), ("EFV", "EFVFC")):
        assert np.all(rigidity[more] >= rigidity[less] * (1 - 1e-6)), (less, more)


def test_geometry_error_is_first_order_in_the_negative_norm(summary):
    """||Du - Dû|| <= 2 eta / c: the ratio is bounded by the stiffness, and not vanishing.

    K counts a bond from both ends; W's smallest stiffness against it is C44-like, about
    0.5 eV/Å^2, so eta / error lies between 0.2 and 5 eV/Å^2.
    """
    for name in ("EF", "EFV", "EFFC", "EFVFC"):
        curve = summary["curves"][name]
        ratio = curve["e_forces_negative_norm"][0] / curve["geometry_error"][0]
        assert 0.2 < ratio < 5, name


def test_an_unconverged_relaxation_is_loud(records):
    arrays = dict(records[0].arrays)
    assert list(OBSERVATION_SETS)[1] == "EF"
    arrays["converged"] = np.array([True, False, True, True, True])
    lost = [records[0]._replace(arrays=arrays), records[1]]
    run = figure.start("vacancy_convergence", figure.PRESETS, TINY)
    summary = figure.summarise(run.config, lost, "smoke")
    assert not summary["all_converged"] and "did not converge" in figure.caption(summary)
    drawn = figure.plot(summary, lost)
    crosses = [line for line in drawn.axes[0].lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == 1
