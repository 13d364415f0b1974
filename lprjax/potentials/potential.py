"""What a potential is: a function from a graph to site energies, and all that follows from that.

    E = sum_i E_i(graph)   over the real atoms

Forces, virials, force constants, relaxation, elasticity, rigidity and bounds are written once,
for any of them. To add a potential, write a frozen dataclass with

    r_cut             Å, its range: beyond it every term vanishes
    __call__(graph)   site energies (n,) in eV, zero on padding atoms, through jax.numpy
    check(graph)      optional: raises ValueError for elements without parameters, see
                      `check_species`, and for a graph that ends short of r_cut, see `check_reach`

and register it as a pytree where its numbers are to be fitted (a flat array `coefficients` makes it
*trainable*, see `regression.rows`); otherwise its fields are plain values and it is hashed.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Structure


class Potential(Protocol):
    """A callable from a graph of n atoms to site energies (n,), eV; see the top of the file."""

    def __call__(self, graph: Graph, /) -> jax.Array:
        """Site energies, (n,), eV, zero on padding atoms."""
        ...


def as_argument(function: Any, name: str) -> Callable[..., Any]:
    """The callable as a pytree that `jit` takes as an argument: new leaves do not recompile.

    A registered pytree of arrays and numbers passes unchanged; anything else must be hashable and
    becomes static.

    Args:
        function: a potential, or any other callable.
        name: what it is called, for the message.

    Returns:
        The callable, as a pytree.

    Raises:
        TypeError: not callable, or neither a pytree of arrays nor hashable.
    """
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}: wanted a callable.")
    numbers = (jax.Array, np.ndarray, np.generic, float, int)
    if all(isinstance(leaf, numbers) for leaf in jax.tree.leaves(function)):
        return function
    try:
        hash(function)
    except TypeError as error:
        raise TypeError(
            f"{name} of type {type(function).__name__} is neither a pytree of arrays nor "
            "hashable, so jit cannot take it: wanted one of the two; make it a frozen dataclass of "
            "plain values, or register it with jax.tree_util.register_dataclass."
        ) from error
    return jax.tree_util.Partial(function)


def cutoff_of(potential: Potential, r_cut: float | None = None) -> float:
    """The cutoff that is given, else the potential's own.

    Args:
        potential: with or without an attribute `r_cut`.
        r_cut: Å; None: the potential's.

    Returns:
        The cutoff, Å.

    Raises:
        TypeError: there is neither.
    """
    r_cut = getattr(potential, "r_cut", None) if r_cut is None else r_cut
    if r_cut is None:
        raise TypeError(
            f"potential of type {type(potential).__name__} has no r_cut: wanted a cutoff; pass "
            "r_cut=... in Å."
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
    """The graph on which a potential is evaluated for a structure, checked by the potential.

    Args:
        potential: graph -> site energies (n,), eV.
        crystal: a structure, whose neighbours are searched within the potential's cutoff; or a
            graph that was made already, which is checked and passes.
        r_cut: cutoff, Å, needed only where `potential.r_cut` does not exist.
        skin: how much further neighbours are searched, Å; of no account for a graph.
        n_atoms: padded number of atoms, as in `build_graph`; of no account for a graph.

    Returns:
        The graph.

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
    """Let the potential refuse a graph, where it has a method `check` to do so with.

    Args:
        potential: any object.
        graph: what is to be evaluated.

    Raises:
        ValueError: as the potential's own `check`.
    """
    if hasattr(potential, "check"):
        potential.check(graph)


def total_energy_of(potential: Potential, graph: Graph) -> jax.Array:
    """E = sum_i E_i over the real atoms: what every derivative is taken of.

    For use inside `jit`; users call `observables.total_energy`.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: n atoms, padding included; may be traced.

    Returns:
        E, (), eV.

    Raises:
        ValueError: site energies of another shape than (n,).
    """
    sites = potential(graph)
    if sites.shape != graph.species.shape:
        raise ValueError(
            f"the potential returned site energies of shape {sites.shape}: wanted one per atom, "
            f"{graph.species.shape}, padding included."
        )
    return jnp.sum(jnp.where(graph.atom_mask, sites, 0.0))


def check_reach(graph: Graph, r_cut: float, name: str) -> None:
    """Refuse a graph whose neighbours were searched less far than a potential's cutoff.

    Args:
        graph: passes unchecked where it is traced.
        r_cut: of the potential, Å.
        name: of the potential, for the message.

    Raises:
        ValueError: the search ended short of the cutoff.
    """
    # 1e-9 leaves room for rounding
    if not isinstance(graph.reach, Tracer) and float(graph.reach) < r_cut * (1 - 1e-9):
        raise ValueError(
            f"the graph holds neighbours up to {float(graph.reach):g} Å, but {name} reaches "
            f"{r_cut:g} Å: wanted a graph as wide; build it with build_graph(structure, {r_cut:g})."
        )


N_ELEMENTS = 119
"""Atomic numbers from 0, padding, to 118."""


def check_species(species: jax.Array, known: dict[str, int], name: str) -> None:
    """Refuse atomic numbers that a potential has no parameters for.

    Args:
        species: (n,) atomic numbers, 0 on padding atoms; pass unchecked where they are traced.
        known: chemical symbol -> atomic number of the elements of the potential.
        name: of the potential, for the message.

    Raises:
        ValueError: a number that is neither 0 nor among the known ones.
    """
    if isinstance(species, Tracer):
        return
    unknown = sorted(set(np.unique(np.asarray(species)).tolist()) - {0, *known.values()})
    if unknown:
        raise ValueError(
            f"the graph holds atomic number(s) {unknown}: wanted those of {name}, "
            f"{', '.join(f'{s} ({z})' for s, z in known.items())}; name those elements when you "
            "make the potential, or use a potential that has them."
        )


def species_index(species: jax.Array, numbers: tuple[int, ...]) -> jax.Array:
    """Position of each atomic number in a list of them.

    Args:
        species: (n,) atomic numbers, 0 on padding atoms; may be traced.
        numbers: of the elements of a potential.

    Returns:
        The positions, (n,) int32; 0 on padding atoms, -1 for a number that is not in the list.
    """
    table = np.full(N_ELEMENTS, -1, dtype=np.int32)
    table[list(numbers)] = np.arange(len(numbers))
    table[0] = 0
    return jnp.asarray(table)[species]


def nan_where_unknown(site_energies: jax.Array, index: jax.Array) -> jax.Array:
    """Site energies with NaN at sites of unknown elements.

    Inside `jit` the species are not known while the program is built, so no error can be raised
    there; a site of an unknown element then has the energy NaN, never that of another element.

    Args:
        site_energies: (n,), eV.
        index: (n,), from `species_index`, -1 where the element is unknown.

    Returns:
        The energies, (n,), eV.
    """
    return jnp.where(index >= 0, site_energies, jnp.nan)
