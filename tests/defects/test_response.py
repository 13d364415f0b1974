"""The response of relaxed defects against dense linear algebra and against finite changes.

Dense twins: force constants by `observe`, K as the Jacobian of the differences, and a basis Q of
the moves that are allowed.  Conjugate gradients stop at 1e-10 of the force, Lanczos at 1e-5, which
leaves the value to about 1e-9; relaxations stop at 1e-10 eV/Å or below.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from lprjax.ace.potential import LinearPotential, linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import square
from lprjax.defects.catalogue import dumbbell
from lprjax.defects.defect import Defect, clamped, relax_defect, vacancy
from lprjax.defects.implicit_derivatives import minimiser
from lprjax.defects.response import (
    goal_error,
    hessian_solve,
    lipschitz_estimate,
    stability_constant,
)
from lprjax.potentials import polynomial_bonds
from lprjax.potentials.observables import observe

SHELLS = [2.0, np.sqrt(8.0)]


def bonds(tension=0.1, second=0.5):
    """A plane whose vacancy relaxes; `second` below about -0.4 makes it unstable."""
    return polynomial_bonds(SHELLS, [[0.0, tension, 1.0, -0.6], [0.0, 0.02, second, 0.3]])


BONDS = bonds()


def relaxed(potential, defect, **options):
    found = relax_defect(potential, defect, force_tolerance=1e-10, **options)
    assert found.relaxed.converged, found.relaxed.message
    return found.displacement


class Case(NamedTuple):
    potential: object
    defect: Defect
    u: jax.Array
    moves: np.ndarray  # Q (3 n, m), orthonormal
    k: np.ndarray  # (3 n, 3 n)


def case_of(potential, defect, u=None):
    u = relaxed(potential, defect) if u is None else u
    n, sites = defect.structure.n_atoms, defect.lattice.n_sites
    free = np.ones(n, bool) if defect.free is None else np.asarray(defect.free)
    directions = np.eye(3)[: 3 if all(defect.reference.pbc) else 2]
    q = np.kron(np.eye(n)[:, free], directions.T)
    if free.all():
        q = q @ scipy.linalg.null_space(np.kron(np.ones(n), np.eye(len(directions))))
    differences = jax.jacobian(defect.lattice.differences)(jnp.zeros((sites, 1)))
    rows = np.asarray(differences).reshape(-1, sites)[:, np.asarray(defect.site_of_atom)]
    return Case(potential, defect, u, q, np.kron(rows.T @ rows, np.eye(3)))


def dense_hessian(potential, defect, u):
    n = defect.structure.n_atoms
    graph = build_graph(defect.displaced(u), potential.r_cut)
    found = observe(potential, graph, "force_constants", atoms=range(n)).force_constants
    return np.asarray(found)[:, :, :n].reshape(3 * n, 3 * n)


def eigh(case, a):
    """Values and modes (n, 3) of A against K over the moves."""
    q = case.moves
    values, modes = scipy.linalg.eigh(q.T @ a @ q, q.T @ case.k @ q)
    return values, (q @ modes).T.reshape(len(values), -1, 3)


DEFECTS = {
    "plane": lambda: (BONDS, vacancy(square("W", 2.0), 6)),
    "clamped plane": lambda: (BONDS, clamped(vacancy(square("W", 2.0), 7), 5.5)),
    "dumbbell": lambda: (bonds(tension=1.2), dumbbell(square("W", 2.0), 6, (1, 1, 0))),
}
AT_START = {"dumbbell"}  # its bonds would rearrange, but at the start the energy curves upward


@pytest.fixture(scope="module", params=DEFECTS)
def case(request):
    potential, defect = DEFECTS[request.param]()
    return case_of(potential, defect, defect.start if request.param in AT_START else None)


@pytest.fixture(scope="module")
def plane():
    return case_of(*DEFECTS["plane"]())


@pytest.fixture(scope="module")
def hessian(case):
    return dense_hessian(case.potential, case.defect, case.u)


def noise(defect, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(defect.lattice.n_sites, 3)))


def test_response_is_the_pseudo_inverse(case, hessian):
    """Also where the force has a mean and acts on held atoms and on missing sites: all dropped."""
    f = noise(case.defect)
    found = hessian_solve(case.potential, case.defect, case.u, f)
    assert found.converged and not found.indefinite and found.residual <= 1e-10
    q, at_atoms = case.moves, np.asarray(case.defect.on_atoms(f)).ravel()
    exact = q @ np.linalg.solve(q.T @ hessian @ q, q.T @ at_atoms)
    exact = case.defect.on_sites(exact.reshape(-1, 3))
    np.testing.assert_allclose(found.displacement, exact, atol=1e-8 * np.abs(exact).max())


def test_stability_constant_is_the_smallest_generalised_eigenvalue(case, hessian):
    values, modes = eigh(case, hessian)
    found = stability_constant(case.potential, case.defect, case.u)
    assert found.converged and found.residual <= 1e-5 * values[-1]
    assert found.constant == pytest.approx(values[0], abs=1e-8 * values[-1])
    assert found.constant >= values[0] - 1e-12 * values[-1]  # a quotient is never below
    assert values[0] > 0
    lattice = case.defect.lattice
    assert float(lattice.strain_norm(found.mode)) == pytest.approx(1.0, abs=1e-10)
    if values[1] - values[0] > 1e-2 * values[-1]:
        overlap = jnp.vdot(lattice.apply(found.mode), case.defect.on_sites(modes[0]))
        assert abs(float(overlap)) == pytest.approx(1.0, abs=1e-6)


def test_response_is_bounded_by_the_stability_constant(case):
    """||D H^+ f|| <= ||f||_{-1} / c, with equality for f = K mode."""
    defect, lattice = case.defect, case.defect.lattice
    c = stability_constant(case.potential, defect, case.u)
    within = case.moves @ (case.moves.T @ np.asarray(defect.on_atoms(noise(defect, 1))).ravel())
    within = defect.on_sites(within.reshape(-1, 3))
    for f, tight in ((within, False), (lattice.apply(c.mode), True)):
        response = hessian_solve(case.potential, defect, case.u, f).displacement
        ratio = float(lattice.strain_norm(response) / lattice.negative_norm(f)) * c.constant
        assert ratio == pytest.approx(1.0, abs=1e-6) if tight else 0.1 < ratio < 1.0


@pytest.mark.parametrize("second", [0.1, -0.05, -0.1, -0.15, -0.2, -0.3])
def test_sign_of_the_stability_constant(plane, second):
    """At one geometry, through the loss of stability as the second shell's bonds turn soft."""
    soft = bonds(second=second)
    values, modes = eigh(plane, dense_hessian(soft, plane.defect, plane.u))
    found = stability_constant(soft, plane.defect, plane.u)
    assert found.converged and found.constant == pytest.approx(values[0], abs=1e-8)
    lowest, highest = (plane.defect.on_sites(modes[k]) for k in (0, -1))
    apply = plane.defect.lattice.apply
    response = hessian_solve(soft, plane.defect, plane.u, apply(lowest + highest))
    assert response.indefinite == (values[0] < 0) != response.converged
    assert np.isnan(plane.defect.on_atoms(response.displacement)).all() == response.indefinite


