"""Held-out errors are those of fits without the fold; the front is what no candidate beats."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.regression import cross_validation
from lprjax.regression.cross_validation import (
    CHOICES,
    Candidate,
    Front,
    compress_folds,
    fold_numbers,
    merged_folds,
    validation_front,
)
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.groups import compress_groups
from tests.helpers.strategies import FEW
from tests.helpers.training_sets import alloy_set

SPEC = ACESpec(("W",), 2, 4, 5.0, 2.74)
K = SPEC.n_columns
GROUPS = ("bulk", "liquid")
NOISE = {"energy": 0.01, "forces": 1.0, "virial": 0.1}
TRUTH = np.random.default_rng(5).normal(size=K)


def drawn(counts, folds=3, noise=NOISE):
    """Rows and targets by fold and key, (kind, group) -> X, y; the counts are of each fold."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(folds):
        rows = {key: rng.normal(size=(n, K)) for key, n in counts.items()}
        targets = {
            key: x @ TRUTH + noise[key[0]] * rng.normal(size=len(x)) for key, x in rows.items()
        }
        found.append({key: (rows[key], targets[key]) for key in counts})
    return found


FEW_ROWS = {  # fewer than K of some; no virials of the liquid
    ("energy", "bulk"): 7,
    ("energy", "liquid"): 4,
    ("forces", "bulk"): 30,
    ("forces", "liquid"): 9,
    ("virial", "bulk"): 6,
}
ROWS = drawn(FEW_ROWS)


def factors_of(data):
    return [{key: compress(*both) for key, both in fold.items()} for fold in data]


PARTS = factors_of(ROWS)


def weight_of(weights, key):
    return weights.get(key, weights[key[0]])


def left_out(data, weights, ridge, gamma):
    """What is missed of each fold by NumPy's fit to the rows of the others, by kind."""
    missed = {"energy": [], "forces": []}
    for fold in data:
        blocks = [
            weight_of(weights, key) * np.column_stack(both)
            for other in data
            if other is not fold
            for key, both in other.items()
        ]
        blocks.append(np.sqrt(ridge) * np.column_stack([np.diag(gamma), np.zeros(K)]))
        whole = np.concatenate(blocks)
        c = np.linalg.lstsq(whole[:, :-1], whole[:, -1], rcond=None)[0]
        for kind, of_kind in missed.items():
            of_kind.append(
                np.concatenate([x @ c - y for key, (x, y) in fold.items() if key[0] == kind])
            )
    return missed


@pytest.mark.parametrize("base", [None, {"energy": 2.0, ("energy", "liquid"): 0.5}], ids=str)
def test_held_out_errors_are_those_of_fits_without_the_fold(base):
    grid = {"energy": (3.0, 70.0), "virial": (0.5,), "ridges": (1e-3, 1.0), "powers": (0.0, 1.0)}
    front = validation_front([(SPEC, PARTS)], weights=base, **grid)
    tried = list(product(*grid.values()))
    assert len(front.candidates) == len(tried)
    for one, (energy, virial, ridge, power) in zip(front.candidates, tried, strict=True):
        wanted = {"energy": energy, "forces": 1.0, "virial": virial}
        if base:
            wanted = wanted | {"energy": 2 * energy, ("energy", "liquid"): 0.5 * energy}
        assert (one.spec, one.weights, one.ridge, one.power) == (SPEC, wanted, ridge, power)
        missed = left_out(ROWS, one.weights, ridge, smoothness_prior(SPEC, power))
        for kind, found in (("energy", one[4:6]), ("forces", one[6:8])):
            each = [np.sqrt(np.mean(fold**2)) for fold in missed[kind]]
            spread = np.std(each, ddof=1) / np.sqrt(len(each))
            np.testing.assert_allclose(found, [np.mean(each), spread], rtol=1e-9)


def test_the_chosen_loss_is_fitted_to_all_folds():
    one = validation_front([(SPEC, PARTS)], energy=(70.0,), ridges=(1e-3,)).candidates[0]
    found = one.fit(PARTS)
    whole = {
        key: compress(*map(np.concatenate, zip(*[f[key] for f in ROWS], strict=True)))
        for key in FEW_ROWS
    }
    prior = smoothness_prior(SPEC, one.power)
    wanted = fit(whole, one.weights, ridge=one.ridge, prior=prior)
    np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-9)
    assert found.n_rows == wanted.n_rows


