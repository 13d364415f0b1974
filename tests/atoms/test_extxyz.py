"""Extended XYZ: what is written comes back, through `read_extxyz` and through ASE alone."""

import gzip
import tempfile
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, from_ase, make_structure, to_ase
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe
from tests.helpers.strategies import FEW, labels_of, per_atom, structures

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
    (first, labels, info), (second, none, _) = read_extxyz(path, labelled=False)
    np.testing.assert_array_equal(info["arrays"]["lpr"], LPR[0])
    assert info["arrays"].keys() == {"lpr", "coordination", "parts"}
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
        (None, {"REF_forces": LPR}, ValueError, "'REF_forces'"),
        ([None, LABELS], None, ValueError, "structure 1: forces"),
        (
            [LABELS._replace(force_constants=np.zeros((1, 3, 2, 3))), None],
            None,
            ValueError,
            "structure 0: force_constants .*keep it with numpy.save",
        ),
        (
            [LABELS._replace(virial=np.tri(3)), None],
            None,
            ValueError,
            "structure 0: virial is not symmetric",
        ),
        (None, {"k": [np.array([1, 2**63], np.uint64), LPR[1]]}, ValueError, "below 2\\^63"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path, labels, arrays, error, message
):
    with pytest.raises(error, match=message):
        write_extxyz(tmp_path / "a.xyz", [PAIR, TRIPLE], labels, arrays)
    assert not (tmp_path / "a.xyz").exists()


def test_a_file_of_nothing_is_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="structures is empty"):
        write_extxyz(tmp_path / "a.xyz", [])
    for content in ("", "\n\n"):
        (tmp_path / "a.xyz").write_text(content)
        with pytest.raises(ValueError, match=r"a\.xyz is empty: wanted extended XYZ"):
            read_extxyz(tmp_path / "a.xyz")


# --- round trips ----------------------------------------------------------------------------


