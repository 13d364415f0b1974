"""What a mutation is."""

from collections.abc import Mapping
from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong formula: a text of a file of the library in place of the right one."""

    file: str  # below lprjax/
    before: str  # occurs once in the file
    after: str
    tests: tuple[str, ...]  # files below tests/ that should notice, in the order they are asked
    survives: str  # why none can; "" where one does


def wrong(
    file: str, tests: str, lines: Mapping[str, str | tuple[str, str]]
) -> tuple[Mutation, ...]:
    """Mutations of one file: the right text -> the wrong one, or (the wrong one, why it survives)."""
    asked = tuple(tests.split())
    pairs = ((before, (after, "") if isinstance(after, str) else after) for before, after in lines.items())
    return tuple(Mutation(file, before, after, asked, reason) for before, (after, reason) in pairs)
