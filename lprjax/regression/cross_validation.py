"""Which loss and which basis: held-out errors of energies against those of forces, as a front.

The structures of a training set are split in F folds, and each fold is compressed by itself. What a
fit to all folds but one misses in that one is then exact, however many data there are,

    sum |X_f c - y_f|^2 = |R_f c - q_f|^2 + rho_f^2 ,

and a loss costs QRs of a few triangles. No single number says which model is best: energies and
forces are at odds, and how far one pays for the other is a choice. So all candidates are shown, the
front of those that no other beats in both, and on it three that have names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.sharding import Mesh
from tqdm import tqdm

from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.training_sets import TrainingSet
from lprjax.numerics.checks import check_at_least_zero, require_x64
from lprjax.regression.factors import Factor, empty, kind_of, merge, stacked_triangle, weighed
from lprjax.regression.fitting import Fit, fit, resolve_weights
from lprjax.regression.groups import (
    KINDS_OF_FILES,
    baseline_energies,
    checked_training_kinds,
    factors_by_group,
    kept_apart,
)

Folds = Sequence[Mapping[tuple[str, str], Factor]]
"""Of each fold its factors by kind and group, as `compress_folds` makes them."""
WITHIN = 0.01
"""Errors that are apart by less of themselves are alike: a choice, below what folds can tell."""
CHOICES = {
    "balanced": "the least product of both errors, whatever their units",
    "energy": f"the least error of forces within {WITHIN:.0%} of the least error of energies",
    "forces": f"the least error of energies within {WITHIN:.0%} of the least error of forces",
}
"""The named points of a front, and the rule of each."""


def fold_numbers(groups: Sequence[str], folds: int = 5) -> np.ndarray:
    """A split of structures into folds, of each group as equal parts as can be; no chance in it.

    The structures of a group go to the folds in turn, in their order, and the next group goes on
    where the last one stopped.

    Args:
        groups: of each structure.
        folds: how many, at least 2.

    Returns:
        The fold of each structure, from 0, (S,).

    Raises:
        ValueError: fewer than two folds, or fewer structures than folds.
    """
    if not 2 <= folds <= len(groups):
        raise ValueError(
            f"folds is {folds}: wanted at least 2 and at most {len(groups)}, one structure in each."
        )
    names = list(dict.fromkeys(groups))
    order = sorted(range(len(groups)), key=lambda k: names.index(groups[k]))  # stable
    found = np.empty(len(groups), int)
    found[order] = np.arange(len(groups)) % folds
    return found


def compress_folds(
    spec: ACESpec,
    training_set: TrainingSet,
    folds: int = 5,
    kinds: Sequence[str] | None = None,
    *,
    reference_energies: Mapping[str, float] | None = None,
    per_atom: Sequence[str] = ("energy", "virial"),
    apart: Sequence[str] | None = None,
    mesh: Mesh | None = None,
) -> list[dict[tuple[str, str], Factor]]:
    """The factors of `compress_groups` of each fold by itself: one assembly for all losses.

    Args:
        spec: the basis.
        training_set: see `read_training_set`.
        folds: how many, see `fold_numbers`.
        kinds: as in `compress_groups`.
        reference_energies: as in `compress_groups`; None: `baseline_energies` of the whole set.
        per_atom: as in `compress_groups`.
        apart: as in `compress_groups`; of many groups name those that have weights of their own.
        mesh: as in `compress_structures`.

    Returns:
        Of each fold (kind, group) -> Factor.

    Raises:
        ValueError: as `fold_numbers` and `compress_groups`.
        TypeError, RuntimeError: as `compress_groups`.
    """
    kinds = checked_training_kinds(training_set, kinds)
    if reference_energies is None:
        reference_energies = baseline_energies(training_set)
    numbers = fold_numbers(training_set.groups, folds)
    training_set = kept_apart(training_set, apart)
    with tqdm(total=len(numbers), desc="rows of folds", unit=" cells", delay=5) as bar:
        return [
            factors_by_group(
                spec,
                training_set.part(np.flatnonzero(numbers == fold)),
                kinds,
                bar,
                reference_energies=reference_energies,
                per_atom=per_atom,
                mesh=mesh,
            )
            for fold in range(folds)
        ]


def merged_folds(parts: Folds) -> dict[tuple[str, str], Factor]:
    """The factors of all structures, from those of the folds: for the fit once it is chosen.

    Args:
        parts: as `compress_folds` returns them.

    Returns:
        (kind, group) -> Factor.

    Raises:
        ValueError: as `merge`.
    """
    found: dict[tuple[str, str], Factor] = {}
    for factors in parts:
        for key, factor in factors.items():
            found[key] = merge(found[key], factor) if key in found else factor
    return found


class Candidate(NamedTuple):
    """A basis and a loss, with what fits to all folds but one miss in that one.

    Attributes:
        spec: the basis.
        weights: of the residuals, by kind, and by (kind, group) where a group has its own.
        ridge: multiplies |Gamma c|^2.
        power: of the smoothness prior Gamma, see `smoothness_prior`.
        energy: root of the mean square of what is missed of a fold's energies, the mean over folds,
            eV/atom (eV of per-cell factors).
        energy_spread: standard error of that mean, the same unit.
        forces: the same of force components, eV/Å.
        forces_spread: the same, eV/Å.
    """

    spec: ACESpec
    weights: dict[Any, float]
    ridge: float
    power: float
    energy: float
    energy_spread: float
    forces: float
    forces_spread: float

    def fit(self, parts: Folds) -> Fit:
        """The fit to all structures with this loss.

        Args:
            parts: of this basis, as `compress_folds` returns them.

        Returns:
            The Fit.

        Raises:
            ValueError: as `merged_folds` and `fit`.
        """
        prior = smoothness_prior(self.spec, self.power)
        return fit(merged_folds(parts), self.weights, ridge=self.ridge, prior=prior)

    def __str__(self) -> str:
        s = self.spec
        weights = " ".join(f"{key} {w:.3g}" for key, w in self.weights.items())
        return (
            f"{1e3 * self.energy:8.3f} ± {1e3 * self.energy_spread:<7.3f} "
            f"{self.forces:7.4f} ± {self.forces_spread:<7.4f} "
            f"{s.order:5d} {s.degree:6d} {s.r_cut:5.2f} {s.cutoff_power:5d}  "
            f"{self.ridge:.0e} {self.power:5.1f}  {weights}"
        )


class Front(NamedTuple):
    """All candidates, and what can be chosen among them."""

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> tuple[Candidate, ...]:
        """Those that no other beats in both errors, from the least error of energies on."""
        found: list[Candidate] = []
        for one in sorted(self.candidates, key=lambda one: (one.energy, one.forces)):
            if math.isfinite(one.energy) and (not found or one.forces < found[-1].forces):
                found.append(one)
        return tuple(found)

    def chosen(self, name: str = "balanced", *, within: float = WITHIN) -> Candidate:
        """The candidate of a name on the front.

        balanced: the least product of both errors, whatever their units. energy: the least error
        of forces among those whose error of energies is within 1 % of the least one. forces: the
        least error of energies among those whose error of forces is within 1 % of the least one.

        Args:
            name: one of CHOICES.
            within: how much more than the least error of the one kind a smaller error of the other
                is worth, of itself, in place of 1 %; "balanced" has no use of it.

        Returns:
            The Candidate.

        Raises:
            ValueError: an unknown name; a share that is no finite number >= 0; no candidate with
                finite errors.
        """
        if name not in CHOICES:
            raise ValueError(f"name is {name!r}: wanted one of {', '.join(CHOICES)}.")
        check_at_least_zero("within", within)
        front = self.best
        if not front:
            raise ValueError(
                "no candidate has finite errors: wanted one at least; give ridges above zero."
            )
        if name == "balanced":
            return min(front, key=lambda one: one.energy * one.forces)
        # Along the front the one error rises as the other falls.
        if name == "energy":
            return [one for one in front if one.energy <= (1.0 + within) * front[0].energy][-1]
        return next(one for one in front if one.forces <= (1.0 + within) * front[-1].forces)

    def __str__(self) -> str:
        """The front, a line for each, and which of them have names."""
        names: dict[int, list[str]] = {}
        front = self.best
        for name in CHOICES if front else ():
            names.setdefault(front.index(self.chosen(name)), []).append(name)
        head = (
            "energy, meV/atom     forces, eV/Å       order degree r_cut power  ridge prior  weights"
        )
        lines = [f"{one}  {', '.join(names.get(k, []))}".rstrip() for k, one in enumerate(front)]
        rules = [f"{name}: {rule}" for name, rule in CHOICES.items()]
        return "\n".join([head, *lines, *rules])

    __repr__ = __str__


def validation_front(
    bases: Iterable[tuple[ACESpec, Folds]],
    *,
    weights: Mapping[Any, float] | None = None,
    energy: Sequence[float] = (10.0, 25.0, 60.0, 150.0, 400.0, 1000.0),
    virial: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    ridges: Sequence[float] = (1e-10, 1e-8, 1e-6, 1e-4),
    powers: Sequence[float] = (2.0, 4.0),
) -> Front:
    """Errors of held-out energies and forces for every basis and loss, by cross-validation.

    For each fold the other folds are fitted and the errors in it taken, exactly, from its factors.
    Test data take no part. One assembly for each basis, one compilation for all losses.

        data = lp.read_training_set("train.xyz")
        specs = [lp.ACESpec(("W",), 3, 12, r_cut, 2.74, constant=True) for r_cut in (5.0, 6.0)]
        parts = {spec: lp.compress_folds(spec, data) for spec in specs}
        front = lp.validation_front(parts.items())
        print(front)
        best = front.chosen("balanced")
        result = best.fit(parts[best.spec])

    Args:
        bases: pairs of a basis and its folds, see `compress_folds`; they may be made one by one.
        weights: what the weights below multiply, by kind, and by (kind, group) where a group has
            its own; ones if None, and forces keep theirs.
        energy: weights of energies tried, atom/eV (1/eV of per-cell factors).
        virial: weights of virials tried, in the same unit; not looked at where there are none.
        ridges: tried, with every power.
        powers: of the smoothness prior, tried.

    Returns:
        The Front of all of them.

    Raises:
        ValueError: no bases; nothing to try, or weights, ridges or powers out of range; folds fewer
            than two, or without energies or forces; weights of kinds or groups that there are not.
        RuntimeError: float64 is off.
    """
    require_x64()
    tried = {"energy": energy, "virial": virial, "ridges": ridges, "powers": powers}
    for name, values in tried.items():
        if not len(values):
            raise ValueError(f"{name} is empty: wanted at least one value to try.")
        for value in values:
            check_at_least_zero(f"one of {name}", value)
    found: list[Candidate] = []
    losses = list(product(ridges, powers))
    for spec, parts in bases:
        split = _split(parts, weights)
        priors = np.array([smoothness_prior(spec, power) for _, power in losses])
        ridge_of = np.array([ridge for ridge, _ in losses], float)
        pairs = list(product(energy, virial if "virial" in split.kinds else (1.0,)))
        name = f"losses of degree {spec.degree}, r_cut {spec.r_cut}"
        for pair in tqdm(pairs, desc=name, unit=" weights", delay=5, leave=False):
            scale = {"forces": 1.0} | dict(zip(("energy", "virial"), pair, strict=True))
            scales = np.array([scale[kind] for kind in split.kinds])
            squares = _squares(split.others, split.held, scales, ridge_of, priors)
            given = {key: w * scale[kind_of(key)] for key, w in split.weights.items()}
            errors = _errors(np.asarray(squares), split.counts)
            found += [
                Candidate(spec, given, float(ridge), float(power), *row)
                for (ridge, power), row in zip(losses, errors.tolist(), strict=True)
            ]
    if not found:
        raise ValueError("bases is empty: wanted at least one pair of a basis and its folds.")
    return Front(tuple(found))


class _Split(NamedTuple):
    """What every loss of one basis needs, as triangles [R | q] of K rows."""

    kinds: tuple[str, ...]
    weights: dict[Any, float]  # by kind, and by (kind, group) where a group has its own
    others: jax.Array  # (n_kinds, F, K, K + 1), weighted, of all folds but one
    held: tuple[jax.Array, np.ndarray]  # of that one (2, F, K, K + 1) and rho^2 (2, F): MEASURED
    counts: np.ndarray  # (2, F), how many energies and force components a fold has


_MEASURED = ("energy", "forces")


def _split(parts: Folds, weights: Mapping[Any, float] | None) -> _Split:
    """The folds' factors, put together in the two ways that they are used in."""
    parts = list(parts)
    keys = {key: factor for factors in parts for key, factor in factors.items()}
    kinds = tuple(kind for kind in KINDS_OF_FILES if any(kind_of(key) == kind for key in keys))
    counts = np.array([[_count(factors, kind) for factors in parts] for kind in _MEASURED])
    if np.any(np.count_nonzero(counts, axis=1) < 2):
        raise ValueError(
            f"the folds have {counts[0].tolist()} energies and {counts[1].tolist()} forces: wanted "
            "some of both in two folds at least, to be held out; label more structures."
        )
    given = dict.fromkeys(kinds, 1.0) | dict(weights or {})
    resolved = resolve_weights(keys, given)
    n = len(next(iter(keys.values())).target)

    def of_fold(factors: Mapping[tuple[str, str], Factor], kind: str, weighted: bool) -> Factor:
        mine = [
            weighed(factor, resolved[key] if weighted else 1.0)
            for key, factor in factors.items()
            if kind_of(key) == kind
        ]
        return reduce(merge, mine, empty(n)) if len(mine) != 1 else mine[0]

    held = [[of_fold(factors, kind, False) for factors in parts] for kind in _MEASURED]
    others = [
        _all_but_one(np.stack([_augmented(of_fold(factors, kind, True)) for factors in parts]))
        for kind in kinds
    ]
    triangles = np.stack([[_augmented(factor) for factor in of_kind] for of_kind in held])
    residuals = np.array([[float(factor.residual) for factor in of_kind] for of_kind in held])
    return _Split(kinds, given, jnp.stack(others), (jnp.asarray(triangles), residuals), counts)


