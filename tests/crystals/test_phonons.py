"""Force constants and lattice stability: forces, dense matrices, another code, long waves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units
from ase.data import atomic_masses
from scipy.linalg import eigh

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import (
    bcc,
    diamond,
    make_structure,
    simple_cubic,
    square,
    strained,
    supercell,
    to_ase,
)
from lprjax.crystals.elasticity import acoustic_tensors, elastic_constants
from lprjax.crystals.phonons import force_constants, stability
from lprjax.crystals.strain_norm import reference_lattice, without_sites
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.observables import energy_and_forces

SILICON, TUNGSTEN = stillinger_weber(), zhou_eam("W")
DIAMOND, A_SI = diamond("Si", 5.43095, primitive=True), 5.43095
BCC = bcc("W", 3.164849, primitive=True)
SMALL = (3, 2, 3)  # smaller than the range; 3 along z: waves beyond those of a real transform


def without_symmetry():
    """Strained diamond, one sublattice shifted by a little and by a lattice vector.

    No symmetry but inversion is left to hide an error in; the forces on its atoms do not matter
    to derivatives of the energy.
    """
    strain = np.array([[0.02, 0.01, 0.0], [0.01, -0.01, 0.02], [0.0, 0.02, 0.0]])
    crystal = strained(DIAMOND, strain)
    shift = crystal.cell[0] + jnp.array([0.05, -0.02, 0.03])
    return dataclasses.replace(crystal, positions=crystal.positions.at[1].add(shift))


SKEWED = without_symmetry()


@pytest.fixture(scope="module")
def skewed():
    return force_constants(SILICON, SKEWED, SMALL)


@pytest.fixture(scope="module")
def dense(skewed):
    """Phi as a matrix, column by column."""
    unit = jnp.eye(108).reshape(108, 36, 3)
    return np.stack([np.asarray(skewed.apply(v)).ravel() for v in unit], axis=1)


@pytest.fixture(scope="module")
def tungsten():
    """9 x 2.741 Å between images, twice the range 2 r_cut = 12.26 Å."""
    return force_constants(TUNGSTEN, BCC, (9, 9, 9))


@pytest.fixture(scope="module")
def silicon():
    """5 x 3.840 Å between images, twice the range 2 r_cut = 7.54 Å."""
    return force_constants(SILICON, DIAMOND, (5, 5, 5))


# --- Phi(R) ------------------------------------------------------------------------------------


def test_force_constants_are_the_derivative_of_the_forces(skewed):
    """Phi v = -dF along v on all 36 atoms; the error of the difference is O(h^2)."""
    crystal = supercell(SKEWED, SMALL)
    v = np.random.default_rng(0).normal(size=(36, 3))

    def forces(h):
        there = make_structure(crystal.positions + h * v, crystal.cell, "Si")
        return np.asarray(energy_and_forces(SILICON, build_graph(there, SILICON.r_cut))[1])[:36]

    exact = np.asarray(skewed.apply(jnp.asarray(v)))
    errors = [(forces(-h) - forces(h)) / (2 * h) - exact for h in (2e-3, 1e-3)]
    assert np.abs(errors[1]).max() < 1e-3 * np.abs(exact).max()
    assert np.linalg.norm(errors[0]) / np.linalg.norm(errors[1]) == pytest.approx(4, abs=0.05)


@pytest.mark.oracle
def test_force_constants_of_another_code(dense):
    """matscipy's analytic Hessian; its 1/3 is written with twelve digits."""
    manybody = pytest.importorskip("matscipy.calculators.manybody")
    forms = pytest.importorskip("matscipy.calculators.manybody.explicit_forms.stillinger_weber")
    atoms = to_ase(supercell(SKEWED, SMALL))
    atoms.calc = manybody.Manybody(**forms.StillingerWeber(forms.Stillinger_Weber_PRB_31_5262_Si))
    hessian = atoms.calc.get_hessian(atoms, "sparse").toarray()
    np.testing.assert_allclose(dense, hessian, atol=1e-9)


