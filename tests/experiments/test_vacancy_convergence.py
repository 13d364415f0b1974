"""The convergence figure, at its smallest: what is computed, recorded, printed and drawn.

The budget itself has tests of its own and takes long to compile: here a stand-in makes true errors
1.25 of those predicted, and bounds twice of them.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import vacancy_convergence as figure
from experiments.harness.records import Record
from experiments.panels.errors import COLOURS, FLAG_MARKERS
from experiments.studies import defect_fits
from experiments.studies.defect_fits import reference_simulation
from experiments.systems.observations import OBSERVATION_SETS
from lprjax.atoms.graphs import build_graph
from lprjax.defects.bounds import force_residual
from lprjax.defects.budget import Budget, Term
from lprjax.defects.enclosures import NOWHERE
from lprjax.potentials.observables import observe
from tests.helpers.figures import check_figure, drawn_line, power_of

TINY = "--preset smoke --sizes 2 --target 3 --degree 4 --copies 10 --lattice-cells 2".split()


def stand_in(reference, surrogate, defect, radius, *, displacement, max_evaluations):
    forces, energy = force_residual(reference, surrogate, defect, displacement)
    eta = float(defect.lattice.negative_norm(forces))
    return Budget(
        radius=radius,
        terms=(Term("core", eta, 1.0, eta, eta, 0.0),),
        eta=eta,
        stability=0.5,
        lipschitz=0.0,
        kantorovich=0.0,
        geometry_sum=eta,
        enclosure=NOWHERE,
        geometry_first_order=eta / 0.5,
        geometry_bound=2.5 * eta / 0.5,
        geometry_true=1.25 * eta / 0.5,
        energy_first_order=energy,
        energy_bound=abs(energy),
        energy_true=1.25 * energy,
        advice="",
        failures={},
    )


@pytest.fixture(scope="module")
def summary(results):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defect_fits, "error_budget", stand_in)
        return figure.main([*TINY, "--results", str(results)])


@pytest.fixture(scope="module")
def records(summary, run):
    return list(run.records(figure.points(run.config), None, version=figure.VERSION))


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    last = json.loads(out.splitlines()[-1])
    stored = json.loads((results / "vacancy_convergence" / "summary.json").read_text())
    assert last == stored == again
    assert last["curves"] == summary["curves"]
    assert last["figure"] == "vacancy_convergence" and set(last["curves"]) == set(OBSERVATION_SETS)
    png = results / "vacancy_convergence" / "vacancy_convergence.png"
    panels = check_figure(drawn["vacancy_convergence"], png, out, 16)
    for k, curve in enumerate(last["curves"].values()):
        for quantity, panel in (("geometry", panels[k]), ("energy", panels[5 + k])):
            for of in ("error", "predicted"):
                drawn_line(panel, curve["L"], np.abs(curve[f"{quantity}_{of}"]))
        drawn_line(panels[k], curve["L"], curve["geometry_bound"])
        drawn_line(panels[10], curve["L"], curve["eta"])


def test_other_defects_collide_with_nothing(run):
    """Neither records nor figures; the vacancy in tungsten keeps its name."""
    names = set()
    for material, defect in (("W", "vacancy"), ("W", "dumbbell-111"), ("Cu", "vacancy")):
        config = replace(run.config, material=material, defect=defect)
        names |= {config.name, *figure.points(config)}
    assert run.config.name == "vacancy_convergence" in names
    assert "vacancy_convergence_Cu_vacancy" in names
    assert len(names) == 3 * (1 + len(figure.points(run.config)))


def test_smaller_bases_are_fitted_to_energies_and_forces_only(run, records):
    config = replace(run.config, floor_degrees=(3,))
    whole, smaller = figure.points(config)
    assert whole == records[0].point and (smaller.degree, smaller.fitted) == (3, ("EF",))
    sets = (len(OBSERVATION_SETS),)
    arrays = {n: a[1:2] if a.shape[:1] == sets else a for n, a in records[0].arrays.items()}
    arrays["geometry_error"] = 3.0 * arrays["geometry_error"]
    summary = figure.summarise(config, [*records, Record(smaller, arrays, {"seconds": 0.0})], "")
    assert summary["n_sizes"] == 1 and list(summary["smaller_bases_EF"]) == ["3"]
    error = records[0].arrays["geometry_error"][1]
    assert summary["curves"]["EF"]["geometry_error"] == [error]
    assert f"down to {3 * error:.1e} Å at degree 3" in figure.caption(summary)
    both = figure.plot(summary, records).axes[1]
    radius = summary["curves"]["EF"]["L"]
    assert drawn_line(both, radius, [error]).get_color() == COLOURS["EF"]
    assert drawn_line(both, radius, [3 * error]).get_color() in ("0.6", "0.75")  # grey


SLOPES = {  # of geometry and energy in d = 3 for mismatches that do not change with L
    "EF": (-1.5, -3.0),
    "EFV": (-3.5, -5.0),
    "EFFC": (-4.5, -6.0),
    "EFVFC": (-4.5, -6.0),
}


@pytest.mark.parametrize("crystal, virials", [("bcc", (-3.5, -5.0)), ("diamond", (-1.5, -5.0))])
def test_the_slopes_of_the_theory_are_drawn(run, records, crystal, virials):
    """From the smallest cell on, with their number beside; in a multilattice virials, which do not
    see the internal strain, gain nothing in the geometry."""
    three = [
        r._replace(arrays=r.arrays | {"radius": np.array(radius)})
        for r, radius in zip(records * 3, (3.0, 5.0, 9.0), strict=True)
    ]
    summary = figure.summarise(run.config, three, "") | {"crystal": crystal}
    axes = figure.plot(summary, three).axes
    for k, name in enumerate(summary["curves"]):
        slopes = (SLOPES | {"EFV": virials}).get(name)
        for quantity, ax, place in (("geometry", axes[k], 0), ("energy", axes[5 + k], 1)):
            theory = [line for line in ax.lines if "theory" in line.get_label()]
            assert len(theory) == (slopes is not None)
            for line in theory:
                assert power_of(line) == pytest.approx(slopes[place])
                assert line.get_label().endswith(f": {slopes[place]:g}")
                first = (
                    summary["curves"][name]["L"][0],
                    abs(summary["curves"][name][f"{quantity}_error"][0]),
                )
                assert first in [pytest.approx(point) for point in line.get_xydata()]


def test_formation_energy_of_the_reference(summary):
    """N = 53 of 54 sites: the energy at a geometry without forces, less N times LAMMPS's energy of
    the perfect crystal (six decimals, so 53 halves of the last); below the unrelaxed 3.85087 eV."""
    defect, displacement, *_ = reference_simulation(defect_fits.Config(), 3)
    potential = defect_fits.Config().crystal.potential
    graph = build_graph(defect.displaced(displacement), potential.r_cut)
    found = observe(potential, graph, ("energy", "forces"))
    assert np.abs(found.forces).max() < 1e-4
    formation = float(found.energy) + 53 * 8.759994
    assert summary["formation_energy_reference"] == pytest.approx(formation, abs=53 * 5e-7)
    assert 3.5 < formation < 3.85087
    assert summary["reference_converged"] and summary["target_atoms"] == 53


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


def test_a_power_law_has_its_slope():
    radius = np.array([3.0, 4.0, 6.0])
    assert figure.fitted_slope(radius, 2.0 * radius**-1.5) == pytest.approx((-1.5, 0.0), abs=1e-12)
    slope, spread = figure.fitted_slope(radius[:2], radius[:2] ** -3.0)
    assert slope == pytest.approx(-3.0) and np.isnan(spread)


def test_effectivities_are_predicted_over_true(run, records):
    summary = figure.summarise(run.config, records, "smoke")
    for name, curve in summary["curves"].items():
        assert curve["geometry_effectivity"] == pytest.approx([0.8]), name
        assert curve["energy_effectivity"] == pytest.approx([0.8]), name
        assert curve["bound_effectivity"] == pytest.approx([2.0]), name
    assert "predicted / true lies between 0.8 and 0.8" in figure.caption(summary)
    assert "NOT to be read" not in figure.caption(summary)


@pytest.mark.parametrize("flag", FLAG_MARKERS)
def test_failures_are_loud(run, records, flag):
    """Counted, named in the caption, drawn in red, and left out of the effectivities."""
    arrays = records[0].arrays | {flag: np.array([False, True, False, False, False])}
    if flag == "unconverged":  # a number that there is none of is drawn too
        arrays["geometry_error"] = arrays["geometry_error"] * [1, np.nan, 1, 1, 1]
    lost = [records[0]._replace(arrays=arrays)]
    summary = figure.summarise(run.config, lost, "smoke")
    assert summary["flags"] == {name: int(name == flag) for name in FLAG_MARKERS}
    assert np.isnan(summary["curves"]["EF"]["geometry_effectivity"]).all()
    assert f"NOT to be read as numbers, in red: 1 {flag.replace('_', ' ')}" in figure.caption(
        summary
    )
    drawn = figure.plot(summary, lost)
    red = [line for line in drawn.axes[1].lines if line.get_color() == "red"]
    assert [line.get_marker() for line in red] == [FLAG_MARKERS[flag]]
    assert len(red[0].get_xdata()) == 1
