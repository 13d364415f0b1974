"""Structures: crystals against their textbook numbers, deformations, ASE, and the errors."""

import dataclasses
import itertools
import os
from pathlib import Path

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import write

from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.structures import (
    Labels,
    Structure,
    bcc,
    check_labels,
    diamond,
    fcc,
    flat_axes,
    from_ase,
    inscribed_diameter,
    make_structure,
    minimum_image,
    rattled,
    simple_cubic,
    square,
    strained,
    supercell,
    to_ase,
    without_atoms,
)
from lprjax.numerics.checks import require_x64

ROUNDING = 1e-13  # relative: a dozen float64 operations on numbers of order one
SKEWED = np.array([[3.1, 0.2, -0.4], [0.7, 2.8, 0.3], [-0.5, 0.9, 3.4]])


def skewed_pair() -> Structure:
    return make_structure([[0.1, 0.2, 0.3], [1.4, 1.5, 1.9]], SKEWED, ["Si", "C"])


def data_file(name: str) -> Path:
    """A file of the data sets, wherever the user keeps them; skips where absent."""
    default = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("LPRJAX_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"no {name}: set LPRJAX_DATA to the folder that holds it")
    return path


@pytest.mark.parametrize(
    "crystal, conventional, primitive", [(bcc, 2, 1), (fcc, 4, 1), (diamond, 8, 2)]
)
def test_cubic_cells_hold_their_atoms_at_one_density(crystal, conventional, primitive):
    a = 3.3
    cube, small = crystal("W", a), crystal("W", a, primitive=True)
    assert (cube.n_atoms, small.n_atoms) == (conventional, primitive)
    assert float(cube.volume) == pytest.approx(a**3, rel=ROUNDING)
    assert float(small.volume) / primitive == pytest.approx(a**3 / conventional, rel=ROUNDING)
    assert cube.species.tolist() == [74] * conventional
    assert cube.pbc == (True, True, True)


def test_the_simple_cubic_cell_is_the_cube_of_one_atom():
    cube = simple_cubic("Po", 3.3)
    np.testing.assert_array_equal(cube.cell, 3.3 * np.eye(3))
    assert cube.species.tolist() == [84] and cube.pbc == (True, True, True)


def test_square_lattice_is_flat_and_periodic_in_its_plane():
    lattice = supercell(square("Cu", 2.5), (3, 2, 1))
    assert lattice.pbc == (True, True, False)
    assert lattice.n_atoms == 6
    assert not np.asarray(lattice.positions)[:, 2].any()


def test_supercell_order_is_cell_major_then_basis():
    unit = skewed_pair()
    m = (2, 3, 4)
    big = supercell(unit, m)
    grid = np.asarray(big.positions).reshape(*m, 2, 3)
    for cell in np.ndindex(m):
        expected = np.asarray(unit.positions) + np.array(cell) @ SKEWED
        np.testing.assert_allclose(grid[cell], expected, atol=20 * ROUNDING)
    np.testing.assert_allclose(big.cell, np.array(m)[:, None] * SKEWED, rtol=ROUNDING)
    assert big.species.tolist() == [14, 6] * 24


def test_atoms_taken_out_leave_the_others_in_their_order():
    whole = supercell(skewed_pair(), (2, 1, 1))
    for gone, left in (([2, 0], [1, 3]), (np.array([3]), [0, 1, 2]), ([], [0, 1, 2, 3])):
        rest = without_atoms(whole, gone)
        np.testing.assert_array_equal(rest.positions, np.asarray(whole.positions)[left])
        assert rest.species.tolist() == [[14, 6, 14, 6][k] for k in left]
        assert rest.cell is whole.cell and rest.pbc == whole.pbc
    for gone in ([4], [-1], [0.0], np.array([True, False, False, False])):
        with pytest.raises(IndexError, match="0 to 3"):
            without_atoms(whole, gone)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_the_minimum_image_is_the_shortest_of_all(pbc):
    """By trying every image up to four cells away, of differences up to 1.5 cells.

    Also of one short vector alone, and where a skewed vector of the cell is no period.
    """
    cell = np.array([[3.0, 0.0, 0.0], [2.4, 2.0, 0.0], [-1.0, 1.7, 4.0]])  # skewed: not reduced
    crystal = make_structure([[0.0, 0.0, 0.0]], cell, "W", pbc)
    offsets = np.random.default_rng(0).uniform(-1.5, 1.5, size=(400, 3)) @ cell
    vectors, lengths = (
        np.concatenate(parts)
        for parts in zip(*(minimum_image(one, crystal) for one in offsets[:, None]), strict=True)
    )
    reach = [range(-4, 5) if periodic else (0,) for periodic in pbc]
    shifts = np.stack(np.meshgrid(*reach), axis=-1).reshape(-1, 3)
    images = offsets[:, None] + shifts @ cell
    by_trial = np.linalg.norm(images, axis=-1)
    np.testing.assert_allclose(lengths, by_trial.min(axis=1), rtol=20 * ROUNDING)
    np.testing.assert_allclose(lengths, np.linalg.norm(vectors, axis=1), rtol=ROUNDING)
    moves = (vectors - offsets) @ np.linalg.inv(cell)  # whole cells, and none where not periodic
    np.testing.assert_allclose(moves, np.round(moves) * np.array(pbc), atol=100 * ROUNDING)
    np.testing.assert_allclose(minimum_image(offsets, crystal)[1], lengths, rtol=ROUNDING)


def test_strain_acts_on_cartesian_vectors_and_composes():
    rng = np.random.default_rng(0)
    first, second = 0.1 * rng.normal(size=(2, 3, 3))
    unit = skewed_pair()
    once = strained(unit, first)
    deformation = np.eye(3) + first
    for before, after in zip(unit.positions, once.positions, strict=True):
        np.testing.assert_allclose(after, deformation @ np.asarray(before), atol=10 * ROUNDING)
    fractional = [np.asarray(s.positions) @ np.linalg.inv(s.cell) for s in (unit, once)]
    np.testing.assert_allclose(*fractional, atol=100 * ROUNDING)
    product = (np.eye(3) + second) @ deformation - np.eye(3)
    np.testing.assert_allclose(
        strained(once, second).cell, strained(unit, product).cell, atol=100 * ROUNDING
    )


def test_structure_passes_through_transformations():
    """d(volume)/d(strain) at zero strain is V times the identity (derived: d det = tr)."""
    unit = skewed_pair()
    slope = jax.jit(jax.grad(lambda strain: strained(unit, strain).volume))(jnp.zeros((3, 3)))
    np.testing.assert_allclose(slope, float(unit.volume) * np.eye(3), atol=1e-12 * unit.volume)
    mirrored = dataclasses.replace(unit, cell=unit.cell[::-1])  # left-handed
    assert float(mirrored.volume) == pytest.approx(float(unit.volume), rel=ROUNDING)
    leaves, treedef = jax.tree.flatten(unit)
    assert len(leaves) == 3
    assert jax.tree.unflatten(treedef, leaves).pbc == unit.pbc
    assert treedef != jax.tree.structure(dataclasses.replace(unit, pbc=(True, True, False)))


def test_rattle_has_the_width_asked_for_and_repeats_with_its_key():
    start = supercell(bcc("W", 3.2), (12, 12, 12))
    sigma = 0.07
    noise = np.asarray(rattled(start, jax.random.key(3), sigma).positions - start.positions)
    # The standard error of a sample deviation is sigma / sqrt(2 N); five of them.
    assert abs(noise.std() - sigma) < 5 * sigma / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 5 * sigma / np.sqrt(noise.size)
    again = rattled(start, jax.random.key(3), sigma).positions - start.positions
    np.testing.assert_array_equal(noise, again)
    assert not np.array_equal(noise, rattled(start, jax.random.key(4), sigma).positions)
    flat = rattled(start, jax.random.key(3), (sigma, sigma, 0.0)).positions - start.positions
    np.testing.assert_array_equal(flat[:, 2], 0.0)
    np.testing.assert_array_equal(flat[:, :2], noise[:, :2])


def test_ase_round_trip_and_molecules_without_a_cell():
    unit = dataclasses.replace(skewed_pair(), pbc=(True, False, True))
    back = from_ase(to_ase(unit))
    for name in ("positions", "cell", "species"):
        np.testing.assert_array_equal(getattr(back, name), getattr(unit, name))
    assert back.pbc == unit.pbc
    molecule = from_ase(ase.Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]]))
    assert molecule.pbc == (False, False, False)
    assert float(molecule.volume) > 0


