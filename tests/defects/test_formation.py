"""Formation energies: what the atoms are taken from balances, and so no zero of energy counts.

The compound is B2 NiAl by Zhou's EAM at its equilibrium, so that numbers can be compared by hand.
"""

import dataclasses
from collections import Counter
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.data import atomic_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import bcc, fcc, make_structure, supercell
from lprjax.defects.bounds import force_residual, split_residual
from lprjax.defects.budget import error_budget
from lprjax.defects.catalogue import antisite, substitution
from lprjax.defects.defect import make_defect, relax_defect, vacancy, with_vacant_sites
from lprjax.defects.first_order import first_order_error
from lprjax.defects.formation import chemical_potentials, formation_energy, sources, undefined
from lprjax.defects.implicit_derivatives import relaxed_formation_energy
from lprjax.defects.quadratic_forms import error_forms, predicted_error
from lprjax.potentials import polynomial_bonds, zhou_eam
from lprjax.potentials.observables import total_energy

EAM = zhou_eam("Ni", "Al")
A = 2.98697778785
B2 = make_structure([[0, 0, 0], [A / 2] * 3], A * np.eye(3), ["Ni", "Al"])
NICKEL, ALUMINIUM, TUNGSTEN = fcc("Ni", 3.52), fcc("Al", 4.05), bcc("W", 3.165)
RESERVOIRS = {"Ni": NICKEL, "Al": ALUMINIUM}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shifted:
    """The same physics with other zeros of energy: so many eV more per atom of an element."""

    base: Any
    nickel: float = 0.0
    aluminium: float = 0.0

    r_cut = property(lambda self: self.base.r_cut)

    def __call__(self, graph):
        nickel = jnp.where(graph.species == 28, self.nickel, 0.0)
        return self.base(graph) + nickel + jnp.where(graph.species == 13, self.aluminium, 0.0)


def springs():
    """Bonds to two shells, under pressure, blind to the elements: quick to compile."""
    return polynomial_bonds([A * 0.75**0.5, A], [[-1.0, -0.4, 5.0], [-0.5, 0.2, 3.0]])


def exchanged():
    """A nickel and an aluminium atom in each other's place."""
    crystal = supercell(B2, (2, 2, 2))
    species = np.asarray(crystal.species).copy()
    species[[0, 1]] = species[[1, 0]]
    structure = dataclasses.replace(crystal, species=jnp.asarray(species))
    return make_defect(B2, 2, structure, np.arange(16), crystal.positions[0])


VACANCY = vacancy(B2, 2, site=0)  # of nickel
ANTISITE = antisite(B2, 2, site=1)  # nickel for aluminium
SCHOTTKY = with_vacant_sites(B2, 2, [0, 3], (0, 0, 0))  # one of each
PAIR = exchanged()
SOLUTE = substitution(TUNGSTEN, 2, "Ni")


def by_hand(potential, structure):
    return float(total_energy(potential, build_graph(structure, potential.r_cut)))


# --- what the cell is made of ---------------------------------------------------------------


@pytest.mark.parametrize(
    "defect, reservoirs, crystal, atoms",
    [
        (vacancy(TUNGSTEN, 2), "", 15, {}),
        (vacancy(TUNGSTEN, 2), ["W"], 16, {"W": -1}),
        (SOLUTE, ["Ni"], 15, {"Ni": 1}),
        (SOLUTE, ["Ni", "W"], 16, {"Ni": 1, "W": -1}),
        (VACANCY, ["Ni"], 16, {"Ni": -1}),
        (VACANCY, ["Al"], 14, {"Al": 1}),  # mu_Ni = E_cell - mu_Al
        (VACANCY, ["Ni", "Al"], 16, {"Ni": -1}),
        (ANTISITE, ["Ni"], 14, {"Ni": 2}),
        (ANTISITE, ["Ni", "Al"], 16, {"Ni": 1, "Al": -1}),
        (PAIR, "", 16, {}),
        (PAIR, ["Ni", "Al", "W"], 16, {}),
        (SCHOTTKY, "", 14, {}),
    ],
)
def test_atoms_come_from_the_crystal_and_from_reservoirs(defect, reservoirs, crystal, atoms):
    found = sources(defect, reservoirs)
    assert (found.crystal, found.reservoirs) == (crystal, atoms)


