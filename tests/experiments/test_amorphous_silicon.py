"""Amorphous silicon: the potential it is quenched with, what is counted, trained and drawn."""

import dataclasses
import gzip
import itertools
import json

import ase.io
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import amorphous_silicon as figure
from experiments.panels.atoms import colour_scale, draw_atoms, wrapped
from experiments.studies import amorphous
from experiments.studies.amorphous import (
    CLASSES,
    Data,
    best_ridge,
    by_class,
    energies_of,
    error_of,
    study,
    train,
)
from experiments.systems.melt_quench import (
    Protocol,
    Restrained,
    angle_spread,
    coordination,
    crystal,
    sort_cells,
)
from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import diamond, rattled, supercell
from lprjax.potentials.observables import observe
from lprjax.potentials.stillinger_weber import stillinger_weber
from tests.helpers.figures import check_figure, drawn_line

DIAMOND = supercell(diamond("Si", 5.431), (2, 2, 2))
RATTLED = rattled(DIAMOND, jax.random.key(0), 0.25)
TINY = figure.PRESETS["smoke"]


sites = jax.jit(lambda potential, graph: potential(graph))


def broken(structure, k):
    """The k-th atom of the cells pushed off its site: atoms of three and of five neighbours."""
    push = np.zeros((structure.n_atoms, 3))
    push[8 * (k % 8) + k % 4] = 0.8
    return dataclasses.replace(structure, positions=structure.positions + push)


def like_amorphous(n):
    """Cells of four neighbours for every atom, bond angles spread by more than a crystal's."""
    cells = (rattled(DIAMOND, jax.random.key(k), 0.15) for k in range(10 * n))
    fine = (cell for cell in cells if (coordination(cell) == 4).all())
    return list(itertools.islice((cell for cell in fine if angle_spread(cell) > 7.0), n))


@pytest.fixture(scope="module")
def graph():
    return build_graph(RATTLED, stillinger_weber().r_cut, n_neighbours=24)


def test_without_restraint_it_is_stillinger_weber(graph):
    wanted = jax.jit(stillinger_weber())(graph)
    np.testing.assert_allclose(sites(Restrained(), graph), wanted, rtol=1e-13, atol=1e-13)


def test_the_restraint_counts_neighbours(graph):
    """Diamond has exactly four inside the step's inner end and none up to its outer end."""
    perfect = build_graph(DIAMOND, stillinger_weber().r_cut, n_neighbours=24)
    np.testing.assert_array_equal(
        sites(Restrained(kappa=5.0), perfect), sites(Restrained(), perfect)
    )
    excess = np.asarray(sites(Restrained(kappa=2.0), graph) - sites(Restrained(), graph))
    r = np.linalg.norm(np.asarray(graph.vectors()), axis=-1)
    r = np.where(np.asarray(graph.edge_mask), r, np.inf)
    low, high = ((r < end).sum(axis=1) for end in (2.6, 3.1))
    sure = low == high  # no neighbour on the step: an integer
    assert 0 < sure.sum() < len(sure)
    np.testing.assert_allclose(excess[sure], 2.0 * (low - 4.0)[sure] ** 2, atol=1e-12)


def test_forces_of_the_restraint_are_its_derivative(graph):
    potential = Restrained(lam=31.5, kappa=1.5)
    direction = np.random.default_rng(0).normal(size=graph.positions.shape)
    energy = lambda h: float(  # noqa: E731
        observe(
            potential,
            dataclasses.replace(graph, positions=graph.positions + h * direction),
            ("energy", "forces"),
        ).energy
    )
    forces = np.asarray(observe(potential, graph, ("energy", "forces")).forces)
    slope = (energy(1e-4) - energy(-1e-4)) / 2e-4
    assert slope == pytest.approx(-(forces * direction).sum(), rel=1e-5)


def test_coordination_and_angles_of_the_crystal():
    assert (coordination(DIAMOND) == 4).all() and angle_spread(DIAMOND) < 1e-4
    assert np.bincount(coordination(broken(DIAMOND, 3))).tolist() == [0, 0, 0, 3, 58, 3]


def test_shares_and_ratios_by_hand():
    """Of atoms by coordination over cells; of medians, second over first and bulk over defects."""
    cells = [np.array([3, 4, 4]), np.array([[5, 4], [4, 4], [4, 4]])[:, 0], np.array([4, 4])]
    assert figure.shares(cells) == {"3": 1 / 8, "4": 6 / 8, "5": 1 / 8}
    rigidities = {
        0: {"3-fold": np.array([1.0, 2.0, 9.0]), "4-fold": np.array([8.0]), "5-fold": np.ones(2)},
        5: {"3-fold": np.array([6.0])},
    }
    assert figure.ratio(rigidities, "3-fold", 0, 5) == 3.0
    assert figure.ratio({}, "3-fold", 0, 5) is None
    assert figure.below_4_fold(rigidities[0]) == {"3-fold": 4.0, "5-fold": 8.0}


