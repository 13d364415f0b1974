"""Point defects in periodic cells: their geometry as a displacement of the perfect lattice.

A defect lives on a common reference lattice, so that the relaxed geometries of two potentials can
be subtracted.  An atom belongs to a site of it, and a site without an atom is missing: zero in
every array and without bonds in every norm.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import find_mic

from lprjax.relax import Relaxed, relax
from lprjax.seminorm import ReferenceLattice, reference_lattice, without_sites
from lprjax.structures import Structure, supercell

SAME_DISTANCE = 1e-6  # A; sites closer in distance than this tie, the first of them is taken


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LatticePreconditioner:
    """The inverse seminorm K^+ of a lattice, for arrays over the atoms that sit on it.

    lattice: n_sites sites.  site_of_atom: (n,) int32.
    """

    lattice: ReferenceLattice
    site_of_atom: jax.Array

    def __call__(self, gradient):
        """(n, 3) -> (n, 3): K^+ of the gradient spread over the sites, read at the atoms."""
        sites = jnp.zeros((self.lattice.n_sites, gradient.shape[1]), gradient.dtype)
        return self.lattice.solve(sites.at[self.site_of_atom].set(gradient))[self.site_of_atom]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Defect:
    """A defect on its reference lattice; make it by `vacancy`.

    reference: the perfect supercell, n_sites atoms in the order of `supercell`.
    structure: the n atoms of the defect where the reference has them, not relaxed.
    site_of_atom: (n,) int32, the site that each atom belongs to.
    lattice: the seminorm on the n_sites sites; missing ones have no bonds.
    centre: (3,) A, where distances are counted from.
    removed: the sites without an atom, static.
    """

    reference: Structure
    structure: Structure
    site_of_atom: jax.Array
    lattice: ReferenceLattice
    centre: jax.Array
    removed: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def preconditioner(self) -> LatticePreconditioner:
        """For `relax`: K^+ without the missing sites."""
        return LatticePreconditioner(self.lattice, self.site_of_atom)

    def distances(self) -> np.ndarray:
        """(n_sites,) A: how far each reference site is from the centre, by the nearest image."""
        offsets = np.asarray(self.reference.positions) - np.asarray(self.centre)
        return find_mic(offsets, np.asarray(self.reference.cell), self.reference.pbc)[1]

    def on_sites(self, values):
        """(n, c) over the atoms -> (n_sites, c) over the sites, zero at missing ones."""
        values = _rows(values, self.structure.n_atoms, "atoms of the defect")
        sites = jnp.zeros((self.lattice.n_sites, values.shape[1]), values.dtype)
        return sites.at[self.site_of_atom].set(values)

    def on_atoms(self, values):
        """(n_sites, c) over the sites -> (n, c) over the atoms."""
        return _rows(values, self.lattice.n_sites, "sites of the lattice")[self.site_of_atom]

    def displaced(self, displacement) -> Structure:
        """The defect with its atoms at reference + displacement (n_sites, 3) A."""
        positions = self.structure.positions + self.on_atoms(displacement)
        return dataclasses.replace(self.structure, positions=positions)


def _rows(values, n: int, of: str):
    values = jnp.asarray(values)
    if values.ndim != 2 or values.shape[0] != n:
        raise ValueError(f"got shape {values.shape}: wanted one row for each of the {n} {of}.")
    return values


def vacancy(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """One atom taken out of a periodic supercell.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        site: the site to empty, in the order of `supercell`; None: the one nearest to the middle
            of the supercell (the first of several).
        radius: of the bonds of the seminorm, A, as in `reference_lattice`.

    Returns:
        Defect, its centre on the empty site.

    Raises:
        ValueError: as `supercell`, `reference_lattice` and `without_sites`; a supercell so small
            that the missing site was all that held it together.
    """
    if np.ndim(repeats) == 0:
        repeats = [repeats if periodic else 1 for periodic in unit_cell.pbc]
    reference = supercell(unit_cell, repeats)
    site = _middle_site(reference) if site is None else int(site)
    lattice = without_sites(reference_lattice(unit_cell, repeats, radius=radius), [site])
    kept = np.delete(np.arange(reference.n_atoms), site)
    return Defect(
        reference=reference,
        structure=dataclasses.replace(
            reference, positions=reference.positions[kept], species=reference.species[kept]
        ),
        site_of_atom=jnp.asarray(kept, dtype=jnp.int32),
        lattice=lattice,
        centre=reference.positions[site],
        removed=(site,),
    )


def _middle_site(reference: Structure) -> int:
    middle = 0.5 * np.asarray(reference.cell)[np.array(reference.pbc)].sum(axis=0)
    distances = np.linalg.norm(np.asarray(reference.positions) - middle, axis=1)
    return int(np.argmax(distances < distances.min() + SAME_DISTANCE))


class RelaxedDefect(NamedTuple):
    """A relaxed defect; look at `relaxed.converged` first."""

    displacement: jax.Array  # (n_sites, 3) A from the reference lattice, zero at missing sites
    energy: float  # eV, of the cell
    relaxed: Relaxed


def relax_defect(
    potential,
    defect: Defect,
    *,
    displacement=None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    skin: float = 0.5,
    r_cut: float | None = None,
) -> RelaxedDefect:
    """The defect's equilibrium in the fixed cell, preconditioned by its lattice; see `relax`.

    Args:
        potential: callable graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: (n_sites, 3) A, the start; None: the reference positions.
        force_tolerance: eV/A.  max_evaluations: gradients.  skin: A.  r_cut: A; all as in `relax`.

    Returns:
        RelaxedDefect.  The preconditioner leaves the mean displacement of the atoms alone.
    """
    start = defect.structure if displacement is None else defect.displaced(displacement)
    relaxed = relax(
        potential,
        start,
        preconditioner=defect.preconditioner,
        force_tolerance=force_tolerance,
        max_evaluations=max_evaluations,
        skin=skin,
        r_cut=r_cut,
    )
    moves = relaxed.positions - defect.structure.positions
    return RelaxedDefect(defect.on_sites(moves), relaxed.energy, relaxed)


def formation_energy(energy, n_atoms: int, bulk_energy_per_atom):
    """E_f = E_defect - N e_bulk in eV, N atoms in the defective cell.

    energy: eV of the defective cell.  n_atoms: N, the vacancies not counted.
    bulk_energy_per_atom: eV, in the perfect crystal of the same potential and lattice constant.
    An error of e_bulk counts N times.
    """
    return energy - n_atoms * bulk_energy_per_atom


def geometry_error(defect: Defect, u, v):
    """||D u - D v|| over the bonds between atoms that exist, in A.

    u, v: (n_sites, 3) A, displacements of the same reference lattice.
    """
    return defect.lattice.strain_norm(u - v)
