"""Fits to a defect's surroundings by size and kind of observation, and how wrong they are.

    config = Config(material="W", defect="vacancy", target=8)
    factors = training_factors(config, m=4)           # cells of 4 cubes per side; all kinds
    result = weighted_fit(config, factors, ("energy", "forces"))          # the config's weights
    result = weighted_fit(config, factors, weights={"forces": 1.0, "virial": 3.0})   # or others
    assess(config, result, m=4)                       # true and predicted errors, and flags
    mismatches(config, factors, result.coefficients)  # what the theory's error terms need

A figure's own Config inherits from this one and adds fields (sizes, say): every function here
takes it, and caches by what it depends on alone. `factors` has the keys ("energy", "bulk"),
("energy", "defect"), "forces", "virial" and "force_constants"; the cell of m = `config.target`
is where the defect is simulated.

What weights multiply (residuals of one scalar observation each):

- ("energy", "defect"): the *defect-minus-bulk* energy E - N e of each defect cell (eV);
  ("energy", "bulk"): the bulk energy per atom e (eV/atom), of which a formation energy subtracts N;
- forces: each component (eV/Å); virial: each of the six of a strained cell (eV);
- force_constants: each entry between one atom and all others (eV/Å^2).

Failures are data, `FLAGS` of `assess`: true where it happened, and the numbers beside it are then
not to be read.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm
from tyro.conf import arg

from experiments.systems.materials import MATERIALS, Material, material
from experiments.systems.random_keys import random_keys
from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure, rattled, strained, supercell
from lprjax.crystals.elasticity import GPA_PER_EV_A3, acoustic_tensors, elastic_constants
from lprjax.defects.budget import FAILURES, error_budget
from lprjax.defects.catalogue import DEFECTS, named_defect
from lprjax.defects.defect import (
    Defect,
    geometry_error,
    left_basin,
    relax_defect,
)
from lprjax.defects.formation import formation_energy
from lprjax.potentials.observables import observe
from lprjax.regression.assembly import PerAtom, compress_structures
from lprjax.regression.factors import Factor, compress
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.rows import design_rows
from lprjax.simulation.relaxation import relax

NUDGE = 0.01  # Å, random moves that the reference starts with: no saddle point of high symmetry
MAX_EVALUATIONS = 300  # of a fit's relaxation


TINY = dict(target=3, order=2, degree=4, copies=20, lattice_cells=3)
"""What the smoke presets of several figures begin with, to share what is made and compiled."""


@dataclass(frozen=True)
class Config:
    material: Annotated[
        str, arg(help=f"reference potential: {', '.join(MATERIALS)}, or a file, name.toml")
    ] = "W"
    defect: Literal[*DEFECTS] = "vacancy"  # see lprjax.defects.DEFECTS
    target: int = 12  # cubic cells per side of the simulation
    order: int = 3  # order of the ACE basis
    degree: int = 12  # total degree of the ACE basis
    r_cut: float = 0.0  # cutoff of the basis, Å; 0: the crystal's
    copies: int = 250  # rattled defect cells of every size
    rattle: float = 0.03  # largest rattle amplitude, Å
    strain: float = 0.005  # largest random strain of bulk cells
    strained_cells: int = 12  # strained bulk cells
    lattice_cells: int = 6  # cells per side of the perfect lattice with force constants
    weight_energy: float = 10.0  # of E - N e, 1/eV
    weight_bulk: float = 1e4  # of the bulk energy, atom/eV
    weight_forces: float = 1.0  # of a force component, Å/eV
    weight_virial: float = 10.0  # of a virial component, 1/eV
    weight_force_constants: float = 10.0  # of a force constant, Å^2/eV
    smoothness: float = 2.0  # power of the smoothness prior
    ridge: float = 1e-10  # multiplies |Gamma c|^2, 1/eV^2
    seed: int = 0  # of rattles and strains

    def __post_init__(self) -> None:
        """Raise ValueError for a material that there is not; of a file note what is in it."""
        object.__setattr__(self, "material", self.crystal.key)

    @property
    def crystal(self) -> Material:
        return material(self.material)

    @property
    def spec(self) -> ACESpec:
        crystal = self.crystal
        r_cut = self.r_cut or crystal.r_cut
        return ACESpec(
            (crystal.element,), self.order, self.degree, r_cut, crystal.nearest_neighbour
        )

    @property
    def weights(self) -> dict[Hashable, float]:
        """Of every factor."""
        return {
            ("energy", "bulk"): self.weight_bulk,
            ("energy", "defect"): self.weight_energy,
            "forces": self.weight_forces,
            "virial": self.weight_virial,
            "force_constants": self.weight_force_constants,
        }

    def radius(self, m: int) -> float:
        """L in Å: of the sphere inside a cell of m cubes per side."""
        return 0.5 * m * self.crystal.lattice_constant


def only(config: Config, *names: str) -> Config:
    """The configuration with everything but the named fields at its default: a key of a cache."""
    return Config(**{name: getattr(config, name) for name in names})


_BASIS = ("material", "order", "degree", "r_cut")
_BULK = (*_BASIS, "strain", "strained_cells", "lattice_cells", "seed")
_CELLS = (*_BASIS, "defect", "copies", "rattle", "seed")
TRAINING = tuple(dict.fromkeys((*_BULK, *_CELLS)))
"""The fields that the rows of training cells depend on, besides the size of the cells."""


def labelled(config: Config, structures, kinds, atoms=(0,)) -> Iterator:
    """Graphs within the basis's cutoff with the reference's labels, structure by structure."""
    potential, spec = config.crystal.potential, config.spec
    for structure in tqdm(list(structures), desc="/".join(kinds), leave=False, delay=5):
        graph = build_graph(structure, potential.r_cut)
        labels = observe(potential, graph, kinds, atoms=atoms)
        yield build_graph(structure, spec.r_cut), labels


def defect_cells(config: Config, m: int) -> Iterator[Structure]:
    """Defect cells of m cubes per side: relaxed, then rattled by up to `rattle` Å."""
    defect, displacement, *_ = reference_simulation(config, m)
    base = defect.displaced(displacement)
    for k, key in enumerate(random_keys(config.seed, config.copies)):
        yield rattled(base, key, config.rattle * (k + 1) / config.copies)


def strained_cells(config: Config) -> Iterator[Structure]:
    for key in random_keys(config.seed + 1, config.strained_cells):
        strain = jax.random.uniform(key, (3, 3), minval=-config.strain, maxval=config.strain)
        strain = np.asarray(strain)
        yield strained(config.crystal.unit_cell, 0.5 * (strain + strain.T))


def bulk(config: Config) -> PerAtom:
    """Energy per atom of the perfect crystal, of the basis and of the reference."""
    return _bulk(only(config, *_BASIS))


@lru_cache(maxsize=8)
def _bulk(config: Config) -> PerAtom:
    cell = config.crystal.unit_cell
    row = design_rows(config.spec, build_graph(cell, config.spec.r_cut), ("energy",)).energy
    return PerAtom(np.asarray(row) / cell.n_atoms, config.crystal.equilibrium.energy_per_atom)


def training_factors(config: Config, m: int) -> dict[Hashable, Factor]:
    """One factor per kind and group, for training cells of m cubes per side.

    Raises ValueError for a material there is not, or a defect that its lattice does not have.
    """
    return bulk_factors(config) | _defect_factors(only(config, *_CELLS), m)


def bulk_factors(config: Config) -> dict[Hashable, Factor]:
    """Those of `training_factors` that do not depend on the defect: bulk energy, virials, force
    constants."""
    return _bulk_factors(only(config, *_BULK))


def bulk_energy(config: Config) -> Factor:
    """Of one row, the perfect crystal's energy per atom."""
    perfect = bulk(config)
    return compress(perfect.row[None], np.array([perfect.energy]))


