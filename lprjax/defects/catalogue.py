"""The point defects of cubic crystals and of the plane, each as a `Defect` at its start.

Directions are Cartesian. Interstitials start at configurations of high symmetry, and a relaxation
keeps the symmetry of its start: where the symmetric stationary point is a saddle, start from a
displacement without the symmetry (`relax_defect(..., displacement=defect.start + ...)`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers
from jax.typing import ArrayLike

from lprjax.atoms.structures import Structure, minimum_image, supercell
from lprjax.defects.defect import (
    Defect,
    cells_along,
    chosen_site,
    make_defect,
    vacancy,
    with_vacant_sites,
)

SAME_LENGTH = 1e-4
"""Å; neighbours closer in distance than this belong to one shell: a choice."""
CLOSED_UP = 0.85
"""Separation of the atoms of a dumbbell at its start, in nearest-neighbour distances: a choice."""
WIDEST = 2.0
"""Beyond this separation, in the same unit, two atoms do not share a site: a choice."""
OCCUPIED = 0.5
"""An interstitial nearer than this to an atom, in the same unit, sits on it: a choice."""


def divacancy(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    neighbour: int = 1,
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """Two vacancies, on a site and on one in its first, second, ... shell of neighbours.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        neighbour: the shell, counted from 1.
        site: one of the two, in the order of `supercell`; None: the one nearest to the middle of
            the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre half-way between the two.

    Raises:
        ValueError: as `make_defect`; a supercell that does not have so many shells.
    """
    reference, site, neighbours = _host(unit_cell, repeats, site)
    other, offset = neighbours.of_shell(neighbour)
    centre = reference.positions[site] + 0.5 * offset
    return with_vacant_sites(unit_cell, repeats, [site, other], centre, radius=radius)


def dumbbell(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    direction: ArrayLike | Sequence[float],
    separation: float | None = None,
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """A split interstitial: two atoms share one site, half the separation to either side of it.

    <110> and <111> in bcc, <100> in fcc, <110> ("split", or X) in diamond. One atom keeps the
    regular site, displaced backwards along the direction; the other is on an extra site.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        direction: (3,) Cartesian, of any length but zero.
        separation: of the two atoms, Å; None: 0.85 nearest-neighbour distances.
        site: the shared site, in the order of `supercell`; None: the one nearest to the middle of
            the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre on the site.

    Raises:
        ValueError: as `make_defect`; a direction of another shape, zero or not finite; a
            separation that is not positive, or of two nearest-neighbour distances or more.
    """
    reference, site, neighbours = _host(unit_cell, repeats, site)
    along = np.asarray(direction, dtype=float)
    if along.shape != (3,) or not 0 < np.linalg.norm(along) < np.inf:
        raise ValueError(f"direction is {along}: wanted three finite numbers, not all zero.")
    separation = CLOSED_UP * neighbours.nearest if separation is None else separation
    if not 0 < separation < WIDEST * neighbours.nearest:
        raise ValueError(
            f"separation is {separation!r} Å: wanted a positive length below {WIDEST:g} nearest-"
            f"neighbour distances, {WIDEST * neighbours.nearest:.2f} Å."
        )
    half = 0.5 * separation * along / np.linalg.norm(along)
    centre = reference.positions[site]
    return _with_atom(
        unit_cell,
        repeats,
        dataclasses.replace(reference, positions=reference.positions.at[site].add(-half)),
        centre + half,
        reference.species[site],
        centre,
        radius,
    )


def crowdion(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """An atom more in a close-packed row: at the middle of a nearest-neighbour bond of a site.

    The row is <111> in bcc and <110> in fcc.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        site: in the order of `supercell`; None: the one nearest to the middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre that middle.

    Raises:
        ValueError: as `make_defect`.
    """
    reference, site, neighbours = _host(unit_cell, repeats, site)
    middle = reference.positions[site] + 0.5 * neighbours.of_shell(1)[1]
    return _with_atom(
        unit_cell, repeats, reference, middle, reference.species[site], middle, radius
    )


def tetrahedral(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """The tetrahedral interstitial of diamond: one bond length from a site, opposite to a bond.

    Four atoms are a bond length away, six more 2 / sqrt(3) of it.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        site: in the order of `supercell`; None: the one nearest to the middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre the interstitial.

    Raises:
        ValueError: as `make_defect`; a crystal that has an atom there already (bcc, fcc).
    """
    reference, site, neighbours = _host(unit_cell, repeats, site)
    hole = reference.positions[site] - neighbours.of_shell(1)[1]
    _, lengths = _offsets(reference, hole)
    if lengths.min() < OCCUPIED * neighbours.nearest:
        raise ValueError(
            f"opposite to a bond of site {site} there is an atom {lengths.min():.3g} Å away: "
            "wanted a crystal whose bonds have no continuation, such as diamond."
        )
    return _with_atom(unit_cell, repeats, reference, hole, reference.species[site], hole, radius)


def substitution(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    element: str | int,
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """One atom replaced by another element.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        element: chemical symbol or atomic number.
        site: in the order of `supercell`; None: the one nearest to the middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre on the site.

    Raises:
        ValueError: as `make_defect`; an element unknown, or the one that is there already.
    """
    reference, site, _ = _host(unit_cell, repeats, site)
    number = atomic_numbers.get(element, 0) if isinstance(element, str) else element
    if number not in range(1, 119) or number == int(reference.species[site]):
        raise ValueError(
            f"element is {element!r}: wanted a symbol or an atomic number other than "
            f"{int(reference.species[site])}, which site {site} has."
        )
    structure = dataclasses.replace(reference, species=reference.species.at[site].set(number))
    sites = np.arange(reference.n_atoms)
    return make_defect(
        unit_cell, repeats, structure, sites, reference.positions[site], radius=radius
    )


def antisite(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """A site of a binary crystal taken by an atom of the other species.

    Args:
        unit_cell: the crystal, primitive or conventional, of two species.
        repeats: m or (m1, m2, m3) cells.
        site: decides which of the two antisites it is: sites 0 ... b - 1 are those of `unit_cell`;
            None: the one nearest to the middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre on the site.

    Raises:
        ValueError: as `make_defect`; a unit cell that does not have two species.
    """
    kinds = np.unique(np.asarray(unit_cell.species))
    if len(kinds) != 2:
        raise ValueError(f"the unit cell has species {kinds.tolist()}: wanted two of them.")
    reference, site, _ = _host(unit_cell, repeats, site)
    other = int(kinds.sum() - reference.species[site])
    return substitution(unit_cell, repeats, other, site=site, radius=radius)


def micro_crack(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    length: int,
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """A crack of a few sites: a row of `length` neighbouring sites along x without their atoms.

    Args:
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        length: how many sites lose their atoms.
        site: near the middle of the row, in the order of `supercell`; None: the one nearest to the
            middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect, its centre the middle of the row.

    Raises:
        ValueError: as `make_defect`; a length that is not from 1 to the row's sites less one.
    """
    reference, site, _ = _host(unit_cell, repeats, site)
    offsets, _ = _offsets(reference, reference.positions[site])
    row = np.flatnonzero(np.abs(offsets[:, 1:]).max(axis=1) < SAME_LENGTH)
    if length not in range(1, len(row)):
        raise ValueError(
            f"length is {length!r}: wanted an integer from 1 to {len(row) - 1}, one less than the "
            "row along x has sites."
        )
    row = row[np.argsort(offsets[row, 0])]
    first = np.clip(np.flatnonzero(row == site)[0] - (length - 1) // 2, 0, len(row) - length)
    row = row[first : first + length]
    centre = reference.positions[site] + offsets[row].mean(axis=0)
    return with_vacant_sites(unit_cell, repeats, row, centre, radius=radius)


DEFECTS: dict[str, Callable[..., Defect]] = {
    "vacancy": vacancy,
    "divacancy-1": lambda cell, repeats, **options: divacancy(cell, repeats, 1, **options),
    "divacancy-2": lambda cell, repeats, **options: divacancy(cell, repeats, 2, **options),
    "dumbbell-100": lambda cell, repeats, **options: dumbbell(cell, repeats, (1, 0, 0), **options),
    "dumbbell-110": lambda cell, repeats, **options: dumbbell(cell, repeats, (1, 1, 0), **options),
    "dumbbell-111": lambda cell, repeats, **options: dumbbell(cell, repeats, (1, 1, 1), **options),
    "crowdion": crowdion,
    "tetrahedral": tetrahedral,
}
"""What `named_defect` makes of a unit cell, repeats, and the options `site` and `radius`."""


def named_defect(
    name: str,
    unit_cell: Structure,
    repeats: int | Sequence[int],
    *,
    site: int | None = None,
    radius: float | None = None,
) -> Defect:
    """The defect of that name in a crystal of one element, for command lines.

    Args:
        name: one of DEFECTS.
        unit_cell: the crystal, primitive or conventional.
        repeats: m or (m1, m2, m3) cells.
        site: in the order of `supercell`; None: the one nearest to the middle of the supercell.
        radius: of the bonds of the seminorm, Å, as in `reference_lattice`.

    Returns:
        The defect.

    Raises:
        ValueError: another name; as the constructor.
    """
    if name not in DEFECTS:
        raise ValueError(f"name is {name!r}: wanted one of {', '.join(DEFECTS)}.")
    return DEFECTS[name](unit_cell, repeats, site=site, radius=radius)


class _Neighbours:
    """The other sites around one, nearest image each, sorted by distance, then by index."""

    def __init__(self, offsets: np.ndarray, lengths: np.ndarray, site: int) -> None:
        shells = np.round(lengths / SAME_LENGTH)
        order = np.lexsort((np.arange(len(lengths)), shells))
        self.sites = order[order != site]
        self.offsets = offsets
        shells = shells[self.sites]
        self.first = np.flatnonzero(np.diff(shells, prepend=-1.0) > 1)
        self.nearest = float(lengths[self.sites[0]])

    def of_shell(self, shell: int) -> tuple[int, np.ndarray]:
        """The first site of the shell, counted from 1, and its offset (3,), Å."""
        if shell not in range(1, len(self.first) + 1):
            raise ValueError(
                f"neighbour is {shell!r}: wanted a shell from 1 to {len(self.first)}, which the "
                "supercell has."
            )
        site = int(self.sites[self.first[shell - 1]])
        return site, self.offsets[site]


def _host(
    unit_cell: Structure, repeats: int | Sequence[int], site: int | None
) -> tuple[Structure, int, _Neighbours]:
    """The perfect supercell, the site and its neighbours."""
    reference = supercell(unit_cell, cells_along(unit_cell, repeats))
    if reference.n_atoms < 2:
        raise ValueError("the supercell has one atom: wanted more; give larger repeats.")
    site = chosen_site(reference, site)
    return reference, site, _Neighbours(*_offsets(reference, reference.positions[site]), site)


def _offsets(reference: Structure, centre: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    return minimum_image(np.asarray(reference.positions) - np.asarray(centre), reference)


def _with_atom(
    unit_cell: Structure,
    repeats: int | Sequence[int],
    host: Structure,
    position: jax.Array,
    species: jax.Array,
    centre: jax.Array,
    radius: float | None,
) -> Defect:
    """The defect of one atom more than the host has, on an extra site."""
    structure = dataclasses.replace(
        host,
        positions=jnp.concatenate([host.positions, jnp.asarray(position)[None]]),
        species=jnp.append(host.species, species),
    )
    return make_defect(
        unit_cell, repeats, structure, np.arange(structure.n_atoms), centre, radius=radius
    )
