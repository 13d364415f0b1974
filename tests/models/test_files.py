"""What is saved comes back bit for bit, and what was not saved so is refused with the reason."""

import dataclasses
import hashlib
import importlib
import json
import pkgutil
import shutil
import zipfile
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.emt import EMT

import lprjax
from lprjax.ace.basis import site_basis
from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.models import files
from lprjax.models.files import SavedFit, load, save
from lprjax.models.kernels import KernelPotential, kernel_potential
from lprjax.models.networks import LastLayer, NetworkPotential, last_layer, network_potential
from lprjax.potentials import ase_potential, stillinger_weber, tersoff, zhou_eam
from lprjax.potentials.bonds import polynomial_bonds
from lprjax.potentials.eam_tables import tabulated_eam
from lprjax.potentials.observables import energy_and_forces
from lprjax.potentials.zbl import zbl
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import prediction_rigidity
from tests.helpers.eam import zhou_tables

# Numbers of every kind that a spec may be given as; they come back as plain ones.
ALLOY = ACESpec(["W", "Mo"], np.int64(2), np.int32(3), np.float32(3.6), np.float64(2.7), 3.0)
METAL = ACESpec("W", 2, 4, 3.6, 2.7)
E0 = {"W": -8.9 / 3, "Mo": 0.1}
RNG = np.random.default_rng(0)


def graph_of(elements):
    crystal = supercell(bcc("W", 3.16), (1, 1, 2))
    species = [elements[i % len(elements)] for i in range(4)]
    structure = make_structure(crystal.positions, crystal.cell, species)
    return build_graph(rattled(structure, jax.random.key(0), 0.1), 3.7, n_neighbours=40)


GRAPH = graph_of(("W", "Mo"))


def environments():
    return np.asarray(site_basis(ALLOY, GRAPH))


def linear(spec=METAL, e0=E0):
    return linear_potential(spec, RNG.normal(size=spec.n_columns), e0)


def kernel():
    potential = kernel_potential(ALLOY, environments(), 3, zeta=3, reference_energies=E0)
    return dataclasses.replace(
        potential, coefficients=jnp.asarray(RNG.normal(size=len(potential.coefficients)))
    )


def network(hidden=(5, 3)):
    return network_potential(ALLOY, environments(), hidden, jax.random.key(1), E0)


def constant_alloy():
    return linear(dataclasses.replace(ALLOY, constant=True))


POTENTIALS = {
    "linear": (linear, LinearPotential),
    "linear without reference energies": (lambda: linear(e0=None), LinearPotential),
    "linear of two species": (constant_alloy, LinearPotential),
    "kernel": (kernel, KernelPotential),
    "network": (network, NetworkPotential),
    "network without hidden layers": (lambda: network(()), NetworkPotential),
    "last layer": (lambda: last_layer(network()), LastLayer),
}


def fitted(keys=("energy", "forces"), prior=True, ridge=0.1 + 0.2, n=METAL.n_columns):
    """A fit of random rows; 0.1 + 0.2 is no short decimal."""
    factors = {key: compress(RNG.normal(size=(20, n)), RNG.normal(size=20)) for key in keys}
    weights = {key: w for key, w in zip(keys, (1 / 3, 2.0, 0.7), strict=False)}
    return fit(
        factors, weights, ridge=ridge, prior=RNG.uniform(1.0, 2.0, size=n) if prior else None
    )


FITS = {
    "plain keys": {},
    "tuple keys": {"keys": (("energy", "bulk"), ("forces", ("cell", 3)), "virial")},
    "keys of numbers": {"keys": (1, ("energy", 2.5, None, True))},
    "no prior": {"prior": False},
    "no ridge": {"ridge": 0.0},
}


