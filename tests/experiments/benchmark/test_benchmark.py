"""Codes take turns, first calls apart; a target is met with all of its conditions or missed."""

import json
import time
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import peers
from experiments.benchmark.cells import ace_spec, near_cubic, rattled_silicon, silicon_shape
from experiments.benchmark.clock import Turns, faster, in_fresh_process, in_turn
from experiments.benchmark.fits import (
    PRIORS,
    WEIGHTS,
    best_loss,
    error,
    from_file,
    one_more_loss,
    whole_fit,
)
from experiments.benchmark.kernels import (
    dynamics,
    floor_calls,
    force_constants,
    reference,
    rows_call,
    rows_floor,
)
from experiments.benchmark.sets import KINDS, file_set, packed, small_cells, written
from experiments.benchmark.table import Row, entry, markdown
from lprjax.ace.spec import smoothness_prior
from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.structures import rattled
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.regression.assembly import compress_structures
from lprjax.regression.fitting import fit

ONCE = Turns(1, 0.0)


def row(**changes):
    plain = dict(name="a", path="path", against="them", target=2.0, at_least=True, unit="µs/atom")
    return Row(**plain | {"measure": dict, "bound": "memory"} | changes)


def arrays(**values):
    return {key: np.asarray(value) for key, value in values.items()}


def test_codes_take_turns_and_first_calls_are_apart():
    calls = []
    codes = {name: partial(calls.append, name) for name in "ab"}
    found = in_turn(codes, Turns(3, 0.0))
    assert calls == ["a", "b"] * 4
    assert {name: seconds.shape for name, seconds in found.items()} == {"a": (3,), "b": (3,)}


def test_the_first_call_of_a_turn_does_not_count():
    """Of the calls that fill a turn the median counts: here 1 slow one of at least 3."""
    state = {"last": None}

    def call(name, slow):
        time.sleep(slow if state["last"] != name else 0.01)
        state["last"] = name

    found = in_turn({"a": partial(call, "a", 0.4), "b": partial(call, "b", 0.4)}, Turns(2, 0.45))
    assert all(np.all(seconds < 0.4) for seconds in found.values())


def test_no_turn_begins_after_the_limit():
    found = in_turn({"a": partial(time.sleep, 0.02)}, Turns(100, 0.0), limit=0.05)
    assert 1 <= len(found["a"]) < 10
    assert faster([np.array([3.0, 1.0, 2.0]), np.array([1.9, 1.9, 9.0])])[2] == 9.0


@pytest.mark.parametrize(
    ("at_least", "target", "ratio", "met"),
    [(True, 2.0, 4.0, True), (True, 5.0, 4.0, False), (False, 0.3, 0.25, True)],
)
def test_ratios_are_of_medians_the_way_the_target_says(at_least, target, ratio, met):
    found = arrays(ours=[1e-6, 3e-6, 2e-6], theirs=[8e-6, 1e-6, 9e-6], atoms=2)
    judged = entry(row(at_least=at_least, target=target), found)
    assert judged["ratio"] == pytest.approx(ratio) and judged["met"] is met
    expected = {"ours": 1.0, "ours_min": 0.5, "theirs": 4.0, "theirs_min": 0.5}
    assert {k: judged[k] for k in expected} == pytest.approx(expected)


def test_nothing_at_all_is_as_few_as_one_can_ask_for():
    judged = entry(row(at_least=False, target=3, unit="s"), arrays(ratio=0))
    assert judged["met"] is True and judged["why"].startswith("Met;")


@pytest.mark.parametrize("same", [True, False])
def test_a_condition_that_fails_fails_the_target_and_is_named(same):
    found = arrays(ours=[1.0], theirs=[8.0], holds_same=same)
    judged = entry(row(unit="s"), found)
    assert judged["met"] is same and ("same" in judged["why"]) is not same
    assert judged["why"].endswith("memory.")


def test_a_missing_peer_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(peers.INSTALL, "no-such-code", "pip install no-such-code")
    seen = []

    def measure(there):
        seen.append(there)
        return {"ours": np.array([1.0])}

    lacking = row(peer="no-such-code", measure=measure, unit="s")
    judged = entry(lacking, arrays(**lacking.measured(True)))
    assert judged["ratio"] is None and judged["met"] is None and seen == [False]
    assert judged["skipped"].endswith("is not installed: pip install no-such-code")
    text = markdown([lacking], {"cpu": {"a": judged}, "gpu": {}}, "paper")
    assert "not compared (1 s)" in text and "GPU (no accelerator was available)" in text
    monkeypatch.setattr(peers, "missing", lambda peer: None)
    assert "--no-peers" in lacking.measured(False)["skipped"] and seen == [False, False]


