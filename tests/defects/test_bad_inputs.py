"""What users get wrong with potentials, models and defects, one line each, with what is said."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

import lprjax as lp
from lprjax import defects
from lprjax.defects.defect import with_vacant_sites
from lprjax.models import site_features, unseen_variance
from lprjax.potentials import polynomial_bonds

EAM = lp.zhou_eam("W")
W, SILICON = lp.bcc("W", 3.165), lp.diamond("Si", 5.43)
B2 = lp.make_structure([[0, 0, 0], [1.5] * 3], 3 * np.eye(3), ["Ni", "Al"])
VACANCY, OF_NICKEL = lp.vacancy(W, 2), lp.vacancy(B2, 2, site=0)
U = VACANCY.start
NOWHERE = np.full((16, 3), np.nan)
SPEC = lp.ACESpec(("W",), order=2, degree=3, r_cut=4.5, r0=2.74)
LINEAR = lp.linear_potential(SPEC, np.zeros(SPEC.n_columns))
ROWS = np.random.default_rng(0).normal(size=(4, SPEC.n_columns))
NETWORK = lp.network_potential(SPEC, ROWS, (2,), jax.random.key(0))
GRAPH = lp.build_graph(VACANCY.structure, 6.2)
LABELS = lp.Labels(energy=0.0, forces=np.zeros((15, 3)))
CONSTANTS = defects.WeightConstants(*[1.0] * 7)
V, T = ValueError, TypeError


def made(structure=VACANCY.structure, sites=range(15), centre=(0, 0, 0), **options):
    return defects.make_defect(W, 2, structure, list(sites), centre, **options)


def enlarged():
    return lp.make_structure(VACANCY.structure.positions, 9 * np.eye(3), "W")


def kernel(spec=SPEC, rows=ROWS, n=2, **options):
    return lp.kernel_potential(spec, rows, n, **options)


def network(hidden=(2,), rows=ROWS):
    return lp.network_potential(SPEC, rows, hidden, jax.random.key(0))


def trained(labels=LABELS, weights=None, steps=1, samples=None, **options):
    samples = [(GRAPH, labels)] if samples is None else samples
    weights = {"energy": 1.0} if weights is None else weights
    return lp.train(NETWORK, samples, weights, jax.random.key(0), steps, **options)


def bonds(radii=(1.5, 2.0), coefficients=((0, 0, 1.0), (0, 0, 1.0)), **options):
    return polynomial_bonds(radii, coefficients, **options)


def formed(defect, chemical_potentials=None):
    return lp.formation_energy(1.0, defect, 1.0, chemical_potentials)


def budget(radius=4.0, displacement=U, reference=EAM, defect=VACANCY):
    return lp.error_budget(reference, EAM, defect, radius, displacement=displacement)


def wide_budget(radius):
    wide = lp.vacancy(W, 3)
    return budget(radius, np.zeros((wide.lattice.n_sites, 3)), defect=wide)


TABLE = {
    # which defect, in which crystal
    "a graph for a crystal": (lambda: lp.vacancy(GRAPH, 2), T, "unit_cell is a Graph"),
    "no repeats": (lambda: lp.vacancy(W, 0), V, "repeats.*integers >= 1"),
    "half a repeat": (lambda: lp.vacancy(W, 1.5), V, "repeats.*integers >= 1"),
    "a site of -1": (lambda: lp.vacancy(W, 2, site=-1), V, "site is -1: wanted.*0 to 15"),
    "half a site": (lambda: lp.vacancy(W, 2, site=1.5), V, "site is 1.5: wanted.*a whole number"),
    "all atoms taken out": (
        lambda: with_vacant_sites(W, 2, range(16), (0, 0, 0)), V, "all 16 sites.*larger repeats"
    ),
    "a negative radius": (lambda: lp.vacancy(W, 2, radius=-1.0), V, "radius is -1.0.*positive"),
    "a radius of NaN": (lambda: lp.vacancy(W, 2, radius=np.nan), V, "radius is nan.*positive"),
    "a shell of zero": (lambda: lp.divacancy(W, 2, 0), V, "neighbour is 0: wanted a shell from 1"),
    "a dumbbell along nothing": (
        lambda: defects.dumbbell(W, 2, (0, 0, 0)), V, "direction.*not all zero"
    ),
    "a dumbbell of 50 Å": (
        lambda: defects.dumbbell(W, 2, (1, 0, 0), 50.0), V, "separation is 50.0 Å.*5.48 Å"
    ),
    "a tetrahedral site in bcc": (lambda: defects.tetrahedral(W, 2), V, "such as diamond"),
    "an element of no name": (lambda: defects.substitution(W, 2, "Xx"), V, "element is 'Xx'"),
    "a fraction of an element": (lambda: defects.substitution(W, 2, 28.7), V, "element is 28.7"),
    "None for an element": (lambda: defects.substitution(W, 2, None), V, "element is None"),
    "the element that is there": (lambda: defects.substitution(W, 2, "W"), V, "other than 74"),
    "an antisite of an element": (lambda: defects.antisite(W, 2), V, "wanted two of them"),
    "a crack of no length": (lambda: defects.micro_crack(W, 2, 0), V, "length is 0"),
    "another name": (lambda: lp.named_defect("void", W, 2), V, "'void': wanted one of vacancy"),
    "a site named twice": (lambda: made(sites=[0] * 15), V, "wanted a different site for each"),
    "sites that are no integers": (
        lambda: made(sites=np.arange(15) + 0.5), V, "wanted a different site for each"
    ),
    "a centre of NaN": (lambda: made(centre=(0, 0, np.nan)), V, "centre is nan"),
    "a centre in the plane": (lambda: made(centre=(0, 0)), V, r"centre has shape \(2,\)"),
    "a structure in another cell": (lambda: made(enlarged()), V, "wanted that of the supercell"),
    "a domain without atoms": (lambda: defects.clamped(VACANCY, -1.0), V, "wanted some, and not"),
    # relaxed, and its energies
    "arguments exchanged": (lambda: lp.relax_defect(VACANCY, EAM), T, "defect is a ZhouEAM"),
    "a start of another shape": (
        lambda: lp.relax_defect(EAM, VACANCY, displacement=U[:3]), V, "each of the 16 sites"
    ),
    "a start of NaN": (
        lambda: lp.relax_defect(EAM, VACANCY, displacement=NOWHERE), V, "positions is nan"
    ),
    "a tolerance below zero": (
        lambda: lp.relax_defect(EAM, VACANCY, force_tolerance=-1.0), V, "force_tolerance is -1.0"
    ),
    "another element's potential": (
        lambda: lp.relax_defect(lp.zhou_eam("Mo"), VACANCY), V, r"number\(s\) \[74\].*Mo \(42\)"
    ),
    "a number of atoms": (lambda: formed(15), T, "defect is a int: wanted a Defect"),
    "no reservoir": (lambda: formed(OF_NICKEL), V, "no reservoir is given for Ni"),
    "a reservoir of no element": (lambda: formed(VACANCY, {"w": 1.0}), V, r"\['w'\].*symbols"),
    "one number for all reservoirs": (lambda: formed(OF_NICKEL, -4.0), T, "numbers by symbol"),
    "a structure for a number": (lambda: formed(OF_NICKEL, {"Ni": W}), T, "of Structure: wanted"),
    "a number for a structure": (
        lambda: lp.relaxed_formation_energy(EAM, VACANCY, U, reservoirs={"W": -8.0}),
        T,
        "reservoir of W is -8.0: wanted a Structure",
    ),
    "another element's reservoir": (
        lambda: lp.relaxed_formation_energy(EAM, VACANCY, U, reservoirs={"W": SILICON}),
        V,
        r"reservoir of W has atomic numbers \[14\]",
    ),
    # errors of surrogates
    "training data to NaN": (lambda: wide_budget(np.nan), V, "radius is nan.*one with atoms"),
    "training data beyond the cell": (lambda: wide_budget(99.0), V, "radius is 99.*beyond it"),
    "a cell too small for its gradients": (budget, V, r"at least \(3, 3, 3\) unit cells"),
    "a geometry of another shape": (lambda: budget(displacement=U[:3]), V, "each of the 16 sites"),
    "a geometry of NaN": (lambda: budget(displacement=NOWHERE), V, "displacement holds NaN"),
    "a name for a potential": (lambda: budget(reference="EAM"), T, "potential is a str"),
    "a crystal for a defect": (lambda: budget(defect=W), T, "defect is a Structure"),
    "a tolerance of zero": (
        lambda: lp.first_order_error(EAM, EAM, VACANCY, U, tolerance=0.0), V, "tolerance is 0.0"
    ),
    "no products": (
        lambda: lp.first_order_error(EAM, EAM, VACANCY, U, max_iterations=0), V, "max_iterations"
    ),
    "forms of a potential": (
        lambda: lp.error_forms(LINEAR, EAM, VACANCY, U), T, "spec is a LinearPotential.*its .spec"
    ),
    "single precision": (
        lambda: lp.error_forms(SPEC, EAM, VACANCY, np.zeros((16, 3), np.float32)), T, "float32"
    ),
    "forces of NaN": (
        lambda: defects.hessian_solve(EAM, VACANCY, U, NOWHERE), V, "forces hold NaN"
    ),
    "forces of another shape": (
        lambda: defects.hessian_solve(EAM, VACANCY, U, U[:3]), V, "each of the 16 sites"
    ),
    "a direction without strain": (
        lambda: defects.lipschitz_estimate(EAM, VACANCY, U, 0 * U), V, "strains the lattice"
    ),
    "geometries of two shapes": (
        lambda: defects.geometry_error(VACANCY, U, U[:3]), V, "each of the 16 sites"
    ),
    "weights of a compound": (
        lambda: lp.weight_constants(OF_NICKEL, U, 4.0, 5.0), V, "no Bravais lattice"
    ),
    "weights of no neighbours": (
        lambda: lp.weight_constants(VACANCY, U, 0.1, 5.0), V, "radius is 0.1 Å.*first neighbours"
    ),
    "weights of no cells": (
        lambda: lp.recommended_weights(
            CONSTANTS, defect_cells=0, strained_cells=1, strained_volume=1.0, strain=0.1
        ),
        V,
        "defect_cells is 0",
    ),
    # potentials with parameters
    "an element without parameters": (lambda: lp.zhou_eam("Si"), V, r"for \['Si'\].*of Cu, Ni"),
    "a list of elements": (lambda: lp.zhou_eam(["W", "Mo"]), V, "no parameters for.*'W', 'Mo'"),
    "a cutoff of NaN": (lambda: lp.zhou_eam("W", r_cut=np.nan), V, "r_cut is nan.*positive"),
    "silicon as tungsten": (
        lambda: lp.observe(EAM, lp.build_graph(SILICON, 7.0)), V, r"number\(s\) \[14\].*W \(74\)"
    ),
    "tungsten as silicon": (
        lambda: lp.observe(lp.stillinger_weber(), GRAPH), V, r"number\(s\) \[74\].*Si \(14\)"
    ),
    "tungsten as Tersoff's": (lambda: lp.tersoff()(GRAPH), V, r"number\(s\) \[74\].*Si \(14\)"),
    "neighbours that end early": (
        lambda: lp.observe(lp.stillinger_weber(), lp.build_graph(SILICON, 2.5)),
        V,
        "up to 2.5 Å.*3.77118 Å.*build_graph",
    ),
    "radii that descend": (lambda: bonds((2.0, 1.5)), V, "radii.*ascend"),
    "a coefficient of NaN": (
        lambda: bonds(coefficients=((0, 0, np.nan), (0, 0, 1))), V, "coefficients hold NaN"
    ),
    "a shell too few": (lambda: bonds(coefficients=((0, 0, 1),)), V, "with S = 2 shells"),
    "a cutoff among the shells": (lambda: bonds(r_cut=1.0), V, "beyond the last shell"),
    "groups that are not pinned": (
        lambda: bonds(coefficients=np.ones((2, 2, 3)))(GRAPH), V, "2 groups.*pinned"
    ),
    "a group that is not there": (
        lambda: bonds(coefficients=np.ones((2, 2, 3))).pinned(GRAPH, [5] * 15), V, "wanted 0 ... 1"
    ),
    "radii of a core exchanged": (lambda: lp.zbl(2.0, 1.0), V, "0 < inner < outer"),
    "elements for radii": (lambda: lp.zbl("W", "W"), V, "two lengths in Å"),
    "a core beyond the cutoff": (
        lambda: dataclasses.replace(SPEC, core=(2.0, 9.0)), V, "outer radius below r_cut"
    ),
    "a class for a calculator": (lambda: lp.ase_potential(EMT), T, r"e.g. EMT\(\)"),
    "nothing for a calculator": (lambda: lp.ase_potential(None), T, "is a NoneType"),
    "a calculator of nothing": (
        lambda: lp.ase_potential(Calculator()), V, "no energy and no forces"
    ),
    "a step of zero": (lambda: lp.ase_potential(EMT(), step=0.0), V, "step is 0.0.*positive"),
    "a number of coefficients": (lambda: lp.linear_potential(SPEC, [1.0]), V, r"wanted \(8,\)"),
    "an isolated atom of NaN": (
        lambda: kernel(reference_energies={"W": np.nan}), V, "reference_energies is nan"
    ),
    "an isolated atom missing": (
        lambda: kernel(reference_energies={"Mo": 1.0}), V, r"reference_energies lack \['W'\]"
    ),
    # kernels and networks
    "rows of another basis": (lambda: kernel(rows=ROWS[:, :2]), V, r"\(4, 2\).*use site_basis"),
    "no rows": (lambda: kernel(rows=ROWS[:0]), V, r"\(0, 8\): wanted \(n, 8\), rows.*at least one"),
    "rows of NaN": (lambda: kernel(rows=ROWS * np.nan), V, "hold NaN.*leave those structures out"),
    "one row": (lambda: network(rows=ROWS[0]), V, r"shape \(8,\)"),
    "half an environment": (lambda: kernel(n=2.5), V, "n_sparse is 2.5: wanted a whole number"),
    "a power of zero": (lambda: kernel(zeta=0), V, "zeta is 0: wanted a whole number"),
    "a scale of zero": (lambda: kernel(scale=np.zeros(8)), V, "wanted 8 positive numbers"),
    "a potential for a basis": (lambda: kernel(spec=LINEAR), T, "spec is a LinearPotential"),
    "a constant in a kernel": (
        lambda: kernel(dataclasses.replace(SPEC, constant=True)), V, "use constant=False"
    ),
    "kernel features of ACE": (lambda: site_features(LINEAR, GRAPH), T, "wanted a KernelPotential"),
    "unseen by ACE": (lambda: unseen_variance(LINEAR, GRAPH), T, "wanted a KernelPotential"),
    "a layer of no width": (lambda: network((0,)), V, "hidden is (0,): wanted whole numbers"),
    "a width for widths": (lambda: network(4), V, r"hidden is 4: wanted.*e.g. \(16, 16\)"),
    "the last layer of ACE": (lambda: lp.last_layer(LINEAR), T, "wanted a NetworkPotential"),
    "no steps": (lambda: trained(steps=0), V, "at least one step"),
    "no samples": (lambda: trained(samples=[]), V, "0 structures.*batch <= structures"),
    "a batch too large": (lambda: trained(batch=5), V, "batch 5"),
    "a rate of NaN": (lambda: trained(learning_rate=np.nan), V, "a rate > 0"),
    "a weight of another kind": (lambda: trained(weights={"energi": 1.0}), V, "'energi'.*energy"),
    "a weight of None": (lambda: trained(weights={"energy": None}), V, "'energy' is None.*>= 0"),
    "a weight in letters": (lambda: trained(weights={"energy": "1"}), V, "'energy' is '1'.*>= 0"),
    "a weight below zero": (lambda: trained(weights={"energy": -1.0}), V, "'energy' is -1.0"),
    "an energy of NaN": (
        lambda: trained(LABELS._replace(energy=np.nan)), V, "energy of structure 0 holds NaN"
    ),
    "forces of other atoms": (
        lambda: trained(LABELS._replace(forces=U[:3]), {"forces": 1.0}), V, r"wanted \(15, 3\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_bad_input_is_named_and_the_fix_with_it(name):
    call, kind, words = TABLE[name]
    with pytest.raises(kind) as error:
        call()
    assert re.search(words.replace("(0,)", r"\(0,\)"), str(error.value), re.DOTALL), error.value
    assert "wanted" in str(error.value)
    assert len(str(error.value)) < 600
