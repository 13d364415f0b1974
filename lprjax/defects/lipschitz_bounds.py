"""A Lipschitz constant of the Hessian over a ball: bounded for pair and EAM potentials, or sampled.

    M = max |D3E(u + w)[v, v, v]| / ||Dv||^3   over all moves v, and all w with ||Dw|| <= s

(of a symmetric form, the largest value on three moves is one on three equal ones). For potentials
of `bond_ranges`, E = sum_i [ sum_j phi(r_ij) + F(rho_i) ]. With h = v_j - v_i, a its part along the
bond:

    D3 phi(r) [h, h, h] = phi''' a^3 + 3 (phi'' / r - phi' / r^2) a (|h|^2 - a^2),
    D3 F(rho) [v, v, v] = F''' (D rho)^3 + 3 F'' D rho D2 rho + F' D3 rho .

*One bond.* |h| <= delta ||Dv|| and |a| <= delta_a ||Dv||, delta^2 the largest eigenvalue of the
3 x 3 matrix B K^+ B^T and delta_a^2 its element along the bond. So in the ball r stays within r + -
s delta, over which intervals bound the derivatives (A that of a^3, 3 B that of a b^2, b^2 = |h|^2 -
a^2; F' D3 rho counted with phi), and the direction e turns by |e' - e| <= q, q = 2 s delta / (2 r -
s delta). Along e', |a'| <= (delta_a + q delta) ||Dv|| and a'^2 <= (1 + q) (a^2 + q |h|^2):

    |D3| <= (|A| a'^2 + 3 |B| b'^2) |a'|
         <= (delta_a + q delta) ||Dv|| [ 3 |B| |h|^2 + (|A| - 3 |B|) (1 + q) (a^2 + q |h|^2) ],

or, where |A| < 3 |B|, without the last term.

*One density.* With c_j = max(|f''|, |f'| / r) over the ball and Lambda the largest of
sum_j c_j |h_j|^2 / ||Dv||^2:

    D rho(u + w)[v] = g . v + rest,    |rest| <= s Lambda^1/2 (sum_j c_j |h_j|^2)^1/2,
    |D rho| <= sigma ||Dv||,    sigma = ||g||_{-1} + s Lambda,    |rho(u + w) - rho(u)| <= s sigma,

g the gradient at u. So F has its argument in an interval, and

    |F''' (D rho)^3| <= |F'''| sigma ||Dv|| [ (1 + t) (g . v)^2
                                              + (1 + 1 / t) s^2 Lambda sum_j c_j |h_j|^2 ],
    |3 F'' D rho D2 rho| <= 3 |F''| sigma ||Dv|| sum_j c_j |h_j|^2 .

*All.* Every term is ||Dv|| times a quadratic form of v; M is at most the largest eigenvalue of
their sum Q against K, of a dense matrix. Nothing cancels between terms, which is what this bound is
loose by. It says nothing where a distance may cross the cutoff, or a density a joint of its
function.

*Sampled*: v <- K^+ D3E(u + w)[v, v], normalised, climbs at fixed w; then w = + - s v, and again.
Each climb ends below M. Of n climbs from random starts the highest is below another one's end with
a probability below p, with confidence 1 - (1 - p)^n over the draws: a statement about climbs, and
none about the supremum.

Source: derived.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.atoms.graphs import build_graph
from lprjax.defects.certified import DENSE, Certified, DenseMoves, dense_moves, random_moves
from lprjax.defects.defect import Defect
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.numerics.checks import check_positive
from lprjax.numerics.intervals import Interval, Series, in_pieces
from lprjax.potentials.bond_ranges import BondRanges, Bonds, bond_ranges
from lprjax.potentials.potential import Potential, by_differences

PIECES = 16
"""Into which the interval of a distance is cut, so that ranges are narrow: a choice."""
ROUNDING = 1e-9
"""Share by which norms and eigenvalues are raised: far above the rounding of dense algebra."""
CONFIDENCE = 0.95
"""Of the statement about climbs: a choice."""
STEPS, ROUNDS = 12, 2
"""Of a climb at one w, and moves of w: choices, after which climbs gain a per cent or so."""


class _Geometry(NamedTuple):
    """The bonds of a defect, each from both ends, and how far the ball lets them change."""

    atoms: np.ndarray  # (n,) atomic numbers
    start: np.ndarray  # (e,)
    end: np.ndarray  # (e,)
    direction: np.ndarray  # (e, 3)
    bonds: Bonds
    reach: np.ndarray  # (e,), delta
    reach_along: np.ndarray  # (e,), delta_a
    covariance: np.ndarray  # K^+, (n, 3, n, 3), zero where nothing moves
    distances: Interval  # (e, PIECES) Å


def lipschitz_certificate(
    potential: Potential, defect: Defect, displacement: ArrayLike, ball: float
) -> Certified:
    """An upper bound of how fast the Hessian changes within a ball round a geometry.

        M = max |D3E(u + w)[v, v, v]| / ||Dv||^3 <= value,   ||Dw|| <= ball

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å.
        ball: s, Å (eV^1/2 in the norm of force constants): the radius that a theorem speaks of,
            such as 2 eta / c.

    Returns:
        Certified, in eV/Å^3 (eV^-1/2). A bound for pair and EAM potentials in cells of at most
        DENSE moves, where no distance in the ball crosses the cutoff; else sampled, from below.

    Raises:
        ValueError: a ball that is not positive; as `energy_at`.
        TypeError: as `energy_at`.
    """
    return certified_lipschitz(energy_at(potential, defect, displacement), ball)


def certified_lipschitz(
    at: EnergyAt, ball: float, *, dense: int = DENSE, climbs: int = 10, seed: int = 0
) -> Certified:
    """`lipschitz_certificate` at a geometry whose energy was made before.

    Args:
        at: the energy around u.
        ball: s, Å.
        dense: the most moves for which matrices are made.
        climbs: n, of sampling, each about 50 products with third derivatives.
        seed: of their starts.

    Returns:
        Certified; its `estimate` is sampled, by one climb where the value is a bound.

    Raises:
        ValueError: a ball or number of climbs that is not positive.
    """
    check_positive(ball=ball, climbs=climbs)
    functions, why = bond_ranges(at.potential), ""
    if by_differences(at.potential):
        why = "third derivatives of a calculator are differences, which no bound is made of"
        return Certified(np.nan, False, why, 0.0, np.nan)
    if functions is None:
        why = "the potential is none of pairs or of EAM whose functions are known"
    elif (moves := int(np.sum(np.asarray(at.moves.moving)))) > dense:
        why = f"{moves} moves are more than {dense}"
    else:
        value, why = _bound(at, functions, ball)
    ends = climbs_of(at, ball, 1 if not why else climbs, seed)
    if not why:
        return Certified(value, True, "", 1.0, float(ends.max()))
    share = 1.0 - (1.0 - CONFIDENCE) ** (1.0 / climbs)
    why += (
        f"; sampled, from below: another climb ends above with a probability below {share:.2f}, "
        f"with {CONFIDENCE:.0%} confidence"
    )
    return Certified(float(ends.max()), False, why, CONFIDENCE, float(ends.max()))


def climbs_of(at: EnergyAt, ball: float, count: int, seed: int = 0) -> np.ndarray:
    """Where climbs from random starts end: lower bounds of M.

    Args:
        at: the energy around u.
        ball: s, Å.
        count: how many.
        seed: of their starts.

    Returns:
        |D3E(u + w)[v, v, v]| / ||Dv||^3, (count,) eV/Å^3.
    """
    rng = np.random.default_rng(seed)
    bar = tqdm(range(count), desc="climbs", delay=5, leave=False)
    return np.array([_climb(at, ball, random_moves(at, rng)) for _ in bar])


def _climb(at: EnergyAt, ball: float, v: Any) -> float:
    moves, best, here = at.moves, 0.0, [at]
    for _ in range(ROUNDS):
        found = []
        for there in here:
            w: Any = v
            for _ in range(STEPS):
                pull = there.third(w, w)
                w = np.asarray(moves.precondition(pull))
                w = w / np.sqrt(max(np.vdot(w, moves.metric(w)), np.finfo(float).tiny))
            found.append((abs(float(np.vdot(w, there.third(w, w)))), w))
        best, v = max([(best, v), *found], key=lambda pair: pair[0])
        here = [shifted(at, s * ball * v) for s in (1.0, -1.0)]
    return best


def shifted(at: EnergyAt, w: np.ndarray) -> EnergyAt:
    """The energy around u + w; its neighbours are searched anew.

    Args:
        at: the energy around u.
        w: the atoms' moves, (n, 3) Å, padding included.

    Returns:
        The energy there.
    """
    n, size = at.defect.structure.n_atoms, len(at.graph.positions)
    positions = np.asarray(at.graph.positions)[:n] + np.asarray(w)[:n]
    structure = dataclasses.replace(at.defect.structure, positions=positions)
    return at._replace(graph=build_graph(structure, float(at.graph.reach), n_atoms=size))


def _bound(at: EnergyAt, functions: BondRanges, ball: float) -> tuple[float, str]:
    """The bound of the head of this file, and why there is none."""
    moves = dense_moves(at)
    g = _geometry(at, functions, moves, ball)
    n = len(g.atoms)
    pair, why = functions.pair(g.bonds, g.distances)
    density, also = functions.density(g.bonds, g.distances)
    if why or also:
        return np.nan, why or also
    slopes, site_terms, edge_weights = Interval(np.zeros(n), np.zeros(n)), 0.0, 0.0
    if functions.embeds:
        slopes, site_terms, edge_weights, why = _embedded(g, functions, density, ball)
        if why:
            return np.nan, why
    total = pair + density * Interval(*(x[g.start][:, None] for x in slopes))
    form = _of_bonds(g, edge_weights, np.zeros(len(g.start)))
    form = form + _of_bonds(g, *_pair_weights(g, total, ball)) + site_terms
    moving = moves.moving @ np.array([3, 1])
    form = form[np.ix_(moving, moving)]
    last = len(form) - 1
    largest = scipy.linalg.eigh(form, moves.metric, subset_by_index=[last, last], eigvals_only=True)
    return float(largest[0]) * (1.0 + ROUNDING), ""


def _geometry(at: EnergyAt, functions: BondRanges, moves: DenseMoves, ball: float) -> _Geometry:
    defect, n = at.defect, at.defect.structure.n_atoms
    inverse = scipy.linalg.cho_solve(
        scipy.linalg.cho_factor(moves.metric), np.eye(len(moves.metric))
    )
    covariance = np.zeros((3 * n, 3 * n))
    moving = moves.moving @ np.array([3, 1])
    covariance[np.ix_(moving, moving)] = inverse * (1.0 + ROUNDING)
    covariance = covariance.reshape(n, 3, n, 3)
    own = np.einsum("iaib->iab", covariance)
    farthest = 2.0 * ball * np.sqrt(np.linalg.eigvalsh(own).max())
    structure = dataclasses.replace(defect.structure, positions=at.graph.positions[:n])
    graph = build_graph(structure, functions.r_cut + farthest)
    start, slot = np.nonzero(np.asarray(graph.edge_mask))
    end = np.asarray(graph.neighbours)[start, slot]
    vectors = np.asarray(graph.vectors())[start, slot]
    length = np.linalg.norm(vectors, axis=1)
    mixed = covariance[start, :, end]
    apart = own[start] + own[end] - mixed - np.swapaxes(mixed, -1, -2)
    apart[start == end] = 0.0
    reach = np.sqrt(np.maximum(np.linalg.eigvalsh(apart)[:, -1], 0.0)) * (1.0 + ROUNDING)
    square = np.einsum("ei,eij,ej->e", vectors, apart, vectors) / length**2
    along = np.sqrt(np.maximum(square, 0.0)) * (1.0 + ROUNDING)
    near = length - ball * reach < functions.r_cut
    table = start, end, vectors, length, reach, along
    start, end, vectors, length, reach, along = (x[near] for x in table)
    atoms = np.asarray(structure.species)
    return _Geometry(
        atoms=atoms,
        start=start,
        end=end,
        direction=vectors / length[:, None],
        bonds=Bonds(atoms[start], atoms[end], length),
        reach=reach,
        reach_along=along,
        covariance=covariance,
        distances=in_pieces(Interval(length - ball * reach, length + ball * reach), PIECES),
    )


def _embedded(g: _Geometry, functions: BondRanges, density: Series, ball: float):
    """F' over the ball, (n,); the quadratic forms of sites (3 n, 3 n) and of bonds (e,)."""
    n = len(g.atoms)
    point = Interval(g.bonds.length[:, None], g.bonds.length[:, None])
    now, _ = functions.density(g.bonds, point)
    middle = [0.5 * (x.low + x.high)[:, 0] for x in (now.terms[0], now.derivative(1))]
    rho = np.bincount(g.start, middle[0], n)
    pulls = middle[1][:, None] * g.direction
    slope, curvature = (density.derivative(k) for k in (1, 2))
    c = np.maximum(curvature.largest, (slope * g.distances.reciprocal()).largest).max(axis=-1)
    sites = [np.flatnonzero(g.start == i) for i in range(n)]
    spread = np.array([_spread(g, mine, c[mine]) for mine in sites])
    gradients = np.zeros((n, n, 3))
    np.add.at(gradients, (g.start, g.end), pulls)
    np.add.at(gradients, (g.start, g.start), -pulls)
    flat = gradients.reshape(n, 3 * n)
    size = np.sqrt(np.einsum("ik,kl,il->i", flat, g.covariance.reshape(3 * n, 3 * n), flat))
    sigma = (size + ball * spread) * (1.0 + ROUNDING)
    ranges = Interval((rho - ball * sigma), (rho + ball * sigma))
    embedding, why = functions.embedding(g.atoms, ranges)
    if why:
        return None, None, None, why
    second, third = (embedding.derivative(k).largest for k in (2, 3))
    # (1 + t) (g . v)^2 + (1 + 1 / t) rest^2, which t = (size of the rest) / (size of g) makes least
    rest = ball * spread
    share = np.where((size > 0) & (rest > 0), rest / np.where(size > 0, size, 1.0), 1.0)
    along = third * sigma * (1.0 + share)
    across = third * sigma * (1.0 + 1.0 / share) * ball * rest + 3.0 * second * sigma
    forms = flat.T @ (along[:, None] * flat)
    return embedding.derivative(1), forms, across[g.start] * c, ""


