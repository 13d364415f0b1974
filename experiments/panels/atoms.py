"""Structures drawn with a colour per atom: bonds, depth, and a scale of rigidities."""

import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure

VIEW = (8.0, -6.0)
"""Degrees by which the crystal axes are turned about x and y, so that rows of atoms open."""
FAR = 0.45
"""How much of the background the farthest atom takes on."""


def draw_atoms(
    ax: Axes,
    structure: Structure,
    values: ArrayLike,
    *,
    bond: float,
    label: str | None = "log10 LPR",
    limits: tuple[float, float] | None = None,
    marked: np.ndarray | None = None,
    colours: str = "viridis",
    size: float = 130.0,
) -> ScalarMappable:
    """Draw the atoms projected on the plane, coloured by the logarithm of positive values.

    Near atoms are larger, and far ones fade. Bonds to periodic images are drawn as stubs. A value
    of 0 is drawn black and an infinite one white, with the ends of the colour bar to say so.

    Args:
        ax: the axes.
        structure: n atoms.
        values: (n,) >= 0, rigidities.
        bond: atoms closer than this are joined by a line, Å.
        label: of the colour bar; None draws no bar, where panels share one.
        limits: of the colour scale, in log10; those of the finite values if None.
        marked: (n,) bool, atoms that get a thick ring.
        colours: one of Matplotlib's maps, safe for the colour-blind (viridis, cividis).
        size: of the nearest atom, points^2.

    Returns:
        the colour scale, for a bar that panels share.

    Raises:
        ValueError: values are not one per atom, or one is negative or NaN.
    """
    values, marked = (
        np.asarray(values),
        np.zeros(structure.n_atoms, bool) if marked is None else marked,
    )
    if values.shape != (structure.n_atoms,) or not (values >= 0.0).all():
        raise ValueError(
            f"values is an array of shape {values.shape}: wanted one >= 0 per atom, "
            f"({structure.n_atoms},)."
        )
    scale = colour_scale(values, limits, colours)
    with np.errstate(divide="ignore"):
        faces = scale.to_rgba(np.log10(values))
    positions, turn = wrapped(structure), turned(VIEW)
    places = positions @ turn.T
    nearness = (places[:, 2] - places[:, 2].min()) / max(np.ptp(places[:, 2]), 1e-9)
    draw_bonds(ax, structure, positions, turn, nearness, bond)
    paper = np.array(to_rgb(ax.get_facecolor()))
    order = np.argsort(nearness)
    fade = FAR * (1.0 - nearness)[:, None]
    faces[:, :3] = (1.0 - fade) * faces[:, :3] + fade * paper[None, :]
    edges = (1.0 - fade) * np.array(to_rgb("0.15"))[None, :] + fade * paper[None, :]
    ax.scatter(
        places[order, 0], places[order, 1], s=size * (0.35 + 0.65 * nearness[order]),
        c=faces[order], edgecolors=edges[order], linewidths=np.where(marked, 1.8, 0.4)[order],
        zorder=3,
    )  # fmt: skip
    ax.set_aspect("equal")
    ax.set_axis_off()
    if label is not None:
        outside = [np.isinf(values).any(), (values == 0.0).any()]
        extend = {(0, 0): "neither", (1, 0): "max", (0, 1): "min", (1, 1): "both"}[tuple(outside)]
        ax.figure.colorbar(scale, ax=ax, label=label, shrink=0.8, extend=extend)
    return scale


def colour_scale(
    values: np.ndarray, limits: tuple[float, float] | None = None, colours: str = "viridis"
) -> ScalarMappable:
    """Colours by log10 of values.

    Args:
        values: any shape.
        limits: of the scale, in log10; those of the finite and positive values if None.
        colours: one of Matplotlib's maps.

    Returns:
        the scale: black below the limits, white above them.
    """
    shown = values[np.isfinite(values) & (values > 0.0)]
    if limits is None:
        limits = (np.log10(shown.min()), np.log10(shown.max())) if shown.size else (0.0, 1.0)
    colour_map = colormaps[colours].with_extremes(under="black", over="white")
    return ScalarMappable(Normalize(*limits), colour_map)


def wrapped(structure: Structure) -> np.ndarray:
    """Positions inside the cell along its periodic directions.

    Args:
        structure: n atoms.

    Returns:
        (n, 3) Å.
    """
    cell = np.asarray(structure.cell)
    fractions = np.asarray(structure.positions) @ np.linalg.inv(cell)
    return (fractions - np.floor(fractions) * np.array(structure.pbc, float)) @ cell


def turned(degrees: tuple[float, float]) -> np.ndarray:
    """The rotation about x and then y.

    Args:
        degrees: the two angles.

    Returns:
        (3, 3).
    """
    (cx, cy), (sx, sy) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    return np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]]) @ about_x


def draw_bonds(
    ax: Axes,
    structure: Structure,
    positions: np.ndarray,
    turn: np.ndarray,
    nearness: np.ndarray,
    bond: float,
) -> None:
    """Each atom's half of its bonds, far ones first.

    Args:
        ax: the axes.
        structure: n atoms.
        positions: (n, 3) Å, inside the cell.
        turn: (3, 3) rotation to the plane of the drawing.
        nearness: (n,) 0 for the farthest atom, 1 for the nearest.
        bond: atoms closer than this are joined, Å.
    """
    graph = build_graph(
        Structure(positions, structure.cell, structure.species, structure.pbc), bond
    )
    atoms, slots = np.nonzero(np.asarray(graph.edge_mask))
    vectors = np.asarray(graph.vectors())[atoms, slots]
    ends = np.stack([positions[atoms], positions[atoms] + 0.5 * vectors], axis=1) @ turn.T
    order = np.argsort(nearness[atoms])
    shades = 0.35 + 0.5 * (1.0 - nearness[atoms][order])
    greys = np.repeat(shades[:, None], 3, axis=1)
    ax.add_collection(LineCollection(ends[order][:, :, :2], colors=greys, linewidths=1.4, zorder=2))
