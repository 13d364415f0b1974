"""The size of a basis, and what makes no basis."""

import time

import pytest

from lprjax.ace.coupling import invariant_tensors, real_clebsch_gordan, symmetric_invariants
from lprjax.ace.spec import ACESpec, Tables, smoothness_prior, tables
from tests.helpers import oracles

R_CUT, R0 = 4.2, 2.7

SIZES = {  # many-body functions of one species, as ACEpotentials counts them
    2: {8: 31, 10: 51, 12: 79, 14: 116, 16: 163},
    3: {8: 54, 10: 110, 12: 211, 14: 383, 16: 668},
    4: {8: 69, 10: 156, 12: 338, 14: 710},
}


@pytest.mark.parametrize("order", SIZES)
def test_sizes_are_those_of_the_convention(order):
    for degree, n_many_body in SIZES[order].items():
        spec = ACESpec("W", order, degree, R_CUT, R0)
        assert (tables(spec).n_many_body, tables(spec).n_pair) == (n_many_body, degree)
        assert spec.n_columns == n_many_body + degree


@pytest.mark.parametrize("n_species, order, degree", [(1, 4, 11), (2, 3, 8), (2, 4, 7), (3, 3, 6)])
def test_sizes_are_those_that_characters_count(n_species, order, degree):
    """For several species too: no coupling coefficient enters the count."""
    spec = ACESpec(("W", "Mo", "Ta")[:n_species], order, degree, R_CUT, R0)
    assert tables(spec).n_many_body == oracles.basis_size(n_species, order, degree)
    assert spec.n_columns == n_species * (tables(spec).n_many_body + n_species * degree)
    assert smoothness_prior(spec).shape == (spec.n_columns,) == (len(oracles.column_names(spec)),)


def test_tables_of_a_large_basis_take_little_time():
    spec = ACESpec("W", 3, 16, R_CUT, R0)
    for cached in (symmetric_invariants, invariant_tensors, real_clebsch_gordan):
        cached.cache_clear()
    start = time.process_time()
    Tables(spec)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(elements=("W", "Xx")), "wanted distinct chemical symbols"),
        (dict(elements=("W", "W")), "wanted distinct chemical symbols"),
        (dict(elements=()), "wanted distinct chemical symbols"),
        (dict(elements=(74,)), "wanted distinct chemical symbols"),
        (dict(order=0), "order is 0: wanted a whole number"),
        (dict(order=5), "order is 5: wanted a whole number from 1 to 4"),
        (dict(order=2.5), "order is 2.5: wanted a whole number"),
        (dict(degree=0), "degree is 0: wanted a whole number"),
        (dict(degree=7.5), "degree is 7.5: wanted a whole number"),
        (dict(degree=float("nan")), "degree is nan: wanted a whole number"),
        (dict(degree=float("inf")), "degree is inf: wanted a whole number"),
        (dict(degree="8"), "degree is '8': wanted a whole number"),
        (dict(cutoff_power=1), "cutoff_power is 1: wanted a whole number"),
        (dict(r_cut=0.0), "wanted 0 < r0 < r_cut"),
        (dict(r_cut=-4.0), "wanted 0 < r0 < r_cut"),
        (dict(r_cut=float("nan")), "wanted 0 < r0 < r_cut"),
        (dict(r_cut=float("inf")), "wanted 0 < r0 < r_cut"),
        (dict(r0=5.0), "wanted 0 < r0 < r_cut"),
        (dict(r0=0.0), "wanted 0 < r0 < r_cut"),
    ],
)
def test_specifications_that_make_no_basis_are_refused(changes, message):
    good = dict(elements=("W",), order=2, degree=4, r_cut=R_CUT, r0=R0)
    assert ACESpec(**good).elements == ACESpec(**{**good, "elements": "W"}).elements
    with pytest.raises(ValueError, match=message):
        ACESpec(**{**good, **changes})
