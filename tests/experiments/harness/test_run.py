"""Flags override presets, a run reads its records, the last line is strict JSON."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pytest

from experiments import reproduce
from experiments.harness.run import Run, finish, parse, start
from experiments.harness.sources import code_hash

ROOT = Path(__file__).parents[3]
NAMES = ("E", "EF")


@dataclass(frozen=True)
class Config:
    order: int = 3
    r_cut: float = 5.5  # cutoff (Å), 100 %
    element: str = "W"
    relax: bool = True
    #: cells per side, and
    #: no others
    sizes: tuple[int, ...] = (2, 3, 4)
    window: tuple[float, float] = (0.0, 1.0)
    fitted: Literal[*NAMES] = "EF"

    def __post_init__(self):
        if self.order > 4:
            raise ValueError(f"order is {self.order}: wanted 4 or less.")


PRESETS = {"smoke": Config(order=2, sizes=(2,)), "paper": Config()}


def test_the_first_preset_is_the_default():
    assert parse("figure", PRESETS, []) == Run(
        figure="figure", preset="smoke", config=PRESETS["smoke"]
    )
    assert parse("figure", PRESETS, []).folder == Path("results/figure")


def test_a_flag_overrides_one_field_of_the_preset():
    flags = "--preset paper --sizes 5 6 --r-cut 4 --no-relax --element Mo --window -1 1e-3"
    run = parse("figure", PRESETS, flags.split())
    assert run.config == Config(3, 4.0, "Mo", False, (5, 6), (-1.0, 1e-3))
    assert isinstance(run.config.r_cut, float) and hash(run.config)
    run = parse("figure", PRESETS, ["--results", "there", "--plot-only"])
    assert (run.results, run.plot_only, run.fresh) == (Path("there"), True, False)


def test_processes_that_share_a_gpu_do_not_take_most_of_it_each(monkeypatch):
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(name, "")  # what is set now comes back, or nothing does
    monkeypatch.delenv(name)
    parse("figure", PRESETS, [])
    assert name not in os.environ
    run = parse("figure", PRESETS, ["--engine", "dask:tcp://there:1", "--jobs", "3"])
    assert (run.jobs, run.engine, os.environ[name]) == (3, "dask:tcp://there:1", "false")


@pytest.mark.parametrize(
    "flags",
    [
        *("--preset big", "--order x", "--window 1", "--sizes", "--fresh --plot-only", "--ord 3"),
        *("--jobs x", "--engine ray", "--engine dask:", "--fitted EFV", "--order 5", "3"),
    ],
)
def test_a_wrong_flag_is_refused(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        parse("figure", PRESETS, flags.split())
    printed = capsys.readouterr()
    assert stop.value.code == 2 and flags.split()[0].strip("-") in printed.err and not printed.out


def test_what_computes_alone_has_no_workers():
    with pytest.raises(SystemExit):
        parse("figure", PRESETS, ["--jobs", "2"], alone=True)
    assert parse("figure", PRESETS, [], alone=True).jobs == 1


def test_a_configuration_that_no_record_could_be_of_is_refused_by_name():
    @dataclass
    class Melting:
        order: int = 1

    with pytest.raises(TypeError, match="Melting.*frozen"):
        parse("figure", {"smoke": Melting()}, [])


def test_help_names_presets_fields_and_units(capsys):
    with pytest.raises(SystemExit):
        parse("figure", PRESETS, "--help --preset paper".split(), "What the figure shows.")
    text = capsys.readouterr().out
    for part in (
        "What the figure shows.",
        "{smoke,paper}",
        "--r-cut",
        "cutoff (Å), 100 %",
        "cells per side, and no others",
        "{E,EF}",
        "default: 2 3 4",
        "--fresh",
    ):
        assert part in text


@pytest.mark.parametrize(
    "figure, flag, named",
    [
        ("mlearn_rigidity", "--materials Ge", "'Mo', 'Si'"),
        ("vacancy_convergence", "--material Pb", "one of W, Mo.*, or a file, name.toml"),
        ("vacancy_convergence", "--defect hole", "'vacancy', 'divacancy-1'"),
        ("vacancy_convergence", "--fitted EF X", "'EFVFC'"),
        ("optimal_weights", "--unseen hole", "'dumbbell-111'"),
        ("rigidity_and_disagreement", "--far gas", "'slab'"),
        ("alloy_composition", "--elements W Pb", "'Mo'"),
        ("defect_survey", "--pairs W/hole", "W/vacancy.*divacancy-1"),
        ("defect_survey", "--pairs Pb/vacancy", "one of W, Mo"),
        ("strain_decay", "--pairs W/vacancy", "W:vacancy.*divacancy-1"),
    ],
)
def test_a_name_that_there_is_not_ends_in_those_that_there_are(
    figure, flag, named, tmp_path, capsys
):
    module = importlib.import_module(f"experiments.{figure}")
    with pytest.raises((SystemExit, ValueError)) as stop:
        module.main([*flag.split(), "--results", str(tmp_path)])
    said = re.sub("[│\\s]+", " ", capsys.readouterr().err)
    assert re.search(named, said + str(stop.value))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("figure", [*reproduce.FIGURES, reproduce.BENCHMARK])
def test_what_help_refers_to_is_there(figure, capsys):
    """Every dotted name of a package of ours can be imported."""
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{figure}").main(["--help"])
    text = capsys.readouterr().out
    for name in re.findall(r"\b(?:lprjax|experiments)(?:\.\w+)+", text):
        assert pkgutil.resolve_name(name) is not None, name


def test_start_switches_to_float64():
    jax.config.update("jax_enable_x64", False)
    try:
        start("figure", PRESETS, [])
        assert jax.numpy.zeros(1).dtype == "float64"
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    """From the folder of the cache that the environment names, or from the user's by default."""
    code = """
import sys, jax
from dataclasses import dataclass
from experiments.harness import run
from lprjax.numerics import memory

@dataclass(frozen=True)
class Config:
    order: int = 1

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
memory.QUICK = 0.0
run.start("figure", {"smoke": Config()}, [])
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones(3))
print(sum("cache_hits" in event for event in events))
"""
    elsewhere = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "named")}
    for folder, where in ((tmp_path / "named", elsewhere), (tmp_path / "home/lprjax/jax", {})):
        plain = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
        environment = plain | {"XDG_CACHE_HOME": str(tmp_path / "home")} | where
        run = partial(subprocess.run, cwd=ROOT, env=environment, text=True, check=True)
        found = [
            int(run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout) for _ in range(2)
        ]
        assert found[0] == 0 and found[1] > 0 and list(folder.iterdir())


