"""Gradient descent on the weights of the loss, downhill in the error that theory predicts.

    J = ln ||D H^+ f|| + ln (E^2 + scale^2)^1/2

the geometry error and the formation-energy error E to first order (`predicted_error`) of the fit
with given weights, in a prediction cell one cube per side larger than the training cells. Adam
moves the logarithms of the weights of bulk energy, defect energy, virials and force constants and
of the ridge; that of the forces stays. The descent knows the training data and, of the reference in
the prediction cell, the relaxed geometry, the Hessian there and the formation energy; never a true
error. Those, at the steps marked and for defects that it has not seen, are computed afterwards in
a larger cell.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.panels.descent import caption, plot
from experiments.studies import defect_fits
from experiments.studies.defect_fits import TINY, mismatches, simulate, training_factors
from experiments.studies.predictions import error_forms
from lprjax.ace.spec import smoothness_prior
from lprjax.defects import DEFECTS, ErrorForms, PredictedError, predicted_error
from lprjax.regression.factors import Factor
from lprjax.regression.fitting import fit, solution

LARGER = 1  # cubes per side by which the prediction cell exceeds the training cells
STARTS = ("configured", "equal")
"""All weights as configured, or all that move at 1."""


@dataclass(frozen=True)
class Config(defect_fits.Config):
    target: int = 6  # cubic cells per side of the simulation
    order: int = 2  # order of the ACE basis
    degree: int = 10  # total degree of the ACE basis
    copies: int = 100  # rattled defect cells
    sizes: tuple[int, ...] = (3, 4)  # cubic cells per side of the training cells
    #: defects to try the fits on
    unseen: tuple[Literal[*DEFECTS], ...] = ("divacancy-1", "dumbbell-111")
    steps: int = 200  # of the descent
    rate: float = 0.1  # of Adam, in ln(weight)
    energy_scale: float = 1e-3  # eV; energy errors below it are not pursued
    looks: int = 7  # steps at which true errors are computed


@dataclass(frozen=True)
class Descent:
    """A point: one training size, one start."""

    config: Config
    size: int
    start: str


def points(config: Config) -> list[Descent]:
    bare = replace(config, sizes=())
    return [Descent(bare, m, begin) for m in config.sizes for begin in STARTS]


class Problem(NamedTuple):
    """All that the descent knows."""

    factors: tuple[Factor, ...]  # forces first
    prior: jax.Array  # (K,)
    weight_forces: float
    forms: ErrorForms
    energy_scale: float  # eV


def ordered(config: Config, m: int) -> dict[Hashable, Factor]:
    """The factors, that of the forces first."""
    factors = training_factors(config, m)
    return {"forces": factors["forces"], **factors}


def problem(config: Config, m: int) -> Problem:
    prior = jnp.asarray(smoothness_prior(config.spec, config.smoothness))
    forms, factors = error_forms(config, m + LARGER), tuple(ordered(config, m).values())
    return Problem(factors, prior, config.weight_forces, forms, config.energy_scale)


@jax.jit
def coefficients_at(problem: Problem, logs):
    """Of the fit; logs: (n_factors,), ln of all weights but the forces' and, last, of the ridge."""
    weights = jnp.concatenate([jnp.array([problem.weight_forces]), jnp.exp(logs[:-1])])
    return solution(problem.factors, weights, jnp.exp(logs[-1]), problem.prior)[0]


def objective(problem: Problem, logs) -> tuple[jax.Array, PredictedError]:
    """J and the predicted errors; differentiable in logs."""
    found = predicted_error(problem.forms, coefficients_at(problem, logs))
    energy = jnp.sqrt(found.energy**2 + problem.energy_scale**2)
    return jnp.log(found.geometry) + jnp.log(energy), found


class Path(NamedTuple):
    """Every step of a descent, the start included."""

    logs: jax.Array  # (steps + 1, n_factors)
    value: jax.Array  # (steps + 1,), J
    errors: PredictedError  # of arrays (steps + 1,)


@partial(jax.jit, static_argnums=2)
def descend(problem: Problem, logs, steps: int, rate) -> Path:
    """Adam from logs; what is not finite stays in the path, for all to see."""
    adam = optax.adam(rate)
    downhill = jax.value_and_grad(partial(objective, problem), has_aux=True)

    def step(state, _):
        logs, memory = state
        (value, errors), slope = downhill(logs)
        change, memory = adam.update(slope, memory)
        return (optax.apply_updates(logs, change), memory), Path(logs, value, errors)

    return jax.lax.scan(step, (logs, adam.init(logs)), length=steps + 1)[1]


