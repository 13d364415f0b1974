"""What a budget shows in a notebook and in its figure are its own numbers."""

import math

import numpy as np
import pytest

from lprjax.defects.bounds import PIECES
from lprjax.defects.budget import Budget, Term
from lprjax.defects.budget_summary import budget_figure, budget_table
from lprjax.defects.enclosures import NOWHERE
from tests.helpers.figures import check_figure

TERMS = tuple(
    Term(name, 0.1 * (k + 1), 2.0, 0.2 * (k + 1), 0.05 * (k + 1), (-1) ** k * 1e-3 * (k + 1))
    for k, name in enumerate(PIECES)
)
BUDGET = Budget(
    radius=5.0, terms=TERMS, eta=0.3, stability=4.0, lipschitz=0.1, kantorovich=0.01,
    geometry_sum=1.4, geometry_first_order=0.3, geometry_bound=math.nan, geometry_true=0.25,
    energy_first_order=-0.02, energy_bound=0.05, energy_true=-0.03, advice="Do < this.",
    failures={"unproven": "h & all"},
    enclosure=NOWHERE._replace(geometry=0.26, radius=0.02, energy=-0.029, gain=0.004),
)  # fmt: skip


def test_the_table_of_a_notebook_says_what_the_text_says():
    table, text = budget_table(BUDGET), str(BUDGET).splitlines()
    assert table.title == text[0] and list(table.notes) == text[2 + len(TERMS) :]
    for row, line, term in zip(table.rows, text[2:], TERMS, strict=False):
        found = [float(x) for x in row[1:]]
        assert found == [float(x) for x in line[17:].split()]
        assert found == pytest.approx(term[1:6], rel=1e-3)
        assert row[0].split()[0] == term.name and ("=" in row[0]) == ("=" in line)
    assert "Do &lt; this." in BUDGET._repr_html_() and "h &amp; all" in BUDGET._repr_html_()


def test_bars_are_the_terms_the_predictions_and_the_truth(tmp_path):
    figure = BUDGET.plot()
    figure.savefig(tmp_path / "budget.png")
    geometry, energy = check_figure(figure, tmp_path / "budget.png", "", 2, ("",))
    assert [bar.get_width() for bar in geometry.patches] == pytest.approx(
        [*(term.geometry for term in TERMS), 1.4, 0.3, 0.28, math.nan, 0.25], nan_ok=True
    )
    signed = [*(term.energy for term in TERMS), -0.02, -0.033, 0.05, -0.03]
    assert [bar.get_width() for bar in energy.patches] == pytest.approx(np.abs(signed))
    assert [bool(bar.get_hatch()) for bar in energy.patches] == [x < 0 for x in signed]
    assert geometry.get_xscale() == energy.get_xscale() == "log"


def test_a_budget_of_nothing_is_drawn_too():
    """Reference and surrogate one potential, or a surrogate that is unstable."""
    nothing = tuple(term._replace(geometry=math.nan, energy=0.0) for term in TERMS)
    budget_figure(
        BUDGET._replace(
            terms=nothing, geometry_sum=math.nan, geometry_first_order=math.nan,
            geometry_true=math.nan, energy_first_order=math.nan, energy_bound=math.nan,
            energy_true=math.nan, stability=-1.0,
        )
    ).draw_without_rendering()  # fmt: skip


def test_noise_has_its_columns_and_bars():
    """Of a norm, over c, for the geometry; none where there is no noise."""
    first = TERMS[0]._replace(noise=0.02, energy_noise=1e-4)
    noisy = BUDGET._replace(terms=(first, *TERMS[1:]))
    assert budget_table(noisy).columns[-2:] == ("± (eV/Å)", "± (eV)")
    assert budget_table(noisy).rows[0][-2:] == ["2.000e-02", "1.000e-04"]
    assert len(budget_table(BUDGET).columns) == 6
    for ax, size, half in zip(noisy.plot().axes, (0.05, 1e-3), (0.005, 1e-4), strict=True):
        (lines,) = (c.lines[2][0] for c in ax.containers if hasattr(c, "has_xerr"))
        assert lines.get_segments()[0][:, 0] == pytest.approx([size - half, size + half])
    assert not any(hasattr(c, "has_xerr") for c in BUDGET.plot().axes[0].containers)
