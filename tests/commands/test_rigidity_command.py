"""Rigidities in files: those of the library, in the units that the help states."""

import gzip
import json

import numpy as np
import pytest

from lprjax.ace import site_basis
from lprjax.atoms import build_graph, read_extxyz
from lprjax.commands.deviations import residual_scale
from lprjax.commands.sources import read_fit
from lprjax.models import save
from lprjax.potentials import zhou_eam
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
