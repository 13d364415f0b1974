"""Pair and EAM potentials by their functions of one variable, with ranges of the derivatives.

    E = sum_i [ sum_j phi_ij(r_ij) + F_i(rho_i) ],   rho_i = sum_j f_ij(r_ij),

phi half of the bond's energy. Over intervals of distances and densities each function comes with
intervals that surely hold it and its first three derivatives (`numerics.intervals`). A function
that jumps, or whose second derivative does, somewhere in the interval has none: where a distance
may cross the cutoff, a bond change its shell, a density pass the joints of the embedding function.

Source: of the formulas, `eam` and `bonds`; derived.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from lprjax.numerics.intervals import Interval, Series, argument, either, interval
from lprjax.potentials.bonds import PolynomialBonds
from lprjax.potentials.eam import RHO_HIGH, RHO_LOW, ZhouElement, ZhouTable, parameters


class Bonds(NamedTuple):
    """Bonds of a structure, each from both ends; arrays (e,), or (e, pieces)."""

    start: np.ndarray  # (e,) atomic numbers
    end: np.ndarray  # (e,)
    length: np.ndarray  # (e,) Å, as they are


class Ranged(NamedTuple):
    """What the derivatives of some functions are, and why not, where they have none."""

    series: Series
    why_not: str  # "" where all have


class BondRanges(Protocol):
    """A potential by its functions."""

    r_cut: float
    embeds: bool  # whether it has densities

    def pair(self, bonds: Bonds, r: Interval) -> Ranged:
        """phi over distances, Å: (e, pieces), eV."""
        ...

    def density(self, bonds: Bonds, r: Interval) -> Ranged:
        """f over distances, Å: what the end sends to the start."""
        ...

    def embedding(self, species: np.ndarray, rho: Interval) -> Ranged:
        """F over densities, of sites (n,), eV."""
        ...


def bond_ranges(potential: Any) -> BondRanges | None:
    """The functions of a pair or EAM potential; None of any other.

    Args:
        potential: as it is, or as `as_argument` makes it: Zhou's EAM, polynomial bonds not pinned.

    Returns:
        Its functions, or None.
    """
    if hasattr(potential, "as_pytree"):
        potential = potential.as_pytree()
    if isinstance(potential, ZhouTable):
        return _Zhou(np.asarray(potential.table), float(potential.r_cut))
    if isinstance(potential, PolynomialBonds) and potential.shells is None:
        return _Polynomials(potential)
    return None


def _crossing(r: Interval, at: float) -> bool:
    return bool(np.any((r.low <= at) & (r.high >= at)))


class _Zhou:
    """`eam.ZhouTable`."""

    embeds = True

    def __init__(self, table: np.ndarray, r_cut: float):
        self.table, self.r_cut = table, r_cut

    def _elements(self, numbers: np.ndarray, axes: int) -> tuple[ZhouElement, np.ndarray]:
        """The parameters of atoms, with `axes` of length one behind."""
        index = np.argmax(self.table[0][None] == numbers[:, None], axis=1)
        return parameters(self.table[:, index].reshape(len(self.table), -1, *[1] * axes))

    def _functions(self, numbers: np.ndarray, r: Interval) -> tuple[Series, Series]:
        """f and 2 phi of the pure elements."""
        p, scale = self._elements(numbers, r.low.ndim - 1)
        s = argument(r) * scale
        cut = [(s - x).power(20) + 1.0 for x in (p.lam, p.kappa)]
        rates = (p.beta, p.alpha)
        g, h = (
            ((s - 1.0) * (-rate)).exp() * c.reciprocal() for rate, c in zip(rates, cut, strict=True)
        )
        return g * p.fe, h * p.A - g * p.B

    def pair(self, bonds: Bonds, r: Interval) -> Ranged:
        f_a, phi_a = self._functions(bonds.start, r)
        if np.array_equal(bonds.start, bonds.end):
            return Ranged(phi_a * 0.5, self._jumps(r))
        f_b, phi_b = self._functions(bonds.end, r)
        mixed = f_b * f_a.reciprocal() * phi_a + f_a * f_b.reciprocal() * phi_b
        alike = (bonds.start == bonds.end).reshape(-1, *[1] * (r.low.ndim - 1))
        return Ranged(either(alike, phi_a * 0.5, mixed * 0.25), self._jumps(r))

    def density(self, bonds: Bonds, r: Interval) -> Ranged:
        return Ranged(self._functions(bonds.end, r)[0], self._jumps(r))

    def _jumps(self, r: Interval) -> str:
        jumps = _crossing(r, self.r_cut)
        return f"a distance may cross the cutoff, {self.r_cut:.3f} Å" if jumps else ""

    def embedding(self, species: np.ndarray, rho: Interval) -> Ranged:
        p, _ = self._elements(species, rho.low.ndim - 1)
        x = argument(rho)
        low = _cubic(p.Fi, x * (1.0 / (RHO_LOW * p.rhoe)) - 1.0)
        middle = _cubic(p.Fm, x * (1.0 / p.rhoe) - 1.0)
        logarithm = (x * (1.0 / p.rhos)).log() * p.eta
        high = (logarithm * -1.0 + 1.0) * logarithm.exp() * p.Fe
        at = [RHO_LOW * p.rhoe, RHO_HIGH * p.rhoe]
        crossed = [np.any((rho.low <= y) & (rho.high >= y)) for y in at]
        why = "a density may pass a joint of the embedding function, where F'' jumps"
        found = either(rho.high < at[0], low, either(rho.low > at[1], high, middle))
        return Ranged(found, why if any(crossed) else "")


def _cubic(c: Sequence[Any], x: Series) -> Series:
    return x * (x * (x * c[3] + c[2]) + c[1]) + c[0]


class _Polynomials:
    """`bonds.PolynomialBonds`."""

    embeds = False

    def __init__(self, bonds: PolynomialBonds):
        self.r_cut, self.radii = bonds.r_cut, np.array(bonds.radii)
        self.coefficients = np.asarray(bonds.coefficients)[0]
        self.rest_lengths = np.asarray(bonds.rest_lengths)

    def pair(self, bonds: Bonds, r: Interval) -> Ranged:
        edges = 0.5 * (self.radii[1:] + self.radii[:-1])
        shell = np.searchsorted(edges, bonds.length)
        extra = [1] * (r.low.ndim - 1)
        x = argument(r) - self.rest_lengths[shell].reshape(-1, *extra)
        table = self.coefficients[shell].T.reshape(self.coefficients.shape[1], -1, *extra)
        found = x * 0.0 + table[-1]
        for c in table[-2::-1]:
            found = x * found + c
        jumps = any(_crossing(r, at) for at in (*edges, self.r_cut))
        why = "a bond may change its shell, or cross the cutoff" if jumps else ""
        return Ranged(found * 0.5, why)

    def density(self, bonds: Bonds, r: Interval) -> Ranged:
        return Ranged(argument(r) * 0.0, "")

    def embedding(self, species: np.ndarray, rho: Interval) -> Ranged:
        zero = interval(np.zeros(rho.low.shape))
        return Ranged(Series((zero,) * 4), "")
