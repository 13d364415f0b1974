"""How fast: tables, compilation, design rows, forces, a relaxation, and the demands on them.

Tables, first site basis and relaxation are timed cold, tables and compiled functions forgotten; the
others warm, their first call apart. ace-jax, where installed, makes rows of the same kinds, of as
many functions, on the same cell, in turn with ours. CPU time is that of all threads.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.common import finish, label_axes, save_figure, start
from experiments.records import Record
from lprjax import ace, angular, coupling, design
from lprjax.defects import relax_defect, vacancy
from lprjax.neighbours import build_graph
from lprjax.observables import energy_and_forces
from lprjax.references.eam import zhou_eam
from lprjax.structures import Structure, bcc, diamond, rattled, supercell

BOND, R_CUT = 5.431 * np.sqrt(3) / 4, 5.5  # of silicon and its basis, Å
RELAX = "relaxation"
TITLES = {
    "tables": "basis tables, degree",
    "site_basis": "first site basis, degree",
    "rows": "rows E+F+V, degree",
    "force_constants": "one atom's FC rows, degree",
    "forces": "energy + forces, degree",
    RELAX: "W vacancy, cells per side",
}
COLD, PER_ATOM = ("tables", "site_basis", RELAX), ("rows", "forces")
WANTED = {("tables", 16): 2, ("site_basis", 12): 5, ("rows", 16): 2000, (RELAX, 16): 60}  # at most


@dataclass(frozen=True)
class Config:
    degrees: tuple[int, ...] = field(default=(10, 12, 16), metadata={"help": "of rows and forces"})
    tables: int = field(default=16, metadata={"help": "degree of the tables"})
    first: int = field(default=12, metadata={"help": "degree of first site basis and FC rows"})
    cells: int = field(default=3, metadata={"help": "cubic Si cells per side"})
    vacancy: int = field(default=16, metadata={"help": "cubic W cells per side"})
    repeats: int = field(default=7, metadata={"help": "of all but the relaxation"})
    peer: bool = field(default=True, metadata={"help": "time ace-jax too, where installed"})


@dataclass(frozen=True)
class Task:
    name: str
    size: int
    config: Config

    @property
    def spec(self) -> ace.ACESpec:
        return ace.ACESpec(("Si",), order=3, degree=self.size, r_cut=R_CUT, r0=BOND)


def points(config: Config) -> list[Task]:
    sizes = {"tables": (config.tables,), RELAX: (config.vacancy,)}
    sizes |= {"rows": config.degrees, "forces": config.degrees}
    return [Task(name, m, config) for name in TITLES for m in sizes.get(name, (config.first,))]


def calls(task: Task) -> dict[str, Callable[[], Any]]:
    """What is timed, by code. The relaxation includes making the defect, its graph and norm."""
    spec, config, size = task.spec, task.config, task.size
    crystal = supercell(diamond("Si", 4 / np.sqrt(3) * BOND), (config.cells,) * 3)
    cell = rattled(crystal, jax.random.key(0), 0.05)
    graph, rows = build_graph(cell, R_CUT), partial(design.design_rows, spec)
    potential = ace.linear_potential(spec, jax.random.normal(jax.random.key(1), spec.n_columns))
    ours = {
        "tables": lambda: ace.Tables(spec).halves,
        "site_basis": lambda: ace.site_basis(spec, graph),
        "rows": lambda: rows(graph, ("energy", "forces", "virial")),
        "force_constants": lambda: rows(graph, ("force_constants",), atoms=(0,)),
        "forces": lambda: energy_and_forces(potential, graph),
        RELAX: lambda: relax_defect(zhou_eam("W"), vacancy(bcc("W", 3.165), size)).relaxed,
    }
    compared = task.name == "rows" and config.peer and find_spec("ace_jax")
    return {"lprjax": ours[task.name]} | ({"ace-jax": peer_rows(spec, cell)} if compared else {})


def peer_rows(spec: ace.ACESpec, cell: Structure) -> Callable[[], Any]:
    """ace-jax's jitted `linear_rows` of the same kinds; its batch holds no padding atoms."""
    from ace_jax.basis.model import build_model
    from ace_jax.fit import data, inducing, rows

    basis = build_model(("Si",), spec.order, spec.degree, rcut=R_CUT, coupling_cache=False)
    model, meta = basis.eval_pair()
    if meta["len_basis"] != spec.n_columns:
        raise RuntimeError(f"ace-jax has {meta['len_basis']} functions: run with --no-peer")
    arrays = map(np.asarray, (cell.positions, cell.species, cell.cell, cell.pbc))
    unlabelled = data.Config(*arrays, None, None, None, 0.0, 0.0, 0.0)
    batches = data.build_dataset([unlabelled], meta, [0.0], 1, node_chunk=1)
    options = inducing.GPConfig(BOND, R_CUT, meta["n_B"], meta["n_pair"], NZ=1, C=1)
    return partial(rows.chunked_rows_fn(model, options), jax.tree.map(lambda a: a[0], batches))


