"""Formation energies are those of relaxations by hand."""

import json

import numpy as np
import pytest

from lprjax.atoms import bcc, read_extxyz
from lprjax.crystals import equilibrium
from lprjax.defects import formation_energy, relax_defect, vacancy
from lprjax.potentials import zhou_eam

WORDS = ["--crystal", "bcc", "W", "--cells", 3, "--defects", "vacancy"]


def test_the_vacancy_is_that_of_the_library(tmp_path, summary):
    found = summary("defects", "zhou", *WORDS, "-o", tmp_path / "w.json")
    eam, host = zhou_eam("W"), bcc("W", 3.165, primitive=True)
    ground = equilibrium(eam, host)
    a = 3.165 * ground.scale
    assert found["lattice_constants"]["zhou"] == pytest.approx(a, rel=1e-9)
    defect = vacancy(bcc("W", a), 3)
    relaxed = relax_defect(eam, defect, force_tolerance=1e-5)
    wanted = float(formation_energy(relaxed.energy, defect, ground.energy_per_atom))
    (row,) = found["defects"]
    assert row["E_f eV"] == pytest.approx(wanted, abs=1e-6)  # second order in forces of 1e-5
    assert row["not relaxed"] > row["E_f eV"] and row["message"] == "converged"
    assert json.loads((tmp_path / "w.json").read_text())["defects"] == found["defects"]


def test_relaxed_cells_are_written_for_each_potential(folder, tmp_path, shell):
    code, out, _ = shell(
        "defects", "zhou", folder / "model.npz", *WORDS, "-o", tmp_path / "relaxed.xyz"
    )
    assert code == 0 and len([line for line in out.splitlines() if "vacancy" in line]) == 2
    frames = read_extxyz(tmp_path / "relaxed.xyz")
    assert [s.n_atoms for s, _, _ in frames] == [53, 53]
    assert all(np.abs(labels.forces).max() < 1e-5 for _, labels, _ in frames)


def test_what_does_not_relax_ends_with_one(refused):
    refused("vacancy by zhou: ", "defects", "zhou", *WORDS, "--force-tolerance", 1e-30, code=1)


def test_what_is_no_defect_or_crystal_is_refused(tmp_path, refused):
    refused("wanted one of vacancy, divacancy-1", "defects", "zhou", *WORDS[:-1], "hole")
    refused("--crystal is not given", "defects", "zhou")
    refused("no potential is named", "defects", *WORDS)
    refused("ends in .json or", "defects", "zhou", *WORDS, "-o", tmp_path / "w.txt")
    refused("zhou_eam has no parameters for", "defects", "zhou", "--crystal", "bcc", "Nb")
    refused("near a = 9.000", "defects", "zhou", *WORDS, "--lattice-constant", 9, code=1)
