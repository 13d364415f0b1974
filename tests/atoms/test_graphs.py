"""Graphs against a brute-force search over images and against ASE; padding; the errors."""

import dataclasses
from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list

from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import (
    Graph,
    bucket,
    build_graph,
    build_graphs,
    host_graph,
    moved,
    neighbour_bucket,
)
from lprjax.atoms.structures import (
    Structure,
    bcc,
    diamond,
    fcc,
    make_structure,
    rattled,
    simple_cubic,
    square,
    strained,
    supercell,
)
from lprjax.potentials import stillinger_weber, zhou_eam
from lprjax.potentials.observables import observe

R_CUT = 4.0


def edge_set(graph: Graph) -> set[tuple[int, ...]]:
    """The edges as (i, j, s1, s2, s3); asserts that none is listed twice."""
    mask = np.asarray(graph.edge_mask)
    rows = np.nonzero(mask)[0]
    table = np.column_stack(
        [rows, np.asarray(graph.neighbours)[mask], np.asarray(graph.shifts)[mask].astype(int)]
    )
    edges = {tuple(row) for row in table.tolist()}
    assert len(edges) == len(table)
    return edges


def brute_force(structure: Structure, reach: float) -> set[tuple[int, ...]]:
    """Every image that could matter, one by one.

    Along lattice direction k the planes of the cell are 1 / |b_k| apart (b_k the columns of the
    inverse cell), so |s_k| is at most reach |b_k| plus the spread of the fractional coordinates.
    """
    positions, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    inverse = np.linalg.inv(cell)
    most = reach * np.linalg.norm(inverse, axis=0) + np.ptp(positions @ inverse, axis=0)
    most = np.where(structure.pbc, most.astype(int) + 1, 0)
    edges = set()
    for index in np.ndindex(*(2 * most + 1)):
        shift = np.array(index) - most
        for i, j in np.ndindex(len(positions), len(positions)):
            distance = np.linalg.norm(positions[j] + shift @ cell - positions[i])
            if distance < reach and (i != j or shift.any()):
                edges.add((i, j, *shift.tolist()))
    return edges


def random_structure(seed: int) -> Structure:
    """Up to four atoms, also far outside a small skewed cell, any of the eight periodicities."""
    rng = np.random.default_rng(seed)
    while True:
        cell = np.diag(rng.uniform(1.5, 4.0, 3)) + 0.7 * rng.normal(size=(3, 3))
        fractional = rng.uniform(-1.0, 1.0, (rng.integers(1, 5), 3)) * rng.choice([1.0, 3.0])
        pbc = [bool(seed >> k & 1) for k in range(3)]
        structure = make_structure(fractional @ cell, cell, "W", pbc)
        if abs(np.linalg.det(cell)) > 4.0 and brute_force(structure, 0.3) == set():
            return structure


def lennard_jones(graph: Graph, r_cut: float = R_CUT) -> jax.Array:
    """Site energies of a pair potential with a smooth end, as every potential of the library."""
    r = jnp.linalg.norm(graph.vectors(), axis=-1)
    inside = graph.edge_mask & (r < r_cut)
    x = jnp.where(inside, r, 1.0) / 2.2
    envelope = (1.0 - (x * 2.2 / r_cut) ** 2) ** 4
    return 0.5 * jnp.where(inside, (x**-12 - x**-6) * envelope, 0.0).sum(axis=-1)


@jax.jit
def energy_forces(graph: Graph) -> tuple[jax.Array, jax.Array]:
    energy, slope = jax.value_and_grad(lambda r: lennard_jones(moved(graph, r)).sum())(
        graph.positions
    )
    return energy, -slope


def disordered(seed: int = 0) -> Structure:
    """Five atoms of two species in a skewed cell that is smaller than the cutoff."""
    cell = np.array([[5.0, 0.3, 0.0], [1.5, 4.5, 0.2], [-0.8, 0.9, 4.0]])
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.1], [0.5, 0, 0.5], [0, 0.5, 0.6], [0.2, 0.2, 0.4]])
    structure = make_structure(sites @ cell, cell, [74, 74, 41, 41, 74])
    return rattled(structure, jax.random.key(seed), 0.05)


@pytest.mark.parametrize("seed", range(24))
def test_edges_are_those_of_the_brute_force_search(seed):
    structure = random_structure(seed)
    reach = 2.0 + 0.1 * seed
    assert edge_set(build_graph(structure, reach)) == brute_force(structure, reach)


