"""Packs: structures of any sizes in one graph of a fixed shape, so that small cells cost no more
per atom than large ones, and hundreds of sizes compile once.

A pack is a `Graph` like any other. Its atoms are those of its structures, one after the other, and
no edge leads from one structure to another. Its cell is a cube of 1 Å and its shifts are the places
of the images, in Å: so every potential that looks at a graph's edges and species takes it as it is,
with site energies E_i and, for each structure s,

    E_s = sum_(i in s) E_i,    F_i as they are,    W_s = -dE / d(strain_s) .
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, bucket

ATOMS = {"cpu": 256, "accelerator": 4096}
"""Atoms of a pack: a choice. A CPU has its caches filled by few; an accelerator wants many."""
ATOMS_PER_STRUCTURE = 4
"""A pack has room for one structure per so many atoms: a choice. With more, packs of cells of two
atoms would be emptier; with fewer, empty places cost more to be carried along."""
TILE = 8
"""Atoms of one structure that are summed in one product: a choice."""

Item = TypeVar("Item")


class Room(NamedTuple):
    """How much goes into a pack: n atoms, padding included, of at most S structures."""

    atoms: int
    structures: int


ALONE = Room(0, 1)
"""For structures that are to have packs, and shapes, of their own."""


def common_room() -> Room:
    """The room of packs on the default device."""
    atoms = ATOMS["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    return Room(atoms, atoms // ATOMS_PER_STRUCTURE)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """At most S structures in one graph of n atoms, padding included."""

    graph: Graph
    owner: jax.Array  # (n,) int32, which structure an atom is of; S on padding atoms
    sizes: jax.Array  # (S,) int32, how many atoms each structure has; 0 where there is none

    def sums(self, values: jax.Array) -> jax.Array:
        """Sums over the atoms of each structure: (n, ...) to (S, ...)."""
        return jax.ops.segment_sum(values, self.owner, len(self.sizes), indices_are_sorted=True)

    def strained(self, strains: jax.Array) -> Graph:
        """The graph with every structure under a strain of its own, x -> (1 + strain) x.

        Args:
            strains: (S, 3, 3), dimensionless, of any symmetry.

        Returns:
            The graph, its edges the same.
        """
        own = strains.at[self.owner].get(mode="fill", fill_value=0.0)
        shifts = self.graph.shifts
        return dataclasses.replace(
            self.graph,
            positions=self.graph.positions + jnp.einsum("iab,ib->ia", own, self.graph.positions),
            shifts=shifts + jnp.einsum("iab,ikb->ika", own, shifts),
        )

    def tiles(self) -> tuple[jax.Array, jax.Array]:
        """The atoms of each structure, TILE at a time, for products that sum over them.

        Returns:
            indices of atoms, (T, TILE), n where there is none; and the structure of each of the T
            tiles, (T,), S where there is none. T = n / TILE + S, rounded up, whatever the sizes.
        """
        n, s = len(self.owner), len(self.sizes)
        n_tiles = -(-n // TILE) + s
        tiles_of = -(-self.sizes // TILE)
        start = jnp.cumsum(self.sizes) - self.sizes
        first = jnp.cumsum(tiles_of) - tiles_of
        at = lambda x: x.at[self.owner].get(mode="fill", fill_value=0)  # noqa: E731
        place = jnp.arange(n) - at(start)
        tile = jnp.where(self.owner < s, at(first) + place // TILE, n_tiles)
        atoms = jnp.full((n_tiles, TILE), n).at[tile, place % TILE].set(jnp.arange(n), mode="drop")
        owners = jnp.full(n_tiles, s).at[tile].set(self.owner, mode="drop")
        return atoms, owners


def pack(graphs: Sequence[Graph], room: Room) -> Pack:
    """Graphs as one, on the host: arrays of NumPy, to be put on a device in one go.

    Args:
        graphs: of one number K of neighbours, padding included; their real atoms, and their
            structures, fit into the room.
        room: of which the atoms are rounded up to those of a structure that has more.

    Returns:
        The pack, of K neighbours, reaching as far as the shortest of the graphs.
    """
    graphs = jax.tree.map(np.asarray, list(graphs))
    sizes = np.array([np.count_nonzero(graph.atom_mask) for graph in graphs])
    total, n = int(sizes.sum()), capacity(graphs[0], int(sizes[0]), room)

    def together(of: Callable[[Graph], Any]) -> np.ndarray:
        """An array of every graph's real atoms, one after the other, and zeros behind."""
        parts = [of(graph)[:m] for graph, m in zip(graphs, sizes, strict=True)]
        parts.append(np.zeros((n - total, *parts[0].shape[1:]), parts[0].dtype))
        return np.concatenate(parts)

    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    edge_mask, neighbours = together(lambda g: g.edge_mask), together(lambda g: g.neighbours)
    neighbours[:total] += starts[:, None].astype(np.int32)
    found: dict[str, Any] = dict(
        positions=together(lambda g: g.positions),
        cell=np.eye(3),
        species=together(lambda g: g.species),
        neighbours=np.where(edge_mask, neighbours, 0),
        shifts=together(lambda g: g.shifts @ g.cell),
        edge_mask=edge_mask,
        atom_mask=np.arange(n) < total,
        reach=np.min([graph.reach for graph in graphs]),
    )
    owner = np.full(n, room.structures, np.int32)
    owner[:total] = np.repeat(np.arange(len(graphs), dtype=np.int32), sizes)
    slots = np.zeros(room.structures, np.int32)
    slots[: len(graphs)] = sizes
    arrays: tuple[Any, Any] = owner, slots
    return Pack(Graph(**found, pbc=(False, False, False)), *arrays)


def capacity(graph: Graph, n: int, room: Room) -> int:
    """Atoms of the pack that a graph of n real atoms goes into, padding included."""
    return len(graph.positions) if room == ALONE else max(room.atoms, bucket(n))


def gathered(
    items: Iterable[Item], room: Room, place: Callable[[Item], tuple[Hashable, int, int]]
) -> Iterator[list[Item]]:
    """Items put together as they come, those of one key, as many as there is room for.

    Args:
        items: of any kind.
        room: of a pack.
        place: of an item its key, its atoms, and the atoms of its pack.

    Yields:
        Lists of items of one key that fit into one pack; the last of each key may be short.
    """
    waiting: dict[Hashable, tuple[list[Item], int]] = {}
    for item in items:
        key, n, most = place(item)
        chunk, used = waiting.get(key, ([], 0))
        if chunk and (used + n > most or len(chunk) == room.structures):
            yield chunk
            chunk, used = [], 0
        chunk.append(item)
        waiting[key] = chunk, used + n
    for chunk, _ in waiting.values():
        yield chunk
