"""Enclosures contain the truth, close upon it, and do so where the plain bound does not apply."""

import math

import numpy as np
import pytest

from lprjax.atoms.structures import bcc, fcc
from lprjax.crystals.elasticity import equilibrium
from lprjax.defects.bounds import geometry_bound
from lprjax.defects.catalogue import dumbbell
from lprjax.defects.defect import geometry_error, relax_defect, vacancy
from lprjax.defects.enclosures import MARGIN, NOWHERE, STEPS, enclosure_after_steps
from lprjax.defects.first_order import first_order_at
from lprjax.defects.hessian import energy_at
from lprjax.defects.response import lipschitz_at, stability_at
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe
from tests.helpers.potentials import Softened

TIGHT = 1e-9  # eV/Å


def both(reference, surrogate, defect, start=None):
    """(enclosure, plain bound, true errors of geometry and of the relaxed energy)."""
    ubar = np.asarray(relax_defect(reference, defect, displacement=start,
                                   force_tolerance=TIGHT).displacement)  # fmt: skip
    there = relax_defect(surrogate, defect, displacement=ubar, force_tolerance=TIGHT)
    at = energy_at(surrogate, defect, ubar)
    first = first_order_at(at, at.moves.on_sites(at.forces()), 0.0)
    c, x = float(stability_at(at).constant), first.response.displacement
    m = abs(lipschitz_at(at, x, 1e-3).constant)
    found = enclosure_after_steps(at, ubar, x, 0.0, (c, MARGIN * m))
    energy = there.energy - float(observe(surrogate, at.graph).energy)
    true = float(geometry_error(defect, there.displacement, ubar)), energy
    return found, geometry_bound(first.eta, c, MARGIN * m), true


@pytest.fixture(scope="module")
def vacancies():
    tungsten, defect = zhou_eam("W"), vacancy(bcc("W", 3.164849), 4)
    return {size: both(tungsten, Softened(tungsten, size), defect) for size in (0.02, 0.2)}


def test_the_truth_is_inside_and_the_plain_bound_is_wider(vacancies):
    for found, plain, (geometry, energy) in vacancies.values():
        low, high = found.geometry_range
        assert low <= geometry <= high < 1.02 * geometry and not plain < high
        low, high = found.energy_range
        assert low - 1e-9 <= energy <= high + 1e-9
        assert not found.guaranteed and "estimate" in found.why_not


def test_its_width_is_of_second_order(vacancies):
    """A hundredth for a tenth of the perturbation, of which the error itself is a tenth."""
    small, large = (vacancies[size][0] for size in (0.02, 0.2))
    assert small.steps == large.steps == 1
    assert 50 < large.radius / small.radius < 200
    assert large.gain / small.gain > 1e3  # the square of the forces left: 10^4 of an exact solve


def test_where_the_plain_bound_does_not_apply():
    """A dumbbell in copper, whose softest mode no residual is much along: h is far above 1/2."""
    copper = zhou_eam("Cu")
    cell = equilibrium(copper, fcc("Cu", 3.615)).structure
    defect = dumbbell(cell, 3, (1, 0, 0))
    found, plain, (geometry, energy) = both(copper, Softened(copper, 0.02), defect)
    assert math.isnan(plain) and 1 <= found.steps <= STEPS
    low, high = found.geometry_range
    assert low <= geometry <= high < 1.1 * low
    assert found.energy_range[0] - 1e-9 <= energy <= found.energy_range[1] + 1e-9


def test_it_contains_the_truth_wherever_the_step_ends(vacancies):
    """x need not solve anything: half a step, and one too many, widen the enclosure."""
    tungsten, defect = zhou_eam("W"), vacancy(bcc("W", 3.164849), 4)
    surrogate = Softened(tungsten, 0.2)
    ubar = np.asarray(relax_defect(tungsten, defect, force_tolerance=TIGHT).displacement)
    at = energy_at(surrogate, defect, ubar)
    x = np.asarray(first_order_at(at, at.moves.on_sites(at.forces()), 0.0).response.displacement)
    c = float(stability_at(at).constant)
    m = MARGIN * abs(lipschitz_at(at, x, 1e-3).constant)
    found, _, (geometry, energy) = vacancies[0.2]
    for share in (0.98, 1.03):
        other = enclosure_after_steps(at, ubar, share * x, 0.0, (c, m))
        assert other.steps == 1 or other.radius <= 0.05 * other.geometry
        assert other.geometry_range[0] <= geometry <= other.geometry_range[1]
        assert other.energy_range[0] - 1e-9 <= energy <= other.energy_range[1] + 1e-9
        assert other.steps > 1 or other.radius > found.radius


def test_nothing_encloses_where_there_is_no_step_or_no_stability():
    tungsten, defect = zhou_eam("W"), vacancy(bcc("W", 3.164849), 3)
    at = energy_at(tungsten, defect, defect.start)
    nowhere = enclosure_after_steps(
        at, defect.start, np.full_like(defect.start, np.nan), 0.0, (0.3, 1.0)
    )
    assert nowhere == NOWHERE or np.isnan(nowhere.radius)
    assert all(map(math.isnan, (*nowhere.geometry_range, *nowhere.energy_range)))
    # a surrogate that pushes the crystal apart has no stability anywhere near
    at = energy_at(Softened(tungsten, 40.0), defect, defect.start)
    step = 1e-3 * np.asarray(at.moves.on_sites(at.forces()))
    found = enclosure_after_steps(at, defect.start, step, 0.0, (-1.0, 1.0))
    assert not found.stability > 0 and math.isnan(found.radius) and found.steps == 1


def test_certified_constants_prove_it():
    """Both potentials are EAM, and the cell has few moves: the enclosure is a theorem, wider than
    the estimate and not by much, as what M bounds is of second order."""
    surrogate, reference = zhou_eam("W", r_cut=5.2), zhou_eam("W", r_cut=5.4)
    defect = vacancy(bcc("W", 3.164849), 3)
    ubar = np.asarray(relax_defect(reference, defect, force_tolerance=TIGHT).displacement)
    there = relax_defect(surrogate, defect, displacement=ubar, force_tolerance=TIGHT)
    true = float(geometry_error(defect, there.displacement, ubar))
    at = energy_at(surrogate, defect, ubar)
    first = first_order_at(at, at.moves.on_sites(at.forces()), 0.0)
    given = at, ubar, first.response.displacement, 0.0, (0.28, 0.6)
    found, plain = enclosure_after_steps(*given, certify=True), enclosure_after_steps(*given)
    assert found.guaranteed and found.why_not == "" and not plain.guaranteed
    assert found.radius >= 0.9 * plain.radius and found.steps == plain.steps
    low, high = found.geometry_range
    assert low <= true <= high < 1.2 * true


def test_ranges_by_hand():
    found = NOWHERE._replace(geometry=1.0, radius=0.25, energy=-0.5, gain=0.125)
    assert found.geometry_range == (0.75, 1.25) and found.energy_range == (-0.625, -0.5)
    assert found._replace(radius=2.0).geometry_range == (0.0, 3.0)  # a norm is not negative