def test_a_run_reads_its_own_records(tmp_path):
    calls = []

    def compute(point):
        calls.append(point)
        return {"twice": 2 * point["x"]}

    points = [{"x": 1}, {"x": 2}]
    for flags, wanted in (([], 2), ([], 2), (["--plot-only"], 2), (["--fresh"], 4)):
        run = parse("figure", PRESETS, ["--results", str(tmp_path), *flags])
        assert [int(r.arrays["twice"]) for r in run.records(points, compute)] == [2, 4]
        assert len(calls) == wanted
    with pytest.raises(FileNotFoundError, match="--plot-only"):
        run = parse("figure", PRESETS, ["--results", str(tmp_path), "--plot-only"])
        list(run.records([{"x": 3}], compute))
    assert all(path.parent == run.folder for path in tmp_path.rglob("*.npz"))


def test_a_run_renews_the_records_of_other_code(tmp_path, monkeypatch):
    """The hash of `compute` goes with each record."""
    run = parse("figure", PRESETS, ["--results", str(tmp_path)])
    first = list(run.records([{"x": 1}], compute_one))
    assert first[0].meta["code"] == code_hash(compute_one)
    monkeypatch.setattr("experiments.harness.run.code_hash", lambda compute: "0" * 64)
    with pytest.warns(RuntimeWarning, match="computed anew"):
        (record,) = run.records([{"x": 1}], compute_one)
    assert record.meta["code"] == "0" * 64
    assert len(list(run.records([{"x": 1}], None))) == 1


def compute_one(point):
    return {"x": point["x"]}


def test_the_last_line_is_strict_json(tmp_path, capsys):
    print("something before")
    summary = {"figure": "f", "slope": np.float64(-2.5), "bad": float("nan"), "flag": np.True_}
    summary |= {"errors": jax.numpy.array([1.0, np.inf]), "deep": {3: (None, -np.inf, 1)}}
    want = {"figure": "f", "slope": -2.5, "bad": None, "flag": True}
    want |= {"errors": [1.0, None], "deep": {"3": [None, None, 1]}}
    assert finish(summary, tmp_path) == want

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last, parse_constant=refuse) == want
    assert json.loads((tmp_path / "f/summary.json").read_text(), parse_constant=refuse) == want
    with pytest.raises(TypeError, match="value of the summary"):
        finish({"figure": "f", "what": object()}, tmp_path)
