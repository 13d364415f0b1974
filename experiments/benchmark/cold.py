"""What `benchmark` measures in fresh processes: first calls, compilations, peak memory.

`python -m experiments.benchmark.cold TASK JSON` prints what the task returns, one line of JSON.
"""

import contextlib
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lprjax.atoms.graphs import Graph

COMPILED = "/jax/core/compile/backend_compile_duration"
SEED = 7
SHAPES = 3  # that the graphs of a sweep are padded to
ALPHA = 1e-2  # scikit-matter's regularisation
SITES = 10  # per training structure of its comparison


def kernel(name: str, degree: int, graph: "Graph") -> Callable[[], Any]:
    """One of the hot paths on a graph, as a call without arguments."""
    import jax

    from experiments.benchmark.cells import ace_spec
    from lprjax.ace.basis import site_basis
    from lprjax.ace.potential import linear_potential
    from lprjax.potentials.observables import energy_and_forces
    from lprjax.regression.rows import design_rows

    spec = ace_spec(degree)
    if name == "energy_forces":
        n_columns = spec.n_columns
        coefficients = jax.random.normal(jax.random.key(1), n_columns)
        return partial(energy_and_forces, linear_potential(spec, coefficients), graph)
    if name == "rows":
        return partial(design_rows, spec, graph, ("energy", "forces", "virial"))
    return partial(site_basis, spec, graph)


def first_call(name: str, degree: int, shape: list[int]) -> dict[str, float]:
    """Seconds of the tables and the first call together, and of their parts.

    Args:
        name: of the kernel.
        degree: of the basis.
        shape: cubic cells of silicon along each side.

    Returns:
        "first"; "tables", the part of the tables; "xla", the part spent in XLA; "again", the
        second call.
    """
    import jax

    from experiments.benchmark.cells import R_CUT, ace_spec, rattled_silicon
    from lprjax.atoms.graphs import build_graph

    made = _seconds(lambda: ace_spec(degree).n_columns)
    call = kernel(name, degree, build_graph(rattled_silicon(tuple(shape)), R_CUT))
    inside = _compilations()
    first, again = (_seconds(lambda: jax.block_until_ready(call())) for _ in range(2))
    return {"first": made + first, "tables": made, "xla": sum(inside), "again": again}


def sweep(name: str, degree: int, shapes: list[list[int]]) -> dict[str, float]:
    """Over cells of many sizes in three shapes: how often the kernel was compiled.

    The kernel is the function that took the most seconds to compile.

    Args:
        name: of the kernel.
        degree: of the basis.
        shapes: cubic cells of silicon along each side, for every cell.

    Returns:
        "compiled", times; "seconds" in XLA; "others", compilations of other functions.
    """
    import jax

    from experiments.benchmark.cells import R_CUT, rattled_silicon
    from lprjax.atoms.graphs import build_graphs

    taken = defaultdict(list)

    def listen(event, seconds, fun_name="", **_):
        if event == COMPILED:
            taken[fun_name].append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    cells = [rattled_silicon(tuple(shape)) for shape in shapes]
    for graph in build_graphs(cells, R_CUT, shapes=SHAPES):
        jax.block_until_ready(kernel(name, degree, graph)())
    kernels = max(taken.values(), key=sum)
    others = sum(len(times) for times in taken.values()) - len(kernels)
    return {"compiled": len(kernels), "seconds": sum(map(sum, taken.values())), "others": others}


METALS = {"W": (3.165, 2.74), "Mo": (3.150, 2.73)}
"""Lattice constant and r0 of what is simulated, Å: of one structure, and so of equal shapes."""
ORDER, DEGREE, R_CUT = 2, 8, 5.5


def budgets(cubes: int, radius: float) -> dict[str, float]:
    """The error budgets of a vacancy in one metal after another, fits of order 2 and degree 8.

    Args:
        cubes: cubic cells along each side.
        radius: L, Å.

    Returns:
        Of each metal "compiled_W", how often XLA was called, "xla_W", the seconds in it, "first_W",
        those of all, and of a second call "again_W". The fits are not counted.
    """
    import jax

    import lprjax as lp

    found: dict[str, float] = {}
    compiled = _compilations()
    for metal, (a, r0) in METALS.items():
        reference, crystal = lp.zhou_eam(metal, r_cut=R_CUT), lp.bcc(metal, a)
        spec = lp.ACESpec((metal,), ORDER, DEGREE, R_CUT, r0)
        keys = jax.random.split(jax.random.key(SEED), 20)
        cells = [lp.rattled(lp.supercell(crystal, (2, 2, 2)), key, 0.05) for key in keys]
        graphs = lp.build_graphs(cells, R_CUT)
        labels = [lp.observe(reference, graph) for graph in graphs]
        factors = lp.compress_structures(spec, zip(graphs, labels, strict=True))
        fit = lp.fit(factors, {"energy": 10.0, "forces": 1.0}, ridge=1e-10)
        defect, surrogate = lp.vacancy(crystal, cubes), lp.linear_potential(spec, fit.coefficients)
        compiled.clear()
        call = partial(lp.error_budget, reference, surrogate, defect, radius)
        found[f"first_{metal}"] = _seconds(call)
        found |= {f"compiled_{metal}": len(compiled), f"xla_{metal}": sum(compiled)}
        found[f"again_{metal}"] = _seconds(call)
    return found


