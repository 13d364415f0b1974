"""Relaxed formation energies of point defects, by one or more potentials.

$ lprjax defects zhou --crystal bcc W
$ lprjax defects W.eam.alloy model.npz --crystal bcc W --defects vacancy dumbbell-111 -o w.json
$ lprjax defects tungsten.toml --cells 6 -o relaxed.xyz

Potentials are named as for `lprjax budget`; each has the lattice constant of its own crystal. Exit
code 1: a relaxation did not converge, and its row says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional, arg

import lprjax as lp
from lprjax.commands.command import (
    Outcome,
    ReferenceCommand,
    Say,
    checked_output,
    table,
    write_json,
)

if TYPE_CHECKING:
    from lprjax.commands.hosts import Host
    from lprjax.defects.defect import Defect, RelaxedDefect

COLUMNS = ("defect", "potential", "atoms", "E_f eV", "not relaxed", "moved Å", "max force", "")
"""Of the table: the formation energy relaxed and not, eV, the largest displacement, Å, and force,
eV/Å, of what came out."""


@dataclass(frozen=True, kw_only=True)
class Flags(ReferenceCommand):
    """Of which defects, by which potentials."""

    #: model files or references
    potentials: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")]
    #: the crystal, e.g. bcc W; a material's file says it itself
    crystal: Annotated[tuple[str, ...], arg(metavar="bcc|fcc|diamond ELEMENT")] = ()
    defects: tuple[str, ...] = ()  # none: all that the crystal has
    cells: int = 4  # cubes per side
    #: where the search for the lattice constant starts, Å; 0: where ASE has it
    lattice_constant: float = 0.0
    force_tolerance: float = 1e-5  # of the relaxations, eV/Å
    #: where the numbers (.json) or relaxed cells (.xyz) go
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="OUT.json|OUT.xyz")] = None

    def run(self, say: Say) -> Outcome:
        """Relax each defect with each potential."""
        from lprjax.commands.hosts import read_host

        checked_output(self.output, ".json", ".xyz", ".extxyz", ".xyz.gz")
        if not self.potentials:
            raise ValueError("no potential is named: wanted at least one, e.g. model.npz or zhou.")
        where = self.crystal, self.lattice_constant, self.cache
        hosts = [read_host(p, *where) for p in self.potentials]
        for host in hosts:
            say(f"{host.name}: {host.crystal} {host.element}, a = {host.lattice_constant:.4f} Å")
        found, cells, settled = [], [], []
        pairs = [(host, *pair) for host in hosts for pair in _defects(self, host)]
        for host, name, defect in tqdm(pairs, desc="relaxing", unit=" defects", delay=5):
            relaxed = lp.relax_defect(host.potential, defect, force_tolerance=self.force_tolerance)
            found.append(_row(host, name, defect, relaxed))
            settled.append(relaxed.relaxed.converged)
            if np.isfinite(relaxed.energy):  # others are no cells any more
                forces = np.asarray(relaxed.relaxed.forces)
                labels = lp.Labels(relaxed.energy, forces, None, None)
                cells.append((defect.displaced(relaxed.displacement), labels))
        say(table(COLUMNS, [(r[0], Path(r[1]).name, *r[2:-1], _brief(r[-1])) for r in found]))
        rows = [dict(zip((*COLUMNS[:-1], "message"), row, strict=True)) for row in found]
        summary: dict[str, Any] = {
            "lattice_constants": {host.name: host.lattice_constant for host in hosts},
            "cells": self.cells,
            "defects": rows,
        }
        if self.output is not None:
            if self.output.suffix == ".json":
                write_json(self.output, summary)
            elif not cells:
                raise RuntimeError(f"nothing relaxed to a cell: wanted one for {self.output}.")
            else:
                lp.write_extxyz(self.output, [s for s, _ in cells], [y for _, y in cells])
            say(f"wrote {self.output}")
        wrong = [
            f"{row[0]} by {row[1]}: {row[-1]}"
            for row, converged in zip(found, settled, strict=True)
            if not converged
        ]
        return Outcome(summary, wrong)


def _defects(flags: Flags, host: Host) -> list[tuple[str, Defect]]:
    """Those named, or all that the crystal has."""
    if flags.defects:
        return [(d, lp.named_defect(d, host.unit_cell, flags.cells)) for d in flags.defects]
    found: list[tuple[str, Defect]] = []
    for name in lp.DEFECTS:
        try:
            found.append((name, lp.named_defect(name, host.unit_cell, flags.cells)))
        except ValueError:  # a tetrahedral interstitial is none of bcc or fcc, e.g.
            continue
    return found


def _brief(message: str) -> str:
    """The first words of a message, for a table."""
    return message.partition(":")[0]


def _row(host: Host, name: str, defect: Defect, relaxed: RelaxedDefect) -> Sequence[Any]:
    graph = lp.potentials.graph_for(host.potential, defect.structure)
    before = float(lp.observe(host.potential, graph, "energy").energy)
    energies = [
        float(lp.formation_energy(energy, defect, host.energy_per_atom))
        for energy in (relaxed.energy, before)
    ]
    moved = float(np.linalg.norm(np.asarray(relaxed.displacement), axis=1).max())
    ended = relaxed.relaxed
    n, force = defect.structure.n_atoms, float(ended.max_force)
    return (name, host.name, n, *energies, moved, force, ended.message)
