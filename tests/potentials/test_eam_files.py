"""What a file of an EAM says, whichever format it has, and that other files are refused."""

import numpy as np
import pytest

from lprjax.potentials.eam_files import read_eam
from tests.helpers.eam import random_tables, text, zhou_tables


def same_tables(found, wanted):
    assert found.elements == wanted.elements
    for a, b in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("words", [1, 3, 5])
def test_what_is_written_is_read(words, tmp_path):
    """Numbers in any lines; 50 and 40 of them leave the last line of each table short."""
    cases = {"alloy": zhou_tables(n_rho=50, n_r=40), "funcfl": random_tables(1)}
    for form, tables in [*cases.items(), *(("fs", random_tables(n)) for n in (2, 3))]:
        path = tmp_path / f"{form}.txt"
        path.write_text(text(tables, form, words))
        same_tables(read_eam(path), tables)


def test_headers_and_numbers_of_fortran(tmp_path):
    """Two words or five before an element's numbers, and D for E, as some files have them."""
    lines = text(random_tables(), "fs").replace("e", "D").replace("bccD", "bcc").splitlines()
    (tmp_path / "d.eam.fs").write_text("\n".join(lines).replace(" 1.0 3.0 bcc", " 1.0"))
    same_tables(read_eam(tmp_path / "d.eam.fs"), random_tables())
    (tmp_path / "e.eam.fs").write_text("\n".join(lines).replace("3.0 bcc", "3.0 bcc wikipedia"))
    same_tables(read_eam(tmp_path / "e.eam.fs"), random_tables())


GOOD = text(random_tables(), "fs")
LINES = GOOD.splitlines()
WRONG = {
    "cut short": ("\n".join(LINES[:-40]), "words behind line 5, where 2 elements need"),
    "cut after the header": ("\n".join(LINES[:5]), "has 5 lines"),
    "one number too many": (GOOD + "1.0\n" * 9, "words behind line 5"),
    "no number": (GOOD.replace(LINES[40], "x y z"), "a table up to line 54: .*'x'"),
    "a NaN": (GOOD.replace(LINES[40].split()[0], "nan"), "NaN or infinity"),
    "a grid of six numbers": (GOOD.replace(LINES[4], LINES[4] + " 1.0"), "line 5 is"),
    "a step of zero": (GOOD.replace(LINES[4], "40 0.0 50 0.1 6.0"), "line 5 has no grid"),
    "a step without end": (GOOD.replace(LINES[4], "40 inf 50 0.1 6.0"), "line 5 has no grid"),
    "infinitely many": (GOOD.replace(LINES[4], "inf 1.0 50 0.1 6.0"), "line 5 is"),
    "half a number": (GOOD.replace(LINES[4], "40.5 1.0 50 0.1 6.0"), "line 5 has no grid"),
    "an element twice": (GOOD.replace("2 W Mo", "2 W W"), "line 4 is '2 W W'"),
    "an element that is none": (GOOD.replace("2 W Mo", "2 W Xx"), "line 4 is '2 W Xx'"),
    "an element too few": (GOOD.replace("2 W Mo", "2 W"), "line 4 is '2 W'"),
    "another format": ("\n".join(["a picture"] * 20), "line 2 begins with 'a'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_are_refused(name, tmp_path):
    content, message = WRONG[name]
    (tmp_path / "wrong.eam.fs").write_text(content)
    with pytest.raises(ValueError, match=f"wrong.eam.fs: .*{message}.*: wanted an EAM table"):
        read_eam(tmp_path / "wrong.eam.fs")
