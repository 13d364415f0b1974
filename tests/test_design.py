"""Rows of the design are the derivatives of the observables, whatever the structure.

Two bases (one species with four factors, two species with three) and one padded shape for all
structures of a basis, so that each kind of row is compiled once per basis.
"""

import dataclasses
from functools import cache
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax import design
from lprjax.ace import linear_potential, site_basis
from lprjax.design import PerAtom, compress_structures, design_rows, stacked
from lprjax.neighbours import Graph, build_graph, moved
from lprjax.observables import KINDS, observe
from lprjax.spec import ACESpec
from lprjax.structures import Labels, Structure, bcc, make_structure, rattled, strained, supercell

R_CUT = 3.6
N_ATOMS, N_NEIGHBOURS = 16, 24
PAIR = (0, 1)  # the atoms that are displaced for the force constants

SPECS = {
    "four factors": ACESpec("W", 4, 7, R_CUT, 2.7),
    "two species": ACESpec(("W", "Mo"), 3, 5, R_CUT, 2.7),
}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """XLA's optimisations are half the time here; `test_buckets_…` compiles with them, as users do,
    and finds the same numbers."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def coloured(structure, elements):
    """The structure with the elements in turn, in a fixed disorder."""
    order = np.random.default_rng(4).permutation(structure.n_atoms)
    species = np.array([elements[i % len(elements)] for i in order])
    return make_structure(structure.positions, structure.cell, list(species), structure.pbc)


def small_cell():
    """Two atoms in a skewed cell narrower than the cutoff: each is its own neighbour."""
    skew = np.array([[0.02, 0.1, -0.05], [0.0, -0.03, 0.08], [0.04, 0.0, 0.06]])
    return rattled(strained(bcc("W", 3.16), skew), jax.random.key(1), 0.15)


def vacancy_cell():
    """Fifteen atoms round a vacancy, rattled."""
    perfect = supercell(bcc("W", 3.16), (2, 2, 2))
    defective = make_structure(perfect.positions[1:], perfect.cell, "W", True)
    return rattled(defective, jax.random.key(0), 0.1)


class Case(NamedTuple):
    spec: ACESpec
    structure: Structure
    graph: Graph
    rows: design.Rows

    @property
    def n(self):
        return self.structure.n_atoms


def graph_of(structure):
    return build_graph(structure, R_CUT, n_atoms=N_ATOMS, n_neighbours=N_NEIGHBOURS)


@cache
def case_of(name, make):
    spec = SPECS[name]
    structure = coloured(make(), spec.elements)
    graph = graph_of(structure)
    return Case(spec, structure, graph, design_rows(spec, graph, KINDS, atoms=PAIR))


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


def jacobian(spec, graph):
    """(energy, forces, virial) rows as the dense Jacobian of the summed site basis."""

    def total(positions, strain):
        deformation = jnp.eye(3) + strain
        strained = moved(graph, positions @ deformation.T, graph.cell @ deformation.T)
        return jnp.sum(site_basis(spec, strained), axis=0)

    at = graph.positions, jnp.zeros((3, 3))
    slopes = jax.jit(jax.jacfwd(total, (0, 1)))(*at)
    forces, virial = (-jnp.moveaxis(slope, 0, -1) for slope in slopes)
    return total(*at), forces, virial


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
    """Also for numbers of atoms that are no multiple of the kernel's chunks."""
    structure = coloured(small_cell(), spec.elements)
    graph = build_graph(structure, R_CUT, n_atoms=n_atoms, n_neighbours=N_NEIGHBOURS)
    rows = design_rows(spec, graph, ("energy", "forces", "virial"))
    assert rows.force_constants is None
    for found, expected in zip(rows[:3], jacobian(spec, graph), strict=True):
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
    """Another padded shape, with edges beyond the cutoff, and another compilation."""
    case = case_of("four factors", small_cell)
    wide = build_graph(case.structure, R_CUT, skin=1.2, n_atoms=3)
    assert wide.edge_mask.shape != case.graph.edge_mask.shape
    assert np.sum(wide.edge_mask) > np.sum(case.graph.edge_mask)
    jax.config.update("jax_disable_most_optimizations", False)
    rows = design_rows(case.spec, wide, ("energy", "forces", "virial"))
    jax.config.update("jax_disable_most_optimizations", True)
    close(rows.energy, case.rows.energy)
    close(rows.forces[: case.n], case.rows.forces[: case.n])
    close(rows.virial, case.rows.virial)


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
    compiled = design._first_order._cache_size(), design._force_constants._cache_size()
    for case in (small, vacancy):
        design_rows(case.spec, case.graph, "energy")
        design_rows(case.spec, case.graph, ["force_constants"], atoms=[1, 0])
    assert compiled == (design._first_order._cache_size(), design._force_constants._cache_size())


