"""Lesson 1: fit a potential, and ask how rigid each of its predictions is.

    python -m experiments.tutorials.1_fit_and_ask

A linear ACE potential of tungsten is fitted to rattled bulk cells. Its local prediction rigidity
(LPR) is then asked of atoms that it was trained on, and of atoms round a vacancy, which it has
never seen. No reference calculation is needed for the asking.
"""

# %% Everything that is inverted needs float64, so that comes first.
import jax

jax.config.update("jax_enable_x64", True)

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import lprjax as lp  # noqa: E402

# %% A reference, and cells to learn from: 16 atoms each, rattled by 0.05 Å.
# A potential is any function from a graph (a structure with its neighbours) to site energies.
eam = lp.zhou_eam("W")
crystal = lp.supercell(lp.bcc("W", 3.165), (2, 2, 2))
keys = jax.random.split(jax.random.key(0), 20)
cells = [lp.rattled(crystal, key, 0.05) for key in keys]
labels = [lp.observe(eam, graph) for graph in lp.build_graphs(cells, eam.r_cut)]  # eV, eV/Å

# %% A basis, and the fit.
# The rows of each kind of observation are compressed once, into one triangular factor; weights come
# later and cost nothing that grows with the data. A weight multiplies the residual.
spec = lp.ACESpec(("W",), order=2, degree=8, r_cut=5.5, r0=2.74)
graphs = lp.build_graphs(cells, spec.r_cut)
factors = lp.compress_structures(spec, zip(graphs, labels, strict=True))
fit = lp.fit(factors, {"energy": 10.0, "forces": 1.0}, ridge=1e-10)
print(f"{spec.n_columns} functions, rank {fit.rank}; rms {dict(fit.rms)} (eV, eV/Å)")

# %% How well do the data determine each atom's energy? LPR = 1 / (B H^-1 B), 1/eV^2: 1/LPR is the
# variance that they leave it.
here = lp.local_prediction_rigidity(fit.factor, lp.site_basis(spec, graphs[0])[:16])

# %% The same question about atoms that the data do not contain.
defect = lp.vacancy(lp.bcc("W", 3.165), 3)
graph = lp.build_graph(defect.structure, spec.r_cut)
n = defect.structure.n_atoms
there = lp.local_prediction_rigidity(fit.factor, lp.site_basis(spec, graph)[:n])
distance = defect.distances()[np.asarray(defect.site_of_atom)]  # Å, from the empty site
nearest = distance < 3.0
ratio = np.median(there[~nearest]) / np.median(there[nearest])
print(f"The eight neighbours of the vacancy are {ratio:.0f} times less rigid than the rest.")

# %% Which part of the model is it? Components: pair and many-body functions, body orders.
masks = lp.components(spec)
parts = lp.component_rigidity(
    fit.factor, lp.site_basis(spec, graph)[:n], np.stack([masks["pair"], masks["many-body"]])
)
print(f"pair, many-body: {np.median(parts[nearest], axis=0)} 1/eV^2 next to the vacancy")

# %% Keep it: the fit, its factor, and what it was fitted to. The same bits come back.
folder = Path("results/tutorials")
folder.mkdir(parents=True, exist_ok=True)
lp.save(folder / "tungsten.npz", fit, spec=spec, data="20 rattled cells of 16 atoms, Zhou EAM")
saved = lp.load(folder / "tungsten.npz")
potential = saved.potential()
assert np.array_equal(saved.fit.factor, fit.factor)

# %% And a picture, where one would rather look.
figure, ax = plt.subplots(layout="constrained")
ax.semilogy(distance, there, "o", label="round a vacancy")
ax.axhspan(here.min(), here.max(), color="0.85", label="in the training cells")
ax.set(xlabel="distance from the vacancy (Å)", ylabel="rigidity of site energy (1/eV$^2$)")
ax.legend()
figure.savefig(folder / "1_fit_and_ask.png")
print(f"drawn: {folder / '1_fit_and_ask.png'}")
