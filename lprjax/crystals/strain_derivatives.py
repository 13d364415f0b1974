"""Derivatives of a cell's energy in homogeneous strains and displacements of its atoms.

E(F, u) is the energy under x -> F (x + u). Of a small cell it is differentiated along lines,

    d/dt, d2/dt2, d3/dt3 of E(F(t), t u) at t = 0,    F(t) = 1 + t F_1 + t^2 F_2 + t^3 F_3,

and the Hessian and the third derivatives are put together from enough of them (polarisation):
exactly, by one small program for both, where the gradient's derivatives would take XLA several
times as long to compile as they take to run. Of many atoms the lines would be too many: there the
gradient is differentiated. So it is where derivatives are differences of gradients, which cost
evaluations (a potential that says `by_differences`): the gradient along a line gives a row of
each order at once, from five points on it (`numerics.differences`).
"""

from functools import cache, partial
from itertools import combinations, combinations_with_replacement, permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.atoms.graphs import Graph, moved
from lprjax.atoms.voigt import SHEARS, VOIGT_TENSOR, strain_tensor
from lprjax.numerics.differences import Noise
from lprjax.numerics.host import on_host, traced
from lprjax.potentials.derivatives import differences_on_line, each
from lprjax.potentials.potential import Potential, as_argument, by_differences, total_energy_of

COMPILED_QUICKLY = 16
"""Atoms up to which XLA is not to optimise: a choice; lines then take a millisecond at most."""
FEW = 4
"""Atoms up to which a Hessian is made of lines, (6 + 3 n)^2 / 2 of them: a choice."""


def gradient_and_hessian(potential: Potential, graph: Graph) -> tuple[Any, Any]:
    """Of E(1 + eps, u) in (eps_1 ... eps_6, u_11 ... u_n3), eps symmetric, in Voigt order.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: of n atoms, without padding.

    Returns:
        The gradient (6 + 3 n,) and the Hessian (6 + 3 n, 6 + 3 n), in eV per strain and per Å; of
        NumPy where nothing is traced.
    """
    argument, n = as_argument(potential, "potential"), len(graph.positions)
    if by_differences(potential) and not traced(graph):
        return _by_lines(potential, graph)
    if n > FEW or by_differences(potential):
        return jax.tree.map(on_host, _gradient_and_hessian(argument, graph))
    size = 6 + 3 * n
    lines, weights = polarisation(size, 2)
    strains = np.zeros((len(lines), 3, 3, 3))
    strains[:, 0] = (lines[:, :6] / SHEARS)[:, VOIGT_TENSOR]
    slopes = _along_each(argument, graph, strains, lines[:, 6:].reshape(-1, n, 3))
    return slopes[:size, 1], (weights @ slopes[:, 2]).reshape(size, size)


def size_derivatives(potential: Potential, graph: Graph) -> Any:
    """Of E(exp(s), 0) at s = 0.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: of n atoms, padding included.

    Returns:
        E, dE/ds, d2E/ds2, eV.
    """
    argument = as_argument(potential, "potential")
    if by_differences(potential) and not traced(graph):
        return _size_by_lines(potential, graph)
    powers = np.multiply.outer([1.0, 1.0 / 2.0, 1.0 / 6.0], np.eye(3))  # of the exponential
    return _along_each(argument, graph, powers[None])[0, :3]


def shear_hessians(potential: Potential, graph: Graph, directions: np.ndarray) -> Any:
    """d2E / db db of E(1 + b k^T, 0) for every k.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: of n atoms, without padding.
        directions: k, (m, 3).

    Returns:
        (m, 3, 3) eV; of NumPy where nothing is traced.
    """
    argument = as_argument(potential, "potential")
    if by_differences(potential) and not traced(graph):
        return np.stack([_shear_by_lines(potential, graph, k) for k in directions])
    lines, weights = polarisation(3, 2)
    powers = np.zeros((len(directions), len(lines), 3, 3, 3))
    powers[:, :, 0] = np.einsum("lb,mk->mlbk", lines, directions)
    powers = powers.reshape(-1, 3, 3, 3)
    slopes = _along_each(argument, graph, powers)[:, 2]
    return (slopes.reshape(len(directions), -1) @ weights.T).reshape(-1, 3, 3)


