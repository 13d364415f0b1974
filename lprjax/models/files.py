"""Files of potentials and fits: data, never code, the same bits back.

A file is a NumPy archive (`numpy.load` opens it): float64 arrays, and a header in JSON with what it
is, its format and the version of the library that wrote it. Nothing in it is executed. A file that
is cut, damaged, of another program, or of a later format is refused by name.
"""

import hashlib
import importlib
import io
import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.numerics.checks import require_x64
from lprjax.numerics.disk import replace_file
from lprjax.regression.fitting import Fit
from lprjax.version import __version__

FORMAT = 1
"""Of the files; to be raised where an older library would read a new file as something else."""
HEADER = "lprjax"
"""Name of the header in the archive."""
POTENTIALS = {
    "ZhouEAM": "lprjax.potentials.eam",
    "TabulatedEAM": "lprjax.potentials.eam_tables",
    "EAMArrays": "lprjax.potentials.eam_tables",
    "StillingerWeber": "lprjax.potentials.stillinger_weber",
    "Tersoff": "lprjax.potentials.tersoff",
    "ZBL": "lprjax.potentials.zbl",
    "PolynomialBonds": "lprjax.potentials.bonds",
    "LinearPotential": "lprjax.ace.potential",
    "KernelPotential": "lprjax.models.kernels",
    "NetworkPotential": "lprjax.models.networks",
    "LastLayer": "lprjax.models.networks",
}
"""What can be saved besides a fit, and the module it is in: networks load flax when one is read. A
calculator of ASE is code, and cannot."""

_PLAIN = str | bool | int | float | tuple | None
DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a file, after the archive: the SHA-256 of all before them."""


class SavedFit(NamedTuple):
    """A fit with what it was fitted to."""

    fit: Fit  # with its factor
    spec: ACESpec  # the basis
    reference_energies: Mapping[str, float] | None  # by symbol, eV; None: none were subtracted
    data: str  # what it was fitted to, in words

    def potential(self) -> LinearPotential:
        """The linear potential of the fit."""
        return linear_potential(self.spec, self.fit.coefficients, self.reference_energies)


def save(
    path: str | os.PathLike[str],
    what: Any,
    *,
    spec: ACESpec | None = None,
    reference_energies: Mapping[str, float] | None = None,
    data: str = "",
) -> None:
    """Write a potential, or a fit with its factor, to one file; `load` gives the same bits back.

    Args:
        path: of the file, by convention .npz; replaced in one step where it exists.
        what: any potential of the library but a calculator of ASE, with its reference energies;
            or a `Fit`, with its coefficients, factor, weights, ridge, prior, and residuals and rows
            of each kind.
        spec: the basis of a fit, which a potential brings itself.
        reference_energies: of a fit, by symbol, eV, where energies were fitted less those.
        data: of a fit, what it was fitted to, in words.

    Raises:
        TypeError: another object; a fit without its spec, or a potential beside one; keys of a fit
            that are not made of text, numbers and tuples.
        ValueError: a fit of another number of coefficients than its spec has.
    """
    arrays: dict[str, np.ndarray] = {}
    if isinstance(what, Fit):
        header = _header_of_fit(what, spec, reference_energies, data, arrays)
    else:
        if spec is not None or reference_energies is not None or data:
            raise TypeError(
                f"spec, reference_energies or data are given beside a {type(what).__name__}: "
                "wanted for a Fit only; a potential brings its own."
            )
        header = {"fields": _packed(what, "", arrays)}
    header = header | {"format": FORMAT, "what": type(what).__name__, "lprjax": __version__}
    buffer = io.BytesIO()
    text = json.dumps(header, default=_plain_number)
    members: dict[str, Any] = {HEADER: np.array(text), **arrays}
    np.savez(buffer, **members)
    payload = buffer.getvalue()
    replace_file(path, payload + hashlib.sha256(payload).digest())


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote.

    Args:
        path: of the file.

    Returns:
        The potential, or a `SavedFit`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut or damaged, of another program, or of a later format; the
            message names which.
        RuntimeError: float64 is off, and half of the digits would be lost.
    """
    require_x64()
    header, arrays = _read(Path(path))
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')!r}, written by lprjax "
            f"{header.get('lprjax')}: wanted {FORMAT}; read it with that version."
        )
    what = header.get("what")
    if what != "Fit" and what not in POTENTIALS:
        raise ValueError(
            f"{path} holds a {what!r}: wanted a Fit or one of {', '.join(POTENTIALS)}."
        )
    try:
        found = _fit_of(header, arrays) if what == "Fit" else _unpacked(header["fields"], arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged: wanted a {what} as lprjax.save wrote it ({error!r})."
        ) from error
    return found


