"""Labels are found under the names that codes give them, and two that disagree are refused."""

import warnings

import numpy as np
import pytest
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.stress import full_3x3_to_voigt_6_stress

from lprjax.atoms.extxyz import read_extxyz
from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import fcc, from_ase, to_ase
from lprjax.potentials.from_ase import ase_potential
from lprjax.potentials.observables import observe

BOX = 'Lattice="4 0 0 0 5 0 0 0 6" Properties=species:S:1:pos:R:3'  # of 120 Å^3
FORCE = (0.1, 0.2, 0.3)
VIRIAL = np.array([[1.0, 0.3, -0.2], [0.3, 2.0, 0.5], [-0.2, 0.5, -3.0]])  # eV


def text(tensor):
    return f'"{" ".join(map(repr, np.ravel(tensor).tolist()))}"'


@pytest.fixture
def write(tmp_path):
    """A file of two frames of two atoms, with these entries and columns of three numbers."""

    def written(*entries, columns=()):
        layout = "".join(f":{name}:R:3" for name in columns)
        numbers = " ".join(f"{x}" for _ in columns for x in FORCE)
        frame = f"2\n{BOX}{layout} {' '.join(entries)}\nSi 0 0 0 {numbers}\nSi 2 2 0 {numbers}\n"
        (tmp_path / "a.xyz").write_text(2 * frame)
        return tmp_path / "a.xyz"

    return written


