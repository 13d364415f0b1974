"""Choices are those of `choose` on rows stacked by hand; the cells come out as they were."""

import json

import numpy as np
import pytest

from lprjax.ace import site_basis
from lprjax.atoms import build_graph, read_extxyz
from lprjax.commands.choose_command import _weight
from lprjax.commands.sources import read_fit
from lprjax.regression import choose, design_rows


@pytest.mark.parametrize(
    "rule, about",
    [("variance", "labels"), ("log_rigidity", "energies"), ("rigidity", "sites")],
)
def test_the_choice_is_that_of_the_library(folder, tmp_path, summary, rule, about):
    model, pool = folder / "model.npz", folder / "train.xyz"
    more = ["--count", 3, "--targets", folder / "test.xyz"]
    if about != "energies":  # what stands here is what is done without a word
        more += ["--rule", rule, "--about", about]
    found = summary("choose", model, pool, *more, "-o", tmp_path / "chosen.xyz")
    saved, frames = read_fit(model), read_extxyz(pool)

    def rows_of(structure):
        graph = build_graph(structure, saved.spec.r_cut)
        rows = design_rows(saved.spec, graph)
        energy, forces = np.asarray(rows.energy) / 16, np.asarray(rows.forces)[:16]
        weighted = np.concatenate([100.0 * energy[None], forces.reshape(48, -1)])
        return {
            "labels": weighted,
            "energies": energy[None],
            "sites": np.asarray(site_basis(saved.spec, graph))[:16],
        }

    candidates = [rows_of(structure)["labels"] for structure, _, _ in frames]
    targets = [rows_of(structure)[about] for structure, _, _ in read_extxyz(folder / "test.xyz")]
    wanted = choose(saved.fit.factor, candidates, np.concatenate(targets), 3, rule=rule)
    assert found["chosen"] == wanted.order.tolist()
    assert (
        found["targets"] == {"labels": 147, "energies": 3, "sites": 48}[about]
        and found["rule"] == rule
    )
    widths = [[step["r.m.s. width"], step["largest"]] for step in found["steps"]]
    variances = 1.0 / wanted.rigidity
    both = np.sqrt([variances.mean(axis=1), variances.max(axis=1)]).T
    np.testing.assert_allclose(widths, both, rtol=1e-6)
    for (structure, labels, info), place in zip(
        read_extxyz(tmp_path / "chosen.xyz"), found["chosen"], strict=True
    ):
        there = frames[place]
        assert info["config_type"] == there[2]["config_type"]
        np.testing.assert_array_equal(structure.positions, there[0].positions)
        np.testing.assert_array_equal(labels.forces, there[1].forces)
    assert (tmp_path / "chosen.png").exists()


def test_few_targets_are_spread_and_random_has_a_seed(folder, summary):
    words = ["choose", folder / "model.npz", folder / "train.xyz", "--count", 4]
    words += ["--most-targets", 10, "--kinds", "energy", "--rule", "random"]
    first, same = (summary(*words, "--seed", 1)["chosen"] for _ in range(2))
    other = [summary(*words, "--seed", seed)["chosen"] for seed in (2, 3, 4)]
    assert first == same and any(first != chosen for chosen in other)
    # energies of every second of ten cells, every 23rd of their 160 atoms, whatever cell it is in
    words[words.index("--most-targets") + 1] = 7
    assert summary(*words, "--about", "energies")["targets"] == 5
    assert summary(*words, "--about", "sites")["targets"] == 7


def test_energies_of_targets_have_the_unit_of_the_fit(folder, summary):
    """Of n atoms: per atom, or with --per-cell whole, whose width is n times larger."""
    words = ["choose", folder / "model.npz", folder / "train.xyz", "--count", 1]
    words += ["--about", "energies"]
    per_atom, whole = (summary(*words, *more)["steps"][0] for more in ([], ["--per-cell"]))
    assert whole["largest"] == pytest.approx(16 * per_atom["largest"], rel=1e-9)
    assert whole["r.m.s. width"] == pytest.approx(16 * per_atom["r.m.s. width"], rel=1e-9)


def test_a_cell_has_the_weight_of_its_group():
    weights = {("energy", "a"): 1.0, ("energy", "b"): 3.0, ("energy", "c"): 9.0, "forces": 2.0}
    assert [_weight(weights, "energy", group) for group in "abc?"] == [1.0, 3.0, 9.0, 3.0]
    assert _weight(weights, "forces", "a") == 2.0
    with pytest.raises(ValueError, match="--kinds has 'virial'"):
        _weight(weights, "virial", "a")


def test_chemiscope_shows_what_the_choice_brings(folder, tmp_path, summary):
    out = tmp_path / "chosen.json"
    summary("choose", folder / "model.npz", folder / "train.xyz", "--count", 2, "-o", out)
    found = json.loads(out.read_text())["properties"]
    now, then = (np.array(found[name]["values"]) for name in ("lpr", "lpr_then"))
    assert len(now) == 32 and (then > now).all()


def test_what_cannot_be_chosen_is_refused(folder, tmp_path, refused, monkeypatch):
    words = ["choose", folder / "model.npz", folder / "train.xyz"]
    refused("count is 11: wanted a whole number from 1 to", *words, "--count", 11)
    refused("--count", *words)
    refused("Invalid choice", *words, "--count", 2, "--rule", "best")
    refused("ends in .xyz", *words, "--count", 2, "-o", tmp_path / "out.csv")
    refused("there is no", *words, "--count", 2, "--targets", tmp_path / "no.xyz")
    monkeypatch.setattr("lprjax.commands.choose_command.MOST_BYTES", 1e3)
    refused("--kinds energy, or split it", *words, "--count", 2)
