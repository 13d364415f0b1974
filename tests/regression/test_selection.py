"""Choosing data: rank updates equal a factorisation anew, and greedy picks equal brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.selection import RULES, _scored, add_rows, choose, remove_rows

K = 12
RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(60, K))
TARGETS = RNG.normal(size=(4, K))
CANDIDATES = [RNG.normal(size=(3, K)) * 10.0 ** RNG.uniform(-1, 1) for _ in range(7)]
KEY = jax.random.key(3)


def factor_of(rows, ridge=0.0):
    data = {"energy": compress(rows, np.zeros(len(rows)), block_rows=32)}
    return np.asarray(fit(data, {"energy": 1.0}, ridge=ridge).factor)


FACTOR = factor_of(ROWS[:20], ridge=1e-3)


def close(found, expected, atol=1e-9):
    """Same R, relative to its columns: what a rounding of the rows does to it."""
    scale = np.linalg.norm(expected, axis=0).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol * scale)


def with_condition(condition):
    """Rows whose singular values span a range, in no particular direction."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(K, K)))[0]
    return ROWS @ (basis * np.geomspace(1.0, 1.0 / condition, K)) @ basis.T


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("r", [1, 20])
def test_updates_equal_a_factorisation_anew(condition, r):
    rows = with_condition(condition)
    whole, rest = factor_of(rows), factor_of(rows[r:])
    close(add_rows(rest, rows[:r]), whole)
    close(remove_rows(whole, rows[:r]), rest)
    close(remove_rows(add_rows(rest, rows[:r]), rows[:r]), rest)


def test_units_of_features_do_not_matter():
    """Columns in units 16 orders of magnitude apart: each is right relative to itself."""
    units = np.geomspace(1e-8, 1e8, K)
    whole, rest = factor_of(ROWS * units), factor_of(ROWS[20:] * units)
    close(add_rows(rest, ROWS[:20] * units) / units[None], rest_plus := factor_of(ROWS))
    close(remove_rows(whole, ROWS[:20] * units) / units[None], factor_of(ROWS[20:]))
    close(whole / units[None], rest_plus)


def test_the_rigidity_after_an_update():
    added = add_rows(FACTOR, ROWS[20:40])
    hessian = ROWS[:40].T @ ROWS[:40] + 1e-3 * np.eye(K)
    expected = 1.0 / np.einsum("tk,kl,tl->t", TARGETS, np.linalg.inv(hessian), TARGETS)
    np.testing.assert_allclose(prediction_rigidity(added, TARGETS), expected, rtol=1e-11)


@pytest.mark.parametrize("kept", [0, 5])
def test_rank_loss_is_exact(kept):
    """With fewer rows than columns left, what they do not hold has rigidity zero."""
    left = np.asarray(remove_rows(factor_of(ROWS[: kept + 20]), ROWS[kept : kept + 20]))
    close(left.T @ left, ROWS[:kept].T @ ROWS[:kept] if kept else np.zeros((K, K)), 1e-12)
    if kept:
        inside = RNG.normal(size=kept) @ ROWS[:kept]
        found = prediction_rigidity(left, np.stack([inside, TARGETS[0]]), rcond=1e-6)
        gram = ROWS[:kept].T @ ROWS[:kept]
        expected = 1.0 / (inside @ np.linalg.pinv(gram, rcond=1e-9) @ inside)
        np.testing.assert_allclose(found, [expected, 0.0], rtol=1e-6)


def test_one_direction_that_only_the_removed_row_held():
    rows = ROWS.copy()
    rows[1:, 3] = rows[1:, 7]
    left = np.asarray(remove_rows(factor_of(rows), rows[:1]))
    close(left.T @ left, rows[1:].T @ rows[1:], 1e-12)
    only = np.eye(K)[3] - np.eye(K)[7]
    assert prediction_rigidity(left, only) == 0.0 < prediction_rigidity(left, rows[1])


def test_singular_factors():
    """Adding to nothing, and removing from fewer rows than columns or from dependent columns."""
    close(add_rows(np.zeros((K, K)), ROWS[:20]), factor_of(ROWS[:20]))
    dependent = ROWS[:, :5] @ RNG.normal(size=(5, K))
    dependent[:, 0] = 0.0
    triangular = np.linalg.qr(dependent)[1]  # LAPACK's: its first row goes on past a zero
    assert triangular[0, 0] == 0.0 < np.abs(triangular[0]).max()
    added, both = np.asarray(add_rows(triangular, ROWS[:3])), np.concatenate([dependent, ROWS[:3]])
    close(added.T @ added, both.T @ both, 1e-12)
    for rows, r in ((ROWS[:8], 1), (dependent, 20)):
        left = np.asarray(remove_rows(factor_of(rows), rows[:r]))
        close(left.T @ left, rows[r:].T @ rows[r:], 1e-11)


