"""Error of a defect simulation over the weights of the loss, and where theory puts the weights.

Three planes: (W_V/W_F, W_FC/W_F); (W_E/W_F, W_bulk/W_F); and the first again without the bulk
energy. The other weights are as configured. Every point is a full fit, from the compressed
factors, and a relaxation with it in a larger cell, from the reference's geometry. Beside them what
first-order theory predicts from the reference in that larger cell (`predicted_error`); marked, the
weights that theory recommends from the training cells (`recommended_weights`).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.panels.weight_maps import caption, plot
from experiments.studies import defect_fits
from experiments.studies.defect_fits import TINY, residual_norm, simulate, training_factors
from experiments.studies.many_fits import elastic_rows, stiffness
from experiments.studies.predictions import constants, error_forms, recommended
from lprjax.ace.spec import smoothness_prior
from lprjax.defects import PredictedError, predicted_error
from lprjax.regression.factors import RCOND, equilibrate
from lprjax.regression.fitting import solution

E, BULK = ("energy", "defect"), ("energy", "bulk")


class Plane(NamedTuple):
    """Two weights over that of the forces, with the decades they run through."""

    x: Hashable
    y: Hashable
    x_decades: tuple[float, float]
    y_decades: tuple[float, float]
    left_out: tuple[Hashable, ...]  # weights that are zero in this plane
    base: str  # of MARKS: the configured weights, seen in this plane
    recommended: str  # of MARKS


V_FC = ("virial", "force_constants", (-2.0, 4.0), (-3.0, 3.0))
PLANES = (
    Plane(*V_FC, left_out=(), base="configured", recommended="V, FC"),
    Plane(E, BULK, (-2.0, 5.0), (-5.0, 5.0), (), base="configured", recommended="E, bulk"),
    Plane(*V_FC, left_out=(BULK,), base="bulk", recommended="V, FC, bulk"),
)
MARKS = {  # name: which weights are as recommended, the others as configured
    "configured": (),
    "V, FC": ("virial", "force_constants"),
    "E, bulk": (E, BULK),
    "bulk": (BULK,),
    "V, FC, bulk": ("virial", "force_constants", BULK),
    "all": (E, BULK, "virial", "force_constants"),
}
FAILURES = ("rank_deficient", "unconverged", "left_basin")


@dataclass(frozen=True)
class Config(defect_fits.Config):
    target: int = 6  # cubic cells per side of the simulation
    order: int = 2  # order of the ACE basis
    degree: int = 10  # total degree of the ACE basis
    copies: int = 100  # rattled defect cells
    size: int = 3  # cubic cells per side of the training cells
    grid: int = 40  # weights along each axis

    def axis(self, decades: tuple[float, float]) -> np.ndarray:
        """Weights over that of the forces."""
        return np.logspace(*decades, self.grid)


@dataclass(frozen=True)
class Strip:
    """A point: one W_y of a plane, all W_x."""

    config: Config
    plane: int
    row: int


@dataclass(frozen=True)
class Marked:
    """A point: the fits of MARKS."""

    config: Config


def points(config: Config) -> list:
    rows = [Strip(config, plane, k) for plane in range(len(PLANES)) for k in range(config.grid)]
    return [Marked(config), *rows]


def compute(point: Marked | Strip) -> dict[str, Any]:
    """See `errors`; of the marks with what they rest on."""
    config = point.config
    if isinstance(point, Marked):
        best = recommended(config, config.size)
        found = errors(config, [{k: best[k] for k in keys} for keys in MARKS.values()])
        theory = constants(config, config.size)._asdict()
        return found | {
            "L": config.radius(config.size),
            "n_functions": config.spec.n_columns,
            "prediction_converged": error_forms(config, config.target).converged,
            "factors": [label(key) for key in training_factors(config, config.size)],
            **{f"theory_{name}": value for name, value in theory.items()},
        }
    plane = PLANES[point.plane]
    others = {plane.y: config.axis(plane.y_decades)[point.row]} | dict.fromkeys(plane.left_out, 0.0)
    return errors(config, [{plane.x: w, **others} for w in config.axis(plane.x_decades)])


def errors(config: Config, changes: Sequence[Mapping[Hashable, float]]) -> dict[str, Any]:
    """Of fits with the configured weights but for changes (over W_F): arrays over the fits.

    ratios: (fits, factors), over W_F, in the order of `training_factors`; geometry_error and
    geometry_predicted, Å; energy_error and energy_predicted, eV, signed; eta, eV/Å; forces, virial,
    elastic and force_constants as in `mismatches`; FAILURES.
    """
    factors = training_factors(config, config.size)
    configured = {key: w / config.weight_forces for key, w in config.weights.items()}
    ratios = np.array([[{**configured, **c}[key] for key in factors] for c in changes])
    prior = jnp.asarray(smoothness_prior(config.spec, config.smoothness))
    weights = config.weight_forces * ratios
    fits = [_fit(tuple(factors.values()), w, config.ridge, prior) for w in weights]
    every, margin = map(np.stack, zip(*fits, strict=True))
    forms, elastic = error_forms(config, config.target), elastic_rows(config)
    forecast = PredictedError(
        *map(np.stack, zip(*(_forecast(forms, c) for c in every), strict=True))
    )
    norms = {
        kind: np.array([residual_norm(factors[kind], c) for c in every])
        for kind in ("forces", "virial", "force_constants")
    }
    return {
        "ratios": ratios,
        "geometry_predicted": forecast.geometry,
        "energy_predicted": forecast.energy,
        "eta": forecast.eta,
        "forces": norms["forces"] / np.sqrt(factors["forces"].n_rows),
        "virial": norms["virial"] / np.sqrt(factors["virial"].n_rows),
        "elastic": elastic.mismatch(every),
        "force_constants": norms["force_constants"],
        "rank_deficient": ~(margin > RCOND),
        **true_errors(config, every),
    }


_forecast = jax.jit(predicted_error)


@jax.jit
def _fit(factors, weights, ridge, prior):
    """The coefficients, and how far the fit is from rank deficiency."""
    coefficients, triangle = solution(factors, weights, ridge, prior)
    singular = jnp.linalg.svd(equilibrate(triangle)[0], compute_uv=False)
    return coefficients, singular[-1] / singular[0]


def true_errors(config: Config, coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Of the relaxations with every fit (fits, K), from the reference's geometry."""
    found = [simulate(config, c, preconditioner=stiffness(config)) for c in coefficients]
    names = ("geometry_error", "energy_error", "unconverged", "left_basin")
    return {name: np.array([getattr(f, name) for f in found]) for name in names}


