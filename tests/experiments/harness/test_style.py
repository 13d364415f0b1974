"""Figures are reproducible bytes, labels carry units, colours suit colour-blind readers."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.harness.style import (
    PALETTE,
    figure_style,
    label_axes,
    reference_slope,
    save_figure,
)


def test_a_figure_is_the_same_bytes_each_time(tmp_path):
    def draw(name):
        figure_style()
        fig, ax = plt.subplots()
        ax.loglog([1, 2, 4], [8, 2, 1])
        reference_slope(ax, [1, 2, 4], [8, 2, 1], -2, "slope −2")
        label_axes(ax, ("radius", "Å"), ("atoms", None))
        ax.legend()
        save_figure(fig, tmp_path / name)
        return [(tmp_path / f"{name}{suffix}").read_bytes() for suffix in (".pdf", ".png")]

    pdf, png = draw("a")
    assert pdf.startswith(b"%PDF") and png.startswith(b"\x89PNG")
    assert [pdf, png] == draw("b")
    assert b"CreationDate" not in pdf and not plt.get_fignums()


def test_labels_carry_units_and_slopes_pass_through_the_last_point():
    fig, ax = plt.subplots()
    label_axes(ax, ("radius", "Å"), ("atoms", None))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("radius (Å)", "atoms")
    reference_slope(ax, [1, 2, 4], [8, 2, 1], -2)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [16, 4, 1])
    plt.close(fig)


def test_colour_blind_readers_can_distinguish_the_palette():
    """Smallest distance of two colours, as seen with each missing cone (Viénot et al. 1999)."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714]])
    to_lms = np.vstack([to_lms, [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in PALETTE]) ** 2.2

    def closest(loss):
        seen = np.clip(rgb @ (np.linalg.inv(to_lms) @ loss @ to_lms).T, 0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen, axis=-1)
        return gaps[np.triu_indices(len(seen), 1)].min()

    assert min(closest(loss) for loss in (np.eye(3), protan, deutan)) > 0.1