def test_errors_that_rise_with_a_swap_are_named():
    """They may: rigidity knows no targets."""
    rms = {"defective": [3.2, 4.6, 2.8], "pristine": [1.0, 2.0, 3.0]}
    found = figure.risen({"rms_meV_per_atom": rms, "swapped": [0, 2, 5]})
    assert found.endswith("RISES to 4.6 with 2 swapped.")
    rms["defective"][1] = 3.1
    assert figure.risen({"rms_meV_per_atom": rms, "swapped": [0, 2, 5]}) == ""


def batch(held, free, sound=None):
    positions = {"restrained": held, "free": free}
    arrays = {name: np.stack([s.positions for s in some]) for name, some in positions.items()}
    return arrays | {"sound": np.ones(len(held), bool) if sound is None else np.array(sound)}


def test_every_quench_is_counted_once():
    (fine,) = like_amorphous(1)
    bad = broken(fine, 0)
    held = [fine, bad, DIAMOND, fine, bad]
    found = sort_cells(Protocol(), [batch(held, [bad, bad, bad, bad, fine], [1, 1, 1, 0, 1])])
    assert (found.unsound, found.crystalline, found.healed) == (1, 1, 1)
    np.testing.assert_array_equal(found.pristine[0].positions, fine.positions)
    np.testing.assert_array_equal(found.defective[0].positions, bad.positions)
    assert (len(found.pristine), len(found.defective)) == (1, 1)
    np.testing.assert_allclose(found.pristine[0].cell, crystal(Protocol()).cell)


def test_training_is_ridge_regression_of_energies_per_atom():
    rng = np.random.default_rng(1)
    data = Data(rng.normal(size=(9, 4, 5)), rng.normal(size=9), np.full((9, 4), 4))
    found, x = train(energies_of(data), 0.3), data.rows.mean(axis=1)
    wanted = np.linalg.solve(x.T @ x + 0.3 * np.eye(5), x.T @ data.energies)
    np.testing.assert_allclose(found.coefficients, wanted, rtol=1e-10)
    assert error_of(found, data) == pytest.approx(
        np.sqrt(np.mean((x @ wanted - data.energies) ** 2))
    )


def test_noise_asks_for_a_larger_ridge():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(30, 2, 20))
    exact = rows.mean(axis=1) @ rng.normal(size=20)
    chosen = [
        best_ridge(Data(rows, energies, np.full((30, 2), 4)))
        for energies in (exact, 1e-2 * rng.normal(size=30))
    ]
    assert chosen[0] < 1e-8 < chosen[1]


@pytest.fixture(scope="module")
def small_study():
    fine = like_amorphous(22)
    cells = sort_cells(
        Protocol(lattice_constant=5.431),
        [
            batch(fine[:12], [DIAMOND] * 12),
            batch(*2 * [[broken(cell, k) for k, cell in enumerate(fine[12:])]]),
        ],
    )
    options = dict(training=9, held_out=3, swapped=(2,), shown=4, force_weight=0.01)
    return study(TINY.spec, cells, **options)


def test_sizes_of_the_study(small_study):
    assert small_study.training == 9 and sorted(small_study.rigidities) == [0, 2, 4]
    assert [len(s) for s in small_study.structures] == [3, 3]
    for clean, marred in small_study.rigidities.values():
        assert clean.shape == marred.shape == (3, 64) and (clean > 0.0).all()
    sizes = {name: len(v) for name, v in by_class(small_study, small_study.rigidities[0]).items()}
    assert sizes[CLASSES[-1]] == 192 and sum(sizes[f"{z}-fold"] for z in (3, 4, 5)) <= 192


def test_defects_gain_from_swapped_cells_and_others_do_not(small_study):
    before, after = (by_class(small_study, small_study.rigidities[m]) for m in (0, 4))
    gain = {name: np.median(after[name]) / np.median(before[name]) for name in CLASSES}
    assert gain["3-fold"] > 1.2 and 0.8 < gain["4-fold, pristine cell"] < 1.0
    assert np.median(before["3-fold"]) < 0.3 * np.median(before["4-fold, pristine cell"])


def test_forces_only_add(small_study):
    """Rows added at one ridge never lower a rigidity."""
    for m, pair in small_study.with_forces.items():
        for more, less in zip(pair, small_study.rigidities[m], strict=True):
            assert (more >= less * (1 - 1e-9)).all()


def test_energies_are_per_atom(small_study):
    """Means over the sites of the published potential."""
    reach = stillinger_weber().r_cut
    for data, structures in zip(small_study.data, small_study.structures, strict=True):
        graphs = [build_graph(cell, reach, n_neighbours=24) for cell in structures]
        means = [float(sites(Restrained(), graph).mean()) for graph in graphs]
        np.testing.assert_allclose(data.energies, means, rtol=1e-12)


