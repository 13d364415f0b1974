"""Reference potentials by name: the same objects as by hand, and what is none refused by name."""

import numpy as np
import pytest

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import fcc
from lprjax.potentials.eam import zhou_eam
from lprjax.potentials.eam_tables import eam_from_file
from lprjax.potentials.named_references import (
    BONDS,
    CRYSTALS,
    named_reference,
    read_material,
)
from lprjax.potentials.observables import total_energy
from lprjax.potentials.stillinger_weber import stillinger_weber
from lprjax.potentials.tersoff import tersoff
from tests.helpers.eam import text, zhou_tables

COPPER = """
element = "Cu"
crystal = "fcc"
lattice_constant = 3.6
reference = "cu.eam.alloy"
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "cu.eam.alloy"
    path.write_text(text(zhou_tables(("Cu",), n_rho=500, n_r=1201)))
    return path


def test_the_built_in_ones_are_those_of_the_library():
    assert named_reference("stillinger-weber") == stillinger_weber()
    assert named_reference("tersoff", ["Si"]) == tersoff()
    assert named_reference("zhou", ["W"]) == zhou_eam("W")
    assert named_reference("zhou", ["W", "Mo"]) == zhou_eam("W", "Mo")
    assert named_reference("zhou", ["W"], options={"r_cut": 5.0}) == zhou_eam("W", r_cut=5.0)


@pytest.mark.parametrize("element, a", [("Cu", 3.615), ("Ni", 3.52), ("Al", 4.05)])
def test_no_shell_of_an_fcc_metal_is_at_the_cutoff(element, a):
    """That of the paper is; a cutoff that is 3 % longer or shorter meets as many neighbours."""
    r_cut = named_reference("zhou", [element]).r_cut
    counts = {int(np.sum(build_graph(fcc(element, a), s * r_cut).edge_mask)) for s in (0.98, 1.02)}
    assert len(counts) == 1


@pytest.mark.parametrize("name", CRYSTALS)
def test_bonds_are_the_nearest_distances(name):
    graph = build_graph(CRYSTALS[name]("Si", 5.0), 5.0)
    lengths = np.linalg.norm(graph.vectors(), axis=-1)[np.asarray(graph.edge_mask)]
    assert lengths.min() == pytest.approx(5.0 * BONDS[name], rel=1e-12)


def test_tables_functions_and_calculators_are_found(table):
    crystal = fcc("Cu", 3.6)
    by_hand = eam_from_file(table, ["Cu"])
    for found in (
        named_reference(str(table), ["Cu"]),
        named_reference(table.name, folder=table.parent),
    ):
        graph = build_graph(crystal, found.r_cut)
        assert float(total_energy(found, graph)) == float(total_energy(by_hand, graph))
    assert named_reference("lprjax.potentials:zhou_eam").elements == zhou_eam().elements
    emt = named_reference("ase:ase.calculators.emt:EMT", differences={"step": 2e-3})
    assert emt.step == 2e-3
    assert named_reference("lprjax.potentials:tersoff") == tersoff()


@pytest.mark.parametrize(
    "name, message",
    [
        ("nothing.eam", "wanted a file that there is, one of zhou"),
        ("nowhere:make", "No module named 'nowhere'"),
        ("lprjax.potentials:nothing", "has no attribute 'nothing'"),
        ("ase:nowhere", "wanted 'module:function'"),
        (":make", "wanted 'module:function'"),
    ],
)
def test_what_is_no_reference_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        named_reference(name)
    with pytest.raises(ValueError, match="differences are of calculators"):
        named_reference("zhou", ["W"], differences={"step": 0.1})


def test_a_material_is_read_with_its_table(table):
    path = table.with_name("copper.toml")
    path.write_text(COPPER + "options = {r_cut = 5.9}\n")
    found = read_material(path)
    assert (found.name, found.element, found.crystal, found.r_cut) == ("copper", "Cu", "fcc", 0.0)
    assert found.files == (path, table) and found.build().r_cut == 5.9
    path.write_text(COPPER.replace("cu.eam.alloy", "zhou"))
    assert read_material(path).files == (path,)
    assert read_material(path).build() == named_reference("zhou", ["Cu"])
    path.write_text(COPPER.replace("cu.eam.alloy", "nowhere:make"))
    with pytest.raises(ValueError, match="copper.toml.*No module named 'nowhere'"):
        read_material(path).build()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('element = "Cu"', "", r"lacks \['element'\]"),
        ('"Cu"', '"Xx"', "wanted a chemical symbol"),
        ("fcc", "hcp", "one of bcc, fcc, diamond"),
        ("3.6", "-3.6", "wanted a positive length"),
        ("cu.eam", "zn.eam", "reference of .* is 'zn.eam.alloy'"),
        ("=", ":", "is no TOML"),
    ],
)
def test_material_files_are_refused(table, old, new, message):
    path = table.with_name("copper.toml")
    path.write_text(COPPER.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_material(path)
    with pytest.raises(ValueError, match="there is no .*other.toml"):
        read_material(path.with_name("other.toml"))


def test_results_of_a_calculator_are_kept_where_a_file_says(tmp_path):
    """By name and options; a second potential reads what the first computed; tables have none."""
    path = tmp_path / "copper.toml"
    path.write_text(
        'element = "Cu"\ncrystal = "fcc"\nlattice_constant = 3.6\ncache = "calls"\n'
        'reference = "ase:ase.calculators.emt:EMT"\n[options]\nasap_cutoff = true\n'
    )
    graph = build_graph(fcc("Cu", 3.6), 1.0)
    first, again = (read_material(path).build(tmp_path / "elsewhere") for _ in range(2))
    energies = [float(total_energy(potential, graph)) for potential in (first, again)]
    assert energies[0] == energies[1]
    assert (first.calculator.calls, again.calculator.calls) == (1, 0)
    (folder,) = (tmp_path / "calls").iterdir()
    assert folder.name.startswith("ase.calculators.emt_EMT-")
    other = named_reference("ase:ase.calculators.emt:EMT", cache=tmp_path / "calls")
    assert other.calculator.folder.parent == folder.parent and other.calculator.folder != folder
    assert float(total_energy(other, graph)) != energies[0]
    named_reference("zhou", ["Cu"], cache=tmp_path / "calls")
    assert not (tmp_path / "elsewhere").exists()
