"""Point defects in periodic cells: their geometry as a displacement of the perfect lattice.

A defect lives on a common reference lattice, so that the relaxed geometries of two potentials can
be subtracted. Every atom belongs to a site: a regular one, or an extra one of its own (an
interstitial atom, whose home is where it starts). A regular site without an atom is missing: zero
in every array and without bonds in every norm. Arrays over the sites hold the regular sites in
the order of `supercell`, then the extra ones.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.structures import Structure, minimum_image, supercell, without_atoms
from lprjax.crystals.strain_norm import (
    ReferenceLattice,
    reference_lattice,
    two_shells,
    with_extra_sites,
    with_held_sites,
    without_sites,
)
from lprjax.numerics.checks import check_positive, finite_array
from lprjax.numerics.host import on_device, on_host, traced
from lprjax.potentials.potential import Potential
from lprjax.simulation.relaxation import Relaxed, relax

SAME_DISTANCE = 1e-6
"""Å; sites closer in distance than this tie, and the first of them is taken: a choice."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LatticePreconditioner:
    """The inverse seminorm K^+ of a lattice, for arrays over the atoms that sit on it."""

    lattice: ReferenceLattice  # of n_sites sites
    site_of_atom: jax.Array  # (n,) int32

    def __call__(self, gradient: jax.Array) -> jax.Array:
        """K^+ of the gradient (n, 3) spread over the sites, read at the atoms, (n, 3)."""
        sites = jnp.zeros((self.lattice.n_sites, gradient.shape[1]), gradient.dtype)
        return self.lattice.solve(sites.at[self.site_of_atom].set(gradient))[self.site_of_atom]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Defect:
    """A defect on its reference lattice; made by `vacancy`, `catalogue` or `make_defect`.

    Attributes:
        reference: the perfect supercell, its atoms on the regular sites.
        structure: the n atoms of the defect at their start, not relaxed.
        site_of_atom: (n,) int32, the site that each atom belongs to.
        homes: (n_sites, 3) Å, what displacements are counted from: the lattice on regular sites,
            the start of the atom on extra ones.
        lattice: the seminorm on the n_sites sites; missing ones have no bonds.
        centre: (3,) Å, where distances are counted from.
        free: (n,) bool, the atoms that may move; None: all.
        removed: the regular sites without an atom, static.
    """

    reference: Structure
    structure: Structure
    site_of_atom: jax.Array
    homes: jax.Array
    lattice: ReferenceLattice
    centre: jax.Array
    free: jax.Array | None
    removed: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def preconditioner(self) -> LatticePreconditioner:
        """For `relax`: K^+ without missing sites, with extra ones, zero at held ones."""
        return LatticePreconditioner(self.lattice, self.site_of_atom)

    @property
    def start(self) -> jax.Array:
        """The displacement of `structure`, (n_sites, 3) Å."""
        homes = np.asarray(self.homes)[np.asarray(self.site_of_atom)]
        return self.on_sites(np.asarray(self.structure.positions) - homes)

    @property
    def unit_cell(self) -> Structure:
        """The cell that the reference repeats."""
        repeats = np.array(self.lattice.repeats)
        b = self.reference.n_atoms // int(np.prod(repeats))
        cell = dataclasses.replace(
            self.reference,
            positions=on_host(self.reference.positions)[:b],
            species=on_host(self.reference.species)[:b],
            cell=on_host(self.reference.cell) / repeats[:, None],
        )
        return on_device(cell)

    def distances(self) -> np.ndarray:
        """How far each site is from the centre, by the nearest image, (n_sites,), Å."""
        return _lengths(self.homes, self.centre, self.reference)

    def on_sites(self, values: ArrayLike) -> jax.Array:
        """(n, c) over the atoms -> (n_sites, c) over the sites, zero at missing ones."""
        values = _rows(values, self.structure.n_atoms, "atoms of the defect")
        shape = (self.lattice.n_sites, values.shape[1])
        if not traced(values, self.site_of_atom):
            sites = np.zeros(shape, values.dtype)
            sites[np.asarray(self.site_of_atom)] = values
            return jax.device_put(sites)
        return jnp.zeros(shape, values.dtype).at[self.site_of_atom].set(values)

    def on_atoms(self, values: ArrayLike) -> jax.Array:
        """(n_sites, c) over the sites -> (n, c) over the atoms."""
        values = _rows(values, self.lattice.n_sites, "sites of the lattice")
        if not traced(values, self.site_of_atom):
            return jax.device_put(values[np.asarray(self.site_of_atom)])
        return jnp.asarray(values)[self.site_of_atom]

    def displaced(self, displacement: ArrayLike) -> Structure:
        """The defect with its atoms at homes + displacement (n_sites, 3), Å."""
        homes = on_host(self.homes)[on_host(self.site_of_atom)]
        positions = homes + on_host(self.on_atoms(displacement))
        return on_device(dataclasses.replace(self.structure, positions=positions))


