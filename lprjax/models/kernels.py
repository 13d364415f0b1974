"""Sparse kernel potentials (GAP): a linear model in the whitened kernel features of M environments.

    E_i = e0[z_i] + sum_m alpha_m k(i, m),   k(i, j) = (u_i . u_j)^zeta,   u = b / sqrt(1 + |b|^2)

with b = B / scale the ACE functions of the site, each divided by how much it varies. Sites of
different species have disjoint blocks of B, so k is zero between them. The 1 under the root is
the atom itself, as the central atom is in SOAP: b / |b| would jump as the last neighbour leaves.
GAP minimises |W (K_NM alpha - y)|^2 + ridge alpha^T K_MM alpha. With K_MM = L L^T, c = L^T alpha,

    E_i = e0[z_i] + c . phi(i),   phi(i) = L^-1 k_M(i),   alpha^T K_MM alpha = |c|^2

it is the ridge regression of `fit` with prior one. H = L^-1 (K_MN W^2 K_NM + ridge K_MM) L^-T, so
every rigidity is GAP's own.

Source: Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett. 104 (2010) 136403; SOAP: Bartók, Kondor,
Csányi, Phys. Rev. B 87 (2013) 184115; the whitened form and the 1 under the root are derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from lprjax.ace.basis import OnBasis, centres, site_basis
from lprjax.ace.potential import isolated_energies
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import Graph
from lprjax.models.features import column_statistics
from lprjax.numerics.checks import as_float64, require_x64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class KernelPotential(OnBasis):
    """A sparse kernel potential: E_i = e0[z_i] + c . L^-1 k_M(i), in eV; see the top of the file.

    A pytree: new coefficients recompile nothing.

    Attributes:
        coefficients: (M,) c, eV, of the whitened features.
        sparse: (M, n_columns) u of the sparse environments, dimensionless.
        triangular: (M, M) lower L, L L^T = K_MM, dimensionless.
        scale: (n_columns,) of the ACE functions, dimensionless.
        reference_energies: (n_elements,), eV, the energy of each species' isolated atom.
        spec: of the ACE functions.
        zeta: power of the kernel.
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
        own = centres(self.spec, graph)
        return self.kernel(graph) @ alpha + own @ self.reference_energies + self.core(graph)

    def kernel(self, graph: Graph) -> jax.Array:
        """k_M(i), (n, M): every site with every sparse environment; zero on padding atoms."""
        sites = unit_features(site_basis(self.spec, graph), self.scale)
        return (sites @ self.sparse.T) ** self.zeta


def unit_features(rows: jax.Array, scale: jax.Array) -> jax.Array:
    """ACE functions of sites as vectors of norm below 1.

        u = b / sqrt(1 + |b|^2),   b = rows / scale

    Args:
        rows: B (n, n_columns), of `site_basis`, dimensionless.
        scale: (n_columns,) > 0, dimensionless.

    Returns:
        u (n, n_columns), dimensionless; zero where b is.
    """
    scaled = rows / scale[None, :]
    return scaled / jnp.sqrt(1.0 + jnp.sum(scaled**2, axis=1, keepdims=True))


def site_features(potential: KernelPotential, graph: Graph) -> jax.Array:
    """Whitened features of every site: the g of its LPR.

        phi(i) = L^-1 k_M(i) = dE_i/dc,   |phi(i)|^2 <= k(i, i) < 1

    Far from every sparse environment phi vanishes, so the rigidity of a sparse kernel model grows
    where it has no data: look at `unseen_variance` beside it.

    Args:
        potential: of M sparse environments.
        graph: n atoms, padding included.

    Returns:
        (n, M), dimensionless, zero on padding atoms.

    Raises:
        ValueError: unknown species, or a graph that ends short of the cutoff.
        TypeError: no kernel potential.
    """
    _require_kernel(potential)
    return solve_triangular(potential.triangular, potential.kernel(graph).T, lower=True).T


