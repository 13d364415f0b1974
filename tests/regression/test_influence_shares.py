"""Shares of several workers, in any order, are one pass; each can be sent to another process."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.influence_results import DEVIATIONS
from lprjax.regression.influences import influence, influence_share, merged_influence
from tests.helpers.rows_of_structures import drawn

K = 7
COUNTS = [{"energy": 1, "forces": 3}, {"energy": 1}, {"forces": 5, "virial": 6}, {"virial": 2}]
SAMPLES = drawn(COUNTS * 5, K)
NUMBERED = list(enumerate(SAMPLES))
G = np.random.default_rng(0).normal(size=(4, K))


def fitted():
    keys = list(dict.fromkeys(key for parts in SAMPLES for key in parts))
    rows = {
        key: map(np.concatenate, zip(*[p[key] for p in SAMPLES if key in p], strict=True))
        for key in keys
    }
    weights = {"energy": 3.0, "forces": 1.0, "virial": 0.5}
    return fit({key: compress(*both) for key, both in rows.items()}, weights, ridge=1e-3)


FIT = fitted()
SPLITS = {
    "halves": [NUMBERED[:10], NUMBERED[10:]],
    "backwards and one empty": [NUMBERED[13:], [], NUMBERED[5:13][::-1], NUMBERED[:5]],
    "one each": [[sample] for sample in NUMBERED],
}


def assert_same(found, wanted):
    """To rounding: all that an Influence says."""
    np.testing.assert_array_equal(found.numbers, wanted.numbers)
    for name in ("residuals", "left_out", "leverages", "left_out_variances", "owners"):
        one, two = getattr(found, name), getattr(wanted, name)
        assert set(one) == set(two)
        for key, x in one.items():
            np.testing.assert_allclose(x, two[key], rtol=1e-10, atol=1e-12)
    for kind in DEVIATIONS:
        np.testing.assert_allclose(
            found.deviations(G, kind), wanted.deviations(G, kind), rtol=1e-10
        )
    np.testing.assert_allclose(found.moves.left_out, wanted.moves.left_out, atol=1e-12)
    for a, b in zip(found.moves[2:], wanted.moves[2:], strict=True):
        np.testing.assert_allclose(a[:3], b[:3], rtol=1e-9)
        assert a.count == b.count


@pytest.mark.parametrize("name", SPLITS)
def test_shares_are_one_pass(name):
    """Sent as bytes, as a worker of another process would."""
    shares = [influence_share(FIT, part, predictions=G) for part in SPLITS[name]]
    sent = [pickle.loads(pickle.dumps(share)) for share in shares]
    assert_same(merged_influence(FIT, sent), influence(FIT, SAMPLES, predictions=G))


def test_an_executor_makes_the_shares():
    work = partial(influence_share, FIT, predictions=G)
    with ThreadPoolExecutor(2) as executor:
        found = merged_influence(FIT, executor.map(work, SPLITS["halves"]))
    assert_same(found, influence(FIT, SAMPLES, predictions=G))


def test_a_share_holds_no_rows():
    """Of a structure with 3000 force components 5 numbers for each, and its owner; not 7 more."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, K)), rng.normal(size=3000)
    done = fit({"forces": compress(x, y)}, {"forces": 1.0}, ridge=1.0)
    sizes = [
        len(pickle.dumps(influence_share(done, [{"forces": (x[:n], y[:n])}]))) for n in (8, 3000)
    ]
    assert (sizes[1] - sizes[0]) / (8 * 2992) == pytest.approx(5.0, abs=0.1)


def test_bad_shares_are_refused():
    one, two = ([sample] for sample in NUMBERED[:2])
    share = partial(influence_share, FIT)
    with pytest.raises(ValueError, match="structure 0 is in two shares"):
        merged_influence(FIT, [share(one), share(one)])
    with pytest.raises(ValueError, match="different fits or predictions"):
        merged_influence(FIT, [share(one, predictions=G), share(two)])
    with pytest.raises(ValueError, match="different fits or predictions"):
        merged_influence(FIT, [share(one, predictions=G), share(two, predictions=2 * G)])
    with pytest.raises(ValueError, match="samples have .* rows of"):
        merged_influence(FIT, [share(one), share(two)])
    with pytest.raises(ValueError, match="samples is empty"):
        merged_influence(FIT, [])
    with pytest.raises(ValueError, match="samples is empty"):
        merged_influence(FIT, [share([])])
