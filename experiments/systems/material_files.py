"""Materials from files: a potential of one's own as the reference of every experiment.

A TOML file says what it is:

    element = "Cu"
    crystal = "fcc"                             # bcc, fcc or diamond
    lattice_constant = 3.6                      # Å, where the search for the true one starts
    reference = "Cu_mishin1.eam.alloy"          # an EAM table, beside this file
    name = "Cu-Mishin"                          # in figures; the file's name if it is left out
    r_cut = 5.4                                 # Å, of the basis; the crystal's if it is left out

or, for `reference`, "package.module:function", a function that returns a potential, or
"ase:package.module:Calculator", a calculator of ASE. A table [options] is passed to the function,
the calculator or `eam_from_file`; [differences] (step, r_cut) to `ase_potential`.

A material is named by its file, `--material copper.toml`, and what was computed of it by the file
and a hash of what is in it and in the table it names: others are computed anew. The code of a
function or calculator is not seen by that hash.
"""

import hashlib
import importlib
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lprjax.potentials import ase_potential, eam_from_file
from lprjax.potentials.potential import Potential

WANTED = {"element": str, "crystal": str, "lattice_constant": float, "reference": str}
ALLOWED = {"name": str, "r_cut": float, "options": dict, "differences": dict}
MARK = "@"


class MaterialFile(NamedTuple):
    """What a file says."""

    path: Path
    name: str
    element: str
    crystal: str
    lattice_constant: float  # Å
    r_cut: float  # Å; 0: the crystal's
    reference: str
    options: dict[str, Any]
    differences: dict[str, Any]

    def build(self) -> Potential:
        """The reference potential.

        Raises:
            ValueError: a module, function or file that is not there; `differences` of what is no
                calculator.
        """
        kind, _, rest = self.reference.partition(":")
        if self.differences and kind != "ase":
            raise ValueError(f"{self.path}: differences are of calculators: leave them out.")
        if not rest:
            return eam_from_file(self.table, [self.element], **self.options)
        make = _imported(self.path, rest if kind == "ase" else self.reference)
        made = make(**self.options)
        return ase_potential(made, **self.differences) if kind == "ase" else made

    @property
    def table(self) -> Path:
        """The file of the reference, where that is one."""
        return self.path.parent / self.reference

    @property
    def digest(self) -> str:
        """Of what is in the file and in the table it names."""
        files = (self.path,) if ":" in self.reference else (self.path, self.table)
        hashes = "".join(_hash(file, *_state(file)) for file in files)
        return hashlib.sha256(hashes.encode()).hexdigest()[:12]


def _state(file: Path) -> tuple[int, int]:
    """When a file was written, ns, and its bytes: what tells whether it has to be read again."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _hash(file: Path, written: int, size: int) -> str:
    """Of a file's content, read once for each state of it: configurations ask often."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_file(name: str) -> bool:
    """Whether a material is named by its file."""
    return name.partition(MARK)[0].endswith(".toml")


def canonical(name: str) -> str:
    """The name of a material as records have it: of a file, its place and what is in it.

    Args:
        name: "copper.toml", or that with a hash; any other name passes.

    Returns:
        "/place/of/copper.toml@hash".

    Raises:
        ValueError: as `read`.
    """
    if not is_file(name):
        return name
    found = read(name)
    return f"{found.path}{MARK}{found.digest}"


def read(name: str) -> MaterialFile:
    """What a file says.

    Args:
        name: of the file, with the hash of what it should hold or without.

    Returns:
        Its content.

    Raises:
        ValueError: no such file, or none of its table; no TOML; keys that are missing, unknown or
            of another type; a name that is no word, lengths that are none; other content than the
            hash says.
    """
    text, _, digest = name.partition(MARK)
    path = Path(text).resolve()
    try:
        whole = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: wanted the TOML file of a material.") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}.") from None
    kinds = WANTED | ALLOWED
    missing, unknown = WANTED.keys() - whole.keys(), whole.keys() - kinds.keys()
    if missing or unknown:
        raise ValueError(
            f"{path} lacks {sorted(missing)} and has {sorted(unknown)}: wanted the keys "
            f"{', '.join(WANTED)} and, if need be, {', '.join(ALLOWED)}."
        )
    whole = {k: float(v) if kinds[k] is float and type(v) is int else v for k, v in whole.items()}
    wrong = [k for k, v in whole.items() if not isinstance(v, kinds[k])]
    if wrong:
        k = wrong[0]
        raise ValueError(f"{k} of {path} is {whole[k]!r}: wanted a {kinds[k].__name__}.")
    defaults = {"name": path.stem, "r_cut": 0.0, "options": {}, "differences": {}}
    found = MaterialFile(path, **(defaults | whole))
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
    if ":" not in found.reference and not found.table.is_file():
        raise ValueError(
            f"reference of {path} is {found.reference!r}: wanted a file beside it, "
            "'module:function' or 'ase:module:Calculator'."
        )
    if digest and digest != found.digest:
        raise ValueError(
            f"{path} has changed since {digest} was asked for: wanted the same until a run is over."
        )
    return found


def _imported(path: Path, name: str) -> Any:
    """What "module:name" is."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"reference of {path} is {name!r}, of which {error}: wanted 'module:function' that "
            "Python can import here; install it, or set PYTHONPATH."
        ) from None
