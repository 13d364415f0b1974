"""Conjugate gradients and Lanczos for symmetric operators beside a norm whose inverse is known.

Beside A there are K, symmetric and positive, and its inverse. K^-1 A is symmetric in the inner
product u^T K v, and where c v^T K v <= v^T A v <= C v^T K v the number of products with A is set
by c and C alone, whatever the size. Null spaces are the caller's: A, K and K^-1 are given as
projected onto what is left. Vectors are arrays of any one shape.
Source: Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409; Parlett, The Symmetric
Eigenvalue Problem (1980), chapters 13 and 15.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

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
    start = precondition(f)
    square_of_f = jnp.vdot(f, start)

    def unfinished(state):
        _, _, _, square, curvature, count = state
        return (square > tolerance**2 * square_of_f) & (curvature > 0) & (count < max_iterations)

    def step(state):
        x, residual, direction, square, _, count = state
        image = apply(direction)
        curvature = jnp.vdot(direction, image)
        length = square / jnp.where(curvature > 0, curvature, jnp.inf)
        residual = residual - length * image
        conditioned = precondition(residual)
        new_square = jnp.vdot(residual, conditioned)
        new_direction = conditioned + new_square / square * direction
        return x + length * direction, residual, new_direction, new_square, curvature, count + 1

    zero, one = jnp.zeros((), int), jnp.ones_like(square_of_f)
    first = (jnp.zeros_like(f), f, start, square_of_f, one, zero)
    x, _, _, square, curvature, count = jax.lax.while_loop(unfinished, step, first)
    indefinite = curvature <= 0
    residual = jnp.sqrt(square / jnp.where(square_of_f > 0, square_of_f, 1.0))
    return Solved(x, count, residual, (residual <= tolerance) & ~indefinite, indefinite)


class Pencil(Protocol):
    """A and K, as a pytree that `jit` takes as an argument."""

    def operator(self) -> Callable[[jax.Array], jax.Array]:
        """The function v -> A v; called once for many products."""
        ...

    def metric(self, v: jax.Array, /) -> jax.Array:
        """K v."""
        ...

    def precondition(self, f: jax.Array, /) -> jax.Array:
        """K^-1 f."""
        ...


class Eigenpair(NamedTuple):
    """A v = value K v with v^T K v = 1; `value` is v^T A v, so never beyond the true extremes."""

    value: float
    mode: jax.Array  # v, of the shape of the start
    iterations: int  # products with A
    residual: float  # |A v - value K v|, |f|^2 = f^T K^-1 f
    converged: bool  # residual <= tolerance times the largest |value|


def extreme_eigenpair(
    pencil: Pencil,
    start: jax.Array | np.ndarray,
    choose: Callable[[np.ndarray], int | np.integer],
    tolerance: float,
    max_iterations: int,
) -> Eigenpair:
    """An extreme eigenvalue of A against K: Lanczos, the whole basis kept orthogonal.

    The error of the value is below the residual, and about its square over the distance to the
    next one.

    Args:
        pencil: A and K.
        start: a random vector (projected), in which no mode is missing.
        choose: eigenvalues in ascending order -> index of the one wanted, such as numpy.argmin.
        tolerance: of the residual, relative to the largest |value|.
        max_iterations: products with A allowed, rounded up to tens; as many vectors are kept.

    Returns:
        The value and its mode. Numbers that are not finite give NaN and converged = False.

    Source: Parlett, The Symmetric Eigenvalue Problem (1980), chapters 13 and 15.
    """
    m = CHECK_EVERY * -(-int(max_iterations) // CHECK_EVERY)
    state = _first_state(pencil, start, m)
    for steps in range(CHECK_EVERY, m + 1, CHECK_EVERY):
        state = _advanced(pencil, state, steps - CHECK_EVERY)
        value, weights, residual, largest = _ritz(state, steps, choose)
        if not residual > tolerance * largest:
            break
    mode = jnp.tensordot(jnp.asarray(weights), state.basis, axes=1)
    return Eigenpair(value, mode, steps, residual, residual <= tolerance * largest)


class _State(NamedTuple):
    basis: jax.Array  # (m + 1, ...), orthonormal in K; zero where there is none yet
    products: jax.Array  # (m, m), v_i^T A v_j on and above the diagonal
    remainders: jax.Array  # (m,), length of what step j found beyond the basis


@partial(jax.jit, static_argnums=2)
def _first_state(pencil: Pencil, start: jax.Array, m: int) -> _State:
    length = jnp.sqrt(jnp.vdot(start, pencil.metric(start)))
    basis = jnp.zeros((m + 1, *start.shape)).at[0].set(start / length)
    return _State(basis, jnp.zeros((m, m)), jnp.zeros(m))


@jax.jit
def _advanced(pencil: Pencil, state: _State, done: int) -> _State:
    """CHECK_EVERY steps after those done."""
    apply = pencil.operator()

    def step(j, state):
        image = apply(state.basis[j])
        new = pencil.precondition(image)
        size = jnp.vdot(new, pencil.metric(new))
        for _ in range(2):  # once is not enough: rounding leaves parts along the basis
            overlaps = _dots(state.basis, pencil.metric(new))
            new = new - jnp.tensordot(overlaps, state.basis, axes=1)
        square = jnp.vdot(new, pencil.metric(new))
        goes_on = square > INVARIANT**2 * size
        length = jnp.sqrt(jnp.where(goes_on, square, 1.0))
        return _State(
            state.basis.at[j + 1].set(jnp.where(goes_on, new / length, 0.0)),
            state.products.at[:, j].set(_dots(state.basis[:-1], image)),
            state.remainders.at[j].set(jnp.where(goes_on, length, 0.0)),
        )

    return jax.lax.fori_loop(done, done + CHECK_EVERY, step, state)


def _dots(basis: jax.Array, v: jax.Array) -> jax.Array:
    """The inner products of every vector of the basis with v, (len(basis),)."""
    return jnp.tensordot(basis, v, axes=v.ndim)


def _ritz(
    state: _State, steps: int, choose: Callable[[np.ndarray], int | np.integer]
) -> tuple[float, np.ndarray, float, float]:
    """The chosen value, its mode's weights in the basis, its residual, and the largest |value|."""
    remainders = np.asarray(state.remainders)[:steps]
    # the basis may have closed before the last step
    size = steps if remainders.all() else int(np.argmin(remainders != 0)) + 1
    upper = np.triu(np.asarray(state.products)[:size, :size])
    if not np.isfinite(upper).all():
        return np.nan, np.full(len(state.basis), np.nan), np.nan, np.nan
    values, vectors = np.linalg.eigh(upper + np.triu(upper, 1).T)
    best = choose(values)
    weights = np.pad(vectors[:, best], (0, len(state.basis) - size))
    residual = remainders[size - 1] * abs(vectors[-1, best])
    return float(values[best]), weights, float(residual), float(np.abs(values).max())
