"""Choosing cells of DFT data: what may be looked at, and a tiny synthetic run from end to end."""

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import mlearn_rigidity as figure
from experiments.studies import mlearn_loss
from experiments.studies.mlearn_loss import Loss, least_energy_error, split, weighted, weighted_rows
from experiments.systems import mlearn
from experiments.systems.mlearn import GROUPS, KINDS, SYNTHETIC, cell_rows, factors_of, of_groups
from tests.helpers.figures import check_figure, drawn_line

TINY = "--preset smoke --degree 6".split()
LOSS = Loss(energy=30.0, virial=0.5, ridge=1e-8, power=4.0)
CONFIG = figure.points(
    figure.replace(figure.SMOKE, degree=6), "synthetic"
)[0].config  # fmt: skip
SPEC = mlearn_loss.spec_of(CONFIG, SYNTHETIC)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Summary and folder of a run without data."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LPRJAX_DATA", raising=False)
        return figure.main([*TINY, "--results", str(folder)]), folder


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("LPRJAX_DATA", raising=False)


@pytest.fixture(scope="module")
def train():
    return cell_rows(SPEC, SYNTHETIC, "train", "")


def run_of(task, seed=0):
    return figure.compute("", figure.Point(CONFIG, SYNTHETIC, task, seed))


# --- what may be looked at ----------------------------------------------------------------------


def test_validation_and_fit_share_no_cell(train):
    fitted, held = split(train, 5)
    assert len(held) == len(range(2, len(train), 5)) and len(fitted) + len(held) == len(train)
    assert not {id(c) for c in fitted} & {id(c) for c in held}
    assert {c.group for c in held} == set(GROUPS)


def test_the_loss_is_chosen_without_the_test_set(monkeypatch):
    asked = []

    def watched(spec, name, part, folder):
        asked.append(part)
        return cell_rows(spec, name, part, folder)

    monkeypatch.setattr(mlearn_loss, "cell_rows", watched)
    loss, tried = mlearn_loss.chosen_loss.__wrapped__(CONFIG, SYNTHETIC, "")
    assert set(asked) == {"train"}
    assert (tried[:, :4] == np.array(loss)).all(axis=1).sum() == 1
    assert len(tried) == 2 * 1 + 2 * 1 - 1  # weights, ridges; one is in both


def test_no_choice_looks_at_a_label(tiny):
    loss, _ = mlearn_loss.chosen_loss(CONFIG, SYNTHETIC, "")
    base = mlearn_loss.trained_kinds(CONFIG, SYNTHETIC, "")
    parts = [cell_rows(SPEC, SYNTHETIC, part, "") for part in ("train", "test")]
    rng = np.random.default_rng(0)
    wrong = [
        [
            cell._replace(targets={k: rng.normal(size=y.shape) for k, y in cell.targets.items()})
            for cell in part
        ]
        for part in parts
    ]
    for task in ("rigidity", "energies"):
        point = figure.Point(CONFIG, SYNTHETIC, task)
        order, blind = (
            figure.choice(point, SPEC, loss, base, *data)["order"] for data in (parts, wrong)
        )
        np.testing.assert_array_equal(order, blind)


def test_least_energy_error_at_a_price():
    tried = {
        LOSS._replace(energy=w): errors
        for w, errors in {1.0: (9.0, 1.0), 2.0: (5.0, 1.01), 3.0: (2.0, 1.03)}.items()
    }
    chosen = [least_energy_error(tried, price).energy for price in (0.0, 0.02, 0.05)]
    assert chosen == [1.0, 2.0, 3.0]


# --- numbers ------------------------------------------------------------------------------------


def test_one_weighted_factor_is_the_stack_of_weighted_rows(train):
    """R^T R and R^T q of both, whatever the order of rows."""
    some = of_groups(train, ("Elastic", "Vacancy"))
    factor = weighted(factors_of(some), LOSS)
    rows, targets = (
        np.concatenate(part) for part in zip(*(weighted_rows(c, LOSS) for c in some), strict=True)
    )
    gram = rows.T @ rows
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    np.testing.assert_allclose(
        factor.triangular.T @ factor.triangular / scale, gram / scale, atol=1e-12
    )
    left = factor.triangular.T @ factor.target / np.sqrt(np.diag(gram))
    right = rows.T @ targets / np.sqrt(np.diag(gram))
    np.testing.assert_allclose(left, right, atol=1e-10 * np.abs(right).max())
    assert factor.n_rows == len(targets) == sum(len(c.targets[k]) for c in some for k in KINDS)


