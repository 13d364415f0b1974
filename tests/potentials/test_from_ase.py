"""Calculators of ASE as potentials: their own numbers, and differences of them that converge."""

import dataclasses
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import BFGSLineSearch
from ase.stress import voigt_6_to_full_3x3_stress

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import fcc, make_structure, rattled, supercell, to_ase
from lprjax.crystals.elasticity import (
    acoustic_tensors,
    elastic_constants,
    equilibrium,
    third_order_constants,
)
from lprjax.crystals.phonons import force_constants
from lprjax.crystals.strain_derivatives import gradient_and_hessian
from lprjax.numerics.differences import POINTS
from lprjax.potentials import ase_potential
from lprjax.potentials.derivatives import third_product
from lprjax.potentials.observables import KINDS, observe
from lprjax.potentials.potential import as_argument
from lprjax.simulation.relaxation import relax
from tests.helpers.potentials import ONSET, OPTIONS, R_CUT, Noisy, SmoothPairs, lennard_jones

ROOT = Path(__file__).parents[2]


class Recording(LennardJones):
    """Notes what it is asked for, and whether it is called while it works."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked, self.calls, self.busy = set(), 0, False

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        assert not self.busy, "called while it works"
        self.busy = True
        self.asked |= set(properties)
        self.calls += 1
        time.sleep(1e-3)
        super().calculate(atoms, properties, system_changes)
        self.busy = False


class Stressless(LennardJones):
    implemented_properties = ["energy", "forces"]

    def calculate(self, *args, **options):
        super().calculate(*args, **options)
        del self.results["stress"], self.results["stresses"]


class Smeared(LennardJones):
    """As with smeared electrons: the forces derive from the free energy."""

    def calculate(self, *args, **options):
        super().calculate(*args, **options)
        self.results["energy"] = self.results["free_energy"] + 1.0


@pytest.fixture(scope="module")
def hexagonal():
    """A pair of atoms whose sublattices shift under strain: hcp, near its equilibrium."""
    a = 2.52
    cell = a * np.array([[1.0, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])
    return make_structure(np.array([[0, 0, 0], [1 / 3, 2 / 3, 0.5]]) @ cell, cell, "Cu")


@pytest.fixture(scope="module")
def shaken(hexagonal):
    structure = rattled(supercell(hexagonal, (3, 2, 1)), jax.random.key(0), 0.04)
    graph = build_graph(structure, R_CUT, skin=0.5)
    r = np.asarray(jnp.linalg.norm(graph.vectors(), axis=-1))[np.asarray(graph.edge_mask)]
    assert min(abs(r - ONSET).min(), abs(r - R_CUT).min()) > 0.03, "a bond where curvature jumps"
    return structure


def graphs(structure, potential, exact):
    return tuple(build_graph(structure, p.r_cut, n_atoms=16) for p in (potential, exact))


# --- the calculator's own numbers ------------------------------------------------------------


def assert_own_numbers(calculator, structure, labels):
    """Not a digit is lost: differences of a few units in the last place of the sums."""
    atoms, n = to_ase(structure), structure.n_atoms
    atoms.calc = calculator
    assert float(labels.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(labels.forces[:n], atoms.get_forces(), rtol=0, atol=1e-13)
    assert not np.any(labels.forces[n:])
    virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    np.testing.assert_allclose(labels.virial, virial, rtol=0, atol=1e-12)


def test_labels_of_an_alloy_are_the_calculators():
    """Positions outside the cell, a skewed cell, two elements, padding."""
    cell = np.array([[5.1, 0.2, 0], [-0.4, 5.3, 0.1], [0, 0.3, 4.9]])
    rng = np.random.default_rng(0)
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    positions = (sites + rng.integers(-2, 3, (4, 3))) @ cell + rng.normal(0, 0.1, (4, 3))
    structure = make_structure(positions, cell, ["Cu", "Al", "Cu", "Al"])
    potential = ase_potential(EMT())
    graph = build_graph(structure, potential.r_cut, n_atoms=6)
    assert_own_numbers(EMT(), structure, observe(potential, graph, KINDS[:3]))


def test_labels_of_a_cluster_are_the_calculators(shaken):
    """Without periodicity nothing depends on the cell, and the virial is sum_i F_i R_i."""
    cluster = make_structure(shaken.positions, 30 * np.eye(3), "Cu", False)
    potential = ase_potential(lennard_jones())
    labels = observe(potential, build_graph(cluster, potential.r_cut, n_atoms=16), KINDS[:3])
    assert_own_numbers(lennard_jones(), cluster, labels)


def test_the_energy_is_the_one_that_the_forces_derive_from(shaken):
    potentials = [ase_potential(kind(**OPTIONS)) for kind in (Smeared, LennardJones)]
    graph = build_graph(shaken, potentials[0].r_cut)
    smeared, plain = (observe(potential, graph) for potential in potentials)
    assert float(smeared.energy) == float(plain.energy)


def test_virial_of_a_slab_is_that_of_the_pairs(shaken):
    slab = make_structure(shaken.positions, shaken.cell, "Cu", (True, True, False))
    potential = ase_potential(lennard_jones())
    ours, exact = graphs(slab, potential, SmoothPairs())
    virial = observe(SmoothPairs(), exact, "virial").virial
    np.testing.assert_allclose(observe(potential, ours, "virial").virial, virial, atol=1e-11)


def test_cell_alone_may_be_varied(shaken):
    """dE/dh at fixed positions, against the exact potential's."""
    potential = ase_potential(lennard_jones())
    ours, exact = graphs(shaken, potential, SmoothPairs())
    slopes = [
        jax.jit(jax.grad(lambda cell, p=p, g=g: p(moved(g, cell=cell)).sum()))(g.cell)
        for p, g in ((potential, ours), (SmoothPairs(), exact))
    ]
    np.testing.assert_allclose(*slopes, rtol=0, atol=1e-11)
    assert abs(slopes[1]).max() > 0.1


