"""The figure of the decay rates at its smallest, and what its numbers must obey."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import decay_rates as figure
from experiments.studies import decay
from experiments.studies.decay import Point, change, compute, outside, reference
from experiments.systems import symmetric_fields
from experiments.systems.bond_lattice import (
    CHANGE,
    Model,
    energy,
    equilibrium,
    gradient,
    moments,
    response,
    stiffness,
)
from experiments.systems.decay_kinds import KINDS
from experiments.systems.symmetric_fields import distances, strain_norm
from tests.helpers.figures import check_figure, drawn_line, power_of

TINY = "--preset smoke --half-widths-plane 32 64 --half-widths-space 8 --radii-space 2 3 4".split()
SMOOTH = [name for name, kind in KINDS.items() if not kind.sharp]


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    out = capsys.readouterr().out
    last = json.loads(out.splitlines()[-1])
    stored = json.loads((results / "decay_rates" / "summary.json").read_text())
    assert last == stored == again
    assert last["dimensions"] == summary["dimensions"] and last["unconverged"] == 0
    png = results / "decay_rates" / "decay_rates.png"
    local = tuple(f"local slope, {quantity} error" for quantity in ("geometry", "energy"))
    panels = check_figure(drawn["decay_rates"], png, out, 10, local)
    for box, row in zip(again["dimensions"].values(), (panels[:5], panels[5:]), strict=True):
        for quantity, ax in zip(("geometry", "energy"), row, strict=False):
            wanted = {name: curve[f"{quantity}_slope"] for name, curve in box["curves"].items()}
            for name, curve in box["curves"].items():
                line = drawn_line(ax, curve["L"], np.abs(curve[quantity]))
                text = "no single power" if wanted[name]["theory"] is None else None
                assert line.get_label().endswith(f"({text or format(wanted[name]['theory'], 'g')})")
            dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
            powers = [power_of(line) for line in dashed if np.isfinite(line.get_ydata()).all()]
            theory = [s["theory"] for s in wanted.values() if s["theory"] is not None]
            assert powers == pytest.approx(theory), quantity
        strain = drawn_line(row[4], box["distance"], box["strain"])
        assert power_of(row[4].lines[1]) == pytest.approx(box["strain_slope"]["theory"])
        assert strain.get_label().endswith(f"({box['strain_slope']['theory']:g})")


def test_theory_of_the_two_dimensions():
    """Slopes of geometry and energy, term by term, in the order of KINDS."""
    kinds = [KINDS[name] for name in SMOOTH]
    assert [kind.geometry(2) for kind in kinds] == [-1, -3, -3, -5, -5]
    assert [kind.energy(2) for kind in kinds] == [-2, -4, -4, -6, -6]
    assert [kind.geometry(3) for kind in kinds] == [-1.5, -3.5, -4.5, -6.5, -7.5]
    assert [kind.energy(3) for kind in kinds] == [-3, -5, -6, -8, -9]


def test_a_sharp_cut_has_no_slope_of_the_energy(summary):
    """Unbalanced forces at the cut: geometry L^-(d+1)/2, what relaxing gains its square; the whole
    energy is two terms, and no slope of theory's is drawn or written beside it."""
    for d, box in summary["dimensions"].items():
        slopes = {q: box["curves"]["sharp"][f"{q}_slope"]["theory"] for q in figure.QUANTITIES}
        assert (slopes["geometry"], slopes["relaxing"]) == (-(int(d) + 1) / 2, -(int(d) + 1))
        assert slopes["energy"] is None


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_in_the_plane(summary, name):
    """Between L = 5.7 and 8, half a box of 64: lattice (1 / L^2) and box ((L / m)^2) bend them."""
    curve = summary["dimensions"]["2"]["curves"][name]
    slope = curve["geometry_slope"]
    assert slope["local"][-1] == pytest.approx(slope["theory"], abs=0.35)
    assert summary["dimensions"]["2"]["strain_slope"]["slope"] == pytest.approx(-2, abs=0.15)


