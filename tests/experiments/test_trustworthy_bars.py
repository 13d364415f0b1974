"""Shares and their confidence by hand, and a tiny synthetic run from end to end."""

import json

import numpy as np
import pytest

from experiments import trustworthy_bars as figure
from experiments.harness.records import Record
from experiments.harness.statistics import share_interval
from experiments.studies.data_bars import BARS, BEST
from experiments.systems.mlearn import SYNTHETIC
from tests.helpers.figures import check_figure, drawn_line

TINY = "--preset smoke --degree 5 --most 40 --components 2 --parts data_sets".split()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Summary and folder of a run without data."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LPRJAX_DATA", raising=False)
        return figure.main([*TINY, "--results", str(folder)]), folder


def test_confidence_is_that_of_as_many_observations_as_cells_vary_like():
    """Single observations: Clopper and Pearson's. Cells that agree with each other are worth more
    than one observation each, those that are all or nothing one."""
    single = np.array([1.0] * 27 + [0.0] * 3)
    assert figure.interval_by_cells(single) == share_interval(0.9, 30)
    alike = np.tile([0.85, 0.95], 15)
    low, high = figure.interval_by_cells(alike)
    assert share_interval(0.9, 30)[0] < low < 0.9 < high < share_interval(0.9, 30)[1]
    # variance 0.05^2: as of 0.9 * 0.1 / 0.05^2 = 36 observations of each cell
    assert (low, high) == share_interval(0.9, 30 * 36)
    assert figure.interval_by_cells(np.ones(5)) == share_interval(1.0, 5)


def test_shares_of_a_question_are_means_over_cells():
    """Of two folds, a cell without forces left out, whose share is none."""
    shape = len(BARS), 4

    def run(shares, error):
        covered = np.broadcast_to(shares, (*shape, len(shares)))
        found = {"group": [f"g{k}" for k in range(len(shares))], "functions": 3, "fitted": 7}
        for kind in figure.ASKED:
            found |= {f"{kind}_covered": covered, f"{kind}_safe": np.maximum(covered, 0.5)}
            found |= {f"{kind}_width": np.full((len(BARS), len(shares)), 2.0)}
            found |= {f"{kind}_error": np.array(error), f"{kind}_outside": np.zeros(len(shares))}
        return found

    runs = [run(np.array([1.0, 0.25]), [0.5, 1.0]), run(np.array([0.25, np.nan]), [2.0, np.nan])]
    got = figure.of_question("random cells", runs)
    bar = got["kinds"]["forces"]["bars"][BEST]
    assert got["cells"] == 4 and got["kinds"]["forces"]["cells"] == 3
    assert bar["covered"] == pytest.approx([0.5] * 4)
    assert bar["covered_or_outside"] == pytest.approx(2 / 3)
    assert bar["width_over_error"] == 2.0
    assert got["kinds"]["energy"]["by_group"]["g1"]["covered"] == 0.25


def test_parts_are_asked_for_by_name():
    (small,) = figure.points(figure.replace(figure.SMOKE, parts=("defects",)), "synthetic")
    assert isinstance(small, figure.DefectPoint) and len(small.fits) == 2
    whole = figure.points(figure.PRESETS["paper"], "digest")
    of_defects = [p for p in whole if isinstance(p, figure.DefectPoint)]
    assert sum(len(p.fits) for p in of_defects) == 52 + 24 + 42  # three experiments' fits
    named = [p for p in whole if not isinstance(p, figure.DefectPoint)]
    assert len(named) == 2 * (4 + 3) + 4 + 4
    assert all(p.config.data == "digest" and p.config.sets == () for p in named)


def test_tiny_run_and_its_last_line(tiny, capsys, drawn, monkeypatch):
    monkeypatch.delenv("LPRJAX_DATA", raising=False)
    summary, folder = tiny
    again = figure.main([*TINY, "--results", str(folder), "--plot-only"])
    out = capsys.readouterr().out
    assert "SYNTHETIC" in out.splitlines()[0]
    assert json.loads(out.splitlines()[-1]) == again
    assert again["data_sets"] == summary["data_sets"] and summary["data"] == "synthetic"
    found = summary["data_sets"][SYNTHETIC]
    for question, of in found.items():
        for kind in of["kinds"].values():
            assert kind["bars"][BEST]["covered_or_outside"] >= 0.75, question
    png = folder / "trustworthy_bars" / "trustworthy_bars.png"
    panels = check_figure(drawn["trustworthy_bars"], png, out, 6)
    bars = found["random cells"]["kinds"]["energy"]["bars"]
    drawn_line(panels[3], 100 * np.array(summary["levels"]), 100 * np.array(bars[BEST]["covered"]))
    table = panels[0].images[0].get_array()
    wanted = [100 * bar["covered"][2] for bar in bars.values()]
    np.testing.assert_allclose(table[:, 0], wanted)


