"""Errors of a defect simulation, foretold at the reference's geometry and found by relaxing.

What of `defect_fits.assess` needs no split of the far field: a fraction of the time to compile.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.stats import linregress, spearmanr

from experiments.defect_fits import FLAGS, Config, reference_simulation, simulate, surrogate
from lprjax.bounds import force_residual
from lprjax.fit import Fit
from lprjax.response import hessian_solve

FAILED = tuple(flag for flag in FLAGS if flag != "rank_deficient")
"""A rank-deficient fit is still a potential, of least prior norm: drawn red, but counted."""


def predicted(config: Config, result: Fit) -> dict[str, Any]:
    """What the forces that a fit leaves at the reference's geometry foretell.

    eta: their negative norm, eV/Å; rmse: their RMSE, eV/Å; energy: e_E, signed, eV;
    geometry_predicted (Å), energy_predicted (eV): first order.
    """
    defect, displacement, *_ = reference_simulation(config)
    potential = surrogate(config, result)
    forces, energy = force_residual(config.crystal.potential, potential, defect, displacement)
    response = hessian_solve(potential, defect, displacement, forces)
    strain = float(defect.lattice.strain_norm(response.displacement))
    relaxation = -0.5 * float(jnp.vdot(forces, response.displacement))
    return {
        "eta": float(defect.lattice.negative_norm(forces)),
        "rmse": float(jnp.sqrt(jnp.mean(jnp.square(defect.on_atoms(forces))))),
        "energy": energy,
        "geometry_predicted": np.nan if response.indefinite else strain,
        "energy_predicted": np.nan if response.indefinite else energy + relaxation,
        "unstable": response.indefinite,
        "unpredicted": not response.converged,
    }


def simulated(config: Config, result: Fit) -> dict[str, Any]:
    """What relaxing the defect with the fit gives: errors (Å, and eV, signed) and failures."""
    found = simulate(config, result)
    return {
        "geometry_error": found["geometry_error"],
        "energy_error": found["energy_error"],
        "unconverged": not found["converged"],
        "left_basin": not found["farthest"] < 0.5 * config.crystal.nearest_neighbour,
    }


def relation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How well x foretells y: rank correlation; slope of log y against log x, with its standard
    error; scatter, the standard deviation of log10(y / x), that is about a line of slope 1."""
    if len(x) < 3:
        return {"n": len(x)} | dict.fromkeys(("spearman", "slope", "slope_error", "scatter"))
    line = linregress(np.log10(x), np.log10(y))
    return {
        "n": len(x),
        "spearman": float(spearmanr(x, y).statistic),
        "slope": float(line.slope),
        "slope_error": float(line.stderr),
        "scatter": float(np.std(np.log10(y / x), ddof=1)),
    }
