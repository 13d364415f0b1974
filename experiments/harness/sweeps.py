"""Sweeps: the points of experiments, computed where they have no record, here or by an executor.

Workers write the records themselves, into a folder that all of them see, so that what one has
computed is safe whatever becomes of the others, and of the process that asked for it.
"""

import dataclasses
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import lprjax
from experiments.harness.attempts import handed_out
from experiments.harness.records import (
    Record,
    identity,
    load,
    record_path,
    require_writable,
    save,
)
from experiments.harness.session import begin_session
from lprjax.numerics.memory import spare_maps


class Failure(NamedTuple):
    """A point that has no record, though the sweep went on to its end.

    Attributes:
        point: the point, as it was asked for.
        message: what went wrong, in one line.
    """

    point: Any
    message: str


class PointsFailed(RuntimeError):
    """Some points of a sweep have no record; those of all others are kept.

    Attributes:
        failures: which, and why.
    """

    def __init__(self, failures: Sequence[Failure], total: int):
        self.failures = tuple(failures)
        first = self.failures[0]
        super().__init__(
            f"{len(self.failures)} of {total} points failed, the first {first.point} with "
            f"{first.message!r}: the others are kept; run again to compute what is missing."
        )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The points of one experiment, what computes them, and where their records are.

    Attributes:
        points: see `records.identity`.
        compute: the arrays of a point, by name, from nothing but the point; None: read only. For
            workers in other processes: a function of a module, or a `functools.partial` of one.
        folder: where the records are.
        fresh: compute every point, stored or not.
        experiment: name of the experiment; the folder's name if not given.
        version: version of the experiment.
        code: hash of what computes; None: records of any code are taken.
        tiny: the points take longer to compile than to compute, see `session.begin_session`.
    """

    points: Sequence[Any]
    compute: Callable[[Any], Mapping[str, Any]] | None
    folder: Path
    fresh: bool = False
    experiment: str = ""
    version: int = 1
    code: str | None = None
    tiny: bool = False

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.experiment or self.folder.name

    def path(self, point: Any) -> Path:
        """The file of a point's record, whether or not it is there."""
        return record_path(self.folder, identity(point, self.name, self.version))

    def looks_stored(self, point: Any) -> bool:
        """Whether there is a file that may do."""
        return not (self.fresh and self.compute) and self.path(point).exists()

    def read(self, point: Any) -> Record | None:
        """The record of a point, of whatever code."""
        return load(self.folder, point, experiment=self.name, version=self.version)

    def stored(self, point: Any) -> Record | None:
        """The record that spares computing the point; None where there is none.

        Raises:
            FileNotFoundError: nothing is to be computed, and there is none.
        """
        record = None if self.fresh and self.compute else self.read(point)
        if record is not None and self.code is not None and self._is_of_other_code(record):
            self._warn_of_other_code(record)
            record = None if self.compute else record
        if record is None and self.compute is None:
            raise FileNotFoundError(
                f"{self.folder} has no valid record of {point}: wanted one to read; "
                "run once without --plot-only."
            )
        return record

    def computed(self, point: Any) -> Record:
        """The record of a point, which is computed and written."""
        require_writable(self.folder)
        begin_session(self.tiny)
        begun = time.perf_counter()
        arrays = {name: np.asarray(value) for name, value in self.compute(point).items()}
        seconds = time.perf_counter() - begun
        spare_maps()
        names = dict(experiment=self.name, version=self.version, code=self.code)
        return save(self.folder, point, arrays, seconds=seconds, **names)

    def _is_of_other_code(self, record: Record) -> bool:
        then = (record.meta["versions"]["lprjax"], record.meta.get("code"))
        return then != (lprjax.__version__, self.code)

    def _warn_of_other_code(self, record: Record) -> None:
        """Once for each code, by Python's own rule for a repeated text."""
        then, was = record.meta["versions"]["lprjax"], record.meta.get("code")
        fate = "DRAWN AS THEY ARE; leave out --plot-only to renew them"
        warnings.warn(
            f"{self.folder} has records of lprjax {then}, code {str(was)[:8]}, and this is lprjax "
            f"{lprjax.__version__}, code {self.code[:8]}: they are "
            f"{'computed anew' if self.compute else fate}.",
            RuntimeWarning,
            stacklevel=3,
        )


