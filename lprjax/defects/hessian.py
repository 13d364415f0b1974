"""The energy over the moves of a defect's atoms away from one geometry, and its derivatives.

With E the energy over the moves (n, 3) away from u, H = D2E(u), and the norms of the defect's
lattice, ||Dv||^2 = v^T K v and ||f||_{-1}^2 = f^T K^+ f. No matrix is formed: H v is the
derivative of the gradient, and K^+ the preconditioner. Moves have rows for the padding atoms of
the graph, which are zero.

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

from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.atoms.structures import flat_axes
from lprjax.defects.defect import Defect, check_defect
from lprjax.numerics.checks import require_x64
from lprjax.numerics.host import namespace, on_host
from lprjax.potentials.derivatives import (
    hessian_product,
    site_energies_and_forces,
    third_product,
)
from lprjax.potentials.potential import Potential, as_argument, graph_for


class Moves(NamedTuple):
    """The moves (n, 3), Å, of a defect's atoms, padding atoms included, and their norms.

    As a `krylov.Space`: K, projected.
    """

    defect: Defect  # where and on which lattice
    moving: jax.Array  # (n, 3) bool, what may move
    shares: jax.Array  # (3,), of an atom in a translation; 0 along axes that have none

    @jax.jit
    def project(self, v: jax.Array) -> jax.Array:
        """v without what may not move; its own transpose."""
        v = jnp.where(self.moving, v, 0.0)
        drift = self.shares * jnp.sum(v, axis=0)
        return jnp.where(self.moving, v - drift[None], 0.0)

    @jax.jit
    def metric(self, v: jax.Array) -> jax.Array:
        """K v, projected."""
        lattice = self.defect.lattice
        return self._padded(self.defect.on_atoms(lattice.apply(self.on_sites(v))))

    @jax.jit
    def precondition(self, f: jax.Array) -> jax.Array:
        """K^+ f, projected."""
        f = self.project(f)[: self.defect.structure.n_atoms]
        return self._padded(self.defect.preconditioner(f))

    def on_sites(self, v: jax.Array) -> jax.Array:
        """Over the sites, (n_sites, 3), zero at missing ones."""
        return self.defect.on_sites(on_host(v)[: self.defect.structure.n_atoms])

    def of_sites(self, values: ArrayLike) -> jax.Array:
        """Of values over the sites, (n_sites, 3); projected."""
        return self._padded(self.defect.on_atoms(values))

    def _padded(self, v: jax.Array) -> jax.Array:
        padding = ((0, len(self.moving) - len(v)), (0, 0))
        return self.project(namespace(v).pad(on_host(v), padding))


class EnergyAt(NamedTuple):
    """The energy over the `Moves` of a defect's atoms away from one geometry.

    Made by `energy_at`, once for all results at that geometry.
    """

    potential: Potential  # graph -> site energies (n,), eV
    graph: Graph  # at the geometry
    moves: Moves  # what may move

    @property
    def defect(self) -> Defect:
        """Where and on which lattice."""
        return self.moves.defect

    def forces(self) -> jax.Array:
        """-DE, (n, 3) eV/Å, projected."""
        return self.moves.project(site_energies_and_forces(self.potential, self.graph).forces)

    def product(self, v: jax.Array) -> jax.Array:
        """H v, (n, 3), projected; v as well."""
        return self.moves.project(hessian_product(self.potential, self.graph, v))

    def elsewhere(self, displacement: ArrayLike) -> "EnergyAt":
        """The energy around another geometry.

        Args:
            displacement: (n_sites, 3) Å, numbers.

        Returns:
            The same potential over the same moves, its neighbours searched anew as far.
        """
        structure, n_atoms = self.defect.displaced(displacement), len(self.graph.positions)
        graph = build_graph(structure, float(self.graph.reach), n_atoms=n_atoms)
        return self._replace(graph=graph)

    def operator(self) -> Callable[[jax.Array], jax.Array]:
        """v -> H v as `product`, linearised once: for many products inside one `jit`."""
        forces = lambda x: self._replace(graph=moved(self.graph, x)).forces()  # noqa: E731
        _, slope = jax.linearize(forces, self.graph.positions)
        return lambda v: -slope(v)

    def third(self, v: jax.Array, w: jax.Array) -> jax.Array:
        """D3E[v, w], (n, 3), projected; v and w as well."""
        return self.moves.project(third_product(self.potential, self.graph, v, w)[1])


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
        moving = np.zeros(graph.positions.shape, bool)
        moving[: len(free)] = np.asarray(free)[:, None] & ~flat_axes(defect.reference)[None, :]
        shares = np.where(moving[: len(free)].all(axis=0), 1.0 / len(free), 0.0)
        moves = Moves(defect, *jax.device_put((moving, shares)))
    return EnergyAt(as_argument(potential, "potential"), graph, moves)
