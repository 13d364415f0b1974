"""What the subcommands share: the flag --json, how one ends, checks of what one is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import FlagCreatePairsOff

Say = Callable[[str], None]
"""What prints a line for people: to the standard output, or aside with --json."""


class Outcome(NamedTuple):
    """How a subcommand ended."""

    summary: Mapping[str, Any]  # of --json
    failures: Sequence[str] = ()  # what failed, in words; the exit code is then 1


@dataclass(frozen=True, kw_only=True)
class Command:
    """The flags of every subcommand."""

    #: one line of strict JSON on the standard output, and all else on the standard error
    json: FlagCreatePairsOff[bool] = False


@dataclass(frozen=True, kw_only=True)
class ReferenceCommand(Command):
    """The flags of those that take references."""

    #: folder where the results of ase: calculators are kept, so that none is computed twice; give
    #: another after a change of a calculator; "": keep none
    cache: str = "lprjax_calls"


def assignments(name: str, words: Sequence[str]) -> dict[str, str]:
    """What words such as "energy=30" say.

    Args:
        name: of the flag, for the message.
        words: of the command line.

    Returns:
        Key -> value, as text.

    Raises:
        ValueError: a word without `=`, or a key that is there twice.
    """
    found: dict[str, str] = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not (key and mark and value) or key in found:
            raise ValueError(f"{name} has {word!r}: wanted words such as energy=30, each key once.")
        found[key] = value
    return found


def checked_output(path: Path | None, *ends: str) -> Path | None:
    """Where a file goes, refused before anything costs time.

    Args:
        path: of the file, or None.
        ends: how its name may end; none: any name.

    Returns:
        The path.

    Raises:
        ValueError: another end, or a folder that is not there.
    """
    if path is None:
        return None
    if ends and not path.name.endswith(ends):
        raise ValueError(f"output is {path}: wanted a name that ends in {' or '.join(ends)}.")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise ValueError(f"output is {path}: wanted a file in a folder that there is.")
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as strict JSON, in one step.

    Args:
        path: of the file.
        values: see `plain_values`.

    Raises:
        TypeError: as `plain_values`.
    """
    import json

    from lprjax.numerics.disk import write_text
    from lprjax.numerics.plain_values import plain_values

    write_text(path, json.dumps(plain_values(values), indent=2, allow_nan=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for people: text to the left, numbers with four digits to the right.

    Args:
        columns: their names.
        rows: of text, integers and floats.

    Returns:
        Lines of equal columns.
    """
    from lprjax.numerics.tables import aligned  # loads JAX, which `--help` does not need

    text = [[_cell(value) for value in row] for row in rows]
    left = [all(isinstance(value, str) for value in column) for column in zip(*rows, strict=True)]
    left = left or [True] * len(columns)
    return "\n".join(aligned([columns, *text], left))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
