"""A budget as a table for notebooks, and as a figure: its terms beside predictions and truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lprjax.numerics.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"term": "#0072B2", "predicted": "#E69F00", "true": "#000000"}
"""Of Okabe and Ito, which colour-blind readers can distinguish."""
SHOWN = 1e8
"""Bars are drawn down to the largest over this, a choice: what is less is rounding at the end."""


def budget_table(budget: Any) -> Table:
    """The terms of a budget, and what its text says below them.

    Args:
        budget: a `Budget`.

    Returns:
        The table.
    """
    title, _, *rest = str(budget).splitlines()
    norm, dual, *_ = budget.units
    columns = {"norm": f"norm ({dual})", "geometry": f"geometry ({norm})", "energy": "energy (eV)"}
    columns |= {"noise": f"± ({dual})", "energy_noise": "± (eV)"}
    names = [
        name
        for name in budget.terms[0]._fields[1:]
        if "noise" not in name or any(getattr(term, name) for term in budget.terms)
    ]
    rows = [
        [" ".join(line[:17].split()), *(f"{getattr(term, name):.3e}" for name in names)]
        for term, line in zip(budget.terms, rest, strict=False)  # with the mark of an equality
    ]
    heads = ("term", *(columns.get(name, name) for name in names))
    return Table(title, heads, rows, tuple(rest[len(rows) :]))


def budget_figure(budget: Any) -> Figure:
    """Both errors: the terms, their predictions and the truth, as bars on a logarithmic scale.

    Of energies the size is drawn, hatched where it is negative. What is NaN or zero has no bar.
    Where forces are noisy, terms have their bars of noise.

    Args:
        budget: a `Budget`.

    Returns:
        A Matplotlib figure of two panels.
    """
    import matplotlib.pyplot  # noqa: F401 (notebooks learn from it how to show a figure)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    geometry, energy = figure.subplots(1, 2)
    noise = [getattr(term, "noise", 0.0) / budget.stability for term in budget.terms]
    _bars(
        geometry,
        {term.name: term.geometry for term in budget.terms},
        {
            "sum of the terms": budget.geometry_sum,
            "first order": budget.geometry_first_order,
            "enclosure, upper end": budget.enclosure.geometry_range[1],
            "plain bound": budget.geometry_bound,
        },
        budget.geometry_true,
        noise,
    )
    geometry.set_xlabel(f"geometry error ({budget.units.norm})")
    _bars(
        energy,
        {term.name: term.energy for term in budget.terms},
        {
            "first order": budget.energy_first_order,
            "enclosure, far end": max(budget.enclosure.energy_range, key=abs),
            "plain bound": budget.energy_bound,
        },
        budget.energy_true,
        [getattr(term, "energy_noise", 0.0) for term in budget.terms],
    )
    energy.set_xlabel("|error of the formation energy| (eV)")
    figure.suptitle(f"training data to L = {budget.radius:.2f} Å", fontsize="medium")
    return figure


def _bars(
    ax: Axes, terms: dict[str, float], predicted: dict[str, float], true: float, noise: list[float]
) -> None:
    names = [*terms, *predicted, "true"]
    values = np.array([*terms.values(), *predicted.values(), true], float)
    colours = ["term"] * len(terms) + ["predicted"] * len(predicted) + ["true"]
    sizes = np.where(np.isfinite(values) & (values != 0.0), np.abs(values), np.nan)
    bars = np.array([*noise, *[0.0] * (len(predicted) + 1)], float)
    drawn = ax.barh(
        range(len(names)),
        sizes,
        color=[COLOURS[colour] for colour in colours],
        xerr=np.where(bars > 0.0, bars, np.nan) if np.any(bars > 0.0) else None,
    )
    for bar, value in zip(drawn, values, strict=True):
        if value < 0.0:
            bar.set(hatch="///", facecolor="white", edgecolor=bar.get_facecolor())
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    if np.isfinite(sizes).any():
        most = float(np.nanmax(sizes))
        ax.set_xscale("log")
        ax.set_xlim(most / SHOWN, 3.0 * most)
