"""How far predictions of a fit may be off: rigidities in units of the residuals that it left.

With the weights of a fit, residuals have a variance of one in the theory; in truth they have

    s^2 = sum_k w_k^2 n_k rms_k^2 / (n - K),   n = sum_k n_k observations of weight > 0,

so that 1/PR is s^2 times smaller than the variance of a prediction. Residuals of cells that were
not fitted say it better, one kind at a time: see `regression.calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lprjax.ace.basis import site_basis
from lprjax.ase.deviations import KINDS, checked_factors, deviations_in
from lprjax.atoms.graphs import build_graphs
from lprjax.atoms.structures import Labels, Structure
from lprjax.commands.errors import predictions
from lprjax.models.files import SavedFit
from lprjax.regression.fitting import Fit
from lprjax.regression.posterior import Calibration, calibrate
from lprjax.regression.rigidity import local_prediction_rigidity
from lprjax.regression.rows import vanishing
from lprjax.regression.samples import stacked, stacked_rows

_MOST_ROWS = 5000  # that a calibration takes: a choice, its cost grows with them


class Known(NamedTuple):
    """What a fit knows of the atoms of one structure."""

    lpr: np.ndarray  # (n,), 1/eV^2, in the weights of the fit
    energy: np.ndarray  # (n,), eV, standard deviation of the site energy
    forces: np.ndarray  # (n,), eV/Å, root mean square deviation of the force vector


def residual_scale(fit: Fit) -> float:
    """How many times larger residuals are than their weights say, s.

    Args:
        fit: with the residuals of each kind.

    Returns:
        s, dimensionless.
    """
    squares, n = 0.0, 0
    for key, weight in fit.weights.items():
        if weight > 0 and fit.n_rows[key]:
            squares += weight**2 * fit.n_rows[key] * fit.rms[key] ** 2
            n += fit.n_rows[key]
    return math.sqrt(squares / max(n - fit.rank, 1))


def calibrated(
    saved: SavedFit, samples: Sequence[tuple[Structure, Labels]]
) -> dict[str, Calibration]:
    """Calibrations of energies (per atom) and forces by residuals of labelled cells.

    Args:
        saved: the fit.
        samples: structures with labels, which should not have been fitted.

    Returns:
        By kind, "energy" and "forces", as far as there are two labels or more.

    Raises:
        ValueError: as `calibrate`; no labels of either kind.
    """
    structures = [structure for structure, _ in samples]
    graphs = build_graphs(structures, saved.spec.r_cut, shapes=3)
    predicted = predictions(saved.potential(), structures, KINDS)
    rows: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    residuals: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    triples = list(zip(samples, graphs, predicted, strict=True))
    for (structure, labels), graph, ours in tqdm(triples, desc="calibration", delay=5):
        found = stacked_rows(saved.spec, graph, labels, KINDS, per_atom=("energy",))
        n = structure.n_atoms
        for kind, (x, y) in found.items():
            rows[kind].append(x)
            mine = np.asarray(stacked(kind, getattr(ours, kind), n))
            residuals[kind].append(mine / (n if kind == "energy" else 1) - y)
    calibrations = {}
    for kind, parts in rows.items():
        if sum(map(len, parts)) >= 2:
            x, r = np.concatenate(parts), np.concatenate(residuals[kind])
            kept = np.flatnonzero(~np.asarray(vanishing(x)))
            kept = kept[:: -(-len(kept) // _MOST_ROWS)]
            prior = saved.fit.prior
            calibrations[kind] = calibrate(saved.fit.factor, x[kept], r[kept], prior=prior)
    if not calibrations:
        raise ValueError("the cells of the calibration have fewer than two labels: wanted more.")
    return calibrations


def known_of(
    saved: SavedFit,
    structures: Sequence[Structure],
    calibrations: dict[str, Calibration] | None = None,
) -> list[Known]:
    """Rigidities and deviations of every atom.

        energy: s / sqrt(LPR_i);   forces: s sqrt(sum over x, y, z of 1/PR)

    Args:
        saved: the fit.
        structures: of any sizes.
        calibrations: by kind; where there is one its variance takes the place of s^2 / PR.

    Returns:
        What is known of each structure's atoms.

    Raises:
        ValueError: as `build_graphs`, and what the basis does not describe.
    """
    calibrations, found = calibrations or {}, []
    factors = checked_factors(saved, True, calibrations)
    scale = {k: 1.0 if k in calibrations else residual_scale(saved.fit) for k in factors}
    graphs = build_graphs(structures, saved.spec.r_cut, shapes=3)
    for graph in tqdm(graphs, desc="rigidities", unit=" cells", delay=5):
        energy, forces = deviations_in(saved.spec, graph, factors)
        sites = np.asarray(site_basis(saved.spec, graph))[: len(energy)]
        lpr = np.asarray(local_prediction_rigidity(saved.fit.factor, sites))
        found.append(Known(lpr, scale["energy"] * energy, scale["forces"] * forces))
    return found
