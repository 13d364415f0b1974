"""Assembly: the rows and labels of a group of structures, compressed as they come.

Rows are never held beyond a block. Weights are no part of it: there is one factor per kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jax.core import Tracer
from jax.sharding import Mesh
from jax.typing import ArrayLike

from lprjax.ace.basis import check_graph, core_of
from lprjax.ace.potential import isolated_energies
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Labels, label_shapes
from lprjax.atoms.voigt import six_components
from lprjax.numerics.checks import finite_array
from lprjax.numerics.memory import spare_maps
from lprjax.potentials.observables import checked_atoms, checked_kinds, observe
from lprjax.potentials.potential import Potential, as_argument, check
from lprjax.regression.factors import Factor
from lprjax.regression.rows import coefficients_of, design_rows
from lprjax.regression.streams import (
    Stream,
    checked_mesh,
    finished,
    on_each,
    push,
    share_of,
    spread,
    stream,
)


def stacked(kind: str, value: ArrayLike, n_atoms: int) -> np.ndarray | jax.Array:
    """One observable of a structure, or its rows, as a stack of scalar rows.

    energy: r = 1. forces: r = 3 n_atoms. virial: r = 6, in Voigt order xx, yy, zz, yz, xz, xy (the
    mean of the two off-diagonal components). force_constants: r = 9 n_a n_atoms for n_a displaced
    atoms, ordered by the atom whose force changes. Padding atoms come last and are left out.

    Args:
        kind: of the observable, see `observables.observe`.
        value: as `observe` or `design_rows` returns it; rows have one more axis, C, at the end.
        n_atoms: how many atoms to keep.

    Returns:
        (r,) of an observable, (r, C) of rows, in the unit of the value. A NumPy array, or a traced
        one of a traced value.

    Raises:
        ValueError: an unknown kind.
    """
    checked_kinds(kind)
    array: Any = value if isinstance(value, Tracer) else np.asarray(value)
    if kind == "energy":
        return array[None]
    if kind == "virial":
        return six_components(array)
    leading = 2
    if kind == "force_constants":
        array, leading = array.swapaxes(0, 2), 4
    return array[:n_atoms].reshape(-1, *array.shape[leading:])


def stacked_rows(
    model: ACESpec | Potential,
    graph: Graph,
    labels: Labels,
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
    per_atom: Sequence[str] = (),
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The rows and labels of one structure, a scalar each: for rigidities, calibration, choice.

    Args:
        model: as in `design_rows`.
        graph: of the structure.
        labels: of its real atoms, or padded as the graph.
        kinds: as in `compress_structures`.
        atoms: those displaced for the force constants; other kinds ignore it.
        per_atom: as in `compress_structures`.

    Returns:
        kind -> rows (r, C) and labels (r,), in the order of `stacked`; of the kinds that the
        structure has labels of.

    Raises:
        ValueError: as `design_rows`; labels of the wrong shape or not finite.
        TypeError, RuntimeError: as `design_rows`.
    """
    kinds, shared = checked_kinds(kinds), checked_per_atom(per_atom)
    kinds = tuple(kind for kind in kinds if getattr(labels, kind) is not None)
    rows = design_rows(model, graph, kinds, atoms=atoms)._asdict() if kinds else {}
    n = int(np.sum(np.asarray(graph.atom_mask)))
    found = {}
    for kind in kinds:
        share = 1.0 / n if kind in shared else 1.0
        y = checked_label(kind, labels, graph, len(atoms), 0)
        x, y = (share * np.asarray(stacked(kind, both, n)) for both in (rows[kind], y))
        found[kind] = x, y
    return found


class PerAtom(NamedTuple):
    """An energy per atom, of the basis and of the labels: the perfect crystal's, for example."""

    row: np.ndarray  # (C,), of the energy per atom
    energy: float  # eV


