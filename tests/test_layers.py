"""The rooms of the house: imports go to earlier rooms only, and importing changes nothing."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lprjax

ROOT = Path(__file__).parents[1]
ROOMS = """
    structures blocks extxyz neighbours radial angular coupling products spec ace adjoint references
    observables predictions design factors sharding assembly fit rigidity posterior selection
    kernels networks dynamics krylov seminorm lattice phonons relax defects point_defects
    farfield moves response implicit bounds budget
""".split()
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "lprjax").rglob("*.py"))
MODULES = [path for path in FILES if path != Path("lprjax/__init__.py")]


def imports(path):
    """Dotted names that the file imports, anywhere in it: `from a import b` gives a.b."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    """The room a file of the package belongs to: its module, or its folder."""
    return path.with_suffix("").parts[1]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_to_earlier_rooms_only(path):
    assert room(path) in ROOMS, f"{path} is in no room: give it a place in ROOMS"
    allowed = ROOMS[: ROOMS.index(room(path))]
    if room(path) == "references":  # siblings under one roof
        allowed += ["references"]
    for name in imports(path):
        package, *inside = name.split(".")
        if package == "lprjax":
            assert inside and inside[0] in allowed, f"{path} imports {name}: not an earlier room"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_declared_dependencies_are_imported(path):
    """So no package of the extra `oracles` is: it is declared for tests alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name for line in project["dependencies"]}
    known = declared | sys.stdlib_module_names | {"lprjax"}
    strangers = {name.split(".")[0] for name in imports(path)} - known
    assert not strangers, f"{path} imports {strangers}, which pyproject.toml does not declare"


def test_no_public_name_hides_a_room():
    """`lprjax.fit` is the module, whichever way and in whichever order things are imported."""
    assert set(lprjax.__all__) <= vars(lprjax).keys() and not set(lprjax.__all__) & set(ROOMS)


def test_importing_changes_no_global_state():
    """All modules, in a fresh interpreter: JAX's configuration, the environment, NumPy's modes."""
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    code = f"""
import importlib, os, jax, numpy as np
import flax.linen  # adds flags of its own to JAX's
def state():
    return dict(jax.config.values), dict(os.environ), np.geterr(), np.get_printoptions()
before = state()
for name in {names}:
    importlib.import_module(name)
for old, new in zip(before, state(), strict=True):
    changed = {{key for key in old | new if old.get(key) != new.get(key)}}
    assert not changed, f"importing lprjax changed {{changed}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
