"""Observables of any potential: derivatives of one energy, with the symmetries it has.

Every theorem is asserted for an alloy, an angular and a planar bond potential at a rattled cell,
in one padded shape per potential, so that all of them run one compiled function.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.lj import LennardJones

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.atoms.structures import (
    Labels,
    Structure,
    bcc,
    diamond,
    make_structure,
    rattled,
    square,
    supercell,
    to_ase,
)
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.observables import KINDS, energy_and_forces, observe, total_energy
from lprjax.potentials.potential import cutoff_of


class Case(NamedTuple):
    potential: object
    structure: Structure
    graph: Graph
    labels: Labels

    @property
    def n(self):
        return self.structure.n_atoms

    def graph_of(self, structure):
        """Padded to one shape, with room for twice the atoms, and with edges beyond the cutoff."""
        n_atoms, n_neighbours = self.graph.edge_mask.shape
        return build_graph(
            structure,
            self.potential.r_cut,
            skin=0.4,
            n_atoms=n_atoms,
            n_neighbours=n_neighbours,
        )

    def observe(self, graph):
        return observe(self.potential, graph, KINDS, atoms=range(self.n))


def make_case(potential, crystal, n_neighbours, key, sigma):
    structure = rattled(crystal, jax.random.key(key), sigma)
    n = structure.n_atoms
    graph = build_graph(
        structure, potential.r_cut, skin=0.4, n_atoms=2 * n + 1, n_neighbours=n_neighbours
    )
    case = Case(potential, structure, graph, None)
    return case._replace(labels=case.observe(graph))


def b2(a):
    cube = make_structure(a * np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), a * np.eye(3), ["W", "Mo"])
    return supercell(cube, (2, 1, 1))


RECIPES = {
    "alloy": lambda: make_case(zhou_eam("W", "Mo"), b2(3.16), 80, 0, 0.03),
    "silicon": lambda: make_case(stillinger_weber(), diamond("Si", 5.43), 24, 1, 0.1),
    "bonds": lambda: make_case(
        polynomial_bonds([2.0, 8**0.5], np.random.default_rng(0).normal(size=(2, 5))),
        supercell(square("W", 2.0), (3, 3, 1)),
        16,
        2,
        (0.05, 0.05, 0.02),
    ),
}


@pytest.fixture(scope="module", params=RECIPES)
def case(request):
    return RECIPES[request.param]()


def largest(x):
    return float(np.max(np.abs(x)))


def close(a, b, tolerance=1e-10):
    """Equal to `tolerance` times the size of b (1 at least): roundoff of sums of 1e3 terms."""
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, largest(b)))


def second_order(difference, exact, step):
    """Central differences at `step` and step / 2 err by c step^2: the ratio is 4, to 10 %.

    Their extrapolation to step 0 errs by step^4 only, so that no wrong limit passes.
    """
    coarse, fine = difference(step), difference(step / 2)
    ratio = largest(coarse - exact) / largest(fine - exact)
    assert 3.6 < ratio < 4.4, ratio
    close((4 * fine - coarse) / 3, exact, 1e-4)


# --- derivatives ----------------------------------------------------------------------------


def direction(case, key=7):
    """A random displacement of the real atoms, of unit length."""
    u = jax.random.normal(jax.random.key(key), (case.n, 3))
    return jnp.zeros_like(case.graph.positions).at[: case.n].set(u / jnp.linalg.norm(u))


def along(case, u, h):
    return case.observe(moved(case.graph, case.graph.positions + h * u))


def test_energy_to_forces_to_force_constants(case):
    """dE = -F . u h and dF = -Phi u h along any u."""
    u = direction(case)

    def slope(kind):
        def difference(h):
            plus, minus = (getattr(along(case, u, s * h), kind) for s in (1, -1))
            return (plus - minus) / (2 * h)

        return difference

    forces, phi = case.labels.forces, case.labels.force_constants
    second_order(slope("energy"), -jnp.sum(forces * u), 4e-2)
    pushed = -jnp.einsum("iajb,jb->ia", phi, u)
    second_order(lambda h: slope("forces")(h)[: case.n], pushed, 2e-2)


def test_energy_to_virial(case):
    """dE = -W : strain for any strain of cell and positions, symmetric or not."""
    strain = jax.random.normal(jax.random.key(5), (3, 3))

    def difference(h):
        plus, minus = (
            case.observe(
                moved(case.graph, case.graph.positions @ d.T, case.graph.cell @ d.T)
            ).energy
            for d in (jnp.eye(3) + h * strain, jnp.eye(3) - h * strain)
        )
        return (plus - minus) / (2 * h)

    second_order(difference, -jnp.sum(case.labels.virial * strain), 4e-3)


def test_force_constants_are_symmetric_and_obey_the_acoustic_sum_rule(case):
    """Phi_iajb = Phi_jbia, and a translation of all atoms costs nothing: sum_j Phi_iajb = 0."""
    phi = case.labels.force_constants
    hessian = phi[:, :, : case.n].reshape(3 * case.n, 3 * case.n)
    close(hessian, hessian.T)
    close(phi.sum(axis=2), jnp.zeros((case.n, 3, 3)))
    assert largest(hessian) > 1.0


def test_forces_sum_to_zero_and_the_virial_is_symmetric(case):
    """Invariance of E under translation and (infinitesimal) rotation."""
    close(case.labels.forces.sum(axis=0), jnp.zeros(3))
    close(case.labels.virial, case.labels.virial.T)
    assert largest(case.labels.forces) > 1e-2


def test_virial_of_a_cluster_is_the_moment_of_its_forces(case):
    """W_ab = sum_i F_ia R_ib where nothing is periodic."""
    cluster = dataclasses.replace(case.structure, pbc=(False, False, False))
    labels = case.observe(case.graph_of(cluster))
    close(labels.virial, labels.forces[: case.n].T @ cluster.positions)


# --- symmetries -----------------------------------------------------------------------------


def test_translation_changes_nothing(case):
    shifted = case.observe(moved(case.graph, case.graph.positions + jnp.array([[0.3, -2.0, 5.0]])))
    for before, after in zip(case.labels, shifted, strict=True):
        close(after, before)


def test_rotation_rotates(case):
    """E is a scalar, forces vectors, virial and each force-constant block a tensor."""
    q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(3), (3, 3)))
    rotated = case.observe(moved(case.graph, case.graph.positions @ q.T, case.graph.cell @ q.T))
    close(rotated.energy, case.labels.energy)
    close(rotated.forces, case.labels.forces @ q.T)
    close(rotated.virial, q @ case.labels.virial @ q.T)
    phi = jnp.einsum("ac,bd,icjd->iajb", q, q, case.labels.force_constants)
    close(rotated.force_constants, phi)


def test_permutation_permutes(case):
    order = np.random.default_rng(0).permutation(case.n)
    structure = case.structure
    permuted = dataclasses.replace(
        structure, positions=structure.positions[order], species=structure.species[order]
    )
    labels = case.observe(case.graph_of(permuted))
    close(labels.energy, case.labels.energy)
    close(labels.virial, case.labels.virial)
    close(labels.forces[: case.n], case.labels.forces[order])
    phi = case.labels.force_constants[order][:, :, order]
    close(labels.force_constants[:, :, : case.n], phi)


def test_doubling_the_cell_doubles(case):
    """E and W double, forces repeat, and force constants fold back over the images."""
    labels = case.observe(case.graph_of(supercell(case.structure, (1, 2, 1))))
    close(labels.energy, 2 * case.labels.energy)
    close(labels.virial, 2 * case.labels.virial)
    close(labels.forces[: 2 * case.n], jnp.tile(case.labels.forces[: case.n], (2, 1)))
    halves = labels.force_constants[:, :, : 2 * case.n].reshape(case.n, 3, 2, case.n, 3)
    close(halves.sum(axis=2), case.labels.force_constants[:, :, : case.n])


# --- edges of the tables --------------------------------------------------------------------


def test_padding_and_skin_change_nothing(case):
    """Without a spare row or an edge too long: the same to the order of sums, zero in the rest."""
    padded, n = case.labels, case.n
    graph = build_graph(case.structure, case.potential.r_cut, n_atoms=n)
    tight = observe(case.potential, graph, KINDS[:3])
    close(tight.energy, padded.energy, 1e-12)
    close(tight.virial, padded.virial, 1e-12)
    close(tight.forces, padded.forces[:n], 1e-12)
    assert not np.any(padded.forces[n:]) and not np.any(padded.force_constants[:, :, n:])


def test_atoms_alone_and_pairs_about_the_cutoff_are_finite(case):
    """Zero density, empty rows, and distances one bit to either side of r_cut: no NaN anywhere."""
    r_cut, n = case.potential.r_cut, case.n
    for r in (20.0, r_cut, np.nextafter(r_cut, 0.0), np.nextafter(r_cut, 9.0)):
        apart = 50.0 * np.arange(n)[:, None] * np.array([1.0, 0.0, 0.0])
        apart[1] = [0.0, 0.0, r]
        species = case.structure.species
        labels = case.observe(case.graph_of(make_structure(apart, np.eye(3), species, False)))
        assert all(np.all(np.isfinite(value)) for value in labels)
        if r >= r_cut:
            # the EAM's F(0) is zero to the six decimals of its table
            assert abs(labels.energy) < 2e-6 * n and not np.any(labels.force_constants)


# --- any callable, compiled once ------------------------------------------------------------

LJ = dict(epsilon=0.4, sigma=2.3, rc=5.0)


def lennard_jones(graph):
    """A plain function: ASE's Lennard-Jones, shifted to zero at its cutoff."""
    r = jnp.linalg.norm(graph.vectors(), axis=-1)
    six = (LJ["sigma"] / r) ** 6
    shift = (LJ["sigma"] / LJ["rc"]) ** 12 - (LJ["sigma"] / LJ["rc"]) ** 6
    pair = 4 * LJ["epsilon"] * (six**2 - six - shift)
    return 0.5 * jnp.sum(jnp.where(graph.edge_mask & (r < LJ["rc"]), pair, 0.0), axis=1)


