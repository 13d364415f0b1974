"""Theorems on the minimiser: its end does not depend on its way, and it says how it ended.

A minimum found to forces below t is within t / (smallest stiffness) of the true one, and its
energy within t^2 / stiffness: with t = 1e-6 eV/Å and more than 0.1 eV/Å^2 everywhere here,
positions agree to 1e-5 Å and energies to 1e-10 eV (about the roundoff of the sum).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import diamond, make_structure, rattled, supercell
from lprjax.crystals.strain_norm import ReferenceLattice, reference_lattice
from lprjax.potentials import stillinger_weber
from lprjax.potentials.observables import energy_and_forces
from lprjax.simulation.relaxation import MEMORY, _initial, _two_loops, relax

SILICON = stillinger_weber()
CELL = diamond("Si", 5.43095)
LONG = (1, 1, 6)  # 48 atoms in a row of cubes, soft along it
CRYSTAL = supercell(CELL, LONG)
BULK = -4.336600


def shaken(seed=0, sigma=0.1):
    return rattled(CRYSTAL, jax.random.key(seed), sigma)


def modulo_translation(positions):
    return np.asarray(positions) - np.mean(np.asarray(positions), axis=0)


@pytest.fixture(scope="module")
def inverse():
    return jax.tree_util.Partial(ReferenceLattice.solve, reference_lattice(CELL, LONG))


@pytest.fixture(scope="module")
def plain():
    return relax(SILICON, shaken())


def pull(graph):
    """-1/r of every bond."""
    r = jnp.linalg.norm(graph.vectors(), axis=-1)
    return -0.5 * jnp.sum(jnp.where(graph.edge_mask & (r < 2.0), 1.0 / r - 0.5, 0.0), axis=1)


pull.r_cut = 2.0


def test_a_singular_attraction_has_no_energy_to_report():
    """Within the skin the atoms fall on each other, with forces beyond any line search."""
    dimer = make_structure([[0, 0, 0], [0, 0, 0.5]], 9.0 * np.eye(3), "Ar", pbc=False)
    lost = relax(pull, dimer, skin=2.0)
    assert not lost.converged and np.isnan(lost.energy) and "ran into each other" in lost.message


def test_ends_in_the_crystal(plain):
    assert plain.converged and plain.message == "converged"
    assert plain.energy == pytest.approx(BULK * CRYSTAL.n_atoms, abs=1e-5)
    np.testing.assert_allclose(
        modulo_translation(plain.positions), modulo_translation(CRYSTAL.positions), atol=1e-5
    )


def test_reports_what_a_fresh_evaluation_finds(plain):
    there = dataclasses.replace(CRYSTAL, positions=plain.positions)
    energy, forces = energy_and_forces(SILICON, build_graph(there, SILICON.r_cut))
    assert plain.energy == pytest.approx(float(energy), abs=1e-10)
    np.testing.assert_allclose(plain.forces, forces, atol=1e-12)
    assert plain.max_force == pytest.approx(np.linalg.norm(forces, axis=1).max(), abs=1e-12)
    assert plain.max_force < 1e-6
    assert plain.graph.positions[: CRYSTAL.n_atoms] == pytest.approx(plain.positions)


def test_another_start_gives_the_same_minimum(plain):
    other = relax(SILICON, shaken(seed=1, sigma=0.05))
    assert other.converged and other.energy == pytest.approx(plain.energy, abs=1e-9)
    np.testing.assert_allclose(
        modulo_translation(other.positions), modulo_translation(plain.positions), atol=1e-5
    )


def test_preconditioner_changes_the_way_and_not_the_end(plain, inverse):
    """A long row of cells has soft long waves, which K^+ sees and the identity does not."""
    guided = relax(SILICON, shaken(), preconditioner=inverse)
    assert guided.converged and guided.energy == pytest.approx(plain.energy, abs=1e-9)
    np.testing.assert_allclose(
        modulo_translation(guided.positions), modulo_translation(plain.positions), atol=1e-5
    )
    assert guided.evaluations < plain.evaluations
    start, end = np.mean(shaken().positions, axis=0), np.mean(guided.positions, axis=0)
    np.testing.assert_allclose(end, start, atol=1e-12)


def test_skin_and_rebuilding_change_nothing(plain):
    """With a tenth of the skin, atoms leave it on the way; a point outside is never evaluated."""
    thin = relax(SILICON, shaken(), skin=0.05)
    assert thin.converged and thin.energy == pytest.approx(plain.energy, abs=1e-9)
    assert thin.steps > plain.steps  # each is at most half a skin
    np.testing.assert_allclose(
        modulo_translation(thin.positions), modulo_translation(plain.positions), atol=1e-5
    )


def test_padding_changes_nothing_and_a_graph_keeps_its_topology(plain):
    graph = build_graph(shaken(), SILICON.r_cut, skin=1.0, n_atoms=70, n_neighbours=40)
    wide = relax(SILICON, graph)
    assert wide.converged and wide.energy == pytest.approx(plain.energy, abs=1e-9)
    assert wide.positions.shape == wide.forces.shape == (48, 3)
    np.testing.assert_array_equal(wide.graph.neighbours, graph.neighbours)
    assert isinstance(wide.graph, Graph)


def test_unconverged_says_so_and_can_be_continued(plain):
    hurried = relax(SILICON, shaken(), max_evaluations=4)
    assert not hurried.converged and "max_evaluations" in hurried.message
    assert hurried.evaluations == 4 and hurried.max_force > 1e-6
    assert plain.energy < hurried.energy < float(SILICON(build_graph(shaken(), 3.8)).sum())
    onward = relax(SILICON, dataclasses.replace(CRYSTAL, positions=hurried.positions))
    assert onward.converged and onward.energy == pytest.approx(plain.energy, abs=1e-9)


def lost(graph):
    return jnp.nan * SILICON(graph)


lost.r_cut = SILICON.r_cut


@pytest.mark.parametrize(
    ("potential", "options", "message"),
    [
        (SILICON, dict(force_tolerance=1e-30), "max_evaluations"),
        (SILICON, dict(preconditioner=lambda gradient: -gradient), "positive definite"),
        (lost, {}, "not finite"),
    ],
    ids=["roundoff", "indefinite", "nan"],
)
def test_failures_end_and_say_why(potential, options, message):
    failed = relax(potential, shaken(sigma=0.01), max_evaluations=100, **options)
    assert not failed.converged and message in failed.message
    assert failed.evaluations <= 100


def test_held_atoms_stay_and_the_free_ones_relax(inverse):
    """Large forces stay on the held atoms; no part of them may leak through K^+."""
    free = np.arange(48) >= 24
    held = relax(SILICON, shaken(), free=free, preconditioner=inverse, max_evaluations=100)
    assert held.converged and held.max_force < 1e-6
    np.testing.assert_array_equal(held.positions[:24], shaken().positions[:24])
    norms = np.linalg.norm(held.forces, axis=1)
    assert norms[24:].max() < 1e-6 < 0.1 < norms[:24].max()


def lennard_jones(graph):
    """Of unit length and energy, brought to zero smoothly at 2."""
    square = jnp.sum(graph.vectors() ** 2, axis=-1)
    inside = graph.edge_mask & (square < 4.0)
    square = jnp.where(inside, square, 1.0)
    pair = 4.0 * (square**-6 - square**-3) * (1.0 - square / 4.0) ** 3
    return 0.5 * jnp.sum(jnp.where(inside, pair, 0.0), axis=1)


lennard_jones.r_cut = 2.0


def test_a_bond_that_forms_on_the_way_is_seen():
    """The ends of a bent trimer, out of reach at first, meet: the equilateral triangle.

    All three pairs then sit at the minimum of the pair energy, so E = 3 min V.
    """
    angle = np.radians(110.0)
    legs = [[1.3, 0.0, 0.0], [0.0, 0.0, 0.0], [1.3 * np.cos(angle), 1.3 * np.sin(angle), 0.0]]
    trimer = make_structure(legs, 9.0 * np.eye(3), "Ar", pbc=False)
    relaxed = relax(lennard_jones, trimer, skin=0.05)
    assert relaxed.converged
    lengths = np.linalg.norm(relaxed.positions - np.roll(relaxed.positions, 1, axis=0), axis=1)
    np.testing.assert_allclose(lengths, lengths[0], atol=1e-5)
    r = np.linspace(1.0, 1.5, 100_001)
    minimum = np.min(4.0 * (r**-12 - r**-6) * (1.0 - r**2 / 4.0) ** 3)
    assert relaxed.energy == pytest.approx(3 * minimum, abs=1e-7)


def attraction(graph):
    """A constant pull of 1 eV/Å between neighbours closer than 2 Å, and no core."""
    r = jnp.linalg.norm(graph.vectors(), axis=-1)
    return 0.5 * jnp.sum(jnp.where(graph.edge_mask & (r < 2.0), r - 2.0, 0.0), axis=1)


attraction.r_cut = 2.0


def test_atoms_that_run_into_each_other_end_unconverged_and_without_an_energy():
    """Two of them, 0.2 Å nearer with every step from 0.85 Å on: at 0.05 Å there is no graph.

    Where they are and the force there are those of the last point that was evaluated.
    """
    apart = np.array([1.0, 2.0, 2.0]) / 3.0
    dimer = make_structure([0.0 * apart, 0.85 * apart], 9.0 * np.eye(3), "Ar", pbc=False)
    lost = relax(attraction, dimer, skin=0.2)
    assert not lost.converged and np.isnan(lost.energy)
    assert "ran into each other" in lost.message and "atoms 0 and 1" in lost.message
    assert np.linalg.norm(lost.positions[1] - lost.positions[0]) < 0.1
    np.testing.assert_allclose(lost.forces, [apart, -apart], atol=1e-12)


def random_history(n, pairs):
    """Moves and turns of a quadratic energy with Hessian A, so that <move, turn> > 0."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(3 * n, 3 * n))
    moves = rng.normal(size=(pairs, 3 * n))
    turns = moves @ (root @ root.T)
    return moves, turns, rng.normal(size=3 * n)


