"""Molecular dynamics: conservation laws, the distributions it samples, and its neighbours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import (
    bcc,
    diamond,
    inscribed_diameter,
    make_structure,
    rattled,
    strained,
    supercell,
)
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.simulation import dynamics
from lprjax.simulation.dynamics import (
    ACCELERATION,
    BOLTZMANN,
    minimum_image_graph,
    molecular_dynamics,
    thermal_velocities,
)

SW = stillinger_weber()
SILICON = supercell(diamond("Si", 5.5), (2, 2, 2))
CELLS = [rattled(SILICON, jax.random.key(seed), 0.05) for seed in range(2)]
KEYS = jax.random.split(jax.random.key(7), 2)
SKEW = np.array([[0.02, 0.05, 0.0], [0.0, -0.03, 0.04], [0.01, 0.0, 0.0]])
N = SILICON.n_atoms
MASS = 28.085  # u


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Springs:
    """Every atom on its own spring, 3 Å from the next, k in eV/Å^2: neighbours play no part."""

    k: float
    r_cut: float = dataclasses.field(default=1.0, metadata=dict(static=True))

    def __call__(self, graph):
        return 0.5 * self.k * jnp.sum((graph.positions - anchors(graph.species.size)) ** 2, axis=1)


def anchors(n):
    return np.outer(np.arange(n), [3.0, 0.0, 0.0])


def oscillators(n):
    return make_structure(anchors(n), np.diag([max(10.0, 3.0 * n), 10.0, 10.0]), "Si")


def fly(temperatures=600.0, **options):
    """1500 steps of both cells, a frame every ten: one shape, so that all of these compile once."""
    schedule = np.broadcast_to(temperatures, 1500)
    return molecular_dynamics(SW, CELLS, KEYS, schedule, every=10, **options)


@pytest.fixture(scope="module")
def free_flight():
    """No thermostat; frames at 20, 40, ... 120 fs, by three time steps."""
    runs = {dt: fly(time_step=dt, friction=0.0) for dt in (2.0, 1.0, 0.5)}
    chosen = {dt: slice(round(2 / dt) - 1, round(12 / dt), round(2 / dt)) for dt in runs}
    return {dt: [np.asarray(x)[:, chosen[dt]] for x in run[:4]] for dt, run in runs.items()}


def test_energy_drifts_with_the_square_of_the_time_step(free_flight):
    """Velocity Verlet keeps a Hamiltonian that differs from the true one by O(dt^2)."""
    spread = {dt: np.std(u + k, axis=1) for dt, (_, _, u, k) in free_flight.items()}
    np.testing.assert_allclose(spread[2.0] / spread[1.0], 4.0, rtol=0.15)
    np.testing.assert_allclose(spread[1.0] / spread[0.5], 4.0, rtol=0.05)
    assert (spread[0.5] < 0.01 * np.std(free_flight[0.5][2], axis=1)).all()


def test_positions_converge_with_the_square_of_the_time_step(free_flight):
    x = {dt: np.asarray(frames[0][:, 1]) for dt, frames in free_flight.items()}  # at 40 fs
    coarse, fine = np.abs(x[2.0] - x[1.0]).max(), np.abs(x[1.0] - x[0.5]).max()
    assert coarse / fine == pytest.approx(4.0, rel=0.1) and fine < 1e-3


def test_momentum_is_conserved_without_friction(free_flight):
    """All masses are equal: the velocities keep the sum of zero that they were drawn with."""
    v = np.asarray(free_flight[1.0][1])
    assert np.abs(v.sum(axis=2)).max() < 1e-12 * np.abs(v).sum(axis=2).min()


def test_one_cell_alone_goes_the_same_way():
    options = dict(time_step=1.0, friction=0.01, every=10)
    both = fly(time_step=1.0, friction=0.01)
    alone = molecular_dynamics(SW, CELLS[1:], KEYS[1:], np.full(50, 600.0), **options)
    for name in ("positions", "velocities", "potential_energy"):
        # Rounding differs, and 50 fs of chaos make it larger by some orders of magnitude.
        wanted = np.asarray(getattr(both, name))[1:, :5]
        np.testing.assert_allclose(getattr(alone, name), wanted, rtol=1e-9, atol=1e-10)


def swing(k, keys, displacements=0.0, temperature=0.0, **options):
    """50 steps of two cells of four oscillators."""
    rest = oscillators(4)
    cells = [make_structure(rest.positions + displacements, rest.cell, "Si")] * 2
    return molecular_dynamics(Springs(k), cells, keys, np.full(50, temperature), **options)


def test_other_keys_go_other_ways():
    """And the same keys the same way, in the same batch and in the next."""
    same = swing(1.0, jnp.stack([KEYS[0], KEYS[0]]), temperature=300.0).positions
    np.testing.assert_array_equal(same[0], same[1])
    other = np.asarray(swing(1.0, KEYS, temperature=300.0).positions)
    np.testing.assert_array_equal(other[0], same[0])
    assert np.abs(other[1] - other[0]).min() > 1e-6


def test_a_flight_is_that_of_the_equations_of_motion():
    """Of an oscillator, velocity Verlet's own frequency is known in closed form."""
    k, dt = 3.0, 1.3
    x = np.random.default_rng(0).normal(size=(4, 3))
    run = swing(k, KEYS, x, time_step=dt, friction=0.0, velocities=np.zeros((2, 4, 3)))
    angle = 2.0 * np.arcsin(0.5 * dt * np.sqrt(k * ACCELERATION / MASS))
    moved = run.positions[0, -1] - anchors(4)
    np.testing.assert_allclose(moved, x * np.cos(50 * angle), rtol=1e-10, atol=1e-13)


