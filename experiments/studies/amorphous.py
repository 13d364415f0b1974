"""Fits to amorphous cells of which some have defects, and the rigidity of every atom held out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.systems.melt_quench import Cells, coordination
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import Factor, compress
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.rigidity import local_prediction_rigidity

SLOTS = 24  # neighbours of a graph: one shape for all cells
FOLDS = (3, 4, 5)
CLASSES = ("3-fold", "4-fold", "5-fold", "4-fold, pristine cell")
RIDGES = tuple(10.0**k for k in range(-16, -3))  # tried, 1/eV^2
TOLERATED = 1.02  # see `best_ridge`: a choice
Pair = tuple[np.ndarray, np.ndarray]
"""LPR (S, n) in 1/eV^2 of the atoms of the pristine and the defective cells held out."""


class Data(NamedTuple):
    """What is known of S cells of n atoms."""

    rows: np.ndarray  # (S, n, K) of the site energies
    energies: np.ndarray  # (S,) per atom, eV
    coordination: np.ndarray  # (S, n)


def data_of(spec: ACESpec, structures: Sequence[Structure]) -> Data:
    """Rows, energies and coordination of cells of equal size."""
    reference = stillinger_weber()
    graphs = [build_graph(s, spec.r_cut, n_neighbours=SLOTS) for s in structures]
    rows = [np.asarray(site_basis(spec, graph)) for graph in graphs]
    wide = [build_graph(s, reference.r_cut, n_neighbours=SLOTS) for s in structures]
    energies = [float(observe(reference, graph, ("energy",)).energy) for graph in wide]
    n = structures[0].n_atoms
    counts = [coordination(s) for s in structures]
    return Data(np.stack(rows)[:, :n], np.array(energies) / n, np.stack(counts))


def part(data: Data, chosen: slice) -> Data:
    """Some of the cells."""
    return Data(*(array[chosen] for array in data))


def joined(first: Data, second: Data) -> Data:
    """The cells of both."""
    return Data(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def energies_of(data: Data) -> dict[str, Factor]:
    """The factor of the energies per atom."""
    return {"energy": compress(data.rows.mean(axis=1), data.energies)}


def train(factors: Mapping, ridge: float, force_weight: float = 0.0) -> Fit:
    """A fit to energies per atom at weight 1/eV, with forces where their factors are.

    Args:
        factors: by kind.
        ridge: multiplies |c|^2.
        force_weight: of the forces; not read without their factors.

    Returns:
        the fit.
    """
    forces = {"forces": force_weight} if len(factors) > 1 else {}
    return fit(factors, {"energy": 1.0} | forces, ridge=ridge)


def error_of(found: Fit, data: Data) -> float:
    """The root mean square error of the energies, eV per atom."""
    residuals = data.rows.mean(axis=1) @ np.asarray(found.coefficients) - data.energies
    return float(np.sqrt(np.mean(residuals**2)))


def best_ridge(data: Data) -> float:
    """The largest of RIDGES that, for four fifths of the cells, is as good as any on the others.

    As good: an error at most TOLERATED times the least, for the error is flat over decades.

    Args:
        data: the training cells.

    Returns:
        the ridge.
    """
    cut = -max(1, len(data.energies) // 5)
    early, late = part(data, slice(None, cut)), part(data, slice(cut, None))
    factors = energies_of(early)
    errors = {ridge: error_of(train(factors, ridge), late) for ridge in RIDGES}
    return max(r for r, error in errors.items() if error <= TOLERATED * min(errors.values()))


class Study(NamedTuple):
    """What was trained, and the rigidities of all atoms of the cells held out."""

    training: int  # cells
    ridge: float
    structures: tuple[list[Structure], list[Structure]]  # held out: pristine, defective
    data: tuple[Data, Data]  # of the two
    errors: dict[int, tuple[float, float]]  # of the energies, eV per atom, by cells swapped
    rigidities: dict[int, Pair]  # by cells swapped
    with_forces: dict[int, Pair]  # the same, of fits to forces too
    other_ridges: dict[float, Pair]  # no cell swapped: how much hangs on the ridge


def study(
    spec: ACESpec,
    cells: Cells,
    *,
    training: int,
    held_out: int,
    swapped: Sequence[int],
    shown: int,
    force_weight: float,
) -> Study:
    """Train on the first pristine cells, with the last of them swapped for defective ones.

    Args:
        spec: the basis.
        cells: what came of the quenches.
        training: number of training cells, cut to what there is.
        held_out: cells of each kind that no fit sees.
        swapped: numbers of swapped cells, cut to what there is.
        shown: number of swapped cells of the fits with forces, cut to what there is.
        force_weight: of the fits with forces, none swapped and `shown`; 0 leaves them out.

    Returns:
        what was trained, and the rigidities of all atoms of the cells held out.

    Raises:
        ValueError: no cell of a kind would be left for training.
    """
    found = (len(cells.pristine), len(cells.defective))
    if min(found) <= held_out:
        raise ValueError(
            f"the quenches gave {found[0]} pristine and {found[1]} defective cells: wanted more "
            f"than the {held_out} of each that are held out; quench more cells."
        )
    training = min(training, found[0] - held_out)
    most = min(training, found[1] - held_out)
    shown = min(shown, most)
    swapped = sorted({min(m, most) for m in (0, *swapped, shown)})
    kept = (
        cells.pristine[: training + held_out],
        cells.defective[:most] + cells.defective[-held_out:],
    )
    pristine, defective = (data_of(spec, structures) for structures in kept)
    test = part(pristine, slice(training, None)), part(defective, slice(most, None))
    ridge = best_ridge(part(pristine, slice(training)))
    chosen = {
        m: energies_of(joined(part(pristine, slice(training - m)), part(defective, slice(m))))
        for m in swapped
    }
    fits = {m: train(factors, ridge) for m, factors in chosen.items()}
    with_forces = {}
    if force_weight:
        forces = force_factors(spec, kept, training, shown)
        with_forces = {m: train(chosen[m] | forces[m], ridge, force_weight) for m in forces}
    others = {other: train(chosen[0], other) for other in RIDGES[::3]}
    rigidities = [
        {key: tuple(lpr(f, data) for data in test) for key, f in some.items()}
        for some in (fits, with_forces, others)
    ]
    errors = {m: tuple(error_of(f, data) for data in test) for m, f in fits.items()}
    structures = kept[0][training:], kept[1][most:]
    return Study(training, ridge, structures, test, errors, *rigidities)


def lpr(found: Fit, data: Data) -> np.ndarray:
    """The rigidity of each atom's energy, (S, n), 1/eV^2."""
    return np.asarray(local_prediction_rigidity(found.factor, data.rows))


