"""Materials from files: a potential of one's own as the reference of every experiment.

What is in such a file, `lprjax/potentials/named_references.py` says. A material is named by its
file, `--material copper.toml`, and what was computed of it by the file and a hash of what is in it
and in the table it names: others are computed anew. The code of a function or calculator is not
seen by that hash.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from lprjax.potentials.named_references import MaterialFile, read_material

MARK = "@"


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
    return f"{found.path}{MARK}{digest(found)}"


def read(name: str) -> MaterialFile:
    """What a file says.

    Args:
        name: of the file, with the hash of what it should hold or without.

    Returns:
        Its content.

    Raises:
        ValueError: as `read_material`; other content than the hash says.
    """
    path, _, wanted = name.partition(MARK)
    found = read_material(path)
    if wanted and wanted != digest(found):
        raise ValueError(
            f"{found.path} has changed since {wanted} was asked for: wanted the same until a run "
            "is over."
        )
    return found


def digest(found: MaterialFile) -> str:
    """A hash of what is in a file and in the table it names.

    Args:
        found: what the file says.

    Returns:
        12 hexadecimal digits.
    """
    hashes = "".join(_hash(file, *_state(file)) for file in found.files)
    return hashlib.sha256(hashes.encode()).hexdigest()[:12]


def _state(file: Path) -> tuple[int, int]:
    """When a file was written, ns, and its bytes: what tells whether it has to be read again."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _hash(file: Path, written: int, size: int) -> str:
    """Of a file's content, read once for each state of it: configurations ask often."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
