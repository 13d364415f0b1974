"""Which kinds of observation a fit is given, and the ways in which it fails."""

from lprjax.defects.budget import FAILURES

OBSERVATION_SETS = {
    "E": ("energy",),
    "EF": ("energy", "forces"),
    "EFV": ("energy", "forces", "virial"),
    "EFFC": ("energy", "forces", "force_constants"),
    "EFVFC": ("energy", "forces", "virial", "force_constants"),
}

FLAGS = ("rank_deficient", *FAILURES)
"""Data that leave coefficients undetermined; a surrogate whose Hessian at the reference's geometry
is not positive; a prediction that did not converge; a relaxation that did not; one that ended in
another basin."""

FAILED = FAILURES
"""A rank-deficient fit is still a potential, of least prior norm: drawn red, but counted."""
