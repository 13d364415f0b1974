"""Linear models of silicon: their fits, those to parts of the data, committees, calibration.

point = Point(Config(), degree=10, r_cut=5.0)
cells = all_cells(point.config)                          # labelled, the same for all models
graphs = graphs_of(point, cells)
whole, parts, prior = fitted(point, graphs.train, cells.train)     # parts: a triangle per cell
refits(parts, multiplicities, config.ridge, prior)       # of halves of the data, or a bootstrap
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from experiments.systems.silicon_cells import BOND, FAMILIES, Cell, draw
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec, smoothness_prior
from lprjax.atoms.graphs import Graph, build_graphs
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import Factor, merge, weighed
from lprjax.regression.fitting import Fit, fit, solution
from lprjax.regression.posterior import calibrate, committee, coverage
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.samples import stacked_rows

KINDS = ("energy", "forces")
BATCHES = 10  # of each committee: their differences give the standard error of a slope


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    order: int = 3  # order of the ACE bases
    degree: int = 10  # of the model that has committees
    r_cut: float = 5.0  # of the model that has committees, Å
    degrees: tuple[int, ...] = (8, 10, 12)  # of all models
    cutoffs: tuple[float, ...] = (4.4, 5.0, 5.6)  # of all, Å
    halves: int = 4  # random halves of the training set
    #: families of training, validation and test cells
    near: tuple[Literal[*FAMILIES], ...] = ("crystal", "strained", "vacancy", "liquid-like")
    counts: tuple[int, ...] = (40, 20, 20, 10)  # training cells of each of these families
    #: families of test cells only
    far: tuple[Literal[*FAMILIES], ...] = (
        "expanded",
        "dense",
        "slab",
        "simple cubic",
        "bcc",
        "fcc",
    )
    validation: int = 10  # validation cells of each near family
    test: int = 4  # test cells of each family
    cells: int = 2  # cubes of diamond per side of a cell
    weight_energy: float = 8.0  # of a cell's energy, 1/eV
    weight_forces: float = 20.0  # of a component, Å/eV
    ridge: float = 1e-6  # multiplies |Gamma c|^2, 1/eV^2
    smoothness: float = 2.0  # power of the smoothness prior
    samples: int = 1000  # models drawn from the posterior
    replicates: int = 200  # of the bootstrap
    seed: int = 0  # of cells, halves and committees


@dataclass(frozen=True)
class Point:
    """One model, with committees or without."""

    config: Config
    degree: int
    r_cut: float  # Å

    @property
    def spec(self) -> ACESpec:
        """The basis."""
        return ACESpec(("Si",), self.config.order, self.degree, self.r_cut, BOND)

    @property
    def central(self) -> bool:
        """Whether this is the model with committees."""
        return (self.degree, self.r_cut) == (self.config.degree, self.config.r_cut)


class Roles(NamedTuple):
    """Labelled cells, or their graphs."""

    train: list
    validation: list
    test: list


@lru_cache(maxsize=1)
def all_cells(config: Config) -> Roles:
    """The labelled cells, the same for all models.

    Args:
        config: the settings.

    Returns:
        cells by role.

    Raises:
        ValueError: there is not one count for each near family.
    """
    if len(config.counts) != len(config.near):
        raise ValueError(
            f"counts is {config.counts}: wanted one number for each of near, {config.near}."
        )

    def drawn(role: str, counts: dict[str, int]) -> list[Cell]:
        entropy = [(f, (config.seed, role, k)) for f, n in counts.items() for k in range(n)]
        return [draw(family, config.cells, each) for family, each in entropy]

    return Roles(
        drawn("train", dict(zip(config.near, config.counts, strict=True))),
        drawn("validation", dict.fromkeys(config.near, config.validation)),
        drawn("test", dict.fromkeys((*config.near, *config.far), config.test)),
    )


def graphs_of(point: Point, cells: Roles) -> Roles:
    """Graphs of the cells, all of one shape, so that each model compiles once."""
    graphs = iter(build_graphs([c.structure for role in cells for c in role], point.r_cut))
    return Roles(*([next(graphs) for _ in role] for role in cells))


def fitted(
    point: Point, graphs: Sequence[Graph], cells: Sequence[Cell]
) -> tuple[Fit, tuple[Factor, ...], np.ndarray]:
    """The fit to all cells.

    Args:
        point: the model.
        graphs: of the cells.
        cells: labelled.

    Returns:
        the fit; a triangle for each cell, at the weights; the diagonal of Gamma, (K,).
    """
    config, spec = point.config, point.spec
    by_cell = [
        compress_structures(spec, [(graph, cell.labels)], KINDS)
        for graph, cell in zip(graphs, cells, strict=True)
    ]
    weights = {"energy": config.weight_energy, "forces": config.weight_forces}
    prior = smoothness_prior(spec, config.smoothness)
    merged = {kind: reduce(merge, [factors[kind] for factors in by_cell]) for kind in KINDS}
    whole = fit(merged, weights, ridge=config.ridge, prior=prior)
    return whole, tuple(weighted(factors, weights) for factors in by_cell), prior


def site_rows(point: Point, graphs: Sequence[Graph], cells: Sequence[Cell]) -> np.ndarray:
    """Basis functions of all atoms of the cells, (n_sites, K)."""
    basis = [np.asarray(site_basis(point.spec, graph)) for graph in graphs]
    return np.concatenate([b[: len(c.sites)] for b, c in zip(basis, cells, strict=True)])


def weighted(factors: Mapping[str, Factor], weights: Mapping[str, float]) -> Factor:
    """One factor of all kinds of observation, with their weights in its rows."""
    return reduce(merge, [weighed(factor, weights[kind]) for kind, factor in factors.items()])


def halves(config: Config, n: int) -> np.ndarray:
    """How often each of n structures counts: one or zero, the same for all models.

    Args:
        config: the settings.
        n: number of structures.

    Returns:
        (halves, n).
    """
    rng = np.random.default_rng([config.seed, 1])
    return np.array([rng.permutation(n) < n // 2 for _ in range(config.halves)], float)


def refits(
    parts: Sequence[Factor], multiplicities: ArrayLike, ridge: float, prior: ArrayLike
) -> np.ndarray:
    """Fits in which structure j counts multiplicities[., j] times.

    A structure that counts k times has its rows k times: its triangle at weight k^1/2, so that a
    fit is a QR of triangles and never sees the rows again.

    Args:
        parts: a triangle for each of n structures, at the weights.
        multiplicities: (m, n).
        ridge: multiplies |Gamma c|^2, 1/eV^2.
        prior: (K,) diagonal of Gamma.

    Returns:
        coefficients (m, K).
    """
    weights = np.sqrt(np.asarray(multiplicities))
    return np.stack([_refit(parts, w, ridge, prior) for w in weights])


@jax.jit
def _refit(parts, weights, ridge, prior):
    return solution(parts, weights, ridge, prior)[0]


def committees(
    config: Config, whole: Fit, parts: Sequence[Factor], prior: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Variance of each site energy in the committees.

    Args:
        config: the settings.
        whole: the fit to all cells.
        parts: a triangle for each cell, at the weights.
        prior: (K,) diagonal of Gamma.
        rows: (n_sites, K) basis functions of the sites.

    Returns:
        "variance_posterior", "variance_bootstrap" and "variance_white", (BATCHES, n_sites) eV^2.
    """
    rng = np.random.default_rng([config.seed, 2])
    drawn = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), config.replicates)
    replicates = partial(
        refits, multiplicities=drawn.astype(float), ridge=config.ridge, prior=prior
    )
    # Weighted residuals of variance one, projected as the targets are: white again.
    white = tuple(
        part._replace(target=part.triangular @ whole.coefficients + rng.normal(size=len(prior)))
        for part in parts
    )
    models = {
        "posterior": committee(*whole[:2], jax.random.key(config.seed), config.samples),
        "bootstrap": replicates(parts),
        "white": replicates(white),
    }
    return {
        f"variance_{name}": np.var(
            np.reshape(np.asarray(c) @ rows.T, (BATCHES, -1, len(rows))), axis=1, ddof=1
        )
        for name, c in models.items()
    }


