"""The chosen loss is the best there is, by refits; and small weights are no way round it."""

from math import exp, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from lprjax.regression.left_out import left_out_errors, structure_factors
from lprjax.regression.loss_choice import choose_ridge, choose_weights, left_out_loss
from tests.helpers.rows_of_structures import drawn, errors_of_refits

K = 12
GAMMA = np.logspace(0, 1, K)
SAMPLES = drawn([{"energy": 1, "forces": 4}] * 30, K)
PARTS = structure_factors(SAMPLES)
START = {"energy": 1.0, "forces": 1.0}


def loss_of_refits(weights, ridge, prior=None):
    """Energies pooled over groups, forces too; a geometric mean of the two."""
    errors = errors_of_refits(SAMPLES, weights, ridge, prior)
    squares = {kind: [errors[kind, group] ** 2 for group in "ab"] for kind in START}
    return np.mean([0.5 * np.log(np.mean(both)) for both in squares.values()])


def loss(weights, ridge, prior=None):
    array = np.array([weights[kind] for kind, _ in PARTS.keys])
    return float(left_out_loss(PARTS, array, ridge, prior))


@pytest.mark.parametrize("prior", [None, GAMMA])
def test_the_loss_is_that_of_refits(prior):
    for weights, ridge in ((START, 0.1), ({"energy": 7.0, "forces": 0.3}, 1e-4)):
        wanted = loss_of_refits(weights, ridge, prior)
        assert loss(weights, ridge, prior) == pytest.approx(wanted, abs=1e-8)


def test_the_ridge_is_the_best_there_is():
    """Against Brent's method on refits, within the flatness of a minimum: an error of 1e-6 in the
    slope of J; and nowhere between the limits is it lower."""
    found = choose_ridge(PARTS, START, prior=GAMMA)
    assert found.at_edge == () and abs(found.slopes["ridge"]) < 1e-5
    about = log(found.ridge) + np.array([-2.0, 0.0, 2.0])
    best = minimize_scalar(lambda x: loss_of_refits(START, exp(x), GAMMA), about, tol=1e-8)
    assert found.loss == pytest.approx(best.fun, abs=1e-8)
    assert log(found.ridge) == pytest.approx(best.x, abs=1e-2)
    assert found.loss <= min(loss(START, ridge, GAMMA) for ridge in np.logspace(-8, 4, 25))
    assert found.weights == START
    for key, error in errors_of_refits(SAMPLES, START, found.ridge, GAMMA).items():
        assert found.errors[key] == pytest.approx(error, rel=1e-8)
    done = found.fit(PARTS)
    assert (done.ridge, dict(done.weights)) == (
        found.ridge,
        {key: 1.0 for key in PARTS.keys},
    )


@pytest.mark.parametrize("start", [1e-2, 1.0, 1e3])
def test_the_weights_are_the_best_there_are(start):
    """Against Brent's method on refits, from wherever it begins; forces keep theirs."""
    found = choose_weights(PARTS, {"energy": start, "forces": 1.0}, ridge=1e-3)
    about = log(found.weights["energy"]) + np.array([-1.0, 0.0, 1.0])
    best = minimize_scalar(lambda x: loss_of_refits({"energy": exp(x), "forces": 1.0}, 1e-3), about)
    assert found.loss == pytest.approx(best.fun, abs=1e-8)
    assert log(found.weights["energy"]) == pytest.approx(best.x, abs=1e-2)
    assert found.weights["forces"] == 1.0 and found.ridge == 1e-3 and found.at_edge == ()
    before = errors_of_refits(SAMPLES, {"energy": start, "forces": 1.0}, 1e-3)
    assert found.before == pytest.approx(before, rel=1e-8)


def test_weights_of_groups_and_the_ridge_together():
    """No other near by is better, and J is flat there."""
    names = {("energy", "a"): 1.0, ("energy", "b"): 1.0, "forces": 1.0}
    found = choose_weights(PARTS, names, ridge=1e-3, prior=GAMMA, with_ridge=True)
    assert max(map(abs, found.slopes.values())) < 1e-5 and found.at_edge == ()
    assert set(found.slopes) == {("energy", "a"), ("energy", "b"), "ridge"}
    alone = choose_ridge(PARTS, START, prior=GAMMA)
    assert found.loss <= alone.loss + 1e-9
    rng = np.random.default_rng(0)
    for _ in range(5):
        factors = np.exp(0.3 * rng.normal(size=3))
        weights = dict(zip(names, found.weights.values(), strict=True))
        weights[("energy", "a")] *= factors[0]
        weights[("energy", "b")] *= factors[1]
        errors = left_out_errors(PARTS, weights, ridge=found.ridge * factors[2], prior=GAMMA)
        squares = [np.mean([errors[kind, group] ** 2 for group in "ab"]) for kind in START]
        assert np.mean(0.5 * np.log(squares)) > found.loss - 1e-9


def test_no_weights_are_small_enough_to_make_it_small():
    """All times s and the ridge times s^2 are the same; all to zero at a fixed ridge lead to the
    size of the labels; one to zero keeps that kind's errors in it."""
    one = loss({"energy": 2.0, "forces": 0.5}, 1e-2, GAMMA)
    for s in (1e-4, 1e3):
        scaled = loss({"energy": 2.0 * s, "forces": 0.5 * s}, 1e-2 * s**2, GAMMA)
        assert scaled == pytest.approx(one, abs=1e-9)
    sizes = {
        kind: np.concatenate([y for p in SAMPLES for key, (_, y) in p.items() if key[0] == kind])
        for kind in START
    }
    labels = np.mean([0.5 * np.log(np.mean(y**2)) for y in sizes.values()])
    nothing = loss({"energy": 1e-9, "forces": 1e-9}, 1.0, GAMMA)
    assert nothing == pytest.approx(labels, abs=1e-9)
    assert nothing > choose_weights(PARTS, START, ridge=1.0, prior=GAMMA).loss + 0.3
    forces_alone = {"energy": 0.0, "forces": 1.0}
    wanted = loss_of_refits(forces_alone, 1e-3)
    assert loss(forces_alone, 1e-3) == pytest.approx(wanted, abs=1e-8)


