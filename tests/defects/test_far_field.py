"""The far field, order by order: exact sums, finite differences, and the long-wave limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, diamond, make_structure, simple_cubic
from lprjax.crystals.elasticity import GPA_PER_EV_A3
from lprjax.defects.defect import vacancy
from lprjax.defects.far_field import (
    cauchy_born,
    far_field,
    lattice_orders,
    site_gradient,
)
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.observables import energy_and_forces

TUNGSTEN, CELL = zhou_eam("W"), bcc("W", 3.164849)
# Stress-free, all derivatives up to the fourth, four shells of a simple cubic lattice.
RADII = 2.0 * np.sqrt([1.0, 2.0, 3.0, 4.0])
BONDS = polynomial_bonds(
    RADII, np.array([[0, 0, 2.0, -3.0, 2.0], [0, 0, 1.0, -1.0, 1.0]] + 2 * [[0, 0, 0.3, 0.2, 0.1]])
)


@pytest.fixture(scope="module")
def small():
    return vacancy(CELL, 4)


def noise(n, size, seed=0):
    return size * jax.random.normal(jax.random.key(seed), (n, 3))


def test_far_field_is_the_displacement_outside_and_nothing_inside(small):
    radius = 5.0
    u = noise(small.lattice.n_sites, 0.1)
    w, distances = np.asarray(far_field(small, u, radius)), small.distances()
    shift = np.asarray(u - w)[distances > radius]
    np.testing.assert_allclose(shift, shift[:1].repeat(len(shift), 0), atol=1e-15)
    assert not w[distances < 0.5 * radius].any()
    rigid = far_field(small, jnp.ones_like(u), radius)  # a translation has no far field
    np.testing.assert_allclose(rigid, 0.0, atol=1e-15)


@pytest.mark.parametrize("radius", [1.0, 30.0])
def test_far_field_refuses_a_radius_without_atoms_on_both_sides(small, radius):
    with pytest.raises(ValueError, match=f"radius is {radius}"):
        far_field(small, jnp.zeros((small.lattice.n_sites, 3)), radius)


def test_unit_cell_is_the_one_repeated(small):
    found = small.unit_cell
    np.testing.assert_allclose(found.cell, CELL.cell, atol=1e-14)
    np.testing.assert_allclose(found.positions, CELL.positions, atol=1e-14)


def test_orders_add_up_and_scale(small):
    """Their sum is the force of the displaced lattice; order n grows as the n-th power of w."""
    w = noise(128, 0.02)
    orders = lattice_orders(TUNGSTEN, small.reference, w)
    moved = make_structure(
        small.reference.positions + w, small.reference.cell, small.reference.species
    )
    energy, forces = energy_and_forces(TUNGSTEN, build_graph(moved, TUNGSTEN.r_cut))
    at_rest, still = energy_and_forces(TUNGSTEN, build_graph(small.reference, TUNGSTEN.r_cut))
    total = orders.first + orders.second + orders.rest + orders.at_rest
    np.testing.assert_allclose(total, forces[:128], atol=1e-11)
    linear = -float(jnp.vdot(still[:128], w))
    assert float(sum(orders.energies)) == pytest.approx(float(energy - at_rest) - linear, abs=1e-9)
    double = lattice_orders(TUNGSTEN, small.reference, 2.0 * w)
    np.testing.assert_allclose(double.first, 2.0 * orders.first, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(double.second, 4.0 * orders.second, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        double.energies[:2], orders.energies[:2] * jnp.array([4.0, 8.0]), rtol=1e-9
    )
    # Third and higher orders: between the third and the fifth power.
    growth = np.linalg.norm(double.rest) / np.linalg.norm(orders.rest)
    assert 8.0 * 0.7 < growth < 8.0 * 1.5


def test_forces_of_each_order_are_the_slopes_of_its_energy(small):
    """Euler: an energy of degree n + 1 is -<F_n, w> / (n + 1); and by differences along v."""
    w, v, h = noise(128, 0.02), noise(128, 1.0, seed=1), 1e-5
    here, ahead, behind = (
        lattice_orders(TUNGSTEN, small.reference, w + t * v) for t in (0.0, h, -h)
    )
    slopes = (ahead.energies[:2] - behind.energies[:2]) / (2 * h)
    expected = [-float(jnp.vdot(f, v)) for f in (here.first, here.second)]
    np.testing.assert_allclose(slopes, expected, rtol=1e-6)


def test_site_gradient_is_exact_for_a_homogeneous_deformation(small):
    """On sites whose bonds do not cross the boundary of the cell."""
    gradient = site_gradient(small)
    slope = np.random.default_rng(0).normal(size=(3, 3))
    w = np.asarray(small.reference.positions) @ slope.T
    inside = small.distances() < 3.0
    found = np.asarray(gradient(jnp.asarray(w)))[inside]
    np.testing.assert_allclose(found, np.broadcast_to(slope, found.shape), atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1.02])
def test_densities_are_the_crystals_energy(scale):
    """Second and third derivatives along any homogeneous deformation, stress-free or under it.

    By differentiation of the energy of the deformed crystal itself, without symmetric strains.
    """
    cell = bcc("W", 3.164849 * scale)
    model = cauchy_born(TUNGSTEN, vacancy(cell, 4))
    slope = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
    graph = build_graph(cell, TUNGSTEN.r_cut)

    def energy(t):
        deformation = jnp.eye(3) + t * slope.T
        return TUNGSTEN(moved(graph, graph.positions @ deformation, graph.cell @ deformation)).sum()

    second = jax.grad(jax.grad(energy))
    expected = np.array([second(0.0) / 2, jax.grad(second)(0.0) / 6]) / float(cell.volume)
    np.testing.assert_allclose(model.densities(slope), expected, rtol=1e-9)


def test_densities_of_a_multilattice_are_relaxed():
    silicon, cell = stillinger_weber(), diamond("Si", 5.430949778405213)
    model = cauchy_born(silicon, vacancy(cell, 3))
    shear = jnp.zeros((3, 3)).at[0, 1].set(1.0)
    assert float(model.densities(shear)[0]) * 2 * GPA_PER_EV_A3 == pytest.approx(56.447, rel=1e-3)


def plane_wave(reference, waves):
    """A transverse-and-longitudinal wave along x with that many periods in the supercell."""
    x = np.asarray(reference.positions)[:, 0] / float(reference.cell[0, 0])
    phase = 2 * np.pi * waves * x
    return jnp.asarray(0.01 * np.stack([np.sin(phase), np.cos(phase), 0.5 * np.sin(phase)], 1))


def test_cauchy_born_is_the_long_wave_limit():
    """Relative difference of the lattice's forces from it falls as the square of the wave vector.

    Between waves of 24 and of 12 cells the ratio is 4 up to the next order, (2 pi / 12)^2 ~ 0.3.
    """
    cell = simple_cubic("W", 2.0)
    defect = vacancy(cell, (24, 5, 5))
    model = cauchy_born(BONDS, defect)
    gaps = []
    for waves in (1, 2):
        w = plane_wave(defect.reference, waves)
        orders = lattice_orders(BONDS, defect.reference, w)
        parts = zip((orders.first, orders.second), model.forces(w), strict=True)
        gaps.append([float(jnp.linalg.norm(f - g) / jnp.linalg.norm(f)) for f, g in parts])
    assert np.all(np.array(gaps[0]) < 0.1)
    np.testing.assert_allclose(np.array(gaps[1]) / gaps[0], 4.0, rtol=0.3)


def test_cauchy_born_forces_are_the_slopes_of_its_energies():
    cell = simple_cubic("W", 2.0)
    defect = vacancy(cell, 5)
    model = cauchy_born(BONDS, defect)
    w, v, h = noise(125, 0.1), noise(125, 1.0, seed=2), 1e-5
    slopes = (model.energies(w + h * v) - model.energies(w - h * v)) / (2 * h)
    expected = [-float(jnp.vdot(f, v)) for f in model.forces(w)]
    np.testing.assert_allclose(slopes, expected, rtol=1e-7)
    np.testing.assert_allclose(jnp.sum(model.forces(w)[1], axis=0), 0.0, atol=1e-12)


def test_gradients_in_a_cell_too_small_for_their_bonds_are_refused():
    """In two cubes of bcc the bonds of length a lead both ways to one atom; three will do."""
    with pytest.raises(ValueError, match=r"6\.33 Å wide.*at least \(3, 3, 3\) unit cells"):
        site_gradient(vacancy(CELL, 2))
    slope = np.array([[0.1, 0.2, -0.3], [0.0, 0.4, 0.1], [0.2, 0.0, 0.3]])
    block = vacancy(CELL, 3)
    inside = np.all(np.abs(np.asarray(block.reference.positions) - 4.7) < 1.0, axis=1)
    found = site_gradient(block)(jnp.asarray(block.reference.positions) @ slope.T)
    assert inside.any()
    np.testing.assert_allclose(
        found[inside], np.broadcast_to(slope, found[inside].shape), atol=1e-12
    )
