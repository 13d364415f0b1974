"""A training set holds what each frame has, knows its groups, and says what it took and left."""

import gzip
import warnings

import numpy as np
import pytest

from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.structures import Labels, make_structure
from lprjax.atoms.training_sets import read_training_set

BOX = 'Lattice="4 0 0 0 5 0 0 0 6"'
TWO = "Properties=species:S:1:pos:R:3"
FORCED = TWO + ":REF_forces:R:3"
ATOMS = "Si 0 0 0\nC 2 2 0\n"
MOVED = "Si 0 0 0 .1 .2 .3\nC 2 2 0 -.1 -.2 -.3\n"
FRAMES = {  # what people have in one file
    "energy and forces": f"2\n{BOX} {FORCED} REF_energy=-8 config_type=bulk\n{MOVED}",
    "energy alone": f"2\n{BOX} {TWO} REF_energy=-7 config_type=line\n{ATOMS}",
    "a stress of six": f'2\n{BOX} {TWO} stress="1 2 3 4 5 6" config_type=bulk\n{ATOMS}',
    "a molecule": f"2\n{FORCED} REF_energy=-9\n{MOVED}",
    "no labels": f"2\n{BOX} {TWO} note=1 config_type=bulk\n{ATOMS}",
    "isolated by name": f"1\n{BOX} {TWO} REF_energy=-3.5 config_type=IsolatedAtom\nSi 0 0 0\n",
    "isolated by its periods": f"1\n{TWO} free_energy=-2.25 MACE_energy=1\nC 0 0 0\n",
    "one atom of a crystal": f"1\n{BOX} {TWO} REF_energy=-4 config_type=bulk\nSi 0 0 0\n",
}


def file_of(folder, *frames, name="a.xyz"):
    (folder / name).write_text("".join(frames))
    return folder / name


