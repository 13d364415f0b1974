"""Left-out residuals and moves are those of refits; covariances and POPS, of dense formulas."""

import re

import numpy as np
import pytest

import lprjax as lp
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.regression import influences
from lprjax.regression.assembly import structure_rows
from lprjax.regression.factors import compress
from lprjax.regression.fitting import fit
from lprjax.regression.groups import compress_groups
from lprjax.regression.influence_results import DEVIATIONS
from lprjax.regression.influences import influence
from lprjax.regression.samples import stacked_rows
from tests.helpers.training_sets import alloy_set

SPEC = ACESpec(("W",), 2, 4, 5.0, 2.74)
K = SPEC.n_columns
WEIGHTS = {"energy": 3.0, ("forces", "a"): 0.7, ("forces", "b"): 1.9, "virial": 0.0}
RNG = np.random.default_rng(7)
TRUTH = RNG.normal(size=K)
G = RNG.normal(size=(5, K))
EVERYTHING = {"energy": 1, "forces": 4, "virial": 2}


def drawn(counts):
    """A structure of each of the counts, its rows by (kind, group): residuals share a part."""
    found = []
    for k, count in enumerate(counts):
        group, parts = "ab"[k % 2], {}
        shared = RNG.normal()
        for kind, n in count.items():
            x = RNG.normal(size=(n, K)) * np.logspace(0, -2, K)[None]
            y = x @ TRUTH + 0.3 * shared + 0.1 * RNG.normal(size=n)
            parts[(kind, group)] = x, y
        found.append(parts)
    return found


MANY = {"energy": 1, "forces": 3 * K, "virial": 6}  # more rows than columns
SAMPLES = drawn([EVERYTHING, MANY, {"energy": 1}, EVERYTHING, {"forces": 6}] + [EVERYTHING] * 15)
PRIOR = smoothness_prior(SPEC, 2.0)
LOSSES = {
    "ridge": {"ridge": 0.05},
    "prior": {"ridge": 1e-3, "prior": PRIOR},
    "nothing": {"ridge": 0.0},
}


def fit_of(samples, weights=WEIGHTS, **loss):
    keys = {key for parts in samples for key in parts}
    joined = {
        key: map(np.concatenate, zip(*[p[key] for p in samples if key in p], strict=True))
        for key in sorted(keys)
    }
    return fit({key: compress(*both) for key, both in joined.items()}, weights, **loss)


def weight_of(key, weights=WEIGHTS):
    return weights.get(key, weights.get(key[0]))


def weighted(parts, weights=WEIGHTS):
    x = np.concatenate([weight_of(key, weights) * x for key, (x, _) in parts.items()])
    return x, np.concatenate([weight_of(key, weights) * y for key, (_, y) in parts.items()])


def dense(samples, ridge=0.0, prior=None):
    """c by LAPACK, from the rows themselves."""
    rows = [np.column_stack(weighted(parts)) for parts in samples]
    gamma = np.diag(np.ones(K) if prior is None else prior)
    whole = np.concatenate([*rows, np.sqrt(ridge) * np.column_stack([gamma, np.zeros(K)])])
    return np.linalg.lstsq(whole[:, :-1], whole[:, -1], rcond=None)[0]


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def refits(loss):
    return [dense(SAMPLES[:b] + SAMPLES[b + 1 :], **loss) for b in range(len(SAMPLES))]


def test_left_out_residuals_are_those_of_refits(loss):
    """Of every key, of weight zero too, to 1e-8 of the labels."""
    found = influence(fit_of(SAMPLES, **loss), SAMPLES)
    refitted, whole = refits(loss), dense(SAMPLES, **loss)
    assert found.undetermined == ()
    for key in found.left_out:
        having = [(b, parts[key]) for b, parts in enumerate(SAMPLES) if key in parts]
        wanted = np.concatenate([y - x @ refitted[b] for b, (x, y) in having])
        np.testing.assert_allclose(found.left_out[key], wanted, atol=1e-8, rtol=0)
        plain = np.concatenate([y - x @ whole for _, (x, y) in having])
        np.testing.assert_allclose(found.residuals[key], plain, atol=1e-8, rtol=0)
        owners = np.concatenate([np.full(len(y), b) for b, (_, y) in having])
        np.testing.assert_array_equal(found.owners[key], owners)
        wanted = np.sqrt(np.mean(wanted**2))
        assert found.cross_validated[key] == pytest.approx(wanted, rel=1e-7)


