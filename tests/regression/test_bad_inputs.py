"""What people hand to the regression that it cannot use: one line each, an error that names it.

And what may look bad and is not: integers, one row, no rows, lists.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, bcc
from lprjax.regression import (
    PerAtom,
    add_rows,
    calibrate,
    choose,
    committee,
    component_rigidity,
    compress,
    compress_structures,
    coverage,
    design_rows,
    extend,
    fit,
    merge,
    prediction_rigidity,
    prediction_rows,
    projected,
    remove_rows,
    skmatter_rigidity,
    solution,
    stacked_rows,
    weighed,
)
from lprjax.regression.factors import empty
from lprjax.regression.samples import stacked

K = 4
ROWS = np.random.default_rng(0).normal(size=(12, K))
Y = ROWS[:, 0] + 0.1
DATA = {"energy": compress(ROWS, Y, block_rows=16)}
ONE = {"energy": 1.0}
FACTOR = np.linalg.qr(ROWS, mode="r")
KEY = jax.random.key(0)
BROKEN = np.where(np.arange(12)[:, None] == 7, np.nan, ROWS)
SPEC = ACESpec("W", order=1, degree=3, r_cut=4.0, r0=2.74)
GRAPH = build_graph(bcc("W", 3.165), 4.0)
LINEAR = linear_potential(SPEC, np.zeros(SPEC.n_columns))
GOOD = Labels(energy=-8.0, forces=np.zeros((2, 3)))


def traced(function, argument=ROWS):
    """The function, called inside jit."""
    return lambda: jax.jit(function)(argument)


def samples(*labels, graph=GRAPH):
    return [(graph, each) for each in labels]


BAD = {
    # rows and targets
    "rows with NaN": (lambda: compress(BROKEN, Y), ValueError, "rows hold NaN .* row 7"),
    "targets with infinity": (lambda: compress(ROWS, Y / 0.0), ValueError, "targets hold NaN"),
    "one row flat": (
        lambda: compress(ROWS[0], Y[:1]),
        ValueError,
        r"shape \(4,\): wanted \(r, K\)",
    ),
    "rows without columns": (lambda: compress(ROWS[:, :0], Y), ValueError, "K >= 1"),
    "targets as a column": (lambda: compress(ROWS, Y[:, None]), ValueError, r"shape \(12, 1\)"),
    "too few targets": (lambda: compress(ROWS, Y[:3]), ValueError, r"shape \(3,\): wanted \(12,\)"),
    "rows in float32": (lambda: compress(np.float32(ROWS), Y), TypeError, "rows .* float32"),
    "complex rows": (lambda: compress(ROWS + 0j, Y), TypeError, "rows have dtype complex128"),
    "rows of booleans": (lambda: compress(ROWS > 0, Y), TypeError, "rows have dtype bool"),
    "rows of text": (lambda: compress([["1"] * K] * 12, Y), TypeError, "rows have dtype"),
    "traced rows": (traced(lambda x: compress(x, Y)), TypeError, "rows is traced.*fold is for jit"),
    "rows of another basis": (lambda: extend(empty(3), ROWS, Y), ValueError, "4 columns: wanted 3"),
    "blocks of no rows": (lambda: compress(ROWS, Y, block_rows=0), ValueError, "block_rows is 0"),
    "factor of no columns": (lambda: empty(0), ValueError, "n_features is 0"),
    "factors of two bases": (lambda: merge(empty(3), empty(4)), ValueError, "3 and 4 columns"),
    "projection of another basis": (
        lambda: projected(DATA["energy"], np.eye(3)),
        ValueError,
        r"onto has shape \(3, 3\): wanted \(4, k\)",
    ),
    # weights
    "negative weight": (lambda: fit(DATA, {"energy": -1}), ValueError, "weight of 'energy' is -1"),
    "weight None": (lambda: fit(DATA, {"energy": None}), ValueError, "weight of 'energy' is None"),
    "weight in quotes": (lambda: fit(DATA, {"energy": "1"}), ValueError, "of 'energy' is '1'"),
    "weights of an array": (lambda: fit(DATA, {"energy": [1.0]}), ValueError, "weight of 'energy'"),
    "complex weight": (lambda: fit(DATA, {"energy": 1j}), ValueError, "weight of 'energy' is 1j"),
    "misspelt weight": (lambda: fit(DATA, {"enrgy": 1.0}), ValueError, "weights hold 'enrgy'"),
    "no weights": (lambda: fit(DATA, {}), ValueError, "weights lack 'energy'"),
    "weight of a factor None": (
        lambda: weighed(DATA["energy"], None),
        ValueError,
        "weight is None",
    ),
    "negative weight of a factor": (
        lambda: weighed(DATA["energy"], -2.0),
        ValueError,
        "weight is -2.0",
    ),
    "traced weight": (
        traced(lambda w: fit(DATA, {"energy": w}).coefficients, 1.0),
        TypeError,
        "weights is traced: .*solution is for jit",
    ),
    "traced factor": (
        traced(
            lambda r: fit({"energy": DATA["energy"]._replace(triangular=r)}, ONE).factor, FACTOR
        ),
        TypeError,
        "factors is traced",
    ),
    "weights fewer than factors": (
        lambda: solution([DATA["energy"]] * 2, np.ones(1)),
        ValueError,
        r"weights have shape \(1,\) for 2 factors",
    ),
    "solution of nothing": (lambda: solution([], np.ones(0)), ValueError, "at least one"),
    "no groups": (lambda: fit({}, {}), ValueError, "factors is empty"),
    "ridge None": (lambda: fit(DATA, ONE, ridge=None), ValueError, "ridge is None"),
    "prior of another basis": (lambda: fit(DATA, ONE, prior=[1.0]), ValueError, r"prior .* \(1,\)"),
    # rigidities
    "factor of two axes lengths": (lambda: prediction_rigidity(ROWS, ROWS), ValueError, "square"),
    "H for its factor": (
        lambda: prediction_rigidity(ROWS.T @ ROWS, ROWS),
        ValueError,
        "not upper triangular",
    ),
    "g of another basis": (lambda: prediction_rigidity(FACTOR, ROWS[:, :2]), ValueError, "g has"),
    "g in float32": (lambda: prediction_rigidity(FACTOR, np.float32(ROWS)), TypeError, "float32"),
    "rcond of NaN": (lambda: prediction_rigidity(FACTOR, ROWS, rcond=np.nan), ValueError, "rcond"),
    "mask of numbers": (lambda: component_rigidity(FACTOR, ROWS, [1, 0, 0, 1]), TypeError, "bool"),
    "alpha None": (lambda: skmatter_rigidity([ROWS], ROWS, None), ValueError, "alpha is None"),
    "structure of no atoms": (
        lambda: skmatter_rigidity([ROWS[:0]], ROWS, 1.0),
        ValueError,
        "n_A >= 1",
    ),
    # posterior
    "half a member": (lambda: committee(ROWS[0], FACTOR, KEY, 2.5), ValueError, "n is 2.5"),
    "mean of NaN": (lambda: committee(BROKEN[7], FACTOR, KEY, 2), ValueError, "coefficients hold"),
    "one residual": (lambda: calibrate(FACTOR, ROWS[:1], Y[:1]), ValueError, "residuals is 1"),
    "rows of rounding": (
        lambda: calibrate(FACTOR, np.vstack([ROWS, 1e-14 * ROWS]), np.tile(Y, 2)),
        ValueError,
        "12 of 24 rows are zero to rounding",
    ),
    "traced residuals": (
        traced(lambda r: calibrate(FACTOR, ROWS, r).alpha, Y),
        TypeError,
        "residuals is traced",
    ),
    "deviations of NaN": (lambda: coverage(Y, Y * np.nan), ValueError, "one that is NaN"),
    "deviations in float32": (lambda: coverage(Y, np.float32(abs(Y))), TypeError, "deviations"),
    "no residuals": (lambda: coverage([], []), ValueError, "N >= 1"),
    # choice
    "row to add, flat": (lambda: add_rows(FACTOR, ROWS[0]), ValueError, r"row\[None\]"),
    "rows never added": (lambda: remove_rows(FACTOR, 9 * ROWS), ValueError, "not in the factor"),
    "rows of NaN removed": (lambda: remove_rows(FACTOR, BROKEN), ValueError, "not in the factor"),
    "half a choice": (lambda: choose(FACTOR, [ROWS], ROWS, 0.5), ValueError, "count is 0.5"),
    "target of zeros": (lambda: choose(FACTOR, [ROWS], 0 * ROWS, 1), ValueError, "one is zero"),
    "candidate of NaN": (lambda: choose(FACTOR, [BROKEN], ROWS, 1), ValueError, "candidate 0"),
    # structures
    "no samples": (lambda: compress_structures(SPEC, []), ValueError, "samples is empty"),
    "graphs without labels": (
        lambda: compress_structures(SPEC, [GRAPH]),
        TypeError,
        r"structure 0 of samples is Graph: wanted \(Graph, Labels\)",
    ),
    "labels before graphs": (
        lambda: compress_structures(SPEC, [(GOOD, GRAPH)]),
        TypeError,
        r"structure 0 of samples is \['Labels', 'Graph'\]",
    ),
    "a structure without labels": (
        lambda: compress_structures(SPEC, samples(GOOD, Labels(virial=np.eye(3)))),
        ValueError,
        "structure 1 has no label among",
    ),
    "a kind nobody has": (
        lambda: compress_structures(SPEC, samples(GOOD), ("energy", "virial")),
        ValueError,
        "no structure of samples has a label of kind 'virial'",
    ),
    "a kind there is not": (
        lambda: compress_structures(SPEC, samples(GOOD), ("stress",)),
        ValueError,
        "kinds is .*stress",
    ),
    "a kind there is not, stacked": (lambda: stacked("stress", ROWS, 2), ValueError, "stress"),
    "forces per atom": (
        lambda: stacked_rows(SPEC, GRAPH, GOOD, per_atom="forces"),
        ValueError,
        "per_atom is 'forces'",
    ),
    "origin of another basis": (
        lambda: compress_structures(SPEC, samples(GOOD), origin=PerAtom(np.zeros(3), 0.0)),
        ValueError,
        r"origin.row has shape \(3,\)",
    ),
    "labels of another cell": (
        lambda: compress_structures(SPEC, samples(GOOD._replace(forces=np.zeros((5, 3))))),
        ValueError,
        "forces of structure 0",
    ),
    "rows of text for a model": (lambda: design_rows("W", GRAPH), TypeError, "is a str"),
    "prediction of labels": (
        lambda: prediction_rows(lambda p: Labels(energy=jnp.sum(p.coefficients)), LINEAR),
        TypeError,
        "prediction returned Labels: wanted an array",
    ),
    "prediction of a whole number": (
        lambda: prediction_rows(lambda p: jnp.argmax(p.coefficients), LINEAR),
        TypeError,
        "prediction returned int64",
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_what_is_right_though_it_looks_odd():
    """Whole numbers, lists, one row, no rows, weights of NumPy: as the same in float64 arrays."""
    whole = np.arange(8).reshape(2, 4)
    for odd in (whole, whole.tolist()):
        np.testing.assert_array_equal(
            compress(odd, [1, 2]).triangular, compress(1.0 * whole, [1.0, 2.0]).triangular
        )
    assert compress(ROWS[:1], Y[:1]).n_rows == 1 and compress(ROWS[:0], Y[:0]).n_rows == 0
    one = fit(DATA, {"energy": np.float64(2)}, ridge=1)
    two = fit(DATA, {"energy": jnp.asarray(2)}, ridge=np.int64(1))
    np.testing.assert_array_equal(one.coefficients, two.coefficients)
    assert prediction_rigidity(FACTOR, ROWS[0].tolist()).shape == ()
    assert prediction_rigidity(FACTOR, [[1, 0, 0, 0]]).shape == (1,)
    np.testing.assert_array_equal(coverage([0, 1], [1, 1]), coverage([0.0, 1.0], [1.0, 1.0]))
    nothing = np.asarray(add_rows(FACTOR, ROWS[:0]))
    np.testing.assert_allclose(nothing.T @ nothing, FACTOR.T @ FACTOR, atol=1e-13)


DEPENDENT = np.concatenate([ROWS[:, :2], ROWS[:, :1] - ROWS[:, 1:2], 0 * ROWS[:, :1]], axis=1)


@pytest.mark.parametrize("rows", [DEPENDENT, ROWS[:2]], ids=["dependent", "few"])
def test_fits_to_singular_data_under_debug_nans(rows):
    with jax.debug_nans(True):
        found = fit({"energy": compress(rows, rows @ np.ones(K))}, ONE)
        assert found.rank == 2 and found.rms["energy"] < 1e-12


def test_singular_factors_under_debug_nans():
    """Every function says what it says without the flag, or raises the same error."""
    rows = DEPENDENT
    ridged = fit({"energy": compress(rows, rows @ np.ones(K))}, ONE, ridge=1e-3)
    with jax.debug_nans(True):
        r = compress(rows, np.zeros(12)).triangular
        rigidity = prediction_rigidity(r, np.concatenate([rows[:2], np.eye(K)[3:], 0 * rows[:1]]))
        assert (np.asarray(rigidity)[:2] > 0).all() and rigidity[2] == 0 and np.isinf(rigidity[3])
        residuals = np.random.default_rng(1).normal(size=len(rows))
        assert calibrate(r, rows, residuals).unreached == 2
        left = remove_rows(r, rows[:1])
        assert np.isfinite(left).all() and np.isfinite(add_rows(left, rows[:1])).all()
        with pytest.raises(ValueError, match="not in the factor"):
            remove_rows(r, 30.0 * rows[:1])
        with pytest.raises(ValueError, match="rank of H is 2"):
            committee(np.ones(K), r, KEY, 2)
        with pytest.raises(ValueError, match="factor is singular"):
            choose(r, [rows], rows[:1], 1)
        assert choose(ridged.factor, [rows, 0 * rows], rows[:1], 2).order[0] == 0
