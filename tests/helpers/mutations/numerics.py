"""Wrong formulas in lprjax/numerics."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "numerics/krylov.py",
        "numerics/test_krylov defects/test_response",
        {
            "square > tolerance**2 * square_of_f": "square > tolerance * square_of_f",
            "conditioned + new_square / square * direction": "conditioned + square / new_square * direction",
            "residual = jnp.sqrt(square / jnp.where": "residual = (square / jnp.where",
            "(residual <= tolerance) & ~indefinite": "(residual <= tolerance)",
            "indefinite = curvature <= 0": "indefinite = curvature < 0",
            "for _ in range(2):": "for _ in range(1):",
            "eigh(upper + np.triu(upper, 1).T)": "eigh(upper + upper.T)",
            "abs(vectors[-1, best])": "abs(vectors[best, -1])",
            "if not residual > tolerance * largest": "if not residual > tolerance",
            "int(np.argmin(remainders != 0)) + 1": "int(np.argmin(remainders != 0))",
            "jnp.sqrt(jnp.vdot(start, pencil.metric(start)))": "jnp.sqrt(jnp.vdot(start, start))",
            "square > INVARIANT**2 * size": "square > INVARIANT * size",
            "float(np.abs(values).max())": "float(values.max())",
        },
    ),
    *wrong(
        "numerics/guarded.py",
        "numerics/test_guarded",
        {
            "(10.0 - 15.0 * x + 6.0 * x**2)": "(10.0 - 15.0 * x + 6.0 * x)",
            "x: Any = t.clip(0.0, 1.0)": "x: Any = t.clip(0.0)",
            "jnp.where(zero, jnp.inf, 1.0": "jnp.where(zero, 0.0, 1.0",
            "jnp.sqrt(jnp.where(not_positive, 1.0, square))": "jnp.sqrt(square)",
        },
    ),
    *wrong(
        "numerics/blocks.py",
        "numerics/test_blocks",
        {
            "(0, -n % size)": "(0, size - n % size)",
            "x.reshape(-1, *x.shape[2:])[:n]": "x.reshape(-1, *x.shape[2:])[-n:]",
        },
    ),
    *wrong(
        "numerics/checks.py",
        "numerics/test_checks",
        {
            "if not (value > 0 and": "if not (value >= 0 and",
            "math.isfinite(value) and value >= 0.0": "math.isfinite(value) and value > 0.0",
            "m is None or m == k": "m is None or m <= k",
        },
    ),
)
