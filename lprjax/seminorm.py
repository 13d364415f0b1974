"""The seminorm that strains and force errors on a lattice are measured in.

With l over the sites and rho over a stencil of bonds, a lattice function v has

    ||Dv||^2 = sum_l sum_rho |v(l + rho) - v(l)|^2 = v^T K v .

Every bond is counted from both of its ends.  On a periodic lattice of m1 x m2 x m3 cells K is
block-circulant: the discrete Fourier transform over the cells leaves one b x b Hermitian block per
wave vector (b atoms per cell; the same block for x, y and z), so that K^+ is exact at the price of
two transforms.  Sites are ordered as in `structures.supercell`: the cell runs slowest.
Derived, in the setting of Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.neighbours import build_graph
from lprjax.structures import Structure, require_x64, supercell

SAME_LENGTH = 1e-4  # A; bonds closer in length than this belong to one shell
NULL = 1e-11  # eigenvalues below this share of the largest are zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceLattice:
    """The sites of a periodic lattice with their stencil, and the exact inverse of its seminorm.

    Build one with `reference_lattice`; take sites away with `without_sites`.  Bonds that touch a
    missing site are dropped from the norm and from K; K^+ follows exactly (a low-rank correction
    of the transform), so that `negative_norm` stays the dual of `strain_norm`.  As a
    preconditioner of `relax` for a crystal: jax.tree_util.Partial(ReferenceLattice.solve, lattice).

    neighbours: (n, S) int32, site at the end of each bond; the site itself on padded slots.
    present: (n,) bool, False at missing sites.
    inverse_blocks: (m1, m2, m3 // 2 + 1, b, b) complex, K(k)^+ of the lattice with all its sites.
    bond_response: (n, p), K^+ B, B holding the p dropped bonds w^(1/2) (e_i - e_j), w their count.
    bond_coupling: (p, p), (I - B^T K^+ B)^+.
    repeats: (m1, m2, m3), static.
    """

    neighbours: jax.Array
    present: jax.Array
    inverse_blocks: jax.Array
    bond_response: jax.Array
    bond_coupling: jax.Array
    repeats: tuple[int, int, int] = dataclasses.field(metadata={"static": True})

    @property
    def n_sites(self) -> int:
        return self.neighbours.shape[0]

    def differences(self, v):
        """Dv: (n, S, c) differences v(l + rho) - v(l) of v (n, c); zero on dropped bonds."""
        v = self._on_sites(v)
        kept = self.present[:, None] & self.present[self.neighbours]
        return jnp.where(kept[..., None], v[self.neighbours] - v[:, None, :], 0.0)

    @jax.jit
    def strain_by_site(self, v):
        """|Dv(l)| = (sum_rho |v(l + rho) - v(l)|^2)^(1/2): (n,), in the unit of v (n, c)."""
        return _safe_root(jnp.sum(self.differences(v) ** 2, axis=(1, 2)))

    @jax.jit
    def strain_norm(self, v):
        """||Dv|| = (v^T K v)^(1/2) of v (n, c), in the unit of v."""
        return _safe_root(jnp.sum(self.differences(v) ** 2))

    @jax.jit
    def solve(self, f):
        """K^+ f of f (n, c): zero at missing sites and of zero mean over the others.

        A mean of f, and what it holds at missing sites, is outside the range of K and is dropped,
        as a pseudo-inverse does.
        """
        f = self._without_null_space(self._on_sites(f))
        response = self.bond_response @ (self.bond_coupling @ (self.bond_response.T @ f))
        return self._without_null_space(self._solve_complete(f) + response)

    @jax.jit
    def negative_norm(self, f):
        """||f||_{-1} = (f^T K^+ f)^(1/2) = max_v f^T v / ||Dv||: f (n, c) in eV/A gives eV/A.

        The maximum is over all v that do not vanish in the norm, for f of zero sum, as forces
        have, and zero at missing sites.
        """
        return _safe_root(jnp.sum(f * self.solve(f)))

    def _on_sites(self, v):
        if v.ndim != 2 or v.shape[0] != self.n_sites:
            raise ValueError(
                f"got an array of shape {v.shape} on a lattice of {self.n_sites} sites: wanted "
                f"({self.n_sites}, 3), one row per site, missing sites included."
            )
        return v

    def _without_null_space(self, v):
        here = self.present[:, None]
        mean = jnp.sum(v, axis=0, where=here, keepdims=True) / jnp.sum(here, dtype=v.dtype)
        return jnp.where(here, v - mean, 0.0)

    def _solve_complete(self, f):
        """K^+ f of the lattice with all its sites."""
        b = self.inverse_blocks.shape[-1]
        waves = jnp.fft.rfftn(f.reshape(*self.repeats, b, -1), axes=(0, 1, 2))
        waves = jnp.einsum("xyzab,xyzbc->xyzac", self.inverse_blocks, waves)
        return jnp.fft.irfftn(waves, s=self.repeats, axes=(0, 1, 2)).reshape(f.shape)


def _safe_root(square):
    """Square root with gradient zero at zero, and zero where rounding made the square negative."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def reference_lattice(
    unit_cell: Structure, repeats: Sequence[int], *, radius: float | None = None
) -> ReferenceLattice:
    """The complete periodic lattice of `supercell(unit_cell, repeats)` with its seminorm.

    Args:
        unit_cell: b atoms; any crystal, primitive or conventional, of any periodicity.
        repeats: (m1, m2, m3) cells; 1 along a direction that is not periodic.
        radius: bonds of the stencil are those no longer than this, A; None: the first two shells
            of distances (8 + 6 bonds in bcc, 12 + 6 in fcc).

    Raises:
        ValueError: as `supercell` for the repeats; a stencil that leaves the lattice in
            unconnected parts, on which ||D.|| is no norm of the strain.
    """
    require_x64()
    n_sites = supercell(unit_cell, repeats).n_atoms
    repeats = tuple(int(m) for m in repeats)
    bonds = _stencil(unit_cell, _two_shells(unit_cell) if radius is None else radius)
    return ReferenceLattice(
        neighbours=jnp.asarray(_bond_table(*bonds, repeats, unit_cell.n_atoms)),
        present=jnp.ones(n_sites, bool),
        inverse_blocks=jnp.asarray(_inverse_blocks(*bonds, repeats, unit_cell.n_atoms)),
        bond_response=jnp.zeros((n_sites, 0)),
        bond_coupling=jnp.zeros((0, 0)),
        repeats=repeats,
    )


