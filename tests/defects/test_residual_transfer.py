"""The residual at rest is an intercept, finds its sites again, and predicts an error it carries."""

import jax
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Labels, bcc, fcc, rattled
from lprjax.defects.catalogue import dumbbell
from lprjax.defects.defect import geometry_error, relax_defect, vacancy
from lprjax.defects.formation import formation_energy
from lprjax.defects.residual_transfer import residual_at_rest, set_into, transferred_error
from lprjax.potentials import zhou_eam
from lprjax.potentials.observables import observe, total_energy
from tests.helpers.potentials import Softened

TUNGSTEN, CELL = zhou_eam("W"), bcc("W", 3.164849)


def test_the_intercept_is_that_of_weighted_least_squares():
    """Exactly, without noise; and with noise that grows as the rattle, as scipy's fit says."""
    s = np.linspace(0.01, 0.1, 12)
    truth = np.arange(6.0).reshape(2, 3)
    found, error = residual_at_rest(s, truth + 3.0 * s[:, None, None] ** 2)
    np.testing.assert_allclose(found, truth, atol=1e-12)
    assert np.all(error < 1e-12)
    noisy = truth + s[:, None, None] * np.random.default_rng(0).normal(size=(12, 2, 3))
    found, error = residual_at_rest(s, noisy)
    from scipy.optimize import curve_fit

    for place in np.ndindex(2, 3):
        best, spread = curve_fit(
            lambda t, a, b: a + b * t**2, s, noisy[(slice(None), *place)], sigma=s
        )
        assert found[place] == pytest.approx(best[0], abs=1e-6)
        assert error[place] == pytest.approx(np.sqrt(spread[0, 0]), rel=1e-4)


@pytest.mark.parametrize("make", [vacancy, lambda c, m: dumbbell(c, m, (1, 0, 0))])
def test_a_site_finds_itself_in_the_larger_cell(make):
    """A function of the distance from the core is the same in both, within the small sphere."""
    cell = fcc("Cu", 3.615)
    small, large = make(cell, 2), make(cell, 4)

    def field(defect):
        return np.exp(-defect.distances())[:, None] * np.asarray(defect.lattice.present)[:, None]

    found = np.asarray(set_into(field(small), small, large))[:, 0]
    near = large.distances() < 3.6
    expected = np.where(near, field(large)[:, 0], 0.0)
    moved = np.abs(found - expected) > 1e-6
    assert np.count_nonzero(found) > 10 and not moved.any()


def test_errors_are_predicted_as_far_as_the_training_cells_carry_them():
    """A perturbed potential: its error sits at the core and in the far field, and what the small
    cell holds of it is most. The energy of the small cell is that of the large one but for 1/N."""
    surrogate, small, large = Softened(TUNGSTEN, 0.2), vacancy(CELL, 4), vacancy(CELL, 5)
    base = small.displaced(relax_defect(TUNGSTEN, small).displacement)
    cells = []
    for k, key in enumerate(jax.random.split(jax.random.key(0), 8)):
        cell = rattled(base, key, 0.005 * (k + 1))
        told = observe(TUNGSTEN, build_graph(cell, TUNGSTEN.r_cut), ("energy", "forces"))
        cells.append((cell, Labels(told.energy, np.asarray(told.forces)[: cell.n_atoms])))
    bulk = [float(total_energy(p, build_graph(CELL, 6.5))) / 2 for p in (surrogate, TUNGSTEN)]
    ended = [relax_defect(p, large, force_tolerance=1e-7) for p in (surrogate, TUNGSTEN)]
    geometry = float(geometry_error(large, *(e.displacement for e in ended)))
    of = [formation_energy(e.energy, large, b) for e, b in zip(ended, bulk, strict=True)]
    found = transferred_error(surrogate, large, ended[0].displacement, small, cells, bulk=bulk)
    assert 0.7 < found.geometry / geometry < 1.3 and found.doubt < 0.3 * geometry
    assert found.energy == pytest.approx(of[0] - of[1], rel=0.1)
    zero = np.asarray(found.forces)[large.distances() > 2 * 3.164849 + 1e-6]
    assert len(zero) and not zero.any()


def test_what_is_wrong_at_the_door():
    with pytest.raises(ValueError, match="three copies"):
        residual_at_rest([0.1, 0.2], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="rattled"):
        residual_at_rest([0.1, 0.2, 0.0], np.zeros((3, 3)))
    small, other = vacancy(CELL, 3), dumbbell(CELL, 3, (1, 1, 1))
    with pytest.raises(ValueError, match="same defect"):
        set_into(np.zeros((54, 3)), small, other)
    with pytest.raises(ValueError, match="no energy or no forces"):
        transferred_error(TUNGSTEN, small, small.start, small, [(small.structure, Labels())])
    with pytest.raises(ValueError, match="a cell has 54 atoms: wanted 53"):
        transferred_error(TUNGSTEN, small, small.start, small, [(small.reference, Labels())])