def test_moves_and_jackknife_are_those_of_refits(loss):
    found = influence(fit_of(SAMPLES, **loss), SAMPLES, predictions=G)
    change = (np.array(refits(loss)) - dense(SAMPLES, **loss)) @ G.T
    np.testing.assert_allclose(found.moves.left_out, change, atol=1e-8, rtol=0)
    np.testing.assert_allclose(found.moves.values, G @ dense(SAMPLES, **loss), atol=1e-8)
    n = len(SAMPLES)
    wanted = np.sqrt((n - 1) / n * np.sum(change**2, axis=0))
    np.testing.assert_allclose(found.deviations(G, "jackknife"), wanted, rtol=1e-7)


def hessian(ridge=0.0, prior=None):
    gamma = np.ones(K) if prior is None else prior
    data = sum(x.T @ x for x, _ in map(weighted, SAMPLES))
    return data + ridge * np.diag(gamma**2)


def test_leverages_sandwich_and_pops_are_the_dense_formulas(loss):
    """With an inverse that only a test may form: the condition of H is below 1e6 here."""
    found = influence(fit_of(SAMPLES, **loss), SAMPLES, predictions=G)
    inverse, c = np.linalg.inv(hessian(**loss)), dense(SAMPLES, **loss)
    scores, by_row, by_structure, leverages, top = [], [], [], {}, []
    for parts in SAMPLES:
        x, y = weighted(parts)
        r, hat = y - x @ c, x @ inverse @ x.T
        scores.append(x.T @ r)
        h = np.diag(hat)
        by_row += [G @ inverse @ x[i] * r[i] / h[i] for i in np.flatnonzero(h > 0)]
        by_structure.append(G @ inverse @ x.T @ np.linalg.pinv(hat, rcond=1e-9) @ r)
        top.append(np.linalg.eigvalsh(hat)[-1])
        for key, each in zip(
            parts, np.split(h, np.cumsum([len(p[1]) for p in parts.values()])[:-1]), strict=True
        ):
            leverages.setdefault(key, []).append(each)
    np.testing.assert_allclose(found.structure_leverages, top, rtol=1e-7)
    for key, wanted in leverages.items():
        np.testing.assert_allclose(found.leverages[key], np.concatenate(wanted), atol=1e-9)
    for key, each in found.left_out_variances.items():
        having = [(p, p[key][0]) for p in SAMPLES if key in p]
        wanted = []
        for parts, x in having:
            other = weighted(parts)[0]
            without = np.linalg.inv(hessian(**loss) - other.T @ other)
            wanted += list(np.einsum("ri,ij,rj->r", x, without, x))
        np.testing.assert_allclose(each, wanted, rtol=1e-5)
    middle = sum(np.outer(s, s) for s in scores)
    wanted = np.sqrt(np.einsum("mi,ij,mj->m", G, inverse @ middle @ inverse, G))
    np.testing.assert_allclose(found.deviations(G), wanted, rtol=1e-7)
    np.testing.assert_allclose(found.deviations(G[0]), wanted[0], rtol=1e-7)
    rigid = np.sqrt(np.einsum("mi,ij,mj->m", G, inverse, G))
    np.testing.assert_allclose(found.deviations(G, "rigidity"), rigid, rtol=1e-7)
    for envelope, moves in ((found.moves.rows, by_row), (found.moves.structures, by_structure)):
        assert envelope.count == len(moves)
        np.testing.assert_allclose(envelope.low, np.min(moves, axis=0), rtol=1e-6)
        np.testing.assert_allclose(envelope.high, np.max(moves, axis=0), rtol=1e-6)
        rms = np.sqrt(np.mean(np.square(moves), axis=0))
        np.testing.assert_allclose(envelope.rms, rms, rtol=1e-6)


def test_a_pops_move_fits_its_observation():
    """A prediction that is itself a row of the data moves to its label and, as the envelope holds
    all moves, no less."""
    x, y = SAMPLES[0]["energy", "a"]
    found = influence(fit_of(SAMPLES, ridge=0.05), SAMPLES, predictions=x)
    missing = y[0] - x[0] @ dense(SAMPLES, ridge=0.05)
    for envelope in (found.moves.rows, found.moves.structures):
        assert envelope.low[0] <= missing + 1e-12 and missing - 1e-12 <= envelope.high[0]
    alone = influence(fit_of(SAMPLES, ridge=0.05), SAMPLES, predictions=x, least_leverage=2.0)
    assert alone.moves.rows.count == 0 and np.isnan(alone.moves.rows.rms).all()


