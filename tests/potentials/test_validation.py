"""Potentials that keep the contract pass; each way to break it fails where it should."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.emt import EMT

from lprjax.ace import ACESpec, linear_potential
from lprjax.atoms.structures import bcc, diamond, fcc, make_structure
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.observables import KINDS
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.potentials.tersoff import tersoff
from lprjax.potentials.validation import validate
from tests.helpers.potentials import SizeBiased, SmoothPairs

W = bcc("W", 3.165)
TRIMER = make_structure([[0, 0, 0], [2.4, 0, 0], [0.3, 2.6, 0.2]], 9.0 * np.eye(3), "Cu", False)
SPEC = ACESpec(("W",), order=2, degree=3, r_cut=4.5, r0=2.74)
LINEAR = linear_potential(SPEC, np.random.default_rng(0).normal(size=SPEC.n_columns))


@pytest.mark.parametrize(
    "potential, structure, kinds",
    [
        (LINEAR, W, KINDS),
        (stillinger_weber(), diamond("Si", 5.43, primitive=True), KINDS),
        (tersoff(), diamond("Si", 5.43, primitive=True), ("forces", "virial")),
        (zhou_eam("W"), W, ("forces", "virial")),
        (SmoothPairs(), TRIMER, ("forces", "virial")),
        (ase_potential(EMT()), fcc("Cu", 3.6, primitive=True), ("forces", "virial")),
    ],
    ids=["linear", "stillinger-weber", "tersoff", "eam", "cluster", "calculator"],
)
def test_the_librarys_potentials_keep_the_contract(potential, structure, kinds):
    found = validate(potential, structure, kinds)
    assert found.passed, str(found)
    smoothness = [r for r in found.requirements if r.name == "smooth"]
    assert len(smoothness) == (0 if potential.__class__.__name__ == "ASEPotential" else 1)


def broken(found):
    return [r.name for r in found.requirements if not r.met]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Half of (1 - r / 3 Å)^power at both ends of a bond, with a fault."""

    power: int = 4
    fault: str = ""
    r_cut: float = 3.0

    def __call__(self, graph):
        r = jnp.linalg.norm(graph.vectors(), axis=-1)
        inside = graph.edge_mask & (r < (3.6 if self.fault == "cutoff" else 3.0))
        x = jnp.where(inside, 1.0 - r / (3.6 if self.fault == "cutoff" else 3.0), 0.0)
        if self.fault == "derivatives":
            x = jax.lax.stop_gradient(0.1 * x) + 0.9 * x
        sites = jnp.sum(x**self.power if self.power else jnp.where(inside, 1.0, 0.0), axis=1)
        if self.fault == "invariant":
            sites += jnp.where(graph.atom_mask, 0.1 * graph.vectors()[:, 0, 0], 0.0)
        if self.fault == "finite":
            sites = jnp.sqrt(sites * 0.0)
        return {"padding": sites - 3.0, "shape": jnp.sum(sites)}.get(self.fault, sites)


@pytest.mark.parametrize(
    "fault", ["padding", "shape", "finite", "cutoff", "derivatives", "invariant"]
)
def test_each_fault_is_named(fault):
    assert fault in broken(validate(Pairs(fault=fault), W, "forces"))


def test_an_energy_that_depends_on_the_cell_is_not_extensive():
    assert broken(validate(SizeBiased(Pairs()), W, "forces")) == ["extensive"]


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_a_power_of_the_distance_to_the_cutoff_is_smooth_up_to_one_derivative_less(power):
    """(1 - r / r_cut)^p has a jump in its p-th derivative, and none below."""
    for order, kind in enumerate(("energy", "forces", "force_constants")):
        found = validate(Pairs(power), W, kind)
        assert ("smooth" in broken(found)) == (order >= power), str(found)


def test_a_report_is_a_table_of_numbers():
    found = validate(Pairs(fault="padding"), W, "energy")
    lines = str(found).splitlines()
    assert len(lines) == len(found.requirements)
    (line,) = (line for line in lines if line.startswith("FAIL"))
    assert "padding" in line and "3.00e+00" in line and not found.passed
