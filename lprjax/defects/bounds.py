"""The error terms of a defect simulation: one function per term, each an exact number or a bound.

Reference E and surrogate Ê on one lattice, ubar the reference's minimiser, f = -dÊ(ubar) the
forces the surrogate leaves there, K the seminorm of `seminorm`, ||f||_{-1} its dual norm.

    ||D ubar - D uhat|| <= 2 / (1 + sqrt(1 - 2 h)) * eta / c,    h = M eta / c^2 <= 1/2,

eta = ||f||_{-1}, c the stability constant of Ê at ubar, M the Lipschitz constant of its Hessian
(Kantorovich). f is split, exactly and without appeal to site energies, into what each kind of
training data can cure: the pieces of `farfield` for the lattice under the cut-off displacement w,
and the rest, the core. After Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053; derived.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lprjax.atoms.graphs import build_graph
from lprjax.crystals.phonons import force_constants
from lprjax.crystals.strain_norm import on_all_waves
from lprjax.defects.defect import Defect
from lprjax.defects.far_field import (
    CauchyBorn,
    cauchy_born_mismatch,
    far_field,
    lattice_orders,
)
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import cutoff_of

PIECES = ("core", "elastic", "force_constants", "third_elastic", "third", "remainder")


class Residual(NamedTuple):
    """What the surrogate gets wrong at the reference's geometry, and which order is to blame.

    forces: (n_sites, 3) eV/A, of surrogate less reference. energy: eV, the same difference of the
    formation energies (bulk energy per atom taken out). pieces, energies: for each of PIECES its
    share; they add up to the whole. far: (n_regular, 3) A, w. radius: A, L.
    """

    forces: Array
    energy: float
    pieces: Mapping[str, Array]
    energies: Mapping[str, float]
    far: Array
    radius: float


def force_residual(reference, surrogate, defect: Defect, displacement) -> tuple[Array, float]:
    """f = F̂(ubar) - F(ubar), (n_sites, 3) eV/A, and the error of E_f at that geometry, eV.

    The reference's own forces, small at its minimiser, are taken out, so that what is left of a
    relaxation does not count. E_f = E - N e_bulk: foreign species are not referred to any
    reservoir, so E_f of an alloy has a meaning only up to that.
    """
    theirs, ours = (_energy_and_forces(p, defect, displacement) for p in (reference, surrogate))
    return ours[1] - theirs[1], ours[0] - theirs[0]


def _energy_and_forces(potential, defect, displacement):
    structure, reference = defect.displaced(displacement), defect.reference
    graphs = (build_graph(s, cutoff_of(potential)) for s in (structure, reference))
    labels, bulk = (observe(potential, graph, ("energy", "forces")) for graph in graphs)
    per_atom = float(bulk.energy) / reference.n_atoms
    energy = float(labels.energy) - structure.n_atoms * per_atom
    return energy, defect.on_sites(labels.forces[: structure.n_atoms])


def split_residual(
    reference, surrogate, defect: Defect, displacement, radius: float, *, model=None
) -> Residual:
    """The force residual by its causes, an exact partition.

    - elastic: first order, by the elastic constants; force_constants: the rest of first order
    - third_elastic: second order, by elastic constants of third order; third: the rest of it
    - remainder: higher orders of the homogeneous lattice
    - core: all else, that is what the lattice outside `radius` does not account for

    displacement: (n_sites, 3) A, ubar. radius: L, A. model: `cauchy_born_mismatch`, made if None.
    """
    model = cauchy_born_mismatch(reference, surrogate, defect) if model is None else model
    forces, energy = force_residual(reference, surrogate, defect, displacement)
    w = far_field(defect, displacement, radius)
    theirs, ours = (lattice_orders(p, defect.reference, w) for p in (reference, surrogate))
    elastic, third_elastic = model.forces(w)
    lattice_energies = np.asarray(ours.energies - theirs.energies)
    elastic_energies = np.asarray(model.energies(w))
    pieces = {
        "elastic": elastic,
        "force_constants": ours.first - theirs.first - elastic,
        "third_elastic": third_elastic,
        "third": ours.second - theirs.second - third_elastic,
        "remainder": ours.rest - theirs.rest,
    }
    pieces = {name: _on_all_sites(defect, piece) for name, piece in pieces.items()}
    first, second, rest = (float(e) for e in lattice_energies)
    low, high = (float(e) for e in elastic_energies)
    energies = {
        "elastic": low,
        "force_constants": first - low,
        "third_elastic": high,
        "third": second - high,
        "remainder": rest,
    }
    core = {"core": forces - sum(pieces.values())}, {"core": energy - sum(energies.values())}
    return Residual(forces, energy, core[0] | pieces, core[1] | energies, w, radius)


def _on_all_sites(defect, forces):
    """Forces on the complete lattice as forces on the defect's sites, balanced where they exist."""
    padded = jnp.zeros((defect.lattice.n_sites, 3)).at[: forces.shape[0]].set(forces)
    present = defect.lattice.present[:, None]
    return jnp.where(present, padded - jnp.mean(padded, axis=0, where=present), 0.0)


class Weights(NamedTuple):
    """Norms of the far field that the mismatches of each order are multiplied by, A, A^2, A^3."""

    linear: float  # ||Dw||, of elastic constants and force constants
    quadratic: float  # (sum |Dw(l)|^4)^1/2, of third derivatives
    cubic: float  # (sum |Dw(l)|^6)^1/2, of fourth derivatives


