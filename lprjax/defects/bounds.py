"""The error terms of a defect simulation: one function per term, each an exact number or a bound.

Reference E and surrogate Ê on one lattice, ubar the reference's minimiser, f = -dÊ(ubar) the
forces the surrogate leaves there, K the seminorm of `strain_norm`, ||f||_{-1} its dual norm.

    ||D ubar - D uhat|| <= 2 / (1 + sqrt(1 - 2 h)) * eta / c,    h = M eta / c^2 <= 1/2,

eta = ||f||_{-1}, c the stability constant of Ê at ubar, M the Lipschitz constant of its Hessian
(Kantorovich). f is split, exactly and without appeal to site energies, into what each kind of
training data can cure: the pieces of `far_field` for the lattice under the cut-off displacement w,
and the rest, the core.

The mismatches of elastic constants, internal strain, force constants and third-order elastic
constants bound their pieces, on the complete lattice L, by a norm of w (its weight). What counts
is the norm of the defect D, larger by at most kappa (`transfer`):

    ||f_p||_{-1,D} <= kappa ||f_p||_{-1,L} <= kappa e_p weight_p(w) .

The mismatch of elastic constants alone is sharp for some w. That of third order chains three
inequalities: within a factor of ten for the worst w, but 10 to 60 times above the norm in the far
fields of defects in the plane and some hundreds of times in d = 3, where it says little. Core,
third derivatives and remainder have no such bound: their mismatch is the norm over the weight, so
that the product is the norm by construction.

All norms are those of the defect's lattice: of a defect `norms.with_energy_norm` ||.|| is that of
the crystal's force constants, with its constants, weights and kappa = 1. Units are then
`defect.lattice.units` (eV^1/2 for both norms, c and e_C to e_FC without unit), not those named
below.

Source: derived, after Ortner, Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, bucket
from lprjax.atoms.structures import Labels, Structure
from lprjax.crystals.elasticity import cell_graph
from lprjax.crystals.energy_norm import EnergyLattice
from lprjax.crystals.phonons import ForceConstants, force_constants
from lprjax.crystals.strain_derivatives import polarisation
from lprjax.crystals.strain_norm import on_all_waves
from lprjax.defects.defect import Defect
from lprjax.defects.far_field import (
    CauchyBorn,
    Orders,
    cauchy_born,
    far_field,
    lattice_graph,
    lattice_orders,
    less,
)
from lprjax.defects.formation import (
    chemical_potentials,
    energy_per_atom,
    formation_energy,
    undefined,
)
from lprjax.defects.hessian import EnergyAt, energy_at
from lprjax.defects.transfer import on_defect
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential

PIECES = (
    "core",
    "elastic",
    "internal_strain",
    "force_constants",
    "third_elastic",
    "third",
    "remainder",
)
"""The pieces of the force residual; see `split_residual`."""


class Residual(NamedTuple):
    """The error of the surrogate at the reference's geometry, split by the orders it comes from.

    Attributes:
        forces: (n_sites, 3) eV/Å, of surrogate less reference.
        energy: eV, the same difference of the formation energies; NaN where a reservoir is missing.
        pieces: for each of PIECES its share of the forces, (n_sites, 3) eV/Å; they add up to the
            whole.
        energies: for each of PIECES its share of the energy, eV; likewise.
        far: w, (n_regular, 3) Å.
        radius: L, Å.
    """

    forces: jax.Array
    energy: float
    pieces: Mapping[str, jax.Array]
    energies: Mapping[str, float]
    far: jax.Array
    radius: float


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One of two potentials on a defect at one geometry: each graph is made when needed, and once.

    Attributes:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: (n_sites, 3) Å, the reference's relaxed geometry.
        far: w, (n_regular, 3) Å, of `far_field`, which the complete lattice is to have room for.
        reservoirs: by symbol, a structure of that element, as in `defects.formation`.
        unit: the graph of the unit cell without padding, where it was made before.
        made: its Cauchy-Born energy, likewise.
        internal: how its atoms follow a strain, (b, 3, 6) Å, likewise; see `cauchy_born`.
    """

    potential: Potential
    defect: Defect
    displacement: ArrayLike
    far: ArrayLike = 0.0
    reservoirs: Mapping[str, Structure] | None = None
    unit: Graph | None = None
    made: CauchyBorn | None = None
    internal: ArrayLike | None = None

    @functools.cached_property
    def at(self) -> EnergyAt:
        """The energy around the geometry."""
        return energy_at(self.potential, self.defect, self.displacement)

    @functools.cached_property
    def labels(self) -> Labels:
        """Energy and forces at the geometry, padding included."""
        return observe(self.potential, self.at.graph, ("energy", "forces"))

    @functools.cached_property
    def cell(self) -> Graph:
        """The unit cell, without padding."""
        cell = self.defect.unit_cell if self.unit is None else self.unit
        return cell_graph(self.potential, cell)

    def under(self, far: ArrayLike) -> "Side":
        """The same with a far field, before the complete lattice is asked for."""
        return dataclasses.replace(self, far=far, unit=self.cell, made=self.crystal)

    def again(self) -> "Side":
        """The same with nothing computed yet but graphs of cells and how their atoms follow."""
        return dataclasses.replace(self, made=None, internal=self.crystal.internal)

    @functools.cached_property
    def crystal(self) -> CauchyBorn:
        """The Cauchy-Born energy of the crystal."""
        if self.made is not None:
            return self.made
        return cauchy_born(self.potential, self.defect, self.cell, self.internal)

    @functools.cached_property
    def orders(self) -> Orders:
        """The forces of the complete lattice under the far field, by order."""
        return lattice_orders(self.potential, self.lattice, self.far)

    @functools.cached_property
    def lattice(self) -> Graph:
        """The complete lattice."""
        far = np.broadcast_to(self.far, (self.defect.reference.n_atoms, 3))
        n_atoms = max(bucket(len(far)), len(self.at.graph.positions))  # the shape of the defect's
        return lattice_graph(self.potential, self.defect.reference, far, n_atoms)

    @functools.cached_property
    def formation_energy(self) -> float:
        """E_f, eV, at the geometry; NaN, with a warning, where a reservoir is missing.

        The perfect crystal is the complete lattice in the same supercell, not the unit cell: what a
        calculator makes of a cell's size (sampling in k, a cutoff of plane waves) then cancels.
        """
        if why := undefined(self.defect, self.reservoirs):
            warnings.warn(why, stacklevel=2)
            return math.nan
        lattice = observe(self.potential, self.lattice, ("energy", "forces"))  # compiled already
        per_atom = float(lattice.energy) / self.defect.reference.n_atoms
        reservoir = lambda structure: float(energy_per_atom(self.potential, structure))  # noqa: E731
        mu = chemical_potentials(reservoir, self.defect, self.reservoirs)
        return formation_energy(float(self.labels.energy), self.defect, per_atom, mu)

    @property
    def forces(self) -> jax.Array:
        """The forces at the geometry, (n_sites, 3) eV/Å."""
        return self.defect.on_sites(np.asarray(self.labels.forces)[: self.defect.structure.n_atoms])

    def force_constants(self) -> ForceConstants:
        """Of the homogeneous lattice, on the cells of the defect."""
        repeats = self.defect.lattice.repeats
        cell = self.defect.unit_cell
        return force_constants(self.potential, cell, repeats, graph=self.lattice)


