"""The hash of what computes changes with every line that computes, and with no other."""

import importlib
from functools import partial

import pytest

from experiments.harness import sources
from experiments.harness.sources import code_hash

SCRIPT = '''
"""A figure."""

import json
from experiments import panel
from lprjax.deep import twice as double
from experiments.cells import SIZES

TABLE = {"a": 1}
TABLE["b"] = 2  # a statement of its own
print("loud")


class Point:
    """One."""

    size: int = 3


def compute(point: Point, factor=1):
    """The arrays."""
    # exact
    return {"x": helper(point) * factor}


def helper(point):
    return double(SIZES[0]) + TABLE["a"]


def caption(summary):
    return "what it shows: " + json.dumps(summary) + panel.draw()
'''
FILES = {
    "lprjax/__init__.py": "from lprjax.other import unused\n",
    "lprjax/deep.py": "from lprjax.deeper.base import once\ntwice = lambda x: 2 * once(x)\n",
    "lprjax/deeper/__init__.py": "WIDE = 3\n",
    "lprjax/deeper/base.py": "def once(x):\n    '''x.'''\n    return x\n",
    "lprjax/other.py": "unused = 1\n",
    "experiments/__init__.py": "",
    "experiments/cells.py": "SIZES = (2, 3)\n",
    "experiments/panel.py": "def draw():\n    return 'red'\n",
}


@pytest.fixture
def hash_of(tmp_path, monkeypatch):
    """Of the script's `compute`, after a change of one file."""
    monkeypatch.setattr(
        sources, "ROOTS", {name: tmp_path / name for name in ("lprjax", "experiments")}
    )
    monkeypatch.syspath_prepend(tmp_path)

    def found(path="", old="", new="", wrap=lambda compute: compute):
        for name, text in {"script_of_a_test.py": SCRIPT, **FILES}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if name == path:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / name).write_text(text)
        for kept in (sources.code_hash, sources._parsed, sources._dumped):
            kept.cache_clear()
        names = {}
        exec(compile("def compute(): ...", str(tmp_path / "script_of_a_test.py"), "exec"), names)
        return code_hash(wrap(names["compute"]))

    return found


CHANGES = [
    ("script_of_a_test.py", "* factor", "/ factor"),
    ("script_of_a_test.py", "+ TABLE", "- TABLE"),  # in what `compute` calls
    ("script_of_a_test.py", '"a": 1', '"a": 2'),
    ("script_of_a_test.py", "size: int = 3", "size: int = 4"),
    ("script_of_a_test.py", '"loud"', '"silent"'),  # a call at import
    ("script_of_a_test.py", "import twice as", "import thrice as"),
    ("script_of_a_test.py", 'TABLE["b"] = 2', 'TABLE["a"] = 2'),
    ("lprjax/deep.py", "2 *", "3 *"),
    ("lprjax/deeper/base.py", "return x", "return -x"),  # which that imports
    ("experiments/cells.py", "(2, 3)", "(3, 2)"),
]
NONE = [
    ("script_of_a_test.py", "# exact", "# to rounding"),
    ("script_of_a_test.py", '"""The arrays."""', '"""All arrays."""'),
    ("script_of_a_test.py", "\n\n\nclass", "\n\n\n\n\nclass"),
    ("script_of_a_test.py", "what it shows", "what it says"),
    ("lprjax/deeper/base.py", "'''x.'''", "'''The same.'''"),
    ("lprjax/other.py", "1", "2"),  # which nothing here imports
    ("experiments/panel.py", "red", "blue"),  # which only draws
]


def test_what_computes_counts_and_nothing_else(hash_of):
    same = hash_of()
    assert len(same) == 64 and all(hash_of(*change) == same for change in NONE)
    others = [hash_of(*change) for change in CHANGES]
    assert len({same, *others}) == len(CHANGES) + 1
    assert hash_of(wrap=lambda compute: partial(compute, factor=2)) == same


def test_the_figures_depend_on_what_they_use():
    """The survey on the library down to the graphs, none of them on a panel."""
    figure = importlib.import_module("experiments.vacancy_convergence")
    tree = sources._parsed(sources._file("experiments.vacancy_convergence"))
    used = sources.ast.Module(sources._reached(tree.body, "compute"), type_ignores=[])
    files = {path.as_posix() for path in sources._files(sources._imported(used))}
    for part in ("lprjax/atoms/graphs", "lprjax/defects/budget", "experiments/studies/defect_fits"):
        assert any(path.endswith(f"{part}.py") for path in files), part
    assert not any("/panels/" in path for path in files)
    assert code_hash(figure.compute) == code_hash(figure.compute)
