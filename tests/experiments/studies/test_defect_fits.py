"""Fits of a defect's surroundings: what depends on what, and relaxations against dense algebra."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import defect_fits
from experiments.studies.defect_fits import (
    Config,
    assess,
    bulk,
    defect_cells,
    reference_simulation,
    residual_norm,
    simulate,
    surrogate,
    training_factors,
    weighted_fit,
)
from experiments.systems.observations import ALL_FLAGS, OBSERVATION_SETS
from lprjax.atoms.graphs import build_graph, moved
from lprjax.defects.budget import FAILURES, Budget, Term
from lprjax.potentials.observables import observe, total_energy

TINY = Config(target=2, order=2, degree=4, copies=12, lattice_cells=2)


@pytest.fixture(scope="module")
def factors():
    return training_factors(TINY, 2)


@pytest.fixture(scope="module")
def result(factors):
    return weighted_fit(TINY, factors)


def test_rows_of_every_kind(factors):
    """15 atoms in 12 copies; 6 virials of 12 cells; one displaced atom among 16."""
    rows = {key: int(factor.n_rows) for key, factor in factors.items()}
    assert rows == {
        ("energy", "bulk"): 1,
        ("energy", "defect"): 12,
        "forces": 12 * 15 * 3,
        "virial": 12 * 6,
        "force_constants": 9 * 16,
    }


def test_factors_depend_on_the_data_alone(factors):
    """Weights, ridge and the simulated cell change no factor, a figure's own fields neither."""

    class Figure(Config):
        pass

    same = training_factors(
        Figure(**vars(replace(TINY, weight_virial=3.0, ridge=1.0, target=9))), 2
    )
    assert all(same[key] is factor for key, factor in factors.items())
    assert reference_simulation(replace(TINY, degree=9)) is reference_simulation(TINY, 2)


def test_weights_by_configuration_and_by_name(factors, result):
    """The same weights give the same fit; factors without a weight are left out."""
    named = weighted_fit(TINY, factors, weights=TINY.weights)
    np.testing.assert_array_equal(named.coefficients, result.coefficients)
    by_kind = weighted_fit(TINY, factors, OBSERVATION_SETS["EF"])
    explicit = {k: w for k, w in TINY.weights.items() if k == "forces" or k[0] == "energy"}
    by_weight = weighted_fit(TINY, factors, weights=explicit)
    assert set(by_kind.rms) == set(by_weight.rms) == set(explicit)
    np.testing.assert_array_equal(by_kind.coefficients, by_weight.coefficients)


def test_residuals_are_those_of_the_potential(factors, result):
    """The compressed factors say what both potentials say themselves: of forces, of energies less
    15 times that of the perfect crystal, and of the perfect crystal."""
    both = surrogate(TINY, result), TINY.crystal.potential
    cell = TINY.crystal.unit_cell
    ours, theirs = (float(total_energy(p, build_graph(cell, p.r_cut))) / 2 for p in both)
    assert float(bulk(TINY).row @ result.coefficients) == pytest.approx(ours, abs=1e-10)
    assert bulk(TINY).energy == pytest.approx(theirs, abs=1e-10)
    misses = {("energy", "defect"): [], "forces": []}
    for structure in defect_cells(TINY, 2):
        mine, wanted = (
            observe(p, build_graph(structure, p.r_cut), ("energy", "forces")) for p in both
        )
        misses["energy", "defect"].append(mine.energy - wanted.energy - 15 * (ours - theirs))
        misses["forces"].extend(np.ravel(mine.forces[:15] - wanted.forces[:15]))
    for key, direct in misses.items():
        found = residual_norm(factors[key], result.coefficients)
        assert found == pytest.approx(np.linalg.norm(direct), rel=1e-6), key