# --- differences -----------------------------------------------------------------------------


def energy_of(potential, graph):
    return lambda x, h: potential(moved(graph, x, h)).sum()


@pytest.mark.parametrize("with_cell", [False, True])
def test_second_and_third_derivatives_converge_to_the_exact_ones(shaken, with_cell):
    """Along directions in positions and cell: errors fall as the square of the step."""
    rng = np.random.default_rng(1)
    u, v = (rng.normal(size=(2, 16, 3)) * (np.arange(16) < 12)[:, None]).astype(float)
    if with_cell:
        u, v = ((x, rng.normal(size=(3, 3))) for x in (u, v))
    else:
        u, v = ((x, np.zeros((3, 3))) for x in (u, v))

    def derivatives(potential, graph):
        def second(x, h):
            return jax.jvp(jax.grad(energy_of(potential, graph), (0, 1)), (x, h), u)[1]

        return jax.jit(lambda x, h: jax.jvp(second, (x, h), v))(graph.positions, graph.cell)

    def errors(step):
        potential = ase_potential(lennard_jones(), step=step)
        ours, exact = graphs(shaken, potential, SmoothPairs())
        differences = jax.tree.map(
            lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))),
            derivatives(potential, ours),
            derivatives(SmoothPairs(), exact),
        )
        return np.array(jax.tree.leaves(differences))

    coarse, fine = errors(4e-3), errors(2e-3)
    assert fine.max() < 1e-3
    np.testing.assert_allclose(coarse / fine, 4.0, rtol=0.05)