def compress_structures(
    model: ACESpec | Potential,
    samples: Iterable[tuple[Graph, Labels]],
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
    reference_energies: Mapping[str, float] | None = None,
    origin: PerAtom | None = None,
    per_atom: Sequence[str] = (),
    mesh: Mesh | None = None,
) -> dict[str, Factor]:
    """One factor per kind of a group of structures; rows never pile up beyond a block.

    Targets are total energies less the isolated atoms' (eV), forces (eV/Å), the six virials (eV)
    and force constants (eV/Å^2), each less what the core of an ACESpec gives. All structures of a
    kind share its weight, so that the energy of a large cell counts as much as that of a small one,
    and its error per atom less: with
    per_atom=("energy", "virial") these are divided by the number of atoms, their weights are in
    atom/eV, and cells of every size count alike. Graphs that share a shape compile once.

    A structure counts with the kinds that it has labels of; `Factor.n_rows` says how many did.

    With several processes each passes samples of its own, the same kinds and the same mesh of all
    devices, and every one gets the factor of all samples.

    Args:
        model: an ACESpec; or a trainable potential (see `regression.rows`), whose rows are the
            Jacobians at its coefficients c0, and whose own predictions are subtracted from the
            targets: a fit is then the Gauss-Newton step from c0, and its factor the generalised
            Gauss-Newton Hessian's.
        samples: graphs with their labels (of the real atoms, or padded as the graph).
        kinds: among "energy", "forces", "virial", "force_constants".
        atoms: those displaced for the force constants; other kinds ignore it.
        reference_energies: by symbol, eV, of the isolated atoms; zeros if None. For an ACESpec
            only: a potential has its own.
        origin: subtracted N times from every energy and its row (N atoms), so that the energies
            are defect-minus-bulk differences; it replaces reference_energies.
        per_atom: which of "energy" and "virial" are divided by the number of atoms.
        mesh: of one axis, the D devices that share the work, each taking every D-th structure of
            a shape; the default device alone if None.

    Returns:
        kind -> Factor of C columns, C the number of coefficients.

    Raises:
        ValueError: labels of the wrong shape or not finite, or a structure without any of these
            kinds (it names the structure); a kind that no structure has; no samples at all; rows
            that are not finite; an element without a reference energy; an origin of other columns;
            a mesh of several axes; reference energies beside a potential.
        TypeError: a potential without `coefficients`; samples that are no pairs.
        RuntimeError: float64 is off.
    """
    spare_maps()
    kinds, shared = checked_kinds(kinds), checked_per_atom(per_atom)
    shift_row, shifts = _shift(model, reference_energies, origin)
    mesh = checked_mesh(mesh)
    streams = {kind: stream(len(shift_row), mesh) for kind in kinds}
    waiting: dict[tuple, list[_Item]] = {}
    number = -1
    for number, sample in enumerate(samples):
        graph, labels = checked_sample(sample, kinds, number)
        item = _checked_item(model, graph, labels, kinds, atoms, shifts, shared, number)
        chunk = waiting.setdefault(graph.edge_mask.shape, [])
        chunk.append(item)
        if len(chunk) == share_of(mesh):
            streams = _pushed(streams, model, chunk, atoms, shift_row, shared, mesh)
            chunk.clear()
    if number < 0:
        raise ValueError(
            "samples is empty: wanted at least one (graph, labels) pair; check what makes them."
        )
    for chunk in filter(None, waiting.values()):
        # The last once more, of which nothing counts, for each device that has none.
        spare = chunk[-1]._replace(counts=dict.fromkeys(kinds, 0))
        chunk += [spare] * (share_of(mesh) - len(chunk))
        streams = _pushed(streams, model, chunk, atoms, shift_row, shared, mesh)
    return {kind: _checked_factor(kind, finished(streams[kind])) for kind in kinds}


class _Item(NamedTuple):
    """A structure ready for its device: zero targets on padding atoms, which come last."""

    graph: Graph
    targets: dict[str, np.ndarray]  # (r,) by kind, padding included
    counts: dict[str, int]  # how many targets of each kind are of real atoms


