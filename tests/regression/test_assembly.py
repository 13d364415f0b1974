"""Assembly stacks, shifts and compresses rows and labels, and names what does not fit."""

import warnings
from fractions import Fraction
from itertools import product

import jax
import numpy as np
import pytest

from lprjax.ace.potential import linear_potential
from lprjax.atoms.graphs import moved
from lprjax.atoms.structures import Labels, make_structure
from lprjax.potentials.observables import KINDS
from lprjax.regression.assembly import PerAtom, compress_structures
from lprjax.regression.samples import counted_energy, stacked, stacked_rows
from tests.helpers.cases import N_ATOMS, PAIR, SPECS, case_of, small_cell, vacancy_cell


@pytest.fixture(params=SPECS)
def vacancy(request):
    return case_of(request.param, vacancy_cell)


def random_labels(case, key, padded=False):
    """Labels of the real atoms that no potential made: any y will do."""
    rng, n = np.random.default_rng(key), N_ATOMS if padded else case.n
    shapes = ((), (n, 3), (3, 3), (len(PAIR), 3, n, 3))
    return Labels(*(rng.normal(size=shape) for shape in shapes))


def explicit(kind, value, n):
    """The rows (or labels) of one structure one scalar at a time, in the documented order."""
    value = np.asarray(value)
    if kind == "energy":
        return [value]
    if kind == "forces":
        return [value[i, a] for i in range(n) for a in range(3)]
    if kind == "virial":  # Voigt: xx, yy, zz, yz, xz, xy; one row per off-diagonal pair, their mean
        xx, yy, zz = (value[a, a] for a in range(3))
        return [xx, yy, zz, *((value[a, b] + value[b, a]) / 2 for a, b in ((1, 2), (0, 2), (0, 1)))]
    indices = product(range(n), range(3), range(len(PAIR)), range(3))
    return [value[i, a, j, b] for j, a, i, b in indices]


@pytest.mark.parametrize("kind", KINDS)
def test_stacking_is_the_documented_order(vacancy, kind):
    rows, labels = getattr(vacancy.rows, kind), getattr(random_labels(vacancy, 0), kind)
    x, y = stacked(kind, rows, vacancy.n), stacked(kind, labels, vacancy.n)
    np.testing.assert_array_equal(x, explicit(kind, rows, vacancy.n))
    np.testing.assert_array_equal(y, explicit(kind, labels, vacancy.n))
    assert (
        len(x) == len(y) == {"energy": 1, "forces": 45, "virial": 6, "force_constants": 270}[kind]
    )


