"""Molecular dynamics of many small cells at once, in one compiled loop.

One step of BAOAB Langevin dynamics (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34) at
the temperature T, with friction gamma and noise xi of variance one:

    v += dt/2 F(x)/m
    x += dt/2 v
    v  = a v + sqrt((1 - a^2) kT/m) xi,   a = exp(-gamma dt)
    x += dt/2 v
    v += dt/2 F(x)/m

With gamma = 0 it is velocity Verlet, and T has no part in it. Units: eV, Å, fs, u, K, with the
constants of ase.units.

Neighbours are found in every step, inside the loop: where the largest sphere inside the cell has a
diameter of more than two cutoffs, each pair has at most one image in reach, the one to which
rounding the difference of lattice coordinates leads. All pairs are looked at: for small cells.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from ase.data import atomic_masses
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, neighbour_bucket
from lprjax.atoms.structures import Structure, check_geometry, inscribed_diameter
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential, as_argument, cutoff_of, graph_for

BOLTZMANN = units.kB
"""Boltzmann's constant, eV/K, of ase.units."""
ACCELERATION = units.fs**2
"""The acceleration of a mass of 1 u by a force of 1 eV/Å, Å/fs^2, of ase.units."""


class Trajectory(NamedTuple):
    """Frames of B cells: state after every `every` steps. Look at `overflow` before the rest."""

    positions: jax.Array  # (B, frames, n, 3) Å, not wrapped into the cell
    velocities: jax.Array  # (B, frames, n, 3) Å/fs
    potential_energy: jax.Array  # (B, frames), eV
    kinetic_energy: jax.Array  # (B, frames), eV
    overflow: jax.Array  # (B,) bool: an atom once had more neighbours in reach than were kept

    def temperature(self) -> jax.Array:
        """2 E_kin / (3 n k), (B, frames), K."""
        return 2.0 * self.kinetic_energy / (3.0 * self.positions.shape[-2] * BOLTZMANN)


class _State(NamedTuple):
    positions: jax.Array  # (n, 3) Å
    velocities: jax.Array  # (n, 3) Å/fs
    forces: jax.Array  # (n, 3) eV/Å
    energy: jax.Array  # (), eV
    overflow: jax.Array  # () bool


def molecular_dynamics(
    potential: Potential,
    structures: Sequence[Structure],
    keys: jax.Array,
    temperatures: ArrayLike | Sequence[float],
    *,
    time_step: float = 1.0,
    friction: float = 0.01,
    velocities: ArrayLike | None = None,
    every: int | None = None,
    n_neighbours: int | None = None,
) -> Trajectory:
    """Langevin dynamics of B cells of n atoms each, at constant volume, along a given T(t).

    Args:
        potential: graph -> site energies (n,), eV; a pytree of arrays, or else hashable.
        structures: the B cells to start from.
        keys: (B,) random keys; the trajectory of a cell follows from its own and nothing else.
        temperatures: (steps,) T of every step, K; the number of steps is theirs.
        time_step: dt, fs.
        friction: gamma, 1/fs; 0 conserves the energy.
        velocities: (B, n, 3) Å/fs; None: drawn at the first temperature, without total momentum.
        every: steps between frames, a divisor of their number; None: the last state alone.
        n_neighbours: K kept for each atom. More in reach raise `overflow`, with a warning, and the
            forces of those steps lack some. None: a quarter more than the cells have at the start,
            or at their mean density.

    Returns:
        Trajectory. Atoms that ran into each other leave NaN or huge energies in it.

    Raises:
        RuntimeError: float64 is off.
        ValueError: a cell whose inscribed sphere is not wider than 2 r_cut; cells of different
            numbers of atoms or periodicity; shapes that do not fit; a temperature, step, friction
            or interval out of range; for any of the cells as `build_graph` and `potential.check`.
        TypeError: a potential that is neither a pytree of arrays nor hashable, or has no cutoff.

    Source: Leimkuhler, Matthews, Appl. Math. Res. Express 2013 (2013) 34.
    """
    require_x64()
    r_cut = cutoff_of(potential)
    argument = as_argument(potential, "potential")
    positions, cells, species = _stacked(structures, r_cut)
    slots = _slots(potential, structures, r_cut)
    n_neighbours = slots if n_neighbours is None else n_neighbours
    _check_numbers(time_step, friction, n_neighbours)
    schedule = _checked_schedule(temperatures, every)
    keys = jnp.asarray(keys)
    if keys.shape[:1] != (len(structures),):
        raise ValueError(
            f"keys has shape {keys.shape}: wanted {len(structures)}, one for each structure."
        )
    masses = jnp.asarray(atomic_masses[np.asarray(species)])
    start_keys, keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if velocities is None:
        draw = jax.vmap(thermal_velocities, in_axes=(0, 0, None))
        velocities = draw(start_keys, masses, schedule[0, 0])
    velocities = jnp.asarray(velocities, float)
    finite_array("velocities", velocities, positions.shape, "Å/fs")
    start = (positions, velocities, cells, species, masses)
    numbers = (float(time_step), float(friction), r_cut)
    pbc = structures[0].pbc
    found = _integrate(argument, start, keys, schedule, numbers, pbc, int(n_neighbours))
    if (lacking := np.flatnonzero(found.overflow)).size:
        warnings.warn(
            f"n_neighbours is {n_neighbours}: in structure(s) {lacking.tolist()} an atom had more "
            "in reach, and forces lack them; take more.",
            stacklevel=2,
        )
    return found