def run_points(
    points: Iterable[Any],
    compute: Callable[[Any], Mapping[str, Any]] | None,
    folder: str | Path,
    fresh: bool = False,
    *,
    experiment: str = "",
    version: int = 1,
    code: str | None = None,
    executor: Executor | None = None,
) -> Iterator[Record]:
    """Yield the records of the points in their order, computing those that are missing.

    A bar on the standard error stream shows the time left. Several processes may share the folder;
    each record is then whole, whoever wrote it, but only different points share the work. Records
    of another version of the library or of other code are computed anew, with a warning; where
    nothing is to be computed they are taken, with a warning.

    Args:
        points, compute, folder, fresh, experiment, version, code: see :class:`Sweep`.
        executor: whose workers compute; None: this process does, one point after the other.

    Raises:
        FileNotFoundError: `compute` is None and a point has no valid record.
        OSError: the folder cannot be written; before anything is computed.
        PointsFailed: after the last point, some could not be computed by the executor. Without one,
            what `compute` raises ends the sweep.
    """
    sweep = Sweep(list(points), compute, Path(folder), fresh, experiment, version, code)
    failures = []
    for outcome in run_sweeps([sweep], executor):
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            yield outcome
    if failures:
        raise PointsFailed(failures, len(sweep.points))


def run_sweeps(
    sweeps: Sequence[Sweep], executor: Executor | None = None
) -> Iterator[Record | Failure]:
    """What becomes of all points of several sweeps, in their order: see :func:`run_points`.

    Args:
        sweeps: with an executor, its workers go on to the next while one is waited for.
        executor: whose workers compute; None: this process does.

    Yields:
        The record of each point as soon as it is there, or, from an executor, why there is none.
    """
    jobs = [(sweep, point) for sweep in sweeps for point in sweep.points]
    stored = [sweep.looks_stored(point) for sweep, point in jobs]
    # Stored points count as done from the start: the time left is that of computing the others.
    # Workers end points at the same time or not: their rate is that of the whole run.
    what = sweeps[0].name if len(sweeps) == 1 else f"{len(sweeps)} figures"
    even = {} if executor is None else {"smoothing": 0}
    with tqdm(total=len(jobs), initial=sum(stored), desc=what, **even) as bar:
        if executor is None:
            for (sweep, point), known in zip(jobs, stored, strict=True):
                record = sweep.stored(point)
                bar.update((record is not None) - known)
                if record is None:
                    record = sweep.computed(point)
                    bar.update()
                yield record
        else:
            yield from _spread(jobs, stored, executor, bar)


def _spread(
    jobs: list[tuple[Sweep, Any]], stored: list[bool], executor: Executor, bar: tqdm
) -> Iterator[Record | Failure]:
    """The same by workers, to whom all that is missing is handed at once.

    The first point of every sweep comes before the others, so that these find compiled what they
    share with it, instead of several workers compiling the same at the same time.
    """
    firsts: dict[Path, partial] = {}
    others: dict[Path, partial] = {}
    begun = set()
    for (sweep, point), known in zip(jobs, stored, strict=True):
        record = sweep.stored(point)
        bar.update((record is not None) - known)
        if record is None:
            bare = dataclasses.replace(
                sweep, points=(), folder=sweep.folder.absolute(), experiment=sweep.name
            )
            calls = others if bare.folder in begun else firsts
            calls[bare.path(point)] = partial(bare.computed, point)
            begun.add(bare.folder)
    calls = firsts | others
    messages: dict[Path, str] = {}
    with handed_out(calls, executor) as ended:
        for sweep, point in jobs:
            path = sweep.path(point).absolute()
            while path in calls and path not in messages:
                done, message = next(ended)
                messages[done] = message
                bar.update()
            yield _outcome(sweep, point, messages.get(path, ""))


def _outcome(sweep: Sweep, point: Any, message: str) -> Record | Failure:
    """What is to be read of a point that was stored, or ended with this message."""
    record = None if message else sweep.read(point)
    if record is None:
        message = message or f"{sweep.folder} has no record of it: wanted a folder all workers see."
        tqdm.write(f"{sweep.name}, {point}: {message}", file=sys.stderr)
        return Failure(point, message.strip().splitlines()[-1])
    return record