def _rows(values: ArrayLike, n: int, of: str) -> jax.Array | np.ndarray:
    values = on_host(values)
    if values.ndim != 2 or values.shape[0] != n:
        raise ValueError(
            f"the array has shape {values.shape}: wanted one row for each of the {n} {of}."
        )
    return values


def _lengths(positions: ArrayLike, centre: ArrayLike, crystal: Structure) -> np.ndarray:
    return minimum_image(np.asarray(positions) - np.asarray(centre), crystal)[1]


def check_defect(defect: object) -> None:
    """Refuse anything but a defect.

    Args:
        defect: any object.

    Raises:
        TypeError: no `Defect`.
    """
    if not isinstance(defect, Defect):
        raise TypeError(
            f"defect is a {type(defect).__name__}: wanted a Defect; use e.g. "
            "vacancy(unit_cell, repeats)."
        )


def make_defect(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    structure: Structure,
    site_of_atom: Sequence[int] | np.ndarray,
    centre: ArrayLike,
    *,
    radius: float | None = None,
) -> Defect:
    """Any defect, given the sites of the perfect lattice that its atoms belong to.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells; m along every periodic direction.
        structure: n atoms in the cell of the supercell, where a relaxation starts.
        site_of_atom: (n,) different sites: regular ones in the order of `supercell`, of n_regular
            atoms, then n_regular, n_regular + 1, ... for interstitial atoms. Regular sites that
            are not named are missing.
        centre: (3,) Å.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`. An extra site is
            bonded to the regular sites (their nearest image) within it, to the nearest at least.

    Returns:
        The defect, no atom of it held.

    Raises:
        RuntimeError: float64 is off.
        TypeError: a unit cell that is no structure.
        ValueError: as `supercell`, `reference_lattice` and `without_sites`; sites named twice, or
            extra ones not in a row; a structure in another cell; a centre that is not three finite
            numbers; a radius that is not positive.
    """
    repeats = cells_along(unit_cell, repeats)
    reference = supercell(unit_cell, repeats)
    centre = finite_array("centre", centre, (3,), "Å")
    radius = two_shells(unit_cell) if radius is None else radius
    check_positive(radius=radius)
    if structure.pbc != reference.pbc or not np.allclose(structure.cell, reference.cell):
        raise ValueError(
            f"the cell of the structure is {np.asarray(structure.cell).tolist()}: wanted that of "
            f"the supercell, {np.asarray(reference.cell).tolist()}, and its periodicity."
        )
    n, sites = reference.n_atoms, np.asarray(site_of_atom)
    missing = np.setdiff1d(np.arange(n), sites)
    extra = np.flatnonzero(sites >= n)
    n_sites = n + len(extra)
    named = np.unique(sites)
    if (
        sites.dtype.kind not in "iu"
        or not len(named) == len(sites) == structure.n_atoms
        or sites.min() < 0
        or (sites.max() >= n_sites)
    ):
        raise ValueError(
            f"site_of_atom is {sites.tolist()} for {structure.n_atoms} atoms: wanted a different "
            f"site for each, regular ones from 0 to {n - 1}, extra ones in a row from {n} on."
        )
    homes = np.zeros((n_sites, 3))
    homes[:n] = np.asarray(reference.positions)
    homes[sites[extra]] = np.asarray(structure.positions)[extra]
    lattice = without_sites(reference_lattice(unit_cell, repeats, radius=radius), missing)
    bonds = [_bonded(home, reference, missing, radius) for home in homes[n:]]
    return Defect(
        reference=reference,
        structure=structure,
        site_of_atom=jax.device_put(sites.astype(np.int32)),
        homes=jax.device_put(homes),
        lattice=with_extra_sites(lattice, bonds),
        centre=jax.device_put(centre),
        free=None,
        removed=tuple(missing.tolist()),
    )


def cells_along(unit_cell: Structure, repeats: int | Sequence[int]) -> Sequence[int]:
    """The repeats of a supercell: of m, m along the periodic directions and one along the others.

    Args:
        unit_cell: the crystal.
        repeats: m; or (m1, m2, m3), which passes.

    Returns:
        (m1, m2, m3).

    Raises:
        TypeError: a crystal that is no structure.
    """
    if not isinstance(unit_cell, Structure):
        raise TypeError(
            f"unit_cell is a {type(unit_cell).__name__}: wanted a Structure, e.g. bcc('W', 3.165)."
        )
    if np.ndim(repeats) > 0:
        return cast(Sequence[int], repeats)
    return tuple(cast(int, repeats) if periodic else 1 for periodic in unit_cell.pbc)


