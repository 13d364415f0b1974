"""Lattice constants and elastic constants: published values, symmetry, finite differences."""

import dataclasses

import numpy as np
import pytest
from scipy.linalg import sqrtm

from lprjax.ace import ACESpec, linear_potential
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond, strained, supercell
from lprjax.crystals.elasticity import (
    GPA_PER_EV_A3,
    acoustic_tensors,
    elastic_constants,
    equilibrium,
    third_order_constants,
)
from lprjax.potentials import stillinger_weber, zhou_eam
from lprjax.potentials.observables import observe, total_energy
from lprjax.simulation.relaxation import relax

SILICON, TUNGSTEN = stillinger_weber(), zhou_eam("W")
VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
STRAIN = np.array([0.9, -0.4, 0.2, 0.7, -0.5, 0.3])  # without symmetry, engineering shears
DIRECTION = np.array([[0.9, 0.15, -0.25], [0.15, -0.4, 0.35], [-0.25, 0.35, 0.2]])  # the same


@pytest.fixture(scope="module")
def silicon():
    return equilibrium(SILICON, diamond("Si", 5.6, primitive=True))


@pytest.fixture(scope="module")
def tungsten():
    """The cube of two atoms, so that there is an internal strain to vanish."""
    return equilibrium(TUNGSTEN, bcc("W", 3.1))


@pytest.fixture(scope="module")
def elasticity(silicon):
    return elastic_constants(SILICON, silicon.structure)


@pytest.fixture(scope="module")
def stretched():
    """Silicon under a tension of 6 GPa, and its third-order constants there."""
    crystal = diamond("Si", 5.55, primitive=True)
    return crystal, third_order_constants(SILICON, crystal)


@pytest.fixture(scope="module")
def third_order(silicon):
    return third_order_constants(SILICON, silicon.structure)


def test_silicon_lattice_constant(silicon):
    """5.43095 Å and -4.336600 eV per atom, to the digits given."""
    assert silicon.converged
    assert 5.6 * silicon.scale == pytest.approx(5.43095, abs=5e-6)
    assert silicon.energy_per_atom == pytest.approx(-4.336600, abs=5e-7)


def test_tungsten_lattice_constant(tungsten):
    """3.164849 Å and -8.759994 eV per atom, to the digits given."""
    assert tungsten.converged and 3.1 * tungsten.scale == pytest.approx(3.164849, abs=5e-7)
    assert tungsten.energy_per_atom == pytest.approx(-8.759994, abs=5e-7)


def test_equilibrium_does_not_depend_on_start_or_cell(silicon):
    """Newton ends where the step is below 1e-12, so the constants agree to about that."""
    other = equilibrium(SILICON, diamond("Si", 5.3))
    assert other.converged and 5.3 * other.scale == pytest.approx(5.6 * silicon.scale, rel=1e-11)
    assert other.energy_per_atom == pytest.approx(silicon.energy_per_atom, rel=1e-12)
    assert other.curvature == pytest.approx(4 * silicon.curvature, rel=1e-9)


def test_beyond_the_inflection_of_the_energy_the_search_goes_downhill(silicon):
    """Where the energy curves downward a Newton step would climb."""
    stretched = diamond("Si", 7.0, primitive=True)
    assert equilibrium(SILICON, stretched, max_iterations=0).curvature < 0
    found = equilibrium(SILICON, stretched)
    assert found.converged and 7.0 * found.scale == pytest.approx(5.6 * silicon.scale, rel=1e-11)


def test_curvature_is_the_bulk_modulus(silicon, elasticity):
    """d2E/d(ln scale)^2 = 9 V B and B = (C11 + 2 C12) / 3, exact at zero pressure."""
    bulk = float(elasticity.clamped[0, 0] + 2 * elasticity.clamped[0, 1]) / 3
    volume = float(silicon.structure.volume)
    assert silicon.curvature == pytest.approx(9 * volume * bulk, rel=1e-9)


def test_what_does_not_converge_says_so(silicon):
    hurried = equilibrium(SILICON, diamond("Si", 5.6, primitive=True), max_iterations=2)
    assert not hurried.converged and hurried.iterations == 2
    # off the maximum, where the sign of a rounding error would say which way is down
    squeezed = diamond("Si", 0.999 * 5.6 * silicon.scale, primitive=True)

    def negative(graph):
        return -SILICON(graph)

    negative.r_cut = SILICON.r_cut
    upside_down = equilibrium(negative, squeezed)
    assert upside_down.curvature < 0 and not upside_down.converged