def force_residual(
    reference: Potential,
    surrogate: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    reservoirs: Mapping[str, Structure] | None = None,
) -> tuple[jax.Array, float]:
    """The errors of a surrogate's forces and formation energy at the reference's geometry.

        f = F̂(ubar) - F(ubar)

    The reference's own forces, small at its minimiser, are taken out, so that what is left of a
    relaxation does not count.

    Args:
        reference: graph -> site energies (n,), eV.
        surrogate: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å.
        reservoirs: by symbol, a structure of that element, whose energy per atom each potential
            computes; see `defects.formation` for which are needed.

    Returns:
        f, (n_sites, 3) eV/Å, and the error of E_f at that geometry, eV; NaN, with a warning that
        names it, where a reservoir is missing.

    Raises:
        ValueError, TypeError: as `energy_at`; a reservoir of another element.
    """
    pair = (reference, surrogate)
    theirs, ours = (Side(p, defect, displacement, reservoirs=reservoirs) for p in pair)
    return residual_of(theirs, ours)


def residual_of(theirs: Side, ours: Side) -> tuple[jax.Array, float]:
    """`force_residual` of two sides whose graphs are there.

    Args:
        theirs: of the reference.
        ours: of the surrogate.

    Returns:
        f, (n_sites, 3) eV/Å, and the error of E_f, eV.
    """
    forces = np.asarray(ours.forces) - np.asarray(theirs.forces)
    return jax.device_put(forces), ours.formation_energy - theirs.formation_energy