def test_force_constants_are_differences_of_forces(shaken):
    """Against the exact ones, and symmetric as they are, to step^2 / 6 = 2e-7 Å^2 times fourth
    derivatives that are 1/(0.1 Å)^2 of the second ones, and no more."""
    potential = ase_potential(lennard_jones())
    ours, exact = graphs(shaken, potential, SmoothPairs())
    found = observe(potential, ours, "force_constants", atoms=range(12)).force_constants
    expected = observe(SmoothPairs(), exact, "force_constants", atoms=range(12)).force_constants
    tolerance = 2e-5 * float(abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    matrix = found[:, :, :12].reshape(36, 36)
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=tolerance)


def test_elastic_constants_and_equilibrium(hexagonal):
    """Relaxed and clamped constants of hcp, mixed derivatives and all, by two potentials."""
    potential = ase_potential(lennard_jones())
    ours, exact = equilibrium(potential, hexagonal), equilibrium(SmoothPairs(), hexagonal)
    assert ours.converged and ours.scale == pytest.approx(exact.scale, abs=1e-10)
    found, expected = (elastic_constants(p, hexagonal) for p in (potential, SmoothPairs()))
    assert abs(expected.relaxed - expected.clamped).max() > 0.01
    for name in ("relaxed", "clamped", "stress"):
        ours, exact = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-5 * abs(expected.clamped).max())


def test_a_stress_that_is_strained(hexagonal):
    """Elastic constants of EMT copper: differences of the stress under finite strains."""
    crystal = fcc("Cu", 3.59, primitive=True)
    found = elastic_constants(ase_potential(EMT()), crystal)

    def virial(strain):
        atoms = to_ase(crystal)
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = EMT()
        return (
            atoms.get_volume() * atoms.get_stress(voigt=False) @ np.linalg.inv(np.eye(3) + strain)
        )

    h = 1e-4
    for k, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        slope = (virial(strain) - virial(-strain)) / (2 * h) / float(crystal.volume)
        column = (0.5 * (slope + slope.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        np.testing.assert_allclose(found.clamped[:, k], column, rtol=0, atol=1e-5)


# --- with noise -----------------------------------------------------------------------------


SIZE = 1e-4  # eV/Å, single precision of a bad kind


@pytest.fixture(scope="module")
def noisy():
    return ase_potential(Noisy(lennard_jones(), SIZE))


def test_derivatives_with_noise_are_as_good_as_the_noise_allows(hexagonal, noisy):
    """Third-order constants too. Relative to their size 1.9 SIZE over a step and 12.5 SIZE over its
    square, steps of 0.05 Å or so: 1 % of the elastic constants and 5 % of those of third order. A
    step of 0.001 Å would leave the former with 10 % and the latter with 1000 %."""
    exact = SmoothPairs()
    found, expected = (elastic_constants(p, hexagonal) for p in (noisy, exact))
    scale = float(abs(expected.clamped).max())
    np.testing.assert_allclose(found.clamped, expected.clamped, rtol=0, atol=0.01 * scale)
    internal = expected.internal
    found, expected = (
        third_order_constants(p, hexagonal, internal=internal) for p in (noisy, exact)
    )
    for name in ("relaxed", "clamped"):
        ours, right = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(ours, right, rtol=0, atol=0.05 * abs(right).max())


def test_acoustic_tensors_with_noise(noisy):
    """As the elastic constants that they are made of: 1 %; one atom in the cell, general k."""
    crystal, k = fcc("Cu", 3.64, primitive=True), [[1.0, 0.0, 0.0], [0.3, -1.0, 0.5]]
    found, exact = (acoustic_tensors(p, crystal, k) for p in (noisy, SmoothPairs()))
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.01 * float(abs(exact).max()))
    again = acoustic_tensors(ase_potential(lennard_jones()), crystal, k)
    np.testing.assert_allclose(again, exact, rtol=0, atol=1e-7 * float(abs(exact).max()))


def test_steps_without_noise_are_small_and_third_derivatives_right(hexagonal):
    """Of a calculator in double precision: 1e-14 over 0.01 Å squared, and truncation as small."""
    potential = ase_potential(lennard_jones())
    found, expected = (third_order_constants(p, hexagonal) for p in (potential, SmoothPairs()))
    scale = abs(expected.relaxed).max()
    np.testing.assert_allclose(found.relaxed, expected.relaxed, rtol=0, atol=1e-6 * scale)
    graph = build_graph(hexagonal, potential.r_cut)
    steps = potential.steps(graph, strained=True)
    assert steps.first <= 0.015 and steps.second <= 0.03
    assert ase_potential(lennard_jones(), step=0.01).steps(graph).first == 0.01


def test_products_with_third_derivatives_along_two_directions(shaken):
    """D3E[v, w] by polarisation, w a thousand times the size of v, beside the exact one's: central
    differences of 0.01 Å, whose error is its square over 12 times that of a length of 0.3 Å."""
    potential = ase_potential(lennard_jones())
    ours, exact = graphs(shaken, potential, SmoothPairs())
    v, w = np.random.default_rng(1).normal(size=(2, 16, 3)) * (np.arange(16) < 12)[:, None]
    found = third_product(as_argument(potential, "potential"), ours, v, 1e3 * w)
    right = third_product(as_argument(SmoothPairs(), "potential"), exact, v, 1e3 * w)
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * float(abs(other).max()))


