"""What `benchmark` measures beyond kernels: factors, refits, rigidities, relaxation, compilation.

Every function returns arrays: seconds of "ours" and "theirs" (calls,) or a "ratio", and extras.
What "holds_…" is part of the target.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.benchmark.cells import (
    TUNGSTEN,
    ace_spec,
    perfect_silicon,
    rattled_silicon,
    silicon_shape,
)
from experiments.benchmark.clock import Turns, faster, in_fresh_process, in_turn, once
from lprjax.ace.basis import site_basis
from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Labels, bcc, rattled
from lprjax.defects.defect import relax_defect, vacancy
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import block_size
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import local_prediction_rigidity

Found = dict[str, Any]


def processes(
    codes: dict[str, tuple[str, dict]], threads: Sequence[int], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, list[dict]]]:
    """Seconds of each code in fresh processes, in turn.

    Args:
        codes: task of `cold` and its arguments, by code.
        threads: numbers of BLAS threads to try.
        repeats: how often each.

    Returns:
        (repeats,) s of each code, at that number of threads that suits it best; and all that the
        processes returned.
    """
    runs: dict[str, list[dict]] = {code: [] for code in codes}
    for _ in range(repeats):
        for n in threads:
            for code, (task, arguments) in codes.items():
                runs[code].append(in_fresh_process(task, threads=n, **arguments))
    seconds = {}
    for code, found in runs.items():
        by_threads = np.array([run["seconds"] for run in found]).reshape(repeats, -1)
        seconds[code] = faster(list(by_threads.T))
    return seconds, runs


def factor(n_rows: int, n_columns: int, threads: Sequence[int], repeats: int) -> Found:
    """Streamed rows against numpy's dense QR, each in processes of its own.

    "holds_…": the same factor to 1e-10; peak memory below 1 GB; n_rows more of them add less to it
    than a tenth of what they are (an allocator's noise is some 30 MB).
    """
    size = dict(n_rows=n_rows, n_columns=n_columns, block=block_size(n_columns))
    codes = {"ours": ("streamed_factor", size), "theirs": ("dense_factor", size)}
    seconds, runs = processes(codes, threads, repeats)
    twice = in_fresh_process("streamed_factor", **size | {"n_rows": 2 * n_rows})
    probe, other = (np.array(runs[code][0]["probe"]) for code in codes)
    peak, their_peak = (max(run["peak"] for run in runs[code]) for code in codes)
    return seconds | {
        "peak_GB": peak,
        "peak_GB_of_twice_the_rows": twice["peak"],
        "their_peak_GB": their_peak,
        "holds_same": np.abs(probe - other).max() < 1e-10 * np.abs(other).max(),
        "holds_below_1_GB": peak < 1.0,
        "holds_independent": twice["peak"] - peak < 0.1 * 8e-9 * n_rows * n_columns,
    }


def data_set(
    n_cells: int, shape: tuple[int, int, int]
) -> Iterator[tuple[str, Sequence[str], list[tuple[Graph, Labels]]]]:
    """Labelled silicon by group, (name, kinds, samples): rattled cells, and the perfect one."""
    potential, r_cut = stillinger_weber(), ace_spec(2).r_cut
    perfect = perfect_silicon(shape)
    cells = [rattled(perfect, jax.random.key(seed), 0.05) for seed in range(n_cells)]
    groups = {"rattled": (cells, ("energy", "forces", "virial"))}
    groups["perfect"] = ([perfect], ("energy", "force_constants"))
    for group, (structures, kinds) in groups.items():
        graphs = [build_graph(s, r_cut) for s in structures]
        yield group, kinds, [(g, observe(potential, g, kinds)) for g in graphs]


def refit(degree: int, n_cells: int, cell_atoms: int, n_atoms: int, turns: Turns) -> Found:
    """One more choice of the loss weights of five factors, and the LPR of a cell, against the same
    from the structures: rows, factors, fit, LPR."""
    spec, groups = ace_spec(degree), list(data_set(n_cells, silicon_shape(cell_atoms)))
    graph = build_graph(rattled_silicon(silicon_shape(n_atoms)), spec.r_cut)
    sites = site_basis(spec, graph)[:n_atoms]
    draw = np.random.default_rng(4)

    def assembled(groups):
        return {
            (kind, group): factor
            for group, kinds, samples in groups
            for kind, factor in compress_structures(spec, samples, kinds).items()
        }

    def refitted(factors):
        weights = {key: draw.uniform(0.1, 10.0) for key in factors}
        return local_prediction_rigidity(fit(factors, weights, ridge=1e-6).factor, sites)

    jax.block_until_ready(assembled([(g, kinds, samples[:2]) for g, kinds, samples in groups]))
    anew, factors = once(lambda: assembled(groups))
    found = in_turn({"ours": partial(refitted, factors)}, turns)
    again, _ = once(lambda: refitted(factors))
    n_rows = sum(int(factor.n_rows) for factor in factors.values())
    return found | {
        "theirs": np.array([anew + again]),
        "functions": spec.n_columns,
        "factors": len(factors),
        "data_rows": n_rows,
    }


def lpr(n_features: int, n_sites: int, threads: Sequence[int], repeats: int, there: bool) -> Found:
    """LPR in scikit-matter's sense, each in processes of its own. "holds_same": to 1e-8."""
    size = dict(n_features=n_features, n_sites=n_sites)
    codes = {"ours": ("rigidity", size | {"code": "lprjax"})}
    if there:
        codes["theirs"] = ("rigidity", size | {"code": "scikit-matter"})
    found, runs = processes(codes, threads, repeats)
    if there:
        off = np.abs(np.divide(runs["ours"][0]["probe"], runs["theirs"][0]["probe"]) - 1.0).max()
        found |= {"difference": off, "holds_same": off < 1e-8}
    return found


def relaxation(small: int, large: int) -> Found:
    """The W vacancy in cubes of two sizes, from making the cell to 1e-6 eV/Å, first calls.

    The ratio is that of the evaluations; the larger one is to take less than 300 s.
    """

    def relaxed(size):
        return relax_defect(zhou_eam("W"), vacancy(bcc("W", TUNGSTEN), size)).relaxed

    (seconds, first), (long, last) = (once(partial(relaxed, size)) for size in (small, large))
    return {
        "ratio": last.evaluations / first.evaluations,
        "ours": np.array([long]),
        "seconds_of_the_small": seconds,
        "atoms": 2 * large**3 - 1,
        "evaluations": last.evaluations,
        "evaluations_of_the_small": first.evaluations,
        "holds_converged": bool(first.converged and last.converged),
        "holds_within_300_s": long < 300.0,
    }


def compilation(name: str, degree: int, shape: Sequence[int], repeats: int) -> Found:
    """Seconds of a kernel's first call in a fresh process: tables, tracing, XLA and the call."""
    runs = [
        in_fresh_process("first_call", name=name, degree=degree, shape=shape)
        for _ in range(repeats)
    ]
    first = np.array([run["first"] for run in runs])
    extra = {key: np.median([run[key] for run in runs]) for key in ("tables", "xla", "again")}
    return {"ratio": np.median(first), "ours": first, **extra}


def sweep(degree: int, shapes: Sequence[Sequence[int]], kernels: Sequence[str]) -> Found:
    """How often each kernel is compiled over cells of many sizes; the ratio is the most."""
    runs = {
        name: in_fresh_process("sweep", name=name, degree=degree, shapes=list(shapes))
        for name in kernels
    }
    counts = {name: run["compiled"] for name, run in runs.items()}
    seconds = sum(run["seconds"] for run in runs.values())
    others = max(run["others"] for run in runs.values())
    extra = {"seconds_compiling": seconds, "small_functions_compiled": others}
    return {"ratio": max(counts.values()), "sizes": len(shapes), **counts, **extra}


def cold_budget(metal: str, cubes: int, radius: float) -> Found:
    """Compilations of an error budget in a fresh process, after those of the metals before it."""
    found = in_fresh_process("budgets", cubes=cubes, radius=radius)
    extra = {key: found[f"{key}_{metal}"] for key in ("xla", "first", "again")}
    return {"ratio": found[f"compiled_{metal}"], **extra}


def cold_readme() -> Found:
    """Compilations of the README's Python blocks in a fresh process."""
    found = in_fresh_process("readme")
    return {"ratio": found.pop("compiled"), **found}