def _stencil(unit_cell, radius):
    """Bonds (start, end, cell shift) of one cell."""
    graph = build_graph(unit_cell, radius, skin=SAME_LENGTH)
    start, slot = np.nonzero(np.asarray(graph.edge_mask))
    end = np.asarray(graph.neighbours)[start, slot]
    return start, end, np.asarray(graph.shifts)[start, slot].astype(int)


def _two_shells(unit_cell) -> float:
    """A radius half-way between the second and the third distance in the crystal, A."""
    periodic = np.asarray(unit_cell.cell)[np.array(unit_cell.pbc)]
    reach = float(np.linalg.norm(periodic, axis=1).min(initial=np.inf))
    if not math.isfinite(reach):
        raise ValueError("the unit cell is periodic in no direction: wanted a crystal.")
    while True:
        graph = build_graph(unit_cell, reach, skin=SAME_LENGTH)
        lengths = np.linalg.norm(np.asarray(graph.vectors()), axis=-1)
        lengths = np.sort(lengths[np.asarray(graph.edge_mask)])
        shells = lengths[np.diff(lengths, prepend=-1.0) > SAME_LENGTH]
        if len(shells) > 2:
            return 0.5 * (shells[1] + shells[2])
        reach *= 1.25


def _bond_table(start, end, shift, repeats, b) -> np.ndarray:
    """(sites, S) int32: the site at the end of each bond, the site itself on padded slots."""
    counts = np.bincount(start, minlength=b)
    slot = np.arange(len(start)) - (np.cumsum(counts) - counts)[start]
    cells = np.indices(repeats).reshape(3, -1)
    targets = np.ravel_multi_index(
        [(cells[k][:, None] + shift[:, k]) % repeats[k] for k in range(3)], repeats
    )
    sites = np.arange(cells.shape[1] * b).reshape(-1, b)
    table = np.repeat(sites[..., None], counts.max(initial=1), axis=-1)
    table[:, start, slot] = targets * b + end
    return table.reshape(len(table) * b, -1).astype(np.int32)