def _require_kernel(potential: object) -> None:
    if not isinstance(potential, KernelPotential):
        raise TypeError(
            f"potential is a {type(potential).__name__}: wanted a KernelPotential; make it with "
            "kernel_potential."
        )


def unseen_variance(potential: KernelPotential, graph: Graph) -> jax.Array:
    """The share of a site's prior variance that no sparse environment sees.

        k(i, i) - |phi(i)|^2

    It is what the full Gaussian process adds to 1/LPR where training data determine nothing of it
    (the FITC term).

    Args:
        potential: of M sparse environments.
        graph: n atoms, padding included.

    Returns:
        (n,), from 0 to 1, in units of 1 / ridge; zero on padding atoms.

    Raises:
        ValueError, TypeError: as `site_features`.

    Source: Quiñonero-Candela, Rasmussen, J. Mach. Learn. Res. 6 (2005) 1939.
    """
    _require_kernel(potential)
    sites = unit_features(site_basis(potential.spec, graph), potential.scale)
    prior = jnp.sum(sites**2, axis=1) ** potential.zeta
    return prior - jnp.sum(site_features(potential, graph) ** 2, axis=1)


def kernel_potential(
    spec: ACESpec,
    environments: ArrayLike,
    n_sparse: int | None = None,
    *,
    zeta: int = 2,
    scale: ArrayLike | None = None,
    tolerance: float = 1e-8,
    reference_energies: Mapping[str, float] | None = None,
) -> KernelPotential:
    """A kernel potential with zero coefficients, on sparse environments chosen from those given.

    The choice is the greedy D-optimal one (`pivoted_cholesky`). To give the sparse environments
    yourself, pass them alone, without n_sparse; those that depend on the others are left out.

    Args:
        spec: without a constant.
        environments: (n, n_columns), rows of `site_basis`, of the training set as a rule.
        n_sparse: M, by default as many as the tolerance allows. M may come out smaller: it is then
            the number of environments that are independent within the tolerance.
        zeta: 1, 2, …, the larger the more local the kernel.
        scale: (n_columns,) > 0; the larger, the less a function counts. By default its deviation
            over the environments of its own species (`column_statistics`) times the smoothness
            prior of power 2, as GAP smears its density: if all functions counted alike, those of
            high degree would make any two environments dissimilar.
        tolerance: an environment that adds less than this to the kernel's span is left out,
            instead of a jitter on K_MM: the diagonal of L stays above its root.
        reference_energies: by symbol, eV; zeros if None.

    Returns:
        The KernelPotential, of M coefficients that are zero.

    Raises:
        ValueError: numbers out of range; a reference energy that is missing; and as
            `column_statistics`.
        TypeError: as `column_statistics`.
        RuntimeError: float64 is off.
    """
    require_x64()
    _, deviation = column_statistics(spec, environments)
    if scale is None:
        scale = deviation * smoothness_prior(spec, 2.0)
    scale = np.asarray(as_float64("scale", scale))
    if scale.shape != (spec.n_columns,) or not (np.isfinite(scale) & (scale > 0.0)).all():
        raise ValueError(
            f"scale is an array of shape {scale.shape}: wanted {spec.n_columns} positive numbers; "
            "give the size of each column of site_basis."
        )
    n_sparse = np.shape(environments)[0] if n_sparse is None else n_sparse
    for name, value in (("zeta", zeta), ("n_sparse", n_sparse)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: wanted a whole number, at least 1.")
    if not 1e-13 <= tolerance < 1.0:
        raise ValueError(f"tolerance is {tolerance!r}: wanted 1e-13 (above rounding) to 1.")
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

    Args:
        rows: u (n, C), dimensionless, of `unit_features`.
        zeta: power of the kernel.
        most: the largest M.
        tolerance: the choice ends where no environment adds more than this.

    Returns:
        The indices (M,), in the order of choice, and L (M, M) lower triangular, L L^T = K_MM, with
        a diagonal that falls.

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