@pytest.mark.parametrize("missing", range(3))
def test_zero_vectors_are_completed_where_nothing_repeats(missing):
    """Whichever of the three it is; a zero vector of a periodic direction is a mistake."""
    cell = np.roll([[0.0, 0.0, 0.0], [3.0, 0.5, 0.0], [0.0, 4.0, 0.0]], missing, axis=0)
    periodic = np.arange(3) != missing
    layer = from_ase(ase.Atoms("W", cell=cell, pbc=periodic))
    np.testing.assert_array_equal(np.asarray(layer.cell)[periodic], cell[periodic])
    assert float(layer.volume) > 0
    with pytest.raises(ValueError, match="singular"):
        from_ase(ase.Atoms("W", cell=cell, pbc=True))


def _with_lj(structure: Structure) -> ase.Atoms:
    """Under ASE's Lennard-Jones, smooth at its cutoff so that the energy can be differenced."""
    atoms = to_ase(structure)
    atoms.calc = LennardJones(sigma=2.0, epsilon=0.3, rc=5.0, ro=4.0, smooth=True)
    return atoms


def _central_virial(structure: Structure, step: float) -> np.ndarray:
    """-dE/d(strain) by central differences, all nine components."""
    virial = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[a, b] = step
        up, down = (_with_lj(strained(structure, s * strain)) for s in (1, -1))
        virial[a, b] = -(up.get_potential_energy() - down.get_potential_energy()) / (2 * step)
    return virial


