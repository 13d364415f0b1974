"""Tables of EAM potentials, and files of them."""

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers

from lprjax.potentials.eam import ZHOU_2004, embedding_energy
from lprjax.potentials.eam_files import CHARGES, Tables

R_CUT = 6.0


def zhou_tables(elements=("W", "Mo"), n_rho=3000, n_r=3001):
    """The functions of Zhou's EAM, on a grid; of one element F without the kink at 1.15 rho_e."""
    parameters = [ZHOU_2004[e] for e in elements]
    rho, r = np.linspace(0.0, 90.0, n_rho), np.linspace(0.0, R_CUT, n_r)

    def decays(p):
        s = r / p.re
        g = np.exp(-p.beta * (s - 1.0)) / (1.0 + (s - p.lam) ** 20)
        h = np.exp(-p.alpha * (s - 1.0)) / (1.0 + (s - p.kappa) ** 20)
        return p.fe * g, p.A * h - p.B * g

    f, phi = zip(*map(decays, parameters), strict=True)
    pair = [[0.5 * (f[b] / f[a] * phi[a] + f[a] / f[b] * phi[b]) for b in range(len(f))]
            for a in range(len(f))]  # fmt: skip
    embedding = np.stack([np.asarray(embedding_energy(p, jnp.asarray(rho))) for p in parameters])
    density = np.broadcast_to(np.stack(f), (len(f), len(f), n_r))
    return Tables(tuple(elements), rho[1], r[1], R_CUT, embedding, density, r * np.array(pair))


def text(tables, form="alloy", words=3):
    """A file of these tables, so many numbers in a line."""

    def block(values):
        values = [f"{v:.17e}" for v in np.ravel(values)]
        return [" ".join(values[k : k + words]) for k in range(0, len(values), words)]

    n = len(tables.elements)
    grids = f"{tables.embedding.shape[1]} {tables.drho:.17g} {tables.pair.shape[-1]} "
    grids += f"{tables.dr:.17g} {tables.r_cut:.17g}"
    if form == "funcfl":
        charge = np.sqrt(tables.pair[0, 0] / CHARGES)
        number = atomic_numbers[tables.elements[0]]
        parts = [*block(tables.embedding), *block(charge), *block(tables.density)]
        return "\n".join(["a comment", f"{number} 1.0 3.0 BCC", grids, *parts, ""])
    lines = ["made", "by", "a test", f"{n} {' '.join(tables.elements)}", grids]
    for a, element in enumerate(tables.elements):
        lines += [f"{atomic_numbers[element]} 1.0 3.0 bcc", *block(tables.embedding[a])]
        own = tables.density[:, a] if form == "fs" else tables.density[0, a]
        lines += [line for values in np.atleast_2d(own) for line in block(values)]
    lines += [line for a in range(n) for b in range(a + 1) for line in block(tables.pair[a, b])]
    return "\n".join([*lines, ""])


def random_tables(n=2, n_rho=40, n_r=50):
    """Of Finnis and Sinclair's form: whatever is symmetric or not in the format is so here."""
    rng, r = np.random.default_rng(0), np.linspace(0.0, R_CUT, n_r)
    waves = lambda *shape: rng.normal(size=(*shape, 1)) * np.cos(rng.uniform(1, 3, (*shape, 1)) * r)  # noqa: E731
    pair = waves(n, n)
    pair = pair + pair.swapaxes(0, 1) + 9.0
    embedding = -np.sqrt(np.linspace(0.0, 50.0, n_rho) + rng.uniform(1, 2, (n, 1)))
    return Tables(("W", "Mo", "Ta")[:n], 50 / (n_rho - 1), r[1], R_CUT, embedding,
                  waves(n, n) + 2.0, pair)  # fmt: skip
