"""What a potential is: a function from a graph to site energies, and all that follows from that.

    E = sum_i E_i(graph)   over the real atoms

Forces, virials, force constants, relaxation, elasticity, rigidity and bounds are written once,
for any of them. To add a potential, write a frozen dataclass with

    r_cut             Å, its range: beyond it every term vanishes
    __call__(graph)   site energies (n,) in eV, zero on padding atoms, through jax.numpy
    check(graph)      optional: raises ValueError for what it does not describe, see `check_species`
    coefficients      optional: a flat array of what is to be fitted, see `regression.rows`
    as_pytree()       optional: the same energies by a pytree of arrays, whose other numbers need
                      no new compilation: materials of one kind share what is compiled
    by_differences    optional: True where derivatives are differences of gradients
    noise, steps, on_a_line   with that: how they are taken, see `from_ase.ASEPotential`

and register it as a pytree where its numbers are to be fitted or changed without a new compilation;
otherwise its fields are plain values and it is hashed. `validate` says whether it keeps all this.
Every function of the library that takes a potential calls `check` on the graph, and takes the
energy by `total_energy_of`; under `jit`, where a graph's numbers are not known, what `check` would
have refused comes out as NaN.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, build_graph
from lprjax.atoms.structures import Structure
from lprjax.numerics.checks import is_number


class Potential(Protocol):
    """A callable from a graph of n atoms to site energies (n,), eV; see the top of the file."""

    @property
    def r_cut(self) -> float:
        """Its range, Å: beyond it every term vanishes."""
        ...

    def __call__(self, graph: Graph, /) -> jax.Array:
        """Site energies, (n,), eV, zero on padding atoms."""
        ...


def by_differences(potential: Any) -> Any:
    """The potential itself where its derivatives are differences of gradients, else None.

    Args:
        potential: as it is, or as `as_argument` makes it.

    Returns:
        What has the methods `noise` and `steps`, or None.
    """
    itself = getattr(potential, "func", potential)
    return itself if getattr(itself, "by_differences", False) else None


def as_argument(function: Any, name: str) -> Any:
    """The callable as a pytree that `jit` takes as an argument: new leaves do not recompile.

    What has a method `as_pytree` becomes what that returns; a registered pytree of arrays and
    numbers passes unchanged; anything else must be hashable and becomes static.

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
    if hasattr(function, "as_pytree"):
        return function.as_pytree()
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


def cutoff_of(potential: Potential) -> float:
    """The cutoff of a potential.

    Args:
        potential: with an attribute `r_cut`.

    Returns:
        The cutoff, Å.

    Raises:
        TypeError: there is none; no potential, for it is not callable.
        ValueError: it is not a positive length.
    """
    if not callable(potential):
        raise TypeError(f"potential is a {type(potential).__name__}: wanted a callable.")
    r_cut = getattr(potential, "r_cut", None)
    if r_cut is None:
        raise TypeError(
            f"potential of type {type(potential).__name__} has no r_cut: wanted a cutoff in Å; "
            "give it an attribute r_cut."
        )
    if not (is_number(r_cut) and r_cut > 0.0):
        raise ValueError(f"r_cut of {_name(potential)} is {r_cut!r}: wanted a positive length, Å.")
    return float(r_cut)


def graph_for(
    potential: Potential,
    crystal: Structure | Graph,
    *,
    skin: float = 0.0,
    n_atoms: int | None = None,
) -> Graph:
    """The graph on which a potential is evaluated for a structure, checked.

    Args:
        potential: graph -> site energies (n,), eV.
        crystal: a structure, whose neighbours are searched within the potential's cutoff; or a
            graph that was made already, which is checked and passes.
        skin: how much further neighbours are searched, Å; of no account for a graph.
        n_atoms: padded number of atoms, as in `build_graph`; of no account for a graph.

    Returns:
        The graph.

    Raises:
        TypeError: a potential without cutoff.
        ValueError: as `build_graph` and `check`.
    """
    if isinstance(crystal, Structure):
        reach = cutoff_of(potential)
        with jax.ensure_compile_time_eval():  # inside a user's `jit`, the potential traced
            crystal = build_graph(crystal, reach, skin=skin, n_atoms=n_atoms)
    check(potential, crystal)
    return crystal


