"""Whether a symmetric matrix is surely positive definite, whatever the machine rounds."""

import numpy as np

UNIT = np.finfo(float).eps
TINY = np.finfo(float).tiny


def surely_positive(matrix: np.ndarray, error: float = 0.0) -> bool:
    """Whether all symmetric matrices near a given one are positive definite.

    If Cholesky's factorisation of A - c 1 does not break down in the arithmetic of the machine, A
    is positive definite for c >= gamma / (1 - gamma) tr A, gamma = (n + 1) u / (1 - (n + 1) u):
    what it has factored is A - c 1 within that. Twice as much is taken, as A - c 1 is rounded.

    Args:
        matrix: A, (n, n), symmetric: its lower triangle is read.
        error: how far others may be, in the spectral norm, in A's unit.

    Returns:
        True where they are; False where they are not, or it cannot be told.

    Source: S. M. Rump, Verification of positive definiteness, BIT 46 (2006) 433, theorem 2.3.
    """
    n = len(matrix)
    diagonal = np.diagonal(matrix)
    if not np.isfinite(matrix).all() or diagonal.min(initial=np.inf) <= 0.0:
        return False
    gamma = (n + 2) * UNIT / (1.0 - (n + 2) * UNIT)
    shift = 2.0 * gamma / (1.0 - gamma) * diagonal.sum() + 2.0 * error + n * TINY
    try:
        np.linalg.cholesky(matrix - shift * np.eye(n))
    except np.linalg.LinAlgError:
        return False
    return True
