"""How fast: every path against another code or a floor, in one run, with the ratio and a target.

python -m experiments.benchmark --preset paper --only rows_ace_jax_12 sw_8000

Each row is measured on its own, codes taking turns; missing codes are listed, with the
line that installs them. Times of another day do not compare, so every run measures anew; the table
of all rows measured so far is `--plot-only`. On a GPU the same command fills the GPU's column.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from tqdm import tqdm

from experiments.benchmark import data, fits, kernels, sets
from experiments.benchmark.cells import silicon_shape
from experiments.benchmark.clock import Turns
from experiments.benchmark.panels import plot, point
from experiments.benchmark.peers import INSTALL, missing
from experiments.benchmark.table import PLATFORMS, Row, entry, line, markdown
from experiments.harness.records import load
from experiments.harness.run import Run, finish, start
from experiments.harness.style import save_figure

PAPER_FIGURES = Path(__file__).parents[2] / "paper_figures"
KERNELS = ("site_basis", "energy_forces", "rows")


@dataclass(frozen=True)
class Config:
    """Settings of the benchmark; each field is a flag."""

    only: tuple[str, ...] = ()  # names of rows; none: all
    peers: bool = True  # compare with other codes, if installed
    degrees: tuple[int, ...] = (12, 16)  # of the rows
    rows_atoms: int = 216  # silicon atoms of the rows
    large: tuple[int, int] = (1728, 8000)  # atoms of rows that fill a GPU; against X^T X
    dynamics: int = 2000  # atoms, molecular dynamics
    whole: tuple[int, int] = (240, 48)  # cells, atoms, of a whole fit without files
    atoms: tuple[int, ...] = (216, 2000)  # for ACE forces
    reference_atoms: int = 8000  # for SW and EAM
    turns: int = 9  # of every code
    turn: float = 0.2  # least length of a turn (s)
    factor: tuple[int, int] = (100_000, 700)  # rows, columns
    threads: tuple[int, ...] = (1, 2)  # of BLAS, for factor and LPR
    processes: int = 3  # repeats in fresh processes
    data: tuple[int, int] = (500, 64)  # cells, atoms; refitted
    lpr: tuple[int, int] = (1000, 20_000)  # features, atoms
    files: str = os.environ.get("LPRJAX_DATA", "")  # folder of mlearn's files; none: a stand-in
    cells: tuple[int, int] = (200, 64)  # cells, atoms; packed
    small_cells: int = 2000  # cells of 2 to 16 atoms
    large_cell: int = 1024  # atoms, of the kernel alone
    vacancy: tuple[int, int] = (8, 37)  # cubic W cells per side
    cold: tuple[Literal[*KERNELS], ...] = KERNELS  # kernels compiled
    sweep: tuple[int, ...] = (64, 96, 144, 216, 288, 384, 512, 640)  # cell sizes, atoms
    budget: tuple[float, float] = (4, 5.0)  # cubes, radius in Å
    curve_degrees: tuple[int, ...] = (8, 10, 12, 14, 16)  # figure
    curve_atoms: tuple[int, ...] = (64, 216, 512, 1728, 8000)  # figure

    @property
    def pace(self) -> Turns:
        """How codes take turns."""
        return Turns(self.turns, self.turn)


def targets(config: Config) -> Iterator[Row]:
    """The rows of the table, in its order."""
    for degree in config.degrees:
        yield from design_targets(config, degree)
    yield Row(
        f"force_constant_rows_{config.degrees[0]}",
        f"force-constant rows of a displaced atom, perfect lattice, D = {config.degrees[0]}",
        "force rows of the same cell", 6, False, "s",
        partial(kernels.force_constants, config.degrees[0], config.rows_atoms, config.pace,
                there=True),
        "three products per atom and degree where force rows take one, of how its neighbours "
        "change",
    )  # fmt: skip
    for degree in config.degrees:
        for n in config.atoms:
            yield Row(
                f"energy_forces_{degree}_{n}",
                f"energy + forces of a linear ACE, {n} atoms, D = {degree}",
                "ace-jax's compiled step", 1.5, True, "µs/atom",
                partial(kernels.energy_forces, degree, n, config.pace),
                "radial functions, harmonics and slopes of every padded edge, then the products of "
                "channels",
                "ace-jax",
            )  # fmt: skip
    degree, n = config.degrees[0], config.dynamics
    yield Row(
        f"dynamics_{degree}_{n}",
        f"a step of molecular dynamics with a linear ACE, {n} atoms, D = {degree}",
        "ace-jax's calculator in ASE", 3, True, "µs/atom",
        partial(kernels.dynamics, degree, n, config.pace),
        "energy and forces of the edges within the cutoff, which are picked out of those of a skin",
        "ace-jax",
    )  # fmt: skip
    yield Row(
        f"ase_{degree}_{n}",
        f"the same with stress, in ASE by our calculator, {n} atoms, D = {degree}",
        "ace-jax's calculator in ASE", 1, True, "µs/atom",
        partial(kernels.dynamics, degree, n, config.pace, by_ase=True),
        "energy and slopes in positions and cell of the edges within the cutoff",
        "ace-jax",
    )  # fmt: skip
    for name, title in (("sw", "Stillinger–Weber Si"), ("eam", "Zhou's EAM of W")):
        n = config.reference_atoms
        yield Row(
            f"{name}_{n}", f"energy + forces, {title}, {n} atoms", "LAMMPS, one core",
            3, False, "µs/atom", partial(kernels.reference, name, n, config.pace),
            "exponentials and slopes of both directions of every padded edge, block by block; "
            "LAMMPS reads splines of the EAM, and each of its pairs once",
            "lammps",
        )  # fmt: skip
    yield Row(
        f"eam_table_{n}", f"energy + forces, an EAM from a file, {n} atoms of W",
        "the same EAM from its formulae", 2, False, "µs/atom",
        partial(kernels.tabulated, n, config.pace),
        "twelve numbers from the table for every padded edge",
    )  # fmt: skip
    yield from set_targets(config)
    yield from linear_algebra_targets(config)
    yield from cold_targets(config)


def design_targets(config: Config, degree: int) -> Iterator[Row]:
    """Rows of one basis against two codes and against the floor."""
    n = config.rows_atoms
    path = f"rows E+F+V, {n} rattled Si, D = {degree}"
    matter = "one product per atom and degree, and gathering the neighbours' functions for it"
    for peer, name, against, target in (
        ("ace-jax", "ace_jax", "ace-jax `linear_rows`, the same basis", 4),
        ("python-ace", "python_ace", "python-ace, rows E+F, as many functions", 15),
    ):
        measure = partial(kernels.rows_against, peer, degree, n, config.pace)
        yield Row(
            f"rows_{name}_{degree}", path, against, target, True, "µs/atom", measure, matter, peer
        )
    first, (many, most) = degree == config.degrees[0], config.large
    measure = partial(kernels.rows_against, "ace-jax", degree, many, config.pace)
    yield Row(
        f"rows_ace_jax_{degree}_{many}", f"rows E+F+V, {many} rattled Si, D = {degree}",
        "ace-jax `linear_rows`, the same basis", 8 if first else 10, True, "µs/atom", measure,
        matter, "ace-jax",
    )  # fmt: skip
    for size, wanted in ((n, 10 if first else 15), (most, 8))[: 1 + first]:
        measure = partial(kernels.rows_floor, degree, size, config.pace, there=True)
        yield Row(
            f"rows_floor_{degree}" + f"_{size}" * (size != n),
            f"rows E+F+V, {size} rattled Si, D = {degree}",
            "`X^T X` of the same rows, XLA or dsyrk", wanted, False, "µs/atom", measure,
            f"{matter}; these products run at {{rows_GFLOP_s:.0f}} GFLOP/s of wall time, all else "
            "included, X^T X at {product_GFLOP_s:.0f}",
        )  # fmt: skip


def set_targets(config: Config) -> Iterator[Row]:
    """Whole data sets: file to factors."""
    degree, (cells, atoms) = config.degrees[-1], config.cells
    yield Row(
        f"file_to_factors_{degree}", f"extended XYZ to factors E+F+V, mlearn's Si, D = {degree}",
        f"row kernel on one cell of {config.large_cell} atoms, per atom", 1.4, False, "µs/atom",
        partial(sets.file_set, degree, config.files, config.large_cell, config.pace),
        "rows of packs, then QR, two thirds of whose work is on new rows; text and neighbours take "
        "a tenth",
    )  # fmt: skip
    yield Row(
        f"small_cells_{degree}",
        f"the same of {config.small_cells} cells of 2 to 16 atoms, D = {degree}",
        "cells of 54 atoms, per atom", 2, False, "µs/atom",
        partial(sets.small_cells, degree, config.small_cells, config.pace),
        "frames to be read, neighbours to be searched and packs that are filled by few atoms",
    )  # fmt: skip
    for degree, target in zip(config.degrees, (4, 8), strict=False):
        yield Row(
            f"packed_{degree}", f"graphs to factors of {cells} cells of {atoms}, D = {degree}",
            "µs per atom, on an accelerator", target, False, "µs/atom",
            partial(sets.packed, degree, cells, atoms, config.pace),
            "rows, and products that stand for QR",
        )  # fmt: skip


def linear_algebra_targets(config: Config) -> Iterator[Row]:
    """Factor, refit, rigidity."""
    rows, columns = config.factor
    yield Row(
        "factor", f"factor of {rows} x {columns} rows, streamed, below 1 GB", "dense numpy QR",
        1, False, "s", partial(data.factor, rows, columns, config.threads, config.processes),
        "Householder QR of blocks on top of the factor, whose share is arithmetic that dense saves",
    )  # fmt: skip
    degree, n, (cells, atoms) = config.degrees[-1], config.rows_atoms, config.data
    yield Row(
        "refit", f"refit + LPR of {n} sites, one more choice of weights, 5 factors, D = {degree}",
        f"assembling {cells} cells of {atoms} atoms anew", 100, True, "s",
        partial(data.refit, degree, cells, atoms, n, config.pace),
        "a QR of stacked triangles that leaves out their zeros",
    )  # fmt: skip
    yield Row(
        f"one_more_loss_{degree}", f"`solution` of one more loss, three factors, D = {degree}",
        "`fit` of it", 1, False, "s", partial(fits.one_more_loss, degree, atoms, config.pace),
        "a QR of stacked triangles that leaves out their zeros; neither rank nor misfits",
    )  # fmt: skip
    yield Row(
        f"whole_fit_{degree}",
        f"from extended XYZ to coefficients, 26 losses tried, D = {degree}; first calls: 10 times",
        "ace-jax's fit by evidence", 12, True, "s",
        partial(fits.from_file, degree, config.files, *config.whole, config.processes),
        "rows, and QR of them; {cells} cells, {atoms} atoms; first calls take {ours_cold:.3g} s, "
        "{xla:.3g} of them {compilations:.0f} compilations",
        "ace-jax",
    )  # fmt: skip
    features, sites = config.lpr
    yield Row(
        "lpr_skmatter", f"LPR, {features} features, {sites} atoms", "scikit-matter", 50, True, "s",
        partial(data.lpr, features, sites, config.threads, config.processes),
        "one QR of the training rows and one triangular solve for all atoms, against a product "
        "with a K x K inverse for each: both are K^2 per atom, in one BLAS call or in one each",
        "skmatter",
    )  # fmt: skip


def cold_targets(config: Config) -> Iterator[Row]:
    """Relaxation and compilation: first calls."""
    small, large = config.vacancy
    sizes = f"{2 * small**3 - 1} to {2 * large**3 - 1} atoms"
    yield Row(
        "relaxation", f"W vacancy (Zhou) to 1e-6 eV/Å, {sizes}: evaluations; below 300 s",
        "itself", 1.5, False, "s", partial(data.relaxation, small, large),
        "evaluations of the EAM, and the FFTs of the lattice preconditioner",
    )  # fmt: skip
    degree, shape = config.degrees[-1], silicon_shape(config.rows_atoms)
    for name in config.cold:
        yield Row(
            f"compile_{name}_{degree}", f"first call of {name.replace('_', ' ')}, D = {degree}",
            "seconds, in a fresh process", 5, False, "s",
            partial(data.compilation, name, degree, shape, config.processes),
            "tables of the basis, tracing, and XLA's passes over the kernel",
        )  # fmt: skip
    shapes = [silicon_shape(n) for n in config.sweep]
    yield Row(
        f"compile_sweep_{degree}", f"compilations of a kernel over {len(shapes)} cell sizes",
        "count", 3, False, "s", partial(data.sweep, degree, shapes, config.cold),
        "one compilation for every padded shape, of which `build_graphs` makes as many as asked "
        "for",
    )  # fmt: skip
    cubes, radius = config.budget
    again = "{xla:.1f} s in XLA and {first:.1f} s in all, {again:.2f} s once more"
    for name, metal, path, target in (
        ("cold_budget", "W", "compilations of the first error budget, a W vacancy, D = 8", 60),
        ("cold_second", "Mo", "compilations of a second one, of Mo", 3),
    ):
        yield Row(
            name, path, "count", target, False, "s",
            partial(data.cold_budget, metal, int(cubes), radius),
            f"one program per potential and shape for forces, for products with second and with "
            f"third derivatives, and for strains; {again}",
        )  # fmt: skip
    yield Row(
        "cold_readme", "compilations of the README's Python blocks", "count", 80, False, "s",
        data.cold_readme, "a fit, its rigidities and a budget; {xla:.1f} s of {first:.1f} s in XLA",
    )  # fmt: skip


def curves(config: Config) -> dict[str, partial]:
    """The points of the figure; of the other codes, those that are there."""
    there = [peer for peer in INSTALL if config.peers and not missing(peer)]
    how = dict(turns=config.pace._replace(number=min(5, config.turns)), there=there)
    degree, n_atoms = config.degrees[0], config.rows_atoms
    by_degree = {
        f"degree_{d}": partial(kernels.at_degree, d, n_atoms, **how) for d in config.curve_degrees
    }
    by_size = {f"atoms_{n}": partial(kernels.at_size, degree, n, **how) for n in config.curve_atoms}
    return by_degree | by_size


def chosen(config: Config) -> tuple[dict[str, Row], dict[str, partial]]:
    """The rows and points of the figure that are named, or all of them.

    Args:
        config: its `only` has the names.

    Returns:
        rows and points by name.

    Raises:
        SystemExit: a name is none; the message has those there are.
    """
    rows, points = {row.name: row for row in targets(config)}, curves(config)
    unknown = set(config.only) - rows.keys() - points.keys()
    if unknown:
        raise SystemExit(
            f"only is {sorted(unknown)}: wanted names that there are: "
            f"{', '.join([*rows, *points])}."
        )
    named = config.only or [*rows, *points]
    return {k: rows[k] for k in rows if k in named}, {k: points[k] for k in points if k in named}


def identity(name: str, config: Config, platform: str) -> dict[str, Any]:
    """What the record of a row is a record of."""
    settings = asdict(replace(config, only=()))
    return {"row": name, "platform": platform, "config": settings}


def measure(run: Run, platform: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of the rows, printed as they come, and points of the figure."""
    rows, points = chosen(run.config)

    def compute(who):
        name = who["row"]
        return rows[name].measured(run.config.peers) if name in rows else points[name]()

    asked = [identity(name, run.config, platform) for name in [*rows, *points]]
    entries, drawn = {}, {}
    for record in run.records(asked, compute):
        name = record.point["row"]
        if name in points:
            drawn[name] = point(record.arrays)
            tqdm.write(f"{name:24} measured")
        else:
            entries[name] = entry(rows[name], record.arrays)
            tqdm.write(line(name, entries[name]))
    return entries, drawn


