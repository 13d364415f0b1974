"""Small labelled cells of tungsten, and what the command makes of them; the command itself."""

import json
import re

import jax
import numpy as np
import pytest

from lprjax.atoms import bcc, build_graphs, rattled, strained, supercell, write_extxyz
from lprjax.commands import main
from lprjax.potentials import observe_all, zhou_eam

BASIS = "--order 2 --degree 5 --r-cut 4.5 --cutoff-power 4".split()
WEIGHTS = "--weights energy=100 forces=1 virial=10".split()


def labelled_cells(path, seed, groups):
    """Cells of 16 atoms with the labels of the EAM, a group each."""
    cube, eam = supercell(bcc("W", 3.165), (2, 2, 2)), zhou_eam("W")
    keys = jax.random.split(jax.random.key(seed), len(groups))
    shears = np.random.default_rng(seed).uniform(-0.03, 0.03, (len(groups), 3, 3))
    cells = [
        rattled(strained(cube, (e + e.T) / 2 if group == "strained" else np.zeros((3, 3))), k, 0.1)
        for k, e, group in zip(keys, shears, groups, strict=True)
    ]
    kinds = ("energy", "forces", "virial")
    labels = observe_all(eam, build_graphs(cells, eam.r_cut), kinds)
    write_extxyz(path, cells, labels)
    names = iter(groups)
    text = re.sub(r" energy=", lambda m: f" config_type={next(names)}{m[0]}", path.read_text())
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """With train.xyz, test.xyz and model.npz."""
    folder = tmp_path_factory.mktemp("shell")
    labelled_cells(folder / "train.xyz", 0, ["rattled"] * 6 + ["strained"] * 4)
    labelled_cells(folder / "test.xyz", 1, ["rattled"] * 2 + ["strained"])
    train, model = (str(folder / name) for name in ("train.xyz", "model.npz"))
    assert main(["fit", train, "-o", model, *BASIS, *WEIGHTS]) == 0
    return folder


@pytest.fixture
def shell(capsys):
    """Run the command: its exit code, what it printed, and what it said aside."""

    def run(*argv):
        capsys.readouterr()
        code = main([str(word) for word in argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def summary(shell):
    """Of --json: the one line of the standard output."""

    def run(*argv, code=0):
        found, out, err = shell(*argv, "--json")
        assert found == code, err
        (line,) = out.splitlines()
        return json.loads(line, parse_constant=pytest.fail)

    return run


@pytest.fixture
def refused(shell):
    """With exit code 2, a message and nothing else."""

    def run(pattern, *argv, code=2):
        found, out, err = shell(*argv)
        words = " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())
        assert found == code and "Traceback" not in err
        assert re.search(pattern, words), words
        return out

    return run