def test_the_rows_of_the_paper_preset_are_those_of_the_targets():
    rows = {r.name: r for r in benchmark.targets(benchmark.PRESETS["paper"])}
    wanted = {f"rows_ace_jax_{d}": "≥ 4" for d in (12, 16)}
    wanted |= {f"rows_python_ace_{d}": "≥ 15" for d in (12, 16)}
    wanted |= {"rows_ace_jax_12_1728": "≥ 8", "rows_ace_jax_16_1728": "≥ 10"}
    wanted |= {"rows_floor_12": "≤ 10", "rows_floor_12_8000": "≤ 8", "rows_floor_16": "≤ 15"}
    wanted |= {"dynamics_12_2000": "≥ 3", "ase_12_2000": "≥ 1"}
    wanted |= {"one_more_loss_16": "≤ 1", "whole_fit_16": "≥ 12"}
    wanted |= {f"energy_forces_{d}_{n}": "≥ 1.5" for d in (12, 16) for n in (216, 2000)}
    wanted |= {"force_constant_rows_12": "≤ 6", "sw_8000": "≤ 3", "eam_8000": "≤ 3"}
    wanted |= {"eam_table_8000": "≤ 2"}
    wanted |= {"factor": "≤ 1", "refit": "≥ 100", "lpr_skmatter": "≥ 50", "relaxation": "≤ 1.5"}
    wanted |= {"file_to_factors_16": "≤ 1.4", "small_cells_16": "≤ 2"}
    wanted |= {"packed_12": "≤ 4", "packed_16": "≤ 8"}
    wanted |= {"cold_budget": "≤ 60", "cold_second": "≤ 3", "cold_readme": "≤ 80"}
    wanted |= {f"compile_{k}_16": "≤ 5" for k in benchmark.KERNELS} | {"compile_sweep_16": "≤ 3"}
    assert {name: r.wanted for name, r in rows.items()} == wanted


def test_an_unknown_row_is_refused_with_those_there_are():
    config = replace(benchmark.PRESETS["smoke"], only=("rows",))
    with pytest.raises(SystemExit, match="there are: rows_ace_jax_3, "):
        benchmark.chosen(config)


def test_cells_are_as_cubic_as_their_number_of_atoms_allows():
    assert silicon_shape(216) == (3, 3, 3) and silicon_shape(2000) == (5, 5, 10)
    assert near_cubic(4000) == (10, 20, 20)
    with pytest.raises(ValueError, match="multiple of 8"):
        silicon_shape(100)


def test_the_floor_is_a_product_of_all_rows():
    """One for the energy, three per atom, six for the virial, none for padding; both ways give
    X^T X."""
    rows = rows_call(3, 40)()
    assert len(rows.forces) > 40
    calls = floor_calls(rows, 40)
    assert calls["xla"].args[0].shape[0] == 1 + 3 * 40 + 6
    product = np.asarray(calls["xla"]())
    forces = np.asarray(rows.forces).reshape(-1, product.shape[0])[:120]
    order = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    virial = [np.asarray(rows.virial)[a, b] for a, b in order]
    matrix = np.vstack([np.asarray(rows.energy), forces, *virial])
    scale = np.abs(product).max()
    np.testing.assert_allclose(product, matrix.T @ matrix, atol=1e-12 * scale)
    upper = np.triu(calls["dsyrk"]())
    np.testing.assert_allclose(upper, np.triu(product), atol=1e-12 * scale)
    found = rows_floor(3, 8, ONCE, there=True)
    least = 1e6 / 8 * np.median(found["theirs"])
    assert least == pytest.approx(min(found["xla"], found["dsyrk"]))


def test_ours_is_measured_where_the_other_code_is_not():
    assert "theirs" not in reference("eam", 16, ONCE, there=False)
    assert force_constants(2, 8, ONCE, there=True)["theirs"].shape == (1,)


def test_sets_are_measured_per_atom():
    """Of files that are written where none are given; the accelerator's target waits for one."""
    whole, small = file_set(3, "", 8, ONCE), small_cells(3, 9, ONCE)
    assert whole["cells"] == 2 and whole["atoms_in_all"] == 16 and not whole["real_data"]
    assert small["mean_size"] == pytest.approx((2 + 4 + 4 + 8 + 4 + 8 + 8 + 16 + 2) / 9)
    for found in (whole, small):
        judged = entry(row(at_least=False), {k: np.asarray(v) for k, v in found.items()})
        assert judged["ratio"] == pytest.approx(judged["ours"] / judged["theirs"])
    waiting = {k: np.asarray(v) for k, v in packed(3, 3, 8, ONCE).items()}
    judged = entry(row(at_least=False), waiting)
    assert judged["met"] is None and judged["ours"] > 0 and "accelerator" in judged["why"]


