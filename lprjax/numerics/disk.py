"""Files that are written whole or not at all, packed as their names say."""

import bz2
import gzip
import lzma
import os
import secrets
import zlib
from pathlib import Path

_PACKERS = {".gz": gzip, ".bz2": bz2, ".xz": lzma}


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one step: readers and other writers see the old one or the new one.

    A process that is killed in between leaves the old one, and a hidden file `.*.tmp` beside it.

    Args:
        path: of the file, in a folder that is there.
        content: all of it.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text in one step, packed where the name ends in .gz, .bz2 or .xz.

    Args:
        path: of the file.
        text: all of it, written as UTF-8.
    """
    packer = _PACKERS.get(Path(path).suffix)
    content = text.encode()
    replace_file(path, packer.compress(content) if packer else content)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, unpacked where its name ends in .gz, .bz2 or .xz.

    Args:
        path: of the file, taken as it is: no part of it is an index or a pattern.

    Returns:
        The text, lines ending in a newline each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is no text in UTF-8, or not packed as its name says.
    """
    content, packer = Path(path).read_bytes(), _PACKERS.get(Path(path).suffix)
    try:
        content = packer.decompress(content) if packer else content
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} is not packed as its name says, or cut short ({error}): wanted a "
            f"{Path(path).suffix} file; unpacked text goes under a name without it."
        ) from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): wanted UTF-8.") from error
    return text.replace("\r\n", "\n")