def test_a_shift_of_the_crystal_is_not_felt(skewed, tungsten):
    """The sum of some hundred stiffnesses of at most 20 eV/Å^2, in double precision."""
    assert skewed.sum_rule < 1e-12 and tungsten.sum_rule < 1e-12
    pulled = skewed.blocks.at[0, 0, 0, 0, 0, 0, 0].add(0.25)
    assert type(skewed)(pulled, SKEWED).sum_rule == pytest.approx(0.25)


# --- Phi(k) ------------------------------------------------------------------------------------


def test_waves_diagonalise_the_dense_matrix(skewed, dense):
    """Symmetric; the spectra of the Phi(k) together are that of the 108 x 108 matrix."""
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    waves = np.asarray(skewed.fourier())
    assert waves.shape == (*SMALL, 6, 6)
    np.testing.assert_allclose(waves, np.swapaxes(waves, -1, -2).conj(), atol=1e-12)
    together = np.sort(np.linalg.eigvalsh(waves).ravel())
    np.testing.assert_allclose(together, np.linalg.eigvalsh(dense), atol=1e-11)


def test_the_sign_of_the_waves(skewed):
    """(Phi v)(k) = Phi(k) v(k) with v(k) = sum_R v(R) exp(-i k . R), k from `wave_vectors`."""
    v = jnp.asarray(np.random.default_rng(1).normal(size=(36, 3)))
    origins = np.asarray(supercell(SKEWED, SMALL).positions).reshape(18, 2, 3)[:, 0]
    origins = origins - np.asarray(SKEWED.positions)[0]
    phases = np.exp(-1j * skewed.wave_vectors().reshape(18, 3) @ origins.T)

    def transformed(w):
        return phases @ np.asarray(w).reshape(18, 6)

    expected = np.einsum("kab,kb->ka", skewed.fourier().reshape(18, 6, 6), transformed(v))
    np.testing.assert_allclose(transformed(skewed.apply(v)), expected, atol=1e-11)


def test_wave_vectors_fit_and_are_in_the_first_zone(tungsten):
    """exp(i k . m a) = 1, all different, none nearer to another reciprocal vector than to 0."""
    k = tungsten.wave_vectors().reshape(-1, 3)
    cell = np.asarray(BCC.cell)
    turns = 9 * k @ cell.T / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)
    assert len(np.unique(np.round(turns).astype(int) % 9, axis=0)) == 729
    around = np.moveaxis(np.indices((5, 5, 5)) - 2, 0, -1).reshape(-1, 3)
    reciprocal = around @ (2 * np.pi * np.linalg.inv(cell).T)
    lengths = np.linalg.norm(k[:, None] + reciprocal, axis=-1)
    assert np.all(np.linalg.norm(k, axis=1) <= lengths.min(axis=1) + 1e-12)


@pytest.mark.parametrize("name", ["tungsten", "silicon", "skewed"])
def test_a_small_supercell_is_exact_where_waves_fit(name, request):
    """3 x 2 x 3 cells fold all images; at the k that fit it equals the lattice's own Phi(k)."""
    cells = {"tungsten": (TUNGSTEN, BCC), "silicon": (SILICON, DIAMOND)}
    potential, cell = cells.get(name, (SILICON, SKEWED))
    small = force_constants(potential, cell, SMALL)
    folded = np.asarray(small.fourier())
    k, shape = small.wave_vectors().reshape(-1, 3), (18, *folded.shape[-2:])
    np.testing.assert_allclose(small.at(k), folded.reshape(shape), atol=1e-11)
    np.testing.assert_allclose(
        request.getfixturevalue(name).at(k), folded.reshape(shape), atol=1e-11
    )


def test_waves_between_those_that_fit(tungsten):
    """Phi(-k) = Phi(k)*, Hermitian, and periodic in reciprocal space."""
    k = np.array([[0.3, -0.7, 1.1], [0.01, 0.5, 0.2]])
    waves = tungsten.at(k)
    np.testing.assert_allclose(waves, np.swapaxes(waves, -1, -2).conj(), atol=1e-12)
    np.testing.assert_allclose(tungsten.at(-k), waves.conj(), atol=1e-12)
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(BCC.cell)).T
    np.testing.assert_allclose(tungsten.at(k + reciprocal[0]), waves, atol=1e-11)


