"""Choosing data by rigidity: rank updates of a factor, and the structures that raise it most.

Adding or taking away weighted rows X (r, K) changes H = R^T R by +-X^T X; R follows by orthogonal
transformations, O(K^2) a row, and H is never formed. Choosing is done in whitened coordinates,

    V = X R^-1   (a candidate),     w = R^-T g   (a prediction),     1/PR = |w|^2,

where a candidate that is taken turns 1/PR into w^T (I + V^T V)^-1 w, and ln det H rises by
ln det(I + V V^T). Everything here is derived from these two lines.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.lax.linalg import triangular_solve
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.numerics.checks import as_float64, refuse_traced, require_x64
from lprjax.numerics.tables import Table
from lprjax.regression.factors import (
    RCOND,
    checked_triangular,
    equilibrate,
    positive_diagonal,
    rank_of,
)
from lprjax.regression.rows import vanishing

BLOCK = 256  # candidate rows that are scored at a time: a choice, bounds the memory
_EPS = float(np.finfo(np.float64).eps)  # rounding of float64
_MARGIN = 10.0  # on the estimate of rounding: a choice
_LARGEST_SLACK = 1e-3  # rounding of a sine from which on a solution is not trusted: a choice
_OUTSIDE = 1e-10  # how far a row may be from the range of R, columns at unit norm: a choice

RULES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "rigidity": lambda variance, log_det: jnp.mean(1.0 / variance, axis=1),
    "log_rigidity": lambda variance, log_det: -jnp.mean(jnp.log(variance), axis=1),
    "variance": lambda variance, log_det: -jnp.mean(variance, axis=1),
    "d_optimal": lambda variance, log_det: log_det,
}
"""What each rule makes largest, from the targets' variances 1/PR (N, T) and the rise of ln det H
(N,) that N candidates would bring. "random" uses neither."""


class Selection(NamedTuple):
    """The candidates in order of choice, and what each pick gained.

    Attributes:
        order: (count,) indices of the candidates.
        rigidity: (count + 1, T) PR of every target before the first pick and after each, in
            1 / (unit of the target)^2.
        log_det: (count + 1,) ln(det H / det H before the first pick): from 0 upward.
        factor: (K, K) R with all rows that were chosen.
    """

    order: np.ndarray
    rigidity: np.ndarray
    log_det: np.ndarray
    factor: jax.Array

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        picks = ["", *map(str, self.order)]
        rows = [
            [str(k), pick, f"{np.mean(rigid):.4g}", f"{np.min(rigid):.4g}", f"{log_det:.4g}"]
            for k, (pick, rigid, log_det) in enumerate(
                zip(picks, self.rigidity, self.log_det, strict=True)
            )
        ]
        return Table(
            f"Choice of {len(self.order)} for {self.rigidity.shape[1]} targets",
            ("chosen", "candidate", "mean PR", "least PR", "ln det H, risen"),
            rows,
            ("PR in 1 / (unit of the targets)^2",),
        )


def add_rows(factor: ArrayLike, rows: ArrayLike) -> jax.Array:
    """The triangular factor once more data have been taken in; pure and jit-able.

        R'^T R' = R^T R + X^T X

    By one Householder reflection of the rows with each row of R: O(K^2) for each row of X,
    whatever the rank of R.

    Args:
        factor: (K, K) upper triangular R (`Fit.factor`).
        rows: X (r, K), weighted as in the fit: a row times its weight. Zero rows change nothing,
            so stacks may be padded to one shape.

    Returns:
        R' (K, K), diagonal >= 0. NaN goes through.

    Raises:
        ValueError: shapes that do not match, or (where values are known, not under jit) a factor
            that is not upper triangular.
        TypeError: other than float64.
        RuntimeError: float64 is off.
    """
    require_x64()
    return _add(*_checked(factor, rows))


def remove_rows(factor: ArrayLike, rows: ArrayLike) -> jax.Array:
    """The triangular factor once data have been taken out again; pure and jit-able.

        R'^T R' = R^T R - X^T X

    With `R^T A = X^T = R^T (U s V^T)` the singular value s_j is the sine, and `sqrt(1 - s_j^2)`
    the cosine, of rotations that take R to R' and the row V_j . X; for one row they are LINPACK's.
    O(K^2) for each row at full rank; a singular R is decomposed first.

    Where `1 - s_j^2` is below the rounding of R, the other rows are taken to hold nothing of that
    direction, and R' loses a rank. A factorisation of the rows that stay, where they are at hand,
    is more accurate: a downdate cannot distinguish a ridge of 1e-16 from none.

    Args:
        factor: (K, K) upper triangular R (`Fit.factor`).
        rows: X (r, K), weighted as when they went in.

    Returns:
        R' (K, K), diagonal >= 0; all NaN if the rows are not in the data (R^T R - X^T X is not
        positive semidefinite).

    Raises:
        ValueError: rows that are not in the data (where values are known, not under jit); and as
            `add_rows`.
        TypeError: other than float64.

    Source: Stewart, J. Inst. Maths Applics 24 (1979) 203, for one row.
    """
    factor, rows = _checked(factor, rows)
    removed, there = _remove(factor, rows) if len(rows) else (factor, True)
    if isinstance(there, Tracer):
        return jnp.where(there, removed, jnp.nan)
    if not there:
        raise ValueError(
            "rows are not in the factor: wanted a positive semidefinite R^T R - X^T X without "
            "NaN; pass the rows times the weights that they had in the fit, each row once."
        )
    return removed


@jax.jit
def _add(factor, rows):
    n = factor.shape[0]
    if rows.shape[0] > n:
        rows = jnp.linalg.qr(rows, mode="r")

    def reflect(k, state):
        """Make column k of the rows zero: the pivot takes the norm of both."""
        factor, rows = state
        pivot, column = factor[k, k], rows[:, k]
        below = column @ column
        first = pivot + jnp.sqrt(pivot**2 + below)
        double = 2.0 / jnp.where(below > 0.0, first**2 + below, jnp.inf)
        shift = double * (first * factor[k] + column @ rows)
        # The reflection turns the pivot's sign: turn the row back.
        row = jnp.where(below > 0.0, first * shift - factor[k], factor[k])
        return factor.at[k].set(row), rows - column[:, None] * shift[None, :]

    factor = positive_diagonal(factor)[:, None] * factor
    return jnp.triu(jax.lax.fori_loop(0, n, reflect, (factor, rows))[0])


@jax.jit
def _remove(factor, rows):
    scaled, scale = equilibrate(factor)
    rows = rows * scale[None, :]
    solve = partial(triangular_solve, scaled, left_side=False, lower=False)
    solved = _directions(scaled, rows, solve)
    directions, sines, cosines = jax.lax.cond(
        jnp.isfinite(solved[2]).all(),
        lambda: solved,
        lambda: _directions(scaled, rows, _least_norm(scaled)),
    )
    there = jnp.isfinite(cosines).all()
    table = jnp.concatenate([directions * sines[None, :], factor], axis=1)
    which = jnp.arange(len(sines))
    left, _ = jax.lax.scan(_rotate_out, table, (which, jnp.where(there, cosines, 1.0)))
    left = jnp.triu(positive_diagonal(left[:, len(sines) :])[:, None] * left[:, len(sines) :])
    return jnp.where(there, left, 0.0), there


def _directions(scaled, rows, solve):
    """The left singular vectors of A (K, m), with R^T A = X^T, its singular values and the
    cosines that belong to them: NaN where there is no such A, or none below one."""
    a = solve(rows)
    signs = jax.random.normal(jax.random.key(0), a.shape)
    rounding = _EPS * solve(signs * (jnp.abs(a) @ jnp.abs(scaled)))
    slack = _MARGIN * (jnp.linalg.norm(rounding) + _EPS * len(scaled) ** 0.5)
    _, sines, vt = jnp.linalg.svd(a, full_matrices=False)
    left = (1.0 - sines) * (1.0 + sines)
    nothing_left = jnp.abs(left) <= slack
    cosines = jnp.where(nothing_left, 0.0, jnp.sqrt(jnp.where(left >= 0.0, left, jnp.nan)))
    found = (jnp.abs(a @ scaled - rows) < _OUTSIDE).all() & (slack < _LARGEST_SLACK)
    sines = jnp.where(nothing_left, 1.0, sines)
    return vt.T, sines, jnp.where(found, cosines, jnp.nan)


def _least_norm(scaled):
    """A solver of a R = x for singular R: the shortest a, exact where x is in the range."""
    u, singular, vt = jnp.linalg.svd(scaled)
    kept = singular > RCOND * singular[0]
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, singular, 1.0), 0.0)
    return lambda rows: ((rows @ vt.T) * inverse[None, :]) @ u.T


def _rotate_out(table, j_and_cosine):
    """Rotate one row, at first empty, against the rows of the table from the last up, until
    column j is in it alone."""
    j, cosine = j_and_cosine

    def rotate(carry, row):
        extra, length = carry
        longer = jnp.hypot(row[j], length)
        none = longer == 0.0
        guarded = jnp.where(none, 1.0, longer)
        c, s = jnp.where(none, 1.0, length / guarded), row[j] / guarded
        return (c * extra + s * row, longer), c * row - s * extra

    start = (jnp.zeros(table.shape[1]), cosine)
    return jax.lax.scan(rotate, start, table, reverse=True)[1], None


def choose(
    factor: ArrayLike,
    candidates: Iterable[ArrayLike],
    targets: ArrayLike,
    count: int,
    *,
    rule: str = "log_rigidity",
    key: jax.Array | None = None,
) -> Selection:
    """Choose, one after the other, the data that make given predictions certain.

    Greedily: each pick is the candidate that makes largest, together with those chosen before,

    - "log_rigidity": the mean ln PR, PR = 1 / (g^T H^-1 g), of the targets: each counts alike,
      whatever its unit and its rigidity;
    - "variance": minus the mean of 1/PR, which weights the least rigid targets most;
    - "rigidity": the mean PR (for site energies: the mean LPR), which the most rigid rule;
    - "d_optimal": ln det H, whatever the targets;
    - "random": nothing: a draw without replacement.

    Of one target all but the last two say the same. What the targets are matters more than the
    rule. In three alloys whose misfit rules (`experiments.choosing_rules`, 20 draws of 20 cells of
    one composition and 1 to 20 more of 200) the energies of *cells* as targets leave 0.75, 0.64
    and 0.50 of the energy error of random choice and 0.87, 0.87 and 0.77 of the force error by
    "log_rigidity", by "variance" the same within the doubt. "variance" of all rows of the target
    cells, weighted as in the fit, is the loss to expect there: 0.73, 0.68 and 0.54 of the energy
    error, 0.81, 0.81 and 0.75 of the force error. Energies of *sites* are a bad aim: how a bond's
    energy is shared between its ends no data say ("rigidity" of sites: 1.16, 1.73, 1.07 and 1.01,
    1.08, 0.76). "log_rigidity" is the default because no unit and no size of a target matters to
    it, so that predictions of any kinds can be targets together.

    Ties go to the earlier candidate. No labels are needed. In whitened coordinates a pick costs
    O(r^2 K + r T K) for each candidate, and they are entered at O(K^2) a row, once; the
    variance is a sum of squares, not a difference, so that it keeps its digits where it falls by
    many orders of magnitude.

    Args:
        factor: (K, K) R of the data so far, of full rank.
        candidates: N stacks of weighted rows (r_i, K), such as a structure's energy and force
            rows, an atom's, or one observation; rows as in `add_rows`, stacks of different r_i
            are padded to one.
        targets: (T, K) g, derivatives of the predictions with respect to the coefficients, none
            zero to rounding (`rows.vanishing`); for one formation energy T = 1.
        count: how many to choose, 1 to N.
        rule: one of the four.
        key: of the draw, for "random" only.

    Returns:
        The Selection.

    Raises:
        ValueError: a singular factor; a target that is zero; shapes that do not match; values that
            are not finite; an unknown rule; a count out of range; "random" without a key, or
            another rule with one.
        TypeError: other than float64.
        RuntimeError: float64 is off.
    """
    require_x64()
    refuse_traced("choose", factor=factor, targets=targets)
    if (rule not in RULES and rule != "random") or (rule == "random") != (key is not None):
        raise ValueError(
            f"rule is {rule!r} and key is {key}: wanted 'random' with a key, or one of "
            f"{', '.join(map(repr, RULES))} without."
        )
    stacks, targets = _checked_choice(factor, candidates, targets, count)
    draw = np.zeros(len(stacks)) if key is None else jax.random.uniform(key, (len(stacks),))
    triangular = jnp.asarray(factor)
    whiten = partial(triangular_solve, triangular, left_side=False, lower=False)
    v, w = whiten(stacks.reshape(-1, stacks.shape[2])).reshape(stacks.shape), whiten(targets)
    # What is scored: sums of variances depend on w^T w alone, which fewer rows have too.
    few = jnp.linalg.qr(w, mode="r") if rule == "variance" and len(w) > len(triangular) else w
    free = np.ones(len(stacks), bool)
    order, rigidity, log_det = [], [_rigidity(w)], [0.0]
    for _ in tqdm(range(count), desc="choosing data", delay=5):
        found, gain = _best(v, few, free, draw, rule)
        best = int(found)
        free[best], (v, w, few) = False, _taken(v, w, few, best)
        order.append(best)
        rigidity.append(_rigidity(w))
        log_det.append(log_det[-1] + float(gain))
        triangular = _add(triangular, stacks[best])
    return Selection(np.array(order), np.stack(rigidity), np.array(log_det), triangular)


@partial(jax.jit, static_argnames="rule")
def _best(v, w, free, draw, rule):
    """The free candidate of the highest score, and how much it adds to ln det H."""
    if rule == "random":
        best = jnp.argmax(jnp.where(free, draw, -1.0))
        return best, _scored(v[best], w)[1]
    score = partial(_scored, w=w)
    variance, log_det = jax.lax.map(score, v, batch_size=max(1, BLOCK // v.shape[1]))
    best = jnp.argmax(jnp.where(free, RULES[rule](variance, log_det), -jnp.inf))
    return best, log_det[best]


def _scored(v, w):
    """The targets' variances |w|^2 with a candidate V (r, K) added, and its rise of ln det H.

    w^T (I + V^T V)^-1 w is the squared distance of (w, 0) from the range of (V^T; I).
    """
    r = v.shape[0]
    q, triangle = jnp.linalg.qr(jnp.concatenate([v.T, jnp.eye(r)]))
    along = w @ q[:-r]
    apart = jnp.sum(jnp.square(w - along @ q[:-r].T), axis=1)
    variance = apart + jnp.sum(jnp.square(along @ q[-r:].T), axis=1)
    return variance, 2.0 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(triangle))))


@jax.jit
def _taken(v, w, few, best):
    """Candidates, and targets in both forms, in the coordinates that whiten H + X^T X:
    x -> x (I + V^T V)^-1/2."""
    _, singular, vt = jnp.linalg.svd(v[best], full_matrices=False)
    root = jnp.hypot(1.0, singular)
    shrink = singular**2 / (root * (1.0 + root))  # 1 - 1 / root, without its cancellation
    contract = lambda x, shrink: x - ((x @ vt.T) * shrink) @ vt  # noqa: E731
    return contract(v, shrink[None, None]), contract(w, shrink[None]), contract(few, shrink[None])


def _rigidity(w):
    return 1.0 / np.sum(np.square(w), axis=1)


def _checked(factor, rows):
    factor = checked_triangular(factor)
    rows = jnp.asarray(as_float64("rows", rows))
    if rows.ndim != 2 or rows.shape[1] != factor.shape[0]:
        raise ValueError(
            f"rows have shape {rows.shape}: wanted (r, {factor.shape[0]}), one entry per column "
            "of the factor; pass a single row as row[None]."
        )
    return factor, rows


def _checked_choice(factor, candidates, targets, count):
    """Candidates as one array (N, r, K), zero rows padding it, and the targets (T, K)."""
    factor, targets = _checked(factor, targets)
    stacks = [np.asarray(_checked(factor, rows)[1]) for rows in candidates]
    if not isinstance(count, int | np.integer) or not 1 <= count <= len(stacks):
        raise ValueError(
            f"count is {count!r}: wanted a whole number from 1 to that of candidates, "
            f"{len(stacks)}."
        )
    for name, array in (("factor", factor), ("targets", targets), *enumerate(stacks)):
        if not np.isfinite(array).all():
            name = name if isinstance(name, str) else f"candidate {name}"
            raise ValueError(f"{name} holds NaN or infinity: wanted finite numbers; leave it out.")
    if not len(targets) or np.asarray(vanishing(targets)).any():
        raise ValueError(
            "targets are empty, or one is zero (to rounding beside the others): wanted at least "
            "one and each not zero, as what depends on no coefficient is made more rigid by no "
            "data; leave such out, targets[~lp.regression.vanishing(targets)]."
        )
    if rank_of(factor) < len(factor):
        raise ValueError(
            "factor is singular: wanted full rank, as rigidities that are zero cannot be compared; "
            "fit the data so far with a small ridge, fit(..., ridge=...)."
        )
    size = factor.shape[0]
    stacks = [np.linalg.qr(rows, mode="r") if len(rows) > size else rows for rows in stacks]
    padded = np.zeros((len(stacks), max(1, *map(len, stacks)), size))
    for stack, rows in zip(padded, stacks, strict=True):
        stack[: len(rows)] = rows
    return padded, targets
