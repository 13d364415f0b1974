"""Conjugate gradients and Lanczos for symmetric operators beside a norm whose inverse is known.

Beside A there are K, symmetric and positive, and its inverse. K^-1 A is symmetric in the inner
product u^T K v, and where c v^T K v <= v^T A v <= C v^T K v the number of products with A is set
by c and C alone, whatever the size. Null spaces are the caller's: A, K and K^-1 are given as
projected onto what is left. Vectors are arrays of any one shape.
Source: Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409; Parlett, The Symmetric
Eigenvalue Problem (1980), chapters 13 and 15.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

CHECK_EVERY = 10
"""Lanczos steps between two looks at the eigenvalues: a choice."""
INVARIANT = 1e-10
"""A Lanczos step that leaves less than this share of itself ends the search: the space is closed.

A choice: small, and well above the rounding (1e-16) of what is taken out of the step.
"""


class Solved(NamedTuple):
    """A^-1 f by conjugate gradients."""

    solution: jax.Array  # x, of the shape of f
    iterations: jax.Array  # () products with A
    residual: jax.Array  # () |f - A x| / |f|, |f|^2 = f^T K^-1 f
    converged: jax.Array  # () bool
    indefinite: jax.Array  # () bool: met a v with v^T A v <= 0, and ended there


def conjugate_gradients(
    apply: Callable[[jax.Array], jax.Array],
    precondition: Callable[[jax.Array], jax.Array],
    f: jax.Array,
    tolerance: float | jax.Array,
    max_iterations: int | jax.Array,
) -> Solved:
    """Solve A x = f for positive definite A; to be called inside `jit`.

    Args:
        apply: v -> A v.
        precondition: f -> K^-1 f.
        f: right-hand side, of any one shape.
        tolerance: of the relative residual.
        max_iterations: products with A allowed.

    Returns:
        The solution and how it was reached. A direction of negative curvature, too few products
        or numbers that are not finite give converged = False.

    Source: Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409.
    """

    def step(state: _Iterate) -> _Iterate:
        return _next_iterate(precondition, state, apply(state.direction), jnp)

    first = _first_iterate(f, tolerance, max_iterations)
    first = _next_iterate(precondition, first, jnp.zeros_like(f), jnp)
    return _solved(jax.lax.while_loop(lambda state: state.goes_on, step, first), jnp)


class _Iterate(NamedTuple):
    solution: Any
    residual: Any  # f - A x
    direction: Any  # of the next step
    square: Any  # (), |residual|^2
    of_f: Any  # (), |f|^2
    curvature: Any  # (), v^T A v of the last direction
    count: Any  # (), products with A; -1 before the first look at f
    goes_on: Any  # () bool
    tolerance: Any  # ()
    most: Any  # (), products allowed


def _first_iterate(f: Any, tolerance: Any, most: Any) -> _Iterate:
    """Before any step: the first one, along nothing, only finds a direction."""
    zeros, one = np.zeros(f.shape), np.ones(())
    count, yes = np.full((), -1), np.ones((), bool)
    return _Iterate(zeros, f, zeros, one, one, one, count, yes, tolerance, most)


def _next_iterate(precondition, state: _Iterate, image: Any, xp: Any) -> _Iterate:
    """The state after a step along its direction, of which A makes `image`; xp: NumPy's or JAX's
    functions."""
    first = state.count < 0
    curvature = xp.vdot(state.direction, image)
    length = state.square / xp.where(curvature > 0, curvature, xp.inf)
    residual = state.residual - length * image
    conditioned = precondition(residual)
    square = xp.vdot(residual, conditioned)
    of_f = xp.where(first, square, state.of_f)
    curvature, count = xp.where(first, 1.0, curvature), state.count + 1
    large = square > state.tolerance**2 * of_f
    return state._replace(
        solution=state.solution + length * state.direction,
        residual=residual,
        direction=conditioned + square / state.square * state.direction,
        square=square,
        of_f=of_f,
        curvature=curvature,
        count=count,
        goes_on=large & (curvature > 0) & (count < state.most),
    )


def _solved(state: _Iterate, xp: Any) -> Solved:
    indefinite = state.curvature <= 0
    residual = xp.sqrt(state.square / xp.where(state.of_f > 0, state.of_f, 1.0))
    converged = (residual <= state.tolerance) & ~indefinite
    return Solved(state.solution, state.count, residual, converged, indefinite)


class Space(Protocol):
    """K, its two functions compiled."""

    def metric(self, v: Any, /) -> jax.Array:
        """K v."""
        ...

    def precondition(self, f: Any, /) -> jax.Array:
        """K^-1 f."""
        ...

    def project(self, v: Any, /) -> jax.Array:
        """v without the null space of K, which the norm does not see."""
        ...


def solve(
    apply: Callable[[Any], jax.Array],
    space: Space,
    f: Any,
    tolerance: float,
    max_iterations: int,
) -> Solved:
    """`conjugate_gradients` with a loop on the host, around a function that is compiled already.

    Args:
        apply: v -> A v, compiled.
        space: K.
        f: right-hand side, of any one shape.
        tolerance: of the relative residual.
        max_iterations: products with A allowed.

    Returns:
        As `conjugate_gradients`.
    """
    precondition = lambda v: np.asarray(space.precondition(v))  # noqa: E731
    f = np.asarray(f)
    state, image = _first_iterate(f, tolerance, max_iterations), np.zeros(f.shape)
    with np.errstate(all="ignore"):  # numbers that are not finite are found at the end
        while True:
            state = _next_iterate(precondition, state, image, np)
            if not state.goes_on:
                return _solved(state, np)
            image = np.asarray(apply(state.direction))


class Eigenpair(NamedTuple):
    """A v = value K v with v^T K v = 1; `value` is v^T A v, so never beyond the true extremes."""

    value: float
    mode: jax.Array  # v, of the shape of the start
    iterations: int  # products with A
    residual: float  # |A v - value K v|, |f|^2 = f^T K^-1 f
    converged: bool  # residual <= tolerance times the largest |value|


def extreme_eigenpair(
    apply: Callable[[Any], jax.Array],
    space: Space,
    start: jax.Array | np.ndarray,
    choose: Callable[[np.ndarray], int | np.integer],
    tolerance: float,
    max_iterations: int,
) -> Eigenpair:
    """An extreme eigenvalue of A against K: Lanczos, the whole basis kept orthogonal.

    Its loop runs on the host, around a function that is compiled already.

    The error of the value is below the residual, and about its square over the distance to the
    next one.

    Args:
        apply: v -> A v, compiled.
        space: K.
        start: a random vector (projected), in which no mode is missing.
        choose: eigenvalues in ascending order -> index of the one wanted, such as numpy.argmin.
        tolerance: of the residual, relative to the largest |value|.
        max_iterations: products with A allowed, rounded up to tens; as many vectors are kept.

    Returns:
        The value and its mode. Numbers that are not finite give NaN and converged = False.

    Source: Parlett, The Symmetric Eigenvalue Problem (1980), chapters 13 and 15.
    """
    m = CHECK_EVERY * -(-int(max_iterations) // CHECK_EVERY)
    state, v = _first_state(space, start, m)
    for steps in range(CHECK_EVERY, m + 1, CHECK_EVERY):
        for j in range(steps - CHECK_EVERY, steps):
            v = _extended(space, state, j, np.asarray(apply(v)))
        value, weights, residual, largest = _ritz(state, steps, choose)
        if not residual > tolerance * largest:
            break
    mode = jax.device_put(np.tensordot(weights, state.basis, axes=1))
    return Eigenpair(value, mode, steps, residual, residual <= tolerance * largest)


class _State(NamedTuple):
    """Filled in place."""

    basis: np.ndarray  # (m + 1, ...), orthonormal in K; zero where there is none yet
    products: np.ndarray  # (m, m), v_i^T A v_j on and above the diagonal
    remainders: np.ndarray  # (m,), length of what step j found beyond the basis


def _first_state(space: Space, start: Any, m: int) -> tuple[_State, np.ndarray]:
    """A basis of one vector, and that."""
    start = np.asarray(start)
    basis = np.zeros((m + 1, *start.shape))
    basis[0] = start / np.sqrt(np.vdot(start, space.metric(start)))
    return _State(basis, np.zeros((m, m)), np.zeros(m)), basis[0]


def _extended(space: Space, state: _State, j: int, image: np.ndarray) -> np.ndarray:
    """One vector more, which is returned: of vector j A makes `image`."""
    known, new = state.basis[: j + 1], np.asarray(space.precondition(image))
    size = np.vdot(new, space.metric(new))
    for _ in range(2):  # once is not enough: rounding leaves parts along the basis
        overlaps = _dots(known, np.asarray(space.metric(new)))
        new = new - np.tensordot(overlaps, known, axes=1)
    # Where steps are small beside what is taken out of them, rounding along the null space grows
    # from one to the next, unseen by the norm, until it is all there is.
    new = np.asarray(space.project(new))
    square = np.vdot(new, space.metric(new))
    state.products[: j + 1, j] = _dots(known, image)
    if square > INVARIANT**2 * size:
        state.remainders[j] = np.sqrt(square)
        state.basis[j + 1] = new / state.remainders[j]
    return state.basis[j + 1]


def _dots(basis: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The inner products of every vector of the basis with v, (len(basis),)."""
    return np.tensordot(basis, v, axes=v.ndim)


def _ritz(
    state: _State, steps: int, choose: Callable[[np.ndarray], int | np.integer]
) -> tuple[float, np.ndarray, float, float]:
    """The chosen value, its mode's weights in the basis, its residual, and the largest |value|."""
    remainders = state.remainders[:steps]
    # the basis may have closed before the last step
    size = steps if remainders.all() else int(np.argmin(remainders != 0)) + 1
    upper = np.triu(state.products[:size, :size])
    if not np.isfinite(upper).all():
        return np.nan, np.full(len(state.basis), np.nan), np.nan, np.nan
    values, vectors = np.linalg.eigh(upper + np.triu(upper, 1).T)
    best = choose(values)
    weights = np.pad(vectors[:, best], (0, len(state.basis) - size))
    residual = remainders[size - 1] * abs(vectors[-1, best])
    return float(values[best]), weights, float(residual), float(np.abs(values).max())