def test_forces_are_of_the_cells_whose_energies_are_fitted(monkeypatch):
    """Letters for cells: pristine ones, the last of which give way to the first defective ones;
    what comes after those is held out."""
    monkeypatch.setattr(amorphous, "build_graph", lambda cell, *args, **options: cell)
    monkeypatch.setattr(amorphous, "observe", lambda reference, cell: None)
    joined = lambda spec, samples, kinds: {"forces": "".join(cell for cell, _ in samples)}  # noqa: E731
    monkeypatch.setattr(amorphous, "compress_structures", joined)
    found = amorphous.force_factors(TINY.spec, (list("abcdefgh"), list("ABCDEFG")), 5, 2)
    kept, last = ("forces", "kept"), ("forces", "last")
    assert found == {0: {kept: "abc", last: "de"}, 2: {kept: "abc", last: "AB"}}


def test_too_few_cells_are_refused():
    cells = sort_cells(Protocol(), [batch(like_amorphous(1), [DIAMOND])])
    with pytest.raises(ValueError, match="1 pristine and 0 defective"):
        options = dict(training=1, held_out=1, swapped=(), shown=0, force_weight=0.0)
        study(TINY.spec, cells, **options)


def test_atoms_drawn_have_the_colours_of_their_values():
    values = np.geomspace(1e-3, 1e3, RATTLED.n_atoms)
    values[:2] = 0.0, np.inf
    _, ax = plt.subplots()
    scale = draw_atoms(ax, RATTLED, values, bond=2.85)
    assert scale.get_clim() == pytest.approx((np.log10(values[2]), 3.0))
    np.testing.assert_allclose(scale.to_rgba([-np.inf, np.inf])[:, :3], [[0] * 3, [1] * 3])
    dots, bonds = ax.collections[-1], ax.collections[0]
    assert len(dots.get_offsets()) == RATTLED.n_atoms
    assert len(bonds.get_segments()) == coordination(RATTLED).sum()  # every bond has two halves
    plt.close("all")


def test_far_away_atoms_are_drawn_inside_the_cell():
    away = dataclasses.replace(RATTLED, positions=RATTLED.positions + 3.0 * RATTLED.cell[:1])
    np.testing.assert_allclose(wrapped(away), wrapped(RATTLED), atol=1e-9)
    assert colour_scale(np.array([0.0, np.inf])).get_clim() == (0.0, 1.0)
    with pytest.raises(ValueError, match="one >= 0 per atom"):
        draw_atoms(plt.gca(), RATTLED, np.ones(3), bond=2.85)


def test_tiny_run_and_its_last_line(tmp_path, capsys, drawn):
    tiny = ["--preset", "smoke", "--results", str(tmp_path)]
    summary = figure.main(tiny)
    again = figure.main([*tiny, "--plot-only"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == again
    assert summary["lpr"] == again["lpr"]
    counts = [summary[k] for k in ("pristine", "defective", "unsound", "crystalline", "healed")]
    assert sum(counts) == summary["quenched"] == TINY.cells
    folder = tmp_path / "amorphous_silicon"
    png, among = folder / "amorphous_silicon.png", f"defective cells among {again['training']}"
    pure = "atoms of cells held out", among
    swaps = check_figure(drawn["amorphous_silicon"], png, out, 2, pure)[1]  # atoms have no axes
    for name in CLASSES:
        drawn_line(swaps, again["swapped"], [middle for _, middle, _ in again["lpr"][name]])
    frames = ase.io.read(folder / "held_out_swapped_0.xyz", index=":")
    # Errors in meV: less than the spread of the energies, but of its order.
    spread = 1e3 * np.std([frame.get_potential_energy() / len(frame) for frame in frames])
    for errors in summary["rms_meV_per_atom"].values():
        assert np.all((np.array(errors) > 0.01 * spread) & (np.array(errors) < 10 * spread))
    assert len(frames) == 2 * TINY.held_out and all((f.arrays["lpr"] > 0).all() for f in frames)
    in_browser = json.loads(gzip.decompress((folder / "held_out_swapped_0.json.gz").read_bytes()))
    lpr = np.concatenate([frame.arrays["lpr"] for frame in frames])
    np.testing.assert_array_equal(in_browser["properties"]["lpr"]["values"], lpr)
    (structure, labels, _), *_ = read_extxyz(folder / "held_out_swapped_0.xyz")
    graph = build_graph(structure, stillinger_weber().r_cut, n_neighbours=24)
    energy = observe(stillinger_weber(), graph, ("energy",)).energy
    assert labels.energy == pytest.approx(float(energy), rel=1e-12)
