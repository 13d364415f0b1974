"""Tersoff silicon: published numbers, a plain twin, another code, and what it does at its edges."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, diamond, make_structure, rattled, supercell, to_ase
from lprjax.crystals.elasticity import GPA_PER_EV_A3, elastic_constants, equilibrium
from lprjax.potentials import tersoff
from lprjax.potentials.observables import KINDS, observe

A_SI = 5.432
BOX = 40.0 * np.eye(3)


@partial(jax.jit, static_argnums=0)
def sites(potential, graph):
    return potential(graph)


def twin(graph, lambda3=0.0):
    """Site energies as plain sums over neighbours and pairs of neighbours, from the papers."""

    def cutoff(r):
        if r < 2.7:
            return 1.0
        return 0.5 - 0.5 * math.sin(math.pi / 2 * (r - 2.85) / 0.15) if r < 3.0 else 0.0

    c, d, h, beta, n = 1.0039e5, 16.217, -0.59825, 1.1e-6, 0.78734
    energies = []
    for rows, mask in zip(graph.vectors(), graph.edge_mask, strict=True):
        rows, energy = np.asarray(rows)[np.asarray(mask)], 0.0
        for j, v in enumerate(rows):
            r, zeta = np.linalg.norm(v), 0.0
            for k, w in enumerate(rows):
                s = np.linalg.norm(w)
                g = 1 + c**2 / d**2 - c**2 / (d**2 + (h - v @ w / (r * s)) ** 2)
                zeta += (j != k) * cutoff(s) * g * math.exp(lambda3**3 * (r - s) ** 3)
            order = (1 + (beta * zeta) ** n) ** (-1 / (2 * n))
            bond = 1830.8 * math.exp(-2.4799 * r) - order * 471.18 * math.exp(-1.7322 * r)
            energy += 0.5 * cutoff(r) * bond
        energies.append(energy)
    return np.array(energies)


@pytest.fixture(scope="module")
def distorted():
    """Eight atoms with bonds in the inner, the middle and the outer part of the cutoff."""
    structure = rattled(diamond("Si", 5.2), jax.random.key(4), 0.35)
    graph = build_graph(structure, tersoff().r_cut, skin=0.4)
    r = np.asarray(jnp.linalg.norm(graph.vectors(), axis=-1))[np.asarray(graph.edge_mask)]
    assert all(np.any((a < r) & (r < b)) for a, b in ((0, 2.7), (2.7, 3.0), (3.0, 3.4)))
    return structure, graph


def test_published_lattice_and_elasticity():
    """a and E to their digits; elastic constants to the 0.1 GPa they are published with."""
    found = equilibrium(tersoff(), diamond("Si", 5.43, primitive=True))
    assert found.converged
    assert 5.43 * found.scale == pytest.approx(A_SI, abs=5e-5)
    assert found.energy_per_atom == pytest.approx(-4.6296, abs=5e-5)
    elastic = elastic_constants(tersoff(), found.structure)
    relaxed, clamped = GPA_PER_EV_A3 * elastic.relaxed, GPA_PER_EV_A3 * elastic.clamped
    assert relaxed[0, 0] == pytest.approx(142.5, abs=0.05)
    assert relaxed[0, 1] == pytest.approx(75.4, abs=0.05)
    assert relaxed[3, 3] == pytest.approx(69.0, abs=0.05)
    assert clamped[3, 3] == pytest.approx(118.8, abs=0.05)


def test_sites_are_their_plain_twin_whatever_the_padding(distorted):
    structure, graph = distorted
    wide = build_graph(structure, 3.0, skin=1.5, n_atoms=12, n_neighbours=64)
    expected = twin(graph)
    for g in (graph, wide):
        energies = np.asarray(sites(tersoff(), g))
        np.testing.assert_allclose(energies[:8], expected, rtol=1e-12)
        assert not energies[8:].any()


def test_the_exponential_left_out_is_of_fourth_order():
    """Both forms of zeta differ by O(u^4) for displacements and strains u of the crystal: in the
    sum over j and k the cubes (r_ij - r_ik)^3 cancel."""
    crystal = diamond("Si", A_SI, primitive=True)
    rng = np.random.default_rng(0)
    strain, moves = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))

    def difference(u):
        deformation = np.eye(3) + u * strain
        positions, cell = (np.asarray(x) @ deformation for x in (crystal.positions, crystal.cell))
        graph = build_graph(make_structure(positions + u * moves, cell, "Si"), 3.0)
        return twin(graph, 1.7322).sum() - twin(graph).sum()

    assert difference(4e-3) / difference(2e-3) == pytest.approx(16.0, rel=0.1)


def test_order_of_the_atoms_plays_no_part(distorted):
    structure, graph = distorted
    order = np.random.default_rng(0).permutation(8)
    shuffled = dataclasses.replace(structure, positions=structure.positions[order])
    energies = sites(tersoff(), build_graph(shuffled, 3.0, skin=0.4))
    np.testing.assert_allclose(energies, sites(tersoff(), graph)[order], rtol=1e-13)


def test_derivatives_by_finite_differences(distorted):
    """Forces and force constants: the error of a central difference falls as its step squared."""
    graph = distorted[1]
    labels = observe(tersoff(), graph, KINDS, atoms=(5,))

    def at(h):
        there = moved(graph, graph.positions.at[5, 1].add(h))
        return observe(tersoff(), there, ("energy", "forces"))

    errors = []
    for h in (1e-3, 5e-4):
        ahead, behind = at(h), at(-h)
        force = -(ahead.energy - behind.energy) / (2 * h)
        row = -(ahead.forces - behind.forces) / (2 * h)
        errors.append(
            (abs(force - labels.forces[5, 1]), abs(row - labels.force_constants[0, 1]).max())
        )
    assert errors[0][0] < 1e-4 and errors[0][1] < 1e-2
    np.testing.assert_allclose(np.divide(*errors), 4.0, rtol=0.05)


@pytest.mark.oracle
def test_against_matscipy(distorted):
    """Energy, forces, virial and the whole Hessian; two analytic codes."""
    manybody = pytest.importorskip("matscipy.calculators.manybody")
    forms = pytest.importorskip("matscipy.calculators.manybody.explicit_forms.tersoff_brenner")
    structure, graph = distorted
    atoms = to_ase(structure)
    atoms.calc = manybody.Manybody(**forms.TersoffBrenner(forms.Tersoff_PRB_39_5566_Si_C))
    labels = observe(tersoff(), graph, KINDS, atoms=range(8))
    assert float(labels.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-9)
    virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    np.testing.assert_allclose(labels.virial, virial, atol=1e-9)
    hessian = atoms.calc.get_hessian(atoms, "sparse").toarray()
    np.testing.assert_allclose(labels.force_constants.reshape(24, 24), hessian, atol=1e-7)


# --- the edges -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dimer_derivatives():
    """Energy, slope and curvature of two atoms at a distance r; their bond order is 1."""
    graph = build_graph(make_structure([[0.0, 0, 0], [2.9, 0, 0]], BOX, "Si", False), 3.0, skin=1.0)

    def energy(r):
        return tersoff()(moved(graph, graph.positions.at[1, 0].set(r))).sum()

    slope = jax.grad(energy)
    return jax.jit(lambda r: (energy(r), slope(r), jax.grad(slope)(r)))


@pytest.mark.parametrize("edge", [2.7, 3.0])
def test_the_cutoff_is_once_differentiable(dimer_derivatives, edge):
    """Value and slope meet at both ends; the curvature falls by V pi^2 / (8 D^2) at each."""
    below, above = (np.array(dimer_derivatives(edge + d)) for d in (-1e-9, 1e-9))
    bond = 1830.8 * math.exp(-2.4799 * edge) - 471.18 * math.exp(-1.7322 * edge)
    jump = bond * math.pi**2 / (8 * 0.15**2)
    assert below[0] == pytest.approx(above[0], abs=3e-8)  # a slope of 5 eV/Å over 2e-9 Å
    assert below[1] == pytest.approx(above[1], abs=1e-5)  # a curvature of 200 eV/Å^2
    assert below[2] - above[2] == pytest.approx(jump, rel=1e-5)
    assert all(np.isfinite(value) for value in dimer_derivatives(edge))


def test_nothing_is_left_beyond_the_cutoff(dimer_derivatives):
    assert not any(dimer_derivatives(3.0 + 1e-12))


@pytest.mark.parametrize("far", [2.7, 3.0 - 1e-9, 3.0, 3.2])
def test_a_leaving_neighbour_leaves_finite_derivatives(far):
    """zeta vanishes with the third atom's cutoff: everything up to force constants is finite."""
    trimer = make_structure([[0.0, 0, 0], [2.4, 0, 0], [0, far, 0]], BOX, "Si", False)
    graph = build_graph(trimer, 3.0, skin=1.0)
    labels = observe(tersoff(), graph, KINDS, atoms=range(3))
    assert all(np.isfinite(value).all() for value in labels)
    np.testing.assert_allclose(sites(tersoff(), graph)[:3], twin(graph), rtol=1e-12)


# --- the door --------------------------------------------------------------------------------


def test_what_it_refuses():
    metal, potential = build_graph(bcc("Mo", 3.15), 3.0), tersoff()
    for call in (potential, lambda graph: observe(potential, graph)):
        with pytest.raises(ValueError, match=r"holds atomic number\(s\) \[42\]"):
            call(metal)
        with pytest.raises(ValueError, match="reaches 3 Å"):
            call(build_graph(diamond("Si", A_SI), 2.5))
    assert np.isnan(sites(potential, metal)).all()
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="jax_enable_x64"):
        potential(metal)


def test_equal_potentials_share_one_compiled_function():
    graph = build_graph(supercell(diamond("Si", A_SI), (1, 1, 2)), 3.0)
    sites(tersoff(), graph)
    size = sites._cache_size()
    sites(tersoff(), graph)
    assert sites._cache_size() == size
