"""The energy over the moves of a defect's atoms away from one geometry, and its derivatives.

With E the energy over the moves (n, 3) away from u, H = D2E(u), and the norms of the defect's
lattice, ||Dv||^2 = v^T K v and ||f||_{-1}^2 = f^T K^+ f. No matrix is formed: H v is the
derivative of the gradient, and K^+ the preconditioner.

What may not move is left out of everything: held atoms; translations, where no atom is held; and
moves out of its plane of a lattice that lies in one (a planar problem).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, moved
from lprjax.defects.defect import Defect, check_defect
from lprjax.numerics.checks import require_x64
from lprjax.potentials.potential import Potential, as_argument, graph_for, total_energy_of

FLAT = 1e-9
"""Å; a lattice thinner than this lies in a plane: a choice, far below any bond, above rounding."""


class EnergyAt(NamedTuple):
    """The energy over the moves (n, 3), Å, of a defect's atoms away from one geometry.

    Made by `energy_at`, once for all results at that geometry. As a `krylov.Pencil`: D2E
    there or, with `along`, D3E[along], against K.
    """

    potential: Potential  # graph -> site energies (n,), eV
    defect: Defect  # where and on which lattice
    graph: Graph  # at the geometry
    moving: jax.Array  # (n, 3) bool, what may move
    along: jax.Array | None = None  # (n, 3), a direction; None: D2E is taken

    def energy(self, moves: jax.Array) -> jax.Array:
        """E, (), eV, after moves (n, 3), Å."""
        positions = self.graph.positions.at[: len(moves)].add(moves)
        return total_energy_of(self.potential, moved(self.graph, positions))

    def gradient(self, moves: jax.Array) -> jax.Array:
        """DE, (n, 3) eV/Å, minus the forces after moves (n, 3), Å."""
        return jax.grad(self.energy)(moves)

    def project(self, v: jax.Array) -> jax.Array:
        """v (n, 3) without what may not move; its own transpose."""
        v = jnp.where(self.moving, v, 0.0)
        drift = jnp.mean(v, axis=0, keepdims=True)
        return v - jnp.where(jnp.all(self.moving, axis=0, keepdims=True), drift, 0.0)

    def derivative(
        self, field: Callable[[jax.Array], jax.Array], moves: jax.Array | None = None
    ) -> Callable[[jax.Array], jax.Array]:
        """(n, 3) -> (n, 3): the derivative of a gradient field there, for many products."""
        moves = self.still if moves is None else moves
        _, slope = jax.linearize(field, moves)
        return lambda v: self.project(slope(self.project(v)))

    @property
    def still(self) -> jax.Array:
        """No moves, (n, 3) zeros."""
        return jnp.zeros(self.moving.shape)

    def operator(self) -> Callable[[jax.Array], jax.Array]:
        """v -> H v or, with `along`, v -> D3E[along, v], projected."""
        along = self.along
        if along is None:
            return self.derivative(self.gradient)
        return self.derivative(lambda x: jax.jvp(self.gradient, (x,), (along,))[1])

    def metric(self, v: jax.Array) -> jax.Array:
        """K v, projected."""
        lattice = self.defect.lattice
        return self.project(self.defect.on_atoms(lattice.apply(self.defect.on_sites(v))))

    def precondition(self, f: jax.Array) -> jax.Array:
        """K^+ f, projected."""
        return self.project(self.defect.preconditioner(self.project(f)))


def energy_at(
    potential: Potential,
    defect: Defect,
    displacement: ArrayLike,
) -> EnergyAt:
    """The energy of a defect around one geometry; its neighbours are searched once, here.

    Args:
        potential: graph -> site energies (n,), eV; it may be traced.
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å, numbers.

    Returns:
        The energy around u.

    Raises:
        RuntimeError: float64 is off.
        TypeError: no defect; a displacement that is traced; a potential without cutoff, or neither
            a pytree nor hashable.
        ValueError: a displacement without a row per site; as `build_graph`.
    """
    require_x64()
    check_defect(defect)
    if isinstance(displacement, Tracer):
        raise TypeError(
            "displacement is traced: wanted numbers, for neighbours are searched there; trace the "
            "potential's arrays instead."
        )
    with jax.ensure_compile_time_eval():  # inside a user's `jit`, where the potential is traced
        graph = graph_for(potential, defect.displaced(displacement))
        free = np.ones(defect.structure.n_atoms, bool) if defect.free is None else defect.free
        crystal = defect.reference
        periods = np.abs(np.asarray(crystal.cell))[np.array(crystal.pbc)]
        extent = np.ptp(np.asarray(crystal.positions), axis=0) + periods.sum(axis=0)
        moving = jnp.asarray(np.asarray(free)[:, None] & (extent > FLAT)[None, :])
    return EnergyAt(as_argument(potential, "potential"), defect, graph, moving)