def test_the_unit_of_weights_is_no_matter():
    """All weights times s and the ridge times s^2 are the same fits."""
    s, ridges = 37.0, np.array([1e-3, 1.0])
    plain = validation_front([(SPEC, PARTS)], ridges=ridges)
    scaled = dict.fromkeys(NOISE, s)
    other = validation_front([(SPEC, PARTS)], weights=scaled, ridges=s**2 * ridges)
    for one, two in zip(plain.candidates, other.candidates, strict=True):
        np.testing.assert_allclose(one[4:], two[4:], rtol=1e-8)
    for name in CHOICES:
        one, two = plain.chosen(name), other.chosen(name)
        assert plain.candidates.index(one) == other.candidates.index(two)


def test_weights_of_greatest_likelihood_are_the_best_of_both_errors():
    """Where the noise is known, 1 / noise is the weight of least variance (Gauss-Markov): a
    hundredth of it wastes the energies, a hundred times it the forces."""
    counts, noise = {("energy", "bulk"): 6, ("forces", "bulk"): 100}, {"energy": 0.2, "forces": 1.0}
    data = factors_of(drawn(counts, folds=6, noise=noise))
    grid = {"energy": (0.05, 5.0, 500.0), "ridges": (1e-10,), "powers": (2.0,)}
    (best,) = validation_front([(SPEC, data)], **grid).best
    assert best.weights["energy"] == 5.0  # forces: 1
    # What is missed is the noise, within four standard errors of 36 energies and of 600 forces.
    assert best.energy == pytest.approx(noise["energy"], rel=4 / np.sqrt(2 * 36))
    assert best.forces == pytest.approx(noise["forces"], rel=4 / np.sqrt(2 * 600))


def test_bases_compete():
    """The one that the data are of wins; the other has lost a column that they need."""
    short = ACESpec(("W",), 2, 3, 5.0, 2.74)
    lost = [
        {key: compress(x[:, : short.n_columns], y) for key, (x, y) in fold.items()}
        for fold in drawn(FEW_ROWS, noise=dict.fromkeys(NOISE, 1e-3))
    ]
    full = factors_of(drawn(FEW_ROWS, noise=dict.fromkeys(NOISE, 1e-3)))
    front = validation_front(iter([(short, lost), (SPEC, full)]), ridges=(1e-10,))
    assert {one.spec for one in front.candidates} == {short, SPEC}
    assert {one.spec for one in front.best} == {SPEC}


def test_a_column_that_only_one_fold_has():
    """As of an element in a single structure: without it the least-norm fit, coefficient zero."""
    data = [
        {key: (x * np.where(np.arange(K) == 4, k == 0, 1), y) for key, (x, y) in fold.items()}
        for k, fold in enumerate(ROWS)
    ]
    grid = {"energy": (3.0,), "virial": (0.5,), "ridges": (0.0, 1.0), "powers": (1.0,)}
    for one in validation_front([(SPEC, factors_of(data))], **grid).candidates:
        missed = left_out(data, one.weights, one.ridge, smoothness_prior(SPEC, one.power))
        for kind, found in (("energy", one.energy), ("forces", one.forces)):
            each = [np.sqrt(np.mean(fold**2)) for fold in missed[kind]]
            assert found == pytest.approx(np.mean(each), rel=1e-9)


def test_all_losses_are_one_program():
    """Weights, ridges and powers are its arguments."""
    kernel = cross_validation._squares
    validation_front([(SPEC, PARTS)], ridges=(1e-8, 1e-6), powers=(2.0,), energy=(1.0,))
    before = kernel._cache_size()
    validation_front([(SPEC, PARTS)], ridges=(1e-3,), powers=(1.0, 3.0), energy=(1.0, 2.0, 7.0))
    assert kernel._cache_size() == before


# --- the front ------------------------------------------------------------------------------


def candidate(energy, forces):
    return Candidate(SPEC, {"energy": 1.0, "forces": 1.0}, 0.0, 2.0, energy, 0.1, forces, 0.1)


ERROR = st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, np.inf])


@FEW
@given(st.lists(st.tuples(ERROR, ERROR), min_size=1, max_size=12))
def test_the_front_is_what_no_other_beats(errors):
    """In both, or in one at the same other."""
    front = Front(tuple(candidate(*pair) for pair in errors))
    finite = {pair for pair in errors if np.isfinite(pair).all()}
    beaten = {b for a in finite for b in finite if a != b and a[0] <= b[0] and a[1] <= b[1]}
    assert [(one.energy, one.forces) for one in front.best] == sorted(finite - beaten)


THREE = Front(tuple(candidate(*pair) for pair in ((1.0, 9.0), (2.0, 4.0), (6.0, 3.0), (7.0, 8.0))))


