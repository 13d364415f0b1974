"""The linear ACE potential.

    E_i = e0[z_i] + sum_k c_k B_k(i)

A site energy is left^T M right + pairs, left and right products of at most two channels A and M
linear in the coefficients: what `basis` makes one by one is summed before it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.ace.basis import OnBasis, Sites, atomic_base, centres, core_of, sites_of
from lprjax.ace.spec import ACESpec, SharedSpec, Tables, tables
from lprjax.atoms.graphs import Graph
from lprjax.numerics.blocks import sites_in_blocks
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.potentials.potential import check

BLOCK = 128
"""Sites whose energies are made at a time on a CPU (see `sites_in_blocks`): a choice."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LinearPotential(OnBasis):
    """A linear ACE potential: E_i = e0[z_i] + sum_k c_k B_k(i), in eV, and the core of its spec.

    A pytree: new coefficients recompile nothing.

    Attributes:
        coefficients: c, (n_columns,), eV.
        reference_energies: e0, (n_elements,), eV, the energy of each species' isolated atom (zeros
            if the labels are cohesive energies).
        spec: of the basis; static under `jit`.
    """

    coefficients: jax.Array
    reference_energies: jax.Array
    spec: ACESpec = field(metadata=dict(static=True))

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        check(self, graph)
        return self.as_pytree()(graph)

    def as_pytree(self) -> SharedLinear:
        """The same with the lengths and elements of its basis as leaves."""
        return SharedLinear(self.coefficients, self.reference_energies, self.spec.shared)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SharedLinear:
    """A `LinearPotential` for use inside `jit`: bases of one kind share what is compiled."""

    coefficients: jax.Array  # (n_columns,), eV
    reference_energies: jax.Array  # (n_elements,), eV
    spec: SharedSpec

    @property
    def r_cut(self) -> jax.Array | float:
        """Cutoff in Å."""
        return self.spec.r_cut

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms; NaN for what it does not describe."""
        own = centres(self.spec, graph)
        by_centre = sites_in_blocks(self._by_centre, sites_of(graph), BLOCK)
        fitted = jnp.sum(own * (by_centre + self.reference_energies[None, :]), axis=-1)
        core = core_of(self.spec)
        return fitted if core is None else fitted + core(graph)

    def _by_centre(self, sites: Sites) -> jax.Array:
        """The energy of every site if its atom were of each element, (n, n_elements), eV."""
        t = tables(self.spec)
        base, pairs = atomic_base(self.spec, sites)
        left, right = half_products(self.spec, base)
        blocks = self.coefficients.reshape(t.n_species, t.n_functions)
        return jnp.stack([_site_energy(t, c, left, right, pairs) for c in blocks], axis=-1)


def _site_energy(
    t: Tables, c: jax.Array, left: jax.Array, right: jax.Array, pairs: jax.Array
) -> jax.Array:
    """left^T M right + pair part for one centre species' coefficients c (n_functions,)."""
    matrix = jnp.zeros(len(left) * len(right))
    matrix = matrix.at[t.halves[2]].add(c[t.term_function] * t.term_value)
    many_body = jnp.sum((matrix.reshape(len(left), len(right)).T @ left) * right, axis=0)
    pair, constant = jnp.split(c[t.n_many_body :], [t.n_pair])
    return many_body + pair @ pairs + jnp.sum(constant)


def linear_potential(
    spec: ACESpec,
    coefficients: ArrayLike | Sequence[float],
    reference_energies: Mapping[str, float] | None = None,
) -> LinearPotential:
    """The potential of a coefficient vector.

    Args:
        spec: of the basis.
        coefficients: (n_columns,), eV.
        reference_energies: the energy of the isolated atom by symbol, eV; None for zeros.

    Returns:
        The potential.

    Raises:
        RuntimeError: without float64.
        ValueError: a vector of another length, or a reference energy that is missing.
    """
    require_x64()
    coefficients = jnp.asarray(coefficients, float)
    if coefficients.shape != (spec.n_columns,):
        raise ValueError(
            f"coefficients has shape {coefficients.shape}: wanted ({spec.n_columns},), in eV, the "
            f"columns of {spec}."
        )
    e0 = isolated_energies(spec, reference_energies)
    return LinearPotential(coefficients, jnp.asarray(e0), spec)


def isolated_energies(spec: ACESpec, by_symbol: Mapping[str, float] | None) -> np.ndarray:
    """Reference energies in the order of the elements.

    Args:
        spec: of the basis.
        by_symbol: the energy of the isolated atom, eV; None for zeros.

    Returns:
        The energies, (n_elements,), eV.

    Raises:
        ValueError: an element that is missing; an energy that is not finite.
    """
    e0 = by_symbol or dict.fromkeys(spec.elements, 0.0)
    missing = [e for e in spec.elements if e not in e0]
    if missing:
        raise ValueError(f"reference_energies lack {missing}: wanted one per element, in eV.")
    return finite_array("reference_energies", [e0[e] for e in spec.elements], (None,), "eV")


def half_products(spec: SharedSpec, base: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Products of at most two channels, or the channels themselves: see `Tables.halves`.

    Args:
        spec: of the basis.
        base: the channels A at n sites, (V + 1, n), the last one 1.

    Returns:
        The left products (P, n) and the right ones (Q, n).
    """

    def products(pairs: np.ndarray | None) -> jax.Array:
        return base if pairs is None else base[pairs[:, 0]] * base[pairs[:, 1]]

    left, right, _ = tables(spec).halves
    return products(left), products(right)
