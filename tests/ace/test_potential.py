"""The site basis: its twin, its symmetries, and the linear potential on top of it."""

import dataclasses
import time
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import eval_legendre

from lprjax.ace.basis import _site_functions, site_basis
from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec, components, smoothness_prior, tables
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from tests.helpers import oracles

R_CUT, R0 = 4.2, 2.7
# One padded shape for everything: an atom has 26 neighbours here on average.
N_ATOMS, N_NEIGHBOURS = 12, 64


def alloy(key, elements, n=6):
    """n atoms of a skewed, rattled cell that is smaller than the cutoff, species shuffled."""
    crystal = supercell(bcc("W", 3.16), (1, 1, n // 2))
    cell = np.asarray(crystal.cell) @ np.array([[1, 0.1, -0.2], [0, 1.05, 0.1], [0, 0, 0.97]])
    fractions = np.asarray(crystal.positions) @ np.linalg.inv(crystal.cell)
    rng = np.random.default_rng(key)
    species = rng.permutation([elements[i % len(elements)] for i in range(n)])
    regular = make_structure(fractions @ cell, cell, list(species), True)
    return rattled(regular, jax.random.key(key), 0.25)


def cluster(rng, elements):
    """N_ATOMS atoms scattered over a box of random size, at least 1 Å apart."""
    positions, size = [], rng.uniform(3.0, 5.4)
    while len(positions) < N_ATOMS:
        trial = rng.uniform(-size, size, 3)
        if all(np.linalg.norm(trial - other) > 1.0 for other in positions):
            positions.append(trial)
    species = rng.permutation([elements[i % len(elements)] for i in range(N_ATOMS)])
    return make_structure(positions, np.eye(3), list(species), False)


class Case(NamedTuple):
    spec: ACESpec
    structure: object
    basis: np.ndarray

    def graph_of(self, structure):
        return build_graph(structure, R_CUT, n_atoms=N_ATOMS, n_neighbours=N_NEIGHBOURS)

    def basis_of(self, structure):
        return np.asarray(site_basis(self.spec, self.graph_of(structure)))[: structure.n_atoms]


def make_case(elements, order, degree):
    spec = ACESpec(elements, order, degree, R_CUT, R0, constant=len(elements) > 1)
    case = Case(spec, alloy(order, spec.elements), None)
    return case._replace(basis=case.basis_of(case.structure))


RECIPES = {
    "order 4": (("W",), 4, 10),
    "two species": (("W", "Mo"), 3, 6),
    "order 1": (("W",), 1, 5),
    "order 2": (("W",), 2, 8),
}


@cache
def case_of(name):
    return make_case(*RECIPES[name])


@pytest.fixture(params=RECIPES)
def any_case(request):
    return case_of(request.param)


@pytest.fixture(params=["order 4", "two species"])
def case(request):
    return case_of(request.param)


def close(found, expected, tolerance=1e-10):
    """Equal to `tolerance` of each column's size: the largest value of that function in the cell.

    Rounding of sums over 60 neighbours, to the fourth power, of numbers known to 1e-15."""
    assert found.shape == expected.shape
    size = np.max(np.abs(expected), axis=0)
    assert np.all(np.abs(found - expected) <= tolerance * size)


# --- what the functions are -----------------------------------------------------------------


def test_site_basis_is_its_twin(any_case):
    """Explicit sums over images, neighbours and monomials, in a cell smaller than the cutoff."""
    close(any_case.basis, oracles.site_basis(any_case.spec, any_case.structure), 1e-9)


def test_functions_of_two_neighbours_are_legendre_polynomials():
    """Addition theorem: B = sqrt(2l+1) / 4 pi sum_jk R_n(r_ij) R_n'(r_ik) P_l(cos theta_jik)."""
    case = case_of("order 2")
    for i, (_, vectors) in enumerate(oracles.environments(case.structure, R_CUT)):
        r = np.linalg.norm(vectors, axis=1)
        radial = oracles.many_body_radial(r, case.spec)
        cosine = np.clip(vectors @ vectors.T / np.outer(r, r), -1, 1)
        for k, function in enumerate(tables(case.spec).functions):
            if len(function.factors) == 2:
                (_, n, l), (_, m, _) = function.factors
                legendre = eval_legendre(l, cosine)
                expected = radial[:, n - 1] @ legendre @ radial[:, m - 1] / (4 * np.pi)
                assert case.basis[i, k] == pytest.approx(np.sqrt(2 * l + 1) * expected, abs=1e-9)


def test_functions_are_linearly_independent(any_case):
    """Over many random clusters the columns, scaled to unit norm, have full numerical rank:
    dependent ones would leave a singular value of rounding size, 1e-15.

    Many-body functions are far from it. Pair functions and products of one factor are both sums
    over neighbours of smooth functions of the distance: 2 D of them are nearly dependent, and from
    D = 10 on one cannot tell."""
    spec = any_case.spec
    rng, n_blocks = np.random.default_rng(0), len(spec.elements)
    n_clusters = 3 + 2 * spec.n_functions * n_blocks // N_ATOMS
    rows = np.concatenate(
        [any_case.basis_of(cluster(rng, spec.elements)) for _ in range(n_clusters)]
    )
    for block in rows.reshape(len(rows), n_blocks, -1).swapaxes(0, 1):
        block = block[np.any(block, axis=1)]
        assert len(block) > 1.5 * spec.n_functions
        scaled = block / np.linalg.norm(block, axis=0)
        many_body = np.linalg.svd(scaled[:, : tables(spec).n_many_body], compute_uv=False)
        assert many_body[-1] > 1e-6 * many_body[0]
        if spec.degree < 10:
            everything = np.linalg.svd(scaled, compute_uv=False)
            assert everything[-1] > 1e-11 * everything[0]


def test_prior_grows_with_the_degree(any_case):
    for power in (4.0, 1.5):
        np.testing.assert_allclose(
            smoothness_prior(any_case.spec, power), oracles.prior(any_case.spec, power), rtol=1e-14
        )


def test_the_site_basis_compiles_fast():
    """CPU time of tracing and compiling, on a shape of its own: other processes do not count."""
    spec, graph = ACESpec("W", 3, 12, R_CUT, R0), build_graph(bcc("W", 3.16), R_CUT)
    start = time.process_time()
    _site_functions.lower(spec, graph).compile()
    assert time.process_time() - start < 5.0


# --- symmetries -----------------------------------------------------------------------------


def test_rotations_and_inversions_change_nothing(case):
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    for orthogonal in (q, -q, -np.eye(3), np.diag([1.0, 1.0, -1.0])):
        turned = dataclasses.replace(
            case.structure,
            positions=case.structure.positions @ orthogonal.T,
            cell=case.structure.cell @ orthogonal.T,
        )
        close(case.basis_of(turned), case.basis)


def test_translations_and_other_images_change_nothing(case):
    """Each atom shifted by one vector and by any lattice vector of its own."""
    images = np.random.default_rng(2).integers(-2, 3, size=(case.structure.n_atoms, 3))
    shifted = case.structure.positions + np.array([[0.3, -7.0, 1.1]]) + images @ case.structure.cell
    close(case.basis_of(dataclasses.replace(case.structure, positions=shifted)), case.basis)


def test_permutations_permute(case):
    order = np.random.default_rng(3).permutation(case.structure.n_atoms)
    permuted = dataclasses.replace(
        case.structure,
        positions=case.structure.positions[order],
        species=case.structure.species[order],
    )
    close(case.basis_of(permuted), case.basis[order])


def power_by_name(spec, basis):
    """{(centre, factors): sum of squares of the functions with these factors}, which does not
    depend on the orthonormal basis chosen among them."""
    totals = {}
    for name, column in zip(oracles.column_names(spec), basis.T, strict=True):
        totals[name] = totals.get(name, 0.0) + column**2
    return totals


def test_relabelling_species_relabels_functions():
    """Trading the names of two species trades the names in every column."""
    case = case_of("two species")
    swap = {"W": "Mo", "Mo": "W"}
    numbers = jnp.asarray(case.spec.numbers)[::-1]
    species = jnp.where(case.structure.species == numbers[0], numbers[1], numbers[0])
    traded = case.basis_of(dataclasses.replace(case.structure, species=species))

    def renamed(name):
        centre, kind, *factors = name
        return swap[centre], kind, *sorted((swap[s], *rest) for s, *rest in factors)

    before, after = (power_by_name(case.spec, basis) for basis in (case.basis, traded))
    assert len(before) == len(after)
    for name, value in before.items():
        np.testing.assert_allclose(after[renamed(name)], value, rtol=1e-9, atol=1e-300)


def test_one_species_is_a_part_of_two():
    """In a pure metal the functions of the other species vanish, and the own ones are those of the
    one-species basis."""
    pure = alloy(9, ("Mo",))
    two = case_of("two species")
    one = Case(dataclasses.replace(two.spec, elements=("Mo",)), None, None)
    found = power_by_name(two.spec, two.basis_of(pure))
    expected = power_by_name(one.spec, one.basis_of(pure))
    assert set(expected) <= set(found)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected.get(name, 0.0), rtol=1e-9, atol=1e-300)


def test_what_lies_beyond_the_cutoff_is_not_felt(case):
    """Bit for bit: a far atom moves, and the site does not notice (those near it do)."""
    line = np.zeros((6, 3))
    line[:, 0] = 2.3 * np.arange(6)
    line[:, 1] = [0.0, 1.0, -0.5, 0.3, 1.0, -1.0]
    species = [case.spec.elements[i % len(case.spec.elements)] for i in range(6)]
    before = case.basis_of(make_structure(line, np.eye(3), species, False))
    line[5] += [0.4, 0.5, -0.6]
    after = case.basis_of(make_structure(line, np.eye(3), species, False))
    np.testing.assert_array_equal(after[:3], before[:3])
    assert np.all(np.any(after[4:] != before[4:], axis=1))


def test_doubling_the_cell_repeats_the_sites(case):
    doubled = supercell(case.structure, (1, 2, 1))
    order = np.arange(2 * case.structure.n_atoms).reshape(2, -1)
    basis = case.basis_of(doubled)
    for half in order:
        np.testing.assert_allclose(doubled.species[half], case.structure.species)
        close(basis[half], case.basis)


def test_padding_buckets_and_skin_change_nothing(case):
    """Without a spare row, with edges beyond the cutoff: the same; padding rows are zero."""
    n = case.structure.n_atoms
    tight = build_graph(case.structure, R_CUT, skin=0.5, n_atoms=n)
    close(np.asarray(site_basis(case.spec, tight)), case.basis, 1e-12)
    padded = site_basis(case.spec, case.graph_of(case.structure))
    assert padded.shape == (N_ATOMS, case.spec.n_columns) and not np.any(padded[n:])


# --- the linear potential -------------------------------------------------------------------


@pytest.fixture(scope="module")
def site_energies():
    return jax.jit(lambda potential, graph: potential(graph))


def random_potential(spec, key=0):
    """Coefficients of one order per column's size, and an energy for each isolated atom."""
    coefficients = jax.random.normal(jax.random.key(key), (spec.n_columns,))
    return linear_potential(spec, coefficients, dict(zip(spec.elements, (-8.9, 4.4), strict=False)))


def test_site_energies_are_the_basis_times_coefficients(any_case, site_energies):
    """E_i = e0[z_i] + B(i) . c by two routes; zero on padding; new coefficients compile nothing."""
    spec, graph = any_case.spec, any_case.graph_of(any_case.structure)
    isolated = np.array([-8.9, 4.4])[
        [spec.numbers.index(z) for z in any_case.structure.species.tolist()]
    ]
    compiled = []
    for key in range(2):
        potential = random_potential(spec, key)
        found = np.asarray(site_energies(potential, graph))
        compiled.append(site_energies._cache_size())
        expected = isolated + any_case.basis @ potential.coefficients
        scale = np.abs(any_case.basis) @ np.abs(potential.coefficients)
        assert np.all(np.abs(found[: len(expected)] - expected) < 1e-12 * (scale + 10))
        assert not np.any(found[len(expected) :])
    assert compiled[0] == compiled[1]


def test_an_isolated_atom_has_its_reference_energy(case, site_energies):
    """No neighbour, no function but the constant: E_i = e0[z_i] (+ its coefficient) exactly."""
    species = [case.spec.elements[0], case.spec.elements[-1]]
    apart = make_structure([[0, 0, 0], [R_CUT, 0, 0]], np.eye(3), species, False)
    potential, constants = random_potential(case.spec), np.zeros(len(species))
    rows = case.basis_of(apart).reshape(2, len(case.spec.elements), -1)
    if case.spec.constant:
        np.testing.assert_array_equal(rows[:, :, -1], np.eye(2))
        constants = potential.coefficients.reshape(2, -1)[:, -1]
        rows = rows[..., :-1]
    assert np.all(np.abs(rows) < 1e-30)
    energies = site_energies(potential, case.graph_of(apart))
    e0 = {"W": -8.9, "Mo": 4.4}
    np.testing.assert_array_equal(energies[:2], constants + np.array([e0[s] for s in species]))


def test_components_are_what_they_are_called(case):
    """By the names of the columns, which the oracle lists; kinds and body orders are partitions."""
    spec, found = case.spec, components(case.spec)
    names = oracles.column_names(spec)
    for k, (centre, kind, *factors) in enumerate(names):
        kinds = {name for name in ("constant", "pair", "many-body") if name in found}
        assert [name for name in kinds if found[name][k]] == [kind]
        orders = [name for name in found if name.startswith("body order") and found[name][k]]
        assert orders == ([f"body order {len(factors) + 1}"] if factors else [])
        for element in spec.elements:
            assert found[f"centre {element}"][k] == (centre == element)
            assert found[f"neighbour {element}"][k] == (element in {f[0] for f in factors})
    assert all(mask.shape == (spec.n_columns,) and mask.dtype == bool for mask in found.values())


def test_integers_become_floats():
    """So that they share a compilation with what a fit returns and can be differentiated."""
    spec = ACESpec("W", 1, 2, R_CUT, R0)
    potential = linear_potential(spec, [1, 2, 3, 4], {"W": -9})
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(potential))
    assert isinstance(potential, LinearPotential)