def split_residual(
    reference: Potential,
    surrogate: Potential,
    defect: Defect,
    displacement: ArrayLike,
    radius: float,
    *,
    model: CauchyBorn | None = None,
    reservoirs: Mapping[str, Structure] | None = None,
) -> Residual:
    """The force residual by its causes, an exact partition.

    - elastic: first order, by the elastic constants
    - internal_strain: first order, by how the sublattices of a multilattice follow a strain, which
      no stress shows; zero where all atoms are centres of symmetry
    - force_constants: the rest of first order
    - third_elastic: second order, by elastic constants of third order; third: the rest of it
    - remainder: higher orders of the homogeneous lattice
    - core: all else, that is what the lattice outside `radius` does not account for

    Args:
        reference: graph -> site energies (n,), eV.
        surrogate: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å.
        radius: L, Å.
        model: `cauchy_born_mismatch`; None: made here.
        reservoirs: as in `force_residual`.

    Returns:
        Residual.

    Raises:
        ValueError: as `far_field` for the radius.
    """
    theirs, ours = (
        Side(p, defect, displacement, reservoirs=reservoirs) for p in (reference, surrogate)
    )
    model = mismatch_of(theirs, ours) if model is None else model
    w = far_field(defect, displacement, radius, model.followed)
    return partition(theirs.under(w), ours.under(w), model, w, radius)


def mismatch_of(theirs: Side, ours: Side) -> CauchyBorn:
    """`cauchy_born_mismatch` of two sides.

    Args:
        theirs: of the reference.
        ours: of the surrogate.

    Returns:
        The Cauchy-Born energy of the surrogate less that of the reference.
    """
    return less(ours.crystal, theirs.crystal)


def partition(theirs: Side, ours: Side, model: CauchyBorn, w: jax.Array, radius: float) -> Residual:
    """`split_residual` of two sides whose graphs are there.

    Args:
        theirs: of the reference.
        ours: of the surrogate.
        model: `mismatch_of` the two.
        w: (n_regular, 3) Å, of `far_field`, which both are `under`.
        radius: L, Å.

    Returns:
        Residual.
    """
    forces, energy = residual_of(theirs, ours)
    lattice = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), ours.orders, theirs.orders)
    elastic, third_elastic = (np.asarray(f) for f in model.forces(w))
    internal = np.asarray(model.internal_forces(w))
    linear, quadratic, rest = (float(e) for e in lattice.energies)
    low, high = (float(e) for e in model.energies(w))
    shifts = -0.5 * float(np.vdot(internal, w))
    pieces = {
        "elastic": elastic,
        "internal_strain": internal,
        "force_constants": lattice.first - elastic - internal,
        "third_elastic": third_elastic,
        "third": lattice.second - third_elastic,
        "remainder": lattice.rest,
    }
    energies = {
        "elastic": low,
        "internal_strain": shifts,
        "force_constants": linear - low - shifts,
        "third_elastic": high,
        "third": quadratic - high,
        "remainder": rest,
    }
    pieces = {name: on_defect(ours.defect.lattice, piece) for name, piece in pieces.items()}
    rest = np.asarray(forces) - sum(np.asarray(piece) for piece in pieces.values())
    core = {"core": jax.device_put(rest)}, {"core": energy - sum(energies.values())}
    return Residual(forces, energy, core[0] | pieces, core[1] | energies, w, radius)


class Weights(NamedTuple):
    """Norms of the far field that the mismatches of each order are multiplied by, Å, Å^2, Å^3,
    on the complete lattice.

    In the norm of force constants the first is that of the far field, in eV^1/2, and the others are
    divided by c_L^(1/2), for ||f|| there is at most ||f||_{-1} / c_L^(1/2)."""

    linear: float  # ||Dw||, of elastic constants, internal strain and force constants
    quadratic: float  # (sum |Dw(l)|^4)^1/2, of third derivatives
    cubic: float  # (sum |Dw(l)|^6)^1/2, of fourth derivatives


def far_field_weights(defect: Defect, w: ArrayLike) -> Weights:
    """What the actual geometry makes of each mismatch; ~ L^(-d/2), L^(-3d/2), L^(-5d/2).

    Args:
        defect: where and on which lattice.
        w: (n_regular, 3) Å, of `far_field`.

    Returns:
        Weights.
    """
    table, w = np.asarray(defect.lattice.complete), np.asarray(w)
    squares = np.sum((w[table] - w[:, None, :]) ** 2, axis=(1, 2))
    plain = (float(np.sqrt(np.sum(squares**p))) for p in (1, 2, 3))
    if not isinstance(defect.lattice, EnergyLattice):
        return Weights(*plain)
    energy = math.sqrt(np.sum(far_field_spectrum(defect, w)))
    _, *higher = (x / math.sqrt(defect.lattice.least_stiffness) for x in plain)
    return Weights(energy, *higher)


