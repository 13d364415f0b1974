"""What the README shows runs as printed."""

import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_come_first():
    fences = re.findall(r"^```(\w+)\n", README, re.MULTILINE)
    assert fences[:2] == ["sh", "sh"]
    figures, tests = blocks("sh")[:2]
    assert "python -m experiments.reproduce --preset smoke" in figures
    assert "python -m pytest" in tests


@pytest.fixture(scope="module")
def scope():
    """The names left by the examples, run one after the other."""
    names = {}
    for example in blocks("python"):
        exec(example, names)
    return names


def test_the_fit_determines_its_functions(scope):
    """Twenty rattled cells of 16 atoms determine 39 functions: a few meV/Å, every LPR positive."""
    result, graph = scope["result"], scope["graphs"][0]
    assert result.rank == scope["spec"].n_columns
    assert result.rms["forces"] < 0.01
    rigidity = scope["local_prediction_rigidity"](
        result.factor, scope["site_basis"](scope["spec"], graph)
    )
    assert np.all(np.asarray(rigidity) > 0)


def test_the_budget_of_a_fit_to_the_bulk_blames_the_core(scope):
    """Trained without a vacancy: its neighbours are what the fit does not know."""
    budget = scope["error_budget"](
        scope["eam"], scope["surrogate"], scope["defect"], radius=5.0, max_evaluations=100
    )
    assert "core rules" in budget.advice and "core" in str(budget)


def test_the_next_cell_has_a_vacancy(scope):
    """Of five bulk cells and five with a vacancy, for the formation energy of the vacancy."""
    chosen = scope["chosen"]
    assert chosen.order[0] >= 5
    rigidity = np.asarray(chosen.rigidity)[:, 0]
    assert np.all(np.diff(rigidity) > 0) and rigidity[-1] > 10 * rigidity[0]
