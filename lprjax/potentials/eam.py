"""Embedded-atom potentials of Zhou, Johnson and Wadley (2004): Cu, Ni, Al, Fe, Mo, Ta, W, alloys.

With s = r / r_e and, for each element,

    g(r) = exp(-beta (s - 1)) / (1 + (s - lambda)^20)
    h(r) = exp(-alpha (s - 1)) / (1 + (s - kappa)^20)

the density an atom sends to a neighbour is f = f_e g, the pair function of one element is
phi = A h - B g, and that of two is phi_ab = 1/2 (f_b / f_a phi_aa + f_a / f_b phi_bb). Then

    E_i = F(rho_i) + 1/2 sum_j phi_ij(r_ij),      rho_i = sum_j f_j(r_ij).

The published table has separate beta and lambda for the density; they are equal to those of the
pair function for all seven metals, so that one exponential serves both. The same holds for the
cubic coefficient of the embedding function below and above rho_e.

Source: X. W. Zhou, R. A. Johnson, H. N. G. Wadley, Phys. Rev. B 69, 144113 (2004), with the
values of the public EAM database (those distributed with LAMMPS).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph
from lprjax.numerics.checks import is_number, require_x64
from lprjax.numerics.guarded import inverse
from lprjax.potentials.environments import Environment, over_sites
from lprjax.potentials.potential import (
    check,
    check_species,
    nan_unless,
    reaches,
    species_index,
)

RHO_LOW, RHO_HIGH = 0.85, 1.15
"""Where the pieces of the embedding function join, in rho_e: those of the paper."""


class ZhouElement(NamedTuple):
    """Parameters of one metal, by the names of the paper."""

    number: int  # atomic number
    re: float  # r_e, Å
    fe: float  # f_e, in the paper's unit of density
    rhoe: float  # rho_e, in that unit
    rhos: float  # rho_s, in that unit
    alpha: float
    beta: float
    A: float  # eV
    B: float  # eV
    kappa: float
    lam: float  # lambda
    Fi: tuple[float, float, float, float]  # eV, the cubic below RHO_LOW rho_e
    Fm: tuple[float, float, float, float]  # eV, the cubic up to RHO_HIGH rho_e
    eta: float
    Fe: float  # F_e, eV


ZHOU_2004: dict[str, ZhouElement] = {
    "Cu": ZhouElement(
        29, 2.556162, 1.554485, 21.175871, 21.175395, 8.12762, 4.334731, 0.39662, 0.548085,
        0.308782, 0.756515, (-2.170269, -0.263788, 1.088878, -0.817603),
        (-2.19, 0.0, 0.56183, -2.100595), 0.31049, -2.186568,
    ),
    "Ni": ZhouElement(
        28, 2.488746, 2.007018, 27.562015, 27.562031, 8.383453, 4.471175, 0.429046, 0.633531,
        0.443599, 0.820658, (-2.693513, -0.076445, 0.241442, -2.375626),
        (-2.7, 0.0, 0.26539, -0.152856), 0.44547, -2.7,
    ),
    "Al": ZhouElement(
        13, 2.863924, 1.403115, 20.418205, 23.19574, 6.613165, 3.527021, 0.314873, 0.365551,
        0.379846, 0.759692, (-2.807602, -0.301435, 1.258562, -1.247604),
        (-2.83, 0.0, 0.622245, -2.488244), 0.785902, -2.824528,
    ),
    "Fe": ZhouElement(
        26, 2.481987, 1.885957, 20.041463, 20.041463, 9.81827, 5.236411, 0.392811, 0.646243,
        0.170306, 0.340613, (-2.534992, -0.059605, 0.193065, -2.282322),
        (-2.54, 0.0, 0.200269, -0.14877), 0.39175, -2.539945,
    ),
    "Mo": ZhouElement(
        42, 2.7281, 2.72371, 29.354065, 29.354065, 8.393531, 4.47655, 0.708787, 1.120373,
        0.13764, 0.27528, (-3.692913, -0.178812, 0.38045, -3.13365),
        (-3.71, 0.0, 0.875874, 0.776222), 0.790879, -3.712093,
    ),
    "Ta": ZhouElement(
        73, 2.860082, 3.086341, 33.787168, 33.787168, 8.489528, 4.527748, 0.611679, 1.032101,
        0.176977, 0.353954, (-5.103845, -0.405524, 1.112997, -3.585325),
        (-5.14, 0.0, 1.640098, 0.221375), 0.848843, -5.141526,
    ),
    "W": ZhouElement(
        74, 2.74084, 3.48734, 37.234847, 37.234847, 8.900114, 4.746728, 0.882435, 1.394592,
        0.139209, 0.278417, (-4.946281, -0.148818, 0.365057, -4.432406),
        (-4.96, 0.0, 0.661935, 0.348147), 0.582714, -4.961306,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ZhouEAM:
    """Site energies of the Zhou 2004 potential for a fixed set of elements; make it by `zhou_eam`.

    A frozen, hashable value, so a valid static argument of `jit`. The graph must hold all edges up
    to r_cut; longer ones, and those of just that length, count for nothing.
    """

    elements: tuple[str, ...]  # chemical symbols, in the order of the table
    r_cut: float  # Å

    def check(self, graph: Graph) -> None:
        """Refuse a graph of other elements.

        Args:
            graph: what is traced of it passes unchecked.

        Raises:
            ValueError: an element that this potential was not made for.
        """
        known = {e: ZHOU_2004[e].number for e in self.elements}
        check_species(graph.species, known, f"zhou_eam{self.elements}")

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms.

        An isolated real atom has |F(0)| <= 1e-6 eV by the table's rounding.
        """
        require_x64()
        check(self, graph)
        return self.as_pytree()(graph)

    def as_pytree(self) -> "ZhouTable":
        """The same with the parameters as leaves: all metals share what is compiled."""
        return ZhouTable(_table(self.elements), self.r_cut)