def assert_same(found, wanted):
    assert found.pbc == wanted.pbc
    for name in ("positions", "cell", "species"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@FEW
@given(st.data(), st.sampled_from(["a.xyz", "run@0", "a@:", "Größe 数据.xyz", "b.xyz.gz", "c.xz"]))
def test_whatever_is_written_is_read_back(data, name):
    """Every number of every structure, whatever the file is called."""
    wanted = data.draw(st.lists(structures(), min_size=1, max_size=3))
    labels = [data.draw(labels_of(structure.n_atoms)) for structure in wanted]
    arrays = [data.draw(per_atom(structure.n_atoms)) for structure in wanted]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_extxyz(path, wanted, labels, {"q": arrays})
        frames = read_extxyz(path)
        assert [entry.name for entry in Path(folder).iterdir()] == [name]
    for structure, label, column, (found, read, info) in zip(
        wanted, labels, arrays, frames, strict=True
    ):
        assert_same(found, structure)
        assert read.energy == label.energy and info.keys() == {"arrays"}
        back = info["arrays"]["q"].reshape(column.shape)  # one number per atom is a column of one
        assert back.dtype == column.dtype
        np.testing.assert_array_equal(back, column)
        for kind in ("forces", "virial"):
            assert (getattr(read, kind) is None) == (getattr(label, kind) is None)
        if label.forces is not None:
            np.testing.assert_array_equal(read.forces, label.forces)
        if label.virial is not None:  # a division by the volume and a multiplication
            np.testing.assert_allclose(read.virial, label.virial, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize(
    "cell, pbc",
    [
        (np.zeros((3, 3)), False),
        (np.diag([3.1, 0.0, 0.0]), (True, False, False)),
        (np.array([[3.1, 0.2, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 4.0]]), (True, False, True)),
    ],
    ids=["molecule", "wire", "slab"],
)
def test_what_has_no_cell_gets_none_and_no_stress(tmp_path, cell, pbc):
    """A molecule goes out as it came in, and its virial is no stress."""
    atoms = Atoms("W2", [[0.0, 0.1, 0.2], [0.1, 2.4, 0.3]], cell=cell, pbc=pbc)
    structure, eam = from_ase(atoms), zhou_eam("W", r_cut=3.0)
    graph = build_graph(structure, eam.r_cut, n_atoms=2, n_neighbours=8)
    labels = observe(eam, graph, ("energy", "virial"))
    back = to_ase(structure, labels)
    np.testing.assert_array_equal(back.cell, cell)
    assert "stress" not in back.calc.results
    write_extxyz(tmp_path / "a.xyz", [structure], [labels])
    header = (tmp_path / "a.xyz").read_text().splitlines()[1]
    assert "stress" not in header and ("Lattice" in header) == cell.any()
    found = ase.io.read(tmp_path / "a.xyz")
    np.testing.assert_array_equal(found.cell, cell)
    ((again, read, _),) = read_extxyz(tmp_path / "a.xyz")
    assert_same(again, structure)
    np.testing.assert_array_equal(read.virial, labels.virial)
    assert np.abs(read.virial).max() > 0.1


def test_a_molecule_in_a_box_keeps_its_box(tmp_path):
    atoms = Atoms("W", cell=np.diag([5.0, 6.0, 7.0]), pbc=False)
    write_extxyz(tmp_path / "a.xyz", [from_ase(atoms)])
    np.testing.assert_array_equal(ase.io.read(tmp_path / "a.xyz").cell, atoms.cell)


def test_packed_files_are_those_of_other_programs(tmp_path):
    write_extxyz(tmp_path / "a.xyz.gz", [PAIR], [LABELS])
    with gzip.open(tmp_path / "a.xyz.gz", "rt") as file:
        assert file.readline() == "2\n"
    assert ase.io.read(tmp_path / "a.xyz.gz").get_potential_energy() == LABELS.energy


# --- broken files ---------------------------------------------------------------------------

GOOD = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 energy=-1\nSi 0 0 0\n'


@pytest.mark.parametrize(
    "frame, message",
    [
        (GOOD.replace("0 0 0\n", "2.2D0 0 0\n"), r"column pos:R cannot be read .*'2\.2D0'"),
        (GOOD.replace("Si", "14"), "species is '14'"),
        (GOOD.replace("Si", "Xx"), "species is 'Xx'"),
        ("2" + GOOD[1:], "number of atoms is 2: wanted 1, as many as follow; the file is cut"),
        ("2\n", "number of atoms is 2: wanted 0"),
        ("two" + GOOD[1:], "number of atoms is 'two'"),
        ("\n" + GOOD, "number of atoms is ''"),
        (GOOD.replace("0 0 0\n", "0 0\n"), r"atom 0 has 3 columns: wanted 4"),
        (GOOD.replace("0 0 0\n", "0 0 0 1\n"), r"atom 0 has 5 columns: wanted 4"),
        (GOOD.replace(":pos:R:3", ""), "atom 0 has 4 columns: wanted 1"),
        (GOOD.replace("pos:R:3", "p:R:3"), "Properties has 0 of pos, positions: wanted one"),
        (GOOD.replace("pos:R:3", "pos:R:x"), "Properties is .*wanted name:type:width"),
        (GOOD.replace("pos:R:3", "pos:Q:3"), "column pos:Q cannot be read"),
        (GOOD.replace("pos:R:3", "pos:R:1:pos:R:2"), "Properties has 'pos' twice"),
        (GOOD.replace('0 0 0 4"', '0 0 4"'), "Lattice"),
        (GOOD.replace("energy", 'pbc="y n n" energy'), "pbc is 'y n n': wanted three of T and F"),
        (GOOD.replace("energy", 'pbc="T F" energy'), "pbc is"),
        ('1\npbc="T T T" energy=1\nSi 0 0 0\n', "cell is .*singular"),
        (  # one of the two that are missing is a period
            '1\nLattice="3 0 0 0 0 0 0 0 0" pbc="T T F" energy=1\nSi 0 0 0\n',
            "cell is .*singular",
        ),
        ('1\nenergy=1 stress="1 0 0 0 1 0 0 0 1"\nSi 0 0 0\n', "cell is of zero volume"),
        ("0\n\n" + GOOD, "atom"),
    ],
)
def test_a_broken_frame_is_named_with_its_file_and_line(tmp_path, frame, message):
    (tmp_path / "a.xyz").write_text(3 * GOOD + frame + GOOD)
    last = (tmp_path / "b.xyz").write_text(3 * GOOD + frame) and tmp_path / "b.xyz"
    path = last if "follow" in message or "wanted 0" in message else tmp_path / "a.xyz"
    with pytest.raises(ValueError, match=rf"(?s)[ab]\.xyz, frame 3: .*{message}.* line 10\."):
        read_extxyz(path)


@FEW
@given(st.integers(0, 10**6), st.sampled_from(["", "\n", " ", "=", '"', "x", "-", "9", ":", "{"]))
def test_a_changed_character_gives_a_named_error_or_another_file(where, character):
    """Never another exception, wherever it is."""
    where %= len(GOOD)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "a.xyz"
        path.write_text(GOOD + GOOD[:where] + character + GOOD[where + 1 :])
        try:
            assert 1 <= len(read_extxyz(path)) <= 2
        except ValueError as error:
            assert str(path) in str(error)


def test_what_says_how_well_a_label_is_known_is_no_label(tmp_path, recwarn):
    """A file of rigidities and deviations is read back without a warning; another energy is not."""
    structure = make_structure([[0, 0, 0], [1.5, 1.6, 1.5]], 3.165 * np.eye(3), "W")
    path, two = tmp_path / "out.xyz", np.ones(2)
    names = ("lpr", "energy_deviation", "force_deviation", "force_uncertainty")
    write_extxyz(path, [structure], arrays={name: [two] for name in names})
    read_extxyz(path, labelled=False)
    assert not recwarn.list
    write_extxyz(path, [structure], arrays={"site_energies": [two]})
    with pytest.warns(UserWarning, match="site_energies, not taken as labels"):
        read_extxyz(path, labelled=False)