def _bonded(
    home: np.ndarray, reference: Structure, missing: np.ndarray, radius: float
) -> np.ndarray:
    lengths = _lengths(reference.positions, home, reference)
    lengths[missing] = np.inf
    return np.flatnonzero(lengths < max(radius, lengths.min() + SAME_DISTANCE))


def chosen_site(reference: Structure, site: int | None) -> int:
    """The site named or, for None, that nearest to the middle of the supercell.

    Args:
        reference: the supercell.
        site: an index; None: the nearest to the middle, the first of several.

    Returns:
        The index.

    Raises:
        ValueError: a site that the supercell does not have.
    """
    if site is None:
        middle = 0.5 * np.asarray(reference.cell)[np.array(reference.pbc)].sum(axis=0)
        distances = np.linalg.norm(np.asarray(reference.positions) - middle, axis=1)
        return int(np.argmax(distances < distances.min() + SAME_DISTANCE))
    if not (isinstance(site, int | np.integer) and 0 <= site < reference.n_atoms):
        raise ValueError(
            f"site is {site!r}: wanted one from 0 to {reference.n_atoms - 1}, a whole number."
        )
    return int(site)


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
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre on the empty site.

    Raises:
        ValueError: as `supercell`, `reference_lattice` and `without_sites`; a supercell so small
            that the missing site was all that held it together.
    """
    reference = supercell(unit_cell, cells_along(unit_cell, repeats))
    site = chosen_site(reference, site)
    return with_vacant_sites(unit_cell, repeats, [site], reference.positions[site], radius=radius)


def with_vacant_sites(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    vacant: Sequence[int] | np.ndarray,
    centre: ArrayLike,
    *,
    radius: float | None = None,
) -> Defect:
    """The perfect supercell without the atoms of some sites.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        vacant: sites, in the order of `supercell`.
        centre: (3,) Å.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect.

    Raises:
        ValueError: as `make_defect`.
    """
    reference = supercell(unit_cell, cells_along(unit_cell, repeats))
    kept = np.delete(np.arange(reference.n_atoms), vacant)
    if not len(kept):
        raise ValueError(
            f"vacant names all {reference.n_atoms} sites of the supercell: wanted some with atoms; "
            "give larger repeats."
        )
    structure = without_atoms(reference, vacant)
    return make_defect(unit_cell, repeats, structure, kept, centre, radius=radius)


def clamped(defect: Defect, radius: float) -> Defect:
    """The defect in a finite domain: atoms far from its centre are held.

    They are held on their homes, the reference lattice; displacements vanish there, and the
    preconditioner solves with that condition. The cell stays periodic around the domain, so that
    images do not interact where the held shell between them is thicker than the cutoff.

    Args:
        defect: in a periodic cell.
        radius: Å; atoms at least as far from the centre are held.

    Returns:
        The defect, clamped.

    Raises:
        ValueError: a radius that leaves no atom free or none to hold.
    """
    held = defect.distances() >= radius
    lattice = with_held_sites(defect.lattice, held)
    sites = np.asarray(defect.site_of_atom)
    homes, starts = np.asarray(defect.homes)[sites], np.asarray(defect.structure.positions)
    positions = np.where(held[sites][:, None], homes, starts)
    return dataclasses.replace(
        defect,
        structure=dataclasses.replace(defect.structure, positions=jax.device_put(positions)),
        lattice=lattice,
        free=jax.device_put(~held[sites]),
    )


def checked_displacement(defect: Defect, displacement: ArrayLike) -> np.ndarray:
    """A displacement of the lattice, checked.

    Args:
        defect: where and on which lattice.
        displacement: (n_sites, 3) Å.

    Returns:
        It, on the host.

    Raises:
        ValueError: no row per site; NaN or infinity on an atom.
    """
    if not np.isfinite(np.asarray(defect.on_atoms(displacement))).all():
        raise ValueError("displacement holds NaN or infinity: wanted finite numbers in Å.")
    return np.asarray(displacement)


class RelaxedDefect(NamedTuple):
    """A relaxed defect; look at `relaxed.converged` first."""

    displacement: jax.Array  # (n_sites, 3) Å from the reference lattice, zero at missing sites
    energy: float  # eV, of the cell
    relaxed: Relaxed  # how it went


def relax_defect(
    potential: Potential,
    defect: Defect,
    *,
    displacement: ArrayLike | None = None,
    force_tolerance: float = 1e-6,
    max_evaluations: int = 1000,
    skin: float = 0.5,
) -> RelaxedDefect:
    """The defect's equilibrium in the fixed cell, preconditioned by its lattice; see `relax`.

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: (n_sites, 3) Å, the start; None: the defect's own, `defect.start`, which may
            be a saddle point where it is symmetric: then give one that is not.
        force_tolerance: largest norm of the force on a free atom at convergence, eV/Å.
        max_evaluations: evaluations of energy and gradient allowed.
        skin: margin of the neighbour search beyond the cutoff, Å.

    Returns:
        RelaxedDefect. In a periodic cell the preconditioner leaves the mean displacement of the
        atoms alone; in a clamped domain the held atoms stay where they start.

    Raises:
        ValueError: a displacement without a row per site; as `relax`.
        TypeError: as `relax`.
    """
    check_defect(defect)
    start = defect.structure if displacement is None else defect.displaced(displacement)
    relaxed = relax(
        potential,
        start,
        preconditioner=defect.preconditioner,
        free=defect.free,
        force_tolerance=force_tolerance,
        max_evaluations=max_evaluations,
        skin=skin,
    )
    moves = np.asarray(relaxed.positions) - np.asarray(defect.homes)[defect.site_of_atom]
    return RelaxedDefect(defect.on_sites(moves), relaxed.energy, relaxed)


def geometry_error(defect: Defect, u: ArrayLike, v: ArrayLike) -> jax.Array:
    """||D u - D v|| over the bonds between atoms that exist.

    Args:
        defect: where and on which lattice.
        u: (n_sites, 3) Å, a displacement of the reference lattice.
        v: (n_sites, 3) Å, another; 0.0 for none.

    Returns:
        The norm, (), Å.

    Raises:
        ValueError: a displacement without a row per site.
    """
    for x in (u, v):
        if np.ndim(x) > 0:
            _rows(x, defect.lattice.n_sites, "sites of the lattice")
    return defect.lattice.strain_norm(on_host(u) - on_host(v))


def left_basin(defect: Defect, u: ArrayLike, v: ArrayLike) -> str | None:
    """Why two relaxed geometries cannot be of one basin; None where they can.

    Half the shortest bond is farther than any atom moves within one basin. A shift of the whole
    crystal is no move, where no atom is held.

    Args:
        defect: where and on which lattice.
        u: (n_sites, 3) Å, a displacement of the reference lattice; NaN is another basin.
        v: (n_sites, 3) Å, another.

    Returns:
        The reason, in words, or None.
    """
    moves = np.asarray(defect.on_atoms(v)) - np.asarray(defect.on_atoms(u))
    if defect.free is None:
        moves = moves - moves.mean(axis=0)
    farthest = float(np.max(np.linalg.norm(moves, axis=1)))
    limit = 0.5 * shortest_bond(defect)
    if farthest < limit:
        return None
    return (
        f"an atom ended {farthest:.2f} Å from where it is in the other geometry, more than half "
        f"the shortest bond, {limit:.2f} Å"
    )


def shortest_bond(defect: Defect) -> float:
    """The distance of nearest neighbours in the perfect lattice.

    Args:
        defect: where and on which lattice.

    Returns:
        The distance, Å.
    """
    table = np.asarray(defect.lattice.complete)
    positions = np.asarray(defect.reference.positions)
    start, slot = np.nonzero(table != np.arange(len(table))[:, None])
    bonds = positions[table[start, slot]] - positions[start]
    return float(minimum_image(bonds, defect.reference)[1].min())


class DecayProfile(NamedTuple):
    """The strain of a defect by shells of equal distance from its centre, ascending."""

    distances: np.ndarray  # (shells,), Å
    strains: np.ndarray  # (shells,), Å, the largest |Du(l)| in the shell


def decay_profile(defect: Defect, displacement: ArrayLike) -> DecayProfile:
    """How the strain decays away from a defect: max |Du(l)| over the sites at each distance.

    An equilibrium has |Du(l)| <~ (1 + |l|)^-d in d dimensions, until images or a boundary have
    their effect.

    Args:
        defect: where and on which lattice.
        displacement: (n_sites, 3) Å.

    Returns:
        DecayProfile; missing sites are left out.

    Source: Ehrlacher, Ortner, Shapeev, Arch. Ration. Mech. Anal. 222 (2016) 1217.
    """
    present = np.asarray(defect.lattice.present)
    distances = defect.distances()[present]
    strains = np.asarray(defect.lattice.strain_by_site(jnp.asarray(displacement)))[present]
    order = np.argsort(distances)
    distances, strains = distances[order], strains[order]
    first = np.flatnonzero(np.diff(distances, prepend=-1.0) > SAME_DISTANCE)
    return DecayProfile(distances[first], np.maximum.reduceat(strains, first))
