"""Rows of the design are the derivatives of the observables, whatever the structure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace import rows as ace_rows
from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import make_structure, supercell
from lprjax.potentials.observables import KINDS, observe
from lprjax.regression.rows import design_rows
from tests.helpers import oracles
from tests.helpers.cases import (
    N_ATOMS,
    N_NEIGHBOURS,
    PAIR,
    R_CUT,
    SPECS,
    case_of,
    coloured,
    graph_of,
    small_cell,
    vacancy_cell,
)
from tests.helpers.compilations import optimised


@pytest.fixture(params=SPECS)
def small(request):
    return case_of(request.param, small_cell)


@pytest.fixture(params=SPECS)
def vacancy(request):
    return case_of(request.param, vacancy_cell)


def rows_at(case, positions, kinds=("energy", "forces", "virial")):
    return design_rows(case.spec, moved(case.graph, positions), kinds, atoms=PAIR)


def close(found, expected, tolerance=1e-11):
    """Equal to `tolerance` of each column's largest entry (1e-3 of the largest of all at least,
    for columns that vanish): rounding of a few sums over neighbours."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    size = np.max(np.abs(expected), axis=tuple(range(expected.ndim - 1)))
    size = np.maximum(size, 1e-3 * np.max(size))
    worst = np.max(np.abs(found - expected) / size)
    assert worst <= tolerance, worst


# --- the rows are the observables' derivatives ------------------------------------------------


@pytest.mark.parametrize(
    "spec, n_atoms",
    [
        (ACESpec("W", 1, 3, R_CUT, 2.7), 3),
        (ACESpec("W", 2, 5, R_CUT, 2.7), 4),
        (SPECS["two species"], N_ATOMS),
    ],
    ids=["order 1", "order 2", "two species"],
)
def test_rows_are_the_dense_jacobian_of_the_site_basis(spec, n_atoms):
    structure = coloured(small_cell(), spec.elements)
    graph = build_graph(structure, R_CUT, n_atoms=n_atoms, n_neighbours=N_NEIGHBOURS)
    rows = design_rows(spec, graph, ("energy", "forces", "virial"))
    assert rows.force_constants is None
    for found, expected in zip(rows[:3], oracles.rows(spec, graph), strict=True):
        close(found, expected)


@pytest.mark.parametrize("make", [small_cell, vacancy_cell])
@pytest.mark.parametrize("name", SPECS)
def test_rows_times_coefficients_are_observed(name, make):
    """X . c = observe(linear_potential(c)) for every kind, padding included."""
    case = case_of(name, make)
    for key in range(2):
        c = jax.random.normal(jax.random.key(key), (case.spec.n_columns,))
        expected = observe(linear_potential(case.spec, c), case.graph, KINDS, atoms=PAIR)
        for kind, rows, value in zip(KINDS, case.rows, expected, strict=True):
            assert rows.shape == (*value.shape, case.spec.n_columns)
            size = np.max(np.abs(rows) @ np.abs(c))  # what cancels in the sum over columns
            assert np.max(np.abs(rows @ c - value)) < 1e-13 * size, kind
        assert np.max(np.abs(expected.forces)) > 0.1 and np.max(np.abs(expected.virial)) > 0.1


def second_order(difference, exact, step):
    """Central differences at `step` and half of it err by c step^2 in every column: ratio 4.

    Their extrapolation to step 0 errs by step^4 only, so that no wrong limit passes."""
    coarse, fine, exact = (np.asarray(x) for x in (difference(step), difference(step / 2), exact))
    size = np.max(np.abs(exact), axis=tuple(range(exact.ndim - 1)))
    size = np.maximum(size, 1e-3 * np.max(size))
    ratio = np.linalg.norm((coarse - exact) / size) / np.linalg.norm((fine - exact) / size)
    assert 3.8 < ratio < 4.2, ratio
    close((4 * fine - coarse) / 3, exact, 1e-4)


def test_energy_rows_to_force_rows_to_force_constant_rows(small):
    """dX_E = -X_F . u h and dX_F = -Phi u h along a displacement u of all atoms."""
    u = jnp.zeros_like(small.graph.positions)
    u = u.at[: small.n].set(jax.random.normal(jax.random.key(2), (small.n, 3)))

    def slope(kind):
        def difference(h):
            plus, minus = (
                getattr(rows_at(small, small.graph.positions + s * h * u, (kind,)), kind)
                for s in (1, -1)
            )
            return (plus - minus) / (2 * h)

        return difference

    second_order(slope("energy"), -jnp.einsum("iac,ia->c", small.rows.forces, u), 4e-3)
    pushed = -jnp.einsum("iajbc,ia->jbc", small.rows.force_constants, u[jnp.array(PAIR)])
    second_order(slope("forces"), pushed, 4e-3)