@pytest.mark.parametrize("name", ["tungsten", "silicon"])
def test_long_waves_are_elasticity(name, request):
    """Acoustic eigenvalues / k^2 -> V / b times those of C_iajb k_a k_b, with an error O(k^2).

    In diamond C is the relaxed one: the optical displacements follow the acoustic wave.
    """
    constants = request.getfixturevalue(name)
    direction = np.array([1.0, 2.0, 4.0]) / np.sqrt(21)
    cell = constants.unit_cell
    if name == "tungsten":
        tensor = acoustic_tensors(TUNGSTEN, cell, [direction])[0]
    else:
        voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
        c = elastic_constants(SILICON, cell).relaxed[voigt[:, :, None, None], voigt]
        tensor = np.einsum("iajb,a,b->ij", c, direction, direction)
    exact = np.linalg.eigvalsh(tensor) * float(cell.volume) / cell.n_atoms
    lengths = np.array([0.04, 0.02])
    found = np.linalg.eigvalsh(constants.at(lengths[:, None] * direction))[:, :3]
    errors = found / lengths[:, None] ** 2 - exact
    assert np.all(np.abs(errors[1]) < 2e-3 * exact)
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, atol=0.05)


def test_frequencies_of_silicon(silicon):
    """At k = 0 the optical ones in SI units, from the Hessian of the two atoms; sound below."""
    stiffness = elastic_constants(SILICON, DIAMOND).optical * units._e * 1e20  # N/m
    expected = np.sqrt(stiffness / (28.085 * units._amu)) / (2 * np.pi * 1e12)
    zone_centre, along = silicon.frequencies(np.array([[0.0, 0, 0], [0, 0, 0.1]]))
    np.testing.assert_allclose(zone_centre[3:], expected, rtol=1e-6)
    np.testing.assert_allclose(zone_centre[:3], 0.0, atol=1e-5)
    # 56.447 and 151.416 GPa, density 2330 kg/m^3: sound along <100>, slowed by dispersion
    density = 2 * 28.085 * units._amu / (float(DIAMOND.volume) * 1e-30)
    sound = np.sqrt(np.array([56.447, 56.447, 151.416]) * 1e9 / density) * 1e9 * 1e-12 / (2 * np.pi)
    np.testing.assert_allclose(along[:3], sound, rtol=5e-3)


# --- stability ---------------------------------------------------------------------------------


def dense_spectrum(matrix, lattice, axes=(0, 1, 2)):
    """All eigenvalues of Phi v = lambda (K (x) I) v on displacements of zero mean along `axes`."""
    n = lattice.n_sites
    k = np.zeros((n, n))
    for i, row in enumerate(np.asarray(lattice.neighbours)):
        for j in row:
            k[[i, j], [i, j]] += 1.0
            k[[i, j], [j, i]] -= 1.0
    zero_mean = np.linalg.qr(np.concatenate([np.ones((n, 1)), np.eye(n)[:, 1:]], axis=1))[0][:, 1:]
    basis = np.kron(zero_mean, np.eye(3)[:, list(axes)])
    metric = np.kron(zero_mean.T @ k @ zero_mean, np.eye(len(axes)))
    return eigh(basis.T @ matrix @ basis, metric, eigvals_only=True)


def test_sublattices_swing_with_their_reduced_mass():
    """CsCl at k = 0: omega^2 = f (1/m_1 + 1/m_2), f = 8/3 of a bond's V''; shifts cost nothing."""
    a, second = 3.0, 2.0
    bonds = polynomial_bonds([a * 3**0.5 / 2], [[0.0, 0.0, second / 2]])
    cell = make_structure([[0.0] * 3, [a / 2] * 3], a * np.eye(3), ["W", "Al"])
    found = force_constants(bonds, cell, (2, 2, 2)).frequencies(np.zeros((1, 3)))[0]
    inverse_mass = np.sum(1 / atomic_masses[[74, 13]])
    swing = np.sqrt(8 * second / 3 * inverse_mass) * units.second * 1e-12 / (2 * np.pi)
    np.testing.assert_allclose(found, [0.0] * 3 + [swing] * 3, atol=1e-5 * swing)


