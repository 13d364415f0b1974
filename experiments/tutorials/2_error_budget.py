"""Lesson 2: what is wrong with a simulated defect, why, and which loss weights would do better.

    python -m experiments.tutorials.2_error_budget

The reference is a potential of one's own, written here in ten lines. A linear ACE potential is
fitted to small cells with a vacancy, and its errors in a larger one are predicted term by term,
beside the true ones. Then the weights of the loss go downhill in the predicted error, by its
gradient, without any further fit or simulation.
"""

# %%
import jax

jax.config.update("jax_enable_x64", True)

from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import lprjax as lp  # noqa: E402
from lprjax.numerics.guarded import smoothstep  # noqa: E402


# %% A potential of one's own: a frozen dataclass with a cutoff, from a graph to site energies.
@dataclass(frozen=True)
class SecondMoment:
    """Copper in the second-moment approximation.

        E_i = sum_j A exp(-p x) - (sum_j xi^2 exp(-2 q x))^1/2,   x = r / r0 - 1

    After Cleri and Rosato, Phys. Rev. B 48 (1993) 22; the smooth cutoff is ours.
    """

    A: float = 0.0855  # eV
    xi: float = 1.224  # eV
    p: float = 10.960
    q: float = 2.278
    r0: float = 2.556  # Å
    r_cut: float = 5.5  # Å

    def __call__(self, graph: lp.Graph) -> jax.Array:
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        fade = 1.0 - smoothstep((r - 4.5) / (self.r_cut - 4.5))  # from 1 at 4.5 Å to 0 at 5.5 Å
        fade = jnp.where(graph.edge_mask, fade, 0.0)  # padded edges count for nothing
        x = r / self.r0 - 1.0
        repulsion = jnp.sum(fade * self.A * jnp.exp(-self.p * x), axis=1)
        density = jnp.sum(fade * self.xi**2 * jnp.exp(-2.0 * self.q * x), axis=1)
        bonding = jnp.sqrt(jnp.where(density > 0.0, density, 1.0))  # no root of zero
        return jnp.where(graph.atom_mask, repulsion - jnp.where(density > 0, bonding, 0.0), 0.0)


reference = SecondMoment()
cube = lp.equilibrium(reference, lp.fcc("Cu", 3.6)).structure
a = float(cube.cell[0, 0])
print(f"copper: a = {a:.4f} Å")

# %% Training data: vacancy cells of 2 cubes per side, relaxed and rattled, and strained bulk cells.
small = lp.vacancy(cube, 2)
relaxed = lp.relax_defect(reference, small)
base = small.displaced(relaxed.displacement)
keys = jax.random.split(jax.random.key(0), 40)
rattled = [lp.rattled(base, key, 0.03 * (k + 1) / 20) for k, key in enumerate(keys[:20])]
shears = jax.random.uniform(keys[-1], (8, 3, 3), minval=-0.005, maxval=0.005)
bulk = [lp.strained(cube, 0.5 * (shear + shear.T)) for shear in shears]


def samples(spec, cells, kinds):
    """Graphs within the basis's cutoff, with the reference's labels."""
    graphs, theirs = (lp.build_graphs(cells, r) for r in (spec.r_cut, reference.r_cut))
    return [(g, lp.observe(reference, t, kinds)) for g, t in zip(graphs, theirs, strict=True)]


# %% One factor per kind. Energies are fitted less those of the perfect crystal: a formation energy
# subtracts N of those, so that a small error in the bulk would count N times.
spec = lp.ACESpec(("Cu",), order=2, degree=6, r_cut=5.2, r0=2.56)
row = lp.design_rows(spec, lp.build_graph(cube, spec.r_cut), ("energy",)).energy / cube.n_atoms
energy = float(lp.observe(reference, lp.build_graph(cube, reference.r_cut), "energy").energy)
origin = lp.regression.PerAtom(np.asarray(row), energy / cube.n_atoms)
kinds = ("energy", "forces")
factors = lp.compress_structures(spec, samples(spec, rattled, kinds), kinds, origin=origin)
factors |= lp.compress_structures(spec, samples(spec, bulk, ("virial",)), ("virial",))
prior = lp.smoothness_prior(spec, 2.0)
first = lp.fit(factors, {"energy": 10.0, "forces": 1.0, "virial": 10.0}, ridge=1e-8, prior=prior)

# %% The error budget of a simulation in 3 cubes per side: every term, predicted and true.
defect = lp.vacancy(cube, 3)
there = lp.relax_defect(reference, defect).displacement
radius = 0.5 * 2 * a  # how far the training data reach round the vacancy, Å
surrogate = lp.linear_potential(spec, first.coefficients)
budget = lp.error_budget(reference, surrogate, defect, radius, displacement=there)
print(budget)

# %% Where theory puts the weights, relative to the forces'.
constants = lp.weight_constants(small, relaxed.displacement, radius, spec.r_cut)
advice = lp.recommended_weights(
    constants,
    defect_cells=len(rattled),
    strained_cells=len(bulk),
    strained_volume=float(cube.volume),
    strain=0.005,
)
print(f"recommended: virials at {advice.virial:.2g} times the weight of forces (1/Å)")

# %% The errors of *every* potential of this basis are quadratic forms in its coefficients, made
# once. After that the predicted error of a fit is a differentiable function of the loss weights.
forms = lp.error_forms(spec, reference, defect, there)
parts = tuple(factors[kind] for kind in ("energy", "forces", "virial"))


def predicted(logs):
    """ln of the predicted geometry error (Å) and the errors, of the weights exp(logs)."""
    coefficients, _ = lp.solution(parts, jnp.exp(logs), 1e-8, jnp.asarray(prior))
    errors = lp.predicted_error(forms, coefficients)
    return jnp.log(errors.geometry), errors


downhill = jax.jit(jax.value_and_grad(predicted, has_aux=True))
adam = optax.adam(0.2)
logs = jnp.log(jnp.array([10.0, 1.0, 10.0]))
state, path = adam.init(logs), []
for _ in range(60):
    (_, errors), slope = downhill(logs)
    path.append(float(errors.geometry))
    update, state = adam.update(slope, state)
    logs = logs + update
print(f"predicted geometry error: {path[0]:.2e} Å, after {len(path)} steps {path[-1]:.2e} Å")
print(f"weights (energy, forces, virial): {np.exp(logs)}")

# %% Was the prediction right? Fit with the new weights, relax, and compare.
better = lp.fit(
    factors,
    dict(zip(("energy", "forces", "virial"), np.exp(logs).tolist(), strict=True)),
    ridge=1e-8,
    prior=prior,
)
improved = lp.linear_potential(spec, better.coefficients)
moved = lp.relax_defect(improved, defect, displacement=there).displacement
true = float(lp.defects.geometry_error(defect, moved, there))
print(f"true geometry error: {budget.geometry_true:.2e} Å before, {true:.2e} Å after")

# %%
folder = Path("results/tutorials")
folder.mkdir(parents=True, exist_ok=True)
figure, ax = plt.subplots(layout="constrained")
ax.semilogy(path, label="predicted, first order")
ax.semilogy([0, len(path) - 1], [budget.geometry_true, true], "o", label="true, by relaxing")
ax.set(xlabel="steps of the descent", ylabel="geometry error (Å)")
ax.legend()
figure.savefig(folder / "2_error_budget.png")
print(f"drawn: {folder / '2_error_budget.png'}")
