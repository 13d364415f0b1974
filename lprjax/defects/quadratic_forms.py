"""The errors of a linear potential's defect simulation, as quadratic forms in its coefficients.

    f = X c - F                            forces that the coefficients c leave at ubar
    ||D(uhat - ubar)|| = ||D H^+ f||       geometry error, Å
    eta = (f . K^+ f)^(1/2)                negative norm of the forces, eV/Å
    E_f error = row . c - E_f - f . H^+ f / 2

to first order, ubar the reference's geometry and F what forces its relaxation left there, X the
force rows of the basis. H is the *reference's* Hessian at ubar: the surrogate's own differs by as
much as the forces do, which changes the geometry to second order only. H does not depend on c, so
all three are quadratic forms, made once by one solve with H per basis function; after that the
predicted error of any weights of the loss costs products with K-by-K triangles and can be
differentiated.

>>> forms = error_forms(spec, reference, defect, displacement)
>>> geometry = lambda coefficients: predicted_error(forms, coefficients).geometry  # Å
>>> jax.grad(geometry)(fit.coefficients).shape == fit.coefficients.shape
True

What it takes from the reference is its geometry, its Hessian and its formation energy in that cell,
and nothing else.

Source: derived.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.ace.basis import core_of
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure
from lprjax.defects.bounds import Side
from lprjax.defects.defect import Defect
from lprjax.defects.formation import chemical_potentials, formation_energy, undefined
from lprjax.defects.hessian import EnergyAt
from lprjax.numerics.checks import as_float64, check_positive
from lprjax.numerics.krylov import solve
from lprjax.potentials.potential import Potential
from lprjax.regression.factors import Factor, compress
from lprjax.regression.rows import design_rows


class ErrorForms(NamedTuple):
    """Squared errors |R c - t|^2 + residual of coefficients c, in one cell of one defect."""

    geometry: Factor  # ||D H^+ f||^2, Å^2
    negative: Factor  # eta^2, (eV/Å)^2
    work: Factor  # f . H^+ f, eV
    energy_row: jax.Array  # (K,), of the formation energy at ubar; NaN without a reservoir
    energy: float  # eV, the reference's formation energy less the core's; likewise
    converged: bool  # every solve with H; H is positive on the forces


class PredictedError(NamedTuple):
    """Predicted errors of one set of coefficients."""

    geometry: jax.Array  # (), Å
    energy: jax.Array  # (), eV, of the formation energy, signed
    eta: jax.Array  # (), eV/Å
    work: jax.Array  # (), eV, f . H^+ f; half of it is what relaxing gains


def predicted_error(forms: ErrorForms, coefficients: ArrayLike) -> PredictedError:
    """The first-order errors of a linear potential; pure, and differentiable away from zero.

        geometry, eta: (|R c - t|^2 + residual)^(1/2),   energy: row . c - E_f - work / 2

    Args:
        forms: of `error_forms`.
        coefficients: c, (K,), eV; may be traced.

    Returns:
        PredictedError. May be jitted, vmapped and differentiated: with `regression.solution` the
        predicted error of a fit is a differentiable function of the weights of its loss.
    """
    coefficients = jnp.asarray(coefficients)

    def square(factor):
        inside = factor.triangular @ coefficients - factor.target
        return jnp.sum(inside**2) + factor.residual

    work = square(forms.work)
    return PredictedError(
        geometry=jnp.sqrt(square(forms.geometry)),
        energy=forms.energy_row @ coefficients - forms.energy - 0.5 * work,
        eta=jnp.sqrt(square(forms.negative)),
        work=work,
    )


def error_forms(
    spec: ACESpec,
    reference: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    reservoirs: Mapping[str, Structure] | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> ErrorForms:
    """The error of every linear potential of a basis in one cell of one defect, in one go.

    Args:
        spec: the basis, of K functions.
        reference: graph -> site energies (n,), eV, with r_cut.
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å, relaxed with the reference; forces that are left there
            are taken into account.
        reservoirs: by symbol, a structure of that element, whose energy per atom each potential
            computes; see `defects.formation` for which are needed.
        tolerance: of the K solves with H, in the negative norm.
        max_iterations: products with H allowed in each.

    Returns:
        ErrorForms; look at `converged`. Where a reservoir is missing the energies are NaN, with a
        warning that names it.

    Raises:
        ValueError: as `build_graph` and `design_rows`; numbers that are not positive; a reservoir
            of another element.
        TypeError: a basis that is no ACESpec; a displacement that is not float64; a potential
            without cutoff, or neither a pytree nor hashable.
    """
    if not isinstance(spec, ACESpec):
        raise TypeError(
            f"spec is a {type(spec).__name__}: wanted an ACESpec, of a linear potential its .spec."
        )
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    displacement = as_float64("displacements", displacement)
    side = Side(reference, defect, displacement, reservoirs=reservoirs)
    n = defect.structure.n_atoms
    graph = build_graph(defect.displaced(displacement), spec.r_cut)
    rows: Any = design_rows(spec, graph, ("energy", "forces"))
    left, energy = np.asarray(side.at.forces())[:n], side.formation_energy
    if (core := core_of(spec)) is not None:  # what a potential on the basis has besides X c
        fixed = dataclasses.replace(side, potential=core)
        left, energy = left - np.asarray(fixed.at.forces())[:n], energy - fixed.formation_energy
    of_basis = np.asarray(rows.forces)[:n].reshape(3 * n, -1)
    basis, triangle = _orthonormal(of_basis, left.reshape(-1))
    columns = basis.T.reshape(-1, n, 3)
    grams, solved = _grams(side.at, columns, tolerance, max_iterations)
    geometry, negative, work = (_factor(gram, triangle) for gram in grams)
    return ErrorForms(
        geometry=geometry,
        negative=negative,
        work=work,
        energy_row=jnp.asarray(_formation_row(spec, rows.energy, defect, reservoirs)),
        energy=energy,
        converged=solved,
    )


def _formation_row(
    spec: ACESpec,
    energy_row: jax.Array,
    defect: Defect,
    reservoirs: Mapping[str, Structure] | None,
) -> np.ndarray:
    """The row (K,) of E_f, from that of the defect's energy; NaN where a reservoir is missing."""
    if undefined(defect, reservoirs):
        return np.full(spec.n_columns, np.nan)

    def per_atom(structure: Structure) -> np.ndarray:
        rows: Any = design_rows(spec, build_graph(structure, spec.r_cut), ("energy",))
        return np.asarray(rows.energy) / structure.n_atoms

    mu = chemical_potentials(per_atom, defect, reservoirs)
    return formation_energy(np.asarray(energy_row), defect, per_atom(defect.unit_cell), mu)


