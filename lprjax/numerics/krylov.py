"""Conjugate gradients and Lanczos for symmetric operators beside a norm whose inverse is known.

Beside A there are K, symmetric and positive, and its inverse.  K^-1 A is symmetric in the inner
product u^T K v, and where c v^T K v <= v^T A v <= C v^T K v the number of products with A is set
by c and C alone, whatever the size.  Null spaces are the caller's: A, K and K^-1 are given as
projected onto what is left.  Vectors are arrays of any one shape.
Sources: Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409; Parlett, The Symmetric
Eigenvalue Problem (1980), chapters 13 and 15.
"""

from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

CHECK_EVERY = 10  # Lanczos steps between two looks at the eigenvalues
INVARIANT = 1e-10  # a Lanczos step that leaves less than this share of itself ends the search


class Solved(NamedTuple):
    """A^-1 f by conjugate gradients."""

    solution: jax.Array
    iterations: jax.Array  # products with A
    residual: jax.Array  # |f - A x| / |f|, |f|^2 = f^T K^-1 f
    converged: jax.Array
    indefinite: jax.Array  # met a v with v^T A v <= 0, and ended there


def conjugate_gradients(apply, precondition, f, tolerance, max_iterations) -> Solved:
    """Solve A x = f for positive definite A; to be called inside `jit`.

    apply, precondition: v -> A v and f -> K^-1 f.  tolerance: of the relative residual.
    max_iterations: products with A allowed.
    """
    start = precondition(f)
    whole = jnp.vdot(f, start)

    def goes_on(state):
        _, _, _, left, curvature, turns = state
        return (left > tolerance**2 * whole) & (curvature > 0) & (turns < max_iterations)

    def turn(state):
        x, rest, direction, left, _, turns = state
        image = apply(direction)
        curvature = jnp.vdot(direction, image)
        length = left / jnp.where(curvature > 0, curvature, jnp.inf)
        rest = rest - length * image
        conditioned = precondition(rest)
        now = jnp.vdot(rest, conditioned)
        onward = conditioned + now / left * direction
        return x + length * direction, rest, onward, now, curvature, turns + 1

    first = (jnp.zeros_like(f), f, start, whole, jnp.ones_like(whole), jnp.zeros((), int))
    x, _, _, left, curvature, turns = jax.lax.while_loop(goes_on, turn, first)
    indefinite = curvature <= 0
    residual = jnp.sqrt(left / jnp.where(whole > 0, whole, 1.0))
    return Solved(x, turns, residual, (residual <= tolerance) & ~indefinite, indefinite)


class Pencil(Protocol):
    """A and K, as a pytree that `jit` takes as an argument."""

    def operator(self):
        """The function v -> A v; called once for many products."""

    def metric(self, v):
        """K v."""

    def precondition(self, f):
        """K^-1 f."""


class Eigenpair(NamedTuple):
    """A v = value K v with v^T K v = 1; `value` is v^T A v, so never beyond the true extremes."""

    value: float
    mode: jax.Array
    iterations: int  # products with A
    residual: float  # |A v - value K v|, |f|^2 = f^T K^-1 f
    converged: bool  # residual <= tolerance times the largest |value|


def extreme_eigenpair(pencil: Pencil, start, choose, tolerance, max_iterations) -> Eigenpair:
    """An extreme eigenvalue of A against K: Lanczos, the whole basis kept orthogonal.

    start: a random vector (projected), in which no mode is missing.
    choose: eigenvalues in ascending order (numpy array) -> index of the one wanted, such as
        numpy.argmin.
    tolerance: of the residual, relative to the largest |value|.
    max_iterations: products with A allowed, rounded up to tens; as many vectors are kept.

    The error of the value is below the residual, and about its square over the distance to the
    next one.  Numbers that are not finite give NaN and converged = False.
    """
    m = CHECK_EVERY * -(-int(max_iterations) // CHECK_EVERY)
    state = _first(pencil, start, m)
    for steps in range(CHECK_EVERY, m + 1, CHECK_EVERY):
        state = _more(pencil, state, steps - CHECK_EVERY)
        value, weights, residual, largest = _ritz(state, steps, choose)
        if not residual > tolerance * largest:
            break
    mode = jnp.tensordot(jnp.asarray(weights), state.basis, axes=1)
    return Eigenpair(value, mode, steps, residual, residual <= tolerance * largest)


class _State(NamedTuple):
    basis: jax.Array  # (m + 1, ...), orthonormal in K; zero where there is none yet
    products: jax.Array  # (m, m), v_i^T A v_j on and above the diagonal
    left: jax.Array  # (m,), length of what step j found beyond the basis


@partial(jax.jit, static_argnums=2)
def _first(pencil, start, m) -> _State:
    length = jnp.sqrt(jnp.vdot(start, pencil.metric(start)))
    basis = jnp.zeros((m + 1, *start.shape)).at[0].set(start / length)
    return _State(basis, jnp.zeros((m, m)), jnp.zeros(m))


@jax.jit
def _more(pencil, state, done) -> _State:
    """CHECK_EVERY steps after those done."""
    apply = pencil.operator()

    def step(j, state):
        image = apply(state.basis[j])
        new = pencil.precondition(image)
        size = jnp.vdot(new, pencil.metric(new))
        for _ in range(2):  # once is not enough
            overlaps = _dots(state.basis, pencil.metric(new))
            new = new - jnp.tensordot(overlaps, state.basis, axes=1)
        square = jnp.vdot(new, pencil.metric(new))
        goes_on = square > INVARIANT**2 * size
        length = jnp.sqrt(jnp.where(goes_on, square, 1.0))
        return _State(
            state.basis.at[j + 1].set(jnp.where(goes_on, new / length, 0.0)),
            state.products.at[:, j].set(_dots(state.basis[:-1], image)),
            state.left.at[j].set(jnp.where(goes_on, length, 0.0)),
        )

    return jax.lax.fori_loop(done, done + CHECK_EVERY, step, state)


def _dots(basis, v):
    return jnp.tensordot(basis, v, axes=v.ndim)


def _ritz(state, steps, choose):
    """The chosen value, its mode's weights in the basis, its residual, and the largest |value|."""
    left = np.asarray(state.left)[:steps]
    size = steps if left.all() else int(np.argmin(left != 0)) + 1  # the basis may have closed
    upper = np.triu(np.asarray(state.products)[:size, :size])
    if not np.isfinite(upper).all():
        return np.nan, np.full(len(state.basis), np.nan), np.nan, np.nan
    values, vectors = np.linalg.eigh(upper + np.triu(upper, 1).T)
    best = choose(values)
    weights = np.pad(vectors[:, best], (0, len(state.basis) - size))
    residual = left[size - 1] * abs(vectors[-1, best])
    return float(values[best]), weights, float(residual), float(np.abs(values).max())