def test_a_supercell_just_wider_than_twice_the_range_is_exact():
    """Bonds of nearest neighbours in diamond: of a pair in two cells it is the distance of the
    atoms, not that of the cells, that decides which image is meant."""
    bonds = polynomial_bonds([A_SI * 3**0.5 / 4], [[0.0, 0.0, 1.0]])
    k = np.random.default_rng(0).normal(size=(5, 3))
    small, large = (force_constants(bonds, DIAMOND, m).at(k) for m in ((2, 2, 2), (4, 4, 4)))
    np.testing.assert_allclose(small, large, atol=1e-12)


def test_stability_is_the_least_generalised_eigenvalue(skewed, dense):
    """Against the dense problem on 36 sites; every wave's own constant is in its spectrum."""
    lattice = reference_lattice(SKEWED, SMALL, radius=4.5)
    found = stability(skewed, lattice)
    spectrum = dense_spectrum(dense, lattice)
    assert float(found.constant) == pytest.approx(spectrum[0], rel=1e-9)
    by_wave_vector = np.asarray(found.by_wave_vector)
    assert by_wave_vector.shape == SMALL and by_wave_vector[0, 0, 0] > spectrum[0]
    distance = np.abs(by_wave_vector.ravel()[:, None] - spectrum).min(axis=1)
    assert distance.max() < 1e-10
    opposite = by_wave_vector[tuple(-np.indices(SMALL) % np.array(SMALL)[:, None, None, None])]
    np.testing.assert_allclose(by_wave_vector, opposite, atol=1e-10)
    at = np.argwhere(by_wave_vector == float(found.constant))[0]
    np.testing.assert_allclose(found.wave_vector, skewed.wave_vectors()[tuple(at)])
    without = stability(skewed, without_sites(lattice, [3]))  # the homogeneous lattice is meant
    assert float(without.constant) == float(found.constant)


def test_a_wave_attains_the_constant(tungsten):
    """v = Re(e exp(i k R)) with the softest polarisation: v^T Phi v = c ||Dv||^2."""
    lattice = reference_lattice(BCC, (9, 9, 9))
    found = stability(tungsten, lattice)
    assert np.isinf(found.by_wave_vector[0, 0, 0]) and float(found.constant) > 0.1
    wave = np.asarray(found.wave_vector)
    polarisation = np.linalg.eigh(tungsten.at(wave[None])[0])[1][:, 0]
    phases = np.exp(1j * np.asarray(supercell(BCC, (9, 9, 9)).positions) @ wave)
    v = jnp.asarray((phases[:, None] * polarisation).real)
    quotient = jnp.vdot(v, tungsten.apply(v)) / lattice.strain_norm(v) ** 2
    assert float(quotient) == pytest.approx(float(found.constant), rel=1e-9)


def bonds(second):
    """First and second neighbours of a lattice of edge 1, without stress."""
    return polynomial_bonds([1.0, np.sqrt(2)], [[0, 0, 1.0], [0, 0, second]])


def test_soft_and_unstable_lattices():
    """Negative second neighbours leave a simple cubic lattice without shear stiffness; tungsten
    stretched by 15 % falls apart. Both are results, with the wave that does it."""
    lattice = reference_lattice(simple_cubic("W", 1.0), (4, 4, 4))
    for second, sign in ((0.5, 1), (-0.1, -1)):
        constants = force_constants(bonds(second), simple_cubic("W", 1.0), (4, 4, 4))
        found = stability(constants, lattice)
        assert np.sign(found.constant) == sign and np.linalg.norm(found.wave_vector) > 0
        lowest = constants.frequencies(np.asarray(found.wave_vector)[None])[0, 0]
        assert np.sign(lowest) == sign
    stretched = bcc("W", 1.15 * 3.164849, primitive=True)
    found = stability(
        force_constants(TUNGSTEN, stretched, (4, 4, 4)), reference_lattice(stretched, (4, 4, 4))
    )
    assert found.constant < 0


