"""Reference potentials by name, and materials from files, for command lines and experiments.

A name is one of BUILT_IN, the EAM table of a file, "package.module:function", a function that
returns a potential, or "ase:package.module:Calculator", a calculator of ASE.

A TOML file says what a material is:

    element = "Cu"
    crystal = "fcc"                             # bcc, fcc or diamond
    lattice_constant = 3.6                      # Å, where the search for the true one starts
    reference = "Cu_mishin1.eam.alloy"          # a name as above; tables are beside this file
    name = "Cu-Mishin"                          # in figures; the file's name if it is left out
    r_cut = 5.4                                 # Å, of the basis; the crystal's if it is left out
    cache = "calls"                             # folder beside the file, of a calculator's results

A table [options] is passed to the function, the calculator or `eam_from_file`; [differences] (step,
r_cut) to `ase_potential`.
"""

import hashlib
import importlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from lprjax.atoms.structures import Structure, bcc, diamond, fcc
from lprjax.potentials.calculator_cache import cached_calculator
from lprjax.potentials.eam import ZHOU_2004, ZhouEAM, zhou_eam
from lprjax.potentials.eam_tables import eam_from_file
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.potential import Potential
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.potentials.tersoff import tersoff

CRYSTALS: dict[str, Callable[..., Structure]] = {"bcc": bcc, "fcc": fcc, "diamond": diamond}
"""What makes the crystals of one element, by name, of element and lattice constant."""
BONDS = {"bcc": np.sqrt(3) / 2, "fcc": np.sqrt(1 / 2), "diamond": np.sqrt(3) / 4}
"""Nearest-neighbour distance over lattice constant, of each of CRYSTALS."""
FCC_CUTOFF = 1.65
"""Of the EAM of Zhou et al., over the lattice constant: between two shells, see `zhou_eam`."""
FCC = frozenset(("Cu", "Ni", "Al"))
"""Those of its metals that are."""

WANTED = {"element": str, "crystal": str, "lattice_constant": float, "reference": str}
ALLOWED = {"name": str, "r_cut": float, "cache": str, "options": dict, "differences": dict}


def _zhou(elements: Sequence[str], **options: Any) -> ZhouEAM:
    if elements and FCC.issuperset(elements) and "r_cut" not in options:
        largest = max(ZHOU_2004[element].re for element in elements) / BONDS["fcc"]
        options = options | {"r_cut": FCC_CUTOFF * largest}
    return zhou_eam(*elements, **options)


BUILT_IN: dict[str, Callable[..., Potential]] = {
    "zhou": _zhou,
    "stillinger-weber": lambda elements, **options: stillinger_weber(**options),
    "tersoff": lambda elements, **options: tersoff(**options),
}
"""What makes the potentials with published parameters, of the elements in question: the EAM of
Zhou et al. (fcc metals with a cutoff between two shells of their crystal), and two of silicon."""


def named_reference(
    name: str,
    elements: Sequence[str] = (),
    *,
    folder: str | Path = ".",
    options: Mapping[str, Any] | None = None,
    differences: Mapping[str, float] | None = None,
    cache: str | Path | None = None,
) -> Potential:
    """The potential of that name, see the top of the file.

    Args:
        name: "zhou", "Cu.eam.alloy", "mine.potentials:make" or "ase:chgnet.model:CHGNetCalculator".
        elements: in question, by symbol, for "zhou" and tables, which may hold others; none: all.
        folder: where a table is.
        options: passed to what makes it.
        differences: passed to `ase_potential`, for calculators.
        cache: where the results of a calculator are kept, in a folder of its name and options, see
            `cached_calculator`; None: nowhere.

    Returns:
        The potential.

    Raises:
        ValueError: a module, function or file that is not there; `differences` of what is no
            calculator; and as what makes it.
    """
    options, kind, rest = dict(options or {}), *name.partition(":")[::2]
    if differences and kind != "ase":
        raise ValueError(f"differences are of calculators, and {name!r} is none: leave them out.")
    if name in BUILT_IN:
        return BUILT_IN[name](elements, **options)
    if kind == "ase":
        calculator = _imported(rest)(**options)
        if cache is not None:
            told = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:8]
            place = Path(cache) / f"{re.sub(r'[^A-Za-z0-9.]+', '_', rest)}-{told}"
            calculator = cached_calculator(calculator, place)
        return ase_potential(calculator, **(differences or {}))
    if rest:
        return _imported(name)(**options)
    table = Path(folder) / name
    if not table.is_file():
        raise ValueError(
            f"reference is {name!r}: wanted a file that there is, one of {', '.join(BUILT_IN)}, "
            "'module:function' or 'ase:module:Calculator'."
        )
    return eam_from_file(table, list(elements) or None, **options)