def check(potential: Any, graph: Graph) -> None:
    """Refuse what a potential cannot be evaluated on: the one check of all that take a potential.

    Args:
        potential: any object; its `r_cut` and its method `check` count where it has them.
        graph: what is to be evaluated; what is traced of it passes.

    Raises:
        TypeError: anything but a graph.
        ValueError: neighbours that were searched less far than the potential's cutoff; whatever
            the potential's own `check` refuses.
    """
    _require_graph(graph)
    r_cut = getattr(potential, "r_cut", None)
    if r_cut is not None and not isinstance(r_cut, Tracer):
        check_reach(graph, cutoff_of(potential), _name(potential))
    if hasattr(potential, "check"):
        potential.check(graph)


def _require_graph(graph: Any) -> None:
    if not isinstance(graph, Graph):
        raise TypeError(
            f"graph is a {type(graph).__name__}: wanted a Graph; make it with "
            "build_graph(structure, potential.r_cut)."
        )


def _name(potential: Any) -> str:
    return getattr(potential, "__name__", type(potential).__name__)


def total_energy_of(potential: Potential, graph: Graph) -> jax.Array:
    """E = sum_i E_i over the real atoms: what every derivative is taken of.

    For use inside `jit`; users call `observables.total_energy`.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: n atoms, padding included; may be traced.

    Returns:
        E, (), eV; NaN, with all derivatives, where the graph ends short of the cutoff.

    Raises:
        ValueError: as `site_energies_of`.
    """
    return jnp.sum(site_energies_of(potential, graph))


def site_energies_of(potential: Potential, graph: Graph) -> jax.Array:
    """E_i of the real atoms, zero on padding whatever the potential says there.

    For use inside `jit`, as `total_energy_of`, where differences of energies are to keep the
    digits that their sum over many atoms loses.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: n atoms, padding included; may be traced.

    Returns:
        E_i, (n,), eV; NaN, with all derivatives, where the graph ends short of the cutoff.

    Raises:
        ValueError: site energies of another shape than (n,).
    """
    sites = potential(graph)
    if sites.shape != graph.species.shape:
        raise ValueError(
            f"the potential returned site energies of shape {sites.shape}: wanted one per atom, "
            f"{graph.species.shape}, padding included."
        )
    sites = jnp.where(graph.atom_mask, sites, 0.0)
    own = potential.func if isinstance(potential, jax.tree_util.Partial) else potential
    r_cut = getattr(own, "r_cut", None)
    return sites if r_cut is None else nan_unless(reaches(graph, r_cut), sites)


def check_reach(graph: Graph, r_cut: float, name: str) -> None:
    """Refuse a graph whose neighbours were searched less far than a potential's cutoff.

    Args:
        graph: passes unchecked where it is traced.
        r_cut: of the potential, Å.
        name: of the potential, for the message.

    Raises:
        TypeError: anything but a graph.
        ValueError: the search ended short of the cutoff.
    """
    _require_graph(graph)
    if not isinstance(graph.reach, Tracer) and float(graph.reach) < r_cut * SHORTEST:
        raise ValueError(
            f"the graph holds neighbours up to {float(graph.reach):g} Å, but {name} reaches "
            f"{r_cut:g} Å: wanted a graph as wide; build it with build_graph(structure, {r_cut:g})."
        )


SHORTEST = 1.0 - 1e-9
"""Least reach of a graph, in cutoffs: leaves room for rounding."""


def reaches(graph: Graph, r_cut: float) -> jax.Array:
    """Whether neighbours were searched as far as a cutoff.

    Args:
        graph: may be traced.
        r_cut: Å.

    Returns:
        () bool.
    """
    return graph.reach >= r_cut * SHORTEST


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


def species_index(species: jax.Array, numbers: ArrayLike | tuple[int, ...]) -> jax.Array:
    """Position of each atomic number in a list of them.

    Args:
        species: (n,) atomic numbers, 0 on padding atoms; may be traced.
        numbers: of the elements of a potential, (E,); may be traced.

    Returns:
        The positions, (n,) int32; 0 on padding atoms, -1 for a number that is not in the list.
    """
    is_this = species[:, None] == jnp.asarray(numbers)[None]
    known = jnp.where(is_this.any(axis=1), jnp.argmax(is_this, axis=1), -1)
    return jnp.where(species == 0, 0, known).astype(jnp.int32)


def nan_unless(condition: jax.Array, values: jax.Array) -> jax.Array:
    """Values where a condition holds, NaN elsewhere, in every derivative too.

    Inside `jit` numbers are not known while the program is built, so no error can be raised there.
    A `where` would leave the derivatives of the NaN at zero, which looks like an answer.

    Args:
        condition: bool, of a shape that broadcasts with the values.
        values: floats.

    Returns:
        The values, or NaN.
    """
    return values * jnp.where(condition, 1.0, jnp.nan)
