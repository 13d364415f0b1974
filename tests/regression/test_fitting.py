"""A fit from factors is dense weighted least squares on all rows, and differentiable besides."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.regression.factors import compress, empty
from lprjax.regression.fitting import Fit, _solved, fit, resolve_weights, solution

K = 7
SIZES = {"energy": 5, ("forces", "bulk"): 40, ("forces", "core"): 31, "virial": 12}
WEIGHTS = {"energy": 30.0, "forces": 1.0, ("forces", "core"): 2.5, "virial": 0.3}
RESOLVED = {"energy": 30.0, ("forces", "bulk"): 1.0, ("forces", "core"): 2.5, "virial": 0.3}
PRIOR = np.linspace(0.5, 3.0, K)


def make_data(condition, seed=0):
    """Rows with the given condition number over all kinds, targets with noise of 1e-3."""
    rng = np.random.default_rng(seed)
    mixing, _ = np.linalg.qr(rng.normal(size=(K, K)))
    spread = np.geomspace(1.0, 1.0 / condition, K)
    data = {}
    for key, size in SIZES.items():
        rows = rng.normal(size=(size, K)) * spread @ mixing
        data[key] = rows, rows @ np.ones(K) + 1e-3 * rng.normal(size=size)
    return data


def deficient_data():
    """A column that depends on two others, and one that is zero: rank K - 2."""
    data = make_data(10.0)
    for rows, _ in data.values():
        rows[:, 4] = rows[:, 1] - 2.0 * rows[:, 2]
        rows[:, 6] = 0.0
    return data


def factors_of(data):
    return {key: compress(*pair, block_rows=16) for key, pair in data.items()}


def dense(data, weights, ridge=0.0, prior=None):
    """The weighted rows and targets of the whole problem, stacked."""
    gamma = np.ones(K) if prior is None else prior
    rows = [weights[key] * x for key, (x, _) in data.items()]
    targets = [weights[key] * y for key, (_, y) in data.items()]
    rows.append(np.sqrt(ridge) * np.diag(gamma))
    return np.concatenate(rows), np.concatenate([*targets, np.zeros(K)])


WELL, ILL, DEFICIENT = make_data(10.0), make_data(1e5), deficient_data()
WELL_FACTORS, DEFICIENT_FACTORS = factors_of(WELL), factors_of(DEFICIENT)


# Error of least squares <~ eps (cond + cond^2 |residual| / |y|): 1e-14 and 1e-9 here.
@pytest.mark.parametrize("data, tolerance", [(WELL, 1e-12), (ILL, 1e-8)], ids=["well", "ill"])
@pytest.mark.parametrize("ridge, prior", [(0.0, None), (1e-4, None), (1e-2, PRIOR)])
def test_equals_dense_least_squares(data, tolerance, ridge, prior):
    result = fit(factors_of(data), WEIGHTS, ridge=ridge, prior=prior)
    rows, targets = dense(data, RESOLVED, ridge, prior)
    expected = np.linalg.lstsq(rows, targets)[0]
    error = np.linalg.norm(result.coefficients - expected) / np.linalg.norm(expected)
    assert error < tolerance
    h = rows.T @ rows
    assert np.abs(result.factor.T @ result.factor - h).max() < 1e-13 * np.abs(h).max()
    assert result.rank == K
    scaled = rows / np.linalg.norm(rows, axis=0)
    assert result.condition == pytest.approx(np.linalg.cond(scaled), rel=tolerance)


def test_weights_multiply_the_residual():
    """Twice the weight of a kind is the same as each of its rows four times."""
    data = dict(WELL)
    data["energy"] = tuple(np.concatenate([x] * 4) for x in WELL["energy"])
    repeated = fit(factors_of(data), WEIGHTS)
    doubled = fit(WELL_FACTORS, {**WEIGHTS, "energy": 60.0})
    np.testing.assert_allclose(doubled.coefficients, repeated.coefficients, rtol=1e-12)
    np.testing.assert_allclose(doubled.factor, repeated.factor, atol=1e-11)


def test_weight_zero_leaves_data_out():
    without = {k: f for k, f in WELL_FACTORS.items() if k != "virial"}
    weights = {k: w for k, w in WEIGHTS.items() if k != "virial"}
    zero = fit(WELL_FACTORS, {**weights, "virial": 0.0})
    np.testing.assert_allclose(zero.coefficients, fit(without, weights).coefficients, rtol=1e-12)


def test_weight_of_a_key_goes_before_that_of_its_kind():
    assert resolve_weights(WELL_FACTORS, WEIGHTS) == RESOLVED
    assert list(resolve_weights(WELL_FACTORS, WEIGHTS)) == list(WELL_FACTORS)


def test_rms_is_that_of_the_raw_rows():
    result = fit(WELL_FACTORS, WEIGHTS, ridge=1e-2)
    assert list(result.rms) == list(SIZES)
    for key, (rows, targets) in WELL.items():
        misfit = rows @ np.asarray(result.coefficients) - targets
        assert result.rms[key] == pytest.approx(np.sqrt(np.mean(misfit**2)), rel=1e-10)


def test_rms_of_no_rows_is_nan():
    result = fit({"energy": WELL_FACTORS["energy"], "forces": empty(K)}, {"energy": 1, "forces": 1})
    assert np.isnan(result.rms["forces"]) and np.isfinite(result.rms["energy"])


def test_rank_deficient_fit_is_the_minimum_norm_solution():
    result = fit(DEFICIENT_FACTORS, WEIGHTS)
    rows, targets = dense(DEFICIENT, RESOLVED)
    expected, _, rank, _ = np.linalg.lstsq(rows, targets)
    assert result.rank == rank == K - 2
    assert result.condition > 1e13
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-12)


def test_rank_deficient_fit_is_the_limit_of_a_small_ridge_with_its_prior():
    """c = Gamma^-1 c', c' of least norm for the rows X Gamma^-1."""
    result = fit(DEFICIENT_FACTORS, WEIGHTS, prior=PRIOR)
    rows, targets = dense(DEFICIENT, RESOLVED)
    expected = np.linalg.lstsq(rows / PRIOR, targets)[0] / PRIOR
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-12)
    # A ridge moves c by O(ridge); rounding moves it by eps |residual| / ridge, 1e-10 here.
    errors = []
    for ridge in (1e-5, 1e-6):
        ridged = fit(DEFICIENT_FACTORS, WEIGHTS, prior=PRIOR, ridge=ridge)
        assert ridged.rank == K
        errors.append(np.linalg.norm(ridged.coefficients - expected))
    assert errors[1] < 1e-5 and errors[0] / errors[1] == pytest.approx(10.0, rel=1e-2)


def test_rank_and_fit_do_not_depend_on_units_of_features():
    units = np.geomspace(1e-9, 1e9, K)
    for data, rank in ((WELL, K), (DEFICIENT, K - 2)):
        plain = fit(factors_of(data), WEIGHTS)
        scaled = fit(factors_of({k: (x * units, y) for k, (x, y) in data.items()}), WEIGHTS)
        assert plain.rank == scaled.rank == rank
        # The coefficients go with the units; the predictions stay.
        for rows, _ in data.values():
            before = rows @ np.asarray(plain.coefficients)
            after = (rows * units) @ np.asarray(scaled.coefficients)
            np.testing.assert_allclose(after, before, atol=1e-9)


@pytest.mark.parametrize("prior", [None, PRIOR[:6]])
def test_minimum_norm_at_twenty_decades_between_columns(prior):
    """Two dependencies, of columns 1e16 apart, among columns that are 1e20 apart.

    Of z = t x the minimum norm splits the coefficient q of x alone into c_x = q a and c_z = q b
    with a + t b = 1 and least (gamma_x a)^2 + (gamma_z b)^2.
    """
    units = 2.0 ** np.array([30, -36, 20, 10, 30, -36])
    rows = np.random.default_rng(0).normal(size=(39, 6)) * units
    factor_of_column = {(0, 4): 2.0**15, (1, 5): 2.0**-40}
    for (x, z), t in factor_of_column.items():
        rows[:, z] = t * rows[:, x]  # exact
    y = np.random.default_rng(1).normal(size=39)
    found = fit({"energy": compress(rows, y)}, {"energy": 1.0}, prior=prior)
    assert found.rank == 4
    expected = np.zeros(6)
    expected[:4] = np.linalg.lstsq(rows[:, :4] / units[:4], y)[0] / units[:4]
    gamma = np.ones(6) if prior is None else prior
    for (x, z), t in factor_of_column.items():
        q = expected[x]
        share = t * (gamma[x] / gamma[z]) ** 2  # b / a
        expected[x], expected[z] = q / (1 + t * share), q * share / (1 + t * share)
    for group in ([0, 4], [1, 5], [2], [3]):  # to 1e-10 of the longest that may be exchanged
        error = np.linalg.norm((np.asarray(found.coefficients) - expected)[group])
        assert error < 1e-10 * np.linalg.norm(expected[group])


def test_rank_under_debug_nans():
    """A column of zeros, dependent ones, no rows: what is not determined is no NaN of the code."""
    with jax.debug_nans(True):
        assert fit(DEFICIENT_FACTORS, WEIGHTS).rank == K - 2
        assert fit({"energy": empty(K)}, {"energy": 1.0}).rank == 0


def test_no_rows_at_all_give_rank_zero_and_zero_coefficients():
    result = fit({"energy": empty(K)}, {"energy": 1.0})
    assert result.rank == 0 and result.condition == np.inf
    assert not np.asarray(result.coefficients).any()


def test_rcond_decides_what_counts_as_zero():
    factors = factors_of(make_data(1e5))
    assert fit(factors, WEIGHTS).rank == K
    assert fit(factors, WEIGHTS, rcond=1e-3).rank < K


def test_a_full_rank_that_is_not_clearly_so_has_its_coefficients():
    """Of a condition between 1 / RCOND and a thirtieth of it: right to the condition's rounding."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 4)))
    v, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    rows = q * np.array([1.0, 0.9, 0.8, 3e-12])[None] @ v.T
    found = fit({"all": compress(rows, rows @ np.ones(4))}, {"all": 1.0})
    assert found.rank == 4
    np.testing.assert_allclose(found.coefficients, 1.0, atol=1e-3)


