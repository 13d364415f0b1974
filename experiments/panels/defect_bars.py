"""The panels of `trustworthy_bars`, part (b): error bars of relaxed defects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.harness.records import Record
from experiments.harness.style import PALETTE, label_axes

NAMES = {
    "rigidity": "s / PR^1/2",
    "sandwich": "sandwich",
    "jackknife": "jackknife",
    "pops_rms": "POPS, rms",
    "pops": "POPS, envelope",
    "left_out_scores": "error_bars",
    "largest_score": "error_bars, largest score",
    "transfer": "residual transfer",
    "audit": "audit, 1 or 2 calls",
    "first_order": "first order",
    "enclosure": "enclosure",
    "plain_bound": "plain bound",
}
CALLS = {"no call": 8, "one or two calls": 9, "reference's geometry": 12}
"""Of the reference: where in NAMES those end that need none, some, all."""
UNITS = {"geometry": "Å", "energy": "eV"}
LARGEST = "largest_score"
"""A bar of defects; see `with_largest_score`."""
TITLES = {"geometry": "geometry", "energy": "formation energy"}
SHOWN = (1e-3, 1e3)
"""Of a bar over the true error."""


def with_largest_score(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The bars of the largest score of any kind of rows.

    Formation energies and geometries are like no row of a fit, and which kind's score q counts is
    open. Bars are q |R^-T g| and 1.645 s |R^-T g|, so that their ratio is q up to one factor, of
    energies by the score of energies, of geometries by that of forces.

    Args:
        arrays: of `compute_defects`.

    Returns:
        "largest_score_geometry", Å, and "largest_score_energy", eV; none where there are no bars.
    """
    names = [f"{bar}_{q}" for bar in ("rigidity", "left_out_scores") for q in UNITS]
    if not set(names) <= set(arrays):
        return {}
    plain = {q: np.asarray(arrays[f"rigidity_{q}"], float) for q in UNITS}
    scores = [np.asarray(arrays[f"left_out_scores_{q}"], float) / plain[q] for q in UNITS]
    return {f"{LARGEST}_{q}": np.maximum(*scores) * plain[q] for q in UNITS}


def draw_ratios(ax: Axes, summary: dict, records: Sequence[Record], quantity: str) -> None:
    """Bar over true error of every fit, a row for each bar, with the share that it covers."""
    for place, bar in enumerate(NAMES):
        found = summary["bars"].get(bar, {}).get(quantity)
        ratio = np.concatenate(
            [ratios(r.arrays | with_largest_score(r.arrays), bar, quantity) for r in records]
        )
        ratio = np.clip(ratio[~np.isnan(ratio)], *SHOWN)
        colour = PALETTE[sum(place >= end for end in CALLS.values())]
        jitter = np.random.default_rng(place).uniform(-0.3, 0.3, len(ratio))
        ax.semilogx(ratio, place + jitter, ".", ms=3, alpha=0.6, color=colour)
        share = f"{found['covered']:.0%} of {found['n']}" if found and found["n"] else "none"
        ax.text(SHOWN[1] * 1.2, place, share, fontsize=7, va="center")
        if len(ratio):
            ax.plot([np.median(ratio)] * 2, [place - 0.4, place + 0.4], "-", color="k", lw=1.2)
        ax.set_yticks(range(len(NAMES)), list(NAMES.values()), fontsize=7)
    ax.axvline(1.0, color="0.4", lw=0.9)
    for end in list(CALLS.values())[:-1]:
        ax.axhline(end - 0.5, color="0.7", lw=0.7)
    ax.set_xlim(*SHOWN)
    ax.invert_yaxis()
    ax.set_xlabel("90 % bar, or far end / true error")
    ax.set_title(f"{TITLES[quantity]}; right: covered", fontsize=9)


def ratios(arrays: dict[str, Any], bar: str, quantity: str) -> np.ndarray:
    """Far end of a bar over the true error, fit by fit; NaN where there is none."""
    if not {f"{quantity}_true", f"{bar}_{quantity}"} <= set(arrays):
        return np.full(len(arrays["failed"]), np.nan)
    true = np.abs(np.asarray(arrays[f"{quantity}_true"], float))
    ends = [np.abs(np.asarray(arrays[f"{bar}_{quantity}"], float))]
    if f"{bar}_{quantity}_low" in arrays:
        ends.append(np.abs(np.asarray(arrays[f"{bar}_{quantity}_low"], float)))
    return np.max(ends, axis=0) / true


def draw_audit(ax: Axes, records: Sequence[Record], quantity: str) -> None:
    """What one call (filled) or two (open) predict against the truth, with the ranges."""
    sizes = []
    for record in records:
        a = record.arrays
        if "calls" not in a:
            continue
        for k, calls in enumerate(a["calls"]):
            if not np.isfinite(calls):
                continue
            true, found = (
                abs(float(a[name][k]))
                for name in (f"{quantity}_true", f"audit_{quantity}_predicted")
            )
            low, high = (float(a[f"audit_{quantity}{end}"][k]) for end in ("_low", ""))
            ends = sorted((abs(low), abs(high))) if low * high > 0 else [0.0, max(-low, high)]
            colour = PALETTE[["survey", "sizes", "accuracy"].index(record.point.source)]
            fill = dict(mfc="none") if calls > 1 else {}
            ax.plot([true] * 2, np.maximum(ends, 1e-12), "-", color=colour, lw=0.8, alpha=0.6)
            ax.loglog(true, found, "o", ms=3, color=colour, **fill)
            sizes.append(true)
    if sizes:
        ends = np.array([min(sizes), max(sizes)])
        ax.plot(ends, ends, "k-", lw=0.7)
        ax.set_ylim(0.3 * ends[0], 3.0 * ends[1])
    for k, source in enumerate(("crystals", "sizes", "bases")):
        ax.plot([], [], "o", color=PALETTE[k], label=source)
    ax.legend(fontsize=7)
    ax.set_title("audit: one call (filled) or two (open)", fontsize=9)
    label_axes(
        ax, (f"true {TITLES[quantity]} error", UNITS[quantity]), ("predicted", UNITS[quantity])
    )


def sentences(found: dict[str, Any]) -> str:
    """The caption of part (b), with the numbers of this run."""
    bars, within = found["bars"], found["audit_within"]

    def told(bar: str) -> str:
        return ", ".join(
            f"{TITLES[q]} {of['covered']:.0%} (median {of['ratio'][1]:.2g} times the error)"
            for q, of in bars[bar].items()
            if of["n"]
        )

    calls = ", ".join(f"{n} with {k} call{'s' * (k != '1')}" for k, n in found["calls"].items())
    return (
        f"(b) {found['fits']} fits relax a defect from the lattice, {found['failed']} of them "
        f"without reaching a minimum; true errors are those of two relaxations. Audit ({calls}): "
        f"predicted within 0.8 to 1.25 of the geometry in {within['geometry']:.0%}, within 10 % or "
        f"1 meV of the formation energy in {within['energy']:.0%}; ranges cover {told('audit')}. "
        f"Without a call 90 % bars cover: s/PR^1/2 {told('rigidity')}; error_bars "
        f"{told('left_out_scores')}, with the largest score of any kind {told('largest_score')}; "
        f"POPS envelope {told('pops')}; residual transfer "
        f"{told('transfer')}. With the reference's geometry enclosures hold for "
        f"{told('enclosure')}."
    )
