"""Lengths and sizes of bases from the data."""

import jax
import numpy as np
import pytest

from lprjax.atoms import bcc, fcc, make_structure, rattled, supercell
from lprjax.commands.bases import MOST_COLUMNS, named_bases, nearest_distance

GIVEN = dict(order=2, degrees=(), cutoffs=(5.0,), powers=(4,), r0=2.7)
GIVEN |= dict(constant=False, core=None, n_rows=10**6)


@pytest.mark.parametrize(
    "cell, wanted", [(bcc("W", 3.2), 3**0.5 / 2 * 3.2), (fcc("Al", 4.0), 8**0.5)]
)
def test_the_nearest_distance_of_a_crystal(cell, wanted):
    assert nearest_distance([cell]) == pytest.approx(wanted, rel=1e-12)
    noisy = rattled(supercell(cell, (3, 3, 3)), jax.random.key(0), 0.01)
    assert nearest_distance([noisy]) == pytest.approx(wanted, rel=0.03)


def test_far_atoms_are_found_and_farther_ones_refused():
    def pair(distance):
        return make_structure([[0, 0, 0], [0, 0, distance]], np.eye(3), ["W", "W"], False)

    assert nearest_distance([pair(8.0)]) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="--r0 and --r-cut"):
        nearest_distance([pair(40.0)])


def test_every_combination_named_is_a_basis():
    found = named_bases(["W"], **GIVEN | dict(degrees=(4, 5), cutoffs=(4.5, 5.0), powers=(2, 4)))
    assert len(set(found)) == 8 and {b.r0 for b in found} == {2.7}


@pytest.mark.parametrize("elements", [["W"], ["Mo", "Nb", "Ta", "W"]])
def test_bases_nobody_named_are_as_large_as_the_data_bear(elements):
    (large,), (small,) = (named_bases(elements, **GIVEN | {"n_rows": n}) for n in (10**6, 300))
    assert large.n_columns <= MOST_COLUMNS and 3 <= small.degree < large.degree <= 12
    assert small.n_columns <= 75 or small.degree == 3
