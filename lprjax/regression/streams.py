"""Factors on many devices: each folds its own rows, and their triangles are merged at the end.

A mesh of one axis names the D devices; None stands for one. Rows arrive in chunks, a share for each
device, and collect in a buffer there; a full buffer is folded into the device's own factor. Nothing
is exchanged before `finished`, where the triangles are gathered and one more QR merges them:

    R^T R = sum_d R_d^T R_d,      whoever folded which row, in whatever order.

With several processes (`jax.distributed`) each feeds the devices of its own, with as many rows as
it has, and all of them get the merged factor.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lprjax.regression.factors import Factor, block_size, empty, fold, merge


class Stream(NamedTuple):
    """Rows on their way into a factor of K columns, on the d devices of this process.

    Attributes:
        factor: of each device, every array with a leading axis d.
        rows: (d, S, K), the buffers of S rows; None before the first rows.
        targets: (d, S), their targets; None before the first rows.
        filled: (d,) on the host, how many rows of each buffer count; what follows is arbitrary.
        mesh: of all processes.
    """

    factor: Factor
    rows: jax.Array | None
    targets: jax.Array | None
    filled: np.ndarray
    mesh: Mesh


def checked_mesh(mesh: Mesh | None) -> Mesh:
    """The mesh, or one of the default device alone for None.

    Raises:
        ValueError: a mesh of more than one axis.
    """
    if mesh is None:
        return Mesh(np.array(list(jax.device_put(0.0).devices())), ("devices",))
    if len(mesh.axis_names) != 1:
        raise ValueError(
            f"mesh has axes {mesh.axis_names}: wanted one; use "
            "jax.make_mesh((jax.device_count(),), ('devices',))."
        )
    return mesh


def share_of(mesh: Mesh) -> int:
    """How many of the devices belong to this process."""
    return mesh.local_mesh.size


def spread(mesh: Mesh, items: Sequence[Any]) -> Any:
    """Pytrees of one shape, one for each device of this process, stacked and put in place.

    Args:
        mesh: of one axis.
        items: d pytrees of arrays (...), one for each device of this process.

    Returns:
        One pytree of arrays (d, ...), sharded by device.
    """
    whole = (lambda x: np.asarray(x)[None]) if len(items) == 1 else (lambda *xs: np.stack(xs))
    return jax.device_put(jax.tree.map(whole, *items), _in_shares(mesh.local_mesh))


def on_each(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of each device's own share, run by all devices of this process. Inside `jit`.

    Args:
        mesh: of one axis.
        function: function(common, *own). common is a pytree that every device gets whole; own are
            pytrees of which the function sees the entry of its device.

    Returns:
        The same function of common and of own with a leading axis d; what it returns has that
        axis too.
    """
    own = PartitionSpec(mesh.axis_names[0])

    @partial(
        jax.shard_map,
        mesh=mesh.local_mesh,
        in_specs=(PartitionSpec(), own),
        out_specs=own,
        check_vma=False,
    )
    def run(common, shares):
        found = function(common, *jax.tree.map(lambda x: x[0], shares))
        return jax.tree.map(lambda x: jnp.asarray(x)[None], found)

    return lambda common, *shares: run(common, shares)


def stream(n_features: int, mesh: Mesh | None = None) -> Stream:
    """A stream of no rows yet.

    Args:
        n_features: K.
        mesh: of one axis; the default device alone if None.

    Raises:
        ValueError, RuntimeError: as `factors.empty` and `checked_mesh`.
    """
    mesh = checked_mesh(mesh)
    factor = spread(mesh, [empty(n_features)] * share_of(mesh))
    return Stream(factor, None, None, np.zeros(share_of(mesh), int), mesh)


