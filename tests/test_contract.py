"""Every function that takes a potential and a structure asks the same questions of them.

A wrong element, a graph that ends short, a structure where a graph is wanted, a potential without
cutoff: each is refused everywhere, and where the numbers are traced comes out as NaN.
Periodicity is the structure's own; padding has no energy, whatever a potential says there.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from lprjax.ace import ACESpec, linear_potential, site_basis
from lprjax.atoms import bcc, build_graph, diamond, from_ase, make_structure, supercell
from lprjax.atoms.graphs import moved
from lprjax.crystals import (
    acoustic_tensors,
    elastic_constants,
    equilibrium,
    force_constants,
    third_order_constants,
)
from lprjax.defects import hessian_solve, relax_defect, relaxed_formation_energy, vacancy
from lprjax.defects.far_field import lattice_orders
from lprjax.potentials import (
    ase_potential,
    graph_for,
    observe,
    observe_all,
    tersoff,
    total_energy,
    zhou_eam,
)
from lprjax.regression import design_rows
from lprjax.simulation import molecular_dynamics, relax

SPEC = ACESpec(("W",), order=2, degree=3, r_cut=4.5, r0=2.74)
LINEAR = linear_potential(SPEC, np.random.default_rng(0).normal(size=SPEC.n_columns))
EAM = zhou_eam("W")
CUBE, PRIMITIVE = bcc("Mo", 3.15), bcc("Mo", 3.15, primitive=True)
BLOCK = supercell(CUBE, (4, 4, 4))
KEYS = jax.random.split(jax.random.key(0), 2)


def dynamics(potential, structure):
    return molecular_dynamics(potential, [structure], KEYS[:1], [300.0, 300.0])


def second_of_two(potential, structure):
    """The first of the batch is all right."""
    tungsten = dataclasses.replace(structure, species=jnp.full(structure.n_atoms, 74))
    return molecular_dynamics(potential, [tungsten, structure], KEYS, [300.0, 300.0])


def at_a_defect(function):
    def call(potential, structure):
        defect = vacancy(structure, 2)
        return function(potential, defect, np.zeros((defect.lattice.n_sites, 3)))

    return call


TAKERS = {
    "relax": (relax, CUBE),
    "equilibrium": (equilibrium, CUBE),
    "elastic_constants": (elastic_constants, CUBE),
    "third_order_constants": (third_order_constants, PRIMITIVE),
    "acoustic_tensors": (acoustic_tensors, PRIMITIVE),
    "force_constants": (lambda p, s: force_constants(p, s, (2, 2, 2)), PRIMITIVE),
    "dynamics": (dynamics, BLOCK),
    "dynamics, second": (second_of_two, BLOCK),
    "lattice_orders": (lambda p, s: lattice_orders(p, s, np.zeros((s.n_atoms, 3))), CUBE),
    "relax_defect": (lambda p, s: relax_defect(p, vacancy(s, 2)), CUBE),
    "relaxed_formation_energy": (at_a_defect(relaxed_formation_energy), CUBE),
    "observe_all": (lambda p, s: observe_all(p, [graph_for(p, s)]), CUBE),
    "hessian_solve": (at_a_defect(lambda p, d, u: hessian_solve(p, d, u, u[1:])), CUBE),
}


@pytest.mark.parametrize("potential", [LINEAR, EAM], ids=["linear", "eam"])
@pytest.mark.parametrize("name", TAKERS)
def test_every_function_refuses_an_element_without_parameters(name, potential):
    function, molybdenum = TAKERS[name]
    with pytest.raises(ValueError, match="Mo|42"):
        function(potential, molybdenum)


@pytest.mark.parametrize("name", TAKERS)
def test_every_function_names_a_missing_cutoff(name):
    function, structure = TAKERS[name]
    with pytest.raises(TypeError, match="no r_cut"):
        function(lambda graph: jnp.zeros(graph.species.shape), structure)


GRAPH_TAKERS = {
    "direct call": lambda p, g: p(g),
    "observe": observe,
    "observe_all": lambda p, g: observe_all(p, [g]),
    "total_energy": total_energy,
    "relax": relax,
    "elastic_constants": elastic_constants,
    "third_order_constants": third_order_constants,
    "lattice_orders": lambda p, g: lattice_orders(p, g, np.zeros(g.positions.shape)),
}
SILICON = diamond("Si", 5.43, primitive=True)


@pytest.mark.parametrize("name", GRAPH_TAKERS)
@pytest.mark.parametrize(
    "potential, structure",
    [(LINEAR, bcc("W", 3.15)), (EAM, bcc("W", 3.15)), (tersoff(), SILICON)],
    ids=["linear", "eam", "tersoff"],
)
def test_every_function_refuses_a_graph_that_ends_short(name, potential, structure):
    short = build_graph(structure, 0.9 * potential.r_cut, n_atoms=2)
    with pytest.raises(ValueError, match="wanted a graph as wide"):
        GRAPH_TAKERS[name](potential, short)


def test_a_structure_is_no_graph():
    with pytest.raises(TypeError, match="Structure: wanted a Graph.*build_graph"):
        observe(EAM, bcc("W", 3.15))


MIXED = make_structure(CUBE.positions, CUBE.cell, ["W", "Mo"])


@pytest.mark.parametrize("potential", [LINEAR, EAM], ids=["linear", "eam"])
@pytest.mark.parametrize("case", ["short", "unknown", "one unknown"])
def test_under_jit_what_would_be_refused_is_nan_with_all_its_derivatives(potential, case):
    structure = {"short": bcc("W", 3.15), "unknown": CUBE, "one unknown": MIXED}[case]
    reach = (0.9 if case == "short" else 1.0) * potential.r_cut
    graph = build_graph(structure, reach)
    kinds = ("energy", "forces", "virial")
    labels = jax.jit(lambda graph: observe(potential, graph, kinds))(graph)
    for value in labels[:3]:
        assert np.isnan(value).all()
    assert np.isnan(jax.jit(potential)(graph)).all()


def test_under_jit_rows_of_what_would_be_refused_are_nan():
    for structure, reach in ((bcc("W", 3.15), 4.0), (CUBE, 4.5)):
        graph = build_graph(structure, reach)
        rows = jax.jit(lambda graph: design_rows(SPEC, graph, ("energy", "forces")))(graph)
        assert np.isnan(rows.energy).all() and np.isnan(rows.forces).any(axis=-1).all()
        assert np.isnan(jax.jit(lambda graph: site_basis(SPEC, graph))(graph)).all()


# --- periodicity ----------------------------------------------------------------------------


def test_a_calculator_sees_the_periodicity_of_the_structure():
    """A dimer, a slab and a crystal, against the calculator called by hand."""
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])
    slab = bulk("Cu", "fcc", a=3.6, cubic=True)
    slab.cell[2, 2], slab.pbc = 6.0, (True, True, False)
    crystal = bulk("Cu", "fcc", a=3.6, cubic=True)
    for calculator in (EMT(), LennardJones(sigma=2.3, epsilon=0.3, rc=5.0)):
        potential = ase_potential(calculator)
        for atoms in (dimer, slab, crystal):
            graph = build_graph(from_ase(atoms), potential.r_cut)
            atoms.calc = calculator
            expected = atoms.get_potential_energy()
            assert float(total_energy(potential, graph)) == pytest.approx(expected, rel=1e-12)


def test_a_dimer_relaxes_as_a_dimer():
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])
    potential = ase_potential(EMT())
    relaxed = relax(potential, from_ase(dimer), force_tolerance=1e-4)
    atoms = Atoms("Cu2", np.asarray(relaxed.positions), calculator=EMT())
    assert relaxed.converged and np.abs(atoms.get_forces()).max() < 1e-4
    assert relaxed.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


@pytest.mark.parametrize("function", [elastic_constants, third_order_constants, equilibrium])
def test_a_cluster_has_no_elasticity(function):
    cluster = make_structure(bcc("W", 3.15).positions, 9.0 * np.eye(3), "W", False)
    with pytest.raises(ValueError, match="cluster: wanted a crystal"):
        function(EAM, cluster)


# --- padding --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shifted:
    """3 eV less on every atom, on padding too: a user's isolated atoms."""

    base: object

    @property
    def r_cut(self):
        return self.base.r_cut

    def __call__(self, graph):
        return self.base(graph) - 3.0


def test_padding_has_no_energy_whatever_a_potential_says():
    """Five atoms, padded to six: every total is that of the potential less 15 eV."""
    three = supercell(bcc("W", 3.165), (3, 1, 1))
    five = make_structure(np.asarray(three.positions)[:5], three.cell, "W")
    ours, theirs = (
        (
            float(total_energy(p, build_graph(five, p.r_cut))) / 5,
            equilibrium(p, five).energy_per_atom,
            relax(p, five, max_evaluations=1).energy / 5,
        )
        for p in (Shifted(EAM), EAM)
    )
    np.testing.assert_allclose(np.array(ours) + 3.0, theirs, rtol=1e-12)


def test_a_users_graph_may_be_moved_and_keeps_its_periodicity():
    graph = build_graph(make_structure(CUBE.positions, CUBE.cell, "W", (True, False, True)), 4.0)
    assert moved(graph, graph.positions + 1.0).pbc == (True, False, True)