def test_the_unit_of_a_kind_is_no_matter():
    """Energies in meV, their weight in 1/meV: J moves by a constant, the choice stays."""
    unit = 1e3
    other = structure_factors(
        [
            {
                key: (unit * x, unit * y) if key[0] == "energy" else (x, y)
                for key, (x, y) in p.items()
            }
            for p in SAMPLES
        ]
    )
    one = choose_weights(PARTS, START, ridge=1e-3)
    two = choose_weights(other, {"energy": 1 / unit, "forces": 1.0}, ridge=1e-3)
    assert two.loss - one.loss == pytest.approx(0.5 * log(unit), abs=1e-9)
    assert unit * two.weights["energy"] == pytest.approx(one.weights["energy"], rel=1e-4)


def test_shares_say_what_counts():
    """All for forces: no weight of energies makes them better. A key's own share is apart."""
    weights = np.ones(len(PARTS.keys))
    errors = left_out_errors(PARTS, START, ridge=0.1)
    forces = [errors["forces", group] ** 2 for group in "ab"]
    found = left_out_loss(PARTS, weights, 0.1, shares={"forces": 2.0, "energy": 0.0})
    assert float(found) == pytest.approx(0.5 * log(np.mean(forces)), abs=1e-10)
    shares = {("forces", "a"): 1.0, "forces": 3.0}
    found = left_out_loss(PARTS, weights, 0.1, shares=shares)
    wanted = 0.25 * 0.5 * log(forces[0]) + 0.75 * 0.5 * log(forces[1])
    assert float(found) == pytest.approx(wanted, abs=1e-10)
    only = choose_weights(PARTS, START, ridge=1e-3, shares={"forces": 1.0})
    both = choose_weights(PARTS, START, ridge=1e-3)
    pooled = [np.mean([f.errors["forces", g] ** 2 for g in "ab"]) for f in (only, both)]
    assert pooled[0] <= pooled[1] * (1 + 1e-9)


def test_it_is_differentiated_inside_jit():
    """Twice, too: a Newton step at the minimum goes nowhere."""
    found = choose_ridge(PARTS, START, prior=GAMMA)

    def of(x):
        return left_out_loss(PARTS, jnp.ones(len(PARTS.keys)), jnp.exp(x), GAMMA)

    x = jnp.log(found.ridge)
    slope, curvature = jax.jit(jax.grad(of))(x), jax.jit(jax.jacfwd(jax.grad(of)))(x)
    h = 1e-3
    wanted = (of(x + h) - 2 * of(x) + of(x - h)) / h**2
    assert curvature == pytest.approx(float(wanted), rel=1e-3) and curvature > 0
    assert abs(slope / curvature) < 1e-2


def test_an_edge_is_named():
    found = choose_ridge(PARTS, START, ridges=(10.0, 1e3))
    assert found.at_edge == ("ridge",) and "at an edge of its range: ridge" in str(found)
    assert found.ridge == pytest.approx(10.0) and found.slopes["ridge"] > 0
    near = choose_weights(PARTS, {"energy": 1e2, "forces": 1.0}, ridge=1e-3, within=2.0)
    assert near.at_edge == ("energy",)
    assert near.weights["energy"] == pytest.approx(50.0)


def test_it_prints_as_a_table():
    found = choose_ridge(PARTS, START)
    assert "energy a" in str(found) and f"ridge {found.ridge:.3g}" in str(found)
    assert "<table>" in found._repr_html_()


def alone():
    samples = [{key: (x.copy(), y) for key, (x, y) in p.items()} for p in SAMPLES]
    for b, parts in enumerate(samples):
        for x, _ in parts.values():
            x[:, 3] *= b == 7
    return structure_factors(samples)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="infinite with a ridge of 0"):
        choose_weights(alone(), START)
    with pytest.raises(ValueError, match="shares are"):
        choose_ridge(PARTS, START, shares={"virial": 1.0})
    with pytest.raises(ValueError, match="shares are"):
        left_out_loss(PARTS, np.ones(4), 0.1, shares={"energy": 0.0})
    with pytest.raises(ValueError, match="ridges are"):
        choose_ridge(PARTS, START, ridges=(1.0, 0.1))
    with pytest.raises(ValueError, match="prior is zero"):
        choose_ridge(PARTS, START, prior=np.zeros(K))
    with pytest.raises(ValueError, match="ridge is 0"):
        choose_weights(PARTS, START, with_ridge=True)
    with pytest.raises(ValueError, match="fixed is 'virial'"):
        choose_weights(PARTS, START, fixed="virial")
    with pytest.raises(ValueError, match="weights to choose are"):
        choose_weights(PARTS, {"energy": 0.0, "forces": 1.0}, ridge=0.1)
    with pytest.raises(ValueError, match="weights to choose are"):
        choose_weights(PARTS, START, within=1.0)
    zero = structure_factors(
        [
            {"energy": p["energy", "ab"[b % 2]], "forces": (np.ones((3, K)), np.zeros(3))}
            for b, p in enumerate(SAMPLES)
        ]
    )
    with pytest.raises(ValueError, match="labels of a kind are all zero"):
        choose_ridge(zero, START)
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda w: choose_ridge(PARTS, {"energy": w, "forces": 1.0}).loss)(1.0)