def _count(factors: Mapping[tuple[str, str], Factor], kind: str) -> int:
    return sum(int(factor.n_rows) for key, factor in factors.items() if kind_of(key) == kind)


def _augmented(factor: Factor) -> np.ndarray:
    return np.column_stack([np.asarray(factor.triangular), np.asarray(factor.target)])


@jax.jit
def _all_but_one(triangles: jax.Array) -> jax.Array:
    """Of triangles (F, K, K + 1) the one of all rows but a fold's, for each fold."""
    n_folds, n = triangles.shape[:2]
    kept = 1.0 - jnp.eye(n_folds)
    return jax.lax.map(lambda keep: stacked_triangle(keep[:, None, None] * triangles)[:n], kept)


@jax.jit
def _squares(others, held, scales, ridges, priors) -> jax.Array:
    """Sums of squares of what each fold's energies and forces miss, (2, F, P), for P losses.

    others and held as in `_Split`, scales (n_kinds,), ridges (P,), priors (P, K).
    """
    n = others.shape[2]

    def of_fold(fold):
        weighted, (triangles, residuals) = fold
        system = stacked_triangle(scales[:, None, None] * weighted)[:n]
        # A column of zeros, such as the constant of an element that only the fold has: as `fit`
        # has it, its coefficient is zero.
        empty = jnp.sum(system[:, :n] ** 2, axis=0) == 0.0

        def of_prior(loss):
            ridge, gamma = loss
            diagonal = jnp.sqrt(ridge) * gamma
            diagonal = jnp.where(empty & (diagonal == 0.0), 1.0, diagonal)
            penalty = jnp.eye(n, n + 1) * diagonal[:, None]
            whole = stacked_triangle(jnp.stack([system, penalty]))[:n]
            coefficients = solve_triangular(whole[:, :n], whole[:, n])
            missed = triangles[:, :, :n] @ coefficients - triangles[:, :, n]
            return jnp.sum(missed**2, axis=1) + residuals

        return jax.lax.map(of_prior, (ridges, priors))

    by_fold = jnp.moveaxis(others, 0, 1), (jnp.moveaxis(held[0], 0, 1), held[1].T)
    return jnp.moveaxis(jax.lax.map(of_fold, by_fold), -1, 0)


def _errors(squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over folds of the RMSE and its standard error, of energies, then of forces, (P, 4), from
    sums (2, F, P) of numbers (2, F)."""
    found = []
    for sums, n in zip(squares, counts, strict=True):
        each = np.sqrt(sums[n > 0] / n[n > 0, None])
        found += [each.mean(axis=0), each.std(axis=0, ddof=1) / len(each) ** 0.5]
    errors = np.stack(found, axis=1)
    return np.where(np.isfinite(errors), errors, np.inf)