def force_factors(
    spec: ACESpec, kept: tuple[list[Structure], list[Structure]], training: int, shown: int
) -> dict[int, dict]:
    """The forces of both training sets: none swapped, and `shown`; what they share, once.

    Args:
        spec: the basis.
        kept: pristine and defective cells, training cells first.
        training: number of training cells.
        shown: number of swapped cells.

    Returns:
        factors by number of swapped cells.
    """
    reference = stillinger_weber()

    def compressed(structures):
        wide = (build_graph(s, reference.r_cut, n_neighbours=SLOTS) for s in structures)
        graphs = (build_graph(s, spec.r_cut, n_neighbours=SLOTS) for s in structures)
        samples = zip(graphs, (observe(reference, graph) for graph in wide), strict=True)
        return compress_structures(spec, samples, ("forces",))["forces"]

    shared = {("forces", "kept"): compressed(kept[0][: training - shown])}
    last = compressed(kept[0][training - shown : training])
    swapped = compressed(kept[1][:shown])
    return {0: shared | {("forces", "last"): last}, shown: shared | {("forces", "last"): swapped}}


def by_class(found: Study, rigidities: Pair) -> dict[str, np.ndarray]:
    """LPR of the atoms of each of CLASSES; the first three are of defective cells."""
    (clean, broken), (_, data) = rigidities, found.data
    folds = {f"{z}-fold": broken[data.coordination == z] for z in FOLDS}
    return folds | {CLASSES[-1]: clean.ravel()}


def quartiles(values: np.ndarray) -> list[float]:
    """25 %, 50 % and 75 % of the values; NaN where there are none."""
    return np.quantile(values, [0.25, 0.5, 0.75]).tolist() if values.size else [np.nan] * 3
