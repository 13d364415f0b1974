"""Errors by kind and group against sums by hand; predictions against `observe`."""

import numpy as np
import pytest

from lprjax.atoms import Labels, bcc, build_graph, rattled, supercell
from lprjax.commands.errors import COLUMNS, UNITS, compared, predictions, rows_of
from lprjax.potentials import observe, stillinger_weber, zhou_eam

RNG = np.random.default_rng(0)


def labels(n, virial=True):
    tensor = RNG.normal(size=(3, 3))
    return Labels(
        RNG.normal(), RNG.normal(size=(n, 3)), tensor + tensor.T if virial else None, None
    )


def test_errors_are_those_of_all_scalars_of_a_group():
    cells = [supercell(bcc("W", 3.2), (1, 1, m)) for m in (1, 2, 3)]
    true = [labels(s.n_atoms) for s in cells]
    true[1] = true[1]._replace(virial=None)
    ours = [labels(s.n_atoms) for s in cells]
    found = {(c.kind, c.group): c for c in compared(cells, true, ["a", "b", "a"], ours)}
    assert set(found) == {
        *((kind, group) for kind in ("energy", "forces") for group in ("a", "b", "all")),
        ("virial", "a"),
    }
    n = [s.n_atoms for s in cells]
    energy = [1e3 * (o.energy - t.energy) / k for o, t, k in zip(ours, true, n, strict=True)]
    assert found["energy", "a"].rmse == pytest.approx(np.hypot(energy[0], energy[2]) / 2**0.5)
    assert found["energy", "all"].mae == pytest.approx(np.mean(np.abs(energy)))
    forces = [o.forces - t.forces for o, t in zip(ours, true, strict=True)]
    whole = np.concatenate([forces[0], forces[2]])
    assert found["forces", "a"].rmse == pytest.approx(np.sqrt(np.mean(whole**2)))
    six = [(o.virial - t.virial)[np.triu_indices(3)] for o, t in ((ours[0], true[0]),)]
    six += [(ours[2].virial - true[2].virial)[np.triu_indices(3)] / 3]
    per_atom = 1e3 * np.concatenate([six[0] / n[0], six[1] / n[2] * 3])
    assert found["virial", "a"].rmse == pytest.approx(np.sqrt(np.mean(per_atom**2)))
    assert found["energy", "a"].structures == 2
    row = rows_of("train", list(found.values()))[0]
    assert dict(zip(COLUMNS, row, strict=True))["unit"] == UNITS[row[2]]


def test_predictions_are_those_of_each_structure(monkeypatch):
    """In chunks of two, of five structures of three sizes."""
    import jax

    monkeypatch.setattr("lprjax.commands.errors._CHUNK", 2)
    eam = zhou_eam("W")
    keys = jax.random.split(jax.random.key(0), 5)
    cells = [
        rattled(supercell(bcc("W", 3.2), (1, 1, 1 + k % 3)), key, 0.05)
        for k, key in enumerate(keys)
    ]
    kinds = ("energy", "forces", "virial")
    for cell, found in zip(cells, predictions(eam, cells, kinds), strict=True):
        wanted = observe(eam, build_graph(cell, eam.r_cut), kinds)
        np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-12)
        np.testing.assert_allclose(found.forces, wanted.forces[: cell.n_atoms], atol=1e-10)
        np.testing.assert_allclose(found.virial, wanted.virial, atol=1e-9)


def test_elements_that_a_potential_does_not_know_are_refused():
    with pytest.raises(ValueError, match="structure 0"):
        predictions(stillinger_weber(), [bcc("W", 3.2)], ("energy",))