def test_direction_is_that_of_the_bfgs_matrix():
    """H <- (1 - w s y^T) H (1 - w y s^T) + w s s^T from H = scale, oldest pair first."""
    n, pairs = 4, 3
    moves, turns, gradient = random_history(n, pairs)
    h = 0.7 * np.eye(3 * n)
    for s, y in zip(moves, turns, strict=True):
        w = 1.0 / (s @ y)
        left = np.eye(3 * n) - w * np.outer(s, y)
        h = left @ h @ left.T + w * np.outer(s, s)
    state = _initial(build_graph(CELL, 3.8))
    history = np.zeros((2, MEMORY, n, 3))
    history[:, :pairs] = np.stack([moves, turns])[:, ::-1].reshape(2, pairs, n, 3)
    weights = np.zeros(MEMORY)
    weights[:pairs] = (1.0 / np.sum(moves * turns, axis=1))[::-1]
    state = state._replace(
        moves=history[0], turns=history[1], weights=weights, scale=0.7,
        gradient=gradient.reshape(n, 3),
    )  # fmt: skip
    expected = -(h @ gradient).reshape(n, 3)
    np.testing.assert_allclose(_two_loops(state, lambda v: v), expected, rtol=1e-10)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled:
    """Silicon times a coefficient, counting how often it is traced."""

    coefficient: jax.Array
    r_cut = SILICON.r_cut
    traces = []

    def __call__(self, graph):
        self.traces.append(1)
        return self.coefficient * SILICON(graph)