_STRUCTURE = jax.tree.structure(ZHOU_2004["Cu"])


@cache
def _table(elements: tuple[str, ...]) -> np.ndarray:
    """The parameters by element, with 1 / r_e last, (P + 1, E): one leaf, as each has its price."""
    columns = [[*jax.tree.leaves(ZHOU_2004[e]), 1.0 / ZHOU_2004[e].re] for e in elements]
    return np.array(columns).T


def parameters(columns: Any) -> tuple[ZhouElement, Any]:
    """Columns of the table by their names.

    Args:
        columns: (P + 1, ...), of NumPy or of JAX.

    Returns:
        The parameters, each (...), and 1 / r_e, (...).
    """
    *values, scale = columns
    return jax.tree.unflatten(_STRUCTURE, values), scale


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ZhouTable:
    """A `ZhouEAM` for use inside `jit`."""

    table: np.ndarray  # of `_table`
    r_cut: float  # Å

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV, zero on padding atoms; NaN for what it does not describe."""
        index = species_index(graph.species, self.table[0])
        if self.table.shape[1] == 1:
            energies = over_sites(self._pure, graph)
        else:
            species = index.at[graph.neighbours].get(mode="promise_in_bounds")
            energies = over_sites(self._alloy, graph, index, species)
        known = reaches(graph, self.r_cut) & jnp.all(index >= 0)
        return nan_unless(known, jnp.where(graph.atom_mask, energies, 0.0))

    def _parameters(self, index: jax.Array | int) -> tuple[ZhouElement, jax.Array]:
        """The columns at `index`, each in its shape, and 1 / r_e."""
        return parameters(jnp.asarray(self.table)[:, index])

    def _pure(self, site: Environment) -> jax.Array:
        """E_i where all atoms are alike."""
        p, scale = self._parameters(0)
        mask = site.mask & (site.lengths < self.r_cut)
        g, h = (_total(x, mask) for x in _decays(p, site.lengths * scale))
        return embedding_energy(p, p.fe * g) + 0.5 * (p.A * h - p.B * g)

    def _alloy(self, site: Environment, here: jax.Array, there: jax.Array) -> jax.Array:
        """E_i of an element with index `here` (), among those of indices `there` (K,)."""
        (a, scale_a), (b, scale_b) = self._parameters(here), self._parameters(there)
        mask = site.mask & (site.lengths < self.r_cut)
        r = jnp.where(mask, site.lengths, 1.0)  # beyond, the ratio of densities may be 0 / 0
        (g_a, h_a), (g_b, h_b) = _decays(a, r * scale_a), _decays(b, r * scale_b)
        f_a, f_b = a.fe * g_a, b.fe * g_b
        phi_a, phi_b = a.A * h_a - a.B * g_a, b.A * h_b - b.B * g_b
        phi = 0.5 * (f_b / f_a * phi_a + f_a / f_b * phi_b)
        density, pair = (_total(x, mask) for x in (f_b, phi))
        return embedding_energy(a, density) + 0.5 * pair


def zhou_eam(*elements: str, r_cut: float | None = None) -> ZhouEAM:
    """The Zhou–Johnson–Wadley EAM for the named metals, or for all seven if none is named.

    Name only what is there: the cutoff is that of the largest element named, and one element
    needs half the exponentials of an alloy.

    The functions do not reach zero at the published cutoff sqrt(5) r_e: phi is 3e-9 (Fe) to
    1.2e-8 eV (Ta) there for the bcc metals, 1.0e-6 (Cu) to 2.4e-6 eV (Ni) for the fcc ones, and
    an atom that crosses it makes the energy jump by that. In an fcc crystal sqrt(5) r_e *is* the
    shell of 24 neighbours at a sqrt(5/2), on whose side of the cutoff the last digits of a decide:
    to relax or strain Cu, Ni or Al give a cutoff between that shell and the next,
    r_cut = 1.65 a (energies change by 3e-5 eV per atom).

    Args:
        elements: chemical symbols among Cu, Ni, Al, Fe, Mo, Ta, W, in any order.
        r_cut: cutoff, Å, in place of sqrt(5) r_e of the largest element named.

    Returns:
        The potential.

    Raises:
        ValueError: a symbol that is not in the table, or a cutoff that is not positive.

    Source: Zhou, Johnson, Wadley, Phys. Rev. B 69, 144113 (2004).
    """
    unknown = [e for e in elements if not isinstance(e, str) or e not in ZHOU_2004]
    if unknown:
        raise ValueError(
            f"zhou_eam has no parameters for {unknown}: wanted elements of {', '.join(ZHOU_2004)}."
        )
    named = tuple(e for e in ZHOU_2004 if not elements or e in elements)
    if r_cut is None:
        r_cut = np.sqrt(5.0) * max(ZHOU_2004[e].re for e in named)
    if not (is_number(r_cut) and r_cut > 0.0):
        raise ValueError(f"r_cut is {r_cut!r}: wanted a positive length in Å.")
    return ZhouEAM(named, float(r_cut))


def _decays(p: ZhouElement, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """g and h of the module's head at the distances s, in r_e."""
    # integer_pow squares repeatedly, in its derivatives too; pow would take a logarithm
    g = jnp.exp(-p.beta * (s - 1.0)) * inverse(1.0 + jax.lax.integer_pow(s - p.lam, 20))
    h = jnp.exp(-p.alpha * (s - 1.0)) * inverse(1.0 + jax.lax.integer_pow(s - p.kappa, 20))
    return g, h


