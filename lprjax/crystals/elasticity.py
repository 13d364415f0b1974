"""The homogeneous lattice: its equilibrium size and its elasticity, for any potential.

Both come from derivatives of the energy E = sum_i E_i alone, so any potential will do.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from ase import units
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Pbc, Structure
from lprjax.crystals.strain_derivatives import (
    gradient_and_hessian,
    shear_hessians,
    size_derivatives,
    third_derivatives,
)
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.numerics.host import namespace, on_device, on_host
from lprjax.potentials.potential import Potential, by_differences, graph_for

GPA_PER_EV_A3 = 1.0 / units.GPa  # an elastic constant in eV/Å^3 times this is in GPa
RUNAWAY = math.log(4.0 / 3.0)
"""Change of ln scale beyond which a crystal is taken to have no equilibrium nearby: a choice, a
third."""
LONGEST_STEP = 0.05
"""Newton step in ln scale: a choice, 5 %."""


class Equilibrium(NamedTuple):
    """A crystal at zero pressure; `converged` is False where Newton's method did not settle."""

    structure: Structure
    scale: float  # of the start: lattice constant = scale * that of the start
    energy_per_atom: float  # eV
    curvature: float  # d2E / d(ln scale)^2, eV of the cell; negative where unstable
    iterations: int  # Newton steps
    converged: bool


def equilibrium(
    potential: Potential,
    structure: Structure,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 50,
) -> Equilibrium:
    """The size at which a crystal is free of pressure, its shape and fractional positions kept.

    Root in s of dE/ds, E(s) the energy with positions and cell times exp(s), by Newton's method
    with at most 5 % per iteration, downhill where the curvature is negative; given up where the
    crystal has shrunk or grown by more than a third. A potential with noise (`by_differences`) has
    converged once a step is no larger than twice what the noise of its virial makes of one.

    Args:
        potential: graph -> site energies (n,), eV.
        structure: the start, some way from the equilibrium at most.
        tolerance: of the last Newton step in s, dimensionless.
        max_iterations: Newton steps allowed.

    Returns:
        Equilibrium. A search that fails raises nothing: `converged` is False.

    Raises:
        RuntimeError: float64 is off.
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
        ValueError: a cluster; as `graph_for`.
    """
    require_x64()
    check_periodic(structure.pbc)
    log_scale, step, iterations = 0.0, math.inf, 0
    while True:
        crystal = _scaled(structure, math.exp(log_scale))
        graph = graph_for(potential, crystal)
        energy, slope, curvature = map(float, np.asarray(size_derivatives(potential, graph)))
        lost = not (math.isfinite(slope) and abs(log_scale) < RUNAWAY)
        least = 2.0 * _size_noise(potential, graph) / max(abs(curvature), np.finfo(float).tiny)
        if abs(step) <= max(tolerance, least) or iterations == max_iterations or lost:
            break
        step = -slope / curvature if curvature > 0 else math.copysign(LONGEST_STEP, -slope)
        step = min(max(step, -LONGEST_STEP), LONGEST_STEP)
        log_scale, iterations = log_scale + step, iterations + 1
    return Equilibrium(
        structure=crystal,
        scale=math.exp(log_scale),
        energy_per_atom=energy / structure.n_atoms,
        curvature=curvature,
        iterations=iterations,
        converged=abs(step) <= max(tolerance, least) and curvature > 0 and not lost,
    )


def _size_noise(potential: Potential, graph: Graph) -> float:
    """Of dE/ds, the trace of the virial, eV; zero where derivatives are exact."""
    itself = by_differences(potential)
    return math.sqrt(3.0) * itself.noise(graph, strained=True).virial if itself else 0.0


def _scaled(structure: Structure, scale: float) -> Structure:
    positions, cell = (on_host(x) * scale for x in (structure.positions, structure.cell))
    return on_device(dataclasses.replace(structure, positions=positions, cell=cell))


class Elasticity(NamedTuple):
    """Second-order elasticity of a crystal, Voigt order xx, yy, zz, yz, xz, xy."""

    relaxed: jax.Array  # (6, 6) eV/Å^3, atoms follow the strain to their new equilibrium
    clamped: jax.Array  # (6, 6) eV/Å^3, fractional positions held
    stress: jax.Array  # (6,) eV/Å^3 of the unstrained crystal, positive in tension
    optical: jax.Array  # eigenvalues of the Hessian of the cell's atoms, eV/Å^2, no translations
    internal: jax.Array  # (n, 3, 6) Å, how the atoms follow a strain, of zero mean
    hessian: jax.Array  # (6 + 3 n, 6 + 3 n) eV, eV/Å, eV/Å^2, of E(eps, u)


