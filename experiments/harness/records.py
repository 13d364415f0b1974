"""Records: one file per computed point, so that a rerun computes only what is missing (`sweeps`).

A record is a NumPy archive (`numpy.load` opens it) followed by the SHA-256 of all its bytes. Its
name is a hash of the experiment's name, the point and the version, and it holds the arrays and the
JSON metadata. It is written under a temporary name and renamed: a reader sees all of it or none.
A file that is damaged, or holds another point than its name says, is computed anew; so is one of
another version of the library or of other code (`sources.code_hash`).
"""

import dataclasses
import datetime
import hashlib
import io
import json
import platform
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import lprjax
from lprjax.numerics.disk import replace_file

FORMAT = 1
"""Version of the file format; a new one leaves every stored record unread."""

_META = "meta.json"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Record(NamedTuple):
    """What was computed for one point.

    Attributes:
        point: the point, as it was asked for.
        arrays: numbers, strings or bools, by name.
        meta: the identity of the point, versions, device, seconds and date.
    """

    point: Any
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def identity(point: Any, experiment: str, version: int = 1) -> dict[str, Any]:
    """What a record is a record of, in plain JSON values.

    Args:
        point: a dataclass instance or mapping of plain values (numbers, strings, bools, None,
            tuples and mappings of them). Its type's name is part of it.
        experiment: the experiment's name.
        version: the experiment's version, to be raised when its code computes something else.

    Returns:
        format, experiment, version, kind (the type's name) and point.

    Raises:
        TypeError: a value is not plain.
        ValueError: a number is not finite.
    """
    if dataclasses.is_dataclass(point) and not isinstance(point, type):
        values = dataclasses.asdict(point)
    elif isinstance(point, Mapping):
        values = dict(point)
    else:
        raise TypeError(f"point is {point!r}: wanted a dataclass instance or a mapping.")
    kind = type(point).__name__
    whole = dict(format=FORMAT, experiment=experiment, version=version, kind=kind, point=values)
    try:
        return json.loads(json.dumps(whole, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        message = f"point holds {values} ({error}): wanted finite, plain values only."
        raise type(error)(message) from None


def record_path(folder: str | Path, who: Mapping[str, Any]) -> Path:
    """The file of a record: its name is a hash of the identity, the same on every machine.

    Args:
        folder: where the records are.
        who: the identity, see :func:`identity`.

    Returns:
        the path, whether or not there is a file.
    """
    text = json.dumps(who, sort_keys=True, allow_nan=False)
    return Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


def save(
    folder: str | Path,
    point: Any,
    arrays: Mapping[str, Any],
    *,
    experiment: str | None = None,
    version: int = 1,
    seconds: float = float("nan"),
    code: str | None = None,
) -> Record:
    """Write the record of a point, replacing an older one.

    Args:
        folder: made if it is not there.
        point: see :func:`identity`.
        arrays: numbers or arrays of numbers, strings or bools, by name.
        experiment: name of the experiment; the folder's name if not given.
        version: version of the experiment.
        seconds: how long the computation took (s).
        code: hash of what computed it.

    Returns:
        the record as it was written.

    Raises:
        TypeError: an array would hold Python objects.
    """
    folder = Path(folder)
    who = identity(point, experiment or folder.name, version)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in arrays.items():
        if value.dtype == object:
            raise TypeError(
                f"array {name!r} holds Python objects: wanted numbers, strings or bools."
            )
    device = jax.devices()[0]
    meta = {
        "identity": who,
        "versions": {
            "lprjax": lprjax.__version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "code": code,
        "device": f"{device.platform}: {device.device_kind}",
        "seconds": round(seconds, 3) if np.isfinite(seconds) else None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy.savez, but free to name an array "file"
        for name, value in {_META: np.array(json.dumps(meta)), **arrays}.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    payload = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(record_path(folder, who), payload + hashlib.sha256(payload).digest())
    return Record(point, arrays, meta)


def load(
    folder: str | Path, point: Any, *, experiment: str | None = None, version: int = 1
) -> Record | None:
    """The stored record of a point, or None where there is no valid one.

    A file that is cut short, altered, or holds another point is reported by a `RuntimeWarning`
    that says which.

    Args:
        folder: where the records are.
        point: see :func:`identity`.
        experiment: name of the experiment; the folder's name if not given.
        version: version of the experiment.

    Returns:
        the record, or None.
    """
    folder = Path(folder)
    who = identity(point, experiment or folder.name, version)
    path = record_path(folder, who)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    payload, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return _distrust(path, "it is cut short or altered (its checksum does not match)")
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop(_META)))
    if meta["identity"] != who:
        return _distrust(path, f"it holds {meta['identity']}, not {who}")
    return Record(point, arrays, meta)


def require_writable(folder: str | Path) -> None:
    """Refuse a folder of results that cannot be written, before hours are spent on what goes there.

    Args:
        folder: made if it is not there.

    Raises:
        OSError: it cannot be made, or no file in it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(
            f"results folder {folder} cannot be written ({error}): wanted one that can; choose it "
            "with --results."
        ) from error


def _distrust(path: Path, reason: str) -> None:
    """Warn that a file is not used, and why."""
    warnings.warn(f"{path} is not used: {reason}", RuntimeWarning, stacklevel=3)