def observations(point: Point, graphs: Sequence[Graph], cells: Sequence[Cell]) -> dict[str, tuple]:
    """Rows and labels of cells by kind, energies per atom."""
    found: dict[str, list] = {kind: [] for kind in KINDS}
    for graph, cell in zip(graphs, cells, strict=True):
        pairs = stacked_rows(point.spec, graph, cell.labels, KINDS, per_atom=("energy",))
        for kind in KINDS:
            found[kind].append(pairs[kind])
    return {
        kind: tuple(np.concatenate(part) for part in zip(*pairs, strict=True))
        for kind, pairs in found.items()
    }


def calibrated(
    point: Point,
    whole: Fit,
    prior: np.ndarray,
    held_out: Mapping[str, tuple[Sequence[Graph], Sequence[Cell]]],
    site_rows: np.ndarray,
) -> dict[str, Any]:
    """The variance model by kind, from validation cells, and how it covers test cells.

    Args:
        point: the model.
        whole: the fit to all cells.
        prior: (K,) diagonal of Gamma.
        held_out: graphs and cells by group: "validation", "near" and "far".
        site_rows: (n_sites, K) basis functions of the test cells' atoms.

    Returns:
        by kind: parameters and likelihood of the model, errors, deviations and coverage of every
        group, and standard deviations of the site energies (eV), with the scale of the energies
        and with that of the forces.
    """
    groups = {
        name: observations(point, graphs, cells) for name, (graphs, cells) in held_out.items()
    }
    keys = [(kind, group) for kind in KINDS for group in groups]
    blocks = [site_rows, *(groups[group][kind][0] for kind, group in keys)]
    every, ends = np.concatenate(blocks), np.cumsum([len(block) for block in blocks])[:-1]
    coefficients = np.asarray(whole.coefficients)
    found: dict[str, Any] = {}
    for kind in KINDS:
        errors = {g: x[kind][0] @ coefficients - x[kind][1] for g, x in groups.items()}
        rows = groups["validation"][kind][0]
        model = calibrate(whole.factor, rows, errors["validation"], prior=prior)
        found |= {f"{kind}_alpha": model.alpha, f"{kind}_s": model.s, "expected": model.expected}
        found[f"{kind}_log_likelihood"] = model.log_likelihood
        # All rows at once, of the other kind too: compiled once, and solved in no time.
        deviations = np.split(np.asarray(prediction_rigidity(model.factor, every)) ** -0.5, ends)
        found[f"{kind}_site_deviation"] = deviations[0]
        for group, error in errors.items():
            deviation = deviations[1 + keys.index((kind, group))]
            found[f"{kind}_covered_{group}"] = coverage(error, deviation)
            found[f"{kind}_rms_{group}"] = np.sqrt(np.mean(error**2))
            found[f"{kind}_error_{group}"], found[f"{kind}_deviation_{group}"] = error, deviation
    return found
