"""Nothing that is tried in the ball exceeds the certified Lipschitz constant."""

import numpy as np
import pytest
import scipy.linalg

from lprjax.atoms.structures import bcc, diamond, square
from lprjax.defects.certified import random_moves
from lprjax.defects.defect import clamped, relax_defect, vacancy
from lprjax.defects.hessian import energy_at
from lprjax.defects.lipschitz_bounds import (
    certified_lipschitz,
    climbs_of,
    lipschitz_certificate,
    shifted,
)
from lprjax.defects.norms import with_energy_norm
from lprjax.defects.response import lipschitz_at
from lprjax.potentials import ase_potential, polynomial_bonds, stillinger_weber, zhou_eam
from tests.helpers.potentials import lennard_jones

SHELLS = [2.0, np.sqrt(8.0)]
BONDS = polynomial_bonds(SHELLS, [[0, -0.02, 1.0, -0.6, 0.4], [0, 0.02 / 2**0.5, 0.5, 0.3, 0.2]])
PLANE, TUNGSTEN = vacancy(square("W", 2.0), 6), vacancy(bcc("W", 3.165), 3)
CASES = {
    "plane": (BONDS, PLANE, 0.1),
    "clamped": (BONDS, clamped(vacancy(square("W", 2.0), 7), 5.5), 0.1),
    "energy norm": (BONDS, with_energy_norm(PLANE, BONDS), 0.1),
    "metal": (zhou_eam("W"), TUNGSTEN, 0.1),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    potential, defect, ball = CASES[request.param]
    at = energy_at(potential, defect, relax_defect(potential, defect).displacement)
    return at, ball, certified_lipschitz(at, ball)


def pulls(at, rng):
    """Moves of norm 1 that may be bad: of one atom, of two against each other, and random."""
    n = at.defect.structure.n_atoms
    free = np.flatnonzero(np.asarray(at.moves.moving)[:n].any(axis=1))
    one = np.zeros(at.moves.moving.shape)
    one[rng.choice(free)] = rng.normal(size=3)
    two = one.copy()
    atom = int(np.flatnonzero(one.any(axis=1))[0])
    end = np.asarray(at.graph.neighbours)[atom, rng.integers(4)]
    two[end] -= one[atom]
    for v in (one, two):
        v = np.asarray(at.moves.project(v))
        yield v / np.sqrt(np.vdot(v, at.moves.metric(v)))
    yield random_moves(at, rng)


def test_no_third_derivative_in_the_ball_is_larger(case):
    """Of any three moves, at 20 places on its surface."""
    at, ball, found = case
    assert found.guaranteed and found.why_not == "" and found.confidence == 1.0
    rng, largest = np.random.default_rng(0), 0.0
    for trial in range(20):
        w = list(pulls(at, rng))[trial % 3]
        there = shifted(at, ball * w)
        a, b, c = pulls(at, rng)
        for v in ((a, a, a), (b, b, b), (a, b, c), (w, w, b), (w, w, w)):
            largest = max(largest, abs(np.vdot(v[2], there.third(v[0], v[1]))))
    assert largest <= found.value
    assert largest <= climbs_of(at, ball, 3).max() * (1 + 1e-9), "climbs find what is worse"


def test_it_holds_along_the_worst_known_directions(case):
    """Above climbs, whatever their start, and above the estimate along each of their ends."""
    at, ball, found = case
    ends = climbs_of(at, ball, 4, seed=3)
    assert ends.max() <= found.value and found.estimate <= found.value
    along = abs(
        lipschitz_at(at, at.moves.on_sites(random_moves(at, np.random.default_rng(4)))).constant
    )
    assert along <= ends.max() * (1 + 1e-6)
    assert found.value < 8.0 * ends.max(), "loose, and not more"


def test_the_hessian_changes_no_faster(case):
    """||H(u + w) - H(u + w')|| <= M ||D(w - w')||, by dense eigenvalues, w on the surface."""
    at, ball, found = case
    if at.defect.structure.n_atoms > 50:
        pytest.skip("the others are small")
    size = at.moves.moving.size
    units = np.eye(size).reshape(size, *at.moves.moving.shape)
    dense = lambda f: np.stack([np.asarray(f(v)).ravel() for v in units])  # noqa: E731
    k = dense(at.moves.metric)
    values, modes = np.linalg.eigh(k)
    basis = modes[:, values > 1e-9 * values.max()]
    rng = np.random.default_rng(1)
    for w in pulls(at, rng):
        ahead, back = (dense(shifted(at, s * ball * w).product) for s in (1.0, -1.0))
        change = scipy.linalg.eigvalsh(basis.T @ (ahead - back) @ basis, basis.T @ k @ basis)
        assert np.abs(change).max() <= found.value * 2 * ball


def test_a_larger_ball_has_a_larger_bound(case):
    at, ball, found = case
    small = certified_lipschitz(at, 0.1 * ball)
    assert small.guaranteed and small.value < found.value


def test_where_there_is_no_bound_it_says_why():
    at = energy_at(BONDS, PLANE, PLANE.start)
    wide = certified_lipschitz(at, 3.0, climbs=2)
    assert not wide.guaranteed and "change its shell" in wide.why_not
    assert wide.confidence == 0.95 and "probability below 0.78, with 95% confidence" in wide.why_not
    large = certified_lipschitz(at, 0.1, dense=10, climbs=1)
    assert not large.guaranteed and "70 moves are more than 10" in large.why_not
    potential = ase_potential(lennard_jones(), r_cut=4.6)
    defect = vacancy(bcc("W", 2.9), 2)
    found = lipschitz_certificate(potential, defect, defect.start, 0.1)
    assert not found.guaranteed and np.isnan(found.value) and found.confidence == 0.0
    with pytest.raises(ValueError, match="ball is -1"):
        certified_lipschitz(at, -1.0)


def test_a_potential_of_other_form_is_sampled():
    defect = vacancy(diamond("Si", 5.43), 2)
    found = lipschitz_certificate(stillinger_weber(), defect, defect.start, 0.01)
    assert not found.guaranteed and "none of pairs or of EAM" in found.why_not
    assert found.value == found.estimate > 0
