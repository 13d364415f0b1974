"""Wrong lines, one at a time, which tests are to notice: `python -m tests.helpers.mutations`.

A file for each package of the library lists them.
"""

import importlib
import pkgutil

from tests.helpers.mutations.table import Mutation


def every() -> list[Mutation]:
    """All mutations, package by package."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("__main__", "table")]
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
    return [mutation for module in modules for mutation in module.MUTATIONS]
