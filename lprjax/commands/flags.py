"""Flags of a command line from a dataclass or function, by tyro: what JAX code uses for it.

A field's comment, on its line or above it after `#:`, is the flag's help; `Literal` lists names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any


def read_flags(
    make: Callable[..., Any], program: str, description: str | None, argv: Sequence[str] | None
) -> Any:
    """What the flags of a command line say.

    Args:
        make: a dataclass or function, whose arguments the flags are.
        program: how the command is called, for its help.
        description: shown by `--help`, its lines as they are.
        argv: the flags; those of the command line if None.

    Returns:
        What `make` returns.

    Raises:
        SystemExit: a flag is wrong (2), or help was asked for (0).
    """
    import tyro  # a tenth of a second

    # tyro keeps the lines that begin with no letter, and joins others to one that no screen holds
    text = re.sub(r"(?<=[^\n])\n(?=\w)", "\n ", description or "")
    return tyro.cli(make, prog=program, description=text, args=argv)
