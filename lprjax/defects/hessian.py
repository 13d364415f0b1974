"""The energy over the moves of a defect's atoms away from one geometry, and its derivatives.

With E the energy over the moves (n, 3) away from u, H = D2E(u), and the norms of the defect's
lattice, ||Dv||^2 = v^T K v and ||f||_{-1}^2 = f^T K^+ f.  No matrix is formed: H v is the
derivative of the gradient, and K^+ the preconditioner.

What may not move is left out of everything: held atoms; translations, where no atom is held; and
moves out of its plane of a lattice that lies in one (a planar problem).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.defects.defect import Defect
from lprjax.numerics.checks import require_x64
from lprjax.potentials.observables import total_energy
from lprjax.potentials.potential import Potential, as_argument, check, cutoff_of

FLAT = 1e-9  # A; a lattice thinner than this lies in a plane


class Point(NamedTuple):
    """The energy over the moves (n, 3) of a defect's atoms away from one geometry.

    As a Pencil: D2E there or, with `along` (n, 3), D3E[along], against K.
    """

    potential: Potential
    defect: Defect
    graph: Graph
    moving: jax.Array  # (n, 3) bool
    along: jax.Array | None = None

    def gradient(self, moves):
        def energy(moves):
            positions = self.graph.positions.at[: len(moves)].add(moves)
            return total_energy(self.potential, moved(self.graph, positions))

        return jax.grad(energy)(moves)

    def project(self, v):
        """v (n, 3) without what may not move; its own transpose."""
        v = jnp.where(self.moving, v, 0.0)
        drift = jnp.mean(v, axis=0, keepdims=True)
        return v - jnp.where(jnp.all(self.moving, axis=0, keepdims=True), drift, 0.0)

    def derivative(self, field, moves=None):
        """(n, 3) -> (n, 3): the derivative of a gradient field there, for many products."""
        moves = jnp.zeros(self.moving.shape) if moves is None else moves
        _, slope = jax.linearize(field, moves)
        return lambda v: self.project(slope(self.project(v)))

    def operator(self):
        if self.along is None:
            return self.derivative(self.gradient)
        return self.derivative(lambda x: jax.jvp(self.gradient, (x,), (self.along,))[1])

    def metric(self, v):
        lattice = self.defect.lattice
        return self.project(self.defect.on_atoms(lattice.apply(self.defect.on_sites(v))))

    def precondition(self, f):
        return self.project(self.defect.preconditioner(self.project(f)))


def point_at(potential, defect, displacement, r_cut) -> Point:
    require_x64()
    if isinstance(displacement, jax.core.Tracer):
        raise TypeError("displacement is traced: wanted numbers, for neighbours are searched there")
    with jax.ensure_compile_time_eval():  # inside a user's `jit`, where the potential is traced
        graph = build_graph(defect.displaced(displacement), cutoff_of(potential, r_cut))
        free = np.ones(defect.structure.n_atoms, bool) if defect.free is None else defect.free
        crystal = defect.reference
        periods = np.abs(np.asarray(crystal.cell))[np.array(crystal.pbc)]
        extent = np.ptp(np.asarray(crystal.positions), axis=0) + periods.sum(axis=0)
        moving = jnp.asarray(np.asarray(free)[:, None] & (extent > FLAT))
    check(potential, graph)
    return Point(as_argument(potential, "potential"), defect, graph, moving)