def test_extxyz_virial_is_minus_the_energy_slope_in_strain(tmp_path):
    """Sign, unit and Voigt order at once, against an energy that knows none of them."""
    unit = rattled(skewed_pair(), jax.random.key(0), 0.1)
    atoms = _with_lj(unit)
    atoms.get_stress()
    atoms.info["config_type"] = "sheared"
    write(tmp_path / "lj.xyz", [atoms], format="extxyz")
    ((structure, labels, info),) = read_extxyz(tmp_path / "lj.xyz")
    assert info["config_type"] == "sheared"
    # positions are written with eight decimals
    np.testing.assert_allclose(structure.positions, unit.positions, atol=1e-8)
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-8)
    coarse, fine = (_central_virial(unit, step) for step in (2e-3, 1e-3))
    # Richardson: the error of the fine differences is a third of the change, to leading order.
    assert np.abs(coarse - fine).max() < 1e-3 * np.abs(fine).max()
    np.testing.assert_allclose(labels.virial, fine, atol=2 * np.abs(coarse - fine).max() + 1e-6)
    assert np.unique(np.round(np.abs(fine), 2)).size == 6  # no component could stand for another


def test_labels_written_through_ase_are_the_labels_read(tmp_path):
    unit = skewed_pair()
    virial = np.array([[1.0, 0.2, -0.3], [0.2, 2.0, 0.5], [-0.3, 0.5, -1.5]])
    labels = Labels(-3.25, np.array([[0.5, -1.0, 2.0], [-0.5, 1.0, -2.0]]), virial)
    write(tmp_path / "a.xyz", to_ase(unit, labels), format="extxyz")
    bare = to_ase(unit)
    bare.info["virial"] = virial
    write(tmp_path / "b.xyz", bare, format="extxyz")
    ((_, read_back, _),) = read_extxyz(tmp_path / "a.xyz")
    assert read_back.energy == labels.energy
    np.testing.assert_allclose(read_back.forces, labels.forces, atol=1e-8)
    np.testing.assert_allclose(read_back.virial, virial, rtol=10 * ROUNDING)
    ((_, quippy, _),) = read_extxyz(tmp_path / "b.xyz")
    assert quippy.energy is None and quippy.forces is None
    np.testing.assert_allclose(quippy.virial, virial, rtol=10 * ROUNDING)


@pytest.mark.parametrize(
    "name, frames, species", [("mlearn_Si_test.xyz", 25, {14}), ("NbTa_test.xyz", 40, {41, 73})]
)
def test_public_data_sets_are_read_whole(name, frames, species):
    loaded = read_extxyz(data_file(name))
    assert len(loaded) == frames
    assert set().union(*(s.species.tolist() for s, _, _ in loaded)) == species
    for structure, labels, info in loaded:
        assert info["config_type"]
        assert isinstance(labels.energy, float)
        # No net force, but for the eighth decimal at which each is written.
        assert np.abs(labels.forces.sum(axis=0)).max() < 0.5e-8 * structure.n_atoms


