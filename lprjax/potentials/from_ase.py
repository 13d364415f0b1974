"""Any calculator of ASE as a potential: its numbers, and their differences where it has none.

A calculator gives the energy E, the forces F and the stress sigma; these are what comes out, to
the last digit. With positions R_i and lattice vectors h_r as rows, the gradients of E(R, h) are

    dE/dR = -F,    dE/dh = h^-T (V sigma - R^T dE/dR) ,

the second being what x -> (I + eps) x of both, whose energy rises by V sigma : eps, leaves for the
lattice vectors alone. All further derivatives are central differences of these two,

    d(dE/dx)[v] = (dE/dx(x + t v) - dE/dx(x - t v)) / (2 t),    t = step / max |v| ,

nested as often as it takes: two evaluations for a product with the Hessian, four for one with
third derivatives. They are taken in forward mode (`jax.jvp` of `jax.grad`, `jax.hessian`); a
`jax.grad` of a force has no transpose to go by.

How far apart is decided by the noise of the forces, which is measured on the first structure of a
size (`numerics.differences`). Force constants, elastic constants and far fields are not nested
differences but polynomials through five points on a line, of an order more: see `by_differences`
in `derivatives` and `strain_derivatives`.
"""

import math
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jax.custom_derivatives import SymbolicZero

from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Pbc
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.numerics.differences import (
    Noise,
    Steps,
    best_steps,
    noise_of_energies,
    noise_of_samples,
    places_of_noise,
    places_of_steps,
)
from lprjax.potentials.calculator_cache import check_calculator

ASYMMETRY = 1e-3
"""Of a stress, relative to its largest component: a choice, well above rounding in single precision
(1e-7 of terms that cancel) and well below the effect of a wrong order of components."""
ROUNDING = 1e-6
"""eV/Å^3, an asymmetry that any stress may have: a choice, single precision where terms cancel."""

ALIKE = 1.5
"""Numbers of atoms whose ratio is less have the same noise: a choice."""

# Callbacks run in XLA's threads, and a calculator keeps what it works on in itself.
_CALCULATOR_LOCK = threading.RLock()


