"""Errors of a potential on labelled cells, by group and kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lprjax.atoms.graphs import build_graphs
from lprjax.atoms.structures import Labels, Structure
from lprjax.atoms.voigt import six_components
from lprjax.potentials.data_sets import observe_all
from lprjax.potentials.potential import Potential, cutoff_of

UNITS = {"energy": "meV/atom", "forces": "eV/Å", "virial": "meV/atom"}
"""Of errors: energies and virials are per atom."""
_SCALE = {"energy": 1e3, "forces": 1.0, "virial": 1e3}
_CHUNK = 256  # structures whose graphs are held at a time: a choice


class Compared(NamedTuple):
    """Labels and predictions of one kind and group, as many of each."""

    group: str
    kind: str
    true: np.ndarray  # (N,), eV per atom or eV/Å
    predicted: np.ndarray  # (N,)
    structures: int

    @property
    def errors(self) -> np.ndarray:
        """Predicted less true, (N,), in UNITS."""
        return _SCALE[self.kind] * (self.predicted - self.true)

    @property
    def rmse(self) -> float:
        """Root mean square error, in UNITS."""
        return float(np.sqrt(np.mean(np.square(self.errors))))

    @property
    def mae(self) -> float:
        """Mean absolute error, in UNITS."""
        return float(np.mean(np.abs(self.errors)))


def predictions(
    potential: Potential, structures: Sequence[Structure], kinds: Sequence[str]
) -> list[Labels]:
    """What a potential predicts for many structures.

    Args:
        potential: graph -> site energies (n,), eV.
        structures: of any sizes.
        kinds: among "energy", "forces" and "virial".

    Returns:
        Labels of each, without padding.

    Raises:
        ValueError: as `build_graphs` and `observe_all`.
    """
    found: list[Labels] = []
    with tqdm(total=len(structures), desc="predictions", unit=" cells", delay=5) as bar:
        for start in range(0, len(structures), _CHUNK):
            part = structures[start : start + _CHUNK]
            graphs = build_graphs(part, cutoff_of(potential), shapes=3)
            found += observe_all(potential, graphs, kinds)
            bar.update(len(part))
    return found


def compared(
    structures: Sequence[Structure],
    labels: Sequence[Labels],
    groups: Sequence[str],
    predicted: Sequence[Labels],
) -> list[Compared]:
    """Labels beside predictions, by kind and group; and of all groups where they are several.

    Args:
        structures: S of them.
        labels: of each.
        groups: of each, its name.
        predicted: of each, with all kinds that labels have.

    Returns:
        Of each kind that some structure has, each group's, then "all".
    """
    found: list[Compared] = []
    names = list(dict.fromkeys(groups))
    for kind in UNITS:
        by_group: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
        for structure, label, group, ours in zip(
            structures, labels, groups, predicted, strict=True
        ):
            if getattr(label, kind) is not None:
                n = structure.n_atoms
                pair = tuple(_scalars(kind, getattr(x, kind), n) for x in (label, ours))
                by_group[group].append((pair[0], pair[1]))
        parts = [
            Compared(name, kind, *map(np.concatenate, zip(*pairs, strict=True)), len(pairs))
            for name, pairs in by_group.items()
            if pairs
        ]
        found += parts
        if len(parts) > 1:
            true, ours = (np.concatenate([p[k] for p in parts]) for k in (2, 3))
            found.append(Compared("all", kind, true, ours, sum(p.structures for p in parts)))
    return found


def _scalars(kind: str, value: np.ndarray, n: int) -> np.ndarray:
    value = np.asarray(value)
    if kind == "energy":
        return value[None] / n
    return np.asarray(six_components(value)) / n if kind == "virial" else value[:n].ravel()


COLUMNS = ("set", "config_type", "kind", "cells", "RMSE", "MAE", "unit")
"""Of the table of errors."""


def rows_of(
    name: str, found: Sequence[Compared]
) -> list[tuple[str, str, str, int, float, float, str]]:
    """The rows of the table of errors.

    Args:
        name: of the set, such as "train".
        found: by kind and group.

    Returns:
        One row for each, in the order of COLUMNS.
    """
    return [(name, c.group, c.kind, c.structures, c.rmse, c.mae, UNITS[c.kind]) for c in found]
