"""Rows of any prediction: its derivative in the coefficients of the potential that makes it.

    g = dp / dc,   (K,) for each number that is predicted

A *trainable potential* is a potential with a flat array `coefficients` (K,) among its fields, in a
frozen dataclass: `LinearPotential`, `KernelPotential`, `NetworkPotential`. A prediction p is any
function of it, and g is all that rigidity and posterior need of a prediction.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.ace.basis import site_basis
from lprjax.ace.packed_rows import packed_rows
from lprjax.ace.potential import linear_potential
from lprjax.ace.rows import ACE_KINDS, Rows, ace_rows
from lprjax.ace.spec import ACESpec
from lprjax.atoms.batches import Pack
from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Labels
from lprjax.atoms.voigt import six_components
from lprjax.numerics.checks import require_x64
from lprjax.numerics.host import namespace, on_device, on_host
from lprjax.potentials.data_sets import observe_pack
from lprjax.potentials.observables import checked_atoms, checked_kinds, observe
from lprjax.potentials.potential import Potential, as_argument, check

ROUNDING = 1e-12
"""An entry below this times the largest of its column counts as rounding. It is a sum of the order
of 1e4 products of both signs, each rounded to 1e-16: at most 1e-12 where all err alike. Force rows
that are zero by symmetry came out at 2e-13 and below in alloys and crystals (a measurement)."""
BATCH = 8  # derivatives taken at a time: a choice, memory grows with it


def prediction_rows(prediction: Callable[[Any], jax.Array], potential: Potential) -> jax.Array:
    """How a prediction changes with the coefficients, exact by differentiation.

        g = dp/dc

    For site energies, elastic constants, and the formation energy of a defect:

    >>> prediction_rows(lambda p: p(graph), potential).shape == (16, potential.coefficients.size)
    True
    >>> c = prediction_rows(lambda p: lp.elastic_constants(p, cell).relaxed, potential)
    >>> g = prediction_rows(lambda p: lp.relaxed_formation_energy(p, defect, u), potential)
    >>> c.shape[:2], g.shape == potential.coefficients.shape
    ((6, 6), True)

    A relaxed geometry is differentiated through its own equilibrium where the prediction uses
    `defects.implicit_derivatives.minimiser`. Forward mode where numbers predicted are more than
    coefficients, reverse mode otherwise. May be jitted, with the potential as an argument.

    Args:
        prediction: differentiable callable, potential -> array (...), in any unit.
        potential: trainable, K coefficients: the derivative is taken there. For the observables
            of a linear potential it is the same everywhere.

    Returns:
        (..., K), unit of the prediction per unit of the coefficients.

    Raises:
        TypeError: a potential without `coefficients`; a prediction that returns anything but an
            array of float64.
        RuntimeError: float64 is off.
    """
    require_x64()
    coefficients = coefficients_of(potential)

    def of(c):
        value = prediction(dataclasses.replace(cast(Any, potential), coefficients=c))
        if getattr(value, "dtype", None) != jnp.float64:
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(
                f"prediction returned {kind}: wanted an array of float64; return one array, e.g. "
                "`.relaxed` of elastic constants."
            )
        return value

    value, push = jax.linearize(of, coefficients)
    if value.size > coefficients.size:
        columns = jax.lax.map(push, jnp.eye(coefficients.size), batch_size=BATCH)
        return jnp.moveaxis(columns, 0, -1)
    pull = jax.linear_transpose(push, coefficients)
    ones = jnp.eye(value.size).reshape(value.size, *value.shape)
    rows = jax.lax.map(lambda one: pull(one)[0], ones, batch_size=BATCH)
    return rows.reshape(*value.shape, coefficients.size)


def vanishing(rows: ArrayLike) -> jax.Array:
    """Which rows are zero to rounding: predictions that no coefficient moves; jit-able.

        |g_ik| <= ROUNDING max_j |g_jk|   for every column k

    A force that is zero by symmetry is a sum of terms that cancel, and its row comes out as 1e-13
    and not as zero. No row by itself shows that: the others in the array are the measure, column
    by column, so that units of features do not matter. Where all rows cancel (forces in perfect
    crystals only) none is recognised.

    Args:
        rows: g (..., K), finite, of comparable predictions.

    Returns:
        (...,) bool.

    Raises:
        ValueError: a single number.
    """
    if jnp.ndim(rows) < 1:
        raise ValueError(f"rows have shape {jnp.shape(rows)}: wanted (..., K); give rows.")
    return _vanishing(rows)


@jax.jit
def _vanishing(rows: jax.Array) -> jax.Array:
    size = jnp.abs(rows)
    finite = jnp.where(jnp.isfinite(size), size, 0.0)
    largest = jnp.max(finite, axis=tuple(range(size.ndim - 1)), keepdims=True, initial=0.0)
    return jnp.all(size <= ROUNDING * largest, axis=-1)


def coefficients_of(potential: Potential) -> jax.Array:
    """The coefficients (K,) of a trainable potential.

    Raises:
        TypeError: a potential that is no dataclass with a flat array `coefficients`.
    """
    coefficients: Any = getattr(potential, "coefficients", 0.0)
    if not dataclasses.is_dataclass(potential) or jnp.ndim(coefficients) != 1:
        raise TypeError(
            f"potential is a {type(potential).__name__}: wanted a dataclass with an array "
            "`coefficients` (K,); use e.g. a LinearPotential."
        )
    return coefficients


def design_rows(
    model: ACESpec | Potential,
    graph: Graph,
    kinds: Sequence[str] = ("energy", "forces"),
    *,
    atoms: Sequence[int] = (0,),
) -> Rows:
    """The rows of one structure, d(observable)/d(coefficients), exact to roundoff.

    Compiled once per shape. The rows of an ACESpec can be differentiated in forward mode only:
    their loop over atoms leaves out padding, and has no reverse.

    Args:
        model: an ACESpec, whose observables are row . c; or a trainable potential, whose rows are
            the Jacobians at its present coefficients.
        graph: n atoms, padding included.
        kinds: as in `observables.observe`, whose shapes, units and signs the rows share.
        atoms: those displaced for the force constants; other kinds ignore it.

    Returns:
        Rows of C coefficients, in the unit of the observable per unit of the coefficients: energy
        (C,), forces (n, 3, C), virial (3, 3, C), force_constants (m, 3, n, 3, C) of m displaced
        atoms; None where not asked for.

    Raises:
        ValueError: unknown species, kinds or atoms.
        TypeError: a model that is neither.
        RuntimeError: float64 is off.
    """
    kinds = checked_kinds(kinds)
    displaced = checked_atoms(atoms, graph) if "force_constants" in kinds else None
    if not isinstance(model, ACESpec):
        coefficients_of(model)
        check(model, graph)
        found = _jacobian(as_argument(model, "model"), graph, displaced, kinds)
        return Rows(**dict(zip(kinds, found, strict=True)))
    if kinds == ("energy",):  # of few operations, which compile in a sixth of the time
        sites = site_basis(model, graph)
        return Rows(energy=on_device(namespace(sites).sum(on_host(sites), axis=0)))
    fast = tuple(kind for kind in kinds if kind in ACE_KINDS)
    rows = ace_rows(model, graph, fast, cast(Any, displaced))._asdict()
    if rest := tuple(kind for kind in kinds if kind not in fast):
        potential = linear_potential(model, np.zeros(model.n_columns))
        rows |= dict(zip(rest, _jacobian(potential, graph, displaced, rest), strict=True))
    return Rows(**rows)


def rows_of_pack(
    model: ACESpec | Potential, pack: Pack, kinds: tuple[str, ...], atoms: jax.Array
) -> Rows:
    """The rows of all structures of a pack, for use inside `jit`; nothing is checked.

    Args:
        model: as in `design_rows`.
        pack: of n atoms and S structures, of a single one for force constants of an ACESpec.
        kinds: in the order of `observables.KINDS`.
        atoms: (m,), those of every structure that are displaced for the force constants.

    Returns:
        Rows of C coefficients, as of `design_rows`, but for energy (S, C) and virial (S, 6, C), in
        Voigt order.
    """
    if not isinstance(model, ACESpec):

        def observed(model: Any) -> Labels:
            labels = observe_pack(model, pack, kinds, atoms)
            if labels.virial is None:
                return labels
            return labels._replace(virial=jax.vmap(six_components)(labels.virial))

        found = _jacobian_of(observed, model, kinds)
        return Rows(**dict(zip(kinds, found, strict=True)))
    first = tuple(kind for kind in kinds if kind != "force_constants")
    rows = packed_rows(model, pack, first) if first else Rows()
    if "force_constants" in kinds:
        constants = ace_rows(model, pack.graph, ("force_constants",), atoms).force_constants
        rows = rows._replace(force_constants=constants)
    return rows


@partial(jax.jit, static_argnames="kinds")
def _jacobian(potential, graph: Graph, atoms, kinds: tuple[str, ...]) -> list[jax.Array]:
    """Rows of each kind, of any trainable potential, of one structure."""
    return _jacobian_of(partial(observe, graph=graph, kinds=kinds, atoms=atoms), potential, kinds)


def _jacobian_of(observe: Callable[..., Labels], potential, kinds: tuple[str, ...]) -> list:
    """Rows of each kind of what is observed, by differentiation in the coefficients."""

    def observed(potential):
        labels = observe(potential)
        return jnp.concatenate([getattr(labels, kind).ravel() for kind in kinds])

    rows = prediction_rows(observed, potential)
    shapes = [getattr(jax.eval_shape(observe, potential), kind).shape for kind in kinds]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    parts = jnp.split(rows, ends)
    return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]
