"""What a potential predicts for cells, and its errors where they have labels.

$ lprjax evaluate model.npz test.xyz
$ lprjax evaluate model.npz test.xyz -o predicted.xyz
$ lprjax evaluate Cu.eam.alloy cells.xyz -o labelled.xyz

The second gives predictions as labels, energy, forces and stress, and a picture beside the file;
the third labels cells by a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import lprjax as lp
from lprjax.commands.command import (
    Outcome,
    ReferenceCommand,
    Say,
    assignments,
    checked_output,
    table,
)


@dataclass(frozen=True, kw_only=True)
class Flags(ReferenceCommand):
    """Of which cells, by which potential."""

    #: a model file, or a reference: zhou, stillinger-weber, tersoff, an EAM table, a material's
    #: TOML file, module:function, ase:module:Calculator
    model: Annotated[Positional[str], arg(metavar="MODEL")]
    #: extended XYZ, or what else ASE reads
    cells: Annotated[Positional[Path], arg(metavar="CELLS.xyz")]
    #: where the predictions go, .xyz or .xyz.gz, and a picture beside it
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="OUT.xyz")] = None
    #: what labels are called where `read_extxyz` would not find them, e.g. energy=E0
    keys: Annotated[tuple[str, ...], arg(metavar="LABEL=NAME")] = ()
    group_by: str = "config_type"  # the entry of a frame that names its group

    def run(self, say: Say) -> Outcome:
        """Predict, compare, write."""
        from lprjax.commands.errors import COLUMNS, compared, predictions, rows_of
        from lprjax.commands.pictures import parity_picture, picture_of, save_picture
        from lprjax.commands.sources import elements_of, read_cells, read_potential

        checked_output(self.output, ".xyz", ".extxyz", ".xyz.gz")
        frames = read_cells(self.cells, assignments("--keys", self.keys))
        structures, labels = [s for s, _, _ in frames], [y for _, y, _ in frames]
        potential = read_potential(self.model, elements_of(structures), self.cache)
        periodic = all(all(s.pbc) for s in structures)
        kinds = ("energy", "forces", "virial") if periodic else ("energy", "forces")
        ours = predictions(potential, structures, kinds)
        known = [y if periodic else y._replace(virial=None) for y in labels]
        groups = [str(info.get(self.group_by, "default")) for _, _, info in frames]
        found = compared(structures, known, groups, ours)
        rows = rows_of(self.cells.name, found)
        if rows:
            say(table(COLUMNS, rows))
        else:
            say(f"{self.cells} has no labels to compare with: {len(frames)} cells are predicted")
        written = {}
        if self.output is not None:
            lp.write_extxyz(self.output, structures, ours)
            written["output"] = str(self.output)
            if rows:
                written["picture"] = str(picture_of(self.output))
                save_picture(parity_picture({self.cells.name: found}), picture_of(self.output))
            say(f"wrote {' and '.join(written.values())}")
        errors = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return Outcome(
            {"model": self.model, "structures": len(frames), **written, "errors": errors}
        )
