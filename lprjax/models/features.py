"""The scale of ACE functions over given environments, for models that are not linear in them."""

import numpy as np
from jax.typing import ArrayLike

from lprjax.ace.spec import ACESpec
from lprjax.numerics.checks import as_float64

SMALLEST = 1e-8
"""What varies by less than this share of the largest function's size is taken for rounding: a
choice, far above the rounding of float64 (1e-16)."""


def column_statistics(spec: ACESpec, environments: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each ACE function over the sites of its own species.

    A deviation is at least SMALLEST times the species' largest root mean square, so that rounding
    of a function which symmetry forbids is not blown up to the size of the others.

    Args:
        spec: without a constant, which has no deviation.
        environments: (n, n_columns), rows of `site_basis`, dimensionless; rows of zeros (padding,
            isolated atoms) do not count.

    Returns:
        mean and deviation, (n_columns,) each, dimensionless.

    Raises:
        ValueError: another shape; NaN or infinity; an element without environment; a constant in
            the basis.
        TypeError: other than float64 or integers; no spec.
    """
    if not isinstance(spec, ACESpec):
        raise TypeError(f"spec is a {type(spec).__name__}: wanted an ACESpec.")
    if spec.constant:
        raise ValueError(
            "spec.constant is True: wanted a basis without the constant, which tells sites apart "
            "in no kernel or network; use constant=False."
        )
    rows = np.asarray(as_float64("environments", environments))
    if rows.ndim != 2 or rows.shape[1] != spec.n_columns or not len(rows):
        raise ValueError(
            f"environments have shape {rows.shape}: wanted (n, {spec.n_columns}), rows of "
            "site_basis, at least one; use site_basis(spec, graph)."
        )
    if not np.isfinite(rows).all():
        raise ValueError(
            "environments hold NaN or infinity: wanted finite numbers; leave those structures out."
        )
    blocks = rows.reshape(len(rows), len(spec.elements), -1)
    present = (blocks != 0).any(axis=2)
    counts = present.sum(axis=0)
    absent = [e for e, count in zip(spec.elements, counts, strict=True) if count == 0]
    if absent:
        raise ValueError(
            f"environments hold no atom of {', '.join(absent)} with a neighbour: wanted one of "
            "each element; add some, or leave the element out of the ACESpec."
        )
    mean = blocks.sum(axis=0) / counts[:, None]
    centred = np.where(present[..., None], blocks - mean, 0.0)
    rms, deviation = (np.sqrt((x**2).sum(axis=0) / counts[:, None]) for x in (blocks, centred))
    least = SMALLEST * rms.max(axis=1, keepdims=True)
    return mean.ravel(), np.maximum(deviation, least).ravel()
