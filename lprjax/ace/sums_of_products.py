"""Sums of products of channels, many at a time: the functions B_k and what their derivatives share.

Products are taken for all sites at once, whole rows of sites at a time, and entries that are sums
of up to 1, 2, 4, … products are added up together: a few array operations whatever the basis.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Bucket(NamedTuple):
    """Entries that are sums of at most `terms.shape[1]` products."""

    terms: np.ndarray  # (n_entries, n_terms) index of the product
    values: np.ndarray  # (n_entries, n_terms), zero where padded


class Sums(NamedTuple):
    """Entries that are linear combinations of products of channels; make them by `sums`."""

    products: np.ndarray  # (P, factors) channels of every product
    buckets: list[Bucket]
    order: np.ndarray  # position of every entry in the concatenated buckets

    def __call__(self, base: jax.Array) -> jax.Array:
        """The entries at n sites.

        Args:
            base: the channels, (V + 1, n), the last one 1.

        Returns:
            The entries, (n_entries, n).
        """
        product = jnp.ones_like(base[:1])
        for column in self.products.T:
            product = product * base[column]
        parts = [
            sum(
                b.values[:, lane, None] * product[b.terms[:, lane]]
                for lane in range(b.terms.shape[1])
            )
            for b in self.buckets
        ]
        return jnp.concatenate(parts)[self.order]


def sums(n_entries: int, entry: np.ndarray, channels: np.ndarray, values: np.ndarray) -> Sums:
    """Linear combinations of products of channels, made ready to be computed.

        e_k = sum over the terms t with entry[t] = k of values[t] * prod(channels[t])

    Args:
        n_entries: how many e_k there are.
        entry: k of each term, (T,).
        channels: of each term, (T, factors), padded with the channel that is 1.
        values: of each term, (T,).

    Returns:
        The combinations, to be called with the channels.
    """
    products, product = np.unique(channels, axis=0, return_inverse=True)
    by_entry = np.argsort(entry, kind="stable")
    product, values = product.ravel()[by_entry], values[by_entry]
    counts = np.bincount(entry, minlength=n_entries)
    first = np.cumsum(counts) - counts
    width = 2 ** np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    buckets, members = [], []
    for w in np.unique(width):
        mine = np.flatnonzero(width == w)
        lane = np.arange(w)[None, :]
        valid = lane < counts[mine, None]
        source = np.where(valid, first[mine, None] + lane, 0)
        buckets.append(Bucket(product[source], np.where(valid, values[source], 0.0)))
        members.append(mine)
    order = np.empty(n_entries, int)
    order[np.concatenate(members)] = np.arange(n_entries)
    return Sums(products, buckets, order)