def test_a_plain_function_agrees_with_ase():
    """Energy, forces, and virial = -V * stress in ASE's sign, of two codes of one formula."""
    structure = rattled(supercell(bcc("Fe", 2.9), (2, 2, 1)), jax.random.key(0), 0.1)
    atoms = to_ase(structure)
    atoms.calc = LennardJones(**LJ)
    labels = observe(lennard_jones, build_graph(structure, LJ["rc"], n_atoms=8), KINDS[:3])
    close(labels.energy, atoms.get_potential_energy())
    close(labels.forces, atoms.get_forces())
    close(labels.virial, -atoms.get_volume() * atoms.get_stress(voigt=False))
    assert labels.force_constants is None
    with pytest.raises(TypeError, match="no r_cut"):
        cutoff_of(lennard_jones)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spring:
    """k/2 (r - 1)^2 per bond, counting how often it is traced."""

    stiffness: jax.Array
    traces = []

    def __call__(self, graph):
        self.traces.append(1)
        stretch = jnp.where(graph.edge_mask, jnp.linalg.norm(graph.vectors(), axis=-1) - 1.0, 0.0)
        return 0.25 * self.stiffness * jnp.sum(stretch**2, axis=1)


@pytest.fixture(scope="module")
def pair():
    structure = make_structure([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]], 9 * np.eye(3), "H", False)
    return build_graph(structure, 2.0)


