"""The adjoint of the site basis: W_kv = dB_k/dA_v at every site, as sums of a few products.

By the product rule every term of B_k gives one product for each factor taken out. The entries of W
are ordered by (z, n, l) group, so that one matrix product serves all functions that contain it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lprjax.spec import ACESpec, tables


class Group(NamedTuple):
    """The functions that contain the channels (z, n, l): entries start … start + size of W, by
    channel, then by slot (function)."""

    z: int
    n: int
    l: int
    channels: np.ndarray  # (2l+1,) channel indices
    functions: np.ndarray  # (n_slots,) function of each slot
    start: int
    size: int


class Bucket(NamedTuple):
    """Entries of W that are sums of at most `terms.shape[1]` products."""

    terms: np.ndarray  # (n_entries, n_terms) index of the product
    values: np.ndarray  # (n_entries, n_terms), zero where padded


class Adjoint(NamedTuple):
    products: np.ndarray  # (P, order - 1) channels of the products left after taking one factor
    buckets: list[Bucket]
    order: np.ndarray  # position of every entry of W in the concatenated buckets
    groups: list[Group]
    slots_of: np.ndarray  # (n_many_body, most) slots of each function, padded with the last + 1


@lru_cache(maxsize=32)
def adjoint_tables(spec: ACESpec) -> Adjoint:
    """Tables of W = dB/dA as sums of products, from the product rule on every term."""
    t = tables(spec)
    order = t.term_channels.shape[1]
    taken = t.term_channels.T.ravel()
    rest = np.concatenate([np.delete(t.term_channels, a, axis=1) for a in range(order)])
    function, value = np.tile(t.term_function, order), np.tile(t.term_value, order)
    real = taken < t.n_channels
    taken, rest, function, value = taken[real], rest[real], function[real], value[real]
    products, product_of = np.unique(rest, axis=0, return_inverse=True)

    groups, entry_of, start = [], np.empty(len(taken), int), 0
    _, group_of = np.unique(t.channels[:, :3], axis=0, return_inverse=True)
    for g in range(group_of.max() + 1):
        channels = np.flatnonzero(group_of == g)
        here = np.isin(taken, channels)
        functions, slot = np.unique(function[here], return_inverse=True)
        entry_of[here] = start + (taken[here] - channels[0]) * len(functions) + slot
        z, n, l, _ = t.channels[channels[0]].tolist()
        groups.append(Group(z, n, l, channels, functions, start, functions.size * channels.size))
        start += groups[-1].size
    # The same (entry, product) may come from several factors of one term: add them up.
    pairs, pair_of = np.unique(
        np.stack([entry_of, product_of.ravel()], axis=1), axis=0, return_inverse=True
    )
    values = np.bincount(pair_of.ravel(), weights=value)
    buckets, position = _buckets(pairs, values, start)
    slots = np.concatenate([g.functions for g in groups])
    return Adjoint(products, buckets, position, groups, _positions_by(slots, t.n_many_body))


def _buckets(pairs: np.ndarray, values: np.ndarray, n_entries: int):
    """Entries sorted into buckets of 1, 2, 4, … products, and where each entry ended up."""
    counts = np.bincount(pairs[:, 0], minlength=n_entries)
    first = np.cumsum(counts) - counts
    width = 2 ** np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    buckets, members = [], []
    for w in np.unique(width):
        mine = np.flatnonzero(width == w)
        lane = np.arange(w)[None, :]
        valid = lane < counts[mine, None]
        source = np.where(valid, first[mine, None] + lane, 0)
        buckets.append(Bucket(pairs[source, 1], np.where(valid, values[source], 0.0)))
        members.append(mine)
    position = np.empty(n_entries, int)
    position[np.concatenate(members)] = np.arange(n_entries)
    return buckets, position


def _positions_by(labels: np.ndarray, n: int) -> np.ndarray:
    """Row k: the positions at which `labels` equals k, padded with len(labels)."""
    counts = np.bincount(labels, minlength=n)
    table = np.full((n, counts.max()), len(labels))
    by_label = np.argsort(labels, kind="stable")
    lane = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[labels[by_label], lane] = by_label
    return table


def adjoint_weights(spec: ACESpec, base: jnp.ndarray) -> jnp.ndarray:
    """W, shape (n_entries, n_atoms): dB_k/dA_v at every site; base is A with the unit channel."""
    a = adjoint_tables(spec)
    product = jnp.ones_like(base[:1])
    for column in a.products.T:
        product = product * base[column]
    parts = [
        sum(b.values[:, lane, None] * product[b.terms[:, lane]] for lane in range(b.terms.shape[1]))
        for b in a.buckets
    ]
    return jnp.concatenate(parts)[a.order]


def slot_sums(spec: ACESpec, slots: jnp.ndarray) -> jnp.ndarray:
    """Slots (…, n_slots) added up to functions (…, n_many_body)."""
    padded = jnp.concatenate([slots, jnp.zeros_like(slots[..., :1])], axis=-1)
    return sum(padded[..., lane] for lane in adjoint_tables(spec).slots_of.T)
