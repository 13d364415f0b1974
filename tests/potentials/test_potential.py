"""What every potential needs: a place in jit, a cutoff, a graph, a sum over the real atoms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph, moved
from lprjax.atoms.structures import bcc, make_structure
from lprjax.potentials.potential import (
    as_argument,
    check_reach,
    check_species,
    cutoff_of,
    graph_for,
    nan_unless,
    species_index,
    total_energy_of,
)

CELL = bcc("W", 3.16)
PAIR = make_structure([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]], 9.0 * np.eye(3), "H", False)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Springs:
    """Half of stiffness (r - 1 Å)^2 / 2 at both ends of a bond; counts how often it is traced."""

    stiffness: jax.Array
    r_cut = 2.0
    traces = []

    def __call__(self, graph):
        self.traces.append(1)
        stretch = jnp.where(graph.edge_mask, jnp.linalg.norm(graph.vectors(), axis=-1) - 1.0, 0.0)
        return 0.25 * self.stiffness * jnp.sum(stretch**2, axis=1)


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same site energy everywhere, on padding too."""

    value: float
    r_cut: float = 3.0

    def __call__(self, graph):
        return jnp.full(graph.species.shape, self.value)


@dataclasses.dataclass
class Refusing:
    """Remembers what it was asked to check, and refuses tungsten."""

    r_cut: float
    seen: list

    def __call__(self, graph):
        return jnp.zeros(graph.species.shape)

    def check(self, graph):
        self.seen.append(graph)
        if 74 in np.asarray(graph.species):
            raise ValueError("no tungsten here")


# --- as an argument of jit ------------------------------------------------------------------

energy_of = jax.jit(lambda potential, graph: total_energy_of(potential, graph))


def test_a_pytree_of_numbers_is_its_own_argument_and_new_numbers_compile_nothing():
    graph = build_graph(PAIR, 2.0)
    Springs.traces.clear()
    for stiffness in (1.0, 2.0, 8.0):
        spring = Springs(jnp.asarray(stiffness))
        argument = as_argument(spring, "potential")
        assert argument is spring
        assert float(energy_of(argument, graph)) == pytest.approx(stiffness / 8.0, rel=1e-15)
    assert len(Springs.traces) == 1
    for plain in (Springs(3.0), Springs(3), Springs(np.ones(2))):
        assert as_argument(plain, "potential") is plain


def test_what_is_hashed_is_static_by_its_value():
    """Equal values share one compilation, other values get their own and not the first one's."""
    graph = build_graph(PAIR, 2.0)
    compiled = energy_of._cache_size()
    for value, new in ((1.0, 1), (1.0, 1), (3.0, 2)):
        argument = as_argument(Constant(value, r_cut=2.0), "potential")
        assert not jax.tree.leaves(argument)
        assert float(energy_of(argument, graph)) == 2 * value
        assert energy_of._cache_size() == compiled + new


def test_a_plain_function_is_an_argument():
    argument = as_argument(lambda graph: jnp.ones(graph.species.shape), "potential")
    assert float(energy_of(argument, build_graph(PAIR, 2.0))) == 2.0


def test_what_jit_cannot_take_is_named():
    with pytest.raises(TypeError, match="surrogate.*Refusing.*neither.*hashable"):
        as_argument(Refusing(3.0, []), "surrogate")
    for no_function in (3.0, np.eye(2), None):
        with pytest.raises(TypeError, match=f"surrogate.*{type(no_function).__name__}.*callable"):
            as_argument(no_function, "surrogate")


# --- cutoffs and graphs ---------------------------------------------------------------------


def test_the_cutoff_is_the_potentials_own():
    """Nobody can set a shorter one, with which part of the energy would be lost."""
    assert cutoff_of(Constant(0.0, r_cut=4.5)) == 4.5
    assert type(cutoff_of(Constant(0.0, r_cut=np.float64(2.5)))) is float
    with pytest.raises(TypeError, match="Constant.*r_cut"):
        cutoff_of(Constant(0.0, r_cut=None))
    for wrong in (-1.0, 0.0, np.inf, np.nan, [3.0]):
        with pytest.raises(ValueError, match="r_cut of Constant.*positive length"):
            cutoff_of(Constant(0.0, r_cut=wrong))


def neighbours(graph):
    return np.asarray(graph.neighbour_counts())


def test_a_structure_is_searched_within_the_cutoff():
    """bcc has 8 neighbours up to 0.87 a and 6 more up to a = 3.16 Å."""
    for options, reach, expected in (
        ({}, 3.0, 8),
        ({"skin": 0.5}, 3.5, 14),
    ):
        graph = graph_for(Constant(0.0, r_cut=3.0), CELL, **options)
        assert neighbours(graph).tolist() == [expected] * 2
        assert float(graph.reach) == pytest.approx(reach)
    assert graph_for(Constant(0.0), CELL, n_atoms=5).species.tolist() == [74, 74, 0, 0, 0]
    with pytest.raises(TypeError, match="r_cut"):
        graph_for(lambda graph: graph, CELL)


