"""An audit predicts what two relaxations differ by, from one call of the reference."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lprjax.atoms.extxyz import read_extxyz, write_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, bcc, fcc
from lprjax.crystals.elasticity import equilibrium
from lprjax.defects import audits as audit_module
from lprjax.defects.audits import LEAST, TiltedPotential, _secant, audit
from lprjax.defects.budget import error_budget
from lprjax.defects.catalogue import dumbbell, substitution
from lprjax.defects.defect import geometry_error, relax_defect, vacancy
from lprjax.defects.formation import formation_energy
from lprjax.defects.norms import with_energy_norm
from lprjax.potentials import ase_potential, zhou_eam
from lprjax.potentials.derivatives import site_energies_and_forces
from lprjax.potentials.observables import observe, total_energy
from lprjax.potentials.potential import as_argument, graph_for
from tests.helpers.potentials import R_CUT, SmoothPairs, Softened, lennard_jones

TUNGSTEN, CELL = zhou_eam("W"), bcc("W", 3.164849)
DEFECT = vacancy(CELL, 4)
SETTLED = 1e-8  # eV/Å


def truth(reference, surrogate, defect, start=None):
    """(geometry error, error of E_f) of two relaxations, each from its own crystal."""
    energies, moves = [], []
    for potential in (surrogate, reference):
        found = relax_defect(potential, defect, displacement=start, force_tolerance=SETTLED)
        bulk = float(total_energy(potential, build_graph(defect.unit_cell, potential.r_cut)))
        energies.append(formation_energy(found.energy, defect, bulk / defect.unit_cell.n_atoms))
        moves.append(found.displacement)
    return float(geometry_error(defect, *moves)), energies[0] - energies[1]


def inside(value, ends, slack=1e-9):
    return ends[0] - slack <= value <= ends[1] + slack


@pytest.fixture(scope="module")
def audits():
    found = {}
    for size in (0.02, 0.2):
        surrogate = Softened(TUNGSTEN, size)
        found[size] = (
            audit(surrogate, DEFECT, TUNGSTEN, radius=5.0, force_tolerance=SETTLED),
            truth(TUNGSTEN, surrogate, DEFECT),
        )
    return found


def test_one_call_predicts_both_errors_and_encloses_them(audits):
    for found, (geometry, energy) in audits.values():
        assert found.calls == 1 and not found.failures
        assert found.geometry == pytest.approx(geometry, rel=0.03)
        assert found.energy == pytest.approx(energy, rel=1e-3)
        assert inside(geometry, found.geometry_range) and inside(energy, found.energy_range)
        assert found.geometry_range[1] < 1.7 * geometry


def test_what_one_call_misses_is_of_second_order(audits):
    """The Hessians differ in proportion to the perturbation, the response does too; of the energy
    that is a third order."""
    misses = [
        (abs(found.geometry - geometry), found.hessian_error - LEAST)
        for found, (geometry, _) in audits.values()
    ]
    assert 50 < misses[1][0] / misses[0][0] < 200
    assert misses[1][1] / misses[0][1] == pytest.approx(10.0, rel=0.1)


def test_terms_add_up(audits):
    for found, _ in audits.values():
        assert [term.name for term in found.terms] == ["energies", "core", "far field"]
        gain = sum(term.energy for term in found.terms[1:])
        first_order = found.terms[0].energy + gain  # x instead of the tilted minimiser
        assert found.energy == pytest.approx(first_order, rel=1e-2)
        assert math.hypot(*(term.norm for term in found.terms)) >= found.eta / math.sqrt(2)
        assert found.geometry <= 1.02 * sum(term.geometry for term in found.terms)


def test_the_tilted_surrogate_has_the_references_forces_where_it_was_asked():
    at, plain = graph_for(TUNGSTEN, DEFECT.structure), as_argument(TUNGSTEN, "")
    homes = np.asarray(DEFECT.structure.positions)
    push = np.random.default_rng(0).normal(size=homes.shape)
    tilted = TiltedPotential(plain, push, homes, np.ones_like(push), 1.0, TUNGSTEN.r_cut)
    plain, found = (site_energies_and_forces(p, at) for p in (plain, tilted))
    assert float(found.energy) == float(plain.energy)
    np.testing.assert_allclose(
        np.asarray(found.forces - plain.forces)[: len(push)], push, atol=1e-12
    )


def test_the_secant_turns_the_forces_as_between_two_calls():
    """Its Hessian, sign v v^T, times the step is what the forces changed by more than the
    surrogate's; of either sign, and not where that is nearly across the step."""
    rng = np.random.default_rng(0)
    n = DEFECT.structure.n_atoms
    turn = rng.normal(size=(n, 3))
    turn -= turn.mean(axis=0)
    step = np.asarray(DEFECT.preconditioner(turn))
    u = np.asarray(DEFECT.start)
    for sign in (1.0, -1.0):
        before = SimpleNamespace(place=u, forces=np.asarray(DEFECT.on_sites(10.0 * sign * turn)))
        change = np.asarray(DEFECT.on_atoms(before.forces)) - sign * turn
        v, found = _secant(DEFECT, u + np.asarray(DEFECT.on_sites(step)), change, before)
        if sign < 0:  # the whole surrogate softer than nothing: refused
            assert found == 0.0
            change = 10.0 * turn + turn
            before.forces = np.asarray(DEFECT.on_sites(10.0 * turn))
            v, found = _secant(DEFECT, u + np.asarray(DEFECT.on_sites(step)), change, before)
        assert found == sign
        np.testing.assert_allclose(found * v * np.vdot(v, step), sign * turn, atol=1e-12)
    across = rng.normal(size=(n, 3))
    across -= across.mean(axis=0)
    across -= np.vdot(across, step) / np.vdot(step, step) * step
    before = SimpleNamespace(place=u, forces=np.asarray(DEFECT.on_sites(across)))
    _, found = _secant(DEFECT, u + np.asarray(DEFECT.on_sites(step)), 0.0 * across, before)
    assert found == 0.0 and _secant(DEFECT, u, across, None)[1] == 0.0


