"""Deviations: the scale of residuals, and variances against dense algebra."""

import numpy as np
import pytest

from lprjax.ace import site_basis
from lprjax.atoms import build_graph
from lprjax.commands.deviations import calibrated, known_of, residual_scale
from lprjax.commands.sources import read_cells, read_fit
from lprjax.regression import design_rows, prediction_rigidity


@pytest.fixture(scope="module")
def saved(folder):
    return read_fit(folder / "model.npz")


def test_the_scale_is_that_of_weighted_residuals(saved, folder):
    """From predictions made anew: chi^2 per degree of freedom."""
    potential, squares, n = saved.potential(), 0.0, 0
    weights = {"energy": 100.0, "forces": 1.0, "virial": 10.0}
    from lprjax.potentials import observe

    for structure, labels, _ in read_cells(folder / "train.xyz"):
        ours = observe(potential, build_graph(structure, potential.r_cut), tuple(weights))
        atoms = structure.n_atoms
        residuals = {
            "energy": np.array([ours.energy - labels.energy]) / atoms,
            "forces": np.asarray(ours.forces)[:atoms].ravel() - np.asarray(labels.forces).ravel(),
            "virial": (np.asarray(ours.virial) - labels.virial)[np.triu_indices(3)] / atoms,
        }
        squares += sum(np.sum((weights[k] * r) ** 2) for k, r in residuals.items())
        n += sum(len(r) for r in residuals.values())
    wanted = np.sqrt(squares / (n - saved.fit.rank))
    assert residual_scale(saved.fit) == pytest.approx(wanted, rel=1e-6)


def test_deviations_are_those_of_the_posterior(saved, folder):
    """g^T H^-1 g by a dense solve, of sites, and summed over the components of a force."""
    structure, _, _ = read_cells(folder / "test.xyz")[2]
    graph = build_graph(structure, saved.spec.r_cut)
    (known,) = known_of(saved, [structure])
    hessian = np.asarray(saved.fit.factor.T @ saved.fit.factor)
    scale = residual_scale(saved.fit)
    for rows, found in (
        (np.asarray(site_basis(saved.spec, graph))[: structure.n_atoms, None], known.energy),
        (np.asarray(design_rows(saved.spec, graph).forces)[: structure.n_atoms], known.forces),
    ):
        flat = rows.reshape(-1, rows.shape[-1])
        variances = np.sum(flat * np.linalg.solve(hessian, flat.T).T, axis=1)
        wanted = scale * np.sqrt(variances.reshape(rows.shape[:-1]).sum(axis=1))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)  # the condition of H
    np.testing.assert_allclose(known.energy, scale / np.sqrt(known.lpr), rtol=1e-12)


def test_a_calibration_takes_the_place_of_the_scale(saved, folder):
    """Residuals ten times as large are deviations ten times as large, whatever the fit's."""
    frames = read_cells(folder / "test.xyz")
    samples = [(structure, labels) for structure, labels, _ in frames]
    found = calibrated(saved, samples)
    assert set(found) == {"energy", "forces"}
    structure = frames[0][0]
    (known,), (plain,) = known_of(saved, [structure], found), known_of(saved, [structure])
    np.testing.assert_array_equal(known.lpr, plain.lpr)
    rows = site_basis(saved.spec, build_graph(structure, saved.spec.r_cut))[: structure.n_atoms]
    rigid = np.asarray(prediction_rigidity(found["energy"].factor, rows))
    np.testing.assert_allclose(known.energy, 1.0 / np.sqrt(rigid), rtol=1e-8)
    potential = saved.potential()
    from lprjax.potentials import observe

    def tenfold(structure, labels):
        ours = observe(potential, build_graph(structure, potential.r_cut))
        forces = np.asarray(ours.forces)[: structure.n_atoms]
        return labels._replace(
            energy=ours.energy + 10 * (labels.energy - ours.energy),
            forces=forces + 10 * (labels.forces - forces),
        )

    larger = calibrated(saved, [(s, tenfold(s, y)) for s, y in samples])
    (wide,) = known_of(saved, [structure], larger)
    np.testing.assert_allclose(wide.energy, 10 * known.energy, rtol=1e-6)
    np.testing.assert_allclose(wide.forces, 10 * known.forces, rtol=1e-6)


def test_cells_without_labels_calibrate_nothing(saved, folder):
    structure, labels, _ = read_cells(folder / "test.xyz")[0]
    bare = labels._replace(energy=None, forces=None)
    with pytest.raises(ValueError, match="fewer than two labels"):
        calibrated(saved, [(structure, bare)])