# --- stacking and compression -----------------------------------------------------------------


def random_labels(case, key, padded=False):
    """Labels of the real atoms that no potential made: any y will do."""
    rng, n = np.random.default_rng(key), N_ATOMS if padded else case.n
    shapes = ((), (n, 3), (3, 3), (len(PAIR), 3, n, 3))
    return Labels(*(rng.normal(size=shape) for shape in shapes))


def explicit(kind, value, n):
    """The rows (or labels) of one structure one scalar at a time, in the documented order."""
    value = np.asarray(value)
    if kind == "energy":
        return [value]
    if kind == "forces":
        return [value[i, a] for i in range(n) for a in range(3)]
    if kind == "virial":  # Voigt: xx, yy, zz, yz, xz, xy; one row per off-diagonal pair, their mean
        xx, yy, zz = (value[a, a] for a in range(3))
        return [xx, yy, zz, *((value[a, b] + value[b, a]) / 2 for a, b in ((1, 2), (0, 2), (0, 1)))]
    indices = product(range(len(PAIR)), range(3), range(n), range(3))
    return [value[index] for index in indices]


@pytest.mark.parametrize("kind", KINDS)
def test_stacking_is_the_documented_order(vacancy, kind):
    rows, labels = getattr(vacancy.rows, kind), getattr(random_labels(vacancy, 0), kind)
    x, y = stacked(kind, rows, vacancy.n), stacked(kind, labels, vacancy.n)
    np.testing.assert_array_equal(x, explicit(kind, rows, vacancy.n))
    np.testing.assert_array_equal(y, explicit(kind, labels, vacancy.n))
    assert (
        len(x) == len(y) == {"energy": 1, "forces": 45, "virial": 6, "force_constants": 270}[kind]
    )


