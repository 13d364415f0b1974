"""What a linear ACE basis consists of: its specification and its integer tables.

Index convention, used by `basis`, `adjoint`, `potential` and `rows`:

- *channel* v = (z, n, l, m), z the neighbour's species; one more channel with value 1 pads
  products of fewer than `order` factors;
- *function* k of one centre species: many-body functions by order, then pair functions by (z, n),
  then the constant 1 where asked for;
- *column* of the design: centre species (in the order of `elements`) times functions per species.
  The site basis of an atom is zero outside its own species' block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import inf
from numbers import Real
from typing import NamedTuple

import jax
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from lprjax.ace.coupling import symmetric_invariants
from lprjax.ace.sums_of_products import Sums, sums
from lprjax.numerics.checks import check_radii

L_WEIGHT = 1.5
"""Total degree of a function: sum over its factors of n + L_WEIGHT l; that of ACEpotentials."""


@dataclass(frozen=True)
class ACESpec:
    """A linear ACE basis, by the convention of ACEpotentials.

        n from 1, l from 0, sum (n + 1.5 l) <= degree, up to `order` factors

    plus `degree` pair functions. Pair functions and many-body functions of order 1 are both radial:
    independent, but from degree 10 or so not to rounding at bulk distances. Fits then need a
    ridge; their rank shows it.

    Attributes:
        elements: chemical symbols, e.g. ("W",); a single one may be given as "W".
        order: 1 … 4 (neighbours per product).
        degree: largest total degree, >= 1.
        r_cut: cutoff, Å.
        r0: typical nearest-neighbour distance, Å, where the distance transform is steepest.
        cutoff_power: order of the zero at r_cut, >= 2 (4: force constants and third-order elastic
            constants are continuous; at least 3 for the former).
        constant: one more function per centre species, identically 1 (correlation order 0): the
            energy of the isolated atom becomes a coefficient, fitted like any other and as
            uncertain.
        core: (inner, outer), Å; None: none. Between the two the basis fades out, four times
            differentiable, and the repulsion of nuclei fades in (`potentials.zbl`): below inner,
            atoms know of each other by ZBL alone. Every potential on the basis adds it, and it is
            subtracted from the labels of a fit. Rows of structures without a distance below outer
            are what they are without a core; give as outer the shortest distance in the data or a
            little less. What is replaced has no coefficients: that it is rigid says nothing of
            whether ZBL is right.

    Raises:
        ValueError: unknown or repeated elements, or numbers out of range.
    """

    elements: tuple[str, ...]
    order: int
    degree: int
    r_cut: float
    r0: float
    cutoff_power: int = 4
    constant: bool = False
    core: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.elements, str):
            object.__setattr__(self, "elements", (self.elements,))
        object.__setattr__(self, "elements", tuple(self.elements))
        unknown = [e for e in self.elements if e not in atomic_numbers or e == "X"]
        if unknown or not self.elements or len(set(self.elements)) < len(self.elements):
            raise ValueError(
                f"elements is {self.elements!r}: wanted distinct chemical symbols, "
                'e.g. elements=("Nb", "Ta").'
            )
        # forces are continuous from cutoff_power 2 on
        for name, least, most in (("order", 1, 4), ("degree", 1, inf), ("cutoff_power", 2, inf)):
            value = getattr(self, name)
            if not isinstance(value, Real) or value % 1 or not least <= value <= most:
                raise ValueError(
                    f"{name} is {value!r}: wanted a whole number from {least} to {most}."
                )
            object.__setattr__(self, name, int(value))
        if not 0 < self.r0 < self.r_cut < inf:
            raise ValueError(
                f"r_cut is {self.r_cut} Å and r0 is {self.r0} Å: wanted 0 < r0 < r_cut; "
                "r0 is the nearest-neighbour distance."
            )
        for name in ("r_cut", "r0"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.core is not None:
            object.__setattr__(self, "core", check_radii("the radii of core", self.core))
            if self.core[1] >= self.r_cut:
                raise ValueError(
                    f"core is {self.core} and r_cut {self.r_cut}: wanted its outer radius below "
                    "r_cut."
                )

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of `elements`."""
        return tuple(atomic_numbers[e] for e in self.elements)

    @cached_property
    def kind(self) -> ACESpec:
        """All that is not a length or the name of an element: what decides the tables."""
        names = tuple(chemical_symbols[1 : len(self.elements) + 1])
        return replace(self, elements=names, r_cut=2.0, r0=1.0, core=None)

    @property
    def shared(self) -> SharedSpec:
        """The same for use inside `jit`, so that bases of one kind share what is compiled."""
        numbers = np.array(self.numbers, float)
        return SharedSpec(numbers, self.r_cut, self.r0, self.core, self.kind)

    @property
    def n_functions(self) -> int:
        """Basis functions per centre species."""
        return tables(self).n_functions

    @property
    def n_columns(self) -> int:
        """Length of the coefficient vector: centre species times functions."""
        return len(self.elements) * self.n_functions


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SharedSpec:
    """A basis whose lengths and elements are arguments of what is compiled; see `ACESpec.shared`.

    Attributes:
        numbers: atomic numbers, (n_elements,), as floats: nothing is differentiated in integers.
        r_cut: cutoff, Å.
        r0: typical nearest-neighbour distance, Å.
        core: (inner, outer), Å; None: none.
        kind: all else; static under `jit`.
    """

    numbers: np.ndarray
    r_cut: float
    r0: float
    core: tuple[float, float] | None
    kind: ACESpec = field(metadata={"static": True})

    @property
    def degree(self) -> int:
        """As of `ACESpec`."""
        return self.kind.degree

    @property
    def cutoff_power(self) -> int:
        """As of `ACESpec`."""
        return self.kind.cutoff_power