def test_energy_rows_to_virial_rows(small):
    """dX_E = -X_W : strain for a strain of cell and positions that is not symmetric."""
    strain = jax.random.normal(jax.random.key(3), (3, 3))

    def difference(h):
        plus, minus = (
            design_rows(
                small.spec,
                moved(small.graph, small.graph.positions @ d.T, small.graph.cell @ d.T),
                ("energy",),
            ).energy
            for d in (jnp.eye(3) + h * strain, jnp.eye(3) - h * strain)
        )
        return (plus - minus) / (2 * h)

    second_order(difference, -jnp.einsum("abc,ab->c", small.rows.virial, strain), 2e-3)


# --- what invariance implies ------------------------------------------------------------------


def test_force_rows_sum_to_zero_and_virial_rows_are_symmetric(vacancy):
    """Every function by itself is invariant under translation and rotation."""
    forces, virial = vacancy.rows.forces, vacancy.rows.virial
    size = np.max(np.abs(forces), axis=(0, 1))
    assert np.all(np.abs(forces.sum(axis=0)) <= 1e-12 * np.max(size))
    close(virial, np.swapaxes(virial, 0, 1))


def test_force_constant_rows_are_symmetric_and_obey_the_acoustic_sum_rule(small):
    """Phi_iajb = Phi_jbia (all atoms are displaced) and sum_j Phi_iajb = 0, by function."""
    phi = np.asarray(small.rows.force_constants[:, :, : small.n])
    close(phi, np.transpose(phi, (2, 3, 0, 1, 4)))
    assert np.max(np.abs(phi.sum(axis=2))) <= 1e-12 * np.max(np.abs(phi))


