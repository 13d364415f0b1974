"""Predicted errors against the response to forces, one by one, and against true relaxations."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import predictions
from experiments.studies.defect_fits import Config, bulk, reference_simulation
from experiments.studies.predictions import error_forms
from lprjax.ace.potential import linear_potential
from lprjax.atoms.graphs import build_graph
from lprjax.defects.defect import geometry_error, relax_defect
from lprjax.defects.formation import formation_energy
from lprjax.defects.quadratic_forms import predicted_error
from lprjax.defects.response import hessian_solve
from lprjax.regression.rows import design_rows

CONFIG = Config(order=2, degree=4)
SIZE = 3


@pytest.fixture(scope="module")
def forms():
    return error_forms(CONFIG, SIZE)


@pytest.fixture(scope="module")
def rows():
    """Of the forces at ubar, (53, 3, K)."""
    defect, displacement, *_ = reference_simulation(CONFIG, SIZE)
    graph = build_graph(defect.displaced(displacement), CONFIG.spec.r_cut)
    return np.asarray(design_rows(CONFIG.spec, graph, ("forces",)).forces)[: 2 * SIZE**3 - 1]


def coefficients(seed: int, size: float, forms):
    """Random ones, with that predicted geometry error (the reference's own forces are nothing)."""
    c = jax.random.normal(jax.random.key(seed), forms.energy_row.shape)
    return size / predicted_error(forms, c).geometry * c


def response(c, rows):
    defect, displacement, *_ = reference_simulation(CONFIG, SIZE)
    forces = defect.on_sites(jnp.asarray(rows @ np.asarray(c)))
    return forces, hessian_solve(CONFIG.crystal.potential, defect, displacement, forces)


def test_forms_are_the_norms_of_the_response(forms, rows):
    """A solve with H for the whole f, not one per basis function; both to 1e-10 in their residual.

    What forces the reference's relaxation left, 1e-6 of the 0.3 eV/Å here, is all they differ by.
    """
    defect = reference_simulation(CONFIG, SIZE).defect
    c = coefficients(0, 0.3, forms)
    forces, found = response(c, rows)
    assert forms.converged and found.converged
    expected = predicted_error(forms, c)
    moves = found.displacement
    assert expected.geometry == pytest.approx(float(defect.lattice.strain_norm(moves)), rel=1e-4)
    assert expected.eta == pytest.approx(float(defect.lattice.negative_norm(forces)), rel=1e-4)
    assert expected.work == pytest.approx(float(jnp.vdot(forces, moves)), rel=1e-4)


def test_cancelling_coefficients_cost_no_accuracy(forms, rows):
    """Coefficients 1e6 times larger along a direction that has hardly any forces: all that is lost
    is rounding, 1e-16 * 1e6. Solves with the columns of X, each to 1e-10, would lose 1e-4."""
    flat = rows.reshape(-1, rows.shape[-1])
    c = np.asarray(coefficients(1, 0.3, forms))
    values, modes = np.linalg.svd(flat)[1:]
    assert values[-1] < 1e-10 * values[0]  # by symmetry: few forces are free at a vacancy
    huge = c + 1e6 * np.linalg.norm(c) * modes[-1]
    moves = response(huge, rows)[1].displacement
    wanted = float(reference_simulation(CONFIG, SIZE).defect.lattice.strain_norm(moves))
    assert float(predicted_error(forms, huge).geometry) == pytest.approx(wanted, rel=2e-5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum:
    """The reference and a little of a linear potential."""

    reference: Any = dataclasses.field(metadata={"static": True})
    linear: Any

    r_cut = property(lambda self: max(self.reference.r_cut, self.linear.r_cut))

    def __call__(self, graph):
        return self.reference(graph) + self.linear(graph)


def relaxed_errors(c):
    """True errors of reference + linear potential, geometry (Å) and formation energy (eV)."""
    defect, displacement, energy, _ = reference_simulation(CONFIG, SIZE)
    potential = Sum(CONFIG.crystal.potential, linear_potential(CONFIG.spec, c))
    found = relax_defect(potential, defect, displacement=displacement, force_tolerance=1e-8)
    assert found.relaxed.converged
    per_atom = CONFIG.crystal.equilibrium.energy_per_atom + float(bulk(CONFIG).row @ c)
    there = formation_energy(found.energy, defect, per_atom)
    return float(geometry_error(defect, found.displacement, displacement)), there - energy


def test_predictions_are_right_to_first_order(forms):
    """Halving the perturbation halves the relative error of the geometry; the energy's error is of
    third order, where its own second order is f . H^+ f / 2."""
    c = coefficients(2, 0.04, forms)
    off, missed = [], []
    for scale in (1.0, 0.5):
        expected, (geometry, energy) = predicted_error(forms, scale * c), relaxed_errors(scale * c)
        off.append(abs(geometry / float(expected.geometry) - 1))
        missed.append(abs(energy - float(expected.energy + forms.energy)) / float(expected.work))
    assert off[0] < 0.2 and off[1] < 0.65 * off[0], off
    assert missed[0] < 0.2 and missed[1] < 0.65 * missed[0], missed


def test_predictions_are_differentiable(forms):
    """Central differences at two steps: their error falls fourfold, down to rounding."""
    c, v = coefficients(3, 0.1, forms), coefficients(4, 0.1, forms)
    for name in ("geometry", "energy", "eta"):
        quantity = lambda c, name=name: getattr(predicted_error(forms, c), name)  # noqa: E731
        slope = float(jnp.vdot(jax.grad(quantity)(c), v))
        off = [
            abs((float(quantity(c + h * v)) - float(quantity(c - h * v))) / (2 * h) - slope)
            for h in (0.1, 0.05)
        ]
        assert off[0] < 0.02 * abs(slope) + 1e-9, name
        assert off[1] < 0.3 * off[0] + 1e-9, name
    many = jax.vmap(lambda c: predicted_error(forms, c))(jnp.stack([c, v]))
    assert many.geometry == pytest.approx([0.1, 0.1], rel=1e-6)


def test_an_unrelaxed_reference_is_flagged(monkeypatch):
    def lost(config, m):
        return reference_simulation(config, m)._replace(converged=False)

    monkeypatch.setattr(predictions, "reference_simulation", lost)
    assert not predictions._forms.__wrapped__(CONFIG, SIZE).converged