def forget() -> None:
    """Drop tables and compiled functions, so that what follows is a first call."""
    jax.clear_caches()
    for room in (ace, angular, coupling, design):
        for cached in (f for f in vars(room).values() if hasattr(f, "cache_clear")):
            cached.cache_clear()


def compute(task: Task) -> dict[str, Any]:
    """Wall and CPU seconds of every call, (calls, 2) for each code; the codes take turns."""
    codes, cold = calls(task), task.name in COLD
    found: dict[str, Any] = {code: [] for code in codes}
    for turn in range(1 if task.name == RELAX else task.config.repeats + (not cold)):
        if turn == 0 or cold:
            forget()
        for code, call in codes.items():
            wall, cpu = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(call())
            found[code].append((time.perf_counter() - wall, time.process_time() - cpu))
    if task.name == RELAX:
        found |= {k: getattr(result, k) for k in ("evaluations", "converged", "max_force")}
    return found


def times(samples: np.ndarray, scale: float, cold: bool) -> dict[str, float]:
    wall, cpu = scale * samples[not cold :].T
    return dict(median=np.median(wall), min=wall.min(), cpu=np.median(cpu), first=samples[0, 0])


def lines(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """The table: a line for each task and code; times in its unit, the first call in s."""
    for task, arrays, meta in records:
        name, size = task.name, task.size
        atoms = 2 * size**3 - 1 if name == RELAX else 8 * task.config.cells**3
        about = {"task": name, "title": f"{TITLES[name]} {size}", "device": meta["device"]}
        about |= {key: value.item() for key, value in arrays.items() if value.ndim == 0}
        about |= {"n_atoms": atoms, "n_functions": None if name == RELAX else task.spec.n_columns}
        about["unit"], scale = ("µs/atom", 1e6 / atoms) if name in PER_ATOM else ("s", 1.0)
        ours = times(arrays["lprjax"], scale, name in COLD)
        wanted = WANTED.get((name, size))
        met = bool(wanted and ours["median"] <= wanted and about.get("converged", True))
        yield about | ours | {"code": "lprjax", "wanted": wanted, "met": met if wanted else None}
        if "ace-jax" in arrays:
            theirs = times(arrays["ace-jax"], scale, name in COLD)
            theirs["ratio"] = {key: ours[key] / value for key, value in theirs.items()}
            yield about | theirs | {"code": "ace-jax"}


def show(table: Sequence[dict[str, Any]]) -> None:
    print(f"{'':39}{'median':>9}{'min':>9}{'CPU':>9} {'':8}{'first (s)':>9}")
    for line in table:
        text = "{title:31}{code:8}{median:9.3g}{min:9.3g}{cpu:9.3g} {unit:8}{first:9.3g}"
        text += "  wanted {wanted}: {met}" if line.get("wanted") else ""
        text += "  lprjax / it {ratio[median]:.2f}, min {ratio[min]:.2f}" if "ratio" in line else ""
        print(text.format(**line))


def plot(table: Sequence[dict[str, Any]]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.4))
    bars = [line for line in table if line["unit"] == "s"][::-1]
    titles, medians, wanted = ([x[k] for x in bars] for k in ("title", "median", "wanted"))
    left.barh(titles, medians)
    left.plot(np.array(wanted, float), titles, "k|", ms=16, mew=2)
    left.set(xscale="log", xlabel="wall time (s); black: wanted at most")
    for task, code in dict.fromkeys((x["task"], x["code"]) for x in table if x not in bars):
        curve = [line for line in table if (line["task"], line["code"]) == (task, code)]
        x, y, low = ([line[k] for line in curve] for k in ("n_functions", "median", "min"))
        drawn = right.loglog(x, y, "o-", label=f"{TITLES[task].split(',')[0]}, {code}")
        right.fill_between(x, low, y, color=drawn[0].get_color(), alpha=0.3)
        right.plot(x, np.array([z.get("wanted") for z in curve], float), "k_", ms=16, mew=2)
    label_axes(right, ("basis functions", None), ("wall time", "µs per atom"))
    right.legend(fontsize=7, title="median, shaded to minimum", title_fontsize=7)
    return figure


PRESETS = {
    "smoke": Config(degrees=(4,), first=3, cells=1, vacancy=3, repeats=3, peer=False),
    "paper": Config(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    run = start("speed", PRESETS, argv, __doc__)
    run = replace(run, fresh=not run.plot_only)  # times of another day do not compare
    table = list(lines(run.records(points(run.config), compute)))
    save_figure(plot(table), run.folder / run.figure)
    show(table)
    summary = {"figure": run.figure, "preset": run.preset, "table": table}
    summary["demands_met"] = {x["title"]: x["met"] for x in table if x.get("wanted")}
    return finish(summary, run.results)


if __name__ == "__main__":
    main()
