"""The errors of a defect simulation to first order, from the reference's geometry alone.

    uhat - ubar = H^+ f + O(|f|^2),      f = F̂(ubar) - F(ubar)
    error of E_f = (error at ubar) - f . H^+ f / 2 + O(|f|^3)

ubar the reference's minimiser, f the forces that the surrogate leaves there and H the surrogate's
Hessian there. One solve; nothing is relaxed with the surrogate. Whether first order is enough it
does not tell: h = M eta / c^2 <= 1/2 does (`bounds.kantorovich`; `error_budget` flags what is
above), and beyond that a prediction may be far off.

Source: derived: it is Newton's first step, in the setting of Ortner and Wang, Multiscale Model.
Simul. 21 (2023) 1053.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.structures import Structure
from lprjax.defects.bounds import Side, residual_of
from lprjax.defects.defect import Defect
from lprjax.defects.hessian import EnergyAt
from lprjax.defects.response import Response, solve_at
from lprjax.numerics.checks import check_positive
from lprjax.numerics.host import on_device
from lprjax.potentials.potential import Potential


class FirstOrder(NamedTuple):
    """What first order predicts of a surrogate; look at `response.converged` first."""

    forces: jax.Array  # f, (n_sites, 3) eV/Å
    eta: float  # ||f||_{-1}, eV/Å
    response: Response  # H^+ f; its displacement is NaN where there is none
    geometry: float  # ||D H^+ f||, Å
    energy_at_reference: float  # eV, error of E_f at the reference's geometry, signed, or NaN
    energy: float  # eV, of the relaxed E_f, signed, or NaN


def first_order_error(
    reference: Potential,
    surrogate: Potential,
    defect: Defect,
    displacement: ArrayLike,
    *,
    reservoirs: Mapping[str, Structure] | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> FirstOrder:
    """The errors of a surrogate's relaxed defect, predicted to first order.

    Args:
        reference: graph -> site energies (n,), eV, with r_cut.
        surrogate: graph -> site energies (n,), eV, with r_cut.
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å, relaxed with the reference.
        reservoirs: by symbol, a structure of that element, whose energy per atom each potential
            computes; see `defects.formation` for which are needed.
        tolerance: of the solve, in the negative norm, relative to that of f.
        max_iterations: products with the Hessian allowed.

    Returns:
        FirstOrder. A geometry at which the surrogate's Hessian is not positive has no response:
        geometry and energy are NaN there, and where the solve did not converge. Where a reservoir
        is missing both energies are NaN, with a warning that names it.

    Raises:
        ValueError, TypeError: as `response.hessian_solve`; a reservoir of another element.
    """
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    pair = (reference, surrogate)
    theirs, ours = (Side(p, defect, displacement, reservoirs=reservoirs) for p in pair)
    return first_order_at(ours.at, *residual_of(theirs, ours), tolerance, max_iterations)


def first_order_at(
    at: EnergyAt,
    forces: jax.Array,
    energy: float,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
) -> FirstOrder:
    """`first_order_error` from residual forces and energy and a surrogate's energy made before.

    Args:
        at: the surrogate's energy around ubar.
        forces: f, (n_sites, 3) eV/Å.
        energy: eV, error of E_f at ubar.
        tolerance: of the solve, in the negative norm, relative to that of f.
        max_iterations: products with the Hessian allowed.

    Returns:
        FirstOrder, as `first_order_error`.
    """
    lattice, response = at.defect.lattice, solve_at(at, forces, tolerance, max_iterations)
    shift = (
        np.asarray(response.displacement) if response.converged else np.full(forces.shape, np.nan)
    )
    return FirstOrder(
        forces=forces,
        eta=float(lattice.negative_norm(forces)),
        response=response,
        geometry=float(lattice.strain_norm(on_device(shift))),
        energy_at_reference=energy,
        energy=energy - 0.5 * float(np.vdot(np.asarray(forces), shift)),
    )
