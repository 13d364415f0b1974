"""The lessons run as they stand, through the door alone, and show what they say."""

import ast
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import lprjax as lp
from tests.helpers.figures import check_figure

FOLDER = Path(__file__).parents[1] / "experiments" / "tutorials"
LESSONS = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def test_there_are_five():
    assert [name[0] for name in LESSONS] == ["1", "2", "3", "4", "5"]


COUNTS = "steps of the descent", "cells labelled", "atom, by rank", "strain"  # axes without a unit


def run(name, tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        scope = runpy.run_path(str(FOLDER / f"{name}.py"))
    check_figure(drawn[name], folder / "results" / "tutorials" / f"{name}.png", "", 1, COUNTS)
    return scope


@pytest.mark.parametrize("name", LESSONS)
def test_no_lesson_needs_a_deep_import(name):
    """At most one package down: `lprjax` or `lprjax.<package>`, one module of helpers excepted."""
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "lprjax":
            deep = node.module.count(".") > 1
            assert not deep or node.module == "lprjax.numerics.guarded", node.module


def test_what_was_not_sampled_is_less_rigid(tmp_path_factory, drawn):
    scope = run("1_fit_and_ask", tmp_path_factory, drawn)
    assert scope["ratio"] > 100.0  # eight neighbours of a vacancy, and no vacancy in the data
    assert np.all(np.asarray(scope["here"]) > 0)
    assert isinstance(scope["saved"], lp.models.SavedFit)


def test_weights_of_a_lower_predicted_error_have_a_lower_true_error(tmp_path_factory, drawn):
    """By more than the second order that the prediction leaves out: a tenth here."""
    scope = run("2_error_budget", tmp_path_factory, drawn)
    budget = scope["budget"]
    assert not budget.failures
    assert budget.effectivity["geometry_first_order"] == pytest.approx(1.0, abs=0.05)
    assert scope["path"][0] == pytest.approx(budget.geometry_first_order, rel=0.05)
    assert scope["true"] == pytest.approx(scope["path"][-1], rel=0.1)
    assert scope["true"] < 0.6 * budget.geometry_true


def test_a_vacancy_is_chosen_for_the_formation_energy_of_a_vacancy(tmp_path_factory, drawn):
    scope = run("3_what_to_label", tmp_path_factory, drawn)
    rigidity = np.asarray(scope["chosen"].rigidity)[:, 0]
    assert scope["names"][scope["chosen"].order[0]] == "vacancy"
    assert np.all(np.diff(rigidity) > 0) and rigidity[-1] > 100 * rigidity[0]
    # 200 Gaussian draws: their standard deviation is good to 5 %, three of these
    assert scope["spread_by_committee"] == pytest.approx(scope["held"], rel=0.15)


def test_rigidities_of_all_weights_are_at_most_those_of_the_last_layer(tmp_path_factory, drawn):
    """The others held fixed, a prediction can only be moved at a higher price."""
    scope = run("4_kernels_and_networks", tmp_path_factory, drawn)
    assert np.all(np.asarray(scope["whole"]) <= np.asarray(scope["last"]) * (1 + 1e-9))
    assert np.median(scope["rigid"]["far"]) < np.median(scope["rigid"]["trained"])
    assert scope["trained"].losses[-1] < 0.1 * scope["trained"].losses[0]


def test_an_audit_says_what_is_noise(tmp_path_factory, drawn):
    """Positions of 10 Å in single precision are good to 4e-7 Å, forces to 1e-6 eV/Å; of that every
    term but the internal strain, which is none in fcc, stands clear."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "chgnet", None)  # also where it is installed
        patch.setitem(sys.modules, "chgnet.model", None)
        scope = run("5_foundation_model", tmp_path_factory, drawn)
    assert 1e-7 < scope["noise"].forces < 1e-5 and scope["rest"].converged
    budget = scope["budget"]
    assert "rules" in budget.advice and len(budget.notes) == 1
    terms = {term.name: term for term in budget.terms}
    assert terms["core"].norm > 100 * terms["core"].noise > 0
    assert terms["internal_strain"].norm < 3 * terms["internal_strain"].noise
    assert budget.effectivity["geometry_first_order"] == pytest.approx(1.0, abs=0.05)
    smooth = np.asarray(scope["c11"])[(scope["strains"] > 1e-4) & (scope["strains"] < 3e-3)]
    np.testing.assert_allclose(smooth, float(scope["constants"][0, 0]), rtol=0.01)
