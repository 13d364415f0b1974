"""The posterior: committees spread as 1/PR says, and calibration finds a variance model again."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.posterior import NOMINAL, calibrate, committee, coverage
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.rows import vanishing

K, N = 6, 400
RNG = np.random.default_rng(4)
ROWS = RNG.normal(size=(40, K)) * np.geomspace(0.1, 10.0, K)
GAMMA = np.geomspace(1.0, 5.0, K)
PREDICTIONS = RNG.normal(size=(N, K)) * np.exp(RNG.normal(size=(N, 1)))
KEY = jax.random.key(0)


def factor_of(rows, ridge=0.0, prior=None):
    data = {"energy": compress(rows, np.zeros(len(rows)), block_rows=16)}
    return fit(data, {"energy": 1.0}, ridge=ridge, prior=prior).factor


FACTOR = factor_of(ROWS)


def dense_variance(rows, g, s=0.0, gamma=GAMMA):
    """g^T (X^T X + s^2 Gamma^2)^-1 g with an inverse."""
    inverse = np.linalg.inv(rows.T @ rows + s**2 * np.diag(np.asarray(gamma) ** 2))
    return np.einsum("ik,kl,il->i", g, inverse, g)


def test_posterior_is_that_of_conditioning_a_gaussian():
    """Prior c ~ N(0, Gamma^-2 / ridge), y = X c + noise of deviation 1 / w: condition on y.

    The oracle conditions the joint covariance of y and the prediction (a kernel method, N by N);
    mean and variance must be those of the fit and of 1/PR, for energies and forces together.
    """
    ridge, weights = 0.3, {"energy": 2.0, "forces": 0.5}
    targets = RNG.normal(size=40)
    parts = {"energy": slice(0, 10), "forces": slice(10, 40)}
    data = {kind: compress(ROWS[p], targets[p], block_rows=16) for kind, p in parts.items()}
    found = fit(data, weights, ridge=ridge, prior=GAMMA)
    g = PREDICTIONS[:20]

    noise = np.repeat([1 / weights["energy"], 1 / weights["forces"]], [10, 30])
    prior = np.diag(1 / (ridge * GAMMA**2))
    joint = ROWS @ prior @ ROWS.T + np.diag(noise**2)
    gain = np.linalg.solve(joint, ROWS @ prior @ g.T).T
    mean = gain @ targets
    variance = np.einsum("ik,kl,il->i", g, prior, g) - np.sum(gain * (g @ prior @ ROWS.T), axis=1)
    np.testing.assert_allclose(g @ found.coefficients, mean, rtol=1e-10)
    np.testing.assert_allclose(1 / prediction_rigidity(found.factor, g), variance, rtol=1e-10)


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_spread_of_a_committee_is_one_over_the_rigidity(ridge, weight):
    """n samples about a known mean: n var PR is chi-squared with n degrees of freedom.

    Relative standard error (2/n)^1/2 = 2.2 %. The predictions are correlated, and of 400 of them
    the worst stays within 4.5 errors but for a chance of 400 * 7e-6 at most. Their whitened
    coordinates R (c - c0) are K independent columns: covariance I within the same.
    """
    n = 4000
    factor = weight * factor_of(ROWS, ridge)
    centre = RNG.normal(size=K)
    models = np.asarray(committee(centre, factor, KEY, n))
    assert models.shape == (n, K)
    spread = np.mean(((models - centre) @ PREDICTIONS.T) ** 2, axis=0)
    ratio = spread * np.asarray(prediction_rigidity(factor, PREDICTIONS))
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / n)
    white = (models - centre) @ np.asarray(factor).T
    assert np.abs(white.mean(axis=0)).max() < 4.5 / np.sqrt(n)
    assert np.abs(white.T @ white / n - np.eye(K)).max() < 4.5 * np.sqrt(2 / n)


def test_committee_depends_on_its_key_alone_and_scales_with_the_factor():
    centre = RNG.normal(size=K)
    draw = jax.jit(committee, static_argnums=3)
    one, again = draw(centre, FACTOR, KEY, 5), committee(centre, FACTOR, KEY, 5)
    np.testing.assert_allclose(one, again, rtol=1e-13)
    half = committee(centre, 2.0 * FACTOR, KEY, 5)
    np.testing.assert_allclose(half - centre[None], 0.5 * (one - centre[None]), rtol=1e-10)
    other = committee(centre, FACTOR, jax.random.key(1), 5)
    assert np.abs(np.asarray(other - one)).min() > 0.0


def test_a_singular_posterior_has_no_samples():
    """The door names the rank and the fix; with the fix, the undetermined spread as the prior."""
    with pytest.raises(ValueError, match="rank of H is 3: wanted 6.*ridge > 0"):
        committee(np.zeros(K), factor_of(ROWS[:3]), KEY, 3)
    ridge, n = 1e-4, 4000
    models = np.asarray(committee(np.zeros(K), factor_of(ROWS[:3], ridge), KEY, n))
    unseen = np.linalg.svd(ROWS[:3])[2][3:]
    spread = np.mean((models @ unseen.T) ** 2, axis=0)
    assert np.abs(ridge * spread - 1).max() < 4.5 * np.sqrt(2 / n)


def synthetic(rng, alpha, s):
    """Residuals that the variance model describes exactly."""
    return alpha * np.sqrt(dense_variance(ROWS, PREDICTIONS, s)) * rng.normal(size=N)


def information(s):
    """Fisher information of (log alpha, log s) in N independent residuals, from dense inverses.

    r ~ N(0, v): I_ab = 1/2 sum dlog v/da dlog v/db, with d log v / d log alpha = 2.
    """
    step = 1e-4
    up, down = (np.log(dense_variance(ROWS, PREDICTIONS, s * np.exp(d))) for d in (step, -step))
    slopes = np.stack([np.full(N, 2.0), (up - down) / (2 * step)])
    return 0.5 * slopes @ slopes.T


@pytest.mark.parametrize("alpha, s", [(0.02, 3.0), (7.0, 1.0)])
def test_calibration_recovers_scale_and_floor(alpha, s):
    """24 samples: errors of (log alpha, log s) have the covariance that Cramer and Rao allow.

    Maximum likelihood reaches it up to O(1/N). The normalised squared error is chi-squared with
    48 degrees of freedom in all, which lies between 20 and 90 but for 3e-4.
    """
    errors = []
    for seed in range(24):
        found = calibrate(
            FACTOR, PREDICTIONS, synthetic(np.random.default_rng(seed), alpha, s), prior=GAMMA
        )
        errors.append(np.log([found.alpha / alpha, found.s / s]))
    squared = np.einsum("ia,ab,ib->", errors, information(s), errors)
    assert 20 < squared < 90


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_noise_is_told_from_what_the_data_leave_open(seed):
    """Labels with noise of 1 on a fit whose own deviations are 0.05 to 50: sigma to
    4 / (2 n)^(1/2), n the 60 or more rows whose noise is the larger part, and alpha likewise of the
    others. Without sigma alpha has to explain the noise, and is too large for what is far away."""
    rng = np.random.default_rng(seed)
    spread = np.geomspace(0.05, 50.0, N)
    rows = PREDICTIONS * (spread / np.sqrt(dense_variance(ROWS, PREDICTIONS)))[:, None]
    residuals = 1.0 * rng.normal(size=N) + 2.0 * spread * rng.normal(size=N)
    found = calibrate(FACTOR, rows, residuals, prior=GAMMA, noise=True)
    few = min(np.sum(2.0 * spread < 0.3), np.sum(2.0 * spread > 3.0))
    assert found.sigma == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * few))
    assert found.alpha == pytest.approx(2.0, rel=4.0 / np.sqrt(2 * few))
    without = calibrate(FACTOR, rows, residuals, prior=GAMMA)
    assert without.sigma == 0.0 and without.alpha > 2.0 * found.alpha
    assert found.log_likelihood > without.log_likelihood
    deviations = np.asarray(found.deviations(rows))
    variance = found.sigma**2 + found.alpha**2 * dense_variance(ROWS, rows, found.s)
    np.testing.assert_allclose(deviations, np.sqrt(variance), rtol=1e-8)
    densities = -0.5 * (residuals**2 / variance + np.log(2 * np.pi * variance))
    assert found.log_likelihood == pytest.approx(densities.mean(), rel=1e-10)
    np.testing.assert_allclose(coverage(residuals, deviations), found.covered, atol=1.1 / N)
    # No other noise is likelier, alpha adapted: the search ends at steps of 28 / 28 / 14^2 in the
    # logarithm of rho, over the 12 decades from the least v / 1000 to the largest times 1000.
    shape = dense_variance(ROWS, rows, found.s)

    def likelihood(log_ratio):
        v = np.exp(log_ratio) + shape
        v *= np.mean(residuals**2 / v)
        return -0.5 * np.mean(residuals**2 / v + np.log(2 * np.pi * v))

    about = 2.0 * np.log(found.sigma / found.alpha) + np.array([-1.0, 0.0, 1.0])
    best = minimize_scalar(lambda x: -likelihood(x), about).x
    assert about[1] == pytest.approx(best, abs=0.6 * 28 / 28 / 14**2)


def test_residuals_without_noise_have_none():
    """Those that the variance model explains: sigma is far below the least of them that counts."""
    residuals = synthetic(np.random.default_rng(3), 0.3, 0.0)
    found = calibrate(FACTOR, PREDICTIONS, residuals, prior=GAMMA, noise=True)
    assert found.sigma < 0.3 * np.median(np.abs(residuals))
    assert found.alpha == pytest.approx(0.3, rel=4.0 / np.sqrt(2 * N))
    signs = np.random.default_rng(3).choice([-1.0, 1.0], N)
    exact = 0.3 * np.sqrt(dense_variance(ROWS, PREDICTIONS)) * signs  # any noise is less likely
    assert calibrate(FACTOR, PREDICTIONS, exact, prior=GAMMA, noise=True).sigma == 0.0


def test_coverage_of_a_well_specified_model():
    """On 20 000 fresh predictions, within 4 binomial errors and what alpha itself is off by.

    d coverage / d log alpha = 2 z phi(z) <= 0.49, and log alpha at given s is off by (2N)^-1/2.
    """
    rng = np.random.default_rng(11)
    found = calibrate(FACTOR, PREDICTIONS, synthetic(rng, 0.3, 2.0), prior=GAMMA)
    binomial = np.sqrt(found.expected * (1 - found.expected))
    np.testing.assert_array_equal(found.expected, NOMINAL)
    assert (np.abs(found.covered - found.expected) < 4 * binomial / np.sqrt(N)).all()

    fresh = rng.normal(size=(20_000, K))
    residuals = 0.3 * np.sqrt(dense_variance(ROWS, fresh, 2.0)) * rng.normal(size=len(fresh))
    deviations = prediction_rigidity(found.factor, fresh) ** -0.5
    off = np.abs(coverage(residuals, deviations) - NOMINAL)
    assert (off < 4 * binomial / np.sqrt(len(fresh)) + 4 * 0.49 / np.sqrt(2 * N)).all()


def test_calibrated_factor_and_likelihood_are_those_of_the_formula():
    residuals = synthetic(np.random.default_rng(3), 0.3, 2.0)
    found = calibrate(FACTOR, PREDICTIONS, residuals, prior=GAMMA)
    variance = found.alpha**2 * dense_variance(ROWS, PREDICTIONS, found.s)
    np.testing.assert_allclose(prediction_rigidity(found.factor, PREDICTIONS), 1 / variance)
    densities = -0.5 * (residuals**2 / variance + np.log(2 * np.pi * variance))
    assert found.log_likelihood == pytest.approx(densities.mean(), rel=1e-12)
    quantiles = (0.6745, 1.0006, 1.6449, 1.9600)  # of 50, 68.3, 90, 95 %
    inside = [np.mean(np.abs(residuals) <= z * np.sqrt(variance)) for z in quantiles]
    np.testing.assert_allclose(found.covered, inside, atol=1.1 / N)  # four digits: one may flip


def test_no_other_scale_or_floor_is_likelier():
    """Against the dense likelihood on a plane about the optimum, s = 0 among it; and the optimum
    against Brent's method: the last grid has steps of 14 / 28 / 14^2 decades, 0.6 %."""
    residuals = synthetic(np.random.default_rng(3), 0.3, 2.0)
    found = calibrate(FACTOR, PREDICTIONS, residuals, prior=GAMMA)

    def likelihood(s, scale=1.0):
        variance = dense_variance(ROWS, PREDICTIONS, s)
        variance *= scale**2 * np.mean(residuals**2 / variance)
        return -0.5 * np.mean(residuals**2 / variance + np.log(2 * np.pi * variance))

    for s in (0.0, *found.s * np.geomspace(1e-3, 1e3, 61)):
        for scale in (0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 10.0):
            assert found.log_likelihood > likelihood(s, scale) - 1e-6
    about = np.log(found.s) + np.array([-1.0, 0.0, 1.0])
    best = minimize_scalar(lambda log_s: -likelihood(np.exp(log_s)), about).x
    assert np.log(found.s) == pytest.approx(best, abs=0.5 * np.log(10) * 14 / 28 / 14**2)


