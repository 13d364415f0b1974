"""Sparse kernel models and neural networks: the same rows and rigidities; and files of any model.

Networks load flax and optax, which takes seconds: they are imported when first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lprjax.models.features import column_statistics
from lprjax.models.files import SavedFit, load, save
from lprjax.models.kernels import (
    KernelPotential,
    kernel_potential,
    site_features,
    unseen_variance,
)

if TYPE_CHECKING:
    from lprjax.models.networks import (
        LastLayer,
        NetworkPotential,
        Training,
        last_layer,
        network_potential,
        train,
    )

__all__ = [
    "KernelPotential",
    "LastLayer",
    "NetworkPotential",
    "SavedFit",
    "Training",
    "column_statistics",
    "kernel_potential",
    "last_layer",
    "load",
    "network_potential",
    "save",
    "site_features",
    "train",
    "unseen_variance",
]


def __getattr__(name: str) -> Any:
    """Networks, which load flax and optax, when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lprjax.models.networks"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
