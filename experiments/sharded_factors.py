"""A data set compressed by many devices or processes, and by one device: equal factors?

    python -m experiments.sharded_factors --devices 8           # this CPU, as eight devices
    python -m experiments.sharded_factors --processes 2         # two processes on this machine
    python -m experiments.sharded_factors                       # all GPUs of this machine
    srun python -m experiments.sharded_factors --distributed    # all GPUs of a SLURM job

Rattled cells of Si with labels of the Stillinger-Weber potential. Each process makes the rows of
every P-th cell on its own devices; the difference is the largest entry of R - R' in units of its
column's norm, of q - q' in those of |q|, of all kinds. The same of a pass over the rows of the fit:
left-out residuals in units of their rms, sandwich and jackknife deviations of the coefficients.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from experiments.harness.records import require_writable
from experiments.harness.run import Run, finish, start
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph, build_graphs
from lprjax.atoms.structures import Labels, diamond, rattled, supercell
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.assembly import compress_structures, structure_rows
from lprjax.regression.factors import Factor
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.influence_results import Influence
from lprjax.regression.influences import influence

BOND = 5.431 * np.sqrt(3) / 4  # Å
KINDS = ("energy", "forces", "virial")


@dataclass(frozen=True)
class Config:
    """Settings of the comparison; each field is a flag."""

    cells: tuple[int, ...] = (1, 2)  # cubic cells per side
    structures: int = 203  # how many, of all sizes in turn
    degree: int = 8  # of the basis
    order: int = 3  # of the basis
    devices: int = 0  # of the CPU, per process; 0: what is there
    processes: int = 1  # to start on this machine
    distributed: bool = False  # be one process of a cluster's job
    coordinator: str = ""  # host:port; of a process started here
    rank: int = 0  # of a process started here

    @property
    def spec(self) -> ACESpec:
        """The basis."""
        return ACESpec(("Si",), self.order, self.degree, r_cut=5.5, r0=BOND)


def join(config: Config) -> None:
    """What JAX must know before it looks for devices."""
    if config.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", config.devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if config.distributed:
        jax.distributed.initialize()  # knows SLURM, Open MPI, Kubernetes and cloud TPUs
    elif config.coordinator:
        jax.config.update("jax_platforms", "cpu")
        jax.distributed.initialize(config.coordinator, config.processes, config.rank)


def started(run: Run) -> None:
    """The processes of this machine, each with its rank, from start to end.

    Args:
        run: the run of the process that starts them.

    Raises:
        SystemExit: one of them fails.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "experiments.sharded_factors", "--results", str(run.results)]
    command += ["--preset", run.preset, "--coordinator", address]
    for name in (f.name for f in fields(Config) if f.type is int and f.name != "rank"):
        command += ["--" + name, str(getattr(run.config, name))]
    command += ["--cells", *map(str, run.config.cells)]
    processes = [
        subprocess.Popen([*command, "--rank", str(r)], stdout=subprocess.DEVNULL if r else None)
        for r in range(run.config.processes)
    ]
    try:
        for rank, process in enumerate(processes):
            if process.wait():
                raise SystemExit(f"process {rank} ended with {process.returncode}: wanted 0.")
    finally:
        for process in processes:
            process.kill()


def data_set(config: Config) -> list[tuple[Graph, Labels]]:
    """Labelled cells of all sizes, the same in every process."""
    crystals = [supercell(diamond("Si", 5.431), (m,) * 3) for m in config.cells]
    keys = jax.random.split(jax.random.key(0), config.structures)
    sizes = np.linspace(0.05, 0.35, config.structures)  # Å, so that energies differ
    structures = [
        rattled(crystals[k % len(crystals)], key, size)
        for k, (key, size) in enumerate(zip(keys, sizes, strict=True))
    ]
    graphs = build_graphs(structures, config.spec.r_cut)
    return [(graph, observe(stillinger_weber(), graph, KINDS)) for graph in graphs]


def difference(found: Mapping[str, Factor], wanted: Mapping[str, Factor]) -> float:
    """The largest difference of two sets of factors.

    Args:
        found: by kind.
        wanted: by kind.

    Returns:
        that of R in units of its column's norm, or of q in those of |q|; infinite where the
        numbers of rows differ.
    """
    worst = [0.0]
    for kind, other in wanted.items():
        factor = found[kind]
        norms = np.linalg.norm(other.triangular, axis=0)
        worst += [np.max(np.abs(factor.triangular - other.triangular) / np.where(norms, norms, 1))]
        worst += [np.max(np.abs(factor.target - other.target)) / np.linalg.norm(other.target)]
        worst += [0.0 if factor.n_rows == other.n_rows else np.inf]
    return float(max(worst))


