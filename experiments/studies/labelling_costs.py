"""What labels cost, how a budget is split among kinds of observation, and the factors it buys.

A *call* is one calculation by the reference that returns energy and forces of one cell, and its
stress, which comes free. Calls of larger cells cost more: the unit of cost is the *atom-call*, N
for a call of N atoms (N log N would change little between the cells compared here). Not counted:
the relaxation that training cells start from, and the wave vectors that small cells need in a
band-structure code.

- bulk energy per atom: 1 call of the unit cell; every fit has it
- a rattled defect cell: 1 call
- virials: 1 call of the unit cell for each strain
- force constants of the perfect lattice by central differences: in a cubic crystal one atom and
  one direction give all others by symmetry: 2 calls of the supercell
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from experiments.studies import defect_fits
from experiments.studies.defect_fits import (
    bulk,
    bulk_factors,
    defect_cells,
    labelled,
    reference_simulation,
)
from lprjax.atoms.structures import Structure
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import merge

FORCE_CONSTANT_CALLS = 2  # central differences of one atom in one direction, see above


@dataclass(frozen=True)
class Config(defect_fits.Config):
    """Settings of the fits, and what labels may cost; each field is a flag."""

    target: int = 6  # cubic cells per side of the simulation
    degree: int = 10  # total degree of the ACE basis
    lattice_cells: int = 4  # cells per side of the perfect lattice with force constants
    sizes: tuple[int, ...] = (3, 4, 5)  # cubic cells per side of the training cells, ascending
    #: what labels may cost, in calls of the smallest defect cell
    budgets: tuple[int, ...] = (2, 8, 32, 128, 512)
    seeds: tuple[int, ...] = (0, 1)  # draws of the rattles
    light: float = 0.01  # factor of the weights of V and FC where they are light


class Strategy(NamedTuple):
    """How a budget is spent: on other kinds first, the rest on defect cells by share of cost."""

    shares: Mapping[int, float]  # cells per side -> share
    kinds: tuple[str, ...] = ()
    light: bool = False  # less weight on those kinds


class Cost(NamedTuple):
    """What labels cost."""

    calls: int
    atom_calls: int


EXTRAS = {
    "": (),
    "+V": ("virial",),
    "+FC": ("force_constants",),
    "+V+FC": ("virial", "force_constants"),
    "+V+FC light": ("virial", "force_constants"),
}


def strategies(config: Config) -> dict[str, Strategy]:
    """Every size alone; the smallest with every other kind, the largest with all; half and half."""
    small, large = config.sizes[0], config.sizes[-1]
    found = {
        f"m={m}{name}": Strategy({m: 1.0}, kinds, "light" in name)
        for m in config.sizes
        for name, kinds in EXTRAS.items()
        if m == small or not kinds or (m == large and len(kinds) == 2)
    }
    return found | {f"m={small}, m={large} half": Strategy({small: 0.5, large: 0.5})}


def weights(config: Config, strategy: Strategy) -> dict:
    """Of every factor that the strategy has: the configuration's, but for the light ones."""
    scale = config.light if strategy.light else 1.0
    return {
        key: weight * (scale if key in strategy.kinds else 1.0)
        for key, weight in config.weights.items()
        if key in strategy.kinds or key not in EXTRAS["+V+FC"]
    }


def n_atoms(config: Config, m: int) -> int:
    """Atoms of the defect cell of m cubes per side."""
    return reference_simulation(config, m).defect.structure.n_atoms


def cost(config: Config, counts: Mapping[int, int], kinds: Sequence[str]) -> Cost:
    """What labels cost.

    Args:
        config: the settings.
        counts: number of defect cells, by cubes per side.
        kinds: other kinds of observation; the bulk energy is always in it.

    Returns:
        calls and atom-calls.
    """
    unit = config.crystal.unit_cell.n_atoms
    paid = [(1, unit)] + [(count, n_atoms(config, m)) for m, count in counts.items()]
    if "virial" in kinds:
        paid.append((config.strained_cells, unit))
    if "force_constants" in kinds:
        paid.append((FORCE_CONSTANT_CALLS, unit * config.lattice_cells**3))
    return Cost(sum(calls for calls, _ in paid), sum(calls * n for calls, n in paid))


def allocation(config: Config, strategy: Strategy, budget: int) -> dict[int, int]:
    """How many defect cells of each size a budget pays for, beside the other kinds.

    Args:
        config: the settings.
        strategy: how the budget is spent.
        budget: in calls of the smallest defect cell.

    Returns:
        number of cells by cubes per side; empty where some size would get none.
    """
    left = budget * n_atoms(config, config.sizes[0]) - cost(config, {}, strategy.kinds).atom_calls
    counts = {m: int(share * left // n_atoms(config, m)) for m, share in strategy.shares.items()}
    return counts if min(counts.values()) > 0 else {}


def training_data(config: Config, counts: Mapping[int, int], kinds: Sequence[str]) -> dict:
    """The factors that an allocation buys, with keys as those of `defect_fits`.

    Args:
        config: the settings.
        counts: number of defect cells, by cubes per side.
        kinds: other kinds of observation.

    Returns:
        factors.
    """
    factors = {k: f for k, f in bulk_factors(config).items() if k in (("energy", "bulk"), *kinds)}
    for m, count in counts.items():
        for key, factor in cells_by_count(config, m)[count].items():
            factors[key] = merge(factors[key], factor) if key in factors else factor
    return factors


@lru_cache(maxsize=8)
def cells_by_count(config: Config, m: int) -> dict[int, dict]:
    """Factors of the first n cells of one size, for every n that a strategy can ask for.

    The cells come in random order, so that the first few too have small and large rattles; more
    cells always include the fewer.
    """
    counts = sorted(
        {
            allocation(config, strategy, budget).get(m, 0)
            for strategy in strategies(config).values()
            for budget in config.budgets
        }
        - {0}
    )
    if not counts:
        return {}
    cells = list(defect_cells(replace(config, copies=counts[-1]), m))
    order = np.random.default_rng(config.seed).permutation(len(cells))
    found, last, sofar = {}, 0, {}
    for count in counts:
        sofar = _with_more(config, sofar, [cells[k] for k in order[last:count]])
        found[count], last = sofar, count
    return found


def _with_more(config: Config, factors: dict, cells: list[Structure]) -> dict:
    kinds = ("energy", "forces")
    samples = labelled(config, cells, kinds)
    more = compress_structures(config.spec, samples, kinds, origin=bulk(config))
    more = {("energy", "defect"): more["energy"], "forces": more["forces"]}
    return {key: merge(factors[key], more[key]) for key in more} if factors else more