@pytest.mark.parametrize(
    "defect, reservoirs, missing",
    [
        (VACANCY, "", "Ni"),
        (ANTISITE, "", "Al"),
        (SOLUTE, "", "Ni"),
        (SOLUTE, ["W"], "Ni"),
        (substitution(B2, 2, "W", site=0), ["W"], "Ni"),
        (substitution(B2, 2, "W", site=0), "", "W, Ni"),
    ],
)
def test_what_is_missing_is_named(defect, reservoirs, missing):
    """And it is enough: with it there is a value."""
    why = undefined(defect, reservoirs)
    assert f"no reservoir is given for {missing}," in why
    assert undefined(defect, [*reservoirs, *missing.split(", ")]) is None
    with pytest.raises(ValueError, match="chemical_potentials=.*reservoirs="):
        formation_energy(-1.0, defect, -1.0, dict.fromkeys(reservoirs, 0.0))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_atoms_that_do_not_interact_form_defects_for_nothing(data):
    """E = sum of energies per element: E_f = 0 for any defect of any crystal, or it has no value.

    It has one with all reservoirs, and with all but one of an element of the crystal.
    """
    crystal = Counter(data.draw(st.lists(st.sampled_from(["Ni", "Al", "W"]), min_size=1)))
    sites = sum(crystal.values())
    cell = make_structure(
        np.arange(sites)[:, None] * np.array([2.5, 0, 0]), 2.5 * np.diag([sites, 1.0, 1.0]),
        list(crystal.elements()),
    )  # fmt: skip
    species = data.draw(st.lists(st.sampled_from(["Ni", "Al", "W", "Ta"]), min_size=2 * sites,
                                 max_size=2 * sites))  # fmt: skip
    bare = make_defect_cheaply(cell, species)
    zeros = {s: data.draw(st.integers(-10, 10)) for s in ("Ni", "Al", "W", "Ta")}
    energy = float(sum(zeros[s] for s in species))
    per_atom = Fraction(sum(zeros[s] * m for s, m in crystal.items()), sites)
    host = data.draw(st.sampled_from(sorted(crystal)))
    for given_ in (zeros, {s: e for s, e in zeros.items() if s != host}):
        found = formation_energy(energy, bare, float(per_atom), given_)
        assert found == pytest.approx(0.0, abs=1e-11 * sites)
    some = {s: zeros[s] for s in data.draw(st.sets(st.sampled_from(sorted(zeros))))}
    if undefined(bare, some) is None:
        found = formation_energy(energy, bare, float(per_atom), some)
        assert found == pytest.approx(0.0, abs=1e-11 * sites)


def make_defect_cheaply(cell, species):
    """A defect of two cells with any species on its sites, and nothing else that is right."""
    numbers = jnp.asarray([atomic_numbers[s] for s in species], jnp.int32)
    crystal = jnp.tile(cell.species, 2)
    lattice = dataclasses.replace(VACANCY.lattice, repeats=(2, 1, 1))
    return dataclasses.replace(
        VACANCY,
        lattice=lattice,
        reference=dataclasses.replace(cell, species=crystal),
        structure=dataclasses.replace(cell, species=numbers),
    )


# --- by potentials --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mu():
    return {symbol: by_hand(EAM, cell) / 4 for symbol, cell in RESERVOIRS.items()}


def test_values_by_hand(mu):
    """Before relaxation: with nickel at hand; with aluminium, nickel then being what the crystal
    leaves; and for what exchanges nothing or whole cells the plain difference."""
    cell = by_hand(EAM, B2)
    energies = {d: by_hand(EAM, d.structure) for d in (VACANCY, ANTISITE, PAIR, SCHOTTKY)}
    of = lambda d, *s: formation_energy(energies[d], d, cell / 2, {k: mu[k] for k in s})  # noqa: E731
    lattice = 8 * cell
    assert of(VACANCY, "Ni") == pytest.approx(energies[VACANCY] - lattice + mu["Ni"])
    assert of(VACANCY, "Al") == pytest.approx(energies[VACANCY] - lattice + cell - mu["Al"])
    assert of(ANTISITE, "Ni", "Al") == pytest.approx(
        energies[ANTISITE] - lattice + mu["Al"] - mu["Ni"]
    )
    assert of(PAIR) == pytest.approx(energies[PAIR] - lattice)
    assert of(SCHOTTKY) == pytest.approx(energies[SCHOTTKY] - 7 * cell)


@pytest.mark.parametrize(
    "defect, reservoirs",
    [(VACANCY, {"Ni": NICKEL}), (VACANCY, {"Al": ALUMINIUM}), (PAIR, None), (SCHOTTKY, None)],
)
@pytest.mark.parametrize("element", ["nickel", "aluminium"])
def test_the_zero_of_energy_of_an_element_does_not_count(defect, reservoirs, element):
    """An eV more for each of its atoms, and mu moves along: by 1e-11 of what cancels."""
    found = [
        relaxed_formation_energy(
            Shifted(EAM, **{element: shift}), defect, defect.start, reservoirs=reservoirs
        )
        for shift in (0.0, 1.0)
    ]
    assert abs(float(found[0])) > 0.01
    assert float(found[1]) == pytest.approx(float(found[0]), abs=1e-11)


