"""Lesson 3: which structures to label next, for a prediction that matters.

    python -m experiments.tutorials.3_what_to_label

A potential fitted to bulk cells is to give the formation energy of a vacancy. Of a pool of
candidates, without labels, those are chosen that make this one prediction most rigid. Then the
chosen cells are labelled, and the posterior says what the formation energy is worth.
"""

# %%
import jax

jax.config.update("jax_enable_x64", True)

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import lprjax as lp  # noqa: E402

# %% A fit to the bulk, as in lesson 1.
eam, cube = lp.zhou_eam("W"), lp.bcc("W", 3.165)
spec = lp.ACESpec(("W",), order=2, degree=8, r_cut=5.5, r0=2.74)
weights = {"energy": 10.0, "forces": 1.0}
keys = jax.random.split(jax.random.key(0), 40)


def labelled(cells):
    """Graphs within the basis's cutoff, with the reference's labels."""
    graphs, theirs = (lp.build_graphs(cells, r) for r in (spec.r_cut, eam.r_cut))
    return [(graph, lp.observe(eam, their)) for graph, their in zip(graphs, theirs, strict=True)]


bulk = [lp.rattled(lp.supercell(cube, (2, 2, 2)), key, 0.05) for key in keys[:20]]
factors = lp.compress_structures(spec, labelled(bulk))
fit = lp.fit(factors, weights, ridge=1e-8)

# %% The prediction that matters: the formation energy of a relaxed vacancy. Its derivative in the
# coefficients is taken through the relaxation, and is all that a rigidity asks of a prediction.
defect = lp.vacancy(cube, 3)
potential = lp.linear_potential(spec, fit.coefficients)
relaxed = lp.relax_defect(potential, defect)
u = relaxed.displacement


def formation_energy(p):
    """E_f, eV, as a function of the potential."""
    return lp.relaxed_formation_energy(p, defect, u)


g = lp.prediction_rows(formation_energy, potential)
spread = float(lp.prediction_rigidity(fit.factor, g)) ** -0.5
now = float(formation_energy(potential))
print(f"E_f = {now:.3f} eV; 1/PR^1/2 = {spread:.3g} in units of the weighted residuals")

# %% Candidates: more of the bulk, and small cells with a vacancy. No labels are needed, only rows.
small = lp.vacancy(cube, 2).structure
pool = [lp.rattled(lp.supercell(cube, (2, 2, 2)), key, 0.05) for key in keys[20:26]]
pool += [lp.rattled(small, key, 0.05) for key in keys[26:32]]
names = ["bulk"] * 6 + ["vacancy"] * 6


def weighted_rows(graph, n):
    """Energy and force rows of one structure, times their weights: (1 + 3 n, K)."""
    rows = lp.design_rows(spec, graph)
    energy, forces = (np.asarray(x) for x in (rows.energy[None], rows.forces[:n]))
    return np.concatenate(
        [weights["energy"] * energy, weights["forces"] * forces.reshape(3 * n, -1)]
    )


graphs = lp.build_graphs(pool, spec.r_cut)
candidates = [weighted_rows(graph, s.n_atoms) for graph, s in zip(graphs, pool, strict=True)]
chosen = lp.choose(fit.factor, candidates, g[None], count=4)
print("chosen:", [names[k] for k in chosen.order])
print("rigidity of E_f:", np.asarray(chosen.rigidity)[:, 0], "1/eV^2, before and after each")

# %% Label those, and only those, and fit again.
more = lp.compress_structures(spec, labelled([pool[k] for k in chosen.order]))
together = {kind: lp.regression.merge(factors[kind], more[kind]) for kind in factors}
refit = lp.fit(together, weights, ridge=1e-8)
better = lp.linear_potential(spec, refit.coefficients)
after = lp.relax_defect(better, defect)
true = lp.relax_defect(eam, defect)
bulk_energy = float(lp.observe(eam, lp.build_graph(cube, eam.r_cut), "energy").energy) / 2
e_f = lp.formation_energy(true.energy, defect, bulk_energy)
before, now = (
    float(lp.relaxed_formation_energy(p, defect, found.displacement))
    for p, found in ((potential, relaxed), (better, after))
)
print(f"E_f: {before:.3f} eV before, {now:.3f} eV after, {e_f:.3f} eV by the reference")

# %% What the posterior makes of it: a committee of potentials, drawn from it, disagrees as the
# rigidity says. In weighted units; `lp.calibrate` turns them into eV by residuals of cells that
# were not fitted. Where the basis cannot represent the reference, such bars are too narrow.
models = lp.committee(refit.coefficients, refit.factor, jax.random.key(1), 200)
spread_by_committee = float(np.std(np.asarray(models) @ np.asarray(g)))
held = float(lp.prediction_rigidity(refit.factor, g)) ** -0.5
print(f"spread of E_f: {spread_by_committee:.3g} by the committee, {held:.3g} by the rigidity")

# %%
folder = Path("results/tutorials")
folder.mkdir(parents=True, exist_ok=True)
figure, ax = plt.subplots(layout="constrained")
ax.semilogy(np.asarray(chosen.rigidity)[:, 0], "o-")
ax.set(xlabel="cells labelled", ylabel="rigidity of the formation energy (1/eV$^2$)")
figure.savefig(folder / "3_what_to_label.png")
print(f"drawn: {folder / '3_what_to_label.png'}")
