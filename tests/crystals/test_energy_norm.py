"""The norm of force constants against dense twins: minimisation over missing sites, pseudo-inverse.

The twin takes the second derivatives of the complete supercell's energy, all of them, and Schur
complements of that matrix; tolerances are those of the plain norm's tests: FFTs of < 200 sites,
conditions below 1e3, conjugate gradients to 1e-11 where sites are held.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond, fcc, square, supercell
from lprjax.crystals.energy_norm import EnergyLattice, energy_lattice
from lprjax.crystals.phonons import force_constants, stability
from lprjax.crystals.strain_norm import (
    reference_lattice,
    with_extra_sites,
    with_held_sites,
    without_sites,
)
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.observables import observe

PLANE = polynomial_bonds([2.0, np.sqrt(8.0)], [[0, -0.02, 1.0, -0.6], [0, 0.02 / 2**0.5, 0.5, 0.3]])
TUNGSTEN = zhou_eam("W"), bcc("W", 3.165, primitive=True), (3, 4, 3)
SILICON = stillinger_weber(), diamond("Si", 5.431, primitive=True), (3, 3, 2)
CASES = {
    "complete": (TUNGSTEN, (), (), ()),
    "divacancy": (TUNGSTEN, (5, 6), (), ()),
    "interstitial beside a vacancy": (TUNGSTEN, (5,), ((4, 6, 20), (7,)), ()),
    "held": (TUNGSTEN, (15,), ((14, 16),), (0, 1, 2, 3, 4)),
    "two atoms": ((zhou_eam("W"), bcc("W", 3.165), (2, 3, 2)), (3,), (), ()),
    "diamond": (SILICON, (0, 9), (), ()),
    "plane": ((PLANE, square("W", 2.0), (5, 6, 1)), (0, 8), (), ()),
    "held plane": ((PLANE, square("W", 2.0), (6, 6, 1)), (20,), (), (0, 1, 2, 3, 4, 5, 6)),
}


class Case(NamedTuple):
    lattice: EnergyLattice
    dense: np.ndarray  # S (3 n, 3 n) of all sites, zero at those that are not free
    free: np.ndarray  # (n,) bool


def dense_of(system, missing, extra, held):
    """S by brute force: Phi by differentiation, springs one by one, then Schur complements."""
    potential, cell, repeats = system
    crystal = supercell(cell, repeats)
    n = crystal.n_atoms
    graph = build_graph(crystal, potential.r_cut)
    found = observe(potential, graph, "force_constants", atoms=range(n)).force_constants
    phi = np.array(found)[:, :, :n].reshape(3 * n, 3 * n)
    flat = not all(crystal.pbc)
    spring = np.trace(phi[:3, :3][:2, :2]) / 2 if flat else np.trace(phi) / (3 * n)
    if flat:  # out of the plane: bonds of the stencil, of such a spring constant
        table = np.asarray(reference_lattice(cell, repeats).neighbours)
        plain = np.zeros((n, n))
        for i, row in enumerate(table):
            for j in row:
                plain[[i, j], [i, j]] += 1.0
                plain[[i, j], [j, i]] -= 1.0
        phi[2::3], phi[:, 2::3] = 0.0, 0.0
        phi[2::3, 2::3] = plain * spring / plain[0, 0]
    sites = n + len(extra)
    whole = np.zeros((sites, 3, sites, 3))
    whole[:n, :, :n] = phi.reshape(n, 3, n, 3)
    for k, ends in enumerate(extra):
        arrow = np.zeros(sites)
        arrow[n + k] = 1.0
        np.add.at(arrow, list(ends), -1.0 / len(ends))
        whole += spring * np.einsum("i,j,ab->iajb", arrow, arrow, np.eye(3))
    whole = whole.reshape(3 * sites, 3 * sites)
    gone = np.repeat(np.isin(range(sites), missing), 3)
    kept = ~gone
    schur = np.zeros_like(whole)
    inner = whole[np.ix_(kept, kept)]
    if gone.any():
        mixed = whole[np.ix_(gone, kept)]
        inner = inner - mixed.T @ np.linalg.solve(whole[np.ix_(gone, gone)], mixed)
    schur[np.ix_(kept, kept)] = inner
    free = kept.reshape(-1, 3)[:, 0] & ~np.isin(range(sites), held)
    still = np.repeat(~free, 3)
    schur[still], schur[:, still] = 0.0, 0.0
    return schur, free


@pytest.fixture(scope="module", params=CASES)
def case(request):
    (potential, cell, repeats), missing, extra, held = CASES[request.param]
    lattice = without_sites(reference_lattice(cell, repeats), missing)
    lattice = with_extra_sites(lattice, extra)
    if held:
        lattice = with_held_sites(lattice, np.isin(range(lattice.n_sites), held))
    found = energy_lattice(lattice, force_constants(potential, cell, repeats))
    return Case(found, *dense_of(*CASES[request.param]))


def functions(case, count=1):
    v = np.random.default_rng(0).normal(size=(count, case.lattice.n_sites, 3))
    return v * case.free[:, None]


def test_it_is_the_least_energy(case):
    """v^T S v and S v, against the dense Schur complement."""
    (v,) = functions(case)
    expected = case.dense @ v.ravel()
    atol = 1e-11 * np.abs(expected).max()
    np.testing.assert_allclose(np.ravel(case.lattice.apply(v)), expected, atol=atol)
    energy = float(case.lattice.strain_norm(v)) ** 2
    assert energy == pytest.approx(v.ravel() @ expected, rel=1e-11)
    shift = v + np.array([0.3, -0.2, 0.1]) * np.asarray(case.lattice.present)[:, None]
    if case.lattice.held is None:
        assert float(case.lattice.strain_norm(shift)) ** 2 == pytest.approx(energy, rel=1e-10)


def test_solve_is_the_pseudo_inverse(case):
    (f,) = functions(case)
    if case.lattice.held is None:
        f[case.free] -= f[case.free].mean(axis=0)
    expected = np.linalg.pinv(case.dense, rcond=1e-9) @ f.ravel()
    found = np.asarray(case.lattice.solve(f))
    tolerance = 1e-9 if case.lattice.held is not None else 1e-11
    np.testing.assert_allclose(found.ravel(), expected, atol=tolerance * np.abs(expected).max())
    dual = float(case.lattice.negative_norm(f))
    assert dual**2 == pytest.approx(f.ravel() @ expected, rel=1e-9)


def test_the_same_inside_jit(case):
    v, f = functions(case, 2)
    for function, x in ((EnergyLattice.apply, v), (EnergyLattice.negative_norm, f)):
        np.testing.assert_allclose(
            jax.jit(function)(case.lattice, jnp.asarray(x)), function(case.lattice, x), rtol=1e-9,
            atol=1e-11,
        )  # fmt: skip


def test_random_forces_have_the_covariance_of_the_norm(case):
    """Along 20 random functions x the variance is x^T S x, within 5 deviations of 600 draws."""
    rng = np.random.default_rng(1)
    draws = np.stack([case.lattice.random_force(rng).ravel() for _ in range(600)])
    x = functions(case, 20).reshape(20, -1)
    variance = np.mean((draws @ x.T) ** 2, axis=0)
    expected = np.einsum("ki,ij,kj->k", x, case.dense, x)
    np.testing.assert_allclose(variance / expected, 1.0, atol=5 * np.sqrt(2 / 600))
    assert not draws.reshape(600, -1, 3)[:, ~case.free].any()


def test_plain_random_forces_have_the_covariance_of_k():
    lattice = without_sites(reference_lattice(fcc("Cu", 3.6, primitive=True), (3, 4, 3)), (5,))
    lattice = with_extra_sites(lattice, [(4, 6, 20)])
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, lattice.n_sites, 3))
    draws = np.stack([lattice.random_force(rng) for _ in range(600)])
    variance = np.mean(np.einsum("nia,kia->nk", draws, x) ** 2, axis=0)
    expected = [float(lattice.strain_norm(v)) ** 2 for v in x]
    np.testing.assert_allclose(variance / expected, 1.0, atol=5 * np.sqrt(2 / 600))
    assert not draws[:, 5].any()


def test_forces_on_missing_sites_are_handed_on_and_no_larger(case):
    """E^T f: the work on v of the sites that exist is that of f on v carried on at least energy."""
    lattice, n = case.lattice, case.lattice.n_regular
    rng = np.random.default_rng(3)
    f = rng.normal(size=(n, 3))
    f -= f.mean(axis=0)
    found = np.asarray(lattice.on_complete(f))
    assert not found[~np.asarray(lattice.present)].any() and not found[n:].any()
    np.testing.assert_allclose(found.sum(axis=0), f.sum(axis=0), atol=1e-11)
    whole = EnergyLattice.negative_norm(complete_of(lattice), f)
    assert float(lattice.negative_norm(found)) <= float(whole) * (1 + 1e-12)


def complete_of(lattice):
    """The same without missing and extra sites, from its blocks alone."""
    n = lattice.n_regular
    return dataclasses.replace(
        lattice,
        neighbours=lattice.complete,
        present=jnp.ones(n, bool),
        held=None,
        missing=jnp.zeros(0, jnp.int32),
        block=jnp.zeros((0, 0)),
        averages=jnp.zeros((0, n)),
    )


def test_the_least_stiffness_is_that_of_phonons():
    """c_L of the norm is the stability constant of the crystal, found by another route."""
    potential, cell, repeats = TUNGSTEN
    constants, plain = force_constants(*TUNGSTEN), reference_lattice(cell, repeats)
    lattice = energy_lattice(plain, constants)
    expected = float(stability(constants, plain).constant)
    assert lattice.least_stiffness == pytest.approx(expected, rel=1e-10)


def test_bad_input_is_refused():
    potential, cell, repeats = TUNGSTEN
    plain = reference_lattice(cell, repeats)
    with pytest.raises(ValueError, match=r"\(3, 3, 3, 1\): wanted \(3, 4, 3, 1\)"):
        energy_lattice(plain, force_constants(potential, cell, (3, 3, 3)))
    soft = polynomial_bonds([2.0, np.sqrt(8.0)], [[0, 0.0, 1.0], [0, 0.0, -0.8]])
    plane = square("W", 2.0)
    with pytest.raises(ValueError, match="wanted a stable crystal"):
        energy_lattice(reference_lattice(plane, (5, 5, 1)), force_constants(soft, plane, (5, 5, 1)))
    lattice = energy_lattice(plain, force_constants(*TUNGSTEN))
    with pytest.raises(ValueError, match="change its sites first"):
        without_sites(lattice, [1])
    with pytest.raises(ValueError, match="three components"):
        lattice.solve(jnp.ones((36, 1)))
    tower = with_extra_sites(with_extra_sites(plain, [(0, 1)]), [(36,)])
    with pytest.raises(ValueError, match="extra site 37 has no bond to a regular site"):
        energy_lattice(tower, force_constants(*TUNGSTEN))


def test_units_are_named():
    lattice = energy_lattice(reference_lattice(*TUNGSTEN[1:]), force_constants(*TUNGSTEN))
    assert lattice.units.norm == lattice.units.dual == "eV^1/2"
    assert reference_lattice(*TUNGSTEN[1:]).units.dual == "eV/Å"
