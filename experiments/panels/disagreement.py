"""The panels of `rigidity_and_disagreement` and its caption, from its summary and record."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes

COMMITTEES = {
    "posterior": "samples of the posterior",
    "bootstrap": "bootstrap of the cells",
    "white": "the same, white residuals",
}


def plot(summary: Mapping, central: Record, spread: Mapping[str, np.ndarray]) -> Figure:
    """The whole figure.

    Args:
        summary: of `rigidity_and_disagreement`.
        central: the record of the model that has committees.
        spread: standard deviation of each site energy over models, eV, by kind of model.
    """
    figure, axes = plt.subplots(2, 3, figsize=(13.0, 8.6))
    draw_committees(axes[0, 0], summary, central, ("posterior",))
    draw_committees(axes[0, 1], summary, central, ("bootstrap", "white"))
    draw_spread(axes[0, 2], summary, central, spread["all"])
    draw_families(axes[1, 0], summary, central)
    draw_true_error(axes[1, 1], summary, central)
    draw_coverage(axes[1, 2], summary)
    text = "\n".join(textwrap.fill(line, 215) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def by_family(ax: Axes, summary: Mapping, central: Record, x: np.ndarray, y: np.ndarray) -> None:
    """A point for each site: circles near the training set, triangles far from it."""
    for k, family in enumerate(summary["families"]):
        mine = central.arrays["family"] == k
        ax.plot(x[mine], y[mine], **style_of(summary, k, family))
    ax.set_xscale("log")
    ax.set_yscale("log")


def style_of(summary: Mapping, k: int, family: str) -> dict[str, Any]:
    """Marker and colour of family number k."""
    shape = {"marker": "o", "ms": 2.2} if family in summary["near"] else {"marker": "^", "ms": 3.0}
    colour = PALETTE[k % len(PALETTE)]
    return shape | dict(color=colour, ls="", mew=0, alpha=0.6, rasterized=True)


def draw_committees(ax: Axes, summary: Mapping, central: Record, names: Sequence[str]) -> None:
    """Variance of each site energy in committees against 1/LPR."""
    inverse = 1 / central.arrays["lpr"]
    for name, colour in zip(names, PALETTE, strict=False):
        found = summary["committees"][name]
        variance = np.mean(central.arrays[f"variance_{name}"], axis=0)
        ax.loglog(
            inverse, variance, ".", ms=2.5, mew=0, color=colour, alpha=0.5, rasterized=True,
            label=f"{COMMITTEES[name]}: slope {slope_of(found)}",
        )  # fmt: skip
    ends = np.array([inverse.min(), inverse.max()])
    ax.loglog(ends, ends, "--", color="0.3", lw=0.9, label="variance = 1/LPR")
    label_axes(ax, ("1/LPR", "eV²"), ("variance of site energy", "eV²"))
    ax.legend(fontsize=7, markerscale=4)


def draw_spread(ax: Axes, summary: Mapping, central: Record, spread: np.ndarray) -> None:
    """Standard deviation of each site energy over all models against LPR."""
    lpr = central.arrays["lpr"]
    by_family(ax, summary, central, lpr, spread)
    ends = np.array([lpr.min(), lpr.max()])
    level = np.exp(np.mean(np.log(spread * lpr**0.5)))
    ax.loglog(ends, level * ends**-0.5, "--", color="0.3", lw=0.9, label="slope -1/2")
    found = summary["spread_against_rigidity"]["all"]
    ax.set_title(
        f"{summary['spread_over']} models: rank correlation {-found['spearman']:.3f}", fontsize=9
    )
    label_axes(ax, ("LPR", "1/eV²"), ("spread of site energy over models", "eV"))
    ax.legend(fontsize=7)


def draw_families(ax: Axes, summary: Mapping, central: Record) -> None:
    """LPR by family, and the legend of the other panels."""
    lpr, family = central.arrays["lpr"], central.arrays["family"]
    names = list(summary["families"])
    for k, name in enumerate(names):
        jitter = 0.3 * np.sin(np.arange(np.sum(family == k)) * 2.4)
        ax.semilogx(lpr[family == k], k + jitter, **style_of(summary, k, name))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_title("triangles: no such cells in training", fontsize=9)
    ax.set_xlabel("LPR (1/eV²)")


def draw_true_error(ax: Axes, summary: Mapping, central: Record) -> None:
    """Error against the reference's site energies, by predicted standard deviation."""
    arrays = central.arrays
    deviation = arrays["forces_site_deviation"]
    error = np.abs(arrays["energies"][0] - arrays["true"])
    by_family(ax, summary, central, deviation, error)
    ax.set_ylim(0.01 * deviation.min(), None)  # below are chance hits
    ends = np.array([deviation.min(), deviation.max()])
    for factor, style, label in ((1, "--", "one standard deviation"), (2, ":", "two")):
        ax.loglog(ends, factor * ends, style, color="0.3", lw=0.9, label=label)
    found = summary["true_error_against"]["deviation from forces"]
    ax.set_title(f"against the reference's split: {found['spearman']:.3f}", fontsize=9)
    label_axes(
        ax,
        ("standard deviation of site energy, forces' scale", "eV"),
        ("|site-energy error|", "eV"),
    )
    ax.legend(fontsize=7)