def timed(
    spec: ACESpec, samples: Sequence, mesh: jax.sharding.Mesh | None
) -> tuple[dict[str, Factor], float]:
    """The factors, and how long they take the second time: the first compiles.

    Args:
        spec: the basis.
        samples: graphs and labels.
        mesh: the devices; None for one.

    Returns:
        factors by kind, and seconds.
    """
    for _ in range(2):
        began = time.perf_counter()
        factors = jax.block_until_ready(compress_structures(spec, samples, KINDS, mesh=mesh))
    return factors, round(time.perf_counter() - began, 3)


def what_structures_do(
    config: Config, done: Fit, samples: Sequence, mesh: jax.sharding.Mesh | None
) -> Influence:
    """One pass over the rows, of this process's share of the cells if there is a mesh.

    Args:
        config: of the basis.
        done: the fit to all cells.
        samples: graphs and labels of this process, every P-th of all.
        mesh: the devices; None for one.

    Returns:
        the Influence of all cells.
    """
    first, step = (jax.process_index(), jax.process_count()) if mesh else (0, 1)
    found = structure_rows(config.spec, samples, KINDS, mesh=mesh)
    rows = ((first + step * number, parts) for number, parts in found)
    return influence(done, rows, mesh=mesh)


def difference_of_passes(found: Influence, wanted: Influence) -> float:
    """The largest difference of two passes, in units of what is compared.

    Args:
        found: of many devices.
        wanted: of one.

    Returns:
        that of left-out residuals and leverages, and of deviations; infinite where the structures
        differ.
    """
    if found.owners.keys() != wanted.owners.keys() or not all(
        np.array_equal(found.owners[kind], wanted.owners[kind]) for kind in wanted.owners
    ):
        return np.inf
    worst = [
        np.max(np.abs(found.left_out[kind] - wanted.left_out[kind])) / error
        for kind, error in wanted.cross_validated.items()
    ]
    worst += [np.max(np.abs(found.leverages[k] - x)) for k, x in wanted.leverages.items()]
    unit = np.eye(len(wanted.coefficients))
    for kind in ("sandwich", "jackknife"):
        both = found.deviations(unit, kind), wanted.deviations(unit, kind)
        worst.append(np.max(np.abs(both[0] / both[1] - 1.0)))
    return float(max(worst))


PRESETS = {
    "smoke": Config(cells=(1,), structures=21, degree=5, order=2),
    "paper": Config(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Compare, and time.

    Args:
        argv: the flags; those of the command line if None.

    Returns:
        the summary, or None from a process that leaves it to another to print.
    """
    run = start("sharded_factors", PRESETS, argv, __doc__, alone=True)
    config = run.config
    if config.processes > 1 and not config.coordinator:
        return started(run)
    join(config)
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    rank, samples = jax.process_index(), data_set(config)
    if not rank:
        require_writable(run.folder)
    share = samples[rank :: jax.process_count()]
    sharded, seconds_sharded = timed(config.spec, share, mesh)
    done = fit(sharded, dict.fromkeys(KINDS, 1.0), ridge=1e-6)
    passed = what_structures_do(config, done, share, mesh)
    if rank:
        return None
    alone, seconds_alone = timed(config.spec, samples, None)
    summary = {"figure": run.figure, "preset": run.preset, "platform": jax.devices()[0].platform}
    summary |= {"n_processes": jax.process_count(), "n_devices": jax.device_count()}
    summary |= {"n_structures": len(samples), "n_columns": config.spec.n_columns}
    summary |= {"n_rows": {kind: factor.n_rows for kind, factor in alone.items()}}
    summary |= {"relative_difference": difference(sharded, alone)}
    wanted = what_structures_do(config, done, samples, None)
    summary |= {"influence_difference": difference_of_passes(passed, wanted)}
    summary |= {"seconds_sharded": seconds_sharded, "seconds_alone": seconds_alone}
    return finish(summary, run.results)


if __name__ == "__main__":
    main()
