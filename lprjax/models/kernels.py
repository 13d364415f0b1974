"""Sparse kernel potentials (GAP): a linear model in the whitened kernel features of M environments.

    E_i = e0[z_i] + sum_m alpha_m k(i, m),   k(i, j) = (u_i . u_j)^zeta,   u = b / sqrt(1 + |b|^2)

with b = B / scale the ACE functions of the site, each divided by how much it varies. Sites of
different species have disjoint blocks of B, so k is zero between them. The 1 under the root is
the atom itself, as the central atom is in SOAP: b / |b| would jump as the last neighbour leaves.
GAP minimises |W (K_NM alpha - y)|^2 + ridge alpha^T K_MM alpha. With K_MM = L L^T, c = L^T alpha,

    E_i = e0[z_i] + c . phi(i),   phi(i) = L^-1 k_M(i),   alpha^T K_MM alpha = |c|^2

it is the ridge regression of `fit` with prior one. H = L^-1 (K_MN W^2 K_NM + ridge K_MM) L^-T, so
every rigidity is GAP's own.

(Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett. 104, 136403 (2010); SOAP: Bartók, Kondor, Csányi,
Phys. Rev. B 87, 184115 (2013); the whitened form and the 1 under the root are derived.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from lprjax.ace.basis import OnBasis, site_basis, species_one_hot
from lprjax.ace.potential import isolated_energies
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import as_float64, require_x64

SMALLEST = 1e-8
"""What varies by less than this share of the largest function's size is taken for rounding."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class KernelPotential(OnBasis):
    """A sparse kernel potential: E_i = e0[z_i] + c . L^-1 k_M(i), in eV; see the top of the file.

    coefficients: (M,) c in eV, of the whitened features; sparse: (M, n_columns) u of the sparse
    environments; triangular: (M, M) lower L, L L^T = K_MM; scale: (n_columns,) of the ACE
    functions; reference_energies: (n_elements,) in eV, the energy of each species' isolated atom;
    zeta: power of the kernel. A pytree: new coefficients recompile nothing.
    """

    coefficients: jax.Array
    sparse: jax.Array
    triangular: jax.Array
    scale: jax.Array
    reference_energies: jax.Array
    spec: ACESpec = field(metadata=dict(static=True))
    zeta: int = field(metadata=dict(static=True))

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        alpha = solve_triangular(self.triangular, self.coefficients, trans=1, lower=True)
        own = species_one_hot(self.spec, graph.species)
        return self.kernel(graph) @ alpha + own @ self.reference_energies

    def kernel(self, graph: Graph) -> jax.Array:
        """k_M(i), (n, M): every site with every sparse environment; zero on padding atoms."""
        sites = unit_features(site_basis(self.spec, graph), self.scale)
        return (sites @ self.sparse.T) ** self.zeta


def unit_features(rows: jax.Array, scale: jax.Array) -> jax.Array:
    """u = b / sqrt(1 + |b|^2), b = rows / scale: (n, n_columns), of norm below 1; 0 where b = 0."""
    scaled = rows / scale[None, :]
    return scaled / jnp.sqrt(1.0 + jnp.sum(scaled**2, axis=1, keepdims=True))


def site_features(potential: KernelPotential, graph: Graph) -> jax.Array:
    """Whitened features phi(i) = L^-1 k_M(i) = dE_i/dc of every site, (n, M): the g of an LPR.

    |phi(i)|^2 <= k(i, i) < 1, and zero on padding atoms. Far from every sparse environment phi
    vanishes, so the rigidity of a sparse kernel model grows where it knows nothing: look at
    `unseen_variance` beside it. Raises ValueError for unknown species or a graph that ends short.
    """
    return solve_triangular(potential.triangular, potential.kernel(graph).T, lower=True).T


def unseen_variance(potential: KernelPotential, graph: Graph) -> jax.Array:
    """The share of a site's prior variance that no sparse environment sees, (n,), from 0 to 1.

    k(i, i) - |phi(i)|^2, in units of 1 / ridge: what the full Gaussian process adds to 1/LPR where
    training data tell nothing about it (the FITC term; Quiñonero-Candela, Rasmussen, J. Mach.
    Learn. Res. 6 (2005) 1939). Zero on padding atoms. Raises as `site_features`.
    """
    sites = unit_features(site_basis(potential.spec, graph), potential.scale)
    prior = jnp.sum(sites**2, axis=1) ** potential.zeta
    return prior - jnp.sum(site_features(potential, graph) ** 2, axis=1)