def _orthonormal(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q (3 n, q) and R (q, K + 1) with Q R = [X | F], so that f = Q R [c; -1].

    The forces of good coefficients are small where the columns of X are large. What a solve with a
    column of Q gets wrong is small relative to f itself; a solve with one of X would be wrong
    relative to X.
    """
    return np.linalg.qr(np.concatenate([rows, targets[:, None]], axis=1))


def _factor(gram: np.ndarray, triangle: np.ndarray) -> Factor:
    """y^T G y = |R c - t|^2 + residual, for y = triangle [c; -1] and G semidefinite."""
    values, modes = np.linalg.eigh(0.5 * (gram + gram.T))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * modes.T
    rows = root @ triangle
    return compress(rows[:, :-1], rows[:, -1])


def _grams(
    at: EnergyAt, forces: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[tuple[np.ndarray, ...], bool]:
    """Of many f (q, n, 3): (D H^+ f . D H^+ g), (f . K^+ g), (f . H^+ g), each (q, q), and whether
    all solves with H went well."""
    moves, n = at.moves, at.defect.structure.n_atoms
    padded = np.pad(forces, ((0, 0), (0, len(moves.moving) - n), (0, 0)))
    pushes = [moves.project(f) for f in padded]
    found = [solve(at.product, moves, f, tolerance, max_iterations) for f in pushes]
    flat = lambda vectors: np.stack(vectors)[:, :n].reshape(len(forces), -1)  # noqa: E731
    shifts, along = flat([each.solution for each in found]), flat(list(padded))
    strained = flat([moves.metric(each.solution) for each in found])
    by_lattice = flat([moves.precondition(f) for f in pushes])
    grams = shifts @ strained.T, along @ by_lattice.T, along @ shifts.T
    return grams, all(bool(each.converged) for each in found)