@pytest.mark.parametrize("seed", range(16))
def test_edges_are_those_of_ase(seed):
    """Small cells with many images, and (last eight) large ones where the search bins atoms."""
    structure = random_structure(seed)
    if seed >= 8:
        m = tuple(6 if periodic else 1 for periodic in structure.pbc)
        structure = rattled(supercell(structure, m), jax.random.key(seed), 0.02)
    i, j, shifts = primitive_neighbor_list(
        "ijS",
        structure.pbc,
        np.asarray(structure.cell),
        np.asarray(structure.positions),
        5.0,
    )
    expected = {tuple(row) for row in np.column_stack([i, j, shifts]).tolist()}
    assert edge_set(build_graph(structure, 5.0)) == expected


def test_every_edge_has_its_reverse_and_the_vector_it_claims():
    structure = disordered()
    graph = build_graph(structure, R_CUT)
    edges = edge_set(graph)
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in edges} == edges
    vectors, mask = np.asarray(graph.vectors()), np.asarray(graph.edge_mask)
    r, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    for i, k in np.argwhere(mask):
        j, shift = graph.neighbours[i, k], np.asarray(graph.shifts[i, k])
        np.testing.assert_allclose(vectors[i, k], r[j] + shift @ cell - r[i], atol=1e-13)
    lengths = np.linalg.norm(vectors, axis=-1)
    assert lengths[mask].max() < R_CUT
    np.testing.assert_array_equal(vectors[~mask], np.tile([1.0, 0.0, 0.0], ((~mask).sum(), 1)))
    assert (~mask).any()
    np.testing.assert_array_equal(graph.neighbour_counts(), mask.sum(axis=1))
    assert not (mask[:, 1:] & ~mask[:, :-1]).any()  # true edges come first


# Neighbours up to the third shell, and the first distance in units of a (any textbook).
SHELLS = {bcc: (26, 3**0.5 / 2, 1.6), fcc: (42, 0.5**0.5, 1.3), diamond: (28, 3**0.5 / 4, 0.9)}
SHELLS |= {simple_cubic: (26, 1.0, 1.8)}


@pytest.mark.parametrize("options", [{}, {"primitive": True}])
@pytest.mark.parametrize("crystal", SHELLS)
def test_crystals_have_their_coordination_shells(crystal, options):
    count, first, reach = SHELLS[crystal]
    options = {} if crystal is simple_cubic else options  # its cube is primitive
    graph = build_graph(crystal("W", 3.0, **options), reach * 3.0)
    n = int(graph.atom_mask.sum())
    assert graph.neighbour_counts()[:n].tolist() == [count] * n
    lengths = jnp.linalg.norm(graph.vectors(), axis=-1)[graph.edge_mask]
    assert float(lengths.min()) == pytest.approx(first * 3.0, rel=1e-14)


def test_square_lattice_has_no_neighbours_out_of_its_plane():
    graph = build_graph(square("Cu", 2.5), 2.5 * 2.1)
    assert graph.neighbour_counts().tolist() == [12]
    assert not np.asarray(graph.vectors())[..., 2].any()


def test_large_cell_of_tungsten():
    """8192 atoms, five shells (8 + 6 + 12 + 24 + 8) within 6.13 Å; a table, not a loop."""
    graph = build_graph(supercell(bcc("W", 3.165), (16, 16, 16)), 6.13)
    assert graph.neighbours.shape == (8192, 64)
    assert (graph.neighbour_counts() == 58).all()


def test_isolated_atoms_have_no_edges():
    graph = build_graph(make_structure([[0, 0, 0], [9, 0, 0]], np.eye(3), "W", False), 3.0)
    assert graph.neighbour_counts().tolist() == [0, 0]
    energy, forces = energy_forces(graph)
    assert energy == 0.0 and not forces.any()


@jax.jit
def stiffness_along(graph: Graph, direction: jax.Array) -> jax.Array:
    """The Hessian times a displacement of all atoms, (n, 3)."""

    def forces(positions):
        return energy_forces(moved(graph, positions))[1]

    return -jax.jvp(forces, (graph.positions,), (direction,))[1]


