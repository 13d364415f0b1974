"""Which kinds of observation a fit is given, a user's files of them, and the ways it fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.structures import Labels, Structure
from lprjax.defects.budget import FAILURES

OBSERVATION_SETS = {
    "E": ("energy",),
    "EF": ("energy", "forces"),
    "EFV": ("energy", "forces", "virial"),
    "EFFC": ("energy", "forces", "force_constants"),
    "EFVFC": ("energy", "forces", "virial", "force_constants"),
}

ALL_FLAGS = ("rank_deficient", *FAILURES)
"""Data that leave coefficients undetermined; a surrogate whose Hessian at the reference's geometry
is not positive; a prediction that did not converge; one that no theorem covers, h > 1/2; a
relaxation that did not converge; one that ended in another basin."""

FLAGS = tuple(flag for flag in ALL_FLAGS if flag != "unproven")
"""What is known without stability constant and Lipschitz estimate, which h needs."""

FAILED = FLAGS[1:]
"""A rank-deficient fit is still a potential, of least prior norm: drawn red, but counted."""


def labelled_frames(
    path: str | Path, kinds: Sequence[str], entries: Sequence[str] = ()
) -> list[tuple[Structure, Labels, dict[str, Any]]]:
    """The frames of a user's file, every one with all that an experiment needs of it.

    Args:
        path: extended XYZ.
        kinds: labels, by name.
        entries: of the frame, such as `config_type`.

    Returns:
        (structure, labels, info) for each frame.

    Raises:
        ValueError: what `read_extxyz` refuses, or a frame without one of them; it is named.
    """
    frames = read_extxyz(path)
    for number, (_, labels, info) in enumerate(frames):
        absent = [kind for kind in kinds if getattr(labels, kind) is None]
        absent += [name for name in entries if name not in info]
        if absent:
            raise ValueError(
                f"{path}, frame {number} has no {' and no '.join(absent)}: wanted every frame "
                f"with {', '.join([*kinds, *entries])}."
            )
    return frames
