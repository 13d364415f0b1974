"""Other people's codes, where installed: the same potential says the same, a basis as many."""

import numpy as np
import pytest

from experiments.benchmark import peers
from experiments.benchmark.cells import ace_spec, rattled_silicon, rattled_tungsten
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import make_structure
from lprjax.potentials.eam import ZHOU_2004, embedding_energy, zhou_eam
from lprjax.potentials.observables import energy_and_forces
from lprjax.potentials.stillinger_weber import stillinger_weber

SPEC = ace_spec(4)
CELL = rattled_silicon((1, 1, 1))


@pytest.fixture
def installed(request):
    if lacking := peers.missing(request.param):
        pytest.skip(lacking)


def needs(peer):
    return pytest.mark.parametrize("installed", [peer], indirect=True)


@pytest.mark.parametrize("peer", list(peers.INSTALL))
def test_a_peer_is_there_or_comes_with_the_line_that_installs_it(peer):
    assert peers.missing(peer) in (None, f"{peer} is not installed: {peers.INSTALL[peer]}")


def test_the_table_for_lammps_holds_zhous_functions():
    """F and the dimer's energy, read back at points of the table, to its printed digits."""
    p, text = ZHOU_2004["W"], peers.setfl("W").split("\n")
    n, d_rho, m, d_r, r_cut = text[4].split()
    assert int(n) == int(m) == peers.TABLE and float(r_cut) == zhou_eam("W").r_cut
    numbers = np.array(text[6:-1], float)
    embedding, density, pair = numbers.reshape(3, -1)
    rho, k = float(d_rho) * np.arange(peers.TABLE), 5000
    np.testing.assert_allclose(embedding, np.asarray(embedding_energy(p, rho)), rtol=1e-14)
    separation = k * float(d_r)
    ends = [[0.0, 0.0, 0.0], [separation, 0.0, 0.0]]
    dimer = make_structure(ends, 50.0 * np.eye(3), ["W", "W"], pbc=False)
    graph = build_graph(dimer, zhou_eam("W").r_cut)
    energy = float(energy_and_forces(zhou_eam("W"), graph)[0])
    expected = 2 * float(embedding_energy(p, density[k])) + pair[k] / separation
    assert energy == pytest.approx(expected, rel=1e-12)


@pytest.mark.oracle
@needs("lammps")
@pytest.mark.parametrize("name", ["sw", "eam"])
def test_lammps_says_the_same(installed, name):
    """SW to rounding; EAM to its table's cubic spline: h^4 |f''''| of 1e-9 eV/Å at 1e4 points."""
    silicon = name == "sw"
    cell = rattled_silicon((2, 2, 2)) if silicon else rattled_tungsten(128)
    potential = stillinger_weber() if silicon else zhou_eam("W")
    other = peers.lammps_silicon(cell) if silicon else peers.lammps_zhou(cell, "W")
    energy, forces = energy_and_forces(potential, build_graph(cell, potential.r_cut))
    for _ in range(2):
        their_energy, their_forces = other.energy_and_forces()
        assert float(energy) == pytest.approx(their_energy, rel=1e-11)
        off = np.abs(np.asarray(forces)[: len(their_forces)] - their_forces).max()
        assert off < (1e-10 if silicon else 1e-8)
        other.run(3)


@pytest.mark.oracle
@needs("ace-jax")
def test_ace_jax_has_as_many_functions_and_forces_that_its_rows_give(installed):
    model, meta = peers.ace_jax_basis(SPEC)
    rows = peers.ace_jax_rows(SPEC, CELL)()
    readout = np.concatenate([np.asarray(model.WB)[:, 0], np.asarray(model.Wpair)[:, 0]])
    forces = np.asarray(rows.F)[: CELL.n_atoms, :, : len(readout)] @ readout
    packed = np.asarray(peers.ace_jax_forces(SPEC, CELL)()[0])
    theirs = packed[1 : 1 + forces.size].reshape(-1, 3)
    np.testing.assert_allclose(forces, theirs, atol=1e-11 * np.abs(theirs).max())
    assert meta["len_basis"] == SPEC.n_columns


@pytest.mark.oracle
@needs("ace-jax")
def test_ace_jax_dynamics_begins_anew_with_every_run(installed):
    """Atoms fly on their way: in so short a time forces do nothing, 1e-6 of it."""
    drawn = np.random.default_rng(0).normal(size=(CELL.n_atoms, 3))
    other = peers.ase_dynamics(peers.ace_jax_calculator(SPEC), CELL, drawn, 1e-3)
    for _ in range(2):
        other.run(3)
        moved = other.integrator.atoms.positions - np.asarray(CELL.positions)
        np.testing.assert_allclose(moved, 3e-3 * drawn, rtol=1e-4, atol=1e-7)


@pytest.mark.oracle
@needs("python-ace")
@pytest.mark.parametrize("degree", [4, 8])
def test_python_ace_has_as_many_functions_and_forces_that_its_rows_give(installed, degree):
    """The evaluator for energies and forces is another one than that of the rows."""
    spec = ace_spec(degree)
    other, fast = (peers.python_ace(spec, CELL, recursive=recursive) for recursive in (False, True))
    other.rows(), fast.forces()
    assert other.n_functions == spec.n_columns
    rows = np.array(other.calculator.forces_bfuncs)
    assert rows.shape == (CELL.n_atoms, spec.n_columns, 3)
    forces = np.einsum("ikx,k->ix", rows, np.array(other.held[0].basis_coeffs))
    scale = np.abs(forces).max()
    np.testing.assert_allclose(forces, np.array(other.calculator.forces), atol=1e-12 * scale)
    assert fast.n_functions == other.n_functions


@pytest.mark.oracle
@needs("skmatter")
def test_scikit_matter_returns_one_number_per_site(installed):
    rng = np.random.default_rng(0)
    training, sites = rng.normal(size=(6, 4, 3)), rng.normal(size=(5, 3))
    assert peers.skmatter_rigidity(training, sites, 1e-2).shape == (5,)
