"""Strict JSON: every value comes back as the number, text or list that it was."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.numerics.plain_values import json_line, plain_values


def test_values_become_plain_and_strict():
    values = {"slope": np.float64(-2.5), "bad": float("nan"), "flag": np.True_, 3: (None, 1)}
    values |= {"errors": jnp.array([1.0, np.inf]), "deep": {"a": [np.int32(2), "text"]}}
    want = {"slope": -2.5, "bad": None, "flag": True, "3": [None, 1]}
    want |= {"errors": [1.0, None], "deep": {"a": [2, "text"]}}
    assert plain_values(values) == want
    line = json_line(values)
    assert "\n" not in line and json.loads(line, parse_constant=pytest.fail) == want
    assert type(plain_values(np.True_)) is bool and type(plain_values(np.int32(2))) is int


def test_what_no_json_has_is_refused():
    with pytest.raises(TypeError, match="value of the summary is <object"):
        plain_values({"what": [object()]})