def test_a_graph_passes_as_it_is_and_needs_no_cutoff():
    graph = build_graph(CELL, 4.0)
    assert graph_for(lambda graph: graph, graph, skin=1.0) is graph


def test_the_potential_checks_whatever_graph_it_gets():
    refusing = Refusing(2.0, [])
    graph = graph_for(refusing, PAIR)
    assert refusing.seen == [graph] and neighbours(graph)[:2].tolist() == [1, 1]
    assert graph_for(refusing, graph) is graph and len(refusing.seen) == 2
    for refused in (CELL, build_graph(CELL, 2.0)):
        with pytest.raises(ValueError, match="no tungsten"):
            graph_for(refusing, refused)


def test_neighbours_of_known_atoms_are_found_where_the_potential_is_traced():
    """Inside a user's jit over the coefficients: the structure is numbers, the energy is not."""

    @jax.jit
    def energy(stiffness):
        potential = Springs(stiffness)
        return total_energy_of(potential, graph_for(potential, PAIR))

    assert float(energy(4.0)) == pytest.approx(0.5)
    assert float(jax.grad(energy)(4.0)) == pytest.approx(0.125)


def test_a_search_that_ends_short_of_the_cutoff_is_refused_unless_traced():
    graph = build_graph(CELL, 3.0, skin=0.5)
    check_reach(graph, 3.5, "it")
    with pytest.raises(ValueError, match="3.5.*short one.*3.6"):
        check_reach(graph, 3.6, "short one")
    with pytest.raises(ValueError, match="wide one"):  # by more than rounding
        check_reach(graph, 3.5 * (1 + 1e-6), "wide one")
    jax.jit(lambda graph: check_reach(graph, 9.0, "it"))(graph)


def test_where_a_search_ended_short_no_derivative_looks_like_an_answer():
    """Inside `jit`, where the reach cannot be refused: NaN, where a choice would give zero."""
    graph = build_graph(PAIR, 1.8)
    of = lambda x, graph: total_energy_of(Springs(jnp.ones(())), moved(graph, x))  # noqa: E731
    energy, slope = jax.jit(jax.value_and_grad(of))(graph.positions, graph)
    assert np.isnan(energy) and np.isnan(slope[:2]).all()


# --- energies -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_atoms", [2, 7])
def test_the_energy_is_the_sum_over_the_atoms_that_exist(n_atoms):
    """A constant on padding atoms too counts twice, for two atoms, whatever the padding."""
    graph = build_graph(CELL, 3.0, n_atoms=n_atoms)
    assert float(total_energy_of(Constant(-8.9), graph)) == pytest.approx(-17.8, rel=1e-15)
    lost = lambda graph: jnp.where(graph.atom_mask, 1.0, jnp.nan)  # noqa: E731
    assert float(total_energy_of(lost, graph)) == 2.0


@pytest.mark.parametrize("shape", [lambda g: g.edge_mask.shape, lambda g: (), lambda g: (1,)])
def test_site_energies_of_another_shape_are_refused(shape):
    graph = build_graph(CELL, 3.0, n_atoms=3)
    with pytest.raises(ValueError, match=r"site energies of shape .*one per atom.*\(3,\)"):
        total_energy_of(lambda graph: jnp.zeros(shape(graph)), graph)


def test_unknown_elements_have_no_energy_and_never_another_ones():
    """Under jit too; padding, of number 0, has that of the first element, to be masked."""
    species, energies = jnp.array([74, 42, 73, 0, 118]), jnp.arange(5.0)

    def of_known(species, energies):
        return nan_unless(species_index(species, (42, 74)) >= 0, energies)

    for run in (of_known, jax.jit(of_known)):
        np.testing.assert_array_equal(run(species, energies), [0.0, 1.0, np.nan, 3.0, np.nan])
    assert species_index(species, (42, 74)).tolist() == [1, 0, -1, 0, -1]


def test_unknown_elements_are_named_unless_traced():
    known = {"Mo": 42, "W": 74}
    check_species(jnp.array([74, 42, 0]), known, "it")
    with pytest.raises(ValueError, match="the table") as refused:
        check_species(jnp.array([118, 74, 73, 0]), known, "the table")
    assert all(word in str(refused.value) for word in ("73", "118", "Mo", "W"))
    jax.jit(lambda species: check_species(species, known, "it"))(jnp.array([1]))
