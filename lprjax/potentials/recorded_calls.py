"""Calculators whose results are kept in memory, counted on a bar, and given again with noise added.

What the noise of a calculator does to a long analysis is found by doing the analysis again, on the
same results with noise of the measured size (a parametric bootstrap): no further call is made, and
nothing about the analysis need be known.
"""

import hashlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from lprjax.numerics.differences import Noise
from lprjax.potentials.calculator_cache import PATIENCE, CachedCalculator
from lprjax.potentials.from_ase import ASEPotential, Told, known_noise
from lprjax.potentials.potential import Potential

QUIET = Noise(0.0, 0.0, 0.0)


class Recorder:
    """What is recorded of the calculators of some potentials, and the bar of their calls.

    Attributes:
        calls: how many calls each calculator was asked, by the name of its potential.
        draw: number of the noise that is added to what is recorded; None: results as they are.
    """

    def __init__(self) -> None:
        """Nothing is recorded yet."""
        self.calls: Counter[str] = Counter()
        self.draw: int | None = None
        self._bar = tqdm(
            total=0, delay=PATIENCE, leave=False, desc="calls",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
        )  # fmt: skip

    def expect(self, atoms: int) -> None:
        """So much more is to be computed.

        Args:
            atoms: the number of atoms of every call that is to come, summed.
        """
        self._bar.total = self._bar.n + atoms
        if atoms:
            self._bar.refresh()

    def count(self, who: str, atoms: int) -> None:
        """A call is made.

        Args:
            who: whose calculator is asked.
            atoms: of the structure.
        """
        self.calls[who] += 1
        asked = ", ".join(f"{n} calls of the {name}" for name, n in self.calls.items())
        self._bar.set_description_str(asked, refresh=False)
        self._bar.total = max(self._bar.total or 0, self._bar.n + atoms)
        self._bar.update(atoms)

    def step(self, done: str, parts: int) -> None:
        """A part of the work is done: what the bar counts where no calculator is called.

        Args:
            done: what it was.
            parts: how many there are in all.
        """
        if not self.calls:
            self._bar.set_description_str(f"{done}: done", refresh=False)
            self._bar.total = parts
            self._bar.update(1)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


class RecordedCalculator:
    """Gives what the calculator inside gives, computed once, or that with noise."""

    def __init__(self, potential: ASEPotential, who: str, recorder: Recorder) -> None:
        """Of a potential that measures its noise; `who` it is on the bar."""
        self.calculator, self.potential = potential.calculator, potential
        self.implemented_properties = list(self.calculator.implemented_properties)
        self.kind = potential.kind
        self._who, self._recorder = who, recorder
        self._found: dict[bytes, dict[str, np.ndarray]] = {}
        self._noise: dict[bytes, list[Told]] = {}

    def get_property(self, name: str, atoms: Atoms) -> np.ndarray:
        """A result.

        Args:
            name: of the property.
            atoms: the structure.

        Returns:
            What the calculator inside gives, with the noise of the draw where there is one.
        """
        parts = atoms.positions, atoms.cell.array, atoms.numbers, atoms.pbc
        key = hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()
        found = self._found.setdefault(key, {})
        if name not in found:
            if not found:
                self._recorder.count(self._who, len(atoms))
            found[name] = np.array(self.calculator.get_property(name, atoms), float)
        if self._recorder.draw is None:
            self._noise.setdefault(key, []).append(self._noise_now(atoms))
            return found[name]
        return found[name] + self._drawn(key, name, found[name].shape, atoms)

    def _noise_now(self, atoms: Atoms) -> Told:
        """Of the differences that this call is a point of, or of structures of its size."""
        if self.potential.line:
            return self.potential.line[-1]
        measured = self.potential.measured
        known = [known_noise(measured, "noise", len(atoms), strained) for strained in (True, False)]
        return Told(next((noise for noise in known if noise is not None), QUIET))

    def _drawn(self, key: bytes, name: str, shape: tuple[int, ...], atoms: Atoms) -> np.ndarray:
        """The same noise whenever the same is asked for; forces keep their sum. Of a call that was
        made in several ways, the largest."""
        noise = Noise(*map(max, QUIET, *(told.noise for told in self._noise.get(key, []))))
        kind = ("energy", "forces", "stress").index(name.removeprefix("free_"))
        random = np.random.default_rng([self._recorder.draw, kind, *key])
        if name == "forces":
            drawn = random.normal(0.0, noise.forces, shape)
            return drawn - drawn.mean(axis=0)
        if name == "stress":
            drawn = random.normal(0.0, noise.virial / atoms.get_volume(), shape)
            return drawn if shape == (6,) else 0.5**0.5 * (drawn + drawn.T)
        return random.normal(0.0, noise.energy, shape)


@contextmanager
def recorded(**potentials: Potential) -> Generator[tuple[Recorder, list[Any]]]:
    """The same potentials, those of calculators with their results recorded.

    Args:
        **potentials: by what they are called on the bar.

    Yields:
        The Recorder, and the potentials in their order: what has exact derivatives is unchanged.
    """
    recorder, found, silenced = Recorder(), [], []
    for who, potential in potentials.items():
        if isinstance(potential, ASEPotential):
            if isinstance(potential.calculator, CachedCalculator):
                silenced.append(potential.calculator)
            calculator = RecordedCalculator(potential, who, recorder)
            potential = replace(potential, calculator=calculator)
        found.append(potential)
    try:
        for cached in silenced:  # one bar is enough
            cached.silence()
        yield recorder, found
    finally:
        for cached in silenced:
            cached.silence(False)
        recorder.close()
