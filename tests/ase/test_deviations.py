"""Deviations are the dense formula's, and a calibration's where there is one."""

import numpy as np
import pytest

import lprjax as lp
from lprjax.ase.calculator import Calculator
from lprjax.ase.deviations import checked_factors, deviations_of
from lprjax.atoms.structures import Labels
from lprjax.models.files import SavedFit
from tests.helpers.cases import SPECS, small_cell, vacancy_cell

SPEC, CELL = SPECS["four factors"], small_cell()


@pytest.fixture(scope="module")
def fitted():
    """Few data and a ridge: H is well conditioned beside 1e-6."""
    structure = vacancy_cell()
    labels = Labels(-100.0, 0.1 * np.random.default_rng(0).normal(size=(structure.n_atoms, 3)))
    data = lp.compress_structures(SPEC, [(lp.build_graph(structure, SPEC.r_cut), labels)])
    return lp.fit(data, {"energy": 10.0, "forces": 1.0}, ridge=1e-3)


def force_rows():
    graph = lp.build_graph(CELL, SPEC.r_cut)
    return np.asarray(lp.design_rows(SPEC, graph, ("forces",)).forces)[:2]


def dense(factor, rows):
    """(g^T H^-1 g)^(1/2) of rows (..., K)."""
    hessian = np.asarray(factor).T @ np.asarray(factor)
    return np.sqrt(np.einsum("...k,kl,...l", rows, np.linalg.inv(hessian), rows))


def test_deviations_are_those_of_the_dense_formula(fitted):
    graph = lp.build_graph(CELL, SPEC.r_cut)
    sites, forces = np.asarray(lp.site_basis(SPEC, graph))[:2], force_rows()
    factors = {"energy": fitted.factor, "forces": fitted.factor}
    energies, sizes = deviations_of(SPEC, CELL, factors)
    np.testing.assert_allclose(energies, dense(fitted.factor, sites), rtol=1e-7)
    components = dense(fitted.factor, forces)
    np.testing.assert_allclose(sizes, np.sqrt(np.sum(components**2, axis=1)), rtol=1e-7)


def test_a_calibration_scales_what_it_is_of(fitted):
    """alpha multiplies deviations; s = 0 where residuals are as the fit says they are. To the
    rounding of a QR of a factor whose condition is that of a ridge of 1e-3, about 1e5."""
    rows = force_rows().reshape(-1, SPEC.n_columns)
    residuals = 3.0 * np.where(np.arange(len(rows)) % 2, 1, -1) * dense(fitted.factor, rows)
    calibrated = lp.calibrate(fitted.factor, rows, residuals)
    assert calibrated.s == 0.0 and calibrated.alpha == pytest.approx(3.0)
    atoms = lp.to_ase(CELL)
    plain = Calculator(fitted, spec=SPEC)
    scaled = Calculator(fitted, spec=SPEC, calibration={"forces": calibrated})
    for name, factor in (("energy_deviation", 1.0), ("force_deviation", 3.0)):
        ours, theirs = (c.get_property(name, atoms) for c in (scaled, plain))
        np.testing.assert_allclose(ours, factor * theirs, rtol=1e-6)


def test_what_the_data_leave_open_is_infinite_and_what_cannot_move_is_zero():
    """Without data, and of a lone atom, whose force depends on nothing."""
    nothing = np.zeros((SPEC.n_columns,) * 2)
    factors = {"energy": nothing, "forces": nothing}
    energies, sizes = deviations_of(SPEC, CELL, factors)
    assert np.isinf(energies).all() and np.isinf(sizes).all()
    alone = lp.make_structure([[0.0, 0.0, 0.0]], 20.0 * np.eye(3), "W", pbc=False)
    assert deviations_of(SPEC, alone, factors)[1] == 0.0


def test_what_is_no_factor_of_the_spec_is_refused(fitted):
    saved = SavedFit(fitted, SPEC, None, "")
    other = lp.regression.Calibration(1.0, 0.0, 0.0, np.ones(4), np.ones(4), np.eye(3), 0)
    with pytest.raises(ValueError, match="factor of forces has shape"):
        checked_factors(saved, True, {"forces": other})
    with pytest.raises(ValueError, match=r"calibration has \['virial'\]"):
        checked_factors(saved, True, {"virial": other})
    with pytest.raises(ValueError, match="a potential that has no factor"):
        checked_factors(None, False, {"forces": other})
