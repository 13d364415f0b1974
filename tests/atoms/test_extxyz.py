"""Extended XYZ: what is written comes back, through `read_extxyz` and through ASE alone."""

import ase.io
import numpy as np
import pytest

from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.structures import Labels, make_structure

RNG = np.random.default_rng(0)
CELL = np.array([[6.1, 0.2, 0.0], [0.3, 5.7, 0.1], [-0.2, 0.4, 6.6]])
PAIR = make_structure([[0.1, 0.2, 1 / 3], [2.0, 2.1, 2.2]], CELL, ["Si", "C"])
TRIPLE = make_structure(RNG.normal(size=(3, 3)) * 2, CELL, "Nb", pbc=(True, False, True))
LABELS = Labels(
    energy=-1 / 3, forces=RNG.normal(size=(2, 3)), virial=(v := RNG.normal(size=(3, 3))) + v.T
)
# What rigidities are: from nothing at all to what cannot be moved.
LPR = [np.array([0.0, 1.2345678901234567e-11]), np.array([np.inf, 7.0 / 3.0e8, 4.2e12])]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "atoms.xyz"
    arrays = {"lpr": LPR, "coordination": [np.array([3, 4]), np.array([4, 5, 4])]}
    arrays["parts"] = [np.ones((2, 2)), np.zeros((3, 2))]
    write_extxyz(path, [PAIR, TRIPLE], [LABELS, None], arrays)
    return path


def test_structures_and_labels_come_back_exactly(path):
    (first, labels, _), (second, none, _) = read_extxyz(path, labelled=False)
    for found, wanted in ((first, PAIR), (second, TRIPLE)):
        assert found.pbc == wanted.pbc
        for name in ("positions", "cell", "species"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert labels.energy == LABELS.energy
    np.testing.assert_array_equal(labels.forces, LABELS.forces)
    # Through the stress: a division by the volume and a multiplication.
    np.testing.assert_allclose(labels.virial, LABELS.virial, rtol=1e-14)
    assert all(value is None for value in none)


def test_ase_reads_every_number_of_every_atom(path):
    frames = ase.io.read(path, index=":")
    for atoms, lpr in zip(frames, LPR, strict=True):
        np.testing.assert_array_equal(atoms.arrays["lpr"], lpr)
    np.testing.assert_array_equal(frames[1].arrays["coordination"], [4, 5, 4])
    assert frames[1].arrays["coordination"].dtype.kind == "i"
    assert frames[0].arrays["parts"].shape == (2, 2)
    assert frames[0].get_potential_energy() == LABELS.energy


def test_header_is_what_other_readers_expect(path):
    """OVITO goes by the key Properties, with species and pos first, one token per number."""
    lines = path.read_text().splitlines()
    columns = "species:S:1:pos:R:3:forces:R:3:lpr:R:1:coordination:I:1:parts:R:2"
    assert f"Properties={columns}" in lines[1] and 'pbc="T T T"' in lines[1]
    assert [len(line.split()) for line in lines[2:4]] == [11, 11]
    assert lines[6].split()[4] == "inf"


def test_structures_alone(tmp_path):
    write_extxyz(tmp_path / "a.xyz", [PAIR])
    assert ase.io.read(tmp_path / "a.xyz").calc is None


@pytest.mark.parametrize(
    "labels, arrays, error, message",
    [
        ([LABELS], None, ValueError, "labels has length 1: wanted 2, one per structure"),
        (None, {"lpr": LPR[:1]}, ValueError, "lpr has length 1: wanted 2, one per structure"),
        (None, {"lpr": [np.ones(4), LPR[1]]}, ValueError, r"structure 0: lpr has shape \(4,\)"),
        (None, {"lpr": [LPR[0], np.array([1.0, np.nan, 1.0])]}, ValueError, "NaN at atom 1"),
        (None, {"pos": LPR}, ValueError, "'pos'"),
        (None, {"log lpr": LPR}, ValueError, "'log lpr'"),
        (None, {"lpr": [np.array(["a", "b"]), LPR[1]]}, TypeError, "floats or integers"),
        ([None, LABELS], None, ValueError, "structure 1: forces"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path, labels, arrays, error, message
):
    with pytest.raises(error, match=message):
        write_extxyz(tmp_path / "a.xyz", [PAIR, TRIPLE], labels, arrays)
    assert not (tmp_path / "a.xyz").exists()
