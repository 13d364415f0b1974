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

import jax
import numpy as np
from tqdm import tqdm

from lprjax.ace.basis import site_basis
from lprjax.atoms.graphs import Graph, build_graphs
from lprjax.atoms.structures import Labels, Structure
from lprjax.models.files import SavedFit
from lprjax.regression.fitting import Fit
from lprjax.regression.posterior import Calibration, calibrate
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.rows import design_rows, vanishing
from lprjax.regression.samples import stacked_rows

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
    graphs = build_graphs([structure for structure, _ in samples], saved.spec.r_cut, shapes=3)
    rows: dict[str, list[np.ndarray]] = {"energy": [], "forces": []}
    residuals: dict[str, list[np.ndarray]] = {"energy": [], "forces": []}
    e0 = {z: float(e) for z, e in zip(saved.spec.numbers, _origin(saved), strict=True)}
    pairs = list(zip(samples, graphs, strict=True))
    for (structure, labels), graph in tqdm(pairs, desc="calibration", delay=5):
        found = stacked_rows(saved.spec, graph, labels, ("energy", "forces"), per_atom=("energy",))
        shift = {"energy": np.mean([e0[z] for z in np.asarray(structure.species).tolist()])}
        for kind, (x, y) in found.items():
            rows[kind].append(x)
            residuals[kind].append(
                x @ np.asarray(saved.fit.coefficients) + shift.get(kind, 0.0) - y
            )
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


def _origin(saved: SavedFit) -> np.ndarray:
    return np.asarray(saved.potential().reference_energies)


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
    scale, found = residual_scale(saved.fit), []
    factors = {kind: (scale, saved.fit.factor) for kind in ("energy", "forces")}
    factors |= {kind: (1.0, c.factor) for kind, c in (calibrations or {}).items()}
    graphs = build_graphs(structures, saved.spec.r_cut, shapes=3)
    pairs = list(zip(structures, graphs, strict=True))
    for structure, graph in tqdm(pairs, desc="rigidities", unit=" cells", delay=5):
        found.append(_known(saved, graph, structure.n_atoms, factors))
    return found


def _known(
    saved: SavedFit, graph: Graph, n: int, factors: dict[str, tuple[float, jax.Array]]
) -> Known:
    sites = np.asarray(site_basis(saved.spec, graph))[:n]
    lpr = np.asarray(prediction_rigidity(saved.fit.factor, sites))
    scale, factor = factors["energy"]
    own = lpr if factor is saved.fit.factor else np.asarray(prediction_rigidity(factor, sites))
    rows = design_rows(saved.spec, graph, ("forces",)).forces
    scale_f, factor_f = factors["forces"]
    of_forces = prediction_rigidity(factor_f, np.asarray(rows)[:n].reshape(3 * n, -1))
    with np.errstate(divide="ignore"):
        energy = scale / np.sqrt(own)
        variances = 1.0 / np.asarray(of_forces).reshape(n, 3)
    return Known(lpr, energy, scale_f * np.sqrt(variances.sum(axis=1)))