def test_energies_and_virials_are_per_atom(train):
    """The constant's column: one for an energy per atom, whatever the cell, none elsewhere."""
    for cell in train[::7]:
        np.testing.assert_allclose(cell.rows["energy"][:, -1], 1.0, rtol=1e-14)
        assert not cell.rows["forces"][:, -1].any() and not cell.rows["virial"][:, -1].any()
        mean = cell.sites.mean(axis=0)
        np.testing.assert_allclose(cell.rows["energy"][0], mean, rtol=1e-10, atol=1e-12)
        assert -5.0 < cell.targets["energy"][0] < -1.5  # Stillinger-Weber: -4.34 at best


def test_targets_are_labels_per_atom(train):
    """Thirds of the trace of the virial, and energies: those of the cell over its atoms."""
    for cell, rows in zip(mlearn.cells(SYNTHETIC, "train", "")[::7], train[::7], strict=True):
        n = cell.structure.n_atoms
        assert rows.targets["energy"][0] == pytest.approx(float(cell.labels.energy) / n)
        trace = float(np.trace(np.asarray(cell.labels.virial))) / n
        assert rows.targets["virial"][:3].sum() == pytest.approx(trace)


def by_hand(energy, forces):
    """A cell of rows of two columns whose targets are zero."""
    rows = {"energy": np.array(energy), "forces": np.array(forces)}
    return mlearn.CellRows("Vacancy", rows, {k: np.zeros(len(v)) for k, v in rows.items()}, None)


def test_errors_are_means_of_absolute_values():
    """Of opposite signs, so that neither a mean nor a root mean square is the same."""
    found = [by_hand([[1.0, 0.0]], [[2.0, 0.0], [0.0, 6.0]]), by_hand([[-3.0, 0.0]], [[-1.0, 0.0]])]
    assert mlearn.mean_errors(found, np.array([1.0, 1.0])) == (2.0, 3.0)


def test_expected_errors_are_those_of_a_normal_distribution():
    """E |x| = (2 / pi)^1/2 sigma, sigma = 3 |g| / 2 for R twice the identity."""
    result = SimpleNamespace(rms={"all": 3.0}, factor=2.0 * np.eye(2))
    cells = [by_hand([[1.0, 0.0]], [[0.0, 2.0], [4.0, 0.0]])]
    wanted = np.sqrt(2 / np.pi) * np.array([1.5, 4.5])
    np.testing.assert_allclose(figure.expected_errors(result, cells), wanted)


def test_curves_and_shares_by_hand():
    """Means over targets, every second atom, plain and of logarithms; eV to meV; forces of the
    first half of the picks over the pool's; a group's share counts its cells."""
    run = {
        "errors": np.array([[1e-3, 0.1], [2e-3, 0.2]]),
        "expected": [[3e-3, 0.3], [4e-3, 0.4]],
        "lpr": np.array([[1.0, 7.0, 100.0, 7.0], [1.0, 7.0, 1e4, 7.0]]),
        "order": np.array([1, 0]),
        "pool_forces": np.array([1.0, 3.0]),
        "added": [0, 2],
    }
    found = figure.curves(figure.replace(figure.SMOKE, stride=2), [run])
    np.testing.assert_allclose(found["lpr"], [50.5, 5000.5])
    np.testing.assert_allclose(found["lpr_log_mean"], [10.0, 100.0])
    np.testing.assert_allclose(found["energy"], [1.0, 2.0])
    np.testing.assert_allclose(found["energy_expected"], [3.0, 4.0])
    assert found["first_half_forces"] == pytest.approx(1.5)
    errors = {"all": {"energy": 3.0}, "Surface": {"energy": 6.0}, "Elastic": {"energy": 1.5}}
    shares = figure.shares({"Surface": 1, "Elastic": 2}, errors)
    assert shares == {"Surface": pytest.approx(2 / 3), "Elastic": pytest.approx(1 / 3)}
    assert figure.in_units([2e-3, 0.1]) == {"energy": 2.0, "forces": 0.1}


@pytest.mark.parametrize("task", ["rigidity", "d_optimal", "random"])
def test_rank_updates_and_fits_tell_the_same_rigidity(tiny, task):
    """The mean LPR of the targets: by the updates of `choose`, and by a fit to the chosen cells."""
    found = run_of(task)
    by_fit = found["lpr"][:, :: CONFIG.stride].mean(axis=1)
    np.testing.assert_allclose(found["mean_target_rigidity"][found["added"]], by_fit, rtol=1e-6)
    assert (np.diff(found["lpr"], axis=0) > 0.0).all()


