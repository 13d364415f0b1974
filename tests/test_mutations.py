"""The list of wrong lines stays true to the library; trying them takes hours, and no test does."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.mutations.__main__ import outcome, without_blind
from tests.helpers.mutations.table import Mutation, every

ROOT = Path(__file__).parents[1]
FILES = sorted({mutation.file for mutation in every()})
LEAST = 150
"""Mutations over the whole library."""


@pytest.mark.parametrize("file", FILES)
def test_every_mutation_changes_one_place_of_its_file(file):
    """Where a line was rewritten, rewrite its mutation, and run it: `--file NAME`."""
    text = (ROOT / "lprjax" / file).read_text()
    for mutation in every():
        if mutation.file == file:
            assert text.count(mutation.before) == 1, f"{file}: {mutation.before!r}"
            assert mutation.after != mutation.before
            ast.parse(text.replace(mutation.before, mutation.after))
            for name in mutation.tests:
                assert (ROOT / "tests" / f"{name}.py").exists(), name


def test_every_package_has_wrong_lines_and_survivors_a_reason():
    packages = {
        path.name for path in (ROOT / "lprjax").iterdir() if (path / "__init__.py").exists()
    }
    counts = Counter(mutation.file.split("/")[0] for mutation in every())
    assert set(counts) == packages and counts.total() >= LEAST
    assert all(len(m.survives.split()) > 3 for m in every() if m.survives)


def test_verdicts(tmp_path):
    """A wrong sum that one test sees; one that none does; one whose test does not end."""
    (tmp_path / "lprjax").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "lprjax" / "__init__.py").touch()
    right = "def double(x):\n    return x + x\n"
    (tmp_path / "lprjax" / "sums.py").write_text(right)
    (tmp_path / "tests" / "loose.py").write_text("def test_true():\n    pass\n")
    (tmp_path / "tests" / "strict.py").write_text(
        "from lprjax.sums import double\ndef test_five():\n    assert double(5) == 10\n"
    )
    (tmp_path / "tests" / "slow.py").write_text("def test_ends():\n    while True:\n        pass\n")

    def verdict(after, tests, seconds=60.0):
        mutation = Mutation("sums.py", "x + x", after, tests, "")
        found = outcome(mutation, tmp_path, seconds)
        assert (tmp_path / "lprjax" / "sums.py").read_text() == right
        return found

    assert verdict("x * x", ("loose", "strict")) == ("killed", "tests/strict.py::test_five")
    assert verdict("2 * x", ("loose", "strict")) == ("survives", "")
    assert verdict("x * x", ("slow", "strict"), 3.0) == ("undecided", "slow")


def test_what_fails_on_the_right_code_kills_nothing(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "green.py").write_text("def test_right():\n    pass\n")
    (tmp_path / "tests" / "red.py").write_text("def test_anyway():\n    assert False\n")
    mutation = Mutation("sums.py", "x + x", "x * x", (), "")
    killers = ("tests/green.py::test_right", "tests/red.py::test_anyway")
    found = without_blind([("killed", by, mutation) for by in killers], tmp_path, 60.0)
    assert [verdict for verdict, *_ in found] == ["killed", "undecided"]
