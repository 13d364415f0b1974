"""The functions of pair and EAM potentials against the potentials: dimers differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure
from lprjax.numerics.intervals import Interval
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.bond_ranges import Bonds, bond_ranges
from lprjax.potentials.eam import ZHOU_2004, embedding_energy

BONDS = polynomial_bonds([2.0, 3.0], [[0.1, -0.2, 1.0, -0.6, 0.3], [0.0, 0.1, 0.5, 0.3, 0.0]])
POTENTIALS = {
    "W": (zhou_eam("W"), "WW"),
    "alloy": (zhou_eam("W", "Ta"), "WTa"),
    "alike in an alloy": (zhou_eam("W", "Ta"), "TaTa"),
    "bonds": (BONDS, "WW"),
}
LENGTHS = np.array([1.9, 2.2, 2.4, 2.7, 3.2])


def dimer(potential, symbols):
    """E(r), by the potential; the density of one neighbour is in the lowest piece of F."""
    names = [symbols[: len(symbols) // 2], symbols[len(symbols) // 2 :]]
    names = ["W", "Ta"] if symbols == "WTa" else names
    structure = make_structure([[0, 0, 0], [2.4, 0, 0]], np.eye(3), names, False)
    graph = build_graph(structure, potential.r_cut)
    unit = jnp.zeros_like(graph.positions).at[1, 0].set(1.0)
    species = np.asarray(structure.species)
    return lambda r: jnp.sum(potential(moved(graph, graph.positions + (r - 2.4) * unit))), species


def energies(functions, species, r):
    """E and its derivatives by the chain rule, of series at one distance each: (4, n)."""
    point = Interval(r[:, None], r[:, None])
    total = 0.0
    for a, b in (species, species[::-1]):
        bonds = Bonds(np.full(len(r), a), np.full(len(r), b), r)
        pair, density = (f(bonds, point) for f in (functions.pair, functions.density))
        assert not pair.why_not and not density.why_not
        p, f = ([0.5 * sum(s.derivative(k))[:, 0] for k in range(4)] for s in (pair[0], density[0]))
        at = functions.embedding(bonds.start, Interval(f[0], f[0]))
        e = [0.5 * sum(at.series.derivative(k)) for k in range(4)]
        second = e[2] * f[1] ** 2 + e[1] * f[2]
        third = e[3] * f[1] ** 3 + 3 * e[2] * f[1] * f[2] + e[1] * f[3]
        total = total + np.array([p[0] + e[0], p[1] + e[1] * f[1], p[2] + second, p[3] + third])
    return total


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_dimer_and_its_derivatives(name):
    potential, symbols = POTENTIALS[name]
    f, species = dimer(potential, symbols)
    found = energies(bond_ranges(potential), species, LENGTHS)
    for k in range(4):
        np.testing.assert_allclose(found[k], jax.vmap(f)(LENGTHS), rtol=1e-9, atol=1e-9)
        f = jax.grad(f)


@pytest.mark.parametrize("density", [10.0, 37.0, 60.0], ids=["low", "middle", "high"])
def test_each_piece_of_the_embedding_function(density):
    """Of W, whose joints are 31.6 and 42.8."""
    f = lambda rho: embedding_energy(ZHOU_2004["W"], rho)  # noqa: E731
    functions = bond_ranges(zhou_eam("W"))
    rho = np.random.default_rng(0).uniform(density - 1, density + 1, 200)
    ends = Interval(np.array([density - 1]), np.array([density + 1]))
    found = functions.embedding(np.array([74]), ends)
    assert not found.why_not
    for k in range(4):
        values, ranged = np.asarray(jax.vmap(f)(rho)), found.series.derivative(k)
        assert ranged.holds(values).all()
        width = np.ptp(values)
        assert ranged.high[0] - ranged.low[0] < 20 * width + 0.2 * np.abs(values).max()
        f = jax.grad(f)


def test_ranges_hold_what_is_inside():
    potential, functions = zhou_eam("W", "Ta"), bond_ranges(zhou_eam("W", "Ta"))
    low = np.linspace(2.3, 4.0, 20)
    bonds = Bonds(np.full(20, 74), np.full(20, 73), low)
    wide = functions.pair(bonds, Interval(low[:, None], low[:, None] + 0.2)).series
    for share in np.linspace(0.0, 1.0, 7):
        r = (low + 0.2 * share)[:, None]
        point = functions.pair(bonds, Interval(r, r)).series
        for k in range(4):
            inner, outer = point.derivative(k), wide.derivative(k)
            assert (outer.low <= inner.high).all() and (inner.low <= outer.high).all()
    assert functions.r_cut == potential.r_cut


def test_what_jumps_is_named():
    functions = bond_ranges(zhou_eam("W"))
    cut = functions.r_cut
    bonds = Bonds(np.array([74]), np.array([74]), np.array([cut]))
    across = Interval(np.array([[cut - 0.1]]), np.array([[cut + 0.1]]))
    assert "cross the cutoff" in functions.pair(bonds, across).why_not
    joint = Interval(np.array([31.0]), np.array([33.0]))
    assert "joint of the embedding" in functions.embedding(np.array([74]), joint).why_not
    shell = Interval(np.array([[2.4]]), np.array([[2.6]]))
    at = Bonds(np.array([74]), np.array([74]), np.array([2.5]))
    assert "change its shell" in bond_ranges(BONDS).pair(at, shell).why_not


def test_others_have_none():
    assert bond_ranges(stillinger_weber()) is None
    graph = build_graph(bcc("W", 2.0), BONDS.r_cut)
    assert bond_ranges(BONDS.pinned(graph)) is None
    assert not bond_ranges(BONDS).embeds and bond_ranges(zhou_eam("W")).embeds
