"""Wrong formulas in lprjax/atoms."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "atoms/voigt.py",
        "atoms/test_voigt",
        {
            "(1, 2), (0, 2), (0, 1))": "(1, 2), (0, 1), (0, 2))",
            "[[0, 5, 4], [5, 1, 3], [4, 3, 2]]": "[[0, 5, 3], [5, 1, 4], [3, 4, 2]]",
            "0.5 * (both[ROWS, COLUMNS] + both[COLUMNS, ROWS])": "both[ROWS, COLUMNS]",
            "six_components(tensor) * SHEARS": "six_components(tensor)",
            "(jnp.asarray(strain) / SHEARS)[VOIGT_TENSOR]": "(jnp.asarray(strain) * SHEARS)[VOIGT_TENSOR]",
        },
    ),
    *wrong(
        "atoms/structures.py",
        "atoms/test_structures atoms/test_graphs defects/test_defect",
        {
            "sites + 0.25": "sites + 0.5",
            "_BCC_SITES = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])": (
                "_BCC_SITES = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])"
            ),
            "[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]": (
                "[1.0, -1.0, 1.0], [1.0, 1.0, 0.0]]"
            ),
            "pbc=(True, True, False))": "pbc=(True, True, True))",
            "(jnp.eye(3, dtype=strain.dtype) + strain).T": "jnp.eye(3, dtype=strain.dtype) + strain",
            "jnp.asarray(cells) @ structure.cell": "jnp.asarray(cells) @ structure.cell.T",
            "[:, None] * structure.cell,": "[None, :] * structure.cell,",
            "(offsets[:, None, :] + structure.positions[None, :, :])": (
                "(offsets[None, :, :] + structure.positions[:, None, :])"
            ),
            "structure.positions + sigma * noise": "structure.positions + sigma**2 * noise",
            "jnp.abs(jnp.linalg.det(self.cell))": "jnp.linalg.det(self.cell)",
            "<= FLATTEST * np.prod(edges)": "<= FLATTEST",
            "np.array(structure.pbc)[:, None])": "np.array(structure.pbc)[None, :])",
            "reduced, _ = minkowski_reduce(periods, structure.pbc)": "reduced = periods",
            "if not any(atoms.pbc[~cell.any(axis=1)])": "if not any(atoms.pbc[~cell.any(axis=0)])",
            "-six_components(labels.virial) / float": "six_components(labels.virial) / float",
            "gone.max() >= n)": "gone.max() > n)",
        },
    ),
    *wrong(
        "atoms/extxyz.py",
        "atoms/test_extxyz",
        {
            "-atoms.get_volume() * stress": "atoms.get_volume() * stress",
            "stress = stress[VOIGT_TENSOR] if": "stress = np.diag(stress[:3]) if",
            '{x:.17g}': '{x:.15g}',
            '"FT"[flag]': '"TF"[flag]',
            'results["stress"][VOIGT_TENSOR]': 'results["stress"][VOIGT_TENSOR[::-1]]',
        },
    ),
    *wrong(
        "atoms/graphs.py",
        "atoms/test_graphs potentials/test_observables",
        {
            "self.shifts @ self.cell": "self.shifts @ self.cell.T",
            "ends - self.positions[:, None, :], padding": "self.positions[:, None, :] - ends, padding",
            "jnp.array([[[1.0, 0.0, 0.0]]]": "jnp.array([[[0.0, 0.0, 0.0]]]",
            "if n <= 3 * power // 4 else": "if n < 3 * power // 4 else",
            "(np.cumsum(counts) - counts)[i]": "(np.cumsum(counts) - counts[0])[i]",
            "distances.min() < MIN_DISTANCE": "distances.min() < 0.1 * MIN_DISTANCE",
            "np.arange(n_pad) < n)": "np.arange(n_pad) <= n)",
            "reach=jnp.asarray(float(r_cut + skin))": "reach=jnp.asarray(float(r_cut))",
            "structure.pbc, float(r_cut + skin))": "structure.pbc, float(r_cut))",
            "[~np.array(pbc)].max": "[np.array(pbc)].max",
            "distinct[last[np.argmin(padded)]]": "distinct[last[np.argmax(padded)]]",
            "np.diff(upto[last], axis=1, prepend=0)": "upto[last]",
            "int(sizes[mine].max())": "int(sizes.max())",
            "if wanted < needed": "if wanted <= needed",
        },
    ),
)
