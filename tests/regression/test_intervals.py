"""Bars of left-out scores: those of refits; they cover, grow with 1/PR, and flag strangers."""

import math

import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.influences import influence
from lprjax.regression.intervals import error_bars

K = 4
RIDGE = 1e-3
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


def found_of(samples, ridge=RIDGE, weight=2.0):
    keys = list(dict.fromkeys(key for s in samples for key in s))
    factors = {
        key: compress(
            *map(np.concatenate, zip(*[s[key] for s in samples if key in s], strict=True))
        )
        for key in keys
    }
    return influence(fit(factors, dict.fromkeys(factors, weight), ridge=ridge), samples)


def stacked(samples, key="energy"):
    return tuple(np.concatenate(part) for part in zip(*[s[key] for s in samples], strict=True))


def refitted_scores(samples):
    """By n fits and inverses of LAPACK."""
    (x, y), prior = stacked(samples), math.sqrt(RIDGE) * np.eye(K)
    scores = []
    for b in range(len(y)):
        a = np.concatenate([2 * np.delete(x, b, axis=0), prior])
        c = np.linalg.lstsq(a, np.append(2 * np.delete(y, b), np.zeros(K)))[0]
        variance = x[b] @ np.linalg.solve(a.T @ a, x[b])
        scores.append(abs(y[b] - x[b] @ c) / math.sqrt(variance))
    return np.sort(scores)


def test_bars_are_those_of_refits():
    samples, n, miss = structures(24), 24, 0.15
    bars = error_bars(found_of(samples), G, "energy", miss)
    score = refitted_scores(samples)[math.ceil((1 - miss) * (n + 1)) - 1]
    x, _ = stacked(samples)
    h = 4 * x.T @ x + RIDGE * np.eye(K)
    deviations = np.sqrt(np.einsum("mk,kl,ml->m", G, np.linalg.inv(h), G))
    assert bars.score == pytest.approx(score, rel=1e-9) and bars.n_structures == n
    np.testing.assert_allclose(bars.half_widths, score * deviations, rtol=1e-9)


def test_units_of_weights_and_of_predictions_do_not_matter():
    """A bar is that of the labels, whatever weights are counted in; per atom or per cell."""
    samples = structures(30)
    one, two = (
        error_bars(found_of(samples, r, w), G, "energy") for r, w in ((1e-3, 2), (1e-1, 20))
    )
    np.testing.assert_allclose(one.half_widths, two.half_widths, rtol=1e-9)
    np.testing.assert_array_equal(one.outside, two.outside)
    many = error_bars(found_of(samples), 16 * G, "energy")
    np.testing.assert_allclose(many.half_widths, 16 * one.half_widths, rtol=1e-12)


def test_they_cover_new_structures():
    """Nine in ten, though the model is wrong: of 40 fits and 200 new labels each, within three
    standard errors of the fits (0.05 each) of 0.9 to 0.9 + 1/(n + 1) + O(K/n)."""
    x, y = stacked(structures(200, seed=99))
    held = []
    for seed in range(40):
        found = found_of(structures(30, seed))
        half = error_bars(found, x, "energy").half_widths
        held.append(np.mean(np.abs(y - x @ np.asarray(found.coefficients)) <= half))
    assert 0.9 - 3 * 0.05 / math.sqrt(40) < np.mean(held) < 0.96


def test_rows_of_a_structure_share_its_part():
    """Forces given twice over change neither their bars nor those of energies, with the weight
    that leaves the fit alone."""
    once = structures(24, each=3)
    twice = [s | {"forces": tuple(np.concatenate([p] * 2) for p in s["forces"])} for s in once]
    one, both = found_of(once), stacked(twice, "forces")
    factors = {"energy": compress(*stacked(once)), "forces": compress(*both)}
    done = fit(factors, {"energy": 2.0, "forces": math.sqrt(2.0)}, ridge=RIDGE)
    two = influence(done, twice)
    for key in ("energy", "forces"):
        a, b = error_bars(one, G, key), error_bars(two, G, key)
        np.testing.assert_allclose(a.half_widths, b.half_widths, rtol=1e-9)
        assert a.n_structures == b.n_structures == 24


@pytest.mark.parametrize(("n", "miss", "finite"), [(8, 0.1, False), (9, 0.1, True), (4, 0.2, True)])
def test_too_few_structures_give_infinite_bars(n, miss, finite):
    """However many rows they have: the next may be the worst with a probability of 1/(n + 1)."""
    bars = error_bars(found_of(structures(n, each=7)), G, "forces", miss)
    assert np.isfinite(bars.half_widths).all() == np.isfinite(bars.score) == finite
    assert bars.n_structures == n