def test_an_equilibrium_with_noise_converges_to_it(hexagonal, noisy):
    """Of a virial good to SIZE over a curvature of some 100 eV: 1e-6 of the scale. A tolerance of
    1e-12 alone would never be met."""
    found, expected = (equilibrium(p, hexagonal) for p in (noisy, SmoothPairs()))
    assert found.converged and found.iterations < 15
    allowed = 8.0 * SIZE / expected.curvature
    assert found.scale == pytest.approx(expected.scale, abs=allowed)


def test_a_relaxation_ends_at_the_noise_and_says_at_what_force(shaken, noisy):
    """Forty calls instead of the thousand allowed; the geometry within the noise over the least
    stiffness of the exact one, and the energy within that of the energy."""
    calculator = noisy.calculator
    before = calculator.calls
    found = relax(noisy, shaken, force_tolerance=1e-8)
    assert found.converged and found.max_force < 5.0 * 1.3 * SIZE
    assert f"noise of the forces: the largest is {found.max_force:.2g} eV/Å" in found.message
    assert found.evaluations < 40 and calculator.calls - before < 60
    exact = relax(ase_potential(lennard_jones()), shaken, force_tolerance=1e-8)
    assert found.energy == pytest.approx(exact.energy, abs=5.0 * SIZE)
    ends = [np.asarray(r.positions) for r in (found, exact)]
    ends = [x - x.mean(axis=0) for x in ends]
    np.testing.assert_allclose(*ends, atol=1e-2)