def test_the_sandwich_sees_residuals_that_go_together_in_a_structure():
    """Labels are drawn anew 2000 times for the same rows: the spread of the refits is the truth, to
    1.6 %. Rows of a structure point alike and share an error, so 1/PR, with weights of one over
    the standard deviation, is off by the square root of the 9 rows."""
    rng = np.random.default_rng(3)
    n, r, k = 400, 9, 3
    x = np.repeat(rng.normal(size=(n, 1, k)), r, axis=1) + 0.1 * rng.normal(size=(n, r, k))
    g = np.array([[1.0, -0.5, 0.2]])

    def errors(draws):
        return rng.normal(size=(draws, n, 1)) + 0.1 * rng.normal(size=(draws, n, r))

    refitted = np.linalg.lstsq(x.reshape(-1, k), errors(2000).reshape(2000, -1).T)[0]
    truth = np.std(g @ refitted)
    y = errors(1)[0]
    whole = compress(x.reshape(-1, k), y.ravel())
    found = influence(
        fit({"energy": whole}, {"energy": 1.01**-0.5}),
        [{"energy": (x[b], y[b])} for b in range(n)],
    )
    np.testing.assert_allclose(found.deviations(g), truth, rtol=0.15)
    np.testing.assert_allclose(found.deviations(g, "jackknife"), truth, rtol=0.15)
    assert 2.5 < truth / found.deviations(g, "rigidity")[0] < 3.5


def test_the_unit_of_weights_is_no_matter():
    """All weights times s and the ridge times s^2 are the same fit; 1/PR alone is in their unit."""
    s = 37.0
    scaled = {key: s * w for key, w in WEIGHTS.items()}
    one = influence(fit_of(SAMPLES, ridge=0.05), SAMPLES, predictions=G)
    two = influence(fit_of(SAMPLES, scaled, ridge=0.05 * s**2), SAMPLES, predictions=G)
    for kind in DEVIATIONS:
        unit = s if kind == "rigidity" else 1.0
        np.testing.assert_allclose(
            unit * two.deviations(G, kind), one.deviations(G, kind), rtol=1e-9
        )
    np.testing.assert_allclose(two.moves.left_out, one.moves.left_out, atol=1e-10)
    for a, b in zip(one.moves[2:], two.moves[2:], strict=True):
        np.testing.assert_allclose(a[:3], b[:3], rtol=1e-7)
        assert a.count == b.count
    for key in one.left_out:
        np.testing.assert_allclose(two.left_out[key], one.left_out[key], atol=1e-10)


def test_padding_and_order_change_nothing(monkeypatch):
    done = fit_of(SAMPLES, ridge=0.05)
    one = influence(done, SAMPLES, predictions=G)
    monkeypatch.setattr(influences, "padded_length", lambda r: r + 13)
    monkeypatch.setattr(influences, "together", lambda *_: 3)
    two = influence(done, list(enumerate(SAMPLES))[::-1], predictions=G)
    names = ("residuals", "left_out", "leverages", "left_out_variances", "owners")
    for key in one.left_out:
        for name in names:
            a, b = getattr(one, name)[key], getattr(two, name)[key]
            np.testing.assert_allclose(a, b, atol=1e-11)
    np.testing.assert_allclose(one.moves.left_out, two.moves.left_out, atol=1e-11)
    for kind in DEVIATIONS:
        np.testing.assert_allclose(one.deviations(G, kind), two.deviations(G, kind), rtol=1e-10)
    for a, b in zip(one.moves[2:], two.moves[2:], strict=True):
        np.testing.assert_allclose(a[:3], b[:3], rtol=1e-8)
        assert a.count == b.count


def test_few_shapes_are_compiled():
    """Four in each octave of numbers of rows, so that less than a quarter is padding."""
    sizes = range(16, 2048)
    stacks = [influences.Stack({}, np.zeros((r, 1)), *np.zeros((2, r)), {}) for r in sizes]
    padded = [len(influences._padded(stack)[0]) for stack in stacks]
    assert len(set(padded)) <= 4 * 7 + 1
    assert all(r <= p < 1.25 * r for r, p in zip(sizes, padded, strict=True))


def test_a_structure_that_is_alone_is_named():
    """Without a ridge, a coefficient that one structure alone determines is open without it; the
    other structures' refits do not mind, and a ridge determines all."""
    alone = [{key: (x.copy(), y) for key, (x, y) in parts.items()} for parts in SAMPLES]
    for b, parts in enumerate(alone):
        for x, _ in parts.values():
            x[:, 3] *= b == 7
    found = influence(fit_of(alone), alone, predictions=G)
    assert found.undetermined == (7,)
    assert found.structure_leverages[7] == pytest.approx(1.0, abs=1e-10)
    own = found.owners["energy", "b"] == 7
    np.testing.assert_array_equal(np.isinf(found.left_out["energy", "b"]), own)
    assert np.isinf(found.moves.left_out[7]).all()
    assert np.isfinite(np.delete(found.moves.left_out, 7, axis=0)).all()
    assert (
        np.isinf(found.deviations(G, "jackknife")).all() and np.isfinite(found.deviations(G)).all()
    )
    assert found.cross_validated["energy", "b"] == np.inf and "undetermined without: 7" in str(
        found
    )
    assert influence(fit_of(alone, ridge=0.05), alone).undetermined == ()


