"""Error budgets from the shell are those of the library."""

import json

import pytest

from lprjax.commands.hosts import read_host
from lprjax.commands.sources import read_potential
from lprjax.defects import error_budget, vacancy

WORDS = ["--reference", "zhou", "--crystal", "bcc", "W", "--cells", 3, "--radius", 4]


def test_the_budget_is_that_of_the_library(folder, tmp_path, shell):
    out = tmp_path / "budget.json"
    model = str(folder / "model.npz")
    code, said, aside = shell("budget", *WORDS, "--surrogate", model, "-o", out, "--json")
    found, host = json.loads(said), read_host("zhou", ("bcc", "W"))
    wanted = error_budget(host.potential, read_potential(model), vacancy(host.unit_cell, 3), 4.0)
    assert code == (1 if wanted.failures else 0)
    assert found["geometry_true"] == pytest.approx(wanted.geometry_true, rel=1e-6)
    assert found["energy_true"] == pytest.approx(wanted.energy_true, rel=1e-6)
    assert [t["name"] for t in found["terms"]] == [t.name for t in wanted.terms]
    assert found["lattice_constant"] == host.lattice_constant and str(wanted.advice) in aside
    written = json.loads(out.read_text())
    assert written["terms"] == found["terms"] and (tmp_path / "budget.png").exists()
    assert [f.partition(":")[0] for f in found["failures"]] == list(wanted.failures)


def test_what_has_no_budget_is_refused(folder, tmp_path, refused):
    model = ["--surrogate", folder / "model.npz"]
    refused("wanted one of vacancy, divacancy-1", "budget", *WORDS, *model, "--defect", "hole")
    refused("--surrogate", "budget", *WORDS)
    refused("--crystal is bcc", "budget", *WORDS[:3], "bcc", *model)
    refused("ends in .json", "budget", *WORDS, *model, "-o", tmp_path / "b.png")
    refused("there is no .*none.npz", "budget", *WORDS, "--surrogate", "none.npz")
    refused("radius", "budget", *WORDS[:-1], 40, *model)
