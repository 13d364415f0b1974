"""Left-out errors of any loss are those of refits, and their slopes those of differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.regression import left_out
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.influences import influence
from lprjax.regression.left_out import left_out_errors, left_out_squares, structure_factors
from tests.helpers.rows_of_structures import (
    EVERYTHING,
    drawn,
    errors_of_refits,
    refitted,
    squares_of_refits,
    weight_of,
)

SPEC = ACESpec(("W",), 2, 4, 5.0, 2.74)
K = SPEC.n_columns
MANY = {"energy": 1, "forces": 3 * K, "virial": 6}  # more rows than columns, compressed
SAMPLES = drawn([EVERYTHING, MANY, {"energy": 1}, EVERYTHING, {"forces": 6}] + [EVERYTHING] * 15, K)
PARTS = structure_factors(SAMPLES)
WEIGHTS = {"energy": 3.0, ("forces", "a"): 0.7, ("forces", "b"): 1.9, "virial": 0.0}
LOSSES = {
    "ridge": (WEIGHTS, {"ridge": 0.05}),
    "prior": (WEIGHTS, {"ridge": 1e-3, "prior": smoothness_prior(SPEC, 2.0)}),
    "nothing": (WEIGHTS, {"ridge": 0.0}),
    "forces alone": ({"energy": 0.0, "forces": 2.0, "virial": 0.0}, {"ridge": 1e-4}),
    "virials": ({"energy": 30.0, "forces": 0.1, "virial": 5.0}, {"ridge": 1e-2}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_errors_are_those_of_refits(name):
    """To 1e-8, from one pass for all losses; and of every structure by itself."""
    weights, loss = LOSSES[name]
    found, wanted = (
        left_out_errors(PARTS, weights, **loss),
        errors_of_refits(SAMPLES, weights, **loss),
    )
    assert set(found) == set(wanted)
    for key, error in found.items():
        assert error == pytest.approx(wanted[key], rel=1e-8)
    array = np.array([weight_of(key, weights) for key in PARTS.keys])
    squares = np.asarray(left_out_squares(PARTS, array, loss["ridge"], loss.get("prior")))
    refits = squares_of_refits(SAMPLES, weights, **loss)
    for row, number in zip(squares, PARTS.order, strict=True):
        each = [refits[number].get(key, 0.0) for key in PARTS.keys]
        np.testing.assert_allclose(row, each, rtol=1e-7)


def test_they_are_what_influence_says_of_the_fit_to_the_same_factors():
    weights, loss = LOSSES["prior"]
    done = fit(PARTS.by_key, weights, **loss)
    np.testing.assert_allclose(done.coefficients, refitted(SAMPLES, weights, **loss), atol=1e-9)
    found = influence(done, SAMPLES).cross_validated
    for key, error in left_out_errors(PARTS, weights, **loss).items():
        assert error == pytest.approx(found[key], rel=1e-9)


def test_factors_are_those_of_all_rows():
    """Of the compressed rows, to rounding, and with their number before."""
    for key, factor in PARTS.by_key.items():
        x, y = (
            np.concatenate(part)
            for part in zip(*[parts[key] for parts in SAMPLES if key in parts], strict=True)
        )
        wanted = compress(x, y)
        assert factor.n_rows == wanted.n_rows
        gram = [f.triangular.T @ f.triangular for f in (factor, wanted)]
        np.testing.assert_allclose(*gram, atol=1e-12 * np.max(gram[1]))
        sizes = [float(f.target @ f.target + f.residual) for f in (factor, wanted)]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-12)


def total(logs, gamma=None):
    weights, ridge = jnp.exp(logs[:-1]), jnp.exp(logs[-1])
    return jnp.log(jnp.sum(left_out_squares(PARTS, weights, ridge, gamma)))


def test_slopes_are_those_of_differences():
    """Central ones, in the logarithms of weights and ridge and in the prior, at two steps: their
    error falls as the square. Forward and reverse mode agree to rounding."""
    logs = np.log([3.0, 0.7, 1.0, 2.0, 1.5, 0.5, 0.01])[-len(PARTS.keys) - 1 :]
    gamma = np.array(smoothness_prior(SPEC, 2.0))
    slope = jax.jit(jax.grad(total, (0, 1)))
    found, of_gamma = slope(logs, gamma)
    forward = jax.jit(jax.jacfwd(total))(logs, gamma)
    np.testing.assert_allclose(forward, found, atol=1e-10)
    value = jax.jit(total)
    directions = np.random.default_rng(0).normal(size=(3, len(logs)))
    for one in [*np.eye(len(logs)), *directions]:
        errors = [
            abs(
                (value(logs + h * one, gamma) - value(logs - h * one, gamma)) / (2 * h)
                - one @ found
            )
            for h in (2e-3, 1e-3)
        ]
        assert errors[1] < 1e-5 and errors[1] < 0.3 * errors[0] + 1e-10
    one = gamma * np.random.default_rng(1).normal(size=K)
    errors = [
        abs(
            (value(logs, gamma + h * one) - value(logs, gamma - h * one)) / (2 * h) - one @ of_gamma
        )
        for h in (2e-3, 1e-3)
    ]
    assert errors[1] < 1e-5 and errors[1] < 0.3 * errors[0] + 1e-10


def test_batches_and_order_change_nothing(monkeypatch):
    """One at a time, backwards and by number; the columns of errors are found by key."""
    weights, loss = LOSSES["ridge"]
    monkeypatch.setattr(left_out, "_NUMBERS", {"cpu": 1, "accelerator": 1})
    other = structure_factors(list(enumerate(SAMPLES))[::-1])
    jax.clear_caches()
    wanted, found = (left_out_errors(parts, weights, **loss) for parts in (PARTS, other))
    for key, error in wanted.items():
        assert found[key] == pytest.approx(error, rel=1e-10)


def test_shapes_are_few():
    """Structures of one padded length go together, whatever their keys."""
    assert len(PARTS.rows) <= 4 and sum(map(len, PARTS.rows)) == len(SAMPLES)
    assert sorted(PARTS.order) == list(range(len(SAMPLES)))
    assert all(x.shape[1] < 3 * (K + 1) for x in PARTS.rows)


def test_a_structure_that_is_alone_has_infinite_errors():
    """Only its own, and only without a ridge; the mean of a key that it has rows of with them."""
    alone = [{key: (x.copy(), y) for key, (x, y) in parts.items()} for parts in SAMPLES]
    for b, parts in enumerate(alone):
        for x, _ in parts.values():
            x[:, 3] *= b == 7
    parts = structure_factors(alone)
    array = np.array([weight_of(key, WEIGHTS) for key in parts.keys])
    squares = np.asarray(left_out_squares(parts, array, 0.0))
    infinite = np.isinf(squares).any(axis=1)
    np.testing.assert_array_equal(parts.order[infinite], [7])
    found = left_out_errors(parts, WEIGHTS)
    assert [key for key, error in found.items() if np.isinf(error)] == list(SAMPLES[7])
    assert np.isfinite(list(left_out_errors(parts, WEIGHTS, ridge=0.05).values())).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="samples is empty"):
        structure_factors([])
    with pytest.raises(ValueError, match="structure 3: is there twice"):
        structure_factors([(3, SAMPLES[0]), (3, SAMPLES[1])])
    with pytest.raises(TypeError, match="structure 0: .*wanted a mapping"):
        structure_factors([SAMPLES])
    x, y = SAMPLES[0]["energy", "a"]
    for wrong in ((x[:, 1:], y), (x, y[None]), (np.nan * x, y)):
        with pytest.raises(ValueError, match="structure 1: rows"):
            structure_factors([SAMPLES[0], {"energy": wrong}])
    with pytest.raises(TypeError, match="structure 0: .*float32"):
        structure_factors([{"energy": (x.astype(np.float32), y)}])
    with pytest.raises(ValueError, match="structure 0: has no rows"):
        structure_factors([{"energy": (x[:0], y[:0])}])
    with pytest.raises(ValueError, match="weights lack"):
        left_out_errors(PARTS, {"energy": 1.0})
    with pytest.raises(ValueError, match="ridge"):
        left_out_errors(PARTS, WEIGHTS, ridge=-1.0)
    with pytest.raises(ValueError, match="prior has shape"):
        left_out_errors(PARTS, WEIGHTS, prior=np.ones(2))