def test_greedy_is_the_best_first_pick_and_beats_the_mean_draw(tiny):
    choices = tiny[0]["materials"][SYNTHETIC]["choices"]
    greedy, random = choices["rigidity"], choices["random"]
    assert greedy["lpr"][0] == random["lpr"][0]
    for rule in choices:
        assert greedy["lpr"][1] >= choices[rule]["lpr"][1] * (1 - 1e-9)
    assert all(g >= r for g, r in zip(greedy["lpr"], random["lpr"], strict=True))
    d_optimal = run_of("d_optimal")["log_det"]
    assert all(d_optimal[-1] >= run_of("random", seed)["log_det"][-1] for seed in range(2))


def test_groups_that_were_not_trained_on_are_less_rigid(tiny):
    lpr = tiny[0]["materials"][SYNTHETIC]["lpr"]
    median = {stage: {g: q[1] for g, q in groups.items()} for stage, groups in lpr.items()}
    assert median["base"]["Surface"] < 0.2 * median["base"]["AIMD-NVT"]
    assert median["base"]["Vacancy"] < median["base"]["AIMD-NVT"]
    for group in GROUPS:
        assert median["base"][group] < median["chosen"][group] < median["whole"][group]


# --- from end to end ----------------------------------------------------------------------------


def test_tiny_run_and_its_last_line(tiny, capsys, drawn, no_data):
    summary, folder = tiny
    again = figure.main([*TINY, "--results", str(folder), "--plot-only"])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "SYNTHETIC" in lines[0] and "SYNTHETIC" in lines[1]
    assert json.loads(lines[-1]) == again and again["materials"] == summary["materials"]
    assert summary["data"] == "synthetic"
    found = summary["materials"][SYNTHETIC]
    assert found["no_worse"] is None and not found["published"]
    assert found["rank"] == {"base": found["functions"], "whole": found["functions"]}
    assert found["test"]["whole"]["Vacancy"]["forces"] < found["test"]["base"]["Vacancy"]["forces"]
    png = folder / "mlearn_rigidity" / "mlearn_rigidity.png"
    panels = check_figure(drawn["mlearn_rigidity"], png, out, 5, ("vacancy cells added",))
    for quantity, panel in zip(("lpr_log_mean", "energy", "forces"), panels[1:], strict=False):
        for curve in found["choices"].values():
            drawn_line(panel, curve["added"], curve[quantity])
    whole = found["test"]["whole"]["all"]
    drawn_line(panels[4], [whole["energy"]], [whole["forces"]])
    in_browser = folder / "mlearn_rigidity" / f"test_{SYNTHETIC}.json.gz"
    properties = json.loads(gzip.decompress(in_browser.read_bytes()))["properties"]
    lpr = run_of("fit")["lpr_whole"]
    np.testing.assert_allclose(properties["lpr, whole"]["values"], lpr, rtol=1e-9)
    assert len(properties["energy"]["values"]) == sum(mlearn.STAND_IN["test"].values())


def test_missing_data_are_named(no_data, tmp_path):
    with pytest.raises(FileNotFoundError, match="materialsvirtuallab/mlearn"):
        figure.main(["--preset", "paper", "--results", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="mlearn_Si_train.xyz in /nowhere"):
        figure.main([*TINY, "--data", "/nowhere", "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, counts", [("Mo", (194, 23)), ("Si", (214, 25))])
def test_the_real_files(name, counts):
    """As published: how many cells, the groups, energies and stresses of a sane size."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = os.environ.get("LPRJAX_DATA", str(default))
    try:
        parts = [mlearn.cells(name, part, folder) for part in ("train", "test")]
    except FileNotFoundError:
        pytest.skip("no mlearn files: set LPRJAX_DATA to the folder that holds them")
    assert tuple(map(len, parts)) == counts
    positions = [{np.asarray(c.structure.positions).tobytes() for c in part} for part in parts]
    assert not positions[0] & positions[1]
    for part in parts:
        assert {cell.group for cell in part} == set(GROUPS)
        energies = [cell.labels.energy / cell.structure.n_atoms for cell in part]
        low, high = {"Mo": (-10.9, -9.3), "Si": (-5.5, -4.5)}[name]
        assert low < min(energies) and max(energies) < high
        assert all(np.isfinite(cell.labels.virial).all() for cell in part)


def test_points_know_the_data_but_not_where_they_are(tmp_path):
    """Data that were corrected give new records."""
    files = [tmp_path / f"mlearn_Si_{part}.xyz" for part in ("train", "test")]
    for path in files:
        path.write_text(path.name)
    before = mlearn.digest(("Si",), str(tmp_path))
    assert before == mlearn.digest(["Si"], str(tmp_path)) != "synthetic"
    files[0].write_text("corrected")
    assert mlearn.digest(("Si",), str(tmp_path)) != before
    assert figure.points(figure.SMOKE, before)[0].material == "Si"
    with pytest.raises(FileNotFoundError, match="no mlearn_Mo_train.xyz"):
        mlearn.digest(("Si", "Mo"), str(tmp_path))
