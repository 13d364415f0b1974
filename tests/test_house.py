"""The house: imports go downward, panels only read, scripts stand alone, and the door opens."""

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import lprjax as lp

ROOT = Path(__file__).parents[1]
PACKAGES = "numerics atoms potentials ace regression models crystals simulation defects ase".split()
PACKAGES += ["commands"]
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


@functools.cache
def imports(path):
    """Dotted names that the file imports, anywhere in it: `from a import b` gives a.b."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_every_file_of_the_library_has_a_package():
    files = {"__init__.py", "__main__.py", "version.py"}
    unknown = {path.parts[1] for path in LIBRARY} - {*PACKAGES, *files}
    assert not unknown, f"{unknown}: give it a place in PACKAGES"


@pytest.mark.parametrize("path", [p for p in LIBRARY if len(p.parts) > 2], ids=str)
def test_imports_of_the_library_go_down_the_list(path):
    allowed = ["version", *PACKAGES[: PACKAGES.index(path.parts[1]) + 1]]
    for name in imports(path):
        package, *inside = name.split(".")
        assert package != "experiments", f"{path} imports {name}"
        if name == "lprjax":  # the door, which commands see as users do
            assert path.parts[1] == "commands", f"{path} imports {name}"
        elif package == "lprjax":
            assert inside[0] in allowed, f"{path} imports {name}: not further up"


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
    unknown = {name.split(".")[0] for name in imports(path)} - known
    assert not unknown, f"{path} imports {unknown}, which pyproject.toml does not declare"


def public_functions(body, of=""):
    """Functions and methods without a leading underscore, special methods too; (name, node)."""
    for node in body:
        special = getattr(node, "name", "").startswith("__")
        if getattr(node, "name", "_").startswith("_") and not special:
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body, f"{of}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{of}{node.name}", node


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_public_functions_are_annotated(path):
    """On every argument, besides self and cls, and on what is returned."""
    for name, node in public_functions(ast.parse((ROOT / path).read_text()).body):
        stated = node.args
        arguments = [*stated.posonlyargs, *stated.args, *stated.kwonlyargs]
        arguments += [extra for extra in (stated.vararg, stated.kwarg) if extra]
        bare = [a.arg for a in arguments if not a.annotation and a.arg not in ("self", "cls")]
        assert not bare and node.returns, f"{path}: {name}: annotate {[*bare, 'what it returns']}"


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


FIRST_DAY = """
    ACESpec build_graph build_graphs observe site_basis design_rows compress_structures fit
    linear_potential local_prediction_rigidity prediction_rigidity component_rigidity
    prediction_rows error_budget vacancy divacancy named_defect bcc fcc diamond supercell strained
    rattled from_ase to_ase zhou_eam eam_from_file stillinger_weber tersoff ase_potential validate
    relax relax_defect elastic_constants equilibrium read_extxyz write_extxyz write_chemiscope
    save load choose committee calibrate relaxed_formation_energy molecular_dynamics predicted_error
    error_forms check_virials read_training_set compress_groups read_weights baseline_energies
    compress_folds validation_front influence structure_rows audit error_bars
    structure_factors left_out_errors choose_weights choose_ridge split_conformal
""".split()


def test_what_a_first_day_needs_is_behind_the_door():
    assert set(FIRST_DAY) | set(PACKAGES) <= set(lp.__all__)
    for name in lp.__all__:
        assert getattr(lp, name) is not None


def test_what_texts_name_is_at_the_door():
    """Every `lp.name` of the README, the docstrings and the tutorials is there."""
    texts = ["README.md", *LIBRARY, *(p for p in EXPERIMENTS if "tutorials" in p.parts)]
    for path in texts:
        for name in re.findall(r"\blp\.(\w+(?:\.\w+)*)", (ROOT / path).read_text()):
            found = lp
            for part in name.split("."):
                if isinstance(found, ModuleType):  # what an object has is no matter of the door
                    assert hasattr(found, part), f"{path}: lp.{name}"
                found = getattr(found, part, None)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_it_is_for_and_lists_what_it_offers(package):
    module = getattr(lp, package)
    assert module.__doc__ and len(module.__doc__.splitlines()[0]) <= 100
    for name in getattr(module, "__all__", []):
        found = getattr(module, name)
        assert not isinstance(found, ModuleType), f"{name} hides a file of {package}"


def test_no_public_name_hides_a_file():
    """`lprjax.a.b` is the file, whichever way and in whichever order things are imported, but for
    the three potentials that are the only thing to be had from the file of their name."""
    for path in LIBRARY:
        if path.name != "__init__.py" and path.stem not in ("stillinger_weber", "tersoff", "zbl"):
            name = ".".join(path.with_suffix("").parts)
            package, _, file = name.rpartition(".")
            importlib.import_module(name)
            assert isinstance(getattr(importlib.import_module(package), file), ModuleType), name


def test_the_door_opens_without_what_loads_slowly():
    slow = ("jax", "numpy", "flax", "optax", "matplotlib", "ase.io", "tyro")
    slow += ("scipy.stats", "scipy.interpolate", "scipy.ndimage")
    code = f"import sys, lprjax; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


TESTED_BY = {
    "ace/basis": "ace/test_potential",
    "ace/sums_of_products": "ace/test_adjoint",
    "defects/hessian": "defects/test_response",
    "regression/samples": "regression/test_assembly",
    "models/features": "models/test_kernels",
    "potentials/eam": "potentials/test_references",
    "potentials/stillinger_weber": "potentials/test_references",
}
"""Files that share their tests with a neighbour; all others have a test file of their name."""


@pytest.mark.parametrize(
    "path", [p for p in LIBRARY if len(p.parts) > 2 and p.stem != "__init__"], ids=str
)
def test_every_file_of_the_library_has_its_tests(path):
    package, name = path.parts[1], path.stem
    found = TESTED_BY.get(f"{package}/{name}", f"{package}/test_{name}")
    assert (ROOT / "tests" / f"{found}.py").exists(), f"{path}: wanted tests/{found}.py"


def test_test_files_import_no_test_file():
    """So that each runs alone; what they share is in `tests/helpers`."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in imports(path.relative_to(ROOT)):
            package, *inside = name.split(".")
            if package == "tests" and "helpers" not in path.parts:
                assert inside and inside[0] == "helpers", f"{path} imports {name}"
            assert not package.startswith("test_"), f"{path} imports {name}"