def assert_same_bits(found, expected):
    """Same type and tree, and every array the same: type, shape and each number."""
    assert type(found) is type(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.array_equal(a, b, equal_nan=True)


# --- there and back -------------------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_potential_comes_back_bit_for_bit(tmp_path, name):
    """As what it was, with the same predictions to the last digit."""
    make, kind = POTENTIALS[name]
    potential = make()
    save(tmp_path / "p.npz", potential)
    found = load(tmp_path / "p.npz")
    assert type(found) is kind
    assert_same_bits(found, potential)
    assert found.spec == potential.spec and hash(found.spec) == hash(potential.spec)
    assert found.r_cut == potential.r_cut
    graph = GRAPH if len(potential.spec.elements) > 1 else graph_of(("W",))
    for a, b in zip(*(energy_and_forces(p, graph) for p in (found, potential)), strict=True):
        assert np.array_equal(a, b) and np.any(np.asarray(a))


def bonds():
    return polynomial_bonds([2.737, 3.16], RNG.normal(size=(2, 2, 4)), r_cut=3.7)


def pinned_bonds():
    graph = build_graph(supercell(bcc("W", 3.16), (3, 3, 3)), 3.7)
    return bonds().pinned(graph, groups=np.arange(54) % 2)


PARAMETERS = {
    "eam": lambda: zhou_eam("Mo", "W", r_cut=0.1 + 5.1),
    "stillinger-weber": lambda: dataclasses.replace(stillinger_weber(), lam=1 / 3),
    "tersoff": lambda: dataclasses.replace(tersoff(), beta=np.float64(1.1e-6) / 3),
    "zbl": lambda: zbl(1.6, 2.0 + 1 / 3),
    "bonds": bonds,
    "pinned bonds": pinned_bonds,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_potential_of_parameters_comes_back_bit_for_bit(tmp_path, name):
    """And is as good an argument of `jit` as before: the same hash."""
    potential = PARAMETERS[name]()
    save(tmp_path / "p.npz", potential)
    found = load(tmp_path / "p.npz")
    assert type(found) is type(potential) and found.r_cut == potential.r_cut
    if name.endswith("bonds"):
        assert_same_bits(found, potential)
    else:
        assert found == potential and hash(found) == hash(potential)


def fields_of(kind):
    return getattr(kind, "__dataclass_fields__", {})


def test_tables_come_back_bit_for_bit(tmp_path):
    """With the same predictions to the last digit."""
    potential = tabulated_eam(zhou_tables(("W", "Mo"), n_r=200))
    save(tmp_path / "p.npz", potential)
    found = load(tmp_path / "p.npz")
    assert (found.elements, found.r_cut) == (potential.elements, potential.r_cut)
    for field in dataclasses.fields(potential.arrays):
        a, b = (getattr(p.arrays, field.name) for p in (found, potential))
        assert np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype
    graph = build_graph(bcc("W", 3.16), potential.r_cut)
    for a, b in zip(*(energy_and_forces(p, graph) for p in (found, potential)), strict=True):
        assert np.array_equal(a, b)


def test_every_potential_of_the_library_can_be_saved():
    """But a calculator of ASE: whatever there is with a cutoff that is called with a graph."""
    names = [module.name for module in pkgutil.walk_packages(lprjax.__path__, "lprjax.")]
    found = {
        kind.__name__
        for name in names
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and {"__call__", "r_cut"} <= {*dir(kind), *fields_of(kind)}
    }
    found -= {"Potential", "SharedLinear", "ZhouTable"}  # a protocol; what two become inside `jit`
    found -= {"TiltedPotential"}  # of the steps of an audit
    assert found - {"ASEPotential"} == set(files.POTENTIALS)


def test_a_core_is_saved_with_its_basis(tmp_path):
    """As the same spec, which is as good an argument of `jit` as before."""
    potential = linear(dataclasses.replace(METAL, core=(1.6, 2.0 + 1 / 3)))
    save(tmp_path / "p.npz", potential)
    found = load(tmp_path / "p.npz")
    assert_same_bits(found, potential)
    assert found.spec == potential.spec and hash(found.spec) == hash(potential.spec)


def test_numbers_that_decimals_lose_are_kept(tmp_path):
    """The smallest, the largest, minus zero, a third, not-a-number: by their bytes."""
    awkward = [5e-324, np.finfo(float).max, -0.0, 1 / 3, np.nextafter(1.0, 2.0), np.nan, -np.inf]
    coefficients = np.resize(awkward, METAL.n_columns)
    save(tmp_path / "p.npz", linear_potential(METAL, coefficients))
    assert np.asarray(load(tmp_path / "p.npz").coefficients).tobytes() == coefficients.tobytes()


@pytest.mark.parametrize("name", FITS)
def test_a_fit_comes_back_bit_for_bit(tmp_path, name):
    """With what it was fitted to, and so with every rigidity."""
    what = fitted(**FITS[name])
    save(tmp_path / "f.npz", what, spec=METAL, reference_energies=E0, data="two rattled cells, Å")
    found = load(tmp_path / "f.npz")
    assert type(found) is SavedFit
    assert_same_bits(found.fit, what)
    assert found.spec == METAL and found.reference_energies == E0
    assert found.data == "two rattled cells, Å"
    for table in ("rms", "weights", "n_rows"):
        before, after = getattr(what, table), getattr(found.fit, table)
        assert type(after) is OrderedDict and list(after.items()) == list(before.items())
        assert [type(key) for key in after] == [type(key) for key in before]
    assert (found.fit.ridge, found.fit.rank) == (what.ridge, what.rank)
    assert (found.fit.prior is None) == (what.prior is None)
    rows = RNG.normal(size=(3, METAL.n_columns))
    rigidities = (prediction_rigidity(f.factor, rows) for f in (found.fit, what))
    assert np.array_equal(*rigidities)


def test_the_potential_of_a_saved_fit_is_that_of_its_coefficients(tmp_path):
    what = fitted()
    save(tmp_path / "f.npz", what, spec=METAL, reference_energies=E0)
    expected = linear_potential(METAL, what.coefficients, E0)
    assert_same_bits(load(tmp_path / "f.npz").potential(), expected)
    save(tmp_path / "f.npz", what, spec=METAL)
    found = load(tmp_path / "f.npz")
    assert found.reference_energies is None and found.data == ""
    assert_same_bits(found.potential(), linear_potential(METAL, what.coefficients))


@pytest.mark.parametrize("name", ["potential.npz", "no suffix", "fit.v1.2"])
def test_a_file_has_the_name_that_was_given(tmp_path, name):
    potential = linear()
    for path in (tmp_path / name, str(tmp_path / name)):
        save(path, potential)
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        assert_same_bits(load(path), potential)


@pytest.mark.parametrize("make", [linear, kernel, lambda: last_layer(network()), fitted])
def test_nothing_is_pickled(tmp_path, make):
    """NumPy opens it as it is, with pickle off: float64 arrays, and a header of text."""
    what = make()
    save(tmp_path / "p.npz", what, **({"spec": METAL} if hasattr(what, "rank") else {}))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("lprjax")))
    assert header["what"] == type(what).__name__ and header["format"] == files.FORMAT
    assert arrays and all(array.dtype == np.float64 for array in arrays.values())