def test_extrapolation_takes_off_what_the_box_adds_in_proportion():
    """Of errors L^-2 (1 - (L / m)^2 / 2), and not where that share is large."""
    x = np.array([2.0, 4.0, 8.0, 12.0])

    def box(m):
        error = x**-2 * (1 - 0.5 * (x / m) ** 2)
        theory = {"theory": -2.0}
        curve = dict(L=x.tolist(), converged=[True] * 4, geometry=error, energy=-error)
        return {"curves": {"one": curve | dict(geometry_slope=theory, energy_slope=theory)}}

    small, large = box(16), box(32)
    figure.extrapolate(small, large, 4.0, (1.0, 9.0))
    found = large["curves"]["one"]
    np.testing.assert_allclose(found["geometry_unbounded"][:3], x[:3] ** -2, rtol=1e-12)
    np.testing.assert_allclose(found["energy_unbounded"][:3], -(x[:3] ** -2), rtol=1e-12)
    assert np.isnan(found["geometry_unbounded"][3])
    # The larger box takes off a share of 1/2 (L / m)^2.
    np.testing.assert_allclose(
        found["geometry_box_effect"][:3], -0.5 * (x[:3] / 32) ** 2, rtol=1e-9
    )
    assert found["energy_unbounded_slope"]["slope"] == pytest.approx(-2.0, abs=1e-9)


def test_a_box_of_twice_the_width_has_four_times_the_sites(summary):
    """And so a third of the change from 32 to 64 half widths is left to come in the plane."""
    box = summary["dimensions"]["2"]
    for name, curve in box["curves"].items():
        small = np.array(box["smaller_boxes"]["32"]["curves"][name]["geometry"])
        large = np.array(curve["geometry"])[: len(small)]
        found = np.array(curve["geometry_unbounded"], float)
        shown = np.isfinite(found)
        np.testing.assert_allclose(found[shown], (large + (large - small) / 3)[shown], rtol=1e-12)
    assert np.isfinite(np.array(box["curves"]["fourth"]["geometry_unbounded"], float)).any()


def test_first_order_predicts_and_the_bound_holds(summary):
    for box in summary["dimensions"].values():
        for curve in box["curves"].values():
            geometry = np.array(curve["geometry"])
            first_order = np.array(curve["geometry_predicted"]) / geometry
            assert np.all(np.abs(first_order - 1) < 0.15)
            assert np.all(np.array(curve["geometry_bound"]) > geometry)
            np.testing.assert_allclose(curve["energy"], curve["energy_predicted"], rtol=0.15)


@pytest.mark.parametrize("d", [2, 3])
def test_the_bound_is_eta_over_the_smaller_stability(summary, d):
    """c of the surrogate is at most that of the lattice without the change and with the change
    everywhere, each the least of a Rayleigh quotient over plane waves; rounding of the forces
    moves atoms by at most its own negative norm over the root of c."""
    waves = symmetric_fields.waves(16, d)
    for name, curve in summary["dimensions"][str(d)]["curves"].items():
        added = change(KINDS[name], d, 0.3)[:, 1]
        least = []
        for second in (np.array(decay.SECOND[d]), decay.SECOND[d] + added):
            blocks = np.moveaxis(stiffness(second, waves), (0, 1), (-2, -1)).reshape(-1, d, d)
            k = waves.reshape(d, -1)
            quotient = [
                np.linalg.eigvalsh(block)[0] / np.sum(4 - 4 * np.cos(wave))
                for block, wave in zip(blocks[1:], k.T[1:], strict=True)
            ]
            least.append(min(quotient))
        np.testing.assert_allclose(curve["stability"], min(least), rtol=1e-9)
        bound = np.array(curve["eta"]) / curve["stability"]
        np.testing.assert_allclose(curve["geometry_bound"], bound, rtol=1e-12)
        floor = decay.ROUNDOFF / np.sqrt(min(least))
        np.testing.assert_allclose(curve["geometry_floor"], floor, rtol=1e-9)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_change_keeps_what_it_says_and_nothing_else(name, d):
    kind = KINDS[name]
    added = change(kind, d, 0.3)
    orders = np.flatnonzero(np.any(added != 0, axis=0)) + 1
    assert orders.tolist() == [kind.order]
    if not kind.keeps:  # of alternating sign: no change of scale of the whole lattice
        signs = np.sign(added[:, kind.order - 1])
        np.testing.assert_array_equal(signs[1:], -signs[:-1])
        relative = np.abs(added[:, kind.order - 1] / decay.SECOND[d])
        np.testing.assert_allclose(relative / relative[0], 1.0, rtol=1e-12)
    size = np.max(np.abs(moments(d, 2 * kind.order) @ added[:, kind.order - 1]))
    assert size < 1e-12 if kind.keeps else size > 0.1
    assert np.max(np.abs(moments(d, 2 * kind.order + 2) @ added[:, kind.order - 1])) > 0.1


