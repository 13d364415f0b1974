"""Values as plain Python, for strict JSON: what prints a number prints one that others can read."""

import json
import math
from collections.abc import Mapping
from typing import Any


def plain_values(value: Any) -> Any:
    """A value in plain Python types, None for numbers that are not finite, which JSON has not.

    Args:
        value: a number, string, array, None, or a list, tuple or mapping of them.

    Returns:
        The same as numbers, strings, lists and dictionaries with text as keys.

    Raises:
        TypeError: a value that is none of these.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if hasattr(value, "tolist"):  # an array, or a number of NumPy, without loading either
        return plain_values(value.tolist())
    if type(value) is float:
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"a value of the summary is {value!r}: wanted a number, string, array, list or mapping."
    )


def json_line(values: Mapping[str, Any]) -> str:
    """A mapping as one line of strict JSON.

    Args:
        values: see `plain_values`.

    Returns:
        The line, without its end.

    Raises:
        TypeError: as `plain_values`.
    """
    return json.dumps(plain_values(values), allow_nan=False)
