"""The energy's derivatives in the positions: three programs, which all that takes them shares.

    forces of a graph                 -dE/dR                       `site_energies_and_forces`
    a product with the Hessian        D2E[v]                       `hessian_product`
    one with the third derivatives    D2E[v], D3E[v, w]            `third_product`

XLA takes seconds for each, for a potential and a shape of graph, and microseconds to start it once
it is there. So minimisers, solvers and searches for eigenvalues run their loops on the host, over
these: a loop with the potential inside would be compiled for each of them.

Padding atoms neither move nor feel forces. Inside a user's `jit` all may be traced.

Where a potential has forces and no derivatives of them (`by_differences`), third derivatives are
those of a polynomial through five points on a line, whose distance its noise decides
(`numerics.differences`), and so are second ones where many are asked for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, moved
from lprjax.numerics.differences import Line, Noise, checked_on_line
from lprjax.numerics.host import traced
from lprjax.potentials.potential import (
    Potential,
    by_differences,
    site_energies_of,
    total_energy_of,
)


class Forces(NamedTuple):
    """What `site_energies_and_forces` returns."""

    energy: jax.Array  # E, (), eV
    sites: jax.Array  # E_i, (n,), eV, whose differences keep the digits that E loses
    forces: jax.Array  # (n, 3) eV/Å


@jax.jit
def site_energies_and_forces(potential: Potential, graph: Graph) -> Forces:
    """Energy, site energies and forces.

    Args:
        potential: as `as_argument` makes it.
        graph: n atoms, padding included.

    Returns:
        Forces.
    """

    def energy(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        sites = site_energies_of(potential, moved(graph, positions))
        return jnp.sum(sites), sites

    (total, sites), gradient = jax.value_and_grad(energy, has_aux=True)(graph.positions)
    return Forces(total, sites, -gradient)


def _gradient(potential: Potential, graph: Graph) -> Callable[[jax.Array], jax.Array]:
    return jax.grad(lambda x: total_energy_of(potential, moved(graph, x)))


@jax.jit
def hessian_product(potential: Potential, graph: Graph, v: jax.Array) -> jax.Array:
    """D2E[v], how the gradient changes along v.

    Args:
        potential: as `as_argument` makes it.
        graph: n atoms, padding included.
        v: (n, 3), in any unit.

    Returns:
        (n, 3), eV/Å^2 times that unit.
    """
    return jax.linearize(_gradient(potential, graph), graph.positions)[1](v)


def third_product(
    potential: Potential, graph: Graph, v: Any, w: Any
) -> tuple[ArrayLike, ArrayLike]:
    """D2E[v], and D3E[v, w], how that changes along w.

    By differences it is thirteen calls where v = w, else D3E[v, w] = D3E[v + w, v + w] / 4 less the
    same of v - w, of v and w of one size, by central differences: four.

    Args:
        potential: as `as_argument` makes it.
        graph: n atoms, padding included.
        v: (n, 3), in any unit.
        w: (n, 3), in any unit.

    Returns:
        Two arrays (n, 3), eV/Å^2 times the unit of v and eV/Å^3 times that of both; of NumPy where
        they are differences.
    """
    if not by_differences(potential) or traced(potential, graph, v, w):
        return _third_product(potential, graph, v, w)
    v, w = np.asarray(v), np.asarray(w)
    if np.array_equal(v, w):
        lines = (gradient_on_line(potential, graph, v, order) for order in (1, 2))
        return next(lines).first, next(lines).second
    return _by_polarisation(potential, graph, v, w)


def _by_polarisation(potential, graph, v, w) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(graph.positions)
    scale = np.abs(v).max() / max(np.abs(w).max(), np.finfo(float).tiny)
    pair = v + scale * w, v - scale * w
    longest = max(float(np.abs(a).max()) for a in pair)
    if longest == 0.0:
        return np.zeros_like(x), np.zeros_like(x)
    t = 0.5 * by_differences(potential).steps(graph).second / longest
    gradients = [
        [
            -np.asarray(site_energies_and_forces(potential, moved(graph, x + s * a)).forces)
            for s in (t, -t)
        ]
        for a in pair
    ]
    (ahead, back), (up, down) = gradients
    return (ahead - back + up - down) / (4.0 * t), (ahead + back - up - down) / (4 * t**2 * scale)


def gradient_on_line(potential: Potential, graph: Graph, v: np.ndarray, order: int = 2) -> Line:
    """D2E[v] and D3E[v, v] of a potential whose derivatives are differences: six calls or seven.

    Args:
        potential: as `as_argument` makes it; its noise decides how far the calls are apart.
        graph: n atoms, padding included; of known numbers, as v.
        v: (n, 3), in any unit.
        order: for which of the two the distance is best; at 1 the second is left out.

    Returns:
        The Line, (n, 3), eV/Å^2 times the unit of v and eV/Å^3 times its square.
    """
    size, x = float(np.max(np.abs(v))), np.asarray(graph.positions)
    if size == 0.0:
        return Line(np.zeros_like(x), np.zeros_like(x))

    def gradient(t: float) -> np.ndarray:
        there = moved(graph, jax.device_put(x + t * v))
        return -np.asarray(site_energies_and_forces(potential, there).forces)

    return differences_on_line(potential, graph, gradient, order, unit=1.0 / size)


def differences_on_line(
    potential: Potential,
    graph: Graph,
    values: Callable[[float], np.ndarray],
    order: int,
    *,
    unit: float = 1.0,
    strained: bool = False,
    noise: Callable[[Noise], Any] = lambda noise: noise.forces,
) -> Line:
    """Derivatives along a line of what is made of a potential's gradients: six calls.

    The potential is told how large the noise of these calls is, and if the derivative changes by
    more than that with half the step, how much larger it would have to be.

    Args:
        potential: by differences, as it is or as `as_argument` makes it.
        graph: n atoms, padding included; of known numbers.
        values: t -> f(t), an array.
        order: of the derivative that the distance is best for, 1 or 2.
        unit: t at which the largest displacement is 1 Å.
        strained: the cell moves too.
        noise: that of f, of each component or of all, from the potential's.

    Returns:
        The Line.
    """
    itself = by_differences(potential)
    steps = itself.steps(graph, strained=strained)
    of_calls = steps.noise[order - 1]
    with itself.on_a_line(of_calls) as told:
        middle = values(0.0) if order == 2 else None
        step = steps.of(order) * unit
        line, times = checked_on_line(values, middle, step, order, noise(of_calls))
        told.noise = Noise(*(times * e for e in of_calls))
    return line


@jax.jit
def _third_product(potential, graph, v, w):
    gradient = _gradient(potential, graph)
    product = lambda x: jax.jvp(gradient, (x,), (v,))[1]  # noqa: E731
    return jax.jvp(product, (graph.positions,), (w,))


def each(function: Callable[..., Any], items: Any, *common: Any) -> Any:
    """function(*common, item) of every item: calls of one compiled function, or where something is
    traced a loop of XLA's.

    Args:
        function: a compiled one.
        items: a pytree of arrays (m, ...).
        *common: what it takes before an item.

    Returns:
        What it returns, (m, ...), of NumPy where nothing is traced.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((items, common))):
        return jax.lax.map(lambda item: function(*common, item), items)
    m = len(jax.tree.leaves(items)[0])
    found = [function(*common, jax.tree.map(lambda x, k=k: x[k], items)) for k in range(m)]
    return jax.tree.map(lambda *parts: np.stack(parts), *found)
