"""Tables hold the same in a terminal and in a notebook."""

import xml.etree.ElementTree as ET

from lprjax.numerics.tables import MOST_ROWS, Table

TABLE = Table(
    "a < b", ("term", "size (Å)"), [("core", "1.5"), ("<elastic> & more", "0.25")], ("x&y",)
)


def html_of(table):
    """Rows of cells, and notes, as a parser finds them."""
    root = ET.fromstring(f"<html>{table._repr_html_()}</html>")
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    return root.find(".//caption").text, rows, [note.text for note in root.findall("div")]


def test_text_is_aligned_names_to_the_left_numbers_to_the_right():
    assert str(TABLE).split("\n") == [
        "a < b",
        "term              size (Å)",
        "core                   1.5",
        "<elastic> & more      0.25",
        "x&y",
    ]


def test_html_holds_the_same_texts():
    title, rows, notes = html_of(TABLE)
    assert title == TABLE.title and notes == list(TABLE.notes)
    assert rows == [list(TABLE.columns), *map(list, TABLE.rows)]


def test_of_many_rows_the_ends_are_shown():
    table = Table("", ("k",), [(str(k),) for k in range(MOST_ROWS + 1)])
    _, rows, _ = html_of(table)
    shown = [row[0] for row in rows[1:]]
    assert len(shown) == MOST_ROWS + 1 and shown[MOST_ROWS // 2] == "..."
    assert shown[0] == "0" and shown[-1] == str(MOST_ROWS)
    assert str(table).split("\n")[2:] == shown
    assert len(html_of(table._replace(rows=table.rows[1:]))[1]) == MOST_ROWS + 1