def test_derivatives_have_the_reservoirs_in_them():
    """dE_f/d(zero) is zero with them; the defect alone would give the number of its atoms."""
    of = lambda p: relaxed_formation_energy(  # noqa: E731
        p, VACANCY, VACANCY.start, reservoirs={"Ni": NICKEL}
    )
    slope = jax.grad(of)(Shifted(springs(), nickel=0.5)).nickel
    assert float(slope) == pytest.approx(0.0, abs=1e-12)


def test_without_them_it_is_refused():
    with pytest.raises(ValueError, match=r"Ni -1.*no reservoir is given for Ni"):
        relaxed_formation_energy(EAM, VACANCY, VACANCY.start)


def test_a_reservoir_is_a_structure_of_its_element():
    of = lambda reservoirs: chemical_potentials(lambda s: 0.0, VACANCY, reservoirs)  # noqa: E731
    with pytest.raises(TypeError, match="reservoir of Ni is -4.45: wanted a Structure"):
        of({"Ni": -4.45})
    with pytest.raises(ValueError, match=r"reservoir of Ni has atomic numbers \[13\]"):
        of({"Ni": ALUMINIUM})


# --- errors between potentials --------------------------------------------------------------


HERE, ELSEWHERE = Shifted(springs()), Shifted(springs(), nickel=2.0)


@pytest.fixture(scope="module")
def relaxed():
    found = relax_defect(HERE, VACANCY)
    assert found.relaxed.converged
    return found.displacement


def test_identical_physics_has_no_error_or_none_that_is_known(relaxed):
    """The surrogate counts the energy of nickel from elsewhere: -2 eV, once, were it not for the
    reservoir. Geometry is not concerned."""
    pair = HERE, ELSEWHERE, VACANCY, relaxed
    for function in (force_residual, first_order_error):
        with pytest.warns(UserWarning, match="no reservoir is given for Ni"):
            unknown = function(*pair)
        known = function(*pair, reservoirs={"Ni": NICKEL})
        if function is force_residual:
            assert np.isnan(unknown[1]) and abs(known[1]) < 1e-10
            assert float(jnp.abs(unknown[0]).max()) < 1e-12
        else:
            assert np.isnan([unknown.energy, unknown.energy_at_reference]).all()
            assert unknown.geometry < 1e-10 and abs(known.energy) < 1e-10


@pytest.mark.filterwarnings("ignore:the defect changes")
def test_a_budget_says_what_is_missing():
    pair = HERE, ELSEWHERE, vacancy(B2, 3, site=0)  # gradients need three cells
    relaxed = relax_defect(HERE, pair[2]).displacement
    unknown = error_budget(*pair, 3.5, displacement=relaxed)
    assert np.isnan([unknown.energy_true, unknown.energy_first_order, unknown.energy_bound]).all()
    assert "energy: undefined; " in str(unknown) and "reservoirs={'Ni': ...}" in str(unknown)
    assert np.isfinite([unknown.geometry_true, unknown.geometry_first_order]).all()
    known = error_budget(*pair, 3.5, displacement=relaxed, reservoirs={"Ni": NICKEL})
    assert known.undefined is None and "undefined" not in str(known)
    assert abs(known.energy_true) < 1e-9 and abs(known.energy_first_order) < 1e-9
    split = split_residual(*pair, relaxed, 3.5, reservoirs={"Ni": NICKEL})
    assert abs(sum(split.energies.values())) < 1e-9


def test_forms_have_reservoirs_in_their_rows_and_leave_to_a_core_what_is_its(relaxed):
    """eta and E_f's error are those of the potential itself, whatever isolated atoms have: here of
    one with a core, of which nearest neighbours see some."""
    spec = ACESpec(("Ni", "Al"), order=1, degree=3, r_cut=3.5, r0=2.5, core=(1.5, 2.8))
    c = 1e-3 * np.random.default_rng(0).normal(size=spec.n_columns)
    with pytest.warns(UserWarning, match="no reservoir is given for Ni"):
        unknown = predicted_error(error_forms(spec, HERE, VACANCY, relaxed), c)
    assert np.isnan(unknown.energy) and np.isfinite(unknown.geometry)
    one, other = (
        error_forms(spec, p, VACANCY, relaxed, reservoirs=RESERVOIRS) for p in (HERE, ELSEWHERE)
    )
    assert other.energy == pytest.approx(one.energy, abs=1e-11)
    found = predicted_error(one, c)
    forces, energy = force_residual(
        HERE,
        linear_potential(spec, c, {"Ni": 3.0, "Al": -5.0}),
        VACANCY,
        relaxed,
        reservoirs=RESERVOIRS,
    )
    assert float(found.eta) == pytest.approx(float(VACANCY.lattice.negative_norm(forces)), rel=1e-8)
    assert float(found.energy + 0.5 * found.work) == pytest.approx(energy, abs=1e-9)
    assert abs(energy) > 0.01
