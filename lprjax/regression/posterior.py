"""Uncertainty from a factor: samples of the posterior, and a variance that is calibrated.

In Bayesian linear regression with weighted residuals of variance one the coefficients are
distributed as `c ~ N(c0, H^-1)`, H = R^T R, so a prediction with derivatives g has variance
`g^T H^-1 g = 1/PR`: see `rigidity`. Real residuals are neither of variance one nor white, hence

    variance = sigma^2 + alpha^2 g^T (R^T R + s^2 Gamma P Gamma)^-1 g

with alpha, s and, where it is asked for, sigma from residuals on structures that the fit has not
seen, and P the projector onto what their rows reach. sigma is noise of the labels, which no
coefficients explain: without it alpha has to, and far from the data intervals are too wide.

How many deviations an interval takes is no quantile of a Gaussian: residuals are few and their law
is not known. It is a quantile of scores of structures whose residuals took no part in alpha, s and
sigma (`new_structures`), infinite where structures are too few.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike
from scipy.special import ndtri

from lprjax.numerics.checks import as_float64, refuse_traced, require_x64
from lprjax.numerics.tables import Table
from lprjax.regression.factors import (
    RCOND,
    checked_prior,
    checked_triangular,
    positive_diagonal,
    rank_of,
)
from lprjax.regression.new_structures import Conformal, conformal
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.rows import vanishing

NOMINAL = (0.5, 0.683, 0.9, 0.95)
"""Fractions of a Gaussian population at which coverage is reported: a choice."""
_QUANTILES = ndtri(0.5 * (1.0 + np.array(NOMINAL)))

# The search for s, all choices.
_GRID = 29  # values of s in a round: two in a decade in the first, over RCOND to _HIGHEST
_ROUNDS = 3  # each looks 14 times closer: s to half a percent in the end
_LEAST_GAIN = 1e-9  # gain in log likelihood per observation that is not rounding
_FOLDS = 5  # of structures, each scored by the variances of the others
_HIGHEST = 1e2  # times |R Gamma^-1|: there R is 1e-4 of the sum, and s only multiplies alpha


def committee(coefficients: ArrayLike, factor: ArrayLike, key: jax.Array, n: int) -> jax.Array:
    """Models drawn from the posterior: their spread is the uncertainty of any prediction.

        c = c0 + R^-1 z,   z white

    Over many c the variance of a prediction is 1/PR. A singular H has no such samples: the
    directions it leaves undetermined have infinite variance, which no finite committee can show
    (`prediction_rigidity` is exact there, PR = 0).

    Args:
        coefficients: (K,) c0, eV.
        factor: (K, K) upper triangular R, R^T R = H (`Fit.factor`).
        key: jax PRNG key.
        n: number of models, static under `jit`.

    Returns:
        (n, K), eV. For dE_i of a linear model multiply by its rows: `committee @ rows.T`. Under
        jit a singular factor gives infinity or NaN.

    Raises:
        ValueError: shapes that do not match; n < 1; (where its values are known, not under jit) a
            factor that is not upper triangular or is singular.
        TypeError: other than float64.
        RuntimeError: float64 is off.
    """
    require_x64()
    factor = _checked_factor(factor)
    coefficients = jnp.asarray(as_float64("coefficients", coefficients))
    if coefficients.shape != factor.shape[:1]:
        raise ValueError(
            f"coefficients have shape {coefficients.shape}: wanted ({factor.shape[0]},); give one "
            "per column of the factor."
        )
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n is {n!r}: wanted a whole number, at least one member.")
    if not isinstance(coefficients, Tracer) and not np.isfinite(coefficients).all():
        raise ValueError("coefficients hold NaN or infinity: wanted finite numbers; see the fit.")
    _refuse_singular(factor)
    return _committee(coefficients, factor, key, int(n))


@partial(jax.jit, static_argnames="n")
def _committee(coefficients, factor, key, n):
    white = jax.random.normal(key, (n, len(coefficients)))
    return coefficients[None, :] + solve_triangular(factor, white.T).T


class Calibration(NamedTuple):
    """The variance model that explains a set of residuals best, and how well it covers them.

    Attributes:
        alpha: what standard deviations are multiplied by; unit of the residuals over that of 1/w.
        s: >= 0, what is added to the factor as s P Gamma. As s grows beyond |R Gamma^-1| only
            alpha / s matters, and s ends at about a hundred times that.
        log_likelihood: per observation, natural logarithm, of densities per unit of the residuals.
        expected: (4,) the fractions NOMINAL.
        covered: (4,) the observed fractions of residuals within the interval that should hold
            them. A Gaussian sample of N has a standard error of sqrt(p (1 - p) / N), more where
            residuals are correlated.
        factor: (K, K) R_s / alpha: `prediction_rigidity(factor, g)` is one over the variance, now
            in the unit of the residuals squared.
        unreached: how many directions of coefficients, of those with Gamma > 0, no row reaches:
            there the variance is the fit's own, alpha^2 times the prior's or infinite.
        sigma: standard deviation of noise, in the unit of the residuals; 0 where `calibrate` was
            not asked for it. It is no part of `factor`.
        scores: (N,) |r| over deviations by the other folds of structures, see `interval`.
        owners: (N,) which structure each residual is of.
        largest: of the deviations of the residuals, in their unit.
    """

    alpha: float
    s: float
    log_likelihood: float
    expected: np.ndarray
    covered: np.ndarray
    factor: jax.Array
    unreached: int
    sigma: float = 0.0
    scores: np.ndarray = np.zeros(0)
    owners: np.ndarray = np.zeros(0, int)
    largest: float = math.inf

    @property
    def n_structures(self) -> int:
        """How many structures the residuals are of: so many, and not more, are independent."""
        return len(np.unique(self.owners))

    def interval(self, miss: float = 0.1, of: str = "row") -> Conformal:
        """How many deviations hold a label of a new structure with probability 1 - miss.

        The `conformal` quantile of |r| / sigma_i, each structure with the alpha, s and sigma of the
        four fifths of structures that it is not in. If structures are exchangeable with the new one
        it holds in 1 - miss of cases or somewhat more (as fits to four fifths scatter more than
        the whole; 1 - 2 miss is what is proven of such quantiles), whatever the law of residuals. A
        Gaussian's 1.96 for 95 % takes 19 structures at least: from fewer it is infinite.

        Args:
            miss: a, 0 < a < 1.
            of: "row", "atom" or "structure", as in `conformal`.

        Returns:
            The Conformal, whose `half_widths` and `outside` take `deviations`.

        Raises:
            ValueError: as `conformal`.

        Source: Vovk, Ann. Math. Artif. Intell. 74 (2015) 9 (cross-conformal); Barber, Candes,
        Ramdas, Tibshirani, Ann. Stat. 49 (2021) 486 (CV+).
        """
        found = conformal(self.scores, None, self.owners, miss=miss, of=of)
        return found._replace(largest=self.largest)

    def half_widths(self, rows: ArrayLike, miss: float = 0.1) -> np.ndarray:
        """Half the width of intervals for labels of new structures, see `interval`.

        Args:
            rows: (M, K), derivatives of the predictions.
            miss: a, 0 < a < 1.

        Returns:
            (M,), in the unit of the residuals; infinite where structures are too few.

        Raises:
            ValueError, TypeError, RuntimeError: as `deviations` and `interval`.
        """
        return self.interval(miss).half_widths(np.asarray(self.deviations(rows)))

    def deviations(self, rows: ArrayLike) -> jax.Array:
        """Standard deviations of residuals, (sigma^2 + 1 / PR)^(1/2), of labels with such noise.

        Args:
            rows: (M, K), derivatives of the predictions.

        Returns:
            (M,), in the unit of the residuals; inf where the variance is. Of predictions, which
            have no noise, it is `prediction_rigidity(factor, rows) ** -0.5`.

        Raises:
            ValueError, TypeError, RuntimeError: as `prediction_rigidity`.
        """
        return jnp.sqrt(self.sigma**2 + 1.0 / prediction_rigidity(self.factor, rows))

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        wide = [self.interval(1.0 - p).score if len(self.scores) else math.inf for p in NOMINAL]
        rows = [
            [f"{expected:.1%}", f"{covered:.1%}", f"{q:.3g}"]
            for expected, covered, q in zip(self.expected, self.covered, wide, strict=True)
        ]
        return Table(
            f"Calibration: alpha {self.alpha:.4g}, s {self.s:.4g}, sigma {self.sigma:.4g}",
            ("interval for", "holds of the residuals", "in new structures takes deviations"),
            rows,
            (
                f"structures: {self.n_structures}; infinite where they are too few",
                f"log likelihood of each, {self.log_likelihood:.4g}; directions that no row "
                f"reaches: {self.unreached}",
            ),
        )


def calibrate(
    factor: ArrayLike,
    rows: ArrayLike,
    residuals: ArrayLike,
    *,
    prior: ArrayLike | None = None,
    noise: bool = False,
    owners: ArrayLike | None = None,
) -> Calibration:
    """Fit the scale and the floor of predicted variances to residuals of validation structures.

        maximise sum_i log N(r_i; 0, sigma^2 + alpha^2 v_i(s))
        v_i(s) = g_i^T (R^T R + s^2 Gamma P Gamma)^-1 g_i

    P projects onto the span of the rows, in coordinates Gamma c. Of a direction that no row reaches
    the residuals say nothing, and a floor there would make certain what the data leave open, such
    as the energies of other compositions after validation at one. It keeps its variance, infinite
    where H is singular; `Calibration.unreached` counts them.

    alpha has a closed form for sigma^2 = rho alpha^2, `alpha^2 = mean(r_i^2 / (rho + v_i))`. rho is
    0, or searched for over logarithms as s is. s is searched for: 0, and a grid of
    logarithms from RCOND |R Gamma^-1| (less is lost in rounding) to 100 |R Gamma^-1|, made finer
    twice about the best; each s is one QR of [R; s P Gamma]. s = 0 stays where no s > 0 is likelier
    by more than rounding. In the likelihood residuals count as independent.

    How wide an interval has to be is another question, `Calibration.interval`: it counts
    structures, each by variances that come of the others, and from a few it is wide or infinite.

    Calibrate one kind of observation at a time, in its own unit: alpha repairs the scale that
    weights and misfit left wrong, and energies and forces are not wrong alike. With energies per
    atom, rows and residuals are per atom.

    Args:
        factor: (K, K) upper triangular R of the fit (`Fit.factor`), which may be singular: s = 0
            is then left out, unless the data determine every row.
        rows: (N, K) g_i, derivatives of the predictions. Rows that vanish, exactly or by symmetry
            to rounding, are refused: leave them out, `kept = ~lp.regression.vanishing(rows)`.
        residuals: (N,) predicted minus true.
        prior: (K,) diagonal of Gamma, >= 0, default ones.
        noise: whether labels have noise of their own, sigma; else sigma = 0.
        owners: (N,) numbers of the structures that residuals are of; None: each of its own, as
            energies are.

    Returns:
        The Calibration.

    Raises:
        ValueError: wrong shapes; fewer than two residuals; NaN or infinity; residuals that are
            all zero; a row that vanishes (its residual has no explanation in the coefficients); a
            prior without a positive entry; a singular factor whose open directions the rows reach
            and the prior leaves out.
        TypeError: other than float64.
        RuntimeError: float64 is off.

    Source: the variance model is that of last-layer rigidities (Bigi, Chong, Ceriotti, Grasselli,
    Mach. Learn.: Sci. Technol. 5 (2024) 045018), the maximum of its likelihood derived.
    """
    require_x64()
    refuse_traced("calibrate", factor=factor, rows=rows, residuals=residuals, prior=prior)
    factor = _checked_factor(factor)
    rows, residuals = _checked_data(rows, residuals, factor.shape[0])
    owners = _checked_owners(owners, len(residuals))
    gamma = checked_prior(prior, len(factor))
    if not gamma.any():
        raise ValueError("prior is zero: wanted entries >= 0 and at least one > 0; omit it for 1.")
    floor, unreached = _floor(rows, gamma)
    problem, everything = (factor, gamma, floor, rows, residuals), np.ones(len(residuals))
    best, floored, deviations = _search(*problem, everything, bool(noise), _ROUNDS)
    if not np.isfinite(best.log_likelihood):
        raise ValueError(
            "rows reach coefficients that neither the data nor the prior hold: wanted a finite "
            "variance for every row; give a prior > 0 there, or fit with a ridge."
        )
    return Calibration(
        float(best.alpha),
        float(best.s),
        float(best.log_likelihood),
        np.array(NOMINAL),
        np.asarray(best.covered),
        floored / best.alpha,
        unreached,
        float(best.alpha * jnp.sqrt(best.ratio)),
        _scores_of_others(problem, bool(noise), owners),
        owners,
        float(np.max(deviations)),
    )


def coverage(residuals: ArrayLike, deviations: ArrayLike) -> np.ndarray:
    """The fraction of residuals inside the intervals that should hold 50, 68.3, 90 and 95 %.

        fraction of |r_i| <= z sigma_i

    z is the Gaussian quantile of each of NOMINAL.

    Args:
        residuals: (N,).
        deviations: (N,) predicted standard deviations >= 0, in the unit of the residuals; inf
            where nothing is known: such a residual is covered. Zero, of a row that vanishes,
            covers an exact prediction only: leave such observations out (`rows.vanishing`).

    Returns:
        (4,), dimensionless.

    Raises:
        ValueError: different shapes, no residuals, NaN, or a deviation < 0.
        TypeError: other than float64, or traced.
    """
    refuse_traced("coverage", residuals=residuals, deviations=deviations)
    residuals = np.asarray(as_float64("residuals", residuals))
    deviations = np.asarray(as_float64("deviations", deviations))
    if residuals.shape != deviations.shape or residuals.ndim != 1 or residuals.size == 0:
        raise ValueError(
            f"residuals have shape {residuals.shape} and deviations {deviations.shape}: wanted "
            "(N,) with N >= 1 for both; give one deviation per residual."
        )
    if np.isnan(residuals).any() or not (deviations >= 0.0).all():
        raise ValueError(
            "residuals hold NaN, or deviations one that is NaN or negative: wanted numbers, and "
            "deviations >= 0; leave those observations out."
        )
    return np.mean(_inside(residuals, deviations), axis=0)


def _inside(residuals, deviations):
    """Which residuals are in which interval, (N, 4); of NumPy or of JAX."""
    return abs(residuals)[:, None] <= _QUANTILES[None, :] * deviations[:, None]


class _Model(NamedTuple):
    """The best variance model for one s; of many s, an axis more."""

    s: jax.Array
    alpha: jax.Array
    log_likelihood: jax.Array
    covered: jax.Array
    ratio: jax.Array  # rho = sigma^2 / alpha^2

    @property
    def score(self) -> jax.Array:
        return self.log_likelihood + jnp.where(self.s == 0.0, _LEAST_GAIN, 0.0)

    def at(self, k: jax.Array) -> "_Model":
        return jax.tree.map(lambda x: x[k], self)


def _floor(rows: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, int]:
    """P Gamma (K, K), and how many directions of positive Gamma P leaves out.

    Their number is decided with the columns scaled to one, so that units do not matter.
    """
    positive = np.flatnonzero(gamma > 0.0)
    reached = rows[:, positive] / gamma[positive]
    largest = np.max(np.abs(reached), axis=0)
    scale = 1.0 / np.where(largest > 0.0, largest, 1.0)
    _, singular, vt = np.linalg.svd(np.linalg.qr(reached * scale, mode="r"))
    rank = int(np.sum(singular > RCOND * singular[0]))
    beyond, _ = np.linalg.qr(scale[:, None] * vt[rank:].T)
    floor = np.diag(gamma)
    floor[np.ix_(positive, positive)] -= beyond @ beyond.T * gamma[positive]
    return floor, beyond.shape[1]


def _scores_of_others(problem, noise: bool, owners: np.ndarray) -> np.ndarray:
    """Residuals (N,) over the deviations of fits to the folds of structures they are not in."""
    residuals = problem[-1]
    _, place = np.unique(owners, return_inverse=True)
    n_folds = min(_FOLDS, int(place.max()) + 1)
    if n_folds < 2:
        return np.full(len(residuals), np.inf)
    folds = place % n_folds
    counts = (folds[None, :] != np.arange(n_folds)[:, None]).astype(float)
    deviations = np.asarray(_of_folds(problem, counts, noise))[folds, np.arange(len(folds))]
    known = deviations > 0.0  # NaN where the others' residuals are all zero
    return np.where(known, np.abs(residuals) / np.where(known, deviations, 1.0), np.inf)


@partial(jax.jit, static_argnames="noise")
def _of_folds(problem, counts, noise):
    """Deviations of all rows by the likeliest model of those that count in each fold, (F, N); s is
    found on one grid, within half a decade."""
    return jax.lax.map(lambda own: _search(*problem, own, noise, 1)[2], counts)


@partial(jax.jit, static_argnames=("noise", "rounds"))
def _search(factor, gamma, floor, rows, residuals, counts, noise, rounds):
    """The likeliest of all s, its factor R_s and the deviations of residuals (N,); those count
    (N,) that are 1 in counts."""
    penalised = gamma > 0.0
    relative = factor / jnp.where(penalised, gamma, 1.0)[None, :]
    size = jnp.linalg.norm(jnp.where(penalised[None, :], relative, 0.0))
    size = jnp.where(size > 0.0, size, 1.0)  # without data every s > 0 is as likely

    def closer(_, state):
        best, low, high = state
        grid = jnp.linspace(low, high, _GRID)
        candidates = jnp.concatenate([jnp.zeros(1), jnp.exp(grid)])
        found = jax.lax.map(
            lambda s: _profile(s, factor, floor, rows, residuals, counts, noise), candidates
        )
        top = found.at(jnp.argmax(found.score))
        best = jax.tree.map(lambda a, b: jnp.where(top.score > best.score, a, b), top, best)
        peak = jnp.argmax(found.score[1:])
        return best, grid[jnp.maximum(peak - 1, 0)], grid[jnp.minimum(peak + 1, _GRID - 1)]

    zero = jnp.zeros(())
    nothing = _Model(zero, zero, zero - jnp.inf, jnp.zeros(len(NOMINAL)), zero)
    state = nothing, jnp.log(RCOND * size), jnp.log(_HIGHEST * size)
    best, _, _ = jax.lax.fori_loop(0, rounds, closer, state)
    floored = _floored(factor, best.s, floor)
    variances = best.ratio + 1.0 / prediction_rigidity(floored, rows)
    return best, floored, best.alpha * jnp.sqrt(variances)


def _profile(s, factor, floor, rows, residuals, counts, noise):
    """The best alpha, and ratio of noise if there is any, for one s."""
    rigidity = prediction_rigidity(_floored(factor, s, floor), rows)
    determined = jnp.all(rigidity > 0.0)  # else a variance is infinite, and its density zero
    variances = 1.0 / jnp.where(determined, rigidity, 1.0)
    squares = jnp.square(residuals)
    ratio = _noise_ratio(variances, squares, counts) if noise else jnp.zeros(())
    alpha, likelihood = _scale_and_likelihood(ratio, variances, squares, counts)
    inside = _inside(residuals, alpha * jnp.sqrt(ratio + variances))
    covered = counts @ inside.astype(float) / jnp.sum(counts)
    return _Model(s, alpha, jnp.where(determined, likelihood, -jnp.inf), covered, ratio)


def _scale_and_likelihood(ratio, variances, squares, counts):
    """The best alpha for a shape of variances, and the log likelihood per observation."""
    shape, n = ratio + variances, jnp.sum(counts)
    alpha = jnp.sqrt(counts @ (squares / shape) / n)
    likelihood = (
        -0.5 * (counts @ jnp.log(shape)) / n - jnp.log(alpha) - 0.5 * jnp.log(2 * jnp.pi) - 0.5
    )
    return alpha, likelihood


def _noise_ratio(variances, squares, counts):
    """The likeliest rho: 0 unless another is likelier by more than rounding; between a thousandth
    of the least variance and a thousand times the largest, made finer as s is."""

    def closer(_, state):
        best, top, low, high = state
        grid = jnp.linspace(low, high, _GRID)
        found = jax.lax.map(
            lambda log: _scale_and_likelihood(jnp.exp(log), variances, squares, counts)[1], grid
        )
        peak = jnp.argmax(found)
        better = found[peak] > top
        best, top = jnp.where(better, jnp.exp(grid[peak]), best), jnp.maximum(found[peak], top)
        return best, top, grid[jnp.maximum(peak - 1, 0)], grid[jnp.minimum(peak + 1, _GRID - 1)]

    zero = jnp.zeros(())
    none = _scale_and_likelihood(zero, variances, squares, counts)[1] + _LEAST_GAIN
    low, high = jnp.log(1e-3 * jnp.min(variances)), jnp.log(1e3 * jnp.max(variances))
    return jax.lax.fori_loop(0, _ROUNDS, closer, (zero, none, low, high))[0]


def _floored(factor, s, floor):
    """Triangular R_s, R_s^T R_s = R^T R + s^2 Gamma P Gamma."""
    triangle = jnp.linalg.qr(jnp.concatenate([factor, s * floor]), mode="r")
    return jnp.triu(positive_diagonal(triangle)[:, None] * triangle)


def _checked_factor(factor) -> jax.Array:
    if not isinstance(factor, Tracer) and not np.isfinite(np.asarray(factor)).all():
        raise ValueError(
            "factor holds NaN or infinity: wanted finite numbers; check the rows behind it."
        )
    return checked_triangular(factor)


def _refuse_singular(factor):
    if isinstance(factor, Tracer):
        return
    rank = rank_of(factor)
    if rank < len(factor):
        raise ValueError(
            f"rank of H is {rank}: wanted {len(factor)}, one for each coefficient, because what "
            "the data leave undetermined has infinite variance and no samples; fit with a ridge > "
            "0 (a prior with no zero entry among the undetermined), or add data."
        )


def _checked_data(rows, residuals, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(as_float64("rows", rows))
    residuals = np.asarray(as_float64("residuals", residuals))
    if rows.ndim != 2 or rows.shape[1] != n_features or residuals.shape != rows.shape[:1]:
        raise ValueError(
            f"rows have shape {rows.shape} and residuals {residuals.shape}: wanted "
            f"(N, {n_features}) and (N,); give one row per scalar observation, as in the fit."
        )
    if len(residuals) < 2:
        raise ValueError(
            f"number of residuals is {len(residuals)}: wanted at least 2, for alpha and s; give "
            "many."
        )
    if not (np.isfinite(rows).all() and np.isfinite(residuals).all()):
        raise ValueError(
            "rows or residuals hold NaN or infinity: wanted finite numbers; leave those "
            "observations out."
        )
    if not residuals.any():
        raise ValueError(
            "all residuals are zero: wanted some that are not, as no variance is the likeliest; "
            "calibrate on structures that were not fitted exactly."
        )
    zero = np.asarray(vanishing(rows))
    if zero.any():
        raise ValueError(
            f"{np.sum(zero)} of {len(rows)} rows are zero to rounding, first row "
            f"{int(np.argmax(zero))}: wanted predictions that depend on the coefficients; leave "
            "out forces that vanish by symmetry, kept = ~lp.regression.vanishing(rows)."
        )
    return rows, residuals


def _checked_owners(owners, n: int) -> np.ndarray:
    owners = np.arange(n) if owners is None else np.asarray(owners)
    if owners.shape != (n,) or owners.dtype.kind not in "iu":
        raise ValueError(
            f"owners have shape {owners.shape} and dtype {owners.dtype}: wanted ({n},) whole "
            "numbers; give the structure of each residual."
        )
    return owners
