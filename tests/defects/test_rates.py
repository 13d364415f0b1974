"""Exponents of L: the published table, sums over a lattice, and what the table says of diamond."""

import itertools

import numpy as np
import pytest

from lprjax.defects.rates import (
    CURED_BY,
    MULTILATTICE_ONLY,
    ORDERS,
    Rate,
    error_rate,
    fitted_rate,
)

CORE = ("energy", "forces")
TABLE = {  # fitted besides core energies and forces: geometry d = 2, d = 3, energy d = 2, d = 3
    (): (-1.0, -1.5, -2.0, -3.0),
    ("virial",): (-3.0, -3.5, -4.0, -5.0),
    ("force_constants",): (-3.0, -4.5, -4.0, -6.0),
    ("force_constants", "finite_strain_virial"): (-5.0, -6.5, -6.0, -8.0),
}
TERMS = {  # geometry and energy at d, term by term
    "elastic": lambda d: (-d / 2, -d),
    "internal_strain": lambda d: (-d / 2, -d - 2),
    "force_constants": lambda d: (-d / 2 - 2, -d - 2),
    "third_elastic": lambda d: (-3 * d / 2, -2 * d),
    "third_internal": lambda d: (-3 * d / 2, -2 * d - 2),
    "third": lambda d: (-3 * d / 2 - 2, -2 * d - 2),
    "fourth": lambda d: (-5 * d / 2, -3 * d),
}


@pytest.mark.parametrize("kinds", TABLE, ids=lambda kinds: "+".join(kinds) or "nothing")
@pytest.mark.parametrize("dimension", [2, 3])
def test_every_row_of_the_table(kinds, dimension):
    expected = TABLE[kinds][dimension - 2 :: 2]
    assert tuple(fitted_rate(kinds, dimension)) == expected
    assert tuple(fitted_rate((*CORE, *kinds), dimension)) == expected, "the core cures no far field"


@pytest.mark.parametrize("dimension", [2, 3])
def test_every_term_of_the_error(dimension):
    assert set(TERMS) == set(ORDERS)
    for name, (order, kept, internal) in ORDERS.items():
        found = error_rate(order, dimension, elastic_kept=kept, internal_kept=internal)
        assert tuple(found) == TERMS[name](dimension)


def exponent(powers, dimension, inner):
    """Of L in the sum over |l| > L of |l|^-power over the sites of Z^d, from L to 2 L.

    L lies half-way between shells of many sites, the sum ends at 12 L, beyond which its integral is
    added.
    """
    reach = int(12 * inner)
    squares = sum(np.meshgrid(*dimension * [np.arange(-reach, reach + 1) ** 2], sparse=True))
    counts = np.bincount(squares.ravel())[: reach**2 + 1]
    radii = np.sqrt(np.arange(len(counts)))
    sphere = {2: 2 * np.pi, 3: 4 * np.pi}[dimension]

    def beyond(radius):
        far = radii > radius
        tail = sphere * reach ** (dimension - powers) / (powers - dimension)
        return np.sum(counts[far] * radii[far] ** -powers) + tail

    return np.log2(beyond(2 * inner) / beyond(inner))


@pytest.mark.parametrize("dimension, inner", [(2, 16.3), (3, 8.3)])
@pytest.mark.parametrize("order", [2, 3])
def test_without_gain_the_exponents_are_those_of_lattice_sums(order, dimension, inner):
    """Under |Du| ~ |l|^-d a mismatch of order k leaves forces |Du|^(k-1), in l2, and |Du|^k of
    energy; with elastic constants kept, two more derivatives act, each one more power of |l|.

    What a sum over a lattice differs from the integral by is the surface layer, below 5 % in L^-p.
    """
    found = error_rate(order, dimension)
    forces = 0.5 * exponent(2.0 * dimension * (order - 1), dimension, inner)
    assert found.geometry == pytest.approx(forces, abs=0.07)
    assert found.energy == pytest.approx(
        exponent(1.0 * dimension * order, dimension, inner), abs=0.07
    )
    kept = error_rate(order, dimension, elastic_kept=True)
    smoother = 0.5 * exponent(2.0 * (dimension * (order - 1) + 2), dimension, inner)
    assert kept.geometry == pytest.approx(smoother, abs=0.07)
    assert kept.energy == found.energy - 2.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_in_a_multilattice_virials_alone_gain_nothing_and_force_constants_do(dimension):
    """Internal strain acts at elastic order, and no virial sees it: the slope stays -d / 2; the
    energy, which relaxing sets right, gains."""
    nothing = Rate(-dimension / 2, -float(dimension))
    for kinds in ((), CORE):
        assert fitted_rate(kinds, dimension, multilattice=True) == nothing
    for kinds in (("virial",), ("virial", "finite_strain_virial")):
        found = fitted_rate(kinds, dimension, multilattice=True)
        assert found == (nothing.geometry, nothing.energy - 2)
    for kinds in (("force_constants",), ("force_constants", "finite_strain_virial")):
        found = fitted_rate(kinds, dimension, multilattice=True)
        plain = fitted_rate(("force_constants",), dimension)
        assert found.geometry == plain.geometry < nothing.geometry
        assert found.energy == fitted_rate(kinds, dimension).energy
    strained = fitted_rate(("virial", "strained_forces"), dimension, multilattice=True)
    assert strained == fitted_rate(("virial",), dimension)
    assert fitted_rate(("strained_forces",), dimension, multilattice=True) == nothing


@pytest.mark.parametrize("dimension", [2, 3])
def test_with_forces_of_all_strains_a_multilattice_is_as_any_other(dimension):
    every = tuple(CURED_BY)
    assert fitted_rate(every, dimension, multilattice=True) == fitted_rate(every, dimension)
    for kinds in itertools.combinations(CURED_BY, 2):
        seen = [kind for kind in kinds if not CURED_BY[kind] <= MULTILATTICE_ONLY]
        assert fitted_rate(kinds, dimension) == fitted_rate(seen, dimension)


@pytest.mark.parametrize("dimension", [2, 3])
def test_finite_strains_are_small_ones_too(dimension):
    """Their virials teach elastic constants as well; the other force constants then rule."""
    assert fitted_rate(("finite_strain_virial",), dimension) == fitted_rate(("virial",), dimension)


@pytest.mark.parametrize("dimension, multilattice", [*itertools.product((2, 3), (False, True))])
def test_more_kinds_of_data_never_slow_the_decay(dimension, multilattice):
    subsets = [set(s) for n in range(6) for s in itertools.combinations(CURED_BY, n)]
    for some, more in itertools.product(subsets, repeat=2):
        if some <= more:
            rates = (fitted_rate(s, dimension, multilattice=multilattice) for s in (more, some))
            assert all(a <= b for a, b in zip(*rates, strict=True))


@pytest.mark.parametrize("order, dimension", [(1, 3), (0, 2), (2, 1), (2, 4), (3, 2.5)])
def test_orders_and_dimensions_without_a_theorem_are_refused(order, dimension):
    with pytest.raises(ValueError, match=rf"{order}.*{dimension}.*wanted"):
        error_rate(order, dimension)


def test_a_fit_in_another_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension"):
        fitted_rate(["virial"], 4)
