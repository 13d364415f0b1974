"""Neighbours of moving atoms: looked for now and then, sorted out in every step, in few shapes.

Candidates are the pairs within r_cut + skin of each other. They hold all pairs within r_cut as long
as no two atoms can have come closer by more than the skin. Let F take the cell in which they were
looked for to the present one, r -> r F, and u_i be how far atom i is from where F alone would have
put it: a pair within r_cut now was then within

    (r_cut + 2 max |u_i|) |F^-1| ,

|.| the spectral norm, and new ones are looked for where that exceeds r_cut + skin. Inside `jit`
those that are within r_cut now make up the graph, of n atoms and K neighbours. So what is computed
does not depend on when candidates were looked for, and is continuous where they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, bucket, host_graph, neighbour_bucket
from lprjax.atoms.structures import Pbc, Structure
from lprjax.simulation.dynamics import packed

HEADROOM = 0.2
"""Room is made for the neighbours that come within reach if the cutoff grows by this, Å: a choice,
above what atoms move at room temperature."""
SPARE = 1.1
"""And room for so many times the candidates that there are: a choice."""
TOO_LARGE = 2
"""Room is given back where so many times less would do: a choice."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of n atoms, padding included, that may come within reach: M for each atom."""

    species: jax.Array  # (n,) int32, 0 on padding atoms
    atom_mask: jax.Array  # (n,) bool
    table: jax.Array  # (n, M) int32
    shifts: jax.Array  # (n, M, 3) float64, integers
    mask: jax.Array  # (n, M) bool
    pbc: Pbc = dataclasses.field(metadata={"static": True})

    def graph(
        self, positions: jax.Array, cell: jax.Array, r_cut: jax.Array, n_neighbours: int
    ) -> tuple[Graph, jax.Array]:
        """Those within reach, for use inside `jit`.

        Args:
            positions: (n, 3) Å.
            cell: (3, 3) Å.
            r_cut: () Å.
            n_neighbours: K, static.

        Returns:
            The graph, and how many neighbours the atom with most has, () int32. More than K: the
            graph lacks some.
        """
        # One plane per direction: the CPU's vector units run along atoms, not along x, y, z.
        squares = jnp.zeros(self.mask.shape)
        for axis in range(3):
            x = positions[:, axis]
            shift = self.shifts @ cell[:, axis]
            squares = squares + (x[self.table] - x[:, None] + shift) ** 2
        near = self.mask & (squares < r_cut**2)
        column = jnp.broadcast_to(jnp.arange(near.shape[1], dtype=jnp.int32)[None, :], near.shape)
        columns, found = packed(near, column, n_neighbours)
        edge_mask = jnp.arange(n_neighbours)[None, :] < found[:, None]
        neighbours = jnp.take_along_axis(self.table, columns, axis=1)
        shifts = jnp.take_along_axis(self.shifts, columns[:, :, None], axis=1)
        graph = Graph(
            positions=positions,
            cell=cell,
            species=self.species,
            neighbours=jnp.where(edge_mask, neighbours, 0),
            shifts=jnp.where(edge_mask[:, :, None], shifts, 0.0),
            edge_mask=edge_mask,
            atom_mask=self.atom_mask,
            reach=jnp.asarray(r_cut, float),
            pbc=self.pbc,
        )
        return graph, jnp.max(found)


class VerletList:
    """The candidates of the structure that was last asked for, and room for its neighbours.

    Attributes:
        r_cut: Å.
        skin: Å.
        n_neighbours: K, neighbours that there is room for.
        candidates: for the structure last asked for.
        built: how often candidates were looked for.
    """

    def __init__(self, r_cut: float, skin: float) -> None:
        self.r_cut, self.skin = r_cut, skin
        self.n_neighbours, self._n_candidates, self.built = 0, 0, 0
        self.candidates: Candidates | None = None
        self.structure: Structure | None = None

    def update(
        self, structure: Structure, check: Callable[[Graph], None] = lambda graph: None
    ) -> Candidates:
        """Look for candidates if those there are may lack some.

        Args:
            structure: of NumPy arrays.
            check: is called with the graph of new candidates, on the host; where it raises, there
                are none.

        Returns:
            The candidates.

        Raises:
            ValueError: as `build_graph`; and what the check raises.
        """
        if self.candidates is not None and self.holds(structure):
            return self.candidates
        self.structure = self.candidates = None
        n = structure.n_atoms
        found = host_graph(
            structure, self.r_cut, self.skin, n_atoms=min(bucket(n), neighbour_bucket(n))
        )
        check(found)
        mask = np.asarray(found.edge_mask)
        lengths = np.linalg.norm(found.vectors(), axis=-1)
        soon = mask & (lengths < self.r_cut + min(HEADROOM, self.skin))
        self.make_room(int(soon.sum(axis=1).max()))
        most = int(mask.sum(axis=1).max())
        self._n_candidates = _room(self._n_candidates, most, math.ceil(SPARE * most))
        missing = self._n_candidates - mask.shape[1]

        def resized(x: Any) -> np.ndarray:
            x = np.asarray(x)[:, : self._n_candidates]
            return np.pad(x, [(0, 0), (0, max(missing, 0)), *[(0, 0)] * (x.ndim - 2)])

        tables: Any = (resized(x) for x in (found.neighbours, found.shifts, mask))
        known: Any = np.asarray(found.species), np.asarray(found.atom_mask)
        self.candidates = jax.device_put(Candidates(*known, *tables, structure.pbc))
        self.structure = structure
        self.built += 1
        return self.candidates

    def make_room(self, needed: int) -> None:
        """See to it that K neighbours or more have room."""
        self.n_neighbours = _room(self.n_neighbours, needed, needed)

    def holds(self, structure: Structure) -> bool:
        """Whether the candidates hold all pairs within the cutoff of this structure, too."""
        then = self.structure
        if (
            then is None
            or then.pbc != structure.pbc
            or not np.array_equal(then.species, structure.species)
            or not (np.isfinite(structure.positions).all() and np.isfinite(structure.cell).all())
        ):
            return False
        change = np.eye(3)
        if any(structure.pbc):
            change = np.linalg.solve(then.cell, structure.cell)
        u = structure.positions - then.positions @ change
        farthest = math.sqrt(np.max(np.sum(u**2, axis=1)))
        stretch = 1.0 / np.linalg.svd(change, compute_uv=False)[-1]
        return bool((self.r_cut + 2.0 * farthest) * stretch <= self.r_cut + self.skin)


def _room(now: int, needed: int, wished: int) -> int:
    """Places for what is needed: as many as now where that will do and is not far too many."""
    most = neighbour_bucket(wished)
    return now if max(needed, 1) <= now <= TOO_LARGE * most else most
