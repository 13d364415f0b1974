"""The library's predictions of a defect simulation, for a configuration of `defect_fits`.

First-order errors and their quadratic forms, the true errors beside them, and the weights of the
loss that theory recommends: each a few lines over `lprjax.defects`.
"""

import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import jax.numpy as jnp

from experiments.studies import defect_fits
from experiments.studies.defect_fits import (
    Config,
    only,
    reference_simulation,
    simulate,
    surrogate,
    training_factors,
    weighted_fit,
)
from lprjax import defects
from lprjax.defects import (
    ErrorForms,
    FirstOrder,
    WeightConstants,
    first_order_error,
    kantorovich,
    predicted_error,
    recommended_weights,
    weight_constants,
)
from lprjax.defects.enclosures import MARGIN, NOWHERE, enclosure_after_steps
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.defects.response import lipschitz_at, stability_at
from lprjax.regression import Fit

STABILITY_TOLERANCE = 1e-3  # of the residual; the error of the constant is about its square
LIPSCHITZ_TOLERANCE = 1e-2  # of the residual, relative


def predicted(config: Config, result: Fit) -> dict[str, Any]:
    """What the forces that a fit leaves at the reference's geometry predict.

    eta: their negative norm, eV/Å; rmse: their RMSE, eV/Å; energy: e_E, signed, eV;
    geometry_predicted (Å), energy_predicted (eV): first order, NaN where there is no response.
    """
    return _numbers(config, result, first_order(config, result))


def first_order(config: Config, result: Fit) -> FirstOrder:
    """The library's prediction of a fit's errors, by first order."""
    defect, displacement, *_ = reference_simulation(config)
    return first_order_error(
        config.crystal.potential, surrogate(config, result), defect, displacement
    )


def _numbers(config: Config, result: Fit, found: FirstOrder) -> dict[str, Any]:
    forces = reference_simulation(config).defect.on_atoms(found.forces)
    return {
        "eta": found.eta,
        "rmse": float(jnp.sqrt(jnp.mean(jnp.square(forces)))),
        "energy": found.energy_at_reference,
        "geometry_predicted": found.geometry,
        "energy_predicted": found.energy,
        "rank_deficient": result.rank < len(result.coefficients),
        "unstable": found.response.indefinite,
        "unpredicted": not found.response.converged,
    }


def predicted_with_stability(config: Config, result: Fit) -> dict[str, Any]:
    """`predicted`, with stability constant c (eV/Å^2) and h = M eta / c^2, and their flags.

    Above 1/2, `unproven`: no theorem bounds the error, and first order may be far off.
    """
    return _analysed(config, result)[0]


def predicted_and_enclosed(config: Config, result: Fit) -> dict[str, Any]:
    """`predicted_with_stability`, and where both errors lie after a step or a few from there.

    enclosure_geometry_low, enclosure_geometry (Å), enclosure_energy_low, enclosure_energy (eV): the
    ends; NaN where nothing encloses them.
    """
    found, first, at, constants = _analysed(config, result)
    between = NOWHERE
    if first.response.converged:
        x, e = first.response.displacement, first.energy_at_reference
        ubar = reference_simulation(config).displacement
        between = enclosure_after_steps(at, ubar, x, e, (constants[0], MARGIN * constants[1]))
    return found | {
        f"enclosure_{quantity}{end}": ends[k]
        for quantity, ends in (
            ("geometry", between.geometry_range),
            ("energy", between.energy_range),
        )
        for k, end in enumerate(("_low", ""))
    }


def _analysed(config: Config, result: Fit) -> tuple[dict[str, Any], FirstOrder, EnergyAt, Any]:
    """Numbers and flags; first order; the energy at the reference's geometry; c and M there."""
    defect, displacement, *_ = reference_simulation(config)
    first = first_order(config, result)
    found = _numbers(config, result, first)
    at = energy_at(surrogate(config, result), defect, displacement)
    stability = stability_at(at, STABILITY_TOLERANCE)
    h, m = math.nan, math.nan
    if first.geometry > 0:
        m = abs(lipschitz_at(at, first.response.displacement, LIPSCHITZ_TOLERANCE).constant)
        h = kantorovich(first.eta, stability.constant, m)
    found |= {
        "kantorovich": h,
        "unproven": h > 0.5,
        "stability": stability.constant,
        "unstable": found["unstable"] or not stability.constant > 0,
        "unpredicted": found["unpredicted"] or not stability.converged,
    }
    return found, first, at, (float(stability.constant), m)


def simulated(config: Config, result: Fit) -> dict[str, Any]:
    """What relaxing the defect with the fit gives: errors (Å, and eV, signed) and failures."""
    found = simulate(config, result.coefficients)._asdict()
    del found["displacement"]
    return found


def error_forms(config: Config, m: int) -> ErrorForms:
    """The forms of the configuration's defect and basis, in a cell of m cubes per side.

    `converged` includes the reference's relaxation. Raises ValueError for a material there is not,
    or a defect that its lattice does not have.
    """
    return _forms(only(config, "material", "defect", "order", "degree", "r_cut"), m)


@lru_cache(maxsize=8)
def _forms(config: Config, m: int) -> ErrorForms:
    defect, displacement, _, settled = reference_simulation(config, m)
    forms = defects.error_forms(config.spec, config.crystal.potential, defect, displacement)
    return forms._replace(converged=forms.converged and settled)


def constants(config: defect_fits.Config, m: int) -> WeightConstants:
    """Of the lattice and of the reference's defect in a training cell of m cubes per side.

    Raises ValueError for a crystal with more than one atom in its primitive cell.
    """
    defect, displacement, *_ = reference_simulation(config, m)
    return weight_constants(defect, displacement, config.radius(m), config.spec.r_cut)


def recommended(config: defect_fits.Config, m: int) -> dict[Hashable, float]:
    """Factor of `training_factors` -> weight over that of the forces, for cells of m cubes.

    The energy's follows from the fit with the configured weights. Raises as `constants`.
    """
    found = constants(config, m)
    fit = weighted_fit(config, training_factors(config, m))
    best = recommended_weights(
        found,
        defect_cells=config.copies,
        strained_cells=config.strained_cells,
        strained_volume=float(config.crystal.unit_cell.volume),
        strain=config.strain,
        first_fit=predicted_error(error_forms(config, m), fit.coefficients),
    )
    return {
        "virial": best.virial,
        "force_constants": best.force_constants,
        ("energy", "bulk"): 0.0,
        ("energy", "defect"): best.energy,
    }
