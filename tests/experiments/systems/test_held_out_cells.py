"""What is fitted and what is asked: nothing twice, and of the kinds that a question says."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.systems import held_out_cells as held_out
from experiments.systems.held_out_cells import ALLOY, RANDOM, SETS, split
from experiments.systems.mlearn import SYNTHETIC
from lprjax.atoms.structures import bcc, make_structure

DATA = Path(os.environ.get("LPRJAX_DATA") or Path(__file__).parents[4] / "shared" / "data")


def groups(name, folder, numbers):
    cells, _ = held_out.all_cells(name, folder)
    return {cells[k].group for k in numbers}


@pytest.mark.parametrize("question", held_out.questions(SYNTHETIC))
def test_no_cell_is_fitted_and_asked(question):
    cells, training = held_out.all_cells(SYNTHETIC, "")
    part = split(SYNTHETIC, "", question, 0, 2)
    assert not set(part.fitted) & set(part.asked) and len(part.asked)
    assert training[part.fitted].all() and len(cells) == 50
    left_out = {"no vacancies": "Vacancy", "no surfaces": "Surface"}.get(question)
    assert (left_out not in groups(SYNTHETIC, "", part.fitted)) or left_out is None
    if left_out:
        assert groups(SYNTHETIC, "", part.asked) == {left_out}
    if question == "test set":
        assert not training[part.asked].any()


def test_folds_ask_each_training_cell_once():
    _, training = held_out.all_cells(SYNTHETIC, "")
    asked = [split(SYNTHETIC, "", RANDOM, fold, 4).asked for fold in range(4)]
    np.testing.assert_array_equal(np.sort(np.concatenate(asked)), np.flatnonzero(training))
    other = split(SYNTHETIC, "", RANDOM, 0, 4, seed=1).asked
    assert set(other) != set(asked[0])


def test_compositions_are_counted_in_the_order_of_the_symbols():
    cell = bcc("Ta", 3.3)
    mixed = (
        make_structure(
            np.concatenate([cell.positions, np.asarray(cell.positions) + 0.5]),
            cell.cell,
            ["Ta", "Nb"] * 2,
        )
        if len(cell.positions) == 2
        else None
    )
    assert mixed is not None and held_out.composition(mixed) == "2:2"
    assert held_out.composition(cell) == "0:2"


@pytest.mark.skipif(not (DATA / "NbTa_binary.xyz").is_file(), reason="no NbTa_binary.xyz")
def test_real_alloys():
    folder = str(DATA)
    half = split(ALLOY, folder, "one composition", 0, 4)
    assert len(half.fitted) == 118 and groups(ALLOY, folder, half.fitted) == {"8:8"}
    assert len(half.asked) == 540 and "8:8" not in groups(ALLOY, folder, half.asked)
    two = split(ALLOY, folder, "two compositions", 0, 4)
    assert groups(ALLOY, folder, two.fitted) == {"6:10", "10:6"}
    pure = split(ALLOY, folder, "pure elements", 0, 4)
    assert len(pure.fitted) == 658 and len(pure.asked) == 60
    assert len(split(ALLOY, folder, "ordered cells", 0, 4).asked) == 40


def test_records_belong_to_data_and_missing_data_are_named(tmp_path):
    assert held_out.digest((SYNTHETIC,), "") == "synthetic"
    for name in SETS:
        with pytest.raises(FileNotFoundError, match="materialsvirtuallab"):
            held_out.digest((name,), str(tmp_path))