def _total(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0))


def _cubic(c: Any, x: jax.Array) -> jax.Array:
    return c[0] + x * (c[1] + x * (c[2] + x * c[3]))


def embedding_energy(p: ZhouElement, density: jax.Array) -> jax.Array:
    """Energy F(rho) (eV) of an atom of element p in the density rho.

    A cubic in rho / (0.85 rho_e) - 1 below 0.85 rho_e, one in rho / rho_e - 1 up to 1.15 rho_e,
    and F_e (1 - ln x^eta) x^eta with x = rho / rho_s from there on. At the joints the
    published numbers agree to 5e-7 eV in value and 3e-5 eV per rho_e in slope; the curvature jumps.

    Args:
        p: parameters, numbers or arrays that broadcast with the density.
        density: rho >= 0 in the paper's unit; finite derivatives at rho = 0.

    Returns:
        F, eV, in the shape of the density.

    Source: Zhou, Johnson, Wadley, Phys. Rev. B 69, 144113 (2004).
    """
    low = density < RHO_LOW * p.rhoe
    high = density >= RHO_HIGH * p.rhoe
    # each branch gets only arguments of its own, so that no branch can send a NaN through `where`
    rho_low = jnp.where(low, density, 0.0)
    rho_middle = jnp.where(low | high, p.rhoe, density)
    rho_high = jnp.where(high, density, p.rhos)
    log_power = p.eta * jnp.log(rho_high / p.rhos)
    return jnp.where(
        low,
        _cubic(p.Fi, rho_low / (RHO_LOW * p.rhoe) - 1.0),
        jnp.where(
            high,
            p.Fe * (1.0 - log_power) * jnp.exp(log_power),
            _cubic(p.Fm, rho_middle / p.rhoe - 1.0),
        ),
    )
