"""Two-sided enclosures of a surrogate's errors: a Newton step, then Kantorovich's bound from there.

The plain bound, 2 / (1 + sqrt(1 - 2 h)) * eta / c from the reference's geometry ubar, is as loose
as a soft defect is soft: eta / c takes all of the residual to act along the softest mode. But the
response x = H^+ f is known. From u = ubar + x, where the surrogate's minimiser uhat nearly is, the
same bound, of the forces that are left there, says how far uhat still is:

    r = 2 / (1 + sqrt(1 - 2 h1)) * eta1 / c1,    h1 = M eta1 / c1^2 <= 1/2
    ||D x|| - r  <=  ||D(uhat - ubar)||  <=  ||D x|| + r

    e1 - g  <=  error of E_f  <=  e1,    g = eta1 r - c1 r^2 / 2 + M r^3 / 6

with eta1, c1 of the surrogate at u, e1 = Ê_f(u) - E_f(ubar), and g what relaxing from u can gain.
eta1 is of second order in the error, so that the enclosure closes upon the truth as it falls.
Where it is wide still, or h1 above 1/2, another step is taken from u.

It holds for whatever x is. c1 is c - M ||D x|| where that is not far below c, which costs nothing,
and searched for elsewhere. Of the constants the bound needs M above the Lipschitz constant of the
Hessian between ubar and the ball ||D(v - u)|| <= r, and c1 not above the stability constant at u.
With `certify` they are those of `certified` and `lipschitz_bounds`, of u and of the ball
||D(v - u)|| <= 2 eta1 / c1, which r is within; `guaranteed` says whether they are proven, and
`why_not`.

Source: derived; the bound is Kantorovich's.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.defects.bounds import geometry_bound, kantorovich, relaxing_bound
from lprjax.defects.certified import certified_stability
from lprjax.defects.hessian import EnergyAt
from lprjax.defects.lipschitz_bounds import certified_lipschitz
from lprjax.defects.response import solve_at, stability_at
from lprjax.numerics.host import on_device
from lprjax.potentials.derivatives import site_energies_and_forces

STEPS = 3
"""Newton's steps that are taken at most: a choice; their errors are squared by each."""
NARROW = 0.05
"""Of ||D x||: an enclosure of this half-width is not narrowed by another step: a choice."""
HARDLY = 0.5
"""Of c: where c - M ||D x|| is less, c1 is searched for: a choice."""
MARGIN = 6.0
"""M over its estimate along the response: the supremum over directions was 3.4 to 5.9 times that in
59 cases of the W vacancy. A choice from a trial, no bound."""
ESTIMATED = (
    f"M is {MARGIN:g} times an estimate along one direction, and c a Ritz value, "
    "which is never below the constant"
)


class Enclosure(NamedTuple):
    """Where the errors of geometry and formation energy lie; NaN where nothing encloses them."""

    geometry: float  # ||D(u - ubar)||, Å, u where the steps end
    radius: float  # r, Å: the surrogate's minimiser is within r of u
    energy: float  # eV, Ê_f(u) - E_f(ubar), signed
    gain: float  # g, eV: relaxing from u gains no more
    steps: int  # that were taken
    stability: float  # c1, eV/Å^2
    kantorovich: float  # h1
    guaranteed: bool
    why_not: str  # empty where it is

    @property
    def geometry_range(self) -> tuple[float, float]:
        """(least, largest) ||D(uhat - ubar)||, Å."""
        low, high = self.geometry - self.radius, self.geometry + self.radius
        return math.nan if math.isnan(low) else max(low, 0.0), high

    @property
    def energy_range(self) -> tuple[float, float]:
        """(least, largest) error of the formation energy, eV, signed."""
        high = math.nan if math.isnan(self.gain) else self.energy
        return self.energy - self.gain, high


_NO = math.nan
NOWHERE = Enclosure(_NO, _NO, _NO, _NO, 0, _NO, _NO, False, "there is no response to step along")
"""Where there is no prediction to begin with."""