def test_force_constants_with_noise_keep_the_sum_rule(hexagonal, noisy):
    """A shift of the crystal brings no force, to rounding; the rest is within 1 %. Symmetric
    constants of two atoms in the cell have it from no single row."""
    found, exact = (force_constants(p, hexagonal, (2, 2, 1)) for p in (noisy, SmoothPairs()))
    assert found.sum_rule < 1e-12
    scale = float(abs(exact.blocks).max())
    np.testing.assert_allclose(found.blocks, exact.blocks, rtol=0, atol=0.01 * scale)
    _, hessian = gradient_and_hessian(noisy, build_graph(hexagonal, noisy.r_cut, n_atoms=2))
    np.testing.assert_allclose(hessian[6:].reshape(2, 3, 12).sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


# --- at work ---------------------------------------------------------------------------------


def test_relaxation_of_a_vacancy_ends_where_ase_ends():
    crystal = supercell(fcc("Cu", 3.59), (2, 2, 2))
    vacancy = make_structure(crystal.positions[1:], crystal.cell, "Cu")
    start = rattled(vacancy, jax.random.key(0), 0.05)
    ours = relax(ase_potential(EMT()), start, force_tolerance=1e-5)
    assert ours.converged, ours.message
    atoms = to_ase(start)
    atoms.calc = EMT()
    BFGSLineSearch(atoms, logfile=None).run(fmax=1e-5, steps=200)
    # forces of 1e-5 eV/Å over a stiffness of 1 eV/Å^2, and their product in the energy
    assert ours.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    ends = np.asarray(ours.positions)
    np.testing.assert_allclose(
        ends - ends.mean(axis=0), atoms.positions - atoms.positions.mean(axis=0), atol=1e-4
    )


def test_one_calculation_per_point_and_no_stress_in_a_fixed_cell(shaken):
    """One per evaluation of a relaxation, two per product with the Hessian, also under vmap; the
    noise and the steps are measured first."""
    calculator = Recording(**OPTIONS)
    potential = ase_potential(calculator)
    found = relax(potential, shaken, force_tolerance=1e-3)
    assert found.converged and calculator.calls == found.evaluations + POINTS
    graph = build_graph(shaken, potential.r_cut)

    @jax.jit
    def products(directions):
        gradient = jax.grad(lambda x: potential(moved(graph, x)).sum())
        return jax.vmap(lambda v: jax.jvp(gradient, (graph.positions,), (v,))[1])(directions)

    potential.steps(graph)
    calculator.calls = 0
    products(jnp.ones((4, 12, 3))).block_until_ready()
    assert calculator.calls <= 2 * 4 + 4  # two each, and the undisplaced point
    assert "stress" not in calculator.asked


def test_threads_wait_for_each_other(shaken):
    """A calculator works on what it keeps in itself, so on one structure at a time."""
    potential = ase_potential(Recording(**OPTIONS))
    graph = build_graph(shaken, potential.r_cut)

    def energies(k):
        there = moved(graph, graph.positions.at[0, 0].add(1e-3 * k))
        return float(observe(potential, there, "energy").energy)

    alone = [energies(k) for k in range(8)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(energies, range(8))) == alone


def test_energies_of_many_under_vmap(shaken):
    potential = ase_potential(lennard_jones())
    ours, exact = graphs(shaken, potential, SmoothPairs())
    shifts = 0.02 * jax.random.normal(jax.random.key(1), (3, 16, 3))
    energies = [
        jax.jit(jax.vmap(lambda u, p=p, g=g: p(moved(g, g.positions + u)).sum()))(shifts)
        for p, g in ((potential, ours), (SmoothPairs(), exact))
    ]
    np.testing.assert_allclose(*energies, rtol=1e-12)


LARGE = """
    import jax
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp, numpy as np
    from ase.calculators.calculator import Calculator, all_changes
    from lprjax.potentials import ase_potential
    from lprjax.simulation.relaxation import relax
    from lprjax.atoms.structures import rattled, simple_cubic, supercell

    class Wells(Calculator):
        implemented_properties = ["energy", "forces"]
        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            u = atoms.positions - homes
            forces = -u * np.array([1.0, 2.0, 3.0]) - u**3
            energy = 0.5 * np.sum(u**2 * np.array([1.0, 2.0, 3.0])) + 0.25 * np.sum(u**4)
            self.results = dict(energy=energy, forces=forces)

    crystal = supercell(simple_cubic("Cu", 3.0), (17, 17, 17))
    homes = np.asarray(crystal.positions)
    found = relax(ase_potential(Wells()), rattled(crystal, jax.random.key(0), 0.1))
    assert found.converged and abs(found.positions - homes).max() < 1e-6
    print("done", len(homes))
"""


def test_large_arrays_do_not_block_the_loop():
    """4913 atoms in the relaxation's while_loop: arrays beyond the 100 KiB that jax copies at
    once, the size from which a callback could wait for its own thread."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "done 4913\n", done.stderr


# --- the door --------------------------------------------------------------------------------


def test_without_stress_the_cell_stays_fixed(shaken):
    potential = ase_potential(Stressless(**OPTIONS))
    graph = build_graph(shaken, potential.r_cut)
    assert np.isfinite(observe(potential, graph, ("forces", "force_constants")).forces).all()
    with pytest.raises(NotImplementedError, match="Stressless has no stress.*keep the cell"):
        observe(potential, graph, "virial")
    cluster = dataclasses.replace(graph, pbc=(False, False, False))
    virial = observe(potential, cluster, KINDS[1:3])
    expected = np.asarray(virial.forces).T @ np.asarray(graph.positions)
    np.testing.assert_allclose(virial.virial, expected, rtol=0, atol=1e-12)


def test_errors_of_the_calculator_come_out():
    potential = ase_potential(EMT())
    unknown, known = (
        build_graph(make_structure(np.zeros((1, 3)), 2.5 * np.eye(3), element), 1.0)
        for element in ("W", "Cu")
    )
    with pytest.raises(Exception, match="No EMT-potential for W"):
        observe(potential, unknown).energy.block_until_ready()
    assert np.isfinite(observe(potential, known).energy)


class Returning(LennardJones):
    """Returns results as `change` makes them: name -> function of the right one."""

    def __init__(self, **change):
        super().__init__(**OPTIONS)
        self.change = change

    def calculate(self, *args, **options):
        super().calculate(*args, **options)
        for name, change in self.change.items():
            self.results[name] = change(self.results[name])


def test_an_energy_of_one_element_and_a_stress_of_nine_are_what_they_mean(shaken):
    kinds = ("energy", "forces", "virial")
    calculator = Returning(free_energy=lambda e: np.array([[e]]), stress=voigt_6_to_full_3x3_stress)
    graph = build_graph(shaken, 1.0, n_atoms=16)
    found, expected = (
        observe(ase_potential(c), graph, kinds) for c in (calculator, lennard_jones())
    )
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def skewed(stress):
    return voigt_6_to_full_3x3_stress(stress) + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"free_energy": lambda e: np.array([e, e])},
            r"free_energy of calculator Returning.*\(2,\)",
        ),
        ({"free_energy": lambda e: None}, r"free_energy of calculator Returning is nan"),
        ({"forces": lambda f: f[:-1]}, r"forces of calculator Returning.*\(11, 3\).*\(12, 3\)"),
        ({"forces": np.ravel}, r"forces of calculator Returning.*\(36,\)"),
        ({"forces": lambda f: f * np.nan}, r"forces of calculator Returning is nan"),
        ({"stress": lambda s: s * np.inf}, r"stress of calculator Returning is"),
        ({"stress": lambda s: np.tile(s, 2)}, r"stress of calculator Returning.*\(12,\)"),
        ({"stress": skewed}, r"stress of calculator Returning.*wanted a symmetric one"),
    ],
)
def test_results_that_are_none_are_named(shaken, change, words):
    """Such as of a field that did not converge, or of a calculator that keeps another order."""
    graph = build_graph(shaken, 1.0, n_atoms=16)
    with pytest.raises(jax.errors.JaxRuntimeError, match=words):
        observe(ase_potential(Returning(**change)), graph, ("forces", "virial"))


def test_what_it_refuses():
    for wrong in (EMT, 3.0, "emt"):
        with pytest.raises(TypeError, match="wanted one of ase.calculators"):
            ase_potential(wrong)
    with pytest.raises(ValueError, match="Calculator has no energy and no forces"):
        ase_potential(Calculator())
    for options in (dict(step=0.0), dict(r_cut=np.inf)):
        with pytest.raises(ValueError, match=next(iter(options))):
            ase_potential(EMT(), **options)
    one, other = (ase_potential(EMT()) for _ in range(2))
    assert one == one and one != other and len({one, other, one}) == 2
