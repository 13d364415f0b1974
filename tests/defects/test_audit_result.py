"""Verdicts by ranges: all of a range acceptable, none of it, or some."""

import math

import numpy as np
import pytest

from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.structures import bcc
from lprjax.defects.audit_result import CURES, VERDICTS, Audit, AuditTerm, judged

TERMS = (
    AuditTerm("energies", 0.0, 0.0, -0.03),
    AuditTerm("core", 0.2, 0.01, 0.001),
    AuditTerm("far field", 0.1, 0.05, 0.002),
)
FOUND = Audit(
    "", "", 1, 0.055, (0.04, 0.07), -0.027, (-0.03, -0.02), 3.5, TERMS, 0.2, 4.0, 0.2,
    np.zeros((2, 3)), np.zeros((2, 3)), (bcc("W", 3.165),), {},
)  # fmt: skip


@pytest.mark.parametrize(
    ("acceptable", "verdict", "words"),
    [
        ((0.071, 0.031), "trust", "both"),
        ((0.069, 0.031), "cannot say", "the geometry may be acceptable or not"),
        ((0.071, 0.029), "cannot say", "the formation energy may be"),
        ((0.039, 0.031), "add data", CURES["far field"]),
        ((0.071, 0.019), "add data", CURES["energies"]),
        ((0.069, 0.019), "add data", "the formation energy is wrong"),
        ((0.039, 0.019), "add data", "the geometry and the formation energy are wrong"),
    ],
)
def test_verdicts(acceptable, verdict, words):
    found = judged(FOUND, acceptable)
    assert found.verdict == verdict and words in found.advice and verdict in VERDICTS
    assert verdict.upper() in str(found) and words in found._repr_html_()


def test_an_energy_range_across_zero_may_be_acceptable():
    across = FOUND._replace(energy_range=(-0.01, 0.02))
    assert judged(across, (0.1, 0.0201)).verdict == "trust"
    assert judged(across, (0.1, 0.005)).verdict == "cannot say"  # zero is inside


def test_without_range_nothing_is_said_and_without_energy_the_geometry():
    nowhere = FOUND._replace(geometry_range=(math.nan, math.nan), hessian_error=0.8)
    found = judged(nowhere, (1.0, 1.0))
    assert found.verdict == "cannot say" and "80 %" in found.advice
    assert "calls=2" in found.advice
    assert "calls=3" in judged(nowhere._replace(calls=2), (1.0, 1.0)).advice
    assert "failed" in judged(nowhere._replace(failures={"unstable": "it is"}), (1.0, 1.0)).advice
    assert "not asked" in judged(nowhere._replace(calls=0), (1.0, 1.0)).advice
    gone = FOUND._replace(undefined="no bulk", energy=math.nan, energy_range=(math.nan, math.nan))
    found = judged(gone, (0.1, 1e-9))
    assert found.verdict == "trust" and "no bulk" in str(found)
    assert found.advice == "the geometry is acceptable"


def test_cells_are_written(tmp_path):
    FOUND.write(tmp_path / "ask.xyz")
    ((structure, _, _),) = read_extxyz(tmp_path / "ask.xyz", labelled=False)
    np.testing.assert_array_equal(structure.positions, FOUND.cells[0].positions)
