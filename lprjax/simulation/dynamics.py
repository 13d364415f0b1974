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
rounding the difference of lattice coordinates leads. They are looked for among candidates, the
atoms within SKIN of the cutoff; for these all pairs are looked at, whenever an atom has moved half
of it. What is found does not depend on when that was.
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
from lprjax.numerics.blocks import in_blocks
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential, as_argument, cutoff_of, graph_for

BOLTZMANN = units.kB
"""Boltzmann's constant, eV/K, of ase.units."""
ACCELERATION = units.fs**2
"""The acceleration of a mass of 1 u by a force of 1 eV/Å, Å/fs^2, of ase.units."""
SKIN = 1.0
"""How much further than the cutoff candidates are, Å: a choice; more are found less often."""
BLOCK = 128
"""Atoms whose candidates are looked for at a time: a choice, bounds the memory."""
COLUMN = 64
"""Columns that are counted by one product: a choice."""


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


class _Candidates(NamedTuple):
    positions: jax.Array  # (n, 3) Å, when they were looked for
    table: jax.Array  # (n, M) int32, ascending; the atom itself where there are no more
    overflow: jax.Array  # () bool: there were more


class _State(NamedTuple):
    positions: jax.Array  # (n, 3) Å
    velocities: jax.Array  # (n, 3) Å/fs
    forces: jax.Array  # (n, 3) eV/Å
    energy: jax.Array  # (), eV
    overflow: jax.Array  # () bool
    listed: _Candidates


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
    slots, candidates = _slots(potential, structures, r_cut)
    n_neighbours = slots if n_neighbours is None else n_neighbours
    _check_numbers(time_step, friction, n_neighbours)
    candidates = max(candidates, candidates * int(n_neighbours) // slots)
    rooms = int(n_neighbours), min(candidates, positions.shape[1])
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
    numbers, pbc = (float(time_step), float(friction)), structures[0].pbc
    found = _integrate(argument, start, keys, schedule, numbers, r_cut, pbc, rooms)
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
    everyone = jnp.arange(structure.n_atoms, dtype=jnp.int32)
    table = jnp.broadcast_to(everyone, (len(everyone), len(everyone)))
    return _graph_among(structure, table, r_cut, n_neighbours)


def _graph_among(
    structure: Structure, candidates: jax.Array, r_cut: float, n_neighbours: int
) -> tuple[Graph, jax.Array]:
    """The graph of `minimum_image_graph`, its neighbours taken from candidates (n, M)."""
    fractions = structure.positions @ jnp.linalg.inv(structure.cell)
    own = jnp.arange(structure.n_atoms, dtype=jnp.int32)
    near = _near(structure, fractions, own, candidates, r_cut)
    table, found = packed(near, candidates, n_neighbours)
    difference = fractions[table] - fractions[:, None, :]
    periodic = jnp.asarray(structure.pbc, float)[None, None, :]
    graph = Graph(
        positions=structure.positions,
        cell=structure.cell,
        species=structure.species,
        neighbours=table,
        shifts=_nearest(difference, periodic) - difference,
        edge_mask=jnp.arange(n_neighbours)[None, :] < found[:, None],
        atom_mask=jnp.ones(len(table), bool),
        reach=jnp.asarray(r_cut, float),
        pbc=structure.pbc,
    )
    return graph, jnp.any(found > n_neighbours)


def _candidates(structure: Structure, reach: float, n_candidates: int) -> _Candidates:
    """The atoms within reach of each, of all pairs."""
    fractions = structure.positions @ jnp.linalg.inv(structure.cell)
    everyone = jnp.arange(structure.n_atoms, dtype=jnp.int32)

    def of(own):
        others = jnp.broadcast_to(everyone, (len(own), len(everyone)))
        near = _near(structure, fractions, own, others, reach)
        table, found = packed(near, others, n_candidates)
        return jnp.where(
            jnp.arange(n_candidates)[None, :] < found[:, None], table, own[:, None]
        ), found

    table, found = in_blocks(of, everyone, BLOCK)
    return _Candidates(structure.positions, table, jnp.any(found > n_candidates))


def _nearest(fractions, periodic):
    """The lattice coordinates of the image for which they are smallest."""
    return fractions - periodic * jnp.round(fractions)


def _near(structure, fractions, own, others, reach):
    """Which of the others (b, M) are within reach of the atoms own (b,), themselves excepted."""
    # One plane of pairs per direction: the CPU's vector units run along atoms, not along x, y, z.
    apart = jnp.stack([f[others] - f[own][:, None] for f in fractions.T])
    apart = _nearest(apart, jnp.asarray(structure.pbc, float)[:, None, None])
    vectors = jnp.sum(apart[:, None] * structure.cell[:, :, None, None], axis=0)
    return (jnp.sum(vectors**2, axis=0) < reach**2) & (others != own[:, None])


def packed(near: jax.Array, others: jax.Array, n_kept: int) -> tuple[jax.Array, jax.Array]:
    """The first of those that are near, in each row; for use inside `jit`.

    Args:
        near: (b, M) bool.
        others: (b, M) int32, what is kept of them.
        n_kept: how many are kept of each row, static.

    Returns:
        What is kept, (b, n_kept), zeros where there are no more, and how many are near, (b,).
    """
    # A running count gives the slot that a neighbour goes in, as products because XLA's cumulative
    # sums, and its top_k, are several times slower; those beyond the last slot are dropped.
    rows, n = near.shape
    width = min(n, COLUMN)
    columns = jnp.pad(near, ((0, 0), (0, -n % width))).astype(jnp.float32)
    within = columns.reshape(rows, -1, width) @ jnp.triu(jnp.ones((width, width), jnp.float32))
    total = within[:, :, -1]
    before = total @ jnp.triu(jnp.ones((total.shape[1],) * 2, jnp.float32), 1)
    count = (within + before[:, :, None]).reshape(rows, -1)[:, :n].astype(jnp.int32)
    slot = jnp.where(near, count - 1, n_kept)
    table = jnp.zeros((rows, n_kept), jnp.int32)
    table = table.at[jnp.arange(rows)[:, None], slot].set(others, mode="drop")
    return table, count[:, -1]


@partial(jax.jit, static_argnames=("r_cut", "pbc", "rooms"))
def _integrate(potential, start, keys, schedule, numbers, r_cut, pbc, rooms):
    """Frames of all cells; schedule (frames, every) K, rooms for neighbours and candidates."""
    positions, velocities, cells, species, masses = start
    time_step, friction = numbers
    n_atoms = positions.shape[1]
    kick = 0.5 * time_step * ACCELERATION / masses[:, :, None]
    kept = jnp.exp(-friction * time_step)
    noise = jnp.sqrt((1.0 - kept**2) * BOLTZMANN * ACCELERATION / masses)[:, :, None]

    @jax.vmap
    def search(x, cell, species):
        return _candidates(Structure(x, cell, species, pbc), r_cut + SKIN, rooms[1])

    @jax.vmap
    def evaluated(x, cell, species, table):
        structure = Structure(x, cell, species, pbc)
        graph, overflow = _graph_among(structure, table, r_cut, rooms[0])
        labels = observe(potential, graph, ("energy", "forces"))
        return labels.forces, labels.energy, overflow

    def at(x, listed):
        """Forces, energy, overflow and candidates."""
        farthest = jnp.max(jnp.sum((x - listed.positions) ** 2, axis=-1))
        again = farthest > (0.5 * SKIN) ** 2
        listed = jax.lax.cond(again, lambda: search(x, cells, species), lambda: listed)
        forces, energy, overflow = evaluated(x, cells, species, listed.table)
        return forces, energy, overflow | listed.overflow, listed

    @jax.vmap
    def drawn(key):
        return jax.random.normal(key, (n_atoms, 3))

    def step(state, now):
        number, temperature = now
        x, v, forces, _, overflow, listed = state
        v = v + kick * forces
        x = x + 0.5 * time_step * v
        xi = drawn(jax.vmap(jax.random.fold_in, (0, None))(keys, number))
        v = kept * v + jnp.sqrt(temperature) * noise * xi
        x = x + 0.5 * time_step * v
        forces, energy, here, listed = at(x, listed)
        return _State(x, v + kick * forces, forces, energy, overflow | here, listed), None

    def frame(state, now):
        state, _ = jax.lax.scan(step, state, now)
        x, v = state.positions, state.velocities
        kinetic = 0.5 * jnp.sum(masses[:, :, None] * v**2, axis=(1, 2)) / ACCELERATION
        return state, (x, v, state.energy, kinetic)

    state = _State(positions, velocities, *at(positions, search(positions, cells, species)))
    steps = jnp.arange(schedule.size).reshape(schedule.shape)
    state, frames = jax.lax.scan(frame, state, (steps, schedule))
    return Trajectory(*(jnp.moveaxis(x, 0, 1) for x in frames), state.overflow)


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


def _slots(potential: Potential, structures: Sequence[Structure], r_cut: float) -> tuple[int, int]:
    """Neighbours and candidates to keep room for, once the potential describes every cell."""
    reach, most = np.array([r_cut, r_cut + SKIN]), np.zeros(2)
    for number, structure in enumerate(structures):
        try:
            graph = graph_for(potential, structure, skin=SKIN)
        except ValueError as error:
            raise ValueError(f"structure {number}: {error}") from error
        lengths = np.linalg.norm(graph.vectors(), axis=-1)
        near = np.asarray(graph.edge_mask) & (lengths < reach[:, None, None])
        density = structure.n_atoms / float(structure.volume) if all(structure.pbc) else 0.0
        in_reach = 4.0 / 3.0 * math.pi * reach**3 * density
        most = np.max([most, in_reach, near.sum(axis=2).max(axis=1)], axis=0)
    slots, candidates = (neighbour_bucket(math.ceil(1.25 * m)) for m in most)
    return slots, candidates


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