def test_silicon_elastic_constants(elasticity):
    """Published to 3 digits after the point; 0.1 % covers the rounding of a0 and of GPa."""
    relaxed, clamped = elasticity.relaxed * GPA_PER_EV_A3, elasticity.clamped * GPA_PER_EV_A3
    found = (relaxed[0, 0], relaxed[0, 1], relaxed[3, 3], clamped[3, 3])
    np.testing.assert_allclose(found, (151.416, 76.417, 56.447, 109.750), rtol=1e-3)


def test_silicon_is_cubic(elasticity):
    """Three constants, nothing else; internal strain softens the shears only; no stress."""
    for c in (elasticity.relaxed, elasticity.clamped):
        expected = np.diag([c[0, 0] - c[0, 1]] * 3 + [c[3, 3]] * 3)
        expected[:3, :3] += c[0, 1]
        np.testing.assert_allclose(c, expected, atol=1e-12)
    np.testing.assert_allclose(elasticity.relaxed[:3, :3], elasticity.clamped[:3, :3], atol=1e-12)
    np.testing.assert_allclose(elasticity.stress, 0.0, atol=1e-11)
    assert np.all(elasticity.optical > 0)


def test_elasticity_does_not_depend_on_the_cell(elasticity, silicon):
    """Four primitive cells: more internal strains, the same crystal."""
    scale = 5.6 * silicon.scale
    cube = elastic_constants(SILICON, diamond("Si", scale))
    np.testing.assert_allclose(cube.relaxed, elasticity.relaxed, atol=1e-11)
    np.testing.assert_allclose(cube.clamped, elasticity.clamped, atol=1e-11)


def test_stress_is_that_of_the_virial():
    """At 5.6 Å silicon is under tension: stress = -W / V, another route through the strain."""
    stretched = diamond("Si", 5.6)
    graph = build_graph(stretched, SILICON.r_cut)
    virial = np.asarray(observe(SILICON, graph, ("virial",)).virial)
    stress = elastic_constants(SILICON, stretched).stress
    expected = -virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / float(stretched.volume)
    np.testing.assert_allclose(stress, expected, atol=1e-12)
    assert stress[0] > 0.01


def energy_density(crystal, strain, let_go):
    shape = strained(crystal, strain)
    if let_go:
        relaxed = relax(SILICON, shape, force_tolerance=1e-9)
        assert relaxed.converged
        energy = relaxed.energy
    else:
        energy = float(total_energy(SILICON, build_graph(shape, SILICON.r_cut)))
    return energy / float(crystal.volume)


@pytest.mark.parametrize("let_go", [False, True], ids=["clamped", "relaxed"])
def test_elastic_constants_are_second_differences(silicon, elasticity, let_go):
    """Along a strain without symmetry; the error is O(h^2): a quarter at half the step.

    Roundoff of the difference quotient, 1e-16 * |E/V| / h^2 ~ 1e-12, is far below the tolerance.
    """
    exact = STRAIN @ (elasticity.relaxed if let_go else elasticity.clamped) @ STRAIN
    rest = energy_density(silicon.structure, np.zeros((3, 3)), let_go)
    errors = []
    for h in (4e-3, 2e-3):
        pair = [energy_density(silicon.structure, s * h * DIRECTION, let_go) for s in (1, -1)]
        errors.append((sum(pair) - 2 * rest) / h**2 - exact)
    assert abs(errors[1]) < 1e-3 * exact
    assert errors[0] / errors[1] == pytest.approx(4.0, abs=0.1)


def test_bravais_crystal_has_no_internal_strain():
    """In bcc every atom is an inversion centre: relaxed = clamped, whatever the stress."""
    tungsten = elastic_constants(TUNGSTEN, bcc("W", 3.164849))
    np.testing.assert_allclose(tungsten.relaxed, tungsten.clamped, atol=1e-11)
    assert tungsten.optical.shape == (3,)