@lru_cache(maxsize=4)
def _bulk_factors(config: Config) -> dict:
    crystal, factors = config.crystal, {("energy", "bulk"): bulk_energy(config)}
    lattice, atoms = supercell(crystal.unit_cell, (config.lattice_cells,) * 3), crystal.basis_atoms
    for structures, kind in (
        (strained_cells(config), "virial"),
        ([lattice], "force_constants"),
    ):
        samples = labelled(config, structures, (kind,), atoms)
        factors |= compress_structures(config.spec, samples, (kind,), atoms=atoms)
    return factors


@lru_cache(maxsize=4)
def _defect_factors(config: Config, m: int) -> dict:
    """Defect-minus-bulk energies and forces of the defect cells of one size."""
    samples = labelled(config, defect_cells(config, m), ("energy", "forces"))
    found = compress_structures(config.spec, samples, ("energy", "forces"), origin=bulk(config))
    return {("energy", "defect"): found["energy"], "forces": found["forces"]}


class Simulation(NamedTuple):
    """The reference's defect in a cell."""

    defect: Defect
    displacement: jax.Array  # (n_sites, 3) Å
    formation_energy: float  # eV
    converged: bool


def reference_simulation(config: Config, m: int | None = None) -> Simulation:
    """The defect relaxed by the reference in a cell of m cubes per side, `config.target` if None.

    Raises ValueError for a material there is not, or a defect that its lattice does not have.
    """
    m = config.target if m is None else m
    return _simulation(only(config, "material", "defect"), m)


