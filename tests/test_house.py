"""The house: imports go downward, panels only read, scripts stand alone, and the door opens."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = "numerics atoms potentials ace regression models crystals simulation defects".split()
"""From the top of the data flow down; a package imports those before it, and itself."""
LIBRARY = sorted(path.relative_to(ROOT) for path in (ROOT / "lprjax").rglob("*.py"))
EXPERIMENTS = sorted(path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.py"))
ROOMS = "harness systems studies panels benchmark tutorials".split()
MAY_IMPORT = {  # rooms of `experiments`; what is none of them is a script
    "harness": {"harness"},
    "systems": {"systems"},
    "studies": {"systems", "studies"},
    "panels": {"harness", "systems", "panels"},
    "benchmark": {"harness", "systems", "benchmark"},
    "tutorials": set(),
    "script": {"harness", "systems", "studies", "panels"},
}


def imports(path):
    """Dotted names that the file imports, anywhere in it: `from a import b` gives a.b."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_of_the_library_has_a_package():
    strangers = {path.parts[1] for path in LIBRARY} - {*PACKAGES, "__init__.py"}
    assert not strangers, f"{strangers}: give it a place in PACKAGES"


@pytest.mark.parametrize("path", [p for p in LIBRARY if len(p.parts) > 2], ids=str)
def test_imports_of_the_library_go_down_the_list(path):
    allowed = PACKAGES[: PACKAGES.index(path.parts[1]) + 1]
    for name in imports(path):
        package, *inside = name.split(".")
        assert package != "experiments", f"{path} imports {name}"
        if package == "lprjax":
            assert inside and inside[0] in allowed, f"{path} imports {name}: not further up"


def test_files_of_the_library_import_each_other_one_way():
    """No two of them, however far apart, lead to each other."""
    modules = {".".join(path.with_suffix("").parts): path for path in LIBRARY}
    leads = {
        module: {
            m for m in modules if m != module for n in imports(path) if f"{n}.".startswith(f"{m}.")
        }
        for module, path in modules.items()
        if path.name != "__init__.py"
    }
    while leads:
        last = [module for module, to in leads.items() if not to & leads.keys()]
        assert last, f"these import each other: {sorted(leads)}"
        leads = {module: to for module, to in leads.items() if module not in last}


def room_of(path):
    return path.parts[1] if len(path.parts) > 2 else "script"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_imports_of_the_experiments_respect_the_rooms(path):
    """No script a script, panels no study."""
    for name in imports(path):
        package, *inside = name.split(".")
        if package == "experiments" and inside:
            to = inside[0] if inside[0] in ROOMS else "script"
            assert to in MAY_IMPORT[room_of(path)], f"{path} imports {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_only_declared_dependencies_are_imported(path):
    """So no package of the extra `oracles` is: it is declared for tests alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name for line in project["dependencies"]}
    known = declared | sys.stdlib_module_names | {"lprjax"}
    strangers = {name.split(".")[0] for name in imports(path)} - known
    assert not strangers, f"{path} imports {strangers}, which pyproject.toml does not declare"


def test_importing_changes_no_global_state():
    """All modules, in a fresh interpreter: JAX's configuration, the environment, NumPy's modes."""
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in LIBRARY]
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
