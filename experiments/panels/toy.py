"""The panels of `toy_rigidity` and its caption, from its summary and records."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes, reference_slope

SHOWN = {
    "compositions": "fixed + compositions",
    "pure": "fixed + pure",
    "blocks": "two blocks + pure",
}


def plot(summary: Mapping, records: Sequence[Record]) -> Figure:
    """The whole figure."""
    figure, axes = plt.subplot_mosaic(
        [["compositions", "pure", "table"], ["blocks", "spread", "table"]],
        figsize=(13.0, 6.6),
        width_ratios=(1, 1, 1.4),
    )
    for place, design in SHOWN.items():
        draw_curves(axes[place], one_record(summary, records, design), design)
    axes["compositions"].legend(fontsize=7)
    draw_spread(axes["spread"], summary)
    draw_table(axes["table"], summary)
    text = "\n".join(textwrap.fill(line, 225) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def one_record(summary: Mapping, records: Sequence[Record], design: str) -> Record:
    """The first seed of the shown number of groups, without spread."""
    return next(
        record
        for record in records
        if record.point.design == design
        and record.point.groups == summary["shown"]
        and not record.point.spread
    )


def draw_curves(ax: Axes, record: Record, design: str) -> None:
    """LPR of each group; what vanishes sits on the floor of a symmetric logarithm."""
    lpr = record.arrays["lpr"]
    floor = 10.0 ** np.floor(np.log10(lpr[lpr > 0].min()) - 1)
    added, width = np.arange(len(lpr)), 0.03
    for group, values in enumerate(lpr.T):
        x = added + width * (group - 0.5 * (lpr.shape[1] - 1))  # side by side where they coincide
        colour = PALETTE[group % len(PALETTE)]
        ax.plot(x, values, "o-", color=colour, lw=1, label=f"group {group + 1}")
    ax.set_yscale("symlog", linthresh=floor, linscale=0.5)
    ax.set_ylim(-0.3 * floor, None)
    ax.set_xticks(added)
    ax.set_title(design, fontsize=9)
    what = design.split(" + ")[1].replace("pure", "pure structures")
    label_axes(ax, (f"{what} added", None), ("LPR at weight 1", None))


def draw_spread(ax: Axes, summary: Mapping) -> None:
    """Smallest LPR against the spread of features inside the groups, and slope 2."""
    found = summary["in_group_spread"]
    x, y = found["spread"], found["smallest_lpr"]
    ax.loglog(x, y, "o-", label=f"fixed proportions; slope {found['slope']:.2f}")
    reference_slope(ax, x, y, 2.0, "slope 2")
    label_axes(ax, ("spread of features in a group", None), ("smallest LPR, none added", None))
    ax.set_title("groups with some spread", fontsize=9)
    ax.legend(fontsize=7)


def draw_table(ax: Axes, summary: Mapping) -> None:
    """Degrees of freedom that are missing, undetermined directions and vanishing LPRs."""
    lines: dict[tuple, list[str]] = {}
    for row in summary["table"]:
        counted = [row["missing"], *(range_of(row[name]) for name in ("undetermined", "vanishing"))]
        entry = ",".join(str(n) for n in counted)
        lines.setdefault((row["groups"], row["design"]), []).append(entry)
    cells = [[str(groups), design, "  ".join(found)] for (groups, design), found in lines.items()]
    ax.axis("off")
    heading = ["G", "training set", "missing, undetermined, LPR = 0; as structures are added"]
    drawn = ax.table(
        cells, colLabels=heading, loc="center", cellLoc="left", colWidths=(0.05, 0.34, 0.61)
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.scale(1.0, 1.15)


def range_of(values: Sequence[int]) -> str:
    """One number if all draws agree, else the least and the largest."""
    return "…".join(str(n) for n in sorted({min(values), max(values)}))


def caption(summary: Mapping) -> str:
    """The text under the figure, with the numbers of this run."""
    wrong = summary["rows"] - summary["rows_as_expected"]
    verdict = (
        f"in all {summary['rows']} rows of the table, for every draw"
        if not wrong
        else f"NOT in {wrong} of {summary['rows']} rows of the table"
    )
    spread = summary["in_group_spread"]
    return (
        f"Energies per atom of {summary['structures']} pseudo-structures, weight 1, no ridge; "
        f"{summary['dimension']} features. LPR of the centroids of {summary['shown']} groups as "
        "structures are added one by one. Right, for none, one, two … added: missing degrees of "
        "freedom by counting, undetermined directions in the span of G groups by the factor, and "
        "number of groups with LPR = 0. Undetermined directions are as many as degrees of freedom "
        f"are missing, and vanishing LPRs as many as counted, {verdict}. With none missing the "
        f"smallest LPR is {summary['smallest_lpr_when_none_is_missing']:.2g}.\n"
        "A spread of features inside the groups makes proportions a little different from "
        "structure to structure and lifts the degeneracy, but weakly: LPR grows as "
        f"spread^{spread['slope']:.2f} (2 expected while small)."
    )
