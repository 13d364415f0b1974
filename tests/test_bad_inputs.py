"""What users get wrong, and what they are told: one line each, an error that names the fix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lprjax as lp
from lprjax.atoms.graphs import moved
from lprjax.crystals import (
    acoustic_tensors,
    force_constants,
    reference_lattice,
    stability,
    third_order_constants,
)
from lprjax.potentials import polynomial_bonds

CUBE = 3.0 * np.eye(3)
W = lp.bcc("W", 3.165)
PRIMITIVE = lp.bcc("W", 3.165, primitive=True)
BLOCK = lp.supercell(W, (4, 4, 4))
EAM = lp.zhou_eam("W")
SPEC = lp.ACESpec(("W",), order=2, degree=3, r_cut=4.5, r0=2.74)
LINEAR = lp.linear_potential(SPEC, np.zeros(SPEC.n_columns))
KEYS = jax.random.split(jax.random.key(0), 1)


def spec(**changes):
    return lp.ACESpec(**{**dict(elements=("W",), order=2, degree=3, r_cut=4.5, r0=2.74), **changes})


def graph(structure=W, r_cut=EAM.r_cut, **options):
    return lp.build_graph(structure, r_cut, **options)


def structure(positions=((0, 0, 0),), cell=CUBE, species="W", pbc=True):
    return lp.make_structure(positions, cell, species, pbc)


def run(**changes):
    arguments = dict(structures=[BLOCK], keys=KEYS, temperatures=[300.0])
    return lp.molecular_dynamics(EAM, **{**arguments, **changes})


@dataclasses.dataclass(frozen=True)
class Sites:
    """Whatever it is told, as site energies."""

    value: object
    r_cut: object = 3.0

    def __call__(self, graph):
        return self.value(graph)


TABLE = {
    # atoms
    "positions that are not (n, 3)": (lambda: structure([[0, 0]]), ValueError, "positions.*3"),
    "a NaN position": (lambda: structure([[0, 0, np.nan]]), ValueError, "positions.*finite|NaN"),
    "an infinite cell": (lambda: structure(cell=np.diag([3, 3, np.inf])), ValueError, "cell"),
    "no atoms": (lambda: structure(np.zeros((0, 3))), ValueError, "at least one atom"),
    "a flat cell": (lambda: structure(cell=np.diag([3.0, 3.0, 0.0])), ValueError, "singular"),
    "an unknown symbol": (lambda: structure(species="Xx"), ValueError, "'Xx'.*chemical symbol"),
    "an atomic number of zero": (lambda: structure(species=[0]), ValueError, "from 1 to 118"),
    "too few species": (
        lambda: structure([[0, 0, 0], [1, 1, 1]], species=["W"]),
        ValueError,
        "length 1: wanted 2",
    ),
    "two flags of periodicity": (lambda: structure(pbc=(True, False)), ValueError, "pbc"),
    "a negative lattice constant": (lambda: lp.bcc("W", -3.0), ValueError, "positive length"),
    "repeats of a half": (lambda: lp.supercell(W, (1, 1, 0.5)), ValueError, "three integers"),
    "a slab repeated upwards": (
        lambda: lp.supercell(structure(pbc=(True, True, False)), (1, 1, 2)),
        ValueError,
        "not.*periodic",
    ),
    "a strain in Voigt form": (lambda: lp.strained(W, np.zeros(6)), ValueError, r"\(3, 3\)"),
    "two widths of a rattle": (
        lambda: lp.rattled(W, jax.random.key(0), [0.1, 0.1]),
        ValueError,
        "a number or three",
    ),
    "an ase file's molecule in three dimensions": (
        lambda: lp.from_ase(lp.to_ase(W)[:0]),
        ValueError,
        "at least one atom",
    ),
    # graphs
    "a cutoff in words": (lambda: lp.build_graph(W, "5"), ValueError, "r_cut is '5'"),
    "no cutoff": (lambda: lp.build_graph(W, None), ValueError, "r_cut is None"),
    "a cutoff of zero": (lambda: lp.build_graph(W, 0.0), ValueError, "positive length"),
    "a negative skin": (lambda: lp.build_graph(W, 4.0, skin=-1.0), ValueError, "skin"),
    "two atoms on one site": (
        lambda: graph(structure([[0, 0, 0], [0, 0, 3.0]])),
        ValueError,
        "atoms 0 and 1.*duplicated",
    ),
    "fractional coordinates": (
        lambda: graph(structure([[0, 0, 0], [0.05, 0.05, 0.05]])),
        ValueError,
        "fractional",
    ),
    "metres": (
        lambda: graph(structure([[0, 0, 0], [0, 0, 1e5]], pbc=False)),
        ValueError,
        "check the units",
    ),
    "too few places for atoms": (lambda: graph(n_atoms=1), ValueError, "n_atoms is 1.*at least 2"),
    "no structures": (lambda: lp.build_graphs([], 4.0), ValueError, "structures is empty"),
    # potentials
    "a structure for a graph": (lambda: lp.observe(EAM, W), TypeError, "wanted a Graph"),
    "a number for a potential": (lambda: lp.observe(3.0, graph()), TypeError, "float.*callable"),
    "an unknown kind": (
        lambda: lp.observe(EAM, graph(), "stress"),
        ValueError,
        "kinds is 'stress'",
    ),
    "no kinds": (lambda: lp.observe(EAM, graph(), ()), ValueError, "one or more"),
    "an atom that is not there": (
        lambda: lp.observe(EAM, graph(), "force_constants", atoms=[2]),
        ValueError,
        "from 0 to 1",
    ),
    "a total in place of site energies": (
        lambda: lp.observe(Sites(lambda g: jnp.zeros(())), graph()),
        ValueError,
        "one per atom",
    ),
    "a cutoff of the potential that is negative": (
        lambda: lp.observe(Sites(lambda g: jnp.zeros(2), -1.0), graph()),
        ValueError,
        "r_cut of Sites",
    ),
    "metals as a list": (lambda: lp.zhou_eam(["W"]), ValueError, "no parameters for"),
    "a metal's cutoff in words": (lambda: lp.zhou_eam("W", r_cut="5"), ValueError, "r_cut is '5'"),
    "an unknown metal": (lambda: lp.zhou_eam("Au"), ValueError, "no parameters for.*Au"),
    "another element than silicon": (
        lambda: lp.observe(lp.stillinger_weber(), graph()),
        ValueError,
        "74.*Si",
    ),
    "bonds that do not ascend": (
        lambda: polynomial_bonds([2.0, 1.0], np.zeros((2, 3))),
        ValueError,
        "ascend",
    ),
    "no structure to validate on": (lambda: lp.validate(EAM, graph()), TypeError, "Structure"),
    # ace
    "an unknown element of a basis": (lambda: spec(elements=("Xx",)), ValueError, "Xx"),
    "an element twice": (lambda: spec(elements=("W", "W")), ValueError, "W"),
    "a correlation order of zero": (lambda: spec(order=0), ValueError, "order"),
    "a degree of a half": (lambda: spec(degree=2.5), ValueError, "degree"),
    "a basis that ends before its nearest neighbours": (
        lambda: spec(r_cut=2.0),
        ValueError,
        "r_cut|r0",
    ),
    "coefficients of another basis": (
        lambda: lp.linear_potential(SPEC, np.zeros(3)),
        ValueError,
        "coefficients",
    ),
    "isolated atoms left out": (
        lambda: lp.linear_potential(SPEC, np.zeros(SPEC.n_columns), {"Mo": 1.0}),
        ValueError,
        "lack.*W",
    ),
    "a site basis of a structure": (lambda: lp.site_basis(SPEC, W), TypeError, "wanted a Graph"),
    "rows of a structure": (lambda: lp.design_rows(SPEC, W), TypeError, "wanted a Graph"),
    # crystals
    "elasticity of a padded graph": (
        lambda: lp.elastic_constants(EAM, graph(n_atoms=3)),
        ValueError,
        "without padding",
    ),
    "acoustic tensors of two atoms": (
        lambda: acoustic_tensors(EAM, W),
        ValueError,
        "primitive=True",
    ),
    "a direction of length zero": (
        lambda: acoustic_tensors(EAM, PRIMITIVE, [[0, 0, 0]]),
        ValueError,
        "directions",
    ),
    "elasticity of a cluster": (
        lambda: third_order_constants(EAM, structure(pbc=False)),
        ValueError,
        "cluster",
    ),
    "phonons of half a cell": (
        lambda: force_constants(EAM, PRIMITIVE, (2, 2, 0)),
        ValueError,
        "repeats",
    ),
    "one wave vector that is no list": (
        lambda: force_constants(EAM, PRIMITIVE, (2, 2, 2)).at([0.1, 0.2, 0.3]),
        ValueError,
        r"\(n, 3\)",
    ),
    "stability in other cells": (
        lambda: stability(
            force_constants(EAM, PRIMITIVE, (2, 2, 2)), reference_lattice(PRIMITIVE, (3, 3, 3))
        ),
        ValueError,
        "same unit cell and repeats",
    ),
    # defects and fits, whose own tables hold more
    "a displacement of other sites": (
        lambda: lp.relaxed_formation_energy(EAM, lp.vacancy(W, 3), np.zeros((3, 3))),
        ValueError,
        "one row for each of the 54 sites",
    ),
    "weights without a kind": (
        lambda: lp.fit(lp.compress_structures(SPEC, [(graph(), lp.observe(EAM, graph()))]), {}),
        ValueError,
        "weights",
    ),
    "no samples": (lambda: lp.compress_structures(SPEC, []), ValueError, "samples is empty"),
    "a file that is not there": (
        lambda: lp.read_extxyz("nowhere.xyz"),
        FileNotFoundError,
        "nowhere.xyz",
    ),
    "a folder to save to that is not there": (
        lambda: lp.save("nowhere/potential.npz", LINEAR),
        (FileNotFoundError, OSError),
        "nowhere",
    ),
    # simulation
    "a tolerance of zero": (
        lambda: lp.relax(EAM, W, force_tolerance=0.0),
        ValueError,
        "force_tolerance",
    ),
    "a mask of numbers": (lambda: lp.relax(EAM, W, free=[1, 0]), ValueError, "free.*bool"),
    "dynamics in a small cell": (lambda: run(structures=[W]), ValueError, "larger supercell"),
    "a temperature in Celsius": (lambda: run(temperatures=[-20.0]), ValueError, "below 0 K"),
    "a temperature alone": (lambda: run(temperatures=300.0), ValueError, "one per step"),
    "a temperature of NaN": (lambda: run(temperatures=[np.nan]), ValueError, "temperatures"),
    "keys for two cells": (
        lambda: run(keys=jax.random.split(KEYS[0], 2)),
        ValueError,
        "one for each structure",
    ),
    "velocities of NaN": (
        lambda: run(velocities=np.full((1, 128, 3), np.nan)),
        ValueError,
        "velocities",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_inputs_are_named(name):
    call, error, words = TABLE[name]
    with pytest.raises(error, match=words):
        call()


def test_without_float64_nothing_is_computed():
    jax.config.update("jax_enable_x64", False)
    try:
        for call in (lambda: structure(), lambda: lp.observe(EAM, None), lambda: lp.relax(EAM, W)):
            with pytest.raises(RuntimeError, match="jax_enable_x64"):
                call()
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_graph_moved_to_another_number_of_atoms_is_refused():
    with pytest.raises(ValueError, match="positions"):
        moved(graph(), np.zeros((3, 3)))
