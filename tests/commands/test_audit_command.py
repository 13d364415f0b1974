"""Audits from the shell are those of the library, whoever is asked."""

import json

import numpy as np
import pytest

from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, bcc
from lprjax.commands.sources import read_potential
from lprjax.defects import audit, vacancy
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe

WORDS = ["--crystal", "bcc", "W", "--cells", 3, "--radius", 4]
FIXED = [*WORDS, "--lattice-constant", 3.165]


def test_asked_here_or_elsewhere_it_is_that_of_the_library(folder, tmp_path, shell):
    model, tungsten = str(folder / "model.npz"), zhou_eam("W")
    ask, answer = tmp_path / "ask.xyz", tmp_path / "answer.xyz"
    code, said, _ = shell("audit", *FIXED, "--surrogate", model, "--ask", ask, "--json")
    assert code == 0 and json.loads(said)["calls"] == 0
    cells = [frame[0] for frame in read_extxyz(ask, labelled=False)]
    told = [observe(tungsten, build_graph(c, tungsten.r_cut), ("energy", "forces")) for c in cells]
    labels = [
        Labels(t.energy, np.asarray(t.forces)[: c.n_atoms])
        for t, c in zip(told, cells, strict=True)
    ]
    write_extxyz(answer, cells, labels)
    out = tmp_path / "audit.json"
    code, said, aside = shell(
        "audit", *FIXED, "--surrogate", model, "--answer", answer, "-o", out, "--json"
    )
    found = json.loads(said)
    defect = vacancy(bcc("W", 3.165), 3)
    wanted = audit(read_potential(model), defect, tungsten, radius=4.0)
    assert found["geometry"] == pytest.approx(wanted.geometry, rel=1e-6)
    assert found["energy"] == pytest.approx(wanted.energy, abs=1e-8)
    assert found["verdict"] == wanted.verdict and wanted.verdict.upper() in aside
    assert code == (0 if wanted.verdict == "trust" else 1)
    assert [t["name"] for t in found["terms"]] == [t.name for t in wanted.terms]
    assert json.loads(out.read_text())["geometry_range"] == found["geometry_range"]
    reached = ["--acceptable-geometry", 100, "--acceptable-energy", 100, "--calls", 2]
    here = [*WORDS, "--surrogate", model, "--reference", "zhou", *reached, "--json"]
    code, said, _ = shell("audit", *here)
    assert json.loads(said)["verdict"] == "trust" and code == 0


def test_what_cannot_be_audited_is_refused(folder, tmp_path, refused):
    model = ["--surrogate", folder / "model.npz"]
    ask = ["--ask", tmp_path / "a.xyz"]
    refused("wanted it, in Å, without a reference", "audit", *WORDS, *model, *ask)
    wrong = ["--crystal", "bcc", "Xx", "--lattice-constant", 3.2]
    refused("--crystal is bcc Xx", "audit", *wrong, *model, *ask)
    refused("there is no --reference, --ask or --answer", "audit", *FIXED, *model)
    both = ["--reference", "zhou", "--answer", tmp_path / "a.xyz"]
    refused("there are --reference and --answer", "audit", *FIXED, *model, *both)
    refused("ends in .json", "audit", *FIXED, *model, "--reference", "zhou", "-o", "a.png")
    refused(
        "wanted one of vacancy", "audit", *WORDS, *model, "--reference", "zhou", "--defect", "x"
    )