def _spread(g: _Geometry, mine: np.ndarray, c: np.ndarray) -> float:
    """The largest of sum_j c_j |h_j|^2 / ||Dv||^2 over the bonds of a site."""
    if not len(mine):
        return 0.0
    i, ends = g.start[mine[0]], g.end[mine]
    block = g.covariance[ends][:, :, ends] - g.covariance[ends][:, :, [i]]
    block = block - g.covariance[[i]][:, :, ends] + g.covariance[[i]][:, :, [i]]
    root = np.repeat(np.sqrt(c), 3)
    gram = root[:, None] * block.reshape(3 * len(mine), -1) * root
    last = len(gram) - 1
    top = scipy.linalg.eigvalsh(gram, subset_by_index=[last, last])[0]
    return max(float(top), 0.0) * (1.0 + ROUNDING)


def _pair_weights(g: _Geometry, functions: Series, ball: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every bond what |h|^2 and a^2 are multiplied by, (e,) each, eV/Å^3 (eV^1/2/Å^2)."""
    first, second, third = (functions.derivative(k) for k in (1, 2, 3))
    inverse = g.distances.reciprocal()
    along = third.largest.max(axis=-1)  # |A|
    across = 3.0 * ((second - first * inverse) * inverse).largest.max(axis=-1)  # 3 |B|
    turn = 2.0 * ball * g.reach / (2.0 * g.bonds.length - ball * g.reach)
    reach = (g.reach_along + turn * g.reach) * (1.0 + ROUNDING)
    more = np.maximum(along - across, 0.0) * (1.0 + turn)
    return reach * (across + turn * more), reach * more


def _of_bonds(g: _Geometry, all_ways: ArrayLike, along: np.ndarray) -> np.ndarray:
    """The quadratic form sum of w |h|^2 + w' (e . h)^2 over the bonds, (3 n, 3 n)."""
    n = len(g.atoms)
    weights = np.broadcast_to(all_ways, along.shape)[:, None, None] * np.eye(3)
    weights = weights + along[:, None, None] * g.direction[:, :, None] * g.direction[:, None, :]
    form = np.zeros((n, n, 3, 3))
    for i, j, sign in (
        (g.start, g.start, 1),
        (g.end, g.end, 1),
        (g.start, g.end, -1),
        (g.end, g.start, -1),
    ):
        np.add.at(form, (i, j), sign * weights)
    return form.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