def checked_per_atom(kinds: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds that are divided by the number of atoms, after checking them.

    Raises:
        ValueError: others than energy and virial, which alone grow with a cell.
    """
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not set(wanted) <= {"energy", "virial"}:
        raise ValueError(
            f"per_atom is {kinds!r}: wanted 'energy', 'virial' or both, as forces and force "
            "constants are of atoms already; leave the others out."
        )
    return wanted


def checked_sample(sample: Any, kinds: Sequence[str], number: int) -> tuple[Graph, Labels]:
    """A structure with its labels, after checking that it has one of the kinds at least.

    Args:
        sample: (Graph, Labels).
        kinds: see `observables.observe`.
        number: of the structure, for the message.

    Returns:
        The pair.

    Raises:
        TypeError: anything but a pair of the two.
        ValueError: no label of any of the kinds.
    """
    pair = tuple(sample) if isinstance(sample, tuple | list) else ()
    if not (len(pair) == 2 and isinstance(pair[0], Graph) and isinstance(pair[1], Labels)):
        held = [type(part).__name__ for part in pair] or type(sample).__name__
        raise TypeError(
            f"structure {number} of samples is {held}: wanted (Graph, Labels); make graphs with "
            "build_graphs, labels with observe or read_extxyz, and zip them."
        )
    if all(getattr(pair[1], kind) is None for kind in kinds):
        raise ValueError(
            f"structure {number} has no label among {kinds}: wanted one at least; leave the "
            "structure out or label it."
        )
    return pair


def _checked_item(model, graph, labels, kinds, atoms, shifts, shared, number: int) -> _Item:
    if isinstance(model, ACESpec):
        check_graph(model, graph)
    else:
        check(model, graph)
    if "force_constants" in kinds:
        checked_atoms(atoms, graph)
    n, n_padded = int(np.sum(np.asarray(graph.atom_mask))), len(graph.positions)
    targets, counts = {}, {}
    for kind in kinds:
        absent = getattr(labels, kind) is None
        if absent:  # zeros, of which nothing counts
            zeros = np.zeros(label_shapes(n, len(atoms))[kind][0])
            labels = labels._replace(**{kind: zeros})
        y = stacked(kind, checked_label(kind, labels, graph, len(atoms), number), n)
        if kind == "energy":
            y = y - np.sum(shifts[np.asarray(graph.species)])
        y = y / n if kind in shared else y
        counts[kind] = 0 if absent else len(y)
        per_atom = len(y) // n if kind in ("forces", "force_constants") else 0
        targets[kind] = np.pad(y, (0, per_atom * (n_padded - n)))
    return _Item(graph, targets, counts)


def _pushed(
    streams, model, chunk: list[_Item], atoms, shift_row, shared, mesh
) -> dict[str, Stream]:
    """The streams with the rows of one more structure for each device."""
    is_spec = isinstance(model, ACESpec)
    spec, potential = (model, None) if is_spec else (None, as_argument(model, "model"))
    common = (potential, np.asarray(atoms), shift_row)
    own = spread(mesh, [(item.graph, item.targets) for item in chunk])
    blocks = _blocks(mesh, spec, tuple(streams), shared, common, own)
    counts = {kind: np.array([item.counts[kind] for item in chunk]) for kind in streams}
    return {kind: push(streams[kind], *blocks[kind], counts[kind]) for kind in streams}


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _blocks(mesh: Mesh, spec: ACESpec | None, kinds, shared, common, own) -> dict[str, tuple]:
    """Rows and targets by kind, each device's own: (d, r, C) and (d, r)."""

    def of_one(common, graph, targets):
        potential, atoms, shift_row = common
        n_padded = len(graph.positions)
        model = cast(ACESpec | Potential, spec if potential is None else potential)
        rows = design_rows(model, graph, kinds, atoms=atoms)
        fixed = core_of(cast(ACESpec, spec)) if potential is None else potential
        predicted = None if fixed is None else observe(fixed, graph, kinds, atoms=atoms)
        found, n = {}, jnp.sum(graph.atom_mask)
        for kind in kinds:
            x, y = stacked(kind, getattr(rows, kind), n_padded), targets[kind]
            share = 1.0 / n if kind in shared else 1.0
            if predicted is not None:
                y = y - share * stacked(kind, getattr(predicted, kind), n_padded)
            if kind == "energy":
                x = x - n * shift_row[None, :]
            found[kind] = (share * x, y)
        return found

    return on_each(mesh, of_one)(common, *own)


def _shift(model, reference_energies, origin: PerAtom | None) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted for each atom, from the row (C,) and from the energy (eV, by number)."""
    energies = np.zeros(len(chemical_symbols))
    if isinstance(model, ACESpec):
        n_columns = model.n_columns
        energies[list(model.numbers)] = isolated_energies(model, reference_energies)
    else:
        n_columns = coefficients_of(model).size
        if reference_energies is not None:
            raise ValueError(
                f"reference_energies is {reference_energies!r}: wanted None for a potential, which "
                "has its own; leave it out."
            )
    if origin is None:
        return np.zeros(n_columns), energies
    row = finite_array("origin.row", origin.row, (n_columns,), "the basis")
    energies[1:] = finite_array("origin.energy", origin.energy, (), "eV")
    return row, energies


def _checked_factor(kind: str, factor: Factor) -> Factor:
    if factor.n_rows == 0:
        raise ValueError(
            f"no structure of samples has a label of kind {kind!r}: wanted at least one; leave the "
            "kind out, or check what makes the labels (a file's keys)."
        )
    if not np.isfinite(np.asarray(factor.triangular)).all():
        raise ValueError(
            f"rows of kind {kind!r} hold NaN or infinity: wanted finite rows; look for atoms on "
            "top of each other."
        )
    return factor


def checked_label(
    kind: str, labels: Labels, graph: Graph, n_displaced: int, number: int
) -> np.ndarray:
    """The label of one kind of a structure, of its real atoms or padded as the graph.

    Args:
        kind: of the label, see `observables.observe`.
        labels: of the structure.
        graph: of the structure.
        n_displaced: how many atoms are displaced for the force constants.
        number: of the structure, for the message.

    Returns:
        energy (), forces (n, 3), virial (3, 3) or force_constants (n_displaced, 3, n, 3), in the
        unit of the labels, float64.

    Raises:
        ValueError: the label is missing, of the wrong shape or not finite; it names the structure.
    """
    value = getattr(labels, kind)
    if value is None:
        raise ValueError(
            f"{kind} of structure {number} is None: wanted a label; leave the kind out or label "
            "the structure."
        )
    value = np.asarray(value, float)
    sizes = {len(graph.positions), int(np.sum(np.asarray(graph.atom_mask)))}
    shapes = {label_shapes(n, n_displaced)[kind][0] for n in sizes}
    if value.shape not in shapes:
        raise ValueError(
            f"{kind} of structure {number} has shape {value.shape}: wanted {min(shapes)}; give "
            "the labels of its real atoms, or padded as the graph."
        )
    if not np.all(np.isfinite(value)):
        raise ValueError(
            f"{kind} of structure {number} holds NaN or infinity: wanted finite numbers; leave the "
            "structure out."
        )
    return value