def _imported(name: str) -> Any:
    """What "module:name" is."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"reference is {name!r}, of which {error}: wanted 'module:function' that Python can "
            "import here; install it, or set PYTHONPATH."
        ) from None


class MaterialFile(NamedTuple):
    """What the TOML file of a material says, see the top of the file."""

    path: Path
    name: str
    element: str
    crystal: str  # one of CRYSTALS
    lattice_constant: float  # Å, a guess
    r_cut: float  # Å; 0: the crystal's
    reference: str
    options: dict[str, Any]
    differences: dict[str, Any]
    cache: str = ""  # folder of a calculator's results, beside the file; "": none

    def build(self, cache: str | Path | None = None) -> Potential:
        """The reference potential.

        Args:
            cache: where the results of a calculator are kept if the file does not say it.

        Raises:
            ValueError: as `named_reference`; it names the file.
        """
        place = self.path.parent / self.cache if self.cache else cache
        more = {"options": self.options, "differences": self.differences, "cache": place}
        try:
            found = named_reference(self.reference, [self.element], folder=self.path.parent, **more)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that it is made of: itself and the table, where it names one."""
        table = self.path.parent / self.reference
        in_words = ":" in self.reference or self.reference in BUILT_IN
        return (self.path,) if in_words else (self.path, table)


def read_material(path: str | Path) -> MaterialFile:
    """What the TOML file of a material says.

    Args:
        path: of the file.

    Returns:
        Its content.

    Raises:
        ValueError: no such file, or none of its table; no TOML; keys that are missing, unknown or
            of another type; a crystal or element that is none; a name that is no word, lengths that
            are none.
    """
    path = Path(path).resolve()
    try:
        whole = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: wanted the TOML file of a material.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}.") from None
    kinds = WANTED | ALLOWED
    missing, unknown = WANTED.keys() - whole.keys(), whole.keys() - kinds.keys()
    if missing or unknown:
        raise ValueError(
            f"{path} lacks {sorted(missing)} and has {sorted(unknown)}: wanted the keys "
            f"{', '.join(WANTED)} and, if need be, {', '.join(ALLOWED)}."
        )
    found: dict[str, Any] = {"name": path.stem, "r_cut": 0.0, "options": {}, "differences": {}}
    for k, v in whole.items():
        found[k] = float(v) if kinds[k] is float and type(v) is int else v
        if not isinstance(found[k], kinds[k]):
            raise ValueError(f"{k} of {path} is {v!r}: wanted a {kinds[k].__name__}.")
    return _checked(MaterialFile(path, **found))


def _checked(found: MaterialFile) -> MaterialFile:
    path = found.path
    if not re.fullmatch(r"[\w.+-]+", found.name):
        raise ValueError(
            f"name of {path} is {found.name!r}: wanted letters, digits and . + - _ alone, for "
            "names of figures and files; give a name in the file."
        )
    if not (found.lattice_constant > 0 and found.r_cut >= 0):
        raise ValueError(
            f"lattice_constant of {path} is {found.lattice_constant} Å and r_cut {found.r_cut} Å: "
            "wanted a positive length, and one or none."
        )
    if found.crystal not in CRYSTALS or found.element not in atomic_numbers:
        raise ValueError(
            f"{path} is of {found.element!r}, {found.crystal!r}: wanted a chemical symbol and one "
            f"of {', '.join(CRYSTALS)}."
        )
    if not all(file.is_file() for file in found.files):
        raise ValueError(
            f"reference of {path} is {found.reference!r}: wanted a file beside it, one of "
            f"{', '.join(BUILT_IN)}, 'module:function' or 'ase:module:Calculator'."
        )
    return found