def _packed(what: Any, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A potential's class and plain fields; its arrays go to `arrays`, by name."""
    name = type(what).__name__
    if name not in POTENTIALS or type(what).__module__ != POTENTIALS[name]:
        raise TypeError(
            f"what is a {name}: wanted a Fit or one of {', '.join(POTENTIALS)}; keep what makes "
            "any other potential as a script."
        )
    plain: dict[str, Any] = {"": name}
    for field in fields(what):
        value = getattr(what, field.name)
        if isinstance(value, ACESpec):
            plain[field.name] = {"spec": asdict(value)}
        elif field.metadata.get("static") or isinstance(value, _PLAIN):
            plain[field.name] = {"plain": value}
        elif is_dataclass(value):
            plain[field.name] = {"nested": _packed(value, f"{prefix}{field.name}.", arrays)}
        else:
            array = np.asarray(value)
            if array.dtype == object:
                raise TypeError(f"{field.name} holds Python objects: wanted numbers.")
            arrays[prefix + field.name] = array
            plain[field.name] = {"array": prefix + field.name}
    return plain


def _unpacked(plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    name = plain[""]
    kind = getattr(importlib.import_module(POTENTIALS[name]), name)
    if {field.name for field in fields(kind)} != set(plain) - {""}:
        raise ValueError(
            f"fields of a {name} are {sorted(set(plain) - {''})}: wanted "
            f"{sorted(field.name for field in fields(kind))}."
        )
    return kind(**{key: _field(value, arrays) for key, value in plain.items() if key})


def _field(value: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    ((how, content),) = value.items()
    if how == "array":
        return jnp.asarray(arrays[content])
    if how == "spec":
        return _spec(content)
    if how == "nested":
        return _unpacked(content, arrays)
    return tuple(content) if isinstance(content, list) else content


def _spec(plain: Mapping[str, Any]) -> ACESpec:
    values: dict[str, Any] = {**plain, "elements": tuple(plain["elements"])}
    return ACESpec(**values)


def _header_of_fit(
    fit: Fit,
    spec: ACESpec | None,
    reference_energies: Mapping[str, float] | None,
    data: str,
    arrays: dict[str, np.ndarray],
) -> dict[str, Any]:
    if not isinstance(spec, ACESpec):
        raise TypeError(
            f"spec is {spec!r}: wanted the ACESpec of the rows; a Fit does not hold its basis."
        )
    if fit.coefficients.shape != (spec.n_columns,):
        raise ValueError(
            f"the fit has {fit.coefficients.size} coefficients and the spec {spec.n_columns} "
            "columns: wanted the spec that the rows were made with."
        )
    tables = ("rms", "weights", "n_rows")
    keys = {name: [_plain_key(key) for key in getattr(fit, name)] for name in tables}
    for name in tables:
        arrays[name] = np.array(list(getattr(fit, name).values()), float)
    arrays |= {"coefficients": np.asarray(fit.coefficients), "factor": np.asarray(fit.factor)}
    if fit.prior is not None:
        arrays["prior"] = np.asarray(fit.prior)
    return {
        "spec": asdict(spec),
        "keys": keys,
        "rank": int(fit.rank),
        "ridge": float(fit.ridge).hex(),
        "reference_energies": None if reference_energies is None else dict(reference_energies),
        "data": data,
    }


def _fit_of(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SavedFit:
    tables: dict[str, Any] = {
        name: OrderedDict(zip(map(_key, keys), arrays[name].tolist(), strict=True))
        for name, keys in header["keys"].items()
    }
    tables["n_rows"] = OrderedDict((key, int(n)) for key, n in tables["n_rows"].items())
    fit = Fit(
        coefficients=jnp.asarray(arrays["coefficients"]),
        factor=jnp.asarray(arrays["factor"]),
        rank=header["rank"],
        ridge=float.fromhex(header["ridge"]),
        prior=jnp.asarray(arrays["prior"]) if "prior" in arrays else None,
        **tables,
    )
    spec = _spec(header["spec"])
    if fit.coefficients.shape != (spec.n_columns,) or fit.factor.shape != (spec.n_columns,) * 2:
        raise ValueError(
            f"the fit has {fit.coefficients.size} coefficients: wanted {spec.n_columns}, one per "
            "function of its spec."
        )
    return SavedFit(fit, spec, header["reference_energies"], header["data"])


def _plain_key(key: Hashable) -> Any:
    """A key of factors in JSON: tuples become lists."""
    if isinstance(key, tuple):
        return [_plain_key(part) for part in key]
    if isinstance(key, str | bool | int | float) or key is None:
        return key
    raise TypeError(
        f"a key of the fit is {key!r}: wanted text, numbers and tuples of them, which a file keeps."
    )


def _key(plain: Any) -> Hashable:
    return tuple(_key(part) for part in plain) if isinstance(plain, list) else plain


def _plain_number(value: Any) -> Any:
    """A number of NumPy or of JAX as one of Python, for the header."""
    if np.ndim(value) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} is no number or text: wanted plain values, which a file keeps.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    content = path.read_bytes()
    if content[:4] != b"PK\x03\x04":  # how every zip archive begins
        raise ValueError(f"{path} is no file of lprjax: wanted one that lprjax.save wrote.")
    payload, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError(f"{path} {_why_not(content)}: wanted a file as lprjax.save wrote it.")
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(str(arrays.pop(HEADER))), arrays


def _why_not(content: bytes) -> str:
    """What an archive without its check sum is."""
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except Exception:  # whatever bytes that are not as they were may bring about
        names = []
    if names and f"{HEADER}.npy" not in names:
        return f"is an archive of another program (it holds {', '.join(names[:5])})"
    return "is cut short or damaged (its check sum does not match)"