@dataclass(frozen=True, eq=False)
class ASEPotential:
    """Site energies by a calculator of ASE; make it by `ase_potential`.

    Hashable by identity, so a valid static argument of `jit`: make it once and keep it, as each
    new one compiles everything anew.
    """

    by_differences: ClassVar[bool] = True  # see `strain_derivatives`
    calculator: Any  # of ASE
    step: float | None  # Å, largest displacement in a difference; None: by the noise
    r_cut: float  # Å
    measured: dict[Any, Any] = field(default_factory=dict, repr=False)  # noise, by size
    line: list["Told"] = field(default_factory=list, repr=False)  # of calls that are made now

    def __call__(self, graph: Graph) -> jax.Array:
        """E / n, eV, for each of n real atoms, zero on padding atoms.

        The sum is the energy; the shares mean nothing.
        """
        require_x64()
        energy = _energy(self, graph.pbc, graph.positions, graph.cell, graph.species)
        real = graph.atom_mask
        return jnp.where(real, energy / jnp.sum(real), 0.0)

    @property
    def kind(self) -> str:
        """What the calculator is called in messages."""
        return getattr(self.calculator, "kind", type(self.calculator).__name__)

    def noise(self, graph: Graph, *, strained: bool = False) -> Noise:
        """The noise of the calculator's numbers, from eight points 0.001 Å apart on a random line.

        It is measured once for structures of about one size (within ALIKE), and kept.

        Args:
            graph: n atoms, padding included; of known numbers.
            strained: of the stress as well.

        Returns:
            The Noise.

        Raises:
            ValueError, RuntimeError: what the calculator raises, or returns amiss.
            NotImplementedError: strained, and there is no stress.
        """
        n = n_atoms_of(graph.species)
        known = known_noise(self.measured, "noise", n, strained)
        if known is None:
            found = self._on_random_line(_numbers(graph), strained, places_of_noise())
            energies = noise_of_energies(found.energies, found.slopes)
            gradients = map(noise_of_samples, (found.forces, found.virials))
            known = self.measured["noise", n, strained] = Noise(energies, *gradients)
        return known

    def steps(self, graph: Graph, *, strained: bool = False) -> Steps:
        """How far apart calls are best for derivatives, from 17 points on a random line.

        They are found once for structures of about one size (within ALIKE), and kept. A `step`
        that was given goes before them.

        Args:
            graph: n atoms, padding included; of known numbers.
            strained: the cell moves too.

        Returns:
            The Steps.

        Raises:
            ValueError, RuntimeError, NotImplementedError: as `noise`.
        """
        return self._steps(_numbers(graph), strained)

    def _steps(self, structure: tuple, strained: bool) -> Steps:
        n = n_atoms_of(structure[-1])
        steps = known_noise(self.measured, "steps", n, strained)
        if steps is None:
            found = self._on_random_line(structure, strained, places_of_steps())
            steps = best_steps(found.forces, found.virials, found.size)
            self.measured["steps", n, strained] = steps
        return steps if self.step is None else steps._replace(first=self.step, second=self.step)

    def _on_random_line(self, structure: tuple, strained: bool, places: np.ndarray) -> "_OnLine":
        """What the calculator gives there."""
        pbc, positions, cell, species = structure
        if strained:
            self._check_stress(pbc)
        asked = ("energy", "positions", "cell") if strained else ("energy", "positions")
        real = species != 0
        moves = np.random.default_rng(0).uniform(-1.0, 1.0, (len(real) + 3, 3))
        line, strain = moves[3:] * real[:, None], (moves[:3] + moves[:3].T) / 2.0
        size = (abs(np.linalg.det(cell)) / real.sum()) ** (1.0 / 3.0) if strained else math.inf
        rows = []
        for t in places:
            deformation = np.eye(3) + t / size * strain
            there = (positions + t * line) @ deformation, cell @ deformation
            energy, gradient, *rest = self._evaluate(asked, pbc, *there, species)
            virial = there[0].T @ gradient + there[1].T @ (rest[0] if rest else np.zeros((3, 3)))
            slope = np.vdot(gradient, line @ deformation)
            if strained:
                slope += np.vdot(virial, np.linalg.solve(deformation, strain)) / size
            rows.append((energy, slope, gradient[real], virial if strained else virial[:0]))
        return _OnLine(*map(np.stack, zip(*rows, strict=True)), size)

    @contextmanager
    def on_a_line(self, noise: Noise) -> Generator["Told"]:
        """While it lasts, calls are points of differences, of this noise or what it is told."""
        self.line.append(told := Told(noise))
        try:
            yield told
        finally:
            self.line.remove(told)

    def _step_at(self, pbc: Pbc, strained: bool, *structure: Any) -> np.ndarray:
        """The step of a central difference, (), Å; runs in XLA's thread."""
        if self.step is not None:
            return np.asarray(self.step)
        return np.asarray(0.5 * self._steps((pbc, *map(np.asarray, structure)), strained).first)

    def _check_stress(self, pbc: Pbc) -> None:
        if any(pbc) and "stress" not in self.calculator.implemented_properties:
            raise NotImplementedError(
                f"{self.kind} has no stress, so there is no derivative with "
                "respect to the cell (virial, equilibrium, elastic constants): keep the cell "
                "fixed (forces, force constants, relax), or use a calculator with 'stress' among "
                "its implemented_properties."
            )

    def _evaluate(
        self, asked: tuple[str, ...], pbc: Pbc, positions: Any, cell: Any, species: Any
    ) -> list[np.ndarray]:
        """The asked of "energy" (), "positions" (n, 3), "cell" (3, 3): E and its gradients.

        Runs in XLA's thread, so without any call of jax: that would wait for itself.
        """
        positions, cell, species = np.asarray(positions), np.asarray(cell), np.asarray(species)
        real, gradient, slope = species != 0, np.zeros(positions.shape), np.zeros((3, 3))
        atoms = Atoms(species[real], positions[real], cell=cell, pbc=pbc)
        strained = "cell" in asked and any(pbc)
        with _CALCULATOR_LOCK:
            atoms.calc = self.calculator
            # what costs most goes first: most codes then have the rest in hand
            if strained:
                slope = atoms.get_volume() * self._property("stress", atoms)
            if len(asked) > 1:
                gradient[real] = -self._property("forces", atoms)
            energy = self._property(self._energy_name, atoms)
        if strained:
            slope = np.linalg.solve(cell.T, slope - positions.T @ gradient)
        found: dict[str, Any] = {"energy": energy, "positions": gradient, "cell": slope}
        return [found[name] for name in asked]

    def _property(self, name: str, atoms: Atoms) -> np.ndarray:
        """A result of the calculator: energy (), forces (n, 3) or stress (3, 3), checked."""
        value = np.asarray(self.calculator.get_property(name, atoms), dtype=float)
        what = f"{name} of calculator {self.kind}"
        if name == "forces":
            return finite_array(what, value, (len(atoms), 3), "eV/Å")
        if name != "stress":  # some codes give the energy as an array of one element
            return finite_array(what, value.reshape(()) if value.size == 1 else value, (), "eV")
        if value.shape == (6,):
            value = voigt_6_to_full_3x3_stress(value)
        stress = finite_array(what, value, (3, 3), "eV/Å^3 (or its six Voigt components)")
        allowed = max(ASYMMETRY * np.abs(stress).max(), ROUNDING)
        if np.abs(stress - stress.T).max() > allowed:
            raise ValueError(f"{what} is {stress.tolist()}: wanted a symmetric one.")
        return 0.5 * (stress + stress.T)

    @property
    def _energy_name(self) -> str:
        """The energy that the forces derive from, where electrons are smeared the free one."""
        properties = self.calculator.implemented_properties
        return "free_energy" if "free_energy" in properties else "energy"