@pytest.mark.parametrize("squeeze", [1.0, 0.99], ids=["relaxed", "stressed"])
def test_acoustic_tensors_are_the_long_waves_of_the_force_constants(squeeze):
    """Q(k) = -1/(2V) sum_R Phi(R) (k . R)^2, also under a stress along z (under a pressure b k^T
    and k b^T are the same): two routes, one by strain of one atom's cell, the other from all force
    constants; 25 Å hold their range of 2 r_cut, 12.3 Å."""
    potential, a = TUNGSTEN, 3.164849 * np.array([1.0, 1.0, squeeze])
    strain = np.diag([0.0, 0.0, squeeze - 1.0])
    crystal = supercell(strained(bcc("W", 3.164849), strain), (8, 8, 8))
    graph = build_graph(crystal, potential.r_cut)
    constants = observe(potential, graph, ("force_constants",)).force_constants[0]
    offsets = np.asarray(crystal.positions - crystal.positions[:1])
    offsets = offsets - 8 * a * np.round(offsets / (8 * a))
    k = np.array([[1, 0, 0], [1, 1, 0], [1, 2, 3]], float)
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    squares = (offsets @ k.T) ** 2
    constants = np.asarray(constants)[:, : crystal.n_atoms]
    expected = -np.einsum("ajb,jn->nab", constants, squares) / np.prod(a)
    found = acoustic_tensors(potential, strained(bcc("W", 3.164849, primitive=True), strain), k)
    # Sites half the cell away have no force constant left but their share of rounding, 1e-15 R^2.
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_acoustic_tensors_are_those_of_the_elastic_constants():
    """Without stress, Christoffel: along <100> C11, C44; along <110> (C11+C44)/2, (C12+C44)/2."""
    potential = TUNGSTEN
    crystal = equilibrium(potential, bcc("W", 3.164849, primitive=True)).structure
    c = elastic_constants(potential, crystal).relaxed
    cube, diagonal, _ = acoustic_tensors(potential, crystal)
    np.testing.assert_allclose(np.diag(cube), [c[0, 0], c[3, 3], c[3, 3]], rtol=1e-9)
    np.testing.assert_allclose(diagonal[0, 0], (c[0, 0] + c[3, 3]) / 2, rtol=1e-9)
    np.testing.assert_allclose(diagonal[0, 1], (c[0, 1] + c[3, 3]) / 2, rtol=1e-9)
    with pytest.raises(ValueError, match="primitive"):
        acoustic_tensors(potential, bcc("W", 3.164849))


def turned(constants, rotation):
    """The tensor C_ijklmn (3, ...) of Brugger's constants (6, 6, 6), turned."""
    i, j, k = np.ix_(VOIGT.ravel(), VOIGT.ravel(), VOIGT.ravel())
    pairs = np.kron(rotation, rotation)  # (ij) -> (i'j')
    return np.einsum("abc,ia,jb,kc->ijk", constants[i, j, k], pairs, pairs, pairs, optimize=True)


def test_third_order_constants_of_a_cubic_crystal(third_order):
    """Symmetric in I, J, K and unchanged by the group, which a quarter turn about z and a third
    about <111> generate: six constants are left (Brugger 1964)."""
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    third = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    for c in third_order:
        np.testing.assert_allclose(c, c.transpose(1, 0, 2), atol=1e-11)
        np.testing.assert_allclose(c, c.transpose(0, 2, 1), atol=1e-11)
        for turn in (quarter, third):
            np.testing.assert_allclose(turned(c, turn), turned(c, np.eye(3)), atol=1e-11)
        six = c[[0, 0, 0, 0, 0, 3], [0, 0, 1, 3, 4, 4], [0, 1, 2, 3, 4, 5]]
        assert np.all(six < 0)  # stiffer when compressed
    # Shears move the sublattices apart, strains along the axes do not.
    softened = third_order.relaxed - third_order.clamped
    np.testing.assert_allclose(softened[:3, :3, :3], 0.0, atol=1e-11)
    assert min(softened[0, 3, 3], softened[0, 4, 4], softened[3, 4, 5]) > 0.5


