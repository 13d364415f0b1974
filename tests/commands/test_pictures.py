"""Pictures: where they go, and that what is drawn is what there is."""

import struct

import numpy as np
import pytest

from lprjax.commands.errors import Compared
from lprjax.commands.pictures import (
    draw_cumulative,
    draw_parity,
    fit_picture,
    new_figure,
    parity_picture,
    picture_of,
    save_picture,
)

RNG = np.random.default_rng(0)
FOUND = [
    Compared("a", "energy", RNG.normal(size=8), RNG.normal(size=8), 8),
    Compared("a", "forces", RNG.normal(size=30), RNG.normal(size=30), 8),
]


@pytest.mark.parametrize("name", ["m.npz", "m.xyz", "m.xyz.gz", "m.json", "m.json.gz"])
def test_a_picture_is_beside_its_output(tmp_path, name):
    assert picture_of(tmp_path / name) == tmp_path / "m.png"


def test_files_are_png_of_the_size_asked_for(tmp_path):
    figure, axes = new_figure(2)
    assert len(axes) == 2
    save_picture(figure, tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1080, 495)


def test_cumulative_errors_are_fractions_of_larger_ones():
    _, (ax,) = new_figure(1)
    draw_cumulative(ax, "energy", {"train": FOUND})
    x, y = ax.lines[0].get_data()
    errors = np.abs(FOUND[0].errors)
    for size, left in zip(x, y, strict=True):
        assert left == pytest.approx(np.mean(errors >= size))


def test_parity_has_every_point():
    _, (ax,) = new_figure(1)
    draw_parity(ax, "forces", {"train": FOUND, "test": []})
    x, y = ax.lines[0].get_data()
    np.testing.assert_array_equal(np.sort(x), np.sort(FOUND[1].true))
    np.testing.assert_array_equal(np.sort(y), np.sort(FOUND[1].predicted))


def test_figures_leave_out_what_there_is_not():
    assert len(parity_picture({"a": FOUND}).axes) == 2
    lpr = np.array([1.0, 0.0, np.inf, 3.0])
    figure = fit_picture({"train": FOUND}, lpr, ["W", "W", "Mo", "Mo"])
    assert [t.get_text() for t in figure.axes[3].get_xticklabels()] == ["W", "Mo"]
    assert figure.axes[3].get_yscale() == "log"
    assert [ax.axison for ax in figure.axes] == [True, True, False, True] + [
        True,
        True,
        False,
        False,
    ]


def test_the_front_is_drawn_with_what_was_chosen():
    front = [(1.0, 0.3), (2.0, 0.2), (4.0, 0.1)]
    figure = fit_picture({"train": FOUND}, np.ones(2), ["W", "W"], front, 1)
    line, point = figure.axes[7].lines
    assert list(zip(*line.get_data(), strict=True)) == front
    assert [x[0] for x in point.get_data()] == [2.0, 0.2]