class Channel(NamedTuple):
    """The 2l + 1 channels of one neighbour species, radial function and degree l."""

    z: int  # place of the neighbour's species in `elements`
    n: int  # radial function, from 1
    l: int  # degree of the spherical harmonic, from 0

    @property
    def degree(self) -> float:
        """What the factor counts in the total degree, n + 1.5 l."""
        return self.n + L_WEIGHT * self.l


class Function(NamedTuple):
    """One many-body function: its factors' (z, n, l) and its terms."""

    factors: tuple[Channel, ...]  # ascending
    monomials: np.ndarray  # (n_terms, order) of m
    coefficients: np.ndarray  # (n_terms,)


def _factor_tuples(spec: ACESpec) -> Iterator[tuple[Channel, ...]]:
    """All ascending tuples of one to `order` channels with total degree <= spec.degree."""
    channels = [
        Channel(z, n, l)
        for l in range(int(spec.degree / L_WEIGHT) + 1)
        for z in range(len(spec.elements))
        for n in range(1, spec.degree + 1)
        if n + L_WEIGHT * l <= spec.degree
    ]

    def extend(chosen: tuple[int, ...], left: float) -> Iterator[tuple[int, ...]]:
        for c in range(chosen[-1] if chosen else 0, len(channels)):
            if channels[c].degree <= left:
                yield (*chosen, c)
                if len(chosen) + 1 < spec.order:
                    yield from extend((*chosen, c), left - channels[c].degree)

    for chosen in sorted(extend((), spec.degree), key=len):
        yield tuple(channels[c] for c in chosen)


def _functions(spec: ACESpec) -> Iterator[Function]:
    for factors in _factor_tuples(spec):
        labels = tuple(factors.index(f) for f in factors)
        monomials, coefficients = symmetric_invariants(tuple(f.l for f in factors), labels)
        for row in coefficients:
            used = row != 0
            yield Function(factors, monomials[used], row[used])