def test_a_planar_lattice_is_judged_in_its_plane():
    """Bonds without tension leave the square lattice no stiffness out of its plane."""
    cell, repeats = square("W", 1.0), (3, 4, 1)
    constants, lattice = (
        force_constants(bonds(0.5), cell, repeats),
        reference_lattice(cell, repeats),
    )
    unit = jnp.eye(36).reshape(36, 12, 3)
    matrix = np.stack([np.asarray(constants.apply(v)).ravel() for v in unit], axis=1)
    found = float(stability(constants, lattice).constant)
    assert found > 0.1
    assert found == pytest.approx(dense_spectrum(matrix, lattice, (0, 1))[0], rel=1e-9)


def test_the_constant_can_be_differentiated():
    """In the stiffness of the second neighbours, against a central difference."""
    cell, repeats = simple_cubic("W", 1.0), (4, 4, 4)
    lattice = reference_lattice(cell, repeats)

    def constant(second):
        soft = bonds(0.0)
        stiffer = soft.coefficients.at[0, 1, 2].set(second)
        potential = dataclasses.replace(soft, coefficients=stiffer)
        return stability(force_constants(potential, cell, repeats), lattice).constant

    slope = float(jax.grad(constant)(0.3))
    difference = float(constant(0.3 + 1e-5) - constant(0.3 - 1e-5)) / 2e-5
    assert slope == pytest.approx(difference, rel=1e-6) and slope > 0


# --- the door ----------------------------------------------------------------------------------


def test_errors_at_the_door(skewed):
    with pytest.raises(ValueError, match="one row per site"):
        skewed.apply(jnp.zeros((35, 3)))
    with pytest.raises(ValueError, match="1/Å"):
        skewed.at([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="same cells"):
        stability(skewed, reference_lattice(SKEWED, (3, 3, 3), radius=4.5))
    with pytest.raises(ValueError, match="repeats"):
        force_constants(SILICON, DIAMOND, (2, 2))
    with pytest.raises(TypeError, match="r_cut"):
        force_constants(lambda graph: SILICON(graph), DIAMOND, (2, 2, 2))


@pytest.mark.parametrize("basis", [np.eye(3), [[1, 0, 0], [3, 1, 0], [0, 2, 1]]])
def test_frequencies_are_those_of_the_lattice_in_any_basis(basis):
    """phonopy 2.43, with the force constants of the same supercell in the reduced basis, in THz."""
    vectors = np.array(basis) @ np.asarray(bcc("W", 3.165, primitive=True).cell)
    cell = make_structure([[0, 0, 0]], vectors, "W")
    constants = force_constants(zhou_eam("W", r_cut=4.6), cell, (5, 5, 5))
    found = constants.frequencies([[0.1, 0.2, 0.3]])[0]
    np.testing.assert_allclose(found, [1.665, 1.692, 2.983], atol=6e-4)
    lengths = np.linalg.norm(constants.wave_vectors(), axis=-1)
    assert lengths.max() < 2.0 * np.pi / 3.165 + 1e-9  # H, the farthest point of a bcc zone


def test_force_constants_refuse_a_cluster_and_a_graph_of_other_atoms():
    cell = bcc("W", 3.165, primitive=True)
    with pytest.raises(ValueError, match="a cluster: wanted a crystal"):
        force_constants(TUNGSTEN, dataclasses.replace(cell, pbc=(False,) * 3), (1, 1, 1))
    larger = build_graph(supercell(cell, (3, 2, 2)), TUNGSTEN.r_cut)
    with pytest.raises(ValueError, match="graph has 12 atoms: wanted the 8"):
        force_constants(TUNGSTEN, cell, (2, 2, 2), graph=larger)


def test_padding_of_the_graph_does_not_count():
    """Twelve places for eight atoms: the same sums, in the same order."""
    cell = bcc("W", 3.165, primitive=True)
    padded = build_graph(supercell(cell, (2, 2, 2)), TUNGSTEN.r_cut, n_atoms=12)
    found, expected = (force_constants(TUNGSTEN, cell, (2, 2, 2), graph=g) for g in (padded, None))
    np.testing.assert_allclose(found.blocks, expected.blocks, atol=1e-12)
