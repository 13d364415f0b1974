"""Linear atomic cluster expansion: specification, site basis, linear potential.

    E_i = sum_k c_k B_k(i),   B_k = sum_p U_kp A_p1 … A_pv,   A_znlm(i) = sum_{j: z_j = z} R_n Y_lm

(Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454 (2022) 110946.)

Index convention, used by `design` too:

- *channel* v = (z, n, l, m), z the neighbour's species; one more channel with value 1 pads
  products of fewer than `order` factors;
- *function* k of one centre species: many-body functions by order, then pair functions by (z, n);
- *column* of the design: centre species (in the order of `elements`) times functions per species.
  The site basis of an atom is zero outside its own species' block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache, partial
from math import inf
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lprjax.angular import spherical_harmonics
from lprjax.coupling import symmetric_invariants
from lprjax.neighbours import Graph
from lprjax.radial import many_body_radial, pair_radial
from lprjax.structures import require_x64

L_WEIGHT = 1.5  # total degree of a function: sum over its factors of n + L_WEIGHT l


@dataclass(frozen=True)
class ACESpec:
    """A linear ACE basis, by the convention of ACEpotentials: n from 1, l from 0,
    sum (n + 1.5 l) <= degree, up to `order` factors, plus `degree` pair functions.

    elements: chemical symbols, e.g. ("W",); order: 1 … 4 (neighbours per product);
    degree: largest total degree; r_cut: cutoff in Å; r0: typical nearest-neighbour distance in Å,
    where the distance transform is steepest; cutoff_power: order of the zero at r_cut (4: force
    constants and third-order elastic constants are continuous; at least 3 for the former).

    Raises ValueError for unknown or repeated elements and for numbers out of range.
    """

    elements: tuple[str, ...]
    order: int
    degree: int
    r_cut: float
    r0: float
    cutoff_power: int = 4

    def __post_init__(self):
        if isinstance(self.elements, str):
            object.__setattr__(self, "elements", (self.elements,))
        object.__setattr__(self, "elements", tuple(self.elements))
        unknown = [e for e in self.elements if e not in atomic_numbers or e == "X"]
        if unknown or not self.elements or len(set(self.elements)) < len(self.elements):
            raise ValueError(
                f"elements {self.elements!r} arrived; wanted distinct chemical symbols, "
                'e.g. elements=("Nb", "Ta")'
            )
        # forces are continuous from cutoff_power 2 on
        for name, least, most in (("order", 1, 4), ("degree", 1, inf), ("cutoff_power", 2, inf)):
            value = getattr(self, name)
            if not isinstance(value, Real) or value % 1 or not least <= value <= most:
                raise ValueError(
                    f"{name} {value!r} arrived; wanted a whole number, {least} to {most}"
                )
            object.__setattr__(self, name, int(value))
        if not 0 < self.r0 < self.r_cut < inf:
            raise ValueError(
                f"r_cut = {self.r_cut} Å and r0 = {self.r0} Å arrived; wanted 0 < r0 < r_cut: "
                "r0 is the nearest-neighbour distance"
            )
        for name in ("r_cut", "r0"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of `elements`."""
        return tuple(atomic_numbers[e] for e in self.elements)

    @property
    def n_functions(self) -> int:
        """Basis functions per centre species."""
        return tables(self).n_functions

    @property
    def n_columns(self) -> int:
        """Length of the coefficient vector: centre species times functions."""
        return len(self.elements) * self.n_functions


class Channel(NamedTuple):
    z: int
    n: int
    l: int

    @property
    def degree(self) -> float:
        return self.n + L_WEIGHT * self.l


class Function(NamedTuple):
    """One many-body function: its factors' (z, n, l) and its terms."""

    factors: tuple[Channel, ...]
    monomials: np.ndarray  # (n_terms, order) of m
    coefficients: np.ndarray  # (n_terms,)


def _factor_tuples(spec: ACESpec) -> Iterator[tuple[Channel, ...]]:
    """All ascending tuples of one to `order` channels with total degree <= spec.degree."""
    channels = [
        Channel(z, n, l)
        for l in range(int(spec.degree / L_WEIGHT) + 1)
        for z in range(len(spec.elements))
        for n in range(1, spec.degree + 1)
        if n + L_WEIGHT * l <= spec.degree
    ]

    def extend(chosen: tuple[int, ...], left: float) -> Iterator[tuple[int, ...]]:
        for c in range(chosen[-1] if chosen else 0, len(channels)):
            if channels[c].degree <= left:
                yield (*chosen, c)
                if len(chosen) + 1 < spec.order:
                    yield from extend((*chosen, c), left - channels[c].degree)

    for chosen in sorted(extend((), spec.degree), key=len):
        yield tuple(channels[c] for c in chosen)