def push(stream: Stream, rows: jax.Array, targets: jax.Array, counts: np.ndarray) -> Stream:
    """Add a chunk of rows, r for each device, of which the first few count.

    The host runs ahead of the devices by no more than one buffer. The stream passed in is used up.

    Args:
        stream: of K columns.
        rows: (d, r, K), as `on_each` makes them.
        targets: (d, r), likewise.
        counts: (d,), each from 0 to r; rows beyond them are padding of any value.

    Returns:
        The stream to go on with.
    """
    r = rows.shape[1]
    if stream.rows is None or stream.filled.max() + r > stream.rows.shape[1]:
        stream = _with_room(_folded(stream), r)
    buffers = (stream.rows, stream.targets)
    new_rows, new_targets = _write(stream.mesh, buffers, (rows, targets), stream.filled)
    return stream._replace(rows=new_rows, targets=new_targets, filled=stream.filled + counts)


def finished(stream: Stream) -> Factor:
    """The factor of all rows of all devices: the same on every process, on its default device.

    With several processes all must call it, and in one order where there are several streams.

    Args:
        stream: of K columns.

    Returns:
        The Factor of K columns.
    """
    parts = jax.tree.map(partial(_gathered, stream.mesh), _folded(stream).factor)
    parts = [jax.tree.map(lambda x, d=d: x[d], parts) for d in range(stream.mesh.size)]
    return reduce(merge, [Factor(*map(jnp.asarray, part[:3]), int(part.n_rows)) for part in parts])


def _with_room(stream: Stream, r: int) -> Stream:
    """The stream with empty buffers that hold chunks of r rows, several where they are small.

    The first buffers are of the size that suits a CPU, so that a few rows are not folded among
    thousands of zeros; those after them of the size that suits the device.
    """
    d, n = stream.factor.target.shape
    wanted = block_size(n, first=stream.rows is None)
    size = -(-wanted // r) * r
    if stream.rows is not None and stream.rows.shape[1] >= size:
        return stream
    rows, targets = _zeros(stream.mesh, (d, size, n))
    return stream._replace(rows=rows, targets=targets)


@partial(jax.jit, static_argnums=(0, 1))
def _zeros(mesh: Mesh, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
    """Empty buffers of rows (d, S, K) and targets (d, S), made where they are wanted."""
    own = _in_shares(mesh.local_mesh)
    found = jnp.zeros(shape), jnp.zeros(shape[:2])
    return jax.lax.with_sharding_constraint(found, own)


def _folded(stream: Stream) -> Stream:
    """The stream with what its buffers held folded into its factor."""
    if not stream.filled.any():
        return stream
    jax.block_until_ready(stream.factor)
    factor = _fold(stream.mesh, stream.factor, stream.rows, stream.targets, stream.filled)
    return stream._replace(factor=factor, filled=np.zeros_like(stream.filled))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _write(mesh: Mesh, buffers, chunk, starts):
    def write(_, buffers, chunk, start):
        return jax.tree.map(
            lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, start, 0), buffers, chunk
        )

    return on_each(mesh, write)(None, buffers, chunk, starts)


@partial(jax.jit, static_argnums=0)
def _fold(mesh: Mesh, factor, rows, targets, filled):
    def fold_own(_, factor, rows, targets, filled):
        counts = jnp.arange(len(targets)) < filled
        rows, targets = jnp.where(counts[:, None], rows, 0.0), jnp.where(counts, targets, 0.0)
        return fold(factor, rows, targets, filled)

    return on_each(mesh, fold_own)(None, factor, rows, targets, filled)


def _gathered(mesh: Mesh, own: jax.Array) -> np.ndarray:
    """Of all processes' devices, (D, ...), from this process's (d, ...)."""
    shares = [shard.data for shard in own.addressable_shards]
    whole = jax.make_array_from_single_device_arrays(
        (mesh.size, *own.shape[1:]), _in_shares(mesh), shares
    )
    return np.asarray(_copied(mesh, whole).addressable_data(0))


@partial(jax.jit, static_argnums=0)
def _copied(mesh: Mesh, whole: jax.Array) -> jax.Array:
    """The same array, whole on every device."""
    axis = mesh.axis_names[0]
    gather = partial(jax.lax.all_gather, axis_name=axis, tiled=True)
    own, same = PartitionSpec(axis), PartitionSpec()
    copy = jax.shard_map(gather, mesh=mesh, in_specs=own, out_specs=same, check_vma=False)
    return copy(whole)


def _in_shares(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
