"""A stability constant from below: proven in small cells, probable in large ones.

    c = min_v v^T D2E(u) v / ||Dv||^2

A search for eigenvalues finds a c that the true one is never above: it may have missed a softer
mode. What its residual says is that *an* eigenvalue is that near, not that it is the least. From
below:

- *Inertia*: H - mu K on the moves, as a dense matrix, has no negative eigenvalue: c >= mu.
  Cholesky's factorisation shows it, its rounding bounded by Rump's theorem (`numerics.positive`).
  What rounding did to the entries is allowed for by `ALLOWANCE`, far above what their asymmetry
  shows; that alone is not proven.
- *Random start*: k steps of Lanczos from a direction of which the norm prefers none (K^+ times
  normal forces of covariance K). With theta and Theta the ends of what it found, in N dimensions,

      P[c < theta - e (Theta - theta) / (1 - 2 e)] <= 2 p,
      e = (ln(1.648 N^1/2 / p) / (2 k - 1))^2,

  over the draw of the start: the theorem of Kuczynski and Wozniakowski for either end.

Source: S. M. Rump, BIT 46 (2006) 433; J. Kuczynski, H. Wozniakowski, SIAM J. Matrix Anal. Appl. 13
(1992) 1094, theorem 4.2, for a matrix less its least eigenvalue.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from lprjax.defects.defect import Defect
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.numerics.krylov import extreme_eigenpair
from lprjax.numerics.positive import surely_positive
from lprjax.potentials.potential import Potential, by_differences

DENSE = 2400
"""Moves up to which matrices are dense: 46 MB each, and some ten seconds; a choice."""
ALLOWANCE = 1e-11
"""Of the largest sum of a row: for rounding of entries. Their asymmetry is 1e-15: a choice."""
SLACKS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Of the curvatures, by which mu is tried below c."""
MISSED = 1e-6
"""2 p, how often a random start may miss: a choice."""


class Certified(NamedTuple):
    """A constant on its safe side; look at `guaranteed` first."""

    value: float  # a lower bound of c, an upper bound of M: sure, or as `why_not` says
    guaranteed: bool  # whether it is proven, up to the rounding of the potential's own numbers
    why_not: str  # what it rests on where it is not proven; "" where it is
    confidence: float  # 1: proven; of the statement in `why_not`; 0: none
    estimate: float  # the same constant, from the other side


class DenseMoves(NamedTuple):
    """The moves of a defect as coordinates, and the norm as a matrix."""

    moving: np.ndarray  # (m, 2), atom and axis of each
    metric: np.ndarray  # K + `shift` T T^T, (m, m), positive definite
    translations: np.ndarray  # T, (m, t), orthonormal; which the norm does not see
    shift: float


def stability_certificate(
    potential: Potential, defect: Defect, displacement: ArrayLike
) -> Certified:
    """A lower bound of the stability constant of a geometry.

        c = min_v v^T D2E(u) v / ||Dv||^2 >= value

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å.

    Returns:
        Certified, in eV/Å^2, without unit in the norm of force constants. Proven where the defect
        has at most DENSE moves and the potential exact derivatives; else with a confidence.

    Raises:
        ValueError, TypeError: as `energy_at`.
    """
    return certified_stability(energy_at(potential, defect, displacement))


def certified_stability(at: EnergyAt, *, dense: int = DENSE, steps: int = 200) -> Certified:
    """`stability_certificate` at a geometry whose energy was made before.

    Args:
        at: the energy around u.
        dense: the most moves for which matrices are made.
        steps: k, of Lanczos where there are more.

    Returns:
        Certified.
    """
    if by_differences(at.potential):
        found = _by_random_start(at, steps)
        why = "derivatives are differences of a calculator's forces, whose error is not bounded"
        return found._replace(guaranteed=False, why_not=why, confidence=0.0)
    if int(np.sum(np.asarray(at.moves.moving))) > dense:
        return _by_random_start(at, steps)
    return _by_inertia(at)


