"""Fits from the shell are those of the library; their errors are those of the potential saved."""

import re

import numpy as np
import pytest

from lprjax.ace import ACESpec, smoothness_prior
from lprjax.atoms import build_graph, read_extxyz, read_training_set
from lprjax.commands import main
from lprjax.models import load
from lprjax.potentials import observe
from lprjax.regression import (
    baseline_energies,
    compress_folds,
    compress_groups,
    fit,
    validation_front,
)

BASIS = "--order 2 --degree 5 --r-cut 4.5 --cutoff-power 4".split()
WEIGHTS = "--weights energy=100 forces=1 virial=10".split()


def by_hand(path, r0, weights):
    data = read_training_set(path)
    energies = baseline_energies(data)
    spec = ACESpec(("W",), 2, 5, 4.5, r0, constant=True)
    factors = compress_groups(spec, data, reference_energies=energies)
    return fit(factors, weights, ridge=1e-8, prior=smoothness_prior(spec, 2.0))


def test_a_fit_is_that_of_the_library(folder):
    saved = load(folder / "model.npz")
    weights = {"energy": 100.0, "forces": 1.0, "virial": 10.0}
    wanted = by_hand(folder / "train.xyz", saved.spec.r0, weights)
    np.testing.assert_allclose(saved.fit.coefficients, wanted.coefficients, rtol=1e-9)
    assert saved.spec.constant and 2.5 < saved.spec.r0 < 2.75
    assert saved.fit.rank == saved.spec.n_columns
    assert (folder / "model.png").exists()


def test_errors_are_those_of_the_file_that_was_written(folder, tmp_path, summary):
    """Of test cells, from the potential as it is loaded again."""
    words = ["fit", folder / "train.xyz", "--test", folder / "test.xyz", *BASIS, *WEIGHTS]
    found = summary(*words, "-o", tmp_path / "m.npz")
    potential = load(tmp_path / "m.npz").potential()
    wrong = []
    for structure, labels, _ in read_extxyz(folder / "test.xyz"):
        ours = observe(potential, build_graph(structure, potential.r_cut))
        wrong.append(np.asarray(ours.forces)[: structure.n_atoms] - labels.forces)
    rmse = np.sqrt(np.mean(np.square(np.concatenate(wrong))))
    (row,) = (
        e
        for e in found["errors"]
        if (e["set"], e["kind"], e["config_type"]) == ("test", "forces", "all")
    )
    assert row["RMSE"] == pytest.approx(rmse, rel=1e-8) and row["cells"] == 3
    assert found["rank"] == found["functions"] and found["choice"] is None


def test_weights_of_groups_come_from_a_file(folder, tmp_path, summary):
    table = tmp_path / "weights.toml"
    table.write_text("energy = 100\nforces = 1\nvirial = 10\n[groups.strained]\nvirial = 30\n")
    found = summary(
        "fit", folder / "train.xyz", "-o", tmp_path / "m.npz", *BASIS, "--weights", table
    )
    assert found["weights"]["virial of strained"] == 30.0
    assert found["weights"]["virial of rattled"] == 10.0
    weights = {"energy": 100.0, "forces": 1.0, "virial": 10.0, ("virial", "strained"): 30.0}
    wanted = by_hand(folder / "train.xyz", found["r0"], weights)
    coefficients = load(tmp_path / "m.npz").fit.coefficients
    np.testing.assert_allclose(coefficients, wanted.coefficients, rtol=1e-9)


