"""Embedded-atom potentials from files: the tables that people publish and LAMMPS reads.

    E_i = F_a(rho_i) + 1/2 sum_j phi_ab(r_ij),      rho_i = sum_j f_ab(r_ij),

a the element of atom i and b that of its neighbour j. F, f and r phi are given as numbers on even
grids from zero (`eam_files`).

Two ways lead from numbers to functions. "lammps" are the cubics of LAMMPS, whose slopes at the
numbers are differences of five of them: equal to LAMMPS to rounding, with one continuous
derivative. "quintic" are splines of degree five, with four, so that elastic constants of third
order are continuous too. They go through the numbers where these have all digits; numbers rounded
to fewer are met to their rounding, with as few knots as that takes. For an error epsilon of a
number is one of epsilon / step^m in an m-th derivative: of ten digits at steps of 6e-4 Å
(Mendelev's tables) third derivatives would be noise alone, and second ones wrong by some per cent.
`table_noise` measures it; energies and forces do not show it.

Both differ by what a table does not say: less than 1e-6 eV per atom for most tables, more where F
is tabulated in few numbers (AlCu, AlO). Where LAMMPS goes on beyond a table so do both: F with its
last slope, f and phi with their last value.

Sources: M. S. Daw, M. I. Baskes, Phys. Rev. B 29, 6443 (1984); M. W. Finnis, J. E. Sinclair,
Philos. Mag. A 50, 45 (1984); splines, P. Dierckx, Curve and Surface Fitting with Splines (1993), as
SciPy has them; the rest derived.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import finite_array, is_number, require_x64
from lprjax.numerics.guarded import inverse
from lprjax.potentials.eam_files import Tables, part_of, read_eam
from lprjax.potentials.environments import Environment, over_sites
from lprjax.potentials.potential import (
    check,
    check_species,
    nan_unless,
    reaches,
    species_index,
)

if TYPE_CHECKING:  # SciPy's splines load as long as all else of `import lprjax`
    from scipy.interpolate import BSpline

DEGREE = 5
DIGITS = 1e-12
"""Numbers with a larger error, in units of their own size, are met to that error: a choice."""
SAME = 0.7
"""Errors told from two orders of differences are the same within this: a choice."""
NEAR = 10
"""Below this part of the distances, where no two atoms come, numbers are joined one by one."""
WINDOW = 401
"""Numbers from whose differences an error is told: a choice, a twentieth of a large table."""
LEAST = 0.03
"""Of the median: no error is taken to be smaller (where a function is zero it would be)."""


@dataclasses.dataclass(frozen=True, eq=False)
class TabulatedEAM:
    """Site energies from tables; make it by `eam_from_file` or `tabulated_eam`."""

    elements: tuple[str, ...]
    r_cut: float  # Å
    arrays: EAMArrays

    def check(self, graph: Graph) -> None:
        """Refuse a graph of other elements.

        Args:
            graph: what is traced of it passes unchecked.

        Raises:
            ValueError: an element that the tables lack.
        """
        known = {e: atomic_numbers[e] for e in self.elements}
        check_species(graph.species, known, "the tables")

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms; F(0) for an isolated atom."""
        require_x64()
        check(self, graph)
        return self.arrays(graph)

    def as_pytree(self) -> EAMArrays:
        """The same with the tables as leaves: those of one size share what is compiled."""
        return self.arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class EAMArrays:
    """A `TabulatedEAM` for use inside `jit`: coefficients of pieces, in units of a step."""

    numbers: np.ndarray  # (E,) atomic numbers
    r_cut: float  # Å
    per_rho: float  # 1 / step
    per_r: float  # 1 / step, 1/Å
    embedding: np.ndarray  # (E, n_rho - 1, 6), highest power first
    bonds: np.ndarray  # (E, E, n_r - 1, 12): f and r phi, likewise, side by side

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms; NaN for what it does not describe."""
        index = species_index(graph.species, self.numbers)
        species = index.at[graph.neighbours].get(mode="promise_in_bounds")
        energies = over_sites(self._site, graph, index, species)
        known = reaches(graph, self.r_cut) & jnp.all(index >= 0)
        return nan_unless(known, jnp.where(graph.atom_mask, energies, 0.0))

    def _site(self, site: Environment, here: jax.Array, there: jax.Array) -> jax.Array:
        """E_i of an element with index `here` (), among those of indices `there` (K,)."""
        r = site.lengths
        mask = site.mask & (r < self.r_cut)
        n_elements, _, n, _ = self.bonds.shape
        piece, x = _place(r * self.per_r, n)
        row = piece + n * (n_elements * here + there if n_elements > 1 else 0)
        table, width = jnp.asarray(self.bonds).ravel(), 2 * DEGREE + 2
        c = [table.at[width * row + k].get(mode="promise_in_bounds") for k in range(width)]
        density, pair = _horner(c[: DEGREE + 1], x), _horner(c[DEGREE + 1 :], x)
        rho, phi = (jnp.sum(jnp.where(mask, y, 0.0)) for y in (density, pair * inverse(r)))
        return self._embedded(here, rho) + 0.5 * phi

    def _embedded(self, here: jax.Array, rho: jax.Array) -> jax.Array:
        """F of an element, with its last slope beyond the table."""
        n = self.embedding.shape[1]
        s = rho * self.per_rho
        piece, x = _place(s, n)
        c = list(jnp.asarray(self.embedding)[here, piece])
        slope = _horner([(DEGREE - k) * c[k] for k in range(DEGREE)], x)
        return _horner(c, x) + jnp.where(s > n, slope * (s - n), 0.0)


def _place(s: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Of a place in steps, its piece of n and how far into that; beyond the last, its end."""
    piece = jnp.clip(jnp.floor(s), 0, n - 1).astype(jnp.int32)
    return piece, jnp.minimum(s - piece, 1.0)


