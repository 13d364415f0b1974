"""The adjoint of the site basis: dB_k/dA_v at every site, from the few functions it is made of.

Take one factor (z, n, l) out of B_k. What is left couples its other factors to degree l, and is the
same whatever n is: of these equivariant functions Q_qm there are several times fewer than of
derivatives,

    dB_k / dA_znlm = sum_q C_(k,znl),q Q_qm ,      Q_qm of degree l, one factor fewer than B_k.

So any derivative of sum_i B_k(i), A_znlm moving by D_znlm, is found by one matrix product over m
for each degree l, and a short sum over the factors that can be taken out:

    sum_i sum_v dB_k/dA_v D_v = sum_(znl in k) sum_q C_(k,znl),q Y_znq ,
    Y_znq = sum_i sum_m D_znlm(i) Q_qm(i) .

Source: derived.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lprjax.ace.spec import ACESpec, tables
from lprjax.ace.sums_of_products import Sums, sums

ROUNDING = 1e-12
"""Couplings are of order one: what falls below is rounding."""
RANK = 1e-8
"""Singular values below this share of the largest are zero: exact zeros against numbers of order
one, between which any threshold will do."""


class Block(NamedTuple):
    """The functions Q of one degree l, and the n that they multiply: 1 … n_max."""

    l: int
    n_max: int
    n_q: int  # functions Q of this degree
    entries: slice  # of Q, by m, then by q


class Adjoint(NamedTuple):
    """What the rows of a basis are made of: the functions Q, and C, by which rows are sums of Y."""

    q: Sums  # the functions Q as sums of products of channels
    blocks: list[Block]  # for each degree l
    slots: np.ndarray  # (n_many_body, lanes) positions of the Y in a row; in each block (z, n, q)
    shares: np.ndarray  # (n_many_body, lanes) C, 0 where padded


class _Couplings(NamedTuple):
    """What is left of some slots after taking out a factor of degree l, all with the same rest."""

    l: int  # degree
    basis: np.ndarray  # (n_q, 2l+1, n_products), orthonormal
    products: np.ndarray  # (n_products, order - 1)
    slots: np.ndarray  # (n_slots, 3) function, z, n
    shares: np.ndarray  # (n_slots, n_q) C

    @property
    def n_max(self) -> int:
        return self.slots[:, 2].max()


@lru_cache(maxsize=32)
def adjoint_tables(spec: ACESpec) -> Adjoint:
    """Tables of Q and C, from the product rule on every term.

    Args:
        spec: of the basis; the last 32 are kept.

    Returns:
        The tables, on the host.
    """
    blocks, lanes, start, offset = [], [[] for _ in range(tables(spec).n_many_body)], 0, 0
    entry, channels, values = [], [], []
    couplings = _couplings(spec)
    for l in range(tables(spec).l_max + 1):
        members = [c for c in couplings if c.l == l]
        n_q, n_max = sum(len(c.basis) for c in members), max(c.n_max for c in members)
        q = 0
        for c in members:
            b, m, p = np.nonzero(np.abs(c.basis) > ROUNDING)
            entry.append(start + m * n_q + q + b)
            channels.append(c.products[p])
            values.append(c.basis[b, m, p])
            for s, b in zip(*np.nonzero(np.abs(c.shares) > ROUNDING), strict=True):
                k, z, n = c.slots[s]
                lanes[k].append((offset + (z * n_max + n - 1) * n_q + q + b, c.shares[s, b]))
            q += len(c.basis)
        blocks.append(Block(l, int(n_max), n_q, slice(start, start + (2 * l + 1) * n_q)))
        start, offset = blocks[-1].entries.stop, offset + len(spec.elements) * n_max * n_q
    most = max(map(len, lanes))
    padded = np.array([lane + [(0, 0.0)] * (most - len(lane)) for lane in lanes])
    found = sums(start, *(np.concatenate(part) for part in (entry, channels, values)))
    return Adjoint(found, blocks, padded[..., 0].astype(int), padded[..., 1])


def _couplings(spec: ACESpec) -> list[_Couplings]:
    """The slots (function, factor taken out) by l and rest, and an orthonormal basis of each."""
    t = tables(spec)
    order = t.term_channels.shape[1]
    taken = t.term_channels.T.ravel()
    rest = np.concatenate([np.delete(t.term_channels, a, axis=1) for a in range(order)])
    function, value = np.tile(t.term_function, order), np.tile(t.term_value, order)
    real = taken < t.n_channels
    taken, rest, function, value = taken[real], rest[real], function[real], value[real]

    z, n, l, m = t.channels[taken].T
    _, radial = np.unique(t.channels[:, :3], axis=0, return_inverse=True)
    rest_of = np.sort(np.append(radial, -1)[rest], axis=1)  # (z, n, l) of the factors left
    _, group = np.unique(np.column_stack([l, rest_of]), axis=0, return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    found = []
    for terms in np.split(by_group, np.flatnonzero(np.diff(group[by_group])) + 1):
        slots, slot = np.unique(
            np.column_stack([function, z, n])[terms], axis=0, return_inverse=True
        )
        products, product = np.unique(rest[terms], axis=0, return_inverse=True)
        degree = l[terms[0]]
        left = np.zeros((len(slots), 2 * degree + 1, len(products)))
        # The same product may come from several factors of one term: add them up.
        np.add.at(left, (slot.ravel(), m[terms] + degree, product.ravel()), value[terms])
        basis, shares = _span(left.reshape(len(slots), -1))
        basis = basis.reshape(len(basis), *left.shape[1:])
        found.append(_Couplings(int(degree), basis, products, slots, shares))
    return found


def _span(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis of the rows' span, and the rows in it."""
    _, sigma, vt = np.linalg.svd(rows, full_matrices=False)
    basis = vt[: int(np.sum(sigma > RANK * sigma[0]))]
    return basis, rows @ basis.T