def column_statistics(spec: ACESpec, environments: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each ACE function over its own species, (n_columns,) each.

    environments: (n, n_columns), rows of `site_basis`; rows of zeros (padding, isolated atoms) do
    not count. A deviation is at least SMALLEST times the species' largest root mean square, so
    that rounding of a function which symmetry forbids is not blown up to the size of the others.
    Raises ValueError for another shape, NaN or infinity, an element without environment, and a
    constant in the basis, which has no deviation.
    """
    if spec.constant:
        raise ValueError("a constant tells sites apart in no kernel or network: use constant=False")
    rows = np.asarray(as_float64("environments", environments))
    if rows.ndim != 2 or rows.shape[1] != spec.n_columns:
        raise ValueError(
            f"environments have shape {rows.shape}; wanted (n, {spec.n_columns}), rows of "
            "site_basis(spec, graph)"
        )
    if not np.isfinite(rows).all():
        raise ValueError("environments hold NaN or infinity; leave those structures out")
    blocks = rows.reshape(len(rows), len(spec.elements), -1)
    present = (blocks != 0).any(axis=2)
    counts = present.sum(axis=0)
    absent = [e for e, count in zip(spec.elements, counts, strict=True) if count == 0]
    if absent:
        raise ValueError(
            f"environments hold no atom of {', '.join(absent)} with a neighbour; add some, or "
            "leave the element out of the ACESpec"
        )
    mean = blocks.sum(axis=0) / counts[:, None]
    centred = np.where(present[..., None], blocks - mean, 0.0)
    rms, deviation = (np.sqrt((x**2).sum(axis=0) / counts[:, None]) for x in (blocks, centred))
    least = SMALLEST * rms.max(axis=1, keepdims=True)
    return mean.ravel(), np.maximum(deviation, least).ravel()


def kernel_potential(
    spec: ACESpec,
    environments: jax.Array,
    n_sparse: int | None = None,
    *,
    zeta: int = 2,
    scale: jax.Array | None = None,
    tolerance: float = 1e-8,
    reference_energies: Mapping[str, float] | None = None,
) -> KernelPotential:
    """A kernel potential with zero coefficients, on sparse environments chosen from those given.

    The choice is the greedy D-optimal one (`pivoted_cholesky`). To give the sparse environments
    yourself, pass them alone, without n_sparse; those that depend on the others are left out.

    environments: (n, n_columns), rows of `site_basis`, of the training set as a rule;
    n_sparse: M, by default as many as the tolerance allows; M may come out smaller, and that says
    how many the environments have to offer.
    zeta: 1, 2, …, the larger the more local the kernel.
    scale: (n_columns,) > 0; the larger, the less a function counts. By default its deviation over
    the environments of its own species (`column_statistics`) times the smoothness prior of power 2,
    as GAP smears its density: functions of high degree, were all to count alike, would make any two
    environments strangers.
    tolerance: an environment that adds less than this to the kernel's span is left out, instead of
    a jitter on K_MM: the diagonal of L stays above its root.
    reference_energies: by symbol, in eV.
    Raises ValueError for numbers out of range, and as `column_statistics`.
    """
    require_x64()
    _, deviation = column_statistics(spec, environments)
    if scale is None:
        scale = deviation * smoothness_prior(spec, 2.0)
    scale = np.asarray(as_float64("scale", scale))
    if scale.shape != (spec.n_columns,) or not (np.isfinite(scale) & (scale > 0.0)).all():
        raise ValueError(
            f"scale of shape {scale.shape} arrived; wanted {spec.n_columns} positive numbers, the "
            "size of each column of site_basis"
        )
    n_sparse = len(environments) if n_sparse is None else n_sparse
    for name, value in (("zeta", zeta), ("n_sparse", n_sparse)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; wanted a whole number, at least 1")
    if not 1e-13 <= tolerance < 1.0:
        raise ValueError(f"tolerance is {tolerance!r}; wanted 1e-13 (above rounding) to 1")
    rows = np.asarray(unit_features(jnp.asarray(environments, float), jnp.asarray(scale)))
    chosen, lower = pivoted_cholesky(rows, int(zeta), int(n_sparse), tolerance)
    return KernelPotential(
        coefficients=jnp.zeros(len(chosen)),
        sparse=jnp.asarray(rows[chosen]),
        triangular=jnp.asarray(lower),
        scale=jnp.asarray(scale),
        reference_energies=jnp.asarray(isolated_energies(spec, reference_energies)),
        spec=spec,
        zeta=int(zeta),
    )


def pivoted_cholesky(
    rows: np.ndarray, zeta: int, most: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The greedy D-optimal choice of environments for the kernel (rows rows^T)^zeta.

    Each step takes the environment with the largest part outside the span of those chosen,
    k(i, i) - |phi(i)|^2 > tolerance, which multiplies det K_MM by just that part. K_NN is never
    formed: O(n M) numbers, O(n M^2) operations.

    rows: (n, C); most: the largest M. Returns the indices (M,), in the order of choice, and L
    (M, M) lower triangular, L L^T = K_MM, with a diagonal that falls.
    Source: Cholesky with complete pivoting (LAPACK's dpstrf), stopped after M steps.
    """
    left = np.sum(rows**2, axis=1) ** zeta
    lower = np.zeros((len(rows), min(most, len(rows))))
    chosen: list[int] = []
    for m in range(lower.shape[1]):
        pivot = int(np.argmax(left))
        if left[pivot] <= tolerance:
            break
        rest = (rows @ rows[pivot]) ** zeta - lower[:, :m] @ lower[pivot, :m]
        lower[:, m] = rest / np.sqrt(rest[pivot])
        left = left - lower[:, m] ** 2
        chosen.append(pivot)
    index = np.array(chosen, dtype=int)
    return index, np.tril(lower[index, : len(index)])
