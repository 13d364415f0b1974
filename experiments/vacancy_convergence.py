"""Error of a vacancy simulation against the size of the training cell, by observation set.

Reference: tungsten, the EAM of Zhou et al. (2004), at its lattice constant. For each number m of
cubic cells per side, a linear ACE is fitted to rattled vacancy cells of that size (energies E,
forces F) and, by observation set, to strained bulk cells (virials V) and the perfect lattice (force
constants FC). The vacancy is then relaxed with the fit in a much larger cell, the same for all,
and compared with the reference's there. L = m a / 2, the radius of the sphere inside the cell.

What weights multiply (residuals of one scalar observation each):

- energy: the *defect-minus-bulk* energy E - N e of each vacancy cell (eV), and the bulk energy
  per atom e (eV/atom) at its own weight; a formation energy subtracts N bulk energies;
- forces: each component (eV/Å); virial: each of the six of a strained cell (eV);
- force_constants: each entry between one atom and all others (eV/Å^2).
"""

import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import PALETTE, finish, label_axes, reference_slope, save_figure, start
from experiments.records import Record
from lprjax.ace import ACESpec, linear_potential, site_basis, smoothness_prior
from lprjax.defects import Defect, formation_energy, geometry_error, relax_defect, vacancy
from lprjax.design import PerAtom, compress_structures, design_rows
from lprjax.factors import compress
from lprjax.fit import Fit, fit
from lprjax.lattice import GPA_PER_EV_A3, acoustic_tensors, elastic_constants
from lprjax.neighbours import build_graph
from lprjax.observables import observe
from lprjax.references.eam import ZhouEAM, zhou_eam
from lprjax.rigidity import local_prediction_rigidity
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
    r_cut: float = field(default=6.0, metadata={"help": "cutoff of the ACE basis, Å"})
    copies: int = field(default=250, metadata={"help": "rattled vacancy cells of every size"})
    rattle: float = field(default=0.05, metadata={"help": "largest rattle amplitude, Å"})
    strain: float = field(default=0.005, metadata={"help": "largest random strain of bulk cells"})
    strained_cells: int = field(default=12, metadata={"help": "strained bulk cells"})
    lattice_cells: int = field(
        default=6, metadata={"help": "cells per side of the perfect lattice with force constants"}
    )
    floor_copies: int = field(
        default=6, metadata={"help": "copies of the cell of the simulation's size (the floor)"}
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
    for structure in structures:
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


def compute(point: Config) -> dict[str, Any]:
    """All observation sets at one size; arrays over the sets, in the order of OBSERVATION_SETS."""
    (m,) = point.sizes
    factors = bulk_factors(replace(point, sizes=(), copies=0)) | defect_factors(point, m)
    simulation = reference_simulation(point.target)
    defect = simulation.defect
    geometry = build_graph(defect.displaced(simulation.displacement), point.r_cut)
    sites = site_basis(point.spec, geometry)[: defect.structure.n_atoms]
    found: dict[str, list] = {}
    for kinds in OBSERVATION_SETS.values():
        result = weighted_fit(point, factors, kinds)
        for name, value in {
            **simulate(point, result),
            **{f"e_{k}": v for k, v in mismatches(point, factors, result.coefficients).items()},
            "rank": result.rank,
            "condition": result.condition,
            "rigidity": np.asarray(local_prediction_rigidity(result.factor, sites)),
        }.items():
            found.setdefault(name, []).append(value)
    return {
        "radius": m * LATTICE_CONSTANT / 2,
        "n_functions": point.spec.n_columns,
        "distance": defect.distances()[np.asarray(defect.site_of_atom)],
        "formation_energy_reference": simulation.formation_energy,
        "reference_converged": simulation.converged,
        **{name: np.array(values) for name, values in found.items()},
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


def points(config: Config) -> list[Config]:
    """One point per size, and the floor: training cells as large as the simulation itself."""
    floor = replace(config, sizes=(config.target,), copies=config.floor_copies)
    return [replace(config, sizes=(m,)) for m in config.sizes] + [floor]


def fitted_slope(radius: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Slope of log(error) against log(radius) and its standard error (NaN for two points)."""
    x, y = np.log(radius), np.log(error)
    if len(x) < 3 or not np.all(np.isfinite(y)):
        return float(np.diff(y[[0, -1]])[0] / np.diff(x[[0, -1]])[0]), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov="unscaled")
    scatter = np.sum((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2) / (len(x) - 2)
    return float(slope), float(np.sqrt(scatter * covariance[0, 0]))


def summarise(config: Config, records: list[Record], preset: str) -> dict[str, Any]:
    """Headline numbers: the curves, their slopes, the floor, and what did not converge."""
    *sweep, floor = (record.arrays for record in records)
    curves = {}
    for k, name in enumerate(OBSERVATION_SETS):
        curve = {"L": [float(a["radius"]) for a in sweep]}
        scalars = [q for q in sweep[0] if sweep[0][q].shape == (len(OBSERVATION_SETS),)]
        for quantity in scalars:
            curve[quantity] = [a[quantity][k].item() for a in sweep]
            curve.setdefault("floor", {})[quantity] = floor[quantity][k].item()
        for quantity in ("geometry_error", "energy_error"):
            slope, spread = fitted_slope(np.array(curve["L"]), np.array(curve[quantity]))
            curve[f"{quantity}_slope"] = [slope, spread]
        curves[name] = curve
    return {
        "figure": "vacancy_convergence",
        "preset": preset,
        "seconds": round(sum(record.meta["seconds"] for record in records), 1),
        "n_functions": int(floor["n_functions"]),
        "target_sites": 2 * config.target**3,
        "formation_energy_reference": float(floor["formation_energy_reference"]),
        "all_converged": all(bool(np.all(a["converged"])) for a in (*sweep, floor)),
        "curves": curves,
    }


LABELS = {"E": "E", "EF": "E+F", "EFV": "E+F+V", "EFFC": "E+F+FC", "EFVFC": "E+F+V+FC"}
MARKERS = dict(zip(OBSERVATION_SETS, "osv^D", strict=True))
THEORY = {  # observations: slope of geometry and energy error in d = 3 (after Ortner–Wang, derived)
    "E+F": (-1.5, -3.0),
    "+V": (-3.5, -5.0),
    "+FC": (-4.5, -6.0),
}


def draw_curves(ax: Axes, summary: dict, quantity: str, unit: str, label: str, style="-") -> None:
    """One curve per observation set; the floor as an open symbol at the simulation's own size."""
    for colour, (name, curve) in zip(PALETTE, summary["curves"].items(), strict=False):
        x, y = np.array(curve["L"]), np.array(curve[quantity], float)
        ax.loglog(x, y, style, marker=MARKERS[name], color=colour, label=LABELS[name])
        draw_lost(ax, x, y, ~np.array(curve["converged"], bool))
        if name == "E":  # a few energies of large cells determine nothing: no floor
            continue
        end, height = [floor_radius(summary)], [curve["floor"][quantity]]
        ax.loglog([x[-1], *end], [y[-1], *height], ":", color=colour, lw=0.7)
        ax.loglog(end, height, MARKERS[name], color=colour, mfc="white")
        draw_lost(ax, np.array(end), np.array(height), np.array([not curve["floor"]["converged"]]))
    label_axes(ax, ("training-cell radius L", "Å"), (label, unit))
    ax.set_xticks([*curve["L"], *end], labels=[f"{r:.1f}" for r in (*curve["L"], *end)])
    ax.minorticks_off()


def draw_lost(ax: Axes, x: np.ndarray, y: np.ndarray, lost: np.ndarray) -> None:
    """Red crosses where the relaxation did not converge."""
    ax.loglog(x[lost], y[lost], "x", color="red", ms=9, mew=2)


def draw_guides(ax: Axes, summary: dict, quantity: str, which: int) -> None:
    """The theory's slopes, through the last point of the curve E+F."""
    curve = summary["curves"]["EF"]
    x, y = np.array(curve["L"]), np.array(curve[quantity])
    for observed, slopes in THEORY.items():
        reference_slope(ax, x, y, slopes[which])
        start = (x[0], y[-1] * (x[0] / x[-1]) ** slopes[which])
        ax.annotate(f"{observed}: {slopes[which]:g}", start, fontsize=7, color="0.3")


def floor_radius(summary: dict) -> float:
    return (summary["target_sites"] / 2) ** (1 / 3) * LATTICE_CONSTANT / 2


def draw_rigidity(ax: Axes, record: Record) -> None:
    """The LPR of every atom of the large cell, after training on the cells of one size."""
    distance, radius = record.arrays["distance"], float(record.arrays["radius"])
    rows = zip(PALETTE, OBSERVATION_SETS, record.arrays["rigidity"], strict=False)
    for colour, name, rigidity in rows:
        # A prediction that nothing pins down has LPR 0, which no logarithm shows: draw it lowest.
        shown = np.maximum(rigidity, 1e-12)
        ax.semilogy(distance, shown, ".", ms=2, color=colour, label=LABELS[name], rasterized=True)
    ax.axvline(radius, color="0.5", ls="--", lw=0.9)
    label_axes(ax, ("distance from the vacancy", "Å"), ("local prediction rigidity", "eV$^{-2}$"))
    ax.set_title(f"trained on L = {radius:.1f} Å (dashed)", fontsize=9)


def plot(summary: dict, records: list[Record]) -> Figure:
    figure, axes = plt.subplots(2, 4, figsize=(14.5, 7.6))
    (geometry, energy, forces, rigidity), (gap, virial, elastic, constants) = axes
    eta, tensor = r"$\eta$ in the large cell; RMSE (dotted)", "acoustic tensor; $C_{ij}$ (dotted)"
    draw_curves(geometry, summary, "geometry_error", "Å", "geometry error $||Du-Dû||$")
    draw_curves(energy, summary, "energy_error", "eV", "formation-energy error")
    draw_curves(forces, summary, "e_forces_negative_norm", "eV/Å", eta)
    draw_curves(forces, summary, "e_forces", "eV/Å", eta, ":")
    draw_curves(gap, summary, "e_energy", "eV", "error of $E - Ne$ at the reference's geometry")
    draw_curves(virial, summary, "e_virial", "eV", "virial RMSE, strained bulk")
    draw_curves(elastic, summary, "e_elastic", "GPa", tensor)
    draw_curves(elastic, summary, "e_elastic_constants", "GPa", tensor, ":")
    draw_curves(constants, summary, "e_force_constants", "eV/Å$^2$", "norm of one atom's")
    draw_guides(geometry, summary, "geometry_error", 0)
    draw_guides(energy, summary, "energy_error", 1)
    draw_rigidity(rigidity, records[-2])
    geometry.legend(fontsize=7, title="fitted to", title_fontsize=7)
    titles = {
        geometry: "Errors of the simulation: geometry",
        energy: "formation energy",
        forces: "Measured mismatches: forces",
        gap: "Measured mismatches: energy",
        virial: "virial",
        elastic: "elasticity",
        constants: "force constants",
    }
    for ax, title in titles.items():
        ax.set_title(title, fontsize=9)
    text = "\n".join(textwrap.fill(line, 230) for line in caption(summary).splitlines())
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01)
    return figure


def caption(summary: dict) -> str:
    """What the figure shows and what it does not, with this run's numbers."""

    def slopes(quantity: str) -> str:
        return ", ".join(
            f"{LABELS[n]} {c[quantity + '_slope'][0]:.1f}" for n, c in summary["curves"].items()
        )

    floor = summary["curves"]["EFVFC"]["floor"]
    lost = "" if summary["all_converged"] else " Red crosses: the relaxation did not converge."
    return (
        f"Vacancy in W (Zhou EAM), {summary['target_sites'] - 1} atoms, linear ACE with "
        f"{summary['n_functions']} functions. Open symbols: training cells as large as the "
        "simulation, the accuracy floor of this basis and these weights "
        f"({floor['geometry_error']:.1e} Å, {floor['energy_error']:.1e} eV with all observations); "
        "a curve near its open symbol shows the floor, not a rate.\n"
        "Dashed: rates of the theory (after Ortner–Wang, derived) for mismatches that do NOT "
        "change with L. Here every fit changes all of them (panels), so the slopes can neither "
        "confirm nor refute the theory; the mismatches explain the curves.\n"
        f"Measured slopes: geometry {slopes('geometry_error')}; energy {slopes('energy_error')}."
        + lost
    )


PRESETS = {
    "smoke": Config(
        sizes=(2, 3), target=5, order=2, degree=8, copies=40, lattice_cells=4, floor_copies=2
    ),
    "paper": Config(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    run = start("vacancy_convergence", PRESETS, argv, __doc__)
    began = time.perf_counter()
    records = list(run.records(points(run.config), compute))
    summary = summarise(run.config, records, run.preset)
    summary["wall_seconds"] = round(time.perf_counter() - began, 1)
    save_figure(plot(summary, records), run.folder / run.figure)
    print(caption(summary))
    return finish(summary, run.results)


if __name__ == "__main__":
    main()
