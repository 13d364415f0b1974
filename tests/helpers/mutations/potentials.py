"""Wrong formulas in lprjax/potentials."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "potentials/bonds.py",
        "potentials/test_bonds",
        {
            "return 0.5 * jnp.sum(": "return jnp.sum(",
            "r - self.rest_lengths[safe]": "self.rest_lengths[safe] - r",
            "0.5 * (radii[1:] + radii[:-1])": "0.25 * radii[1:] + 0.75 * radii[:-1]",
            "(r < self.r_cut), nearest, -1)": "(r <= self.r_cut), nearest, -1)",
            "self.coefficients[self.groups[:, None], shells]": "self.coefficients[self.groups[None, 0], shells]",
            "np.min(np.diff(radii))": "np.max(np.diff(radii))",
            "float(radii[-1] + 0.5 * gap)": "float(radii[-1] + gap)",
            "range(table.shape[-1] - 2, -1, -1)": "range(table.shape[-1] - 2, 0, -1)",
        },
    ),
    *wrong(
        "potentials/eam.py",
        "potentials/test_references",
        {
            "RHO_LOW, RHO_HIGH = 0.85, 1.15": "RHO_LOW, RHO_HIGH = 0.85, 1.10",
            "low = density < RHO_LOW": "low = density < 0.98 * RHO_LOW",
            "embedding_energy(p, p.fe * g) + 0.5 * (p.A * h - p.B * g)": (
                "embedding_energy(p, p.fe * g) + (p.A * h - p.B * g)"
            ),
            "0.5 * (f_b / f_a * phi_a + f_a / f_b * phi_b)": (
                "0.5 * (f_a / f_b * phi_a + f_b / f_a * phi_b)"
            ),
            "for x in (f_b, phi))": "for x in (f_a, phi))",
            "embedding_energy(a, density) + 0.5 * pair": "embedding_energy(a, density) + pair",
            "p.Fe * (1.0 - log_power)": "p.Fe * (1.0 + log_power)",
            "jnp.log(rho_high / p.rhos)": "jnp.log(rho_high / p.rhoe)",
            "x * (c[2] + x * c[3])": "x * (c[2] + c[3])",
            "s - p.lam, 20": "s - p.kappa, 20",
            "np.sqrt(5.0)": "np.sqrt(4.0)",
            "13, 2.863924, 1.403115, 20.418205, 23.19574,": "13, 2.863924, 1.403115, 20.418205, 20.418205,",
            "(-5.14, 0.0, 1.640098, 0.221375), 0.848843": "(-5.14, 0.0, 1.640098, 0.212375), 0.848843",
            "(p,) = self.parameters\n        mask = site.mask & (site.lengths < self.r_cut)": (
                "(p,) = self.parameters\n        mask = site.mask & (site.lengths <= self.r_cut)"
            ),
        },
    ),
    *wrong(
        "potentials/stillinger_weber.py",
        "potentials/test_references",
        {
            "2.0 / 3.0 * vector": "1.0 / 3.0 * vector",
            "16.0 / 9.0 * jnp.sum": "4.0 / 9.0 * jnp.sum",
            "0.5 * (all_pairs - diagonal)": "0.5 * all_pairs",
            "(1.0 if a == b else 2.0)": "1.0",
            "(x * x) ** 2 - 1.0": "(x * x) ** 3 - 1.0",
            "jnp.exp(self.gamma * soft)": "jnp.exp(soft)",
            "0.5 * self.A * jnp.sum(pair)": "self.A * jnp.sum(pair)",
        },
    ),
    *wrong(
        "potentials/tersoff.py",
        "potentials/test_tersoff",
        {
            "** (-0.5 / self.n)": "** (-0.5)",
            "others = 1.0 - jnp.eye(cutoff.shape[1])": "others = jnp.ones(2 * cutoff.shape[1:])",
            "(self.h - cosines) ** 2": "(self.h + cosines) ** 2",
            '"ik,ijk,jk->ij"': '"ij,ijk,jk->ij"',
            "c2 / d2 - c2 /": "c2 / d2 + c2 /",
            "0.5 - 0.5 * jnp.sin": "0.5 + 0.5 * jnp.sin",
            "0.5 * jnp.sum(cutoff * (repulsion": "jnp.sum(cutoff * (repulsion",
        },
    ),
    *wrong(
        "potentials/environments.py",
        "potentials/test_environments",
        {
            "shifts[:, a] * graph.cell[a, k]": "shifts[:, a] * graph.cell[k, a]",
            "ends - own[k] + image, 1.0 if k == 0 else 0.0": "ends - own[k] + image, 0.0",
            "return -(-n // blocks)": "return n // blocks",
        },
    ),
    *wrong(
        "potentials/observables.py",
        "potentials/test_observables",
        {
            "[k]: -g for k, g": "[k]: g for k, g",
            "graph.cell @ deformation.T)": "graph.cell @ deformation)",
            "(positions, strain):\n        if": "(positions, strain):\n        strain = 0.5 * strain\n        if",
            ".at[axes, atom, axes].set(1.0)": ".at[axes, atom, axes].set(-1.0)",
            "jax.lax.map(rows, displaced)": "jax.lax.map(rows, jnp.zeros_like(displaced))",
        },
    ),
    *wrong(
        "potentials/potential.py",
        "potentials/test_potential potentials/test_observables",
        {
            "jnp.sum(jnp.where(graph.atom_mask, sites, 0.0))": "jnp.sum(sites)",
            "< r_cut * (1 - 1e-9)": "< r_cut * (1 - 1e-3)",
            "    table[0] = 0\n": "",
            "jnp.where(index >= 0, site_energies": "jnp.where(index > 0, site_energies",
        },
    ),
    *wrong(
        "potentials/from_ase.py",
        "potentials/test_from_ase",
        {
            "energy / jnp.sum(real)": "energy / len(real)",
            "gradient[real] = -atoms": "gradient[real] = atoms",
            "slope - positions.T @ gradient": "slope + positions.T @ gradient",
            "np.linalg.solve(cell.T, ": "np.linalg.solve(cell, ",
            "(ahead - behind) / (2 * t)": "(ahead - behind) / t",
            '"free_energy" if "free_energy" in properties else "energy"': '"energy"',
            "atoms.get_volume() * atoms": "-atoms.get_volume() * atoms",
            "jnp.where(size > 0, size, 1.0)": "1.0",
        },
    ),
)
