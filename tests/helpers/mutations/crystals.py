"""Wrong formulas in lprjax/crystals."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "crystals/elasticity.py",
        "crystals/test_elasticity",
        {
            "energy / structure.n_atoms": "energy",
            "-slope / curvature if curvature > 0": "-slope / curvature if curvature > -math.inf",
            "(hessian[:6, :6] + settled @ hessian[6:, :6]) / volume": (
                "(hessian[:6, :6] - settled @ hessian[6:, :6]) / volume"
            ),
            "clamped=hessian[:6, :6] / volume": "clamped=(hessian[:6, :6] + settled @ hessian[6:, :6]) / volume",
            "stress=slope[:6] / volume": "stress=-slope[:6] / volume",
            "jnp.eye(3) + strain_tensor(variables[:6])": "jnp.eye(3) + 2.0 * strain_tensor(variables[:6])",
            "graph.positions + displacements.reshape(-1, 3)": "graph.positions - displacements.reshape(-1, 3)",
            "for u in (settled, jnp.zeros_like(settled))": "for u in (jnp.zeros_like(settled), jnp.zeros_like(settled))",
            "eta - eta @ eta / 2 + eta @ eta @ eta / 2": "eta - eta @ eta / 2",
            "eye(3) + eta - eta @ eta / 2": "eye(3) + eta + eta @ eta / 2",
            "1.0 / units.GPa": "units.GPa",
            "k = k / np.linalg.norm(k, axis=1, keepdims=True)": "k = k / np.linalg.norm(k)",
            "k[:, None] * b[None, :]": "k[None, :] * b[:, None]",
            "return hessians / float(structure.volume)": "return hessians",
            "converged=abs(step) <= tolerance and curvature > 0 and not lost": (
                "converged=abs(step) <= tolerance and not lost"
            ),
            "complement[:, 1:], np.eye(3))": "complement[:, :-1], np.eye(3))",
            "-(basis @ settled).T": "(basis @ settled).T",
        },
    ),
    *wrong(
        "crystals/phonons.py",
        "crystals/test_phonons",
        {
            "THZ = units.second * 1e-12 / (2 * math.pi)": "THZ = units.second * 1e-12",
            "np.exp(1j * (lattice_vectors @ wave))": "np.exp(-1j * (lattice_vectors @ wave))",
            "share * np.exp": "np.exp",
            "(root[:, None] * root)": "(root[:, None] ** 2)",
            "2 * math.pi * np.linalg.inv(np.asarray(self.unit_cell.cell)).T": (
                "2 * math.pi * np.linalg.inv(np.asarray(self.unit_cell.cell))"
            ),
            "jnp.fft.fftn(self.blocks, axes=_CELLS).conj()": "jnp.fft.fftn(self.blocks, axes=_CELLS)",
            "jnp.fft.rfftn(self.blocks, axes=_CELLS).conj()": "jnp.fft.rfftn(self.blocks, axes=_CELLS)",
            "0.5 * (blocks + opposite)": "blocks",
            "jnp.roll(jnp.flip(blocks, _CELLS), 1, _CELLS)": "jnp.flip(blocks, _CELLS)",
            "(offsets[None] - offsets[:, None]) @": "(offsets[:, None] - offsets[None]) @",
            "(between @ cell)[:, :, None]": "0.0 * (between @ cell)[:, :, None]",
            "blocks.sum(axis=(0, 1, 2, 5))": "blocks.sum(axis=(0, 1, 2))",
            "np.sign(squares) * np.sqrt": "np.sqrt",
            '"xyzap,xyzab,xyzbq->xyzpq", frames.conj()': '"xyzap,xyzab,xyzbq->xyzpq", frames',
            "reduced[0, 0, 0, shifts:, shifts:]": "reduced[0, 0, 0, 1:, 1:]",
            "(periods, 1)) * periods": "(periods, 1))",
            "(b, 3, *repeats, b, 3), (2, 3, 4, 0, 1, 5, 6))": "(b, 3, *repeats, b, 3), (2, 3, 4, 5, 1, 0, 6))",
        },
    ),
    *wrong(
        "crystals/strain_norm.py",
        "crystals/test_strain_norm crystals/test_phonons",
        {
            "kv = -2.0 * jnp.sum": "kv = -jnp.sum",
            "root(jnp.sum(f * self.solve(f)))": "jnp.sum(f * self.solve(f))",
            "self.present[:, None] & self.present[self.neighbours]": "self.present[self.neighbours]",
            "jnp.where(here & ~self.held[:, None], v, 0.0)": "jnp.where(here, v, 0.0)",
            "jnp.where(here, v - mean, 0.0)": "v - mean",
            "jnp.sum(v, axis=0, where=here, keepdims=True) / jnp.sum(here": "jnp.sum(v, axis=0, where=here, keepdims=True) / len(here) * jnp.mean(here",
            "v - self.response @": "v + self.response @",
            "0.5 * (shells[1] + shells[2])": "0.5 * (shells[0] + shells[1])",
            "forth, back = (-shift % repeats).T, (shift % repeats).T": (
                "forth, back = (shift % repeats).T, (-shift % repeats).T"
            ),
            "(home, home, home, end, end), 1.0": "(home, home, home, start, end), 1.0",
            "-index % m, index": "index, index",
            "self.modes * np.sqrt(self.compliances)": "self.modes * self.compliances",
            "zero_mean @ blocks[0, 0, 0] @ zero_mean": "blocks[0, 0, 0]",
            "weight = (present[start] & present[end]).astype(float) - complete": (
                "weight = (present[start] | present[end]).astype(float) - complete"
            ),
            "ground = (~present).astype(float) - (np.arange(n) >= regular)": "ground = (~present).astype(float)",
            "np.linalg.solve(mixed, change)": "np.linalg.solve(mixed.T, change)",
            "jnp.where(table < self.n_regular, table, regular[:, None])": "jnp.where(table < self.n_regular, table, 0)",
            "kv if self.held is None else jnp.where(self.held[:, None], 0.0, kv)": "kv",
            "root(jnp.sum(self.differences(v) ** 2, axis=(1, 2)))": "root(jnp.sum(self.differences(v) ** 2, axis=(0, 2)))",
        },
    ),
)
