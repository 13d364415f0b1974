"""The panels of `alloy_composition` and its caption, from its summary and records."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes
from experiments.systems.alloy_sets import DESIGNS, KINDS, SETS
from experiments.systems.alloys import N_ATOMS, TRAINING

MARKERS = dict(zip(KINDS, "os^", strict=True))


def all_sites(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """What (a) has per test site, of all seeds.

    Args:
        records: of `alloy_composition`.

    Returns:
        "lpr" (designs, sites) 1/eV^2, "error" (designs, sites) eV, "species" (sites,), and
        "at_half" (sites,), whether the site is of a structure at 1:1.
    """
    arrays = [record.arrays for record in records if record.point.part == "simulated"]
    names = ("lpr", "error", "species", "at_half")
    return {name: np.concatenate([found[name] for found in arrays], axis=-1) for name in names}


def plot(summary: dict, records: Sequence[Record]) -> Figure:
    """The whole figure: (a) the simulated alloy, and (b) the measured one where it was computed."""
    n_rows = 1 + (summary["measured"] is not None)
    figure, axes = plt.subplots(n_rows, 3, figsize=(13.0, 3.9 * n_rows + 1.0), squeeze=False)
    draw_designs(axes[0, 0], summary["simulated"], "lpr")
    draw_designs(axes[0, 1], summary["simulated"], "rms_error")
    draw_scatter(axes[0, 2], all_sites(records))
    if summary["measured"]:
        for ax, name in zip(axes[1], ("lpr", "energy_mae", "force_mae"), strict=True):
            draw_curves(ax, summary["measured"], name)
    text = "\n".join(textwrap.fill(line, 205) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def draw_designs(ax: Axes, summary: dict, quantity: str) -> None:
    """LPR or error of both species at 1:1, and that of the energy of exchange, by design.

    Args:
        ax: the axes.
        summary: of the simulated alloy.
        quantity: "lpr" or "rms_error".
    """
    other = {"lpr": "exchange_rigidity", "rms_error": "exchange_error"}[quantity]
    for k, design in enumerate(summary["designs"]):
        place = k // len(KINDS) + 0.25 * (k % len(KINDS) - 1)
        marker = MARKERS[design["kinds"]]
        for shift, colour, value in zip((-0.04, 0.04), PALETTE, design[quantity], strict=False):
            ax.plot(place + shift, value, marker, color=colour)
        ax.plot(place, design[other], marker, color="0.6", mfc="none")
        if quantity == "rms_error":
            for shift, value in zip((-0.04, 0.04), design["mean_shift"], strict=True):
                ax.plot(place + shift, value, "_", ms=7, color="k")
        else:
            ax.hlines(design["bound"], place - 0.12, place + 0.12, color="k", lw=1.2)
    ax.set_yscale("log")
    ax.set_ylim(0.2 * ax.get_ylim()[0], None)  # room for the legend
    ax.set_xticks(range(len(SETS)), SETS)
    for kinds, marker in MARKERS.items():
        ax.plot([], [], marker, color="0.3", label=kinds)
    for colour, element in zip(PALETTE, summary["elements"], strict=False):
        ax.plot([], [], "-", color=colour, lw=3, label=f"sites of {element}")
    ax.plot([], [], "-", color="0.6", lw=3, label="exchange")
    black = {"lpr": "bound of the theory", "rms_error": "mean of the species"}[quantity]
    ax.plot([], [], "-", color="k", lw=1.2, label=black)
    label = {"lpr": ("rigidity", "1/eV$^2$"), "rms_error": ("true error, r.m.s.", "eV")}[quantity]
    label_axes(ax, ("training compositions", None), label)
    ax.set_title(f"(a) {'–'.join(summary['elements'])}, test sites at 1:1", fontsize=9)
    place = {"lpr": "lower right", "rms_error": "lower left"}[quantity]
    ax.legend(fontsize=6.5, ncols=2, loc=place)


def draw_scatter(ax: Axes, sites: dict[str, np.ndarray]) -> None:
    """True error of every test site against its LPR, and one standard deviation by the latter."""
    for k, (chosen, observed) in enumerate(DESIGNS):
        lpr, error = sites["lpr"][k], np.abs(sites["error"][k])
        colour = PALETTE[2 + list(SETS).index(chosen)]
        label = chosen if observed == "E" else None
        style = dict(ms=2, alpha=0.4, color=colour, label=label, rasterized=True)
        ax.loglog(lpr, error, MARKERS[observed], **style)
    ends = np.array([sites["lpr"].min(), sites["lpr"].max()])
    ax.loglog(ends, ends**-0.5, "k--", lw=1, label="LPR$^{-1/2}$")
    label_axes(ax, ("LPR", "1/eV$^2$"), ("|true error of the site energy|", "eV"))
    ax.set_ylim(1e-3, None)
    ax.set_title("(a) all test sites and designs", fontsize=9)
    ax.legend(fontsize=6.5, markerscale=3)


def draw_curves(ax: Axes, summary: dict, quantity: str) -> None:
    """A quantity of each test set (and species, for LPR) against the number of compositions.

    Args:
        ax: the axes.
        summary: of the measured alloy.
        quantity: "lpr", "energy_mae" or "force_mae".
    """
    scale = 1e3 if quantity == "energy_mae" else 1.0
    sets, elements = summary["test_sets"], summary["elements"]
    for (curve, values), style in zip(summary["curves"].items(), ("o-", "^--", "s:"), strict=True):
        table = scale * np.array(values[quantity], dtype=float)
        table = table.reshape(len(table), len(sets), -1)
        for (j, k), colour in zip(np.ndindex(table.shape[1:]), colours(table), strict=True):
            if np.isnan(table[0, j, k]):
                continue
            name = f"{elements[k]} in {sets[j]}" if quantity == "lpr" else sets[j]
            label = name if style == "o-" else None
            width = 3.0 if quantity == "lpr" and k == 0 else 1.0  # two species may coincide
            ax.plot(table[:, j, k], style, ms=3 * width**0.5, lw=width, color=colour, label=label)
        ax.plot([], [], style, ms=3, color="0.3", label=curve)
    if quantity == "force_mae":
        for colour, force in zip(PALETTE, summary["mean_forces"], strict=False):
            ax.axhline(force, color=colour, lw=0.6)
    ax.set_yscale("log")
    named = {"lpr": ("LPR, geometric mean", "1/eV$^2$"), "energy_mae": ("energy MAE", "meV/atom")}
    label_axes(ax, ("other compositions", None), named.get(quantity, ("force MAE", "eV/Å")))
    ax.set_title(f"(b) {'–'.join(elements)}, density-functional theory", fontsize=9)
    ax.legend(fontsize=6.5)


def colours(table: np.ndarray) -> list[str]:
    """One for each column that has numbers."""
    free = iter(PALETTE)
    return [next(free) if known else "k" for known in ~np.isnan(table[0]).ravel()]


def caption(summary: dict) -> str:
    """The text under the figure, with the numbers of this run."""
    text = caption_of_simulated(summary["simulated"])
    if summary["measured"]:
        return text + "\n" + caption_of_measured(summary["measured"])
    return text + f"\n(b) is left out: no folder with {TRAINING} was given (--data, LPRJAX_DATA)."


def caption_of_simulated(summary: dict) -> str:
    """What came out of (a)."""
    designs, (a, b) = summary["designs"], summary["elements"]
    fixed = [d for d in designs if not SETS[d["structures"]]]
    mixed = [d for d in designs if SETS[d["structures"]]]

    def of(name: str, these: Sequence[dict], kinds: Sequence[str] = tuple(KINDS)) -> str:
        return ranged(np.ravel([d[name] for d in these if d["kinds"] in kinds]))

    by_kinds = "; ".join(f"{kinds} {of('lpr', mixed, [kinds])}" for kinds in KINDS)
    highest = max(d["largest_lpr"] / d["bound"] for d in designs)
    ratios = [d["exchange_rigidity"] / max(d["lpr"]) for d in mixed]
    return (
        f"(a) {a}–{b} (Zhou EAM, with {summary['offset']:g} eV more per atom of {b}: a species' "
        "zero of energy is a convention, and the EAM's own, the same for both, is what the prior "
        f"takes for granted), {summary['training_structures']} cells of {N_ATOMS} atoms on four "
        f"lattices (draws: {summary['seeds']}); for other compositions as many cells at 1:1 give "
        "way. Undetermined directions without a ridge, by E, E+F and E+F+V: "
        f"{of('undetermined', fixed)} at 1:1, "
        f"and {of('undetermined', mixed)} with other compositions; LPR = 0 for "
        f"{of('vanishing', fixed)} and {of('vanishing', mixed)} of {summary['test_sites']} test "
        f"sites. With the ridge LPR at 1:1 is {of('lpr', fixed)} (twice the ridge: "
        f"{summary['twice_the_ridge']:.3g}), with other compositions {by_kinds}; largest ratio to "
        f"the bound {highest:.4f}. True errors, eV, at 1:1, where the "
        "prior alone sets the difference of the species, and otherwise: E "
        f"{of('rms_error', fixed, ['E'])}, {of('rms_error', mixed, ['E'])}; with forces "
        f"{of('rms_error', fixed, ['E+F', 'E+F+V'])}, {of('rms_error', mixed, ['E+F', 'E+F+V'])}. "
        f"Site energies are a convention too: where both ends of an {a}–{b} bond may have a share "
        f"of their own {of('undetermined_unshared', mixed)} directions stay undetermined by all "
        "data; here both get half, as in the EAM's pair part, which leaves the sharing of "
        f"many-body energy. The energy of exchanging an atom of {a} for one of {b} (grey), a "
        "difference of totals, does not ask for it: with other compositions it is "
        f"{ranged(ratios)} times more rigid than a site, and wrong by "
        f"{of('exchange_error', mixed)} eV; by {of('exchange_error', fixed)} eV at 1:1."
    )


def caption_of_measured(summary: dict) -> str:
    """What came out of (b)."""
    (curve, values), sets = next(iter(summary["curves"].items())), summary["test_sets"]

    def course(name: str, steps: Sequence[int], scale: float = 1.0) -> str:
        return "; ".join(
            f"{one} " + ", ".join(f"{scale * values[name][n][j]:.2g}" for n in steps)
            for j, one in enumerate(sets)
        )

    rises = "; ".join(
        f"{element} in {sets[j]} {values['lpr'][0][j][k]:.2g}, {values['lpr'][-1][j][k]:.2g}"
        for j, k in np.ndindex(len(sets), len(summary["elements"]))
        if not np.isnan(values["lpr"][0][j][k])
        for element in [summary["elements"][k]]
    )
    return (
        f"(b) {'–'.join(summary['elements'])}, E+F, {summary['training_structures']} cells at 1:1, "
        f"then {len(summary['others'])} other compositions one by one; numbers for “{curve}”. "
        "Energy MAE with none, one, two and all, meV/atom: "
        f"{course('energy_mae', (0, 1, 2, -1), 1e3)}. Force MAE with none and all, eV/Å: "
        f"{course('force_mae', (0, -1))}; thin lines: mean |F|. "
        f"LPR with none and all: {rises}; bound with none {summary['twice_the_ridge']:.3g}. In the "
        "pure metals no bond is shared between species. The training cells are near their lattice "
        "sites, those of the elemental test sets are not: their disorder is extrapolation."
    )


def ranged(values: Sequence[float]) -> str:
    """One number if all agree, else the least and the largest."""
    shown = dict.fromkeys(f"{v:.3g}" for v in (np.min(values), np.max(values)))
    return "…".join(shown)