def assert_same_problem(factor, x, y):
    """|X c - y|^2 = |R c - q|^2 + rho^2 for any c, and the same least-squares predictions as
    NumPy's. Columns are scaled first: Householder QR is stable column by column."""
    x, y = np.asarray(x), np.asarray(y)
    norms = np.linalg.norm(x, axis=0)
    scale = 1 / np.where(norms > 0, norms, 1)
    x, r = x * scale, np.asarray(factor.triangular) * scale
    q = np.asarray(factor.target)
    assert factor.n_rows == len(x) and not np.any(np.tril(r, -1))
    np.testing.assert_allclose(r.T @ r, x.T @ x, rtol=0, atol=1e-12)
    for c in np.random.default_rng(0).normal(size=(2, len(q))):
        kept = np.sum((r @ c - q) ** 2) + factor.residual
        assert kept == pytest.approx(np.sum((x @ c - y) ** 2), rel=1e-12)
    # The minimum has no bumps where sigma is above the cut of both, 1e-8; compare predictions.
    ours, theirs = (x @ np.linalg.lstsq(a, b, rcond=1e-8)[0] for a, b in ((r, q), (x, y)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.linalg.norm(y))


def assert_same_loss(factor, other):
    """|R c - q|^2 + rho^2 as a function of c, whatever the rank: X^T X, X^T y and y^T y."""
    for a, b in zip(*map(quadratic_form, (factor, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def quadratic_form(factor):
    whole = np.column_stack([factor.triangular, factor.target])
    products = whole.T @ whole
    return products[:-1, :-1], products[:-1, -1], products[-1, -1] + np.asarray(factor.residual)


def test_compressed_structures_are_the_stacked_rows():
    """One factor per kind: that of all rows of all structures, in any order and block."""
    name = "four factors"
    cases = [case_of(name, make) for make in (vacancy_cell, small_cell, vacancy_cell)]
    samples = [(case.graph, random_labels(case, key)) for key, case in enumerate(cases)]
    factors = compress_structures(SPECS[name], iter(samples), KINDS, atoms=PAIR)
    assert list(factors) == list(KINDS)
    for kind in KINDS:
        x, y = [], []
        for case, (_, labels) in zip(cases, samples, strict=True):
            x += explicit(kind, getattr(case.rows, kind), case.n)
            y += explicit(kind, getattr(labels, kind), case.n)
        assert_same_problem(factors[kind], x, y)
    assert len(x) > 4 * SPECS[name].n_columns  # more than one block


def test_a_potential_is_expanded_about_its_coefficients():
    """Of a linear one, with labels of the real atoms in a padded graph: the rows are the basis's,
    and what it predicts already, X c0, is taken from the labels."""
    case = case_of("four factors", vacancy_cell)
    labels, c0 = random_labels(case, 0), np.random.default_rng(1).normal(size=case.spec.n_columns)
    model = linear_potential(case.spec, c0)
    factors = compress_structures(model, [(case.graph, labels)], KINDS, atoms=PAIR)
    for kind in KINDS:
        x = np.array(explicit(kind, getattr(case.rows, kind), case.n))
        y = np.array(explicit(kind, getattr(labels, kind), case.n))
        assert_same_problem(factors[kind], x, y - x @ c0)


def test_padded_labels_are_labels():
    case = case_of("four factors", small_cell)
    padded = random_labels(case, 0, padded=True)
    cut = padded._replace(
        forces=padded.forces[: case.n], force_constants=padded.force_constants[:, :, : case.n]
    )
    both = [
        compress_structures(case.spec, [(case.graph, labels)], KINDS, atoms=PAIR)
        for labels in (padded, cut)
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        # To rounding: an accelerator adds rows of other shapes in another order.
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * scale)


def energies(case, **options):
    """x and y of one energy, from a factor of one row: R^T R = x x^T and R^T q = x y."""
    samples = [(case.graph, Labels(energy=-3.5))]
    factor = compress_structures(case.spec, samples, "energy", **options)["energy"]
    row, target = np.asarray(factor.triangular[0]), float(factor.target[0])
    sign = np.sign(row @ np.asarray(case.rows.energy))
    return sign * row, sign * target


def test_reference_energies_are_subtracted(vacancy):
    """y = E - sum_i e0[z_i]; the row stays."""
    e0 = {"W": -8.0, "Mo": 3.0}
    n_w = int(np.sum(vacancy.structure.species == 74))
    row, target = energies(vacancy, reference_energies=e0)
    np.testing.assert_allclose(row, vacancy.rows.energy, rtol=1e-13, atol=1e-13)
    assert target == pytest.approx(-3.5 + 8.0 * n_w - 3.0 * (vacancy.n - n_w), rel=1e-13)
    assert energies(vacancy)[1] == pytest.approx(-3.5, rel=1e-13)
    found = stacked_rows(
        vacancy.spec,
        vacancy.graph,
        Labels(energy=-3.5),
        "energy",
        per_atom="energy",
        reference_energies=e0,
    )
    assert found["energy"][1] * vacancy.n == pytest.approx(abs(target), rel=1e-13)


def test_totals_are_counted_exactly():
    """The sum of a thousand references is not rounded on its way: 1e8 eV less 1e8 eV."""
    by_number = np.zeros(119)
    by_number[74] = -1e5 - 1 / 3
    species = np.array([74] * 1000 + [0] * 24)
    exact = 1000 * Fraction(by_number[74])
    total = float(exact)
    (left,) = counted_energy(total, species, by_number)
    assert left == float(Fraction(total) - exact) and 0 < abs(left) < 1e-8


def test_energies_that_no_bond_has_come_with_a_warning():
    case = case_of("four factors", small_cell)
    samples = [(case.graph, Labels(energy=-2e5))] * 2
    with pytest.warns(UserWarning, match="structure 0 is -100000 eV for each atom .*baseline") as w:
        compress_structures(case.spec, samples, "energy")
    assert len(w) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compress_structures(case.spec, samples, "energy", reference_energies={"W": -99999.0})


def test_energies_count_from_an_origin_per_atom(vacancy):
    """x - N x_0 and E - N e_0, the defect-minus-bulk difference."""
    origin = PerAtom(np.random.default_rng(0).normal(size=vacancy.spec.n_columns), -8.5)
    row, target = energies(vacancy, origin=origin)
    expected = vacancy.rows.energy - vacancy.n * origin.row
    sign = np.sign(row @ expected)
    np.testing.assert_allclose(sign * row, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert sign * target == pytest.approx(-3.5 + vacancy.n * 8.5, rel=1e-13)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict.fromkeys(KINDS), "structure 1 has no label among"),
        (dict(energy=np.nan), "energy of structure 1 holds NaN"),
        (dict(energy=np.zeros(1)), r"energy of structure 1 has shape \(1,\): wanted \(\)"),
        (dict(forces=np.full((2, 3), np.inf)), "forces of structure 1 holds NaN or infinity"),
        (
            dict(forces=np.zeros((5, 3))),
            r"forces of structure 1 has shape \(5, 3\): wanted \(2, 3\)",
        ),
        (dict(virial=np.zeros(6)), r"virial of structure 1 has shape \(6,\): wanted \(3, 3\)"),
        (dict(force_constants=np.zeros((1, 3, 2, 3))), r"wanted \(2, 3, 2, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_named(changes, message):
    case = case_of("four factors", small_cell)
    good = random_labels(case, 0)
    samples = [(case.graph, labels) for labels in (good, good._replace(**changes))]
    with pytest.raises(ValueError, match=message):
        compress_structures(case.spec, samples, KINDS, atoms=PAIR)


@pytest.mark.parametrize("kinds", [KINDS, KINDS[:3]], ids=["alone", "packed"])
def test_structures_count_with_the_labels_that_they_have(kinds):
    """Each factor is that of the structures that have the kind, whatever the others lack."""
    name = "four factors"
    cases = [case_of(name, make) for make in (vacancy_cell, small_cell, vacancy_cell)]
    labels = [random_labels(case, key) for key, case in enumerate(cases)]
    labels[1] = labels[1]._replace(forces=None)
    labels[2] = labels[2]._replace(energy=None, virial=None)
    samples = list(zip((case.graph for case in cases), labels, strict=True))
    mixed = compress_structures(SPECS[name], samples, kinds, atoms=PAIR)
    for kind in kinds:
        alone = [sample for sample in samples if getattr(sample[1], kind) is not None]
        same = compress_structures(SPECS[name], alone, (kind,), atoms=PAIR)[kind]
        assert mixed[kind].n_rows == same.n_rows
        assert_same_loss(mixed[kind], same)
    without = [(graph, each._replace(virial=None)) for graph, each in samples]
    with pytest.raises(ValueError, match="no structure of samples has a label of kind 'virial'"):
        compress_structures(SPECS[name], without, kinds, atoms=PAIR)


@pytest.mark.parametrize("kind", ["energy", "virial"])
def test_per_atom(vacancy, kind):
    """Rows and targets over N, after the isolated energies; a factor is that of `stacked_rows`."""
    labels, e0 = random_labels(vacancy, 3), {"W": -8.0, "Mo": 3.0}
    n_w = int(np.sum(vacancy.structure.species == 74))
    isolated = -8.0 * n_w + 3.0 * (vacancy.n - n_w) if kind == "energy" else 0.0
    x = np.array(explicit(kind, getattr(vacancy.rows, kind), vacancy.n)) / vacancy.n
    y = (np.array(explicit(kind, getattr(labels, kind), vacancy.n)) - isolated) / vacancy.n
    factors = compress_structures(
        vacancy.spec, [(vacancy.graph, labels)], kind, reference_energies=e0, per_atom=kind
    )
    assert_same_problem(factors[kind], x, y)
    rows, targets = stacked_rows(vacancy.spec, vacancy.graph, labels, kind, per_atom=[kind])[kind]
    np.testing.assert_allclose(rows, x, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(targets, y + isolated / vacancy.n, rtol=1e-12)
    whole = stacked_rows(
        vacancy.spec, vacancy.graph, labels._replace(energy=None), KINDS, atoms=PAIR
    )
    assert list(whole) == ["forces", "virial", "force_constants"]


def test_per_atom_is_of_what_grows_with_a_cell():
    case = case_of("four factors", small_cell)
    samples = [(case.graph, random_labels(case, 0))]
    with pytest.raises(ValueError, match="per_atom is 'forces': wanted 'energy', 'virial' or both"):
        compress_structures(case.spec, samples, per_atom="forces")


@pytest.mark.parametrize("kinds", [KINDS, ("energy", "forces", "virial")])
def test_structures_are_taken_as_graphs_are(kinds):
    """Their neighbours are searched on the way; the padding of either is no matter."""
    name = "two species"
    cases = [case_of(name, make) for make in (vacancy_cell, small_cell)]
    labels = [random_labels(case, key) for key, case in enumerate(cases)]
    both = [
        compress_structures(SPECS[name], zip(given, labels, strict=True), kinds, atoms=PAIR)
        for given in ([case.graph for case in cases], [case.structure for case in cases])
    ]
    for kind in kinds:
        assert both[0][kind].n_rows == both[1][kind].n_rows
        assert_same_loss(both[0][kind], both[1][kind])


@pytest.mark.parametrize("kinds", [("energy", "forces"), ("forces",), KINDS])
def test_rows_that_are_not_finite_are_named(kinds):
    """A NaN in a graph; in a pack it leaves the rows of the others as they are."""
    case = case_of("four factors", small_cell)
    broken = moved(case.graph, np.asarray(case.graph.positions).copy() * np.nan)
    graphs = [case.graph, case.graph, broken, case.graph]
    samples = [(graph, random_labels(case, 0)) for graph in graphs]
    with pytest.raises(ValueError, match="rows of kind '.*' of structure 2 hold NaN"):
        compress_structures(case.spec, samples, kinds, atoms=PAIR)


def test_atoms_on_top_of_each_other_are_named():
    case = case_of("four factors", small_cell)
    double = make_structure([[0.0, 0.0, 0.0], [0.0, 0.0, 0.05]], 9.0 * np.eye(3), "W")
    samples = [(cell, random_labels(case, 0)) for cell in (case.structure, double)]
    with pytest.raises(ValueError, match="structure 1: distance of atoms 0 and 1"):
        compress_structures(case.spec, samples)


def test_groups_that_make_no_factor_are_refused():
    case = case_of("two species", small_cell)
    with pytest.raises(ValueError, match="samples is empty: wanted at least one"):
        compress_structures(case.spec, iter([]))
    samples = [(case.graph, random_labels(case, 0))]
    with pytest.raises(ValueError, match=r"reference_energies lack \['Mo'\]"):
        compress_structures(case.spec, samples, reference_energies={"W": 1.0})
