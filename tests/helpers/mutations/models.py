"""Wrong formulas in lprjax/models."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "models/features.py",
        "models/test_kernels models/test_networks",
        {
            "present = (blocks != 0).any(axis=2)": "present = np.ones(blocks.shape[:2], bool)",
            "np.where(present[..., None], blocks - mean, 0.0)": "blocks - mean",
            "rms.max(axis=1, keepdims=True)": "rms.max(axis=0, keepdims=True)",
            "np.maximum(deviation, least).ravel()": "deviation.ravel()",
        },
    ),
    *wrong(
        "models/kernels.py",
        "models/test_kernels",
        {
            "self.coefficients, trans=1, lower=True": "self.coefficients, lower=True",
            "(sites @ self.sparse.T) ** self.zeta": "sites @ self.sparse.T",
            "jnp.sqrt(1.0 + jnp.sum(scaled**2, axis=1, keepdims=True))": (
                "jnp.sqrt(2.0 + jnp.sum(scaled**2, axis=1, keepdims=True))"
            ),
            "jnp.sum(sites**2, axis=1) ** potential.zeta": "jnp.sum(sites**2, axis=1)",
            "return prior - jnp.sum(": "return prior + jnp.sum(",
            "deviation * smoothness_prior(spec, 2.0)": "deviation / smoothness_prior(spec, 2.0)",
            "lower[:, :m] @ lower[pivot, :m]": "lower[:, :m] @ lower[m, :m]",
            "rest / np.sqrt(rest[pivot])": "rest / rest[pivot]",
            "left = left - lower[:, m] ** 2": "left = left - np.abs(lower[:, m])",
            "pivot = int(np.argmax(left))": "pivot = m",
        },
    ),
    *wrong(
        "models/networks.py",
        "models/test_networks",
        {
            "(basis - self.mean[None, :]) / self.deviation[None, :]": (
                "(basis - self.mean[None, :]) * self.deviation[None, :]"
            ),
            "x = block * (basis": "x = (basis",
            "* (n / batch) + ridge": "+ ridge",
            "ridge * jnp.sum(c**2)": "0.5 * ridge * jnp.sum(c**2)",
            "weights[kind] ** 2 * jnp.sum": "weights[kind] * jnp.sum",
            "jnp.triu(0.5 * (residual + residual.T))": "0.5 * (residual + residual.T)",
            "self.features(graph) @ self.coefficients + own": "self.features(graph) @ self.coefficients - own",
            "potential.coefficients - rate * update": "potential.coefficients + rate * update",
            'found["forces"][:n], ((0,': 'found["forces"][:n] * 1.01, ((0,',
        },
    ),
    *wrong(
        "models/files.py",
        "models/test_files",
        {
            'None if reference_energies is None else dict(reference_energies)': "None",
            '"ridge": float(fit.ridge).hex()': '"ridge": float(np.float32(fit.ridge)).hex()',
            'jnp.asarray(arrays["prior"]) if "prior" in arrays else None': "None",
            "hashlib.sha256(payload).digest() != digest": "len(hashlib.sha256(payload).digest()) != len(digest)",
        },
    ),
)