@lru_cache(maxsize=4)
def _simulation(config: Config, m: int) -> Simulation:
    crystal = config.crystal
    defect = named_defect(config.defect, crystal.unit_cell, m)
    moved = rattled(defect.structure, jax.random.key(0), NUDGE).positions
    nudge = np.subtract(moved, defect.structure.positions)
    start = np.add(defect.start, defect.on_sites(nudge))
    relaxed = relax_defect(crystal.potential, defect, displacement=start)
    energy = formation_energy(relaxed.energy, defect, crystal.equilibrium.energy_per_atom)
    return Simulation(defect, relaxed.displacement, energy, relaxed.relaxed.converged)


def weighted_fit(
    config: Config,
    factors: Mapping[Hashable, Factor],
    kinds: Sequence[str] | None = None,
    *,
    weights: Mapping[Hashable, float] | None = None,
) -> Fit:
    """The fit to the given kinds of observation (all if None), or to those that have a weight.

    weights: factor or kind -> weight, in place of the configuration's.
    """
    kinds = {_kind(key) for key in (factors if kinds is None else kinds)}
    if weights is None:
        weights = {key: w for key, w in config.weights.items() if _kind(key) in kinds}
    named = {key: f for key, f in factors.items() if key in weights or _kind(key) in weights}
    prior = smoothness_prior(config.spec, config.smoothness)
    return fit(named, weights, ridge=config.ridge, prior=prior)


def _kind(key: Hashable) -> str:
    return key if isinstance(key, str) else key[0]


def surrogate(config: Config, result: Fit) -> LinearPotential:
    return linear_potential(config.spec, result.coefficients)


def residual_norm(factor: Factor, coefficients) -> float:
    """|X c - y| over all rows of a factor, of the kinds that were not fitted too."""
    inside = np.asarray(factor.triangular) @ np.asarray(coefficients) - np.asarray(factor.target)
    return float(np.sqrt(np.sum(np.square(inside)) + factor.residual))