def test_third_order_constants_turn_with_the_crystal(silicon, third_order):
    """C'_ijklmn = Q_ia ... Q_nf C_abcdef for any rotation."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    crystal = dataclasses.replace(
        silicon.structure,
        positions=silicon.structure.positions @ rotation.T,
        cell=silicon.structure.cell @ rotation.T,
    )
    found = third_order_constants(SILICON, crystal)
    for new, old in zip(found, third_order, strict=True):
        np.testing.assert_allclose(turned(new, np.eye(3)), turned(old, rotation), atol=1e-10)


@pytest.mark.parametrize("let_go", [False, True], ids=["clamped", "relaxed"])
def test_third_order_constants_are_third_differences(stretched, let_go):
    """Along one Lagrangian strain, eta = h N, F = (I + 2 eta)^(1/2), and under tension, where the
    order eta^3 of F counts; the error is O(h^2).

    Roundoff of the quotient, some 1e-16 eV/Å^3 / h^3, is below 1e-9 of some 1 eV/Å^3.
    """
    crystal, third_order = stretched
    constants = third_order.relaxed if let_go else third_order.clamped
    exact = np.einsum("ijk,i,j,k->", constants, STRAIN, STRAIN, STRAIN)

    def energy(h):
        strain = sqrtm(np.eye(3) + 2 * h * DIRECTION) - np.eye(3)
        return energy_density(crystal, strain, let_go)

    errors = []
    for h in (8e-3, 4e-3):
        odd = [energy(t * h) - energy(-t * h) for t in (1, 2)]
        errors.append((odd[1] - 2 * odd[0]) / (2 * h**3) - exact)
    assert abs(errors[1]) < 1e-2 * abs(exact)
    assert errors[0] / errors[1] == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("element", ["Si", "W"])
def test_third_order_constants_say_how_pressure_stiffens(element, silicon, tungsten):
    """dC_IJ / d(ln a) = C_IJ + sum_{K <= 3} C_IJK for the Lagrangian constants of the crystal
    stretched to lambda a, C_IJ(lambda) = lambda d2W/d eta_I d eta_J: second derivatives only, in
    another place. Those in eps differ from them by the stress (E has sigma : eps^2 / 2 more)."""
    potential = SILICON if element == "Si" else TUNGSTEN
    crystal = silicon.structure if element == "Si" else tungsten.structure

    def lagrangian(scale):
        stretched = dataclasses.replace(
            crystal, positions=crystal.positions * scale, cell=crystal.cell * scale
        )
        found = elastic_constants(potential, stretched)
        extra = found.stress[0] * np.diag([1, 1, 1, 0.5, 0.5, 0.5])
        return np.stack([found.relaxed - extra, found.clamped - extra])

    second, third = lagrangian(1.0), np.stack(third_order_constants(potential, crystal))
    exact = second + third[..., :3].sum(axis=-1)
    if element == "W":  # every atom of a Bravais lattice is an inversion centre: nothing settles
        np.testing.assert_allclose(third[0], third[1], atol=1e-9)
    errors = [(lagrangian(1 + h) - lagrangian(1 - h)) / (2 * h) - exact for h in (2e-3, 1e-3)]
    assert np.abs(errors[1]).max() < 1e-3 * np.abs(exact).max()
    assert np.linalg.norm(errors[0]) / np.linalg.norm(errors[1]) == pytest.approx(4.0, abs=0.1)


def test_errors_at_the_door():
    with pytest.raises(TypeError, match="r_cut"):
        equilibrium(lambda graph: SILICON(graph), diamond("Si", 5.4))
    with pytest.raises(TypeError, match="callable"):
        elastic_constants(3.0, diamond("Si", 5.4))


def test_internal_strain_that_is_known_is_taken(monkeypatch):
    """The same third-order constants, and nothing of second order is differentiated once more."""
    silicon, cell = stillinger_weber(), diamond("Si", 5.431, primitive=True)
    internal = elastic_constants(silicon, cell).internal
    expected = third_order_constants(silicon, cell)
    monkeypatch.setattr("lprjax.crystals.elasticity.gradient_and_hessian", None)
    found = third_order_constants(silicon, cell, internal=internal)
    np.testing.assert_array_equal(found.relaxed, expected.relaxed)
    assert np.abs(found.relaxed - found.clamped).max() > 1e-2


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_crystal_without_stiffness_has_no_constants_and_raises_nothing(value):
    """Without curvature, or without numbers: as a bad fit may be, of which a budget is asked."""
    spec = ACESpec(("Si",), order=1, degree=3, r_cut=4.0, r0=2.35)
    nothing = linear_potential(spec, np.full(spec.n_columns, value))
    cell = diamond("Si", 5.431, primitive=True)
    found = elastic_constants(nothing, cell)
    np.testing.assert_array_equal(found.optical, np.full(3, value))
    assert not np.isfinite(np.asarray(found.relaxed)).any()
    assert not np.isfinite(third_order_constants(nothing, cell).relaxed).any()