def quiet(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (_, labels, info), _ = read_extxyz(path, **options)
    return labels, info


@pytest.mark.parametrize("prefix", ["", "REF_", "dft_", "DFT_"])
@pytest.mark.parametrize(
    "energy, force, tensor, factor",
    [
        ("energy", "forces", "virial", 1.0),
        ("free_energy", "force", "virials", 1.0),
        ("Energy", "Forces", "stress", -120.0),  # W = -V * stress
    ],
)
def test_names_signs_and_units_of_the_table(write, prefix, energy, force, tensor, factor):
    path = write(
        f"{prefix}{energy}=-8.5",
        f"{prefix}{tensor}={text(VIRIAL / factor)}",
        "config_type=a",
        columns=[prefix + force],
    )
    labels, info = quiet(path)
    assert labels.energy == -8.5 and info == {"config_type": "a", "arrays": {}}
    np.testing.assert_array_equal(labels.forces, [FORCE, FORCE])
    np.testing.assert_allclose(labels.virial, VIRIAL, rtol=1e-14)


def test_the_energy_is_the_one_whose_derivative_the_forces_are(write):
    """And what is not taken is named, in one line for the whole file."""
    path = write(
        "energy=-7", "free_energy=-8", "MACE_energy=3", columns=["forces", "F", "gradient"]
    )
    with pytest.warns(UserWarning) as caught:
        (_, labels, info), _ = read_extxyz(path)
    assert labels.energy == -8 and info["energy"] == -7
    (line,) = {str(w.message) for w in caught}
    assert len(caught) == 1 and "\n" not in line
    assert "holds energy, MACE_energy, gradient, F, not taken" in line
    np.testing.assert_array_equal(info["arrays"]["F"], [FORCE, FORCE])


def test_two_energies_that_are_one_are_no_news(write):
    """As most calculators of ASE write them."""
    assert quiet(write("energy=-8", "free_energy=-8"))[0].energy == -8
    assert quiet(write("energy=-8.00001", "free_energy=-8"))[0].energy == -8


class Smeared(EMT):
    """Forces derive from the free energy, and the energy is another quantity."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.results["free_energy"] + 1.0


def test_files_and_calculators_have_one_choice_of_energy(tmp_path):
    atoms = to_ase(fcc("Cu", 3.7))
    atoms.calc = Smeared()
    atoms.get_forces()
    atoms.write(tmp_path / "a.xyz", format="extxyz")
    with pytest.warns(UserWarning, match="holds energy, .*not taken"):
        ((structure, labels, _),) = read_extxyz(tmp_path / "a.xyz")
    potential = ase_potential(Smeared())
    graph = build_graph(from_ase(atoms), potential.r_cut)
    found = float(observe(potential, graph, ("energy",)).energy)
    assert labels.energy == pytest.approx(found, abs=1e-12)
    assert found == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-12)


def test_keys_say_where_labels_are(write):
    path = write(
        "energy=1", "MACE_energy=2", f"sigma={text(-VIRIAL / 120)}", columns=["forces", "F"]
    )
    keys = {"energy": "MACE_energy", "forces": "F", "stress": "sigma"}
    with pytest.warns(UserWarning, match="holds energy, forces, not taken"):
        (_, labels, _), _ = read_extxyz(path, keys=keys)
    assert labels.energy == 2
    np.testing.assert_allclose(labels.virial, VIRIAL, rtol=1e-14)
    with pytest.raises(ValueError, match=r"keys names \['force'\]: wanted some of energy, forces"):
        read_extxyz(path, keys={"force": "F"})
    with pytest.raises(ValueError, match=r"keys has \['MACE_E'\]: wanted names that .*MACE_energy"):
        read_extxyz(path, keys={"energy": "MACE_E"})


def test_a_tensor_named_in_keys_is_the_only_one_read(write):
    path = write(f"virial={text(2 * VIRIAL)}", f"stress={text(-VIRIAL / 120)}")
    for keys, factor in (({"virial": "virial"}, 2.0), ({"stress": "stress"}, 1.0)):
        with pytest.warns(UserWarning, match="not taken"):
            (_, labels, _), _ = read_extxyz(path, keys=keys)
        np.testing.assert_allclose(labels.virial, factor * VIRIAL, rtol=1e-14)


def test_what_is_there_twice_and_agrees_is_taken(write):
    """Within the digits that codes print."""
    path = write(
        "energy=-8.12345678",
        "REF_energy=-8.12346",
        f"virial={text(VIRIAL)}",
        f"stress={text(np.round(-VIRIAL / 120, 6))}",
        columns=["forces", "REF_forces"],
    )
    labels, _ = quiet(path)
    assert labels.energy == -8.12345678
    np.testing.assert_array_equal(labels.virial, VIRIAL)


SIX = np.array([1.0, 2.0, -3.0, 0.5, -0.2, 0.3])  # VIRIAL as xx yy zz yz xz xy


def test_six_components_are_in_the_order_of_ase(write):
    """By the numbers above, and by what ASE itself makes of its own six."""
    np.testing.assert_array_equal(full_3x3_to_voigt_6_stress(VIRIAL), SIX)
    for name, factor in (("virial", 1.0), ("REF_virials", 1.0), ("stress", -120.0)):
        labels, info = quiet(write(f"{name}={text(SIX / factor)}"))
        np.testing.assert_allclose(labels.virial, VIRIAL, rtol=1e-14)
        assert info == {"arrays": {}}
    both = write(f"stress={text(-SIX / 120)}", f"virial={text(VIRIAL)}", f"REF_virial={text(SIX)}")
    np.testing.assert_array_equal(quiet(both)[0].virial, VIRIAL)


def test_a_text_that_speaks_of_a_stress_stays_as_it_is(write):
    labels, info = quiet(write("energy=-8", 'note="see stress=1 and virial=2"'))
    assert info["note"] == "see stress=1 and virial=2" and labels.virial is None


SWAPPED = VIRIAL[:, [1, 0, 2]][[1, 0, 2]]


@pytest.mark.parametrize(
    "entries, message",
    [
        (("energy=-8", "REF_energy=-8.01"), "energy and REF_energy contradict each other"),
        (("free_energy=-8", "dft_energy=-9"), "free_energy and dft_energy contradict"),
        ((f"virial={text(VIRIAL)}", f"stress={text(VIRIAL / 120)}"), "virial and stress contra"),
        ((f"virial={text(VIRIAL)}", f"stress={text(-SWAPPED / 120)}"), "virial and stress contra"),
        ((f"virial={text(VIRIAL)}", f"stress={text(-VIRIAL * 1.3)}"), "virial and stress contra"),
        ((f"virial={text(np.triu(VIRIAL))}",), "virial is not symmetric"),
        ((f"stress={text(np.tril(VIRIAL))}",), "stress is not symmetric"),
        ((f"REF_virial={text(VIRIAL + 0.01 * np.tri(3))}",), "REF_virial is not symmetric"),
        (('virial="1 2 3 4 5"',), r"virial has shape \(5,\): wanted nine numbers, row by row, or"),
        (('REF_stress="1 2 3"',), r"REF_stress has shape \(3,\): wanted nine .* xx yy zz yz xz xy"),
        (("virial=1",), r"virial has shape \(\): wanted nine"),
        (
            (f"stress={text(SIX / -120)}", f"REF_stress={text(VIRIAL / 120)}"),
            "stress and REF_stress",
        ),
        (
            (f"virial={text(VIRIAL)}", f"virials={text(SIX[[0, 1, 2, 5, 3, 4]])}"),
            "virial and virials",
        ),
        (("energy=-1.D0",), "energy is '-1.D0': wanted numbers in eV"),
        (('energy="1 2"',), r"energy has shape \(2,\)"),
        (("energy=nan",), r"entry \(\) of energy is nan"),
        (("energy",), "energy is True"),
        (("MACE_energy=1",), r"labels is empty.*beside \['MACE_energy'\]; name it in `keys`"),
    ],
)
def test_what_contradicts_itself_or_is_no_label_is_refused(write, entries, message):
    with pytest.raises(ValueError, match=rf"a\.xyz, frame 0: {message}"):
        read_extxyz(write(*entries))
