"""Bases for a training set where its user names none: lengths from the distances that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import host_graph
from lprjax.atoms.structures import Structure

REACH = (2.0, 2.3)
"""Cutoffs that are tried, over the distance of nearest neighbours: a choice; of the elements that
`experiments.mlearn_rigidity` knows the best are between them."""
LARGEST_DEGREE = 12
"""Of a basis that nobody named: a choice."""
MOST_COLUMNS = 600
"""Of such a basis: a choice, so that the assembly of a usual set takes minutes."""
ROWS_PER_COLUMN = 4
"""At least, of such a basis: a choice."""
_STRUCTURES = 50  # whose distances are looked at
_FIRST, _FURTHEST = 3.0, 12.0  # Å, between which neighbours are searched


def nearest_distance(structures: Sequence[Structure]) -> float:
    """The distance of nearest neighbours: the median, over atoms, of the one to the nearest.

    Args:
        structures: of which up to 50, evenly spread, are looked at.

    Returns:
        The distance, Å.

    Raises:
        ValueError: atoms further than 12 Å from each other.
    """
    step = max(1, len(structures) // _STRUCTURES)
    found: list[np.ndarray] = []
    for structure in structures[::step]:
        reach = _FIRST
        while reach <= _FURTHEST:
            graph = host_graph(structure, reach)
            mask = np.asarray(graph.edge_mask)
            lengths = np.where(mask, np.linalg.norm(graph.vectors(), axis=-1), np.inf)
            nearest = lengths.min(axis=1, initial=np.inf)[: structure.n_atoms]
            if np.isfinite(nearest).all():
                found.append(nearest)
                break
            reach *= 1.4
    if not found:
        raise ValueError(
            f"no structure has all its atoms within {_FURTHEST} Å of another: wanted some that "
            "do; name the lengths of the basis, --r0 and --r-cut."
        )
    return float(np.median(np.concatenate(found)))


def named_bases(
    elements: Sequence[str],
    *,
    order: int,
    degrees: Sequence[int],
    cutoffs: Sequence[float],
    powers: Sequence[int],
    r0: float,
    constant: bool,
    core: tuple[float, float] | None,
    n_rows: int,
) -> list[ACESpec]:
    """Every basis of the degrees, cutoffs and powers named.

    Args:
        elements: chemical symbols.
        order: neighbours per product.
        degrees: total degrees; none: the largest up to LARGEST_DEGREE with no more than
            MOST_COLUMNS, and ROWS_PER_COLUMN rows for each column.
        cutoffs: Å.
        powers: orders of the zero at the cutoff.
        r0: distance of nearest neighbours, Å.
        constant: with one more function per centre species.
        core: radii, Å, or None.
        n_rows: scalar observations there are.

    Returns:
        The bases.

    Raises:
        ValueError: as `ACESpec`.
    """

    def basis(degree: int, r_cut: float, power: int) -> ACESpec:
        return ACESpec(tuple(elements), order, degree, r_cut, r0, power, constant, core)

    degrees = list(degrees)
    if not degrees:
        most = min(MOST_COLUMNS, n_rows // ROWS_PER_COLUMN)
        degrees = [3]
        while degrees[0] < LARGEST_DEGREE:
            if basis(degrees[0] + 1, cutoffs[0], powers[0]).n_columns > most:
                break
            degrees[0] += 1
    return [basis(*one) for one in product(degrees, cutoffs, powers)]
