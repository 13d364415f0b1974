"""Rows of any prediction: the same as the basis gives, and the change that coefficients bring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.basis import site_basis
from lprjax.ace.potential import linear_potential
from lprjax.ace.rows import Rows
from lprjax.ace.spec import ACESpec, components
from lprjax.atoms.structures import (
    Labels,
    bcc,
    diamond,
    label_shapes,
    make_structure,
    rattled,
    supercell,
)
from lprjax.crystals.elasticity import elastic_constants
from lprjax.potentials import stillinger_weber
from lprjax.potentials.observables import KINDS, observe
from lprjax.regression import rows as rows_of_anything
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import BATCH, design_rows, prediction_rows, vanishing
from tests.helpers.cases import PAIR, SPECS, case_of, graph_of, vacancy_cell

SPEC = SPECS["two species"]
E0 = {"W": -8.9, "Mo": 4.4}


@pytest.fixture(scope="module")
def potential():
    c = jax.random.normal(jax.random.key(5), (SPEC.n_columns,))
    return linear_potential(SPEC, c, E0)


@pytest.fixture(scope="module")
def case():
    return case_of("two species", vacancy_cell)


def test_rows_of_site_energies_are_the_basis(potential, case):
    rows = prediction_rows(lambda p: p(case.graph), potential)
    np.testing.assert_allclose(rows, site_basis(SPEC, case.graph), rtol=1e-11, atol=1e-13)


def test_rows_of_a_linear_potential_are_those_of_its_basis(potential, case):
    """Two routes to every kind: a derivative in c of observables, and the chain rule in A."""
    found = design_rows(potential, case.graph, KINDS, atoms=PAIR)
    for kind, rows, expected in zip(KINDS, found, case.rows, strict=True):
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-12 * size, err_msg=kind)
    assert design_rows(potential, case.graph, "energy").forces is None


def test_forces_that_are_zero_by_symmetry_vanish(case):
    """In the perfect crystal all, and in the rattled cell beside it none: 1e-13 against 1."""
    perfect = make_structure(*_perfect(case.structure))
    graph = graph_of(perfect)
    rows = [design_rows(SPEC, g, KINDS, atoms=PAIR).forces for g in (case.graph, graph)]
    rows = np.concatenate([np.asarray(r)[: case.n].reshape(-1, SPEC.n_columns) for r in rows])
    assert rows[3 * case.n :].any(axis=1).mean() > 0.3  # zero to rounding, not zero
    np.testing.assert_array_equal(vanishing(rows), np.arange(len(rows)) >= 3 * case.n)
    units = np.geomspace(1e-9, 1e9, SPEC.n_columns)
    np.testing.assert_array_equal(vanishing(rows * units), vanishing(rows))
    np.testing.assert_array_equal(vanishing(1e-15 * rows), vanishing(rows))
    np.testing.assert_array_equal(vanishing(1e15 * rows), vanishing(rows))


def _perfect(structure):
    """One element on the sites of bcc, in a cell skewed by nothing, strained along the axes."""
    sites = supercell(bcc("W", 3.16), (2, 2, 2))
    stretch = np.diag([1.02, 0.99, 1.01])
    return sites.positions[: structure.n_atoms + 1] @ stretch, sites.cell @ stretch, "W"


@dataclasses.dataclass(frozen=True)
class Toy:
    coefficients: jax.Array


@pytest.mark.parametrize("n_numbers", [1, 2, BATCH + 3])
def test_forward_and_reverse_give_the_jacobian(n_numbers):
    """sin(a_i . c): d/dc = cos(a_i . c) a_i, for fewer and more numbers than coefficients."""
    a = np.random.default_rng(0).normal(size=(n_numbers, 3))
    toy = Toy(jnp.array([0.3, -0.2, 0.9]))
    rows = prediction_rows(lambda p: jnp.sin(a @ p.coefficients)[:, None], toy)
    expected = np.cos(a @ np.asarray(toy.coefficients))[:, None] * a
    assert rows.shape == (n_numbers, 1, 3)
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-14)
    assert prediction_rows(lambda p: p.coefficients[0] ** 2, toy).shape == (3,)


def test_a_fit_from_a_potential_is_the_step_to_the_fit(potential, case):
    """min |X (c0 + s) - y|: targets are what the potential does not predict yet, its own
    energies of isolated atoms included; the factor of H does not depend on where one starts."""
    rng, kinds = np.random.default_rng(1), ("energy", "forces", "virial")
    cells = [case.structure, rattled(case.structure, jax.random.key(3), 0.1)]
    samples = [
        (graph_of(cell), Labels(*(rng.normal(size=s) for s in ((), (case.n, 3), (3, 3)))))
        for cell in cells
    ]
    weights, ridge = dict.fromkeys(kinds, 1.0), 1e-3
    whole = fit(
        compress_structures(SPEC, samples, kinds, reference_energies=E0), weights, ridge=ridge
    )
    origin = dataclasses.replace(potential, coefficients=jnp.zeros(SPEC.n_columns))
    same = fit(compress_structures(origin, samples, kinds), weights, ridge=ridge)
    # Coefficients agree to rounding times the condition of R (1e3 here with the ridge).
    np.testing.assert_allclose(same.coefficients, whole.coefficients, rtol=1e-8, atol=1e-9)
    step = fit(compress_structures(potential, samples, kinds), weights)
    prior_free = fit(compress_structures(SPEC, samples, kinds, reference_energies=E0), weights)
    for graph, _ in samples:  # rank-deficient: the predictions are what both agree on
        there = prior_free.coefficients
        here = potential.coefficients + step.coefficients
        ours, theirs = (observe(linear_potential(SPEC, c, E0), graph).forces for c in (here, there))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_elastic_constants_change_with_the_coefficients_as_their_rows_say():
    """Of silicon, whose atoms settle (a nonlinear function of c): central differences of two steps
    err by h^2, so their extrapolation to h = 0 by h^4."""
    reference = stillinger_weber()
    cell = diamond("Si", 5.43, primitive=True)
    spec = ACESpec("Si", 2, 3, 4.0, 2.35)
    rng = np.random.default_rng(0)
    potential = linear_potential(spec, rng.normal(size=spec.n_columns))
    assert elastic_constants(reference, cell).relaxed.shape == (6, 6)

    def constants(p):
        return elastic_constants(p, cell).relaxed

    rows = prediction_rows(constants, potential)
    direction = rng.normal(size=spec.n_columns)

    def difference(h):
        ends = (
            dataclasses.replace(potential, coefficients=potential.coefficients + s * h * direction)
            for s in (1, -1)
        )
        plus, minus = (constants(end) for end in ends)
        return (plus - minus) / (2 * h)

    coarse, fine = difference(2e-3), difference(1e-3)
    exact = rows @ direction
    size = float(jnp.max(jnp.abs(exact)))
    ratio = jnp.linalg.norm(coarse - exact) / jnp.linalg.norm(fine - exact)
    assert 3.5 < float(ratio) < 4.5
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, rtol=0, atol=1e-6 * size)


def test_targets_that_the_data_say_nothing_of(case):
    """Trained on W alone: the sites of Mo cannot be held at all, LPR = 0 exactly, those of W can;
    an atom without neighbours is what the constant is, or, without one, cannot be moved."""
    pure = make_structure(case.structure.positions, case.structure.cell, "W", True)
    graph = graph_of(pure)
    rows = design_rows(SPEC, graph, ("energy", "forces"))
    stack = np.concatenate([rows.energy[None], np.reshape(rows.forces, (-1, SPEC.n_columns))])
    factor = fit({"all": compress(stack, np.zeros(len(stack)))}, {"all": 1.0}).factor
    lpr = np.asarray(local_prediction_rigidity(factor, site_basis(SPEC, case.graph)))[: case.n]
    species = np.asarray(case.structure.species)
    assert np.all(lpr[species == 42] == 0.0)
    assert float(prediction_rigidity(factor, rows.energy)) >= 1.0 - 1e-9  # it is among the data
    alone = make_structure(np.zeros((1, 3)), 9 * np.eye(3), "W", True)
    (row, *_) = site_basis(SPEC, graph_of(alone))
    np.testing.assert_array_equal(row, components(SPEC)["constant"] & components(SPEC)["centre W"])
    nothing = np.where(components(SPEC)["constant"], 0.0, row)
    assert float(local_prediction_rigidity(factor, nothing)) == np.inf


def test_the_door(case, potential):
    with pytest.raises(TypeError, match="coefficients"):
        prediction_rows(lambda p: p(case.graph), stillinger_weber())
    with pytest.raises(TypeError, match="coefficients"):
        design_rows(stillinger_weber(), case.graph)
    with pytest.raises(ValueError, match="unknown species"):
        design_rows(
            linear_potential(SPECS["four factors"], jnp.zeros(SPECS["four factors"].n_columns)),
            case.graph,
        )
    with pytest.raises(ValueError, match="has its own"):
        compress_structures(potential, [], reference_energies=E0)


def test_every_label_has_a_shape_and_a_row():
    """One list of kinds: a new label without either fails here, not in a user's fit."""
    assert KINDS == Labels._fields == Rows._fields == tuple(label_shapes(3))


def test_kinds_without_a_kernel_are_differentiated(monkeypatch):
    """As a new observable would be: with the kernel of the virial taken away, nothing changes."""
    case = case_of("two species", vacancy_cell)
    whole = design_rows(case.spec, case.graph, ("energy", "virial"))
    monkeypatch.setattr(rows_of_anything, "ACE_KINDS", ("energy",))
    found = design_rows(case.spec, case.graph, ("energy", "virial"))
    np.testing.assert_allclose(found.virial, whole.virial, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.energy, whole.energy)
