"""The far field, order by order: exact sums, finite differences, and the long-wave limit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import (
    bcc,
    diamond,
    make_structure,
    minimum_image,
    simple_cubic,
    supercell,
)
from lprjax.atoms.voigt import engineering_strain, strain_tensor
from lprjax.crystals.elasticity import GPA_PER_EV_A3, elastic_constants
from lprjax.crystals.phonons import force_constants
from lprjax.crystals.strain_norm import reference_lattice
from lprjax.defects.defect import vacancy
from lprjax.defects.far_field import (
    cauchy_born,
    cauchy_born_mismatch,
    cell_strain,
    far_field,
    lattice_orders,
    site_gradient,
)
from lprjax.numerics.guarded import smoothstep
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


def test_the_cut_joins_with_two_derivatives(small):
    """chi <= 10 t^3 and 1 - chi <= 10 (1 - t)^3: a step with one derivative starts as 3 t^2. Read
    off a displacement of mean zero in the rim, +1 and -1 Å on opposite sides of the centre."""
    radius = 5.0
    away = np.asarray(small.reference.positions) - np.asarray(small.centre)
    width = float(small.reference.cell[0, 0])
    x = (away[:, 0] + width / 2) % width - width / 2
    side = np.where(np.abs(x) < 1e-9, 0.0, np.sign(x)) * (np.abs(x) < width / 2 - 1e-9)
    t = 2.0 * small.distances() / radius - 1.0
    chi = np.asarray(far_field(small, side[:, None] * np.ones(3), radius))[:, 0] / np.where(
        side == 0.0, 1.0, side
    )
    rim = (side != 0.0) & (t > 0) & (t < 1)
    assert (t[rim] < 0.25).any() and (t[rim] > 0.75).any()
    assert np.all(chi[rim] <= 10 * t[rim] ** 3) and np.all(1 - chi[rim] <= 10 * (1 - t[rim]) ** 3)
    assert np.all(chi[rim] > 0) and np.all(np.diff(chi[rim][np.argsort(t[rim])]) >= -1e-12)


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


def test_third_order_of_a_multilattice_is_relaxed():
    """d3/dt3 of the energy of diamond under I + t H by differences, its sublattices settled by
    Newton's method at every t; extrapolated to h^4."""
    silicon, cell = stillinger_weber(), diamond("Si", 5.430949778405213, primitive=True)
    model = cauchy_born(silicon, vacancy(cell, 4))
    slope = np.random.default_rng(3).normal(size=(3, 3))
    graph = build_graph(cell, silicon.r_cut, n_atoms=2)

    @jax.jit
    def derivatives(t, shift):
        def energy(shift):
            deformation = jnp.eye(3) + t * slope.T
            positions = graph.positions.at[1].add(shift)
            strained = moved(graph, positions @ deformation, graph.cell @ deformation)
            return silicon(strained).sum()

        return energy(shift), jax.grad(energy)(shift), jax.hessian(energy)(shift)

    def energy(t, settled):
        shift = np.zeros(3)
        for _ in range(6 * settled):
            _, force, stiffness = derivatives(t, shift)
            shift = shift - np.linalg.solve(stiffness, force)
        return float(derivatives(t, shift)[0])

    def third(settled):
        def difference(h):
            ends = (energy(2 * h, settled) - energy(-2 * h, settled)) / 2
            return (ends - energy(h, settled) + energy(-h, settled)) / h**3

        return (4 * difference(2e-3) - difference(4e-3)) / 3 / 6 / float(cell.volume)

    expected = third(True)
    assert float(model.densities(slope)[1]) == pytest.approx(expected, rel=1e-4)
    assert abs(third(False) - expected) > 0.05 * abs(expected)