def test_positions_of_the_oscillator_are_sampled_exactly_at_any_step():
    """BAOAB's variance of a harmonic position is kT/k whatever dt: here omega dt = 1.2.

    (Leimkuhler and Matthews 2013; a first-order splitting is off by tens of per cent there.)
    """
    k, temperature, frames = 3.0, 500.0, 100
    omega = np.sqrt(k * ACCELERATION / MASS)
    options = dict(time_step=1.2 / omega, friction=0.5 * omega, every=20, n_neighbours=1)
    cells, keys = [oscillators(5)] * 60, jax.random.split(jax.random.key(1), 60)
    schedule = np.full(20 * frames, temperature)
    run = molecular_dynamics(Springs(k), cells, keys, schedule, **options)
    x = np.asarray(run.positions[:, 5:]) - anchors(5)  # frames are 24 / omega apart: independent
    error = np.sqrt(2.0 / x.size)  # relative, of a variance from x.size independent samples
    assert np.mean(x**2) == pytest.approx(BOLTZMANN * temperature / k, rel=4.0 * error)
    assert 4.0 * error < 0.025


def test_equipartition_along_a_schedule():
    """The kinetic temperature follows the thermostat's, here in silicon."""
    schedule = np.concatenate([np.full(500, 300.0), np.full(1000, 900.0)])
    run = fly(schedule, time_step=1.0, friction=0.05)
    # From 500 fs = 25 / friction after the jump on.
    late = np.asarray(run.temperature())[:, 100::5]
    # Of 3 n degrees of freedom; frames at 2.5 / friction are independent to 8 %. Velocity Verlet's
    # kinetic energy is low by (omega dt)^2 / 4 < 0.3 %.
    error = np.sqrt(2.0 / (3 * N * late.size))
    assert late.mean() == pytest.approx(900.0, rel=4.0 * error + 0.003)
    assert not run.overflow.any()


def test_thermal_velocities_have_their_temperature_and_no_momentum():
    masses = jnp.asarray(np.random.default_rng(0).uniform(1.0, 200.0, 4000))
    v = np.asarray(thermal_velocities(jax.random.key(1), masses, 700.0))
    m = np.asarray(masses)[:, None]
    assert np.abs((m * v).sum(axis=0)).max() < 1e-12 * np.abs(m * v).sum()
    temperature = (m * v**2).sum() / ACCELERATION / (3 * len(m) * BOLTZMANN)
    assert temperature == pytest.approx(700.0, rel=4.0 * np.sqrt(2.0 / (3 * len(m))))


by_minimum_images = jax.jit(minimum_image_graph, static_argnums=2)


@jax.jit
def labels_by_minimum_images(structure):
    graph, overflow = minimum_image_graph(structure, SW.r_cut, 20)
    return observe(SW, graph, ("energy", "forces")), overflow