def _inverse_blocks(start, end, shift, repeats, b) -> np.ndarray:
    """K(k)^+ for the wave vectors of a real transform, from K(k) = sum_R K(R) exp(2 pi i k.R)."""
    kernel = np.zeros((*repeats, b, b))
    home = np.zeros_like(start)
    forth, back = (-shift % repeats).T, (shift % repeats).T
    np.add.at(kernel, (home, home, home, start, start), 1.0)
    np.add.at(kernel, (home, home, home, end, end), 1.0)
    np.add.at(kernel, (*forth, start, end), -1.0)
    np.add.at(kernel, (*back, end, start), -1.0)
    values, modes = np.linalg.eigh(np.fft.rfftn(kernel, axes=(0, 1, 2)))
    null = values <= NULL * values.max()
    if null.sum() != 1:
        raise ValueError(
            f"the stencil of {len(start)} bonds per cell leaves the lattice in unconnected parts "
            f"({null.sum()} functions without strain, wanted 1: the constant). Give a larger "
            "radius."
        )
    inverse = np.where(null, 0.0, 1.0 / np.where(null, 1.0, values))
    return (modes * inverse[..., None, :]) @ np.swapaxes(modes, -1, -2).conj()


def without_sites(lattice: ReferenceLattice, sites: Sequence[int]) -> ReferenceLattice:
    """The lattice with sites missing (besides those missing already).

    With B the dropped bonds, K' = K - B B^T, and on the range of K'
    K'^+ = K^+ + K^+ B (I - B^T K^+ B)^+ B^T K^+ (Woodbury), up to the constant and the missing
    sites, which `ReferenceLattice.solve` projects out.

    Raises:
        ValueError: a site out of range, or named twice, or missing already; sites whose removal
            cuts the lattice into unconnected parts.
    """
    sites = np.asarray(sites, dtype=int).reshape(-1)
    present = np.array(lattice.present)
    wrong = [s for s in sites.tolist() if not (0 <= s < len(present) and present[s])]
    if wrong or len(set(sites.tolist())) < len(sites):
        raise ValueError(
            f"cannot remove sites {sites.tolist()}: wanted different sites that exist, from 0 to "
            f"{len(present) - 1}" + (f"; {wrong} do not." if wrong else ".")
        )
    present[sites] = False
    bonds = _dropped_bonds(np.asarray(lattice.neighbours), present)
    response = lattice._solve_complete(jnp.asarray(bonds))
    values, modes = np.linalg.eigh(np.eye(bonds.shape[1]) - bonds.T @ np.asarray(response))
    null = values < math.sqrt(NULL)
    if null.sum() != np.sum(~present):
        raise ValueError(f"without sites {sites.tolist()} the lattice falls into parts.")
    coupling = (modes[:, ~null] / values[~null]) @ modes[:, ~null].T
    return dataclasses.replace(
        lattice,
        present=jnp.asarray(present),
        bond_response=response,
        bond_coupling=jnp.asarray(coupling),
    )


def _dropped_bonds(neighbours, present) -> np.ndarray:
    """(n, p): w^(1/2) (e_i - e_j) for the p pairs of sites that lose w bonds."""
    start, slot = np.nonzero(~(present[:, None] & present[neighbours]))
    pairs = np.sort(np.stack([start, neighbours[start, slot]], axis=1), axis=1)
    pairs, count = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0, return_counts=True)
    bonds = np.zeros((len(present), len(pairs)))
    columns = np.arange(len(pairs))
    bonds[pairs[:, 0], columns] = np.sqrt(count)
    bonds[pairs[:, 1], columns] = -np.sqrt(count)
    return bonds