def test_gradients_are_blind_to_shifts_and_cells_see_them():
    """Under w = H x + p of the sublattice, away from the boundary of the cell: an uneven crystal of
    two atoms, no site of which has bonds that add up to zero."""
    cell = make_structure([[0, 0, 0], [0.7, 0.9, 1.2]], 2.6 * np.eye(3), "W", True)
    defect = vacancy(cell, 5, radius=3.0)
    rng = np.random.default_rng(4)
    slope, shifts = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    shifts -= shifts.mean(axis=0)
    w = np.asarray(defect.reference.positions) @ slope.T + np.tile(shifts, (125, 1))
    inside = defect.distances() < 3.0
    found = np.asarray(site_gradient(defect)(jnp.asarray(w)))[inside]
    np.testing.assert_allclose(found, np.broadcast_to(slope, found.shape), atol=1e-11)
    strains, moves = cell_strain(defect)(jnp.asarray(w))
    inside = inside.reshape(125, 2).all(axis=1)
    assert inside.sum() > 2
    e = 0.5 * (slope + slope.T)
    voigt = [e[0, 0], e[1, 1], e[2, 2], 2 * e[1, 2], 2 * e[0, 2], 2 * e[0, 1]]
    np.testing.assert_allclose(strains[inside], np.tile(voigt, (inside.sum(), 1)), atol=1e-11)
    np.testing.assert_allclose(
        moves[inside], np.broadcast_to(shifts, (inside.sum(), 2, 3)), atol=1e-11
    )


@pytest.fixture(scope="module")
def diamond_pair():
    """Silicon, and silicon with stiffer angles: elastic constants and internal strain differ."""
    silicon = stillinger_weber()
    return silicon, dataclasses.replace(silicon, lam=23.0)


def test_internal_strain_is_the_force_on_a_strained_cell(diamond_pair):
    """T e: forces of the surrogate on a cell that is strained, and settled by the reference."""
    silicon, other = diamond_pair
    cell = diamond("Si", 5.430949778405213, primitive=True)
    model = cauchy_born_mismatch(silicon, other, vacancy(cell, 4))
    h = 1e-4
    for axis in (3, 5):
        forces = []
        for sign in (1, -1):
            e = strain_tensor(sign * h * np.eye(6)[axis])
            deformation = np.eye(3) + np.asarray(e)
            shifts = sign * h * np.asarray(model.followed)[:, :, axis]
            positions = (np.asarray(cell.positions) + shifts) @ deformation
            strained = make_structure(positions, np.asarray(cell.cell) @ deformation, "Si", True)
            both = (
                energy_and_forces(p, build_graph(strained, p.r_cut))[1][:2]
                for p in (silicon, other)
            )
            theirs, ours = both
            assert float(jnp.abs(theirs).max()) < 10 * h**2 * 100  # second order: it has settled
            forces.append(np.asarray(ours))
        slope = (forces[0] - forces[1]) / (2 * h)
        assert np.abs(slope).max() > 0.1
        np.testing.assert_allclose(np.asarray(model.unbalanced)[:, :, axis], slope, atol=1e-5)


def test_with_internal_strain_the_rest_falls_as_k_squared(diamond_pair):
    """Of an acoustic wave of the reference in diamond, which has centres of inversion. Elasticity
    alone leaves a share that does not fall: what makes multilattices different in kind."""
    cell, left = diamond("Si", 5.430949778405213, primitive=True), []
    for m in (10, 20):
        repeats = (m, 3, 3)
        defect, norm = vacancy(cell, repeats), reference_lattice(cell, repeats)
        model = cauchy_born_mismatch(*diamond_pair, defect)
        theirs, ours = (force_constants(p, cell, repeats) for p in diamond_pair)
        _, modes = np.linalg.eigh(np.asarray(theirs.half_fourier())[1, 0, 0])
        phase = np.exp(2j * np.pi * np.indices(repeats)[0].reshape(-1) / m)
        w = jnp.asarray(np.real(phase[:, None] * modes[:, 2]).reshape(-1, 3))
        first = theirs.apply(w) - ours.apply(w)
        rest = first - model.forces(w)[0]
        left.append([float(norm.negative_norm(f)) for f in (rest, rest - model.internal_forces(w))])
        left[-1] = [size / float(norm.strain_norm(w)) for size in left[-1]]
    (elastic, kept), (elastic_longer, kept_longer) = left
    assert elastic_longer == pytest.approx(elastic, rel=0.1)
    assert kept / kept_longer == pytest.approx(4.0, rel=0.15) and kept < 0.1 * elastic


