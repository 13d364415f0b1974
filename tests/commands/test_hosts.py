"""Crystals of references: the lattice constant is the one at zero pressure."""

import pytest

from lprjax.atoms import bcc
from lprjax.commands.hosts import read_host
from lprjax.crystals import equilibrium
from lprjax.potentials import zhou_eam


def test_a_host_is_at_zero_pressure(tmp_path):
    wanted = equilibrium(zhou_eam("W"), bcc("W", 3.2, primitive=True))
    (tmp_path / "w.toml").write_text(
        'element = "W"\ncrystal = "bcc"\nlattice_constant = 3.3\nreference = "zhou"\n'
    )
    for found in (read_host("zhou", ("bcc", "W")), read_host(str(tmp_path / "w.toml"))):
        assert found.lattice_constant == pytest.approx(3.2 * wanted.scale, rel=1e-9)
        assert found.energy_per_atom == pytest.approx(wanted.energy_per_atom, rel=1e-9)
        assert found.unit_cell.n_atoms == 2
    # in a crystal that the element has not, from touching atoms
    assert read_host("zhou", ("fcc", "W")).lattice_constant > found.lattice_constant


@pytest.mark.parametrize("words", [(), ("bcc",), ("hcp", "W"), ("bcc", "Xx"), ("W", "bcc")])
def test_words_that_name_no_crystal_are_refused(words):
    with pytest.raises(ValueError, match="wanted one of bcc, fcc, diamond and a chemical symbol"):
        read_host("zhou", words)


def test_a_potential_without_the_crystal_says_so():
    with pytest.raises(RuntimeError, match="has no bcc W near a = 9.000"):
        read_host("zhou", ("bcc", "W"), 9.0)
