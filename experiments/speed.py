"""How fast: tables, compilation, design rows, forces and a relaxation, with the demands on them.

Every run measures anew (`--plot-only` draws the last one). The tables, the first site basis and
the relaxation are timed cold: tables and compiled functions forgotten, nothing imported twice. The
others are timed warm, their first call apart. Where ace-jax is installed its rows of the same
observables, of as many functions on the same cell, are timed in turn with ours; elsewhere they are
left out. CPU seconds are those of all threads: on a machine that others use, wall times above them
were spent waiting.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import PALETTE, finish, label_axes, reference_slope, save_figure, start
from experiments.records import Record
from lprjax import ace, angular, coupling, design
from lprjax.ace import ACESpec, Tables, linear_potential, site_basis
from lprjax.defects import relax_defect, vacancy
from lprjax.design import design_rows
from lprjax.neighbours import build_graph
from lprjax.observables import energy_and_forces
from lprjax.references.eam import zhou_eam
from lprjax.structures import Structure, bcc, diamond, rattled, supercell

SILICON, TUNGSTEN = 5.431, 3.165  # lattice constants, Å
BOND = SILICON * np.sqrt(3) / 4  # Å
FIRST_ORDER = ("energy", "forces", "virial")
COLD = ("tables", "site_basis", "relaxation")
PER_ATOM = ("rows", "forces")  # in µs per atom; the others in s
WANTED = {  # at most, by task and size
    ("tables", 16): 2.0,
    ("site_basis", 12): 5.0,
    ("rows", 16): 2000.0,
    ("relaxation", 16): 60.0,
}
TITLES = {
    "tables": "basis tables",
    "site_basis": "first site basis",
    "rows": "rows E+F+V",
    "force_constants": "rows FC, one atom",
    "forces": "energy + forces",
    "relaxation": "W vacancy, cold",
}


@dataclass(frozen=True)
class Config:
    degrees: tuple[int, ...] = field(default=(10, 12, 16), metadata={"help": "of the rows"})
    tables: int = field(default=16, metadata={"help": "degree of the tables"})
    first: int = field(default=12, metadata={"help": "degree of the first site basis"})
    constants: int = field(default=12, metadata={"help": "degree of the force-constant rows"})
    cells: int = field(default=3, metadata={"help": "cubic Si cells per side"})
    vacancy: int = field(default=16, metadata={"help": "cubic W cells per side"})
    order: int = 3
    r_cut: float = field(default=5.5, metadata={"help": "cutoff of the basis (Å)"})
    repeats: int = field(default=7, metadata={"help": "of everything but the relaxation"})
    peer: bool = field(default=True, metadata={"help": "time ace-jax too, where installed"})


@dataclass(frozen=True)
class Task:
    name: str
    size: int
    """Degree of the basis; cubic cells per side for the relaxation."""
    order: int
    r_cut: float
    cells: int
    repeats: int
    peer: bool = False

    @property
    def spec(self) -> ACESpec:
        return ACESpec(("Si",), self.order, self.size, self.r_cut, BOND)

    @property
    def cell(self) -> Structure:
        repeated = supercell(diamond("Si", SILICON), (self.cells,) * 3)
        return rattled(repeated, jax.random.key(0), 0.05)


def points(config: Config) -> list[Task]:
    new = partial(
        Task, order=config.order, r_cut=config.r_cut, cells=config.cells, repeats=config.repeats
    )
    peer = config.peer and find_spec("ace_jax") is not None
    return [
        new("tables", config.tables),
        new("site_basis", config.first),
        *(new("rows", degree, peer=peer) for degree in config.degrees),
        new("force_constants", config.constants),
        *(new("forces", degree) for degree in config.degrees),
        new("relaxation", config.vacancy, repeats=1),
    ]


def calls(task: Task) -> dict[str, Callable[[], Any]]:
    """What is timed, by code."""
    spec, graph = task.spec, build_graph(task.cell, task.r_cut)
    if task.name == "tables":
        return {"lprjax": lambda: Tables(spec).halves}
    if task.name == "site_basis":
        return {"lprjax": lambda: site_basis(spec, graph)}
    if task.name == "rows":
        ours = {"lprjax": lambda: design_rows(spec, graph, FIRST_ORDER)}
        return ours | ({"ace-jax": peer_rows(task)} if task.peer else {})
    if task.name == "force_constants":
        return {"lprjax": lambda: design_rows(spec, graph, ("force_constants",), atoms=(0,))}
    if task.name == "forces":
        coefficients = jax.random.normal(jax.random.key(1), spec.n_columns)
        return {"lprjax": partial(energy_and_forces, linear_potential(spec, coefficients), graph)}
    return {"lprjax": lambda: relax_defect(zhou_eam("W"), vacancy(bcc("W", TUNGSTEN), task.size))}


def peer_rows(task: Task) -> Callable[[], Any]:
    """ace-jax's rows of the same kinds: its jitted `linear_rows`, no padding atoms."""
    from ace_jax.basis.model import build_model
    from ace_jax.fit.data import Config, build_dataset
    from ace_jax.fit.inducing import GPConfig
    from ace_jax.fit.rows import chunked_rows_fn

    basis = build_model(("Si",), task.order, task.size, rcut=task.r_cut, coupling_cache=False)
    model, meta = basis.eval_pair()
    if meta["len_basis"] != task.spec.n_columns:
        raise RuntimeError(
            f"ace-jax has {meta['len_basis']} functions where lprjax has {task.spec.n_columns}: "
            "their times do not compare; run with --no-peer"
        )
    cell, unlabelled = task.cell, (None, None, None, 0.0, 0.0, 0.0)
    arrays = (np.asarray(a) for a in (cell.positions, cell.species, cell.cell, cell.pbc))
    data = build_dataset([Config(*arrays, *unlabelled)], meta, [0.0], 1, node_chunk=1)
    config = GPConfig(BOND, task.r_cut, meta["n_B"], meta["n_pair"], NZ=1, C=1)
    batch = jax.tree.map(lambda a: a[0], data)
    return partial(chunked_rows_fn(model, config), batch)