def first_logs(config: Config, begin: str, names: Sequence[Hashable]) -> jax.Array:
    moving = [config.weights[name] if begin == "configured" else 1.0 for name in names[1:]]
    return jnp.asarray(np.log([*moving, config.ridge]))


def compute(point: Descent) -> dict[str, Any]:
    """One descent and, afterwards, the true errors along it, before and after it."""
    config, m = point.config, point.size
    factors = ordered(config, m)
    known = problem(config, m)
    begin = first_logs(config, point.start, list(factors))
    path = jax.tree.map(np.asarray, descend(known, begin, config.steps, config.rate))
    last = int(np.nanargmin(path.value))
    looks = np.unique(np.linspace(0, last, config.looks).round().astype(int))
    defects = [config.defect, *config.unseen]
    true = [true_errors(config, factors, path.logs[k], [config.defect]) for k in looks]
    ends = [true_errors(config, factors, path.logs[k], defects) for k in (0, last)]
    found = [mismatches(config, factors, coefficients_at(known, path.logs[k])) for k in (0, last)]
    return {
        "names": [label(name) for name in list(factors)[1:]] + ["ridge"],
        "logs": path.logs,
        "value": path.value,
        **{f"{name}_predicted": value for name, value in path.errors._asdict().items()},
        "last": last,
        "looks": looks,
        "L": config.radius(m),
        "n_functions": config.spec.n_columns,
        "prediction_converged": known.forms.converged,
        "defects": defects,
        **{f"{name}_along": np.array([t[name][0] for t in true]) for name in true[0]},
        **{f"{name}_ends": np.array([t[name] for t in ends]) for name in ends[0]},
        **{f"e_{name}": np.array([f[name] for f in found]) for name in found[0]},
    }


def true_errors(config: Config, factors: Mapping, logs, defects: Sequence[str]) -> dict:
    """Of relaxations in the large cell with one fit: geometry_error, Å, energy_error, eV, failed.

    Lists over the defects. failed: a rank-deficient fit, a relaxation that did not converge or
    that left the basin.
    """
    weights = dict(zip(list(factors)[1:], np.exp(logs[:-1]), strict=True))
    prior = smoothness_prior(config.spec, config.smoothness)
    weights = {"forces": config.weight_forces, **{key: float(w) for key, w in weights.items()}}
    result = fit(factors, weights, ridge=float(np.exp(logs[-1])), prior=prior)
    found = [simulate(replace(config, defect=name), result.coefficients) for name in defects]
    incomplete = result.rank < len(prior)
    return {
        "geometry_error": [f.geometry_error for f in found],
        "energy_error": [f.energy_error for f in found],
        "failed": [incomplete or f.unconverged or f.left_basin for f in found],
    }


def label(key: Hashable) -> str:
    names = {("energy", "defect"): "E", ("energy", "bulk"): "bulk", "virial": "V"}
    return names.get(key, "FC")


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: predicted and true errors before and after every descent."""
    return {
        "figure": "optimal_weights",
        "preset": preset,
        "material": config.crystal.name,
        "defect": config.defect,
        "target_cells": config.target,
        "energy_scale": config.energy_scale,
        "n_functions": records[0].arrays["n_functions"],
        "descents": [descent_numbers(record) for record in records],
    }


def descent_numbers(record: Record) -> dict[str, Any]:
    """Before and after, as pairs."""
    a = record.arrays
    ends = [0, int(a["last"])]
    return {
        "size": record.point.size,
        "start": record.point.start,
        "L": a["L"],
        "prediction_converged": a["prediction_converged"],
        "steps": ends[1],
        "weights": {str(name): np.exp(a["logs"][ends, k]) for k, name in enumerate(a["names"])},
        "geometry_predicted": a["geometry_predicted"][ends],
        "energy_predicted": a["energy_predicted"][ends],
        "eta_predicted": a["eta_predicted"][ends],
        **{name: a[name] for name in a if name.startswith("e_")},
        "true": {
            str(name): {
                "geometry_error": a["geometry_error_ends"][:, k],
                "energy_error": a["energy_error_ends"][:, k],
                "failed": a["failed_ends"][:, k],
            }
            for k, name in enumerate(a["defects"])
        },
    }


PRESETS = {
    "smoke": Config(**TINY, sizes=(2,), unseen=("divacancy-1",), steps=30, looks=3),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("optimal_weights", PRESETS, argv, __doc__)
    return Plan(run, points(run.config), compute, summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
