"""Error against cost, at its smallest: what labels cost, what a budget buys, what comes out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import observation_value as figure
from experiments.studies import labelling_costs
from experiments.studies.labelling_costs import Config, Cost, Strategy, allocation, cost, strategies
from experiments.systems.observations import FLAGS
from tests.helpers.figures import check_figure, drawn_line

TINY = "--preset smoke --budgets 2 30".split()


@pytest.fixture
def counted(monkeypatch):
    """Without a relaxation: a bcc vacancy cell of m cubes has 2 m^3 - 1 atoms."""
    monkeypatch.setattr(labelling_costs, "n_atoms", lambda config, m: 2 * m**3 - 1)
    return Config(sizes=(3, 4), strained_cells=12, lattice_cells=4)


def test_cost_counted_by_hand(counted):
    """Bulk energy 1 x 2; 9 cells of 53 and 2 of 127; 12 strains of 2; 2 displacements of 128."""
    assert cost(counted, {}, ()) == Cost(1, 2)
    assert cost(counted, {3: 9, 4: 2}, ()) == Cost(12, 2 + 9 * 53 + 2 * 127)
    assert cost(counted, {3: 9}, ("virial",)) == Cost(22, 2 + 477 + 24)
    assert cost(counted, {3: 9}, ("virial", "force_constants")) == Cost(24, 2 + 477 + 24 + 256)


def test_a_budget_is_spent_and_not_exceeded(counted):
    """10 calls of 53 atoms are 530: less 2, 24 for virials, 256 for force constants."""
    assert allocation(counted, Strategy({3: 1.0}), 10) == {3: 528 // 53}
    assert allocation(counted, Strategy({4: 1.0}, ("virial",)), 10) == {4: 504 // 127}
    assert allocation(counted, Strategy({3: 0.5, 4: 0.5}), 10) == {3: 264 // 53, 4: 264 // 127}
    everything = Strategy({4: 1.0}, ("virial", "force_constants"))
    assert allocation(counted, everything, 10) == {4: 248 // 127}
    assert allocation(counted, everything, 7) == {}  # 89 atom-calls are left, a cell costs 127
    for strategy in strategies(counted).values():
        for budget in (10, 100):
            counts = allocation(counted, strategy, budget)
            left = budget * 53 - cost(counted, counts, strategy.kinds).atom_calls
            assert 0 <= left < 53 * (3 in counts) + 127 * (4 in counts)


def test_light_weights_are_of_the_other_kinds_only(counted):
    heavy = labelling_costs.weights(counted, Strategy({3: 1.0}, ("virial",)))
    light = labelling_costs.weights(counted, Strategy({3: 1.0}, ("virial",), light=True))
    assert light["virial"] == pytest.approx(counted.light * heavy["virial"])
    assert {k: v for k, v in light.items() if k != "virial"} == {
        k: v for k, v in heavy.items() if k != "virial"
    }
    assert "force_constants" not in heavy


def test_the_last_line_is_the_summary_and_nothing_is_computed_twice(
    summary, results, capsys, drawn
):
    again = figure.main([*TINY, "--results", str(results), "--plot-only"])
    folder = results / "observation_value"
    out = capsys.readouterr().out
    stored = json.loads((folder / "summary.json").read_text())
    assert json.loads(out.splitlines()[-1]) == stored == again
    assert again["curves"] == summary["curves"] and again["seconds"] == summary["seconds"]
    png, pure = folder / "observation_value.png", ("atom-calls of the reference",)
    panels = check_figure(drawn["observation_value"], png, out, 5, pure)
    for quantity, panel in zip(figure.PANELS, panels, strict=True):
        for curve in again["curves"].values():
            drawn_line(panel, curve["atom_calls"], curve[quantity])
    assert (folder / "observation_value.md").read_text().splitlines()[0] in out


def test_more_cells_include_the_fewer(summary, run):
    """Nested draws: H of the larger budget less H of the smaller one has no negative eigenvalue."""
    config = replace(run.config, seeds=(), seed=run.config.seeds[0])
    found = labelling_costs.cells_by_count(config, 2)
    few, many = (found[n]["forces"] for n in (min(found), max(found)))
    assert int(few.n_rows) == 3 * 15 * min(found) and int(many.n_rows) == 3 * 15 * max(found)
    gained = np.linalg.eigvalsh(
        many.triangular.T @ many.triangular - few.triangular.T @ few.triangular
    )
    assert gained.min() > -1e-10 * gained.max()


def test_kinds_that_are_bought_fit_better(summary):
    """What is in the loss is lower for it, and a call of a larger cell costs more atoms."""
    last = {name: {k: v[-1] for k, v in c.items() if isinstance(v, list)}
            for name, c in summary["curves"].items()}  # fmt: skip
    assert last["m=2+V"]["elastic"] < last["m=2"]["elastic"]
    assert last["m=2+FC"]["force_constants"] < last["m=2"]["force_constants"]
    assert last["m=3"]["cells_3"] < last["m=2"]["cells_2"]
    assert all(curve["atom_calls"] <= 30 * 15 for curve in last.values())


def test_errors_are_those_predicted(summary):
    """First order, exact but for the error squared: with 0.1 Å against bonds of 2.7 Å, 10 %."""
    for quantity in ("geometry", "energy"):
        low, high = summary["predicted_over_true"][quantity]
        assert 0.9 < low <= high < 1.1, quantity


def test_the_best_buy_is_the_least_error(summary):
    names, errors = summary["best"]["geometry"], summary["best"]["geometry_error"]
    for budget, name, error in zip(summary["budgets"], names, errors, strict=True):
        for curve in summary["curves"].values():
            if budget in curve["budget"]:
                assert error <= curve["geometry_error"][curve["budget"].index(budget)]
        assert name in summary["curves"]
    assert "not affordable" in figure.table(summary)


def test_failures_are_shown(summary, run):
    records = list(run.records(figure.points(run.config), None, version=figure.VERSION))
    arrays = {**records[0].arrays, "left_basin": np.array([True, False])}
    lost = figure.summarise(run.config, [records[0]._replace(arrays=arrays), *records[1:]], "smoke")
    assert lost["flags"]["left_basin"] == 1 and "left basin" in figure.caption(lost)
    assert "left basin" in figure.table(lost)
    assert np.isnan(lost["curves"]["m=2"]["geometry_error"][0])
    drawn = figure.plot(lost)
    red = [line for line in drawn.axes[0].lines if line.get_color() == "red"]
    assert sum(len(line.get_xdata()) for line in red) == sum(lost["flags"][f] for f in FLAGS)