def forget() -> None:
    """Drop compiled functions and tables, so that what follows is a first call."""
    jax.clear_caches()
    for room in (ace, angular, coupling, design):
        for cached in vars(room).values():
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()


def compute(task: Task) -> dict[str, Any]:
    """Wall and CPU seconds of every call, (calls, 2) by code; the codes take turns."""
    timed, samples, result = calls(task), defaultdict(list), None
    for turn in range(task.repeats + (task.name not in COLD)):
        if turn == 0 or task.name in COLD:
            forget()
        for code, call in timed.items():
            wall, cpu = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(call())
            samples[code].append((time.perf_counter() - wall, time.process_time() - cpu))
    if task.name == "relaxation":
        relaxed = result.relaxed
        found = {name: getattr(relaxed, name) for name in ("evaluations", "converged", "max_force")}
        return {**samples, **found, "n_atoms": len(relaxed.positions)}
    return {**samples, "n_atoms": task.cell.n_atoms, "n_functions": task.spec.n_columns}


def entries(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """One line of the table for each task and code."""
    for record in records:
        task, arrays = record.point, record.arrays
        facts = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
        scale = 1e6 / facts["n_atoms"] if task.name in PER_ATOM else 1.0
        for code in (name for name, value in arrays.items() if value.ndim == 2):
            wall, cpu = arrays[code].T
            warm = slice(task.name not in COLD, None)
            median, wanted = scale * np.median(wall[warm]), WANTED.get((task.name, task.size))
            yield {
                "task": task.name,
                "size": task.size,
                "code": code,
                "unit": "µs/atom" if task.name in PER_ATOM else "s",
                "median": median,
                "min": scale * wall[warm].min(),
                "cpu": scale * np.median(cpu[warm]),
                "first_call_s": None if task.name in COLD else wall[0],
                "wanted": wanted if code == "lprjax" else None,
                "met": bool(median <= wanted) if wanted and code == "lprjax" else None,
                **facts,
            }


def ratios(lines: Sequence[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Our time over ace-jax's, medians and minima, by degree."""
    rows = {(line["size"], line["code"]): line for line in lines if line["task"] == "rows"}
    return {
        size: {k: ours[k] / rows[size, "ace-jax"][k] for k in ("median", "min", "first_call_s")}
        for (size, code), ours in rows.items()
        if code == "lprjax" and (size, "ace-jax") in rows
    }