def mismatches(config: Config, factors: Mapping, coefficients) -> dict[str, float]:
    """How far the fit is from the reference in what the theory's error terms need.

    forces: RMSE over the training cells, eV/Å; energy: |E_f| error at the reference's geometry in
    the large cell, eV; virial: RMSE over the strained cells, eV; elastic: largest change of the
    acoustic tensor along <100>, <110>, <111>, GPa (elastic constants without what a residual
    stress adds to them), NaN in diamond; elastic_constants: largest change of C11, C12, C44, GPa;
    force_constants: Frobenius norm over one primitive cell's, eV/Å^2.
    """
    potential, crystal = linear_potential(config.spec, coefficients), config.crystal
    defect, displacement, true, _ = reference_simulation(config)
    geometry = build_graph(defect.displaced(displacement), potential.r_cut)
    per_atom = float(bulk(config).row @ coefficients)
    energy = observe(potential, geometry, ("energy", "forces")).energy  # compiled already
    energy = formation_energy(float(energy), defect, per_atom)
    cell = crystal.primitive_cell
    both = potential, crystal.potential
    change = lambda f: np.abs(np.subtract(*(f(p, cell) for p in both))).max()  # noqa: E731
    acoustic = change(acoustic_tensors) if cell.n_atoms == 1 else np.nan
    constants = change(lambda p, s: elastic_constants(p, s).relaxed)
    return {
        "energy": abs(energy - true),
        "forces": residual_norm(factors["forces"], coefficients)
        / np.sqrt(factors["forces"].n_rows),
        "virial": residual_norm(factors["virial"], coefficients)
        / np.sqrt(factors["virial"].n_rows),
        "elastic": GPA_PER_EV_A3 * acoustic,
        "elastic_constants": GPA_PER_EV_A3 * constants,
        "force_constants": residual_norm(factors["force_constants"], coefficients),
    }


class Simulated(NamedTuple):
    """The defect relaxed with a fit, against the reference's."""

    displacement: jax.Array  # (n_sites, 3) Å
    geometry_error: float  # ||Du - Dû||, Å
    energy_error: float  # eV, of the formation energy, signed
    unconverged: bool
    left_basin: bool


def simulate(config: Config, coefficients, *, preconditioner=None) -> Simulated:
    """Relax the defect from the reference's geometry; NaN and flagged for coefficients that are
    not finite. preconditioner: as in `relax`; the lattice's if None."""
    defect, displacement, true, _ = reference_simulation(config)
    if not np.isfinite(coefficients).all():
        nowhere = jnp.full(displacement.shape, jnp.nan)
        return Simulated(nowhere, np.nan, np.nan, unconverged=True, left_basin=True)
    start = defect.displaced(displacement)
    relaxed = relax(
        linear_potential(config.spec, coefficients),
        start,
        preconditioner=preconditioner or defect.preconditioner,
        max_evaluations=MAX_EVALUATIONS,
    )
    there = np.add(displacement, defect.on_sites(np.subtract(relaxed.positions, start.positions)))
    per_atom = float(bulk(config).row @ coefficients)
    energy = formation_energy(relaxed.energy, defect, per_atom)
    return Simulated(
        there,
        float(geometry_error(defect, there, displacement)),
        energy - true,
        unconverged=not relaxed.converged,
        left_basin=left_basin(defect, displacement, there) is not None,
    )


def assess(config: Config, result: Fit, m: int) -> dict[str, Any]:
    """What a fit to cells of m cubes does to the defect simulation, predicted and true, and FLAGS.

    geometry_error, geometry_predicted (first order), geometry_bound, in Å; energy_error and
    energy_predicted, in eV, of the formation energy, signed; eta, eV/Å; stability, eV/Å^2;
    norm_core, norm_elastic, ... the shares of the force residual in the negative norm, eV/Å.
    """
    defect, displacement, *_ = reference_simulation(config)
    budget = error_budget(
        config.crystal.potential,
        surrogate(config, result),
        defect,
        config.radius(m),
        displacement=displacement,
        max_evaluations=MAX_EVALUATIONS,
    )
    return {
        "geometry_error": budget.geometry_true,
        "geometry_predicted": budget.geometry_first_order,
        "geometry_bound": budget.geometry_bound,
        "energy_error": budget.energy_true,
        "energy_predicted": budget.energy_first_order,
        "eta": budget.eta,
        "stability": budget.stability,
        **{f"norm_{term.name}": term.norm for term in budget.terms},
        "rank_deficient": result.rank < len(result.coefficients),
        **{flag: flag in budget.failures for flag in FAILURES},
    }
