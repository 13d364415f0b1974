"""Rigidities in files: those of the library, in the units that the help states."""

import gzip
import json

import jax
import numpy as np
import pytest

from lprjax.ace import site_basis
from lprjax.atoms import (
    bcc,
    build_graph,
    build_graphs,
    make_structure,
    rattled,
    read_extxyz,
    supercell,
    write_extxyz,
)
from lprjax.commands.deviations import residual_scale
from lprjax.commands.sources import read_fit
from lprjax.models import save
from lprjax.potentials import observe_all, zhou_eam
from lprjax.regression import local_prediction_rigidity


def test_columns_are_those_of_the_library(folder, tmp_path, summary):
    found = summary(
        "rigidity", folder / "model.npz", folder / "test.xyz", "-o", tmp_path / "out.xyz"
    )
    saved, frames = read_fit(folder / "model.npz"), read_extxyz(tmp_path / "out.xyz")
    for structure, labels, info in frames:
        graph = build_graph(structure, saved.spec.r_cut)
        rows = site_basis(saved.spec, graph)[: structure.n_atoms]
        lpr = np.asarray(local_prediction_rigidity(saved.fit.factor, rows))
        np.testing.assert_allclose(info["arrays"]["lpr"], lpr, rtol=1e-8)
        deviation = residual_scale(saved.fit) / np.sqrt(lpr)
        np.testing.assert_allclose(info["arrays"]["energy_deviation"], deviation, rtol=1e-8)
        assert (info["arrays"]["force_deviation"] > 0).all() and labels.energy is not None
    whole = np.concatenate([info["arrays"]["lpr"] for _, _, info in frames])
    (tungsten,) = found["species"]
    assert tungsten["atoms"] == 48 and tungsten["least"] == pytest.approx(whole.min())
    assert (tmp_path / "out.png").exists()


def test_chemiscope_gets_the_same(folder, tmp_path, shell):
    calibration = ["--calibration", folder / "test.xyz"]
    out = tmp_path / "out.json.gz"
    code, said, _ = shell(
        "rigidity", folder / "model.npz", folder / "test.xyz", "-o", out, *calibration
    )
    assert code == 0 and "calibrated by forces" in said
    found = json.loads(gzip.decompress(out.read_bytes()))
    assert {"lpr", "energy_deviation", "force_deviation"} <= found["properties"].keys()


def test_what_has_no_rigidity_is_refused(folder, tmp_path, refused):
    model, cells = folder / "model.npz", folder / "test.xyz"
    save(tmp_path / "eam.npz", zhou_eam("W"))
    out = ["-o", tmp_path / "out.xyz"]
    refused("without its factor", "rigidity", tmp_path / "eam.npz", cells, *out)
    refused("ends in .xyz", "rigidity", model, cells, "-o", tmp_path / "out.txt")
    refused("--output", "rigidity", model, cells)
    refused("there is no", "rigidity", model, tmp_path / "none.xyz", *out)
    (tmp_path / "si.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nSi 0 0 0\n")
    refused("14|Si", "rigidity", model, tmp_path / "si.xyz", *out)


def test_energies_that_one_composition_leaves_open_are_named(tmp_path, shell):
    """Of W and Mo at 1:1 only the sum of two constants is determined, and the cells say so."""
    cube, eam = supercell(bcc("W", 3.16), (2, 2, 1)), zhou_eam("W", "Mo")
    species = np.where(np.arange(cube.n_atoms) % 2, 42, 74)
    alloy = make_structure(cube.positions, cube.cell, species)
    cells = [rattled(alloy, key, 0.05) for key in jax.random.split(jax.random.key(0), 6)]
    labels = observe_all(eam, build_graphs(cells, eam.r_cut), ("energy", "forces"))
    write_extxyz(tmp_path / "alloy.xyz", cells, labels)
    fit = "--order 1 --degree 4 --r-cut 4.5 --cutoff-power 4 --weights energy=100 forces=1".split()
    model = tmp_path / "alloy.npz"
    assert shell("fit", tmp_path / "alloy.xyz", "-o", model, *fit)[0] == 0
    where = model, tmp_path / "alloy.xyz", "-o", tmp_path / "out.xyz"
    assert "the energies of W and Mo atoms are next to undetermined" in shell("rigidity", *where)[1]