@jax.jit
def _score(log_weights, log_ridge, probe):
    """A function of coefficients and of a rigidity."""
    coefficients, factor = solution(
        tuple(WELL_FACTORS.values()), jnp.exp(log_weights), jnp.exp(log_ridge), jnp.asarray(PRIOR)
    )
    solved = jax.scipy.linalg.solve_triangular(factor, probe, trans="T")
    return probe @ coefficients - jnp.log(solved @ solved)


def test_gradient_equals_central_differences():
    """The difference quotient errs by O(h^2): a quarter at h/2, and extrapolated by O(h^4)."""
    probe = jnp.asarray(np.random.default_rng(3).normal(size=K))
    weights, ridge = jnp.log(jnp.array(list(RESOLVED.values()))), jnp.log(0.5)
    gradient, ridge_gradient = jax.grad(_score, argnums=(0, 1))(weights, ridge, probe)
    exact = np.append(gradient, ridge_gradient)
    assert np.abs(exact).min() > 1e-6

    def quotients(h):
        steps = h * np.eye(len(exact))
        shift = [(jnp.asarray(s[:-1]), s[-1]) for s in steps]
        ends = [
            [_score(weights + sign * s, ridge + sign * t, probe) for sign in (1, -1)]
            for s, t in shift
        ]
        return np.array([(up - down) / (2 * h) for up, down in ends])

    coarse, fine = quotients(2e-2), quotients(1e-2)
    ratio = np.linalg.norm(coarse - exact) / np.linalg.norm(fine - exact)
    assert 3.8 < ratio < 4.2
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, rtol=1e-6, atol=1e-9)