def test_padding_changes_nothing():
    """Energy and its derivatives to rounding: the padded sums only gain exact zeros."""
    structure = disordered()
    tight = build_graph(structure, R_CUT, n_atoms=5, n_neighbours=50)
    energy, forces = energy_forces(tight)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    stiffness = stiffness_along(tight, direction)
    for n, k in ((6, 56), (11, 97)):
        graph = build_graph(structure, R_CUT, n_atoms=n, n_neighbours=k)
        assert graph.neighbours.shape == (n, k)
        assert graph.atom_mask.tolist() == [True] * 5 + [False] * (n - 5)
        assert graph.species.tolist() == [74, 74, 41, 41, 74] + [0] * (n - 5)
        padded_energy, padded_forces = energy_forces(graph)
        assert float(padded_energy) == pytest.approx(float(energy), rel=1e-13)
        np.testing.assert_allclose(padded_forces[:5], forces, atol=1e-13 * jnp.abs(forces).max())
        np.testing.assert_array_equal(padded_forces[5:], 0.0)
        push = jnp.ones((n, 3)).at[:5].set(direction)
        padded_stiffness = stiffness_along(graph, push)
        largest = jnp.abs(stiffness).max()
        np.testing.assert_allclose(padded_stiffness[:5], stiffness, atol=1e-13 * largest)
        np.testing.assert_array_equal(padded_stiffness[5:], 0.0)


def test_energy_is_extensive_and_blind_to_the_choice_of_cell():
    """Three cells of one crystal: the supercell, a sheared basis, atoms moved by whole cells."""
    structure = disordered()
    energy = float(energy_forces(build_graph(structure, R_CUT))[0])
    repeated = float(energy_forces(build_graph(supercell(structure, (1, 2, 1)), R_CUT))[0])
    assert repeated == pytest.approx(2 * energy, rel=1e-12)
    basis = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]])  # determinant 1
    sheared = dataclasses.replace(structure, cell=basis @ structure.cell)
    assert float(energy_forces(build_graph(sheared, R_CUT))[0]) == pytest.approx(energy, rel=1e-12)
    hops = np.random.default_rng(0).integers(-3, 4, (5, 3)) @ np.asarray(structure.cell)
    hopped = dataclasses.replace(structure, positions=structure.positions + hops)
    assert float(energy_forces(build_graph(hopped, R_CUT))[0]) == pytest.approx(energy, rel=1e-12)


def test_moved_graph_is_the_graph_of_the_moved_structure():
    """With a skin of twice the displacement every pair that comes into reach is held already."""
    structure = disordered()
    strain = np.array([[0.01, 0.004, 0.0], [-0.003, -0.02, 0.001], [0.002, 0.0, 0.005]])
    target = strained(rattled(structure, jax.random.key(5), 0.05), strain)
    graph = build_graph(structure, R_CUT, skin=0.8)
    padded = jnp.pad(target.positions, ((0, len(graph.positions) - 5), (0, 0)))
    carried = jax.jit(moved)(graph, padded, target.cell)
    np.testing.assert_array_equal(carried.neighbours, graph.neighbours)
    fresh = build_graph(target, R_CUT)
    assert int(fresh.edge_mask.sum()) < int(graph.edge_mask.sum())
    for old, new in zip(energy_forces(carried), energy_forces(fresh), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-12 * jnp.abs(new).max())
    assert moved(graph).cell is graph.cell


def test_rows_are_reproducible():
    structure = rattled(supercell(bcc("W", 3.2), (5, 5, 5)), jax.random.key(0), 0.1)
    first, second = (build_graph(structure, 6.0) for _ in range(2))
    np.testing.assert_array_equal(first.neighbours, second.neighbours)
    np.testing.assert_array_equal(first.shifts, second.shifts)


def test_buckets_are_few_and_waste_under_a_third():
    sizes = range(1, 3000)
    buckets = [bucket(n) for n in sizes]
    assert sorted(set(buckets))[:8] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert len(set(buckets)) <= 2 * 12  # two per doubling
    assert all(n <= b < 1.5 * n or n == b for n, b in zip(sizes, buckets, strict=True))
    tables = [neighbour_bucket(n) for n in range(200)]
    assert sorted(set(tables)) == [*range(8, 64, 8), *range(64, 128, 16), *range(128, 225, 32)]
    assert all(n <= b < max(n + 8, 1.25 * n) or n == 0 for n, b in enumerate(tables))


def test_sets_have_fewer_sizes_of_row_than_single_graphs():
    """Bcc has 26 and, compressed, 50 neighbours within 4.6 Å."""
    for lattice, slots, of_sets in ((3.165, 32, 32), (2.7, 56, 64)):
        cell = bcc("W", lattice)
        alone, one_of_many = build_graph(cell, 4.6), host_graph(cell, 4.6)
        most = int(alone.neighbour_counts().max())
        assert (alone.neighbours.shape[1], one_of_many.neighbours.shape[1]) == (slots, of_sets)
        assert most <= slots and one_of_many.edge_mask.sum() == alone.edge_mask.sum()
        for name in ("neighbours", "shifts", "edge_mask"):
            ours, theirs = (np.asarray(getattr(g, name)) for g in (alone, one_of_many))
            np.testing.assert_array_equal(ours, theirs[:, :slots])


