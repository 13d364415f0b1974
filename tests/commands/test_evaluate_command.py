"""Predictions as labels, and errors that are zero where the labels are the potential's own."""

import numpy as np

from lprjax.atoms import read_extxyz


def test_a_reference_makes_no_errors_on_its_own_labels(folder, summary):
    """Files have 17 digits."""
    found = summary("evaluate", "zhou", folder / "test.xyz")
    assert {e["config_type"] for e in found["errors"]} == {"rattled", "strained", "all"}
    assert {e["kind"] for e in found["errors"]} == {"energy", "forces", "virial"}
    assert max(e["RMSE"] for e in found["errors"]) < 1e-9


def test_predictions_are_labels_of_the_cells(folder, tmp_path, shell, summary):
    code, out, _ = shell(
        "evaluate", folder / "model.npz", folder / "test.xyz", "-o", tmp_path / "ours.xyz"
    )
    assert code == 0 and "ours.png" in out and (tmp_path / "ours.png").exists()
    again = summary("evaluate", folder / "model.npz", tmp_path / "ours.xyz")
    assert max(e["RMSE"] for e in again["errors"]) < 1e-9
    assert all(labels.virial is not None for _, labels, _ in read_extxyz(tmp_path / "ours.xyz"))


def test_errors_are_of_predictions_less_labels(folder, tmp_path, summary):
    """A file whose energies are 0.16 eV too high: 10 meV for each of 16 atoms."""
    lines = (folder / "test.xyz").read_text().split(" energy=")
    for k in range(1, len(lines)):
        number, _, rest = lines[k].partition(" ")
        lines[k] = f"{float(number) + 0.16:.17g} {rest}"
    (tmp_path / "high.xyz").write_text(" energy=".join(lines))
    found = summary("evaluate", "zhou", tmp_path / "high.xyz")
    (whole,) = (e for e in found["errors"] if (e["kind"], e["config_type"]) == ("energy", "all"))
    np.testing.assert_allclose([whole["RMSE"], whole["MAE"]], 10.0, rtol=1e-9)


def test_cells_without_labels_are_predicted(folder, tmp_path, shell):
    (tmp_path / "one.xyz").write_text(
        '2\nLattice="3.2 0 0 0 3.2 0 0 0 3.2" Properties=species:S:1:pos:R:3\n'
        "W 0 0 0\nW 1.6 1.6 1.6\n"
    )
    code, out, _ = shell(
        "evaluate", folder / "model.npz", tmp_path / "one.xyz", "-o", tmp_path / "out.xyz.gz"
    )
    assert code == 0 and "has no labels" in out and not (tmp_path / "out.png").exists()
    assert len(read_extxyz(tmp_path / "out.xyz.gz")) == 1


def test_what_cannot_be_evaluated_is_refused(folder, tmp_path, refused):
    model, cells = folder / "model.npz", folder / "test.xyz"
    refused("there is no .*no.xyz", "evaluate", model, tmp_path / "no.xyz")
    refused("wanted a file that there is, one of zhou", "evaluate", "nothing.eam", cells)
    refused("structure 0", "evaluate", "stillinger-weber", cells)
    refused("ends in .xyz", "evaluate", model, cells, "-o", tmp_path / "out.csv")
    refused("--keys has 'energy'", "evaluate", model, cells, "--keys", "energy")
    (tmp_path / "cut.xyz").write_text(cells.read_text()[:900])
    refused("cut.xyz, frame 0: .*cut short", "evaluate", model, tmp_path / "cut.xyz")