@dataclass
class Told:
    """The noise of calls on one line, which may come to be known after them."""

    noise: Noise


class _OnLine(NamedTuple):
    """Of a calculator at k points on a line."""

    energies: np.ndarray  # (k,) eV
    slopes: np.ndarray  # (k,) eV/Å, of the energy, by the gradients
    forces: np.ndarray  # (k, n, 3) eV/Å, negative
    virials: np.ndarray  # (k, 3, 3) eV, negative, or (k, 0, 3)
    size: float  # Å per unit of strain


def _numbers(graph: Graph) -> tuple[Pbc, np.ndarray, np.ndarray, np.ndarray]:
    return graph.pbc, *map(np.asarray, (graph.positions, graph.cell, graph.species))


def n_atoms_of(species: Any) -> int:
    """How many atoms a structure has.

    Args:
        species: (n,) atomic numbers, 0 of padding.

    Returns:
        The number of those that are no padding.
    """
    return int(np.sum(np.asarray(species) != 0))


def known_noise(measured: Mapping[Any, Any], what: str, n: int, strained: bool) -> Any:
    """What was measured of a structure of about a size: a defect's lattice has that of the defect.

    Args:
        measured: of an `ASEPotential`.
        what: "noise" or "steps".
        n: number of atoms.
        strained: whether of strained cells.

    Returns:
        The Noise or Steps of the structure nearest in size, or None.
    """
    sizes = [key[1] for key in measured if key[0] == what and key[2] == strained]
    near = min(sizes, key=lambda m: abs(math.log(m / n)), default=None)
    if near is None or abs(math.log(near / n)) > math.log(ALIKE):
        return None
    return measured[what, near, strained]


