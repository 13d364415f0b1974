"""Lines against the gradient's own derivatives, and polarisation against forms that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, diamond
from lprjax.atoms.voigt import strain_tensor
from lprjax.crystals import strain_derivatives
from lprjax.crystals.strain_derivatives import (
    deformed_energy,
    gradient_and_hessian,
    polarisation,
    shear_hessians,
    size_derivatives,
    third_derivatives,
)
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.observables import total_energy
from lprjax.potentials.stillinger_weber import stillinger_weber

SILICON = stillinger_weber()
CASES = {
    "bcc W, one atom": (zhou_eam("W"), bcc("W", 3.1, primitive=True)),
    "diamond Si": (SILICON, diamond("Si", 5.5, primitive=True)),
}


def diagonal(form, line):
    """C(d, d, ...)."""
    while form.ndim:
        form = form @ line
    return float(form)


@pytest.mark.parametrize("size, degree", [(1, 2), (5, 2), (1, 3), (4, 3)])
def test_a_form_is_put_together_from_its_diagonal(size, degree):
    rng = np.random.default_rng(0)
    form = sum(
        np.multiply.outer(np.multiply.outer(v, v), v) if degree == 3 else np.multiply.outer(v, v)
        for v in rng.normal(size=(7, size))
    )
    lines, weights = polarisation(size, degree)
    letters = "ijk"[:degree]
    values = np.einsum(
        f"{letters},{','.join('l' + c for c in letters)}->l", form, *[lines] * degree
    )
    np.testing.assert_allclose(weights @ values, form.ravel(), atol=1e-13 * np.abs(form).max() * 10)
    np.testing.assert_array_equal(lines[:size], np.eye(size))


@pytest.fixture(params=CASES)
def pair(request):
    potential, cell = CASES[request.param]
    return potential, build_graph(cell, potential.r_cut, n_atoms=cell.n_atoms)


def variables(graph):
    """E over (eps, u), and over eta with displacements that go with it."""

    def linear(potential, x):
        eps = strain_tensor(x[:6])
        return deformed_energy(potential, graph, jnp.eye(3) + eps, x[6:].reshape(-1, 3))

    def lagrangian(potential, internal, voigt):
        eta = strain_tensor(voigt)
        root = jnp.eye(3) + eta - eta @ eta / 2 + eta @ eta @ eta / 2
        return deformed_energy(potential, graph, root, (voigt @ internal).reshape(-1, 3))

    return linear, lagrangian


def test_lines_give_the_derivatives_of_the_gradient(pair):
    """Of a strained crystal, where no term vanishes; to rounding, 1e-15 of terms of 1e3 eV."""
    potential, graph = pair
    linear, lagrangian = (partial(f, potential) for f in variables(graph))
    slope, hessian = gradient_and_hessian(*pair)
    origin = jnp.zeros(len(slope))
    right = jax.jit(jax.hessian(linear))(origin)
    np.testing.assert_allclose(slope, jax.grad(linear)(origin), atol=1e-11 * np.abs(right).max())
    np.testing.assert_allclose(hessian, right, atol=1e-11 * np.abs(right).max())
    internal = np.random.default_rng(0).normal(size=(6, 3 * len(graph.positions)))
    third = third_derivatives(*pair, internal)
    right = jax.jit(jax.jacfwd(jax.hessian(partial(lagrangian, internal))))(jnp.zeros(6))
    np.testing.assert_allclose(third, right, atol=1e-11 * np.abs(right).max())
    for axes in ((1, 0, 2), (0, 2, 1)):
        np.testing.assert_allclose(third, third.transpose(axes), atol=1e-11 * np.abs(right).max())


def test_many_atoms_are_differentiated_by_the_gradient(monkeypatch):
    """And give the same: eight atoms of the cubic cell, four cells of two."""
    cell = diamond("Si", 5.5)
    graph = build_graph(cell, SILICON.r_cut, n_atoms=8)
    monkeypatch.setattr(strain_derivatives, "_along_few", None)
    _, hessian = gradient_and_hessian(SILICON, graph)
    small = diamond("Si", 5.5, primitive=True)
    monkeypatch.undo()
    _, expected = gradient_and_hessian(SILICON, build_graph(small, SILICON.r_cut, n_atoms=2))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(hessian[:6, :6], 4.0 * expected[:6, :6], atol=1e-10 * scale)


def test_sizes_and_shears_are_those_of_differences(pair):
    """Of E under x -> exp(s) x and x -> x + b (k . x): errors h^2 of two derivatives more."""
    potential, graph = pair
    h, k = 1e-4, np.array([[0.0, 0.6, 0.8]])

    def energy(deformation):
        there = jax.tree.map(lambda x: x, graph)
        for name in ("positions", "cell"):
            object.__setattr__(there, name, getattr(graph, name) @ deformation.T)
        return float(total_energy(potential, there))

    right = [energy(np.exp(s) * np.eye(3)) for s in (-h, 0.0, h)]
    found = np.asarray(size_derivatives(potential, graph))
    expected = [right[1], (right[2] - right[0]) / (2 * h), np.diff(right, 2)[0] / h**2]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    shears = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        steps = [(s, t) for s in (h, -h) for t in (h, -h)]
        moves = [s * np.eye(3)[i] + t * np.eye(3)[j] for s, t in steps]
        values = [energy(np.eye(3) + np.outer(b, k[0])) for b in moves]
        shears[i, j] = (values[0] - values[1] - values[2] + values[3]) / (4 * h**2)
    np.testing.assert_allclose(shear_hessians(potential, graph, k)[0], shears, atol=1e-4)


def test_derivatives_may_be_traced_in_the_potential():
    potential, cell = CASES["bcc W, one atom"]
    graph = build_graph(cell, potential.r_cut, n_atoms=1)
    table = potential.as_pytree()
    inside = jax.jit(lambda p: gradient_and_hessian(p, graph)[1])(table)
    np.testing.assert_allclose(inside, gradient_and_hessian(potential, graph)[1], atol=1e-11)
