"""Fits of a vacancy's surroundings by size and kind of observation, and how wrong they are.

Reference: tungsten, the EAM of Zhou et al. (2004), at its lattice constant.

What weights multiply (residuals of one scalar observation each):

- energy: the *defect-minus-bulk* energy E - N e of each vacancy cell (eV), and the bulk energy
  per atom e (eV/atom) at its own weight; a formation energy subtracts N bulk energies;
- forces: each component (eV/Å); virial: each of the six of a strained cell (eV);
- force_constants: each entry between one atom and all others (eV/Å^2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from lprjax.ace import ACESpec, linear_potential, smoothness_prior
from lprjax.assembly import PerAtom, compress_structures
from lprjax.defects import Defect, formation_energy, geometry_error, relax_defect, vacancy
from lprjax.design import design_rows
from lprjax.factors import compress
from lprjax.fit import Fit, fit
from lprjax.lattice import GPA_PER_EV_A3, acoustic_tensors, elastic_constants
from lprjax.neighbours import build_graph
from lprjax.observables import observe
from lprjax.references.eam import ZhouEAM, zhou_eam
from lprjax.structures import Structure, bcc, rattled, strained, supercell

ELEMENT, LATTICE_CONSTANT = "W", 3.164849  # Å, the zero of the reference's pressure

OBSERVATION_SETS = {
    "E": ("energy",),
    "EF": ("energy", "forces"),
    "EFV": ("energy", "forces", "virial"),
    "EFFC": ("energy", "forces", "force_constants"),
    "EFVFC": ("energy", "forces", "virial", "force_constants"),
}


@dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = field(
        default=(2, 3, 4, 5, 6, 7), metadata={"help": "cubic cells per side of the training cells"}
    )
    target: int = field(default=14, metadata={"help": "cubic cells per side of the simulation"})
    order: int = field(default=3, metadata={"help": "order of the ACE basis"})
    degree: int = field(default=12, metadata={"help": "total degree of the ACE basis"})
    r_cut: float = field(default=5.5, metadata={"help": "cutoff of the ACE basis, Å"})
    copies: int = field(default=250, metadata={"help": "rattled vacancy cells of every size"})
    rattle: float = field(default=0.03, metadata={"help": "largest rattle amplitude, Å"})
    strain: float = field(default=0.005, metadata={"help": "largest random strain of bulk cells"})
    strained_cells: int = field(default=12, metadata={"help": "strained bulk cells"})
    lattice_cells: int = field(
        default=6, metadata={"help": "cells per side of the perfect lattice with force constants"}
    )
    floor_degrees: tuple[int, ...] = field(
        default=(8, 10), metadata={"help": "smaller bases, repeated to show the accuracy floor"}
    )
    weight_energy: float = field(default=10.0, metadata={"help": "of E - N e, 1/eV"})
    weight_bulk: float = field(default=1e4, metadata={"help": "of the bulk energy, atom/eV"})
    weight_forces: float = field(default=1.0, metadata={"help": "of a force component, Å/eV"})
    weight_virial: float = field(default=10.0, metadata={"help": "of a virial component, 1/eV"})
    weight_force_constants: float = field(
        default=10.0, metadata={"help": "of a force constant, Å^2/eV"}
    )
    smoothness: float = field(default=2.0, metadata={"help": "power of the smoothness prior"})
    ridge: float = field(default=1e-10, metadata={"help": "multiplies |Gamma c|^2, 1/eV^2"})
    seed: int = field(default=0, metadata={"help": "of rattles and strains"})

    @property
    def spec(self) -> ACESpec:
        return ACESpec((ELEMENT,), self.order, self.degree, self.r_cut, nearest_neighbour())


def nearest_neighbour() -> float:
    """Nearest-neighbour distance of the lattice, Å."""
    return LATTICE_CONSTANT * np.sqrt(3) / 2


def reference() -> ZhouEAM:
    return zhou_eam(ELEMENT)


def unit_cell() -> Structure:
    return bcc(ELEMENT, LATTICE_CONSTANT)


def labelled(structures, spec: ACESpec, kinds) -> Iterator:
    """Graphs within the basis's cutoff with the reference's labels, structure by structure."""
    potential = reference()
    for structure in tqdm(list(structures), desc="/".join(kinds), leave=False, delay=5):
        labels = observe(potential, build_graph(structure, potential.r_cut), kinds)
        yield build_graph(structure, spec.r_cut), labels


def vacancy_cells(config: Config, m: int) -> Iterator[Structure]:
    """Vacancy cells of m cells per side: relaxed, then rattled by up to `rattle` Å."""
    defect = vacancy(unit_cell(), m)
    relaxed = relax_defect(reference(), defect)
    base = replace(defect.structure, positions=relaxed.relaxed.positions)
    keys = jax.random.split(jax.random.key(config.seed), config.copies)
    for k, key in enumerate(keys):
        yield rattled(base, key, config.rattle * (k + 1) / config.copies)


def strained_cells(config: Config) -> Iterator[Structure]:
    for key in jax.random.split(jax.random.key(config.seed + 1), config.strained_cells):
        strain = jax.random.uniform(key, (3, 3), minval=-config.strain, maxval=config.strain)
        yield strained(unit_cell(), 0.5 * (strain + strain.T))


@lru_cache(maxsize=2)
def bulk(spec: ACESpec) -> PerAtom:
    """Energy per atom of the perfect crystal, of the basis and of the reference."""
    cell = unit_cell()
    energy = observe(reference(), build_graph(cell, reference().r_cut), ("energy",)).energy
    row = design_rows(spec, build_graph(cell, spec.r_cut), ("energy",)).energy
    return PerAtom(np.asarray(row) / cell.n_atoms, float(energy) / cell.n_atoms)


@lru_cache(maxsize=2)
def bulk_factors(config: Config) -> dict:
    """Factors of what does not depend on the training cell (nor on `config.sizes`)."""
    spec, perfect = config.spec, bulk(config.spec)
    lattice = supercell(unit_cell(), (config.lattice_cells,) * 3)
    factors = {("energy", "bulk"): compress(perfect.row[None], np.array([perfect.energy]))}
    for structures, kind in (
        (strained_cells(config), "virial"),
        ([lattice], "force_constants"),
    ):
        factors |= compress_structures(spec, labelled(structures, spec, (kind,)), (kind,))
    return factors


def defect_factors(config: Config, m: int) -> dict:
    """Factors of defect-minus-bulk energies and of forces of the vacancy cells of one size."""
    spec = config.spec
    samples = labelled(vacancy_cells(config, m), spec, ("energy", "forces"))
    found = compress_structures(spec, samples, ("energy", "forces"), origin=bulk(spec))
    return {("energy", "defect"): found["energy"], "forces": found["forces"]}


class Simulation(NamedTuple):
    """The reference's vacancy in the large cell."""

    defect: Defect
    displacement: jax.Array  # (n_sites, 3) Å
    formation_energy: float  # eV
    converged: bool