def reached_in_four_of_six(rng, count):
    """Rows in the span of four, however large their parts."""
    return rng.normal(size=(count, 4)) @ np.random.default_rng(0).normal(size=(4, K))


@pytest.mark.parametrize("ridge", [0.0, 1e-10])
def test_the_floor_acts_where_rows_reach(ridge):
    """R^T R + s^2 Gamma P Gamma by dense matrices, P from the span of the rows in Gamma c."""
    rng = np.random.default_rng(2)
    training, rows = reached_in_four_of_six(rng, 40), reached_in_four_of_six(rng, N)
    exact = np.linalg.pinv(rows / GAMMA, rcond=1e-10) @ (rows / GAMMA)
    residuals = 0.3 * np.linalg.norm(rows / GAMMA, axis=1) * rng.normal(size=N)
    found = calibrate(factor_of(training, ridge, GAMMA), rows, residuals, prior=GAMMA)
    assert found.unreached == 2 and found.s > 1.0
    projected = np.diag(GAMMA) @ exact @ np.diag(GAMMA)
    h = training.T @ training + ridge * np.diag(GAMMA**2) + found.s**2 * projected
    inside = np.einsum("ik,kl,il->i", rows, np.linalg.pinv(h, rcond=1e-13, hermitian=True), rows)
    rigidity = np.asarray(prediction_rigidity(found.factor, rows))
    np.testing.assert_allclose(rigidity, 1 / (found.alpha**2 * inside), rtol=1e-6)
    beyond = np.linalg.svd(rows / GAMMA)[2][4:] * GAMMA  # only the ridge holds them
    variance = 1 / np.asarray(prediction_rigidity(found.factor, beyond)[:, None]) if ridge else None
    if ridge:
        np.testing.assert_allclose(variance[:, 0], found.alpha**2 / ridge, rtol=1e-4)
    else:
        assert not np.asarray(prediction_rigidity(found.factor, beyond)).any()


