"""Forces of the complete lattice as forces on a defect's sites, and what the move costs in norm.

The terms of the far field are bounded on the complete lattice, where waves are separate, with its
seminorm K_L; the defect is judged by its own, K_D, which lacks the bonds of missing sites and has
those of extra ones. A function v on the defect's sites is carried to the complete lattice by E:
extra sites are left out, and missing ones take the values that strain the lattice least (the
harmonic extension). Forces go back by the transpose, E^T f: the force on a missing site is shared
among its neighbours. Then

    ||E^T f||_{-1,D} = max_v <f, E v> / ||Dv||_D <= kappa ||f||_{-1,L},
    kappa = max_v ||D E v||_L / ||Dv||_D ,

whatever f. With S the Schur complement of K_L on the sites that exist, B = S - K_D touches the
neighbours of missing and extra sites alone, T, so that a small matrix gives kappa exactly:

    kappa^2 = 1 + max(0, lambda_max(B K_D^+[T, T])) .

Held sites only take functions v away: their K_D^+ is that with v = 0 there.

Source: derived.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.crystals.energy_norm import EnergyLattice
from lprjax.crystals.strain_norm import ReferenceLattice
from lprjax.numerics.host import on_device


class _Change(NamedTuple):
    """What missing and extra sites change, on the sites that they touch."""

    missing: np.ndarray  # (m,) sites
    touched: np.ndarray  # (t,) sites that exist
    shares: np.ndarray  # (t, m), E^T: of the force on a missing site, by touched site
    difference: np.ndarray  # (t, t), S - K_D


def on_defect(lattice: ReferenceLattice, forces: ArrayLike) -> jax.Array:
    """E^T f: forces on the complete lattice as forces on the sites of a defect.

    Args:
        lattice: with its missing and extra sites.
        forces: f, (n_regular, 3) eV/Å, of zero sum.

    Returns:
        The forces, (n_sites, 3) eV/Å, zero on missing and on extra sites, of the same sum.
    """
    if isinstance(lattice, EnergyLattice):
        return lattice.on_complete(forces)
    change = _change(lattice)
    padded = np.zeros((lattice.n_sites, 3))
    padded[: lattice.n_regular] = np.asarray(forces)
    padded[change.touched] += change.shares @ padded[change.missing]
    padded[change.missing] = 0.0
    return on_device(padded)


def transfer_constant(lattice: ReferenceLattice) -> float:
    """kappa, with ||E^T f||_{-1} of the defect <= kappa ||f||_{-1} of the complete lattice.

    Args:
        lattice: with its missing, extra and held sites.

    Returns:
        kappa, at least 1, sharp over all f (1.05 for a vacancy in bcc, 1.1 in the square lattice,
        2.1 for a row of eight there; 1 where no site is missing, and in the norm of force
        constants).

    Source: derived; see the head of this file.
    """
    if isinstance(lattice, EnergyLattice):
        return 1.0
    change = _change(lattice)
    t = len(change.touched)
    units = np.zeros((lattice.n_sites, t))
    units[change.touched, np.arange(t)] = 1.0
    response = np.asarray(lattice.solve(on_device(units)))[change.touched] if t else np.eye(0)
    values, modes = np.linalg.eigh(0.5 * (response + response.T))
    root = modes * np.sqrt(np.maximum(values, 0.0))
    largest = np.linalg.eigvalsh(root.T @ change.difference @ root).max(initial=0.0)
    return math.sqrt(1.0 + float(largest))


def _change(lattice: ReferenceLattice) -> _Change:
    present, n = np.asarray(lattice.present), lattice.n_regular
    missing = np.flatnonzero(~present)
    start, end = _bonds(np.asarray(lattice.complete))
    lost = ~(present[start] & present[end])
    start, end = start[lost], end[lost]
    ours = _bonds(np.asarray(lattice.neighbours))
    extra = present[ours[0]] & present[ours[1]] & ((ours[0] >= n) | (ours[1] >= n))
    ours = ours[0][extra], ours[1][extra]
    touched = np.setdiff1d(np.concatenate([start, end, *ours]), missing)
    nodes = np.concatenate([touched, missing])
    change = _stiffness(nodes, start, end)
    t = len(touched)
    shares = -np.linalg.solve(change[t:, t:], change[t:, :t]).T
    difference = change[:t, :t] + shares @ change[t:, :t]
    return _Change(missing, touched, shares, difference - _stiffness(nodes, *ours)[:t, :t])


def _bonds(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of a table, every bond from both of its ends."""
    start, slot = np.nonzero(table != np.arange(len(table))[:, None])
    return start, table[start, slot]


def _stiffness(nodes: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """K of these bonds alone on these sites, where every bond ends."""
    order = np.argsort(nodes)
    i, j = (order[np.searchsorted(nodes[order], ends)] for ends in (start, end))
    found = np.zeros((len(nodes), len(nodes)))
    for row, column, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
        np.add.at(found, (row, column), sign)
    return found
