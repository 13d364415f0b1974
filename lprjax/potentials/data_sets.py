"""Observables of a whole data set at once: structures of any sizes, a pack of them at a time.

The derivatives are those of `observables`, of all structures of a pack in one go: each has a strain
of its own, and the same atom of each is displaced for its force constants, as no structure feels
another.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.batches import Pack, capacity, common_room, gathered, pack
from lprjax.atoms.graphs import Graph, moved
from lprjax.atoms.structures import Labels
from lprjax.numerics.checks import named, require_x64
from lprjax.potentials.from_ase import ASEPotential
from lprjax.potentials.observables import KINDS, checked_atoms, checked_kinds, observe
from lprjax.potentials.potential import Potential, as_argument, check, site_energies_of


def observe_all(
    potential: Potential,
    graphs: Iterable[Graph],
    kinds: str | Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
) -> list[Labels]:
    """Observations of one potential on many graphs: those of `observe` to rounding, many at once.

    Small cells cost no more per atom than large ones, and any number of sizes compiles a few times:
    once for each number of neighbours that the graphs are padded to. A potential may look at the
    edges of a graph (`vectors`, `neighbours`, `edge_mask`), at its species and its masks; what its
    cell and shifts are here, see `atoms.batches`. A calculator of ASE gets one graph at a time.

    Args:
        potential: as in `observe`.
        graphs: of any sizes, padded or not, as `build_graphs` makes them.
        kinds: as in `observe`.
        atoms: those of every structure that are displaced for the force constants.

    Returns:
        The Labels of each graph: arrays of NumPy, of its real atoms, without padding.

    Raises:
        RuntimeError, TypeError: as `observe`.
        ValueError: as `observe`, with the number of the structure.
    """
    require_x64()
    kinds, graphs = checked_kinds(kinds), list(graphs)
    argument, room = as_argument(potential, "potential"), common_room()
    sizes = [_checked_size(potential, graph, kinds, atoms, k) for k, graph in enumerate(graphs)]
    if isinstance(potential, ASEPotential):
        alone = [observe(potential, graph, kinds, atoms=atoms) for graph in graphs]
        return [_cut(jax.device_get(one), 0, n) for one, n in zip(alone, sizes, strict=True)]

    def place(k: int) -> tuple[tuple[int, int], int, int]:
        n = capacity(graphs[k], sizes[k], room)
        return (graphs[k].neighbours.shape[1], n), sizes[k], n

    observed = []
    for chunk in gathered(range(len(graphs)), room, place):
        packed = jax.device_put(pack([graphs[k] for k in chunk], room))
        observed.append((chunk, observe_pack(argument, packed, kinds, np.asarray(atoms))))
    found: dict[int, Labels] = {}
    for chunk, labels in jax.device_get(observed):
        starts = np.cumsum([0, *(sizes[k] for k in chunk)])
        for s, k in enumerate(chunk):
            own = labels._replace(
                energy=None if labels.energy is None else labels.energy[s],
                virial=None if labels.virial is None else labels.virial[s],
            )
            found[k] = _cut(own, starts[s], starts[s + 1])
    return [found[k] for k in range(len(graphs))]


@partial(jax.jit, static_argnames="kinds")
def observe_pack(
    potential: Potential, pack: Pack, kinds: tuple[str, ...], atoms: jax.Array | np.ndarray
) -> Labels:
    """Observations of one potential on all structures of a pack; nothing is checked.

    Args:
        potential: a pytree of arrays, see `as_argument`.
        pack: of n atoms and S structures.
        kinds: in the order of KINDS.
        atoms: (m,), those of every structure that are displaced for the force constants.

    Returns:
        Labels: energy (S,), eV; forces (n, 3), eV/Å; virial (S, 3, 3), eV; force_constants
        (m, 3, n, 3), eV/Å^2, of the displaced atoms of the structure that an atom belongs to; None
        where not asked for, zero where there is nothing.
    """

    def energies(positions: jax.Array, strains: jax.Array) -> jax.Array:
        there = dataclasses.replace(pack, graph=moved(pack.graph, positions))
        graph = there.strained(strains) if "virial" in kinds else there.graph
        return pack.sums(site_energies_of(potential, graph))

    def energy(positions: jax.Array, strains: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = energies(positions, strains)
        return jnp.sum(found), found

    found, at = {}, (pack.graph.positions, jnp.zeros((len(pack.sizes), 3, 3)))
    slopes = tuple(k for k, kind in enumerate(("forces", "virial")) if kind in kinds)
    if slopes:
        gradients, found["energy"] = jax.grad(energy, slopes, has_aux=True)(*at)
        found |= {("forces", "virial")[k]: -g for k, g in zip(slopes, gradients, strict=True)}
    elif "energy" in kinds:
        found["energy"] = energies(*at)
    if "force_constants" in kinds:
        found["force_constants"] = _force_constants(lambda x: energy(x, at[1])[0], pack, atoms)
    return Labels(**{kind: found[kind] if kind in kinds else None for kind in KINDS})


def _force_constants(energy, pack: Pack, atoms: jax.Array | np.ndarray) -> jax.Array:
    """(m, 3, n, 3), as `observables` has them of one structure."""
    positions, axes = pack.graph.positions, jnp.arange(3)
    _, derivative = jax.linearize(jax.grad(energy), positions)
    starts = jnp.cumsum(pack.sizes) - pack.sizes

    def rows(atom):
        own = jnp.where(atom < pack.sizes, starts + atom, len(positions))  # none where too few
        directions = jnp.zeros((3, *positions.shape))
        directions = directions.at[axes[:, None], own[None], axes[:, None]].set(1.0, mode="drop")
        return jax.vmap(derivative)(directions)

    return jax.lax.map(rows, jnp.asarray(atoms))


def _checked_size(potential, graph: Graph, kinds, atoms, number: int) -> int:
    """How many real atoms a graph has, after checking that it can be observed."""
    with named(f"structure {number}"):
        check(potential, graph)
        if "force_constants" in kinds:
            checked_atoms(atoms, graph)
    return int(np.count_nonzero(np.asarray(graph.atom_mask)))


def _cut(labels: Labels, start: int, end: int) -> Labels:
    """Those of some atoms."""
    return labels._replace(
        forces=None if labels.forces is None else labels.forces[start:end],
        force_constants=(
            None if labels.force_constants is None else labels.force_constants[:, :, start:end]
        ),
    )