def test_a_second_call_is_of_higher_order(audits):
    """Its secant leaves, of what the first left, a share that falls with the perturbation."""
    (geometry, _), surrogate = audits[0.2][1], Softened(TUNGSTEN, 0.2)
    ubar = relax_defect(TUNGSTEN, DEFECT, force_tolerance=SETTLED).displacement
    doubtful = dict(acceptable_geometry=audits[0.2][0].geometry, acceptable_energy=10.0)
    once, twice = (
        audit(surrogate, DEFECT, TUNGSTEN, calls=n, force_tolerance=SETTLED, **doubtful)
        for n in (1, 2)
    )
    assert (once.calls, twice.calls) == (1, 2) and once.verdict == "cannot say"
    left = [float(geometry_error(DEFECT, found.corrected, ubar)) for found in (once, twice)]
    assert left[0] < 0.05 * geometry and left[1] < 0.1 * left[0]
    assert inside(geometry, twice.geometry_range)


def test_verdicts_follow_from_ranges_and_what_is_acceptable(audits):
    found, _ = audits[0.2]
    low, high = found.geometry_range
    surrogate = Softened(TUNGSTEN, 0.2)
    verdict = lambda g, e: audit(  # noqa: E731
        surrogate, DEFECT, TUNGSTEN, acceptable_geometry=g, acceptable_energy=e, radius=5.0
    )
    enough = 1.01 * max(map(abs, found.energy_range))
    assert verdict(1.01 * high, enough).verdict == "trust"
    wrong = verdict(0.99 * low, enough)
    assert wrong.verdict == "add data" and "the geometry is wrong" in wrong.advice
    open_one = verdict(0.5 * (low + high), enough)
    assert open_one.verdict == "cannot say" and "once more" in open_one.advice
    assert verdict(1.01 * high, 1e-9).verdict == "add data"


