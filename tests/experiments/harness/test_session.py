"""A session of tiny cells compiles quickly; the next one as its user asks for."""

import os
import subprocess
import sys

SCRIPT = """
import jax
from experiments.harness.session import begin_session

def now():
    return jax.config.jax_enable_x64, jax.config.values["jax_disable_most_optimizations"]

begin_session()
before = now()
begin_session(tiny=True)
within = now()
print(float(jax.numpy.ones(3).sum()), before, within)
begin_session()
print(now())
"""


def printed(**asked):
    kept = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(
        command, env=kept | asked, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_tiny_session_compiles_quickly_and_the_next_as_asked():
    assert printed() == ["3.0 (True, False) (True, True)", "(True, False)"]
    quickly = printed(JAX_DISABLE_MOST_OPTIMIZATIONS="true")
    assert quickly == ["3.0 (True, True) (True, True)", "(True, True)"]