def far_field_weights(defect: Defect, w) -> Weights:
    """What the actual geometry makes of each mismatch; ~ L^(-d/2), L^(-3d/2), L^(-5d/2).

    w: (n_regular, 3) A, from `farfield.far_field`.
    """
    table = defect.lattice.complete
    squares = jnp.sum((w[table] - w[:, None, :]) ** 2, axis=(1, 2))
    return Weights(*(float(jnp.sqrt(jnp.sum(squares**p))) for p in (1, 2, 3)))


def far_field_spectrum(defect: Defect, w) -> np.ndarray:
    """The share of each wave vector in ||Dw||^2, (m1, m2, m3) A^2.

    w: (n_regular, 3) A, from `farfield.far_field`.
    """
    repeats, spectrum = defect.lattice.repeats, defect.lattice.spectrum
    waves = np.fft.rfftn(np.asarray(w).reshape(*repeats, -1, 3), axes=(0, 1, 2))
    # w(k) = sum_R w(R) exp(-i k . R), of which Phi(k) and K(k) are the multipliers: see `phonons`
    rotated = np.einsum("...ba,...bc->...ac", spectrum.modes.conj(), waves)
    half = np.sum(spectrum.stiffnesses[..., None] * np.abs(rotated) ** 2, axis=(-2, -1))
    return on_all_waves(half, repeats) / math.prod(repeats)


def elastic_mismatch(model: CauchyBorn, defect: Defect) -> float:
    """e_C, eV/A^2: the elastic piece obeys ||f_C||_{-1} <= e_C ||Dw||, sharp for long waves.

        e_C = max_k || K(k)^-1/2 A_C(k) K(k)^-1/2 ||,

    A_C the Hessian of the Cauchy-Born energy.

    model: `farfield.cauchy_born_mismatch`. Derived.
    """
    return float(_relative(_elastic_blocks(model, defect), defect).max())


def force_constant_mismatch(reference, surrogate, model: CauchyBorn, defect: Defect) -> np.ndarray:
    """e_FC(k), (m1, m2, m3) eV/A^2, what force constants get wrong besides elastic constants.

        e_FC(k) = || K(k)^-1/2 (dPhi(k) - A_C(k)) K(k)^-1/2 ||,

    so that ||f_FC||_{-1}^2 <= sum_k e_FC(k)^2 ||Dw||^2_k (`far_field_spectrum`). It vanishes as
    |k|^2 for k -> 0 where every site is a centre of symmetry (as |k| or less in a multilattice).
    Derived.
    """
    theirs, ours = (
        np.asarray(force_constants(p, defect.unit_cell, defect.lattice.repeats).half_fourier())
        for p in (reference, surrogate)
    )
    return _relative(ours - theirs - _elastic_blocks(model, defect), defect)


def third_elastic_mismatch(model: CauchyBorn, defect: Defect) -> float:
    """e_C3, eV/A^2: ||f_C3||_{-1} <= e_C3 (sum_l |Dw(l)|^4)^(1/2).

        e_C3 = V_0 / 2 * gamma^3 * || W_3 ||,   |Gw(l)| <= gamma |Dw(l)|,

    W_3 the third derivative of the Cauchy-Born density, ||W_3|| the spectral norm of its (9, 81)
    matrix, gamma^2 the largest eigenvalue of M^-1. Derived.
    """
    third = jax.jacfwd(jax.hessian(lambda h: model.densities(h)[1]))(jnp.zeros((3, 3)))
    weights = np.asarray(model.gradient.weights)
    # |G w|^2 <= |Dw|^2 times the largest eigenvalue of sum_s (M^-1 rho)(M^-1 rho)^T = M^-1.
    inverse = np.einsum("lsi,lsj->lij", weights, weights)
    gamma = math.sqrt(float(np.linalg.eigvalsh(inverse).max()))
    spread = np.linalg.norm(np.asarray(third).reshape(9, 81), ord=2)
    return 0.5 * model.site_volume * gamma**3 * float(spread)


def geometry_bound(eta: float, stability: float, lipschitz: float) -> float:
    """2 / (1 + sqrt(1 - 2 h)) * eta / c, A, with h = M eta / c^2; NaN where h > 1/2 or c <= 0.

    eta: ||f||_{-1}, eV/A. stability: c, eV/A^2. lipschitz: M, eV/A^3, an estimate where it comes
    from `response.lipschitz_estimate`. Source: Kantorovich; Ortner and Wang use the factor 2.
    """
    if stability <= 0 or (h := lipschitz * eta / stability**2) > 0.5:
        return math.nan
    return 2.0 / (1.0 + math.sqrt(1.0 - 2.0 * h)) * eta / stability


def _elastic_blocks(model, defect) -> np.ndarray:
    """A_C(k) at the wave vectors of a real transform, from the answer to single displacements."""
    n, b = defect.reference.n_atoms, defect.unit_cell.n_atoms
    size = 3 * b
    impulses = np.zeros((size, n, 3))
    impulses[np.arange(size), np.repeat(range(b), 3), np.tile(range(3), b)] = 1.0
    columns = np.stack([-np.asarray(model.forces(jnp.asarray(v))[0]) for v in impulses], axis=-1)
    return np.fft.rfftn(columns.reshape(*defect.lattice.repeats, size, size), axes=(0, 1, 2))


def _relative(blocks, defect) -> np.ndarray:
    """|| T^H X T ||, T T^H = K^+, for each wave vector, (m1, m2, m3); translations left out."""
    roots = defect.lattice.spectrum.roots
    wide = np.einsum("...ij,cd->...icjd", roots, np.eye(3)).reshape(blocks.shape)
    half = np.linalg.norm(np.swapaxes(wide, -1, -2).conj() @ blocks @ wide, ord=2, axis=(-2, -1))
    return on_all_waves(half, defect.lattice.repeats)
