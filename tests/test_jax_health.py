"""The installed JAX computes right numbers, and versions known to be broken are excluded."""

import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import pytest
from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_jit_of_a_vmapped_matvec_then_a_sum_is_exact():
    """sum((I x)^2) of x = (i, 0, 0) is i^2; every number here is an integer below 2^53.

    From 16385 float64 rows on, JAX 0.10.2 got it wrong on CPU, silently (jax-ml/jax#39103).
    """
    n = 16_385
    i = jnp.arange(n, dtype=jnp.float64)
    rows = jnp.stack((i, jnp.zeros_like(i), jnp.zeros_like(i)), axis=1)
    matrix = jnp.eye(3, dtype=jnp.float64)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    assert float(squares[-1]) == 268435456.0 and bool((squares == i**2).all()), (
        f"jax {jax.__version__} with jaxlib {jaxlib.__version__} computes wrong numbers on "
        f"{jax.devices()[0].platform}: got {float(squares[-1])}, not 268435456.0 "
        "(jax-ml/jax#39103 or the like). No result of this environment can be trusted. "
        f"Fix: python -m pip install 'jax!={jax.__version__}' 'jaxlib!={jaxlib.__version__}', "
        "and exclude that version in pyproject.toml."
    )


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
@pytest.mark.parametrize("version", ["0.10.2", "0.11.1"])
def test_broken_versions_are_excluded(package, version):
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    (requirement,) = (r for r in map(Requirement, project["dependencies"]) if r.name == package)
    assert version not in requirement.specifier
    assert "0.10.1" in requirement.specifier  # the newest sound one for Python 3.11
