"""Forces moved to a defect's sites: against dense matrices, and the constant is never exceeded."""

import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.structures import bcc, diamond, square
from lprjax.crystals.strain_norm import reference_lattice
from lprjax.defects.catalogue import divacancy, dumbbell, micro_crack
from lprjax.defects.defect import clamped, vacancy
from lprjax.defects.transfer import on_defect, transfer_constant

PLANE = square("W", 2.0)
DEFECTS = {
    "vacancy": vacancy(bcc("W", 3.16), 3),
    "diamond": divacancy(diamond("Si", 5.43), 2),
    "dumbbell": dumbbell(bcc("W", 3.16), 3, (1, 1, 0)),
    "crack": micro_crack(PLANE, 11, 5),
    "clamped": clamped(micro_crack(PLANE, 11, 3), 9.0),
}


def dense(table, present):
    """K, bond by bond from the table, of one component."""
    k = np.zeros((len(table), len(table)))
    for site, row in enumerate(table):
        for other in row:
            if present[site] and present[other]:
                k[[site, other], [site, other]] += 1.0
                k[[site, other], [other, site]] -= 1.0
    return k


@pytest.fixture(scope="module", params=DEFECTS, ids=str)
def case(request):
    """The lattice, K of the complete one, K of the defect and the sites that may move."""
    lattice = DEFECTS[request.param].lattice
    table, present = np.asarray(lattice.neighbours), np.asarray(lattice.present)
    whole = dense(np.asarray(lattice.complete), np.ones(lattice.n_regular, bool))
    moving = present if lattice.held is None else present & ~np.asarray(lattice.held)
    return lattice, whole, dense(table, present), moving


def test_the_extension_strains_the_lattice_least(case):
    """<E^T f, v> = <f, Ev>, with Ev = v on the sites that exist and K_L Ev = 0 on the others."""
    lattice, whole, _, _ = case
    n, missing = lattice.n_regular, ~np.asarray(lattice.present)[: lattice.n_regular]
    rng = np.random.default_rng(0)
    f, v = rng.normal(size=(n, 3)), rng.normal(size=(lattice.n_sites, 3))
    extended = v[:n].copy()
    if missing.any():
        pull = whole[missing][:, ~missing] @ v[:n][~missing]
        extended[missing] = -np.linalg.solve(whole[missing][:, missing], pull)
    found = np.asarray(on_defect(lattice, f))
    assert not found[~np.asarray(lattice.present)].any() and not found[n:].any()
    np.testing.assert_allclose(found.sum(axis=0), f.sum(axis=0), atol=1e-12)
    there = np.asarray(lattice.present)
    assert np.sum(found[there] * v[there]) == pytest.approx(np.sum(f * extended), rel=1e-10)


def test_the_constant_is_the_dense_worst_case(case):
    """The largest of f^T E K_D^+ E^T f / f^T K_L^+ f over all f of zero sum."""
    lattice, whole, ours, moving = case
    n = lattice.n_regular
    columns = [on_defect(lattice, np.eye(n)[:, [i] * 3])[:, 0] for i in range(n)]
    back = np.stack(columns, axis=1)[moving]
    norm = back.T @ np.linalg.pinv(ours[moving][:, moving]) @ back
    values, modes = np.linalg.eigh(whole)
    root = modes[:, 1:] * np.sqrt(values[1:])  # f = K_L^1/2 g, |g| = ||f||_{-1,L}
    worst = np.sqrt(np.linalg.eigvalsh(root.T @ norm @ root).max())
    if lattice.held is None:
        assert transfer_constant(lattice) == pytest.approx(max(worst, 1.0), rel=1e-8)
    else:
        assert worst <= transfer_constant(lattice) * (1 + 1e-9) <= 1.2 * worst


@pytest.mark.parametrize("name", ["crack", "clamped"])
def test_no_force_is_larger_on_the_defect(name):
    """Norms of the library itself, also of forces on the missing sites alone."""
    lattice = DEFECTS[name].lattice
    whole = reference_lattice(PLANE, lattice.repeats)
    rng, constant = np.random.default_rng(1), transfer_constant(lattice)
    missing = np.flatnonzero(~np.asarray(lattice.present))
    for trial in range(20):
        f = rng.normal(size=(121, 3)) if trial % 2 else np.zeros((121, 3))
        f[missing] += 3.0 * rng.normal(size=(len(missing), 3))
        f -= f.mean(axis=0)
        size = float(lattice.negative_norm(on_defect(lattice, f)))
        assert size <= constant * float(whole.negative_norm(jnp.asarray(f))) * (1 + 1e-10)


def test_nothing_missing_costs_nothing():
    assert transfer_constant(DEFECTS["dumbbell"].lattice) == pytest.approx(1.0, abs=1e-12)
    perfect = reference_lattice(PLANE, (5, 5, 1))
    f = np.random.default_rng(2).normal(size=(25, 3))
    np.testing.assert_array_equal(on_defect(perfect, f), f)
    assert transfer_constant(perfect) == 1.0