def dense_moves(at: EnergyAt) -> DenseMoves:
    """The norm of a defect's moves as a matrix.

    Args:
        at: the energy around u.

    Returns:
        DenseMoves.
    """
    moves = at.moves
    moving = np.argwhere(np.asarray(moves.moving))
    drifting = np.flatnonzero(np.asarray(moves.shares))
    translations = (moving[:, 1, None] == drifting).astype(float)
    translations /= np.linalg.norm(translations, axis=0)
    k, _ = _matrix(moves.metric, at, moving)
    shift = float(np.diagonal(k).mean())
    return DenseMoves(moving, k + shift * translations @ translations.T, translations, shift)


def _matrix(function, at: EnergyAt, moving: np.ndarray) -> tuple[np.ndarray, float]:
    """A symmetric map over the moves, (m, m), and the largest entry of its asymmetry."""
    found = np.empty((len(moving), len(moving)))
    v = np.zeros(at.moves.moving.shape)
    for k, (atom, axis) in enumerate(moving):
        v[atom, axis] = 1.0
        found[k] = np.asarray(function(v))[tuple(moving.T)]
        v[atom, axis] = 0.0
    with np.errstate(all="ignore"):  # what is not finite is found by who asked
        return 0.5 * (found + found.T), float(np.abs(found - found.T).max(initial=0.0))


def _by_inertia(at: EnergyAt) -> Certified:
    moves = dense_moves(at)
    h, asymmetry = _matrix(at.product, at, moves.moving)
    stiff = float(np.abs(h).sum(axis=1).max())
    allowance = ALLOWANCE * stiff
    if not np.isfinite(h).all():
        return Certified(math.nan, False, "the Hessian holds NaN or infinity", 0.0, math.nan)
    # Translations stand far above all else, so that the least eigenvalue is none of theirs.
    t = moves.translations
    raised = h + 10.0 * stiff * t @ t.T
    estimate, spread = (
        float(scipy.linalg.eigh(raised, moves.metric, subset_by_index=[k, k], eigvals_only=True)[0])
        for k in (0, len(h) - 1)
    )
    for slack in SLACKS:
        mu = estimate - slack * max(abs(estimate), 1e-3 * abs(spread))
        error = allowance + ALLOWANCE * abs(mu) * float(np.abs(moves.metric).sum(axis=1).max())
        if asymmetry <= allowance and surely_positive(raised - mu * moves.metric, error):
            return Certified(mu, True, "", 1.0, estimate)
    why = f"rounding hides the sign of H - mu K: entries are asymmetric by {asymmetry:.1e}"
    return Certified(mu, False, why, 0.0, estimate)


def random_moves(at: EnergyAt, rng: np.random.Generator) -> np.ndarray:
    """Moves (n, 3) in a direction of which the norm prefers none, ||Dv|| = 1.

    Args:
        at: the energy around u.
        rng: draws them.

    Returns:
        The moves, padding included, Å.
    """
    lattice = at.defect.lattice
    v = at.moves.precondition(at.moves.of_sites(lattice.random_force(rng)))
    return np.asarray(v) / np.sqrt(np.vdot(v, at.moves.metric(v)))


def _by_random_start(at: EnergyAt, steps: int, seed: int = 0) -> Certified:
    ends = []

    def choose(values: np.ndarray) -> int:
        ends[:] = [values[0], values[-1]]
        return 0

    start = random_moves(at, np.random.default_rng(seed))
    found = extreme_eigenpair(at.product, at.moves, start, choose, 0.0, steps)
    if not ends:
        return Certified(math.nan, False, "the Hessian holds NaN or infinity", 0.0, math.nan)
    dimensions = int(np.sum(np.asarray(at.moves.moving))) - int(np.count_nonzero(at.moves.shares))
    share = (
        math.log(1.648 * math.sqrt(dimensions) / (0.5 * MISSED)) / (2 * found.iterations - 1)
    ) ** 2
    if share >= 0.25:
        value = -math.inf
    else:
        value = ends[0] - share * (ends[1] - ends[0]) / (1.0 - 2.0 * share)
    why = (
        f"probable, not proven: {found.iterations} steps of Lanczos from a random start, which is "
        f"below this with probability {MISSED:.0e} at most"
    )
    return Certified(float(value), False, why, 1.0 - MISSED, float(ends[0]))
