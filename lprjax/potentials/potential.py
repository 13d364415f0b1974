"""What a potential is: a function from a graph to site energies, and all that follows from that.

    E = sum_i E_i(graph)   over the real atoms

Forces, virials, force constants, relaxation, elasticity, rigidity and bounds are written once,
for any of them. To add a potential, write a frozen dataclass with

    r_cut             A, how far it sees: beyond it every term vanishes
    __call__(graph)   site energies (n,) in eV, zero on padding atoms, through jax.numpy
    check(graph)      optional: raises ValueError for elements that it does not know, see
                      `check_species`, and for a graph that ends short of r_cut, see `check_reach`

and register it as a pytree where its numbers are to be fitted (a flat array `coefficients` makes it
*trainable*, see `regression.rows`); otherwise its fields are plain values and it is hashed.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Structure


class Potential(Protocol):
    """A callable from a graph of n atoms to site energies (n,), eV; see the top of the file."""

    def __call__(self, graph: Graph, /) -> Array: ...


def as_argument(function: Callable, name: str) -> Callable:
    """The callable as a pytree that `jit` takes as an argument: new leaves do not recompile.

    A registered pytree of arrays and numbers passes unchanged; anything else must be hashable and
    becomes static.

    Args:
        function: a potential, or any other callable.
        name: what it is called, for the message.

    Raises:
        TypeError: not callable, or neither a pytree of arrays nor hashable.
    """
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}, wanted a callable")
    numbers = (Array, np.ndarray, np.generic, float, int)
    if all(isinstance(leaf, numbers) for leaf in jax.tree.leaves(function)):
        return function
    try:
        hash(function)
    except TypeError as error:
        raise TypeError(
            f"{name} of type {type(function).__name__} is neither a pytree of arrays nor "
            "hashable, so jit cannot take it: make it a frozen dataclass of plain values, or "
            "register it with jax.tree_util.register_dataclass"
        ) from error
    return jax.tree_util.Partial(function)


def cutoff_of(potential: Potential, r_cut: float | None = None) -> float:
    """r_cut (A) where given, else the potential's own; TypeError where there is neither."""
    r_cut = getattr(potential, "r_cut", None) if r_cut is None else r_cut
    if r_cut is None:
        raise TypeError(
            f"potential of type {type(potential).__name__} has no r_cut: pass r_cut=... in A"
        )
    return float(r_cut)


def graph_for(
    potential: Potential,
    crystal: Structure | Graph,
    *,
    r_cut: float | None = None,
    skin: float = 0.0,
    n_atoms: int | None = None,
) -> Graph:
    """The graph on which a potential is asked about a structure, checked by the potential.

    Args:
        potential: graph -> site energies (n,), eV.
        crystal: a structure, whose neighbours are searched within the potential's cutoff; or a
            graph that was made already, which is checked and passes.
        r_cut: cutoff, A, needed only where `potential.r_cut` does not exist.
        skin, n_atoms: as in `build_graph`; of no account for a graph.

    Raises:
        TypeError: a potential without cutoff, and none given.
        ValueError: as `build_graph`, and whatever the potential's own `check` refuses.
    """
    if isinstance(crystal, Graph):
        graph = crystal
    else:
        reach = cutoff_of(potential, r_cut)
        with jax.ensure_compile_time_eval():  # inside a user's `jit`, the potential traced
            graph = build_graph(crystal, reach, skin=skin, n_atoms=n_atoms)
    check(potential, graph)
    return graph


def check(potential: Any, graph: Graph) -> None:
    """Let the potential refuse a graph, where it has a method `check` to do so with."""
    if hasattr(potential, "check"):
        potential.check(graph)


def total_energy_of(potential: Potential, graph: Graph) -> Array:
    """E = sum_i E_i over the real atoms, (), eV: what every derivative is taken of.

    For use inside `jit`; `observables.total_energy` is the door.

    Raises:
        ValueError: site energies of another shape than (n,).
    """
    sites = potential(graph)
    if sites.shape != graph.species.shape:
        raise ValueError(
            f"the potential returned site energies of shape {sites.shape}, wanted one per atom, "
            f"{graph.species.shape}, padding included"
        )
    return jnp.sum(jnp.where(graph.atom_mask, sites, 0.0))


def check_reach(graph: Graph, r_cut: float, name: str) -> None:
    """Raise ValueError where the neighbour search of a graph ended short of a potential's cutoff.

    graph: passes unchecked where it is traced.  r_cut: A.  name: of the potential, for the message.
    """
    if not isinstance(graph.reach, jax.core.Tracer) and float(graph.reach) < r_cut * (1 - 1e-9):
        raise ValueError(
            f"the graph holds neighbours up to {float(graph.reach):g} A, but {name} reaches "
            f"{r_cut:g} A: build it with build_graph(structure, {r_cut:g})."
        )


N_ELEMENTS = 119


def check_species(species: Array, known: dict[str, int], name: str) -> None:
    """Raise ValueError where `species` holds an atomic number that is neither 0 nor in `known`.

    Does nothing where `species` is a tracer.

    Args:
        species: atomic numbers, shape (n,).
        known: chemical symbol -> atomic number of the elements of the potential.
        name: the potential, for the message.
    """
    if isinstance(species, jax.core.Tracer):
        return
    unknown = sorted(set(np.unique(np.asarray(species)).tolist()) - {0, *known.values()})
    if unknown:
        raise ValueError(
            f"{name} knows {', '.join(f'{s} ({z})' for s, z in known.items())}, but the graph "
            f"holds atomic number(s) {unknown}: name those elements when you make the potential, "
            "or use a potential that knows them"
        )


def species_index(species: Array, numbers: tuple[int, ...]) -> Array:
    """Position of each atomic number in `numbers`, shape (n,); padding gets 0, unknown ones -1."""
    table = np.full(N_ELEMENTS, -1, dtype=np.int32)
    table[list(numbers)] = np.arange(len(numbers))
    table[0] = 0
    return jnp.asarray(table)[species]


def nan_where_unknown(site_energies: Array, index: Array) -> Array:
    """Site energies with NaN where `index` (from `species_index`) is -1.

    Inside `jit` the species are not known while the program is built, so no error can be raised
    there; a site of an unknown element then has the energy NaN, never that of another element.
    """
    return jnp.where(index >= 0, site_energies, jnp.nan)