def with_explicit_q(factors, weights, ridge):
    """What `solution` returns, by a QR that JAX differentiates itself."""
    rows = [w * f.triangular for w, f in zip(weights, factors, strict=True)]
    targets = [w * f.target for w, f in zip(weights, factors, strict=True)]
    q, r = jnp.linalg.qr(jnp.concatenate([*rows, jnp.sqrt(ridge) * jnp.eye(K)]))
    sign = jnp.sign(jnp.diagonal(r))
    target = q.T @ jnp.concatenate([*targets, jnp.zeros(K)])
    return jax.scipy.linalg.solve_triangular(r, target), sign[:, None] * r


# Corrected once, A^+ errs as with Q: by eps cond, 2e-11 for the second; uncorrected by eps cond^2.
@pytest.mark.parametrize("data, tolerance", [(WELL, 1e-12), (ILL, 1e-10)], ids=["well", "ill"])
def test_derivatives_are_those_of_an_explicit_q(data, tolerance):
    factors, ridge = tuple(factors_of(data).values()), jnp.asarray(1e-14)
    weights, draw = jnp.array(list(RESOLVED.values())), np.random.default_rng(4)
    triangles = [np.triu(draw.normal(size=(K, K))) * 1e-3 for _ in factors]
    change = [
        f._replace(triangular=jnp.asarray(t) @ f.triangular, n_rows=np.zeros((), jax.dtypes.float0))
        for f, t in zip(factors, triangles, strict=True)
    ]
    at, along = (factors, weights, ridge), (tuple(change), weights**2, ridge)
    _, found = jax.jvp(solution, at, along)
    _, expected = jax.jvp(with_explicit_q, at, along)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_second_derivatives_and_batches():
    """Of both parts in the logarithms of the weights, and all at once for several ridges."""
    factors, probe = tuple(WELL_FACTORS.values()), jnp.arange(1.0, K + 1)
    logs, ridges = jnp.log(jnp.array(list(RESOLVED.values()))), jnp.array([0.1, 1.0])

    def number(solver, logs, ridge):
        c, r = solver(factors, jnp.exp(logs), ridge)
        return probe @ c + jnp.sum(jnp.sin(r) * probe[None])

    found, expected = (
        jax.jit(jax.vmap(jax.hessian(partial(number, of)), (None, 0)))(logs, ridges)
        for of in (solution, with_explicit_q)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_solution_equals_fit():
    coefficients, factor = solution(
        tuple(WELL_FACTORS.values()), jnp.array(list(RESOLVED.values())), 1e-2
    )
    result = fit(WELL_FACTORS, WEIGHTS, ridge=1e-2)
    np.testing.assert_allclose(coefficients, result.coefficients, rtol=1e-12)
    np.testing.assert_allclose(factor, result.factor, atol=1e-12 * np.abs(factor).max())


def test_a_weight_sweep_compiles_once():
    fit(WELL_FACTORS, WEIGHTS)
    compiled = _solved._cache_size()
    for weight in (0.0, 1.0, 7):
        fit(WELL_FACTORS, {**WEIGHTS, "virial": weight}, ridge=weight)
    assert _solved._cache_size() == compiled


def test_a_fit_is_a_pytree_though_keys_of_mixed_type_cannot_be_sorted():
    result = fit(WELL_FACTORS, WEIGHTS)
    assert isinstance(jax.tree.map(lambda x: x, result), Fit)


@pytest.mark.parametrize(
    "weights, error, message",
    [
        ({**WEIGHTS, "stress": 1.0}, ValueError, r"'stress'.*which hold 'energy', \('forces'"),
        ({**WEIGHTS, ("energy", "x"): 1.0}, ValueError, r"hold \('energy', 'x'\): wanted kinds"),
        ({"energy": 1.0, "forces": 1.0}, ValueError, "weights lack 'virial'.*'energy', 'forces'"),
        ({**WEIGHTS, "energy": -1.0}, ValueError, "weight of 'energy' is -1.0"),
        ({**WEIGHTS, "energy": np.nan}, ValueError, "weight of 'energy' is nan"),
        ({**WEIGHTS, "energy": np.inf}, ValueError, "weight of 'energy' is inf"),
        ({**WEIGHTS, "energy": None}, ValueError, "weight of 'energy' is None: wanted a finite"),
        ({**WEIGHTS, "virial": "1"}, ValueError, "weight of 'virial' is '1': wanted a finite"),
        ([1.0, 1.0, 1.0, 1.0], TypeError, "weights is a list: wanted a mapping"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        fit(WELL_FACTORS, weights)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ridge": -1e-8}, "ridge is -1e-08"),
        ({"ridge": np.nan}, "ridge is nan"),
        ({"rcond": -1.0}, "rcond is -1.0"),
        ({"prior": np.ones(K - 1)}, r"prior has shape \(6,\).*\(7,\)"),
        ({"prior": -np.ones(K)}, "prior holds a negative"),
        ({"prior": np.full(K, np.nan)}, "non-finite"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(WELL_FACTORS, WEIGHTS, **options)


def test_bad_factors_are_refused():
    with pytest.raises(ValueError, match="have columns .*'energy': 7.*'forces': 4.*wanted one"):
        fit({"energy": empty(K), "forces": empty(4)}, {"energy": 1.0, "forces": 1.0})
    with pytest.raises(ValueError, match="factors is empty"):
        fit({}, {})
    with pytest.raises(TypeError, match="factors is a list"):
        fit([empty(K)], {"energy": 1.0})
    with pytest.raises(TypeError, match=r"factors\['energy'\] is a tuple"):
        fit({"energy": (np.eye(K), np.ones(K))}, {"energy": 1.0})
    single = empty(K)._replace(triangular=jnp.eye(K, dtype=jnp.float32))
    with pytest.raises(TypeError, match="float32"):
        fit({"energy": single}, {"energy": 1.0})
    broken = empty(K)._replace(triangular=jnp.full((K, K), jnp.nan))
    with pytest.raises(ValueError, match="NaN"):
        fit({"energy": broken}, {"energy": 1.0})


def test_single_precision_is_refused():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        fit(WELL_FACTORS, WEIGHTS)