jitted = jax.jit(remove_rows)


@pytest.mark.parametrize(
    "rows, absent",
    [
        (ROWS, 3.0 * ROWS[:1]),  # more than is there, though in the same direction
        (ROWS[:14], np.concatenate([ROWS[:10], ROWS[:10]])),  # each is there, but once
        (ROWS[:8], RNG.normal(size=(1, K))),  # outside the range of a singular R
        (ROWS[:8], 3.0 * ROWS[:1]),
    ],
)
def test_what_is_not_there_cannot_be_removed(rows, absent):
    factor = factor_of(rows)
    with pytest.raises(ValueError, match="not in the factor"):
        remove_rows(factor, absent)
    assert np.isnan(jitted(factor, absent)[0, 0])
    assert np.isfinite(jitted(factor, rows[:1])).all()


def test_zero_rows_and_signs_change_nothing():
    for rows in (np.zeros((20, K)), np.zeros((0, K))):
        close(add_rows(FACTOR, rows), FACTOR, 1e-15)
        close(remove_rows(FACTOR, rows), FACTOR, 1e-15)
    flipped = FACTOR * np.where(np.arange(K) % 2, 1.0, -1.0)[:, None]
    close(add_rows(flipped, ROWS[:1]), add_rows(FACTOR, ROWS[:1]), 1e-14)
    close(remove_rows(flipped, ROWS[:1]), remove_rows(FACTOR, ROWS[:1]), 1e-12)


# --- choosing ----------------------------------------------------------------------------------


def anew(chosen):
    """PR of the targets and ln det H by a factorisation of everything."""
    factor = factor_of(np.concatenate([ROWS[:20], *chosen]), ridge=1e-3)
    return prediction_rigidity(factor, TARGETS), 2 * np.log(np.abs(np.diag(factor))).sum()


MEANING = {  # what each rule makes largest, of PR of the targets and ln det H
    "rigidity": lambda rigidity, log_det: np.mean(rigidity),
    "log_rigidity": lambda rigidity, log_det: np.mean(np.log(rigidity)),
    "variance": lambda rigidity, log_det: -np.mean(1.0 / np.asarray(rigidity)),
    "d_optimal": lambda rigidity, log_det: log_det,
}


def score(rule, chosen):
    return float(MEANING[rule](*anew(chosen)))


def test_each_rule_has_a_taste_of_its_own():
    """Rows along axes, H = 1 before: PR of a target grows by the square of the row along it.

    All of it on one target has the largest mean PR, much on two of three the least mean 1/PR, and
    the largest mean of its logarithm, a bit on each the least of the largest 1/PR, which no rule
    looks at, and many axes the largest determinant: the rise of ln det H is the sum of
    ln(1 + square).
    """
    axes = np.eye(K)
    candidates = [100 * axes[:1], 20 * axes[:2], 0.8 * axes[:3], 20 * axes[3:9]]
    assert MEANING.keys() == RULES.keys()
    for rule, best in (("rigidity", 0), ("variance", 1), ("log_rigidity", 1), ("d_optimal", 3)):
        assert choose(axes, candidates, axes[:3], 1, rule=rule).order[0] == best


def test_the_log_mean_counts_every_target_alike():
    """A hundredfold gain of the least rigid target is worth less than fourhundredfold ones of two
    others, which its variance hides; and no unit of a target matters to the log-mean."""
    axes, units = np.eye(K), np.geomspace(1e-4, 1e4, len(TARGETS))[:, None]
    start = np.diag([0.1, *np.ones(K - 1)])
    candidates = [axes[:1], 20 * axes[1:3]]
    for rule, best in (("variance", 0), ("log_rigidity", 1)):
        assert choose(start, candidates, axes[:3], 1, rule=rule).order[0] == best
    orders = {
        rule: [
            choose(FACTOR, CANDIDATES, t, 7, rule=rule).order for t in (TARGETS, units * TARGETS)
        ]
        for rule in ("variance", "log_rigidity")
    }
    np.testing.assert_array_equal(*orders["log_rigidity"])
    assert (orders["variance"][0] != orders["variance"][1]).any()