def far_field_spectrum(defect: Defect, w: ArrayLike) -> np.ndarray:
    """The share of each wave vector in ||Dw||^2.

    Args:
        defect: where and on which lattice.
        w: (n_regular, 3) Å, of `far_field`.

    Returns:
        The shares, (m1, m2, m3) Å^2, which add up to ||Dw||^2; eV in the norm of force constants.
    """
    repeats, spectrum = defect.lattice.repeats, defect.lattice.vector_spectrum
    waves = np.fft.rfftn(np.asarray(w).reshape(*repeats, -1), axes=(0, 1, 2))
    # w(k) = sum_R w(R) exp(-i k . R), of which Phi(k) and K(k) are the multipliers: see `phonons`
    rotated = np.einsum("...ba,...b->...a", spectrum.modes.conj(), waves)
    half = np.sum(spectrum.stiffnesses * np.abs(rotated) ** 2, axis=-1)
    return on_all_waves(half, repeats) / math.prod(repeats)


def elastic_mismatch(model: CauchyBorn, defect: Defect) -> float:
    """What elastic constants get wrong: ||f_C||_{-1} <= e_C ||Dw||, sharp for long waves.

        e_C = max_k || K(k)^-1/2 A_C(k) K(k)^-1/2 ||,

    A_C the Hessian of the Cauchy-Born energy.

    Args:
        model: `cauchy_born_mismatch`.
        defect: where and on which lattice.

    Returns:
        e_C, eV/Å^2.

    Source: derived.
    """
    return float(_relative(_elastic_blocks(model, defect), defect).max())


def internal_strain_mismatch(model: CauchyBorn, defect: Defect) -> float:
    """What internal strain gets wrong: ||f_I||_{-1} <= e_I ||Dw||, sharp for long waves.

        e_I = max_k || K(k)^-1/2 A_I(k) K(k)^-1/2 ||,

    A_I(k) the linear map of `internal_forces`. Of elastic order: it does not fall for k -> 0.

    Args:
        model: `cauchy_born_mismatch`.
        defect: where and on which lattice.

    Returns:
        e_I, eV/Å^2; zero up to rounding where all atoms are centres of symmetry.

    Source: derived.
    """
    return float(_relative(_internal_blocks(model, defect), defect).max())


def force_constant_mismatch(
    theirs: ForceConstants, ours: ForceConstants, model: CauchyBorn, defect: Defect
) -> np.ndarray:
    """e_FC(k), what force constants get wrong besides elastic constants and internal strain.

        e_FC(k) = || K(k)^-1/2 (dPhi(k) - A_C(k) - A_I(k)) K(k)^-1/2 ||,

    so that ||f_FC||_{-1}^2 <= sum_k e_FC(k)^2 ||Dw||^2_k (`far_field_spectrum`). With one atom per
    cell it vanishes as |k|^2 for k -> 0. With more it tends to the mismatch of the optical modes,
    which has no part in the far field of the reference's equilibrium: shifts follow the strain
    there, and the *forces* of this piece fall as those of a crystal with one atom do where the
    crystal has a centre of inversion, by one power of |k| less elsewhere.

    Args:
        theirs, ours: of the reference and of the surrogate, on the defect's cells.
        model: `cauchy_born_mismatch` of the two.
        defect: where and on which lattice.

    Returns:
        e_FC, (m1, m2, m3) eV/Å^2.

    Source: derived.
    """
    change = np.asarray(ours.half_fourier()) - np.asarray(theirs.half_fourier())
    known = _elastic_blocks(model, defect) + _internal_blocks(model, defect)
    return _relative(change - known, defect)


def third_elastic_mismatch(model: CauchyBorn) -> float:
    """What third-order elastic constants get wrong: ||f_C3||_{-1} <= e_C3 (sum_l |Dw(l)|^4)^(1/2).

        e_C3 = V_0 / 2 * gamma^3 * || W_3 ||,   |Gw(l)| <= gamma |Dw(l)|,

    W_3 the third derivative of the Cauchy-Born density, ||W_3|| the spectral norm of its (9, 81)
    matrix, gamma^2 the largest eigenvalue of M^-1. Three inequalities are chained, each sharp alone
    (a gradient field, one that W_3 stretches most, one of long waves): see the head of this file
    for how far the product may be from the norm.

    Args:
        model: `cauchy_born_mismatch`, which has all that is needed.

    Returns:
        e_C3, eV/Å^3.

    Source: derived.
    """
    weights = np.asarray(model.gradient.weights)
    # |G w|^2 <= |Dw|^2 times the largest eigenvalue of sum_s (M^-1 rho)(M^-1 rho)^T = M^-1.
    inverse = np.einsum("lsi,lsj->lij", weights, weights)
    gamma = math.sqrt(float(np.linalg.eigvalsh(inverse).max()))
    spread = np.linalg.norm(_third_derivatives(model), ord=2)
    return 0.5 * model.site_volume * gamma**3 * float(spread)