def readme() -> dict[str, float]:
    """The Python blocks of the README, one after another, as a reader runs them.

    Returns:
        "compiled", "xla" and "first", the seconds of all but the import of JAX.
    """
    compiled, names = _compilations(), {"__name__": "readme"}
    text = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    with contextlib.redirect_stdout(sys.stderr):
        first = _seconds(lambda: [exec(block, names) for block in blocks])
    return {"first": first, "compiled": len(compiled), "xla": sum(compiled)}


def _compilations() -> list[float]:
    """A list that grows by the seconds of each call of XLA."""
    import jax

    found: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: found.append(seconds) if event == COMPILED else None
    )
    return found


def blocks(n_rows: int, n_columns: int, block: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and targets, `block` at a time, the same in every process."""
    for number, start in enumerate(range(0, n_rows, block)):
        draw = np.random.default_rng((SEED, number))
        drawn = draw.normal(size=(min(block, n_rows - start), n_columns + 1))
        yield drawn[:, :-1], drawn[:, -1]


def streamed_factor(n_rows: int, n_columns: int, block: int) -> dict:
    """lprjax: rows come in blocks and are folded in; making them is not timed."""
    import jax

    from lprjax.regression.factors import empty, extend

    def folded(factor, part):
        return jax.block_until_ready(extend(factor, *part))

    folded(empty(n_columns), next(blocks(n_rows, n_columns, block)))  # compiles
    factor, seconds = empty(n_columns), 0.0
    for part in blocks(n_rows, n_columns, block):
        start = time.perf_counter()
        factor = folded(factor, part)
        seconds += time.perf_counter() - start
    return {"seconds": seconds, **_outcome(np.asarray(factor.triangular))}


def dense_factor(n_rows: int, n_columns: int, block: int) -> dict:
    """numpy.linalg.qr of rows and targets, all at once; only the triangle is asked for."""
    matrix, filled = np.empty((n_rows, n_columns + 1)), 0
    for rows, targets in blocks(n_rows, n_columns, block):
        matrix[filled : filled + len(rows), :-1] = rows
        matrix[filled : filled + len(rows), -1] = targets
        filled += len(rows)
    start = time.perf_counter()
    triangle = np.linalg.qr(matrix, mode="r")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **_outcome(triangle[:n_columns, :n_columns])}


def rigidity(code: str, n_features: int, n_sites: int) -> dict:
    """LPR in scikit-matter's sense of random features, by it or by lprjax; the first call apart."""
    sites = np.random.default_rng(SEED).normal(size=(n_sites, n_features))
    training = sites.reshape(-1, SITES, n_features)
    if code == "lprjax":
        from lprjax.regression.rigidity import skmatter_rigidity
    else:
        from experiments.benchmark.peers import skmatter_rigidity

    def call():
        found.append(np.asarray(skmatter_rigidity(training, sites, ALPHA)))

    found: list[np.ndarray] = []
    _, *seconds = (_seconds(call) for _ in range(3))
    return {"seconds": min(seconds), "probe": found[-1].tolist()}


def whole_fit(code: str, degree: int, path: str) -> dict[str, float]:
    """From a file to coefficients, by lprjax or ace-jax: the first time and the second.

    Args:
        code: whose.
        degree: of the basis.
        path: of the labelled cells.

    Returns:
        "cold" and "warm", s; "compilations" and "xla", s of them, of the first; "peak_GB".
    """
    import jax

    from experiments.benchmark.cells import ace_spec
    from experiments.benchmark.fits import whole_fit
    from experiments.benchmark.peers import ace_jax_fit

    inside = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: inside.append(seconds) if event == COMPILED else None
    )
    spec = replace(ace_spec(degree), constant=True)
    call = partial(whole_fit if code == "lprjax" else ace_jax_fit, spec, path)
    cold = _seconds(call)
    found = {"cold": cold, "compilations": len(inside), "xla": sum(inside)}
    return found | {"warm": _seconds(call), "peak_GB": peak_memory()}


def _outcome(triangle: np.ndarray) -> dict:
    """Peak memory of this process (GB), and R^T R 1, which does not depend on the signs of rows."""
    probe = triangle.T @ triangle.sum(axis=1)
    return {"peak": peak_memory(), "probe": probe.tolist()}


def peak_memory() -> float:
    """In GB, by Linux's own count: that of getrusage starts with what the parent process held."""
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024 / 1e9


def _seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


TASKS = {
    task.__name__: task
    for task in (
        first_call,
        sweep,
        budgets,
        readme,
        streamed_factor,
        dense_factor,
        rigidity,
        whole_fit,
    )
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