def gathered(config: Config, records: Sequence[Record]) -> tuple[dict, list[dict]]:
    """Arrays over MARKS; and for each plane, (grid, grid), W_y along the rows."""
    marks, *strips = (record.arrays for record in records)
    planes = [strips[k * config.grid : (k + 1) * config.grid] for k in range(len(PLANES))]
    return marks, [{name: np.stack([s[name] for s in p]) for name in p[0]} for p in planes]


def failed(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Fits whose numbers are not to be read."""
    lost = np.any([arrays[name] for name in FAILURES], axis=0)
    return lost | ~np.isfinite(arrays["geometry_error"] + arrays["energy_error"])


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: the best, recommended and configured weights of each plane; failures."""
    marks, planes = gathered(config, records)
    rows = [name for name, value in marks.items() if value.shape[:1] == (len(MARKS),)]
    theory = [name for name in marks if name.startswith("theory_")]
    lost = failed(marks)
    return {
        "figure": "loss_weights",
        "preset": preset,
        "material": config.crystal.name,
        "defect": config.defect,
        "training_cells": config.size,
        "target_cells": config.target,
        **{name: marks[name] for name in ("L", "n_functions", "prediction_converged", *theory)},
        "factors": marks["factors"],
        "marks": {
            name: {key: marks[key][k] for key in rows} | {"failed": lost[k]}
            for k, name in enumerate(MARKS)
        },
        "planes": [
            plane_numbers(config, plane, arrays, marks)
            for plane, arrays in zip(PLANES, planes, strict=True)
        ],
    }


def label(key: Hashable) -> str:
    return {E: "E", BULK: "bulk", "virial": "V", "force_constants": "FC"}.get(key, "F")


def plane_numbers(config: Config, plane: Plane, arrays: dict, marks: dict) -> dict[str, Any]:
    """Best of the plane, the recommended and the configured point over it, predicted over true.

    The energy error is signed and passes zero: its best point says little, the share of the plane
    that is better than the recommended one says more.
    """
    good = ~failed(arrays)
    order = list(MARKS)
    numbers: dict[str, Any] = {
        "x": label(plane.x),
        "y": label(plane.y),
        "left_out": [label(key) for key in plane.left_out],
        "fits": good.size,
        "base": plane.base,
        "recommended": plane.recommended,
        "failures": {name: int(arrays[name].sum()) for name in FAILURES},
    }
    for quantity in ("geometry", "energy"):
        true, forecast = (
            np.where(good, np.abs(arrays[f"{quantity}_{of}"]), np.nan)
            for of in ("error", "predicted")
        )
        best, chosen = (np.unravel_index(np.nanargmin(v), true.shape) for v in (true, forecast))
        base, here = (
            float(np.abs(marks[f"{quantity}_error"][order.index(name)]))
            for name in (plane.base, plane.recommended)
        )
        numbers[quantity] = {
            "best": true[best],
            "best_at": _ratios_at(config, plane, best),
            "worst": np.nanmax(true),
            "median": np.nanmedian(true),
            "recommended_over_best": here / true[best],
            "configured_over_best": base / true[best],
            "share_better_than_recommended": np.sum(true < here) / np.sum(good),
            "share_better_than_configured": np.sum(true < base) / np.sum(good),
            "best_by_prediction_over_best": true[chosen] / true[best],
            "best_by_prediction_at": _ratios_at(config, plane, chosen),
            "predicted_over_true": np.nanpercentile(forecast / true, [0, 5, 50, 95, 100]),
        }
    return numbers


def _ratios_at(config, plane, where) -> list[float]:
    """(W_x / W_F, W_y / W_F) of a point of the grid."""
    return [config.axis(plane.x_decades)[where[1]], config.axis(plane.y_decades)[where[0]]]


PRESETS = {
    "smoke": Config(**TINY, size=2, grid=3),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("loss_weights", PRESETS, argv, __doc__)

    def drawn(summary: dict[str, Any], records: list[Record]) -> Figure:
        _, planes = gathered(run.config, records)
        axes = [[run.config.axis(p.x_decades), run.config.axis(p.y_decades)] for p in PLANES]
        return plot(summary, axes, planes, [failed(arrays) for arrays in planes])

    return Plan(run, points(run.config), compute, summarise, drawn, caption)


main = script(plan)


if __name__ == "__main__":
    main()