def test_more_targets_than_coefficients_are_summed_up_for_their_variance():
    """The order is that of brute force, and rigidities are those of every target."""
    many = np.random.default_rng(1).normal(size=(5 * K, K)) * np.geomspace(0.1, 10, 5 * K)[:, None]
    found = choose(FACTOR, CANDIDATES, many, 3, rule="variance")
    chosen = []
    for best in found.order:
        after = {}
        for c in set(range(len(CANDIDATES))) - set(chosen):
            rows = [ROWS[:20], *[CANDIDATES[k] for k in [*chosen, c]]]
            after[c] = 1.0 / prediction_rigidity(factor_of(np.concatenate(rows), 1e-3), many)
        assert best == min(after, key=lambda c: after[c].sum())
        chosen.append(int(best))
        np.testing.assert_allclose(1.0 / found.rigidity[len(chosen)], after[best], rtol=1e-10)


def test_of_one_target_all_rules_about_targets_say_the_same():
    orders = [
        choose(FACTOR, CANDIDATES, TARGETS[:1], 7, rule=rule).order
        for rule in RULES
        if rule != "d_optimal"
    ]
    assert all((order == orders[0]).all() for order in orders)
    np.testing.assert_array_equal(choose(FACTOR, CANDIDATES, TARGETS[:1], 7).order, orders[0])


@pytest.mark.parametrize("rule", RULES)
def test_every_pick_equals_brute_force(rule):
    found = choose(FACTOR, CANDIDATES, TARGETS, 4, rule=rule)
    assert len(set(found.order.tolist())) == 4
    for pick, best in enumerate(found.order):
        before = [CANDIDATES[c] for c in found.order[:pick]]
        left = [c for c in range(len(CANDIDATES)) if c not in found.order[:pick]]
        scores = [score(rule, [*before, CANDIDATES[c]]) for c in left]
        assert left[int(np.argmax(scores))] == best


@pytest.mark.parametrize("rule", [*RULES, "random"])
def test_the_record_of_a_choice_equals_a_factorisation_anew(rule):
    key = KEY if rule == "random" else None
    found = choose(FACTOR, CANDIDATES, TARGETS, 7, rule=rule, key=key)
    chosen, start = [CANDIDATES[c] for c in found.order], anew([])
    for pick in range(8):
        rigidity, log_det = anew(chosen[:pick])
        np.testing.assert_allclose(found.rigidity[pick], rigidity, rtol=1e-10)
        assert found.log_det[pick] == pytest.approx(log_det - start[1], abs=1e-10)
    assert (np.diff(found.rigidity, axis=0) >= 0.0).all() and (np.diff(found.log_det) > 0.0).all()
    assert sorted(found.order) == list(range(7))
    close(found.factor, factor_of(np.concatenate([ROWS[:20], *chosen]), ridge=1e-3))


