"""Linear atomic cluster expansion: site basis and linear potential.

    E_i = sum_k c_k B_k(i),   B_k = sum_p U_kp A_p1 … A_pv,   A_znlm(i) = sum_{j: z_j = z} R_n Y_lm

(Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454 (2022) 110946.)
The indices are those of `spec`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from lprjax.angular import spherical_harmonics
from lprjax.blocks import in_blocks
from lprjax.neighbours import Graph, check_reach
from lprjax.radial import many_body_radial, pair_radial
from lprjax.spec import ACESpec, Tables, tables
from lprjax.structures import require_x64

BLOCK = 128  # sites whose energies are made at a time


def species_one_hot(spec: ACESpec, species: jnp.ndarray) -> jnp.ndarray:
    """One-hot rows of atomic numbers, (..., n_elements); zero rows for padding (species 0)."""
    return (species[..., None] == jnp.asarray(spec.numbers)).astype(float)


def radial_functions_and_slopes(spec: ACESpec, r: jnp.ndarray, edge_mask: jnp.ndarray):
    """Many-body and pair radial functions of distances r (...) in Å, each (n_max, ...), and their
    slopes in 1/Å; zero on padded edges and beyond the cutoff."""
    options = dict(r0=spec.r0, r_cut=spec.r_cut, n_max=spec.degree, power=spec.cutoff_power)
    found = many_body_radial(r, **options), pair_radial(r, **options)
    return tuple(
        zip(*jax.tree.map(lambda x: jnp.where(edge_mask[None], x, 0.0), found), strict=True)
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def radial_functions(spec: ACESpec, r: jnp.ndarray, edge_mask: jnp.ndarray):
    """Many-body and pair radial functions, as above; differentiated by their slopes."""
    return radial_functions_and_slopes(spec, r, edge_mask)[0]


@radial_functions.defjvp
def _radial_functions_jvp(spec, primals, tangents):
    values, slopes = radial_functions_and_slopes(spec, *primals)
    return values, tuple(slope * tangents[0][None] for slope in slopes)


class Sites(NamedTuple):
    """What the site functions of n atoms depend on."""

    edges: jax.Array  # (n, K, 3) Å
    edge_mask: jax.Array  # (n, K)
    others: jax.Array  # (n, K) atomic numbers of the neighbours


def sites_of(graph: Graph) -> Sites:
    """The surroundings of every atom."""
    return Sites(graph.vectors(), graph.edge_mask, graph.species[graph.neighbours])


def atomic_base(spec: ACESpec, sites: Sites) -> tuple[jnp.ndarray, jnp.ndarray]:
    """A, shape (V + 1, n) with the unit channel last, and pair sums (n_elements * n_max, n).

    Atoms are the last axis from here on: products gather whole rows.
    """
    vectors = jnp.moveaxis(sites.edges, -1, 0)
    r = jnp.sqrt(jnp.sum(vectors**2, axis=0))
    radial, pair = radial_functions(spec, r, sites.edge_mask)
    angular = spherical_harmonics(vectors / r[None], tables(spec).l_max)
    one_hot = species_one_hot(spec, sites.others)
    by_species = jnp.moveaxis(one_hot, -1, 0)[:, None] * radial[None]  # (z, n_max, n, K)
    grid = jnp.einsum("znis,yis->znyi", by_species, angular)
    z, n, l, m = tables(spec).channels.T
    base = grid[z, n - 1, l * l + l + m]
    pairs = jnp.einsum("isz,nis->zni", one_hot, pair)
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
    base, pairs = atomic_base(spec, sites_of(graph))
    constant = jnp.ones((int(spec.constant), base.shape[1]))
    return jnp.concatenate([t.sums(base), pairs, constant])


def site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    """The basis functions of every site, B(i), shape (n, n_columns), dimensionless.

    E_i = B(i) . c; row i is zero outside the block of its own species and on padding atoms.
    Raises ValueError for species that the specification lacks, RuntimeError without float64.
    """
    check_graph(spec, graph)
    return _site_basis(spec, graph)


@partial(jax.jit, static_argnums=0)
def _site_basis(spec: ACESpec, graph: Graph) -> jnp.ndarray:
    own = species_one_hot(spec, graph.species)
    blocks = own[:, :, None] * _site_functions(spec, graph).T[:, None, :]
    return blocks.reshape(len(own), -1)


def check_graph(spec: ACESpec, graph: Graph) -> None:
    """Raise ValueError unless every atom's species is among `spec.elements` and the graph reaches
    as far as the basis; traced graphs pass unchecked."""
    require_x64()
    check_reach(graph, spec.r_cut, "the ACE basis")
    if isinstance(graph.species, jax.core.Tracer):
        return
    strangers = set(np.unique(np.asarray(graph.species)).tolist()) - {0, *spec.numbers}
    if strangers:
        names = sorted(chemical_symbols[z] for z in strangers)
        raise ValueError(
            f"unknown species: the structure has {', '.join(names)}, the basis was built for "
            f"{', '.join(spec.elements)}; add them to ACESpec(elements=...)"
        )


class OnBasis:
    """What every potential with a `spec` has: the reach of its basis, and what it refuses."""

    spec: ACESpec

    @property
    def r_cut(self) -> float:
        """Cutoff in Å."""
        return self.spec.r_cut

    def check(self, graph: Graph) -> None:
        """Raise ValueError for species that the specification lacks, or a graph that ends short."""
        check_graph(self.spec, graph)


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
        by_centre = in_blocks(self._by_centre, sites_of(graph), BLOCK)
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


def smoothness_prior(spec: ACESpec, power: float = 4.0) -> np.ndarray:
    """Diagonal of the algebraic smoothness prior, Gamma_k = sum over factors of (n + 1.5 l)^power.

    Shape (n_columns,), dimensionless. The ridge term of a fit is ridge * |Gamma c|^2: oscillating
    functions cost more, the constant nothing. (After the prior of ACEpotentials, Witt et al. 2023,
    n and l alike.)
    """
    t = tables(spec)
    many_body = [sum(f.degree**power for f in g.factors) for g in t.functions]
    pairs = [n**power for _ in spec.elements for n in range(1, t.n_max + 1)]
    return np.tile(np.array(many_body + pairs + [0.0] * spec.constant), len(spec.elements))


def components(spec: ACESpec) -> dict[str, np.ndarray]:
    """Which columns make up each part of a basis: masks for `rigidity.component_rigidity`.

    Returns name -> (n_columns,) bool: "constant" (where there is one), "pair", "many-body"; "body
    order 2", 3, ... of both (v neighbours make body order v + 1); "centre W", by the site's own
    species; "neighbour W", all that has W among the neighbours.
    """
    t, n_blocks = tables(spec), len(spec.elements)
    pairs = [(z,) for z in range(n_blocks) for _ in range(t.n_max)]
    seen = [tuple(f.z for f in g.factors) for g in t.functions] + pairs + [()] * spec.constant
    order = np.array([len(neighbours) for neighbours in seen])
    place = np.arange(t.n_functions)
    found = {"constant": order == 0} if spec.constant else {}
    found["pair"] = (place >= t.n_many_body) & (order > 0)
    found["many-body"] = place < t.n_many_body
    found |= {f"body order {v + 1}": order == v for v in range(1, max(order) + 1)}
    for z, element in enumerate(spec.elements):
        found[f"neighbour {element}"] = np.array([z in neighbours for neighbours in seen])
    found = {name: np.tile(mask, n_blocks) for name, mask in found.items()}
    block = np.repeat(np.arange(n_blocks), t.n_functions)
    return found | {f"centre {element}": block == z for z, element in enumerate(spec.elements)}


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
