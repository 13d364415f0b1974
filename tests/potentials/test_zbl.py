"""The universal repulsion: as published below the inner radius, zero beyond the outer, smooth.

Values are made here from the published formula, by NumPy alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure, rattled, supercell
from lprjax.potentials import zbl
from lprjax.potentials.observables import KINDS, observe

INNER, OUTER = 1.2, 2.0
ZBL = zbl(INNER, OUTER)


def published(z_i, z_j, r):
    x = r * (z_i**0.23 + z_j**0.23) / 0.46850
    phi = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    phi += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    return 14.399645 * z_i * z_j / r * phi


def dimer(species, n_atoms=None):
    structure = make_structure([[0, 0, 0], [0, 0, 1.0]], np.eye(3), species, False)
    return build_graph(structure, OUTER, n_atoms=n_atoms)


@jax.jit
def _energy(graph, r):
    return jnp.sum(ZBL(moved(graph, jnp.zeros_like(graph.positions).at[1, 2].set(r))))


@pytest.mark.parametrize("pair, numbers", [("WW", (74, 74)), ("HO", (1, 8)), ("SiW", (14, 74))])
@pytest.mark.parametrize("r", [0.1, 0.5, 1.0, INNER])
def test_a_pair_has_the_published_energy(pair, numbers, r):
    graph = dimer(list(numbers), n_atoms=3)
    assert float(_energy(graph, r)) == pytest.approx(published(*numbers, r), rel=1e-13)
    site = ZBL(moved(graph, jnp.zeros((3, 3)).at[1, 2].set(r)))
    np.testing.assert_allclose(site, [*[published(*numbers, r) / 2] * 2, 0.0], rtol=1e-13)


def test_bare_nuclei_where_they_meet():
    """phi = 1 - 1.39 x + ...: at 1e-6 Å the screening of tungsten is 1.6e-5."""
    r = 1e-6
    bare = 14.399645 * 74**2 / r
    slope = 0.18175 * 3.1998 + 0.50986 * 0.94229 + 0.28022 * 0.4029 + 0.02817 * 0.20162
    x = r * 2 * 74**0.23 / 0.4685
    assert float(_energy(dimer("W"), r)) / bare == pytest.approx(1 - slope * x, abs=x**2 * 4)


def test_tungsten_at_one_angstrom():
    """Screening length 0.0870 Å: a number by hand, to its four digits."""
    assert 0.46850 / (2 * 74**0.23) == pytest.approx(0.08704, abs=1e-5)
    assert float(_energy(dimer("W"), 1.0)) == pytest.approx(435.8, abs=0.05)


def derivatives_beside(radius, width):
    """The first five derivatives at a radius, of the polynomial through values on one side."""
    nodes = 0.5 * (1 + np.cos(np.pi * (np.arange(13) + 0.5) / 13))
    values = jax.vmap(lambda r: _energy(dimer("W"), r))(jnp.asarray(radius + width * nodes))
    fitted = Polynomial.fit(width * nodes, np.asarray(values), 12, domain=[0, width])
    return np.array([fitted.deriv(k)(0.0) if k else fitted(0.0) for k in range(6)])


@pytest.mark.parametrize("radius", [INNER, OUTER])
def test_four_derivatives_are_continuous_at_the_radii(radius):
    """Of polynomials of degree 12 over 0.15 Å, which give them to 1e-3 of their size or better.

    The size of the k-th is that of the energy over (radius / 10)^k; the fifth jumps.
    """
    left, right = derivatives_beside(radius, -0.15), derivatives_beside(radius, 0.15)
    size = published(74, 74, radius) / (0.1 * radius) ** np.arange(6)
    assert np.all(np.abs(left - right)[:5] < 1e-3 * size[:5])
    assert abs(left - right)[5] > 0.1 * size[5]


def test_it_falls_all_the_way_and_ends():
    graph = dimer("W")
    energies = [float(_energy(graph, r)) for r in np.linspace(0.2, OUTER, 60)]
    assert np.all(np.diff(energies) < 0.0) and energies[-1] == 0.0
    assert float(_energy(graph, OUTER + 0.1)) == 0.0


@pytest.fixture(scope="module")
def packed():
    """An alloy in so small a cell that atoms are neighbours of their own images."""
    crystal = supercell(bcc("W", 1.7), (1, 1, 2))
    alloy = make_structure(crystal.positions, crystal.cell, ["W", "H", "W", "O"])
    return rattled(alloy, jax.random.key(0), 0.05)


def test_derivatives_are_differences_and_finite_on_padding(packed):
    graph = build_graph(packed, OUTER, n_atoms=6)
    found = observe(ZBL, graph, KINDS, atoms=[0, 1])
    assert all(np.isfinite(np.asarray(label)).all() for label in found)
    assert not np.any(found.forces[4:]) and not np.any(found.force_constants[:, :, 4:])
    direction = np.pad(np.random.default_rng(0).normal(size=(4, 3)), ((0, 2), (0, 0)))

    def at(t):
        return observe(ZBL, moved(graph, graph.positions + t * direction), ("energy", "forces"))

    h = 1e-4
    slope = (float(at(h).energy) - float(at(-h).energy)) / (2 * h)
    size = np.linalg.norm(found.forces) * np.linalg.norm(direction)  # what cancels
    assert -float(jnp.vdot(found.forces, direction)) == pytest.approx(slope, abs=1e-6 * size)
    ends = (np.asarray(at(t * h).forces[:2]) for t in (1, -1))
    bend = -np.subtract(*ends) / (2 * h)
    product = jnp.einsum("aibj,bj->ai", found.force_constants, direction)
    np.testing.assert_allclose(product, bend, rtol=1e-6, atol=1e-6 * np.abs(bend).max())


def test_energy_is_the_sum_over_pairs(packed):
    """Of the sites' halves, by the distances of the graph and NumPy's own step."""
    graph = build_graph(packed, OUTER)
    mask = np.asarray(graph.edge_mask)
    r = np.linalg.norm(np.asarray(graph.vectors()), axis=-1)[mask]
    z = np.asarray(graph.species, float)
    ends = np.broadcast_to(z[:, None], mask.shape)[mask], z[np.asarray(graph.neighbours)][mask]
    t = np.clip((r - INNER) / (OUTER - INNER), 0, 1)
    step = t**5 * (126 - 420 * t + 540 * t**2 - 315 * t**3 + 70 * t**4)
    expected = 0.5 * np.sum(published(*ends, r) * (1 - step))
    assert np.any((t > 0.1) & (t < 0.9))
    assert float(observe(ZBL, graph, "energy").energy) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "radii", [(2.0, 2.0), (2.0, 1.0), (0.0, 1.0), (1.0, np.nan), (1.0, np.inf)]
)
def test_radii_that_are_none(radii):
    with pytest.raises(ValueError, match="radii of zbl.*0 < inner < outer"):
        zbl(*radii)
