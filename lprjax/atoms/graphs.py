"""Graphs: who is within reach of whom, as one dense table per structure.

Index convention: edge (i, k) leads from atom i to atom j = neighbours[i, k] in the periodic image
shifts[i, k]; its vector is r_ij = r_j + shifts[i, k] @ cell - r_i. Every pair appears twice, in
the row of i and in the row of j. The search runs on the host; atoms and neighbours are padded
to a few sizes so that a sweep over structures compiles a handful of times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import vesin

from lprjax.atoms.structures import Pbc, Structure, check_geometry
from lprjax.numerics.checks import is_number, require_x64
from lprjax.numerics.host import namespace, on_device, on_host
from lprjax.numerics.memory import spare_maps

MAX_EXTENT = 500.0
"""Largest extent of a cluster, in cutoffs: a choice; far beyond it the search would overflow."""
MIN_DISTANCE = 0.1
"""Å; a choice: closer atoms are a mistake in the input, not physics."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A structure with its neighbours, padded to n atoms and K neighbours per atom.

    Real atoms come first, and so do the true edges of each row.

    Edges may be longer than a potential's cutoff (the skin): every potential vanishes beyond its
    own r_cut, and multiplies what it sums over edges by edge_mask.
    """

    positions: jax.Array  # (n, 3) Å
    cell: jax.Array  # (3, 3) Å
    species: jax.Array  # (n,) int32 atomic numbers, 0 on padding atoms
    neighbours: jax.Array  # (n, K) int32, 0 on padded slots
    shifts: jax.Array  # (n, K, 3) float64, integers
    edge_mask: jax.Array  # (n, K) bool
    atom_mask: jax.Array  # (n,) bool
    reach: jax.Array  # () Å, how far the neighbours were searched: r_cut + skin
    # three bools, periodic along each lattice vector; static under `jit`
    pbc: Pbc = dataclasses.field(metadata={"static": True})

    def vectors(self) -> jax.Array:
        """r_ij, (n, K, 3) Å; (1, 0, 0) on padded slots, so that no root is taken of zero."""
        xp = namespace(self)
        g = self if xp is jnp else jax.tree.map(np.asarray, self)
        ends = g.positions[g.neighbours] + g.shifts @ g.cell
        padding = np.array([[[1.0, 0.0, 0.0]]], dtype=ends.dtype)
        vectors = xp.where(g.edge_mask[..., None], ends - g.positions[:, None, :], padding)
        return on_device(vectors)

    def neighbour_counts(self) -> jax.Array:
        """Number of true edges of each atom, (n,) int32; 0 on padding atoms."""
        return on_device(on_host(self.edge_mask).sum(axis=-1, dtype=np.int32))


def bucket(n: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, ... (2^k and 3 * 2^(k-1)) that is >= n."""
    if n <= 1:
        return 1
    power = 1 << (n - 1).bit_length()
    return 3 * power // 4 if n <= 3 * power // 4 else power


