"""Data of one composition do not distinguish its species, and forces do not help.

With a constant for each species in the basis, energies at one composition hold the sum of the two
and nothing else does: forces and virials are blind to constants. Along u, the difference of the
constants, the loss is u^T H u, so that for any site energy (derived; the experiment is that of
Chong et al., J. Chem. Theory Comput. 19 (2023) 8020, after its abstract)

    LPR <= u^T H u = 2 ridge + w^2 sum over structures of (n_A - n_B)^2,

whatever else is observed: at 1:1 no more than twice the ridge. (a) A simulated alloy, whose site
energies are known; (b) Nb-Ta by density-functional theory, from files that the user has. Bonds
between species are shared evenly, see `alloys`.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ase.data import chemical_symbols
from tyro.conf import arg

from experiments.harness.records import Record
from experiments.harness.run import data_folder, start
from experiments.harness.script import Plan, script
from experiments.panels.alloys import all_sites, caption, plot
from experiments.systems import alloys
from experiments.systems.alloy_sets import CURVES, DESIGNS, KINDS, OTHERS, SETS
from experiments.systems.alloys import N_ATOMS, TESTS, TRAINING, by_test_set, judged, weights
from experiments.systems.observations import labelled_frames
from lprjax.ace.spec import ACESpec
from lprjax.potentials import ZHOU_2004, zhou_eam
from lprjax.regression.factors import projected
from lprjax.regression.fitting import fit

BY_DESIGN = (
    *("bound", "undetermined", "undetermined_unshared", "vanishing", "exchange_rigidity"),
    *("exchange_error", "constants", "energy_mae"),
)


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    elements: tuple[Literal[*ZHOU_2004], Literal[*ZHOU_2004]] = ("Mo", "W")  # (a): two of Zhou's
    order: int = 2  # correlation order of the ACE basis
    degree: int = 6  # total degree of the ACE basis
    r_cut: float = 5.0  # cutoff of the basis, Å
    block: int = 40  # (a): structures of each other composition
    tests: int = 12  # (a): test structures at 1:1, 3:1 and 1:3
    offset: float = 2.0  # (a): eV more per atom of the second element
    ridge: float = 1e-2  # (a): 1/eV^2
    #: (a): 1/weights: E (eV/atom), F (eV/Å), V (eV/atom)
    errors: tuple[float, ...] = (0.01, 0.5, 0.3)
    data: Annotated[
        str, arg(help=f"(b): folder of {TRAINING} …; if empty, LPRJAX_DATA of the environment")
    ] = ""
    data_ridge: float = 1.0  # (b): 1/eV^2
    data_errors: tuple[float, ...] = (0.001, 0.01)  # (b): 1/weights: E (eV/atom), F (eV/Å)
    data_base: int = 118  # (b): structures at 1:1, at most
    data_block: int = 8  # (b): of other compositions, at most
    data_tests: int = 40  # (b): of each test set, at most
    seeds: tuple[int, ...] = (0, 1, 2)  # (a): draws of everything; (b): the first, the choice


@dataclass(frozen=True)
class Point:
    """One part of the figure, and one draw of the simulated one."""

    part: str  # simulated or measured
    digest: str  # of the data
    config: Config  # folder and seeds left out: records belong to data, wherever they lie
    seed: int


def points(config: Config, folder: str) -> list[Point]:
    """The simulated alloy and, where its files are, the measured one."""
    plain = replace(config, data="", seeds=())
    found = [Point("simulated", "", plain, seed) for seed in config.seeds]
    if folder:
        found.append(Point("measured", alloys.digest(folder), plain, config.seeds[0]))
    return found


def compute(point: Point, folder: str) -> dict[str, Any]:
    """The arrays of one point."""
    if point.part == "simulated":
        return simulate(point.config, point.seed)
    return learn(point.config, point.seed, folder)


def simulate(config: Config, seed: int) -> dict[str, Any]:
    """(a): rigidities and true errors of the site energies of test structures, by design."""
    rng, kinds = np.random.default_rng(seed), KINDS["E+F+V"]
    potential = zhou_eam(*config.elements)
    near = np.mean([ZHOU_2004[element].re for element in config.elements])
    spec = ACESpec(config.elements, config.order, config.degree, config.r_cut, near, constant=True)
    onto, half = alloys.shared_bonds(spec), N_ATOMS // 2
    counts = dict.fromkeys(OTHERS, config.block) | {half: config.block * (len(OTHERS) + 1)}
    shares = (half, N_ATOMS // 4, 3 * N_ATOMS // 4)
    wanted = [c for c, n in counts.items() for _ in range(n)] + [*np.repeat(shares, config.tests)]
    structures = [alloys.random_alloy(config.elements, c, rng) for c in wanted]
    samples = alloys.simulated(potential, spec, structures, kinds, config.offset)
    training, test = samples[: -3 * config.tests], samples[-3 * config.tests :]
    pool = {c: [s for s, w in zip(training, wanted, strict=False) if w == c] for c in counts}
    factors = alloys.block_factors(spec, alloys.paired_blocks(pool, half, config.block), kinds)
    tied = {key: projected(factor, onto) for key, factor in factors.items()}
    probe = alloys.rows_of(spec, test, onto, forces=False)
    given, constants = weights(kinds, config.errors, N_ATOMS), alloys.constants(spec) @ onto
    found: dict[str, list] = {}
    for chosen, observed in DESIGNS:
        w = {kind: given[kind] * (kind in KINDS[observed]) for kind in kinds}
        data, unshared = (
            alloys.chosen_data(f, kinds, SETS[chosen], swap=True) for f in (tied, factors)
        )
        values = judged(data, w, config.ridge, probe, constants) | {
            "undetermined_unshared": len(onto) - fit(unshared, w).rank
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    fixed = {"species": probe.species, "at_half": probe.structure < config.tests}
    return fixed | {name: np.array(value) for name, value in found.items()}


def learn(config: Config, seed: int, folder: str) -> dict[str, Any]:
    """(b): rigidities by species and errors of the test sets, as compositions come in."""
    rng, kinds = np.random.default_rng(seed), KINDS["E+F"]
    pool = alloys.read_binary(Path(folder) / TRAINING, rng)
    n_atoms = sum(next(iter(pool)))
    half = (n_atoms // 2, n_atoms // 2)
    pool[half] = pool[half][: config.data_base]
    blocks = alloys.paired_blocks(pool, half, config.data_block)
    example = pool[half][0][0]
    numbers = sorted(set(np.asarray(example.species).tolist()))
    elements = tuple(chemical_symbols[z] for z in numbers)
    near = np.sqrt(3) / 2 * float(2 * example.volume / n_atoms) ** (1 / 3)
    spec = ACESpec(elements, config.order, config.degree, config.r_cut, near, constant=True)
    onto = alloys.shared_bonds(spec)
    samples = iter(alloys.measured(spec, [frame for block in blocks.values() for frame in block]))
    blocks = {name: [next(samples) for _ in block] for name, block in blocks.items()}
    factors = alloys.block_factors(spec, blocks, kinds)
    tied = {key: projected(factor, onto) for key, factor in factors.items()}
    probes = {}
    for name in TESTS:
        frames = labelled_frames(Path(folder) / name, ("energy", "forces"))[: config.data_tests]
        frames = [frame[:2] for frame in frames]
        probes[name] = alloys.rows_of(spec, alloys.measured(spec, frames), onto, forces=True)
    others = sorted((c for c in pool if c != half), key=lambda c: (abs(c[0] - half[0]), c[0]))
    w = weights(kinds, config.data_errors, n_atoms)
    found: dict[str, list] = {}
    for swap, step in CURVES.values():
        chosen = [others[::step][:n] for n in range(len(others) + 1)]
        data = [alloys.chosen_data(tied, kinds, these, swap) for these in chosen]
        fits = [fit(d, w, ridge=config.data_ridge) for d in data]
        for name, values in by_test_set(fits, probes, numbers).items():
            found.setdefault(name, []).append(values)
    training = [len(v) for (age, _), v in blocks.items() if age == "old"]
    labels = {"elements": np.array(elements), "others": np.array(others)}
    return labels | {"structures": sum(training)} | {k: np.array(v) for k, v in found.items()}


def summarise(config: Config, records: Sequence[Record], preset: str) -> dict[str, Any]:
    """Headline numbers of the figure."""
    measured = [record.arrays for record in records if record.point.part == "measured"]
    return {
        "figure": "alloy_composition",
        "preset": preset,
        "simulated": summary_of_simulated(config, records),
        "measured": summary_of_measured(config, measured[0]) if measured else None,
    }


def summary_of_simulated(config: Config, records: Sequence[Record]) -> dict[str, Any]:
    """Geometric means of rigidities and r.m.s. errors over seeds; counts and means by seed."""
    seeds = [record.arrays for record in records if record.point.part == "simulated"]
    sites = all_sites(records)
    numbers = [ZHOU_2004[element].number for element in config.elements]
    masks = [sites["at_half"] & (sites["species"] == number) for number in numbers]
    designs = []
    for k, (chosen, observed) in enumerate(DESIGNS):
        lpr, error = sites["lpr"][k], sites["error"][k]
        of = {name: np.array([found[name][k] for found in seeds]) for name in BY_DESIGN}
        counts = ("undetermined", "undetermined_unshared", "vanishing")
        found = {
            "structures": chosen,
            "kinds": observed,
            "lpr": [geometric_mean(lpr[mask]) for mask in masks],
            "largest_lpr": float(lpr.max()),
            "bound": float(of["bound"].mean()),
            "rms_error": [rms(error[mask]) for mask in masks],
            "mean_shift": [rms([e[m].mean() for e, m in by_seed(seeds, k, z)]) for z in numbers],
            "rms_error_times_root_lpr": rms(error * np.sqrt(lpr)),
            "exchange_rigidity": geometric_mean(of["exchange_rigidity"]),
            "exchange_error": rms(of["exchange_error"]),
            "constants": [geometric_mean(values) for values in of["constants"].T],
            "energy_mae": of["energy_mae"].mean(axis=0).tolist(),
        }
        designs.append(found | {name: of[name].tolist() for name in counts})
    return {
        "elements": list(config.elements),
        "seeds": len(seeds),
        "training_structures": config.block * (len(OTHERS) + 1),
        "test_sites": len(seeds[0]["species"]),
        "twice_the_ridge": 2.0 * config.ridge,
        "offset": config.offset,
        "designs": designs,
    }


def by_seed(
    seeds: Sequence[dict], design: int, number: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Errors and the mask of a species at 1:1, seed by seed.

    Args:
        seeds: arrays of each seed's record.
        design: number of the design.
        number: atomic number of the species.

    Yields:
        (sites,) eV and (sites,) bool.
    """
    for found in seeds:
        yield found["error"][design], found["at_half"] & (found["species"] == number)


