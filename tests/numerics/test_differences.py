"""Differences of numbers with noise: their orders, what noise they pass on, which step is best."""

import math

import numpy as np
import pytest

from lprjax.numerics.differences import (
    FARTHEST,
    FIRST,
    HALVES,
    POINTS,
    SECOND,
    best_steps,
    checked_on_line,
    noise_of_energies,
    noise_of_samples,
    on_line,
    places_of_noise,
    places_of_steps,
)

STEP = 0.3


@pytest.mark.parametrize("power", range(7))
def test_polynomials_of_degree_four_are_exact_and_the_next_have_the_stated_error(power):
    """Of t^5 the first derivative has -t^4 / 480 of 5!, of t^6 the second -t^4 / 1440 of 6!."""
    found = on_line(lambda t: np.array([t**power]), np.array([0.0**power]), STEP)
    first, second = float(power == 1), 2.0 * (power == 2)
    if power == 5:
        first = -(STEP**4) * 120.0 / 480.0
    if power == 6:
        second = -(STEP**4) * 720.0 / 1440.0
    np.testing.assert_allclose(found.first, first, atol=1e-14)
    np.testing.assert_allclose(found.second, second, atol=1e-13)


def test_noise_comes_out_as_stated():
    """Of 20 000 components, so to 0.5 % each: ten standard deviations of that are allowed."""
    random = np.random.default_rng(0)
    found = on_line(lambda t: random.normal(size=20_000), random.normal(size=20_000), STEP)
    assert np.std(found.first) * STEP == pytest.approx(FIRST, rel=0.05)
    assert np.std(found.second) * STEP**2 == pytest.approx(SECOND, rel=0.05)


@pytest.mark.parametrize("order", [1, 2])
def test_a_change_that_noise_does_not_explain_counts_as_so_much_noise(order):
    """Noise alone explains what it does. Of |t|^(order + 1/2), whose derivative is zero and not its
    differences, the factor makes of the noise an error of the size of the differences."""
    random, epsilon = np.random.default_rng(4), 1e-6
    noise = lambda t: epsilon * random.normal(size=2000)  # noqa: E731
    _, alone = checked_on_line(noise, noise(0.0), STEP, order, epsilon)
    assert alone == 1.0
    rough = lambda t: noise(t) + 1e-2 * np.sign(t) ** order * abs(t) ** (order + 0.5)  # noqa: E731
    line, times = checked_on_line(rough, noise(0.0), STEP, order, epsilon)
    error = np.sqrt(np.mean(line[order - 1] ** 2))
    said = times * epsilon * (FIRST, SECOND)[order - 1] / STEP**order
    assert 0.2 * error < said < 2.0 * error


def test_a_middle_that_is_not_given_has_no_second_derivative():
    found = on_line(lambda t: np.array([t]), None, STEP)
    assert found.first == pytest.approx(1.0) and np.isnan(found.second).all()


def waves(places, length=0.4):
    """A hundred functions, each with derivatives of its own size over the length."""
    phases = np.linspace(0.0, 2.0 * math.pi, 100, endpoint=False)
    return np.sin(np.asarray(places)[:, None] / length + phases)


def test_the_noise_of_samples_is_told_from_smooth_functions():
    """White noise of 1e-5 to 5 %, whatever function it is on; of the function alone, 1e-14."""
    places = places_of_noise()
    assert len(places) == POINTS
    noise = 1e-5 * np.random.default_rng(1).normal(size=(POINTS, 100))
    both = [noise_of_samples(waves(places) + e) for e in (noise, 10.0 * noise)]
    assert both[0] == pytest.approx(1e-5, rel=0.15) and both[1] == pytest.approx(1e-4, rel=0.15)
    assert noise_of_samples(waves(places)) < 1e-14
    assert noise_of_samples(np.zeros((0,))) == 0.0


def test_the_noise_of_energies_is_told_from_their_slopes():
    """Seven numbers: a standard deviation to 1 / 14^(1/2), of which three are allowed; a curvature
    and a cubic term a thousand times the noise are no noise."""
    x, random = places_of_noise(), np.random.default_rng(5)
    noise = [1e-6 * random.normal(size=POINTS) for _ in range(20)]
    energies, slopes = 7.0 + 2.0 * x + 100.0 * x**2 + 1e5 * x**3, 2.0 + 200.0 * x + 3e5 * x**2
    found = [noise_of_energies(energies + e, slopes) for e in noise]
    assert 0.2e-6 < min(found) and max(found) < 1.8e-6
    assert np.mean(found) == pytest.approx(1e-6, rel=0.2)
    assert noise_of_energies(energies, slopes) < 1e-14


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-7, 0.0])
def test_the_best_steps_are_nearly_the_best(epsilon):
    """Derivatives of known functions by the steps that are chosen: within three times the least
    error of all steps tried, and said to be between half and three times what it is."""
    places, random = places_of_steps(), np.random.default_rng(2)
    assert len(places) == 2 * HALVES + 3
    noisy = lambda x: waves(x) + epsilon * random.normal(size=(len(x), 100))  # noqa: E731
    steps = best_steps(noisy(places).reshape(-1, 100, 1), np.zeros((0, 3, 3)), math.inf)
    shift = 0.5 * math.pi
    truth = {1: waves([shift * 0.4]) / 0.4, 2: -waves([0.0]) / 0.4**2}

    def error(order, step):
        found = on_line(lambda t: noisy([t])[0], noisy([0.0])[0], step)
        return float(np.sqrt(np.mean((found[order - 1] - truth[order][0]) ** 2)))

    for order, spread in ((1, FIRST), (2, SECOND)):
        reached = error(order, steps.of(order))
        best = min(error(order, FARTHEST * 0.5**k) for k in range(HALVES))
        assert reached < 3.0 * best + 1e-10  # rounding of 1e-16 over the square of 0.001 Å
        said = steps.noise[order - 1].forces * spread / steps.of(order) ** order
        assert 0.5 * reached - 1e-10 < said < 3.0 * reached + 1e-9


def test_virials_count_as_forces_over_the_size():
    """A noise of the virial alone, large beside its slope, decides as one of the forces would."""
    places, random = places_of_steps(), np.random.default_rng(3)
    forces = waves(places).reshape(-1, 100, 1)
    virials = 2.5 * waves(places)[:, :9].reshape(-1, 3, 3)
    quiet = best_steps(forces, virials, 2.5)
    noise = 2.5e-3 * random.normal(size=virials.shape)
    loud = best_steps(forces, virials + noise, 2.5)
    assert loud.first > 4.0 * quiet.first
    assert 0.7 * 2.5e-3 < loud.noise[0].virial < 2.0 * 2.5e-3
    assert loud.noise[0].forces < 1e-2 * loud.noise[0].virial
