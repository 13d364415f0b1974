"""Wrong formulas in lprjax/simulation."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "simulation/dynamics.py",
        "simulation/test_dynamics",
        {
            "2.0 * self.kinetic_energy / (3.0": "self.kinetic_energy / (3.0",
            "ACCELERATION = units.fs**2": "ACCELERATION = units.fs",
            "BOLTZMANN * temperature * ACCELERATION / masses": "BOLTZMANN * temperature * ACCELERATION * masses",
            "drawn - (masses @ drawn / jnp.sum(masses))[None, :]": "drawn - jnp.mean(drawn, axis=0)[None, :]",
            "kick = 0.5 * time_step": "kick = time_step",
            "jnp.exp(-friction * time_step)": "jnp.exp(-0.5 * friction * time_step)",
            "(1.0 - kept**2) * BOLTZMANN": "(1.0 - kept) * BOLTZMANN",
            "jnp.sqrt(temperature) * noise": "temperature * noise",
            "_State(x, v + kick * forces, forces": "_State(x, v, forces",
            "0.5 * jnp.sum(masses[:, None] * v**2)": "jnp.sum(masses[:, None] * v**2)",
            "nearest(difference, periodic[None, None, :]) - difference": "difference - nearest(difference, periodic[None, None, :])",
            "< r_cut**2) & ~jnp.eye(n, dtype=bool)": "< r_cut**2)",
            "jnp.any(found > n_neighbours)": "jnp.any(found >= n_neighbours)",
            "cell[:, :, None, None], axis=0": "cell.T[:, :, None, None], axis=0",
            "np.linalg.norm(np.linalg.inv(np.asarray(structure.cell)), axis=0)": (
                "np.linalg.norm(np.linalg.inv(np.asarray(structure.cell)), axis=1)"
            ),
            "width > 2.0 * r_cut": "width > r_cut",
            "overflow | here)": "here)",
            "jax.random.fold_in(key, number)": "key",
        },
    ),
    *wrong(
        "simulation/relaxation.py",
        "simulation/test_relaxation",
        {
            "forces=-state.gradient[:n]": "forces=state.gradient[:n]",
            "min(float(max_move), 0.499 * skin)": "float(max_move)",
            "math.inf if fixed_topology else 0.5 * skin": "math.inf",
            "_max_norm(state.gradient, free)),\n": "_max_norm(state.gradient, state.gradient[:, 0] < jnp.inf)),\n",
            "limits.max_move / jnp.where(farthest": "10.0 * limits.max_move / jnp.where(farthest",
            "change <= SUFFICIENT * state.length * old": "change <= 0.0",
            "(2.0 * SUFFICIENT - 1.0) * old": "(1.0 - 2.0 * SUFFICIENT) * old",
            "v - share * turn, share": "v + share * turn, share",
            "v + (share - weight * jnp.vdot(turn, v)) * move": "v + (share + weight * jnp.vdot(turn, v)) * move",
            "upward, curvature / jnp.where(upward, size, 1.0)": "upward, size / jnp.where(upward, size, 1.0)",
            "jnp.where(free[:, None], jnp.zeros_like(v).at[:n_atoms].set(moves), 0.0)": "jnp.zeros_like(v).at[:n_atoms].set(moves)",
            "max_force < limits.force_tolerance, CONVERGED": "max_force < jnp.sqrt(limits.force_tolerance), CONVERGED",
            "old / jnp.where(new > 0, old - new, 1.0)": "old / jnp.where(new > 0, new - old, 1.0)",
            "1.0 / jnp.where(upward, curvature, 1.0)": "1.0 / jnp.where(upward, size, 1.0)",
        },
    ),
)