def test_outside_is_smooth_and_leaves_the_core_alone():
    r = np.linspace(0, 12, 121)
    chi = outside(r, 4.0, sharp=False)
    assert np.all(chi[r < 4] == 0) and np.all(chi[r > 8] == 1) and np.all(np.diff(chi) >= 0)
    assert np.max(np.abs(np.diff(chi))) < 0.1 * 2 / 4  # slope at most 15 / 8 over the width L
    assert np.all(outside(r, 4.0, sharp=True) == (r >= 4))


def test_no_change_is_no_error():
    found = compute(Point(2, 32, "elastic", 4.0, 0.0))
    assert found["geometry"] == found["energy"] == found["eta"] == 0.0 and found["converged"]


@pytest.fixture(scope="module")
def surrogate_of():
    """Elastic constants off by a strength beyond L = 4, in the box of 64."""
    ref = reference(2, 32)
    chi = jnp.asarray(outside(distances(32, 2), 4.0, sharp=False))

    def build(strength):
        added = ref.model.coefficients.at[CHANGE].set(change(KINDS["elastic"], 2, strength))
        return Model(added, ref.model.weights.at[0].set(chi))

    return build


def test_energy_error_is_the_difference_of_the_energies(surrogate_of):
    """Where the two large numbers still leave digits: 1e-4 of 1, so twelve of sixteen less four."""
    ref, found = reference(2, 32), compute(Point(2, 32, "elastic", 4.0, 0.3))
    surrogate = surrogate_of(0.3)
    uhat = equilibrium(surrogate, ref.displacement, ref.load, ref.solver, 1e-14).displacement
    difference = float(energy(surrogate, uhat)[0] - energy(ref.model, ref.displacement)[0])
    assert found["energy"] == pytest.approx(difference, rel=1e-7)


def test_first_order_becomes_exact_as_the_change_shrinks(surrogate_of):
    """||D(w - w_1)|| / ||D w|| is of first order in the change: a quarter for a quarter."""
    ref, off = reference(2, 32), []
    for strength in (0.2, 0.05):
        surrogate = surrogate_of(strength)
        force = -gradient(surrogate.only(CHANGE), ref.displacement)
        first = response(ref.model, ref.displacement, force, ref.solver, 1e-10).solution
        found = equilibrium(surrogate, ref.displacement, ref.load, ref.solver, 1e-13)
        true = found.displacement - ref.displacement
        off.append(float(strain_norm(true - first) / strain_norm(true)))
    assert off[0] / off[1] == pytest.approx(4.0, rel=0.3) and off[1] < 0.05


def test_what_failed_or_drowned_is_left_out_of_the_slope_and_loud(run):
    records = list(run.records(figure.points(run.config), None))
    broken = {1: dict(converged=np.array(False)), 2: dict(geometry_floor=np.array(1.0))}
    for k, arrays in broken.items():
        records[k] = records[k]._replace(arrays=records[k].arrays | arrays)
    config = replace(run.config, half_widths_plane=(32,))
    summary = figure.summarise(config, records, "smoke")
    curve = summary["dimensions"]["2"]["curves"]["elastic"]
    assert curve["geometry_slope"]["left_out"].tolist() == curve["L"][:2]
    assert np.isnan(curve["geometry_slope"]["slope"]) and summary["unconverged"] == 1
    assert "NOT CONVERGED: 1" in figure.caption(summary)
    crosses = [line for line in figure.plot(summary).axes[0].lines if line.get_color() == "red"]
    assert sum(len(line.get_xdata()) for line in crosses) == 1


def test_points_that_do_not_fit_into_the_box_are_not_computed():
    config = replace(figure.Config(), half_widths_plane=(16,), radii_plane=(4.0, 8.0, 9.0))
    plane = [p for p in figure.points(config) if p.dimension == 2 and p.kind != "reference"]
    assert {p.radius for p in plane} == {4.0, 8.0}
    assert decay.reference.cache_info().maxsize == 1  # boxes one after another, not side by side
