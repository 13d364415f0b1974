"""Do the bounds bound? Error budgets of eight defects under random perturbations.

For each defect the reference is perturbed at random, smoothly and in all that a potential has
(pair, density, vector and unlike-pair terms), with sizes over two decades. Of each budget every
bound is set beside what it bounds: the terms of the far field (mismatch x weight above the norm of
the piece), eta / c above the first-order response, in the plain norm and in that of the reference's
force constants, and Kantorovich's bounds of geometry and energy above the true errors of two
relaxations, where h <= 1/2; the far ends of enclosures wherever there are any.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.harness.records import Record
from experiments.harness.run import start
from experiments.harness.script import Plan, script
from experiments.harness.style import PALETTE
from experiments.systems.perturbed_defects import CASES, perturbed
from lprjax.defects.bounds import PIECES
from lprjax.defects.budget import FAILURES, MEASURED, Budget, error_budget
from lprjax.defects.defect import relax_defect
from lprjax.defects.first_order import first_order_error
from lprjax.defects.norms import with_energy_norm
from lprjax.defects.response import stability_constant

BOUNDED = tuple(name for name in PIECES if name not in MEASURED)
ENCLOSED = ("geometry", "energy")
QUANTITIES = (
    *BOUNDED, "response", "energy-norm response", *ENCLOSED, *(f"enclosed {q}" for q in ENCLOSED)
)  # fmt: skip
"""What is bounded: the pieces of the far field; to first order the response, in both norms; the
true errors, by the plain bounds and by the far ends of enclosures."""
VERSION = 2
"""Of the records."""

SETTLED = 1e-8  # eV/Å, of relaxations: errors of geometries far below those of the surrogates
ROUNDING = 1e-9  # of eta, and of the reference's 1 eV/Å: what is smaller is zero up to rounding
SLACK = 1e-6  # a bound may fall below the truth by this share: tolerance of relaxations and solves


@dataclass(frozen=True)
class Config:
    """Settings of the figure; each field is a flag."""

    defects: tuple[str, ...] = tuple(CASES)  # names of experiments.systems.perturbed_defects
    count: int = 25  # perturbations of each defect
    sizes: tuple[float, float] = (0.003, 0.3)  # least and largest size, in the case's unit
    seed: int = 0  # of the perturbations


@dataclass(frozen=True)
class Point:
    """All perturbations of one defect."""

    defect: str
    count: int
    sizes: tuple[float, float]
    seed: int


def points(config: Config) -> list[Point]:
    """One point per defect.

    Raises:
        ValueError: a name that is not among CASES.
    """
    for name in config.defects:
        if name not in CASES:
            raise ValueError(f"defect is {name!r}: wanted one of {', '.join(CASES)}.")
    return [Point(name, config.count, config.sizes, config.seed) for name in config.defects]


@lru_cache(maxsize=1)
def solved(name: str) -> tuple[Any, jax.Array]:
    """The case and the reference's relaxed geometry.

    Raises:
        RuntimeError: its relaxation did not converge.
    """
    case = CASES[name]()
    found = relax_defect(case.reference, case.defect, force_tolerance=SETTLED)
    if not found.relaxed.converged:
        raise RuntimeError(f"the reference of {name} did not relax: {found.relaxed.message}")
    return case, found.displacement


def compute(point: Point) -> dict[str, Any]:
    """Bounds and what they bound, arrays over the perturbations, and the budgets' failures."""
    case, displacement = solved(point.defect)
    rng = np.random.default_rng([point.seed, *point.defect.encode()])
    sizes = case.size * np.geomspace(*point.sizes, point.count)
    soft = with_energy_norm(case.defect, case.reference)
    budgets, both = [], []
    for size in sizes:
        surrogate = perturbed(case.reference, size, rng)
        budgets.append(
            error_budget(
                case.reference,
                surrogate,
                case.defect,
                case.radius,
                displacement=displacement,
                reservoirs=case.reservoirs,
                force_tolerance=SETTLED,
                max_evaluations=2000,
            )
        )
        first = first_order_error(case.reference, surrogate, soft, displacement)
        c = stability_constant(surrogate, soft, displacement, tolerance=1e-3).constant
        there = first.eta / c if c > 0 else np.nan, first.geometry
        both.append(bounds_of(budgets[-1]) | {"energy-norm response": there})
    return {
        "sizes": sizes,
        "kantorovich": np.array([b.kantorovich for b in budgets]),
        **{f"{name} bound": np.array([pair[name][0] for pair in both]) for name in QUANTITIES},
        **{f"{name} true": np.array([pair[name][1] for pair in both]) for name in QUANTITIES},
        **{flag: np.array([flag in b.failures for b in budgets]) for flag in FAILURES},
    }


