"""How wrong a surrogate's relaxed defect is, from one call of the reference at its geometry.

$ lprjax audit --surrogate model.npz --crystal bcc W --reference zhou
$ lprjax audit --surrogate model.npz --crystal bcc W --lattice-constant 3.185 --ask ask.xyz
$ lprjax audit --surrogate model.npz --crystal bcc W --lattice-constant 3.185 --answer answer.xyz
$ lprjax audit --surrogate model.npz --defect dumbbell-111 --reference tungsten.toml --calls 2

A reference, named as for `lprjax budget`, is asked here, at its own lattice constant. One that runs
elsewhere is asked in two steps: --ask writes the cells whose energies and forces are wanted, at the
lattice constant given, and --answer reads them back. Exit code 1: something failed, or the verdict
is not "trust".
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
    """Of which defect, by which surrogate, and who is asked."""

    surrogate: Annotated[str, arg(metavar="S")]  # what is audited: a model file, or as R
    #: what is taken for true, and is asked here; "": it runs elsewhere, see --ask and --answer
    reference: Annotated[str, arg(metavar="R")] = ""
    #: the crystal, e.g. bcc W; a material's file says it itself
    crystal: Annotated[tuple[str, ...], arg(metavar="bcc|fcc|diamond ELEMENT")] = ()
    #: Å: of the cells, without a reference; where the search for the reference's starts, with one
    lattice_constant: float = 0.0
    defect: str = "vacancy"  # divacancy-1, dumbbell-110, ...: a wrong name lists them all
    cells: int = 4  # cubes per side of the simulated cell
    radius: float = 0.0  # how far training data reach round the core, Å; 0: 0.4 of the cell's width
    calls: int = 1  # of the reference for the defect's cell, at most
    acceptable_geometry: float = 0.1  # Å, of the norm of the error of the geometry
    acceptable_energy: float = 0.02  # eV, of the error of the formation energy
    force_tolerance: float = 1e-6  # of the surrogate's relaxation, eV/Å
    #: where the cells go whose energies and forces are wanted, .xyz
    ask: Annotated[Path | None, arg(metavar="ASK.xyz")] = None
    answer: Annotated[Path | None, arg(metavar="ANSWER.xyz")] = None  # the same cells, computed
    #: where the numbers go, .json
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="OUT.json")] = None

    def run(self, say: Say) -> Outcome:
        """Relax with the surrogate, ask, and say how wrong it is."""
        from lprjax.commands.sources import read_potential

        checked_output(self.output, ".json")
        checked_output(self.ask, ".xyz", ".extxyz")
        unit_cell, reference = self._crystal()
        surrogate = read_potential(self.surrogate, [self._element(unit_cell)], self.cache)
        defect = lp.named_defect(self.defect, unit_cell, self.cells)
        width = self.cells * float(unit_cell.cell[0][0])
        found = lp.audit(
            surrogate,
            defect,
            reference,
            calls=self.calls,
            acceptable_geometry=self.acceptable_geometry,
            acceptable_energy=self.acceptable_energy,
            radius=self.radius or 0.4 * width,
            force_tolerance=self.force_tolerance,
        )
        say(str(found))
        if self.ask is not None:
            found.write(self.ask)
            say(f"wrote {self.ask}: {len(found.cells)} cells, whose energies and forces are wanted")
        numbers = found._asdict()
        for name in ("displacement", "corrected", "cells"):
            del numbers[name]
        numbers["terms"] = [term._asdict() for term in found.terms]
        summary: dict[str, Any] = {"surrogate": self.surrogate, "defect": self.defect, **numbers}
        if self.output is not None:
            write_json(self.output, summary)
            say(f"wrote {self.output}")
        failures = [f"{kind}: {text}" for kind, text in found.failures.items()]
        asked = self.ask is not None and not self.reference and self.answer is None
        if found.verdict != "trust" and not failures and not asked:
            failures = [f"{found.verdict}: {found.advice}"]
        return Outcome(summary, failures)

    def _crystal(self) -> tuple[lp.Structure, Any]:
        """The unit cell, and who is asked."""
        if sum(map(bool, (self.reference, self.answer))) > 1:
            raise ValueError(
                "there are --reference and --answer: wanted one of them; a reference is asked here."
            )
        if self.reference:
            from lprjax.commands.hosts import read_host

            host = read_host(self.reference, self.crystal, self.lattice_constant, self.cache)
            return host.unit_cell, host.potential
        if self.ask is None and self.answer is None:
            raise ValueError(
                "there is no --reference, --ask or --answer: wanted one; --ask ask.xyz writes the "
                "cells that a code elsewhere is to compute."
            )
        from lprjax.commands.hosts import crystal_of
        from lprjax.potentials.named_references import CRYSTALS

        lattice, element = crystal_of(self.crystal)
        if not self.lattice_constant > 0.0:
            raise ValueError(
                f"--lattice-constant is {self.lattice_constant}: wanted it, in Å, without a "
                "reference, e.g. --crystal bcc W --lattice-constant 3.185."
            )
        cell = CRYSTALS[lattice](element, self.lattice_constant)
        return cell, () if self.answer is None else self.answer

    def _element(self, cell: lp.Structure) -> str:
        from ase.data import chemical_symbols

        return chemical_symbols[int(cell.species[0])]
