"""Every test runs in float64, draws to files only, and factorises in one thread."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/__init__.py

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

import pytest  # noqa: E402

from experiments.records import spare_maps  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def few_compiled_functions():
    """So that all tests fit into one process."""
    yield
    spare_maps()