def ase_potential(
    calculator: Any,
    *,
    step: float | None = None,
    r_cut: float = 1.0,
) -> ASEPotential:
    """A calculator of ASE as a potential: observed, relaxed and compared like any other.

    The energy is the one whose derivative the forces are: `free_energy` where the calculator has
    it, as `read_extxyz` takes it from a file.

    Energies, forces and virials are the calculator's; force constants, elastic constants and all
    else of second or higher order are differences of its forces and stress. It runs on
    the host, one structure at a time, also from within `jit`, `vmap` and loops; an error that it
    raises there comes out as JAX's, its text with it. So does an error of what it returns: numbers
    that are not finite, or an energy, forces or a stress of another shape. An energy may be an
    array of one element, and a stress (3, 3) or the six components of Voigt. The periodicity is
    that of the graph.

    Args:
        calculator: of `ase.calculators` or of that kind. It must not run JAX in this process:
            a callback that waits for JAX can wait for ever.
        step: largest displacement of any coordinate, of atoms or lattice vectors, in a
            difference, Å. None: for each order of derivative the one at which it changes least;
            17 calls find it, for structures of about one size.
        r_cut: how far the graph's edges go, Å. The calculator finds its neighbours itself and
            uses none of them: the default makes them few, and is right wherever `r_cut` sets the
            graph and nothing else; where it is also taken for the range of the forces, give that.

    Returns:
        The potential.

    Raises:
        TypeError: no calculator with `implemented_properties` and `get_property`.
        ValueError: a calculator without energy or forces; step or r_cut out of range.
    """
    name = type(calculator).__name__
    check_calculator(calculator)
    missing = {"energy", "forces"} - set(calculator.implemented_properties)
    if missing:
        raise ValueError(
            f"calculator {name} has no {' and no '.join(sorted(missing))}: wanted one with energy "
            "and forces."
        )
    lengths = {"r_cut": r_cut} if step is None else {"step": step, "r_cut": r_cut}
    for option, value in lengths.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{option} is {value!r}: wanted a positive length in Å.")
    return ASEPotential(calculator, None if step is None else float(step), float(r_cut))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _energy(potential, pbc, positions, cell, species):
    return _call(potential, pbc, ("energy",), positions, cell, species)[0]


@partial(_energy.defjvp, symbolic_zeros=True)
def _energy_jvp(potential, pbc, primals, tangents):
    """The gradients that a tangent asks for, so that no stress is computed for a fixed cell."""
    moved = {
        name: tangent
        for name, tangent in zip(("positions", "cell"), tangents[:2], strict=True)
        if not isinstance(tangent, SymbolicZero)
    }
    if "cell" in moved:
        potential._check_stress(pbc)
    energy, *gradients = _labels(potential, pbc, ("energy", *moved), *primals)
    slopes = [jnp.vdot(g, v) for g, v in zip(gradients, moved.values(), strict=True)]
    return energy, sum(slopes, jnp.zeros(()))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _labels(potential, pbc, asked, positions, cell, species):
    return _call(potential, pbc, asked, positions, cell, species)


@partial(_labels.defjvp, symbolic_zeros=True)
def _labels_jvp(potential, pbc, asked, primals, tangents):
    """Central differences, of a function whose tangents are central differences again."""
    *variables, species = primals
    direction = [
        jnp.zeros_like(x) if isinstance(v, SymbolicZero) else v
        for x, v in zip(variables, tangents[:2], strict=True)
    ]
    size = jnp.maximum(*(jnp.max(jnp.abs(v)) for v in direction))
    step = jax.pure_callback(
        partial(potential._step_at, pbc, not isinstance(tangents[1], SymbolicZero)),
        jax.ShapeDtypeStruct((), variables[0].dtype),
        *jax.lax.stop_gradient((*variables, species)),
        vmap_method="sequential",
    )
    t = jax.lax.stop_gradient(step / jnp.where(size > 0, size, 1.0))

    def at(t):
        there = [x + t * v for x, v in zip(variables, direction, strict=True)]
        return _labels(potential, pbc, asked, *there, species)

    differences = [(ahead - behind) / (2 * t) for ahead, behind in zip(at(t), at(-t), strict=True)]
    return _labels(potential, pbc, asked, *primals), differences


def _call(potential, pbc, asked, positions, cell, species):
    shapes = {"energy": (), "positions": positions.shape, "cell": cell.shape}
    return jax.pure_callback(
        partial(potential._evaluate, asked, pbc),
        [jax.ShapeDtypeStruct(shapes[name], positions.dtype) for name in asked],
        positions,
        cell,
        species,
        vmap_method="sequential",
    )
