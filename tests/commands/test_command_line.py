"""The command as a whole: exit codes, what goes where, and how soon help is there."""

import pkgutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import jax
import pytest

from lprjax.commands import main
from lprjax.commands.command import Outcome
from lprjax.commands.command_line import COMMANDS
from lprjax.commands.info_command import Flags

ROOT = Path(__file__).parents[2]


def test_the_entry_point_is_this_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pkgutil.resolve_name(project["scripts"]["lprjax"]) is main


def test_help_names_every_subcommand_and_loads_nothing_slow():
    code = "import sys\nfrom lprjax.commands import main\nassert main(['--help']) == 0\n"
    code += "for n in sys.argv[1:]: assert main([n, '--help']) == 0\n"
    code += "assert not {'jax', 'scipy', 'matplotlib'} & set(sys.modules)"
    run = [sys.executable, "-c", code, *COMMANDS]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"$ lprjax {name}" in done.stdout  # an example of each


def test_the_package_runs_as_the_command():
    run = [sys.executable, "-m", "lprjax", "--help"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "lprjax" in done.stdout
    done = subprocess.run([*run[:3], "nothing"], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 2


def test_without_a_subcommand_it_says_what_there_is(refused):
    refused("fit, evaluate, rigidity, choose, budget, audit, defects, info")
    refused("Available subcommands: fit, evaluate", "fitt")
    refused("Unrecognized options: --modle", "info", "--modle", "x")


def failing(error):
    def run(self, say):
        say("for people")
        warnings.warn("a note", stacklevel=1)
        raise error

    return run


@pytest.mark.parametrize(
    "error, code, message",
    [
        (ValueError("x is 3: wanted 4."), 2, "lprjax info: x is 3: wanted 4."),
        (FileNotFoundError(2, "No such file", "a.xyz"), 2, "lprjax info: there is no a.xyz"),
        (PermissionError(13, "Permission denied", "a.xyz"), 2, "a.xyz: Permission denied"),
        (RuntimeError("it did not converge"), 1, "lprjax info: it did not converge"),
        (KeyboardInterrupt(), 130, "lprjax info: interrupted"),
    ],
)
def test_what_fails_says_so_without_a_traceback(error, code, message, monkeypatch, refused):
    monkeypatch.setattr(Flags, "run", failing(error))
    assert refused(message, "info", code=code) == "for people\n"
    refused("lprjax info: note: a note", "info", code=code)


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(Flags, "run", failing(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        main(["info"])


def test_json_is_all_that_the_standard_output_has(monkeypatch, summary):
    def run(self, say):
        say("for people")
        return Outcome({"a": float("inf"), "b": (1, 2)}, ["this failed"])

    monkeypatch.setattr(Flags, "run", run)
    found = summary("info", code=1)
    assert found == {"command": "info", "a": None, "b": [1, 2], "failures": ["this failed"]}


def test_every_command_computes_in_float64(shell):
    jax.config.update("jax_enable_x64", False)
    try:
        code, out, _ = shell("info")
        assert code == 0 and "float64: True" in out
        assert jax.numpy.zeros(1).dtype == "float64"
    finally:
        jax.config.update("jax_enable_x64", True)