def third_derivatives(potential: Potential, graph: Graph, internal: Any) -> Any:
    """Of E in the Lagrangian strain eta with F = (1 + 2 eta)^(1/2) and displacements that follow.

    Args:
        potential: graph -> site energies (n,), eV.
        graph: of n atoms, without padding.
        internal: (6, 3 n) Å, the displacements u that go with each eta_I.

    Returns:
        (6, 6, 6) eV, symmetric; of NumPy where nothing is traced.
    """
    argument, n = as_argument(potential, "potential"), len(graph.positions)
    if by_differences(potential) and not traced(graph):
        return _third_by_lines(potential, graph, np.asarray(internal))
    lines, weights = polarisation(6, 3)
    eta = (lines / SHEARS)[:, VOIGT_TENSOR]
    strains = np.stack([eta, -0.5 * eta @ eta, 0.5 * eta @ eta @ eta], axis=1)  # the root's series
    slopes = _along_each(argument, graph, strains, (lines @ internal).reshape(-1, n, 3))
    return (weights @ slopes[:, 3]).reshape(6, 6, 6)


@cache
def polarisation(size: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """How a symmetric form is put together from its values on the diagonal.

        C(e_i, e_j, ...) = sum_l weights[ij..., l] C(d_l, d_l, ...)

    Args:
        size: of its vectors.
        degree: how many vectors it takes, 2 or 3.

    Returns:
        The lines d_l (L, size), of which the first are e_1 ... e_size, and the weights
        (size^degree, L).
    """
    units = np.eye(size)
    lines = [sum(units[list(c)]) for m in range(degree) for c in combinations(range(size), m + 1)]
    if degree == 3:  # e_i + e_j alone does not tell C_iij from C_ijj
        lines += [units[i] - units[j] for i, j in combinations(range(size), 2)]
    terms = list(combinations_with_replacement(range(size), degree))
    counts = [len(set(permutations(term))) for term in terms]
    values = np.stack(lines)
    design = np.prod(values[:, np.array(terms)], axis=-1) * np.array(counts)[None]
    place = {term: k for k, term in enumerate(terms)}
    whole = [place[tuple(sorted(index))] for index in np.ndindex(*(size,) * degree)]
    return values, np.linalg.solve(design.T, np.eye(len(terms))[:, whole]).T


def _along_each(potential: Any, graph: Graph, strains: np.ndarray, shifts: Any = None) -> Any:
    """`_along` lines of strains (m, 3, 3, 3) and displacements (m, n, 3), (m, 4)."""
    if shifts is None:
        shifts = np.zeros((len(strains), *graph.positions.shape))
    quickly = len(graph.positions) <= COMPILED_QUICKLY and not traced(potential, graph, shifts)
    function = _along_few if quickly else _along_many
    return each(function, (strains, shifts), potential, graph)


def _along(potential: Potential, graph: Graph, line: tuple[jax.Array, jax.Array]) -> jax.Array:
    """E and three derivatives in t, (4,), along F_1, F_2, F_3, (3, 3, 3), and u, (n, 3)."""
    powers, shift = line

    def energy(t: jax.Array) -> jax.Array:
        deformation = jnp.eye(3) + t * (powers[0] + t * (powers[1] + t * powers[2]))
        return deformed_energy(potential, graph, deformation.T, t * shift)

    def slope(function: Any) -> Any:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))

    (value, (first, second)), (_, (_, third)) = slope(slope(slope(energy)))(jnp.zeros(()))
    return jnp.stack([value[0], first, second, third])