# --- what is no such file -------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Of a potential large enough that most bytes are numbers."""
    path = tmp_path / "surrogate.npz"
    save(path, linear(dataclasses.replace(METAL, degree=12)))
    return path


def assert_refused(path, *reasons):
    """A ValueError that names the file and why."""
    for reason in reasons:
        with pytest.raises(ValueError, match=rf"(?s){path.name}.*({reason})"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 1000, b"lprjax", "Å\n".encode(), b"PK"])
def test_what_is_empty_or_no_archive_is_refused(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    assert_refused(tmp_path / "notes.txt", "no file of lprjax")


@pytest.mark.parametrize("share", [1e-3, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999])
def test_a_file_that_is_cut_is_refused(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: max(5, int(share * len(content)))])
    assert_refused(saved, "cut|damaged")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_a_flipped_byte_is_found(saved, share):
    """In the numbers, where no structure would tell: the archive has a check sum of its own."""
    content = bytearray(saved.read_bytes())
    content[int(share * len(content))] ^= 0x10
    saved.write_bytes(bytes(content))
    assert_refused(saved, "damaged")


def test_any_flipped_bit_is_refused_or_changes_nothing(tmp_path, monkeypatch):
    """Wherever it is: in the numbers, in the header or in the frame of the archive.

    In the frame it may ask for a password or for an unknown compression: every second bit of the
    directory at the end of the archive, where that stands, and every eleventh elsewhere.
    """
    path, potential = tmp_path / "p.npz", linear(ACESpec("W", 1, 2, 3.6, 2.7))
    save(path, potential)
    content = path.read_bytes()
    frame = content.index(b"PK\x01\x02")  # of the directory, at the end
    bits = [*range(0, 8 * frame, 11), *range(8 * frame, 8 * len(content), 2)]
    refused = 0
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        monkeypatch.setattr(type(path), "read_bytes", lambda self, b=bytes(changed): b)
        try:
            found = load(path)
        except ValueError as error:
            assert path.name in str(error)
            refused += 1
        else:
            assert_same_bits(found, potential)
    assert refused > len(bits) / 2


def test_an_archive_of_another_program_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.eye(2), labels=np.arange(3.0))
    assert_refused(tmp_path / "other.npz", "another program.*weights")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(tmp_path / "plain.zip", "another program|damaged")
    np.savez(tmp_path / "objects.npz", lprjax=np.array([{"format": 1}]))
    assert_refused(tmp_path / "objects.npz", "damaged|another program")


@pytest.mark.parametrize("header", ["no JSON", "[1, 2]", "3", "{}", np.eye(2)])
def test_a_header_of_another_program_is_refused(tmp_path, header):
    """An archive that holds something under the name of ours."""
    np.savez(tmp_path / "other.npz", lprjax=np.array(header))
    assert_refused(tmp_path / "other.npz", "damaged|format")


