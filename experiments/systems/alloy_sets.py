"""The training sets of `alloy_composition`: compositions, kinds of labels, and their order."""

from itertools import product

SETS = {
    "1:1 only": (),
    "one more": (4,),
    "six more": (2, 4, 6, 10, 12, 14),
    "pure metals": (0, 16),
}
"""Atoms of the second element among 16, in the structures that some at 1:1 give way to."""
OTHERS = sorted({count for chosen in SETS.values() for count in chosen})
KINDS = {
    "E": ("energy",),
    "E+F": ("energy", "forces"),
    "E+F+V": ("energy", "forces", "virial"),
}
DESIGNS = list(product(SETS, KINDS))
CURVES = {
    "swapped in, nearest first": (True, 1),
    "swapped in, farthest first": (True, -1),
    "added, nearest first": (False, 1),
}
"""Whether structures at 1:1 give way, and the order of the compositions."""
