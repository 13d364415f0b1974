"""What a figure must show: panels, units on their axes, its caption, its data, theory's slopes."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter

COLORBAR = "<colorbar>"  # matplotlib's name of such axes


def check_figure(
    figure: Figure, png: Path, printed: str, panels: int, pure: tuple[str, ...] = ()
) -> list[Axes]:
    """The panels of a figure, all of which hold data and have a quantity and a unit on each axis.

    The file is a picture of it, and what the run printed before its last line ends with the
    caption that stands below, line breaks aside.

    Args:
        figure: as it was saved.
        png: its file.
        printed: by the run; empty for a figure without a caption.
        panels: how many axes are to be seen, colour bars apart.
        pure: labels of pure numbers, counts and categories, which have no unit.

    Returns:
        the panels.
    """
    assert np.ptp(plt.imread(png)) == 1.0, "black on white"
    caption = " ".join(figure.get_supxlabel().split())
    said = " ".join(" ".join(printed.splitlines()[:-1]).split())
    assert bool(caption) == bool(printed) and said.endswith(caption)
    shown = [ax for ax in figure.axes if ax.axison]
    for ax in shown:
        assert ax.has_data() or ax.get_label() == COLORBAR, ax.get_title()
        for axis in (ax.xaxis, ax.yaxis):
            label = label_of(axis, shown)
            good = label is None or label in pure or re.search(r"\([^()]*\S[^()]*\)$", label)
            assert good, f"no unit: {ax.get_title()!r}, {label!r}"
    seen = [ax for ax in shown if ax.get_label() != COLORBAR]
    assert len(seen) == panels
    return seen


def label_of(axis: Axis, shown: list[Axes]) -> str | None:
    """The label of an axis, or of one of its grid's outer panels; None if its ticks are names or
    if it has none."""
    if axis.get_label_text():
        return axis.get_label_text()
    formatter = axis.get_major_formatter()
    names = formatter.seq if isinstance(formatter, FixedFormatter) else ()
    if not len(axis.get_ticklocs()) or any(re.search("[A-Za-z]{2}", name) for name in names):
        return None
    if axis.axes.get_label() == COLORBAR:
        return None  # it has one axis
    grid, name = axis.axes.get_gridspec(), axis.axis_name
    others = (getattr(ax, f"{name}axis") for ax in shown if ax.get_gridspec() is grid)
    return next((other.get_label_text() for other in others if other.get_label_text()), "")


def drawn_line(ax: Axes, x: object, y: object) -> Line2D:
    """The line of a panel that goes through exactly these points, NaN among them."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    for line in ax.lines:
        points = np.asarray(line.get_xydata(), float)
        if points.shape == (len(x), 2) and np.array_equal(
            points, np.stack([x, y], axis=1), equal_nan=True
        ):
            return line
    raise AssertionError(f"{ax.get_title()!r} draws no line through {x}, {y}")


def power_of(line: Line2D) -> float:
    """The exponent of a line that is a power law from end to end."""
    x, y = np.log(np.asarray(line.get_xydata(), float)).T
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    np.testing.assert_allclose(y - y[0], slope * (x - x[0]), atol=1e-9)
    return float(slope)
