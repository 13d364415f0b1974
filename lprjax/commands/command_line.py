"""The command line: which subcommand, how it ends, and what is said where.

With --json the last line of the standard output is one object of strict JSON, and nothing else is
on it: what is for people goes to the standard error. Bars of progress and warnings always do.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Generator, Sequence
from typing import Any

COMMANDS = {
    "fit": "fit a potential to labelled cells; errors, parity plot, rigidities",
    "evaluate": "predictions for cells, and errors where they have labels",
    "rigidity": "how far each atom is known: LPR, deviations of energy and force",
    "choose": "which cells of a pool to label next",
    "budget": "what is wrong with a defect simulated with a surrogate, and why",
    "audit": "how wrong a relaxed defect is, from one call of the reference",
    "defects": "relaxed formation energies of point defects",
    "info": "this installation, or what a model file holds",
}
"""The subcommands, and what each does: `NAME_command.py` has it, as its class `Flags`."""

ABOUT = """Fits of linear potentials, what they are worth, and what to do next.

$ lprjax fit train.xyz --test test.xyz -o model.npz
$ lprjax rigidity model.npz cells.xyz -o rigidity.xyz
$ lprjax budget --reference zhou --surrogate model.npz --crystal bcc W

Each has examples and flags of its own: lprjax fit --help.

Exit codes: 0 fine; 1 a computation that failed, or whose result is not to be trusted; 2 wrong
flags or input."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `lprjax`.

    Args:
        argv: subcommand and flags; those of the command line if None.

    Returns:
        The exit code: 0 fine, 1 a computation that failed or was refused, 2 wrong flags or input,
        130 interrupted.
    """
    if "jax" not in sys.modules:  # what XLA says of its own files in the cache
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    try:
        command = _command(name, argv)
    except SystemExit as end:  # after help, or what was wrong with a flag
        return int(end.code or 0)
    _begin()
    with _warnings_in_words(name):
        try:
            outcome = command.run(_say_aside if command.json else _say)
        except FileNotFoundError as error:
            return _refused(name, f"there is no {error.filename}: wanted a file that can be read.")
        except OSError as error:
            return _refused(name, f"{error.filename}: {error.strerror or error}")
        except (ValueError, TypeError, NotImplementedError) as error:
            return _refused(name, str(error))
        except RuntimeError as error:
            return _refused(name, str(error), 1)
        except KeyboardInterrupt:
            return _refused(name, "interrupted; files are written whole, or not at all", 130)
    for failure in outcome.failures:
        _say_aside(f"lprjax {name}: {failure}")
    if command.json:
        from lprjax.numerics.plain_values import json_line

        summary = {"command": name, **outcome.summary, "failures": list(outcome.failures)}
        print(json_line(summary), flush=True)
    return 1 if outcome.failures else 0


def _command(name: str, argv: list[str]) -> Any:
    """What the flags say: an instance of the subcommand's `Flags`."""
    from lprjax.commands.flags import read_flags

    if name not in COMMANDS:
        return _whole_command(argv)
    module = importlib.import_module(f"lprjax.commands.{name}_command")
    return read_flags(module.Flags, f"lprjax {name}", module.__doc__, argv[1:])


def _whole_command(argv: list[str]) -> Any:
    """Help, or what is wrong, where no subcommand is named."""
    import tyro

    def described(text: str) -> Any:
        def command() -> None:
            raise SystemExit(2)

        command.__doc__ = text
        return command

    commands = {name: described(text) for name, text in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="lprjax", description=ABOUT, args=argv, sort_subcommands=False
    )


def _begin() -> None:
    """What every computation begins with: float64, what others compiled, modules from here."""
    import jax

    from lprjax.numerics.memory import use_compilation_cache

    jax.config.update("jax_enable_x64", True)
    use_compilation_cache()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, for one's own module:function


def _say(text: str) -> None:
    print(text, flush=True)


def _say_aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _refused(name: str, text: str, code: int = 2) -> int:
    _say_aside(f"lprjax {name}: {text}")
    return code


@contextlib.contextmanager
def _warnings_in_words(name: str) -> Generator[None]:
    """Warnings without the line of code that they come from."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        _say_aside(f"lprjax {name}: note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        setattr(warnings, "showwarning", show)  # noqa: B010 (its type is that of one function)
        yield
