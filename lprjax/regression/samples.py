"""Samples: a structure with its labels, checked, and each observable as a stack of scalar rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.ace.potential import isolated_energies
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Labels, label_shapes
from lprjax.atoms.voigt import six_components
from lprjax.numerics.checks import as_float64
from lprjax.potentials.observables import checked_kinds
from lprjax.potentials.potential import Potential
from lprjax.regression.rows import design_rows


def stacked(kind: str, value: ArrayLike, n_atoms: int) -> np.ndarray | jax.Array:
    """One observable of a structure, or its rows, as a stack of scalar rows.

    energy: r = 1. forces: r = 3 n_atoms. virial: r = 6, in Voigt order xx, yy, zz, yz, xz, xy (the
    mean of the two off-diagonal components). force_constants: r = 9 n_a n_atoms for n_a displaced
    atoms, ordered by the atom whose force changes. Padding atoms come last and are left out.

    Args:
        kind: of the observable, see `observables.observe`.
        value: as `observe` or `design_rows` returns it; rows have one more axis, C, at the end.
        n_atoms: how many atoms to keep.

    Returns:
        (r,) of an observable, (r, C) of rows, in the unit of the value. A NumPy array, or a traced
        one of a traced value.

    Raises:
        ValueError: an unknown kind.
    """
    checked_kinds(kind)
    array: Any = value if isinstance(value, Tracer) else np.asarray(value)
    if kind == "energy":
        return array[None]
    if kind == "virial":
        return six_components(array)
    leading = 2
    if kind == "force_constants":
        array, leading = array.swapaxes(0, 2), 4
    return array[:n_atoms].reshape(-1, *array.shape[leading:])


def stacked_rows(
    model: ACESpec | Potential,
    graph: Graph,
    labels: Labels,
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
    per_atom: Sequence[str] = (),
    reference_energies: Mapping[str, float] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The rows and labels of one structure, a scalar each: for rigidities, calibration, choice.

    Args:
        model: as in `design_rows`.
        graph: of the structure.
        labels: of its real atoms, or padded as the graph.
        kinds: as in `compress_structures`.
        atoms: those displaced for the force constants; other kinds ignore it.
        per_atom: as in `compress_structures`.
        reference_energies: as in `compress_structures`, taken from the energy.

    Returns:
        kind -> rows (r, C) and labels (r,), in the order of `stacked`; of the kinds that the
        structure has labels of.

    Raises:
        ValueError: as `design_rows`; labels of the wrong shape or not finite.
        TypeError, RuntimeError: as `design_rows`.
    """
    kinds, shared = checked_kinds(kinds), checked_per_atom(per_atom)
    kinds = tuple(kind for kind in kinds if getattr(labels, kind) is not None)
    references = references_by_number(model, reference_energies)
    rows = design_rows(model, graph, kinds, atoms=atoms)._asdict() if kinds else {}
    n = int(np.sum(np.asarray(graph.atom_mask)))
    found = {}
    for kind in kinds:
        share = 1.0 / n if kind in shared else 1.0
        y = checked_label(kind, labels, graph, len(atoms), 0)
        x, y = (share * np.asarray(stacked(kind, both, n)) for both in (rows[kind], y))
        if kind == "energy":
            y = share * counted_energy(labels.energy, graph.species, references)
        found[kind] = x, y
    return found


