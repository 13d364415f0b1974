"""The triangle of a tall matrix, A = Q R, without Q: by Householder's reflections, or by Cholesky.

Reflections touch A once for each column, which suits a CPU. An accelerator is idle most of that
time, and several times faster at products: there R is the product of four Cholesky factors,

    R_k^T R_k = A_k^T A_k + s_k 1,   A_(k+1) = A_k R_k^-1,   R = R_4 R_3 R_2 R_1,   s_3 = s_4 = 0 ,

with shifts s_1, s_2 of the size of rounding, so that these exist however A is conditioned. A shift
leaves of a condition its (8 n u)^(1/2)-th part, 1e-6 or so: two of them what the third can make
orthonormal (shifted Cholesky QR, with a second shift, as rows of a potential's basis reach 1e15).

Both keep one bound, that of backward stability column by column: R is the exact triangle of A + E,

    |e_j| <= c u |a_j|    for every column,    c a small polynomial of the size of A, u = 2^-53 .

For reflections see Higham, Accuracy and Stability of Numerical Algorithms (2002), theorem 19.4. For
Cholesky: columns are first scaled by powers of two, so that a bound in norms is one by columns; a
triangular solve has a backward error of u |A_(k+1)| |R_k|; no factor is larger than the first, up
to rounding; and the last is good to rounding where its Gram matrix is close to the unit matrix.
Where that is not within 1/2, or a factor does not exist (fewer rows than columns, or columns that
depend on others to rounding), reflections make R after all.

Source: Fukaya, Kannan, Nakatsukasa, Yamamoto, Yanagisawa, SIAM J. Sci. Comput. 42 (2020) A477. The
shift is theirs in form and smaller in size, and taken twice: their proof that nothing breaks down
is replaced by a look whether it did.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

SHIFT = 8.0
"""In units of n u |A^T A|: a choice, above the rounding of the Gram matrix and its factor as they
are found (0.1 and less), and small, so that much of the condition is gone after it."""
NEAR = 0.5
"""How far A_4^T A_4 may be from the unit matrix, in the largest sum over a row."""


def triangle(matrix: jax.Array) -> jax.Array:
    """R of A = Q R, with a diagonal >= 0; jit-able.

    By reflections on a CPU, elsewhere by products.

    Args:
        matrix: A (m, n), m >= n.

    Returns:
        R (n, n), upper triangular, in the unit of A. A NaN goes through to it.

    Source: see the top of the file.
    """
    on_cpu = jax.default_backend() == "cpu"
    return by_reflections(matrix) if on_cpu else by_products(matrix)


def by_products(matrix: jax.Array) -> jax.Array:
    """R by Cholesky where that keeps the bound, by reflections where it does not.

    Args:
        matrix: A (m, n), m >= n.

    Returns:
        R (n, n), as `triangle` returns it.
    """
    found, good = by_cholesky(matrix)
    return jax.lax.cond(good, lambda _: found, by_reflections, matrix)


def by_reflections(matrix: jax.Array) -> jax.Array:
    """R by Householder's reflections, as `triangle` returns it.

    Args:
        matrix: A (m, n), m >= n.

    Returns:
        R (n, n).
    """
    found = jnp.linalg.qr(matrix, mode="r")
    sign = jnp.where(jnp.diagonal(found) < 0.0, -1.0, 1.0)
    return jnp.triu(sign[:, None] * found)


def by_cholesky(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R by shifted Cholesky QR, and whether it is as good as that by reflections.

    Args:
        matrix: A (m, n), m >= n.

    Returns:
        R (n, n) as `triangle` returns it, and () bool; where that is False R is arbitrary.
    """
    n = matrix.shape[1]
    size = jnp.sqrt(jnp.sum(matrix**2, axis=0))
    empty = size == 0.0
    scale = jnp.exp2(jnp.round(jnp.log2(jnp.where(empty, 1.0, size))))
    rest, unit = matrix / scale[None], jnp.finfo(matrix.dtype).eps / 2

    def gram(rest: jax.Array) -> jax.Array:
        """With ones for empty columns, which stay apart from the others."""
        return rest.T @ rest + jnp.diag(empty.astype(rest.dtype))

    def norm(square: jax.Array) -> jax.Array:
        return jnp.max(jnp.sum(jnp.abs(square), axis=1))

    def upper(square: jax.Array) -> jax.Array:
        return jnp.linalg.cholesky(square, symmetrize_input=False).T

    def divided(rest: jax.Array, factor: jax.Array) -> jax.Array:
        return solve_triangular(factor, rest.T, trans="T").T

    found = jnp.eye(n)
    for shift in (SHIFT, SHIFT, 0.0):
        square = gram(rest)
        factor = upper(square + shift * n * unit * norm(square) * jnp.eye(n))
        rest, found = divided(rest, factor), factor @ found
    square = gram(rest)
    found = jnp.triu(upper(square) @ found) * scale[None]
    good = (norm(square - jnp.eye(n)) < NEAR) & jnp.all(jnp.isfinite(found))
    return jnp.where(empty[None], 0.0, found), good
