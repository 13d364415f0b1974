"""Intervals hold what they say, committees spread as deviations do, strangers are flagged."""

import math

import jax
import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.influence_results import DEVIATIONS
from lprjax.regression.influences import influence

K = 4
G = np.random.default_rng(1).normal(size=(6, K))


def structures(n, seed=0, each=1):
    """Each with one energy, and forces if there are more; errors are a square that K terms miss."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        x = rng.normal(size=(each, K))
        y = x @ np.arange(1.0, K + 1) + 0.3 * x[:, 0] ** 2 + 0.1 * rng.normal(size=each)
        parts = {"energy": (x[:1], y[:1]), "forces": (x[1:], y[1:])}
        found.append({kind: both for kind, both in parts.items() if len(both[1])})
    return found


def found_of(samples, ridge=1e-3, predictions=None):
    factors = {
        kind: compress(*map(np.concatenate, zip(*[s[kind] for s in samples], strict=True)))
        for kind in samples[0]
    }
    done = fit(factors, dict.fromkeys(factors, 2.0), ridge=ridge)
    return influence(done, samples, predictions=predictions)


def test_intervals_are_those_of_refits():
    """Jackknife+ from its definition, by sorting, with n fits by LAPACK."""
    samples, n, miss = structures(24), 24, 0.15
    lower, upper = found_of(samples, predictions=G).intervals("energy", miss)
    x, y = (np.concatenate(part) for part in zip(*[s["energy"] for s in samples], strict=True))
    down, up = [], []
    for b in range(n):
        a, t = 2 * np.delete(x, b, axis=0), 2 * np.delete(y, b)
        a, t = np.concatenate([a, math.sqrt(1e-3) * np.eye(K)]), np.append(t, np.zeros(K))
        c = np.linalg.lstsq(a, t)[0]
        down.append(G @ c - abs(y[b] - x[b] @ c))
        up.append(G @ c + abs(y[b] - x[b] @ c))
    k = math.floor(miss * (n + 1))
    np.testing.assert_allclose(lower, np.sort(down, axis=0)[k - 1], rtol=1e-10)
    k = math.ceil((1 - miss) * (n + 1))
    np.testing.assert_allclose(upper, np.sort(up, axis=0)[k - 1], rtol=1e-10)


def test_rows_of_a_structure_share_its_part():
    """Every row of all structures once more changes nothing but the leverage of the structure,
    which the weight undoes; energies stay as many as structures."""
    once = structures(24, each=3)
    twice = [
        s | {"forces": tuple(np.concatenate([part] * 2) for part in s["forces"])} for s in once
    ]
    one = found_of(once, predictions=G)
    factors = {"energy": 1.0, "forces": 1.0}
    whole = {
        kind: compress(*map(np.concatenate, zip(*[s[kind] for s in twice], strict=True)))
        for kind in factors
    }
    done = fit(whole, {"energy": 2.0, "forces": 2.0 / math.sqrt(2)}, ridge=1e-3)
    two = influence(done, twice, predictions=G)
    for kind in factors:
        for a, b in zip(one.intervals(kind), two.intervals(kind), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def test_intervals_cover_new_structures():
    """Nine in ten, though the model is wrong: of 40 fits and 200 new labels each, within three
    standard errors of the fits (0.05 each) of at least 0.9 - 1/(n + 1)."""
    new = structures(200, seed=99)
    x, y = (np.concatenate(part) for part in zip(*[s["energy"] for s in new], strict=True))
    held = []
    for seed in range(40):
        lower, upper = found_of(structures(30, seed), predictions=x).intervals("energy", 0.1)
        held.append(np.mean((lower <= y) & (y <= upper)))
    assert 0.9 - 1 / 31 - 3 * 0.05 / math.sqrt(40) < np.mean(held) < 0.96


@pytest.mark.parametrize(("miss", "finite"), [(0.1, False), (0.2, True)])
def test_too_few_structures_give_an_infinite_interval(miss, finite):
    """Eight are too few for 90 %: the ninth may be the worst with a probability of one in nine."""
    both = found_of(structures(8), predictions=G).intervals("energy", miss)
    assert [np.isfinite(part).all() for part in both] == [finite, finite]
    if not finite:
        assert (both[0] == -np.inf).all() and (both[1] == np.inf).all()


def test_rows_of_one_structure_do_not_count_as_structures():
    """Nine suffice for 90 %, whose quantile is then the largest, and no more rows make up for the
    ninth; of four fifths the same with four."""
    for n, miss in ((9, 0.1), (4, 0.2)):
        many = structures(n, each=7)
        lower, upper = found_of(many, predictions=G).intervals("forces", miss)
        assert np.isfinite(lower).all() and np.isfinite(upper).all()
        lower, upper = found_of(many[1:], predictions=G).intervals("forces", miss)
        assert np.isinf(lower).all() and np.isinf(upper).all()


def lonely():
    """One structure alone knows the last coefficient."""
    samples = structures(30)
    for b, sample in enumerate(samples):
        sample["energy"][0][:, -1] *= b == 4
    return samples


def test_a_structure_that_is_alone_counts_as_the_worst():
    found = found_of(lonely(), ridge=0.0, predictions=G)
    assert found.undetermined == (4,) and "undetermined without: 4" in str(found)
    lower, upper = found.intervals("energy", 0.1)
    assert np.isfinite(lower).all() and np.isfinite(upper).all()
    assert np.isinf(found.intervals("energy", 0.04)).all()  # 31 times 0.04: the worst is in
    assert not found.beyond(1e6 * G, "energy").any()  # nothing is beyond an open direction
    with pytest.raises(ValueError, match=r"structures \(4,\) are undetermined"):
        found.committee(jax.random.key(0), 3, "jackknife")


@pytest.mark.parametrize("kind", DEVIATIONS)
def test_committees_spread_as_deviations_do(kind):
    """A mean square of 4000 draws is within 5 standard errors, (2/4000)^1/2 each."""
    found = found_of(structures(30))
    models = np.asarray(found.committee(jax.random.key(0), 4000, kind))
    spread = np.sqrt(np.mean(((models - np.asarray(found.coefficients)) @ G.T) ** 2, axis=0))
    tolerance = 0.5 * 5 * math.sqrt(2 / 4000)
    np.testing.assert_allclose(spread, found.deviations(G, kind), rtol=tolerance)


def test_strangers_are_flagged_and_neighbours_are_not():
    """New structures of the same origin in 1/(n + 1) of cases: of 40 fits with 50 and 200 new ones
    each, a mean within three standard errors; ten times as far out, nearly all."""
    new = np.concatenate([s["energy"][0] for s in structures(200, seed=99)])
    flagged, far = [], []
    for seed in range(40):
        found = found_of(structures(50, seed))
        flagged.append(np.mean(found.beyond(new, "energy")))
        far.append(np.mean(found.beyond(10 * new, "energy")))
    error = np.std(flagged) / math.sqrt(40)
    assert np.mean(flagged) < 1 / 51 + 3 * error and np.mean(far) > 0.95


@pytest.mark.oracle
def test_pops_is_that_of_its_authors():
    """Of popsregression, whose "ensemble" are the moves before a box is put round them: of the rows
    above the median leverage, with the ridge that its maximum of evidence finds."""
    pops = pytest.importorskip("popsregression")
    samples = structures(41)
    x, y = (np.concatenate(part) for part in zip(*[s["energy"] for s in samples], strict=True))
    theirs = pops.POPSRegression(posterior="ensemble", fit_intercept=False).fit(x, y)
    done = fit({"energy": compress(x, y)}, {"energy": 1.0}, ridge=theirs.lambda_ / theirs.alpha_)
    np.testing.assert_allclose(done.coefficients, theirs.coef_, rtol=1e-6)
    leverages = np.sort(influence(done, samples).leverages["energy"])
    found = influence(done, samples, predictions=G, least_leverage=leverages[19:21].mean())
    rows, moves = found.moves.rows, G @ theirs.posterior_samples_
    assert rows.count == moves.shape[1] == 21
    np.testing.assert_allclose(rows.low, moves.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows.high, moves.max(axis=1), rtol=1e-6)
    variance = np.einsum("mi,ij,mj->m", G, theirs.misspecification_sigma_, G)
    np.testing.assert_allclose(rows.rms, np.sqrt(variance), rtol=1e-6)


def test_it_prints_as_a_table():
    found = found_of(structures(30, each=3))
    assert f"{found.cross_validated['energy']:.4g}" in str(found) and "forces" in str(found)
    assert "<table>" in found._repr_html_()


def test_bad_input_is_refused():
    found = found_of(structures(30))
    with pytest.raises(ValueError, match="moves is None"):
        found.intervals("energy")
    with pytest.raises(ValueError, match="key is 'virial'"):
        found.beyond(G, "virial")
    for kind in ("white", None):
        with pytest.raises(ValueError, match="kind is"):
            found.deviations(G, kind)
    with pytest.raises(ValueError, match="n is 0"):
        found.committee(jax.random.key(0), 0)
    with pytest.raises(TypeError, match="float32"):
        found.deviations(G.astype(np.float32))
    with pytest.raises(ValueError, match="predictions have shape"):
        found.deviations(G[:, 1:])
    for miss in (0.0, 1.0, math.nan, None):
        with pytest.raises(ValueError, match="miss is"):
            found_of(structures(30), predictions=G).intervals("energy", miss)
