"""How well a fit knows each atom: rigidities, and deviations of its energy and force.

$ lprjax rigidity model.npz cells.xyz -o rigidity.xyz
$ lprjax rigidity model.npz cells.xyz -o rigidity.json.gz
$ lprjax rigidity model.npz cells.xyz -o rigidity.xyz --calibration validation.xyz

The file has three columns for each atom, to be coloured by in OVITO (.xyz) or chemiscope (.json):

- lpr, the local prediction rigidity, 1/eV^2, in the weights of the fit: small is a warning;
- energy_deviation, the standard deviation of the site energy, eV: s / sqrt(lpr), where s is how
  much larger the residuals of the fit are than its weights say;
- force_deviation, of the force vector, eV/Å: s times the root of the sum of 1/PR of its components.

With --calibration the deviations are scaled by the errors in cells that were not fitted instead,
which also tell of what the basis cannot represent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from tyro.conf import Positional, arg

import lprjax as lp
from lprjax.commands.command import Command, Outcome, Say, checked_output, table

if TYPE_CHECKING:
    from lprjax.commands.deviations import Known
    from lprjax.commands.sources import Frame


@dataclass(frozen=True, kw_only=True)
class Flags(Command):
    """Of which atoms, by which fit."""

    #: a fit, as `lprjax fit` writes it
    model: Annotated[Positional[Path], arg(metavar="MODEL.npz")]
    #: extended XYZ, or what else ASE reads; labels are kept
    cells: Annotated[Positional[Path], arg(metavar="CELLS.xyz")]
    #: where the columns go: .xyz (.gz), or .json (.gz) for chemiscope
    output: Annotated[Path, arg(aliases=("-o",), metavar="OUT.xyz|OUT.json")]
    #: labelled cells that were not fitted, whose errors scale the deviations
    calibration: Annotated[Path | None, arg(metavar="LABELLED.xyz")] = None

    def run(self, say: Say) -> Outcome:
        """Compute, write, sum up."""
        from lprjax.commands.deviations import calibrated, known_of, residual_scale
        from lprjax.commands.pictures import picture_of
        from lprjax.commands.sources import read_cells, read_fit

        ends = (".xyz", ".extxyz", ".xyz.gz", ".json", ".json.gz")
        checked_output(self.output, *ends)
        saved, frames = read_fit(self.model), read_cells(self.cells)
        calibrations = None
        if self.calibration is not None:
            labelled = [(s, labels) for s, labels, _ in read_cells(self.calibration)]
            calibrations = calibrated(saved, labelled)
            for kind, found in calibrations.items():
                inside = ", ".join(
                    f"{100 * c:.0f} % within what should hold {100 * e:.0f} %"
                    for c, e in zip(found.covered[1::2], found.expected[1::2], strict=True)
                )
                say(f"calibrated by {kind}: alpha {found.alpha:.3g}; {inside}")
        structures = [structure for structure, _, _ in frames]
        known = known_of(saved, structures, calibrations)
        arrays = {
            "lpr": [k.lpr for k in known],
            "energy_deviation": [k.energy for k in known],
            "force_deviation": [k.forces for k in known],
        }
        labels = [labels for _, labels, _ in frames]
        if ".json" in self.output.name:
            lp.write_chemiscope(self.output, structures, arrays, labels)
        else:
            lp.write_extxyz(self.output, structures, labels, arrays)
        rows = _by_species(frames, known)
        picture = picture_of(self.output)
        _draw(frames, known, picture)
        say(table(COLUMNS, rows))
        if open_ones := [row[0] for row in rows if row[4] > OPEN]:
            say(
                f"the energies of {' and '.join(open_ones)} atoms are next to undetermined: of an "
                "alloy, energies know sums over a cell, forces and virials no constants of an "
                "element; cells of other compositions help"
            )
        say(f"wrote {self.output} and {picture}")
        summary = {
            "output": str(self.output),
            "picture": str(picture),
            "structures": len(frames),
            "residual_scale": residual_scale(saved.fit),
            "calibration": {
                kind: {"alpha": c.alpha, "s": c.s, "covered": c.covered, "expected": c.expected}
                for kind, c in (calibrations or {}).items()
            },
            "species": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }
        return Outcome(summary)


OPEN = 1.0
"""eV, a deviation of site energies beyond which nothing is known of them: a choice, a bond."""
COLUMNS = ("element", "atoms", "LPR median", "least", "energy dev. eV", "force dev. eV/Å")
"""Of the table: deviations are root mean squares."""


def _by_species(frames: list[Frame], known: list[Known]) -> list[tuple]:
    symbols = np.array(_symbols(frames))
    lpr, energy, forces = (
        np.concatenate([getattr(k, name) for k in known]) for name in ("lpr", "energy", "forces")
    )
    rows = []
    for symbol in dict.fromkeys(symbols.tolist()):
        own = symbols == symbol
        square = [float(np.sqrt(np.mean(np.square(x[own])))) for x in (energy, forces)]
        spread = float(np.median(lpr[own])), float(np.min(lpr[own]))
        rows.append((symbol, int(own.sum()), *spread, *square))
    return rows


def _symbols(frames: list[Frame]) -> list[str]:
    return [symbol for s, _, _ in frames for symbol in lp.to_ase(s).get_chemical_symbols()]


def _draw(frames: list[Frame], known: list[Known], picture: Path) -> None:
    from lprjax.commands.pictures import draw_by_species, new_figure, save_picture

    figure, axes = new_figure(3)
    labels = {"lpr": "LPR (1/eV$^2$)", "energy": "energy deviation (eV)"}
    labels["forces"] = "force deviation (eV/Å)"
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        values = np.concatenate([getattr(k, name) for k in known])
        draw_by_species(ax, values, _symbols(frames), label)
    save_picture(figure, picture)
