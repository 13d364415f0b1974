"""Theorems on the seminorm ||D.|| of a lattice and its dual.

Dense twins are built from positions alone: every pair of sites and every image no farther apart
than the radius, twice; the bonds of extra sites, twice; rows and columns of held sites struck out.
Tolerances: the FFT of < 200 sites loses a few digits of 16, and K is inverted with a condition
below 1e3, so 1e-11 of the largest number is generous.  Where sites are held the residual is 1e-11
of |f| < 30, and |K^-1| < 10.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.structures import Structure, bcc, diamond, fcc, simple_cubic, square, supercell
from lprjax.crystals.strain_norm import (
    on_all_waves,
    reference_lattice,
    with_extra_sites,
    with_held_sites,
    without_sites,
)


class Case(NamedTuple):
    unit_cell: Structure
    repeats: tuple[int, int, int]
    radius: float
    missing: tuple[int, ...] = ()
    extra: tuple[tuple[int, ...], ...] = ()  # for each extra site the ends of its bonds
    held: tuple[int, ...] = ()


COPPER = fcc("Cu", 3.6, primitive=True), (3, 4, 5), 3.0
CASES = {
    "bcc": Case(bcc("W", 3.0), (1, 2, 4), 3.5, missing=(7,)),
    "fcc": Case(*COPPER, missing=(5, 6)),
    "diamond": Case(diamond("Si", 5.4, primitive=True), (3, 3, 4), 2.5),
    "square": Case(square("W", 2.0), (5, 6, 1), 2.9, missing=(0, 8)),
    "interstitial": Case(*COPPER, extra=((0, 1, 2, 13, 13),)),
    "interstitials beside a vacancy": Case(*COPPER, missing=(5,), extra=((4, 6, 20), (7,))),
    "clamped crack": Case(
        square("W", 2.0), (8, 9, 1), 2.9, missing=(30, 31, 32), held=tuple(range(14))
    ),
    "clamped interstitial": Case(
        *COPPER, missing=(33,), extra=((30, 31, 32, 40),), held=tuple(range(20))
    ),
}


def dense(case: Case):
    """K by brute force, in the order of `supercell`, the extra sites last."""
    crystal = supercell(case.unit_cell, case.repeats)
    positions, cell = np.asarray(crystal.positions), np.asarray(crystal.cell)
    images = itertools.product(*(range(-4, 5) if periodic else [0] for periodic in crystal.pbc))
    bonds = [(len(positions) + k, j) for k, ends in enumerate(case.extra) for j in ends] * 2
    for image in images:
        r = np.linalg.norm(positions[None] + np.array(image) @ cell - positions[:, None], axis=-1)
        bonds += [tuple(pair) for pair in np.argwhere((r < case.radius) & (r > 0.1))]
    k = np.zeros((len(positions) + len(case.extra),) * 2)
    for i, j in bonds:
        if i not in case.missing and j not in case.missing:
            bond = np.eye(len(k))[i] - np.eye(len(k))[j]
            k += np.outer(bond, bond)
    k[list(case.held)] = k[:, list(case.held)] = 0.0
    return k


def make(case: Case):
    lattice = reference_lattice(case.unit_cell, case.repeats, radius=case.radius)
    lattice = with_extra_sites(without_sites(lattice, case.missing), case.extra)
    if not case.held:
        return lattice
    return with_held_sites(lattice, np.isin(np.arange(lattice.n_sites), case.held))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    lattice = make(CASES[request.param])
    rng = np.random.default_rng(0)
    f, v = rng.normal(size=(2, lattice.n_sites, 3))
    return lattice, dense(CASES[request.param]), jnp.asarray(f), jnp.asarray(v)


def test_norm_is_the_quadratic_form_of_all_bonds(case):
    lattice, k, _, v = case
    expected = np.einsum("ic,ij,jc->", v, k, v)
    assert float(lattice.strain_norm(v)) ** 2 == pytest.approx(expected, rel=1e-12)
    by_site = lattice.strain_by_site(v)
    assert float(jnp.sum(by_site**2)) == pytest.approx(expected, rel=1e-12)
    assert not np.any(np.asarray(by_site)[~np.asarray(lattice.present)])
    np.testing.assert_allclose(lattice.apply(v), k @ np.asarray(v), atol=1e-12)


def test_solve_is_the_pseudo_inverse(case):
    """Also for f with a mean or something on missing or held sites, which a pseudo-inverse drops.

    Of the K of held sites it is the inverse of the Dirichlet block.
    """
    lattice, k, f, _ = case
    atol = 1e-11 if lattice.held is None else 3e-9
    inverse = np.linalg.pinv(k, rcond=1e-10, hermitian=True)
    np.testing.assert_allclose(lattice.solve(f), inverse @ np.asarray(f), atol=atol)
    expected = np.sqrt(np.einsum("ic,ij,jc->", f, inverse, f))
    assert float(lattice.negative_norm(f)) == pytest.approx(expected, rel=atol)


def test_negative_norm_is_dual_to_the_strain_norm(case):
    """f.v <= |f|_{-1} |Dv|, with equality at v = K^+ f, for forces: zero sum, none at vacancies.

    (With held sites any f on the others.)
    """
    lattice, k, f, _ = case
    f = jnp.asarray(k @ np.asarray(f))
    dual = float(lattice.negative_norm(f))
    rng = np.random.default_rng(1)
    for v in rng.normal(size=(5, *f.shape)):
        assert abs(float(jnp.sum(f * v))) <= dual * float(lattice.strain_norm(jnp.asarray(v)))
    best = lattice.solve(f)
    attained = float(jnp.sum(f * best) / lattice.strain_norm(best))
    assert attained == pytest.approx(dual, rel=1e-12)


COMPLETE = {
    "bcc, odd": Case(bcc("W", 3.0), (3, 2, 5), 3.1),
    "diamond, even": Case(diamond("Si", 5.4, primitive=True), (3, 3, 4), 4.0),
    "square": Case(square("W", 2.0), (5, 6, 1), 2.9),
}


@pytest.fixture(scope="module", params=COMPLETE)
def complete(request):
    case = COMPLETE[request.param]
    return case, make(case), dense(case)


def by_wave(matrix, repeats):
    """A(k) = sum_R A(R) exp(i k . R), (m1, m2, m3, b, b), by plain sums: A(R) couples an atom of
    cell 0, in rows, to one of cell R."""
    n = int(np.prod(repeats))
    blocks = matrix.reshape(n, len(matrix) // n, n, -1)[0]
    cells = np.array(list(np.ndindex(repeats)))
    waves = 2 * np.pi * cells / np.array(repeats)
    phases = np.exp(1j * waves @ cells.T)
    return np.einsum("kr,arb->kab", phases, blocks).reshape(*repeats, *blocks.shape[::2])


def on_grid(values, repeats):
    """(m1, m2, m3 // 2 + 1, b) by wave and mode as one list of n b numbers, in ascending order."""
    return np.sort(np.ravel([on_all_waves(half, repeats) for half in np.moveaxis(values, -1, 0)]))


def test_the_spectrum_is_that_of_the_dense_norm(complete):
    """As a multiset: one zero, for the constant, and every other eigenvalue of K as often as there.

    Waves k and -k share theirs, of which the half grid keeps one."""
    case, lattice, k = complete
    spectrum = lattice.spectrum
    stiffnesses, compliances = (
        on_grid(values, case.repeats) for values in (spectrum.stiffnesses, spectrum.compliances)
    )
    expected = np.linalg.eigvalsh(k)
    np.testing.assert_allclose(stiffnesses, expected, atol=1e-11 * expected.max())
    expected = np.linalg.eigvalsh(np.linalg.pinv(k, rcond=1e-10, hermitian=True))
    np.testing.assert_allclose(compliances, expected, atol=1e-11)
    assert np.sum(stiffnesses == 0.0) == np.sum(compliances == 0.0) == 1


def test_roots_and_modes_make_the_inverse_of_each_wave(complete):
    """T T^H = K^+(k), modes diag(compliances) modes^H the same, and modes are unitary."""
    case, lattice, k = complete
    spectrum, half = lattice.spectrum, case.repeats[2] // 2 + 1
    inverse = by_wave(np.linalg.pinv(k, rcond=1e-10, hermitian=True), case.repeats)[:, :, :half]
    adjoint = lambda x: np.swapaxes(x, -1, -2).conj()  # noqa: E731
    made = spectrum.roots @ adjoint(spectrum.roots)
    modes = (spectrum.modes * spectrum.compliances[..., None, :]) @ adjoint(spectrum.modes)
    for found in (made, modes):
        np.testing.assert_allclose(found, inverse, atol=1e-11)
    unit = np.broadcast_to(np.eye(case.unit_cell.n_atoms), spectrum.modes.shape)
    np.testing.assert_allclose(spectrum.modes @ adjoint(spectrum.modes), unit, atol=1e-12)
    assert np.all(spectrum.compliances >= 0.0)


def test_what_belongs_to_minus_k_is_the_complex_conjugate(complete):
    """On the planes that hold both, k3 = 0 and, for an even number of cells, the last one."""
    case, lattice, _ = complete
    roots = lattice.spectrum.roots
    inverse = roots @ np.swapaxes(roots, -1, -2).conj()
    minus = np.ix_(*(-np.arange(m) % m for m in case.repeats[:2]))
    for plane in {0, case.repeats[2] // 2} if case.repeats[2] % 2 == 0 else {0}:
        here = inverse[:, :, plane]
        np.testing.assert_allclose(here[minus], here.conj(), atol=1e-12)


def test_the_spectrum_is_of_the_complete_lattice_whatever_is_missing_or_added():
    case = CASES["interstitials beside a vacancy"]
    whole = reference_lattice(case.unit_cell, case.repeats, radius=case.radius)
    for found, expected in zip(make(case).spectrum, whole.spectrum, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_complete_table_has_the_bonds_of_the_perfect_lattice():
    """Whatever is missing or added; what is left over goes from a site to itself."""
    unit_cell, repeats, radius = COPPER
    perfect = reference_lattice(unit_cell, repeats, radius=radius)
    changed = with_extra_sites(without_sites(perfect, [5]), [(4, 6, 20), (7,)])
    w = np.random.default_rng(0).normal(size=(perfect.n_sites, 3))
    found = np.sum((w[np.asarray(changed.complete)] - w[:, None]) ** 2)
    assert found == pytest.approx(float(perfect.strain_norm(jnp.asarray(w))) ** 2, rel=1e-12)


@pytest.mark.parametrize("repeats", [(3, 4, 5), (4, 3, 6), (2, 2, 1), (1, 5, 2), (3, 1, 1)])
def test_half_of_the_waves_make_all_of_them(repeats):
    """Of the power spectrum of a real function, which is that of k and of -k alike."""
    values = np.random.default_rng(0).normal(size=repeats)
    power = np.abs(np.fft.fftn(values)) ** 2
    half = np.abs(np.fft.rfftn(values)) ** 2
    np.testing.assert_allclose(on_all_waves(half, repeats), power, rtol=1e-10, atol=1e-10)
    found = on_all_waves(jnp.asarray(half), repeats)
    assert isinstance(found, jax.Array) and found.shape == repeats
    np.testing.assert_allclose(found, power, rtol=1e-10, atol=1e-10)


def test_translation_costs_nothing(case):
    lattice, _, _, v = case
    if lattice.held is not None:
        pytest.skip("a translation of a clamped domain is a strain at its boundary")
    shift = jnp.array([[1.0, -2.0, 3.0]])
    assert float(lattice.strain_norm(0 * v + shift)) == 0.0
    assert float(lattice.strain_norm(v + shift)) == pytest.approx(
        float(lattice.strain_norm(v)), rel=1e-12
    )


@pytest.mark.parametrize("held", [False, True])
def test_gradients_of_the_norms(held):
    """d||f||_{-1}/df = K^+ f / ||f||_{-1}; both norms have gradient zero, not NaN, at zero."""
    lattice = without_sites(reference_lattice(bcc("W", 3.0), (2, 2, 2)), [3])
    if held:
        lattice = with_held_sites(lattice, np.arange(16) > 10)
    f = jnp.asarray(np.random.default_rng(3).normal(size=(lattice.n_sites, 3)))
    expected = lattice.solve(f) / lattice.negative_norm(f)
    np.testing.assert_allclose(jax.grad(lattice.negative_norm)(f), expected, atol=1e-10)
    for norm in (lattice.negative_norm, lattice.strain_norm):
        assert not np.any(np.asarray(jax.grad(norm)(0 * f)))


@pytest.mark.parametrize(
    ("unit_cell", "bonds"),
    [
        (bcc("W", 3.0), 14),
        (fcc("Cu", 3.0, primitive=True), 18),
        (diamond("Si", 3.0), 16),
        (square("W", 3.0), 8),
    ],
)
def test_default_stencil_is_two_shells(unit_cell, bonds):
    repeats = tuple(4 if periodic else 1 for periodic in unit_cell.pbc)
    lattice = reference_lattice(unit_cell, repeats)
    assert lattice.neighbours.shape == (supercell(unit_cell, repeats).n_atoms, bonds)


def test_removal_in_two_turns_is_removal_at_once():
    whole = reference_lattice(bcc("W", 3.0), (3, 3, 3))
    f = jnp.asarray(np.random.default_rng(2).normal(size=(whole.n_sites, 3)))
    assert np.abs(whole.solve(f)[3]).max() > 1e-3
    at_once = without_sites(whole, (3, 40)).solve(f)
    in_turn = without_sites(without_sites(whole, [40]), [3]).solve(f)
    np.testing.assert_allclose(in_turn, at_once, atol=1e-13)


def test_what_is_added_can_be_taken_away():
    """An extra site without its atom is no site; an extra one fills a vacancy."""
    unit_cell, repeats, radius = COPPER
    whole = reference_lattice(unit_cell, repeats, radius=radius)
    f = jnp.asarray(np.random.default_rng(4).normal(size=(whole.n_sites, 3)))
    gone = without_sites(with_extra_sites(whole, [(0, 1, 2)]), [60]).solve(jnp.append(f, f[:1], 0))
    np.testing.assert_allclose(gone[:60], whole.solve(f), atol=1e-13)
    assert not np.any(np.asarray(gone[60]))
    neighbours = np.asarray(whole.neighbours)[7]
    filled = with_extra_sites(without_sites(whole, [7]), [neighbours])
    moved = jnp.append(f.at[7].set(0.0), f[7:8], 0)
    expected = np.asarray(whole.solve(f))
    np.testing.assert_allclose(filled.solve(moved)[60], expected[7], atol=1e-12)
    np.testing.assert_allclose(
        np.delete(filled.solve(moved)[:60], 7, 0), np.delete(expected, 7, 0), atol=1e-12
    )


def test_errors_at_the_door():
    cell = bcc("W", 3.0)
    with pytest.raises(ValueError, match="unconnected parts"):
        reference_lattice(cell, (3, 3, 3), radius=1.0)
    with pytest.raises(ValueError, match="three integers"):
        reference_lattice(cell, (3, 3))
    with pytest.raises(ValueError, match="not periodic"):
        reference_lattice(square("W", 2.0), (3, 3, 3))
    lattice = reference_lattice(cell, (3, 3, 3))
    for sites in ([54], [-1], [2, 2]):
        with pytest.raises(ValueError, match="wanted different sites"):
            without_sites(lattice, sites)
    with pytest.raises(ValueError, match="do not"):
        without_sites(without_sites(lattice, [4]), [4])
    with pytest.raises(ValueError, match="missing sites included"):
        lattice.strain_norm(jnp.zeros((53, 3)))
    for bonds in ([()], [(0, 54)], [(4,)]):
        with pytest.raises(ValueError, match="wanted at least one"):
            with_extra_sites(without_sites(lattice, [4]), bonds)
    with pytest.raises(ValueError, match="wanted bool"):
        with_held_sites(lattice, np.arange(54))
    for held in (np.ones(54, bool), np.zeros(54, bool)):
        with pytest.raises(ValueError, match="not all"):
            with_held_sites(lattice, held)
    with pytest.raises(ValueError, match="then hold"):
        with_extra_sites(with_held_sites(lattice, np.arange(54) < 9), [(20,)])
    ring = reference_lattice(simple_cubic("Po", 3.0), (6, 1, 1), radius=3.1)
    without_sites(ring, [0])
    with pytest.raises(ValueError, match="falls into parts"):
        without_sites(ring, [0, 3])


def test_norms_of_nan_are_nan():
    """A response that does not exist has no norm, and above all not the norm zero."""
    lattice = reference_lattice(bcc("W", 3.0), (3, 3, 3))
    lost = jnp.full((lattice.n_sites, 3), jnp.nan)
    assert jnp.isnan(lattice.strain_norm(lost)) and jnp.isnan(lattice.negative_norm(lost))
    assert float(lattice.strain_norm(jnp.zeros_like(lost))) == 0.0
