"""Random structures, labels and numbers per atom, for `hypothesis`.

The cell of `structures` is upright but for shears of less than a third of its shortest edge, so no
two of its vectors are anywhere near parallel; that of `skewed_structures` may be of any shape.
"""

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lprjax.atoms.structures import Labels, make_structure

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def reals(size=1e3):
    return st.floats(-size, size, allow_subnormal=True)


@st.composite
def structures(draw, most=5):
    n = draw(st.integers(1, most))
    edges = draw(arrays(float, 3, elements=st.floats(3.0, 9.0)))
    cell = np.diag(edges) + np.tril(draw(arrays(float, (3, 3), elements=reals(1.0))), -1)
    positions = draw(arrays(float, (n, 3), elements=reals()))
    species = draw(st.lists(st.sampled_from(["H", "Si", "W", 92]), min_size=n, max_size=n))
    return make_structure(positions, cell, species, draw(st.tuples(*[st.booleans()] * 3)))


@st.composite
def skewed_structures(draw):
    """One to five atoms in a cell of any shape with edges of 2 to 8 Å, and any periodicity."""
    edges = [draw(st.floats(2.0, 8.0)) for _ in range(3)]
    tilt = np.array([[draw(st.floats(-0.7, 0.7)) for _ in range(3)] for _ in range(3)])
    cell = np.diag(edges) @ (np.eye(3) + tilt - np.diag(np.diag(tilt)))
    heights = np.abs(np.linalg.det(cell)) / np.linalg.norm(
        np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1
    )
    assume(heights.min() > 1.0)
    n = draw(st.integers(1, 5))
    fractions = np.array([[draw(st.floats(0.0, 1.0)) for _ in range(3)] for _ in range(n)])
    pbc = tuple(draw(st.booleans()) for _ in range(3))
    species = [draw(st.sampled_from([29, 74])) for _ in range(n)]
    return make_structure(fractions @ cell, cell, species, pbc)


@st.composite
def labels_of(draw, n):
    """At least an energy."""
    upper = draw(arrays(float, (3, 3), elements=reals()))
    return Labels(
        draw(reals(1e6)),
        draw(st.none() | arrays(float, (n, 3), elements=reals())),
        draw(st.sampled_from([None, upper + upper.T])),
    )


@st.composite
def per_atom(draw, n):
    """Floats, infinity among them, or integers, of one to three per atom."""
    shape = draw(st.sampled_from([(n,), (n, 1), (n, 2)]))
    whole = arrays(np.int64, shape, elements=st.integers(-(2**63), 2**63 - 1))
    return draw(arrays(float, shape, elements=st.floats(allow_nan=False)) | whole)
