"""Recommended weights: their constants by hand, dense algebra and lattice sums; their scaling laws;
and that they do what they are made for: every error costs the loss the same.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.structures import bcc, diamond, fcc, make_structure
from lprjax.crystals.strain_norm import reference_lattice
from lprjax.defects.catalogue import substitution
from lprjax.defects.defect import decay_profile, vacancy
from lprjax.defects.quadratic_forms import PredictedError
from lprjax.defects.weights import (
    WeightConstants,
    check_bravais,
    decay_constant,
    recommended_weights,
    weight_constants,
)

A = 3.165  # Å
CELL = bcc("W", A)
DEFECT = vacancy(CELL, 3)
RADIUS, R_CUT = 4.6, 5.0
MOVES = np.random.default_rng(0).normal(size=(54, 3))
DATA = {"defect_cells": 8, "strained_cells": 24, "strained_volume": 31.7, "strain": 0.02}


def constants_of(radius=RADIUS, r_cut=R_CUT, defect=DEFECT, moves=MOVES):
    return weight_constants(defect, moves, radius, r_cut)


@pytest.fixture(scope="module")
def constants():
    return constants_of()


def crystal_sites(reach):
    """Sites of bcc round one at the origin, itself left out, up to a distance: (n, 3) Å."""
    m = int(reach / A) + 1
    cells = np.array(list(itertools.product(range(-m, m + 1), repeat=3)), float)
    sites = A * np.concatenate([cells, cells + 0.5])
    lengths = np.linalg.norm(sites, axis=1)
    return sites[(lengths > 0) & (lengths < reach)]


# --- constants ------------------------------------------------------------------------------


def test_the_moment_is_that_of_the_eight_and_six_bonds(constants):
    """M = sum |R|^2 / 3, |R|^2 = 3 a^2 / 4 of eight and a^2 of six: (6 + 6) a^2 / 3."""
    assert constants.moment == pytest.approx(4.0 * A**2, rel=1e-12)


def test_the_moment_is_the_stiffness_of_long_waves(constants):
    """||Dv||^2 = M |k|^2 ||v||^2 up to (k . R)^2 / 12 of it, below 0.5 % for 24 cells a wave."""
    lattice = reference_lattice(CELL, (24, 1, 1))
    k = 2 * np.pi / (24 * A)
    x = A * (np.arange(24)[:, None] + np.array([0.0, 0.5])).ravel()
    wave = jnp.asarray(np.cos(k * x)[:, None])
    found = float(lattice.strain_norm(wave)) ** 2 / float(jnp.sum(wave**2))
    assert found == pytest.approx(constants.moment * k**2, rel=5e-3)


def test_the_reach_is_the_mean_of_the_fourth_order_phase_over_atoms_and_directions(constants):
    """mu^2 = mean (k . R)^8, by quadrature on the sphere: exact for polynomials of degree 8."""
    sites = crystal_sites(R_CUT)
    assert len(sites) == 8 + 6 + 12
    z, weights = np.polynomial.legendre.leggauss(6)
    azimuth = 2 * np.pi * np.arange(10) / 10
    flat = np.sqrt(1 - z**2)[:, None]
    k = np.stack(
        np.broadcast_arrays(flat * np.cos(azimuth), flat * np.sin(azimuth), z[:, None]), axis=-1
    )
    mean = np.einsum("i,ijs->s", weights / 2 / 10, np.einsum("ijc,sc->ijs", k, sites) ** 8)
    assert constants.reach == pytest.approx(np.sqrt(np.mean(mean)), rel=1e-12)


def test_the_softness_is_the_mean_eigenvalue_of_the_inverse_norm(constants):
    """g = tr K^+ / N, K of the complete lattice by its bonds and inverted densely; so white forces
    have |f|_{-1}^2 = g |f|^2 on average."""
    n = 54
    positions = np.asarray(DEFECT.reference.positions)
    k = np.zeros((n, n))
    for shift in itertools.product((-1, 0, 1), repeat=3):
        images = positions + 3 * A * np.array(shift)
        r = np.linalg.norm(images[None] - positions[:, None], axis=-1)
        for i, j in np.argwhere((r > 0) & (r < 1.01 * A)):
            bond = np.eye(n)[i] - np.eye(n)[j]
            k += np.outer(bond, bond)
    assert constants.softness == pytest.approx(np.trace(np.linalg.pinv(k)) / n, rel=1e-10)


def test_the_density_counts_atoms(constants):
    assert constants.density == pytest.approx(2 / A**3, rel=1e-12)


def test_the_decay_is_the_median_over_shells_of_the_largest_strain_times_distance_cubed():
    """By hand: the bonds of every site that is there to others that are, nearest images."""
    reference = np.asarray(DEFECT.reference.positions)
    (empty,) = DEFECT.removed
    period = 3 * A

    def apart(a, b):
        d = b - a
        return np.linalg.norm(d - period * np.round(d / period), axis=-1)

    there = np.delete(np.arange(54), empty)
    shells = {}
    for site in there:
        near = [j for j in there if 0 < apart(reference[site], reference[j]) < 1.01 * A]
        strain = np.sqrt(np.sum((MOVES[near] - MOVES[site]) ** 2))
        shells.setdefault(round(apart(reference[empty], reference[site]), 6), []).append(strain)
    inside = [max(strains) * r**3 for r, strains in shells.items() if r <= RADIUS]
    assert len(inside) == 3
    assert decay_constant(DEFECT, MOVES, RADIUS) == pytest.approx(np.median(inside), rel=1e-5)


def test_the_site_at_the_centre_is_no_shell_of_the_far_field():
    """A foreign atom is there, at distance zero, where r^-3 says nothing."""
    foreign = substitution(bcc("W", A), 3, "Mo")
    moves = jnp.asarray(np.random.default_rng(0).normal(size=(54, 3)))
    profile = decay_profile(foreign, moves)
    shells = zip(profile.distances, profile.strains, strict=True)
    beyond = [strain * r**3 for r, strain in shells if 0 < r <= RADIUS]
    assert profile.distances[0] == 0.0 and len(beyond) == 3
    assert decay_constant(foreign, moves, RADIUS) == pytest.approx(np.median(beyond), rel=1e-12)


@pytest.mark.parametrize("radius", [10.0, 13.0, 17.0])
def test_far_field_integrals_are_sums_over_the_lattice(constants, radius):
    """||Du||_{>L}^2 = sum over r > L of c_u^2 r^-6; ||Lap Du||_{>L} likewise of 6 c_u r^-5, for
    r^-3 has the Laplacian 6 r^-5. Averaged over L within 1.5 Å, for sums jump at each shell: what
    is left is below 3 %, of a root 2 %; sites beyond 80 Å are (17 / 80)^3 < 1 % of the first sum.
    """
    r = np.linalg.norm(crystal_sites(80.0), axis=1)
    radii = radius + np.linspace(-0.75, 0.75, 31)
    c = constants_of(radius)
    for found, decay, power in ((c.tail, 1.0, 3), (c.bend, 6.0, 5)):
        terms = (decay * c.decay * r**-power) ** 2
        # Scaled to one L by the power that the integral has there.
        sums = [terms[r > other].sum() * (other / radius) ** (2 * power - 3) for other in radii]
        assert found == pytest.approx(np.sqrt(np.mean(sums)), rel=0.02)


def test_what_lies_beyond_falls_with_the_radius_by_its_power():
    """L^-3/2 and L^-7/2, at one decay."""
    near, far = constants_of(4.0), constants_of(8.0)
    tail, bend = ((far[k] / far.decay) / (near[k] / near.decay) for k in (5, 6))
    assert tail == pytest.approx(2.0**-1.5, rel=1e-12)
    assert bend == pytest.approx(2.0**-3.5, rel=1e-12)


# --- weights --------------------------------------------------------------------------------


def test_scaling_laws(constants):
    base = recommended_weights(constants, **DATA)

    def ratios(changed=constants, **data):
        found = recommended_weights(changed, **(DATA | data))
        return found.virial / base.virial, found.force_constants / base.force_constants

    assert ratios(defect_cells=32) == pytest.approx((2.0, 2.0))  # n_f^(1/2)
    assert ratios(strained_cells=96) == pytest.approx((0.5, 1.0))  # n_v^(-1/2)
    assert ratios(strain=0.06) == pytest.approx((1 / 3, 1.0))
    assert ratios(strained_volume=63.4) == pytest.approx((0.5, 1.0))
    softer = constants._replace(softness=4 * constants.softness)
    assert ratios(softer) == pytest.approx((0.5, 0.5))
    farther = constants._replace(tail=constants.tail / 8, bend=constants.bend / 128)  # L -> 4 L
    assert ratios(farther) == pytest.approx((4.0**-1.5, 4.0**-3.5))


def test_a_wrong_elastic_constant_costs_what_it_does_to_the_geometry(constants):
    """Virials of many cells under random strains, wrong by V dC strain, against
    n_f / g times ||f_C||_{-1}^2 = (|dC| V_0 / M ||Du||_{>L})^2.

    The mean of 6 n squares of uniform numbers deviates by (4 / 5)^(1/2) (6 n)^(-1/2), below 0.3 %
    for n = 20 000; dC weighs the six unequally: five times that.
    """
    rng, n = np.random.default_rng(1), 20_000
    wrong = rng.normal(size=(6, 6))  # eV/Å^3
    strains = rng.uniform(-DATA["strain"], DATA["strain"], size=(n, 6))
    weights = recommended_weights(constants, **(DATA | {"strained_cells": n}))
    loss = np.sum((weights.virial * DATA["strained_volume"] * strains @ wrong.T) ** 2)
    site_volume = A**3 / 2
    force = np.linalg.norm(wrong) * site_volume / constants.moment * constants.tail
    assert loss == pytest.approx(DATA["defect_cells"] / constants.softness * force**2, rel=0.015)


def test_wrong_force_constants_cost_what_they_do_to_the_geometry(constants):
    """(W_FC |dPhi|)^2 = n_f / g (|dPhi| mu / (4! M) ||Lap Du||_{>L})^2."""
    weight = recommended_weights(constants, **DATA).force_constants
    force = constants.reach / 24 / constants.moment * constants.bend  # eV/Å of |dPhi| = 1 eV/Å^2
    assert weight**2 == pytest.approx(8 / constants.softness * force**2, rel=1e-12)


def test_the_energy_is_as_dear_as_the_forces(constants):
    """Wrong by f . H^+ f / 2 it costs what the forces do: |f|^2 = eta^2 / g in as many cells."""
    eta, work = 0.3, 0.05
    first = PredictedError(*(jnp.asarray(x) for x in (0.1, 0.2, eta, work)))
    weight = recommended_weights(constants, **DATA, first_fit=first).energy
    assert (weight * work / 2) ** 2 == pytest.approx(eta**2 / constants.softness, rel=1e-12)


def test_without_a_first_fit_no_energy_is_recommended(constants):
    found = recommended_weights(constants, **DATA)
    assert np.isnan(found.energy) and found.virial > 0 and found.force_constants > 0


# --- the door -------------------------------------------------------------------------------


def hexagonal():
    """Close packed: both atoms have 12 neighbours alike in length, turned by 60 degrees."""
    cell = [[3.0, 0.0, 0.0], [-1.5, 1.5 * 3**0.5, 0.0], [0.0, 0.0, 3.0 * (8 / 3) ** 0.5]]
    fractions = np.array([[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.5]])
    return make_structure(fractions @ cell, cell, "Mg")


def test_a_multilattice_is_refused():
    cube = bcc("W", 3.0)
    ordered = make_structure(cube.positions, cube.cell, ["Ni", "Al"])  # B2
    for cell in (diamond("Si", 5.43), diamond("Si", 5.43, primitive=True), hexagonal(), ordered):
        with pytest.raises(ValueError, match="Bravais"):
            check_bravais(cell)
    silicon = vacancy(diamond("Si", 5.43, primitive=True), 3)
    with pytest.raises(ValueError, match="Bravais"):
        constants_of(defect=silicon, moves=jnp.zeros((54, 3)))


def test_a_bravais_lattice_passes_in_any_cell():
    for crystal in (bcc, fcc):
        for primitive in (True, False):
            check_bravais(crystal("W", 3.0, primitive=primitive))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("value", [0, -1, np.nan])
def test_numbers_that_are_not_positive_are_refused_by_name(constants, name, value):
    with pytest.raises(ValueError, match=name):
        recommended_weights(constants, **(DATA | {name: value}))


def test_lengths_that_are_not_positive_are_refused_by_name():
    for name in ("radius", "r_cut"):
        with pytest.raises(ValueError, match=name):
            constants_of(**{name: 0.0})


def test_the_primitive_cell_gives_the_same_constants(constants):
    """Of the same crystal with the same decay; only the softness belongs to the periodic cell."""
    primitive = vacancy(bcc("W", A, primitive=True), 4)
    moves = np.random.default_rng(2).normal(size=(64, 3))
    found = constants_of(defect=primitive, moves=moves)
    same = found._replace(decay=1.0, tail=found.tail / found.decay, bend=found.bend / found.decay)
    theirs = WeightConstants(
        1.0, *constants[1:5], constants.tail / constants.decay, constants.bend / constants.decay
    )
    for name in ("density", "moment", "reach", "tail", "bend"):
        assert getattr(same, name) == pytest.approx(getattr(theirs, name), rel=1e-12)
