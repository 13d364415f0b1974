"""Calls that are counted once, and given again with noise of the size that was measured."""

import jax
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import fcc, make_structure, rattled, supercell
from lprjax.numerics.differences import Noise
from lprjax.potentials import ase_potential, cached_calculator, zhou_eam
from lprjax.potentials.observables import observe
from lprjax.potentials.recorded_calls import recorded
from tests.helpers.potentials import Noisy, lennard_jones

SIZE = 1e-4


@pytest.fixture
def shaken():
    return rattled(supercell(fcc("Cu", 2.6), (2, 2, 2)), jax.random.key(0), 0.04)


def test_the_same_is_computed_once_and_comes_out_as_it_was(shaken):
    calculator = Noisy(lennard_jones(), SIZE)
    potential, exact = ase_potential(calculator), zhou_eam("Cu")
    graph = build_graph(shaken, potential.r_cut)
    plain = observe(potential, graph)
    calculator.calls = 0
    with recorded(one=potential, other=exact) as (recorder, (ours, unchanged)):
        assert unchanged is exact
        for _ in range(3):
            found = observe(ours, graph)
            np.testing.assert_array_equal(found.forces, plain.forces)
            assert float(found.energy) == float(plain.energy)
        observe(ours, moved(graph, graph.positions + 0.01))
        assert recorder.calls == {"one": 2}
    assert calculator.calls <= 2  # ASE keeps the last


def test_a_bar_counts_parts_where_there_are_no_calls(shaken, monkeypatch):
    """Shown after a while, here at once; calls, where there are any, say more."""
    shown = []
    monkeypatch.setattr("lprjax.potentials.recorded_calls.tqdm", lambda **_: Bar(shown))
    with recorded(one=zhou_eam("Cu")) as (recorder, _):
        recorder.expect(0)
        for name in ("first", "second"):
            recorder.step(name, 2)
    assert shown == [("first: done", 1, 2), ("second: done", 2, 2)]
    potential = ase_potential(Noisy(lennard_jones(), SIZE))
    with recorded(one=potential) as (recorder, (ours,)):
        recorder.expect(0)
        observe(ours, build_graph(shaken, potential.r_cut))
        calls = list(shown)
        recorder.step("first", 2)
    assert shown == calls and shown[-1][0] == "1 calls of the one"


class Bar:
    """Of progress, which notes what it shows."""

    def __init__(self, shown):
        self.n, self.total, self.shown, self.text = 0, 0, shown, ""

    def set_description_str(self, text, refresh):
        self.text = text

    def update(self, n):
        self.n += n
        self.shown.append((self.text, self.n, self.total))

    def close(self):
        pass


def test_noise_has_the_size_that_was_measured_and_is_the_same_again(shaken):
    """Of 96 components, so to 7 %; forces keep their sum, and what was not measured its value."""
    potential = ase_potential(Noisy(lennard_jones(), SIZE))
    graph = build_graph(shaken, potential.r_cut)
    noise = potential.noise(graph)
    assert noise.forces == pytest.approx(SIZE, rel=0.2)
    with recorded(one=potential) as (recorder, (ours,)):
        plain = observe(ours, graph)
        draws = []
        for recorder.draw in (0, 1, 0):
            draws.append(observe(ours, graph))
        calls = recorder.calls["one"]
    changes = [np.asarray(d.forces - plain.forces)[: shaken.n_atoms] for d in draws]
    np.testing.assert_array_equal(changes[0], changes[2])
    assert abs(np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1]) < 0.4  # 4 / 96^(1/2)
    assert np.std(changes[0]) == pytest.approx(noise.forces, rel=0.3)
    np.testing.assert_allclose(changes[0].sum(axis=0), 0.0, atol=1e-12)
    assert 0 < abs(float(draws[0].energy - plain.energy)) < 5.0 * noise.energy
    assert calls == 1


def test_points_of_differences_have_their_own_noise(shaken):
    """Ten times that of other calls, as it is told."""
    potential = ase_potential(Noisy(lennard_jones(), SIZE))
    graph = build_graph(shaken, potential.r_cut)
    with recorded(one=potential) as (recorder, (ours,)):
        with potential.on_a_line(Noise(0.0, 1e-2, 0.0)):
            plain = observe(ours, graph)
        recorder.draw = 0
        change = np.asarray(observe(ours, graph).forces - plain.forces)[: shaken.n_atoms]
    assert np.std(change) == pytest.approx(1e-2, rel=0.3)


def moved_by(structure, shift):
    positions = np.asarray(structure.positions) + [shift, 0.0, 0.0]
    return make_structure(positions, structure.cell, structure.species)


def test_one_bar_is_enough(shaken, tmp_path):
    """A calculator whose results are kept on disk has its own bar, when it has no other."""
    cached = cached_calculator(Noisy(lennard_jones(), SIZE), tmp_path)
    potential = ase_potential(cached)
    with recorded(one=potential) as (_, (ours,)):
        observe(ours, build_graph(shaken, ours.r_cut))
        assert cached._bar is None
    observe(potential, build_graph(moved_by(shaken, 0.1), potential.r_cut))
    assert cached.calls == 2 and cached._bar is not None


def test_the_lattice_of_a_defect_has_the_noise_of_the_defect(shaken):
    """Of 31 atoms and of 32, which no power of two is to separate: measured once, and drawn of
    both; of 128 atoms it is another."""
    calculator = Noisy(lennard_jones(), SIZE)
    potential = ase_potential(calculator)
    defect = make_structure(np.asarray(shaken.positions)[1:], shaken.cell, "Cu")
    graphs = [build_graph(s, potential.r_cut) for s in (defect, shaken)]
    noise = potential.noise(graphs[0])
    before = calculator.calls
    assert potential.noise(graphs[1]) is noise and calculator.calls == before
    with recorded(one=potential) as (recorder, (ours,)):
        plain = [observe(ours, graph) for graph in graphs]
        recorder.draw = 0
        for graph, one in zip(graphs, plain, strict=True):
            change = np.asarray(observe(ours, graph).forces - one.forces)
            assert np.std(change[change != 0]) == pytest.approx(SIZE, rel=0.4)
    large = supercell(shaken, (2, 2, 1))
    assert potential.noise(build_graph(large, potential.r_cut)) is not noise
