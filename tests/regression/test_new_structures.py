"""Conformal intervals hold new structures as often as they say, and few structures say nothing."""

import math

import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.new_structures import conformal, split_conformal

DRAWS = 2000
ERROR = 4 * 0.4 / math.sqrt(DRAWS)  # four standard errors of a fraction of 0.8 or more


def structures(rng, n, atoms=(1, 2, 5)):
    """Force residuals of n structures of different sizes, (3 atoms,): heavy tails, and what a
    structure's rows share decides more than what they do not."""
    return [
        rng.standard_t(2) * (1.0 + 0.3 * rng.normal(size=3 * rng.choice(atoms))) for _ in range(n)
    ]


def taken(parts, **options):
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return conformal(np.concatenate(parts), None, owners, **options)


HELD = {
    "row": lambda new, q, rng: abs(rng.choice(new)) <= q,
    "atom": lambda new, q, rng: (abs(new.reshape(-1, 3)[rng.integers(len(new) // 3)]) <= q).all(),
    "structure": lambda new, q, rng: (abs(new) <= q).all(),
}


@pytest.mark.parametrize("of", HELD)
@pytest.mark.parametrize(("n", "miss"), [(4, 0.2), (9, 0.1), (25, 0.1)])
def test_new_structures_are_held_as_often_as_said(of, n, miss):
    """A theorem for any n, here of t_2 residuals that go together: at least 1 - a and, of whole
    structures, whose scores have no ties, less than 1 - a + 1/(n + 1)."""
    rng, held = np.random.default_rng(n), 0
    for _ in range(DRAWS):
        *old, new = structures(rng, n + 1)
        held += HELD[of](new, taken(old, miss=miss, of=of).score, rng)
    assert held / DRAWS > 1 - miss - ERROR
    if of == "structure":
        assert held / DRAWS < 1 - miss + 1 / (n + 1) + ERROR


def test_rows_are_no_structures():
    """The quantile of all rows as if they were independent holds far fewer: the test above can
    fail."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        *old, new = structures(rng, 5, atoms=(8,))
        held += abs(rng.choice(new)) <= conformal(np.concatenate(old), miss=0.1).score
    assert held / DRAWS < 0.85


@pytest.mark.parametrize("miss", [0.05, 0.1, 0.2, 0.32])
def test_too_few_structures_give_an_infinite_interval_and_say_so(miss):
    """n < 1/a - 1, whatever the number of rows; one more is enough: the largest score."""
    rng, least = np.random.default_rng(1), math.ceil(1 / miss) - 1
    parts = [rng.normal(size=30) for _ in range(least)]
    enough, few = taken(parts, miss=miss, of="structure"), taken(parts[1:], miss=miss)
    assert enough.wanted == few.wanted == least
    assert enough.score == max(abs(part).max() for part in parts)
    assert math.isinf(few.score) and np.isinf(few.half_widths(np.array([0.0, 1.0]))).all()
    assert f"infinite, from {least - 1} structures, too few for it, wanted {least}" in str(few)
    assert f"± {enough.score:.4g} deviations, from {least} structures" in str(enough)


def test_scores_are_the_definition():
    """Of the row: the least q by trying all; of structure and atom by sorting."""
    rng = np.random.default_rng(2)
    parts = structures(rng, 12)
    sigma = [rng.uniform(0.5, 2.0, size=len(part)) for part in parts]
    owners = np.repeat(np.arange(12), [len(part) for part in parts])[::-1]
    r, s = np.concatenate(parts)[::-1], np.concatenate(sigma)[::-1]
    t = [abs(part) / scale for part, scale in zip(parts, sigma, strict=True)]
    found = conformal(r, s, owners, miss=0.3)
    candidates = np.sort(np.concatenate(t))
    good = [q for q in candidates if sum(np.mean(x <= q) for x in t) >= 0.7 * 13 - 1e-9]
    assert found.score == good[0] and found.n_structures == 12 and found.largest == s.max()
    wanted = np.sort([x.max() for x in t])[math.ceil(0.7 * 13) - 1]
    assert conformal(r, s, owners, miss=0.3, of="structure").score == wanted
    by_atom = [x.reshape(-1, 3).max(axis=1) for x in t]
    candidates = np.sort(np.concatenate(by_atom))
    good = [q for q in candidates if sum(np.mean(x <= q) for x in by_atom) >= 0.7 * 13 - 1e-9]
    assert conformal(r, s, owners, miss=0.3, of="atom").score == good[0]


def test_deviations_scale_and_outside():
    found = conformal(np.arange(1.0, 20.0), np.full(19, 2.0), miss=0.1)
    assert found.score == 9.0  # the 18th smallest of 19
    np.testing.assert_array_equal(found.half_widths([0.0, 2.0, 10.0]), [0.0, 18.0, 90.0])
    np.testing.assert_array_equal(found.outside([1.0, 2.0, 2.1]), [False, False, True])
    zero = conformal(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0]), miss=0.5)
    assert zero.score == 2.0
    assert math.isinf(conformal(np.array([1.0, 1.0, 2.0]), np.zeros(3), miss=0.5).score)


K = 5


def cells(rng, n, shift=0.0):
    found = []
    for _ in range(n):
        x = rng.normal(size=(7, K)) + shift
        y = x @ np.arange(1.0, K + 1) + 0.3 * x[:, 0] ** 2 + 0.2 * rng.normal()
        found.append({"energy": (x[:1], y[:1]), ("forces", "b"): (x[1:], y[1:])})
    return found


def of(samples, **loss):
    rows = {
        key: map(np.concatenate, zip(*[s[key] for s in samples], strict=True)) for key in samples[0]
    }
    factors = {key: compress(*both) for key, both in rows.items()}
    return fit(factors, {"energy": 2.0, "forces": 1.0}, **loss)


def test_split_conformal_is_by_kind_and_out_of_sample():
    """Scores by LAPACK; coverage of 2000 new cells for each of 30 fits, its mean within three
    standard errors of the fits."""
    rng = np.random.default_rng(3)
    new = cells(rng, 2000)
    held = []
    for _ in range(30):
        done, validation = of(cells(rng, 30), ridge=1e-3), cells(rng, 20)
        found = split_conformal(done, validation, miss=0.1, of="atom")
        inverse = np.linalg.inv(done.factor.T @ done.factor)
        c = np.asarray(done.coefficients)
        x, y = (np.concatenate([s["energy"][k] for s in new]) for k in (0, 1))
        sigma = np.sqrt(np.einsum("ri,ij,rj->r", x, inverse, x))
        held.append(np.mean(abs(y - x @ c) <= found["energy"].half_widths(sigma)))
    assert np.mean(held) > 0.9 - 3 * np.std(held) / math.sqrt(30)
    assert (found["energy"].of, found["forces", "b"].of) == ("row", "atom")
    x, y = (np.concatenate([s["energy"][k] for s in validation]) for k in (0, 1))
    t = np.sort(abs(y - x @ c) / np.sqrt(np.einsum("ri,ij,rj->r", x, inverse, x)))
    assert found["energy"].score == pytest.approx(t[math.ceil(0.9 * 21) - 1], rel=1e-9)
    far = np.concatenate([s["energy"][0] for s in cells(rng, 50, shift=20.0)])
    sigma = np.sqrt(np.einsum("ri,ij,rj->r", far, inverse, far))
    assert found["energy"].outside(sigma).all()


ONES = np.ones(6)


def test_bad_input_is_refused():
    for arguments in ((ONES, ONES[:2]), (ONES[None],), (ONES, None, np.arange(3)), (ONES[:0],)):
        with pytest.raises(ValueError, match="residuals have shape"):
            conformal(*arguments)
    with pytest.raises(ValueError, match="NaN"):
        conformal(np.nan * ONES)
    with pytest.raises(ValueError, match="negative or NaN"):
        conformal(ONES, -ONES)
    with pytest.raises(ValueError, match="negative or NaN"):
        conformal(ONES).half_widths([np.nan])
    with pytest.raises(TypeError, match="float32"):
        conformal(ONES.astype(np.float32))
    for miss in (0.0, 1.0, math.nan, None):
        with pytest.raises(ValueError, match="miss is"):
            conformal(ONES, miss=miss)
    with pytest.raises(ValueError, match="of is 'cell'"):
        conformal(ONES, of="cell")
    for owners in (np.arange(6), np.array([0, 0, 1, 1, 1, 0])):
        with pytest.raises(ValueError, match="no whole atoms"):
            conformal(ONES, None, owners, of="atom")
    with pytest.raises(ValueError, match="no whole atoms"):
        conformal(ONES[:4], None, np.zeros(4), of="atom")
    done = of(cells(np.random.default_rng(0), 9))
    with pytest.raises(ValueError, match="samples is empty"):
        split_conformal(done, [])
    with pytest.raises(ValueError, match="structure 5: rows of 'energy'"):
        split_conformal(done, [(5, {"energy": (np.ones((1, 2)), np.ones(1))})])