def test_a_soft_dumbbell_wants_a_second_call():
    """Copper's, whose softest mode is of 0.004 eV/Å^2: one call cannot say, two enclose."""
    copper = zhou_eam("Cu")
    cell = equilibrium(copper, fcc("Cu", 3.615)).structure
    defect = dumbbell(cell, 3, (1, 0, 0))
    surrogate = Softened(copper, 0.5)
    once, twice = (
        audit(surrogate, defect, copper, calls=n, acceptable_geometry=1e-4) for n in (1, 2)
    )
    geometry, energy = truth(copper, surrogate, defect)
    assert once.verdict == "cannot say" and once.hessian_error > 0.5 and once.calls == 1
    assert math.isnan(once.geometry_range[1]) and "Hessian" in once.advice
    assert twice.calls == 2 and twice.verdict == "add data" and "measured" in str(twice)
    assert inside(geometry, twice.geometry_range) and inside(energy, twice.energy_range)
    assert twice.geometry_range[1] < 1.2 * geometry


def test_asked_elsewhere_it_says_the_same(tmp_path, audits):
    """Cells written, labelled by somebody, read back; and a second call of what the first wants."""
    surrogate = Softened(TUNGSTEN, 0.2)
    question = audit(surrogate, DEFECT)
    assert question.verdict == "cannot say" and question.calls == 0 and "not asked" in str(question)
    assert [cell.n_atoms for cell in question.cells] == [127, 128]
    question.write(tmp_path / "ask.xyz")

    def answered(path):
        cells = [frame[0] for frame in read_extxyz(path, labelled=False)]
        labels = []
        for cell in cells:
            told = observe(TUNGSTEN, build_graph(cell, TUNGSTEN.r_cut), ("energy", "forces"))
            labels.append(Labels(told.energy, np.asarray(told.forces)[: cell.n_atoms]))
        write_extxyz(tmp_path / "answer.xyz", cells, labels)
        return tmp_path / "answer.xyz"

    here, there = audits[0.2][0], audit(surrogate, DEFECT, answered(tmp_path / "ask.xyz"))
    assert there.calls == 1
    assert there.geometry == pytest.approx(here.geometry, rel=1e-5)
    assert there.energy == pytest.approx(here.energy, abs=1e-7)
    frames = read_extxyz(tmp_path / "answer.xyz")
    without = audit(surrogate, DEFECT, frames[:1])
    assert math.isnan(without.energy) and "bulk_energy" in without.undefined
    assert without.geometry == there.geometry
    per_atom = float(frames[1][1].energy) / 128
    told = audit(surrogate, DEFECT, frames[:1], bulk_energy=per_atom)
    assert told.energy == pytest.approx(there.energy, abs=1e-9) and told.undefined is None


def test_another_answer_than_asked_is_refused(audits):
    """The reference's own relaxed geometry, say, or a cell with one atom elsewhere."""
    surrogate = Softened(TUNGSTEN, 0.2)
    cell = audit(surrogate, DEFECT).cells[0]
    relaxed = DEFECT.displaced(relax_defect(TUNGSTEN, DEFECT).displacement)
    for wrong in (relaxed, DEFECT.structure):
        labels = Labels(np.float64(0.0), np.zeros((cell.n_atoms, 3)))
        with pytest.raises(ValueError, match="from where it was asked for"):
            audit(surrogate, DEFECT, [(wrong, labels)])


def test_a_surrogate_that_is_the_reference_is_trusted():
    found = audit(TUNGSTEN, DEFECT, TUNGSTEN)
    assert found.verdict == "trust" and found.geometry < 1e-6 and abs(found.energy) < 1e-9


@dataclass(frozen=True)
class Repelling:
    """A potential that pushes everything apart."""

    base: Any = field(default=TUNGSTEN)

    @property
    def r_cut(self):
        return self.base.r_cut

    def __call__(self, graph):
        return -self.base(graph)