_along_many = jax.jit(_along)
_along_few = jax.jit(_along, compiler_options={"xla_backend_optimization_level": 0})
"""Of few atoms: it takes XLA two thirds of the time, and runs for microseconds anyway."""


def deformed_energy(
    potential: Potential, graph: Graph, deformation: jax.Array, displacements: jax.Array
) -> jax.Array:
    """E(F, u), () eV, for use inside `jit`.

    Args:
        potential: as `as_argument` makes it.
        graph: of n atoms.
        deformation: the transpose of F, (3, 3).
        displacements: u, (n, 3) Å, or (1, 3) the same for all.

    Returns:
        The energy.
    """
    positions = graph.positions + displacements
    return total_energy_of(
        potential, moved(graph, positions @ deformation, graph.cell @ deformation)
    )


def _unit_of_strain(graph: Graph) -> float:
    """The strain that moves an atom by 1 Å against the next."""
    return (len(graph.positions) / abs(np.linalg.det(np.asarray(graph.cell)))) ** (1.0 / 3.0)


def _by_lines(potential: Potential, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """`gradient_and_hessian` by differences, but of the last atom, which the sum rule gives."""
    argument, n = as_argument(potential, "potential"), len(graph.positions)
    gradient = lambda x: np.asarray(_gradient(argument, graph, x))  # noqa: E731
    columns = []
    for k, tangent in enumerate(np.eye(6 + 3 * n)[: 6 + 3 * (n - 1)]):
        unit = _unit_of_strain(graph) if k < 6 else 1.0
        along = lambda t, v=tangent: gradient(t * v)  # noqa: E731
        columns.append(
            differences_on_line(
                potential, graph, along, 1, unit=unit, strained=True, noise=partial(_both, n=n)
            ).first
        )
    hessian = np.stack(columns)
    last = -hessian[6:].reshape(n - 1, 3, 6 + 3 * n).sum(axis=0)  # a shift of all changes nothing
    hessian = np.concatenate([hessian, last])
    return gradient(np.zeros(6 + 3 * n)), _invariant(0.5 * (hessian + hessian.T))


def _both(noise: Noise, n: int) -> np.ndarray:
    """Of the gradient in (eps, u), (6 + 3 n,)."""
    return np.repeat([noise.virial, noise.forces], (6, 3 * n))


def _invariant(hessian: np.ndarray) -> np.ndarray:
    """The nearest Hessian in which a shift of all atoms brings no force and no stress."""
    n = len(hessian) // 3 - 2
    rest = np.eye(len(hessian))
    rest[6:, 6:] -= np.kron(np.full((n, n), 1.0 / n), np.eye(3))
    return rest @ hessian @ rest


def _size_by_lines(potential: Potential, graph: Graph) -> np.ndarray:
    argument = as_argument(potential, "potential")
    both = lambda s: np.asarray(_size_slope(argument, graph, s))  # noqa: E731
    unit = _unit_of_strain(graph)
    line = differences_on_line(
        potential, graph, both, 1, unit=unit, strained=True,
        noise=lambda noise: np.array([np.inf, 3.0**0.5 * noise.virial]),
    )  # fmt: skip
    return np.append(both(0.0), line.first[1])


def _shear_by_lines(potential: Potential, graph: Graph, k: np.ndarray) -> np.ndarray:
    argument, rows = as_argument(potential, "potential"), []
    for b in np.eye(3):
        along = lambda t, b=b: np.asarray(_shear_slope(argument, graph, k, t * b))  # noqa: E731
        rows.append(
            differences_on_line(
                potential, graph, along, 1, unit=_unit_of_strain(graph), strained=True,
                noise=lambda noise: noise.virial,
            ).first
        )  # fmt: skip
    return 0.5 * (np.stack(rows) + np.stack(rows).T)


def _third_by_lines(potential: Potential, graph: Graph, internal: np.ndarray) -> np.ndarray:
    """(6, 6, 6) eV: C[d, d, .] of lines d, by least squares over the 56 constants."""
    if not np.isfinite(internal).all():  # a crystal without stiffness has no constants
        return np.full((6, 6, 6), np.nan)
    argument, unit = as_argument(potential, "potential"), _unit_of_strain(graph)
    slope = lambda x: np.asarray(_lagrangian(argument, graph, internal, x))  # noqa: E731
    middle = cache(lambda: slope(np.zeros(6)))  # of all lines
    # e_I, and e_I + e_J of two stretches or two shears: of any three one pair is among them
    pairs = [(i, j) for triple in ((0, 1, 2), (3, 4, 5)) for i, j in combinations(triple, 2)]
    lines, rows = np.array([*np.eye(6), *(np.eye(6)[i] + np.eye(6)[j] for i, j in pairs)]), []
    for d in lines:
        along = lambda t, d=d: slope(t * d) if t else middle()  # noqa: E731
        rows.append(
            differences_on_line(
                potential, graph, along, 2, unit=unit, strained=True,
                noise=lambda noise: noise.virial,
            ).second
        )  # fmt: skip
    terms = list(combinations_with_replacement(range(6), 3))
    place = np.array([terms.index(tuple(sorted(index))) for index in np.ndindex(6, 6, 6)])
    squares = np.einsum("li,lj->lij", lines, lines).reshape(len(lines), 36)
    design = np.zeros((len(lines), 6, len(terms)))
    wanted = np.broadcast_to(place.reshape(36, 6)[None], (len(lines), 36, 6))
    line, _, component = np.indices(wanted.shape)
    np.add.at(design, (line, component, wanted), np.broadcast_to(squares[..., None], wanted.shape))
    constants = np.linalg.lstsq(design.reshape(-1, len(terms)), np.ravel(rows))[0]
    return constants[place].reshape(6, 6, 6)


@jax.jit
def _size_slope(potential, graph, s):
    """E and dE/ds, (2,), eV."""

    def energy(s):
        grown = moved(graph, graph.positions * jnp.exp(s), graph.cell * jnp.exp(s))
        return total_energy_of(potential, grown)

    return jnp.stack(jax.value_and_grad(energy)(jnp.asarray(s)))


@jax.jit
def _shear_slope(potential, graph, k, b):
    """dE/db of E(1 + b k^T), (3,), eV."""

    def energy(b):
        deformation = jnp.eye(3) + jnp.outer(b, k)
        return deformed_energy(potential, graph, deformation.T, jnp.zeros((1, 3)))

    return jax.grad(energy)(b)


def _energy_at(potential, graph, variables):
    """E of (eps, u), (6 + 3 n,)."""
    deformation = jnp.eye(3) + strain_tensor(variables[:6])
    return deformed_energy(potential, graph, deformation, variables[6:].reshape(-1, 3))


@jax.jit
def _gradient(potential, graph, variables):
    return jax.grad(lambda x: _energy_at(potential, graph, x))(variables)


@jax.jit
def _gradient_and_hessian(potential, graph):
    origin = jnp.zeros(6 + graph.positions.size)
    gradient = jax.grad(lambda x: _energy_at(potential, graph, x))
    column = partial(jax.jvp, gradient, (origin,))
    columns = jax.lax.map(lambda tangent: column((tangent,))[1], jnp.eye(origin.size))
    return gradient(origin), columns


@jax.jit
def _lagrangian(potential, graph, internal, voigt):
    """dE/d eta (6,), eV, along displacements internal[I] (6, 3 n) that go with each eta_I."""

    def energy(voigt):
        eta = strain_tensor(voigt)
        root = jnp.eye(3) + eta - eta @ eta / 2 + eta @ eta @ eta / 2  # + O(eta^4)
        return deformed_energy(potential, graph, root, (voigt @ internal).reshape(-1, 3))

    return jax.grad(energy)(voigt)
