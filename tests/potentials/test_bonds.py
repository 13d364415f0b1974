"""Polynomial bonds: each coefficient is one derivative, and the topology stays as it was pinned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import make_structure, rattled, simple_cubic, square, supercell
from lprjax.potentials import polynomial_bonds
from lprjax.potentials.observables import observe, total_energy


def dimer(r):
    return make_structure([[0.0, 0.0, 0.0], [0.0, 0.0, r]], 40.0 * np.eye(3), "W", False)


def bond_coefficients(key, n_shells, order=4, groups=()):
    return jax.random.normal(jax.random.key(key), (*groups, n_shells, order + 1))


@pytest.mark.parametrize(
    ("lattice", "degeneracies"), [(square, (4, 4, 4)), (simple_cubic, (6, 12, 8))]
)
def test_bond_derivatives_are_the_coefficients(lattice, degeneracies):
    """Scaling a square or cubic lattice by 1 + x gives 1/2 sum_s z_s sum_k c_sk (r_s x)^k."""
    radii = [2.0, 2.0 * 2**0.5, 4.0] if lattice is square else [2.0, 8**0.5, 12**0.5]
    coefficients = bond_coefficients(0, 3)
    bonds = polynomial_bonds(radii, coefficients)
    graph = build_graph(lattice("W", 2.0), bonds.r_cut)
    for x in (-0.05, 0.0, 0.03):
        energy = float(total_energy(bonds, moved(graph, graph.positions, (1 + x) * graph.cell)))
        powers = (np.array(radii) * x)[:, None] ** np.arange(5)
        expected = 0.5 * np.sum(np.array(degeneracies)[:, None] * coefficients * powers)
        assert energy == pytest.approx(float(expected), rel=1e-12)


def test_a_bond_is_of_the_nearest_shell_and_of_none_from_the_cutoff_on():
    """Constants tell which: 1, 2 and 4 eV for a bond of the shells at 2, 3 and 5 Å; r_cut 5.5 Å."""
    bonds = polynomial_bonds([2.0, 3.0, 5.0], [[1.0], [2.0], [4.0]])
    lengths = (1.0, 2.45, 2.55, 3.95, 4.05, 5.49, 5.5)
    graphs = [build_graph(dimer(r), bonds.r_cut, skin=0.5) for r in lengths]
    found = [float(total_energy(bonds, graph)) for graph in graphs]
    assert found == [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 0.0]


def test_bond_force_constants_in_the_plane():
    """Phi_0j = -(V'' n n + V'/r (1 - n n)) and forces that stay in the plane z = 0."""
    bonds = polynomial_bonds([2.0], [[0.3, -0.2, 1.5, 0.4, 0.1]])
    crystal = supercell(square("W", 2.0), (5, 5, 1))
    graph = build_graph(crystal, bonds.r_cut, skin=0.5, n_atoms=25)
    phi = observe(bonds, graph, ("force_constants",)).force_constants[0]
    neighbour = 1  # along y: the cell index runs fastest along the last axis, here of length one
    np.testing.assert_allclose(graph.positions[neighbour], [0.0, 2.0, 0.0])
    np.testing.assert_allclose(phi[:, neighbour], -np.diag([-0.1, 3.0, -0.1]), atol=1e-12)
    shaken = rattled(crystal, jax.random.key(0), (0.1, 0.1, 0.0))
    forces = observe(bonds, moved(graph, shaken.positions)).forces
    assert abs(forces[:, :2]).max() > 1e-2 and jnp.all(forces[:, 2] == 0.0)


def test_pinned_bonds_keep_their_shells():
    """Stretched beyond the shell's edge a pinned bond follows its polynomial; an unpinned is none.

    For displacements within the gap the two agree.
    """
    bonds = polynomial_bonds([2.0], [[-1.0, 0.0, 1.0]], r_cut=2.5)
    graph = build_graph(dimer(2.0), bonds.r_cut, skin=1.0)
    pinned = bonds.pinned(graph)

    def energies(r):
        stretched = moved(graph, graph.positions.at[1, 2].set(r))
        return [float(total_energy(potential, stretched)) for potential in (bonds, pinned)]

    assert energies(2.3) == pytest.approx([-0.91, -0.91])
    assert energies(3.5) == pytest.approx([0.0, -1.0 + 1.5**2])


def test_a_bond_between_groups_is_the_mean():
    bonds = polynomial_bonds([2.0], [[[1.0, 0.0]], [[4.0, 0.0]]])
    graph = build_graph(dimer(2.0), bonds.r_cut)
    for groups, energy in (((0, 0), 1.0), ((1, 1), 4.0), ((0, 1), 2.5)):
        assert float(total_energy(bonds.pinned(graph, groups), graph)) == pytest.approx(energy)


def test_bonds_are_linear_in_their_coefficients():
    """Euler: c . dE/dc = E, exactly, for any positions."""
    bonds = polynomial_bonds([2.0, 8**0.5], bond_coefficients(1, 2))
    crystal = rattled(supercell(square("W", 2.0), (4, 4, 1)), jax.random.key(0), 0.1)
    graph = build_graph(crystal, bonds.r_cut)
    gradient = jax.grad(total_energy)(bonds, graph)
    projected = float(jnp.sum(gradient.coefficients * bonds.coefficients))
    assert projected == pytest.approx(float(total_energy(bonds, graph)), rel=1e-12)


@pytest.mark.parametrize(
    ("radii", "coefficients", "options", "message"),
    [
        ([2.0, 1.0], np.ones((2, 3)), {}, "ascend"),
        ([0.0, 1.0], np.ones((2, 3)), {}, "positive"),
        ([1.0, np.nan], np.ones((2, 3)), {}, "positive"),
        ([1.0, 2.0], np.ones((3, 3)), {}, r"\(S, P \+ 1\)"),
        ([1.0, 2.0], np.full((2, 3), np.nan), {}, "finite"),
        ([1.0, 2.0], np.ones((2, 3)), {"r_cut": 2.0}, "beyond the last shell"),
    ],
)
def test_bonds_refuse(radii, coefficients, options, message):
    with pytest.raises(ValueError, match=message):
        polynomial_bonds(radii, coefficients, **options)


def test_pinning_refuses_what_does_not_fit():
    bonds = polynomial_bonds([2.0], np.ones((2, 1, 3)))
    graph = build_graph(dimer(2.0), bonds.r_cut)
    with pytest.raises(ValueError, match="2 groups"):
        bonds.pinned(graph)
    with pytest.raises(ValueError, match="one integer for each of the 2"):
        bonds.pinned(graph, [0])
    with pytest.raises(ValueError, match=r"wanted 0 \.\.\. 1"):
        bonds.pinned(graph, [0, 2])
    with pytest.raises(ValueError, match="2 groups.*pinned"):
        bonds(graph)
    other = build_graph(dimer(2.0), bonds.r_cut, n_atoms=4)
    with pytest.raises(ValueError, match="pinned to a graph"):
        bonds.pinned(graph, [0, 1])(other)


def test_bonds_need_float64():
    graph = build_graph(square("W", 2.0), 3.0)
    bonds = polynomial_bonds([2.0], [[1.0]])
    with jax.enable_x64(False):
        with pytest.raises(RuntimeError, match="jax_enable_x64"):
            bonds(graph)
        with pytest.raises(RuntimeError, match="jax_enable_x64"):
            polynomial_bonds([2.0], [[1.0]])
