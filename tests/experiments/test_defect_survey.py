"""The survey of materials and defects, at its smallest: predictions, failures, what is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import defect_survey as figure
from experiments.panels.errors import FLAG_MARKERS
from experiments.studies.defect_fits import surrogate
from experiments.studies.predictions import first_order
from experiments.systems.materials import material
from lprjax.atoms.graphs import build_graph
from lprjax.potentials.observables import observe
from tests.helpers.figures import check_figure, drawn_line, power_of

TINY = ("--preset smoke --pairs W/vacancy --sizes 2 --copies 10").split()


@pytest.fixture(scope="module")
def records(summary, run):
    return list(run.records(figure.points(run.config), None, version=figure.VERSION))


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    last = json.loads(out.splitlines()[-1])
    assert last == again == json.loads((results / "defect_survey" / "summary.json").read_text())
    assert last["pairs"] == summary["pairs"] and last["n_fits"] == 2
    png = results / "defect_survey" / "defect_survey.png"
    panels = check_figure(drawn["defect_survey"], png, out, 4, ("|predicted / true - 1|",))
    for fitted in figure.FITTED:
        curve = again["pairs"]["W/vacancy"][fitted]
        for quantity, panel in zip(("geometry", "energy"), panels, strict=False):
            true, predicted = (np.abs(curve[f"{quantity}_{of}"]) for of in ("error", "predicted"))
            drawn_line(panel, true, predicted)
        ratio = np.array(curve["geometry_predicted"]) / curve["geometry_error"]
        drawn_line(panels[2], curve["geometry_error"], np.abs(ratio - 1))
        drawn_line(panels[3], curve["L"], curve["geometry_error"])
    dashed = [line for ax in panels[:3] for line in ax.lines if line.get_linestyle() == "--"]
    assert [power_of(line) for line in dashed] == [pytest.approx(1.0)] * 3  # equal, and slope 1


def test_what_first_order_leaves_out_is_of_second_order(records):
    """|predicted - true| <= M / (2 c) true^2 with M / c of order 1/Å for a metal (third over second
    derivatives of a bond, 2 alpha ~ 3/Å, shared by its 7 neighbours): here 3/Å, generously. The
    energy, stationary, is better by one order: of third order in the geometry error."""
    arrays = records[0].arrays
    true, found = arrays["geometry_error"], arrays["geometry_predicted"]
    assert np.all(true > 1e-4) and np.all(np.abs(found - true) < 3 * true**2)
    misses = np.abs(arrays["energy_predicted"] - arrays["energy_error"])
    assert np.all(misses < 5 * true**3)
    # and eta / c, the bound to first order, is above both
    assert np.all(arrays["eta"] / arrays["stability"] > found)


def test_a_prediction_is_what_the_fits_own_forces_undo(run, records):
    """H v = f, with H v by differences of the fit's forces: no other Hessian passes."""
    (point,) = figure.points(run.config)
    factors = figure.training_factors(point, point.m)
    result = figure.weighted_fit(point, factors, ("energy", "forces"))
    defect, u, *_ = figure.reference_simulation(point)
    first, potential = first_order(point, result), surrogate(point, result)
    h, n = 1e-4, defect.structure.n_atoms
    v = first.response.displacement

    def forces(step):
        graph = build_graph(defect.displaced(u + step * v), potential.r_cut)
        return defect.on_sites(observe(potential, graph, ("forces",)).forces[:n])

    left = (forces(-h) - forces(h)) / (2 * h) - first.forces
    assert float(defect.lattice.negative_norm(left)) < 1e-5 * first.eta
    arrays = records[0].arrays
    assert arrays["geometry_predicted"][0] == pytest.approx(float(defect.lattice.strain_norm(v)))
    assert arrays["kantorovich"][0] > 0 and not arrays["unproven"][0]


