"""Put each wrong line into a copy of the library and see whether a test fails.

    python -m tests.helpers.mutations [--only regression crystals] [--file eam] [--report FILE]

A mutation is killed where a test fails that passes on the right code, survives where all of its
files pass, and is undecided where they take too long or fail anyway. Two hours for all of them; a
change of a file costs its own, `--file NAME`.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tests.helpers.mutations.table import Mutation, every

ROOT = Path(__file__).parents[3]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "paper_figures", "results")
ROW = "{:<10} {:<32} {}   {}".format
Verdict = tuple[str, str, Mutation]
"""What became of a mutation, and the test that decided it."""


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Run, and print what becomes of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="packages of the library, e.g. crystals")
    parser.add_argument("--file", default="", help="only files whose name has this in it")
    parser.add_argument("--survivors", action="store_true", help="only those noted as survivors")
    parser.add_argument("--seconds", type=float, default=180.0, help="allowed for each mutation")
    parser.add_argument("--report", type=Path, help="markdown file for the table")
    flags = parser.parse_args(argv)
    chosen = [
        m
        for m in every()
        if (flags.only is None or m.file.split("/")[0] in flags.only)
        and flags.file in m.file
        and (m.survives or not flags.survivors)
    ]
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        keep_all_compiled(tree)
        for mutation in (bar := tqdm(chosen, desc="mutations")):
            verdict, by = outcome(mutation, tree, flags.seconds)
            found.append((verdict, by, mutation))
            bar.write(ROW(verdict, mutation.file, short(mutation), by), file=sys.stdout)
            sys.stdout.flush()
        found = without_blind(found, tree, flags.seconds)
    for verdict, by, mutation in found:
        if verdict != "killed" and not mutation.survives:
            print(ROW(verdict, mutation.file, short(mutation), by))
    if flags.report:
        flags.report.write_text(report(found))
    print(dict(Counter(verdict for verdict, _, _ in found)))
    return found


def keep_all_compiled(tree: Path) -> None:
    """Have the tests of the copy keep what compiles quickly, too: it is the same every time."""
    file = tree / "lprjax" / "numerics" / "memory.py"
    file.write_text(file.read_text().replace("QUICK = 0.2", "QUICK = 0.0"))


def outcome(mutation: Mutation, tree: Path, seconds: float) -> tuple[str, str]:
    """The verdict, and the test that decided it."""
    file = tree / "lprjax" / mutation.file
    right = file.read_text()
    file.write_text(right.replace(mutation.before, mutation.after))
    try:
        for name in mutation.tests:
            failed = failing(tree, ["-x", f"tests/{name}.py"], seconds)
            if failed is None:
                return "undecided", name
            if failed:
                return "killed", failed[0]
    finally:
        file.write_text(right)
    return "survives", ""


def failing(tree: Path, arguments: list[str], seconds: float) -> list[str] | None:
    """Names of the tests that fail, or of what pytest was asked where it gets to none; None: late.

    No bytecode is kept: Python would take that of a file of the same size and second for its own.
    """
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what tests started ends with them
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    named = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return named or (arguments[-1:] if process.returncode else [])


def without_blind(found: list[Verdict], tree: Path, seconds: float) -> list[Verdict]:
    """The verdicts, but undecided where the test that failed does so on the right code too."""
    killers = sorted({by for verdict, by, _ in found if verdict == "killed"})
    blind = failing(tree, killers, seconds * len(killers)) if killers else []
    blind = killers if blind is None else blind
    return [("undecided", by, m) if by in blind else (verdict, by, m) for verdict, by, m in found]


def short(mutation: Mutation) -> str:
    """before -> after, on one line."""
    return f"{' '.join(mutation.before.split())} -> {' '.join(mutation.after.split())}"


def report(found: list[Verdict]) -> str:
    """What was found, as a markdown table."""
    rows = [
        f"| {verdict} | {m.file} | `{short(m).replace('|', '¦')}` | {by or m.survives} |"
        for verdict, by, m in found
    ]
    return "\n".join(
        ["| verdict | file | mutation | by, or why not |", "|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    main()
