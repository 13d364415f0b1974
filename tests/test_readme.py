"""What the README shows runs as printed."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_come_first():
    fences = re.findall(r"^```(\w+)\n", README, re.MULTILINE)
    assert fences[:2] == ["sh", "sh"]
    figures, tests = blocks("sh")[:2]
    assert "python -m experiments.reproduce --preset smoke" in figures
    assert "python -m pytest" in tests


def test_the_example_runs_and_fits(capsys):
    """Twenty rattled cells of 16 atoms determine 39 functions: a few meV/Å, every LPR positive."""
    (example,) = blocks("python")
    scope = {}
    exec(example, scope)
    result, graph = scope["result"], scope["graphs"][0]
    assert result.rank == scope["spec"].n_columns
    assert result.rms["forces"] < 0.01
    rigidity = scope["local_prediction_rigidity"](
        result.factor, scope["site_basis"](scope["spec"], graph)
    )
    assert np.all(np.asarray(rigidity) > 0)
    assert "energy" in capsys.readouterr().out