@pytest.mark.parametrize("strain", [np.zeros((3, 3)), SKEW], ids=["cube", "skewed"])
@pytest.mark.parametrize("turns", [0, 3])
def test_forces_are_those_of_the_neighbour_search(strain, turns):
    """Also for atoms that have left the cell, by whole lattice vectors."""
    cell = strained(rattled(SILICON, jax.random.key(3), 0.3), strain)
    away = np.random.default_rng(0).integers(-turns, turns + 1, (N, 3)) @ np.asarray(cell.cell)
    cell = dataclasses.replace(cell, positions=cell.positions + away)
    found, overflow = labels_by_minimum_images(cell)
    wanted = observe(SW, build_graph(cell, SW.r_cut, n_neighbours=24))
    assert not overflow
    np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, wanted.forces, atol=1e-9)


def test_open_directions_have_no_images():
    slab = dataclasses.replace(rattled(SILICON, jax.random.key(3), 0.1), pbc=(True, True, False))
    graph, _ = by_minimum_images(slab, SW.r_cut, 16)
    counts = build_graph(slab, SW.r_cut, n_atoms=N).neighbour_counts()
    np.testing.assert_array_equal(graph.neighbour_counts(), counts)
    assert not np.asarray(graph.shifts)[..., 2].any()


def test_neighbours_beyond_the_slots_raise_the_flag():
    """In the batch only where it happened; a crystal of 4 neighbours in reach has room in 4."""
    crowded = rattled(SILICON, jax.random.key(0), 0.5)
    most = [int(build_graph(s, SW.r_cut).neighbour_counts().max()) for s in (SILICON, crowded)]
    assert most[0] == 4 < most[1]
    for slots, flagged in ((most[1] - 1, True), (most[1], False)):
        graph, overflow = by_minimum_images(crowded, SW.r_cut, slots)
        assert bool(overflow) == flagged and graph.neighbours.shape == (N, slots)
    still = np.zeros((2, N, 3))
    potential, cells = Springs(1.0, r_cut=SW.r_cut), [SILICON, crowded]
    with pytest.warns(UserWarning, match="n_neighbours is 4"):
        run = molecular_dynamics(
            potential, cells, KEYS, [0.0], velocities=still, n_neighbours=4, time_step=1e-3
        )
    assert run.overflow.tolist() == [False, True]