def test_a_sweep_over_cells_compiles_a_handful_of_times():
    compiled = []

    @jax.jit
    def count(graph):
        compiled.append(graph.neighbours.shape)
        return graph.edge_mask.sum()

    def random_bcc(m):
        sites = np.stack([np.zeros(3), 0.5 * np.ones(3)]) + np.arange(m)[:, None, None] * [0, 1, 0]
        noise = np.random.default_rng(m).normal(scale=0.02, size=(2 * m, 3))
        return make_structure(3.2 * (sites.reshape(-1, 3) + noise), 3.2 * np.diag([1, m, 1]), "W")

    cells = [random_bcc(m) for m in range(1, 25)]  # 2 ... 48 atoms, up to 4 sizes of row
    for cell in cells:
        count(build_graph(cell, 4.8))
    atoms = {bucket(2 * m) for m in range(1, 25)}
    assert len(compiled) == len(set(compiled)) <= 2 * len(atoms) < len(cells)
    compiled.clear()
    for cell in cells[:6]:
        count(build_graph(cell, 4.8, n_atoms=100, n_neighbours=40))
    assert compiled == [(100, 40)]


@pytest.mark.parametrize("r_cut", [0.0, -1.0, np.nan, np.inf])
def test_a_cutoff_that_is_not_positive_is_refused(r_cut):
    with pytest.raises(ValueError, match=r"r_cut is .*: wanted a positive length in Å"):
        build_graph(bcc("W", 3.2), r_cut)