def test_without_weights_the_choice_is_that_of_the_front(folder, tmp_path, shell):
    """Between two cutoffs and two ridges; what is shown is the front."""
    words = "--order 2 --degree 4 --r-cut 4.6 4.2 --cutoff-power 3 --folds 3".split()
    words += "--ridge 1e-8 1e-4 --smoothness 2 --choice forces".split()
    path = tmp_path / "m.npz"
    code, out, _ = shell("fit", folder / "train.xyz", "-o", path, *words)
    assert code == 0 and "held-out errors, 3 folds" in out and "balanced" in out
    saved, data = load(path), read_training_set(folder / "train.xyz")
    energies = baseline_energies(data)
    specs = [
        ACESpec(("W",), 2, 4, r_cut, saved.spec.r0, cutoff_power=3, constant=True)
        for r_cut in (4.6, 4.2)
    ]
    parts = {s: compress_folds(s, data, 3, reference_energies=energies) for s in specs}
    front = validation_front(parts.items(), ridges=(1e-8, 1e-4), powers=(2.0,))
    best = front.chosen("forces")
    assert (saved.spec, saved.fit.ridge) == (best.spec, best.ridge)
    np.testing.assert_allclose(
        saved.fit.coefficients, best.fit(parts[best.spec]).coefficients, rtol=1e-6
    )


def test_weights_of_cells_and_of_kinds_that_there_are_not(folder, tmp_path, shell):
    """Per cell of 16 atoms, a weight of an energy in 1/eV is a 16th of that in atom/eV."""
    words = ["fit", folder / "train.xyz", *BASIS, "--weights"]
    files = [tmp_path / "atom.npz", tmp_path / "cell.npz"]
    assert shell(*words, "energy=80", "forces=1", "virial=16", "-o", files[0])[0] == 0
    assert shell(*words, "energy=5", "forces=1", "virial=1", "-o", files[1], "--per-cell")[0] == 0
    first, second = (load(file) for file in files)
    assert "virials per cell" in second.data
    np.testing.assert_allclose(first.fit.factor, second.fit.factor, rtol=1e-6, atol=1e-6)
    bare = tmp_path / "bare.xyz"
    text = (folder / "train.xyz").read_text()
    bare.write_text(re.sub(r' stress="[^"]*"', "", text))
    words[1] = bare
    code, out, _ = shell(*words, "energy=1", "forces=1", "virial=1", "-o", files[0])
    assert code == 0 and "no label of virial: no weight for it" in out
    assert set(load(files[0]).fit.weights) == {
        (kind, group) for kind in ("energy", "forces") for group in ("rattled", "strained")
    }


def test_isolated_atoms_are_reference_energies(folder, tmp_path):
    """They take the constant's place, and come back with the potential."""
    alone = tmp_path / "alone.xyz"
    alone.write_text("1\nProperties=species:S:1:pos:R:3 energy=-1.5\nW 0 0 0\n")
    path = tmp_path / "m.npz"
    words = [str(w) for w in ("fit", folder / "train.xyz", alone, "-o", path, *BASIS, *WEIGHTS)]
    assert main(words) == 0
    saved = load(path)
    assert not saved.spec.constant and saved.reference_energies == {"W": -1.5}


def test_what_cannot_be_fitted_is_refused(folder, tmp_path, refused):
    train, out = folder / "train.xyz", ["-o", tmp_path / "m.npz"]
    refused("no training set is named", "fit", *out)
    refused("there is no .*none.xyz", "fit", tmp_path / "none.xyz", *out)
    refused("--output", "fit", train)
    refused("ends in .npz", "fit", train, "-o", tmp_path / "m.txt")
    refused("a folder that there is", "fit", train, "-o", tmp_path / "no/m.npz")
    refused("--weights is energy=x", "fit", train, *out, *BASIS, "--weights", "energy=x")
    words = [*BASIS, "--weights", "energy=1"]
    refused("none for forces and virial, .*e.g. forces=1", "fit", train, *out, *words)
    refused("'colour' has a weight", "fit", train, *out, *BASIS, "--weights", "colour=1")
    refused("there is no weights.toml", "fit", train, *out, *BASIS, "--weights", "weights.toml")
    refused("--core is", "fit", train, *out, "--core", 1.5)
    refused("r_cut is 2.0", "fit", train, *out, *WEIGHTS, "--r-cut", 2)
    refused("folds is 1", "fit", train, *out, *BASIS, "--folds", 1)
    refused("keys has .*E9", "fit", train, *out, *BASIS, "--keys", "energy=E9")
    assert not list(tmp_path.glob("m.*"))