def test_gain_of_one_row():
    """It takes (v.w)^2 / (1 + v.v) from a variance, and adds ln(1 + v.v) to ln det H."""
    row = ROWS[30:31]
    v, w = np.linalg.solve(FACTOR.T, row[0]), np.linalg.solve(FACTOR.T, TARGETS.T).T
    found = choose(FACTOR, [row], TARGETS, 1)
    gain = (w @ v) ** 2 / (1.0 + v @ v)
    np.testing.assert_allclose(-np.diff(1.0 / found.rigidity, axis=0)[0], gain, rtol=1e-10)
    assert found.log_det[1] == pytest.approx(np.log1p(v @ v), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_what_a_candidate_is_judged_by(scale):
    """w^T (I + V^T V)^-1 w and ln det(I + V V^T), by dense matrices."""
    v, w = scale * RNG.normal(size=(3, K)), RNG.normal(size=(4, K))
    variance, log_det = _scored(jnp.asarray(v), jnp.asarray(w))
    u, s, vt = np.linalg.svd(v)
    root = np.concatenate([1.0 / np.hypot(1.0, s), np.ones(K - 3)])
    np.testing.assert_allclose(variance, np.sum((w @ vt.T * root) ** 2, axis=1), rtol=1e-12)
    assert float(log_det) == pytest.approx(np.log1p(s**2).sum(), rel=1e-12)


def test_a_variance_keeps_its_digits_where_it_falls_by_many_orders():
    """The ridge alone holds the target at first: 1/PR falls from 1e16 to 1, here by difference
    nothing would be left of it."""
    row = np.eye(K)[:1]
    found = choose(1e-8 * np.eye(K), [row], row, 1)
    np.testing.assert_allclose(found.rigidity[:, 0], [1e-16, 1.0], rtol=1e-12)
    judged, _ = _scored(1e8 * row, 1e8 * row)
    np.testing.assert_allclose(judged, [1.0], rtol=1e-12)


def test_rotation_of_feature_space_changes_no_choice():
    turn = np.linalg.qr(RNG.normal(size=(K, K)))[0]
    turned = factor_of(np.concatenate([FACTOR, np.zeros((1, K))]) @ turn)
    for rule in RULES:
        first = choose(FACTOR, CANDIDATES, TARGETS, 5, rule=rule)
        second = choose(turned, [c @ turn for c in CANDIDATES], TARGETS @ turn, 5, rule=rule)
        np.testing.assert_array_equal(first.order, second.order)
        np.testing.assert_allclose(first.rigidity, second.rigidity, rtol=1e-9)


def test_stacks_of_different_sizes():
    """Empty ones gain nothing and come last; those of more rows than columns are compressed."""
    stacks = [np.zeros((0, K)), ROWS[20:21], np.zeros((2, K)), ROWS[30:60]]
    found = choose(FACTOR, stacks, TARGETS, 4)
    np.testing.assert_array_equal(found.order, [3, 1, 0, 2])
    np.testing.assert_allclose(found.rigidity[2:], found.rigidity[4:] * np.ones((3, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.rigidity[4], anew([ROWS[20:21], ROWS[30:60]])[0], rtol=1e-10)


def test_ties_and_draws():
    twins = [CANDIDATES[0]] * 7
    np.testing.assert_array_equal(choose(FACTOR, twins, TARGETS, 3).order, [0, 1, 2])
    draws = [
        choose(FACTOR, CANDIDATES, TARGETS, 7, rule="random", key=k).order
        for k in (KEY, KEY, jax.random.key(4))
    ]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_a_greedy_choice_beats_the_mean_draw():
    draws = jax.random.split(KEY, 20)
    greedy = choose(FACTOR, CANDIDATES, TARGETS, 3, rule="rigidity").rigidity[-1].mean()
    random = [
        choose(FACTOR, CANDIDATES, TARGETS, 3, rule="random", key=k).rigidity[-1].mean()
        for k in draws
    ]
    assert greedy >= max(random) * (1 - 1e-12) and greedy > 1.05 * np.mean(random)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"factor": factor_of(ROWS[:5])}, "small ridge"),
        ({"factor": FACTOR @ FACTOR.T}, "not upper triangular"),
        ({"factor": FACTOR[:3]}, "square"),
        ({"candidates": [ROWS[:2, :3]]}, "one entry per column"),
        ({"candidates": [ROWS[:2], np.full((1, K), np.nan)]}, "candidate 1"),
        ({"targets": np.zeros((1, K))}, "depends on no coefficient"),
        ({"targets": np.zeros((0, K))}, "targets are empty"),
        ({"targets": np.stack([TARGETS[0], 1e-14 * TARGETS[1]])}, "zero .to rounding beside"),
        ({"targets": TARGETS[0]}, "one entry per column"),
        ({"count": 8}, "count is 8: wanted a whole number from 1 to that of candidates"),
        ({"count": 0}, "count is 0: wanted a whole number from 1 to that of candidates"),
        ({"candidates": [], "count": 1}, "to that of candidates, 0"),
        ({"rule": "luck"}, "wanted 'random' with a key"),
        ({"rule": "random"}, "wanted 'random' with a key"),
        ({"key": KEY}, "wanted 'random' with a key"),
    ],
)
def test_errors_at_the_door(change, message):
    given = dict(factor=FACTOR, candidates=CANDIDATES, targets=TARGETS, count=2) | change
    with pytest.raises(ValueError, match=message):
        choose(**given)


@pytest.mark.parametrize("update", [add_rows, remove_rows])
def test_errors_of_the_updates(update):
    for factor, rows, message in (
        (FACTOR, ROWS[0], "single row as"),
        (FACTOR.T, ROWS[:1], "not upper triangular"),
    ):
        with pytest.raises(ValueError, match=message):
            update(factor, rows)
    with pytest.raises(TypeError, match="float64"):
        update(FACTOR, ROWS[:1].astype(np.float32))


def test_a_choice_prints_what_each_pick_gained():
    chosen = choose(FACTOR, CANDIDATES, TARGETS, 3)
    _, _, *rows, note = str(chosen).splitlines()
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert [int(row.split()[1]) for row in rows[1:]] == list(chosen.order)
    means = [float(row.split()[-3]) for row in rows]
    assert means == pytest.approx(chosen.rigidity.mean(axis=1), rel=1e-3)
    assert note.startswith("PR in 1 / (unit") and "<table>" in chosen._repr_html_()