def test_virial_of_strained_niobium_has_the_sign_of_compression():
    """Of cells at one shear, the larger has the more negative (tensile) virial trace."""
    loaded = read_extxyz(data_file("Nb_elastic.xyz"))
    volume = np.array([float(structure.volume) for structure, _, _ in loaded])
    trace = np.array([np.trace(labels.virial) for _, labels, _ in loaded])
    assert np.corrcoef(volume, trace)[0, 1] < -0.9


def test_float32_is_refused():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        require_x64()
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="needs float64"):
        bcc("W", 3.2)


@pytest.mark.parametrize(
    "species, named",
    [
        ("Xx", "'Xx'"),
        (0, "0"),
        (119, "119"),
        (["W", "Q"], "'Q'"),
        ([6, 2.5], "2.5"),
        ([[1], [2]], r"\[1\]"),
        (None, "None"),
        (True, "True"),
    ],
)
def test_unknown_species_is_named(species, named):
    with pytest.raises(ValueError, match=f"species is {named}: wanted a chemical symbol"):
        make_structure(np.eye(3)[:2], SKEWED, species)


GOOD = {"positions": [[0.0, 0.0, 0.0]], "cell": SKEWED, "species": "W", "pbc": True}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"positions": [0.0, 0.0, 0.0]}, r"positions has shape \(3,\): wanted \(n, 3\), in Å"),
        ({"positions": np.zeros((0, 3))}, "wanted at least one atom"),
        ({"positions": [[0.0, np.nan, 0.0]]}, r"entry \(0, 1\) of positions is nan: wanted finite"),
        ({"cell": [3.0, 3.0, 3.0]}, r"cell has shape \(3,\): wanted \(3, 3\)"),
        ({"cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "cell is .*singular.*linearly independent"),
        ({"cell": np.diag([3.0, 3.0, 0.0])}, "cell is .*singular.*pbc to False"),
        ({"cell": np.diag([3.0, 3.0, np.inf])}, r"entry \(2, 2\) of cell is inf: wanted finite"),
        ({"species": ["W", "W"]}, "species has length 2: wanted 1,"),
        ({"pbc": (True, False)}, "pbc is .*wanted one bool or three"),
    ],
)
def test_bad_structures_are_refused(change, message):
    make_structure(**GOOD)
    with pytest.raises(ValueError, match=message):
        make_structure(**(GOOD | change))


def test_the_inscribed_diameter_is_the_least_width_across_periodic_faces():
    """Volume over the area of a face; far from symmetric, as rows and columns are to differ."""
    cell = np.array([[5.0, 0.0, 0.0], [4.0, 6.0, 0.0], [-1.0, 3.0, 7.0]])
    areas = [np.linalg.norm(np.cross(cell[k - 2], cell[k - 1])) for k in range(3)]
    widths = np.linalg.det(cell) / np.array(areas)
    for pbc in itertools.product((True, False), repeat=3):
        structure = make_structure([[0.0, 0.0, 0.0]], cell, "W", pbc)
        expected = widths[np.array(pbc)].min(initial=np.inf)
        assert inscribed_diameter(structure) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_flatness_is_that_of_the_shape(unit):
    """Whatever the unit of length: volume over the product of the edges, here sin(angle)."""
    for angle, flat in ((1e-7, False), (1e-9, True)):
        cell = unit * np.array([[1.0, 0, 0], [np.cos(angle), np.sin(angle), 0], [0, 0, 1]])
        if flat:
            with pytest.raises(ValueError, match="singular"):
                make_structure(**GOOD | {"cell": cell})
        else:
            make_structure(**GOOD | {"cell": cell})


@pytest.mark.parametrize("a", [0.0, -1.0, np.nan, [3.0, 3.0]])
def test_lattice_constant_must_be_a_positive_length(a):
    with pytest.raises(ValueError, match="lattice constant a is .*positive length in Å"):
        fcc("Cu", a)


