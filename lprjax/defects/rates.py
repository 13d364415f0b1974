"""How the error of a defect simulation falls with the radius L of the training cells: one formula.

A mismatch of derivatives of order k of the lattice energy, outside L, leaves under the decay
|Du(l)| ~ |l|^-d of a point defect in d dimensions the errors

    geometry  ~ L^(-(k - 3/2) d - 2 s),      energy  ~ L^(-(k - 1) d - 2 s),

s = 1 where the elastic constants of that order are right and s = 0 where they are not. They are the
terms of the error budget, each with its mismatch held fixed: a real fit changes every mismatch with
L at once, so a slope alone neither confirms nor refutes.

In a multilattice such as diamond a mismatch of the internal strain acts at elastic order, and no
virial measures it: in the geometry virials alone gain nothing, forces on strained cells or force
constants do. The energy gains from virials alone: what the wrong shifts cost at the reference's
geometry, relaxing them gives back, and what is left depends on the relaxed elastic constants. (The
figure `multilattice_rates` measures both on a honeycomb lattice.) So at second order of the strain:
virials at finite strains gain nothing in the geometry without the forces that go with them (for the
same reason; not measured). With both right, s = 1 where the crystal has a centre of inversion, as
diamond has, or every atom is one; elsewhere one power instead of two is left.

Source: derived, in the setting of Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053; the
decay of Ehrlacher, Ortner and Shapeev, Arch. Ration. Mech. Anal. 222 (2016) 1217.
"""

from collections.abc import Collection
from typing import NamedTuple


class Rate(NamedTuple):
    """Exponents of L."""

    geometry: float  # of the geometry error
    energy: float  # of the energy error


ORDERS = {
    "elastic": (2, False, True),
    "internal_strain": (2, True, False),
    "force_constants": (2, True, True),
    "third_elastic": (3, False, True),
    "third_internal": (3, True, False),
    "third": (3, True, True),
    "fourth": (4, False, True),
}
"""Of each term: order of the derivatives, and whether elastic constants and internal strains of
that order are kept."""

MULTILATTICE_ONLY = {"internal_strain", "third_internal"}
"""How sublattices follow a strain, to first and to second order in it."""

CURED_BY = {
    "virial": {"elastic"},
    "strained_forces": {"internal_strain"},
    "force_constants": {"elastic", "internal_strain", "force_constants"},
    "finite_strain_virial": {"elastic", "third_elastic"},
    "finite_strain_forces": {"internal_strain", "third_internal"},
}
"""The terms that each kind of observation takes away, besides energies and forces of the core."""


def error_rate(
    order: int, dimension: int, *, elastic_kept: bool = False, internal_kept: bool = True
) -> Rate:
    """The exponents of L that a mismatch of one order of derivatives leaves.

        -(k - 3/2) d - 2 s   and   -(k - 1) d - 2 s

    Args:
        order: k, of the derivatives of the lattice energy; at least 2.
        dimension: d, 2 or 3.
        elastic_kept: s, whether the elastic constants of that order are right, those of relaxed
            sublattices.
        internal_kept: whether the internal strains of that order are, too: without, s = 0 for the
            geometry.

    Returns:
        The exponents.

    Raises:
        ValueError: an order below 2, another dimension.

    >>> error_rate(2, 3)
    Rate(geometry=-1.5, energy=-3.0)
    """
    if order < 2 or dimension not in (2, 3):
        raise ValueError(
            f"order is {order!r} and dimension {dimension!r}: wanted an order of at least 2 and a "
            "dimension of 2 or 3; first derivatives are stresses, which move no atom of a lattice."
        )
    gain, settled = 2.0 * elastic_kept, 2.0 * (elastic_kept and internal_kept)
    return Rate(-(order - 1.5) * dimension - settled, -(order - 1.0) * dimension - gain)


def fitted_rate(kinds: Collection[str], dimension: int, *, multilattice: bool = False) -> Rate:
    """The exponents that are left where some kinds of observation of the crystal fit exactly.

    The slowest of the terms that none of them cures.

    Args:
        kinds: any of "virial" (small strains), "strained_forces" (on the atoms of those cells),
            "force_constants", "finite_strain_virial", "finite_strain_forces"; other kinds, energies
            and forces of the core, cure no term of the far field.
        dimension: d, 2 or 3.
        multilattice: whether some atom is no centre of symmetry, as in diamond, while the crystal
            has one; without any, one power of L less is gained.

    Returns:
        The exponents.

    Raises:
        ValueError: another dimension.

    >>> fitted_rate(["energy", "forces", "virial"], 3)
    Rate(geometry=-3.5, energy=-5.0)
    """
    cured = set().union(*(CURED_BY.get(kind, set()) for kind in kinds))
    if not multilattice:
        cured = cured | MULTILATTICE_ONLY
    left = [
        error_rate(order, dimension, elastic_kept=elastic, internal_kept=internal)
        for term, (order, elastic, internal) in ORDERS.items()
        if term not in cured
    ]
    return Rate(max(rate.geometry for rate in left), max(rate.energy for rate in left))
