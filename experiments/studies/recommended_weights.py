"""Where first-order theory puts the weights of the loss, from the training cells alone.

Relative to forces f at the reference's geometry ubar in the negative norm (after Ortner-Wang;
derived). In d = 3, |D ubar(l)| = c_u r^-3 with c_u in Å^4. With n = 1 / V_0 atoms per Å^3 and a
strain norm K(k) -> M k^2, M in Å^2, mismatches of elastic constants, dC, and of the force constants
of one atom, dPhi (Frobenius norm), leave beyond the training radius L

    ||f_C||_{-1}  = |dC| V_0 / M          ||Du||_{>L}    = |dC| V_0 / M c_u (4 pi n / 3)^1/2 L^-3/2
    ||f_FC||_{-1} = |dPhi| mu / (24 M)    ||Lap Du||_{>L} = ...       6 c_u (4 pi n / 7)^1/2 L^-7/2

mu^2 = mean of (k . R)^8, |k| = 1, over the atoms within the cutoff of the basis (Å^8): fourth order
of Phi(k) for a dPhi that is equally likely everywhere (the second order is elastic; the third
vanishes in a lattice of inversion centres). What the rows of the fit measure instead, in l2:

    forces: n_f cells, each with the force residual f, n_f |f|^2; and ||f||_{-1}^2 = g |f|^2 for
        white f, g = tr K^+ / N (no unit). So 1 in the negative norm is W_F (n_f / g)^1/2
    virials: n_v cells of volume V (Å^3), strains uniform in +-s: n_v (V s)^2 / 3 |dC|^2
    force constants: |dPhi|^2 as it is

and so, all weights in 1 / (unit of the row),

    W_V / W_F  = (n_f / g)^1/2 (V_0 / M) ||Du||_{>L} / (V s (n_v / 3)^1/2)
    W_FC / W_F = (n_f / g)^1/2 mu / (24 M) ||Lap Du||_{>L}
    W_E / W_F  = 2 eta / (f . H^+ f g^1/2)

The last makes the error e_E of the formation energy as dear as the force residual eta (eV/Å) when
e_E is what the geometry does to the energy, f . H^+ f / 2 (eV), both as the fit with the configured
weights leaves them in the training cell. No weight is recommended for the energy of the bulk: the
energies fitted have it subtracted.
"""

from collections.abc import Hashable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.studies import defect_fits
from experiments.studies.defect_fits import reference_simulation, training_factors, weighted_fit
from experiments.studies.predicted_error import error_forms, predicted
from lprjax.atoms.graphs import build_graph
from lprjax.crystals.strain_norm import reference_lattice, two_shells
from lprjax.defects.defect import decay_profile


class Constants(NamedTuple):
    """What the formulas above need."""

    decay: float  # c_u, Å^4
    density: float  # n, 1/Å^3
    moment: float  # M, Å^2
    reach: float  # mu, Å^4
    softness: float  # g
    tail: float  # ||Du||_{>L}, Å
    bend: float  # ||Lap Du||_{>L}, 1/Å


def constants(config: defect_fits.Config, m: int) -> Constants:
    """Of the lattice and of the reference's defect in a training cell of m cubes per side.

    Raises ValueError for a crystal with more than one atom in its primitive cell.
    """
    if config.crystal.primitive_cell.n_atoms != 1:
        raise ValueError(
            f"{config.material} is no Bravais lattice, for which alone the recommended weights "
            "were derived: choose a bcc or fcc metal"
        )
    cell, radius = config.crystal.unit_cell, config.radius(m)
    decay, density = decay_constant(config, m), cell.n_atoms / float(cell.volume)
    lattice = reference_lattice(cell, (m,) * 3)
    one = jnp.zeros((lattice.n_sites, 1)).at[0].set(1.0)
    return Constants(
        decay=decay,
        density=density,
        moment=float(np.sum(_bonds(cell, two_shells(cell)) ** 2) / 3),
        reach=float(np.sqrt(np.mean(np.sum(_bonds(cell, config.spec.r_cut) ** 2, 1) ** 4) / 9)),
        softness=float(lattice.solve(one)[0, 0]),
        tail=decay * np.sqrt(4 * np.pi * density / 3) * radius**-1.5,
        bend=6 * decay * np.sqrt(4 * np.pi * density / 7) * radius**-3.5,
    )


def decay_constant(config: defect_fits.Config, m: int) -> float:
    """c_u in Å^4: the median of |D ubar(l)| r^3 over the shells inside the training radius."""
    defect, displacement, *_ = reference_simulation(config, m)
    profile = decay_profile(defect, displacement)
    inside = (profile.distances > 0) & (profile.distances <= config.radius(m))
    return float(np.median((profile.strains * profile.distances**3)[inside]))


def _bonds(cell, radius) -> np.ndarray:
    """(bonds, 3) Å, from the first atom of the cell."""
    graph = build_graph(cell, radius)
    vectors = np.asarray(graph.vectors())[0][np.asarray(graph.edge_mask)[0]]
    return vectors[np.linalg.norm(vectors, axis=1) < radius]


def recommended(config: defect_fits.Config, m: int) -> dict[Hashable, float]:
    """Factor of `training_factors` -> weight over that of the forces, for cells of m cubes.

    Raises as `constants`.
    """
    found = constants(config, m)
    per_force = np.sqrt(config.copies / found.softness)
    volume, cells = float(config.crystal.unit_cell.volume), config.strained_cells
    fit = weighted_fit(config, training_factors(config, m))
    there = predicted(error_forms(config, m), fit.coefficients)
    ratios = {
        "virial": per_force
        * (found.tail / (found.density * found.moment))
        / (volume * config.strain * np.sqrt(cells / 3)),
        "force_constants": per_force * found.reach / (24 * found.moment) * found.bend,
        ("energy", "bulk"): 0.0,
        ("energy", "defect"): 2 * there.eta / (there.work * np.sqrt(found.softness)),
    }
    return {key: float(ratio) for key, ratio in ratios.items()}