def test_deformations_refuse_the_wrong_shape():
    unit = skewed_pair()
    with pytest.raises(ValueError, match=r"strain has shape \(6,\): wanted \(3, 3\)"):
        strained(unit, np.zeros(6))
    with pytest.raises(ValueError, match=r"sigma has shape \(2,\)"):
        rattled(unit, jax.random.key(0), (0.1, 0.1))
    for repeats in (2, (2, 2), (2, 2, 0), (2, 2, 1.5)):
        with pytest.raises(ValueError, match="wanted three integers >= 1"):
            supercell(unit, repeats)
    with pytest.raises(ValueError, match="not periodic"):
        supercell(square("Cu", 2.5), (2, 2, 2))


@pytest.mark.parametrize(
    "labels, message",
    [
        (Labels(), "labels is empty, all of .*energy.* are None"),
        (Labels(energy=np.nan), r"entry \(\) of energy is nan: wanted finite"),
        (Labels(energy=[1.0, 2.0]), r"energy has shape \(2,\): wanted \(\), in eV"),
        (Labels(1.0, np.zeros((3, 3))), r"forces has shape \(3, 3\): wanted \(2, 3\), in eV/Å"),
        (Labels(1.0, np.zeros(6)), r"forces has shape \(6,\): wanted \(2, 3\)"),
        (
            Labels(forces=[[0, 0, 0], [0, 0, np.nan]]),
            r"entry \(1, 2\) of forces is nan: wanted",
        ),
        (Labels(virial=np.zeros(6)), r"virial has shape \(6,\): wanted \(3, 3\), in eV"),
        (
            Labels(force_constants=np.zeros((6, 6))),
            r"force_constants has shape \(6, 6\): wanted \(n, 3, 2, 3\)",
        ),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(skewed_pair(), labels)


def test_good_labels_pass_as_float64():
    labels = check_labels(skewed_pair(), Labels(jnp.asarray(1.5), np.zeros((2, 3), np.float32)))
    assert type(labels.energy) is float and labels.energy == 1.5
    assert labels.forces.dtype == np.float64 and labels.virial is None
    assert check_labels(skewed_pair(), Labels(force_constants=np.zeros((1, 3, 2, 3)))) is not None


def test_extxyz_errors_name_the_frame(tmp_path):
    unit = skewed_pair()
    good = to_ase(unit, Labels(energy=1.0))
    write(tmp_path / "empty.xyz", [good, to_ase(unit)], format="extxyz")
    with pytest.raises(ValueError, match=r"empty\.xyz, frame 1: labels is empty"):
        read_extxyz(tmp_path / "empty.xyz")
    assert read_extxyz(tmp_path / "empty.xyz", labelled=False)[1][1] == Labels()
    broken = to_ase(unit)
    broken.arrays["forces"] = np.array([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    write(tmp_path / "nan.xyz", [broken], format="extxyz")
    with pytest.raises(ValueError, match=r"nan\.xyz, frame 0: entry \(1, 0\) of forces is nan"):
        read_extxyz(tmp_path / "nan.xyz")
    (tmp_path / "flat.xyz").write_text(
        '1\nProperties=species:S:1:pos:R:3 energy=1.0 stress="1 0 0 0 1 0 0 0 1" pbc="F F F"\n'
        "W 0 0 0\n"
    )
    with pytest.raises(ValueError, match="cell is of zero volume: .* beside a\\s+stress"):
        read_extxyz(tmp_path / "flat.xyz")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
def test_rattling_draws_what_jax_draws_for_that_many_atoms(n):
    """Whatever shape it is drawn in."""
    key, cell = jax.random.key(3), supercell(simple_cubic("W", 3.0), (n, 1, 1))
    moves = np.asarray(rattled(cell, key, 0.1).positions) - np.asarray(cell.positions)
    np.testing.assert_allclose(moves, 0.1 * jax.random.normal(key, (n, 3)), atol=1e-15)


def test_axes_without_extent_are_those_across_a_plane():
    """Atoms in the plane z = 3; the same with a period along z; one atom of them moved out."""
    positions = np.array([[0.0, 0.0, 3.0], [1.0, 0.5, 3.0]])
    plane = make_structure(positions, np.diag([2.0, 2.0, 9.0]), "Cu", (True, True, False))
    assert flat_axes(plane).tolist() == [False, False, True]
    assert not flat_axes(dataclasses.replace(plane, pbc=(True, True, True))).any()
    out = dataclasses.replace(plane, positions=positions + [[0.0, 0.0, 1e-6], [0.0, 0.0, 0.0]])
    assert not flat_axes(out).any()
