"""Design rows of a pack of structures: those of every structure, from one graph.

Force rows are of atoms, and those of the pack's graph. Rows of energies and virials are sums over
the atoms of each structure: with A the channels of a site, Q the functions of `adjoint` and C their
couplings,

    d(-W_s)/dc = sum_q C_q Y_q(s),    Y_znq(s) = sum_(i in s) sum_m dA_znm(i)/d(strain) Q_qm(i) ,

and A itself in the place of its derivative gives the energies. The sums run over tiles, a few atoms
of one structure: one product for each tile and degree l.

Source: derived; the same as `rows` to rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.ace.adjoint import rows_of
from lprjax.ace.basis import centres
from lprjax.ace.rows import Rows, of_sites
from lprjax.ace.spec import ACESpec, tables
from lprjax.atoms.batches import Pack

TILES = 8
"""Tiles that are summed at a time on a CPU: a choice, to stay in its cache."""


def packed_rows(spec: ACESpec, pack: Pack, kinds: tuple[str, ...]) -> Rows:
    """The rows of all structures of a pack, for use inside `jit`.

    Args:
        spec: of the basis; species and reach are not checked here, and give NaN.
        pack: of n atoms and S structures.
        kinds: of "energy", "forces", "virial".

    Returns:
        Rows of these kinds: energy (S, C), forces (n, 3, C), virial (S, 6, C) in Voigt order, in
        the units of `ace_rows`; zero for structures and atoms that are not there.
    """
    forces, channels, functions = of_sites(spec, pack.graph)
    sums = _sums(spec, pack, (channels, functions, centres(spec, pack.graph)))
    rows = {"energy": sums[:, 6], "forces": forces, "virial": sums[:, :6]}
    return Rows(**{kind: rows[kind] for kind in kinds})


def _sums(spec: ACESpec, pack: Pack, of_sites: tuple) -> jax.Array:
    """Rows of the virial (Voigt order) and of the energy of every structure, (S, 7, C)."""
    atoms, owners = pack.tiles()
    size = TILES if jax.default_backend() == "cpu" else len(owners)
    n, n_structures = len(pack.owner), len(pack.sizes)
    atoms, owners = (
        jnp.pad(x, [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
        for x, fill in ((atoms, n), (owners, n_structures))
    )

    def add(number: jax.Array, rows: jax.Array) -> jax.Array:
        of = lambda x: jax.lax.dynamic_slice_in_dim(x, number * size, size)  # noqa: E731
        at = lambda x: x.at[of(atoms)].get(mode="fill", fill_value=0.0)  # noqa: E731
        found = _tile_rows(spec, *jax.tree.map(at, of_sites))
        return rows.at[of(owners)].add(found, mode="drop")

    used = jnp.sum(owners < n_structures)
    start = jnp.zeros((n_structures, 7, spec.n_columns))
    return jax.lax.fori_loop(0, (used + size - 1) // size, add, start)


def _tile_rows(
    spec: ACESpec, channels: list[jax.Array], functions: list[jax.Array], own: jax.Array
) -> jax.Array:
    """The rows of t tiles of a atoms, (t, x, C).

    channels: (t, a, x, z, n_max, m) of every degree, and (t, a, x, z, n_max) of the pairs;
    functions: Q (t, a, m, n_q); own: one-hot species (t, a, n_elements).
    """
    *many_body, pairs = channels

    def by_centre(product: str, values: jax.Array, *others: jax.Array) -> jax.Array:
        expand = lambda c: own[:, :, c].reshape(*own.shape[:2], *[1] * (values.ndim - 2))  # noqa: E731
        parts = [jnp.einsum(product, values * expand(c), *others) for c in range(own.shape[2])]
        return jnp.stack(parts, axis=2)

    parts = [
        by_centre("taxznm,tamq->txznq", values, q)
        for values, q in zip(many_body, functions, strict=True)
    ]
    # B of order v is homogeneous of degree v in A: sum_v A_v dB/dA_v = v B.
    order = np.array([len(f.factors) for f in tables(spec).functions])
    rows = rows_of(spec, parts).at[:, -1].divide(order[None, None])
    pair = by_centre("taxzn->txzn", pairs).reshape(*rows.shape[:3], -1)
    constant = jnp.zeros((*rows.shape[:3], int(spec.constant)))
    constant = constant.at[:, -1].set(jnp.sum(own, axis=1)[..., None])
    return jnp.concatenate([rows, pair, constant], axis=-1).reshape(*rows.shape[:2], -1)
