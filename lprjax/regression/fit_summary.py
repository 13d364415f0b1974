"""What a fit says of itself: a table of its residuals, and a figure with its singular values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lprjax.atoms.structures import label_shapes
from lprjax.numerics.tables import Table
from lprjax.regression.factors import RCOND, kind_of, singular_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {kind: unit for kind, (_, unit) in label_shapes(None).items()}
"""Of the kinds of observations; a fit does not know whether they are per cell or per atom."""


def fit_table(fit: Any) -> Table:
    """Residuals of each kind and group: how many, how large, their weight, their share of the loss.

    Args:
        fit: a `Fit`.

    Returns:
        The table.
    """
    squares = {
        key: n * (fit.weights[key] * fit.rms[key]) ** 2 if n else 0.0
        for key, n in fit.n_rows.items()
    }
    whole = math.fsum(squares.values())
    rows = [
        [
            _name(key),
            f"{n}",
            f"{fit.rms[key]:.4g}",
            _unit(key),
            f"{fit.weights[key]:.4g}",
            f"{square / whole:.1%}" if whole else "",
        ]
        for (key, square), n in zip(squares.items(), fit.n_rows.values(), strict=True)
    ]
    size = len(fit.coefficients)
    open_ones = "" if fit.rank == size else f", {size - fit.rank} UNDETERMINED by the data"
    return Table(
        f"Fit of {size} coefficients to {sum(fit.n_rows.values())} observations",
        ("observations", "number", "rms", "unit", "weight", "of their loss"),
        rows,
        (
            f"rank {fit.rank}{open_ones}; ridge {fit.ridge:.3g}"
            + ("" if fit.prior is None else ", with a prior"),
            "energies and virials are of the cell or per atom, as the rows were compressed",
        ),
    )


def fit_figure(fit: Any) -> Figure:
    """Root mean squares by group, a panel for each kind, and the factor's singular values.

    Args:
        fit: a `Fit`.

    Returns:
        A Matplotlib figure.
    """
    import matplotlib.pyplot  # noqa: F401 (notebooks learn from it how to show a figure)
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind_of(key) for key in fit.rms))
    figure = Figure(figsize=(3.2 * (len(kinds) + 1), 3.2), layout="constrained")
    *panels, last = figure.subplots(1, len(kinds) + 1, squeeze=False)[0]
    for ax, kind in zip(panels, kinds, strict=True):
        mine = {key: rms for key, rms in fit.rms.items() if kind_of(key) == kind}
        ax.barh(range(len(mine)), list(mine.values()), height=0.6)
        ax.set_yticks(range(len(mine)), [_group(key) for key in mine])
        ax.set_ylim(len(mine) - 0.3, -0.7)  # the first on top
        ax.ticklabel_format(axis="x", scilimits=(-2, 3))
        unit = _unit(next(iter(mine)))
        ax.set_xlabel(f"rms of {kind}" + (f" ({unit})" if unit else ""))
    values = singular_values(fit.factor)
    shown = values / values[0] if values[0] > 0 else values
    last.semilogy(np.arange(1, len(shown) + 1), np.where(shown > 0, shown, np.nan))
    last.axhline(RCOND, color="0.5", ls="--", lw=0.9)
    last.set_xlabel("number of the singular value")
    last.set_ylabel("singular value / largest")
    last.set_title(
        f"factor, columns at unit norm: rank {fit.rank} of {len(shown)}", fontsize="small"
    )
    return figure


def _unit(key: Any) -> str:
    return UNITS.get(kind_of(key), "")


def _group(key: Any) -> str:
    return " ".join(map(str, key[1:])) if isinstance(key, tuple) else "all"


def _name(key: Any) -> str:
    return f"{kind_of(key)}, {_group(key)}" if isinstance(key, tuple) else str(key)
