"""Executors: processes of this machine, a dask cluster, SLURM jobs.

What is not in Python itself is in the extra `cluster`, and imported where it is asked for.
"""

import contextlib
import importlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any


class Workers(ThreadPoolExecutor):
    """Workers each of which computes many points, and dies for itself alone.

    A `ProcessPoolExecutor` is broken whole when one of its processes dies, and cannot tell whose
    point it was; other engines do without the worker from then on. These are as many executors of
    one worker each, made when there is work for them: the one that dies had one call, and is
    replaced.

    Args:
        number: of workers.
        single: makes an executor of one worker; by default a process with its share of the
            machine's cores, which ends when this process does.
        dies: what a call raises whose worker died.
    """

    def __init__(
        self,
        number: int,
        single: Callable[[], Executor] | None = None,
        dies: type[Exception] = BrokenExecutor,
    ):
        super().__init__(number)
        self._single = single or partial(_process, number)
        self._dies = dies
        self._executors: SimpleQueue[Executor | None] = SimpleQueue()
        for _ in range(number):
            self._executors.put(None)

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As of every executor."""
        return super().submit(self._passed_on, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of every executor."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        while not self._executors.empty():
            _shut(self._executors.get())

    def _passed_on(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Any:
        executor = self._executors.get()
        try:
            executor = executor or self._single()
            return executor.submit(fn, *args, **kwargs).result()
        except self._dies:
            _shut(executor)
            executor = None
            raise
        finally:
            self._executors.put(executor)


def _shut(executor: Executor | None) -> None:
    if executor is not None:
        executor.shutdown()


def _process(number: int) -> Executor:
    """One of so many processes; a new one and no copy: JAX has threads, which a copy loses."""
    cores = max(1, _cores() // number)
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (cores,))


def _cores() -> int:
    """That this process may use."""
    may_use = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def _begin(cores: int) -> None:
    """Take no more of the machine than the others do, and end when who started this one does."""
    os.environ.setdefault("NPROC", str(cores))  # threads of XLA, compiling and computing
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def share_gpu() -> None:
    """Let this process and those it starts take a GPU's memory as they need it.

    By itself JAX takes three quarters at once, when it looks for devices: this comes before.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@contextlib.contextmanager
def engine(name: str, jobs: int, folder: str | Path) -> Iterator[Executor | None]:
    """The executor that `--engine` and `--jobs` ask for, shut down on leaving.

    Args:
        name: "" for processes of this machine; "dask:ADDRESS" for the cluster whose scheduler is
            there, e.g. dask:tcp://10.0.0.1:8786; "slurm" for SLURM jobs, one per worker, for which
            sbatch reads partition, time, memory and so on from its own variables, e.g.
            SBATCH_PARTITION.
        jobs: number of processes or SLURM jobs; 1 process is this one. dask has its own.
        folder: the results; what SLURM jobs print goes to its folder slurm.

    Yields:
        The executor; None where this process is to compute.

    Raises:
        ValueError: no such engine.
        ImportError: its package is not installed.
        FileNotFoundError: there is no SLURM.
    """
    kind, _, address = name.partition(":")
    if kind == "dask" and address:
        with _package("distributed").Client(address) as client, client.get_executor() as executor:
            yield executor
    elif name == "slurm":
        with _slurm(jobs, Path(folder).absolute() / "slurm") as executor:
            yield executor
    elif name:
        raise ValueError(f"engine is {name!r}: wanted dask:ADDRESS or slurm, or none.")
    elif jobs > 1:
        with Workers(jobs) as executor:
            yield executor
    else:
        yield None


def _slurm(jobs: int, folder: Path) -> Workers:
    """Workers that are a SLURM job each."""
    executorlib, sockets = _package("executorlib"), "executorlib.standalone.interactive"
    died = _package(f"{sockets}.communication").ExecutorlibSocketError
    _package("pysqa")  # how executorlib submits
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("there is no sbatch: wanted a machine that submits SLURM jobs.")

    def job() -> Executor:  # which computes one point after the other
        resources = {"cwd": str(folder)}
        return executorlib.SlurmClusterExecutor(1, block_allocation=True, resource_dict=resources)

    return Workers(jobs, job, died)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name} is not installed ({error}): it is in the extra `cluster`; "
            "python -m pip install -e '.[cluster]'."
        ) from error
