"""Lesson 4: the same questions of a kernel model and of a neural network.

    python -m experiments.tutorials.4_kernels_and_networks

What rigidity asks of a model is one factor, H = R^T R of its weighted Jacobians, and the derivative
g of a prediction in its coefficients. A sparse kernel model is linear in its coefficients and fits
as an ACE potential does; a network is linearised at its trained weights (generalised
Gauss-Newton), or taken as linear in its last layer.
"""

# %%
import jax

jax.config.update("jax_enable_x64", True)

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import lprjax as lp  # noqa: E402
from lprjax.models import site_features, unseen_variance  # noqa: E402

# %% Silicon, rattled a little: training cells, and one that is rattled far more.
reference = lp.stillinger_weber()
crystal = lp.diamond("Si", 5.431)
keys = jax.random.split(jax.random.key(0), 13)
cells = [lp.rattled(crystal, key, 0.1) for key in keys[:12]]
far = lp.rattled(crystal, keys[12], 0.5)
spec = lp.ACESpec(("Si",), order=2, degree=6, r_cut=4.5, r0=2.35)
graphs = lp.build_graphs([*cells, far], spec.r_cut)
theirs = lp.build_graphs(cells, reference.r_cut)
samples = [(g, lp.observe(reference, t)) for g, t in zip(graphs[:-1], theirs, strict=True)]
weights = {"energy": 10.0, "forces": 1.0}
environments = np.concatenate([lp.site_basis(spec, graph)[:8] for graph in graphs[:-1]])
per_atom = {"Si": float(np.mean([labels.energy for _, labels in samples])) / 8}  # eV

# %% A sparse kernel model (GAP): its environments are chosen by a pivoted Cholesky factorisation.
kernel = lp.kernel_potential(spec, environments, 30, zeta=2, reference_energies=per_atom)
fit = lp.fit(lp.compress_structures(kernel, samples), weights, ridge=1e-6)
rigid = {
    name: lp.local_prediction_rigidity(fit.factor, site_features(kernel, graph)[:8])
    for name, graph in (("trained", graphs[0]), ("far", graphs[-1]))
}
print("kernel LPR, median:", {name: float(np.median(lpr)) for name, lpr in rigid.items()})
# A sparse kernel model is sure of itself where none of its environments reaches: look beside it.
unseen = [float(np.median(unseen_variance(kernel, g)[:8])) for g in (graphs[0], graphs[-1])]
print(f"prior variance that no sparse environment sees: {unseen[0]:.1e} and {unseen[1]:.1e}")

# %% A neural network on the same features, trained by Adam on the loss of the fit.
network = lp.network_potential(spec, environments, (8,), jax.random.key(1), per_atom)
trained = lp.train(network, samples, weights, jax.random.key(2), 300, ridge=1e-6)
network = trained.potential
print(f"network: loss {trained.losses[0]:.3g} at first, {trained.losses[-1]:.3g} in the end")

# %% Its rigidity, of all weights and of the last layer alone. The latter holds all other weights
# fixed, so that it can only be larger.
data = lp.compress_structures(network, samples)
factor = lp.fit(data, weights, ridge=1e-6).factor
rows = lp.prediction_rows(lambda p: p(graphs[-1])[:8], network)
whole = lp.local_prediction_rigidity(factor, rows)
head = lp.last_layer(network)
head_factor = lp.fit(lp.compress_structures(head, samples), weights, ridge=1e-6).factor
last = lp.local_prediction_rigidity(head_factor, head.features(graphs[-1])[:8])
print(f"network LPR, median: all weights {np.median(whole):.3g}, last layer {np.median(last):.3g}")

# %% Every one of them can be kept in a file, and comes back as it was.
folder = Path("results/tutorials")
folder.mkdir(parents=True, exist_ok=True)
for name, model in (("kernel", kernel), ("network", network)):
    lp.save(folder / f"{name}.npz", model)
    again = lp.load(folder / f"{name}.npz")
    assert type(again) is type(model)
    assert np.array_equal(again.coefficients, model.coefficients)

# %%
figure, ax = plt.subplots(layout="constrained")
ax.semilogy(np.sort(rigid["trained"]), "o", label="kernel, a training cell")
ax.semilogy(np.sort(rigid["far"]), "s", label="kernel, rattled five times more")
ax.semilogy(np.sort(whole), "^", label="network, rattled five times more")
ax.set(xlabel="atom, by rank", ylabel="rigidity of site energy (1/eV$^2$)")
ax.legend()
figure.savefig(folder / "4_kernels_and_networks.png")
print(f"drawn: {folder / '4_kernels_and_networks.png'}")