def test_bad_graphs_are_refused():
    unit = bcc("W", 3.2)
    with pytest.raises(ValueError, match="skin is -0.1: wanted a length >= 0"):
        build_graph(unit, 3.0, skin=-0.1)
    with pytest.raises(ValueError, match="n_atoms is 1: wanted at least 2, which this"):
        build_graph(unit, 3.0, n_atoms=1)
    with pytest.raises(ValueError, match="n_neighbours is 4: wanted at least 8,"):
        build_graph(unit, 3.0, n_neighbours=4)
    flat = dataclasses.replace(unit, cell=jnp.ones((3, 3)))
    with pytest.raises(ValueError, match="cell is .*singular"):
        build_graph(flat, 3.0)
    lost = dataclasses.replace(unit, positions=unit.positions.at[1, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"entry \(1, 0\) of positions is nan"):
        build_graph(lost, 3.0)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        build_graph(unit, 3.0)


def test_a_data_set_has_one_shape():
    """The graphs that `build_graph` makes with those sizes, bit for bit: some were cut to the
    shape, others padded."""
    data = [bcc("W", 3.16), supercell(fcc("Cu", 3.6), (2, 2, 1)), diamond("Si", 5.43)]
    graphs = build_graphs(data, R_CUT)
    assert {graph.neighbours.shape for graph in graphs} == {(16, 24)}  # fcc: 16 atoms, 18 in reach
    for structure, graph in zip(data, graphs, strict=True):
        alone = build_graph(structure, R_CUT, n_atoms=16, n_neighbours=24)
        jax.tree.map(np.testing.assert_array_equal, graph, alone)
    with pytest.raises(ValueError, match="structures is empty: wanted at least one"):
        build_graphs([], R_CUT)
    with pytest.raises(ValueError, match="shapes is 0: wanted at least one"):
        build_graphs(data, R_CUT, shapes=0)


def test_a_sweep_shares_few_shapes_with_the_least_padding():
    """All ways to part the sizes are tried by hand; each graph is still that of its structure."""
    sizes = (1, 2, 3, 4, 5, 1, 6)
    cells = [supercell(simple_cubic("W", 3.0), (m, 1, 1)) for m in sizes]
    for shapes in (1, 2, 3, 9):
        graphs = build_graphs(cells, R_CUT, shapes=shapes)
        found = [len(graph.positions) for graph in graphs]
        assert len(set(found)) <= shapes
        every = [set(part) for part in product(sorted(set(sizes)), repeat=min(shapes, 3))]
        least = min(
            sum(min(n for n in part if n >= m) for m in sizes)
            for part in every
            if max(part) == max(sizes)
        )
        assert sum(found) == least if shapes <= 3 else found == list(sizes)
        for cell, graph in zip(cells, graphs, strict=True):
            alone = build_graph(cell, R_CUT, n_atoms=len(graph.positions), n_neighbours=8)
            jax.tree.map(np.testing.assert_array_equal, graph, alone)


def test_overlapping_atoms_are_named_also_across_the_boundary():
    cell = 4.0 * np.eye(3)
    with pytest.raises(ValueError, match=r"distance of atoms 0 and 2 .* is 0 Å: wanted"):
        build_graph(make_structure([[0, 0, 0], [2, 2, 2], [0, 0, 0]], cell, "W"), 3.0)
    image = make_structure([[2, 2, 2], [0, 0, 0], [3.95, 0, 0]], cell, "W")
    with pytest.raises(ValueError, match=r"1 and 2 \(image \[-1, 0, 0\]\) is 0.05 Å:"):
        build_graph(image, 3.6)
    build_graph(dataclasses.replace(image, pbc=(False, True, True)), 3.6)
    with pytest.raises(ValueError, match=r"distance of atoms 0 and 0 \(image"):
        build_graph(make_structure([[0, 0, 0]], np.diag([0.05, 3.0, 3.0]), "W"), 1.0)


def test_a_search_that_ends_short_of_the_cutoff_is_refused():
    """By every potential at its door: missing neighbours would be wrong numbers, not an error."""
    short = build_graph(bcc("W", 3.165), 4.0, skin=0.5)
    with pytest.raises(ValueError, match=r"up to 4\.5 Å, but the ACE basis reaches 5\.5 Å"):
        site_basis(ACESpec(("W",), order=1, degree=2, r_cut=5.5, r0=2.74), short)
    with pytest.raises(ValueError, match="ZhouEAM.*reaches.*build_graph"):
        observe(zhou_eam("W"), short, ("energy",))
    with pytest.raises(ValueError, match="StillingerWeber reaches"):
        observe(stillinger_weber(), build_graph(bcc("Si", 3.1), 3.0), ("energy",))


def test_atoms_spread_beyond_reason_are_refused():
    far = make_structure([[0, 0, 0], [1e4, 0, 0]], np.eye(3), "W", pbc=(False, False, False))
    with pytest.raises(ValueError, match=r"extent of the atoms is 1e\+04 Å.*units"):
        build_graph(far, 5.0)
    assert int(build_graph(far, 25.0).edge_mask.sum()) == 0


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_wire_has_its_neighbours_whichever_of_its_vectors_is_named_first(order):
    """Periodic along z, 3000 Å, with atoms 2.7 Å apart and 12.7 Å apart across the boundary."""
    vectors = np.array([[0, 0, 3000.0], [10.0, 0, 0], [0, 10.0, 0]])[list(order)]
    atoms = [[0, 0, 0], [0, 0, 2.7], [0, 0, 2990.0]]
    wire = make_structure(atoms, vectors, "W", np.array([True, False, False])[list(order)])
    graph = build_graph(wire, 5.0)
    assert graph.neighbour_counts()[:3].tolist() == [1, 1, 0]
    wide = build_graph(wire, 10.5)
    assert wide.neighbour_counts()[:3].tolist() == [2, 1, 1]
    lengths = np.linalg.norm(wide.vectors(), axis=-1)[np.asarray(wide.edge_mask)]
    np.testing.assert_allclose(np.sort(lengths), [2.7, 2.7, 10.0, 10.0], atol=1e-12)


def test_mixed_periodicity_is_right_however_the_crystal_is_turned():
    """Against ASE: skewed slabs and skewed wires, rotated at random."""
    compared = 0
    for seed in range(6):
        draw = np.random.default_rng(seed)
        cell = 5.0 * (np.eye(3) + 0.3 * draw.normal(size=(3, 3)))
        cell = cell @ np.linalg.qr(draw.normal(size=(3, 3)))[0]
        pbc = np.roll([True, seed % 2 == 0, False], seed)
        structure = make_structure(draw.uniform(size=(6, 3)) @ cell, cell, "W", pbc)
        try:
            graph = build_graph(structure, 6.0)
        except ValueError:  # atoms that chance put on top of each other
            continue
        i, d = primitive_neighbor_list(
            "id", pbc, cell, np.asarray(structure.positions), 6.0, self_interaction=False
        )
        ours = np.linalg.norm(graph.vectors(), axis=-1)[np.asarray(graph.edge_mask)]
        np.testing.assert_array_equal(np.bincount(i, minlength=6), graph.neighbour_counts()[:6])
        np.testing.assert_allclose(np.sort(ours), np.sort(d), atol=1e-10)
        compared += 1
    assert compared >= 4