def test_in_the_norm_of_the_force_constants_energies_are_the_same(audits):
    """The reference's minimiser does not depend on the norm; the units are said."""
    plain, (_, energy) = audits[0.2]
    other = with_energy_norm(DEFECT, TUNGSTEN)
    found = audit(Softened(TUNGSTEN, 0.2), other, TUNGSTEN, force_tolerance=SETTLED)
    assert found.energy == pytest.approx(plain.energy, abs=1e-7)
    expected = float(geometry_error(other, plain.corrected, plain.displacement))
    assert found.geometry == pytest.approx(expected, rel=1e-4)
    assert inside(energy, found.energy_range)
    for text in (str(found), str(error_budget(TUNGSTEN, Softened(TUNGSTEN, 0.2), other, 5.0))):
        assert other.lattice.units.norm in text and "eV/Å^2" not in text


def test_failures_are_said(monkeypatch):
    found = audit(Repelling(), DEFECT, TUNGSTEN, max_evaluations=20)
    assert found.verdict == "cannot say" and "unconverged" in found.failures
    assert found.calls == 0 and math.isnan(found.geometry) and "FAILED" in str(found)
    monkeypatch.setattr(audit_module, "left_basin", lambda *a: "an atom ran away")
    found = audit(Softened(TUNGSTEN, 0.02), DEFECT, TUNGSTEN, calls=3)
    assert found.failures["no_minimum"].endswith("an atom ran away") and found.calls == 1


def test_a_saddle_point_is_left():
    """The perfect symmetry of a dumbbell that wants another direction."""
    defect = dumbbell(CELL, 3, (1, 0, 0))
    surrogate = Softened(TUNGSTEN, 0.02)
    symmetric = relax_defect(surrogate, defect).energy
    found = audit(surrogate, defect, TUNGSTEN)
    assert found.stability > 0
    energy = observe(surrogate, graph_for(surrogate, defect.displaced(found.displacement)))
    assert float(energy.energy) < symmetric - 1e-3


def test_a_missing_reservoir_leaves_the_geometry():
    defect = substitution(CELL, 3, "Ta")
    pair = zhou_eam("W", "Ta")
    found = audit(Softened(pair, 0.02), defect, pair)
    assert "Ta" in found.undefined and math.isnan(found.energy)
    assert found.geometry > 0 and found.verdict == "trust"
    whole = audit(Softened(pair, 0.02), defect, pair, reservoirs={"Ta": bcc("Ta", 3.3026)})
    assert math.isfinite(whole.energy) and whole.geometry == pytest.approx(found.geometry)


def test_calculators_on_either_side():
    """Up to the errors of differences: those of the same potential in JAX."""
    pairs = SmoothPairs()
    cell = equilibrium(pairs, fcc("Cu", 3.55)).structure
    defect, theirs = vacancy(cell, 3), ase_potential(lennard_jones(), r_cut=R_CUT)
    other = Softened(pairs, 0.05)
    for here, there in (((other, pairs), (other, theirs)), ((pairs, other), (theirs, other))):
        exact = audit(here[0], defect, here[1], force_tolerance=1e-5)
        found = audit(there[0], defect, there[1], force_tolerance=1e-5)
        assert found.geometry == pytest.approx(exact.geometry, rel=1e-3)
        assert found.energy == pytest.approx(exact.energy, rel=1e-4)


def test_what_is_wrong_at_the_door():
    with pytest.raises(ValueError, match="calls"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, calls=0)
    with pytest.raises(ValueError, match="acceptable_energy"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, acceptable_energy=0.0)
    with pytest.raises(TypeError, match="Defect"):
        audit(TUNGSTEN, CELL, TUNGSTEN)
    with pytest.raises(ValueError, match="one row for each of the 128 sites"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, displacement=np.zeros((127, 3)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, displacement=np.full((128, 3), np.nan))
    with pytest.raises(ValueError, match="radius"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, radius=-1.0)
    with pytest.raises(ValueError, match="bulk_energy is nan"):
        audit(TUNGSTEN, DEFECT, TUNGSTEN, bulk_energy=np.nan)
    with pytest.raises(ValueError, match="no parameters|wanted"):  # a surrogate of other elements
        audit(zhou_eam("Cu"), DEFECT, TUNGSTEN)
    with pytest.raises(TypeError, match="r_cut"):
        audit(TUNGSTEN, DEFECT, lambda graph: graph)
