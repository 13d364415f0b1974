"""What the noise of calculators does to the pieces of a force residual.

The residual is split once more, on the same results with noise added that is as large as that of
each call (`potentials.recorded_calls`); the bar of a piece is the norm of what that changes, root
mean square over the draws. The geometry and its far field stay.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lprjax.atoms.graphs import Graph
from lprjax.defects.bounds import PIECES, Residual, Side, mismatch_of, partition
from lprjax.defects.defect import Defect, RelaxedDefect
from lprjax.numerics.differences import HALVES, POINTS
from lprjax.potentials.potential import Potential, by_differences
from lprjax.potentials.recorded_calls import Recorder

DRAWS = 8
"""How often the residual is split with noise: a choice; a bar is then good to a quarter."""
RELAXING = 30
"""Calls that a relaxation is expected to take, before it is known: a choice."""


class Bar(NamedTuple):
    """What noise makes of a piece, a standard deviation; zeros where derivatives are exact."""

    norm: float = 0.0  # eV/Å, in the negative norm
    energy: float = 0.0  # eV


def noise_of_pieces(
    theirs: Side, ours: Side, split: Residual, recorder: Recorder
) -> Mapping[str, Bar]:
    """The bar of each of PIECES.

    Args:
        theirs: of the reference, under the far field.
        ours: of the surrogate, likewise; what is asked of either was recorded.
        split: `partition` of the two.
        recorder: of their calculators.

    Returns:
        piece -> Bar.
    """
    if not any(by_differences(side.potential) for side in (theirs, ours)):
        return dict.fromkeys(PIECES, Bar())
    changes: dict[str, list[tuple[float, float]]] = {name: [] for name in PIECES}
    for draw in range(DRAWS):
        recorder.draw = draw
        pair = [s.again() if by_differences(s.potential) else s for s in (theirs, ours)]
        other = partition(*pair, mismatch_of(*pair), split.far, split.radius)
        for name, found in changes.items():
            change = np.asarray(other.pieces[name]) - np.asarray(split.pieces[name])
            size = float(ours.defect.lattice.negative_norm(change))
            found.append((size, other.energies[name] - split.energies[name]))
    recorder.draw = None
    squares = {name: np.mean(np.square(found), axis=0) for name, found in changes.items()}
    return {name: Bar(*map(math.sqrt, square)) for name, square in squares.items()}


def calls_to_come(potential: Potential, defect: Defect, relaxing: bool) -> int:
    """Atoms of the calls that a budget is to make of a calculator, all summed, for a bar of them.

    Args:
        potential: any; one with exact derivatives makes none.
        defect: whose budget it is.
        relaxing: whether it is to be relaxed too.

    Returns:
        The sum.
    """
    if not by_differences(potential):
        return 0
    n, b = defect.structure.n_atoms, defect.unit_cell.n_atoms
    steps = 2 * HALVES + 3
    of_cell = steps + 6 * (6 + 3 * (b - 1)) + 6 * 12 + 2
    of_defect = POINTS + steps + 18 * b + 16 + RELAXING * relaxing
    return of_defect * n + of_cell * b


def note_of(
    who: str, potential: Potential, graph: Graph, ended: RelaxedDefect | None, recorder: Recorder
) -> str:
    """What is to be known of a calculator's numbers, in one line.

    Args:
        who: reference or surrogate.
        potential: by differences.
        graph: of the defect.
        ended: its relaxation; None: there was none.
        recorder: of its calls.

    Returns:
        The line.
    """
    itself = by_differences(potential)
    noise, steps = itself.noise(graph), itself.steps(graph)
    where = "" if ended is None else f"; relaxed to {ended.relaxed.max_force:.1e} eV/Å"
    return (
        f"{who}: forces good to {noise.forces:.1e} eV/Å, the energy to {noise.energy:.1e} eV; "
        f"differences over {steps.first:.2g} Å (second order) and {steps.second:.2g} Å (third)"
        f"{where}; {recorder.calls[who]} calls"
    )
