"""Wrong formulas in lprjax/regression."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "regression/factors.py",
        "regression/test_factors regression/test_fitting",
        {
            ".set(jnp.sqrt(factor.residual))": ".set(factor.residual)",
            "jnp.square(triangle[n, n])": "triangle[n, n]",
            "residual=both.residual + b.residual": "residual=both.residual",
            "n_rows=a.n_rows + b.n_rows": "n_rows=a.n_rows",
            "weight**2 * factor.residual": "weight * factor.residual",
            "residual=small.residual + factor.residual": "residual=factor.residual",
            "scale = 1.0 / jnp.sqrt(": "scale = 1.0 / (",
            "jnp.square(triangular), axis=0)": "jnp.square(triangular), axis=1)",
            "> _MARGIN * rcond * jnp.sqrt(grown)": "> _MARGIN * rcond * grown",
            'solve_triangular(scaled, down, trans="T")': "solve_triangular(scaled, down)",
            "jnp.where(jnp.diagonal(triangular) < 0.0, -1.0, 1.0)": "jnp.sign(jnp.diagonal(triangular))",
            "singular > rcond * singular[0])": "singular > rcond)",
            "carried = rest[width:]": "carried = rest[:width]",
            "left=True, transpose=True)": "left=True, transpose=False)",
        },
    ),
    *wrong(
        "regression/fitting.py",
        "regression/test_fitting",
        {
            "(jnp.sqrt(ridge) * gamma)": "(ridge * gamma)",
            "jnp.sqrt(ridge) * gamma)[:, None]": "jnp.sqrt(ridge))",
            "w * jnp.concatenate([f.triangular": "w**2 * jnp.concatenate([f.triangular",
            "target = sign * (q.T @": "target = (q.T @",
            "((u.T @ target) / singular)": "((u.T @ target) * singular)",
            "null = scale[:, None] * vt[rank:].T": "null = vt[rank:].T",
            "gamma[:, None] * null, gamma * particular": "null, particular",
            "misfit @ misfit + factor.residual": "misfit @ misfit",
            "factor.residual)) / n_rows": "factor.residual)) / (n_rows + 1)",
            "float(singular[0] / singular[-1])": "float(singular[-1] / singular[0])",
            "weights[k] if k in weights else weights[_kind(k)]": (
                "weights[_kind(k)] if _kind(k) in weights else weights[k]"
            ),
            "weight of {key!r}": "{key!r}",
        },
    ),
    *wrong(
        "regression/rigidity.py",
        "regression/test_rigidity",
        {
            "jnp.square(compliance), axis=1)": "jnp.abs(compliance), axis=1)",
            "rows, left_side=False, lower=False": "rows, left_side=False, lower=False, transpose_a=True",
            "g * scale[None, :]": "g / scale[None, :]",
            "outside > smallest**2 * inside": "outside > smallest**2",
            "smallest = rcond * singular[0]": "smallest = rcond",
            "jnp.where(kept, 1.0 / jnp.where(kept, singular, 1.0), 0.0)": "jnp.where(kept, singular, 0.0)",
            "jnp.where(kept[None, :], 0.0, along)": "jnp.where(kept[None, :], along, 0.0)",
            "along = rows @ vt.T": "along = rows @ vt",
            "np.mean(np.sum(np.concatenate(training_rows) ** 2, axis=1))": (
                "np.sum(np.mean(np.concatenate(training_rows), axis=0) ** 2)"
            ),
            "math.sqrt(ridge) * np.eye": "ridge * np.eye",
            "[np.mean(rows, axis=0) for rows in training_rows]": "[np.sum(rows, axis=0) for rows in training_rows]",
            "jnp.where(mask, g, 0.0)": "jnp.where(mask, 0.0, g)",
        },
    ),
    *wrong(
        "regression/posterior.py",
        "regression/test_posterior",
        {
            "ndtri(0.5 * (1.0 + np.array(NOMINAL)))": "ndtri(np.array(NOMINAL))",
            "+ solve_triangular(factor, white.T).T": "+ solve_triangular(factor, white.T, trans=1).T",
            "jnp.square(residuals) * rigidity))": "jnp.square(residuals) / rigidity))",
            "0.5 * jnp.mean(logarithms) - jnp.log(alpha)": "jnp.mean(logarithms) - jnp.log(alpha)",
            "- 0.5 * jnp.log(2 * jnp.pi) - 0.5": "- 0.5 * jnp.log(2 * jnp.pi)",
            "alpha / jnp.sqrt(rigidity)": "alpha / rigidity",
            "jnp.diag(s * gamma)": "jnp.diag(s**2 * gamma)",
            "floored / best.alpha": "floored * best.alpha",
            "grid[jnp.maximum(peak - 1, 0)]": "grid[peak]",
            "jnp.where(self.s == 0.0, _LEAST_GAIN, 0.0)": "0.0",
            "jnp.where(determined, likelihood, -jnp.inf)": "likelihood",
            "jnp.where(penalised, gamma, 1.0)[None, :]": "jnp.where(penalised, gamma, 1.0)[:, None]",
        },
    ),
    *wrong(
        "regression/selection.py",
        "regression/test_selection",
        {
            "jnp.mean(1.0 / variance, axis=1)": "1.0 / jnp.mean(variance, axis=1)",
            "-jnp.mean(variance, axis=1)": "-jnp.max(variance, axis=1)",
            '"d_optimal": lambda variance, log_det: log_det': '"d_optimal": lambda variance, log_det: -log_det',
            "first = pivot + jnp.sqrt(pivot**2 + below)": "first = pivot - jnp.sqrt(pivot**2 + below)",
            "double = 2.0 / jnp.where": "double = 1.0 / jnp.where",
            "(1.0 - sines) * (1.0 + sines)": "(1.0 - sines) * (1.0 - sines)",
            "(c * extra + s * row, longer), c * row - s * extra": "(c * extra - s * row, longer), c * row + s * extra",
            "apart + jnp.sum(jnp.square(along @ q[-r:].T), axis=1)": "apart",
            "2.0 * jnp.sum(jnp.log(": "jnp.sum(jnp.log(",
            "shrink = singular**2 / (root * (1.0 + root))": "shrink = singular**2 / (root * root)",
            "free.at[best].set(False)": "free.at[best].set(True)",
            "log_det[-1] + float(gain)": "float(gain)",
            "np.asarray(1.0 / jnp.sum(jnp.square(w), axis=1))": "np.asarray(jnp.sum(jnp.square(w), axis=1))",
            "* inverse[None, :]) @ u.T": "* inverse[None, :]) @ u",
            "_add(triangular, stacks[best])": "_add(triangular, stacks[best][:1])",
            "slack < _LARGEST_SLACK": "slack < 1.0",
            "jnp.where(free, draw, -1.0)": "draw",
        },
    ),
    *wrong(
        "regression/assembly.py",
        "regression/test_assembly",
        {
            "array.swapaxes(0, 2), 4": "array, 4",
            "x - jnp.sum(graph.atom_mask) * shift_row": "x - graph.positions.shape[0] * shift_row",
            "y - np.sum(shifts[np.asarray(graph.species)])": "y + np.sum(shifts[np.asarray(graph.species)])",
            "y = y - stacked(kind, getattr(predicted, kind), n_padded)": "y = y + 0.0",
            "energies[1:] = origin.energy": "energies[:] = origin.energy",
            'if kind in ("forces", "force_constants") else 0': 'if kind == "forces" else 0',
            "counts=dict.fromkeys(kinds, 0)": "counts=chunk[-1].counts",
            "counts[kind] = len(y)": "counts[kind] = len(y) - (kind == 'virial')",
        },
    ),
    *wrong(
        "regression/rows.py",
        "regression/test_rows",
        {
            "return jnp.moveaxis(columns, 0, -1)": "return columns.reshape(*value.shape, coefficients.size)",
            "ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]": (
                "ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes[::-1]])[:-1]"
            ),
            "if value.size > coefficients.size": "if value.size < coefficients.size",
        },
    ),
    *wrong(
        "regression/streams.py",
        "regression/test_streams regression/test_assembly",
        {
            "jnp.arange(len(targets)) < filled": "jnp.arange(len(targets)) <= filled",
            "stream.filled.max() + r > stream": "stream.filled.max() > stream",
            "-(-block_size(n) // r) * r": "block_size(n) // r * r",
            "filled=stream.filled + counts": "filled=stream.filled + rows.shape[1]",
            "x[d], parts) for d in range(stream.mesh.size)": "x[0], parts) for d in range(stream.mesh.size)",
        },
    ),
)