def left_out_variances(samples):
    """Of the energies, by inverses."""
    x, _ = stacked(samples)
    whole = 4 * x.T @ x + RIDGE * np.eye(K)
    return np.sort([g @ np.linalg.solve(whole - 4 * np.outer(g, g), g) for g in x])


def test_what_is_outside_by_its_definition():
    """Of 39 structures the 38th of left-out variances for 5 %, the 36th for 10 %; the largest, as
    `Influence.beyond` has it, where the 41st would be needed."""
    samples = structures(39)
    found, variances = found_of(samples), left_out_variances(samples)
    new = np.concatenate([s["energy"][0] for s in structures(200, seed=9)])
    size = found.deviations(new, "rigidity") ** 2
    for alarm, place in ((0.05, 38), (0.1, 36), (0.01, 39)):
        outside = error_bars(found, new, "energy", alarm=alarm).outside
        np.testing.assert_array_equal(outside, size > variances[place - 1])
        assert 0 < outside.sum() < 60
    np.testing.assert_array_equal(outside, found.beyond(new, "energy"))
    assert error_bars(found, 10 * new, "energy").outside.mean() > 0.95


def test_one_strange_structure_does_not_blind_the_flag():
    """A hundred times as far out as all others: nothing is beyond it, much is outside."""
    samples = structures(50)
    for part in samples[3]["energy"]:
        part *= 100.0
    found = found_of(samples)
    assert not found.beyond(10 * G, "energy").any()
    assert error_bars(found, 10 * G, "energy").outside.all()


def test_a_structure_that_is_alone_counts_as_the_worst():
    samples = structures(30)
    for b, sample in enumerate(samples):
        sample["energy"][0][:, -1] *= b == 4
    found = found_of(samples, ridge=0.0)
    assert np.isfinite(error_bars(found, G, "energy", 0.1).score)
    assert np.isinf(error_bars(found, G, "energy", 0.04).half_widths).all()
    assert not error_bars(found, 1e6 * G, "energy", alarm=0.01).outside.any()


def test_rows_that_vanish_by_symmetry_have_no_score():
    """Up to what rounding leaves of them, whose labels would make any score; and no width."""
    samples = structures(30, each=4)
    plain = error_bars(found_of(samples), G, "forces")
    rng = np.random.default_rng(5)
    for sample in samples:
        rows, labels = sample["forces"]
        noise = 1e-14 * rng.normal(size=(2, K))
        sample["forces"] = np.concatenate([rows, noise]), np.append(labels, [1e-6, 0.0])
    bars = error_bars(found_of(samples), np.concatenate([G, noise]), "forces")
    assert bars.score == pytest.approx(plain.score, rel=1e-9)
    assert (bars.half_widths[:-2] > 0.0).all() and not bars.half_widths[-2:].any()
    perfect = [s | {"forces": (np.zeros((3, K)), np.zeros(3))} for s in samples]
    bars = error_bars(found_of(perfect), np.concatenate([G, 0 * G]), "forces")
    assert (
        bars.n_structures == 0 and np.isinf(bars.half_widths[:6]).all() and bars.outside[:6].all()
    )
    assert not bars.half_widths[6:].any() and not bars.outside[6:].any()


def test_a_kind_is_all_of_its_groups():
    samples = structures(40)
    whole = error_bars(found_of(samples), G, "energy")
    parted = [{("energy", "ab"[b % 2]): s["energy"]} for b, s in enumerate(samples)]
    grouped = found_of(parted)
    np.testing.assert_allclose(error_bars(grouped, G, "energy").score, whole.score, rtol=1e-9)
    assert error_bars(grouped, G, ("energy", "a")).n_structures == 20


def test_bad_input_is_refused():
    found = found_of(structures(30))
    with pytest.raises(ValueError, match="key is 'virial': wanted one that rows were given of"):
        error_bars(found, G, "virial")
    for share in (0.0, 1.0, math.nan, None):
        with pytest.raises(ValueError, match="miss is"):
            error_bars(found, G, "energy", share)
        with pytest.raises(ValueError, match="alarm is"):
            error_bars(found, G, "energy", alarm=share)
    with pytest.raises(ValueError, match="predictions have shape"):
        error_bars(found, G[:, 1:], "energy")
