"""The linear atomic cluster expansion: its basis, exact rows, and potential."""

from lprjax.ace.basis import site_basis
from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.rows import Rows
from lprjax.ace.spec import ACESpec, components, smoothness_prior

__all__ = [
    "ACESpec",
    "LinearPotential",
    "Rows",
    "components",
    "linear_potential",
    "site_basis",
    "smoothness_prior",
]
