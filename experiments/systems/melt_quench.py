"""Amorphous silicon by melting and quenching small cells, some of them free of defects.

A few picoseconds of quench leave some defects in almost every cell of 64 atoms of Stillinger-Weber
silicon. Cells without any are drawn from another distribution: the dynamics runs with a stronger
three-body term, lambda = 31.5 (Vink, Barkema, van der Weg, Mousseau, J. Non-Cryst. Solids 282
(2001) 248, chose it for amorphous silicon), and under a restraint to four neighbours,

    E = E_SW(lambda) + kappa sum_i (z_i - 4)^2,   z_i = sum_j f(r_ij),

f a smooth step from one to zero. It only chooses geometries: labels are those of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Structure, diamond, rattled, supercell
from lprjax.numerics.guarded import smoothstep
from lprjax.potentials.potential import Potential
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.simulation.dynamics import molecular_dynamics
from lprjax.simulation.relaxation import relax

BOND = 2.85
"""Å; atoms closer than this are bonded (Chong et al. 2023)."""
CRYSTALLINE = 7.0
"""Degrees; a smaller standard deviation of the bond angles is a crystal's. Amorphous: 10 to 15."""
CELL_REPEATS = (2, 2, 2)  # 64 atoms


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Restrained:
    """Stillinger-Weber silicon with a three-body strength lam, and a restraint to four neighbours.

    A pytree: other values need no recompilation.

    Attributes:
        lam: three-body strength, no unit.
        kappa: strength of the restraint, eV.
        inner: where the step f starts, Å.
        outer: where it ends, Å; at most r_cut.
    """

    lam: float = 21.0
    kappa: float = 0.0
    inner: float = 2.6
    outer: float = 3.1

    @property
    def r_cut(self) -> float:
        """Cutoff, Å."""
        return stillinger_weber().r_cut

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies of a graph, eV."""
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        t = (r - self.inner) / (self.outer - self.inner)
        step = 1.0 - smoothstep(t)
        count = jnp.sum(jnp.where(graph.edge_mask, step, 0.0), axis=1)
        restraint = jnp.where(graph.atom_mask, self.kappa * (count - 4.0) ** 2, 0.0)
        return replace(stillinger_weber(), lam=self.lam)(graph) + restraint


@dataclass(frozen=True)
class Protocol:
    """How one cell is made; temperatures in K, times in fs."""

    lattice_constant: float = 5.525  # of the diamond molten, Å
    melt: float = 3500.0  # temperature of the melt, K
    hot: float = 3000.0  # start of the quench, K
    cold: float = 1200.0  # end of the quench, K
    leg_steps: int = 800  # steps of the melt, and of each leg
    legs: int = 5  # legs of the quench
    time_step: float = 2.5  # fs
    friction: float = 0.01  # 1/fs
    lam: float = 31.5  # three-body strength in the quench
    kappa: float = 1.5  # restraint to four neighbours, eV
    n_neighbours: int = 20  # slots of the dynamics

    @property
    def restrained(self) -> Restrained:
        """The potential of the quench."""
        return Restrained(lam=self.lam, kappa=self.kappa)

    @property
    def free(self) -> Restrained:
        """The same without the restraint."""
        return Restrained(lam=self.lam)


def crystal(protocol: Protocol) -> Structure:
    """The diamond cell of 64 atoms that is molten."""
    return supercell(diamond("Si", protocol.lattice_constant), CELL_REPEATS)


def melt_quench(protocol: Protocol, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """One cell per seed, relaxed with the restraint and then, from there, without.

    Args:
        protocol: temperatures, times and potential.
        seeds: B of them.

    Returns:
        positions "restrained" and "free" (B, n, 3) Å; "sound" (B,), that no neighbour was lost and
        both relaxations converged; the "cell" (3, 3) Å.
    """
    start = crystal(protocol)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    cells = [rattled(start, key, 0.3) for key in keys]
    quench = np.linspace(protocol.hot, protocol.cold, protocol.legs * protocol.leg_steps)
    stages = [(Restrained(), np.full(protocol.leg_steps, protocol.melt))]
    stages += [(protocol.restrained, leg) for leg in quench.reshape(protocol.legs, -1)]
    velocities, overflow = None, False
    for number, (potential, temperatures) in enumerate(stages):
        run = molecular_dynamics(
            potential,
            cells,
            jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys),
            temperatures,
            velocities=velocities,
            time_step=protocol.time_step,
            friction=protocol.friction,
            n_neighbours=protocol.n_neighbours,
        )
        cells = [replace(start, positions=x) for x in run.positions[:, -1]]
        velocities, overflow = run.velocities[:, -1], overflow | np.asarray(run.overflow)
    restrained, first = relaxed(protocol.restrained, cells)
    free, second = relaxed(protocol.free, restrained)
    return {
        "restrained": np.stack([cell.positions for cell in restrained]),
        "free": np.stack([cell.positions for cell in free]),
        "sound": ~overflow & first & second,
        "cell": np.asarray(start.cell),
    }


def relaxed(potential: Potential, cells: Sequence[Structure]) -> tuple[list[Structure], np.ndarray]:
    """The minima next to the cells.

    Args:
        potential: what is minimised.
        cells: where from.

    Returns:
        the minima, and which relaxations converged, (B,) bool.
    """
    found = [relax(potential, cell, force_tolerance=1e-3, max_evaluations=500) for cell in cells]
    minima = [replace(cell, positions=r.positions) for cell, r in zip(cells, found, strict=True)]
    return minima, np.array([r.converged for r in found])


def coordination(structure: Structure, bond: float = BOND) -> np.ndarray:
    """The number of close neighbours of each atom.

    Args:
        structure: n atoms.
        bond: closer than this, Å.

    Returns:
        (n,).
    """
    counts = build_graph(structure, bond).neighbour_counts()
    return np.asarray(counts)[: structure.n_atoms]


def angle_spread(structure: Structure, bond: float = BOND) -> float:
    """The standard deviation of all bond angles of a structure.

    Args:
        structure: n atoms.
        bond: atoms closer than this are bonded, Å.

    Returns:
        degrees.
    """
    graph = build_graph(structure, bond)
    vectors, mask = np.asarray(graph.vectors()), np.asarray(graph.edge_mask)
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    first, second = np.triu_indices(mask.shape[1], 1)
    cosines = np.einsum("ika,ika->ik", units[:, first], units[:, second])
    angles = np.arccos(np.clip(cosines[mask[:, first] & mask[:, second]], -1.0, 1.0))
    return float(np.degrees(angles.std()))


class Cells(NamedTuple):
    """What came of the quenches, by seed."""

    pristine: list[Structure]  # minima with the restraint, every atom of four neighbours
    defective: list[Structure]  # minima without it, of those quenches that gave no pristine cell
    unsound: int  # a neighbour was lost or a relaxation did not converge
    crystalline: int  # the bond angles are a crystal's
    healed: int  # not pristine with the restraint, but without it: set aside


def sort_cells(protocol: Protocol, batches: Sequence[dict[str, np.ndarray]]) -> Cells:
    """Sort the cells of `melt_quench` by kind; no quench gives more than one.

    Args:
        protocol: how they were made.
        batches: what `melt_quench` returned.

    Returns:
        the cells that are used, and how many are not.
    """
    pristine, defective, counts = [], [], {"unsound": 0, "crystalline": 0, "healed": 0}
    each = (
        [arrays[name][k] for name in ("sound", "restrained", "free")]
        for arrays in batches
        for k in range(len(arrays["sound"]))
    )
    for sound, *positions in each:
        held, free = (replace(crystal(protocol), positions=x) for x in positions)
        if not sound:
            counts["unsound"] += 1
        elif angle_spread(held) < CRYSTALLINE:
            counts["crystalline"] += 1
        elif (coordination(held) == 4).all():
            pristine.append(held)
        elif (coordination(free) == 4).all():
            counts["healed"] += 1
        else:
            defective.append(free)
    return Cells(pristine, defective, **counts)