@lru_cache(maxsize=2)
def reference_simulation(m: int) -> Simulation:
    defect = vacancy(unit_cell(), m)
    relaxed = relax_defect(reference(), defect)
    energy = observe(reference(), build_graph(unit_cell(), reference().r_cut), ("energy",)).energy
    per_atom = float(energy) / unit_cell().n_atoms
    energy = formation_energy(relaxed.energy, defect.structure.n_atoms, per_atom)
    return Simulation(defect, relaxed.displacement, energy, relaxed.relaxed.converged)


def weighted_fit(config: Config, factors: dict, kinds: Sequence[str]) -> Fit:
    """The fit to the given kinds of observation."""
    weights = {
        ("energy", "bulk"): config.weight_bulk,
        ("energy", "defect"): config.weight_energy,
        "forces": config.weight_forces,
        "virial": config.weight_virial,
        "force_constants": config.weight_force_constants,
    }
    kind_of = lambda key: key if isinstance(key, str) else key[0]  # noqa: E731
    return fit(
        {key: factor for key, factor in factors.items() if kind_of(key) in kinds},
        {key: weight for key, weight in weights.items() if kind_of(key) in kinds},
        ridge=config.ridge,
        prior=smoothness_prior(config.spec, config.smoothness),
    )


def residual_norm(factor, coefficients) -> float:
    """|X c - y| over all rows of a factor, of the kinds that were not fitted too."""
    inside = factor.triangular @ coefficients - factor.target
    return float(np.sqrt(np.sum(np.square(inside)) + factor.residual))


def mismatches(config: Config, factors: dict, coefficients) -> dict[str, float]:
    """How far the fit is from the reference in what the theory's error terms need.

    forces: RMSE over the training cells, eV/Å; forces_negative_norm: eta of the reference's
    relaxed vacancy in the large cell, eV/Å; energy: of that unrelaxed difference, |E_f| in eV;
    virial: RMSE over the strained cells, eV; elastic: largest change of the acoustic tensor along
    <100>, <110>, <111>, GPa (elastic constants without what a residual stress adds to them);
    elastic_constants: largest change of C11, C12, C44, GPa; force_constants: Frobenius norm over
    one atom's, eV/Å^2.
    """
    potential = linear_potential(config.spec, coefficients)
    simulation = reference_simulation(config.target)
    defect, n = simulation.defect, simulation.defect.structure.n_atoms
    geometry = build_graph(defect.displaced(simulation.displacement), config.r_cut)
    labels = observe(potential, geometry, ("energy", "forces"))
    per_atom = float(bulk(config.spec).row @ coefficients)
    energy = formation_energy(float(labels.energy), n, per_atom)
    primitive = bcc(ELEMENT, LATTICE_CONSTANT, primitive=True)
    change = lambda f: np.max(np.abs(f(potential, primitive) - f(reference(), primitive)))  # noqa: E731
    return {
        "energy": abs(energy - simulation.formation_energy),
        "forces": residual_norm(factors["forces"], coefficients)
        / np.sqrt(factors["forces"].n_rows),
        "forces_negative_norm": float(
            defect.lattice.negative_norm(defect.on_sites(labels.forces[:n]))
        ),
        "virial": residual_norm(factors["virial"], coefficients)
        / np.sqrt(factors["virial"].n_rows),
        "elastic": GPA_PER_EV_A3 * change(acoustic_tensors),
        "elastic_constants": GPA_PER_EV_A3 * change(lambda p, s: elastic_constants(p, s).relaxed),
        "force_constants": residual_norm(factors["force_constants"], coefficients),
    }


def simulate(config: Config, result: Fit) -> dict[str, Any]:
    """The vacancy relaxed with a fit, from the reference's geometry, against the reference's."""
    simulation = reference_simulation(config.target)
    defect = simulation.defect
    potential = linear_potential(config.spec, result.coefficients)
    relaxed = relax_defect(
        potential, defect, displacement=simulation.displacement, max_evaluations=300
    )
    per_atom = float(bulk(config.spec).row @ result.coefficients)
    energy = formation_energy(relaxed.energy, defect.structure.n_atoms, per_atom)
    return {
        "geometry_error": float(
            geometry_error(defect, relaxed.displacement, simulation.displacement)
        ),
        "energy_error": abs(energy - simulation.formation_energy),
        "converged": relaxed.relaxed.converged,
        "evaluations": relaxed.relaxed.evaluations,
    }