@pytest.mark.parametrize(
    "name, within, energy",
    [
        ("energy", 0.01, 1.0),
        ("forces", 0.01, 6.0),
        ("balanced", 0.01, 2.0),  # of 9, 8, 18
        ("energy", 0.0, 1.0),
        ("forces", 0.4, 2.0),  # 4 of at most 3 x 1.4
        ("forces", 2.0, 1.0),
        ("energy", 1.0, 2.0),
        ("energy", 9.0, 6.0),
        ("balanced", 9.0, 2.0),
    ],
)
def test_named_choices(name, within, energy):
    assert THREE.chosen(name, within=within).energy == energy


def test_the_ends_of_the_front_are_not_worth_any_price():
    """Errors within 1 % are alike, and the other kind decides."""
    pairs = ((1.0, 9.0), (1.009, 5.0), (1.02, 4.0), (2.0, 3.02), (7.0, 3.0))
    front = Front(tuple(candidate(*pair) for pair in pairs))
    assert front.chosen("energy").energy == 1.009 and front.chosen("forces").energy == 2.0


def test_what_has_no_finite_errors_is_on_no_front():
    none = Front((candidate(np.inf, np.inf),))
    assert not none.best and "balanced: the least product" in str(none)
    with pytest.raises(ValueError, match="no candidate has finite errors: .* ridges above zero"):
        none.chosen("energy")


def test_the_balance_knows_no_units():
    """Of energies in other units the same candidate."""
    scaled = Front(tuple(one._replace(energy=1e3 * one.energy) for one in THREE.candidates))
    assert scaled.chosen("balanced").energy == 1e3 * THREE.chosen("balanced").energy


def test_the_front_is_printed_with_its_choices():
    """A line for each of the front, the names behind it, and the rules."""
    _, *lines = str(THREE).splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["energy", "balanced", "forces"]
    assert lines[1].startswith("2000.000 ± 100.000  4.0000 ± 0.1000 ")
    assert lines[3:] == [f"{name}: {rule}" for name, rule in CHOICES.items()]


# --- folds ----------------------------------------------------------------------------------


@FEW
@given(st.lists(st.sampled_from("abc"), min_size=5, max_size=40), st.integers(2, 5))
def test_folds_share_every_group(groups, folds):
    numbers = fold_numbers(groups, folds)
    for name in {*groups, None}:
        mine = [n for n, group in zip(numbers, groups, strict=True) if name in (None, group)]
        counts = np.bincount(mine, minlength=folds)
        assert counts.sum() == len(mine) and np.ptp(counts) <= 1
    np.testing.assert_array_equal(numbers, fold_numbers(groups, folds))


def test_folds_together_are_the_training_set():
    data = alloy_set()
    spec = ACESpec(("W", "Mo"), 2, 3, 5.0, 2.74, constant=True)
    parts = compress_folds(spec, data, 2, "energy", apart=["all"])
    whole = compress_groups(spec, data, "energy", apart=["all"])
    merged = merged_folds(parts)
    assert whole.keys() == merged.keys() and len(parts) == 2
    for key, factor in whole.items():
        found = merged[key]
        assert found.n_rows == factor.n_rows == sum(part[key].n_rows for part in parts)
        gram, wanted = (
            np.asarray(f.triangular).T @ np.asarray(f.triangular) for f in (found, factor)
        )
        np.testing.assert_allclose(gram, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
        squares = [np.sum(np.asarray(f.target) ** 2) + float(f.residual) for f in (found, factor)]
        assert squares[0] == pytest.approx(squares[1], rel=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fold_numbers("abc", 1), "folds is 1: wanted at least 2 and at most 3"),
        (lambda: fold_numbers("abc", 4), "folds is 4: wanted at least 2 and at most 3"),
        (lambda: validation_front([]), "bases is empty"),
        (lambda: validation_front([(SPEC, PARTS)], energy=()), "energy is empty"),
        (lambda: validation_front([(SPEC, PARTS)], ridges=(-1.0,)), "one of ridges is -1.0"),
        (lambda: validation_front([(SPEC, PARTS[:1])]), r"\[11\] energies .*two folds"),
        (
            lambda: validation_front(
                [(SPEC, [{k: f for k, f in part.items() if k[0] == "energy"} for part in PARTS])]
            ),
            r"\[0, 0, 0\] forces: wanted some of both",
        ),
        (
            lambda: validation_front([(SPEC, PARTS)], weights={("energy", "gas"): 1.0}),
            r"weights hold \('energy', 'gas'\): wanted kinds or keys of the data",
        ),
        (lambda: THREE.chosen("knee"), "name is 'knee': wanted one of balanced, energy, forces"),
        (lambda: THREE.chosen("energy", within=-1.0), "within is -1.0"),
    ],
)
def test_what_cannot_be_validated_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
