"""Tables of results, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

MOST_ROWS = 24
"""Rows that are shown: of more, the first and the last, half of this each; a choice."""


class Table(NamedTuple):
    """What results print: `str(table)` in a terminal, `_repr_html_` in a notebook.

    Attributes:
        title: one line.
        columns: headings, with units; the first is that of the rows' names.
        rows: texts, one for each column.
        notes: lines below.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        to_left = [True, *[False] * (len(self.columns) - 1)]
        body = aligned([self.columns, *self._shown()], to_left)
        return "\n".join([self.title, *body, *self.notes])

    def _repr_html_(self) -> str:
        def cells(tag: str, texts: Sequence[str]) -> str:
            side = ["left", *["right"] * len(texts)]
            return "".join(
                f'<{tag} style="text-align: {where}">{html.escape(text)}</{tag}>'
                for where, text in zip(side, texts, strict=False)
            )

        rows = [f"<tr>{cells('td', row)}</tr>" for row in self._shown()]
        notes = [f"<div>{html.escape(note)}</div>" for note in self.notes]
        return "\n".join(
            [
                f"<table><caption>{html.escape(self.title)}</caption>",
                f"<thead><tr>{cells('th', self.columns)}</tr></thead>",
                *["<tbody>", *rows, "</tbody></table>"],
                *notes,
            ]
        )

    def _shown(self) -> list[Sequence[str]]:
        if len(self.rows) <= MOST_ROWS:
            return list(self.rows)
        half = MOST_ROWS // 2
        return [*self.rows[:half], ["..."] * len(self.columns), *self.rows[-half:]]


def aligned(rows: Sequence[Sequence[str]], to_left: Sequence[bool]) -> list[str]:
    """Lines of equal columns.

    Args:
        rows: texts, one for each column.
        to_left: of each column whether its texts begin where it does; others end where it ends.

    Returns:
        A line for each row, without spaces at its end.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, to_left, strict=True)
        ).rstrip()
        for row in rows
    ]
