"""Weights and ridge by leave-one-structure-out errors: one number, its slope, and its minimum.

    J(w, ridge) = sum_p a_p log e_p / sum_p a_p ,   e_p^2 = 1/N_p sum_i in p (y_i - x_i . c_b(i))^2

e_p is the error of a kind of observations (or a key of its own), in its unit and without a weight,
c_b the fit without the structure b that a row is of: see `left_out`. J is the logarithm of a
geometric mean, so units of the kinds and reference scales do not matter, and a percent of one
kind's error is worth a percent of another's: what `Front.chosen("balanced")` asks of folds.

Weights act through c_b alone. All of them times s, with the ridge times s^2, are the same fit and
the same J; all of them to zero at a fixed ridge lead to the prior's c and the size of the labels
for errors; one of them to zero leaves that kind's errors in J in full. No choice of weights makes J
small without left-out errors that are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.numerics.checks import check_at_least_zero, check_positive, refuse_traced
from lprjax.numerics.tables import Table
from lprjax.regression.factors import checked_prior, kind_of
from lprjax.regression.fitting import Fit, fit, resolve_weights
from lprjax.regression.left_out import StructureFactors, left_out_errors, left_out_squares

LOWEST, HIGHEST = 1e-16, 1e2
"""Ridges that are tried, times |A Gamma^-1|^2 of the weighted rows: from what rounding hides to
what leaves next to nothing of the data; choices."""
PER_DECADE = 2
"""Ridges tried in a decade before the best is refined: a choice."""
STEPS = (1e-2, 1e-1, 10.0, 100.0)
"""Factors tried on each weight, one after the other, before the descent: where one kind decides
alone J is flat, and a descent would stay there; a choice."""
_FLAT = 1e-6  # slope of J in a logarithm at which a descent ends: a choice, 1e-6 of an error
_WALL = 1e6  # J where it is infinite or NaN, for the search to turn round


class ChosenLoss(NamedTuple):
    """Weights and ridge at a minimum of left-out errors, and what they are there.

    Attributes:
        weights: by kind or key, as they were given.
        ridge: multiplies |Gamma c|^2.
        prior: (K,) the diagonal of Gamma, as given; None: ones.
        errors: by key the root mean square of left-out residuals, unit of the labels.
        before: the same of the weights and ridge that were given; of `choose_ridge` of the least
            ridge tried that has finite ones.
        loss: J, natural logarithm of the geometric mean of the errors.
        slopes: by what was chosen ("ridge", or a weight's key) dJ / d log of it; small unless at an
            edge.
        at_edge: what of it ended at an edge of the range that was looked at: there may be better
            ones beyond, or none at all.
        evaluations: how often J was computed.
    """

    weights: dict[Any, float]
    ridge: float
    prior: np.ndarray | None
    errors: OrderedDict[Any, float]
    before: OrderedDict[Any, float]
    loss: float
    slopes: dict[Any, float]
    at_edge: tuple[Any, ...]
    evaluations: int

    def fit(self, parts: StructureFactors) -> Fit:
        """The fit to all structures with this loss.

        Args:
            parts: those that it was chosen by.

        Returns:
            The Fit.

        Raises:
            ValueError: as `fit`.
        """
        return fit(parts.by_key, self.weights, ridge=self.ridge, prior=self.prior)

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = [
            [_text(key), f"{self.before[key]:.4g}", f"{error:.4g}"]
            for key, error in self.errors.items()
        ]
        weights = ", ".join(f"{_text(key)} {w:.4g}" for key, w in self.weights.items())
        notes = [f"weights: {weights}; ridge {self.ridge:.3g}"]
        if self.at_edge:
            notes.append(f"at an edge of its range: {', '.join(map(_text, self.at_edge))}")
        return Table(
            f"Loss chosen by left-out errors, in {self.evaluations} evaluations",
            ("observations", "rms left out, before", "chosen"),
            rows,
            notes,
        )


def left_out_loss(
    parts: StructureFactors,
    weights: ArrayLike,
    ridge: ArrayLike,
    prior: ArrayLike | None = None,
    shares: Mapping[Any, float] | None = None,
) -> jax.Array:
    """The logarithm of the geometric mean of left-out errors, pure: to be jitted, differentiated.

        J = sum_p a_p log e_p / sum_p a_p ,   e_p the root mean square of left-out residuals

    Args:
        parts: see `structure_factors`.
        weights: as in `left_out_squares`.
        ridge: as in `left_out_squares`.
        prior: as in `left_out_squares`.
        shares: a_p >= 0, by kind or key; a key's own goes before that of its kind, and its rows
            then count apart from the kind's. None: one for each kind.

    Returns:
        (), the logarithm of an error; differences of J are relative errors of the mean.

    Raises:
        ValueError: shares of what there is not, negative, or none above zero.
    """
    squares = jnp.sum(left_out_squares(parts, weights, ridge, prior), axis=0)
    members, worth = _pools(parts, shares)
    means = (members @ squares) / (members @ np.array(parts.counts, float))
    return worth @ (0.5 * jnp.log(means))


def choose_ridge(
    parts: StructureFactors,
    weights: Mapping[Any, float],
    *,
    prior: ArrayLike | None = None,
    shares: Mapping[Any, float] | None = None,
    ridges: tuple[float, float] | None = None,
) -> ChosenLoss:
    """The ridge of the least left-out errors, of those between two limits.

        argmin J(w, ridge),   J = sum_p a_p log e_p / sum_p a_p

    J, the logarithm of a geometric mean of left-out errors by kind, is computed at two ridges in
    each decade, and the best is refined by its slope. J and errors are exact, as of refits without
    one structure after the other. A minimum narrower than half a decade may be missed.

    >>> parts = lp.structure_factors(lp.structure_rows(spec, samples))
    >>> found = lp.choose_ridge(parts, weights)
    >>> list(found.errors)
    ['energy', 'forces']

    Args:
        parts: see `structure_factors`.
        weights: as in `fit`.
        prior: as in `fit`.
        shares: as in `left_out_loss`.
        ridges: the least and the largest ridge, > 0; None: LOWEST and HIGHEST times
            |A Gamma^-1|^2, A the weighted rows.

    Returns:
        The ChosenLoss, its weights those that were given.

    Raises:
        ValueError: as `left_out_errors` and `left_out_loss`; a range that is none; no finite error
            in it; an error that is zero whatever the loss.
        TypeError: traced values.
    """
    given = _Given(parts, weights, prior, shares)
    low, high = _ridge_range(given, ridges)
    logs = np.linspace(math.log(low), math.log(high), _many(low, high))
    values = [
        given.value(np.array([log]), ridge=1.0, names=("ridge",))[0]
        for log in tqdm(logs, desc="ridges", delay=5, leave=False)
    ]
    finite = np.flatnonzero(np.array(values) < _WALL)
    if not len(finite):
        raise ValueError(given.nothing_finite(f"ridges of {low:.3g} to {high:.3g}"))
    best = int(np.argmin(values))
    limits = logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)]
    x = given.descended(logs[[best]], [limits], ridge=1.0, names=("ridge",))
    edges = [(logs[0], logs[-1])]
    return given.chosen(x, edges, 1.0, ("ridge",), start=math.exp(logs[finite[0]]))


def choose_weights(
    parts: StructureFactors,
    weights: Mapping[Any, float],
    *,
    ridge: float = 0.0,
    prior: ArrayLike | None = None,
    shares: Mapping[Any, float] | None = None,
    fixed: Any = None,
    with_ridge: bool = False,
    within: float = 1e4,
) -> ChosenLoss:
    """The weights of the least left-out errors, by descent from those that are given.

        argmin J(w, ridge),   J = sum_p a_p log e_p / sum_p a_p

    J is the logarithm of a geometric mean of left-out errors by kind, without weights and whatever
    their units (see the top of the file, why it is no smaller for smaller weights). From the best
    of a few STEPS in each weight it descends in the logarithms of all; other minima may be lower.

    >>> parts = lp.structure_factors(lp.structure_rows(spec, samples))
    >>> found = lp.choose_weights(parts, {"energy": 10.0, "forces": 1.0}, ridge=1e-8)
    >>> found.weights["forces"]
    1.0

    Args:
        parts: see `structure_factors`.
        weights: where it begins, by kind or key as in `fit`: one number is chosen for each entry.
            Those of zero stay zero.
        ridge: as in `fit`.
        prior: as in `fit`.
        shares: as in `left_out_loss`.
        fixed: the entry of weights that stays as it is, for the ridge to be measured by; None:
            "forces", or else the first.
        with_ridge: whether the ridge, > 0, is chosen too.
        within: > 1, the factor by which weights may change, and the ridge by its square.

    Returns:
        The ChosenLoss.

    Raises:
        ValueError: as `left_out_errors` and `left_out_loss`; nothing to choose; errors that are
            infinite at the start, or zero whatever the loss.
        TypeError: traced values.
    """
    given = _Given(parts, weights, prior, shares)
    check_at_least_zero("ridge", ridge)
    check_positive(within=within)
    if with_ridge and not ridge:
        raise ValueError("ridge is 0: wanted one > 0 to begin with, as it is to be chosen.")
    positive = [key for key, weight in weights.items() if weight > 0.0]
    if fixed is None:
        fixed = "forces" if "forces" in positive else next(iter(positive), None)
    if fixed not in positive:
        raise ValueError(f"fixed is {fixed!r}: wanted an entry > 0 of weights, {positive}.")
    names = (*(key for key in positive if key != fixed), *(["ridge"] if with_ridge else []))
    if not names or within <= 1.0:
        raise ValueError(
            f"weights to choose are {list(names)} within a factor {within}: wanted one at least "
            "besides the fixed one, and a factor > 1; see choose_ridge for the ridge alone."
        )
    start = np.zeros(len(names))
    if given.value(start, ridge, names)[0] >= _WALL:
        raise ValueError(given.nothing_finite(f"a ridge of {ridge:.3g}"))
    edge = math.log(within)
    edges = [(-edge * power, edge * power) for power in (1 + (name == "ridge") for name in names)]
    begin = given.scanned(start, edges, ridge, names)
    x = given.descended(begin, edges, ridge, names)
    return given.chosen(x, edges, ridge, names, start=ridge)


class _Given:
    """A problem, checked: J of the logarithms of factors on what is to be chosen."""

    def __init__(self, parts, weights, prior, shares) -> None:
        refuse_traced("choose_weights (left_out_loss is for jit)", parts=parts, weights=weights)
        self.parts, self.weights, self.prior = parts, dict(weights), prior
        self.base = np.array(list(resolve_weights(parts.by_key, weights).values()))
        self.gamma = checked_prior(prior, parts.n_features)
        self.shares = None if shares is None else tuple(shares.items())
        _pools(parts, shares)
        self.evaluations = 0
        targets = [float(jnp.sum(f.target**2) + f.residual) for f in parts.factors]
        members, _ = _pools(parts, shares)
        if not (members @ np.array(targets) > 0.0).all():
            raise ValueError(
                "labels of a kind are all zero: wanted errors that a loss can change; leave the "
                "kind out of shares."
            )

    def members(self, names: Sequence[Any]) -> np.ndarray:
        """(k + 1, n): which weights, and last the ridge, each of the names multiplies."""
        found = np.zeros((len(self.base) + 1, len(names)))
        for j, name in enumerate(names):
            if name == "ridge":
                found[-1, j] = 1.0
            for k, key in enumerate(self.parts.keys):
                own = key if key in self.weights else kind_of(key)
                found[k, j] = found[k, j] or float(own == name)
        return found

    def value(self, x, ridge, names) -> tuple[float, np.ndarray]:
        """J and its slopes; a wall where it is not finite."""
        self.evaluations += 1
        ridge = None if ridge == 0.0 else float(ridge)
        arguments = x, self.parts, self.base, self.members(names), ridge, self.gamma
        value, slope = jax.device_get(_value_and_slope(*arguments, self.shares))
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return _WALL, np.zeros(len(x))
        return float(value), np.asarray(slope)

    def scanned(self, start, edges, ridge, names) -> np.ndarray:
        """The best of STEPS in each direction, one after the other."""
        best, least = start, self.value(start, ridge, names)[0]
        for j, edge in enumerate(edges):
            for step in STEPS:
                x = best.copy()
                x[j] = np.clip(start[j] + math.log(step), *edge)
                if (value := self.value(x, ridge, names)[0]) < least:
                    best, least = x, value
        return best

    def descended(self, start, edges, ridge, names) -> np.ndarray:
        from scipy.optimize import minimize

        options = {"gtol": _FLAT, "ftol": 1e-14, "maxiter": 200}
        with tqdm(desc="left-out errors", unit=" losses", delay=5, leave=False) as bar:

            def value(x):
                bar.update()
                return self.value(x, ridge, names)

            return minimize(value, start, jac=True, bounds=edges, options=options).x

    def chosen(self, x, edges, ridge, names, start) -> ChosenLoss:
        factors = dict(zip(names, np.exp(x).tolist(), strict=True))
        loss, slopes = self.value(x, ridge, names)
        weights = {key: float(w) * factors.get(key, 1.0) for key, w in self.weights.items()}
        errors = partial(left_out_errors, self.parts, prior=self.prior)
        found = float(ridge) * factors.get("ridge", 1.0)
        edge = [min(a - low, high - a) < 1e-6 for a, (low, high) in zip(x, edges, strict=True)]
        return ChosenLoss(
            weights,
            found,
            None if self.prior is None else self.gamma,
            errors(weights, ridge=found),
            errors(self.weights, ridge=start),
            loss,
            dict(zip(names, slopes.tolist(), strict=True)),
            tuple(name for name, at in zip(names, edge, strict=True) if at),
            self.evaluations,
        )

    def nothing_finite(self, what: str) -> str:
        return (
            f"left-out errors are infinite with {what}: wanted finite ones; a structure that alone "
            "determines a coefficient (`Influence.undetermined` names it) asks for a larger ridge, "
            "or a prior > 0 where it acts."
        )


@partial(jax.jit, static_argnames="shares")
def _value_and_slope(x, parts, base, members, ridge, gamma, shares):
    def of(x):
        factors = jnp.exp(members @ x)
        own = 0.0 if ridge is None else ridge * factors[-1]
        named = None if shares is None else dict(shares)
        return left_out_loss(parts, base * factors[:-1], own, gamma, named)

    return jax.value_and_grad(of)(x)


def _pools(parts: StructureFactors, shares: Mapping[Any, float] | None) -> tuple:
    """Which keys count together, (p, k), and what each pool is worth of one, (p,)."""
    keys = parts.keys
    if shares is None:
        shares = dict.fromkeys((kind_of(key) for key in keys), 1.0)
    for name, share in shares.items():
        check_at_least_zero(f"share of {name!r}", share)
    named = [name for name, share in shares.items() if share > 0.0]
    members = np.array(
        [
            [float(key == name or (kind_of(key) == name and key not in shares)) for key in keys]
            for name in named
        ]
    ).reshape(-1, len(keys))
    if not named or not members.any(axis=1).all():
        held = ", ".join(map(repr, keys))
        raise ValueError(
            f"shares are {dict(shares)!r}: wanted kinds or keys of the rows, {held}, with one > 0."
        )
    worth = np.array([shares[name] for name in named], float)
    return members, worth / worth.sum()


def _ridge_range(given: _Given, ridges) -> tuple[float, float]:
    """The least and the largest ridge to try."""
    if ridges is not None:
        low, high = ridges
        check_positive(low=low, high=high)
        if not low < high:
            raise ValueError(f"ridges are {ridges!r}: wanted the least and the largest, > 0.")
        return float(low), float(high)
    held = given.gamma > 0.0
    if not held.any():
        raise ValueError("prior is zero: wanted entries > 0, on which a ridge acts.")
    size = sum(
        w**2 * float(np.sum((np.asarray(factor.triangular)[:, held] / given.gamma[held]) ** 2))
        for w, factor in zip(given.base, given.parts.factors, strict=True)
    )
    if not size:
        raise ValueError("weighted rows are zero: wanted some that are not; give weights > 0.")
    return LOWEST * size, HIGHEST * size


def _many(low: float, high: float) -> int:
    return max(2, 1 + math.ceil(PER_DECADE * math.log10(high / low)))


def _text(key: Any) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
