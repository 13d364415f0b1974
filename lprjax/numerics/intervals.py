"""Intervals that surely hold a result, and Taylor series of them: functions with derivatives.

Each operation rounds outwards by more than the machine rounds (`OUT`), so that whatever numbers are
taken from the operands, their result lies in the interval of the result. An interval that an
expression has twice counts twice: ranges are too wide, and the less so the narrower the operands,
so that `in_pieces` cuts them first. A series holds f, f', f'' / 2 and f''' / 6 over an interval of
its argument; sums, products, reciprocals, exponentials and logarithms of series are those of the
functions.

Source: R. E. Moore, Interval Analysis (1966), chapters 2, 3 and 11.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

OUT = 8 * np.finfo(float).eps
"""Of a number, by which ends move outwards: above the error (4 ulp at most) of NumPy."""
TINY = np.finfo(float).tiny
ORDER = 3
"""Of the highest derivative of a series."""


class Interval(NamedTuple):
    """Numbers between two ends, arrays of any one shape."""

    low: np.ndarray
    high: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest |x|."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def holds(self, x: ArrayLike) -> np.ndarray:
        """Whether numbers are inside."""
        return (self.low <= np.asarray(x)) & (np.asarray(x) <= self.high)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)

    def __add__(self, other: Any) -> "Interval":
        other = interval(other)
        return _outwards(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Any) -> "Interval":
        return self + (-interval(other))

    def __mul__(self, other: Any) -> "Interval":
        other = interval(other)
        products = [a * b for a in self for b in other]
        return _outwards(np.minimum.reduce(products), np.maximum.reduce(products))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> "Interval":
        return -self + other

    def reciprocal(self) -> "Interval":
        """1 / x; everything where 0 is among x."""
        split = (self.low <= 0.0) & (self.high >= 0.0)
        low, high = (np.where(split, 1.0, x) for x in self)
        found = _outwards(1.0 / high, 1.0 / low)
        return where(split, Interval(np.full_like(low, -np.inf), np.full_like(low, np.inf)), found)

    def exp(self) -> "Interval":
        """e^x."""
        return _outwards(np.exp(self.low), np.exp(self.high))

    def log(self) -> "Interval":
        """The logarithm of positive numbers; everything where some are not."""
        positive = self.low > 0.0
        low, high = (np.log(np.where(positive, x, 1.0)) for x in self)
        unknown = Interval(np.full_like(low, -np.inf), np.full_like(low, np.inf))
        return where(positive, _outwards(low, high), unknown)


def interval(x: Any) -> Interval:
    """An interval as it is, or a number as one of no width."""
    return x if isinstance(x, Interval) else Interval(np.asarray(x, float), np.asarray(x, float))


def where(condition: np.ndarray, one: Interval, other: Interval) -> Interval:
    """Of one interval where a condition holds, of the other elsewhere."""
    return Interval(*(np.where(condition, a, b) for a, b in zip(one, other, strict=True)))


def _outwards(low: np.ndarray, high: np.ndarray) -> Interval:
    # NaN comes of infinity times zero and of infinity less infinity: nothing is known there
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    with np.errstate(invalid="ignore"):
        return Interval(low - OUT * np.abs(low) - TINY, high + OUT * np.abs(high) + TINY)


class Series(NamedTuple):
    """f^(k) / k! over an interval of the argument, k = 0 ... ORDER."""

    terms: tuple[Interval, ...]

    def derivative(self, k: int) -> Interval:
        """f^(k)."""
        return self.terms[k] * float(np.prod(np.arange(1, k + 1)))

    def __add__(self, other: Any) -> "Series":
        other = _series(other)
        return Series(tuple(a + b for a, b in zip(self.terms, other.terms, strict=True)))

    def __sub__(self, other: Any) -> "Series":
        return self + _series(other) * -1.0

    def __mul__(self, other: Any) -> "Series":
        if not isinstance(other, Series):
            return Series(tuple(a * other for a in self.terms))
        a, b = self.terms, other.terms
        return Series(tuple(_sum([a[j] * b[k - j] for j in range(k + 1)]) for k in range(len(a))))

    __radd__ = __add__
    __rmul__ = __mul__

    def reciprocal(self) -> "Series":
        """1 / f, of f r = 1 order by order."""
        a, first = self.terms, self.terms[0].reciprocal()
        found = [first]
        for k in range(1, len(a)):
            found.append(-(first * _sum([a[j] * found[k - j] for j in range(1, k + 1)])))
        return Series(tuple(found))

    def exp(self) -> "Series":
        """e^f, of e' = f' e."""
        a, found = self.terms, [self.terms[0].exp()]
        for k in range(1, len(a)):
            found.append(_sum([a[j] * found[k - j] * (j / k) for j in range(1, k + 1)]))
        return Series(tuple(found))

    def log(self) -> "Series":
        """ln f, of f l' = f'."""
        a, first, found = self.terms, self.terms[0].reciprocal(), [self.terms[0].log()]
        for k in range(1, len(a)):
            known = [a[k - j] * found[j] * (-j / k) for j in range(1, k)]
            found.append(first * _sum([a[k], *known]))
        return Series(tuple(found))

    def power(self, n: int) -> "Series":
        """f^n, n >= 1, by squaring."""
        half = self.power(n // 2) if n > 1 else self
        if n == 1:
            return self
        return half * half * self if n % 2 else half * half


def _series(x: Any) -> Series:
    if isinstance(x, Series):
        return x
    return Series((interval(x), *[interval(0.0)] * ORDER))


def _sum(parts: Sequence[Interval]) -> Interval:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def argument(x: Interval) -> Series:
    """The series of f(x) = x over an interval."""
    one, zero = interval(np.ones_like(x.low)), interval(np.zeros_like(x.low))
    return Series((x, one, *[zero] * (ORDER - 1)))


def either(condition: np.ndarray, one: Series, other: Series) -> Series:
    """Of one series where a condition holds, of the other elsewhere."""
    return Series(
        tuple(where(condition, a, b) for a, b in zip(one.terms, other.terms, strict=True))
    )


def in_pieces(x: Interval, count: int) -> Interval:
    """Every interval cut into pieces of one width, along a new last axis.

    Args:
        x: of shape (...).
        count: how many pieces.

    Returns:
        The pieces, (..., count), which overlap by rounding.
    """
    share = np.arange(count + 1) / count
    ends = x.low[..., None] + (x.high - x.low)[..., None] * share
    ends[..., 0], ends[..., -1] = x.low, x.high
    return _outwards(ends[..., :-1], ends[..., 1:])


def hull(x: Interval) -> Interval:
    """The least interval that holds those along the last axis.

    Args:
        x: of shape (..., count).

    Returns:
        The interval, (...).
    """
    return Interval(x.low.min(axis=-1), x.high.max(axis=-1))