@pytest.fixture
def whole(tmp_path):
    path = file_of(tmp_path, *FRAMES.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is left out is in the report
        return read_training_set(path)


def test_each_structure_has_the_labels_and_the_group_of_its_frame(whole):
    assert whole.groups == ["bulk", "line", "bulk", "default", "bulk"]
    has = [[y is not None for y in labels[:3]] for labels in whole.labels]
    assert has == [[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]
    assert [labels.energy for labels in whole.labels] == [-8, -7, None, -9, -4]
    np.testing.assert_array_equal(whole.labels[0].forces, [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    # W = -V * stress, xx yy zz yz xz xy, V = 120 Å^3
    virial = -120.0 * np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_allclose(whole.labels[2].virial, virial, rtol=1e-14)
    assert [any(s.pbc) for s in whole.structures] == [True, True, True, False, True]
    assert whole.elements == ("C", "Si")


def test_isolated_atoms_are_reference_energies_and_no_structures(whole):
    assert whole.reference_energies == {"Si": -3.5, "C": -2.25}
    assert [s.n_atoms for s in whole.structures] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("name", ["isolated_atom", "Isolated Atom", "ISOLATED-ATOM"])
def test_the_names_of_isolated_atoms(tmp_path, name):
    frame = f'1\n{BOX} {TWO} energy=-1 config_type="{name}"\nSi 0 0 0\n'
    data = read_training_set(file_of(tmp_path, frame, FRAMES["energy alone"]))
    assert data.reference_energies == {"Si": -1.0} and len(data.structures) == 1
    # An atom of a wire is none, nor are two atoms, whatever they are called.
    wire = f'1\nLattice="3 0 0 0 0 0 0 0 0" pbc="T F F" {TWO} energy=-1\nSi 0 0 0\n'
    assert read_training_set(file_of(tmp_path, wire)).groups == ["default"]
    two = FRAMES["energy alone"].replace("=line", f'="{name}"')
    assert read_training_set(file_of(tmp_path, two)).groups == [name]


def test_one_line_for_each_file_says_what_was_taken_and_left(whole, tmp_path):
    (line,) = whole.reports
    assert str(whole) == line and "\n" not in line
    assert repr(whole) == "TrainingSet of 5 structures (bulk 3, line 1, default 1)"
    assert "a.xyz: 5 of 8 frames by config_type (bulk 3, line 1, default 1)" in line
    for taken in (
        "energy from REF_energy (5)",
        "energy from free_energy (1)",
        "forces from REF_forces (2)",
        "virial from stress (1)",
        "isolated atoms: Si -3.5 eV, C -2.25 eV",
        "left out: 1 frame without labels, MACE_energy",
    ):
        assert taken in line
    plain = read_training_set(file_of(tmp_path, FRAMES["energy alone"]))
    assert plain.reports[0].endswith("left out: nothing")


def test_several_files_packed_or_not_are_one_set(tmp_path):
    first = file_of(tmp_path, FRAMES["energy alone"])
    with gzip.open(tmp_path / "b.xyz.gz", "wt") as file:
        file.write(FRAMES["energy and forces"].replace("REF_energy", "E0"))
    data = read_training_set([first, tmp_path / "b.xyz.gz"])
    assert data.groups == ["line", "bulk"] and len(data.reports) == 2
    assert data.labels[1].energy is None  # and its report says so
    assert data.reports[1].startswith("b.xyz.gz: 1 of 1 frames")
    named = {"energy": "E0"}  # only one of the files has it
    named = read_training_set([first, tmp_path / "b.xyz.gz"], keys=named)
    assert [labels.energy for labels in named.labels] == [-8.0]  # the first has no other label
    with pytest.raises(
        ValueError, match=r"keys has \['E1'\]: wanted names that .*a\.xyz, .*b\.xyz"
    ):
        read_training_set([first, tmp_path / "b.xyz.gz"], keys={"energy": "E1"})


def test_groups_by_any_entry(tmp_path):
    frames = [FRAMES["energy alone"].replace("config_type=", f"run={k} kind=") for k in (1, 2, 1)]
    path = file_of(tmp_path, *frames, FRAMES["energy and forces"])
    assert read_training_set(path, group_by="run").groups == ["1", "2", "1", "default"]
    assert read_training_set(path, group_by=None).groups == ["default"] * 4
    with pytest.raises(ValueError, match=r"group_by is 'label': wanted an entry that .*'run'"):
        read_training_set(path, group_by="label")


def test_parts_keep_order_and_references(whole):
    part = whole.part([3, 0])
    assert part.groups == ["default", "bulk"] and [y.energy for y in part.labels] == [-9, -8]
    assert part.structures[1] is whole.structures[0]
    assert part.reference_energies == whole.reference_energies


@pytest.mark.parametrize(
    "frames, message",
    [
        (
            [FRAMES["isolated by name"], FRAMES["isolated by name"].replace("-3.5", "-3.6")],
            r"a\.xyz, frame 1: energy of the isolated atom Si is -3.6 eV, and -3.5 eV before",
        ),
        ([FRAMES["no labels"]], r"no structure of .*a\.xyz is labelled: wanted energy.*'note'"),
        ([FRAMES["energy alone"], "1\n" + BOX], r"a\.xyz, frame 1: number of atoms is 1: wanted 0"),
    ],
)
def test_what_makes_no_set_is_refused(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        read_training_set(file_of(tmp_path, *frames))


def test_no_files_make_no_set():
    with pytest.raises(ValueError, match="paths is empty"):
        read_training_set([])


def test_what_the_library_writes_is_a_training_set(tmp_path):
    """The same structures and labels as `read_extxyz` finds."""
    pair = make_structure([[0.0, 0.0, 0.0], [2.0, 2.1, 2.2]], np.diag([6.0, 5.0, 7.0]), "Si")
    labels = Labels(energy=-1e5 / 3, forces=np.ones((2, 3)) / 3)
    write_extxyz(tmp_path / "a.xyz", [pair], [labels])
    data = read_training_set(tmp_path / "a.xyz")
    ((structure, found, _),) = read_extxyz(tmp_path / "a.xyz")
    assert data.labels[0].energy == found.energy == -1e5 / 3
    np.testing.assert_array_equal(data.structures[0].positions, structure.positions)
