"""Five hundred structures of five hundred sizes in one process, as a user's loop has them."""

import gc
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import lprjax as lp
from lprjax.numerics import memory
from lprjax.potentials.bonds import polynomial_bonds
from lprjax.potentials.data_sets import observe_pack
from lprjax.potentials.derivatives import site_energies_and_forces
from lprjax.regression.assembly import _blocks

BONDS = polynomial_bonds([1.0], [[-1.0, 0.0, 2.0]], r_cut=1.2)  # eV per bond of 1 Å
SITES = np.array(list(np.ndindex(8, 8, 8)), float)
SIZES = np.random.default_rng(0).permutation(np.arange(12, 512))


def bonds_among(n):
    """Half bonds between the first n of 8 x 8 x 8 sites, periodic."""
    kept = np.arange(512) < n
    sites = kept.reshape(8, 8, 8)
    return sum(int(np.sum(sites & np.roll(sites, 1, axis))) for axis in range(3))


def resident_mebibytes():
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_time_and_memory_do_not_grow_with_the_number_of_structures():
    """Padding makes a dozen shapes of 500 sizes: no more is compiled, kept, or waited for; and the
    energies are those of the bonds that are there."""
    compiled, arrays, resident, seconds = [], [], [], []
    start = site_energies_and_forces._cache_size()
    for n in SIZES:
        structure = lp.make_structure(SITES[:n], 8.0 * np.eye(3), "W")
        began = time.process_time()
        energy, forces = lp.energy_and_forces(BONDS, lp.build_graph(structure, BONDS.r_cut))
        seconds.append(time.process_time() - began)
        assert float(energy) == pytest.approx(-bonds_among(n), abs=1e-9)
        compiled.append(site_energies_and_forces._cache_size() - start)
        if len(compiled) % 100 == 0:
            gc.collect()
            arrays.append(len(jax.live_arrays()))
            resident.append(resident_mebibytes())
    assert compiled[-1] == compiled[199] <= 13
    assert arrays[-1] <= arrays[1]
    assert resident[-1] - resident[1] < 100
    assert np.median(seconds[-200:]) < 2 * np.median(seconds[100:300])


def test_packs_of_five_hundred_sizes_compile_three_times():
    """One shape holds those of up to 256 atoms, packed; two more those of 257 to 512. Rows, labels
    and factors are of bonds that can be counted: every row is so many times that of a bond."""
    cells = [lp.make_structure(SITES[:n], 8.0 * np.eye(3), "W") for n in SIZES]
    graphs = lp.build_graphs(cells, BONDS.r_cut, shapes=1)
    before = observe_pack._cache_size(), _blocks._cache_size()
    labels = lp.observe_all(BONDS, graphs)
    counts = np.array([bonds_among(n) for n in SIZES])
    np.testing.assert_allclose([each.energy for each in labels], -counts, rtol=0, atol=1e-9)
    assert all(each.forces.shape == (n, 3) for each, n in zip(labels, SIZES, strict=True))
    spec = lp.ACESpec(("W",), order=1, degree=1, r_cut=1.2, r0=1.0)
    factor = lp.compress_structures(spec, zip(cells, labels, strict=True), "energy")["energy"]
    assert factor.n_rows == 500
    of_a_bond = lp.design_rows(spec, graphs[0], "energy").energy / counts[0]
    wanted = np.sum(counts.astype(float) ** 2) * np.outer(of_a_bond, of_a_bond)
    found = np.asarray(factor.triangular.T @ factor.triangular)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * wanted.max())
    compiled = observe_pack._cache_size() - before[0], _blocks._cache_size() - before[1]
    assert max(compiled) <= 3


@pytest.mark.parametrize("loop", ["graphs", "factors"])
def test_loops_over_cutoffs_spare_the_memory_maps(loop, monkeypatch):
    """Wherever compiled functions pile up: with the maps full, they are dropped on the way."""
    dropped = []
    monkeypatch.setattr(memory, "PAUSE", 0.0)
    monkeypatch.setattr(memory, "MANY_MAPS", 0)
    cell = lp.bcc("W", 3.165)
    spec = lp.ACESpec(("W",), order=1, degree=2, r_cut=3.0, r0=2.74)
    graph = lp.build_graph(cell, 3.0)
    monkeypatch.setattr(memory.jax, "clear_caches", lambda: dropped.append(True))
    for _ in range(3):
        if loop == "graphs":
            lp.build_graph(cell, 3.0)
        else:
            lp.compress_structures(spec, [(graph, lp.Labels(energy=-1.0))], ("energy",))
    assert len(dropped) == 3
