"""The linear ACE potential.

    E_i = e0[z_i] + sum_k c_k B_k(i)

A site energy is left^T M right + pairs, left and right products of at most two channels A and M
linear in the coefficients: what `basis` makes one by one is summed before it is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.ace.basis import OnBasis, Sites, atomic_base, sites_of, species_one_hot
from lprjax.ace.spec import ACESpec, Tables, tables
from lprjax.atoms.graphs import Graph
from lprjax.numerics.blocks import sites_in_blocks
from lprjax.numerics.checks import require_x64

BLOCK = 128  # sites whose energies are made at a time


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LinearPotential(OnBasis):
    """A linear ACE potential: E_i = e0[z_i] + sum_k c_k B_k(i), in eV.

    coefficients: (n_columns,) in eV; reference_energies: (n_elements,) in eV, the energy of each
    species' isolated atom (zeros if the labels are cohesive energies). A pytree: new coefficients
    recompile nothing.
    """

    coefficients: jax.Array
    reference_energies: jax.Array
    spec: ACESpec = field(metadata=dict(static=True))

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        own = species_one_hot(self.spec, graph.species)
        by_centre = sites_in_blocks(self._by_centre, sites_of(graph), BLOCK)
        return jnp.sum(own * (by_centre + self.reference_energies[None, :]), axis=-1)

    def _by_centre(self, sites: Sites) -> jax.Array:
        """What every site would have for an energy if its atom were of each element, (n, …)."""
        t = tables(self.spec)
        base, pairs = atomic_base(self.spec, sites)
        left, right = half_products(self.spec, base)
        blocks = self.coefficients.reshape(len(self.spec.elements), t.n_functions)
        return jnp.stack([_site_energy(t, c, left, right, pairs) for c in blocks], axis=-1)


def _site_energy(t: Tables, c: jnp.ndarray, left, right, pairs) -> jnp.ndarray:
    """left^T M right + pair part for one centre species' coefficients c (n_functions,)."""
    matrix = jnp.zeros(len(left) * len(right))
    matrix = matrix.at[t.halves[2]].add(c[t.term_function] * t.term_value)
    many_body = jnp.sum((matrix.reshape(len(left), len(right)).T @ left) * right, axis=0)
    pair, constant = jnp.split(c[t.n_many_body :], [t.n_pair])
    return many_body + pair @ pairs + jnp.sum(constant)


def linear_potential(
    spec: ACESpec, coefficients: jax.Array, reference_energies: Mapping[str, float] | None = None
) -> LinearPotential:
    """The potential of a coefficient vector (n_columns,) in eV; reference energies by symbol, eV.

    Raises ValueError for a vector of another length or a reference energy that is missing.
    """
    require_x64()
    coefficients = jnp.asarray(coefficients, float)
    if coefficients.shape != (spec.n_columns,):
        raise ValueError(
            f"coefficients of shape {coefficients.shape} arrived; {spec} wants ({spec.n_columns},)"
        )
    e0 = isolated_energies(spec, reference_energies)
    return LinearPotential(coefficients, jnp.asarray(e0), spec)


def isolated_energies(spec: ACESpec, by_symbol: Mapping[str, float] | None) -> np.ndarray:
    """Reference energies in the order of `spec.elements`, (n_elements,) in eV; zeros for None.

    Raises ValueError for an element that is missing.
    """
    e0 = by_symbol or dict.fromkeys(spec.elements, 0.0)
    missing = [e for e in spec.elements if e not in e0]
    if missing:
        raise ValueError(f"reference_energies lack {missing}; give one per element, in eV")
    return np.array([e0[e] for e in spec.elements], float)


def half_products(spec: ACESpec, base: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Products of at most two channels, left (P, n) and right (Q, n): see `Tables.halves`."""
    left, right, _ = tables(spec).halves
    return base[left[:, 0]] * base[left[:, 1]], base[right[:, 0]] * base[right[:, 1]]


def save_potential(path: str | Path, potential: LinearPotential) -> None:
    """Write a potential to one file, .npz (specification as JSON, coefficients exactly)."""
    with open(path, "wb") as file:  # an open file keeps its name: given a path, NumPy adds .npz
        np.savez(
            file,
            spec=json.dumps(asdict(potential.spec)),
            coefficients=np.asarray(potential.coefficients),
            reference_energies=np.asarray(potential.reference_energies),
        )


def load_potential(path: str | Path) -> LinearPotential:
    """Read a potential that `save_potential` wrote."""
    with np.load(path) as file:
        spec = json.loads(str(file["spec"]))
        spec = ACESpec(**{**spec, "elements": tuple(spec["elements"])})
        energies = dict(zip(spec.elements, file["reference_energies"], strict=True))
        return linear_potential(spec, file["coefficients"], energies)