@pytest.mark.parametrize("ridge", [0.0, 1e-10])
def test_one_composition_leaves_the_energies_of_others_open(ridge):
    """Two constants, one per species, and cells of 1:1 alone in the fit and in the validation.

    What the data say of a cell is the sum of the constants, and a floor s says of their difference
    what the residuals did not: here the likeliest s is large. Cells of other compositions are off
    by an eV; the intervals hold them, and nothing changes for cells of 1:1.
    """
    rng = np.random.default_rng(7)

    def cells(fraction, count):
        of_a = np.broadcast_to(fraction, count)
        return np.stack([of_a, 1 - of_a, *rng.normal(size=(K - 2, count))], axis=1)

    truth = np.array([1.0, -3.0, *rng.normal(size=K - 2)])
    known, seen = cells(0.5, 60), cells(0.5, 40)
    misfit = 1e-3 * rng.normal(size=60)
    fitted = fit({"energy": compress(known, known @ truth + misfit)}, {"energy": 1.0}, ridge=ridge)
    size = np.linalg.norm(seen, axis=1)  # so that all is floor: s ends at its largest
    found = calibrate(fitted.factor, seen, 1e-3 * size * rng.choice([-1.0, 1.0], 40))
    assert found.unreached == 1 and found.s > 10.0
    new = cells(rng.uniform(0, 0.3, 50), 50)
    errors = new @ (np.asarray(fitted.coefficients) - truth)
    assert np.abs(errors).min() > 0.3
    with np.errstate(divide="ignore"):
        deviations = np.asarray(prediction_rigidity(found.factor, new)) ** -0.5
        same = np.asarray(prediction_rigidity(found.factor, cells(0.5, 50))) ** -0.5
    assert (coverage(errors, deviations)[2:] == 1.0).all()
    assert np.isinf(deviations).all() if ridge == 0.0 else (deviations > 1.0).all()
    assert (same < 1e-2).all()