def thermal_velocities(
    key: jax.Array, masses: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Velocities of the Maxwell-Boltzmann distribution, less that of the centre of mass.

    Args:
        key: random key.
        masses: (n,) u.
        temperature: K; that of a sample falls short of it by a share 1/n on average, for the
            centre's degrees of freedom.

    Returns:
        The velocities, (n, 3) Å/fs.
    """
    spread = jnp.sqrt(BOLTZMANN * temperature * ACCELERATION / masses)[:, None]
    drawn = spread * jax.random.normal(key, (len(masses), 3))
    return drawn - (masses @ drawn / jnp.sum(masses))[None, :]


def minimum_image_graph(
    structure: Structure, r_cut: float, n_neighbours: int
) -> tuple[Graph, jax.Array]:
    """The graph of a cell much larger than the cutoff, found inside `jit`; and whether it is whole.

    Edges lead to the nearest image of each other atom, those closer than r_cut; true if some atom
    has more than K = n_neighbours of them, of which K are kept. Right where the inscribed sphere
    of the cell is wider than 2 r_cut, which is not checked here.

    Args:
        structure: n atoms; may be traced.
        r_cut: cutoff, Å.
        n_neighbours: K.

    Returns:
        The graph (n, K), and whether some atom has more neighbours than are kept, () bool.
    """
    positions, cell, n = structure.positions, structure.cell, structure.n_atoms
    fractions = positions @ jnp.linalg.inv(cell)
    periodic = jnp.asarray(structure.pbc, float)
    nearest = lambda f, axis: f - axis * jnp.round(f)  # noqa: E731
    # One plane of pairs per direction: the CPU's vector units run along atoms, not along x, y, z.
    apart = fractions.T[:, None, :] - fractions.T[:, :, None]
    apart = nearest(apart, periodic[:, None, None])
    vectors = jnp.sum(apart[:, None] * cell[:, :, None, None], axis=0)
    near = (jnp.sum(vectors**2, axis=0) < r_cut**2) & ~jnp.eye(n, dtype=bool)
    # A running count gives the slot that a neighbour goes in, as a product because XLA's cumulative
    # sums, and its top_k, are several times slower; those beyond the last slot are dropped.
    count = near.astype(jnp.float32) @ jnp.triu(jnp.ones((n, n), jnp.float32))
    slot = jnp.where(near, count.astype(jnp.int32) - 1, n_neighbours)
    atoms = jnp.arange(n, dtype=jnp.int32)
    table = jnp.zeros((n, n_neighbours), jnp.int32)
    table = table.at[atoms[:, None], slot].set(jnp.tile(atoms, (n, 1)), mode="drop")
    found = count[:, -1].astype(jnp.int32)
    difference = fractions[table] - fractions[:, None, :]
    graph = Graph(
        positions=positions,
        cell=cell,
        species=structure.species,
        neighbours=table,
        shifts=nearest(difference, periodic[None, None, :]) - difference,
        edge_mask=jnp.arange(n_neighbours)[None, :] < found[:, None],
        atom_mask=jnp.ones(n, bool),
        reach=jnp.asarray(r_cut, float),
        pbc=structure.pbc,
    )
    return graph, jnp.any(found > n_neighbours)


@partial(jax.jit, static_argnames=("pbc", "n_neighbours"))
def _integrate(potential, start, keys, schedule, numbers, pbc, n_neighbours):
    one = partial(_trajectory, potential, pbc=pbc, n_neighbours=n_neighbours, numbers=numbers)
    return jax.vmap(lambda start, key: one(start, key, schedule))(start, keys)


def _trajectory(potential, start, key, schedule, *, numbers, pbc, n_neighbours):
    """One cell's frames; schedule (frames, every) K."""
    positions, velocities, cell, species, masses = start
    time_step, friction, r_cut = numbers
    kick = 0.5 * time_step * ACCELERATION / masses[:, None]
    kept = jnp.exp(-friction * time_step)
    noise = jnp.sqrt((1.0 - kept**2) * BOLTZMANN * ACCELERATION / masses)[:, None]

    def evaluated(positions):
        structure = Structure(positions, cell, species, pbc)
        graph, overflow = minimum_image_graph(structure, r_cut, n_neighbours)
        labels = observe(potential, graph, ("energy", "forces"))
        return labels.forces, labels.energy, overflow

    def step(state, now):
        number, temperature = now
        x, v, forces, _, overflow = state
        v = v + kick * forces
        x = x + 0.5 * time_step * v
        xi = jax.random.normal(jax.random.fold_in(key, number), v.shape)
        v = kept * v + jnp.sqrt(temperature) * noise * xi
        x = x + 0.5 * time_step * v
        forces, energy, here = evaluated(x)
        return _State(x, v + kick * forces, forces, energy, overflow | here), None

    def frame(state, now):
        state, _ = jax.lax.scan(step, state, now)
        x, v = state.positions, state.velocities
        kinetic = 0.5 * jnp.sum(masses[:, None] * v**2) / ACCELERATION
        return state, (x, v, state.energy, kinetic)

    state = _State(positions, velocities, *evaluated(positions))
    steps = jnp.arange(schedule.size).reshape(schedule.shape)
    state, frames = jax.lax.scan(frame, state, (steps, schedule))
    return Trajectory(*frames, state.overflow)


def _stacked(
    structures: Sequence[Structure], r_cut: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Positions (B, n, 3), cells (B, 3, 3) and species (B, n) of cells that can be one batch."""
    if not structures:
        raise ValueError("structures is empty: wanted at least one.")
    kinds = {(s.n_atoms, s.pbc) for s in structures}
    if len(kinds) > 1:
        raise ValueError(
            f"numbers of atoms and pbc of structures are {sorted(kinds)}: wanted cells of one "
            "batch, which share number of atoms and pbc."
        )
    for number, structure in enumerate(structures):
        check_geometry(structure.positions, structure.cell)
        width = inscribed_diameter(structure)
        if not width > 2.0 * r_cut:
            raise ValueError(
                f"structure {number}: the sphere inside its cell has a diameter of {width:.3g} Å: "
                f"wanted more than two cutoffs, {2.0 * r_cut:.3g} Å; take a larger supercell."
            )
    positions, cells, species = (
        jnp.stack([getattr(s, k) for s in structures]) for k in ("positions", "cell", "species")
    )
    return positions, cells, species


def _slots(potential: Potential, structures: Sequence[Structure], r_cut: float) -> int:
    """Neighbours to keep room for, once every cell is one that the potential describes."""
    most = 0.0
    for number, structure in enumerate(structures):
        try:
            graph = graph_for(potential, structure)
        except ValueError as error:
            raise ValueError(f"structure {number}: {error}") from error
        density = structure.n_atoms / float(structure.volume) if all(structure.pbc) else 0.0
        in_reach = 4.0 / 3.0 * math.pi * r_cut**3 * density
        most = max(most, in_reach, float(graph.neighbour_counts().max()))
    return neighbour_bucket(math.ceil(1.25 * most))


def _checked_schedule(temperatures: ArrayLike | Sequence[float], every: int | None) -> jax.Array:
    """Temperatures of the steps of each frame, (frames, every), K."""
    schedule = np.asarray(temperatures, float)
    if schedule.ndim != 1 or not len(schedule) or not (schedule >= 0.0).all():
        raise ValueError(
            f"temperatures is {np.array2string(schedule, threshold=6)}: wanted one per step, shape "
            "(steps,), none below 0 K."
        )
    every = len(schedule) if every is None else every
    if every < 1 or len(schedule) % every:
        raise ValueError(f"every is {every}: wanted a divisor of the {len(schedule)} steps.")
    return jnp.asarray(schedule).reshape(-1, every)


def _check_numbers(time_step: float, friction: float, n_neighbours: int) -> None:
    if not (math.isfinite(time_step) and time_step > 0.0):
        raise ValueError(f"time_step is {time_step!r}: wanted a positive time in fs, e.g. 1.0.")
    if not (math.isfinite(friction) and friction >= 0.0):
        raise ValueError(f"friction is {friction!r}: wanted a rate >= 0 in 1/fs.")
    if n_neighbours < 1:
        raise ValueError(f"n_neighbours is {n_neighbours!r}: wanted at least 1.")
