"""The cells and the basis that `benchmark` uses: rattled silicon and tungsten of any size."""

import jax
import numpy as np

from lprjax.ace.spec import ACESpec
from lprjax.atoms.structures import Structure, bcc, diamond, rattled, supercell

SILICON, TUNGSTEN = 5.431, 3.165  # lattice constants, Å
R_CUT, RATTLE = 5.5, 0.05  # Å


def ace_spec(degree: int) -> ACESpec:
    """The basis: order 3, cutoff 5.5 Å."""
    return ACESpec(("Si",), order=3, degree=degree, r_cut=R_CUT, r0=SILICON * np.sqrt(3) / 4)


def near_cubic(n_cells: int) -> tuple[int, int, int]:
    """Three whole numbers, ascending, of that product and the least sum."""
    divisors = [d for d in range(1, n_cells + 1) if n_cells % d == 0]
    triples = ((a, b, n_cells // (a * b)) for a in divisors for b in divisors)
    whole = [t for t in triples if t[0] * t[1] * t[2] == n_cells and t[0] <= t[1] <= t[2]]
    return min(whole, key=sum)


def silicon_shape(n_atoms: int) -> tuple[int, int, int]:
    """Cubic cells of eight atoms along each side.

    Args:
        n_atoms: a multiple of 8.

    Returns:
        three numbers, ascending, as equal as can be.

    Raises:
        ValueError: it is no multiple of 8.
    """
    if n_atoms % 8:
        raise ValueError(
            f"n_atoms is {n_atoms}: wanted a multiple of 8, of the cubic cell of silicon."
        )
    return near_cubic(n_atoms // 8)


def perfect_silicon(shape: tuple[int, int, int]) -> Structure:
    """Diamond of so many cubic cells along each side."""
    return supercell(diamond("Si", SILICON), shape)


def rattled_silicon(shape: tuple[int, int, int]) -> Structure:
    """The same with displaced atoms."""
    return rattled(perfect_silicon(shape), jax.random.key(0), RATTLE)


def rattled_tungsten(n_atoms: int) -> Structure:
    """Body-centred cubic, with displaced atoms."""
    cell = supercell(bcc("W", TUNGSTEN), near_cubic(n_atoms // 2))
    return rattled(cell, jax.random.key(0), RATTLE)
