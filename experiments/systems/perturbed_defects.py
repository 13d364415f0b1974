"""Defects of many kinds with cheap references, and random perturbations of a reference.

A perturbed potential is the reference plus smooth terms with random coefficients, which are arrays:
all perturbations of one defect share what is compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Structure, bcc, diamond, fcc, make_structure, square
from lprjax.defects.catalogue import dumbbell, micro_crack, substitution
from lprjax.defects.defect import Defect, vacancy
from lprjax.numerics.guarded import root
from lprjax.potentials import polynomial_bonds, stillinger_weber, zhou_eam
from lprjax.potentials.bonds import PolynomialBonds

PAIR_TERMS = 4
"""Waves of the pair terms: a choice, as many as shells that they tell apart."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Perturbed:
    """A potential plus pair, density, vector and unlike-pair terms; smooth at the cutoff.

    With t = 1 - (r / r_cut)^2 and a site's rho = sum_j t^5, q = sum_j t^5 r_ij / r:

        E_i = base + sum_j t^5 (sum_p c_p cos(p pi r / r_cut) + c_unlike [other species])
                   + c_rho rho^2 + c_q |q|^2
    """

    base: Any = field(metadata={"static": True})
    coefficients: jax.Array  # (PAIR_TERMS + 3,) eV

    @property
    def r_cut(self) -> float:
        """Å."""
        return self.base.r_cut

    def __call__(self, graph: Graph) -> jax.Array:
        """E_i, (n,), eV."""
        vectors, r_cut = graph.vectors(), self.r_cut
        r = root(jnp.sum(vectors**2, axis=-1))
        inside = graph.edge_mask & (r < r_cut)
        r = jnp.where(inside, r, 0.5 * r_cut)
        t = jnp.where(inside, 1.0 - (r / r_cut) ** 2, 0.0) ** 5
        *pairs, of_unlike, of_density, of_vector = self.coefficients
        waves = sum(c * jnp.cos(p * jnp.pi * r / r_cut) for p, c in enumerate(pairs))
        unlike = graph.species[graph.neighbours] != graph.species[:, None]
        vector = jnp.sum((t / r)[..., None] * vectors, axis=1)
        return (
            self.base(graph)
            + jnp.sum(t * (waves + of_unlike * unlike), axis=1)
            + of_density * jnp.sum(t, axis=1) ** 2
            + of_vector * jnp.sum(vector**2, axis=1)
        )


def perturbed(base: Any, size: float, rng: np.random.Generator) -> Perturbed:
    """A reference with random terms.

    Args:
        base: the reference, hashable.
        size: standard deviation of the coefficients, eV.
        rng: draws them.

    Returns:
        The potential.
    """
    return Perturbed(base, jnp.asarray(size * rng.normal(size=PAIR_TERMS + 3)))


class Case(NamedTuple):
    """A defect, its reference, and what is asked of the two."""

    defect: Defect
    reference: Any  # a potential
    radius: float  # L, Å
    size: float  # eV, of perturbations that are 1
    reservoirs: dict[str, Structure] | None = None


def honeycomb(element: str, bond: float) -> Structure:
    """Two atoms in the plane, each with three neighbours at the bond length, Å."""
    side = np.sqrt(3.0) * bond
    cell = np.array([[side, 0.0, 0.0], [0.5 * side, 1.5 * bond, 0.0], [0.0, 0.0, 1.0]])
    positions = [[0.0, 0.0, 0.0], [0.0, bond, 0.0]]
    return make_structure(positions, cell, element, (True, True, False))


def bonds_in_the_plane(radii: list[float], counts: list[int]) -> PolynomialBonds:
    """Bonds free of stress as a whole but not one by one, so that a vacancy pulls."""
    second = 2.0 * np.array([0.5**s for s in range(len(radii))])
    first = np.zeros(len(radii))
    first[0] = -0.1
    first[1] = 0.1 * counts[0] * radii[0] / (counts[1] * radii[1])
    columns = [0.0 * second, first, second / 2, -second / 2, second / 2]
    return polynomial_bonds(radii, np.stack(columns, axis=1))


def _crack(length: int) -> Case:
    bonds = bonds_in_the_plane([2.0, 2.0 * np.sqrt(2.0), 4.0], [4, 4, 4])
    return Case(micro_crack(square("W", 2.0), 18, length), bonds, 1.5 * length + 4.0, 0.3)


def _honeycomb() -> Case:
    radii = [2.0, 2.0 * np.sqrt(3.0), 4.0]
    defect = vacancy(honeycomb("W", 2.0), 10)
    return Case(defect, bonds_in_the_plane(radii, [3, 6, 3]), 9.0, 0.3)


def _tungsten(make: Callable[..., Defect], **options: Any) -> Case:
    return Case(make(bcc("W", 3.164849), 4, **options), zhou_eam("W"), 5.5, 0.3)


def _copper() -> Case:
    eam = zhou_eam("Cu", r_cut=1.65 * 3.615)  # between two shells: see `zhou_eam`
    return Case(dumbbell(fcc("Cu", 3.615), 3, (1, 0, 0)), eam, 5.0, 0.1)


def _silicon() -> Case:
    cell = diamond("Si", 5.430949778405213)
    return Case(dumbbell(cell, 2, (1, 1, 0)), stillinger_weber(), 5.2, 0.1)


def _alloy() -> Case:
    host = bcc("W", 3.164849)
    reservoirs = {"Ta": bcc("Ta", 3.303)}
    return Case(substitution(host, 4, "Ta"), zhou_eam("W", "Ta"), 5.5, 0.3, reservoirs)


CASES: dict[str, Callable[[], Case]] = {
    "crack 4": partial(_crack, 4),
    "crack 8": partial(_crack, 8),
    "honeycomb vacancy": _honeycomb,
    "W vacancy": partial(_tungsten, vacancy),
    "W <110> dumbbell": partial(_tungsten, dumbbell, direction=(1, 1, 0)),
    "Cu <100> dumbbell": _copper,
    "Si <110> dumbbell": _silicon,
    "Ta in W": _alloy,
}
"""By name: two micro-cracks and a vacancy in the plane, metals, diamond, an alloy."""
