"""Wrong formulas, one at a time: what a mutation is, and the list of them, a file per package.

= file below lprjax/: the files below tests/ that should notice, quick ones first

- a text that occurs once in the file, of one line or more
+ what is put in its place
? why no test can tell: only where none does
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong formula: a text of a file of the library in place of the right one."""

    file: str  # below lprjax/
    before: str  # occurs once in the file
    after: str
    tests: tuple[str, ...]  # files below tests/ that should notice, in the order they are asked
    survives: str  # why none does; "" where one does


def every() -> list[Mutation]:
    """All mutations, package by package."""
    lists = sorted(Path(__file__).parent.glob("*.txt"))
    return [mutation for path in lists for mutation in read(path.read_text())]


def read(text: str) -> Iterator[Mutation]:
    """The mutations of one list."""
    file, tests = "", ()
    for block in text.split("\n\n"):
        lines = {mark: [] for mark in "=-+?"}
        for line in block.strip("\n").split("\n"):
            lines[line[0]].append(line[2:])
        if lines["="]:
            file, asked = lines["="][0].split(": ")
            tests = tuple(asked.split())
        else:
            before, after, reason = ("\n".join(lines[mark]) for mark in "-+?")
            yield Mutation(file, before, after, tests, reason)
