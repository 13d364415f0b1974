"""The observables of any potential: energy, forces, virial, force constants, by differentiation.

A potential is a callable from a `Graph` to site energies, shape (n,). Its energy E is their sum
over the real atoms, and

    forces           F_i   = -dE/dR_i                                        eV/Å
    virial           W_ab  = -dE/d(strain)_ab,   x -> (1 + strain) x          eV
    force constants  Phi   = d2E / dR_{i,a} dR_{j,b}                          eV/Å^2

with positions and cell strained together. Index convention of the force constants:
[displaced atom in `atoms`, its direction, atom j, direction of j].
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, moved
from lprjax.atoms.structures import Labels
from lprjax.numerics.checks import require_x64
from lprjax.numerics.host import traced
from lprjax.potentials.derivatives import (
    each,
    gradient_on_line,
    hessian_product,
    site_energies_and_forces,
)
from lprjax.potentials.potential import (
    Potential,
    as_argument,
    by_differences,
    check,
    total_energy_of,
)

KINDS = Labels._fields
"""The kinds of observables: energy, forces, virial, force_constants."""


def observe(
    potential: Potential,
    graph: Graph,
    kinds: str | Sequence[str] = ("energy", "forces"),
    *,
    atoms: ArrayLike | Sequence[int] = (0,),
) -> Labels:
    """Observations of one potential on one graph, exact to roundoff, compiled once per shape.

    The potential may be a pytree of arrays, which are arguments of the compiled function (new
    coefficients need no new compilation), or a hashable callable, which is part of the function.
    Differentiable in the pytree's arrays and the graph's; may be called inside `jit`.

    Args:
        potential: graph -> site energies (n,), eV. A method `check(graph)`, if it has one, is
            called first, to refuse what it does not describe.
        graph: n atoms, padding included.
        kinds: among "energy", "forces", "virial", "force_constants".
        atoms: the m atoms that are displaced for the force constants; other kinds ignore it.

    Returns:
        Labels: energy (), eV; forces (n, 3), eV/Å; virial (3, 3), eV; force_constants
        (m, 3, n, 3), eV/Å^2; None where not asked for, zero on padding atoms.

    Raises:
        RuntimeError: float64 is off.
        ValueError: unknown kinds, atoms out of range, site energies of the wrong shape.
        TypeError: a potential that is neither a pytree of arrays nor hashable, or not callable.
    """
    require_x64()
    kinds = checked_kinds(kinds)
    argument = as_argument(potential, "potential")
    check(potential, graph)
    displaced = checked_atoms(atoms, graph) if "force_constants" in kinds else None
    found = {}
    if "virial" in kinds:
        found["energy"], found["forces"], found["virial"] = _strained(argument, graph)
    elif "forces" in kinds:
        found["energy"], _, found["forces"] = site_energies_and_forces(argument, graph)
    elif "energy" in kinds:
        found["energy"] = _energy(argument, graph)
    if displaced is not None:
        found["force_constants"] = _force_constants(argument, graph, displaced)
    return Labels(**{kind: found[kind] if kind in kinds else None for kind in KINDS})


def total_energy(potential: Potential, graph: Graph) -> jax.Array:
    """Energy of the real atoms: the sum of the site energies.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: n atoms, padding included.

    Returns:
        E, (), eV.

    Raises:
        RuntimeError, ValueError, TypeError: as `observe`.
    """
    return observe(potential, graph, ("energy",)).energy


def energy_and_forces(potential: Potential, graph: Graph) -> tuple[jax.Array, jax.Array]:
    """Energy and forces.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: n atoms, padding included.

    Returns:
        E, (), eV, and F, (n, 3), eV/Å, zero on padding atoms.

    Raises:
        RuntimeError, ValueError, TypeError: as `observe`.
    """
    labels = observe(potential, graph, ("energy", "forces"))
    return labels.energy, labels.forces


_energy = jax.jit(total_energy_of)


@jax.jit
def _strained(potential, graph):
    """Energy, forces and virial."""

    def energy(positions, strain):
        deformation = jnp.eye(3) + strain
        strained = moved(graph, positions @ deformation.T, graph.cell @ deformation.T)
        return total_energy_of(potential, strained)

    value, slopes = jax.value_and_grad(energy, (0, 1))(graph.positions, jnp.zeros((3, 3)))
    return value, *(-slope for slope in slopes)


def _force_constants(potential, graph, displaced) -> jax.Array:
    """d2E/dR dR for the displaced atoms, (m, 3, n, 3)."""
    m, n = len(displaced), len(graph.positions)
    xp: Any = jnp if isinstance(displaced, Tracer) else np
    moves = (displaced[:, None] == xp.arange(n)[None])[:, None, :, None]
    moves = moves * xp.eye(3)[None, :, None, :]  # of one atom along one axis, (m, 3, n, 3)
    moves = moves.reshape(3 * m, n, 3)
    if by_differences(potential) and not traced(potential, graph, moves):
        found = np.stack([gradient_on_line(potential, graph, v, order=1).first for v in moves])
    else:
        found = each(hessian_product, moves, potential, graph)
    return jax.device_put(found.reshape(m, 3, n, 3))


def checked_kinds(kinds: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds in the order of KINDS, each once.

    Args:
        kinds: one of KINDS, or several.

    Returns:
        The kinds.

    Raises:
        ValueError: none, or an unknown one.
    """
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        raise ValueError(f"kinds is {kinds!r}: wanted one or more of {KINDS}.")
    return tuple(kind for kind in KINDS if kind in wanted)


def checked_atoms(atoms: ArrayLike | Sequence[int], graph: Graph) -> jax.Array | np.ndarray:
    """The atoms whose displacements are asked for, as an array.

    Args:
        atoms: m indices of real atoms; not checked where they or the graph are traced.
        graph: the graph that they are atoms of.

    Returns:
        The indices, (m,).

    Raises:
        ValueError: another shape or number type, or an index out of range.
    """
    if isinstance(atoms, Tracer) or isinstance(graph.atom_mask, Tracer):
        return jnp.asarray(atoms)
    wanted = np.asarray(atoms)
    n_real = int(np.sum(np.asarray(graph.atom_mask)))
    integers = np.issubdtype(wanted.dtype, np.integer)
    if wanted.ndim != 1 or not integers or np.any((wanted < 0) | (wanted >= n_real)):
        raise ValueError(
            f"atoms is {atoms!r}: wanted a sequence of indices from 0 to {n_real - 1}."
        )
    return wanted
