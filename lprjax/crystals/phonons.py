"""Force constants of the homogeneous lattice, their waves, and the lattice's stability.

    Phi(R; a, b) = d2E / du_{0,a} du_{R,b}          a, b atoms of one cell, R lattice vectors
    Phi(k) = sum_R Phi(R) exp(i k . R)              so that (Phi v)(k) = Phi(k) v(k)
                                                    for v(k) = sum_R v(R) exp(-i k . R)

the sign and the phases of the blocks K(k) of `strain_norm`: both are read together. On a periodic
supercell of m1 x m2 x m3 cells Phi is block-circulant, and one row per atom of the cell is all.
A supercell smaller than the range of Phi (twice the cutoff of a many-body potential) folds images
onto each other; its Phi(k) are still exact, at the wave vectors that fit into it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from ase.data import atomic_masses
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Pbc, Structure, reduced_periods, supercell
from lprjax.crystals.elasticity import check_periodic
from lprjax.crystals.strain_norm import SAME_LENGTH, ReferenceLattice, on_all_waves
from lprjax.numerics.checks import require_x64
from lprjax.numerics.host import namespace, on_device, on_host
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential, by_differences, graph_for

THZ = units.second * 1e-12 / (2 * math.pi)
"""The frequency in THz of an angular frequency of 1 (eV / Å^2 / u)^(1/2), of ase.units."""

_CELLS = (0, 1, 2)  # axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ForceConstants:
    """The force constants of a periodic lattice; build them with `force_constants`.

    Attributes:
        blocks: (m1, m2, m3, b, 3, b, 3) eV/Å^2, Phi(R; a, alpha; b, beta) at
            R = (n1, n2, n3) @ cell.
        unit_cell: the b atoms of one cell.
    """

    blocks: jax.Array
    unit_cell: Structure

    @property
    def repeats(self) -> tuple[int, int, int]:
        """(m1, m2, m3) cells."""
        m1, m2, m3 = self.blocks.shape[:3]
        return m1, m2, m3

    @property
    def sum_rule(self) -> float:
        """max |sum_{R,b} Phi(R; a, b)|, eV/Å^2: the force that a shift of the crystal brings."""
        return float(np.max(np.abs(np.asarray(self.blocks).sum(axis=(0, 1, 2, 5)))))

    @jax.jit
    def apply(self, v: jax.Array) -> jax.Array:
        """Phi v, (n, 3) eV/Å, of v (n, 3) Å, in the site order of `supercell`: minus the forces."""
        b3 = 3 * self.blocks.shape[3]
        if v.shape != (math.prod(self.repeats) * b3 // 3, 3):
            raise ValueError(
                f"v has shape {v.shape}: wanted (n, 3), one row per site of the {self.repeats} "
                f"cells of {b3 // 3} atoms."
            )
        waves = jnp.fft.rfftn(v.reshape(*self.repeats, b3), axes=_CELLS)
        waves = jnp.einsum("xyzab,xyzb->xyza", self.half_fourier(), waves)
        return jnp.fft.irfftn(waves, s=self.repeats, axes=_CELLS).reshape(v.shape)

    @jax.jit
    def fourier(self) -> jax.Array:
        """Phi(k), (m1, m2, m3, 3 b, 3 b) eV/Å^2, Hermitian, at the k of `wave_vectors`."""
        b3 = 3 * self.blocks.shape[3]
        waves = jnp.fft.fftn(self.blocks, axes=_CELLS).conj()
        return waves.reshape(*self.repeats, b3, b3)

    def half_fourier(self) -> jax.Array:
        """Phi(k), (m1, m2, m3 // 2 + 1, 3 b, 3 b) eV/Å^2, at the waves of a real transform."""
        b3 = 3 * self.blocks.shape[3]
        waves = namespace(self).fft.rfftn(on_host(self.blocks), axes=_CELLS).conj()
        return on_device(waves.reshape(*waves.shape[:3], b3, b3))

    def wave_vectors(self) -> np.ndarray:
        """The k that fit into the supercell, (m1, m2, m3, 3) 1/Å, in the first Brillouin zone."""
        reciprocal = 2 * math.pi * np.linalg.inv(np.asarray(self.unit_cell.cell)).T
        waves = np.moveaxis(np.indices(self.repeats), 0, -1) / np.array(self.repeats)
        return _nearest(waves @ reciprocal, reciprocal, self.unit_cell.pbc)[0][..., 0, :]

    def at(self, k: ArrayLike | Sequence[Any]) -> np.ndarray:
        """Phi(k) at any wave vectors.

        Every pair is taken at its nearest images, in equal shares where several are as near.
        Exact where the supercell is wider than twice the range of Phi; in a smaller one exact at
        the wave vectors that fit, and an interpolation elsewhere.

        Args:
            k: (n, 3) 1/Å.

        Returns:
            Phi(k), (n, 3 b, 3 b) eV/Å^2, Hermitian.

        Raises:
            ValueError: another shape.
        """
        wave_vectors = np.asarray(k, float)
        if wave_vectors.ndim != 2 or wave_vectors.shape[1] != 3:
            raise ValueError(f"k has shape {wave_vectors.shape}: wanted (n, 3), in 1/Å.")
        blocks, offsets = np.asarray(self.blocks), np.asarray(self.unit_cell.positions)
        b, cell = len(offsets), np.asarray(self.unit_cell.cell)
        between = offsets[None] - offsets[:, None]  # (b, b, 3), a to b
        cells = np.moveaxis(np.indices(self.repeats), 0, -1) @ cell
        periods = np.array(self.repeats)[:, None] * cell
        vectors, nearest = _nearest(
            cells[..., None, None, :] + between, periods, self.unit_cell.pbc
        )
        pair, image = np.nonzero(nearest.reshape(-1, nearest.shape[-1]))
        share = 1.0 / nearest.sum(-1).ravel()[pair]
        lattice_vectors = (vectors - between[:, :, None]).reshape(-1, nearest.shape[-1], 3)
        lattice_vectors = lattice_vectors[pair, image]
        blocks = blocks.reshape(-1, b, 3, b, 3)
        waves = np.empty((len(wave_vectors), b, 3, b, 3), complex)
        for n, wave in enumerate(wave_vectors):
            phases = np.zeros(len(blocks) * b * b, complex)
            np.add.at(phases, pair, share * np.exp(1j * (lattice_vectors @ wave)))
            waves[n] = np.einsum("nab,naibj->aibj", phases.reshape(-1, b, b), blocks)
        return waves.reshape(len(wave_vectors), 3 * b, 3 * b)

    def frequencies(self, k: ArrayLike | Sequence[Any]) -> np.ndarray:
        """Phonon frequencies at any wave vectors.

            nu = omega / (2 pi),   omega^2 the eigenvalues of M^(-1/2) Phi(k) M^(-1/2)

        M are the natural atomic masses. An imaginary frequency is given as a negative number.

        Args:
            k: (n, 3) 1/Å; see `at` for where the frequencies are exact.

        Returns:
            nu, (n, 3 b) THz, rising.

        Raises:
            ValueError: another shape.
        """
        root = np.sqrt(np.repeat(atomic_masses[np.asarray(self.unit_cell.species)], 3))
        squares = np.linalg.eigvalsh(self.at(k) / (root[:, None] * root))
        return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ


def _nearest(vectors: np.ndarray, periods: np.ndarray, pbc: Pbc) -> tuple[np.ndarray, np.ndarray]:
    """The images vectors + t @ periods, t integer where periodic, nearest to the origin.

    Vectors (..., 27, 3) with the first a nearest one, and which of them are nearest,
    (..., 27) bool. In reduced periods no nearest one is left out, however skewed the given ones.
    """
    periods = reduced_periods(periods, pbc)
    periodic = np.array(pbc)
    whole = np.round(vectors @ np.linalg.inv(periods)) * periodic
    around = np.moveaxis(np.indices((3, 3, 3)) - 1, 0, -1).reshape(-1, 3) * periodic
    vectors = (vectors - whole @ periods)[..., None, :] + around @ periods
    lengths = np.linalg.norm(vectors, axis=-1)
    order = np.argsort(lengths, axis=-1, kind="stable")
    vectors = np.take_along_axis(vectors, order[..., None], axis=-2)
    lengths = np.take_along_axis(lengths, order, axis=-1)
    return vectors, lengths < lengths[..., :1] + SAME_LENGTH


def force_constants(
    potential: Potential,
    unit_cell: Structure,
    repeats: Sequence[int],
    *,
    graph: Graph | None = None,
) -> ForceConstants:
    """The force constants of a crystal on a periodic supercell, by differentiation of its energy.

        Phi(R; a, b) = d2E / du_{0,a} du_{R,b}

    One row per atom of the unit cell, made symmetric: Phi(R; a, b) = Phi(-R; b, a)^T, which only
    touches the error of a potential whose derivatives are not exact. Of one that has differences
    the nearest constants are taken that also keep the acoustic sum rule, sum_{R,b} Phi = 0.
    Differentiable in the potential's arrays.

    Args:
        potential: graph -> site energies (n,), eV.
        unit_cell: b atoms; any crystal, with no forces on its atoms.
        repeats: (m1, m2, m3) cells; 1 along a direction that is not periodic.
        graph: of the supercell, where it was made before.

    Returns:
        The force constants.

    Raises:
        RuntimeError: float64 is off.
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
        ValueError: as `supercell` for the repeats; a cluster; a graph of other atoms.
    """
    require_x64()
    repeats, b = tuple(int(m) for m in repeats), unit_cell.n_atoms
    n = math.prod(repeats) * b
    check_periodic(unit_cell.pbc)
    if graph is None:
        graph = graph_for(potential, supercell(unit_cell, repeats))
    n_real = int(np.sum(np.asarray(graph.atom_mask)))
    if n_real != n:
        raise ValueError(f"the graph has {n_real} atoms: wanted the {n} of {repeats} unit cells.")
    found = observe(potential, graph, ("force_constants",), atoms=range(b)).force_constants
    rows, xp = on_host(found)[:, :, :n], namespace(found)
    blocks = rows.reshape(b, 3, *repeats, b, 3).transpose(2, 3, 4, 0, 1, 5, 6)
    opposite = xp.roll(xp.flip(blocks, _CELLS), 1, _CELLS).transpose(0, 1, 2, 5, 6, 3, 4)
    blocks = 0.5 * (blocks + opposite)
    if by_differences(potential):
        blocks = _without_drift(blocks)
    return ForceConstants(on_device(blocks), unit_cell)


def _without_drift(blocks: Any) -> Any:
    """The nearest symmetric blocks (least squares) of which a shift of the crystal brings no force:
    with P the shifts, (1 - P) Phi (1 - P)."""
    xp, whole = namespace(blocks), blocks.shape[0] * blocks.shape[1] * blocks.shape[2]
    b = blocks.shape[3]
    sums = blocks.sum(axis=_CELLS)  # Phi(k = 0), (b, 3, b, 3)
    rows, columns = (xp.mean(sums, axis=a, keepdims=True) for a in (2, 0))
    both = xp.mean(rows, axis=0, keepdims=True)
    drift = xp.broadcast_to(rows + columns - both, (b, 3, b, 3))
    return blocks - drift / whole


class LatticeStability(NamedTuple):
    """How stable a homogeneous lattice is, in the seminorm of its strains."""

    constant: jax.Array  # (), eV/Å^2, the smallest of all; negative where the lattice is unstable
    wave_vector: jax.Array  # (3,) 1/Å, where the smallest is
    by_wave_vector: jax.Array  # (m1, m2, m3) eV/Å^2; at k = 0 of optical modes, inf without any


def stability(constants: ForceConstants, lattice: ReferenceLattice) -> LatticeStability:
    """The stability constant of a homogeneous lattice: the least energy that its strains cost.

        c = min_v  v^T Phi v / ||Dv||^2 = min_k lambda_min(k),   Phi(k) v = lambda(k) K(k) v

    over all displacements v that are no shift of the whole; positive if and only if the lattice
    is stable against all that fit into the supercell (k -> 0: against all strains, only in the
    limit of many cells). A lattice periodic in two directions is judged by displacements in its
    plane. Differentiable in the force constants.

    Args:
        constants: Phi of the homogeneous lattice.
        lattice: its seminorm, on the same cells; missing or extra sites are of no account here,
            nor is a norm of force constants: ||Dv|| is that of bonds.

    Returns:
        LatticeStability.

    Raises:
        ValueError: a lattice of other repeats or another number of atoms in the cell.

    Source: Ortner, Wang, Multiscale Model. Simul. 21 (2023) 1053, their assumption on the
    homogeneous lattice; derived.
    """
    here = (*constants.repeats, constants.blocks.shape[3])
    there = (*lattice.repeats, lattice.inverse_blocks.shape[-1])
    if here != there:
        raise ValueError(
            f"(m1, m2, m3, atoms per cell) of the force constants is {here}: wanted {there}, the "
            "same cells in both; make both with the same unit cell and repeats."
        )
    half = _smallest(constants, lattice.spectrum.roots)
    by_wave_vector = on_all_waves(half, constants.repeats)
    least = jnp.argmin(by_wave_vector)
    return LatticeStability(
        constant=by_wave_vector.ravel()[least],
        wave_vector=jnp.asarray(constants.wave_vectors()).reshape(-1, 3)[least],
        by_wave_vector=by_wave_vector,
    )


@jax.jit
def _smallest(constants, roots):
    """lambda_min for the wave vectors of a real transform, from T^H Phi T with T T^H = K^+."""
    b = roots.shape[-1]
    periodic = np.array(constants.unit_cell.pbc)
    plane = jnp.linalg.qr(constants.unit_cell.cell[periodic].T)[0]  # (3, p), orthonormal
    frames = jnp.einsum("xyzab,cp->xyzacbp", roots, plane)
    frames = frames.reshape(*frames.shape[:3], 3 * b, -1)
    reduced = jnp.einsum(
        "xyzap,xyzab,xyzbq->xyzpq", frames.conj(), constants.half_fourier(), frames
    )
    smallest = jnp.linalg.eigvalsh(reduced)[..., 0]
    shifts = plane.shape[1]  # the null space of K(0), first in order
    optical = jnp.linalg.eigvalsh(reduced[0, 0, 0, shifts:, shifts:])
    return smallest.at[0, 0, 0].set(jnp.min(optical, initial=jnp.inf))