def test_a_force_can_be_blind_to_an_instability(plane):
    """Along a mode of its own it responds as if all were well; only the constant tells."""
    soft = bonds(second=-0.3)
    values, modes = eigh(plane, dense_hessian(soft, plane.defect, plane.u))
    assert values[0] < 0
    stiffest = plane.defect.on_sites(modes[-1])
    found = hessian_solve(soft, plane.defect, plane.u, plane.defect.lattice.apply(stiffest))
    assert found.converged and found.iterations == 1
    np.testing.assert_allclose(found.displacement, stiffest / values[-1], atol=1e-9)


def test_lipschitz_estimate_is_the_change_of_the_hessian(plane):
    """D3E[d] by central differences of dense Hessians, whose error falls with the step squared."""
    defect, u = plane.defect, plane.u
    direction = defect.on_sites(defect.on_atoms(noise(defect, 2))).at[:, 2].set(0.0)
    found = lipschitz_estimate(BONDS, defect, u, direction)
    assert found.converged
    d = direction / defect.lattice.strain_norm(direction)

    def by_differences(h):
        change = [dense_hessian(BONDS, defect, u + step * d) for step in (h, -h)]
        values = eigh(plane, (change[0] - change[1]) / (2 * h))[0]
        return values[np.argmax(np.abs(values))]

    errors = [by_differences(h) - found.constant for h in (0.08, 0.04)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert abs(errors[1]) < 1e-3 * abs(found.constant)
    again = lipschitz_estimate(BONDS, defect, u, -7.0 * direction)
    assert again.constant == pytest.approx(-found.constant, rel=1e-9)


def test_a_translation_changes_nothing(plane):
    moved = plane.u + jnp.array([[0.3, -0.4, 0.0]])
    for solve in (stability_constant, lambda *a: lipschitz_estimate(*a, noise(plane.defect))):
        here, there = (solve(BONDS, plane.defect, u).constant for u in (plane.u, moved))
        assert there == pytest.approx(here, rel=1e-9)


# --- derivatives of the minimiser

DIRECTION = np.array([[[0.0, 0.1, 0.3, -0.2], [0.0, -0.05, 0.2, 0.1]]])
STEPS = (0.1, 0.05)


def changed(step):
    return dataclasses.replace(BONDS, coefficients=BONDS.coefficients + step * DIRECTION)


def quantity(u):
    """Not linear, and blind to translations."""
    return jnp.sum((u[8] - u[9]) ** 2) + 0.3 * (u[7, 0] - u[20, 1])


@pytest.fixture(scope="module")
def ends(plane):
    """Relaxed geometries at finite changes of the coefficients."""
    found = {s: relaxed(changed(s), plane.defect) for h in STEPS for s in (h, -h)}
    return found | {0.0: plane.u}


def test_minimiser_follows_the_coefficients(plane, ends):
    """Central differences of relaxations approach the derivative as the step squared."""
    geometry = jax.jit(lambda step: minimiser(changed(step), plane.defect, plane.u))
    value, rate = jax.jvp(geometry, (0.0,), (1.0,))
    np.testing.assert_array_equal(value, plane.u)
    np.testing.assert_allclose(jnp.sum(rate, axis=0), 0.0, atol=1e-12)
    norm = plane.defect.lattice.strain_norm
    errors = [float(norm((ends[h] - ends[-h]) / (2 * h) - rate)) for h in STEPS]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert errors[1] < 0.01 * float(norm(rate))


@pytest.fixture(scope="module")
def gradient(plane):
    """Of the quantity in all coefficients, in reverse."""
    goal = jax.jit(lambda potential: quantity(minimiser(potential, plane.defect, plane.u)))
    return np.asarray(jax.grad(goal)(BONDS).coefficients)


def test_reverse_is_forward(plane, gradient):
    geometry = jax.jit(lambda step: minimiser(changed(step), plane.defect, plane.u))
    _, rate = jax.jvp(lambda step: quantity(geometry(step)), (0.0,), (1.0,))
    assert np.vdot(gradient, DIRECTION) == pytest.approx(float(rate), rel=1e-9)
    assert np.abs(gradient[..., 1:]).min() > 0  # constants make no force
    np.testing.assert_array_equal(gradient[..., 0], 0.0)


def test_second_derivative_of_the_minimiser(plane, ends):
    def goal(step):
        return quantity(minimiser(changed(step), plane.defect, plane.u))

    curvature = float(jax.jit(jax.grad(jax.grad(goal)))(0.0))
    q = {step: float(quantity(u)) for step, u in ends.items()}
    errors = [(q[h] - 2 * q[0.0] + q[-h]) / h**2 - curvature for h in STEPS]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert abs(errors[1]) < 0.05 * abs(curvature)


def test_minimiser_of_an_unstable_potential_has_no_derivative(plane):
    soft = bonds(second=-0.3)

    def goal(potential):
        return quantity(minimiser(potential, plane.defect, plane.u))

    value, gradient = jax.jit(jax.value_and_grad(goal))(soft)
    assert float(value) == pytest.approx(float(quantity(plane.u)))
    assert np.isnan(gradient.coefficients).any()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perturbed:
    """Bonds with a linear ACE on top."""

    change: LinearPotential
    r_cut = BONDS.r_cut

    def __call__(self, graph):
        return BONDS(graph) + self.change(graph)


def test_minimiser_follows_a_linear_potential(plane):
    spec = ACESpec(elements=("W",), order=2, degree=3, r0=2.0, r_cut=BONDS.r_cut)
    direction = np.random.default_rng(4).normal(size=spec.n_columns)

    def perturbed(step):
        return Perturbed(linear_potential(spec, step * direction))

    def goal(potential):
        return quantity(minimiser(potential, plane.defect, plane.u))

    gradient = jax.jit(jax.grad(goal))(perturbed(0.0)).change.coefficients
    errors = []
    for h in (0.01, 0.005):
        q = [quantity(relaxed(perturbed(s), plane.defect)) for s in (h, -h)]
        errors.append(float(q[0] - q[1]) / (2 * h) - np.vdot(gradient, direction))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


# --- errors of quantities


def test_goal_error_against_relaxations(plane, ends):
    """What is left falls with the square of the surrogate's error, to second order its cube."""
    left = []
    for step in STEPS:
        found = goal_error(quantity, changed(step), plane.defect, plane.u)
        true = float(quantity(ends[step]) - quantity(plane.u))
        assert found.adjoint.converged and abs(found.estimate) <= found.bound
        assert float(jnp.sum(found.by_site)) == pytest.approx(found.estimate, rel=1e-10)
        left.append([true - found.estimate, true - found.estimate - found.second_order])
    assert left[0][0] / left[1][0] == pytest.approx(4.0, rel=0.15)
    assert left[0][1] / left[1][1] == pytest.approx(8.0, rel=0.3)


def test_goal_error_is_the_derivative_in_the_coefficients(plane, gradient):
    """Two routes: the estimate of a vanishing error, and the gradient through the minimiser."""
    step = 1e-6
    rate = goal_error(quantity, changed(step), plane.defect, plane.u).estimate / step
    assert rate == pytest.approx(np.vdot(gradient, DIRECTION), rel=1e-4)


def test_goal_bound_is_attained(plane):
    """By the quantity whose gradient is the worst for this residual: Dq = H K^+ f."""
    defect, u = plane.defect, plane.u
    surrogate = changed(0.1)
    n = defect.structure.n_atoms
    graph = build_graph(defect.displaced(u), surrogate.r_cut)
    forces = defect.on_sites(observe(surrogate, graph, "forces").forces[:n])
    worst = defect.on_atoms(defect.lattice.solve(forces)).ravel()
    pull = defect.on_sites((dense_hessian(surrogate, defect, u) @ worst).reshape(n, 3))
    found = goal_error(lambda v: jnp.vdot(pull, v), surrogate, defect, u)
    assert found.estimate == pytest.approx(found.bound, rel=1e-8)
    assert found.estimate == pytest.approx(float(defect.lattice.negative_norm(forces)) ** 2)
    unseen = goal_error(lambda v: jnp.sum(v), surrogate, defect, u)
    assert abs(unseen.estimate) < 1e-12


def test_errors_at_the_door(plane):
    defect, u = plane.defect, plane.u
    with pytest.raises(ValueError, match="36 sites"):
        hessian_solve(BONDS, defect, u, u[:-1])
    with pytest.raises(ValueError, match="tolerance is 0"):
        hessian_solve(BONDS, defect, u, u, tolerance=0.0)
    with pytest.raises(ValueError, match="max_iterations is -1"):
        stability_constant(BONDS, defect, u, max_iterations=-1)
    with pytest.raises(ValueError, match="strains the lattice"):
        lipschitz_estimate(BONDS, defect, u, jnp.ones_like(u))
    with pytest.raises(TypeError, match="displacement is traced"):
        jax.grad(lambda u: quantity(minimiser(BONDS, defect, u)))(u)
    with pytest.raises(TypeError, match="r_cut"):
        minimiser(lambda graph: BONDS(graph), defect, u)
