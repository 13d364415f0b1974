"""What this installation is, and what a model file holds."""

from lprjax.models import load, save
from lprjax.potentials import zhou_eam
from lprjax.version import __version__


def test_an_installation_says_its_versions(summary, shell):
    found = summary("info")
    assert found["lprjax"] == __version__ and {"jax", "numpy"} <= found["versions"].keys()
    assert found["float64"] is True
    assert f"lprjax: {__version__}" in shell("info")[1]


def test_a_model_says_what_it_was_fitted_to(folder, summary):
    found, saved = summary("info", folder / "model.npz"), load(folder / "model.npz")
    assert found["rank"] == saved.fit.rank and found["basis"]["r_cut"] == saved.spec.r_cut
    assert found["weights"]["forces of rattled"] == 1.0
    assert found["observations"]["virial of strained"] == 6 * 4
    assert "train.xyz: 10 of 10 frames" in found["fitted to"]
    assert found["rms residuals"]["energy of rattled"] == saved.fit.rms["energy", "rattled"]


def test_so_does_a_potential(tmp_path, summary):
    save(tmp_path / "w.npz", zhou_eam("W"))
    found = summary("info", tmp_path / "w.npz")
    assert found["holds"] == "ZhouEAM" and float(found["r_cut"]) == zhou_eam("W").r_cut


def test_what_is_no_model_is_refused(tmp_path, refused):
    refused("there is no .*nothing.npz", "info", tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("no archive")
    refused("text.npz is no file of lprjax", "info", tmp_path / "text.npz")