def test_the_cut_leaves_no_shift_of_its_own(diamond_pair):
    """Of a smooth displacement u = H x with its sublattices settled, the cut-off w is settled too,
    up to the next order of the cut's gradient: twice as far out, half is left (root mean square);
    without its last term as much is left."""
    silicon, _ = diamond_pair
    cell = diamond("Si", 5.430949778405213, primitive=True)
    internal, off = elastic_constants(silicon, cell).internal, []
    for m, radius in ((8, 8.0), (16, 16.0)):
        defect = vacancy(cell, (m, m, m))
        away = minimum_image(
            np.asarray(defect.reference.positions) - np.asarray(defect.centre), defect.reference
        )[0]
        slope = np.random.default_rng(5).normal(size=(3, 3))
        e = engineering_strain(jnp.asarray(0.5 * (slope + slope.T)))
        settled = np.tile(np.asarray(internal @ e), (m**3, 1))
        u = away @ slope.T + settled
        present = np.asarray(defect.lattice.present)[:, None]
        inside = (defect.distances() < radius).reshape(-1, 2).all(axis=1)
        off.append([])
        for followed in (internal, None):
            w = far_field(defect, np.where(present, u, 0.0), radius, followed)
            strains, shifts = cell_strain(defect)(w)
            wrong = shifts - jnp.einsum("aci,Ni->Nac", internal, strains)
            off[-1].append(float(jnp.sqrt(jnp.mean(wrong[inside] ** 2))))
    (small, left), (farther, still_left) = off
    assert farther / small == pytest.approx(0.5, abs=0.1) and farther < 0.5 * still_left
    assert still_left / left == pytest.approx(1.0, abs=0.1)


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


def test_the_cut_strains_by_the_slope_of_its_step():
    """What follows the cut is Lambda sym(u grad chi), chi' by differentiation of the step."""
    defect, radius, rng = vacancy(diamond("Si", 5.43), 3), 6.0, np.random.default_rng(8)
    u, internal = rng.normal(size=(216, 3)), rng.normal(size=(8, 3, 6))
    u[defect.removed[0]] = 0.0
    followed = np.asarray(far_field(defect, u, radius, internal) - far_field(defect, u, radius))
    centre = np.asarray(defect.centre)
    offsets = np.asarray(defect.reference.positions) - centre
    away, distances = minimum_image(offsets, defect.reference)
    rim = (distances > radius / 2) & (distances < radius)
    slope = jax.vmap(jax.grad(lambda d: smoothstep(2.0 * d / radius - 1.0)))(jnp.asarray(distances))
    gradient = np.asarray(slope)[:, None] * away / np.maximum(distances, 1.0)[:, None]
    cut = np.einsum("li,lj->lij", u - u[rim].mean(axis=0), gradient)
    strains = jax.vmap(engineering_strain)(jnp.asarray(0.5 * (cut + cut.transpose(0, 2, 1))))
    expected = np.einsum("lci,li->lc", np.tile(internal, (27, 1, 1)), strains)
    np.testing.assert_allclose(followed, expected, atol=1e-12)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("n", [15, 17])
def test_orders_want_a_displacement_of_every_atom(n):
    """Fewer rows would be taken for atoms that stay, more than the graph has places for."""
    crystal = supercell(bcc("W", 3.165), (2, 2, 2))
    with pytest.raises(ValueError, match=rf"w has shape \({n}, 3\): wanted \(16, 3\)"):
        lattice_orders(TUNGSTEN, crystal, np.zeros((n, 3)))