def _functions(spec: ACESpec) -> Iterator[Function]:
    for factors in _factor_tuples(spec):
        labels = tuple(factors.index(f) for f in factors)
        monomials, coefficients = symmetric_invariants(tuple(f.l for f in factors), labels)
        for row in coefficients:
            used = row != 0
            yield Function(factors, monomials[used], row[used])


class Tables:
    """Integer tables of a basis, made once on the host (see `tables`)."""

    def __init__(self, spec: ACESpec):
        self.functions = list(_functions(spec))
        self.n_max = spec.degree
        self.n_species = len(spec.elements)
        self.l_max = max(f.l for g in self.functions for f in g.factors)
        used = sorted({f for g in self.functions for f in g.factors})
        channels = [(c.z, c.n, c.l, m) for c in used for m in range(-c.l, c.l + 1)]
        self.channels = np.array(channels)  # (V, 4)
        self.n_channels = len(channels)
        self.n_many_body = len(self.functions)
        self.n_pair = self.n_species * self.n_max
        self.n_functions = self.n_many_body + self.n_pair
        index = {c: v for v, c in enumerate(channels)}
        one = self.n_channels
        k_of, products, values = [], [], []
        for k, g in enumerate(self.functions):
            for m, u in zip(g.monomials, g.coefficients, strict=True):
                vs = [index[(*f, mi)] for f, mi in zip(g.factors, m, strict=True)]
                k_of.append(k)
                products.append(sorted(vs) + [one] * (spec.order - len(vs)))
                values.append(u)
        self.term_function = np.array(k_of)  # (T,)
        self.term_channels = np.array(products)  # (T, order), padded with the unit channel
        self.term_value = np.array(values)  # (T,)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every product split in two: left (P, 2), right (Q, 2) channel pairs; position (T,) in the
        P-by-Q matrix. A site energy is then left^T M right with M linear in the coefficients."""
        one = self.n_channels
        padded = np.full((len(self.term_channels), 4), one)
        padded[:, : self.term_channels.shape[1]] = self.term_channels
        left, left_of = np.unique(padded[:, :2], axis=0, return_inverse=True)
        right, right_of = np.unique(padded[:, 2:], axis=0, return_inverse=True)
        return left, right, left_of.ravel() * len(right) + right_of.ravel()


@lru_cache(maxsize=32)
def tables(spec: ACESpec) -> Tables:
    """The integer tables of a basis, cached by specification."""
    return Tables(spec)


def species_one_hot(spec: ACESpec, species: jnp.ndarray) -> jnp.ndarray:
    """One-hot rows of atomic numbers, (..., n_elements); zero rows for padding (species 0)."""
    return (species[..., None] == jnp.asarray(spec.numbers)).astype(float)


def radial_functions(
    spec: ACESpec, r: jnp.ndarray, edge_mask: jnp.ndarray
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Many-body and pair radial functions of distances r (...) in Å, each (..., n_max); zero on
    padded edges and beyond the cutoff."""
    options = dict(r0=spec.r0, r_cut=spec.r_cut, n_max=spec.degree, power=spec.cutoff_power)
    mask = edge_mask[..., None]
    many_body = jnp.where(mask, many_body_radial(r, **options), 0.0)
    return many_body, jnp.where(mask, pair_radial(r, **options), 0.0)


def atomic_base(spec: ACESpec, graph: Graph) -> tuple[jnp.ndarray, jnp.ndarray]:
    """A, shape (V + 1, n) with the unit channel last, and pair sums (n_elements * n_max, n).

    Atoms are the last axis from here on: products gather whole rows.
    """
    vectors = graph.vectors()
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    radial, pair = radial_functions(spec, r, graph.edge_mask)
    angular = spherical_harmonics(vectors / r[..., None], tables(spec).l_max)
    one_hot = species_one_hot(spec, graph.species[graph.neighbours])
    by_species = one_hot[..., :, None] * radial[..., None, :]  # (n, K, z, n_max)
    grid = jnp.einsum("iszn,isy->znyi", by_species, angular)
    z, n, l, m = tables(spec).channels.T
    base = grid[z, n - 1, l * l + l + m]
    pairs = jnp.einsum("isz,isn->zni", one_hot, pair)
    unit = jnp.ones((1, base.shape[1]))
    return jnp.concatenate([base, unit]), pairs.reshape(-1, pairs.shape[-1])


