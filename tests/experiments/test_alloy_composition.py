"""Alloys of one composition: what is undetermined and what lifts it; data; a run end to end."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import alloy_composition as figure
from experiments.systems import alloys
from lprjax.ace.spec import ACESpec
from lprjax.atoms.extxyz import write_extxyz
from lprjax.atoms.graphs import build_graphs
from lprjax.atoms.structures import Labels
from lprjax.potentials import ZHOU_2004
from lprjax.regression.factors import projected
from lprjax.regression.fitting import fit
from lprjax.regression.rigidity import prediction_rigidity
from lprjax.regression.rows import design_rows
from tests.helpers.figures import check_figure, drawn_line, power_of

KINDS = figure.KINDS["E+F+V"]
NEAR = np.mean([ZHOU_2004[element].re for element in ("Mo", "W")])
SPEC = ACESpec(("Mo", "W"), 2, 3, 5.0, NEAR, constant=True)  # that of the tiny run
HALF, OTHER = 8, 5
DATA = Path(os.environ.get("LPRJAX_DATA") or Path(__file__).parents[3] / "shared" / "data")
WEIGHTS = {"energy": 7.0, "forces": 3.0, "virial": 0.5}


def arbitrarily_labelled(structures):
    """Rigidity does not look at labels."""
    rng = np.random.default_rng(1)
    graphs = build_graphs(structures, SPEC.r_cut)
    labels = [
        Labels(rng.normal(), rng.normal(size=(s.n_atoms, 3)), np.zeros((3, 3))) for s in structures
    ]
    return [alloys.Sample(*pair) for pair in zip(graphs, labels, strict=True)]


@pytest.fixture(scope="module")
def samples():
    """Cells at 1:1, then some of another composition."""
    rng = np.random.default_rng(3)
    counts = [HALF] * 56 + [OTHER] * 6
    return arbitrarily_labelled(
        [alloys.random_alloy(SPEC.elements, count, rng) for count in counts]
    )


@pytest.fixture(scope="module")
def onto():
    return alloys.shared_bonds(SPEC)


@pytest.fixture(scope="module")
def factors(samples):
    """In all columns, by (kind, block)."""
    blocks = alloys.paired_blocks({HALF: samples[:56], OTHER: samples[56:]}, HALF, 6)
    return alloys.block_factors(SPEC, blocks, KINDS)


@pytest.fixture(scope="module")
def tied(factors, onto):
    return {key: projected(factor, onto) for key, factor in factors.items()}


@pytest.fixture(scope="module")
def probe(samples, onto):
    return alloys.rows_of(SPEC, [samples[0], samples[-1]], onto, forces=True)


def fitted(factors, observed, chosen, ridge=0.0):
    w = {kind: WEIGHTS[kind] * (kind in figure.KINDS[observed]) for kind in KINDS}
    return fit(alloys.chosen_data(factors, KINDS, chosen, swap=True), w, ridge=ridge)


@pytest.mark.parametrize("observed", figure.KINDS)
def test_one_direction_is_undetermined_at_one_composition(tied, probe, onto, observed):
    """The difference of the constants, whatever is observed: no site energy is determined, the
    sum over a site of each species is; one more composition settles all."""
    difference = np.array([1.0, -1.0]) @ alloys.constants(SPEC) @ onto
    sites = np.concatenate([probe.sites, difference[None]])
    one = fitted(tied, observed, ())
    assert len(onto.T) - one.rank == 1
    np.testing.assert_array_equal(prediction_rigidity(one.factor, sites), 0.0)
    first, second = (probe.sites[probe.species == z] for z in SPEC.numbers)
    assert np.all(prediction_rigidity(one.factor, first[:5] + second[:5]) > 0.0)
    two = fitted(tied, observed, (OTHER,))
    assert two.rank == len(onto.T)
    assert np.all(prediction_rigidity(two.factor, sites) > 0.0)


@pytest.mark.parametrize("observed", figure.KINDS)
@pytest.mark.parametrize("chosen", [(), (OTHER,)])
def test_no_site_is_more_rigid_than_the_difference_of_the_constants(
    tied, probe, onto, observed, chosen
):
    """LPR <= 2 ridge + w^2 sum (n_A - n_B)^2: six cells of 11 and 5 atoms, or none. At 1:1 the
    limit ridge -> 0 of LPR over twice the ridge is one."""
    ridge = 1e-7
    found = fitted(tied, observed, chosen, ridge)
    difference = np.array([1.0, -1.0]) @ alloys.constants(SPEC) @ onto
    bound = 2 * ridge + WEIGHTS["energy"] ** 2 * 6 * (16 - 2 * OTHER) ** 2 * bool(chosen)
    assert np.sum((np.asarray(found.factor) @ difference) ** 2) == pytest.approx(bound, rel=1e-6)
    lpr = prediction_rigidity(found.factor, probe.sites)
    assert np.all(lpr <= bound * (1 + 1e-6))
    if observed != "E" and not chosen:
        np.testing.assert_allclose(lpr, bound, rtol=1e-2)


def test_directions_that_no_energy_knows(samples, factors, onto):
    """Moving energy between the two ends of bonds changes no row, and nothing else is tied: one
    direction for each radial function, of pairs and of densities."""
    assert onto.shape[0] - onto.shape[1] == 2 * SPEC.degree
    np.testing.assert_array_equal(onto.sum(axis=1), 1.0)
    twins = [np.flatnonzero(column) for column in onto.T if column.sum() == 2]
    moves = np.zeros((len(twins), SPEC.n_columns))
    for move, (here, there) in zip(moves, twins, strict=True):
        move[here], move[there] = 1.0, -1.0
    rows = design_rows(SPEC, samples[-1].graph, KINDS)
    for kind in KINDS:
        row = np.asarray(getattr(rows, kind))
        assert np.abs(row @ moves.T).max() < 1e-11 * np.abs(row).max()
    # In all columns they stay undetermined, whatever the data.
    assert SPEC.n_columns - fitted(factors, "E+F+V", (OTHER,)).rank == 2 * SPEC.degree


def test_projection_loses_nothing(factors, onto):
    factor = factors["forces", ("new", OTHER)]
    small = projected(factor, onto)
    z = np.linspace(-1.0, 1.0, onto.shape[1])

    def misfit(f, c):
        return np.sum((np.asarray(f.triangular) @ c - np.asarray(f.target)) ** 2) + f.residual

    assert float(misfit(small, z)) == pytest.approx(float(misfit(factor, onto @ z)), rel=1e-12)
    assert small.n_rows == factor.n_rows == 6 * 48


def test_compositions_swapped_in_or_added(factors):
    """Energies count structures: 56 where as many give way, 62 otherwise."""
    for chosen, swap, n in (((), True, 56), ((OTHER,), True, 56), ((OTHER,), False, 62)):
        assert alloys.chosen_data(factors, ("energy",), chosen, swap)["energy"].n_rows == n
    with pytest.raises(ValueError, match="2 structures of 8 are too few"):
        alloys.paired_blocks({8: [0, 0], 1: [0, 0, 0]}, 8, 2)


def test_rows_of_a_test_set_are_those_of_the_basis(samples, probe, onto):
    """The energy per atom is the mean over sites, and energy rows are those of the design."""
    row = np.asarray(design_rows(SPEC, samples[-1].graph, ("energy",)).energy) @ onto / 16
    np.testing.assert_allclose(probe.mean_rows[1], row, rtol=1e-12, atol=1e-12)
    assert probe.forces.shape == (2 * 48, onto.shape[1])
    errors = probe.energy_errors(np.zeros(onto.shape[1]))
    np.testing.assert_allclose(errors[1], -samples[-1].labels.energy / 16, rtol=1e-14)


def stand_in(folder):
    """Files named as the real ones: Mo-W cells, energy the number of W atoms, forces zero."""
    rng, folder = np.random.default_rng(0), Path(folder)
    counts = {
        alloys.TRAINING: [8] * 12 + [4, 4, 12],
        **dict(zip(alloys.TESTS, ([4, 12], [0], [16]), strict=True)),
    }
    for name, these in counts.items():
        structures = [alloys.random_alloy(("Mo", "W"), count, rng) for count in these]
        labels = [Labels(float(count), np.zeros((16, 3))) for count in these]
        write_extxyz(folder / name, structures, labels)
    return folder


def test_tiny_run_and_its_last_line(tmp_path, capsys, drawn, monkeypatch):
    """Without data the second part is left out, with a warning; with files both are drawn."""
    monkeypatch.delenv("LPRJAX_DATA", raising=False)
    flags = "--preset smoke --degree 3 --block 5 --tests 1 --results".split() + [str(tmp_path)]
    with pytest.warns(UserWarning, match=r"part \(b\) is left out.*NbTa_binary.*maml"):
        alone = figure.main(flags)
    assert alone["measured"] is None and "left out" in figure.caption(alone)
    designs = {(d["structures"], d["kinds"]): d for d in alone["simulated"]["designs"]}
    for kinds in ("E+F", "E+F+V"):
        fixed, mixed = designs["1:1 only", kinds], designs["six more", kinds]
        assert fixed["undetermined"] == [1] and mixed["undetermined"] == [0]
        assert fixed["vanishing"] == [48] and mixed["vanishing"] == [0]
        assert max(fixed["lpr"]) <= alone["simulated"]["twice_the_ridge"] * (1 + 1e-6)
        assert min(mixed["lpr"]) > 10 * max(fixed["lpr"])
        assert mixed["exchange_error"] < 0.5 * fixed["exchange_error"]
    (tmp_path / "data").mkdir()
    both = figure.main([*flags, "--data", str(stand_in(tmp_path / "data"))])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == both
    assert both["simulated"] == alone["simulated"]
    curves = both["measured"]["curves"]
    assert both["measured"]["others"] == ["4:12", "12:4"]
    # Labels that are constants of the species are learnt from a second composition on.
    for curve in curves.values():
        start, *rest = (row[0] for row in curve["energy_mae"])
        assert start > 1e-2 > 1e3 * max(rest)
    png = tmp_path / "alloy_composition" / "alloy_composition.png"
    pure = "training compositions", "other compositions"
    panels = check_figure(drawn["alloy_composition"], png, out, 6, pure)
    for curve in curves.values():
        for errors in 1e3 * np.array(curve["energy_mae"]).T:
            drawn_line(panels[4], range(len(errors)), errors)
    lpr, slope = panels[2].lines[:-1], power_of(panels[2].lines[-1])
    assert slope == pytest.approx(-0.5) and len(lpr) == len(alone["simulated"]["designs"])


def test_missing_files_are_named(tmp_path):
    (tmp_path / alloys.TRAINING).touch()
    with pytest.raises(FileNotFoundError, match="no NbTa_test.xyz, Nb_test.xyz, Ta_test.xyz"):
        figure.main(["--data", str(tmp_path), "--results", str(tmp_path)])


def test_points_know_the_data_but_not_where_they_are(tmp_path):
    for name in (alloys.TRAINING, *alloys.TESTS):
        (tmp_path / name).write_text(name)
    config = dataclasses.replace(figure.PRESETS["smoke"], data=str(tmp_path))
    simulated, measured = figure.points(config, str(tmp_path))
    assert [simulated] == figure.points(figure.PRESETS["smoke"], "")
    (tmp_path / alloys.TESTS[0]).write_text("other data")
    assert figure.points(config, str(tmp_path))[1].digest != measured.digest


@pytest.mark.skipif(not (DATA / alloys.TRAINING).is_file(), reason=f"no {alloys.TRAINING}")
def test_real_data():
    """658 cells of 16 atoms (Li et al. 2020), every composition; the draw is by the generator."""
    pool = alloys.read_binary(DATA / alloys.TRAINING, np.random.default_rng(0))
    assert sorted(pool) == [(n, 16 - n) for n in range(1, 16)]
    assert sum(map(len, pool.values())) == 658 and len(pool[8, 8]) == 118
    again = alloys.read_binary(DATA / alloys.TRAINING, np.random.default_rng(0))
    assert [x.energy for _, x in pool[1, 15]] == [x.energy for _, x in again[1, 15]]
    alloys.require_data(DATA)


def test_data_of_other_shapes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    pure = [alloys.random_alloy(("Mo", "W"), 0, rng)]
    write_extxyz(tmp_path / "pure.xyz", pure, [Labels(1.0)])
    with pytest.raises(ValueError, match="frame 0 has no forces: wanted every frame with energy"):
        alloys.read_binary(tmp_path / "pure.xyz", rng)
    write_extxyz(tmp_path / "pure.xyz", pure, [Labels(1.0, np.zeros((16, 3)))])
    with pytest.raises(ValueError, match=r"the elements \[42\] .*wanted two elements"):
        alloys.read_binary(tmp_path / "pure.xyz", rng)


def test_weights_are_per_atom_where_labels_are_of_cells():
    assert alloys.weights(("energy", "forces"), (0.01, 0.5, 0.3), 16) == {
        "energy": pytest.approx(6.25),
        "forces": pytest.approx(2.0),
    }
