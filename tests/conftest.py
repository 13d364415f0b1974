"""Every test runs in float64, draws to files only, and factorises in one thread.

JAX refuses to broadcast arrays of different rank, unless an axis is added by [None].

What is compiled is kept, in the folder that the experiments use: workers share it. It is compiled
quickly rather than well, in less than half of the processor's time; as users have it with
JAX_DISABLE_MOST_OPTIMIZATIONS=false and an empty XLA_FLAGS in the environment.
"""

import ctypes
import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
if version("jaxlib").startswith("0.10."):  # later ones have one generator of code, and no such flag
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import experiments  # noqa: E402, F401, I001 (one thread for LAPACK, before anything loads it)
import jax  # noqa: E402

gc.set_threshold(10_000)  # traces are many objects and few cycles
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from experiments.harness import script  # noqa: E402
from lprjax.numerics import memory  # noqa: E402

memory.QUICK = 0.0  # single operations are kept as well
memory.use_compilation_cache()  # for the other workers, the figures, and the next time


LONG = (
    *("test_tutorials", "test_benchmark", "test_loss_weights", "test_dynamics", "test_assembly"),
    *("test_data_sets", "test_validation", "test_budget", "test_streams", "test_environments"),
)
"""Files that take longest, by their names."""


def pytest_configure(config):
    """Files go to workers in the order below, where xdist would take those of most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The longest files first, so that workers end together."""
    order = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def drawn():
    """The figures that were saved, by name, since the module began.

    They are saved with few dots, in half the time; smoke figures have more.
    """
    whole, figures = Figure.savefig, {}

    def savefig(self, path, **options):
        with plt.rc_context({"figure.constrained_layout.use": False}):
            self.set_layout_engine(None)  # with "none" it would be drawn twice
            whole(self, path, **options | {"dpi": 40})
        figures[Path(path).stem] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield figures


RESIDENT = 1.2e9
"""Bytes of a process above which compiled functions are dropped between two files of tests: the
next ones come from the cache."""


def resident():
    """Bytes that this process holds; 0 where Linux does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


@pytest.fixture(scope="module", autouse=True)
def few_compiled_functions_and_no_open_figures(drawn):
    """So that all tests fit into one process and two into a small machine, in any order."""
    yield
    memory.spare_maps()
    if resident() > RESIDENT:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc only: what is free goes back to the system
            trim(0)
    plt.close("all")
    drawn.clear()


# Of the tests of an experiment, which have it as `figure` and its smallest flags as `TINY`.


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def summary(request, results):
    """Of one run from end to end, whose figure is drawn; `--plot-only`, which each of the tests
    calls, draws it again and saves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "save_figure", lambda figure, _: plt.close(figure))
        return request.module.figure.main([*request.module.TINY, "--results", str(results)])


@pytest.fixture(scope="module")
def run(request, results):
    """To read that run's records with."""
    figure = request.module.figure
    name = figure.__name__.rpartition(".")[2]
    return figure.start(name, figure.PRESETS, [*request.module.TINY, "--results", str(results)])
