"""The examples in the docstrings of the library are run, on a small stage of their own."""

import doctest
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

import lprjax as lp

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "lprjax").rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.fixture(scope="module")
def stage():
    """What examples take for granted: a reference, a fit to it, a crystal cell and a vacancy."""
    reference, cell = lp.zhou_eam("W"), lp.bcc("W", 3.165)
    spec = lp.ACESpec(("W",), order=1, degree=4, r_cut=5.0, r0=2.74)
    crystal = lp.supercell(cell, (2, 2, 2))
    cells = [lp.rattled(crystal, key, 0.05) for key in jax.random.split(jax.random.key(0), 4)]
    graphs = lp.build_graphs(cells, spec.r_cut)
    labels = [lp.observe(reference, graph) for graph in lp.build_graphs(cells, reference.r_cut)]
    samples, weights = list(zip(graphs, labels, strict=True)), {"energy": 10.0, "forces": 1.0}
    fit = lp.fit(lp.compress_structures(spec, samples), weights, ridge=1e-8)
    potential = lp.linear_potential(spec, fit.coefficients)
    defect = lp.vacancy(cell, 2)
    names = dict(reference=reference, surrogate=potential, potential=potential, spec=spec)
    names |= dict(cell=cell, graph=graphs[0], samples=samples, weights=weights, fit=fit)
    names |= dict(defect=defect, displacement=lp.relax_defect(reference, defect).displacement)
    names |= dict(u=lp.relax_defect(potential, defect).displacement)
    return names | dict(jax=jax, np=np, lp=lp)


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_say(name, stage):
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options)
    for example in doctest.DocTestFinder().find(module, globs=vars(module) | stage):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_there_are_examples():
    assert "lprjax.regression.rows" in MODULES and "lprjax.defects.quadratic_forms" in MODULES
