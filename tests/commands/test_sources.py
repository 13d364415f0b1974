"""What the subcommands read: potentials of every kind by name, cells of every format."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from lprjax.atoms import bcc, read_extxyz
from lprjax.commands.sources import (
    copy_cells,
    elements_of,
    read_cells,
    read_fit,
    read_potential,
)
from lprjax.models import load, save
from lprjax.potentials import tersoff, zhou_eam


def test_a_potential_is_found_by_any_of_its_names(folder, tmp_path):
    save(tmp_path / "w.npz", zhou_eam("W"))
    assert read_potential(str(tmp_path / "w.npz")) == zhou_eam("W")
    assert read_potential("tersoff") == tersoff()
    (tmp_path / "w.toml").write_text(
        'element = "W"\ncrystal = "bcc"\nlattice_constant = 3.2\nreference = "zhou"\n'
    )
    assert read_potential(str(tmp_path / "w.toml")) == zhou_eam("W")
    fitted = read_potential(str(folder / "model.npz"))
    saved = load(folder / "model.npz")
    np.testing.assert_array_equal(fitted.coefficients, saved.fit.coefficients)
    assert read_fit(folder / "model.npz").spec == saved.spec
    with pytest.raises(ValueError, match="w.npz holds a ZhouEAM without its factor"):
        read_fit(tmp_path / "w.npz")


def test_cells_come_from_what_ase_reads_too(folder, tmp_path):
    frames = read_cells(folder / "test.xyz")
    assert len(frames) == 3 and frames[2][2]["config_type"] == "strained"
    ase.io.write(tmp_path / "POSCAR", bulk("W", cubic=True))
    ((structure, labels, _),) = read_cells(tmp_path / "POSCAR")
    assert structure.n_atoms == 2 and all(value is None for value in labels)
    assert elements_of([structure, bcc("Mo", 3.1)]) == ["Mo", "W"]
    (tmp_path / "POSCAR").write_text("nothing\n")
    with pytest.raises(ValueError, match="POSCAR cannot be read by ASE"):
        read_cells(tmp_path / "POSCAR")
    with pytest.raises(FileNotFoundError):
        read_cells(tmp_path / "a.cif")


def test_cells_are_copied_with_all_that_they_had(folder, tmp_path):
    frames = read_cells(folder / "test.xyz")
    copy_cells(folder / "test.xyz", frames, [2, 0], tmp_path / "some.xyz")
    found = read_extxyz(tmp_path / "some.xyz")
    assert [info["config_type"] for _, _, info in found] == ["strained", "rattled"]
    for (structure, labels, _), place in zip(found, (2, 0), strict=True):
        np.testing.assert_array_equal(structure.positions, frames[place][0].positions)
        np.testing.assert_array_equal(labels.forces, frames[place][1].forces)
    ase.io.write(tmp_path / "POSCAR", bulk("W", cubic=True))
    copy_cells(tmp_path / "POSCAR", read_cells(tmp_path / "POSCAR"), [0], tmp_path / "one.xyz")
    assert len(read_extxyz(tmp_path / "one.xyz", labelled=False)) == 1


def test_calculators_keep_their_results_where_they_are_told(tmp_path):
    """In a folder of their own, or nowhere."""
    name = "ase:ase.calculators.emt:EMT"
    kept = read_potential(name, ["Cu"], str(tmp_path / "calls"))
    assert kept.calculator.folder.parent == tmp_path / "calls"
    assert not hasattr(read_potential(name, ["Cu"]).calculator, "folder")
