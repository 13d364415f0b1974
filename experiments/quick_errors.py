"""Of many linear potentials: true errors of the defect simulation, and elastic mismatches, fast."""

import math
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments import defect_fits
from experiments.defect_fits import MAX_EVALUATIONS, bulk, reference_simulation
from lprjax.ace import linear_potential
from lprjax.defects import formation_energy
from lprjax.lattice import GPA_PER_EV_A3, acoustic_tensors
from lprjax.neighbours import build_graph
from lprjax.observables import observe
from lprjax.relax import relax


def relaxed_errors(config: defect_fits.Config, coefficients) -> tuple[float, float, bool, float]:
    """As `defect_fits.simulate`, in a few evaluations: geometry error (Å), energy error (eV),
    converged, farthest (Å). NaN and not converged for coefficients that are not finite."""
    if not np.isfinite(coefficients).all():
        return math.nan, math.nan, False, math.nan
    defect, displacement, true, _ = reference_simulation(config)
    relaxed = relax(
        linear_potential(config.spec, coefficients),
        defect.displaced(displacement),
        preconditioner=stiffness(config),
        max_evaluations=MAX_EVALUATIONS,
    )
    moved = relaxed.positions - defect.displaced(displacement).positions
    moved = moved - jnp.mean(moved, axis=0)
    geometry = float(defect.lattice.strain_norm(defect.on_sites(moved)))
    per_atom = float(bulk(config).row @ coefficients)
    energy = formation_energy(relaxed.energy, defect.structure.n_atoms, per_atom)
    farthest = float(jnp.max(jnp.linalg.norm(moved, axis=1)))
    return geometry, energy - true, relaxed.converged, farthest


def stiffness(config: defect_fits.Config):
    """The inverse of the reference's Hessian, for `relax`: near the fits' own, which nothing that
    knows the lattice alone is. Dense: a matrix for cells of some hundred atoms."""
    return _stiffness(
        defect_fits.Config(material=config.material, defect=config.defect), config.target
    )


@lru_cache(maxsize=2)
def _stiffness(config, m):
    potential = config.crystal.potential
    defect, displacement, *_ = reference_simulation(config, m)
    graph, n = (
        build_graph(defect.displaced(displacement), potential.r_cut),
        defect.structure.n_atoms,
    )
    blocks = observe(potential, graph, ("force_constants",), atoms=range(n)).force_constants
    shifts = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)  # translations, of which it is made definite
    hessian = np.asarray(blocks)[:, :, :n].reshape(3 * n, 3 * n) + shifts @ shifts.T
    return Partial(_matrix_product, jnp.asarray(np.linalg.inv(hessian)))


def _matrix_product(matrix, gradient):
    return (matrix @ gradient.reshape(-1)).reshape(gradient.shape)


class Elastic(NamedTuple):
    """The acoustic tensor along <100>, <110>, <111>, GPa, is c . rows."""

    rows: np.ndarray  # (K, 27)
    reference: np.ndarray  # (27,)


def elastic_rows(config: defect_fits.Config) -> Elastic:
    names = ("material", "order", "degree", "r_cut")
    return _elastic_rows(defect_fits.Config(**{name: getattr(config, name) for name in names}))


@lru_cache(maxsize=4)
def _elastic_rows(config) -> Elastic:
    cell, spec = config.crystal.primitive_cell, config.spec
    potentials = (linear_potential(spec, unit) for unit in np.eye(spec.n_columns))
    rows = [acoustic_tensors(potential, cell).ravel() for potential in potentials]
    reference = acoustic_tensors(config.crystal.potential, cell).ravel()
    return Elastic(GPA_PER_EV_A3 * np.stack(rows), GPA_PER_EV_A3 * reference)
