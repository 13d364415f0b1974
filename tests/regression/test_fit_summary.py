"""What a fit prints and draws are its own numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lprjax.regression.factors import compress, singular_values
from lprjax.regression.fit_summary import fit_figure, fit_table
from lprjax.regression.fitting import fit
from tests.helpers.figures import check_figure

SIZES = {"energy": 9, ("forces", "bulk"): 30, ("forces", "core"): 12, "gap": 5}


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    data = {key: compress(rng.normal(size=(n, 4)), rng.normal(size=n)) for key, n in SIZES.items()}
    return fit(data, {"energy": 30.0, "forces": 1.0, "gap": 0.0}, ridge=1e-3)


def test_shares_are_those_of_the_loss(result):
    """Of sum_k w_k^2 n_k rms_k^2; the ridge apart."""
    table = fit_table(result)
    losses = [n * (result.weights[key] * result.rms[key]) ** 2 for key, n in SIZES.items()]
    shares = [float(row[5].rstrip("%")) / 100 for row in table.rows]
    np.testing.assert_allclose(shares, np.array(losses) / sum(losses), atol=6e-4)
    assert [row[0] for row in table.rows] == ["energy", "forces, bulk", "forces, core", "gap"]
    assert [row[3] for row in table.rows] == ["eV", "eV/Å", "eV/Å", ""]
    assert [float(row[2]) for row in table.rows] == pytest.approx(
        list(result.rms.values()), rel=1e-3
    )


def test_a_fit_prints_its_table_in_both_ways(result):
    assert str(result) == str(fit_table(result)) and "rank 4;" in str(result)
    assert result._repr_html_() == fit_table(result)._repr_html_()
    assert repr(result).startswith("Fit(coefficients=")


def test_what_the_data_leave_open_is_said():
    rows = np.outer(np.arange(1.0, 6.0), [1.0, 2.0])
    degenerate = fit({"energy": compress(rows, np.ones(5))}, {"energy": 1.0})
    assert "rank 1, 1 UNDETERMINED by the data" in str(degenerate)
    degenerate.plot()


def test_the_figure_shows_every_group_and_the_spectrum(result, tmp_path):
    figure = fit_figure(result)
    figure.savefig(tmp_path / "fit.png")
    pure = "number of the singular value", "singular value / largest", "rms of gap"
    panels = check_figure(figure, tmp_path / "fit.png", "", 4, pure)
    widths = [bar.get_width() for ax in panels[:3] for bar in ax.patches]
    assert widths == pytest.approx(list(result.rms.values()))
    drawn = panels[3].lines[0].get_ydata()
    singular = singular_values(result.factor)
    np.testing.assert_allclose(drawn, singular / singular[0])
    assert figure not in map(plt.figure, plt.get_fignums())  # a notebook would show it twice
    assert result.plot().axes[0].get_xlabel() == panels[0].get_xlabel() == "rms of energy (eV)"
