"""The forces that a surrogate gets wrong at a defect, from its training cells: no reference call.

Training cells round a defect are rattled copies of its relaxed geometry in a small cell. Site by
site, each carries the residual of the forces that matters, at the defect, beside what the rattle
adds. Of copies rattled by s_k (root mean square, Å) the residual at rest is the intercept of

    r_k(l) = r(l) + s_k^2 b(l) + (of mean zero, growing as s_k),

weighted by 1 / s_k. Set into the simulated cell it is f, an estimate of what the reference's
forces differ by at the surrogate's minimiser uhat, and H^+ f one of ubar - uhat: what `audits`
asks the reference for. Where no training cell reaches it says zero; far-field terms are not in it.

Source: derived.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.structures import Labels, Structure, inscribed_diameter, minimum_image
from lprjax.defects.defect import Defect, check_defect
from lprjax.defects.hessian import energy_at
from lprjax.defects.response import solve_at
from lprjax.numerics.checks import check_positive
from lprjax.numerics.host import on_device
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential, graph_for

SAME_SITE = 0.1
"""Å; sites of two cells that are this near relative to the centre are one: a choice, well below a
bond and above the rounding of homes."""


class TransferredError(NamedTuple):
    """Errors as the training cells tell; NaN where there is no response."""

    geometry: float  # ||D H^+ f||, Å, of ubar - uhat
    energy: float  # eV, error of E_f, signed
    forces: jax.Array  # f, (n_sites, 3) eV/Å, zero where no training cell reaches
    eta: float  # ||f||_{-1}, eV/Å
    doubt: float  # ||D H^+ z||, Å, root mean square over draws z of the standard error of f


def residual_at_rest(rattles: ArrayLike, residuals: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The intercept of residuals over squared rattles, and its standard error.

        min_{r, b} sum_k |r_k - r - s_k^2 b|^2 / s_k^2

    Args:
        rattles: s_k, (n,) Å, root mean square displacements of the copies.
        residuals: r_k, (n, ...), each an observation of every copy.

    Returns:
        r, (...), and its standard error, both in the unit of the residuals.

    Raises:
        ValueError: fewer than three copies; a rattle that is not positive.
    """
    s, r = np.asarray(rattles, float), np.asarray(residuals, float)
    if s.ndim != 1 or len(s) < 3 or len(r) != len(s) or not (s > 0).all():
        raise ValueError(
            f"rattles have shape {s.shape}, residuals {r.shape}: wanted three copies at least, all "
            "of them rattled; the residual of a cell at rest is what it is."
        )
    flat = r.reshape(len(s), -1) / s[:, None]
    columns, triangle = np.linalg.qr(np.stack([1.0 / s, s], axis=1))
    found = np.linalg.solve(triangle, columns.T @ flat)
    rest = np.linalg.norm(flat - columns @ (columns.T @ flat), axis=0) / math.sqrt(len(s) - 2)
    spread = np.linalg.norm(np.linalg.solve(triangle, np.eye(2))[0])
    return found[0].reshape(r.shape[1:]), (spread * rest).reshape(r.shape[1:])


def set_into(values: ArrayLike, small: Defect, defect: Defect) -> jax.Array:
    """Values over the sites of a small cell, at the same sites about the core of a larger one.

    Sites on the sphere inside the small cell and beyond are zero: they are as near to an image.

    Args:
        values: (n_small, c), over the sites of the small cell.
        small: the defect in the small cell.
        defect: the same defect in the larger one.

    Returns:
        (n_sites, c).

    Raises:
        ValueError: other numbers of extra sites.
    """
    extra = [d.lattice.n_sites - d.reference.n_atoms for d in (small, defect)]
    if extra[0] != extra[1]:
        raise ValueError(
            f"the cells have {extra[0]} and {extra[1]} extra sites: wanted the same defect in both."
        )
    offsets = [np.asarray(d.homes) - np.asarray(d.centre) for d in (small, defect)]
    near, lengths = minimum_image(offsets[0], small.reference)
    reach = 0.5 * inscribed_diameter(small.reference) - SAME_SITE
    inside = np.flatnonzero(lengths < reach)
    large = minimum_image(offsets[1], defect.reference)[0]
    found = np.zeros((defect.lattice.n_sites, np.shape(values)[1]))
    for site in inside:
        distances = np.linalg.norm(large - near[site], axis=1)
        if distances[nearest := int(np.argmin(distances))] < SAME_SITE:
            found[nearest] = np.asarray(values)[site]
    return on_device(found)


