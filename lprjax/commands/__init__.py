"""The command `lprjax`: the library from a shell, a file for each of its subcommands."""

from lprjax.commands.command_line import main

__all__ = ["main"]