def channels_of(spec: ACESpec, block: Block) -> np.ndarray:
    """The channels that the functions of a block multiply.

    Args:
        spec: of the basis.
        block: one of `adjoint_tables(spec).blocks`.

    Returns:
        Indices of the channels, (z, n, m) of shape (n_elements, n_max, 2l+1).
    """
    t = tables(spec)
    table = np.empty((len(spec.elements), block.n_max, 2 * block.l + 1), int)
    own = np.flatnonzero((t.channels[:, 2] == block.l) & (t.channels[:, 1] <= block.n_max))
    z, n, _, m = t.channels[own].T
    table[z, n - 1, m + block.l] = own
    return table


def block_functions(spec: ACESpec, q: jax.Array) -> list[jax.Array]:
    """Q of every block.

    Args:
        spec: of the basis.
        q: all entries at n sites, (n_entries, n), of `adjoint_tables(spec).q`.

    Returns:
        One array (n, 2l+1, n_q) for each block.
    """
    by_site = q.T
    return [
        by_site[:, b.entries].reshape(-1, 2 * b.l + 1, b.n_q) for b in adjoint_tables(spec).blocks
    ]


def rows_of(spec: ACESpec, parts: list[jax.Array]) -> jax.Array:
    """The rows of many-body functions, sums of Y weighted by C.

    Args:
        spec: of the basis.
        parts: Y of every block, each (…, n_elements, n_max, n_q), in any unit.

    Returns:
        The rows, (…, n_many_body), in that unit.
    """
    a = adjoint_tables(spec)
    y = jnp.concatenate([p.reshape(*p.shape[:-3], -1) for p in parts], axis=-1)
    shares = jnp.expand_dims(jnp.asarray(a.shares.T), tuple(range(1, y.ndim)))
    return sum(share * y[..., slot] for slot, share in zip(a.slots.T, shares, strict=True))