def draw_coverage(ax: Axes, summary: Mapping) -> None:
    """How often errors lie inside their intervals, against how often they should.

    Bars: where the coverage of as few energies lies, with 95 % confidence.
    """
    for kind, marker in (("energy", "o"), ("forces", "s")):
        found = summary["calibration"][kind]
        for group, colour in zip(("validation", "near", "far"), PALETTE, strict=False):
            if kind == "energy":
                low, high = np.array(summary["energies_covered_between"][group]).T
                ax.vlines(found["expected"], low, high, color=colour, lw=0.7, alpha=0.6)
            ax.plot(
                found["expected"], found[f"covered_{group}"], marker + "-", color=colour, lw=0.9,
                mfc=colour if kind == "energy" else "white", label=f"{kind}, {group}",
            )  # fmt: skip
    ax.plot([0, 1], [0, 1], "--", color="0.3", lw=0.9)
    label_axes(ax, ("nominal coverage", None), ("observed coverage", None))
    ax.set_title("calibrated on validation cells", fontsize=9)
    ax.legend(fontsize=7)


def slope_of(found: Mapping) -> str:
    """A slope and its standard error, as text."""
    return f"{found['slope']:.4f} ± {found['slope_error']:.4f}"


def caption(summary: Mapping[str, Any]) -> str:
    """What theory expects and what came out, with this run's numbers."""
    lost = " SOME FITS ARE RANK-DEFICIENT." if summary["rank_deficient"] else ""
    parts = [about_committees(summary), about_models(summary), about_calibration(summary)]
    return "\n".join(parts) + lost


def about_committees(summary: Mapping[str, Any]) -> str:
    """What came out of the committees of one model."""
    posterior, real, white = (summary["committees"][name] for name in COMMITTEES)
    off = abs(posterior["slope"] - 1) / posterior["slope_error"]
    degree, r_cut = summary["central"]
    return (
        f"Site energies of {summary['sites']} test atoms (Stillinger–Weber silicon); LPR of the "
        f"model of degree {degree}, cutoff {r_cut:g} Å, over {summary['lpr_decades']:.1f} decades, "
        f"from {summary['training_cells']} training cells. Above, left: variance in a committee of "
        f"{summary['samples']} posterior samples; expected slope 1, found {slope_of(posterior)} "
        f"({off:.1f} standard errors off), level {posterior['level']:.3f} (1 expected). Middle: "
        f"{summary['replicates']} bootstrap fits, slope {slope_of(real)}, level "
        f"{real['level']:.2g}; with white residuals of the assumed variance slope "
        f"{slope_of(white)}, level {white['level']:.2g}. Errors of these slopes are those of the "
        "replicates; the one draw of cells and residuals that they share is not in them."
    )


def about_models(summary: Mapping[str, Any]) -> str:
    """What came out of the comparison of all models."""
    spread, truth = summary["spread_against_rigidity"], summary["true_error_against"]
    rank = {name: f"{-found['spearman']:.3f}" for name, found in spread.items()}
    return (
        "Above, right: raw standard deviation over models of all degrees, cutoffs and random "
        f"halves of the data against LPR: rank correlation {rank['all']}; over degrees and cutoffs "
        f"alone {rank['degrees and cutoffs']}, over halves alone {rank['halves']}; slope against "
        f"LPR^-1/2 {spread['all']['slope']:.2f}. Below, middle: error against the reference's own "
        "split of the energy into sites, which is not observable and which a model need not share; "
        f"rank correlation with LPR^-1/2 {truth['rigidity']['spearman']:.3f}."
    )


def about_calibration(summary: Mapping[str, Any]) -> str:
    """What came out of the calibration on validation cells."""
    energy, forces = (summary["calibration"][kind] for kind in ("energy", "forces"))
    inside = {
        name: " and ".join(
            f"{100 * found[f'covered_{group}'][-1]:.0f}" for group in ("near", "far")
        )
        for name, found in (("energy", energy), ("forces", forces))
    }
    ends = [summary["energies_covered_between"][group][-1] for group in ("near", "far")]
    between = " and ".join(f"{100 * low:.0f} to {100 * high:.0f}" for low, high in ends)
    cells = summary["cells"]
    return (
        f"Calibration: alpha {energy['alpha']:.3g} (energies per atom), {forces['alpha']:.3g} "
        f"(forces); s {energy['s']:.2g}, {forces['s']:.2g}. In 95 % intervals lie "
        f"{inside['energy']} % of the energies of the {cells['near']} near and {cells['far']} far "
        f"cells (so few leave the coverage itself anywhere from {between} %, the bars), "
        f"{inside['forces']} % of their force components, which are not independent in a cell."
    )
