"""Calculators of ASE that remember: what was computed once is read from disk.

An audit by a slow calculator makes hundreds of calls. With its results kept, one that was
interrupted goes on where it was, and another question about the same structures costs nothing.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from tqdm import tqdm

from lprjax.numerics.disk import replace_file

PATIENCE = 5.0  # s, before a bar is shown


class CachedCalculator(Calculator):
    """A calculator and a folder of its results; make it by `cached_calculator`."""

    def __init__(self, calculator: Any, folder: Path) -> None:
        """Keep both; see `cached_calculator`."""
        super().__init__()
        self.calculator, self.folder = calculator, folder
        self.implemented_properties = list(calculator.implemented_properties)
        self.kind = type(calculator).__name__
        self.calls = 0  # of the calculator itself
        self._bar: Any = None
        self._quiet = False

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Read the results of a structure, or compute and keep them.

        Args:
            atoms: the structure.
            properties: what is asked for.
            system_changes: not looked at: the file is of one structure.
        """
        path = self.folder / f"{self._key(atoms)}.npz"
        self.atoms, self.results = atoms.copy(), _read(path)
        missing = [name for name in properties if name not in self.results]
        if not missing:
            return
        if self._bar is None and not self._quiet:
            self._bar = tqdm(desc=self.kind, unit=" calls", delay=PATIENCE, leave=False)
        self.results |= {name: self.calculator.get_property(name, atoms) for name in missing}
        for name in self.implemented_properties:  # what came along is kept too
            value = getattr(self.calculator, "results", {}).get(name)
            if value is not None:
                self.results[name] = value
        self.calls += 1
        if self._bar is not None:
            self._bar.update()
        content = io.BytesIO()
        kept: dict[str, Any] = {k: np.asarray(v, float) for k, v in self.results.items()}
        np.savez(content, **kept)
        replace_file(path, content.getvalue())

    def silence(self, quiet: bool = True) -> None:
        """Count without a bar of its own, or with one again.

        Args:
            quiet: without.
        """
        self._quiet = quiet
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _key(self, atoms: Atoms) -> str:
        """A hash of all that a structure is, to the last bit, and of the calculator's class."""
        found = hashlib.sha256(f"{type(self.calculator).__module__}.{self.kind}".encode())
        arrays = {**atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc}
        for name, value in sorted(arrays.items()):
            value = value + 0.0 if value.dtype.kind == "f" else value  # one zero
            found.update(f"{name}{value.dtype.str}{value.shape}".encode() + value.tobytes())
        return found.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is not there, or damaged."""
    try:
        with np.load(path) as file:
            return {name: file[name] if file[name].ndim else float(file[name]) for name in file}
    except (FileNotFoundError, ValueError, EOFError, OSError, zipfile.BadZipFile):
        return {}


def check_calculator(calculator: Any) -> None:
    """Refuse what is no calculator of ASE.

    Args:
        calculator: of `ase.calculators` or of that kind.

    Raises:
        TypeError: no object with `implemented_properties` and `get_property`.
    """
    usable = all(hasattr(calculator, part) for part in ("get_property", "implemented_properties"))
    if isinstance(calculator, type) or not usable:
        raise TypeError(
            f"calculator is a {type(calculator).__name__}: wanted one of ase.calculators, e.g. "
            "EMT(), an object with implemented_properties and get_property."
        )


def cached_calculator(calculator: Any, folder: str | Path) -> CachedCalculator:
    """A calculator of ASE whose results are kept on disk, one file for each structure.

        potential = lp.ase_potential(cached_calculator(Vasp(...), "vasp_pbe_600eV"))

    The class of the calculator is part of a file's name. Its settings, or the weights of a model,
    are not: give each a folder of its own. A structure is the same if all its numbers are, to the
    last bit. Calls are counted on a progress bar.

    Args:
        calculator: of `ase.calculators` or of that kind, with `results` if all that it finds at
            once is to be kept.
        folder: of the results; made if it is not there.

    Returns:
        The calculator, of the same properties (energy in eV, forces in eV/Å, stress in eV/Å^3 as
        the calculator has them); `calls` counts how often the one inside was asked.

    Raises:
        TypeError: no calculator with `implemented_properties` and `get_property`.
        NotADirectoryError, FileExistsError: a folder that cannot be made.
    """
    check_calculator(calculator)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return CachedCalculator(calculator, folder)