def transferred_error(
    surrogate: Potential,
    defect: Defect,
    displacement: ArrayLike,
    small: Defect,
    cells: Iterable[tuple[Structure, Labels]],
    *,
    bulk: tuple[float, float] | None = None,
    draws: int = 4,
) -> TransferredError:
    """The errors of a surrogate's relaxed defect, from what it leaves in its training cells.

        ubar - uhat ~ H^+ f,    error of E_f ~ -(energy residual at rest) + f . H^+ f / 2

    f the residual at rest of the training cells' forces, labels less surrogate, and the energy
    residual that of E - N e.

    Args:
        surrogate: graph -> site energies (n,), eV, with r_cut.
        defect: where it is simulated.
        displacement: uhat, (n_sites, 3) Å, relaxed with the surrogate.
        small: the same defect in the training cells' supercell, its atoms in their order.
        cells: rattled copies with energies and forces, three at least.
        bulk: energies per atom of the perfect crystal, of surrogate and reference, eV; None: the
            energy is NaN.
        draws: of the standard error, for `doubt`.

    Returns:
        TransferredError.

    Raises:
        ValueError: as `residual_at_rest` and `set_into`; cells of another number of atoms, or
            without energy or forces; no draws.
    """
    check_defect(defect)
    check_defect(small)
    check_positive(draws=draws)
    rattles, forces, energies = _residuals(surrogate, small, cells, bulk)
    rest, error = residual_at_rest(rattles, forces)
    at = energy_at(surrogate, defect, displacement)
    set_in = lambda v: np.asarray(set_into(small.on_sites(v), small, defect))  # noqa: E731
    f, rng = set_in(rest), np.random.default_rng(0)
    response = solve_at(at, f)
    x = np.asarray(response.displacement) * (1.0 if response.converged else math.nan)
    norm = lambda v: float(defect.lattice.strain_norm(on_device(v)))  # noqa: E731
    noise = [
        norm(np.asarray(solve_at(at, set_in(error * rng.normal(size=error.shape))).displacement))
        for _ in range(draws)
    ]
    of_energy = -float(residual_at_rest(rattles, energies)[0])
    return TransferredError(
        norm(x),
        of_energy + 0.5 * float(np.vdot(f, x)),
        on_device(f),
        float(defect.lattice.negative_norm(on_device(f))),
        math.sqrt(np.mean(np.square(noise))),
    )


def _residuals(
    surrogate: Potential,
    small: Defect,
    cells: Iterable[tuple[Structure, Labels]],
    bulk: tuple[float, float] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rattles (k,) Å, residuals of forces (k, n, 3) eV/Å and of E - N e (k,) eV, labels less
    surrogate."""
    ours, theirs = (math.nan, math.nan) if bulk is None else bulk
    positions, forces, energies = [], [], []
    n = small.structure.n_atoms
    for structure, labels in cells:
        if structure.n_atoms != n:
            raise ValueError(f"a cell has {structure.n_atoms} atoms: wanted {n}, of the defect.")
        if labels.energy is None or labels.forces is None:
            raise ValueError("a cell has no energy or no forces: wanted both of each.")
        found = observe(surrogate, graph_for(surrogate, structure), ("energy", "forces"))
        moves = np.asarray(structure.positions) - np.asarray(small.structure.positions)
        positions.append(minimum_image(moves, small.reference)[0])
        forces.append(np.asarray(labels.forces)[:n] - np.asarray(found.forces)[:n])
        energies.append(float(labels.energy) - float(found.energy) - n * (theirs - ours))
    moves = np.array(positions) - np.mean(positions, axis=0)
    rattles = np.sqrt(np.mean(np.sum(moves**2, axis=2), axis=1))
    return rattles, np.array(forces), np.array(energies)
