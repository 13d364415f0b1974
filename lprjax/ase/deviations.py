"""How far each atom's energy and force of a fit may be off: deviations from rigidities.

    energy of site i        1 / sqrt(LPR_i)
    force on atom i         (sum_a 1 / PR_ia)^(1/2)   over its components a

with PR of the fit's factor, where weighted residuals have variance one, or of a calibration's.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph, bucket, build_graph, neighbour_bucket
from lprjax.atoms.structures import Structure
from lprjax.models.files import SavedFit
from lprjax.regression.posterior import Calibration
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import design_rows

KINDS = ("energy", "forces")
"""What there are deviations of, and calibrations."""


def deviations_of(
    spec: ACESpec, structure: Structure, factors: Mapping[str, jax.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations of every site energy and every force of a structure.

    Args:
        spec: of the basis.
        structure: of n atoms.
        factors: by kind, R (K, K) of the fit, or of a calibration.

    Returns:
        (n,) eV and (n,) eV/Å; infinite for what the data leave open, zero for what depends on no
        coefficient.

    Raises:
        ValueError: as `build_graph`, and unknown species.
    """
    n = structure.n_atoms
    graph = build_graph(structure, spec.r_cut, n_atoms=min(bucket(n), neighbour_bucket(n)))
    return deviations_in(spec, graph, factors)


def deviations_in(
    spec: ACESpec, graph: Graph, factors: Mapping[str, jax.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a graph, for many structures in few shapes.

    Args:
        spec: of the basis.
        graph: of n atoms, without padding.
        factors: as in `deviations_of`.

    Returns:
        (n,) eV and (n,) eV/Å, as `deviations_of`.

    Raises:
        ValueError: unknown species.
    """
    n = int(np.count_nonzero(np.asarray(graph.atom_mask)))
    of_sites = np.asarray(
        local_prediction_rigidity(factors["energy"], np.asarray(site_basis(spec, graph))[:n])
    )
    rows = np.asarray(design_rows(spec, graph, ("forces",)).forces)[:n]
    of_forces = np.asarray(prediction_rigidity(factors["forces"], rows))
    with np.errstate(divide="ignore"):
        return 1.0 / np.sqrt(of_sites), np.sqrt(np.sum(1.0 / of_forces, axis=1))


def checked_factors(
    saved: SavedFit | None, wanted: bool, calibration: Mapping[str, Calibration] | None
) -> dict[str, jax.Array]:
    """The factor for each of KINDS, that of the fit where none is calibrated.

    Args:
        saved: the fit with its spec; None for another potential.
        wanted: whether there have to be deviations.
        calibration: by kind; None for none.

    Returns:
        kind -> R (K, K); empty without a fit.

    Raises:
        ValueError: deviations or a calibration without a fit, an unknown kind, or a factor of
            another size than the spec's.
    """
    if saved is None:
        if wanted or calibration:
            raise ValueError(
                "deviations or a calibration are given with a potential that has no factor: wanted "
                "an lp.Fit with its spec, or the file of one."
            )
        return {}
    calibration = calibration or {}
    if unknown := sorted(set(calibration) - set(KINDS)):
        raise ValueError(f"calibration has {unknown}: wanted some of {', '.join(KINDS)}.")
    found = {
        kind: calibration[kind].factor if kind in calibration else saved.fit.factor
        for kind in KINDS
    }
    for kind, factor in found.items():
        if factor.shape != (saved.spec.n_columns,) * 2:
            raise ValueError(
                f"factor of {kind} has shape {factor.shape}: wanted {saved.spec.n_columns} "
                "columns, those of the spec."
            )
    return found
