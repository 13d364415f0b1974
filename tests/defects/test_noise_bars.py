"""Budgets beside a calculator with noise: bars that hold, and no advice that the noise decides."""

import re

import numpy as np
import pytest
from ase.calculators.emt import EMT

import lprjax as lp
from lprjax.defects.bounds import PIECES, Side, mismatch_of, partition
from lprjax.defects.far_field import far_field
from lprjax.defects.noise_bars import Bar, noise_of_pieces
from lprjax.potentials.recorded_calls import recorded
from tests.helpers.potentials import Noisy, Softened

CUBE = lp.fcc("Cu", 3.59)  # near EMT's equilibrium
DEFECT = lp.vacancy(CUBE, 3)
RADIUS = 4.0
SURROGATE = lp.zhou_eam("Cu")
SIZE = 1e-3


@pytest.fixture(scope="module")
def geometry():
    return lp.relax_defect(lp.ase_potential(EMT()), DEFECT, force_tolerance=1e-4).displacement


def pieces(reference, geometry):
    """The residual, split, and the bars."""
    with recorded(reference=reference) as (recorder, (reference,)):
        sides = [Side(p, DEFECT, geometry) for p in (reference, SURROGATE)]
        reference.noise(sides[0].at.graph)
        model = mismatch_of(*sides)
        w = far_field(DEFECT, geometry, RADIUS, None)  # centres of symmetry: no internal strain
        sides = [side.under(w) for side in sides]
        split = partition(*sides, model, w, RADIUS)
        return split, noise_of_pieces(*sides, split, recorder), recorder.calls["reference"]


def test_bars_are_as_large_as_what_noise_changes(geometry):
    """Forces with noise of 0.001 eV/Å, twice, beside EMT's own: each piece changes by no more than
    three bars, and all of them together by as much as their bars say, within a factor of 2. An
    energy's bar rests on the noise of eight energies, which they tell to a quarter as a rule: of
    these seeds they do."""
    exact, none, calls = pieces(lp.ase_potential(EMT()), geometry)
    shares = []
    for seed in (1, 2):
        noisy = lp.ase_potential(Noisy(EMT(), SIZE, seed))
        found, bars, again = pieces(noisy, geometry)
        assert again <= calls + 8 + 17 + 17  # the draws make no call
        for name in PIECES:
            change = np.asarray(found.pieces[name]) - np.asarray(exact.pieces[name])
            size = float(DEFECT.lattice.negative_norm(change))
            energy = abs(found.energies[name] - exact.energies[name])
            assert size < 3.0 * bars[name].norm and energy < 4.0 * bars[name].energy, name
            assert none[name].norm < 1e-4 * bars[name].norm
            shares.append(size / bars[name].norm)
    assert 0.5 < np.sqrt(np.mean(np.square(shares))) < 2.0


def test_exact_derivatives_have_no_bars(geometry):
    reference = Softened(SURROGATE, 0.01)
    with recorded(one=reference, other=SURROGATE) as (recorder, pair):
        sides = [Side(p, DEFECT, geometry).under(0.0 * np.asarray(geometry)) for p in pair]
        assert set(noise_of_pieces(*sides, None, recorder).values()) == {Bar()}


def test_the_advice_stands_where_the_leader_is_clear_and_falls_silent_in_noise(geometry):
    """EMT and EAM differ in many ways, so that noise of 1e-13 eV/Å decides nothing; noise as large
    as the residual itself decides all. Calls are counted, and far fewer than a thousand."""
    quiet, loud = (
        lp.error_budget(reference, SURROGATE, DEFECT, RADIUS, displacement=geometry)
        for reference in (
            lp.ase_potential(EMT()),
            lp.ase_potential(Noisy(EMT(), 0.1)),
        )
    )
    assert "rules" in quiet.advice and all(term.noise < 1e-6 for term in quiet.terms)
    assert loud.advice.startswith("No advice") and "±" in str(loud)
    assert re.search(r"reference: forces good to 0?\.?\d.*second order.*third", str(loud))
    (note,) = quiet.notes
    assert 100 < int(re.search(r"(\d+) calls", note)[1]) < 400