def changed(change):
    first = dict(SAMPLES[0])
    change(first)
    return [first, *SAMPLES[1:]]


KEY = ("energy", "a")
BAD = {
    "another kind": (lambda p: p.update(stress=p[KEY]), "structure 0: rows of 'stress' have no w"),
    "columns": (lambda p: p.update({KEY: (p[KEY][0][:, 1:], p[KEY][1])}), "structure 0: .*shape"),
    "labels": (lambda p: p.update({KEY: (p[KEY][0], p[KEY][1][None])}), "structure 0: .*shape"),
    "NaN": (lambda p: p.update({KEY: (p[KEY][0] * np.nan, p[KEY][1])}), "structure 0: .*NaN"),
    "no rows": (lambda p: p.clear(), "structure 0: has no rows"),
    "missing": (lambda p: p.pop(KEY), "wanted the 9 of the fit"),
    "other labels": (lambda p: p.update({KEY: (p[KEY][0], p[KEY][1] + 9.0)}), "rms of the resid"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named(name):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        influence(fit_of(SAMPLES, ridge=0.05), changed(change))


def test_other_bad_input_is_refused():
    done = fit_of(SAMPLES, ridge=0.05)
    with pytest.raises(ValueError, match="samples is empty"):
        influence(done, [])
    with pytest.raises(ValueError, match="structure 3: is there twice"):
        influence(done, [(3, SAMPLES[0]), (3, SAMPLES[1])])
    with pytest.raises(TypeError, match="structure 0: .*wanted a mapping"):
        influence(done, [SAMPLES])
    single = changed(lambda p: p.update({KEY: (p[KEY][0].astype(np.float32), p[KEY][1])}))
    with pytest.raises(TypeError, match="structure 0: .*float32"):
        influence(done, single)
    with pytest.raises(TypeError, match="float32"):
        influence(done, SAMPLES, predictions=G.astype(np.float32))
    with pytest.raises(ValueError, match="predictions have shape"):
        influence(done, SAMPLES, predictions=G[0])
    with pytest.raises(ValueError, match="NaN"):
        influence(done, SAMPLES, predictions=G * np.nan)
    with pytest.raises(ValueError, match="least_leverage"):
        influence(done, SAMPLES, least_leverage=-1.0)
    with pytest.raises(ValueError, match="rank of the fit"):
        influence(fit_of(SAMPLES[2:3], {"energy": 1.0}), SAMPLES[2:3])
    with pytest.raises(ValueError, match="kind is 'white'"):
        influence(done, SAMPLES).deviations(G, "white")


ALLOY = ACESpec(("W", "Mo"), 1, 4, 5.0, 2.74)


def test_rows_of_structures_are_those_that_were_compressed():
    """Grouped, per atom, counted from references, and in packs: `influence` finds the fit's rms."""
    data, kinds = alloy_set(), ("energy", "forces", "virial")
    options = dict(reference_energies={"W": -8.0, "Mo": -6.0}, per_atom=("energy", "virial"))
    factors = compress_groups(ALLOY, data, kinds, **options)
    done = fit(factors, {"energy": 30.0, "forces": 1.0, "virial": 5.0}, ridge=1e-6)
    samples = list(zip(data.structures, data.labels, strict=True))
    rows = dict(structure_rows(ALLOY, samples, kinds, groups=data.groups, **options))
    assert sorted(rows) == list(range(len(samples)))
    found = influence(done, rows.items())
    assert found.cross_validated["energy", "all"] > found.rms["energy", "all"]
    some = [k for k, group in enumerate(data.groups) if group == "all"]
    graphs = lp.build_graphs([data.structures[k] for k in some], ALLOY.r_cut)
    for number, graph in zip(some, graphs, strict=True):
        wanted = stacked_rows(ALLOY, graph, data.labels[number], kinds, **options)
        assert set(rows[number]) == {(kind, "all") for kind in kinds}
        for kind, both in wanted.items():
            for a, b in zip(rows[number][kind, "all"], both, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-10)
    assert set(rows[2]) == {("energy", "energies")}
    with pytest.raises(ValueError, match=re.escape("rms of the residuals of ('energy', 'all')")):
        other = structure_rows(ALLOY, samples, kinds, groups=data.groups, per_atom="energy")
        influence(done, other)