def elastic_constants(potential: Potential, structure: Structure | Graph) -> Elasticity:
    """The elastic constants of a crystal by differentiation of its energy.

    With E(eps, u) the energy of a cell under x -> (I + eps)(x + u), eps symmetric with
    engineering shears (eps_yz = e_4 / 2, ...) and V its volume,

        C_clamped = E_ee / V,    C_relaxed = (E_ee - E_eu E_uu^+ E_ue) / V ,

    the Schur complement that lets the atoms of a multilattice settle (internal strain). The two
    agree where every atom is an inversion centre. With a residual stress these are the derivatives
    in eps as written, not those in the Lagrangian strain.

    Args:
        potential: graph -> site energies (n,), eV.
        structure: a crystal cell, best a small one (the cost is 6 + 3 n gradients), with no
            forces on its atoms; or its graph, see `cell_graph`.

    Returns:
        Elasticity; times GPA_PER_EV_A3 in GPa; differentiable in the potential. A crystal whose
        `optical` has an entry <= 0 is unstable against a shift of its sublattices: `relaxed` then
        means nothing.

    Raises:
        RuntimeError: float64 is off.
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
        ValueError: a graph with padding; as `build_graph`.

    Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954).
    """
    require_x64()
    graph = cell_graph(potential, structure)
    slope, hessian = gradient_and_hessian(potential, graph)
    volume = _volume(graph)
    values, settled = _internal_strain(hessian)
    found = Elasticity(
        relaxed=(hessian[:6, :6] + settled @ hessian[6:, :6]) / volume,
        clamped=hessian[:6, :6] / volume,
        stress=slope[:6] / volume,
        optical=values,
        internal=settled.T.reshape(-1, 3, 6),
        hessian=hessian,
    )
    return on_device(found)


def cell_graph(potential: Potential, cell: Structure | Graph) -> Graph:
    """The graph of a crystal cell without padding, on which its elasticity is computed.

    Args:
        potential: graph -> site energies (n,), eV.
        cell: the structure; or its graph, made before, which passes.

    Returns:
        The graph.

    Raises:
        TypeError: a potential without cutoff, and none given.
        ValueError: a graph with padding atoms, which have no place in a strain; a cluster, which
            has no volume; as `graph_for`.
    """
    n_atoms = None if isinstance(cell, Graph) else cell.n_atoms
    graph = graph_for(potential, cell, n_atoms=n_atoms)
    check_periodic(graph.pbc)
    if not np.asarray(graph.atom_mask).all():
        raise ValueError(
            f"the graph has {len(graph.positions)} places for fewer atoms: wanted one without "
            "padding; pass the structure, or build_graph(structure, r_cut, n_atoms=n)."
        )
    return graph


def check_periodic(pbc: Pbc) -> None:
    """Refuse a cluster, which has no volume and no waves.

    Args:
        pbc: along which of the cell vectors there is a period.

    Raises:
        ValueError: along none.
    """
    if not any(pbc):
        raise ValueError(
            f"pbc is {pbc}, a cluster: wanted a crystal, periodic in one direction at least."
        )


def _volume(graph: Graph) -> float:
    return float(abs(np.linalg.det(np.asarray(graph.cell))))


def _internal_strain(hessian):
    """Eigenvalues of E_uu without the translations, and du/de = -E_eu E_uu^+, (6, 3 n).

    By a solve and not by the modes, which have no derivative where eigenvalues coincide.
    """
    n, xp = len(hessian) // 3 - 2, namespace(hessian)
    if n == 1:
        return np.zeros(0), np.zeros((6, 3))
    complement = np.linalg.qr(np.concatenate([np.ones((n, 1)), np.eye(n)[:, 1:]], axis=1))[0]
    basis = np.kron(complement[:, 1:], np.eye(3))  # orthonormal, of displacements of zero mean
    optical = basis.T @ hessian[6:, 6:] @ basis
    coupling = basis.T @ hessian[6:, :6]
    try:
        settled = xp.linalg.solve(optical, coupling)
    except np.linalg.LinAlgError:  # NumPy refuses what is singular, where JAX has no finite number
        settled = np.full(coupling.shape, np.nan)
    if xp is np and not np.isfinite(optical).all():
        return np.full(len(optical), np.nan), -(basis @ settled).T
    return xp.linalg.eigvalsh(optical), -(basis @ settled).T


class ThirdOrderElasticity(NamedTuple):
    """Brugger's third-order elastic constants, Voigt order xx, yy, zz, yz, xz, xy."""

    relaxed: np.ndarray  # (6, 6, 6) eV/Å^3, atoms follow the strain to their new equilibrium
    clamped: np.ndarray  # (6, 6, 6) eV/Å^3, fractional positions held


