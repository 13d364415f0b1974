"""The panels of `mlearn_rigidity` and its caption, from its summary."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes

STAGES = {
    "base": "trained kinds only",
    "chosen": "+ vacancy cells chosen by log-mean rigidity",
    "whole": "whole training set",
}
RULES = {
    "loss": "variance of all labels",
    "log_rigidity": "log-mean rigidity of cell energies",
    "energies": "variance of cell energies",
    "rigidity": "mean LPR of atoms",
    "d_optimal": "D-optimal",
    "random": "random",
}
CURVES = {
    "lpr_log_mean": ("log-mean LPR of the targets", "eV⁻²"),
    "energy": ("energy error, {} vacancy cells", "meV/atom"),
    "forces": ("force error, {} vacancy cells", "eV/Å"),
}


def plot(summary: dict, records: Sequence[Record]) -> Figure:
    """The whole figure: a row for each material."""
    materials = summary["materials"]
    figure, axes = plt.subplots(
        len(materials), 5, figsize=(17, 3.3 * len(materials) + 0.8), squeeze=False
    )
    for row, (name, found) in zip(axes, materials.items(), strict=True):
        draw_groups(row[0], summary, found)
        for ax, quantity in zip(row[1:4], CURVES, strict=True):
            draw_choices(ax, found, quantity)
        draw_errors(row[4], found)
        row[0].set_title(f"{name}: {found['functions']} functions", fontsize=9)
    axes[0, 0].legend(fontsize=7, loc="upper right")
    axes[0, 1].legend(fontsize=7, title="chosen by", title_fontsize=7)
    figure.supxlabel(caption(summary), fontsize=8, ha="left", x=0.01, wrap=True)
    return figure


def draw_groups(ax: Axes, summary: dict, found: dict) -> None:
    """Median and 5-95 % range of the LPR of each group's test atoms, at each stage."""
    groups = list(found["lpr"]["base"])
    for k, (stage, label) in enumerate(STAGES.items()):
        low, median, high = np.array([found["lpr"][stage][g] for g in groups]).T
        at = np.arange(len(groups)) + 0.2 * (k - 1)
        ax.vlines(at, low, high, color=PALETTE[k], lw=2)
        ax.plot(at, median, "o", color=PALETTE[k], label=label)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    names = [f"{g}\n(trained)" if g in summary["trained_kinds"] else g for g in groups]
    ax.set_xticks(range(len(groups)), names, fontsize=7)
    ax.set_ylabel("LPR of test atoms (eV⁻²)")


def draw_choices(ax: Axes, found: dict, quantity: str) -> None:
    """A quantity against the number of cells added, a curve for each rule of choice."""
    for colour, (rule, label) in zip(PALETTE, RULES.items(), strict=False):
        curve = found["choices"][rule]
        x, y, sd = (np.asarray(curve[k]) for k in ("added", quantity, f"{quantity}_sd"))
        style = "k--" if rule == "random" else "o-"
        ax.plot(x, y, style, label=label, **({} if rule == "random" else {"color": colour}))
        if rule == "random":
            ax.fill_between(x, y - sd, y + sd, color="0.5", alpha=0.3, lw=0)
    if quantity in ("energy", "forces"):
        whole = found["test"]["whole"]["Vacancy"][quantity]
        ax.axhline(whole, color="0.5", ls=":", label="whole training set")
    label, unit = CURVES[quantity]
    label_axes(
        ax, ("vacancy cells added", None), (label.format(found["test_cells"]["Vacancy"]), unit)
    )


def draw_errors(ax: Axes, found: dict) -> None:
    """Test errors of the whole fit among published ones that were at hand."""
    for code, errors in found["published"].items():
        ax.plot(errors["energy"], errors["forces"], "o", color="0.5")
        ax.annotate(
            code, (errors["energy"], errors["forces"]), fontsize=7, xytext=(4, 3),
            textcoords="offset points",
        )  # fmt: skip
    ours = found["test"]["whole"]["all"]
    ax.plot(ours["energy"], ours["forces"], "*", ms=10, color=PALETTE[1], label="this fit")
    goal = found["best_linear_ace"]
    if goal:
        ax.axvline(
            goal["energy"], color=PALETTE[0], lw=0.8, ls="--", label="best linear ACE at hand"
        )
        ax.axhline(goal["forces"], color=PALETTE[0], lw=0.8, ls="--")
    ax.margins(0.15)
    label_axes(ax, ("energy error, test set", "meV/atom"), ("force error, test set", "eV/Å"))
    ax.legend(fontsize=7)


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    synthetic = summary["data"] == "synthetic"
    lead = (
        "SYNTHETIC DATA, not mlearn: Stillinger-Weber silicon stands in, errors compare with "
        "nothing published. "
        if synthetic
        else "mlearn data (Zuo et al., J. Phys. Chem. A 124 (2020) 731). "
    )
    return (
        f"{lead}Mean absolute errors. Trained kinds: {' and '.join(summary['trained_kinds'])}; "
        "bars: 5-95 % of the atoms of each group of test cells, dots: medians. Targets: the test "
        "set's vacancy cells, whose labels no choice sees; grey band: standard deviation "
        "over random draws; dotted: whole training set.\n"
        + "\n".join(sentence(name, found) for name, found in summary["materials"].items())
    )


def sentence(name: str, found: dict) -> str:
    """What came out for one material."""
    test, loss, lpr = found["test"]["whole"]["all"], found["loss"], found["lpr"]
    count = found["choices"]["random"]["added"][-1]
    gap = lpr["base"]["AIMD-NVT"][1] / lpr["base"]["Vacancy"][1]
    random = found["choices"]["random"]
    ratios = "; ".join(
        f"{RULES[rule]} " + ", ".join(f"{over(curve[k], random[k]):.2f}" for k in CURVES)
        for rule, curve in found["choices"].items()
        if rule != "random"
    )
    greedy = found["choices"]["log_rigidity"]
    surfaces, share = (found[n]["Surface"] for n in ("test_cells", "share_of_energy_error"))
    verdict = ""
    if found["no_worse"] is not None:
        words = ["no worse" if fine else "worse" for fine in found["no_worse"]]
        verdict = f"; than the best linear ACE at hand: energies {words[0]}, forces {words[1]}"
    return (
        f"{name}: whole fit {test['energy']:.2f} meV/atom, {test['forces']:.4f} eV/Å{verdict} "
        f"(weights E {loss['energy']:g}, V {loss['virial']:g}, by validation); {surfaces} surface "
        f"cells of {sum(found['test_cells'].values())} make {share:.0%} of that energy error. "
        f"Trained on its kinds only, median LPR of AIMD over vacancy atoms: {gap:.2g}. Log-mean "
        f"LPR, energy and force error over those of random draws, mean over up to {count} cells: "
        f"{ratios}. "
        "The first half of the cells chosen by log-mean rigidity have "
        f"{greedy['first_half_forces']:.2f} times the pool's forces. "
        "Errors at the end, and those that variance alone would leave: "
        f"{greedy['energy'][-1]:.2g} and {greedy['energy_expected'][-1]:.2g} meV/atom, "
        f"{greedy['forces'][-1]:.2g} and {greedy['forces_expected'][-1]:.2g} eV/Å."
    )


def over(curve: Sequence[float], random: Sequence[float]) -> float:
    """Geometric mean of the ratio of two curves where cells were added.

    Args:
        curve: a quantity by number of cells added, the first without any.
        random: the same under random choice.
    """
    return float(np.exp(np.mean(np.log(np.divide(curve[1:], random[1:])))))