def test_force_constants_of_diamond_are_those_of_both_sublattices():
    """Two displaced atoms, each against the 8 of the cube."""
    config = replace(TINY, material="Si-SW", order=1, degree=3, lattice_cells=1)
    factor = defect_fits._bulk_factors(config)["force_constants"]
    assert int(factor.n_rows) == 2 * 9 * 8


def test_a_relaxation_is_newton_with_the_dense_hessian(factors, result):
    """By another route: Newton steps from the reference's geometry, in 3 x 15 coordinates."""
    defect, displacement, true, converged = reference_simulation(TINY)
    potential = surrogate(TINY, result)
    graph = build_graph(defect.displaced(displacement), potential.r_cut)

    @jax.jit
    def step(positions):
        def energy(x):
            return total_energy(potential, moved(graph, positions.at[:15].set(x.reshape(-1, 3))))

        x = positions[:15].ravel()
        move = jnp.linalg.pinv(jax.hessian(energy)(x), rtol=1e-8) @ jax.grad(energy)(x)
        return positions.at[:15].add(-move.reshape(-1, 3)), energy(x)

    positions = graph.positions
    for _ in range(4):
        positions, energy = step(positions)
    moves = defect.on_sites(positions[:15] - graph.positions[:15])
    found = simulate(TINY, result.coefficients)
    assert converged and not found.unconverged and not found.left_basin
    assert found.geometry_error == pytest.approx(float(defect.lattice.strain_norm(moves)), rel=1e-4)
    difference = defect.lattice.strain_norm(found.displacement - displacement)
    assert found.geometry_error == pytest.approx(float(difference), rel=1e-12)
    formation = float(energy) - 15 * float(bulk(TINY).row @ result.coefficients)
    assert found.energy_error == pytest.approx(formation - true, abs=1e-8)


def budget_saying(*failures):
    def made(reference, potential, defect, radius, *, displacement, max_evaluations):
        assert displacement.shape == (16, 3) and radius == pytest.approx(3.164849)
        numbers = {name: float(k) for k, name in enumerate(Budget._fields)}  # all different
        term = Term("core", **{name: 100.0 + k for k, name in enumerate(Term._fields[1:])})
        numbers |= {"terms": (term,), "advice": "", "failures": dict.fromkeys(failures, "why")}
        return Budget(**numbers)

    return made


@pytest.mark.parametrize("raised", [None, *FAILURES])
def test_every_failure_raises_its_flag(result, monkeypatch, raised):
    monkeypatch.setattr(defect_fits, "error_budget", budget_saying(*[raised] * bool(raised)))
    found = assess(TINY, result, 2)
    assert {flag: found[flag] for flag in ALL_FLAGS} == {flag: flag == raised for flag in ALL_FLAGS}
    place = Budget._fields.index
    for name, field in {
        "geometry_error": "geometry_true",
        "geometry_predicted": "geometry_first_order",
        "geometry_bound": "geometry_bound",
        "energy_error": "energy_true",
        "energy_predicted": "energy_first_order",
        "eta": "eta",
        "stability": "stability",
    }.items():
        assert found[name] == place(field), name
    assert found["norm_core"] == 99.0 + Term._fields.index("norm")


def test_a_rank_deficient_fit_is_flagged(factors, monkeypatch):
    monkeypatch.setattr(defect_fits, "error_budget", budget_saying())
    config = replace(TINY, ridge=0.0)
    few = weighted_fit(config, factors, weights={("energy", "bulk"): 1.0})
    assert few.rank < len(few.coefficients) and assess(config, few, 2)["rank_deficient"]


def test_names_are_checked_at_the_door():
    with pytest.raises(ValueError, match="material is 'Pb'"):
        training_factors(replace(TINY, material="Pb"), 2)
    with pytest.raises(ValueError, match="name is 'hole'.*vacancy"):
        training_factors(replace(TINY, defect="hole"), 2)
    with pytest.raises(ValueError, match="wanted a crystal whose bonds have no continuation"):
        reference_simulation(replace(TINY, defect="tetrahedral"))