def test_the_diameter_of_the_sphere_inside_a_cell():
    cube = oscillators(1)
    assert inscribed_diameter(cube) == pytest.approx(10.0, rel=1e-14)
    sheared = strained(cube, [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert inscribed_diameter(sheared) == pytest.approx(10.0 / np.sqrt(2.0), rel=1e-14)
    assert inscribed_diameter(dataclasses.replace(cube, pbc=(False,) * 3)) == np.inf


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"structures": [diamond("Si", 5.43)]}, "diameter of 5.43 Å"),
        ({"structures": []}, "structures is empty"),
        ({"structures": [SILICON, supercell(diamond("Si", 5.5), (2, 2, 3))]}, "share number"),
        ({"structures": [supercell(diamond("C", 5.5), (2, 2, 2))]}, "silicon|Si"),
        ({"keys": jax.random.split(jax.random.key(0), 3)}, "one for each structure"),
        ({"temperatures": [300.0, -1.0]}, "none below 0 K"),
        ({"temperatures": []}, "one per step"),
        ({"time_step": 0.0}, "time_step"),
        ({"friction": -0.1}, "friction"),
        ({"every": 3}, "divisor of the 10 steps"),
        ({"n_neighbours": 0}, "n_neighbours"),
        ({"velocities": np.zeros((N, 3))}, "velocities has shape"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    arguments = {"structures": [SILICON], "keys": KEYS[:1], "temperatures": np.full(10, 300.0)}
    with pytest.raises(ValueError, match=message):
        molecular_dynamics(SW, **{**arguments, **changes})


def test_every_structure_of_the_batch_is_looked_at():
    """Two atoms on one site in the second, which would be NaN and vanish in the dynamics."""
    positions = np.array(SILICON.positions)
    positions[1] = positions[0]
    merged = dataclasses.replace(SILICON, positions=jnp.asarray(positions))
    with pytest.raises(ValueError, match="structure 1: distance of atoms 0 and 1"):
        molecular_dynamics(SW, [SILICON, merged], KEYS, [300.0])


def test_by_default_there_is_room_for_the_neighbours_that_there_are():
    """Tungsten has 64 in the reach of its potential: the energy is that of the whole graph."""
    tungsten = supercell(bcc("W", 3.165), (4, 4, 4))
    eam = zhou_eam("W")
    found = molecular_dynamics(eam, [tungsten], KEYS[:1], [300.0], time_step=1e-9)
    expected = observe(eam, build_graph(tungsten, eam.r_cut), "energy").energy
    assert not found.overflow[0]
    np.testing.assert_allclose(found.potential_energy[0, 0], expected, rtol=1e-12)


def test_too_few_slots_are_said_aloud():
    with pytest.warns(UserWarning, match=r"n_neighbours is 2: in structure\(s\) \[1\]"):
        sparse = supercell(diamond("Si", 33.0), (2, 2, 2))
        found = molecular_dynamics(SW, [sparse, SILICON], KEYS, [0.0], n_neighbours=2)
    assert found.overflow.tolist() == [False, True]


def test_free_atoms_are_slowed_at_the_rate_of_the_friction():
    """Without forces and at zero temperature v(t) = v(0) exp(-friction t), exactly."""
    start = np.random.default_rng(0).normal(size=(2, 4, 3))
    found = swing(0.0, KEYS, friction=0.05, time_step=0.5, velocities=start)
    np.testing.assert_allclose(found.velocities[:, -1], start * np.exp(-0.05 * 25.0), rtol=1e-12)


def test_when_candidates_are_looked_for_is_of_no_account(monkeypatch):
    """216 atoms that fly several Å: the same trajectory where they are looked for in every step,
    and the energy at its end is that of the neighbour search."""
    cell, key = rattled(supercell(diamond("Si", 5.5), (3, 3, 3)), KEYS[0], 0.05), KEYS[:1]
    hot = 0.05 * np.random.default_rng(0).normal(size=(1, cell.n_atoms, 3))
    options = dict(velocities=hot, friction=0.0, every=10, n_neighbours=24)
    found = molecular_dynamics(SW, [cell], key, np.zeros(40), **options)
    assert np.linalg.norm(found.positions[0, -1] - cell.positions, axis=1).max() > 3.0
    last = dataclasses.replace(cell, positions=found.positions[0, -1])
    expected = observe(SW, build_graph(last, SW.r_cut), "energy").energy
    np.testing.assert_allclose(found.potential_energy[0, -1], expected, rtol=1e-12)
    monkeypatch.setattr(dynamics, "SKIN", 0.0)
    always = molecular_dynamics(SW, [cell], key, np.zeros(40), **options)
    for frames in (found, always):
        assert not frames.overflow[0]
    # Rounding differs by compilation, and chaos makes it larger.
    np.testing.assert_allclose(found.positions, always.positions, rtol=0, atol=1e-9)


def test_lost_candidates_count_as_lost_neighbours():
    """Twelve atoms come from 6 Å to 1.5 Å of one: none is in reach, but more than the 8 candidates
    that there is room for would have to be watched."""
    golden, ends = 0.5 * (1.0 + np.sqrt(5.0)), [(i, j) for i in (-1, 1) for j in (-1, 1)]
    corners = [np.roll([0.0, i, golden * j], k) for i, j in ends for k in range(3)]
    out = np.array(corners) / np.linalg.norm(corners[0])
    start, inward = np.zeros((13, 3)), np.zeros((1, 13, 3))
    start[1:], inward[0, 1:] = 6.0 * out, -0.5 * out
    cell = make_structure(start, 40.0 * np.eye(3), "Si", False)
    with pytest.warns(UserWarning, match="n_neighbours is 1"):
        run = molecular_dynamics(
            Springs(0.0), [cell], KEYS[:1], np.zeros(9), velocities=inward, friction=0.0,
            n_neighbours=1,
        )  # fmt: skip
    np.testing.assert_allclose(run.positions[0, -1, 1:], 1.5 * out, atol=1e-12)
    assert run.overflow.tolist() == [True]


def test_neighbours_that_were_lost_once_stay_flagged():
    """Three free atoms, two of them in reach of the first at the start alone, with room for one."""
    line = np.array([[0.0, 0.8, 0.0], [0.0, 0.0, 0.0], [0.0, -0.8, 0.0]])
    cell = make_structure(line, 10.0 * np.eye(3), "Si")
    with pytest.warns(UserWarning, match="n_neighbours is 1"):
        run = molecular_dynamics(
            Springs(0.0), [cell], KEYS[:1], np.zeros(2), velocities=line[None], friction=0.0,
            n_neighbours=1, every=1,
        )  # fmt: skip
    np.testing.assert_allclose(run.positions[0, -1], 3.0 * line, atol=1e-12)
    assert run.overflow.tolist() == [True]
