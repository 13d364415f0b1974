"""Lesson 5: a foundation model audited through ASE: its noise, its crystal, a fit that replaces it.

    python -m experiments.tutorials.5_foundation_model

CHGNet, where `pip install chgnet` put it, else a stand-in: the effective medium theory of ASE with
positions in single precision, as a foundation model has them. A linear ACE potential is fitted to
a few cells that the model labels, and its error budget for a vacancy is made: every term with what
the noise of the model makes of it. Results are kept on disk, so that a second run makes no call.
"""

# %%
import jax

jax.config.update("jax_enable_x64", True)

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402

import lprjax as lp  # noqa: E402


# %% The model. Any calculator of ASE will do; a slow one with its results kept on disk.
class SinglePrecision(EMT):
    """EMT that knows positions to seven digits."""

    def calculate(self, atoms=None, *args, **options):
        rounded = atoms.copy()
        rounded.positions = atoms.positions.astype(np.float32)
        super().calculate(rounded, *args, **options)
        self.atoms = atoms.copy()  # what the results are of


folder = Path("results/tutorials")
try:
    from chgnet.model import CHGNetCalculator

    name, model, element, nearest = "CHGNet", CHGNetCalculator(), "W", 2.74  # Å
    crystal = lp.bcc(element, 3.17)
except ImportError:
    name, model, element, nearest = "EMT", SinglePrecision(), "Cu", 2.55  # Å
    crystal = lp.fcc(element, 3.6)
    print("chgnet is not installed: EMT with positions in single precision stands in for it.")
calculator = lp.cached_calculator(model, folder / f"calls_of_{name}")
reference = lp.ase_potential(calculator)

# %% The crystal at rest, as far as the noise lets one say; and the noise itself. How far apart the
# calls for derivatives are is decided by it, for each order: nothing is to be chosen.
rest = lp.equilibrium(reference, crystal)
cube = rest.structure
graph = lp.build_graph(cube, reference.r_cut)
noise, steps = reference.noise(graph, strained=True), reference.steps(graph, strained=True)
print(f"a = {float(cube.cell[0, 0]):.4f} Å, converged: {rest.converged}")
print(f"forces are good to {noise.forces:.1e} eV/Å, virials to {noise.virial:.1e} eV")
print(f"differences over {steps.first:.2g} Å (second order), {steps.second:.2g} Å (third)")
constants = lp.GPA_PER_EV_A3 * lp.elastic_constants(reference, cube).relaxed
print(
    "C11, C12, C44: {:.1f}, {:.1f}, {:.1f} GPa".format(*np.asarray(constants)[[0, 0, 3], [0, 1, 3]])
)

# %% Is it smooth? The same constant by one central difference, over ever larger strains: on a
# smooth energy it changes by the square of the strain, on noise by its inverse; a model that jumps
# where a neighbour comes into reach changes as it likes.
strains = np.geomspace(1e-5, 3e-2, 12)
c11 = []
for strain in strains:
    ends = [lp.strained(cube, np.diag([sign * strain, 0, 0])) for sign in (1, -1)]
    virials = [lp.observe(reference, lp.build_graph(c, 1.0), "virial").virial[0, 0] for c in ends]
    slope = float(virials[1] - virials[0]) / (2 * strain) / float(cube.volume)
    c11.append(lp.GPA_PER_EV_A3 * slope)

# %% A fit to a few cells that the model labels.
spec = lp.ACESpec((element,), order=2, degree=8, r_cut=2.0 * nearest, r0=nearest)
defect = lp.vacancy(cube, 3)
small = lp.vacancy(cube, 2).structure
keys = jax.random.split(jax.random.key(0), 12)
bases = [lp.supercell(cube, (2, 2, 2)), small]
cells = [lp.rattled(bases[k % 2], key, 0.05) for k, key in enumerate(keys)]
kinds = ("energy", "forces", "virial")
labels = [lp.observe(reference, g, kinds) for g in lp.build_graphs(cells, reference.r_cut)]
data = lp.compress_structures(
    spec, zip(lp.build_graphs(cells, spec.r_cut), labels, strict=True), kinds
)
weights = {"energy": 10.0, "forces": 1.0, "virial": 1.0}
fit = lp.fit(data, weights, ridge=1e-8, prior=lp.smoothness_prior(spec, 2.0))
print(f"rms {dict(fit.rms)} (eV, eV/Å, eV)")

# %% The audit: what the fit gets wrong of the model's vacancy, and how much of that is noise. In
# the last two columns, a bar as large as its norm says that the term is not known; no advice is
# given where the bars leave open which term is the largest.
surrogate = lp.linear_potential(spec, fit.coefficients)
budget = lp.error_budget(reference, surrogate, defect, radius=4.0)
print(budget)
print(f"{calculator.calls} calls of the model in this run")

# %%
budget.plot().savefig(folder / "5_budget.png")
figure, ax = plt.subplots(layout="constrained")
ax.semilogx(strains, c11, "o-", label="one central difference")
ax.axhline(float(constants[0, 0]), color="k", label="as chosen by the noise")
ax.set(xlabel="strain", ylabel="$C_{11}$ (GPa)")
ax.legend()
figure.savefig(folder / "5_foundation_model.png")
print(f"drawn: {folder / '5_foundation_model.png'}, {folder / '5_budget.png'}")
