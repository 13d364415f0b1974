"""Where first-order theory puts the weights of the loss, from the training cells alone.

Relative to forces f at the reference's geometry ubar in the negative norm. In d = 3,
|D ubar(l)| = c_u r^-3 with c_u in Å^4. With n = 1 / V_0 atoms per Å^3 and a strain norm
K(k) -> M k^2, M in Å^2, mismatches of elastic constants, dC, and of the force constants of one
atom, dPhi (Frobenius norm), leave beyond the training radius L

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

The last gives the error e_E of the formation energy the same share of the loss as the force
residual eta (eV/Å) when e_E is what the geometry does to the energy, f . H^+ f / 2 (eV), both as
some first fit leaves them in the training cell. No weight is recommended for the energy of the
bulk: energies are fitted with it subtracted.

Source: derived, in the setting of Ortner, Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure
from lprjax.crystals.strain_norm import reference_lattice, two_shells
from lprjax.defects.defect import Defect, decay_profile
from lprjax.defects.quadratic_forms import PredictedError
from lprjax.numerics.checks import check_positive


class WeightConstants(NamedTuple):
    """What the formulas at the top of this file need of a lattice and of a defect in it."""

    decay: float  # c_u, Å^4
    density: float  # n, 1/Å^3
    moment: float  # M, Å^2
    reach: float  # mu, Å^4
    softness: float  # g, dimensionless
    tail: float  # ||Du||_{>L}, Å
    bend: float  # ||Lap Du||_{>L}, 1/Å


class RecommendedWeights(NamedTuple):
    """Weights of residuals, each over that of a force component."""

    virial: float  # 1/Å, of one of six components
    force_constants: float  # Å, of one entry between one atom and all others
    energy: float  # 1/Å, of the defect-minus-bulk energy; NaN without a first fit


def weight_constants(
    defect: Defect, displacement: ArrayLike, radius: float, r_cut: float
) -> WeightConstants:
    """What the recommended weights need, from the reference's relaxed defect in a training cell.

    Args:
        defect: of the training cell.
        displacement: ubar, (n_sites, 3) Å, relaxed with the reference.
        radius: L, Å, up to where the cell counts as training data.
        r_cut: of the basis, Å.

    Returns:
        WeightConstants.

    Raises:
        ValueError: a crystal with more than one atom in its primitive cell, where the formulas do
            not hold; a radius or cutoff that is not positive.
    """
    check_positive(radius=radius, r_cut=r_cut)
    cell = defect.unit_cell
    check_bravais(cell)
    decay = decay_constant(defect, displacement, radius)
    density = cell.n_atoms / float(cell.volume)
    lattice = reference_lattice(cell, defect.lattice.repeats)
    one = jax.device_put(np.eye(lattice.n_sites, 1))
    return WeightConstants(
        decay=decay,
        density=density,
        moment=float(np.sum(_bonds(cell, two_shells(cell)) ** 2) / 3),
        reach=float(np.sqrt(np.mean(np.sum(_bonds(cell, r_cut) ** 2, 1) ** 4) / 9)),
        softness=float(np.asarray(lattice.solve(one))[0, 0]),
        tail=decay * np.sqrt(4 * np.pi * density / 3) * radius**-1.5,
        bend=6 * decay * np.sqrt(4 * np.pi * density / 7) * radius**-3.5,
    )


def check_bravais(cell: Structure) -> None:
    """Refuse a crystal unless every atom of its cell has the same surroundings.

    Args:
        cell: of the crystal, primitive or conventional.

    Raises:
        ValueError: two atoms are of different species, or have different neighbours in the first
            two shells.
    """
    shell = two_shells(cell)
    first, *others = (_bonds(cell, shell, atom) for atom in range(cell.n_atoms))
    one_species = len(np.unique(np.asarray(cell.species))) == 1
    if not one_species or not all(_same_vectors(first, bonds) for bonds in others):
        raise ValueError(
            "the crystal is no Bravais lattice, for which alone the recommended weights were "
            "derived: wanted one whose atoms all have the same neighbours, such as bcc or fcc."
        )


def _same_vectors(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    apart = np.linalg.norm(a[:, None] - b[None, :], axis=-1).min(axis=1)
    return bool(np.all(apart < 1e-6 * np.linalg.norm(a, axis=1).max()))


def decay_constant(defect: Defect, displacement: ArrayLike, radius: float) -> float:
    """c_u: the median of |D ubar(l)| r^3 over the shells inside a radius.

    Args:
        defect: where and on which lattice.
        displacement: ubar, (n_sites, 3) Å.
        radius: Å.

    Returns:
        c_u, Å^4.

    Raises:
        ValueError: a radius without an atom inside.
    """
    profile = decay_profile(defect, displacement)
    inside = (profile.distances > 0) & (profile.distances <= radius)
    if not inside.any():
        raise ValueError(
            f"radius is {radius} Å, and no atom is so near to the defect: wanted one beyond its "
            f"first neighbours, at {profile.distances[profile.distances > 0].min():.2f} Å."
        )
    return float(np.median((profile.strains * profile.distances**3)[inside]))


def _bonds(cell: Structure, radius: float, atom: int = 0) -> np.ndarray:
    """(bonds, 3), Å, from one atom of the cell."""
    graph = build_graph(cell, radius)
    vectors = np.asarray(graph.vectors())[atom][np.asarray(graph.edge_mask)[atom]]
    return vectors[np.linalg.norm(vectors, axis=1) < radius]


def recommended_weights(
    constants: WeightConstants,
    *,
    defect_cells: int,
    strained_cells: int,
    strained_volume: float,
    strain: float,
    first_fit: PredictedError | None = None,
) -> RecommendedWeights:
    """The weights that give every term of the error the share of the loss that core forces have.

    Args:
        constants: of `weight_constants`.
        defect_cells: n_f, how many defect cells are fitted.
        strained_cells: n_v, how many bulk cells have virials.
        strained_volume: V, Å^3, of one of them.
        strain: s, the largest of its components, which are uniform in +-s.
        first_fit: `predicted_error` of some first fit in the training cell; without it no weight
            of the energy is recommended.

    Returns:
        RecommendedWeights, relative to a force component's.

    Raises:
        ValueError: numbers that are not positive.

    Source: derived; the formulas are at the top of this file.
    """
    check_positive(
        defect_cells=defect_cells,
        strained_cells=strained_cells,
        strained_volume=strained_volume,
        strain=strain,
    )
    c = constants
    per_force = np.sqrt(defect_cells / c.softness)
    virial = c.tail / (c.density * c.moment) / (strained_volume * strain)
    energy = np.nan
    if first_fit is not None:
        energy = 2 * float(first_fit.eta) / (float(first_fit.work) * np.sqrt(c.softness))
    return RecommendedWeights(
        virial=float(per_force * virial / np.sqrt(strained_cells / 3)),
        force_constants=float(per_force * c.reach / (24 * c.moment) * c.bend),
        energy=float(energy),
    )
