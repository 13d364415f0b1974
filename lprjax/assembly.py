"""Assembly: the rows and labels of a group of structures, compressed as they come.

Rows are never held beyond a block, and weights are no part of it: one factor per kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ase.data import chemical_symbols

from lprjax.ace import isolated_energies
from lprjax.design import design_rows
from lprjax.factors import Factor, empty, extend
from lprjax.neighbours import Graph
from lprjax.observables import checked_kinds, observe
from lprjax.predictions import coefficients_of
from lprjax.spec import ACESpec
from lprjax.structures import Labels


def stacked(kind: str, value: jax.Array, n_atoms: int) -> np.ndarray:
    """One observable of a structure as a stack of scalar rows, (r,) for labels, (r, C) for rows.

    energy: r = 1; forces: 3 n_atoms; virial: 6, in Voigt order xx, yy, zz, yz, xz, xy (the mean of
    the two off-diagonal components); force_constants: 9 n_a n_atoms. Padding atoms are left out.
    """
    value = np.asarray(value)
    if kind == "energy":
        return value[None]
    if kind == "virial":
        a, b = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
        return 0.5 * (value[a, b] + value[b, a])
    atoms_first = value if kind == "forces" else value[:, :, :n_atoms]
    kept = atoms_first[:n_atoms] if kind == "forces" else atoms_first
    leading = 2 if kind == "forces" else 4
    return kept.reshape(-1, *value.shape[leading:])


class PerAtom(NamedTuple):
    """An energy per atom, of the basis and of the labels: the perfect crystal's, say."""

    row: np.ndarray  # (C,)
    energy: float  # eV


def compress_structures(
    model,
    samples: Iterable[tuple[Graph, Labels]],
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
    reference_energies: Mapping[str, float] | None = None,
    origin: PerAtom | None = None,
) -> dict[str, Factor]:
    """One factor per kind of a group of structures; rows never pile up beyond a block.

    model: an ACESpec; or a trainable potential (see `predictions`), whose rows are the Jacobians at
    its coefficients c0, and what it says already is subtracted from the targets: a fit is then the
    Gauss-Newton step from c0, and its factor the generalised Gauss-Newton Hessian's.
    samples: graphs with their labels (of the real atoms, or padded as the graph). Targets are
    total energies less the isolated atoms' (eV), forces (eV/Å), the six virials (eV), force
    constants (eV/Å^2) of the displaced `atoms`. Graphs that share a shape compile once.
    origin: subtracted N times from every energy and its row (N atoms), so that the energies are
    defect-minus-bulk differences; it replaces reference_energies.
    Raises ValueError, naming the structure, for labels that are missing, of the wrong shape or not
    finite, for no samples at all, for an element without a reference energy, and for reference
    energies beside a potential, which has its own.
    """
    kinds = checked_kinds(kinds)
    shift_row, shifts = _shift(model, reference_energies, origin)
    n_columns = len(shift_row)
    factors = {kind: empty(n_columns) for kind in kinds}
    pending: dict[str, list] = {kind: [] for kind in kinds}
    number = -1
    for number, (graph, labels) in enumerate(samples):
        n = int(np.sum(np.asarray(graph.atom_mask)))
        targets = {k: checked_label(k, labels, graph, len(atoms), number) for k in kinds}
        rows = design_rows(model, graph, kinds, atoms=atoms)
        said = None if isinstance(model, ACESpec) else observe(model, graph, kinds, atoms=atoms)
        for kind in kinds:
            x, y = stacked(kind, getattr(rows, kind), n), stacked(kind, targets[kind], n)
            if said is not None:
                y = y - stacked(kind, getattr(said, kind), n)
            if kind == "energy":
                x, y = x - n * shift_row, y - np.sum(shifts[np.asarray(graph.species)])
            pending[kind].append((x, y))
            if sum(len(y) for _, y in pending[kind]) > 4 * n_columns:
                factors[kind] = _flush(factors[kind], pending[kind])
    if number < 0:
        raise ValueError("no structures arrived; wanted at least one (graph, labels) pair")
    return {kind: _flush(factors[kind], pending[kind]) for kind in kinds}


def _shift(model, reference_energies, origin: PerAtom | None) -> tuple[np.ndarray, np.ndarray]:
    """What each atom takes from its structure's row (C,) and energy (eV, by atomic number)."""
    energies = np.zeros(len(chemical_symbols))
    if isinstance(model, ACESpec):
        n_columns = model.n_columns
        energies[list(model.numbers)] = isolated_energies(model, reference_energies)
    else:
        n_columns = coefficients_of(model).size
        if reference_energies is not None:
            raise ValueError("reference_energies arrived beside a potential, which has its own")
    if origin is None:
        return np.zeros(n_columns), energies
    energies[1:] = origin.energy
    return origin.row, energies


def _flush(factor: Factor, pending: list) -> Factor:
    """Fold the collected rows into the factor and forget them."""
    if pending:
        rows, targets = (np.concatenate(part) for part in zip(*pending, strict=True))
        factor = extend(factor, rows, targets)
        pending.clear()
    return factor


def checked_label(
    kind: str, labels: Labels, graph: Graph, n_displaced: int, number: int
) -> np.ndarray:
    """The label of one kind of structure `number`, of its real atoms or padded as the graph.

    Raises ValueError, naming the structure, where it is missing, of the wrong shape or not finite.
    """
    value = getattr(labels, kind)
    if value is None:
        raise ValueError(
            f"structure {number} has no label {kind!r}; leave the kind out or label the structure"
        )
    value = np.asarray(value, float)
    sizes = {len(graph.positions), int(np.sum(np.asarray(graph.atom_mask)))}
    shapes = {
        "energy": {()},
        "forces": {(n, 3) for n in sizes},
        "virial": {(3, 3)},
        "force_constants": {(n_displaced, 3, n, 3) for n in sizes},
    }[kind]
    if value.shape not in shapes:
        raise ValueError(
            f"{kind} of structure {number} have shape {value.shape}; wanted {min(shapes)}"
        )
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{kind} of structure {number} hold NaN or infinity; leave it out")
    return value