# --- the door -------------------------------------------------------------------------------


def test_unknown_species_are_named():
    spec = ACESpec("W", 1, 2, R_CUT, R0)
    graph = build_graph(alloy(0, ("W", "Mo", "Ta")), R_CUT)
    for refused in (
        lambda: site_basis(spec, graph),
        lambda: linear_potential(spec, [0] * 4).check(graph),
    ):
        with pytest.raises(
            ValueError, match="the structure has Mo, Ta: wanted those of the basis, W;"
        ):
            refused()


def test_wrong_coefficients_are_refused():
    spec = ACESpec(("W", "Mo"), 1, 2, R_CUT, R0)
    with pytest.raises(ValueError, match=r"coefficients has shape \(3,\): wanted \(16,\)"):
        linear_potential(spec, np.zeros(3))
    with pytest.raises(ValueError, match=r"reference_energies lack \['Mo'\]"):
        linear_potential(spec, np.zeros(spec.n_columns), {"W": 1.0})


def test_float64_is_required():
    spec, graph = ACESpec("W", 1, 2, R_CUT, R0), build_graph(bcc("W", 3.16), R_CUT)
    with jax.enable_x64(False):
        for refused in (lambda: site_basis(spec, graph), lambda: linear_potential(spec, [0.0] * 4)):
            with pytest.raises(RuntimeError, match="jax_enable_x64"):
                refused()
