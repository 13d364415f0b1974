"""Files for chemiscope: what its own package would have written."""

import gzip
import json

import numpy as np
import pytest
from ase import Atoms

from lprjax.atoms.chemiscope import write_chemiscope
from lprjax.atoms.structures import Labels, bcc, from_ase, make_structure, supercell, to_ase

CELL = np.array([[6.1, 0.2, 0.0], [0.3, 5.7, 0.1], [-0.2, 0.4, 6.6]])
PAIR = make_structure([[0.1, 0.2, 1 / 3], [2.0, 2.1, 2.2]], CELL, ["Si", "C"])
TRIPLE = from_ase(Atoms("Nb3", np.arange(9.0).reshape(3, 3)))
LPR = [np.array([1e-3, 7.0 / 3.0]), np.array([np.inf, 1e5, 2.0])]
FORCES = np.array([[3.0, 0.0, 4.0], [0.0, 0.0, -2.0]])
LABELS = [Labels(energy=-1 / 3, forces=FORCES), None]
ARRAYS = {"lpr": LPR, "parts": [np.ones((2, 2)), np.zeros((3, 2))]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rigidities.json.gz"
    write_chemiscope(path, [PAIR, TRIPLE], ARRAYS, LABELS, title="two", units={"parts": "eV"})
    return path


def content(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def test_numbers_are_those_given_with_their_units(path):
    found = content(path)
    properties = found["properties"]
    lpr = np.array(properties["lpr"]["values"])
    np.testing.assert_array_equal(lpr, [1e-3, 7.0 / 3.0, np.nan, 1e5, 2.0])  # no infinity in JSON
    assert properties["lpr"]["units"] == "1/eV^2" and properties["parts[2]"]["units"] == "eV"
    np.testing.assert_array_equal(properties["force"]["values"], [5.0, 2.0, *[np.nan] * 3])
    np.testing.assert_array_equal(properties["energy per atom"]["values"], [-1 / 6, np.nan])
    assert properties["element"]["values"] == ["Si", "C", "Nb", "Nb", "Nb"]
    assert found["meta"] == {"name": "two"} and "Infinity" not in json.dumps(found)
    centres = [(one["structure"], one["center"]) for one in found["environments"]]
    assert centres == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_the_first_array_is_shown_by_its_logarithm(path):
    """It is positive and spans eight decades; the second does not."""
    settings = content(path)["settings"]
    assert settings["map"]["y"] == {"property": "lpr", "scale": "log"}
    assert settings["map"]["x"] == {"property": "parts[1]", "scale": "linear"}
    assert settings["structure"][0]["color"] == {"property": "lpr", "transform": "log"}


def test_one_atom_and_one_array_have_a_map(tmp_path):
    """For which chemiscope wants two properties of atoms, and of structures."""
    write_chemiscope(tmp_path / "one.json", [bcc("W", 3.2)], {"x": [np.array([1, 2])]})
    found = json.loads((tmp_path / "one.json").read_text())
    targets = [one["target"] for one in found["properties"].values()]
    assert targets.count("atom") >= 2 and targets.count("structure") >= 2
    assert found["meta"]["name"] == "one" and found["structures"][0]["cell"][0] == 3.2


@pytest.mark.oracle
def test_the_file_is_that_of_the_package_chemiscope(path):
    chemiscope = pytest.importorskip("chemiscope")
    ours = content(path)
    atoms = [to_ase(PAIR), to_ase(TRIPLE)]
    theirs = chemiscope.create_input(
        atoms,
        metadata={"name": "two"},
        environments=chemiscope.all_atomic_environments(atoms, cutoff=4.0),
        properties={
            "lpr": {
                "target": "atom",
                "values": np.where(np.isinf(x := np.concatenate(LPR)), np.nan, x),
                "units": "1/eV^2",
            },
            "parts": {"target": "atom", "values": np.vstack(ARRAYS["parts"]), "units": "eV"},
        },
        settings=ours["settings"],
    )
    for key in ("meta", "structures", "environments"):
        assert json.dumps(ours[key]) == json.dumps(theirs[key])
    assert ours.keys() == theirs.keys()
    for name, values in theirs["properties"].items():
        assert json.dumps(ours["properties"][name]) == json.dumps(values)
    # and what is more there it takes as it is
    chemiscope.create_input(atoms, properties=ours["properties"])


@pytest.mark.parametrize(
    "name, arrays, labels, error, message",
    [
        ("a.xyz", ARRAYS, None, ValueError, "'.*a.xyz': wanted a name that ends in .json"),
        ("a.json", {}, None, ValueError, "arrays is empty"),
        ("a.json", {"lpr": LPR[:1]}, None, ValueError, "lpr has length 1: wanted 2"),
        ("a.json", {"lpr": LPR[::-1]}, None, ValueError, r"structure 0: lpr has shape \(3,\)"),
        ("a.json", {"": LPR}, None, ValueError, "name of an array is ''"),
        ("a.json", {"element": LPR}, None, ValueError, "name of an array is 'element'"),
        ("a.json", {"x": [np.ones((2, 2)), np.ones((3, 1))]}, None, ValueError, r"\[1, 2\] col"),
        ("a.json", {"x": [np.array(["a", "b"]), LPR[1]]}, None, TypeError, "floats or integers"),
        ("a.json", ARRAYS, LABELS[::-1], ValueError, "forces"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path, name, arrays, labels, error, message
):
    with pytest.raises(error, match=message):
        write_chemiscope(tmp_path / name, [PAIR, TRIPLE], arrays, labels)
    assert not any(tmp_path.iterdir())


def test_units_of_no_array_are_refused(tmp_path):
    cell = supercell(bcc("W", 3.2), (1, 1, 1))
    with pytest.raises(ValueError, match=r"units has \['lqr'\]: wanted some of \['lpr'\]"):
        write_chemiscope(tmp_path / "a.json", [cell], {"lpr": [LPR[0]]}, units={"lqr": "1"})