def test_a_prior_that_leaves_out_what_the_data_do_is_refused():
    free = np.concatenate([[0.0], np.ones(K - 1)])
    rows = np.concatenate([np.zeros((40, 1)), ROWS[:, 1:]], axis=1)
    with pytest.raises(ValueError, match="rows reach coefficients that neither"):
        calibrate(factor_of(rows), PREDICTIONS, RNG.normal(size=N), prior=free)


def test_rows_that_vanish_to_rounding_are_refused_and_change_nothing_if_left_out():
    """Forces that are zero by symmetry: rows of 1e-13, and labels that are zero to 1e-9 only."""
    rng = np.random.default_rng(8)
    residuals = synthetic(rng, 0.3, 2.0)
    noise = 1e-13 * rng.normal(size=(N // 2, K)) * np.abs(PREDICTIONS).max(axis=0)
    rows = np.concatenate([PREDICTIONS, noise])
    both = np.concatenate([residuals, 1e-9 * rng.normal(size=N // 2)])
    with pytest.raises(ValueError, match=f"200 of 600 rows are zero to rounding, first row {N}"):
        calibrate(FACTOR, rows, both, prior=GAMMA)
    kept = ~np.asarray(vanishing(rows))
    found = calibrate(FACTOR, rows[kept], both[kept], prior=GAMMA)
    assert found.alpha == calibrate(FACTOR, PREDICTIONS, residuals, prior=GAMMA).alpha


def test_the_ends_of_the_search():
    """Where the floor is nothing s is zero, where it is everything to the other end.

    Exactly proportional residuals (no noise: r_i = alpha v_i^1/2) are explained without error.
    """
    exact = 0.3 * np.sqrt(dense_variance(ROWS, PREDICTIONS, 0.0))
    found = calibrate(FACTOR, PREDICTIONS, exact, prior=GAMMA)
    assert found.s == 0.0
    assert found.alpha == pytest.approx(0.3, rel=1e-12)
    prior_alone = 0.3 * np.linalg.norm(PREDICTIONS / GAMMA, axis=1)
    found = calibrate(FACTOR, PREDICTIONS, prior_alone, prior=GAMMA)
    size = np.linalg.norm(np.asarray(FACTOR) / GAMMA)
    assert found.s == pytest.approx(100 * size, rel=1e-9)
    assert found.alpha / found.s == pytest.approx(0.3, rel=1e-4)  # (size / s)^2


def test_a_singular_factor_needs_its_floor_only_where_rows_reach_beyond():
    singular, residuals = factor_of(ROWS[:3]), RNG.normal(size=N)
    assert calibrate(singular, PREDICTIONS, residuals).s > 0.0
    inside = RNG.normal(size=(N, 3)) @ ROWS[:3]
    exact = 0.3 / np.sqrt(np.asarray(prediction_rigidity(singular, inside)))
    found = calibrate(singular, inside, exact)
    assert found.s == 0.0 and found.alpha == pytest.approx(0.3, rel=1e-12)
    nothing = calibrate(np.zeros((K, K)), PREDICTIONS, np.linalg.norm(PREDICTIONS, axis=1))
    assert nothing.alpha / nothing.s == pytest.approx(1.0, rel=1e-12)


def test_invariances():
    """Residuals in another unit scale alpha; rotated or rescaled features change nothing; weights
    that are all off by one factor scale alpha and s."""
    residuals = synthetic(np.random.default_rng(5), 0.3, 2.0)
    found = calibrate(FACTOR, PREDICTIONS, residuals)

    def compare(other, alpha=1.0, s=1.0, likelihood=0.0):
        assert other.alpha == pytest.approx(alpha * found.alpha, rel=1e-9)
        assert other.s == pytest.approx(s * found.s, rel=1e-9)
        assert other.log_likelihood == pytest.approx(found.log_likelihood + likelihood, abs=1e-9)
        np.testing.assert_array_equal(other.covered, found.covered)

    compare(calibrate(FACTOR, PREDICTIONS, 1e3 * residuals), 1e3, 1.0, -np.log(1e3))
    compare(calibrate(0.1 * FACTOR, PREDICTIONS, residuals), 0.1, 0.1)
    rotation, _ = np.linalg.qr(RNG.normal(size=(K, K)))
    compare(calibrate(factor_of(ROWS @ rotation), PREDICTIONS @ rotation, residuals))
    units = np.geomspace(1e-6, 1e6, K)[RNG.permutation(K)]
    compare(calibrate(factor_of(ROWS * units), PREDICTIONS * units, residuals, prior=units))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((np.zeros(5), FACTOR), ValueError, r"coefficients have shape \(5,\): wanted \(6,\)"),
        ((np.zeros(K), FACTOR[:3]), ValueError, r"factor has shape \(3, 6\)"),
        ((np.zeros(K), np.ones((K, K))), ValueError, "not upper triangular"),
        ((np.zeros(K), np.nan * np.eye(K)), ValueError, "NaN or infinity"),
        ((np.zeros(K, np.float32), FACTOR), TypeError, "coefficients have dtype float32"),
    ],
)
def test_bad_committees_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        committee(*arguments, KEY, 3)


def test_other_bad_committees_are_refused():
    with pytest.raises(ValueError, match="n is 0"):
        committee(np.zeros(K), FACTOR, KEY, 0)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        committee(np.zeros(K), FACTOR, KEY, 1)


ONES = np.ones(N)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (partial(calibrate, FACTOR, PREDICTIONS, ONES[:3]), ValueError, r"residuals \(3,\)"),
        (partial(calibrate, FACTOR, PREDICTIONS[:, :2], ONES), ValueError, r"\(N, 6\)"),
        (partial(calibrate, FACTOR, PREDICTIONS[:1], ONES[:1]), ValueError, "residuals is 1:"),
        (partial(calibrate, FACTOR, PREDICTIONS, np.nan * ONES), ValueError, "NaN or infinity"),
        (partial(calibrate, FACTOR, PREDICTIONS, 0 * ONES), ValueError, "all residuals are zero"),
        (partial(calibrate, FACTOR, PREDICTIONS * (ONES > 1)[:, None], ONES), ValueError, "row 0"),
        (partial(calibrate, FACTOR, PREDICTIONS, ONES, prior=np.ones(3)), ValueError, r"\(6,\)"),
        (partial(calibrate, FACTOR, PREDICTIONS, ONES, prior=np.zeros(K)), ValueError, "one > 0"),
        (partial(calibrate, FACTOR, PREDICTIONS, np.float32(ONES)), TypeError, "float32"),
        (partial(coverage, ONES, ONES[:2]), ValueError, r"deviations \(2,\)"),
        (partial(coverage, ONES, -ONES), ValueError, "negative"),
    ],
)
def test_bad_calibrations_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_coverage_at_its_edges():
    """Nothing known covers all; a deviation of zero covers an exact prediction only."""
    assert (coverage(ONES, np.inf * ONES) == 1.0).all()
    np.testing.assert_array_equal(coverage(np.array([0.0, 1.0]), np.zeros(2)), np.full(4, 0.5))


def test_a_calibration_prints_what_it_covers():
    residuals = np.sqrt(dense_variance(ROWS, PREDICTIONS)) * RNG.normal(size=N)
    found = calibrate(FACTOR, PREDICTIONS, residuals)
    title, _, *rows, structures, _ = str(found).splitlines()
    assert structures.startswith(f"structures: {N};")
    assert [float(row.split()[2]) for row in rows] == pytest.approx(
        [found.interval(1 - p).score for p in NOMINAL], rel=1e-2
    )
    assert f"alpha {found.alpha:.4g}, s {found.s:.4g}" in title
    covered = [float(row.split()[1].rstrip("%")) for row in rows]
    assert covered == pytest.approx(100 * found.covered, abs=0.06)
    assert "<table>" in found._repr_html_()


def of_structures(rng, n, each, heavy):
    """Rows, residuals whose deviations a calibration can find (noise 0.5 and 0.7 v^1/2), and
    owners; residuals of a structure go together, and heavy ones are t_3."""
    rows = rng.normal(size=(n * each, K))
    z = rng.normal(size=n).repeat(each)
    if each > 1:
        z = 0.8 * z + 0.6 * rng.normal(size=n * each)
    if heavy:
        z = z / np.sqrt(rng.chisquare(3, size=n) / 3).repeat(each)
    deviations = np.sqrt(0.25 + 0.49 * dense_variance(ROWS, rows))
    return rows, deviations * z, np.arange(n).repeat(each)


CASES = {
    "8": (8, 1, False, (0.2,)),
    "8 of 5 rows": (8, 5, False, (0.2,)),
    "20": (20, 1, True, (0.1, 0.05)),
    "100": (100, 1, False, (0.1, 0.05)),
}


@pytest.mark.parametrize("heavy", [False, True], ids=["Gaussian", "heavy tails"])
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_new_structures_however_few_there_were(case, heavy):
    """Out of sample, with alpha, s and sigma found from the same few residuals: of 60 calibrations
    and 200 new structures each, at least nominal within three standard errors of the
    calibrations; from 100 structures not more than 3 % above it."""
    n, each, noise, misses = CASES[case]
    rng = np.random.default_rng(n + each)
    held = {miss: [] for miss in misses}
    gaussian = []
    for _ in range(60):
        rows, residuals, owners = of_structures(rng, n, each, heavy)
        found = calibrate(FACTOR, rows, residuals, noise=noise, owners=owners)
        new, errors, _ = of_structures(rng, 200, 1, heavy)
        deviations = np.asarray(found.deviations(new))
        for miss in misses:
            widths = found.interval(miss).half_widths(deviations)
            held[miss].append(np.mean(abs(errors) <= widths))
        gaussian.append(np.mean(abs(errors) <= 1.2816 * deviations))  # 80 %
    for miss, fractions in held.items():
        error = np.std(fractions) / np.sqrt(60)
        assert np.mean(fractions) > 1 - miss - 3 * error
        assert n < 100 or np.mean(fractions) < 1 - miss + 0.03
    if case == "8":  # what a Gaussian's quantile holds of them, which is why
        assert np.mean(gaussian) < 0.8 and np.mean(gaussian) < np.mean(held[0.2]) - 0.05


def test_few_structures_give_infinite_intervals():
    """19 for 95 %, 9 for 90 %; rows of one structure do not count as structures."""
    rng = np.random.default_rng(0)
    rows, residuals, owners = of_structures(rng, 8, 5, False)
    found = calibrate(FACTOR, rows, residuals, owners=owners)
    assert found.n_structures == 8
    assert np.isinf(found.half_widths(rows)).all() and np.isinf(found.interval(0.05).score)
    assert "infinite, from 8 structures, too few" in str(found.interval(0.05))
    assert np.isfinite(found.half_widths(rows, 0.2)).all()
    alone = calibrate(FACTOR, rows, residuals)  # taken as 40
    assert alone.n_structures == 40 and np.isfinite(alone.half_widths(rows, 0.05)).all()
    one = calibrate(FACTOR, rows, residuals, owners=np.zeros(40, int))
    assert np.isinf(one.half_widths(rows, 0.5)).all()
    with pytest.raises(ValueError, match="owners have shape"):
        calibrate(FACTOR, rows, residuals, owners=owners[1:])


def test_scores_are_by_the_calibrations_of_the_others():
    """Each fold against `calibrate` of the rest: s there is found to half a decade, so that a score
    is within a few percent; far rows are outside."""
    rng = np.random.default_rng(5)
    rows, residuals, owners = of_structures(rng, 40, 3, False)
    found = calibrate(FACTOR, rows, residuals, owners=owners, noise=True)
    for fold in range(5):
        out = owners % 5 == fold
        other = calibrate(FACTOR, rows[~out], residuals[~out], noise=True)
        wanted = abs(residuals[out]) / np.asarray(other.deviations(rows[out]))
        np.testing.assert_allclose(found.scores[out], wanted, rtol=0.1)
    inside = found.interval().outside(np.asarray(found.deviations(rows)))
    assert not inside.any()
    assert found.largest == pytest.approx(np.asarray(found.deviations(rows)).max(), rel=1e-12)
    assert found.interval().outside(np.asarray(found.deviations(30 * rows))).mean() > 0.9