def test_a_whole_fit_has_the_loss_of_least_error_where_it_was_held_out(tmp_path):
    """26 are tried, and the coefficients are those of a fit of all cells with the one chosen."""
    spec, cell = ace_spec(3), rattled_silicon((1, 1, 1))
    cells = [rattled(cell, jax.random.key(seed), 0.05) for seed in range(7)]
    written(tmp_path / "cells.xyz", cells, stillinger_weber())
    frames = [frame[:2] for frame in read_extxyz(tmp_path / "cells.xyz")]
    compressed = partial(compress_structures, spec, kinds=KINDS, per_atom=("energy", "virial"))
    held = compressed(frames[2::5])
    fitted = compressed([frame for k, frame in enumerate(frames) if k % 5 != 2])
    chosen = best_loss(spec, fitted, held)
    assert len({*WEIGHTS}) + len({*PRIORS}) == 26
    both = {"fit": [], "error": []}
    for ridge, power in PRIORS:
        loss = chosen._replace(ridge=ridge, power=power)
        result = fit(fitted, loss.weights, ridge=ridge, prior=smoothness_prior(spec, power))
        both["fit"].append(loss)
        both["error"].append([error(held[kind], result.coefficients) for kind in KINDS[:2]])
    energies, forces = np.array(both["error"]).T
    best = np.argmin(np.where(forces <= 1.02 * forces.min(), energies, np.inf))
    assert energies[both["fit"].index(chosen)] <= energies[best] * (1 + 1e-6)
    everything, prior = compressed(frames), smoothness_prior(spec, chosen.power)
    expected = fit(everything, chosen.weights, ridge=chosen.ridge, prior=prior).coefficients
    found = whole_fit(spec, tmp_path / "cells.xyz")
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_searches_and_dynamics_are_measured():
    found = one_more_loss(3, 8, ONCE)
    assert found["ours"].shape == found["theirs"].shape == (1,)
    for by_ase in (False, True):
        step = dynamics(3, 216, ONCE, there=False, by_ase=by_ase)
        assert step["atoms"] == 216 and 0.0 < step["ours"][0] < 1.0
    told = from_file(3, "", 5, 8, 1, there=False)
    assert told["cells"] == 5 and told["atoms"] == 40 and told["compilations"] > 0
    assert told["ours"][0] < told["ours_cold"]


def test_both_factors_of_the_same_rows_are_the_same():
    """300 rows in blocks of 36: R^T R 1 to rounding; memory is that of the child alone."""
    size = dict(n_rows=300, n_columns=8, block=36)
    ours, theirs = (in_fresh_process(f"{kind}_factor", **size) for kind in ("streamed", "dense"))
    np.testing.assert_allclose(ours["probe"], theirs["probe"], rtol=1e-12)
    assert 0 < theirs["peak"] < ours["peak"] < 2.0


def test_one_row_from_end_to_end(tmp_path, capsys):
    """A line as it finishes, the table, strict JSON last; `--plot-only` says the same again."""
    flags = ["--only", "rows_floor_3", "degree_3", "atoms_8", "--results", str(tmp_path)]
    summary = benchmark.main(flags)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("rows_floor_3") and json.loads(out[-1]) == summary
    assert {"ratio", "target", "met", "ours", "theirs", "why"} <= summary["rows_floor_3"].keys()
    text = (tmp_path / "benchmark" / "benchmark.md").read_text()
    assert "`rows_floor_3`" in text and summary["rows_floor_3"]["device"] in text
    assert (tmp_path / "benchmark" / "benchmark.png").exists()
    again = benchmark.main([*flags, "--plot-only"])
    assert again["rows_floor_3"] == summary["rows_floor_3"]
    assert len(list(tmp_path.rglob("*.npz"))) == 3


def test_only_a_whole_paper_run_writes_into_the_repository(tmp_path, monkeypatch):
    """The folder of the figures is touched by `--preset paper` as it stands, and nothing less."""
    monkeypatch.setattr(benchmark, "PAPER_FIGURES", tmp_path / "paper")
    tiny = replace(benchmark.PRESETS["smoke"], only=("rows_floor_3",))
    benchmark.main(["--only", "rows_floor_3", "--results", str(tmp_path)])
    assert not (tmp_path / "paper").exists()
    monkeypatch.setitem(benchmark.PRESETS, "paper", tiny)
    benchmark.main(["--preset", "paper", "--results", str(tmp_path)])
    assert (tmp_path / "paper" / "benchmark.md").exists()


def test_a_first_budget_compiles_little_and_a_second_metal_nothing():
    """In a fresh process without the persistent cache: one program for each potential and shape.

    60 and 3 are what a reader was promised; a count is no timing.
    """
    found = in_fresh_process("budgets", cubes=3, radius=4.0)
    assert 10 < found["compiled_W"] <= 60 and found["compiled_Mo"] <= 3