def geometric_mean(values: np.ndarray) -> float:
    """exp of the mean logarithm."""
    return float(np.exp(np.mean(np.log(values))))


def rms(values: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def summary_of_measured(config: Config, arrays: dict) -> dict[str, Any]:
    """Curves of the test sets against the number of compositions."""
    names = ("lpr", "energy_mae", "energy_bias", "force_mae")
    curves = {
        curve: {name: arrays[name][k].tolist() for name in names} for k, curve in enumerate(CURVES)
    }
    return {
        "elements": arrays["elements"].tolist(),
        "test_sets": [name.removesuffix(".xyz") for name in TESTS],
        "training_structures": int(arrays["structures"]),
        "others": [f"{a}:{b}" for a, b in arrays["others"].tolist()],
        "twice_the_ridge": 2.0 * config.data_ridge,
        "mean_forces": arrays["force_scale"][0, 0].tolist(),
        "curves": curves,
    }


PRESETS = {
    "smoke": Config(
        degree=4, block=8, tests=2, seeds=(0,), data_base=40, data_block=2, data_tests=4
    ),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("alloy_composition", PRESETS, argv, __doc__)
    folder = data_folder(run.config.data)
    if folder:
        alloys.require_data(folder)
    else:
        files = ", ".join((TRAINING, *TESTS))
        warnings.warn(
            f"part (b) is left out: --data DIR with {files}; from {alloys.SOURCE}", stacklevel=2
        )
    found = points(run.config, folder)
    return Plan(run, found, partial(compute, folder=folder), summarise, plot, caption)


main = script(plan)


if __name__ == "__main__":
    main()