def bounds_of(budget: Budget) -> dict[str, tuple[float, float]]:
    """(bound, what it bounds) by quantity; NaN where there is none, or nothing to bound."""
    least = ROUNDING * budget.eta
    found = {
        term.name: (term.mismatch * term.weight, term.norm)
        for term in budget.terms
        if term.name in BOUNDED
    }
    first, c = budget.geometry_first_order, budget.stability
    found["response"] = (budget.eta / c if c > 0 else np.nan, first)
    # Of another minimum, or none, no bound speaks.
    sound = not set(budget.failures) & {"unstable", "unconverged", "left_basin"}
    found["geometry"] = (budget.geometry_bound, budget.geometry_true if sound else np.nan)
    found["energy"] = (budget.energy_bound, abs(budget.energy_true) if sound else np.nan)
    for quantity in ENCLOSED:
        far = max(map(abs, getattr(budget.enclosure, f"{quantity}_range")))
        found[f"enclosed {quantity}"] = (far, found[quantity][1])
    return {k: (b, t if t > least else np.nan) for k, (b, t) in found.items()}


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Ratios of bound to truth, by quantity and defect; violations counted."""
    ratios = {
        name: {r.point.defect: ratio_of(r.arrays, name) for r in records} for name in QUANTITIES
    }
    return {
        "figure": "bound_survey",
        "preset": preset,
        "perturbations": sum(r.point.count for r in records),
        "tightness": {name: spread(np.concatenate([*by.values()])) for name, by in ratios.items()},
        "by_defect": {
            name: {defect: spread(r) for defect, r in by.items()} for name, by in ratios.items()
        },
        "ratios": ratios,
        "flags": {flag: sum(int(r.arrays[flag].sum()) for r in records) for flag in FAILURES},
    }


def ratio_of(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Bound over truth, without what has neither."""
    ratio = arrays[f"{name} bound"] / arrays[f"{name} true"]
    return ratio[np.isfinite(ratio)]


def spread(ratio: np.ndarray) -> dict[str, float]:
    """How many there are, how many are violated, and least, middle and largest of the rest."""
    if not len(ratio):
        return {"count": 0, "violated": 0}
    return {
        "count": len(ratio),
        "violated": int(np.sum(ratio < 1.0 - SLACK)),
        "least": float(ratio.min()),
        "median": float(np.median(ratio)),
        "largest": float(ratio.max()),
    }


def plot(summary: Mapping[str, Any]) -> Figure:
    """Every ratio, by quantity, a colour for each defect."""
    figure, ax = plt.subplots(figsize=(9.0, 5.4))
    names = list(next(iter(summary["ratios"].values())))
    for k, by in enumerate(summary["ratios"].values()):
        for i, (name, ratio) in enumerate(by.items()):
            x = np.full(len(ratio), k + (i + 1) / (len(names) + 1) - 0.5)
            ax.semilogy(
                x,
                ratio,
                "o",
                ms=3,
                alpha=0.7,
                color=PALETTE[i % len(PALETTE)],
                mfc="none" if i >= len(PALETTE) else None,
                label=name if k == 0 else None,
            )
            wrong = ratio < 1.0 - SLACK
            ax.semilogy(x[wrong], ratio[wrong], "x", color="red", ms=9)
    ax.axhline(1.0, color="0.3", lw=1)
    labels = [name.replace("_", "\n") for name in summary["ratios"]]
    ax.set_xticks(range(len(labels)), labels=labels)
    ax.set_ylabel("bound / what it bounds")
    ax.set_ylim(top=5.0 * ax.get_ylim()[1])  # room for the legend
    ax.legend(ncols=4, fontsize=7, loc="upper left")
    figure.supxlabel(textwrap.fill(caption(summary), 150), fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: Mapping[str, Any]) -> str:
    """What was tried, what was violated and how tight the bounds are."""
    parts = []
    for name, found in summary["tightness"].items():
        if not found["count"]:
            parts.append(f"{name.replace('_', ' ')} none")
            continue
        parts.append(
            f"{name.replace('_', ' ')} {found['violated']} of {found['count']} violated, ratio "
            f"{found['least']:.3g} / {found['median']:.3g} / {found['largest']:.3g}"
        )
    flags = ", ".join(f"{n} {flag.replace('_', ' ')}" for flag, n in summary["flags"].items() if n)
    defects = len(summary["by_defect"]["elastic"])
    return (
        f"{summary['perturbations']} random perturbations of {defects} defects; bound over what it "
        f"bounds (least / median / largest): {'; '.join(parts)}. "
        "elastic to third elastic: mismatch x weight over the piece's norm, that of the defect; "
        "response: eta / c over the first-order response; geometry and energy: Kantorovich's "
        "bounds, with an estimate of M, over true errors, where h <= 1/2; enclosed: the far ends "
        "of enclosures after steps." + (f" Flags: {flags}." if flags else "")
    )


PRESETS = {
    "smoke": Config(defects=("honeycomb vacancy",), count=3),
    "paper": Config(),
}


def plan(argv: Sequence[str] | None = None) -> Plan:
    """What the flags ask for; those of the command line if None."""
    run = start("bound_survey", PRESETS, argv, __doc__)
    return Plan(
        run,
        points(run.config),
        compute,
        summarise,
        lambda summary, _: plot(summary),
        caption,
        VERSION,
    )


main = script(plan)


if __name__ == "__main__":
    main()
