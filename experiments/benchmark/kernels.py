"""What `benchmark` measures of the kernels: design rows, energies and forces, against the peers.

Every function returns arrays: seconds of "ours" and "theirs" (calls,), "atoms", and extras.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg.blas import dsyrk

from experiments.benchmark import peers
from experiments.benchmark.cells import (
    ace_spec,
    perfect_silicon,
    rattled_silicon,
    rattled_tungsten,
    silicon_shape,
)
from experiments.benchmark.clock import Turns, faster, in_turn
from lprjax.ace.adjoint import adjoint_tables
from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.ase.calculator import Calculator
from lprjax.atoms.graphs import build_graph
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.eam_tables import eam_from_file
from lprjax.potentials.observables import energy_and_forces
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.rows import Rows, design_rows
from lprjax.regression.samples import stacked
from lprjax.simulation.dynamics import molecular_dynamics

KINDS = ("energy", "forces", "virial")
RUNS = 20  # evaluations that LAMMPS is asked for at a time
STEPS, TIME_STEP, FLIGHT = 40, 1e-3, 0.004  # of molecular dynamics; fs; Å in a step

Calls = dict[str, Callable[[], Any]]
Found = dict[str, Any]


def fitted(spec: ACESpec) -> LinearPotential:
    """A potential with random coefficients: what it costs does not depend on them."""
    return linear_potential(spec, jax.random.normal(jax.random.key(1), spec.n_columns))


def rows_call(degree: int, n_atoms: int) -> Callable[[], Any]:
    """Rows of energy, forces and virial of one rattled cell."""
    spec = ace_spec(degree)
    graph = build_graph(rattled_silicon(silicon_shape(n_atoms)), spec.r_cut)
    return partial(design_rows, spec, graph, KINDS)


def rows_against(peer: str, degree: int, n_atoms: int, turns: Turns, there: bool) -> Found:
    """Rows of energy, forces and virial (python-ace: no virial), E+F+V, of one rattled cell."""
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    calls: Calls = {"ours": rows_call(degree, n_atoms)}
    extra = {"atoms": n_atoms, "functions": spec.n_columns}
    if there and peer == "ace-jax":
        calls["theirs"] = peers.ace_jax_rows(spec, cell)
    if there and peer == "python-ace":
        other = peers.python_ace(spec, cell)
        calls["theirs"] = other.rows
        extra["holds_as_many_functions"] = other.n_functions == spec.n_columns
    return in_turn(calls, turns) | extra


def floor_calls(rows: Rows, n_atoms: int) -> Calls:
    """X^T X of all rows of a cell, without padding: by XLA with its threads, by BLAS with one."""
    matrix = jnp.concatenate([stacked(kind, getattr(rows, kind), n_atoms) for kind in KINDS])
    calls: Calls = {"xla": partial(jax.jit(lambda x: x.T @ x), matrix)}
    if jax.default_backend() == "cpu":
        calls["dsyrk"] = partial(dsyrk, 1.0, np.asarray(matrix).T)
    return calls


def rows_floor(degree: int, n_atoms: int, turns: Turns, there: bool) -> Found:
    """Rows against the product that whoever uses them takes at least: the faster of two."""
    call = rows_call(degree, n_atoms)
    found = in_turn({"ours": call} | floor_calls(call(), n_atoms), turns)
    floors = {code: seconds for code, seconds in found.items() if code != "ours"}
    medians = {code: 1e6 / n_atoms * np.median(seconds) for code, seconds in floors.items()}
    spec, floor = ace_spec(degree), faster(list(floors.values()))
    n_rows, n_columns = 3 * n_atoms + 7, spec.n_columns
    return {"ours": found["ours"], "theirs": floor, **medians} | {
        "atoms": n_atoms,
        "functions": n_columns,
        "rows_GFLOP_s": 1e-9 * row_products(spec, n_atoms) / np.median(found["ours"]),
        "product_GFLOP_s": 1e-9 * n_rows * n_columns * (n_columns + 1) / np.median(floor),
    }


def row_products(spec: ACESpec, n_atoms: int) -> float:
    """Floating-point operations of the products that make force rows, padded edges included."""
    graph = build_graph(rattled_silicon(silicon_shape(n_atoms)), spec.r_cut)
    blocks, n_neighbours = adjoint_tables(spec).blocks, graph.neighbours.shape[1]
    inner = sum((2 * b.l + 1) * 3 * b.n_max * b.n_q for b in blocks)
    return 2.0 * n_atoms * n_neighbours * inner


def force_constants(degree: int, n_atoms: int, turns: Turns, there: bool) -> Found:
    """Rows of one atom's force constants against rows of all forces, of one perfect cell."""
    spec = ace_spec(degree)
    graph = build_graph(perfect_silicon(silicon_shape(n_atoms)), spec.r_cut)
    calls: Calls = {"ours": partial(design_rows, spec, graph, ("force_constants",), atoms=(0,))}
    calls["theirs"] = partial(design_rows, spec, graph, ("forces",))
    return in_turn(calls, turns) | {"atoms": n_atoms, "functions": spec.n_columns}


def energy_forces(degree: int, n_atoms: int, turns: Turns, there: bool) -> Found:
    """A linear potential against ace-jax's compiled step, neighbours found before."""
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    graph = build_graph(cell, spec.r_cut)
    calls: Calls = {"ours": partial(energy_and_forces, fitted(spec), graph)}
    if there:
        calls["theirs"] = peers.ace_jax_forces(spec, cell)
    return in_turn(calls, turns) | {"atoms": n_atoms, "functions": spec.n_columns}


