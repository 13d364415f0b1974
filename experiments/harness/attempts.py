"""Calls by an executor, each of which makes one file, in spite of workers that die.

An executor is anything with the interface of `concurrent.futures.Executor`; `engines` makes some.
A worker that dies (killed, out of memory) loses its call only, which is started once more and then
given up. Engines differ in what they do then: some say that the worker died, some start the call
anew without a word, as often as they have workers. So every start leaves a mark, in a hidden folder
beside the files, and a start that finds too many refuses.
"""

import contextlib
import itertools
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from experiments.harness.records import require_writable
from experiments.harness.session import begin_session

TRIES = 2
"""Starts of a call before it is given up: a worker may die by no fault of its call's."""


@contextlib.contextmanager
def handed_out(
    calls: Mapping[Path, Callable[[], Any]], executor: Executor
) -> Iterator[Iterator[tuple[Path, str]]]:
    """Hand all calls to an executor; on leaving, what has not begun is called off.

    Args:
        calls: by the file that each makes; for workers in other processes, `functools.partial` of
            functions of modules.
        executor: whose workers make them. All see the folders of the files.

    Yields:
        an iterator over the files in the order in which they come, each with what went wrong: a
        traceback of what the call raised, what the engine says of its death, "" if nothing did.

    Raises:
        OSError: a folder cannot be written.
    """
    ended: SimpleQueue[tuple[Path, Future]] = SimpleQueue()
    running: dict[Path, Future] = {}
    tries = dict.fromkeys(calls, 0)

    def submit(path: Path) -> None:
        tries[path] += 1
        mark = marks[path.parent] / path.stem
        try:
            future = executor.submit(attempt, calls[path], mark, tries[path])
        except RuntimeError as error:  # it is broken, or shut down
            future = Future()
            future.set_exception(error)
        running[path] = future
        future.add_done_callback(lambda future: ended.put((path, future)))

    def ends() -> Iterator[tuple[Path, str]]:
        while running:
            path, future = ended.get()
            del running[path]
            try:
                yield path, future.result()
            except Exception as lost:  # by the engine: `attempt` returns what calls raise
                if tries[path] < TRIES:
                    submit(path)
                else:
                    yield path, f"{type(lost).__name__}: {lost}"

    with contextlib.ExitStack() as leaving:
        marks = {folder: leaving.enter_context(_marks(folder)) for folder in _folders(calls)}
        leaving.callback(lambda: [future.cancel() for future in list(running.values())])
        for path in calls:
            submit(path)
        yield ends()


def attempt(call: Callable[[], Any], mark: Path, number: int) -> str:
    """Make a call in a worker, unless that was tried too often.

    Args:
        call: to be made.
        mark: what the names of its marks begin with.
        number: how often it was handed out: engines may take calls that are alike for one.

    Returns:
        what went wrong, "" if nothing did.
    """
    begin_session()
    done = mark.with_name(f"{mark.name}.done")
    if done.exists():  # an engine may ask anew for what it lost
        return ""
    try:
        if _start(mark) > TRIES:
            return f"its worker died {TRIES} times (killed, or out of memory)"
        call()
    except Exception:
        return traceback.format_exc()
    done.touch()
    return ""


def _folders(calls: Mapping[Path, Any]) -> set[Path]:
    return {path.parent for path in calls}


@contextlib.contextmanager
def _marks(folder: Path) -> Iterator[Path]:
    """A folder for the marks of these calls and of no others."""
    require_writable(folder)
    prefix = ".starts-"
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=folder, ignore_cleanup_errors=True
    ) as marks:
        yield Path(marks)


def _start(mark: Path) -> int:
    """The number of this start, of which it leaves a mark."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            mark.with_name(f"{mark.name}.{number}").touch(exist_ok=False)
            return number
