"""Rows of structures as `structure_rows` gives them, drawn; and fits to them by LAPACK alone."""

import numpy as np

EVERYTHING = {"energy": 1, "forces": 4, "virial": 2}


def drawn(counts, k, seed=7):
    """A structure of each of the counts, its rows (r, k) by (kind, group): residuals share a part,
    and energies have another size of errors than forces."""
    rng, found = np.random.default_rng(seed), []
    truth = rng.normal(size=k)
    for b, count in enumerate(counts):
        group, parts, shared = "ab"[b % 2], {}, rng.normal()
        for kind, n in count.items():
            x = rng.normal(size=(n, k)) * np.logspace(0, -2, k)[None]
            size = 0.3 if kind == "energy" else 0.1
            parts[(kind, group)] = x, x @ truth + size * (shared + rng.normal(size=n))
        found.append(parts)
    return found


def weight_of(key, weights):
    return weights.get(key, weights.get(key[0]))


def refitted(samples, weights, ridge=0.0, prior=None):
    """Coefficients, from the rows themselves."""
    k = next(iter(samples[0].values()))[0].shape[1]
    gamma = np.diag(np.ones(k) if prior is None else prior)
    rows = [
        weight_of(key, weights) * np.column_stack(both)
        for parts in samples
        for key, both in parts.items()
    ]
    whole = np.concatenate([*rows, np.sqrt(ridge) * np.column_stack([gamma, np.zeros(k)])])
    return np.linalg.lstsq(whole[:, :-1], whole[:, -1], rcond=None)[0]


def squares_of_refits(samples, weights, ridge=0.0, prior=None):
    """Of each structure its left-out sum of squares by key."""
    found = []
    for b, parts in enumerate(samples):
        c = refitted(samples[:b] + samples[b + 1 :], weights, ridge, prior)
        found.append({key: np.sum((y - x @ c) ** 2) for key, (x, y) in parts.items()})
    return found


def errors_of_refits(samples, weights, ridge=0.0, prior=None):
    """Root mean squares by key."""
    squares = squares_of_refits(samples, weights, ridge, prior)
    counts = {}
    for parts in samples:
        for key, (_, y) in parts.items():
            counts[key] = counts.get(key, 0) + len(y)
    return {
        key: np.sqrt(sum(found.get(key, 0.0) for found in squares) / n) for key, n in counts.items()
    }