class Tables:
    """Integer tables of a basis, made once on the host (see `tables`).

    Attributes:
        functions: the many-body functions of one centre species.
        n_max: radial functions, of the pair basis for each species.
        n_species: elements.
        l_max: highest degree of a spherical harmonic.
        channels: (V, 4) z, n, l, m of every channel.
        n_channels: V; also the index of the unit channel.
        n_many_body: many-body functions per centre species.
        n_pair: pair functions per centre species.
        n_functions: all functions per centre species.
        term_function: (T,) function k of each term.
        term_channels: (T, order) its channels, padded with the unit channel.
        term_value: (T,) its coefficient U.
    """

    def __init__(self, spec: ACESpec) -> None:
        self.functions = list(_functions(spec))
        self.n_max = spec.degree
        self.n_species = len(spec.elements)
        self.l_max = max(f.l for g in self.functions for f in g.factors)
        used = sorted({f for g in self.functions for f in g.factors})
        channels = [(c.z, c.n, c.l, m) for c in used for m in range(-c.l, c.l + 1)]
        self.channels = np.array(channels)
        self.n_channels = len(channels)
        self.n_many_body = len(self.functions)
        self.n_pair = self.n_species * self.n_max
        self.n_functions = self.n_many_body + self.n_pair + spec.constant
        index = {c: v for v, c in enumerate(channels)}
        one = self.n_channels
        k_of, products, values = [], [], []
        for k, g in enumerate(self.functions):
            for m, u in zip(g.monomials, g.coefficients, strict=True):
                vs = [index[(*f, mi)] for f, mi in zip(g.factors, m, strict=True)]
                k_of.append(k)
                products.append(sorted(vs) + [one] * (spec.order - len(vs)))
                values.append(u)
        self.term_function = np.array(k_of)
        self.term_channels = np.array(products)
        self.term_value = np.array(values)

    @cached_property
    def sums(self) -> Sums:
        """The many-body functions as sums of products of channels."""
        return sums(self.n_many_body, self.term_function, self.term_channels, self.term_value)

    @cached_property
    def halves(self) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Every product split in two: a left and a right one, of at most two channels each.

        A site energy is then left^T M right with M linear in the coefficients.

        Returns:
            The left products (P, 2) and the right ones (Q, 2), pairs of channels; None where they
            are single channels, which are taken all and as they are (V + 1 of them). And the
            position of every term in the P-by-Q matrix, (T,).
        """
        order, one = self.term_channels.shape[1], self.n_channels
        padded = np.full((len(self.term_channels), 4), one)
        padded[:, : (order + 1) // 2] = self.term_channels[:, : (order + 1) // 2]
        padded[:, 2 : 2 + order // 2] = self.term_channels[:, (order + 1) // 2 :]
        left, left_of = _distinct(padded[:, :2], one)
        right, right_of = _distinct(padded[:, 2:], one)
        n_right = one + 1 if right is None else len(right)
        return left, right, left_of * n_right + right_of


def _distinct(pairs: np.ndarray, one: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The distinct pairs and the place of each; None and its channel, if no pair has two."""
    if (pairs[:, 1] == one).all():
        return None, pairs[:, 0]
    distinct, places = np.unique(pairs, axis=0, return_inverse=True)
    return distinct, places.ravel()


def tables(spec: ACESpec | SharedSpec) -> Tables:
    """The integer tables of a basis, the same for all of its kind.

    Args:
        spec: of the basis; the tables of the last 32 kinds are kept.

    Returns:
        The tables, on the host.
    """
    return _tables(spec.kind)


_tables = lru_cache(maxsize=32)(Tables)


def smoothness_prior(spec: ACESpec, power: float = 4.0) -> np.ndarray:
    """Diagonal of the algebraic smoothness prior.

        Gamma_k = sum over factors of (n + 1.5 l)^power

    The ridge term of a fit is ridge * |Gamma c|^2: oscillating functions cost more, the constant
    nothing.

    Args:
        spec: of the basis.
        power: how fast the cost grows; dimensionless.

    Returns:
        Gamma, (n_columns,), dimensionless.

    Source: after the prior of ACEpotentials (Witt et al., J. Chem. Phys. 159 (2023) 164101), n and
    l alike.
    """
    t = tables(spec)
    many_body = [sum(f.degree**power for f in g.factors) for g in t.functions]
    pairs = [n**power for _ in spec.elements for n in range(1, t.n_max + 1)]
    return np.tile(np.array(many_body + pairs + [0.0] * spec.constant), len(spec.elements))


def components(spec: ACESpec) -> dict[str, np.ndarray]:
    """Which columns make up each part of a basis: masks for `rigidity.component_rigidity`.

    Args:
        spec: of the basis.

    Returns:
        name -> (n_columns,) bool: "constant" (where there is one), "pair", "many-body"; "body order
        2", 3, ... of both (v neighbours make body order v + 1); "centre W", by the site's own
        species; "neighbour W", all that has W among the neighbours.
    """
    t, n_blocks = tables(spec), len(spec.elements)
    pairs = [(z,) for z in range(n_blocks) for _ in range(t.n_max)]
    many_body = [tuple(f.z for f in g.factors) for g in t.functions]
    species = many_body + pairs + [()] * spec.constant  # of the neighbours of every function
    order = np.array([len(neighbours) for neighbours in species])
    place = np.arange(t.n_functions)
    found = {"constant": order == 0} if spec.constant else {}
    found["pair"] = (place >= t.n_many_body) & (order > 0)
    found["many-body"] = place < t.n_many_body
    found |= {f"body order {v + 1}": order == v for v in range(1, max(order) + 1)}
    for z, element in enumerate(spec.elements):
        found[f"neighbour {element}"] = np.array([z in neighbours for neighbours in species])
    found = {name: np.tile(mask, n_blocks) for name, mask in found.items()}
    block = np.repeat(np.arange(n_blocks), t.n_functions)
    return found | {f"centre {element}": block == z for z, element in enumerate(spec.elements)}
