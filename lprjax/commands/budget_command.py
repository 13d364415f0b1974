"""What is wrong with a defect simulated with a surrogate in place of a reference, and why.

$ lprjax budget --reference zhou --surrogate model.npz --crystal bcc W
$ lprjax budget --reference W.eam.alloy --surrogate model.npz --crystal bcc W --cells 6 -o w.json
$ lprjax budget --reference tungsten.toml --surrogate model.npz --defect dumbbell-111 -o w.json
$ lprjax budget --reference ase:chgnet.model:CHGNetCalculator --surrogate model.npz --crystal bcc W

A reference is zhou (EAM of Zhou et al. 2004), stillinger-weber, tersoff, the file of an EAM table,
a model file, the TOML file of a material (reference, element, crystal), module:function, which
returns a potential, or ase:module:Calculator. The crystal is at the lattice constant of the
reference. Exit code 1: a relaxation or the theory failed, and the numbers say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

import lprjax as lp
from lprjax.commands.command import Outcome, ReferenceCommand, Say, checked_output, write_json


@dataclass(frozen=True, kw_only=True)
class Flags(ReferenceCommand):
    """Of which defect, between which two potentials."""

    reference: Annotated[str, arg(metavar="R")]  # what is taken for true
    surrogate: Annotated[str, arg(metavar="S")]  # what replaces it: a model file, or as R
    #: the crystal, e.g. bcc W; a material's file says it itself
    crystal: Annotated[tuple[str, ...], arg(metavar="bcc|fcc|diamond ELEMENT")] = ()
    defect: str = "vacancy"  # divacancy-1, dumbbell-110, ...: a wrong name lists them all
    cells: int = 4  # cubes per side of the simulated cell
    #: how far training data reach round the core, Å; 0: 0.4 of the cell's width
    radius: float = 0.0
    #: where the search for the lattice constant starts, Å; 0: where ASE has it
    lattice_constant: float = 0.0
    force_tolerance: float = 1e-6  # of the relaxations, eV/Å
    #: where the numbers go, .json; a picture of the terms beside it
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="OUT.json")] = None

    def run(self, say: Say) -> Outcome:
        """Relax with both, compare, explain."""
        from lprjax.commands.hosts import read_host
        from lprjax.commands.pictures import picture_of, save_picture
        from lprjax.commands.sources import read_potential

        checked_output(self.output, ".json")
        host = read_host(self.reference, self.crystal, self.lattice_constant, self.cache)
        surrogate = read_potential(self.surrogate, [host.element], self.cache)
        say(f"{host.name}: {host.crystal} {host.element}, a = {host.lattice_constant:.4f} Å")
        defect = lp.named_defect(self.defect, host.unit_cell, self.cells)
        radius = self.radius or 0.4 * self.cells * host.lattice_constant
        budget = lp.error_budget(
            host.potential, surrogate, defect, radius, force_tolerance=self.force_tolerance
        )
        say(str(budget))
        summary: dict[str, Any] = {
            "reference": self.reference,
            "surrogate": self.surrogate,
            "crystal": [host.crystal, host.element],
            "lattice_constant": host.lattice_constant,
            "defect": self.defect,
            "cells": self.cells,
            **budget._asdict(),
            "terms": [term._asdict() for term in budget.terms],
            "enclosure": budget.enclosure._asdict(),
            "effectivity": budget.effectivity,
        }
        failures = [f"{kind}: {text}" for kind, text in budget.failures.items()]
        summary["failures"] = failures
        if self.output is not None:
            write_json(self.output, summary)
            save_picture(budget.plot(), picture_of(self.output))
            say(f"wrote {self.output} and {picture_of(self.output)}")
        return Outcome(summary, failures)