def test_new_coefficients_do_not_recompile(pair):
    energies = [float(total_energy(Spring(jnp.asarray(k)), pair)) for k in (1.0, 2.0, 8.0)]
    assert len(Spring.traces) == 1
    np.testing.assert_allclose(energies, np.array([1.0, 2.0, 8.0]) * 0.125, rtol=1e-15)
    force_constants = [
        observe(Spring(jnp.asarray(k)), pair, ("force_constants",), atoms=(atom,)).force_constants
        for k, atom in ((1.0, 0), (2.0, 1))
    ]
    traced = len(Spring.traces)
    assert observe(Spring(jnp.asarray(5.0)), pair, ("force_constants",), atoms=[1])
    assert len(Spring.traces) == traced, "another atom or another stiffness was compiled anew"
    assert float(force_constants[1][0, 2, 1, 2]) == pytest.approx(2.0)


def test_equal_static_potentials_share_one_compilation(pair):
    """Hashable callables are part of the compiled function: by value, not by identity."""
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Constant:
        value: float

        def __call__(self, graph):
            traces.append(self.value)
            return jnp.where(graph.atom_mask, self.value, 0.0)

    energies = [float(total_energy(Constant(v), pair)) for v in (1.0, 1.0, 3.0)]
    assert energies == [2.0, 2.0, 6.0] and traces == [1.0, 3.0]


def test_observe_may_be_differentiated_and_nested(pair):
    """d(energy)/dk = r-stretch^2 / 2, and jit(observe) is observe."""
    spring = Spring(jnp.asarray(3.0))
    assert float(jax.grad(total_energy)(spring, pair).stiffness) == pytest.approx(0.125)
    energy, forces = jax.jit(energy_and_forces)(spring, pair)
    close(energy, 0.375, 1e-15)
    close(forces, jnp.array([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]]), 1e-14)


def test_energy_on_padding_atoms_does_not_count(pair):
    """A constant offset per site must not be counted for atoms that are not there."""
    wide = dataclasses.replace(pair, atom_mask=jnp.array([True, False]))
    assert float(total_energy(lambda graph: jnp.ones(graph.species.shape), wide)) == 1.0


# --- the door -------------------------------------------------------------------------------


def test_observe_refuses(pair):
    spring = Spring(jnp.asarray(1.0))
    for kinds in (("energy", "stress"), (), "heat"):
        with pytest.raises(ValueError, match="wanted one or more of"):
            observe(spring, pair, kinds)
    for atoms in ((2,), (-1,), (0.5,), 1, ((0,),)):
        with pytest.raises(ValueError, match="indices from 0 to 1"):
            observe(spring, pair, ("force_constants",), atoms=atoms)
    with pytest.raises(ValueError, match=r"site energies of shape \(2, 8\): wanted one per atom"):
        observe(lambda graph: graph.edge_mask * 1.0, pair)
    with pytest.raises(TypeError, match="wanted a callable"):
        observe(3.0, pair)


def test_float64_is_required(pair):
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        observe(Spring(jnp.asarray(1.0)), pair)
