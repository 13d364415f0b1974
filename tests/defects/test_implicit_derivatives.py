"""Formation energies and relaxed geometries as functions of the coefficients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, rattled
from lprjax.defects.defect import relax_defect, vacancy
from lprjax.defects.formation import formation_energy
from lprjax.defects.implicit_derivatives import minimiser, relaxed_formation_energy
from lprjax.defects.response import hessian_solve
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe, total_energy
from lprjax.regression.assembly import compress_structures
from lprjax.regression.fitting import fit
from lprjax.regression.rows import design_rows, prediction_rows

SPEC = ACESpec("W", 2, 5, 4.6, 2.74)


class Fitted:
    """A vacancy in a small cell of tungsten, relaxed with a fit to the EAM."""

    def __init__(self):
        eam = zhou_eam("W")
        self.defect = vacancy(bcc("W", 3.165), 3)
        keys = jax.random.split(jax.random.key(0), 6)
        cells = [rattled(self.defect.structure, key, 0.08) for key in keys]
        samples = [
            (build_graph(cell, SPEC.r_cut), observe(eam, build_graph(cell, eam.r_cut)))
            for cell in cells
        ]
        self.factors = compress_structures(SPEC, samples)
        self.fit = self.refit(1.0)
        self.potential = linear_potential(SPEC, self.fit.coefficients)
        self.displacement = self.relaxed(self.potential).displacement

    def refit(self, weight):
        return fit(self.factors, {"energy": weight, "forces": 1.0}, ridge=1e-6)

    def relaxed(self, potential):
        # 1e-9 eV/Å: what is left of the forces is an error of the differences below.
        return relax_defect(potential, self.defect, force_tolerance=1e-9)

    def formation(self, potential):
        cell = self.defect.unit_cell
        bulk = total_energy(potential, build_graph(cell, SPEC.r_cut)) / cell.n_atoms
        return float(formation_energy(self.relaxed(potential).energy, self.defect, bulk))


@pytest.fixture(scope="module")
def fitted():
    found = Fitted()
    assert found.relaxed(found.potential).relaxed.converged
    return found


@pytest.fixture(scope="module")
def row(fitted):
    return prediction_rows(
        lambda p: relaxed_formation_energy(p, fitted.defect, fitted.displacement), fitted.potential
    )


def test_first_order_needs_no_relaxation(fitted, row):
    """Hellmann-Feynman: dE_f/dc is the energy row of the relaxed cell less N of the bulk's."""
    relaxed = build_graph(fitted.defect.displaced(fitted.displacement), SPEC.r_cut)
    cell = fitted.defect.unit_cell
    bulk = design_rows(SPEC, build_graph(cell, SPEC.r_cut), "energy").energy / cell.n_atoms
    energy = design_rows(SPEC, relaxed, "energy").energy
    expected = energy - fitted.defect.structure.n_atoms * bulk
    size = float(jnp.max(jnp.abs(energy)))  # what cancels
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-11 * size)


def test_value_is_the_relaxed_formation_energy(fitted):
    found = relaxed_formation_energy(fitted.potential, fitted.defect, fitted.displacement)
    assert float(found) == pytest.approx(fitted.formation(fitted.potential), abs=1e-9)


def test_it_may_be_jitted_with_the_potential_as_an_argument(fitted):
    plain = lambda p: relaxed_formation_energy(p, fitted.defect, fitted.displacement)  # noqa: E731
    found = jax.jit(plain)(fitted.potential)
    assert float(found) == pytest.approx(float(plain(fitted.potential)), abs=1e-9)


def test_relaxing_bends_the_formation_energy_down(fitted):
    """The energy is linear in the coefficients: all of its second derivative is -f . H^+ f, f the
    change of the forces, by a solve of its own; and relaxations at two steps agree."""
    change = fitted.refit(30.0).coefficients - fitted.fit.coefficients
    defect, u = fitted.defect, fitted.displacement

    def at(step):
        c = fitted.fit.coefficients + step * change
        return dataclasses.replace(fitted.potential, coefficients=c)

    found = jax.grad(jax.grad(lambda h: relaxed_formation_energy(at(h), defect, u)))(0.0)
    relaxed = build_graph(defect.displaced(u), SPEC.r_cut)
    n = defect.structure.n_atoms
    forces = observe(at(1.0), relaxed, ("forces",)).forces[:n]
    forces = forces - observe(fitted.potential, relaxed, ("forces",)).forces[:n]
    step = hessian_solve(fitted.potential, defect, u, defect.on_sites(forces)).displacement
    expected = -float(jnp.vdot(defect.on_sites(forces), step))
    assert expected < -1e-6 and float(found) == pytest.approx(expected, rel=1e-5)


def test_refits_with_other_coefficients_relax_to_the_derivatives(fitted, row):
    """Refits along a line of coefficients, c + h (c' - c) with c' the fit at another weight: each
    is relaxed anew. Central differences err by h^2; two steps are extrapolated to h^4."""
    change = fitted.refit(30.0).coefficients - fitted.fit.coefficients
    defect, u = fitted.defect, fitted.displacement

    def at(step):
        c = fitted.fit.coefficients + step * change
        return dataclasses.replace(fitted.potential, coefficients=c)

    def difference(quantity, h):
        plus, minus = (quantity(at(s * h)) for s in (1, -1))
        return (plus - minus) / (2 * h)

    def extrapolated(quantity, h):
        return (4 * difference(quantity, h / 2) - difference(quantity, h)) / 3

    found = float(row @ change)
    assert found == pytest.approx(extrapolated(fitted.formation, 0.2), rel=1e-4, abs=1e-8)
    assert abs(found) > 1e-4

    near = int(np.argmin(np.where(defect.lattice.present, defect.distances(), np.inf)))
    geometry = prediction_rows(lambda p: minimiser(p, defect, u)[near], fitted.potential)
    moved = extrapolated(lambda p: fitted.relaxed(p).displacement[near], 0.2)
    np.testing.assert_allclose(geometry @ change, moved, rtol=0, atol=1e-3 * np.abs(moved).max())
