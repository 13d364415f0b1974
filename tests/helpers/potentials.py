"""Potentials that tests need and the library does not have."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Softened:
    """A potential plus a smooth pair term, (1 - (r / 5 Å)^2)^5 times `size` eV per bond end."""

    base: Any = field(metadata={"static": True})
    size: float

    @property
    def r_cut(self):
        return max(5.0, self.base.r_cut)

    def __call__(self, graph):
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        inside = graph.edge_mask & (r < 5.0)
        pair = jnp.where(inside, 1.0 - (jnp.where(inside, r, 0.0) / 5.0) ** 2, 0.0) ** 5
        return self.base(graph) + self.size * jnp.sum(pair, axis=1)


@dataclass(frozen=True)
class SizeBiased:
    """A potential plus an energy of every atom that depends on the cell alone, 100 eV Å^3 / volume:
    as a calculator with the same sampling in every cell has one."""

    base: Any

    @property
    def r_cut(self):
        return self.base.r_cut

    def __call__(self, graph):
        shift = 100.0 / jnp.abs(jnp.linalg.det(graph.cell))
        return self.base(graph) + jnp.where(graph.atom_mask, shift, 0.0)


ONSET, R_CUT = 3.0, 4.6  # between shells of neighbours: there the second derivatives jump
EPSILON, SIGMA = 0.4, 2.3
OPTIONS = dict(epsilon=EPSILON, sigma=SIGMA, rc=R_CUT, ro=ONSET, smooth=True)


def lennard_jones():
    return LennardJones(**OPTIONS)


class Noisy(Calculator):
    """A calculator with noise, always the same of one structure: `size` eV/Å on forces, that in eV
    on the energy and on stresses times the volume."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, calculator, size, seed=0):
        super().__init__()
        self.calculator, self.size, self.seed, self.calls = calculator, size, seed, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        key = zlib.crc32(atoms.positions.tobytes() + atoms.cell.array.tobytes())
        random = np.random.default_rng([self.seed, key])
        for name, unit in (("energy", 1.0), ("forces", 1.0), ("stress", 1 / atoms.get_volume())):
            value = np.asarray(self.calculator.get_property(name, atoms))
            noise = random.normal(0.0, self.size, value.shape)
            drift = noise.mean(axis=0) if name == "forces" else 0.0
            self.results[name] = value + unit * (noise - drift)
        self.results["energy"] = float(self.results["energy"])


@dataclass(frozen=True)
class SmoothPairs:
    """What `lennard_jones()` computes, as a potential of this library: exact derivatives."""

    r_cut: float = R_CUT

    def __call__(self, graph):
        r2 = jnp.sum(graph.vectors() ** 2, axis=-1)
        end, onset = R_CUT**2, ONSET**2
        s6 = (SIGMA**2 / r2) ** 3
        smooth = (end - r2) ** 2 * (end + 2 * r2 - 3 * onset) / (end - onset) ** 3
        smooth = jnp.where(r2 < onset, 1.0, jnp.where(r2 < end, smooth, 0.0))
        pairs = 4 * EPSILON * (s6**2 - s6) * smooth
        return 0.5 * jnp.sum(jnp.where(graph.edge_mask, pairs, 0.0), axis=1)