def dynamics(degree: int, n_atoms: int, turns: Turns, there: bool, by_ase: bool = False) -> Found:
    """Steps of molecular dynamics, energy, forces and neighbours, of a linear potential; by ASE
    with our calculator, or in a compiled loop.

    Coefficients are random, so that steps in time are tiny and atoms fly freely, by 0.004 Å a step
    and direction: as in a hot crystal neighbours are found anew every 30 steps or so, and once at
    the beginning of a call.
    """
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    drawn = np.random.default_rng(2).normal(size=(n_atoms, 3)) * FLIGHT / TIME_STEP
    options = dict(time_step=TIME_STEP, friction=0.0, velocities=drawn[None])
    arguments = fitted(spec), [cell], jax.random.split(jax.random.key(0), 1), np.zeros(STEPS)
    calls: Calls = {"ours": partial(molecular_dynamics, *arguments, **options)}
    if by_ase:
        ours = peers.ase_dynamics(Calculator(fitted(spec)), cell, drawn, TIME_STEP)
        calls = {"ours": partial(ours.run, STEPS)}
    if there:
        other = peers.ase_dynamics(peers.ace_jax_calculator(spec), cell, drawn, TIME_STEP)
        calls["theirs"] = partial(other.run, STEPS)
    found = in_turn(calls, turns)
    return {code: seconds / STEPS for code, seconds in found.items()} | {"atoms": n_atoms}


def reference(name: str, n_atoms: int, turns: Turns, there: bool) -> Found:
    """Stillinger–Weber ("sw") or Zhou's EAM ("eam") against LAMMPS, neighbours found before.

    "holds_same": energies per atom equal to 1e-8 eV, forces to 1e-6 eV/Å (its table's spline).
    """
    potential = stillinger_weber() if name == "sw" else zhou_eam("W")
    silicon = name == "sw"
    cell = rattled_silicon(silicon_shape(n_atoms)) if silicon else rattled_tungsten(n_atoms)
    graph = build_graph(cell, potential.r_cut)
    call = partial(energy_and_forces, potential, graph)
    if not there:
        return in_turn({"ours": call}, turns) | {"atoms": n_atoms}
    other = peers.lammps_silicon(cell) if silicon else peers.lammps_zhou(cell, "W")
    found = in_turn({"ours": call, "theirs": partial(other.run, RUNS)}, turns)
    (energy, forces), (their_energy, their_forces) = call(), other.energy_and_forces()
    off = np.abs(np.asarray(forces)[:n_atoms] - their_forces).max()
    same = abs(float(energy) - their_energy) < 1e-8 * n_atoms and off < 1e-6
    found["theirs"] = found["theirs"] / RUNS
    return found | {"atoms": n_atoms, "holds_same": same, "force_difference": off}


def tabulated(n_atoms: int, turns: Turns) -> Found:
    """Zhou's EAM of tungsten read from a file against the same from its formulae."""
    formulae, cell = zhou_eam("W"), rattled_tungsten(n_atoms)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zhou.eam.alloy"
        path.write_text(peers.setfl("W"))
        table = eam_from_file(path, r_cut=formulae.r_cut)
    graph = build_graph(cell, formulae.r_cut)
    calls = {
        code: partial(energy_and_forces, potential, graph)
        for code, potential in (("ours", table), ("theirs", formulae))
    }
    return in_turn(calls, turns) | {"atoms": n_atoms}


def at_degree(degree: int, n_atoms: int, turns: Turns, there: Sequence[str]) -> Found:
    """A point of the figure: rows by every code that is there, and their floor."""
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    call = rows_call(degree, n_atoms)
    calls: Calls = {"lprjax": call}
    if "ace-jax" in there:
        calls["ace-jax"] = peers.ace_jax_rows(spec, cell)
    if "python-ace" in there:
        calls["python-ace"] = (other := peers.python_ace(spec, cell)).rows
        assert other.n_functions == spec.n_columns
    floors = floor_calls(call(), n_atoms)
    found = in_turn(calls | floors, turns, limit=20.0)
    floor = faster([found.pop(code) for code in floors])
    return found | {"X^T X": floor, "functions": spec.n_columns, "atoms": n_atoms}


def at_size(degree: int, n_atoms: int, turns: Turns, there: Sequence[str]) -> Found:
    """A point of the figure: rows, energies and forces of one cell by every code that is there."""
    spec, cell = ace_spec(degree), rattled_silicon(silicon_shape(n_atoms))
    call = rows_call(degree, n_atoms)
    rows: Calls = {"rows, lprjax": call}
    graph = build_graph(cell, spec.r_cut)
    forces: Calls = {"forces, lprjax": partial(energy_and_forces, fitted(spec), graph)}
    if "ace-jax" in there:
        rows["rows, ace-jax"] = peers.ace_jax_rows(spec, cell)
        forces["forces, ace-jax"] = peers.ace_jax_forces(spec, cell)
    if "python-ace" in there:
        rows["rows, python-ace"] = peers.python_ace(spec, cell).rows
        forces["forces, python-ace"] = peers.python_ace(spec, cell, recursive=True).forces
    floors = floor_calls(call(), n_atoms)
    found = in_turn(rows | floors, turns, limit=20.0) | in_turn(forces, turns, limit=20.0)
    found["rows, X^T X"] = faster([found.pop(code) for code in floors])
    for name, title in (("sw", "SW"), ("eam", "EAM")):
        measured = reference(name, n_atoms, turns, "lammps" in there)
        codes = {"ours": "lprjax", "theirs": "LAMMPS"}
        found |= {f"{title}, {codes[k]}": measured[k] for k in codes if k in measured}
    return found | {"atoms": n_atoms}
