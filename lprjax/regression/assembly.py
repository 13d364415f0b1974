"""Assembly: the rows and labels of a group of structures, compressed as they come.

Structures are put into packs (see `atoms.batches`), and rows are never held beyond a pack and a
block. Weights are no part of it: there is one factor per kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lprjax.ace.basis import check_graph, core_of
from lprjax.ace.spec import ACESpec
from lprjax.atoms.batches import ALONE, Pack, Room, capacity, common_room, gathered, pack
from lprjax.atoms.graphs import Graph, host_graph
from lprjax.atoms.structures import Labels, Structure
from lprjax.atoms.voigt import six_components
from lprjax.numerics.checks import finite_array, named
from lprjax.numerics.memory import spare_maps
from lprjax.potentials.data_sets import observe_pack
from lprjax.potentials.observables import checked_atoms, checked_kinds
from lprjax.potentials.potential import Potential, as_argument, check, cutoff_of
from lprjax.regression.factors import Factor
from lprjax.regression.rows import coefficients_of, rows_of_pack
from lprjax.regression.samples import (
    checked_label,
    checked_per_atom,
    checked_sample,
    counted_energy,
    references_by_number,
    stacked,
)
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

_LARGE = 1e3  # eV: no atom is bound by that, and a double keeps 1e-13 eV of it


class PerAtom(NamedTuple):
    """An energy per atom, of the basis and of the labels: the perfect crystal's, for example."""

    row: np.ndarray  # (C,), of the energy per atom
    energy: float  # eV