def test_what_has_no_response_has_no_prediction(run, summary):
    """A fit of minus the energy is unstable: NaN and two flags, not a small number. (`summary`
    has compiled all that is needed.)"""
    (point,) = figure.points(run.config)
    factors = figure.training_factors(point, point.m)
    result = figure.weighted_fit(point, factors, ("energy", "forces"))
    found = figure.predicted_and_enclosed(point, result._replace(coefficients=-result.coefficients))
    assert np.isnan(found["geometry_predicted"]) and np.isnan(found["energy_predicted"])
    assert found["unstable"] and found["unpredicted"] and found["stability"] < 0


def test_cells_suit_the_crystal():
    """Simulated cells have at least the atoms asked for, training cells at most; the perfect
    lattice is wider than twice the cutoff; no two points share a record."""
    config = figure.Config(pairs=("W/vacancy", "Cu/dumbbell-100", "Si-SW/dumbbell-110"))
    points = figure.points(config)
    for point in points:
        crystal = material(point.material)
        n = crystal.unit_cell.n_atoms
        assert n * (point.target - 1) ** 3 < config.target_atoms <= n * point.target**3
        assert n * point.m**3 <= config.most_atoms and point.m < point.target
        assert point.lattice_cells * crystal.lattice_constant > 2 * crystal.r_cut
    assert len(set(points)) == len(points) == len(config.pairs) * len(config.sizes)


def test_pairs_are_checked_at_the_door(run):
    for pair, message in (("W", "'W' is no pair"), ("Pb/vacancy", "material is 'Pb'")):
        with pytest.raises(ValueError, match=message):
            figure.points(replace(run.config, pairs=(pair,)))


@pytest.mark.parametrize("flag", FLAG_MARKERS)
def test_failures_are_loud(run, records, flag):
    """One fit of two pairs fails: counted, named, drawn in red, left out of the effectivities."""
    lost = records[0].arrays | {flag: np.array([True, False])}
    other = replace(records[0].point, material="Cu", defect="dumbbell-100")
    both = [records[0], records[0]._replace(point=other, arrays=lost)]
    config = replace(run.config, pairs=("W/vacancy", "Cu/dumbbell-100"))
    summary = figure.summarise(config, both, "smoke")
    assert summary["flags"] == {name: int(name == flag) for name in FLAG_MARKERS}
    assert np.isnan(summary["effectivity"]["Cu/dumbbell-100 EF"]["geometry"]).all()
    assert np.isfinite(summary["effectivity"]["W/vacancy EF"]["geometry"]).all()
    assert f"1 {flag.replace('_', ' ')}" in figure.caption(summary)
    red = [
        [line for line in ax.lines if line.get_color() == "red"] for ax in figure.plot(summary).axes
    ]
    assert [len(lines) for lines in red if lines] == [1, 1, 1]  # two scatters and one panel


def test_a_reference_that_is_not_relaxed_is_named(run, records):
    arrays = records[0].arrays | {"reference_converged": np.array(False)}
    summary = figure.summarise(run.config, [records[0]._replace(arrays=arrays)], "smoke")
    assert "DID NOT CONVERGE for W/vacancy" in figure.caption(summary)


def test_enclosures_hold_the_truth_and_are_counted(records, summary):
    """Of each quantity both fits are enclosed; and by hand, of three fits one that is not, one
    without, one that failed."""
    for quantity in ("geometry", "energy"):
        found = summary["enclosures"][quantity]
        assert found["held"] == found["n"] == found["of"] == 2
        arrays = records[0].arrays
        high, true = arrays[f"enclosure_{quantity}"], arrays[f"{quantity}_error"]
        low = arrays[f"enclosure_{quantity}_low"]
        assert np.all(low <= true + 1e-6) and np.all(true <= high + 1e-6)
    curve = {"geometry_error": [2.0, 4.0, 1.0, 1.0], "enclosure_geometry": [2.5, 3.0, np.nan, 9.0]}
    curve |= {"enclosure_geometry_low": [1.0, 1.0, np.nan, 0.0]}
    curve |= {flag: [False] * 4 for flag in figure.FLAGS}
    curve |= {figure.FLAGS[-1]: [False, False, False, True]}
    found = figure.enclosures_of({"one": curve}, "geometry")
    assert (found["n"], found["of"], found["held"]) == (2, 3, 1)
    assert found["upper_over_true"] == [0.75, 1.25, 1.0]