def elsewhere(run: Run, platform: str) -> dict[str, Any]:
    """Entries of the same rows, where another kind of device measured them into these results."""
    found = {}
    for name, row in chosen(run.config)[0].items():
        who = identity(name, run.config, platform)
        record = load(run.folder, who, experiment=run.figure)
        if record is not None:
            found[name] = entry(row, record.arrays)
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Make the figure.

    Args:
        argv: the flags; those of the command line if None.

    Returns:
        the summary as it was written.
    """
    run = start("benchmark", PRESETS, argv, __doc__, alone=True)
    run = replace(run, fresh=not run.plot_only)
    platform = jax.default_backend()
    entries, drawn = measure(run, platform)
    both = {p: entries if p == platform else elsewhere(run, p) for p in PLATFORMS}
    text = markdown(chosen(run.config)[0].values(), both, run.preset)
    complete = run.preset == "paper" and run.config == PRESETS["paper"]
    for folder in [run.folder] + [PAPER_FIGURES] * complete:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmark.md").write_text(text)
        by_degree = [p for name, p in drawn.items() if name.startswith("degree_")]
        by_size = [p for name, p in drawn.items() if name.startswith("atoms_")]
        if by_degree and by_size:
            save_figure(plot(by_degree, by_size), folder / run.figure)
    about = {"figure": run.figure, "preset": run.preset, "platform": platform}
    return finish(about | entries | {"curves": drawn}, run.results)


PRESETS = {
    "smoke": Config(
        peers=False, degrees=(3,), rows_atoms=8, atoms=(8,), reference_atoms=8, turns=2, turn=0.0,
        factor=(300, 8), threads=(1,), processes=1, data=(2, 8), lpr=(5, 40), vacancy=(2, 2),
        large=(8, 16), dynamics=216, whole=(6, 8),
        files="", cells=(3, 8), small_cells=9, large_cell=8,
        cold=("site_basis",), sweep=(8,), budget=(3, 4.0), curve_degrees=(3,), curve_atoms=(8,),
    ),
    "paper": Config(),
}  # fmt: skip


if __name__ == "__main__":
    main()
