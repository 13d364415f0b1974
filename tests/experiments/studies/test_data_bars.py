"""Bars of data sets: what is asked, that no bar sees the cells it is asked about, shares."""

import numpy as np
import pytest

from experiments.studies import data_bars as bars
from experiments.studies.data_bars import BARS, BEST, Asked, CellPoint, Config, Rows
from experiments.systems import held_out_cells
from experiments.systems.held_out_cells import RANDOM
from experiments.systems.mlearn import SYNTHETIC
from lprjax.regression.posterior import NOMINAL

CONFIG = Config(order=2, degree=5, folds=2, components=3, most=60)
POINT = CellPoint(CONFIG, SYNTHETIC, RANDOM)


@pytest.fixture(scope="module")
def found():
    return bars.compute_cells("", POINT)


def test_every_bar_has_a_share_for_every_level_and_cell(found):
    for kind in bars.ASKED:
        shape = len(BARS), len(NOMINAL), len(found["group"])
        for name in ("covered", "safe"):
            values = found[f"{kind}_{name}"]
            known = np.isfinite(found[f"{kind}_error"])
            assert values.shape == shape and np.isfinite(values[..., known]).all()
        assert (found[f"{kind}_safe"] >= found[f"{kind}_covered"])[..., known].all()
        rising = np.diff(found[f"{kind}_covered"][..., known], axis=1)
        assert (rising >= -1e-12).all()  # a wider interval holds no less
        assert found[f"{kind}_left_out"] > found[f"{kind}_rms"]


def test_no_bar_sees_the_labels_that_it_is_asked_about(found, monkeypatch):
    """Labels of the asked cells that are a hundred times too large change no width."""
    part = held_out_cells.split(SYNTHETIC, "", RANDOM, 0, CONFIG.folds)
    everything = list(bars.rows_of(bars.spec_of(CONFIG, SYNTHETIC), SYNTHETIC, ""))
    for k in part.asked:
        wrong = {kind: 100.0 * y for kind, y in everything[k].targets.items()}
        everything[k] = everything[k]._replace(targets=wrong)
    monkeypatch.setattr(bars, "rows_of", lambda *_: everything)
    blind = bars.compute_cells("", POINT)
    for kind in bars.ASKED:
        np.testing.assert_array_equal(blind[f"{kind}_width"], found[f"{kind}_width"])
        np.testing.assert_array_equal(blind[f"{kind}_outside"], found[f"{kind}_outside"])
    assert not blind["energy_covered"][list(BARS).index(BEST), 0].any()


def test_the_best_bar_is_not_that_of_least_width_by_far(found):
    """What it covers of a misspecified fit, 1/PR does not."""
    for kind in bars.ASKED:
        shares = np.nanmean(found[f"{kind}_covered"][:, NOMINAL.index(0.9)], axis=1)
        assert shares[list(BARS).index(BEST)] > shares[list(BARS).index("rigidity")] + 0.2


def test_rows_that_vanish_are_not_asked_and_some_of_the_others_are():
    rng = np.random.default_rng(0)
    rows = [np.zeros((6, 3)), rng.normal(size=(5, 3)), rng.normal(size=(2, 3))]
    cells = [Rows({"forces": x}, {"forces": x.sum(axis=1)}) for x in rows]
    asked = bars.of_kind(cells, "forces", 3)
    np.testing.assert_array_equal(asked.owners, [1, 1, 1, 2, 2])
    np.testing.assert_array_equal(asked.targets, asked.rows.sum(axis=1))
    assert len(np.unique(asked.targets)) == 5
    np.testing.assert_array_equal(bars.of_kind(cells, "forces", None).owners, [1] * 5 + [2] * 2)


def test_shares_and_widths_by_hand():
    """Two cells of two and one observations, and one of none; half is covered in the first."""
    asked = Asked(np.zeros((3, 1)), np.array([1.0, 4.0, 0.5]), np.array([0, 0, 2]))
    ends = np.stack([np.full((4, 3), -2.0), np.full((4, 3), 2.0)])
    outside = np.array([False, True, False])
    got = bars.judged("energy", dict.fromkeys(BARS, ends), np.zeros(3), asked, outside, 3)
    np.testing.assert_array_equal(got["energy_covered"][0, 0], [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(got["energy_safe"][-1, 2], [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(got["energy_outside"], [0.5, np.nan, 0.0])
    np.testing.assert_array_equal(got["energy_width"][3], [2.0, np.nan, 2.0])
    np.testing.assert_allclose(got["energy_error"], [np.sqrt(8.5), np.nan, 0.5])


def test_one_composition_leaves_nothing_undetermined():
    """Two constants that the cells of one composition do not tell apart."""
    spec = bars.spec_of(Config(alloy_order=1, alloy_degree=2), "NbTa")
    prior = bars.prior_of(spec)
    assert spec.elements == ("Nb", "Ta") and (prior >= 1.0).all() and len(prior) == spec.n_columns
