"""All figures with one set of flags: what fails is named, and keeps none of the others."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import reproduce
from experiments.harness.run import Run
from tests.helpers import squares


@pytest.fixture
def seen(monkeypatch):
    """The runs of three figures, the second of which fails, and the flags of the benchmark."""
    runs = []

    def module(name):
        def plan(argv):
            found = squares.plan([*argv, *(["--wrong", "1"] if name == "b" else [])])
            runs.append(found.run)
            return found._replace(run=replace(found.run, figure=name))

        def main(argv):
            runs.append(argv)
            return {"figure": name, "fast": True}

        return SimpleNamespace(plan=plan) if len(name) == 1 else SimpleNamespace(main=main)

    monkeypatch.setattr(reproduce, "FIGURES", ("a", "b", "c"))
    monkeypatch.setattr(reproduce, "_module", module)
    return runs


def test_reproduce_passes_its_flags_on_and_collects(seen, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "FIGURES", ("a", "c"))
    flags = ["--preset", "paper", "--results", str(tmp_path), "--fresh"]
    summary = reproduce.main(flags)
    want = Run(
        tmp_path, fresh=True, figure="squares", preset="paper", config=squares.PRESETS["paper"]
    )
    assert seen == [want, want, flags]
    assert list(summary["summaries"]) == list(summary["seconds"]) == ["a", "c", "benchmark"]
    assert summary["summaries"]["a"]["squares"] == [n**2 for n in range(8)]
    assert summary["summaries"]["benchmark"]["fast"] and summary["failed"] == []
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    assert {path.parent.name for path in tmp_path.rglob("*.npz")} == {"a", "c"}


def test_a_figure_that_fails_is_named_and_the_others_are_made(seen, tmp_path, capsys):
    """By one executor for all of them, with one bar."""
    with ThreadPoolExecutor(2) as executor:
        summary = reproduce.main(["--results", str(tmp_path)], executor)
    assert summary["failed"] == ["b"]
    assert list(summary["summaries"]) == ["a", "c", "benchmark"]
    printed = capsys.readouterr().err
    assert "b: 1 of 4 points failed" in printed and "3 figures: 100%" in printed
    assert "ValueError: no square of 1" in (tmp_path / "b/summary.json").read_text()


def test_every_figure_of_reproduce_is_a_script_here():
    folder = Path(reproduce.__file__).parent
    scripts = {path.stem for path in folder.glob("*.py")}
    assert scripts - {"__init__", "reproduce"} >= set(reproduce.FIGURES)
    for figure in reproduce.FIGURES:
        module = reproduce._module(figure)
        assert module.plan.__module__ == module.__name__ and callable(module.main)
