"""What the README shows runs as printed."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from lprjax.commands import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_come_first():
    fences = re.findall(r"^```(\w+)\n", README, re.MULTILINE)
    assert fences[:2] == ["sh", "sh"]
    figures, tests = blocks("sh")[:2]
    assert "python -m experiments.reproduce --preset smoke" in figures
    assert "python -m pytest" in tests


def test_one_import_is_enough():
    (example,) = blocks("python")
    assert re.findall(r"^(?:from|import) .*", example, re.MULTILINE) == [
        "import jax",
        "import lprjax as lp",
    ]


@pytest.fixture(scope="module")
def output():
    """What the example prints, and the names that it leaves."""
    (example,) = blocks("python")
    printed = []
    names = {"print": printed.append}
    exec(example, names)
    return names, printed


def test_the_fit_determines_its_functions(output):
    """Twenty rattled cells of 16 atoms determine 39 functions: a few meV/Å, every LPR positive."""
    names, (rms, rigidity, _) = output
    assert names["result"].rank == names["spec"].n_columns
    assert rms["forces"] < 0.01
    real = np.asarray(names["graphs"][0].atom_mask)
    assert np.all(np.asarray(rigidity)[real] > 0)


def test_the_budget_of_a_fit_to_the_bulk_finds_the_core(output):
    """Trained without a vacancy: its neighbours are what the fit does not know."""
    budget = output[1][2]
    assert "core rules" in budget.advice and "core" in str(budget)
    assert not budget.failures
    assert budget.effectivity["geometry_first_order"] == pytest.approx(1.0, abs=0.1)


def test_every_package_is_on_the_map():
    folder = Path(__file__).parents[1] / "lprjax"
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+)` \| .*", README, re.MULTILINE)) & packages


SHELL = re.search(r"^## From the shell\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)[1]
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]\d+)?(?![\w.])")


def commands(block):
    """What a shell would run: Python of a here-document as text, commands as words."""
    here = re.compile(r"^python - <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
    for k, part in enumerate(here.split(block)):
        if k % 2:
            yield part
        else:
            yield from map(shlex.split, part.replace("\\\n", " ").splitlines())


def same(shown, printed):
    """The line's beginning, and numbers within a fifth: rounding differs between machines."""
    words = [" ".join(NUMBER.sub("#", line).split()) for line in (shown, printed)]
    if not words[1].startswith(words[0]):
        return False
    numbers = [[float(x) for x in NUMBER.findall(line)] for line in (shown, printed)]
    alike = np.isclose(numbers[0], numbers[1][: len(numbers[0])], rtol=0.2, atol=0)
    return bool(np.all(alike))


def test_the_page_on_the_shell_runs_and_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    """Blocks of commands, each with what it prints after it, `...` for what is left out."""
    monkeypatch.chdir(tmp_path)
    printed = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", SHELL, re.MULTILINE | re.DOTALL):
        if language == "sh":
            for command in commands(block):
                if isinstance(command, str):
                    exec(command, {})
                else:
                    assert command[0] == "lprjax" and main(command[1:]) == 0
            printed = capsys.readouterr().out.splitlines()
        for line in block.splitlines() if language == "text" else ():
            assert line == "..." or any(same(line, other) for other in printed), line
    wanted = "model.npz model.png rigidity.xyz rigidity.png chosen.xyz budget.json budget.png"
    assert set(wanted.split()) <= {path.name for path in tmp_path.iterdir()}
