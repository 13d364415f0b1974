"""What the entry points of the library ask of numbers: float64, finite, right shape and sign.

Each function raises at once, in Python, with what the value is, what is wanted, and what to do.
"""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, overload

import jax
import numpy as np
from jax.core import Tracer


def require_x64() -> None:
    """Refuse to go on in single precision.

    Rigidities need condition numbers, and force constants second derivatives, that float32 cannot
    carry.

    Raises:
        RuntimeError: jax is in its 32-bit mode.
    """
    # JAX adds its options to the configuration at run time.
    if not jax.config.jax_enable_x64:  # ty: ignore[missing-attribute]
        raise RuntimeError(
            "jax is in its default 32-bit mode: lprjax needs float64; call "
            'jax.config.update("jax_enable_x64", True) before making any array, or set the '
            "environment variable JAX_ENABLE_X64=1."
        )


@contextmanager
def named(what: str) -> Generator[None]:
    """Say what an error is about: `structure 7: atoms 0 and 1 ...`.

    Args:
        what: goes before the message of a ValueError or TypeError raised within.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from error


@overload
def as_float64(name: str, array: jax.Array) -> jax.Array: ...
@overload
def as_float64(name: str, array: Any) -> Any: ...
def as_float64(name: str, array: Any) -> Any:
    """The array as float64: integers are converted, any other number type is refused.

    Single precision is refused and not widened: its rounding (1e-7) would be taken for data.

    Args:
        name: what the numbers are, in the plural, for the message.
        array: of any shape and unit; of NumPy or of JAX, traced or not; or a list.

    Returns:
        The same array, or a float64 one of the same values.

    Raises:
        TypeError: another number type.
    """
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if np.dtype(array.dtype).kind in "iu":
        return array.astype(np.float64)
    if array.dtype != np.float64:
        raise TypeError(
            f"{name} have dtype {array.dtype}: wanted float64; compute them in float64 or, if "
            "the loss of digits is intended, convert them with .astype(float64)."
        )
    return array


def finite_array(name: str, value: Any, shape: tuple[int | None, ...], unit: str) -> np.ndarray:
    """The value as a finite float64 array of the wanted shape.

    Args:
        name: what the value is called, for the message.
        value: anything that NumPy makes an array of.
        shape: the wanted one, None standing for any length.
        unit: of the numbers, for the message.

    Returns:
        The array, on the host.

    Raises:
        ValueError: another shape, or an entry that is NaN or infinite; it names the first.
    """
    array = np.asarray(value, dtype=np.float64)
    wanted = "(" + ", ".join("n" if m is None else str(m) for m in shape) + ")"
    fits = array.ndim == len(shape) and all(
        m is None or m == k for m, k in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {array.shape}: wanted {wanted}, in {unit}.")
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"entry {where} of {name} is {array[where]}: wanted finite numbers in {unit}; "
            "drop or repair this structure."
        )
    return array


def check_positive(**options: float) -> None:
    """Refuse an option that is not a positive, finite number.

    Args:
        **options: the numbers by name.

    Raises:
        ValueError: one is zero, negative, NaN, infinite or no number; it is named.
    """
    for name, value in options.items():
        if not (is_number(value) and value > 0):
            raise ValueError(f"{name} is {value!r}: wanted a positive, finite number.")


def check_radii(name: str, radii: Any) -> tuple[float, float]:
    """An inner and an outer radius, between which something is switched on or off.

    Args:
        name: what they are called, for the message.
        radii: (inner, outer), Å.

    Returns:
        The two, as floats.

    Raises:
        ValueError: anything but 0 < inner < outer, finite.
    """
    numbers = np.size(radii) == 2 and np.asarray(radii).dtype.kind in "iuf"
    found = np.asarray(radii, dtype=float) if numbers else np.zeros(2)
    if not 0.0 < found[0] < found[1] < math.inf:
        raise ValueError(
            f"{name} are {radii!r}: wanted two lengths in Å, 0 < inner < outer, outer just below "
            "the shortest distance in the data, e.g. (1.6, 2.2)."
        )
    return float(found[0]), float(found[1])


def check_at_least_zero(name: str, value: Any) -> None:
    """Refuse anything but one finite number >= 0.

    Args:
        name: what the value is called, for the message.
        value: of any type that NumPy takes.

    Raises:
        ValueError: an array, a negative number, NaN or infinity, or no number (None, text, traced).
    """
    if not (is_number(value) and value >= 0.0):
        raise ValueError(f"{name} is {value!r}: wanted a finite number >= 0.")


def is_number(value: Any) -> bool:
    """Whether a value is one real number that is known, neither NaN nor infinite.

    Args:
        value: anything; text, None, arrays and what is traced are no numbers.
    """
    try:
        return np.ndim(value) == 0 and math.isfinite(value)
    except TypeError:
        return False


def refuse_traced(function: str, **arguments: Any) -> None:
    """Refuse values that are not known yet, inside `jit`, `grad` or `vmap`.

    For functions that decide by values on the host.

    Args:
        function: what is called, for the message.
        **arguments: pytrees by name.

    Raises:
        TypeError: one holds a traced array; it is named.
    """
    for name, value in arguments.items():
        held = list(value.values()) if isinstance(value, Mapping) else value  # keys of any type
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(held)):
            raise TypeError(
                f"{name} is traced: wanted known values, as {function} decides by them; call it "
                "outside jit, grad and vmap."
            )
