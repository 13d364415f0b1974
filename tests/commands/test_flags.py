"""Flags from a dataclass: values, help, refusals."""

from dataclasses import dataclass

import pytest

from lprjax.commands.flags import read_flags


@dataclass(frozen=True)
class Settings:
    order: int = 3  # neighbours, 100 %
    sizes: tuple[int, ...] = (2, 3)


ABOUT = "First line,\nits second.\n\n$ run this\n$ and this"


def test_values_are_those_of_the_flags():
    assert read_flags(Settings, "run", None, []) == Settings()
    flags = "--order 4 --sizes 5 6".split()
    assert read_flags(Settings, "run", ABOUT, flags) == Settings(4, (5, 6))


def test_help_has_the_comments_and_the_lines_of_the_description(capsys):
    with pytest.raises(SystemExit) as stop:
        read_flags(Settings, "run", ABOUT, ["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert stop.value.code == 0
    assert {"First line,", "its second.", "$ run this", "$ and this"} <= set(lines)
    assert any("neighbours, 100 % (default: 3)" in line for line in lines)


@pytest.mark.parametrize("flags", ["--ord 4", "--order x", "--unknown", "more"])
def test_wrong_flags_end_with_two(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        read_flags(Settings, "run", None, flags.split())
    said = capsys.readouterr()
    assert stop.value.code == 2 and not said.out and said.err
