"""Ways to choose the next cells of an alloy to label, and what a fit to them is worth.

Rows and targets of a cell are weighted as in the fit, the energy, per atom, first. Every way of
choosing has the fit to the cells so far, the cells of a pool and, of some of the pool's, the
predictions that are to become good. Two know the labels of the cells so far, by what the fit leaves
of them; none a label of the pool.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.systems.alloys import Sample
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec
from lprjax.regression.factors import Factor, compress, extend
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.rows import vanishing
from lprjax.regression.samples import stacked_rows
from lprjax.regression.selection import choose

KINDS = ("energy", "forces")
LEAST = 1e-8  # leverage below which a row takes no part in POPS: a choice
NARROWEST = 1e-10  # variance of POPS over its largest, below which it is taken to be that: a choice


class Cell(NamedTuple):
    """An alloy of n atoms, in a basis of K functions."""

    count: int  # atoms of the second element
    rows: np.ndarray  # (1 + 3 n, K), weighted
    targets: np.ndarray  # (1 + 3 n,), weighted
    sites: np.ndarray  # (n, K) B(i)


def cells_of(spec: ACESpec, samples: Sequence[Sample], errors: Sequence[float]) -> list[Cell]:
    """Rows of labelled cells.

    Args:
        spec: the basis, of two elements.
        samples: the cells.
        errors: 1/weights, of energies (eV/atom) and forces (eV/Å).

    Returns:
        the cells.
    """
    found = []
    for graph, labels, _ in samples:
        stacks = stacked_rows(spec, graph, labels, KINDS, per_atom=("energy",))
        rows, targets = (
            np.concatenate([stacks[kind][k] / e for kind, e in zip(KINDS, errors, strict=True)])
            for k in (0, 1)
        )
        real = np.asarray(graph.species) > 0
        count = np.sum(np.asarray(graph.species) == spec.numbers[1])
        found.append(Cell(int(count), rows, targets, np.asarray(site_basis(spec, graph))[real]))
    return found


def data_of(cells: Sequence[Cell]) -> Factor:
    """The factor of all rows of the cells."""
    both = [np.concatenate(x) for x in zip(*[(c.rows, c.targets) for c in cells], strict=True)]
    return compress(*both)


def fit_of(data: Factor, ridge: float) -> Fit:
    """The fit to weighted rows."""
    return fit({"all": data}, {"all": 1.0}, ridge=ridge)


def mean_errors(
    coefficients: np.ndarray, cells: Sequence[Cell], errors: Sequence[float]
) -> np.ndarray:
    """Root mean squares and mean absolute values of a fit's errors.

    Args:
        coefficients: (K,).
        cells: where the errors are looked at.
        errors: 1/weights, see `cells_of`.

    Returns:
        (4,): r.m.s. of energies (eV/atom) and of force components (eV/Å), and means of both.
    """
    rows, targets = (np.stack(x) for x in zip(*[(c.rows, c.targets) for c in cells], strict=True))
    wrong = rows @ coefficients - targets
    parts = [errors[0] * wrong[:, 0], errors[1] * wrong[:, 1:]]
    root = [np.sqrt(np.mean(np.square(part))) for part in parts]
    return np.array([*root, *[np.mean(np.abs(part)) for part in parts]])


def curve(
    data: Factor, added: Sequence[Cell], counts: Sequence[int], ridge: float
) -> list[np.ndarray]:
    """Coefficients of the fits as cells are added.

    Args:
        data: the factor of the cells so far.
        added: the cells, in the order of choice.
        counts: how many of them are added, ascending.
        ridge: of the fits.

    Returns:
        (K,) for each count.
    """
    found, last = [], 0
    for count in counts:
        for cell in added[last:count]:
            data = extend(data, cell.rows, cell.targets, block_rows=64)
        found.append(np.asarray(fit_of(data, ridge).coefficients))
        last = count
    return found


class Question(NamedTuple):
    """From what is to be chosen, for what, and what is known."""

    fitted: Fit  # to the cells so far
    start: Sequence[Cell]  # the cells so far
    pool: Sequence[Cell]
    stride: int  # every how many-th cell of the pool is a target
    count: int  # how many are to be chosen

    @property
    def aimed(self) -> Sequence[Cell]:
        """The cells whose predictions are to become good."""
        return self.pool[:: self.stride]

    @property
    def energies(self) -> np.ndarray:
        """(T, K) rows of the targets' energies."""
        return np.stack([cell.rows[0] for cell in self.aimed])

    @property
    def sites(self) -> np.ndarray:
        """(T, K) rows of as many site energies of the targets, evenly spread."""
        sites = np.concatenate([cell.sites for cell in self.aimed])
        return sites[:: len(sites) // len(self.aimed)]

    @property
    def everything(self) -> np.ndarray:
        """(K, K) a triangle that has the mean variance of all rows of the targets."""
        rows = np.linalg.qr(np.concatenate([cell.rows for cell in self.aimed]), mode="r")
        return rows[~np.asarray(vanishing(rows))]


def greedy(question: Question, rule: str, targets: np.ndarray, factor=None) -> np.ndarray:
    """The order of `choose`, of the fit's factor or of another."""
    factor = question.fitted.factor if factor is None else factor
    candidates = [cell.rows for cell in question.pool]
    return choose(factor, candidates, targets, question.count, rule=rule).order


def pops_factor(question: Question) -> np.ndarray:
    """The factor whose rigidities are those of POPS: what the least changes that fit a row say.

        delta_i = H^-1 x_i r_i / h_i,   C = mean delta_i delta_i^T,   R^T R = s^2 C^-1

    with s^2 the mean square of the residuals r, which are what noise is of the cells to come.

    Args:
        question: whose cells so far the rows are of.

    Returns:
        (K, K) upper triangular. Directions of no change have the least variance instead of none.

    Source: Swinburne and Perez, Mach. Learn.: Sci. Technol. 6 (2025) 015008.
    """
    triangular = np.asarray(question.fitted.factor)
    rows, targets = (np.concatenate([cell[k] for cell in question.start]) for k in (1, 2))
    residuals = targets - rows @ np.asarray(question.fitted.coefficients)
    whitened = np.linalg.solve(triangular.T, rows.T).T
    leverages = np.sum(whitened**2, axis=1)
    kept = leverages > LEAST
    moves = whitened[kept] * (residuals[kept] / leverages[kept])[:, None]
    _, widths, axes = np.linalg.svd(moves, full_matrices=False)
    variances = widths**2 / (len(moves) * np.mean(residuals**2))
    variances = np.maximum(variances, NARROWEST * variances[0])
    return np.linalg.qr(axes / np.sqrt(variances)[:, None] @ triangular, mode="r")


def near_left_out(question: Question) -> np.ndarray:
    """The leave-one-out error of energies near each target.

        e_t^2 = sum_b k_tb e_b^2 / sum_b k_tb,   k_tb = cos^2 of the angle of w_t and w_b

    over cells b of the fit, w = R^-T g of the energies.

    Args:
        question: whose targets and cells so far are meant.

    Returns:
        (T,), in units of the weighted energies.
    """
    triangular, c = np.asarray(question.fitted.factor), np.asarray(question.fitted.coefficients)
    whiten = lambda rows: np.linalg.solve(triangular.T, rows.T).T  # noqa: E731
    unit = lambda w: w / np.linalg.norm(w, axis=1, keepdims=True)  # noqa: E731
    errors, own = [], []
    for cell in question.start:
        v = whiten(cell.rows)
        left_out = np.linalg.solve(np.eye(len(v)) - v @ v.T, cell.targets - cell.rows @ c)
        errors.append(left_out[0])
        own.append(v[0])
    near = (unit(whiten(question.energies)) @ unit(np.stack(own)).T) ** 2
    return np.sqrt(near @ np.square(errors) / near.sum(axis=1))


def spread(question: Question) -> np.ndarray:
    """By composition alone: the one farthest from all so far; of several, the least often taken."""
    order, taken = [], [cell.count for cell in question.start]
    left = list(range(len(question.pool)))
    for _ in range(question.count):
        counts = {k: question.pool[k].count for k in left}
        best = max(
            left,
            key=lambda k: (min(abs(counts[k] - t) for t in taken), -taken.count(counts[k])),
        )
        order.append(best)
        left.remove(best)
        taken.append(question.pool[best].count)
    return np.array(order)


def same_compositions(
    question: Question, order: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Cells of the same compositions, one for one, that chance takes from the pool."""
    left, found = rng.permutation(len(question.pool)).tolist(), []
    for k in order:
        same = next(j for j in left if question.pool[j].count == question.pool[k].count)
        found.append(same)
        left.remove(same)
    return np.array(found)


RULES: Mapping[str, Callable[[Question], np.ndarray]] = {
    "log_rigidity": lambda q: greedy(q, "log_rigidity", q.energies),
    "variance": lambda q: greedy(q, "variance", q.energies),
    "left_out": lambda q: greedy(q, "variance", q.energies * near_left_out(q)[:, None]),
    "pops": lambda q: greedy(q, "variance", q.energies, pops_factor(q)),
    "loss": lambda q: greedy(q, "variance", q.everything),
    "site_log_rigidity": lambda q: greedy(q, "log_rigidity", q.sites),
    "site_variance": lambda q: greedy(q, "variance", q.sites),
    "site_rigidity": lambda q: greedy(q, "rigidity", q.sites),
    "d_optimal": lambda q: greedy(q, "d_optimal", q.energies[:1]),
    "spread": spread,
}
"""Ways to choose that leave nothing to chance."""
CHANCE = ("compositions", "random")
"""Cells of the compositions that "log_rigidity" took, and any cells."""


def orders_of(
    question: Question, repeats: int, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    """What each way chooses.

    Args:
        question: from what, for what.
        repeats: how often chance chooses.
        rng: chance.

    Returns:
        orders by the name of the way, `repeats` of those that leave it to chance.
    """
    found = {name: [rule(question)] for name, rule in RULES.items()}
    first = found["log_rigidity"][0]
    found["compositions"] = [same_compositions(question, first, rng) for _ in range(repeats)]
    n = len(question.pool)
    found["random"] = [rng.permutation(n)[: question.count] for _ in range(repeats)]
    return found