def third_order_constants(
    potential: Potential, structure: Structure | Graph, *, internal: ArrayLike | None = None
) -> ThirdOrderElasticity:
    """The third-order elastic constants of a crystal by differentiation of its energy.

    With E(eta, u) the energy of a cell of volume V under x -> F (x + u), F = (I + 2 eta)^(1/2),
    eta the Lagrangian strain with engineering shears (eta_yz = eta_4 / 2, ...),

        C_IJK = 1/V  d3E(eta, u*(eta)) / d eta_I d eta_J d eta_K ,   E_u(eta, u*(eta)) = 0 .

    As E is stationary in u, the first-order u_I = -E_uu^+ E_uI is all that is needed (the 2n + 1
    theorem): C_IJK is the third derivative of E along (e_I, u_I), (e_J, u_J), (e_K, u_K); clamped,
    u = 0.

    Args:
        potential: graph -> site energies (n,), eV, three times differentiable.
        structure: a crystal cell, best a small one, with no forces on its atoms, or its graph;
            with a residual stress the constants are those about the stressed state.
        internal: (n, 3, 6) Å, as `elastic_constants` returned it of this cell; None: found here.

    Returns:
        ThirdOrderElasticity; times GPA_PER_EV_A3 in GPa. See `elastic_constants` for a crystal
        unstable against a shift of its sublattices.

    Raises:
        RuntimeError, TypeError, ValueError: as `elastic_constants`.

    Source: Brugger, Phys. Rev. 133 (1964) A1611; relaxed: derived.
    """
    require_x64()
    graph = cell_graph(potential, structure)
    n = len(graph.positions)
    alone = n == 1  # an atom without others to shift against
    if internal is None and not alone:
        internal = _internal_strain(gradient_and_hessian(potential, graph)[1])[1].T
    held = np.zeros((3 * n, 6))
    clamped = third_order_along(potential, graph, held)
    relaxed = clamped if alone else third_order_along(potential, graph, np.asarray(internal))
    return ThirdOrderElasticity(relaxed=relaxed, clamped=clamped)


def third_order_along(potential: Potential, graph: Graph, internal: ArrayLike) -> np.ndarray:
    """C_IJK of atoms that follow a strain in one way: either half of `third_order_constants`.

    Args:
        potential: graph -> site energies (n,), eV, three times differentiable.
        graph: of a crystal cell, see `cell_graph`.
        internal: (n, 3, 6) Å, how the atoms follow; zeros: clamped.

    Returns:
        (6, 6, 6) eV/Å^3.
    """
    follow = np.asarray(internal).reshape(-1, 6).T
    return np.asarray(third_derivatives(potential, graph, follow)) / _volume(graph)


def acoustic_tensors(
    potential: Potential,
    structure: Structure,
    directions: ArrayLike | Sequence[Sequence[float]] = ((1, 0, 0), (1, 1, 0), (1, 1, 1)),
) -> jax.Array:
    """The acoustic (Christoffel) tensor of a Bravais lattice along some directions.

        Q(k) = 1/V d2E / db db   under   x -> (I + b k^T) x,   |k| = 1

    the limit k -> 0 of the force constants, Q(k) = -1/(2V) sum_R Phi(R) (k . R)^2, and so all of
    the elasticity that small displacements of the lattice depend on. Without stress
    Q = C_iajb k_a k_b; with a residual stress Q and C differ by it, and two potentials are better
    compared by Q.

    Args:
        potential: graph -> site energies (n,), eV.
        structure: one atom per cell.
        directions: (n, 3), Cartesian, of any length.

    Returns:
        The tensors, (n, 3, 3) eV/Å^3, differentiable in the potential.

    Raises:
        RuntimeError: float64 is off.
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
        ValueError: more than one atom in the cell; directions that are not finite, or of length
            zero.

    Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 27.
    """
    require_x64()
    if structure.n_atoms != 1:
        raise ValueError(
            f"the cell has {structure.n_atoms} atoms: wanted one; pass a primitive cell of a "
            "Bravais lattice (primitive=True)."
        )
    k = finite_array("directions", directions, (None, 3), "no unit")
    if not np.linalg.norm(k, axis=1).all():
        raise ValueError(f"directions are {k.tolist()}: wanted vectors of a length above zero.")
    k = k / np.linalg.norm(k, axis=1, keepdims=True)
    hessians = shear_hessians(potential, cell_graph(potential, structure), k)
    return on_device(hessians / float(structure.volume))
