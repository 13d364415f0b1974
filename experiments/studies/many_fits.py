"""For many linear potentials: relaxations in a few evaluations, elastic mismatches as rows."""

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.tree_util import Partial

from experiments.studies import defect_fits
from experiments.studies.defect_fits import only, reference_simulation
from lprjax.ace.potential import linear_potential
from lprjax.atoms.graphs import build_graph
from lprjax.crystals.elasticity import GPA_PER_EV_A3, acoustic_tensors
from lprjax.potentials.observables import observe


def stiffness(config: defect_fits.Config):
    """The reference's Hessian as a preconditioner of `relax`: near the fits' own, which nothing
    that knows the lattice alone is. Its dense factor, for cells of some hundred atoms."""
    return _stiffness(only(config, "material", "defect"), config.target)


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
    return Partial(_half_solves, jnp.asarray(np.linalg.cholesky(hessian)))


def _half_solves(lower, gradient):
    """H^-1 g with H = L L^T."""
    return cho_solve((lower, True), gradient.reshape(-1)).reshape(gradient.shape)


class Elastic(NamedTuple):
    """The acoustic tensor along <100>, <110>, <111>, GPa, is rows . c: what small displacements
    feel of elasticity. (Elastic constants also feel the stress, which virials alone pin.) NaN in
    diamond, which is no Bravais lattice."""

    rows: np.ndarray  # (27, K)
    reference: np.ndarray  # (27,)

    def mismatch(self, coefficients) -> np.ndarray:
        """Largest error, GPa, of coefficients (..., K)."""
        return np.abs(coefficients @ self.rows.T - self.reference).max(axis=-1)


def elastic_rows(config: defect_fits.Config) -> Elastic:
    return _elastic_rows(only(config, "material", "order", "degree", "r_cut"))


@lru_cache(maxsize=4)
def _elastic_rows(config) -> Elastic:
    cell, spec = config.crystal.primitive_cell, config.spec
    if cell.n_atoms > 1:
        return Elastic(np.full((27, spec.n_columns), np.nan), np.full(27, np.nan))
    each = [config.crystal.potential, *(linear_potential(spec, c) for c in np.eye(spec.n_columns))]
    found = [GPA_PER_EV_A3 * np.asarray(acoustic_tensors(p, cell)).ravel() for p in each]
    return Elastic(np.stack(found[1:], axis=1), found[0])