def test_rotation_rotates_the_rows(vacancy):
    """Energy rows are scalars, force rows vectors, the others tensors; improper ones included."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    graph = moved(vacancy.graph, vacancy.graph.positions @ q.T, vacancy.graph.cell @ q.T)
    rows = design_rows(vacancy.spec, graph, KINDS, atoms=PAIR)
    close(rows.energy, vacancy.rows.energy)
    close(rows.forces, np.einsum("ab,ibc->iac", q, vacancy.rows.forces))
    close(rows.virial, np.einsum("ab,de,bec->adc", q, q, vacancy.rows.virial))
    phi = np.einsum("ab,de,ibjec->iajdc", q, q, vacancy.rows.force_constants)
    close(rows.force_constants, phi)


def test_doubling_the_cell_doubles_the_rows(small):
    """Energies and virials double, forces repeat, force constants fold back over the images."""
    doubled = supercell(small.structure, (1, 1, 2))
    rows = design_rows(small.spec, graph_of(doubled), KINDS, atoms=PAIR)
    n = small.n
    close(rows.energy, 2 * small.rows.energy)
    close(rows.virial, 2 * small.rows.virial)
    close(rows.forces[: 2 * n], np.tile(small.rows.forces[:n], (2, 1, 1)))
    phi = rows.force_constants[:, :, : 2 * n]
    close(phi[:, :, :n] + phi[:, :, n:], small.rows.force_constants[:, :, :n])


# --- edges of the tables ----------------------------------------------------------------------


def test_padding_atoms_have_no_rows(vacancy):
    forces, force_constants = vacancy.rows.forces, vacancy.rows.force_constants
    assert not np.any(forces[vacancy.n :]) and not np.any(force_constants[:, :, vacancy.n :])


def test_buckets_and_skin_change_nothing():
    """Another padded shape, with edges beyond the cutoff, and a compilation with XLA's
    optimisations, as users have it."""
    case = case_of("four factors", small_cell)
    wide = build_graph(case.structure, R_CUT, skin=1.2, n_atoms=3)
    assert wide.edge_mask.shape != case.graph.edge_mask.shape
    assert np.sum(wide.edge_mask) > np.sum(case.graph.edge_mask)
    with optimised():
        rows = design_rows(case.spec, wide, ("energy", "forces", "virial"))
    close(rows.energy, case.rows.energy)
    close(rows.forces[: case.n], case.rows.forces[: case.n])
    close(rows.virial, case.rows.virial)


@pytest.mark.parametrize("n_atoms", [15, 23])
def test_chunks_change_nothing(n_atoms, monkeypatch):
    """Four atoms at a time: the last chunk overlaps the one before it where 15 atoms are all there
    are, and of 23 places the last seven are not visited."""
    case = case_of("two species", vacancy_cell)
    monkeypatch.setattr(ace_rows, "CACHE", 1)
    graph = build_graph(case.structure, R_CUT, n_atoms=n_atoms, n_neighbours=N_NEIGHBOURS)
    rows = design_rows(case.spec, graph, KINDS, atoms=PAIR)
    close(rows.energy, case.rows.energy)
    close(rows.virial, case.rows.virial)
    close(rows.forces[: case.n], case.rows.forces[: case.n])
    assert not np.any(rows.forces[case.n :])
    phi = rows.force_constants[:, :, : case.n]
    close(phi, case.rows.force_constants[:, :, : case.n])


@pytest.mark.parametrize("most, size", [(17, 17), (10, 9)], ids=["one chunk", "two chunks"])
def test_an_accelerator_makes_the_same_rows(most, size, monkeypatch):
    """Of 17 places: in one chunk, or in two of nine, of which the second begins one early. It has
    no branches and, with one chunk, no loop, at both of which it would wait for the host."""
    case = case_of("two species", vacancy_cell)
    graph = build_graph(case.structure, R_CUT, n_atoms=17, n_neighbours=N_NEIGHBOURS)
    gathered = 8 * N_NEIGHBOURS * ace_rows.adjoint_tables(case.spec).blocks[-1].entries.stop
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(ace_rows, "CACHE", gathered)
    monkeypatch.setattr(ace_rows, "ACCELERATOR", most)
    assert ace_rows._chunk_size(case.spec, graph, 1) == size
    make = jax.jit(lambda graph: ace_rows._first_order.__wrapped__(case.spec, graph))
    text = str(jax.make_jaxpr(make)(graph))
    assert "cond[" not in text and ("while[" in text) == (size < 17)
    energy, forces, virial = make(graph)
    close(energy, case.rows.energy)
    close(virial, case.rows.virial)
    close(forces[: case.n], case.rows.forces[: case.n])
    assert not np.any(forces[case.n :])


def test_nothing_jumps_when_a_neighbour_crosses_the_cutoff(small):
    """What an atom at r_cut - h adds to the rows of its neighbour falls as h^4 in the energy, h^3
    in forces and virial and h^2 in force constants: the powers of the envelope, less derivatives.

    "Adds": the difference to the rows of the same graph without that edge."""

    def added(h):
        positions = np.array([[0, 0, 0], [0.3, 0, R_CUT - h], [1.9, 0.4, -1.2], [-0.8, 1.5, -1.4]])
        positions[1] *= (R_CUT - h) / np.linalg.norm(positions[1])
        species = [small.spec.elements[i % len(small.spec.elements)] for i in range(4)]
        graph = graph_of(make_structure(positions, np.eye(3), species, False))
        crossing = graph.neighbours == jnp.array([1, 0] + [-1] * (N_ATOMS - 2))[:, None]
        mask = graph.edge_mask & ~crossing
        assert int(np.sum(graph.edge_mask) - np.sum(mask)) == 2
        rows = (
            design_rows(small.spec, g, KINDS, atoms=PAIR)
            for g in (graph, dataclasses.replace(graph, edge_mask=mask))
        )
        return [np.linalg.norm(a - b) for a, b in zip(*rows, strict=True)]

    ratios = np.array(added(0.004)) / np.array(added(0.002))
    np.testing.assert_allclose(np.log2(ratios), [4, 3, 3, 2], atol=0.05)


def test_rows_are_compiled_once_per_shape():
    small, vacancy = (case_of("four factors", make) for make in (small_cell, vacancy_cell))

    def compiled_with(case):
        design_rows(case.spec, case.graph, "energy")
        design_rows(case.spec, case.graph, ["force_constants"], atoms=[1, 0])
        return ace_rows._first_order._cache_size(), ace_rows._force_constants._cache_size()

    assert compiled_with(small) == compiled_with(vacancy)


# --- the door ---------------------------------------------------------------------------------


def test_design_rows_refuses():
    case = case_of("four factors", small_cell)
    unknown = graph_of(coloured(small_cell(), ("W", "Ta")))
    with pytest.raises(ValueError, match="unknown species: the structure has Ta"):
        design_rows(case.spec, unknown)
    for kinds in (("energy", "stress"), (), "heat"):
        with pytest.raises(ValueError, match="wanted one or more of"):
            design_rows(case.spec, case.graph, kinds)
    for atoms in ((2,), (-1,), (0.5,), 1):  # the third atom is padding
        with pytest.raises(ValueError, match="indices from 0 to 1"):
            design_rows(case.spec, case.graph, "force_constants", atoms=atoms)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        design_rows(case.spec, case.graph)
