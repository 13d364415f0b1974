"""Errors of a defect simulation, foretold at the reference's geometry and found by relaxing.

What of `defect_fits.assess` needs no split of the far field: a fraction of the time to compile.
"""

from typing import Any

import jax.numpy as jnp

from experiments.studies.defect_fits import Config, reference_simulation, simulate, surrogate
from lprjax.defects.bounds import force_residual
from lprjax.defects.response import hessian_solve, stability_constant
from lprjax.regression.fitting import Fit

STABILITY_TOLERANCE = 1e-3  # of the residual; the error of the constant is about its square


def predicted(config: Config, result: Fit) -> dict[str, Any]:
    """What the forces that a fit leaves at the reference's geometry foretell.

    eta: their negative norm, eV/Å; rmse: their RMSE, eV/Å; energy: e_E, signed, eV;
    geometry_predicted (Å), energy_predicted (eV): first order, NaN where there is no response.
    """
    defect, displacement, *_ = reference_simulation(config)
    potential = surrogate(config, result)
    forces, energy = force_residual(config.crystal.potential, potential, defect, displacement)
    response = hessian_solve(potential, defect, displacement, forces)
    relaxation = -0.5 * float(jnp.vdot(forces, response.displacement))
    return {
        "eta": float(defect.lattice.negative_norm(forces)),
        "rmse": float(jnp.sqrt(jnp.mean(jnp.square(defect.on_atoms(forces))))),
        "energy": energy,
        "geometry_predicted": float(defect.lattice.strain_norm(response.displacement)),
        "energy_predicted": energy + relaxation,
        "rank_deficient": result.rank < len(result.coefficients),
        "unstable": response.indefinite,
        "unpredicted": not response.converged,
    }


def predicted_with_stability(config: Config, result: Fit) -> dict[str, Any]:
    """`predicted`, with the stability constant c of the fit there (eV/Å^2) and its flags."""
    defect, displacement, *_ = reference_simulation(config)
    found, potential = predicted(config, result), surrogate(config, result)
    firmness = stability_constant(potential, defect, displacement, tolerance=STABILITY_TOLERANCE)
    return found | {
        "stability": firmness.constant,
        "unstable": found["unstable"] or not firmness.constant > 0,
        "unpredicted": found["unpredicted"] or not firmness.converged,
    }


def simulated(config: Config, result: Fit) -> dict[str, Any]:
    """What relaxing the defect with the fit gives: errors (Å, and eV, signed) and failures."""
    found = simulate(config, result.coefficients)._asdict()
    del found["displacement"]
    return found
