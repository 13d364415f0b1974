"""Materials from files: one's own potential as the reference of every experiment."""

import numpy as np
import pytest

from experiments import defect_survey, strain_decay, vacancy_convergence
from experiments.studies.defect_fits import Config
from experiments.systems import material_files
from experiments.systems.materials import material, named_pair
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.stillinger_weber import stillinger_weber
from tests.helpers.eam import text, zhou_tables

TINY = "--preset smoke --sizes 2 --target 3 --degree 4 --copies 10 --lattice-cells 2".split()
COPPER = """
element = "Cu"
crystal = "fcc"
lattice_constant = 3.6
reference = "cu.eam.alloy"
name = "Cu-mine"
options = {interpolation = "quintic", r_cut = 5.9}
"""


@pytest.fixture
def copper(tmp_path):
    (tmp_path / "copper.toml").write_text(COPPER)
    (tmp_path / "cu.eam.alloy").write_text(text(zhou_tables(("Cu",), n_rho=500, n_r=1201)))
    return str(tmp_path / "copper.toml")


def test_a_table_is_a_reference(copper):
    """Its lattice constant is that of the functions it was made of, to the table's 1e-8."""
    found = material(copper)
    assert (found.name, found.element, found.crystal) == ("Cu-mine", "Cu", "fcc")
    assert found.potential.r_cut == 5.9 and found is material(found.key)
    same = material("Cu")
    here = material_files.read(copper)._replace(options={}).build()
    assert here.r_cut == 6.0
    a = zhou_eam("Cu", r_cut=5.9)
    assert found.lattice_constant == pytest.approx(same.lattice_constant, rel=1e-3)
    energies = [p(_graph(found)) for p in (found.potential, a)]
    np.testing.assert_allclose(*energies, rtol=0, atol=1e-7)


def _graph(found):
    from lprjax.atoms.graphs import build_graph

    return build_graph(found.unit_cell, 5.9)


def test_functions_and_calculators_are_references(tmp_path):
    """The same silicon as built in; EMT of ASE finds copper's own lattice constant, 3.59 Å."""
    silicon = tmp_path / "si.toml"
    silicon.write_text(
        'element = "Si"\ncrystal = "diamond"\nlattice_constant = 5.4\nr_cut = 5\n'
        'reference = "lprjax.potentials:stillinger_weber"\n'
    )
    found = material(str(silicon))
    assert found.name == "si" and found.r_cut == 5.0 and found.potential == stillinger_weber()
    assert found.lattice_constant == pytest.approx(material("Si-SW").lattice_constant, rel=1e-10)
    emt = tmp_path / "emt.toml"
    emt.write_text(
        'element = "Cu"\ncrystal = "fcc"\nlattice_constant = 3.6\n'
        'reference = "ase:ase.calculators.emt:EMT"\ndifferences = {step = 1e-3}\n'
    )
    assert material(str(emt)).lattice_constant == pytest.approx(3.59, abs=0.01)


def test_what_was_computed_knows_what_is_in_the_file(copper, tmp_path):
    """Another table or another line of the file is another point; the old one is then refused."""
    old = Config(material=copper)
    assert old == Config(material=copper) == Config(material=old.material)
    assert old.material.startswith(copper + "@")
    table = tmp_path / "cu.eam.alloy"
    table.write_text(table.read_text().replace("made", "made anew"))
    new = Config(material=copper)
    assert new.material != old.material and new.crystal is not material("Cu")
    with pytest.raises(ValueError, match="has changed since"):
        material(old.material)
    pair, defect = named_pair(f"{copper}/vacancy", "/")
    assert pair.key == new.material and defect == "vacancy"


def test_experiments_take_them(copper, tmp_path):
    """The smallest size sweep, by its flags; and a survey of two materials."""
    found = vacancy_convergence.main(
        [*TINY, "--material", copper, "--target", "3", "--results", str(tmp_path)]
    )
    assert found["material"] == "Cu-mine" and found["figure"].endswith("_Cu-mine_vacancy")
    flags = ["--preset", "smoke", "--pairs", f"{copper}/vacancy", "Cu/vacancy", "--copies", "8"]
    found = defect_survey.main([*flags, "--results", str(tmp_path)])
    mine, built_in = (found["pairs"][f"{name}/vacancy"] for name in ("Cu-mine", "Cu"))
    energies = [p["formation_energy_reference"] for p in (mine, built_in)]
    assert energies[0] == pytest.approx(energies[1], abs=0.02)  # of another cutoff


WRONG = {
    "no file": (None, "there is no .*copper.toml"),
    "no TOML": ("element = Cu", "is no TOML"),
    "a key too few": (COPPER.replace('crystal = "fcc"', ""), r"lacks \['crystal'\]"),
    "a key too many": (COPPER + 'colour = "red"', r"has \['colour'\]"),
    "a number in words": (COPPER.replace("3.6", '"3.6"'), "lattice_constant of .* is '3.6'"),
    "no table": (COPPER.replace("cu.eam", "zn.eam"), "reference of .* is 'zn.eam.alloy'"),
    "no lattice": (COPPER.replace("fcc", "hcp"), "wanted a chemical symbol and one of bcc"),
    "a built-in's name": (COPPER.replace("Cu-mine", "Cu"), "that of a built-in material"),
    "a name with a slash": (COPPER.replace("Cu-mine", "a/b"), "wanted letters, digits"),
    "a length that is none": (COPPER.replace("3.6", "-3.6"), "wanted a positive length"),
    "no element": (COPPER.replace('"Cu"', '"Xx"'), "wanted a chemical symbol"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_are_refused(name, tmp_path, copper):
    content, message = WRONG[name]
    path = tmp_path / "copper.toml"
    path.write_text(content) if content else path.unlink()
    with pytest.raises(ValueError, match=message):
        Config(material=copper)
    with pytest.raises(SystemExit):
        vacancy_convergence.plan(["--material", copper])


def test_two_files_of_one_name_are_refused(tmp_path, copper):
    other = tmp_path / "other.toml"
    other.write_text(COPPER.replace("3.6", "3.61"))
    for figure, mark in ((defect_survey, "/"), (strain_decay, ":")):
        with pytest.raises(ValueError, match=r"several files name their material \['Cu-mine'\]"):
            figure.plan(["--pairs", f"{copper}{mark}vacancy", f"{other}{mark}vacancy"])


def test_references_are_refused(tmp_path, copper):
    for reference, message in (
        ("nowhere:make", "No module named 'nowhere'"),
        ("lprjax.potentials:nothing", "has no attribute 'nothing'"),
    ):
        (tmp_path / "copper.toml").write_text(COPPER.replace("cu.eam.alloy", reference))
        with pytest.raises(ValueError, match=message):
            material(copper).potential  # noqa: B018
    (tmp_path / "copper.toml").write_text(COPPER + "differences = {step = 0.1}\n")
    with pytest.raises(ValueError, match="differences are of calculators"):
        material(copper).potential  # noqa: B018
    with pytest.raises(ValueError, match="no pair: wanted material/defect"):
        named_pair(copper, "/")
