"""Derivatives from numbers with noise: how large the noise is, how far apart to take them.

With numbers that are good to epsilon only (single precision, self-consistent fields) a difference
over t has an error of epsilon / t from noise, and of a power of t from what it truncates; and a
potential that jumps where a neighbour comes into reach has both at once. So neither is assumed.
The noise is told from differences of high order of a few close points, of which a smooth function
leaves nothing. The step of each order of derivative is the one of a series, each half of the one
before, from which on the derivative changes least; that change is its error.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ORDER = 6
"""Of the differences that noise is told from: a choice. A smooth function has next to none."""
POINTS = ORDER + 2
"""Points on a line for it: two differences of every number."""
SPACING = 1e-3
"""Å between them: a choice; its sixth power is below any rounding, and it is far above that of
positions in single precision (1e-6 Å)."""
FARTHEST = 0.12
"""Å, the largest displacement that is tried: a choice, 5 % of a bond."""
HALVES = 7
"""How often it is halved, to 0.001 Å: a choice."""
UNEXPLAINED = 2.0
"""How many times what noise explains a change of a derivative is to be, to mean more: a choice."""
SMALLEST = 1e-14
"""eV/Å or eV, a noise for numbers that show none: rounding."""
FIRST, SECOND = (65.0 / 18.0) ** 0.5, (2.0 / 3.0) * 353.5**0.5
"""What `on_line` makes of noise epsilon: FIRST epsilon / t and SECOND epsilon / t^2."""


class Noise(NamedTuple):
    """How far numbers of a potential are from smooth functions, each a standard deviation."""

    energy: float  # eV, of all atoms
    forces: float  # eV/Å, of a component
    virial: float  # eV, of a component

    # 0 of what was not asked for


class Steps(NamedTuple):
    """How far apart calls are best for a derivative by `on_line`, and how wrong it then is.

    `noise` is that of every call which would make as large an error.
    """

    first: float  # Å, the largest displacement for first derivatives of the gradient
    second: float  # Å, for second ones
    noise: tuple[Noise, Noise]  # of calls of either

    def of(self, order: int) -> float:
        """The step, Å, of an order, 1 or 2."""
        return self.second if order == 2 else self.first


class Line(NamedTuple):
    """The first two derivatives of an array along a line."""

    first: np.ndarray
    second: np.ndarray


def on_line(values: Callable[[float], np.ndarray], middle: np.ndarray | None, step: float) -> Line:
    """Both derivatives at t = 0 from a polynomial of degree four through five points.

        f'(0)  = (8 o(t/2) - o(t)) / (3 t),            o(s) = (f(s) - f(-s)) / 2
        f''(0) = 2 (16 e(t/2) - e(t)) / (3 t^2),       e(s) = (f(s) + f(-s)) / 2 - f(0)

    Truncated are t^4 / 480 of the fifth and t^4 / 1440 of the sixth derivative; noise epsilon of
    every number comes out as 1.9 epsilon / t and 12.5 epsilon / t^2.

    Args:
        values: t -> f(t), an array; called four times.
        middle: f(0); None: the second derivative is not asked for, and NaN.
        step: t.

    Returns:
        The Line, in the unit of f over that of t and of its square.

    Source: Richardson's extrapolation of central differences.
    """
    ends, halves = (_either_side(values, s) for s in (step, step / 2))
    return _through(ends, halves, middle, step)


def checked_on_line(
    values: Callable[[float], np.ndarray],
    middle: np.ndarray | None,
    step: float,
    order: int,
    noise: np.ndarray | float,
) -> tuple[Line, float]:
    """`on_line`, and how much more noise its change with half the step speaks of: six calls.

    A change that is no larger than noise explains (UNEXPLAINED times that) says nothing; a larger
    one is an error of this line that noise of so many times the size would make.

    Args:
        values: t -> f(t), an array; called six times.
        middle: f(0), or None.
        step: t.
        order: of the derivative that is looked at, 1 or 2.
        noise: of each component of f, or of all, in its unit.

    Returns:
        The Line, and the factor, at least 1.
    """
    ends, halves, quarters = (_either_side(values, s) for s in (step, step / 2, step / 4))
    line = _through(ends, halves, middle, step)
    change = line[order - 1] - _through(halves, quarters, middle, step / 2)[order - 1]
    at_half = (FIRST, SECOND)[order - 1] * 2.0**order / step**order
    explained = np.maximum(noise, SMALLEST) * at_half
    times = math.sqrt(float(np.mean((change / explained) ** 2)))
    return line, times * 2.0**order if times > UNEXPLAINED else 1.0


def _either_side(values: Callable[[float], np.ndarray], t: float) -> list[np.ndarray]:
    return [np.asarray(values(t)), np.asarray(values(-t))]


def _through(ends, halves, middle, step) -> Line:
    odd, odd_near = (0.5 * (a - b) for a, b in (ends, halves))
    centre = np.full(odd.shape, np.nan) if middle is None else middle
    even, even_near = (0.5 * (a + b) - centre for a, b in (ends, halves))
    return Line(
        first=(8.0 * odd_near - odd) / (3.0 * step),
        second=2.0 * (16.0 * even_near - even) / (3.0 * step**2),
    )


def noise_of_samples(samples: np.ndarray) -> float:
    """The noise of numbers that would vary smoothly along a line.

        epsilon^2 = <(Delta^6 f)^2> / C(12, 6)

    the mean over all differences: those of a function that is smooth over many points vanish, and
    those of independent noise have C(2 k, k) times its variance.

    Args:
        samples: (POINTS, ...), at points of equal distance.

    Returns:
        epsilon, in the unit of the samples; 0 of none.

    Source: after Moré and Wild, SIAM J. Sci. Comput. 33 (2011) 1292.
    """
    if not np.size(samples):
        return 0.0
    differences = np.diff(np.asarray(samples, float), ORDER, axis=0)
    return math.sqrt(float(np.mean(differences**2)) / math.comb(2 * ORDER, ORDER))


def noise_of_energies(energies: np.ndarray, slopes: np.ndarray) -> float:
    """The noise of energies whose slopes along the line are known far better.

    One number a point is little to tell noise from; what the energies have beyond the integral of
    the slopes (a polynomial through them) is noise at every point.

    Args:
        energies: (POINTS,) eV, at `places_of_noise`.
        slopes: (POINTS,) eV/Å, by the forces.

    Returns:
        epsilon, eV.
    """
    places = places_of_noise()
    integral = np.polynomial.Polynomial.fit(places, slopes, POINTS // 2).integ()
    return float(np.std(energies - integral(places), ddof=1))


def places_of_noise() -> np.ndarray:
    """The POINTS places on a line, Å, for `noise_of_samples`."""
    return SPACING * (np.arange(POINTS) - 0.5 * (POINTS - 1))


def places_of_steps() -> np.ndarray:
    """The places on a line, Å, for `best_steps`: 0, and either side of it HALVES + 1."""
    sides = FARTHEST * 0.5 ** np.arange(HALVES + 1)
    return np.concatenate([[0.0], sides, -sides])


def best_steps(forces: np.ndarray, virials: np.ndarray, size: float) -> Steps:
    """The steps at which derivatives of gradients change least when halved.

    Of steps t_j, each half of the one before, the one is taken at which the change
    d_j = D(t_j) - D(t_(j+1)) is smallest, root mean square over all components. Further down noise
    alone decides, so that at t_j it is d_(j+1) over 2^order twice; what d_j has beyond the noise is
    truncation.

    Args:
        forces: (2 HALVES + 3, n, 3) eV/Å, or their negatives, at `places_of_steps`.
        virials: (2 HALVES + 3, 3, 3) eV, likewise, or none.
        size: Å per unit of strain along the line: a virial over it is a force.

    Returns:
        The Steps.
    """
    flat = np.reshape(forces, (len(forces), -1))
    n = flat.shape[1]
    both = np.concatenate([flat, np.reshape(virials, (len(flat), -1)) / size], axis=1)
    middle, sides = both[0], both[1:].reshape(2, HALVES + 1, -1).swapaxes(0, 1)
    steps = FARTHEST * 0.5 ** np.arange(HALVES)
    lines = [_through(sides[j], sides[j + 1], middle, t) for j, t in enumerate(steps)]
    chosen, noise = [], []
    for order, spread in ((1, FIRST), (2, SECOND)):
        changes = np.diff(np.stack([line[order - 1] for line in lines]), axis=0)
        sizes = np.sqrt(np.mean(changes**2, axis=1))
        # where digits are too coarse for any change, there is none
        best = int(np.argmin(np.where(sizes > 0, sizes, np.inf)))
        of_forces, of_virial = (
            _error(np.sqrt(np.mean(part**2, axis=1)), best, 2.0**order) if part.size else 0.0
            for part in (changes[:, :n], changes[:, n:] * size)
        )
        scale = steps[best] ** order / spread
        chosen.append(float(steps[best]))
        noise.append(Noise(0.0, scale * of_forces, scale * of_virial))
    return Steps(*chosen, (noise[0], noise[1]))


def _error(changes: np.ndarray, best: int, ratio: float) -> float:
    """Of a derivative at a step, from its changes at halving; noise rises by a ratio each time."""
    noise = changes[best + 1] / ratio**2 if best + 1 < len(changes) else changes[best] / ratio
    return math.hypot(noise, math.sqrt(max(changes[best] ** 2 - (ratio * noise) ** 2, 0.0)))