def _horner(coefficients: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """A polynomial, its coefficients from the highest power to the constant."""
    value = coefficients[0]
    for c in coefficients[1:]:
        value = value * x + c
    return value


def eam_from_file(
    path: str | Path,
    elements: Sequence[str] | None = None,
    *,
    interpolation: str = "quintic",
    r_cut: float | None = None,
) -> TabulatedEAM:
    """The EAM that a file tabulates: funcfl (`.eam`), setfl (`.eam.alloy`) or Finnis-Sinclair
    (`.eam.fs`); what is inside decides, not the name.

    Args:
        path: of the file.
        elements: to be kept of those it holds; all if None. Name only what is there: tables of
            pairs grow with its square.
        interpolation: "quintic", for derivatives of second and third order, or "lammps", for what
            LAMMPS computes to rounding; see the top of the file.
        r_cut: cutoff, Å, in place of the file's.

    Returns:
        The potential.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut short, is of another format, or holds numbers that are none;
            an element that it lacks; another interpolation; a cutoff that is not positive.
    """
    tables = read_eam(path)
    if elements is not None:
        tables = part_of(tables, elements, str(path))
    return tabulated_eam(tables, interpolation=interpolation, r_cut=r_cut)


def tabulated_eam(
    tables: Tables, *, interpolation: str = "quintic", r_cut: float | None = None
) -> TabulatedEAM:
    """The potential of tables.

    Args:
        tables: as `read_eam` returns them.
        interpolation: "quintic" or "lammps", see the top of the file.
        r_cut: cutoff, Å, in place of theirs.

    Returns:
        The potential.

    Raises:
        ValueError: another interpolation, tables of other shapes or with NaN, or a cutoff that is
            not positive.
    """
    if interpolation not in PIECES:
        raise ValueError(f"interpolation is {interpolation!r}: wanted one of {list(PIECES)}.")
    pieces, n = PIECES[interpolation], len(tables.elements)
    n_rho, n_r = np.shape(tables.embedding)[-1], np.shape(tables.pair)[-1]
    shapes = {"embedding": (n, n_rho), "density": (n, n, n_r), "pair": (n, n, n_r)}
    for name, shape in shapes.items():
        finite_array(f"{name} of the tables", getattr(tables, name), shape, "the file's units")
    r_cut = tables.r_cut if r_cut is None else r_cut
    if not (is_number(r_cut) and r_cut > 0.0):
        raise ValueError(f"r_cut is {r_cut!r}: wanted a positive length in Å.")
    numbers = np.array([atomic_numbers[e] for e in tables.elements], float)
    bonds = np.concatenate([pieces(tables.density), pieces(tables.pair)], axis=-1)
    steps = 1.0 / tables.drho, 1.0 / tables.dr
    arrays = EAMArrays(numbers, float(r_cut), *steps, pieces(tables.embedding), bonds)
    return TabulatedEAM(tables.elements, float(r_cut), arrays)


def _splines(values: np.ndarray) -> np.ndarray:
    """Of numbers (..., n) at 0, 1, 2, ... pieces of splines: (..., n - 1, DEGREE + 1)."""
    rows, found = values.reshape(-1, values.shape[-1]), {}
    for row in rows:
        if row.tobytes() not in found:
            found[row.tobytes()] = _spline(row)
    whole = np.stack([found[row.tobytes()] for row in rows])
    return whole.reshape(*values.shape[:-1], -1, DEGREE + 1)


def _spline(values: np.ndarray) -> np.ndarray:
    """Pieces (n - 1, DEGREE + 1) of one function: through its numbers, or to their rounding."""
    from scipy.interpolate import BSpline, make_interp_spline, splrep

    places = np.arange(len(values), dtype=float)
    pieces = _taylor(make_interp_spline(places, values, DEGREE))
    if _rounded(values):
        near, noise = len(values) // NEAR, _noise(values)
        weights = 1.0 / np.maximum(noise, LEAST * np.median(noise))[near:]
        # With its messages asked for it does not warn: where it cannot come so near, it is near.
        (knots, *_) = splrep(
            places[near:], values[near:], weights, k=DEGREE, s=len(weights), full_output=True
        )
        pieces[near:] = _taylor(BSpline(*knots), near)
    return pieces


def _rounded(values: np.ndarray) -> bool:
    """Whether numbers have an error to speak of, which is no lack of smoothness: that of tenth
    differences is then that of eighth, where a smooth function's would be far smaller."""
    outer = values[len(values) // 2 :]
    error, again = (np.median(_noise(outer, order)) for order in (8, 10))
    return bool(again > SAME * error > SAME * DIGITS * np.sqrt(np.mean(outer**2)))


def _taylor(spline: BSpline, first: int = 0) -> np.ndarray:
    """Coefficients of powers from each number on but the last, the highest first."""
    places = np.arange(first, spline.t[-1])
    orders = range(DEGREE, -1, -1)
    return np.stack([spline(places, nu=k) / math.factorial(k) for k in orders], axis=-1)


def _noise(values: np.ndarray, order: int = 8) -> np.ndarray:
    """The error of each number (..., n), a standard deviation.

    Differences of high order have next to nothing of a smooth function, and C(16, 8)^(1/2) times
    the error if they are the eighth: the median over WINDOW numbers, over 0.6745.
    """
    from scipy.ndimage import median_filter

    around = [(0, 0)] * (values.ndim - 1)
    differences = np.abs(np.diff(values, order, axis=-1))
    differences = np.pad(differences, [*around, (order // 2, order // 2)], mode="edge")
    size = (1,) * (values.ndim - 1) + (WINDOW,)
    median = median_filter(differences, size, mode="nearest")
    return median / (0.6745 * math.comb(2 * order, order) ** 0.5)


def _cubics(values: np.ndarray) -> np.ndarray:
    """The same of LAMMPS's cubics (`PairEAM::interpolate`), with zeros for higher powers."""
    y = np.moveaxis(np.asarray(values), -1, 0)
    slope = np.gradient(y, axis=0)
    slope[2:-2] = (y[:-4] - y[4:] + 8.0 * (y[3:-1] - y[1:-3])) / 12.0
    rise, first, last = np.diff(y, axis=0), slope[:-1], slope[1:]
    powers = [first + last - 2.0 * rise, 3.0 * rise - 2.0 * first - last, first, y[:-1]]
    zeros = [np.zeros_like(rise)] * (DEGREE + 1 - len(powers))
    return np.moveaxis(np.stack([*zeros, *powers], axis=-1), 0, -2)


PIECES = {"quintic": _splines, "lammps": _cubics}
"""From the numbers of a table to the coefficients of its pieces, by name."""


def table_noise(tables: Tables, order: int = 3) -> dict[str, np.ndarray]:
    """How much of a derivative would be the table's own noise, were its numbers joined one by one.

    epsilon (sum_k s^(order)(k)^2)^(1/2) / step^order, with s the spline of degree five that is one
    at one number and zero at all others, and epsilon the error of the numbers, told from their
    eighth differences: the median from half the cutoff to the cutoff.

    Args:
        tables: as `read_eam` returns them.
        order: of the derivative, from 0 to 4.

    Returns:
        "density": of f, in the file's unit over Å^order; "pair": of r phi, eV Å over Å^order; both
        (E, E), standard deviations.

    Source: derived.
    """
    from scipy.interpolate import make_interp_spline

    one = np.zeros(61)
    one[30] = 1.0
    cardinal = make_interp_spline(np.arange(61.0), one, DEGREE)(np.arange(61.0), nu=order)
    made = np.sqrt(np.sum(cardinal**2)) / tables.dr**order
    last = min(int(tables.r_cut / tables.dr), tables.pair.shape[-1])
    outer = slice(last // 2, last)
    both = {name: getattr(tables, name) for name in ("density", "pair")}
    return {k: made * np.median(_noise(v)[..., outer], axis=-1) for k, v in both.items()}