def assert_same_problem(factor, x, y):
    """|X c - y|^2 = |R c - q|^2 + rho^2 for any c, and the same least-squares predictions as
    NumPy's. Columns are scaled first: Householder QR is stable column by column."""
    x, y = np.asarray(x), np.asarray(y)
    norms = np.linalg.norm(x, axis=0)
    scale = 1 / np.where(norms > 0, norms, 1)
    x, r = x * scale, np.asarray(factor.triangular) * scale
    q = np.asarray(factor.target)
    assert factor.n_rows == len(x) and not np.any(np.tril(r, -1))
    np.testing.assert_allclose(r.T @ r, x.T @ x, rtol=0, atol=1e-12)
    for c in np.random.default_rng(0).normal(size=(2, len(q))):
        kept = np.sum((r @ c - q) ** 2) + factor.residual
        assert kept == pytest.approx(np.sum((x @ c - y) ** 2), rel=1e-12)
    # The minimum has no bumps where sigma is above the cut of both, 1e-8; compare predictions.
    ours, theirs = (x @ np.linalg.lstsq(a, b, rcond=1e-8)[0] for a, b in ((r, q), (x, y)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.linalg.norm(y))


def test_compressed_structures_are_the_stacked_rows():
    """One factor per kind: that of all rows of all structures, in any order and block."""
    name = "four factors"
    cases = [case_of(name, make) for make in (vacancy_cell, small_cell, vacancy_cell)]
    samples = [(case.graph, random_labels(case, key)) for key, case in enumerate(cases)]
    factors = compress_structures(SPECS[name], iter(samples), KINDS, atoms=PAIR)
    assert list(factors) == list(KINDS)
    for kind in KINDS:
        x, y = [], []
        for case, (_, labels) in zip(cases, samples, strict=True):
            x += explicit(kind, getattr(case.rows, kind), case.n)
            y += explicit(kind, getattr(labels, kind), case.n)
        assert_same_problem(factors[kind], x, y)
    assert len(x) > 4 * SPECS[name].n_columns  # more than one block


def test_padded_labels_are_labels():
    case = case_of("four factors", small_cell)
    padded = random_labels(case, 0, padded=True)
    cut = padded._replace(
        forces=padded.forces[: case.n], force_constants=padded.force_constants[:, :, : case.n]
    )
    both = [
        compress_structures(case.spec, [(case.graph, labels)], KINDS, atoms=PAIR)
        for labels in (padded, cut)
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)


def energies(case, **options):
    """x and y of one energy, from a factor of one row: R^T R = x x^T and R^T q = x y."""
    samples = [(case.graph, Labels(energy=-3.5))]
    factor = compress_structures(case.spec, samples, "energy", **options)["energy"]
    row, target = np.asarray(factor.triangular[0]), float(factor.target[0])
    sign = np.sign(row @ np.asarray(case.rows.energy))
    return sign * row, sign * target


def test_reference_energies_are_subtracted(vacancy):
    """y = E - sum_i e0[z_i]; the row stays."""
    e0 = {"W": -8.0, "Mo": 3.0}
    n_w = int(np.sum(vacancy.structure.species == 74))
    row, target = energies(vacancy, reference_energies=e0)
    np.testing.assert_allclose(row, vacancy.rows.energy, rtol=1e-13, atol=1e-13)
    assert target == pytest.approx(-3.5 + 8.0 * n_w - 3.0 * (vacancy.n - n_w), rel=1e-13)
    assert energies(vacancy)[1] == pytest.approx(-3.5, rel=1e-13)


def test_energies_count_from_an_origin_per_atom(vacancy):
    """x - N x_0 and E - N e_0, the defect-minus-bulk difference."""
    origin = PerAtom(np.random.default_rng(0).normal(size=vacancy.spec.n_columns), -8.5)
    row, target = energies(vacancy, origin=origin)
    expected = vacancy.rows.energy - vacancy.n * origin.row
    sign = np.sign(row @ expected)
    np.testing.assert_allclose(sign * row, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert sign * target == pytest.approx(-3.5 + vacancy.n * 8.5, rel=1e-13)


# --- the door ---------------------------------------------------------------------------------


def test_design_rows_refuses():
    case = case_of("four factors", small_cell)
    strangers = graph_of(coloured(small_cell(), ("W", "Ta")))
    with pytest.raises(ValueError, match="unknown species: the structure has Ta"):
        design_rows(case.spec, strangers)
    for kinds in (("energy", "stress"), (), "heat"):
        with pytest.raises(ValueError, match="wanted one or more of"):
            design_rows(case.spec, case.graph, kinds)
    for atoms in ((2,), (-1,), (0.5,), 1):  # the third atom is padding
        with pytest.raises(ValueError, match="indices from 0 to 1"):
            design_rows(case.spec, case.graph, "force_constants", atoms=atoms)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        design_rows(case.spec, case.graph)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(energy=None), "structure 1 has no label 'energy'"),
        (dict(forces=None), "structure 1 has no label 'forces'"),
        (dict(energy=np.nan), "energy of structure 1 hold NaN"),
        (dict(energy=np.zeros(1)), r"energy of structure 1 have shape \(1,\); wanted \(\)"),
        (dict(forces=np.full((2, 3), np.inf)), "forces of structure 1 hold NaN or infinity"),
        (
            dict(forces=np.zeros((5, 3))),
            r"forces of structure 1 have shape \(5, 3\); wanted \(2, 3\)",
        ),
        (dict(virial=np.zeros(6)), r"virial of structure 1 have shape \(6,\); wanted \(3, 3\)"),
        (dict(force_constants=np.zeros((1, 3, 2, 3))), r"wanted \(2, 3, 2, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_named(changes, message):
    case = case_of("four factors", small_cell)
    good = random_labels(case, 0)
    samples = [(case.graph, labels) for labels in (good, good._replace(**changes))]
    with pytest.raises(ValueError, match=message):
        compress_structures(case.spec, samples, KINDS, atoms=PAIR)


def test_groups_that_make_no_factor_are_refused():
    case = case_of("two species", small_cell)
    with pytest.raises(ValueError, match="no structures arrived"):
        compress_structures(case.spec, iter([]))
    samples = [(case.graph, random_labels(case, 0))]
    with pytest.raises(ValueError, match=r"reference_energies lack \['Mo'\]"):
        compress_structures(case.spec, samples, reference_energies={"W": 1.0})