def checked_per_atom(kinds: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds that are divided by the number of atoms, after checking them.

    Raises:
        ValueError: others than energy and virial, which alone grow with a cell.
    """
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not set(wanted) <= {"energy", "virial"}:
        raise ValueError(
            f"per_atom is {kinds!r}: wanted 'energy', 'virial' or both, as forces and force "
            "constants are of atoms already; leave the others out."
        )
    return wanted


def checked_sample(sample: Any, kinds: Sequence[str], number: int) -> tuple[Graph, Labels]:
    """A structure with its labels, after checking that it has one of the kinds at least.

    Args:
        sample: (Graph, Labels).
        kinds: see `observables.observe`.
        number: of the structure, for the message.

    Returns:
        The pair.

    Raises:
        TypeError: anything but a pair of the two.
        ValueError: no label of any of the kinds.
    """
    pair = tuple(sample) if isinstance(sample, tuple | list) else ()
    if not (len(pair) == 2 and isinstance(pair[0], Graph) and isinstance(pair[1], Labels)):
        held = [type(part).__name__ for part in pair] or type(sample).__name__
        raise TypeError(
            f"structure {number} of samples is {held}: wanted (Graph, Labels); make graphs with "
            "build_graphs, labels with observe or read_extxyz, and zip them."
        )
    if all(getattr(pair[1], kind) is None for kind in kinds):
        raise ValueError(
            f"structure {number} has no label among {kinds}: wanted one at least; leave the "
            "structure out or label it."
        )
    return pair


def checked_label(
    kind: str, labels: Labels, graph: Graph, n_displaced: int, number: int
) -> np.ndarray:
    """The label of one kind of a structure, of its real atoms or padded as the graph.

    Args:
        kind: of the label, see `observables.observe`.
        labels: of the structure.
        graph: of the structure.
        n_displaced: how many atoms are displaced for the force constants.
        number: of the structure, for the message.

    Returns:
        energy (), forces (n, 3), virial (3, 3) or force_constants (n_displaced, 3, n, 3), in the
        unit of the labels, float64.

    Raises:
        ValueError: the label is missing, of the wrong shape or not finite; it names the structure.
    """
    value = getattr(labels, kind)
    if value is None:
        raise ValueError(
            f"{kind} of structure {number} is None: wanted a label; leave the kind out or label "
            "the structure."
        )
    value = np.asarray(value, float)
    sizes = {len(graph.positions), int(np.sum(np.asarray(graph.atom_mask)))}
    shapes = {label_shapes(n, n_displaced)[kind][0] for n in sizes}
    if value.shape not in shapes:
        raise ValueError(
            f"{kind} of structure {number} has shape {value.shape}: wanted {min(shapes)}; give "
            "the labels of its real atoms, or padded as the graph."
        )
    if not np.all(np.isfinite(value)):
        raise ValueError(
            f"{kind} of structure {number} holds NaN or infinity: wanted finite numbers; leave the "
            "structure out."
        )
    return value


def checked_rows(
    parts: Any, n_features: int | None = None
) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """The rows and labels of one structure by key, after checking them.

    Args:
        parts: key -> rows (r, K) and labels (r,).
        n_features: K; None: as the first key has it.

    Returns:
        The same, on the host.

    Raises:
        TypeError: other than float64; anything but a mapping.
        ValueError: shapes that do not match, NaN or infinity, no rows at all.
    """
    if not isinstance(parts, Mapping):
        raise TypeError(
            f"sample is a {type(parts).__name__}: wanted a mapping from kind or (kind, group) to "
            "rows (r, K) and labels (r,); see structure_rows."
        )
    found = {}
    for key, both in parts.items():
        rows, targets = (np.asarray(as_float64(f"rows of {key!r}", part)) for part in both)
        columns = n_features if n_features or rows.ndim != 2 else rows.shape[1]
        if rows.shape != (*targets.shape, columns) or targets.ndim != 1:
            raise ValueError(
                f"rows of {key!r} have shape {rows.shape} and labels {targets.shape}: wanted "
                f"(r, {columns or 'K'}) and (r,); make both with structure_rows."
            )
        n_features = columns
        if not (np.isfinite(rows).all() and np.isfinite(targets).all()):
            raise ValueError(f"rows or labels of {key!r} hold NaN or infinity: wanted numbers.")
        found[key] = rows, targets
    if not any(len(targets) for _, targets in found.values()):
        raise ValueError("has no rows: wanted one at least; leave the structure out.")
    return found


def padded_length(r: int) -> int:
    """Up to what number r rows are padded with zeros: one of four in each octave, so that few
    shapes are compiled."""
    return r + -r % max(2 ** (r.bit_length() - 3), 4)


def counted_energy(energy: ArrayLike, species: ArrayLike, by_number: np.ndarray) -> np.ndarray:
    """A total energy less the reference energies of its atoms, rounded once.

        y = E - sum_i e_z(i)

    A total of -1e7 eV is known to 1e-9 eV, and the sum of its atoms' energies would be to some
    times that; here it is taken exactly.

    Args:
        energy: E, () eV.
        species: atomic numbers, (n,); padding has number 0.
        by_number: e_z, eV, by atomic number, zero for padding.

    Returns:
        y, (1,) eV.
    """
    references = by_number[np.asarray(species)]
    return np.array([math.fsum([float(np.asarray(energy).item()), *(-references).tolist()])])


def references_by_number(
    model: ACESpec | Potential, reference_energies: Mapping[str, float] | None
) -> np.ndarray:
    """Reference energies as `counted_energy` takes them.

    Args:
        model: as in `design_rows`.
        reference_energies: by symbol, eV, of every element of the basis; zeros if None.

    Returns:
        By atomic number, eV, zero for all others.

    Raises:
        ValueError: an element without one; energies beside a potential, which has its own.
    """
    energies = np.zeros(len(chemical_symbols))
    if isinstance(model, ACESpec):
        energies[list(model.numbers)] = isolated_energies(model, reference_energies)
    elif reference_energies is not None:
        raise ValueError(
            f"reference_energies is {reference_energies!r}: wanted None for a potential, which "
            "has its own; leave it out."
        )
    return energies


def energies_per_atom(
    species: Sequence[np.ndarray],
    energies: ArrayLike | Sequence[float],
    elements: Sequence[str],
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The energy of an atom of each element that total energies are best counted from.

        min sum_s (E_s / N_s - sum_z n_sz e_z / N_s)^2 ,

    the smallest e_z where the compositions leave them undetermined.

    Args:
        species: atomic numbers of each structure, (n,), other than of elements where padded.
        energies: E_s of each, (S,) eV.
        elements: symbols.
        known: by symbol, eV, those that are not to be found.

    Returns:
        By symbol, eV, of all elements; zero where no energy says anything.
    """
    known = known or {}
    found = {symbol: float(known.get(symbol, 0.0)) for symbol in elements}
    wanted = [place for place, symbol in enumerate(elements) if symbol not in known]
    if not (len(species) and wanted):
        return found
    numbers = np.array([atomic_numbers[symbol] for symbol in elements])
    counts = np.array([np.sum(z[:, None] == numbers, axis=0) for z in species], float)
    sizes = counts.sum(axis=1)
    rest = (np.asarray(energies, float) - counts @ np.array(list(found.values()))) / sizes
    solved = np.linalg.lstsq(counts[:, wanted] / sizes[:, None], rest)[0]
    return found | dict(zip([elements[k] for k in wanted], solved.tolist(), strict=True))