def compress_structures(
    model: ACESpec | Potential,
    samples: Iterable[tuple[Graph | Structure, Labels]],
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
    atom/eV, and cells of every size count alike.

    Structures of any sizes are put together to packs, which compile once for each number of
    neighbours that the graphs are padded to; for force constants and for potentials, once for each
    shape of the graphs. Of structures the neighbours are searched here, while the device works on
    those before.

    A structure counts with the kinds that it has labels of; `Factor.n_rows` says how many did.

    With several processes each passes samples of its own, the same kinds and the same mesh of all
    devices, and every one gets the factor of all samples.

    Args:
        model: an ACESpec; or a trainable potential (see `regression.rows`), whose rows are the
            Jacobians at its coefficients c0, and whose own predictions are subtracted from the
            targets: a fit is then the Gauss-Newton step from c0, and its factor the generalised
            Gauss-Newton Hessian's.
        samples: graphs, or structures, with their labels (of the real atoms, or padded as the
            graph). They are taken one by one, and need not all be in memory.
        kinds: among "energy", "forces", "virial", "force_constants".
        atoms: those displaced for the force constants; other kinds ignore it.
        reference_energies: by symbol, eV, of the isolated atoms, or whatever totals are to be
            counted from (`baseline_energies`: those of DFT, -1e5 eV for an atom, else lose digits,
            and a warning says so); zeros if None. For an ACESpec only: a potential has its own.
        origin: subtracted N times from every energy and its row (N atoms), so that the energies
            are defect-minus-bulk differences; it replaces reference_energies.
        per_atom: which of "energy" and "virial" are divided by the number of atoms.
        mesh: of one axis, the D devices that share the work, each taking every D-th pack of a
            shape; the default device alone if None.

    Returns:
        kind -> Factor of C columns, C the number of coefficients.

    Raises:
        ValueError: labels of the wrong shape or not finite, rows that are not finite, a structure
            without any of these kinds, or that `build_graph` refuses (all of these name it); a kind
            that no structure has; no samples at all; an element without a reference energy; an
            origin of other columns; a mesh of several axes; reference energies beside a potential.
        TypeError: a potential without `coefficients`; samples that are no pairs.
        RuntimeError: float64 is off.
    """
    spare_maps()
    kinds, shared = checked_kinds(kinds), checked_per_atom(per_atom)
    shift_row, shifts = _shift(model, reference_energies, origin)
    mesh = checked_mesh(mesh)
    streams = {kind: stream(len(shift_row), mesh) for kind in kinds}
    alone = "force_constants" in kinds or not isinstance(model, ACESpec)
    room = ALONE if alone else common_room()
    items = _items(model, enumerate(samples), kinds, atoms, shifts, shared)
    waiting: dict[tuple, list[_Batch]] = {}
    finite: list[tuple[list[list[int]], jax.Array]] = []
    for chunk in gathered(items, room, partial(_place, room)):
        batch = _batch(chunk, kinds, room)
        ready = waiting.setdefault(batch.pack.graph.edge_mask.shape, [])
        ready.append(batch)
        if len(ready) == share_of(mesh):
            streams, found = _pushed(streams, model, ready, atoms, shift_row, shared, mesh)
            finite.append(([b.numbers for b in ready], found))
            ready.clear()
    if not waiting:
        raise ValueError(
            "samples is empty: wanted at least one (graph, labels) pair; check what makes them."
        )
    for ready in filter(None, waiting.values()):
        # The last once more, of which nothing counts, for each device that has none.
        spare = ready[-1]._replace(counts=dict.fromkeys(kinds, 0))
        ready += [spare] * (share_of(mesh) - len(ready))
        streams, found = _pushed(streams, model, ready, atoms, shift_row, shared, mesh)
        finite.append(([b.numbers for b in ready], found))
    return {kind: _checked_factor(kind, finished(streams[kind]), finite) for kind in kinds}


def structure_rows(
    model: ACESpec | Potential,
    samples: Iterable[tuple[Graph | Structure, Labels]],
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    groups: Sequence[str] | None = None,
    atoms: Sequence[int] = (0,),
    reference_energies: Mapping[str, float] | None = None,
    origin: PerAtom | None = None,
    per_atom: Sequence[str] = (),
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, dict[Any, tuple[np.ndarray, np.ndarray]]]]:
    """The rows that `compress_structures` compresses, of one structure after the other.

    Structures are computed in packs, of which each device holds one at a time, and come as packs
    fill: those of one shape in their order, but not all of them. With the options of the factors,
    this is what `influence` asks for.

    >>> numbers = [number for number, _ in lp.structure_rows(spec, samples)]
    >>> sorted(numbers) == list(range(len(samples)))
    True

    Args:
        model: as in `compress_structures`.
        samples: as in `compress_structures`.
        kinds: as in `compress_structures`.
        groups: of each structure, if keys are to be (kind, group) as of `compress_groups`.
        atoms: as in `compress_structures`.
        reference_energies: as in `compress_structures`.
        origin: as in `compress_structures`.
        per_atom: as in `compress_structures`.
        mesh: as in `compress_structures`; a process gets the rows of its own samples.

    Yields:
        The number of a structure in samples, and by kind or (kind, group) its rows (r, C) and
        targets (r,), those that it has labels of.

    Raises:
        ValueError, TypeError, RuntimeError: as `compress_structures`; IndexError: fewer groups
            than samples.
    """
    spare_maps()
    kinds, shared = checked_kinds(kinds), checked_per_atom(per_atom)
    shift_row, shifts = _shift(model, reference_energies, origin)
    mesh = checked_mesh(mesh)
    alone = "force_constants" in kinds or not isinstance(model, ACESpec)
    room = ALONE if alone else common_room()
    items = _items(model, enumerate(samples), kinds, atoms, shifts, shared)
    waiting: dict[tuple, list[tuple[list[_Item], _Batch]]] = {}

    def found(ready):
        batches = [batch for _, batch in ready]
        batches += batches[-1:] * (share_of(mesh) - len(ready))  # once more, of no matter
        blocks, _ = _rows_of(model, batches, atoms, shift_row, kinds, shared, mesh)
        blocks = jax.device_get(blocks)
        for d, (chunk, _) in enumerate(ready):
            own = {kind: tuple(np.asarray(part)[d] for part in blocks[kind]) for kind in kinds}
            yield from _of_items(chunk, own, groups)

    for chunk in gathered(items, room, partial(_place, room)):
        batch = _batch(chunk, kinds, room)
        ready = waiting.setdefault(batch.pack.graph.edge_mask.shape, [])
        ready.append((chunk, batch))
        if len(ready) == share_of(mesh):
            yield from found(ready)
            ready.clear()
    for ready in filter(None, waiting.values()):
        yield from found(ready)


def _of_items(
    items: list[_Item], blocks: Mapping[str, tuple], groups
) -> Iterator[tuple[int, dict]]:
    """The rows (r, C) and targets (r,) of each structure of a pack, from those of the pack."""
    starts = dict.fromkeys(blocks, 0)
    for item in items:
        found = {}
        for kind, targets in item.targets.items():
            at = slice(starts[kind], starts[kind] + len(targets))
            starts[kind] = at.stop
            rows, left = (part[at] for part in blocks[kind])
            if not (np.isfinite(rows).all() and np.isfinite(left).all()):
                raise ValueError(
                    f"rows of kind {kind!r} of structure {item.number} hold NaN or infinity: "
                    "wanted finite rows; look for atoms on top of each other."
                )
            key = kind if groups is None else (kind, groups[item.number])
            found[key] = rows, left
        yield item.number, found


class _Item(NamedTuple):
    """A structure ready for its pack."""

    number: int
    graph: Graph
    n: int  # real atoms
    targets: dict[str, np.ndarray]  # (r,), of those kinds that it has labels of


class _Batch(NamedTuple):
    """A pack ready for its device: zero targets on padding, which comes last."""

    numbers: list[int]  # of the structures
    pack: Pack
    targets: dict[str, np.ndarray]  # (r,) by kind, padding included
    counts: dict[str, int]  # how many targets of each kind count


def _items(model, samples, kinds, atoms, shifts, shared) -> Iterator[_Item]:
    """The samples, checked one by one as they come."""
    reach = model.r_cut if isinstance(model, ACESpec) else cutoff_of(model)
    warned = False
    for number, sample in samples:
        if isinstance(sample, tuple | list) and sample and isinstance(sample[0], Structure):
            with named(f"structure {number}"):
                sample = host_graph(sample[0], reach), *sample[1:]
        graph, labels = checked_sample(sample, kinds, number)
        graph = jax.tree.map(np.asarray, graph)  # on the host, for what follows asks for its parts
        with named(f"structure {number}"):
            check_graph(model, graph) if isinstance(model, ACESpec) else check(model, graph)
            if "force_constants" in kinds:
                checked_atoms(atoms, graph)
        n, targets = int(np.count_nonzero(np.asarray(graph.atom_mask))), {}
        for kind in kinds:
            if getattr(labels, kind) is None:
                continue
            y = stacked(kind, checked_label(kind, labels, graph, len(atoms), number), n)
            if kind == "energy":
                y = counted_energy(y, graph.species, shifts)
                if abs(y[0]) > _LARGE * n and not warned:
                    warned = True
                    warnings.warn(
                        f"energy of structure {number} is {y[0] / n:.6g} eV for each atom beyond "
                        "the reference energies: rounding, and a ridge on constants, take digits "
                        "of it; give those of `lprjax.baseline_energies`.",
                        stacklevel=4,
                    )
            targets[kind] = y / n if kind in shared else y
        yield _Item(number, graph, n, targets)


def _place(room: Room, item: _Item) -> tuple[tuple, int, int]:
    """Packs are of one number of neighbours, and of structures that have the same kinds."""
    most = capacity(item.graph, item.n, room)
    return (item.graph.neighbours.shape[1], most, tuple(item.targets)), item.n, most


def _batch(items: list[_Item], kinds: Sequence[str], room: Room) -> _Batch:
    packed = pack([item.graph for item in items], room)
    n, n_structures = len(packed.owner), len(packed.sizes)
    sizes = {"energy": n_structures, "forces": 3 * n, "virial": 6 * n_structures}
    targets, counts = {}, {}
    for kind in kinds:
        y = np.concatenate([item.targets.get(kind, np.zeros(0)) for item in items])
        counts[kind] = len(y)
        targets[kind] = np.zeros(sizes.get(kind, len(y) // items[0].n * n))
        targets[kind][: len(y)] = y
    return _Batch([item.number for item in items], packed, targets, counts)


def _pushed(
    streams, model, batches: list[_Batch], atoms, shift_row, shared, mesh
) -> tuple[dict[str, Stream], jax.Array]:
    """The streams with the rows of one more pack for each device, and which structures of these
    have finite rows and targets, (d, S)."""
    blocks, finite = _rows_of(model, batches, atoms, shift_row, tuple(streams), shared, mesh)
    counts = {kind: np.array([batch.counts[kind] for batch in batches]) for kind in streams}
    return {kind: push(streams[kind], *blocks[kind], counts[kind]) for kind in streams}, finite


def _rows_of(
    model, batches: list[_Batch], atoms, shift_row, kinds, shared, mesh
) -> tuple[dict, jax.Array]:
    """Rows and targets of a pack for each device, see `_blocks`."""
    is_spec = isinstance(model, ACESpec)
    spec, potential = (model, None) if is_spec else (None, as_argument(model, "model"))
    common = (potential, np.asarray(atoms), shift_row)
    own = spread(mesh, [(batch.pack, batch.targets) for batch in batches])
    return _blocks(mesh, spec, kinds, shared, common, own)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _blocks(mesh: Mesh, spec: ACESpec | None, kinds, shared, common, own) -> tuple[dict, jax.Array]:
    """Rows and targets by kind, each device's own: (d, r, C) and (d, r)."""

    def of_one(common, pack: Pack, targets):
        potential, atoms, shift_row = common
        model = cast(ACESpec | Potential, spec if potential is None else potential)
        rows = rows_of_pack(model, pack, kinds, atoms)
        fixed = core_of(cast(ACESpec, spec)) if potential is None else potential
        fixed = None if fixed is None else as_argument(fixed, "model")
        predicted = None if fixed is None else observe_pack(fixed, pack, kinds, atoms)
        found, sizes = {}, pack.sizes.astype(float)
        finite = jnp.ones(len(sizes), bool)
        for kind in kinds:
            x, y = getattr(rows, kind), targets[kind]
            if kind == "energy":
                x = x - sizes[:, None] * shift_row[None, :]
            share = 1.0 / jnp.maximum(sizes, 1.0) if kind in shared else None
            x = _stacked(kind, x, share)
            if predicted is not None:
                labels = getattr(predicted, kind)
                labels = jax.vmap(six_components)(labels) if kind == "virial" else labels
                y = y - _stacked(kind, labels, share)
            found[kind] = (x, y)
            # Of rows those of the highest derivative tell: what they lack the others lack.
            told = y + jnp.sum(x, axis=1) if kind == max(kinds, key=_ORDER.index) else y
            finite = finite & _finite(kind, told, pack)
        return found, finite

    return on_each(mesh, of_one)(common, *own)


_ORDER = ("energy", "virial", "forces", "force_constants")
"""What is finite of a kind is so of those before it."""


def _stacked(kind: str, value: jax.Array, share: jax.Array | None) -> jax.Array:
    """`stacked` for a pack, energies (S, ...) and virials (S, 6, ...) times a share (S,)."""
    if kind in ("energy", "virial"):
        if share is not None:
            value = share.reshape(-1, *[1] * (value.ndim - 1)) * value
        return value if kind == "energy" else value.reshape(-1, *value.shape[2:])
    n = value.shape[0 if kind == "forces" else 2]
    return cast(jax.Array, stacked(kind, value, n))


def _finite(kind: str, stack: jax.Array, pack: Pack) -> jax.Array:
    """Of which structures all numbers of a kind (r,) are finite, (S,)."""
    finite = jnp.isfinite(stack)
    if kind in ("energy", "virial"):
        return jnp.all(finite.reshape(len(pack.sizes), -1), axis=1)
    wrong = ~jnp.all(finite.reshape(len(pack.owner), -1), axis=1)
    return pack.sums(wrong.astype(int)) == 0


def _shift(model, reference_energies, origin: PerAtom | None) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted for each atom, from the row (C,) and from the energy (eV, by number)."""
    energies = references_by_number(model, reference_energies)
    n_columns = model.n_columns if isinstance(model, ACESpec) else coefficients_of(model).size
    if origin is None:
        return np.zeros(n_columns), energies
    row = finite_array("origin.row", origin.row, (n_columns,), "the basis")
    energies[1:] = finite_array("origin.energy", origin.energy, (), "eV")
    return row, energies


def _checked_factor(kind: str, factor: Factor, finite: list) -> Factor:
    if factor.n_rows == 0:
        raise ValueError(
            f"no structure of samples has a label of kind {kind!r}: wanted at least one; leave the "
            "kind out, or check what makes the labels (a file's keys)."
        )
    if not all(np.isfinite(np.asarray(part)).all() for part in factor[:3]):
        wrong = [
            number
            for batches, found in finite
            for numbers, good in zip(batches, np.asarray(found), strict=True)
            for number, right in zip(numbers, good, strict=False)
            if not right
        ]
        where = f" of structure {min(wrong)}" if wrong else ""
        raise ValueError(
            f"rows of kind {kind!r}{where} hold NaN or infinity: wanted finite rows; look for "
            "atoms on top of each other."
        )
    return factor