def test_new_coefficients_do_not_recompile(plain):
    """Nor do they move the minimum, when all of the energy is scaled."""
    traces = []
    for coefficient in (1.0, 2.0):
        scaled = relax(Scaled(jnp.asarray(coefficient)), shaken())
        assert scaled.converged
        assert scaled.energy == pytest.approx(coefficient * plain.energy, abs=1e-9)
        traces.append(len(Scaled.traces))
    assert traces[0] == traces[1] > 0


def test_energy_never_rises():
    """Also where a trial step is too long: it is refused, and costs an evaluation."""
    runs = [relax(SILICON, shaken(), max_evaluations=k, max_move=0.24) for k in range(1, 31)]
    assert np.all(np.diff([run.energy for run in runs]) <= 1e-11)
    assert runs[-1].steps < runs[-1].evaluations - 1


def test_errors_at_the_door():
    with pytest.raises(ValueError, match="force_tolerance"):
        relax(SILICON, CRYSTAL, force_tolerance=0.0)
    with pytest.raises(ValueError, match="skin"):
        relax(SILICON, CRYSTAL, skin=-1.0)
    with pytest.raises(ValueError, match="wanted bool"):
        relax(SILICON, CRYSTAL, free=np.ones(47, bool))
    with pytest.raises(TypeError, match="r_cut"):
        relax(lambda graph: SILICON(graph), CRYSTAL)
    with pytest.raises(TypeError, match="preconditioner"):
        relax(SILICON, CRYSTAL, preconditioner=np.eye(144))