def enclosure_after_steps(
    at: EnergyAt,
    displacement: ArrayLike,
    step: ArrayLike,
    energy: float,
    constants: tuple[float, float],
    *,
    tolerance: float = 1e-3,
    certify: bool = False,
) -> Enclosure:
    """The enclosure of a surrogate's errors, from its energy around the reference's geometry.

    Args:
        at: the surrogate's energy around ubar.
        displacement: ubar, (n_sites, 3) Å.
        step: x, (n_sites, 3) Å, the response to the residual forces; not finite: there is none.
        energy: eV, error of E_f at ubar, signed.
        constants: c at ubar, eV/Å^2, and M, eV/Å^3.
        tolerance: of stability constants, relative to the largest curvature.
        certify: with constants on their safe side where the last step ends, proven where the
            surrogate is a pair or EAM potential and the cell small; it takes seconds to minutes.

    Returns:
        Enclosure, after as many steps as narrow it, up to STEPS; of NaN where there is no step.
    """
    ubar, found = np.asarray(displacement), NOWHERE
    moved, step = np.zeros_like(ubar), np.asarray(step)
    for count in range(1, STEPS + 1):
        if not np.isfinite(step).all():
            break
        moved = moved + step
        there = at.elsewhere(ubar + moved)
        forces, change = _difference(there, at)
        size = float(at.defect.lattice.strain_norm(on_device(moved)))
        found = _enclosed(there, forces, size, constants, tolerance)
        found = found._replace(energy=energy + change, steps=count)
        if found.radius <= NARROW * size or not found.stability > 0:
            break
        response = solve_at(there, forces)
        step = np.asarray(response.displacement) * (1.0 if response.converged else math.nan)
    if not certify or not found.steps:
        return found
    return _certified(there, forces, found)


def _difference(there: EnergyAt, at: EnergyAt) -> tuple[jax.Array, float]:
    """The forces there, (n_sites, 3) eV/Å, and the energy less that of before, eV."""
    here = site_energies_and_forces(there.potential, there.graph)
    before = site_energies_and_forces(at.potential, at.graph)
    change = np.sum(np.asarray(here.sites)) - np.sum(np.asarray(before.sites))
    return there.moves.on_sites(there.moves.project(here.forces)), float(change)


def _certified(there: EnergyAt, forces: jax.Array, found: Enclosure) -> Enclosure:
    """The same with constants on their safe side; where there is no stability, the same."""
    eta = float(there.defect.lattice.negative_norm(forces))
    stability = certified_stability(there)
    if not (stability.value > 0 and eta > 0):
        return found
    lipschitz = certified_lipschitz(there, 2.0 * eta / stability.value)
    constants = eta, stability.value, lipschitz.value
    return found._replace(
        radius=geometry_bound(*constants),
        gain=relaxing_bound(*constants),
        stability=stability.value,
        kantorovich=kantorovich(*constants),
        guaranteed=stability.guaranteed and lipschitz.guaranteed,
        why_not="; ".join(filter(None, (stability.why_not, lipschitz.why_not))),
    )


def _enclosed(
    there: EnergyAt,
    forces: jax.Array,
    size: float,
    constants: tuple[float, float],
    tolerance: float,
) -> Enclosure:
    """The enclosure from a place of which only the energy is not known here."""
    stability, lipschitz = constants
    eta = float(there.defect.lattice.negative_norm(forces))
    least = stability - lipschitz * size
    if not least >= HARDLY * stability > 0:
        least = float(stability_at(there, tolerance).constant)
    return NOWHERE._replace(
        geometry=size,
        radius=geometry_bound(eta, least, lipschitz),
        gain=relaxing_bound(eta, least, lipschitz),
        stability=least,
        kantorovich=kantorovich(eta, least, lipschitz),
        why_not=ESTIMATED,
    )