def half_products(spec: ACESpec, base: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Products of at most two channels, left (P, n) and right (Q, n): see `Tables.halves`."""
    left, right, _ = tables(spec).halves
    return base[left[:, 0]] * base[left[:, 1]], base[right[:, 0]] * base[right[:, 1]]


@partial(jax.jit, static_argnums=0)
def _site_functions(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    """B_k(i) of each atom's own species, (n_functions, n)."""
    t = tables(spec)
    base, pairs = atomic_base(spec, graph)
    left, right = half_products(spec, base)
    row, column = np.divmod(t.halves[2], len(right))
    coupling = np.zeros((t.n_many_body, len(row)))
    coupling[t.term_function, np.arange(len(row))] = t.term_value
    return jnp.concatenate([coupling @ (left[row] * right[column]), pairs])


def site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    """The basis functions of every site, B(i), shape (n, n_columns), dimensionless.

    E_i = B(i) . c; row i is zero outside the block of its own species and on padding atoms.
    Raises ValueError for species that the specification lacks, RuntimeError without float64.
    """
    check_species(spec, graph)
    return _site_basis(spec, graph)


@partial(jax.jit, static_argnums=0)
def _site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    own = species_one_hot(spec, graph.species)
    blocks = own[:, :, None] * _site_functions(spec, graph).T[:, None, :]
    return blocks.reshape(len(own), -1)


def check_species(spec: ACESpec, graph: Graph) -> None:
    """Raise unless every atom's species is among `spec.elements`; traced graphs pass unchecked."""
    require_x64()
    if isinstance(graph.species, jax.core.Tracer):
        return
    strangers = set(np.unique(np.asarray(graph.species)).tolist()) - {0, *spec.numbers}
    if strangers:
        names = sorted(chemical_symbols[z] for z in strangers)
        raise ValueError(
            f"unknown species: the structure has {', '.join(names)}, the basis was built for "
            f"{', '.join(spec.elements)}; add them to ACESpec(elements=...)"
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LinearPotential:
    """A linear ACE potential: E_i = e0[z_i] + sum_k c_k B_k(i), in eV.

    coefficients: (n_columns,) in eV; reference_energies: (n_elements,) in eV, the energy of each
    species' isolated atom (zeros if the labels are cohesive energies). A pytree: new coefficients
    recompile nothing.
    """

    coefficients: jax.Array
    reference_energies: jax.Array
    spec: ACESpec = field(metadata=dict(static=True))

    @property
    def r_cut(self) -> float:
        """Cutoff in Å."""
        return self.spec.r_cut

    def check(self, graph: Graph) -> None:
        """Raise ValueError for species that the specification lacks."""
        check_species(self.spec, graph)

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        t = tables(self.spec)
        own = species_one_hot(self.spec, graph.species)
        base, pairs = atomic_base(self.spec, graph)
        left, right = half_products(self.spec, base)
        blocks = self.coefficients.reshape(len(self.spec.elements), t.n_functions)
        energies = jnp.stack([_site_energy(t, c, left, right, pairs) for c in blocks], axis=-1)
        return jnp.sum(own * (energies + self.reference_energies[None, :]), axis=-1)


def _site_energy(t: Tables, c: jnp.ndarray, left, right, pairs) -> jnp.ndarray:
    """left^T M right + pair part for one centre species' coefficients c (n_functions,)."""
    matrix = jnp.zeros(len(left) * len(right))
    matrix = matrix.at[t.halves[2]].add(c[t.term_function] * t.term_value)
    many_body = jnp.sum((matrix.reshape(len(left), len(right)).T @ left) * right, axis=0)
    return many_body + c[t.n_many_body :] @ pairs


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


def smoothness_prior(spec: ACESpec, power: float = 4.0) -> np.ndarray:
    """Diagonal of the algebraic smoothness prior, Gamma_k = sum over factors of (n + 1.5 l)^power.

    Shape (n_columns,), dimensionless. The ridge term of a fit is ridge * |Gamma c|^2: oscillating
    functions cost more. (After the prior of ACEpotentials, Witt et al. 2023, n and l alike.)
    """
    t = tables(spec)
    many_body = [sum(f.degree**power for f in g.factors) for g in t.functions]
    pairs = [n**power for _ in spec.elements for n in range(1, t.n_max + 1)]
    return np.tile(np.array(many_body + pairs), len(spec.elements))


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
