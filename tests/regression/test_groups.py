"""Factors by kind and group are those of the group's structures; large totals lose no digits."""

import numpy as np
import pytest

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import build_graphs
from lprjax.atoms.structures import Labels
from lprjax.potentials import observe_all
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import merge
from lprjax.regression.fitting import fit
from lprjax.regression.groups import (
    baseline_energies,
    compress_groups,
    read_weights,
    weights_by_group,
)
from tests.helpers.training_sets import KINDS, alloy_set

SPEC = ACESpec(("W", "Mo"), order=2, degree=4, r_cut=5.0, r0=2.74, constant=True)
DATA = alloy_set()
ENERGIES = baseline_energies(DATA)
FACTORS = compress_groups(SPEC, DATA, reference_energies=ENERGIES)


def assert_same(factor, other):
    """X^T X, X^T y, y^T y and the number of rows."""
    assert factor.n_rows == other.n_rows
    for one, two in zip(*map(products, (factor, other)), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12 * np.abs(two).max())


def products(factor):
    whole = np.column_stack([factor.triangular, factor.target])
    gram = whole.T @ whole
    return gram[:-1, :-1], gram[:-1, -1], gram[-1, -1] + np.asarray(factor.residual)


def test_each_group_has_the_kinds_that_it_has():
    wanted = {("energy", group) for group in ("all", "no virials", "energies")}
    wanted |= {("forces", "all"), ("forces", "no virials"), ("virial", "all")}
    assert FACTORS.keys() == wanted
    only = compress_groups(SPEC, DATA, "virial", reference_energies=ENERGIES)
    assert only.keys() == {("virial", "all")}
    assert_same(only["virial", "all"], FACTORS["virial", "all"])


def test_energies_are_counted_from_the_baseline_unless_others_are_given():
    counted = compress_groups(SPEC, DATA, "energy")
    assert_same(counted["energy", "all"], FACTORS["energy", "all"])
    zeros = compress_groups(SPEC, DATA, "energy", reference_energies={"W": 0.0, "Mo": 0.0})
    sizes = [np.linalg.norm(f["energy", "all"].target) for f in (counted, zeros)]
    assert sizes[0] < 0.1 * sizes[1]


def test_groups_that_need_no_weight_of_their_own_are_one():
    found = compress_groups(SPEC, DATA, "energy", apart=["no virials"])
    assert found.keys() == {("energy", "no virials"), ("energy", "rest")}
    assert_same(found["energy", "no virials"], FACTORS["energy", "no virials"])
    both = merge(FACTORS["energy", "all"], FACTORS["energy", "energies"])
    assert_same(found["energy", "rest"], both)
    with pytest.raises(ValueError, match=r"apart has \['gas'\]: wanted some of the groups, all"):
        compress_groups(SPEC, DATA, apart=["gas", "all"])


def test_groups_together_are_the_whole():
    """Per atom unless the cell is asked for."""
    samples = list(zip(DATA.structures, DATA.labels, strict=True))
    options = {"reference_energies": ENERGIES}
    per_cell = compress_groups(SPEC, DATA, per_atom=(), **options)
    for factors, shared in ((FACTORS, ("energy", "virial")), (per_cell, ())):
        whole = compress_structures(SPEC, samples, KINDS, per_atom=shared, **options)
        for kind in KINDS:
            first, *rest = (factor for key, factor in factors.items() if key[0] == kind)
            for other in rest:
                first = merge(first, other)
            assert_same(first, whole[kind])


def test_baseline_energies_are_what_is_known_and_the_best_of_the_rest():
    """Of energies that are sums over elements they are those numbers; what is known stays."""
    numbers = {"Mo": -7.5, "W": -99.25}
    symbols = {42: "Mo", 74: "W"}
    labels = [
        Labels(energy=sum(numbers[symbols[z]] for z in np.asarray(s.species).tolist()))
        for s in DATA.structures
    ]
    data = DATA._replace(labels=labels)
    found = baseline_energies(data)
    assert found == pytest.approx(numbers, abs=1e-10)
    assert baseline_energies(data._replace(reference_energies={"W": -99.25}))["W"] == -99.25
    known = baseline_energies(data._replace(reference_energies={"W": -90.0}))
    assert known["W"] == -90.0 and known["Mo"] < -8.0  # the best that is left
    bare = data._replace(labels=[Labels(forces=np.zeros((8, 3)))] * len(labels))
    assert baseline_energies(bare) == {"Mo": 0.0, "W": 0.0}


# --- totals of DFT --------------------------------------------------------------------------

WEIGHTS = {"energy": 50.0, "forces": 1.0}
SHIFT = {"W": -1.2e5 - 1 / 3, "Mo": -0.9e5 - 1 / 7}  # eV