def test_missing_data_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("LPRJAX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="materialsvirtuallab/mlearn"):
        figure.main(["--preset", "paper", "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def table(**columns):
    """Four fits, the last of which did not relax."""
    failed = np.array([False, False, False, True])
    found = {
        "failed": failed,
        "calls": np.array([1, 1, 2, np.nan]),
        "hessian_error": np.full(4, 0.2),
    }
    found |= {"outside_energy": np.array([False, True, True, np.nan], object)}
    found |= {"geometry_true": np.array([1.0, 2.0, 4.0, np.nan])}
    found |= {"energy_true": np.array([-1.0, 2.0, -1e-4, np.nan])}
    found |= {"audit_geometry_predicted": np.array([1.2, 1.5, 4.0, np.nan])}
    found |= {"audit_energy_predicted": np.array([-1.05, 2.5, 8e-4, np.nan])}
    return found | {name: np.array(values) for name, values in columns.items()}


def test_bars_of_defects_are_held_by_size_or_by_both_ends():
    """A bar holds errors of either sign, a range those between its ends; what failed is left out,
    what a fit has no bar of is not counted."""
    one = table(
        rigidity_energy=[0.5, 4.0, np.nan, np.nan], pops_geometry=[1.0, 1.0, 8.0, np.nan],
        audit_energy=[-0.9, 2.5, 1e-3, np.nan], audit_energy_low=[-1.1, 2.1, -1e-3, np.nan],
    )  # fmt: skip
    points = [figure.DefectPoint(m=2), figure.DefectPoint(m=3)]
    found = figure.summary_of_defects([Record(point, one, {}) for point in points])
    assert found["fits"] == 8 and found["failed"] == 2 and found["calls"] == {"1": 4, "2": 2}
    bars = found["bars"]
    assert bars["rigidity"]["energy"]["n"] == 4 and bars["rigidity"]["energy"]["covered"] == 0.5
    assert bars["pops"]["geometry"]["covered"] == pytest.approx(2 / 3)
    assert bars["pops"]["geometry"]["ratio"] == [0.5, 1.0, 2.0]
    assert bars["pops"]["geometry"]["rank_at_fixed_L"] == pytest.approx(np.sqrt(0.75))
    assert bars["rigidity"]["energy"]["rank_at_fixed_L"] is None  # two fits of each size
    assert bars["audit"]["energy"]["covered"] == pytest.approx(2 / 3)
    assert found["audit_within"] == {
        "geometry": pytest.approx(2 / 3),
        "energy": pytest.approx(2 / 3),
    }
    assert found["outside_energy"] == pytest.approx(2 / 3)


def test_the_largest_score_is_that_of_either_kind():
    """Deviations 2 eV and 3 Å, scores 4 of energies and 5 of forces, s = 0.1: 5 times both."""
    bars = {"rigidity_energy": [0.1645 * 2.0], "rigidity_geometry": [0.1645 * 3.0]}
    bars |= {"left_out_scores_energy": [8.0], "left_out_scores_geometry": [15.0]}
    found = figure.with_largest_score(bars)
    assert found["largest_score_energy"] == pytest.approx(10.0)
    assert found["largest_score_geometry"] == pytest.approx(15.0)
    assert figure.with_largest_score({}) == {}


def test_defects_are_drawn_too_where_some_never_relax(tmp_path):
    """A point of three fits and one of a single fit that failed: all points of a bar are there."""
    one = table(rigidity_energy=[0.5, 4.0, 1.0, np.nan])
    for end in ("", "_low"):
        one |= {
            f"audit_{q}{end}": np.array([1.0, 2.0, 3.0, np.nan]) for q in ("geometry", "energy")
        }
    nothing = {"failed": np.array([True]), "failure": np.array(["why"])}
    points = [figure.DefectPoint(m=2), figure.DefectPoint(m=3)]
    records = [Record(p, a, {}) for p, a in zip(points, (one, nothing), strict=True)]
    summary = figure.summarise(figure.PRESETS["paper"], records, "paper")
    assert summary["defects"]["failed"] == 2 and json.dumps(summary["defects"], allow_nan=False)
    drawn = figure.plot(summary, records)
    drawn.savefig(tmp_path / "defects.png")
    energies = drawn.axes[2]
    marks = [line for line in energies.lines if len(line.get_xdata()) == 3]
    assert any(sorted(line.get_xdata()) == [0.5, 2.0, 1000.0] for line in marks)