def _third_derivatives(model: CauchyBorn) -> np.ndarray:
    """W_3, (9, 81), eV/Å^3."""
    lines, weights = polarisation(9, 3)
    cubes = 6.0 * model.densities(lines.reshape(-1, 3, 3))[:, 1]
    return (weights @ cubes).reshape(9, 81)


def kantorovich(eta: float, stability: float, lipschitz: float) -> float:
    """h = M eta / c^2, which is to be at most 1/2; above, no theorem says where the minimiser is.

    Args:
        eta: ||f||_{-1}, eV/Å.
        stability: c, eV/Å^2.
        lipschitz: M, eV/Å^3, an estimate where it comes from `response.lipschitz_estimate`.

    Returns:
        h; NaN where c <= 0.
    """
    return lipschitz * eta / stability**2 if stability > 0 else math.nan


def geometry_bound(eta: float, stability: float, lipschitz: float) -> float:
    """Kantorovich's bound of the geometry error.

        r = 2 / (1 + sqrt(1 - 2 h)) * eta / c,   h = M eta / c^2

    Args:
        eta: ||f||_{-1}, eV/Å.
        stability: c, eV/Å^2.
        lipschitz: M, eV/Å^3, an estimate where it comes from `response.lipschitz_estimate`.

    Returns:
        The bound, Å; NaN where h > 1/2 or c <= 0.

    Source: Kantorovich; Ortner and Wang use the factor 2.
    """
    h = kantorovich(eta, stability, lipschitz)
    return 2.0 / (1.0 + math.sqrt(1.0 - 2.0 * h)) * eta / stability if h <= 0.5 else math.nan


def relaxing_bound(eta: float, stability: float, lipschitz: float) -> float:
    """A bound of the energy that the surrogate gains by relaxing from the reference's geometry.

        0 <= Ê(ubar) - Ê(uhat) <= eta r - c r^2 / 2 + M r^3 / 6 = eta^2 / (2 c) (1 + h / 3 + ...),

    r of `geometry_bound`. Of second order in eta, as the gain itself is; reached by a cubic energy.

    Args:
        eta: ||f||_{-1}, eV/Å.
        stability: c, eV/Å^2.
        lipschitz: M, eV/Å^3, as in `geometry_bound`.

    Returns:
        The bound, eV; NaN where h > 1/2 or c <= 0.

    Source: derived. Within ||Dv|| <= r, Ê(ubar + v) is at least Ê(ubar) - eta s + c s^2 / 2
    - M s^3 / 6 with s = ||Dv||, which falls up to s = r; and Ê is convex there.
    """
    r = geometry_bound(eta, stability, lipschitz)
    return eta * r - 0.5 * stability * r**2 + lipschitz * r**3 / 6.0


def _elastic_blocks(model: CauchyBorn, defect: Defect) -> np.ndarray:
    """A_C(k) at the wave vectors of a real transform."""
    return _blocks(lambda v: -model.forces(v)[0], defect)


def _internal_blocks(model: CauchyBorn, defect: Defect) -> np.ndarray:
    """A_I(k) at the wave vectors of a real transform."""
    return _blocks(lambda v: -model.internal_forces(v), defect)


def _blocks(linear: Callable[[np.ndarray], np.ndarray], defect: Defect) -> np.ndarray:
    """The blocks of a map that commutes with translations, from its answer to single moves."""
    n, b = defect.reference.n_atoms, defect.unit_cell.n_atoms
    size = 3 * b
    impulses = np.zeros((size, n, 3))
    impulses[np.arange(size), np.repeat(range(b), 3), np.tile(range(3), b)] = 1.0
    columns = np.stack([linear(v) for v in impulses], axis=-1)
    return np.fft.rfftn(columns.reshape(*defect.lattice.repeats, size, size), axes=(0, 1, 2))


def _relative(blocks: np.ndarray, defect: Defect) -> np.ndarray:
    """|| T^H X T ||, T T^H = K^+, for each wave vector, (m1, m2, m3); translations left out."""
    wide = defect.lattice.vector_spectrum.roots
    half = np.linalg.norm(np.swapaxes(wide, -1, -2).conj() @ blocks @ wide, ord=2, axis=(-2, -1))
    return on_all_waves(half, defect.lattice.repeats)