def rewritten(path, change, drop=()):
    """The same archive with another header, and without some of its arrays."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in drop}
    header = json.loads(str(arrays.pop("lprjax")))
    change(header)
    np.savez(path, lprjax=np.array(json.dumps(header)), **arrays)
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())


def test_a_later_format_is_refused_with_the_version_that_wrote_it(saved):
    rewritten(saved, lambda header: header.update(format=files.FORMAT + 1, lprjax="99.1"))
    assert_refused(saved, rf"{files.FORMAT + 1}.*99\.1.*{files.FORMAT}")


def test_an_unknown_content_is_refused_by_its_name(saved):
    rewritten(saved, lambda header: header.update(what="Oracle"))
    assert_refused(saved, "Oracle.*LinearPotential")


@pytest.mark.parametrize(
    "change, drop",
    [
        (lambda header: None, ("coefficients",)),
        (lambda header: header.pop("fields"), ()),
        (lambda header: header["fields"].pop("reference_energies"), ()),
        (lambda header: header["fields"].update(extra={"plain": 1}), ()),
        (lambda header: header["fields"]["spec"]["spec"].update(degree="much"), ()),
        (lambda header: header["fields"].update({"": "Oracle"}), ()),
    ],
    ids=["array", "fields", "field", "extra field", "spec", "class"],
)
def test_a_content_that_does_not_fit_together_is_refused(saved, change, drop):
    rewritten(saved, change, drop)
    assert_refused(saved, "damaged")


def test_a_fit_that_does_not_fit_its_basis_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    save(path, fitted(), spec=METAL)
    rewritten(path, lambda header: header["spec"].update(degree=5))
    assert_refused(path, "damaged")


def test_no_file_is_no_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz")


def test_float64_is_required(saved):
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        load(saved)


# --- what cannot be saved -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Impostor:
    """Bears a name that can be saved."""

    coefficients: np.ndarray


Impostor.__name__ = "LinearPotential"


@pytest.mark.parametrize(
    "what", [ase_potential(EMT()), np.eye(3), None, lambda graph: 0.0, METAL, Impostor(np.eye(1))]
)
def test_unknown_objects_are_refused(tmp_path, what):
    with pytest.raises(TypeError, match=rf"{type(what).__name__}.*Fit.*LinearPotential"):
        save(tmp_path / "x.npz", what)
    assert not list(tmp_path.iterdir())


def test_a_fit_needs_its_own_spec_and_a_potential_none(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(TypeError, match="spec"):
        save(path, fitted())
    with pytest.raises(ValueError, match=rf"{METAL.n_columns}.*{ALLOY.n_columns}"):
        save(path, fitted(), spec=ALLOY)
    for beside in ({"spec": METAL}, {"reference_energies": E0}, {"data": "cells"}):
        with pytest.raises(TypeError, match="LinearPotential"):
            save(path, linear(), **beside)
    assert not list(tmp_path.iterdir())


def test_keys_that_a_file_cannot_keep_are_refused(tmp_path):
    for key in (frozenset("ab"), ("energy", 1 + 2j)):
        with pytest.raises(TypeError, match="key"):
            save(tmp_path / "x.npz", fitted(keys=(key,)), spec=METAL)


# --- on the disk ----------------------------------------------------------------------------


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path):
    path, second = tmp_path / "p.npz", linear()
    save(path, kernel())
    save(path, second)
    assert_same_bits(load(path), second)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    """As where the disk is full, or another process holds the file."""
    path = tmp_path / "p.npz"
    save(path, linear())
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(OSError, match="no space"):
        save(path, kernel())
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.npz"]


def test_a_copy_is_as_good_as_the_file(tmp_path, saved):
    shutil.copy(saved, tmp_path / "copy")
    assert_same_bits(load(tmp_path / "copy"), load(saved))


def test_flipped_bits_of_a_large_array_are_found(tmp_path):
    """A member of more bytes than are read at a time: its length in the header may change, so that
    as many numbers come from other bytes; the archive's own sums do not notice."""
    path = tmp_path / "kernel.npz"
    save(path, kernel())
    content = path.read_bytes()
    start = max(content.index(name) for name in (b"sparse.npy", b"triangular.npy"))
    for bit in range(8 * start, 8 * (start + 160)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(changed))
        assert_refused(path, "damaged")


def test_others_may_read_the_file(tmp_path):
    """As any file that the user makes, by the user's own mask."""
    save(tmp_path / "p.npz", linear(ACESpec("W", 1, 2, 3.6, 2.7)))
    (tmp_path / "plain").write_bytes(b"")
    modes = [(tmp_path / name).stat().st_mode for name in ("p.npz", "plain")]
    assert modes[0] == modes[1]


def test_numbers_of_numpy_are_plain_in_the_header(tmp_path):
    """Widths of layers, as they may come out of an array."""
    save(tmp_path / "n.npz", dataclasses.replace(network(), hidden=(np.int64(5), 3)))
    assert load(tmp_path / "n.npz").hidden == (5, 3)