def shifted(data):
    """The same with a constant more on every atom."""
    by_number = np.zeros(119)
    by_number[[74, 42]] = SHIFT["W"], SHIFT["Mo"]
    labels = [
        y._replace(energy=float(y.energy) + by_number[np.asarray(s.species)].sum())
        for s, y in zip(data.structures, data.labels, strict=True)
    ]
    shifts = {symbol: e + SHIFT[symbol] for symbol, e in data.reference_energies.items()}
    return data._replace(labels=labels, reference_energies=shifts)


def predictions(spec, data, **options):
    """Energies per atom less those of the data, forces, and rms of a fit."""
    energies = baseline_energies(data)
    factors = compress_groups(spec, data, ("energy", "forces"), reference_energies=energies)
    result = fit(factors, WEIGHTS, **options)
    potential = linear_potential(spec, result.coefficients, energies)
    found = observe_all(potential, build_graphs(data.structures, spec.r_cut), ("energy", "forces"))
    pairs = zip(found, data.labels, data.structures, strict=True)
    errors = [(float(y.energy) - float(z.energy)) / s.n_atoms for y, z, s in pairs]
    forces = np.concatenate([np.asarray(y.forces).ravel() for y in found])
    return np.array(errors), forces, np.array(list(result.rms.values()))


@pytest.mark.parametrize("elements", [("W",), ("W", "Mo")], ids=["one element", "two elements"])
@pytest.mark.parametrize("way", ["references", "constants"])
def test_totals_of_a_hundred_thousand_electronvolts_lose_no_digits(elements, way):
    """A total of 8 atoms, 1e6 eV, is known to 2^-53 of itself, 1e-10 eV, or 1.5e-11 eV an atom;
    taken off before anything else it stays at that: rms of the 12 energies and sums of 8 leave
    1e-9 eV, forces through the weight of energies 1e-9 eV/Å."""
    references = {"W": -0.3, "Mo": 0.2} if way == "references" else {}
    data = alloy_set(elements, {z: references[z] for z in elements if z in references})
    spec = ACESpec(elements, 2, 4, 5.0, 2.74, constant=way == "constants")
    for options in ({"ridge": 1e-6}, {}):
        small, large = (predictions(spec, d, **options) for d in (data, shifted(data)))
        for one, two in zip(small, large, strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=1e-9)


# --- weights --------------------------------------------------------------------------------

FILE = """
energy = 100.0  # atom/eV
forces = 1      # Å/eV
virial = 0.5

[groups.energies]
energy = 7.0

[groups."no virials"]
energy = 0
forces = 2.5
"""


def test_weights_of_a_file_are_those_of_the_fit(tmp_path):
    (tmp_path / "w.toml").write_text(FILE)
    weights = read_weights(tmp_path / "w.toml", groups=DATA.groups)
    found = fit(FACTORS, weights, ridge=1e-8)
    assert found.weights == {
        ("energy", "all"): 100.0,
        ("energy", "no virials"): 0.0,
        ("energy", "energies"): 7.0,
        ("forces", "all"): 1.0,
        ("forces", "no virials"): 2.5,
        ("virial", "all"): 0.5,
    }
    one_by_one = fit(FACTORS, dict(found.weights), ridge=1e-8)
    np.testing.assert_array_equal(found.coefficients, one_by_one.coefficients)


@pytest.mark.parametrize(
    "text, message",
    [
        ("energy = 1\n[groups.liquid]\nenergy = 1", r"groups has \['liquid'\]: wanted .* all"),
        ("energy = 1\nstress = 1", "'stress' has a weight: wanted kinds, energy, forces, virial"),
        ("[groups.all]\nenergie = 1", "'energie' of group 'all' has a weight: wanted kinds"),
        ("energy = -1", "weight of 'energy' is -1: wanted a finite number >= 0"),
        ("[groups.all]\nenergy = '1'", "weight of 'energy' of group 'all' is '1'"),
        ("energy : 1", "is no TOML .*wanted lines such as `energy = 100.0`"),
        ("", "weights are empty"),
        ("groups = 3", "groups is 3: wanted a table"),
    ],
)
def test_weights_that_are_none_are_named_with_their_file(tmp_path, text, message):
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"w\.toml.* {message}"):
        read_weights(tmp_path / "w.toml", groups=DATA.groups)


def test_without_groups_any_name_is_taken():
    table = {"energy": 1.0, "groups": {"liquid": {"energy": 2.0}}}
    assert weights_by_group(table) == {"energy": 1.0, ("energy", "liquid"): 2.0}


@pytest.mark.parametrize("kinds", ["stress", ("energy", "force_constants"), ()])
def test_kinds_that_the_set_lacks_are_refused(kinds):
    with pytest.raises(ValueError, match="wanted some of what the training set has labels of"):
        compress_groups(SPEC, DATA, kinds)


def test_a_group_that_lacks_every_kind_asked_for_has_no_factor():
    assert {key[1] for key in compress_groups(SPEC, DATA, "forces")} == {"all", "no virials"}