def neighbour_bucket(n: int) -> int:
    """The smallest of 8, 16, ..., 64, 80, ..., 128, 160, ... (a quarter more at most) that is >= n.

    Finer than a `bucket`: of single graphs edges soon cost more than a compilation.
    """
    n = max(n, 1)
    step = max(8, (1 << (n - 1).bit_length()) // 8)
    return step * -(-n // step)


def moved(graph: Graph, positions: jax.Array | None = None, cell: jax.Array | None = None) -> Graph:
    """The same edges with new positions and/or a new cell.

    Right as long as no pair came into reach that the graph does not hold: build it with a skin of
    at least twice the largest displacement. May be traced.

    Args:
        graph: of n atoms, padding included.
        positions: (n, 3) Å; None leaves them.
        cell: (3, 3) Å; None leaves it.

    Returns:
        The graph with these changes.

    Raises:
        ValueError: positions or a cell of another shape.
    """
    given = {"positions": positions, "cell": cell}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        if jnp.shape(value) != getattr(graph, name).shape:
            raise ValueError(
                f"{name} have shape {jnp.shape(value)}: wanted {getattr(graph, name).shape}, "
                "padding included; a graph keeps its atoms, so build another one for others."
            )
    return dataclasses.replace(graph, **changes)


def _edges(
    positions: np.ndarray, cell: np.ndarray, pbc: Pbc, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges (i, j, shift) shorter than reach, sorted by i."""
    extent = _extent(positions, cell, pbc)
    if extent > MAX_EXTENT * reach:  # the cells of the search would overflow
        raise ValueError(
            f"extent of the atoms is {extent:.3g} Å across the periodic directions: "
            f"wanted at most {MAX_EXTENT:g} times the cutoff of {reach:g} Å; check the units of "
            "the positions, or treat the parts as structures of their own."
        )
    # One thread keeps the order of the edges, and so the rounding of every sum, reproducible.
    search = vesin.NeighborList(cutoff=reach, full_list=True, sorted=True, n_threads=1)
    i, j, shifts, distances = search.compute(*_aligned(positions, cell, pbc), np.array(pbc), "ijSd")
    i, j = i.astype(np.int64), j.astype(np.int64)
    if distances.size and distances.min() < MIN_DISTANCE:
        e = int(distances.argmin())
        raise ValueError(
            f"distance of atoms {i[e]} and {j[e]} (image {shifts[e].tolist()}) is "
            f"{distances[e]:.3g} Å: wanted at least {MIN_DISTANCE} Å; check for duplicated atoms, "
            "fractional coordinates passed as Cartesian ones, or units other than Å."
        )
    return i, j, shifts


def _extent(positions: np.ndarray, cell: np.ndarray, pbc: Pbc) -> float:
    """How far the atoms reach across the periodic directions, Å: in the space normal to these."""
    across = _frame(cell, pbc)[sum(pbc) :]
    return float(np.ptp(positions @ across.T, axis=0).max(initial=0.0))


def _frame(cell: np.ndarray, pbc: Pbc) -> np.ndarray:
    """An orthonormal basis as rows, first of the space that the periodic vectors span."""
    return np.linalg.svd(cell[np.array(pbc)].reshape(-1, 3))[2]


def _aligned(positions: np.ndarray, cell: np.ndarray, pbc: Pbc) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell turned so that a vector without period lies along its own axis.

    The search measures how far atoms reach along the k-th vector by their k-th coordinates.
    """
    periodic = np.array(pbc)
    if not cell[np.ix_(periodic, ~periodic)].any():
        return positions, cell
    axes = np.empty((3, 3))
    axes[np.concatenate([np.flatnonzero(periodic), np.flatnonzero(~periodic)])] = _frame(cell, pbc)
    return positions @ axes.T, np.where(periodic[:, None], cell @ axes.T, np.eye(3))


def _padded_size(name: str, wanted: int | None, needed: int, default: int) -> int:
    if wanted is None:
        return default
    if wanted < needed:
        raise ValueError(
            f"{name} is {wanted}: wanted at least {needed}, which this structure needs; "
            f"leave it out for the bucket {default}."
        )
    return int(wanted)


def build_graph(
    structure: Structure,
    r_cut: float,
    *,
    skin: float = 0.0,
    n_atoms: int | None = None,
    n_neighbours: int | None = None,
) -> Graph:
    """All pairs, periodic images included, closer than r_cut + skin.

    Cells smaller than the cutoff, skewed cells and mixed periodicity are all right: an atom may be
    its own neighbour in an image, and two atoms may share several edges.

    Args:
        structure: not traced; the search runs on the host.
        r_cut: cutoff, Å, > 0.
        skin: how much further neighbours are searched, Å, >= 0.
        n_atoms: padded number of atoms; by default the `bucket`. Give a whole data set the same
            one to compile once.
        n_neighbours: padded number of neighbours; by default the `neighbour_bucket`. Likewise.

    Returns:
        The graph, reaching as far as r_cut + skin.

    Raises:
        RuntimeError: without float64.
        ValueError: a cutoff that is not positive, positions or cell that are not finite, a
            singular cell, atoms less than 0.1 Å apart (names the pair), a cluster of more than 500
            cutoffs, or sizes too small for the structure.
    """
    graph = host_graph(structure, r_cut, skin, n_atoms, n_neighbours)
    if n_neighbours is None:
        n, most = len(graph.positions), int(graph.edge_mask.sum(axis=1).max())
        graph = _resized(graph, n, neighbour_bucket(most))
    # `jnp.asarray` would compile a copy for every shape.
    return jax.device_put(graph)


def host_graph(
    structure: Structure,
    r_cut: float,
    skin: float = 0.0,
    n_atoms: int | None = None,
    n_neighbours: int | None = None,
) -> Graph:
    """The graph of `build_graph`, of NumPy arrays: for what goes on to work on the host.

    Args:
        structure: as in `build_graph`.
        r_cut: as in `build_graph`.
        skin: as in `build_graph`.
        n_atoms: as in `build_graph`.
        n_neighbours: as in `build_graph`; by default 8, 16, 24, 32, 48, 64, 96, ... (8 times a
            `bucket`), so that the graphs of a data set have few shapes.

    Returns:
        The graph.

    Raises:
        RuntimeError, ValueError: as `build_graph`.
    """
    require_x64()
    spare_maps()
    if not (is_number(r_cut) and r_cut > 0):
        raise ValueError(f"r_cut is {r_cut!r}: wanted a positive length in Å, e.g. r_cut=5.0.")
    if not (is_number(skin) and skin >= 0):
        raise ValueError(f"skin is {skin!r}: wanted a length >= 0 in Å.")
    positions, cell = check_geometry(structure.positions, structure.cell)
    i, j, shifts = _edges(positions, cell, structure.pbc, float(r_cut + skin))

    n = len(positions)
    counts = np.bincount(i, minlength=n)
    n_pad = _padded_size("n_atoms", n_atoms, n, bucket(n))
    most = int(counts.max())
    k_pad = _padded_size("n_neighbours", n_neighbours, most, 8 * bucket(-(-most // 8)))

    slot = np.arange(len(i)) - (np.cumsum(counts) - counts)[i]
    neighbour_table = np.zeros((n_pad, k_pad), dtype=np.int32)
    shift_table = np.zeros((n_pad, k_pad, 3))
    edge_mask = np.zeros((n_pad, k_pad), dtype=bool)
    neighbour_table[i, slot] = j
    shift_table[i, slot] = shifts
    edge_mask[i, slot] = True

    extra = n_pad - n
    found: dict[str, Any] = dict(
        positions=np.pad(positions, ((0, extra), (0, 0))),
        cell=cell,
        species=np.pad(np.asarray(structure.species, dtype=np.int32), (0, extra)),
        neighbours=neighbour_table,
        shifts=shift_table,
        edge_mask=edge_mask,
        atom_mask=np.arange(n_pad) < n,
        reach=np.float64(r_cut + skin),
    )
    return Graph(**found, pbc=structure.pbc)


def build_graphs(structures: Sequence[Structure], r_cut: float, *, shapes: int = 1) -> list[Graph]:
    """The graphs of a data set, or of a sweep over cells, in few shapes.

    What is compiled for one graph serves all of its shape. Cells are put together by size, so that
    atoms of padding are fewest. In each shape n is the largest number of atoms, K the largest
    number of neighbours, rounded up to eights.

    Args:
        structures: at least one.
        r_cut: cutoff, Å, > 0.
        shapes: how many shapes there may be, >= 1; more of them pad cells of different sizes less.

    Returns:
        The graphs, in the order of the structures.

    Raises:
        RuntimeError: as `build_graph`.
        ValueError: no structures or shapes, and as `build_graph`.
    """
    if not structures or shapes < 1:
        what = "structures is empty" if not structures else f"shapes is {shapes}"
        raise ValueError(f"{what}: wanted at least one.")
    graphs = [host_graph(structure, r_cut) for structure in structures]
    sizes = np.array([structure.n_atoms for structure in structures])
    most = np.array([int(graph.edge_mask.sum(axis=1).max()) for graph in graphs])
    shape_of = np.searchsorted(_largest_of_each(sizes, shapes), sizes)
    resized = {}
    for shape in np.unique(shape_of):
        mine = np.flatnonzero(shape_of == shape)
        n, k = int(sizes[mine].max()), 8 * max(1, -(-int(most[mine].max()) // 8))
        resized |= {i: _resized(graphs[i], n, k) for i in mine}
    return jax.device_put([resized[i] for i in range(len(graphs))])


def _largest_of_each(sizes: np.ndarray, shapes: int) -> np.ndarray:
    """The largest size of each of at most `shapes` groups, ascending, with the least padding."""
    distinct, counts = np.unique(sizes, return_counts=True)
    upto = np.cumsum(counts)
    cuts = combinations(range(len(distinct) - 1), min(shapes, len(distinct)) - 1)
    last = np.array([(*cut, len(distinct) - 1) for cut in cuts])
    padded = np.sum(distinct[last] * np.diff(upto[last], axis=1, prepend=0), axis=1)
    return distinct[last[np.argmin(padded)]]


def _resized(graph: Graph, n: int, k: int) -> Graph:
    """Padding cut or added: real atoms, and the true edges of each, come first."""

    def resized(x: Any, *shape: int) -> np.ndarray:
        x = np.asarray(x)[tuple(slice(size) for size in shape)]
        rest = [(0, 0)] * (x.ndim - len(shape))
        missing = [(0, size - had) for size, had in zip(shape, x.shape, strict=False)]
        return np.pad(x, missing + rest)

    by_atom = {name: resized(getattr(graph, name), n) for name in _BY_ATOM}
    by_edge = {name: resized(getattr(graph, name), n, k) for name in _BY_EDGE}
    return dataclasses.replace(graph, **by_atom, **by_edge)


_BY_ATOM = ("positions", "species", "atom_mask")
_BY_EDGE = ("neighbours", "shifts", "edge_mask")
