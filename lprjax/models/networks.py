"""Neural network potentials on ACE features, for rigidities beyond linear models.

    E_i = e0[z_i] + f(x_i, s_i),   x = (B - mean) / deviation

with B the ACE functions of the site, standardised over the environments of the same species, and
f a perceptron with silu activations. Each layer sees the one-hot species s of the site beside
the output of the layer before (that is its bias, one per species): the last is linear in (h, s).

For `prediction_rigidity` a network needs what any trainable potential needs: the factor of
H = sum_r w_r^2 J_r^T J_r + ridge, and g = dp/dc, J_r = d(observable r)/dc at the trained weights,

>>> rows = np.concatenate([lp.site_basis(spec, graph) for graph, _ in samples])
>>> network = network_potential(spec, rows, (2,), jax.random.key(0))
>>> data = lp.compress_structures(network, samples)
>>> factor = lp.fit(data, weights, ridge=1e-3).factor
>>> lpr = lp.local_prediction_rigidity(factor, lp.prediction_rows(lambda p: p(graph), network))

the generalised Gauss-Newton matrix. It leaves out sum_r w_r^2 (residual_r) d2(observable r)/dc2,
which vanishes with the residuals, and all other minima than this one; and a rigidity assumes
that the weights have been trained to a minimum of the same loss and ridge. With
`last_layer(network)` in place of the network, H and g are those of the last layer alone (LLPR):
small, exact for it, and never a larger variance, since all the other weights are held fixed.

Source: rigidity of networks: Chong et al., J. Chem. Theory Comput. 19 (2023) 8020; last layer:
Mach. Learn.: Sci. Technol. 5 (2024) 045018, arXiv:2403.02251; the bound between the two is derived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from tqdm import tqdm

from lprjax.ace.basis import OnBasis, centres, site_basis
from lprjax.ace.potential import isolated_energies
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Labels, label_shapes
from lprjax.models.features import column_statistics
from lprjax.numerics.checks import check_at_least_zero, require_x64
from lprjax.potentials.observables import observe
from lprjax.regression.samples import checked_label, checked_sample

KINDS = ("energy", "forces", "virial")
"""The kinds of observables that `train` fits."""


class SiteNetwork(nn.Module):
    """The perceptron: standardised features (n, C) and one-hot species (n, Z) -> (n,)."""

    hidden: tuple[int, ...]  # widths of the hidden layers

    def setup(self) -> None:
        dense = partial(nn.Dense, use_bias=False, param_dtype=jnp.float64)
        self.layers = [dense(width) for width in self.hidden]
        self.head = dense(1)

    def last_features(self, x: jax.Array, own: jax.Array) -> jax.Array:
        """What the last layer is linear in, (n, last width + Z), of features x and species own."""
        for layer in self.layers:
            x = nn.silu(layer(jnp.concatenate([x, own], axis=1)))
        return jnp.concatenate([x, own], axis=1)

    def __call__(self, x: jax.Array, own: jax.Array) -> jax.Array:
        """Energies without those of the isolated atoms, (n,), eV."""
        return self.head(self.last_features(x, own))[:, 0]


def _random_weights(
    spec: ACESpec, hidden: tuple[int, ...], key: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Random weights, flat (P,), and the map from them to the module's parameters."""
    site = jnp.zeros((1, spec.n_columns)), jnp.zeros((1, len(spec.elements)))
    return ravel_pytree(SiteNetwork(hidden).init(key, *site))


@lru_cache(maxsize=32)
def _unravel(spec: ACESpec, hidden: tuple[int, ...]) -> Callable[[jax.Array], Any]:
    with jax.ensure_compile_time_eval():
        return _random_weights(spec, hidden, jax.random.key(0))[1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NetworkPotential(OnBasis):
    """A neural network on ACE features, E_i = e0[z_i] + f(x_i, s_i), eV; see the top of the file.

    A pytree: new weights recompile nothing.

    Attributes:
        coefficients: (P,) all weights, flat.
        mean: (n_columns,) of the ACE functions, dimensionless.
        deviation: (n_columns,) of the ACE functions, dimensionless.
        reference_energies: (n_elements,), eV, e0.
        spec: of the ACE functions.
        hidden: widths of the hidden layers, () for a linear model.
    """

    coefficients: jax.Array
    mean: jax.Array
    deviation: jax.Array
    reference_energies: jax.Array
    spec: ACESpec = field(metadata=dict(static=True))
    hidden: tuple[int, ...] = field(metadata=dict(static=True))

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        own = centres(self.spec, graph)
        return self._apply(graph) + own @ self.reference_energies + self.core(graph)

    def _apply(self, graph: Graph, **options: Any) -> jax.Array:
        own = centres(self.spec, graph)
        block = jnp.repeat(own, self.spec.n_functions, axis=1)
        basis = site_basis(self.spec, graph)
        x = block * (basis - self.mean[None, :]) / self.deviation[None, :]
        parameters = _unravel(self.spec, self.hidden)(self.coefficients)
        return cast(jax.Array, SiteNetwork(self.hidden).apply(parameters, x, own, **options))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LastLayer(OnBasis):
    """The same potential with only its last layer trainable: E_i = e0[z_i] + c . h(i), in eV.

    Linear in c, so that `design_rows` gives the F of LLPR, variance g^T (F^T W^2 F + ridge)^-1 g.

    Attributes:
        coefficients: (last width + n_elements,) c, eV.
        network: what makes the features h.
    """

    coefficients: jax.Array
    network: NetworkPotential

    @property
    def spec(self) -> ACESpec:
        """Of the ACE functions."""
        return self.network.spec

    def __call__(self, graph: Graph) -> jax.Array:
        """Site energies in eV, (n,), zero on padding atoms."""
        own = centres(self.network.spec, graph)
        fixed = own @ self.network.reference_energies + self.core(graph)
        return self.features(graph) @ self.coefficients + fixed

    def features(self, graph: Graph) -> jax.Array:
        """h(i) = dE_i/dc, (n, last width + n_elements), zero on padding: the g of the LPR."""
        return self.network._apply(graph, method="last_features")


def network_potential(
    spec: ACESpec,
    environments: ArrayLike,
    hidden: Sequence[int],
    key: jax.Array,
    reference_energies: Mapping[str, float] | None = None,
) -> NetworkPotential:
    """An untrained network potential with random weights, standardised over given environments.

    The network has a constant per species, so its energy of an isolated atom is
    e0 + f(-mean / deviation): right only where training data teach it.

    Args:
        spec: without the constant function, which the network has of its own.
        environments: (n, n_columns), rows of `site_basis`, of the training set as a rule.
        hidden: widths of the hidden layers, >= 1; () for a linear model.
        key: of the weights.
        reference_energies: by symbol, eV, best about the energy of an atom in the training set;
            zeros if None.

    Returns:
        The NetworkPotential.

    Raises:
        ValueError: widths below 1; a reference energy that is missing; and as `column_statistics`
            (a constant in the basis is refused).
        TypeError: as `column_statistics`.
        RuntimeError: float64 is off.
    """
    require_x64()
    widths = tuple(hidden) if np.iterable(hidden) else ()
    whole = all(isinstance(width, int | np.integer) and width >= 1 for width in widths)
    if not (np.iterable(hidden) and whole):
        raise ValueError(f"hidden is {hidden!r}: wanted whole numbers, at least 1, e.g. (16, 16).")
    mean, deviation = column_statistics(spec, environments)
    return NetworkPotential(
        coefficients=_random_weights(spec, widths, key)[0],
        mean=jnp.asarray(mean),
        deviation=jnp.asarray(deviation),
        reference_energies=jnp.asarray(isolated_energies(spec, reference_energies)),
        spec=spec,
        hidden=widths,
    )


def last_layer(potential: NetworkPotential) -> LastLayer:
    """The view of a network in which only the last layer's weights can change (LLPR).

    Raises:
        TypeError: no network.
    """
    if not isinstance(potential, NetworkPotential):
        raise TypeError(
            f"potential is a {type(potential).__name__}: wanted a NetworkPotential; make it with "
            "network_potential."
        )
    parameters = _unravel(potential.spec, potential.hidden)(potential.coefficients)
    return LastLayer(parameters["params"]["head"]["kernel"][:, 0], potential)


class Training(NamedTuple):
    """A trained network, and the losses on the way."""

    potential: NetworkPotential
    losses: np.ndarray  # (steps,), the loss of each step's batch times (structures / batch)


def train(
    potential: NetworkPotential,
    samples: Sequence[tuple[Graph, Labels]],
    weights: Mapping[str, float],
    key: jax.Array,
    steps: int,
    *,
    batch: int | None = None,
    learning_rate: float = 1e-2,
    ridge: float = 0.0,
) -> Training:
    """Train a network by Adam with a learning rate that falls to zero along a cosine.

        loss = sum_r w_r^2 (observable_r - label_r)^2 + ridge |c|^2

    It is that of `fit`, row for row, so that H at the trained weights is that of the loss. A
    structure counts with the labels that it has.

    Args:
        potential: where to start.
        samples: graphs with their labels (of the real atoms, or padded as the graph), padded here
            to one shape.
        weights: by kind (energy, forces, virial), in 1 / unit of the label, multiply the residuals.
        key: of the batches.
        steps: of Adam, >= 1.
        batch: structures per step, all by default.
        learning_rate: > 0, of the first step.
        ridge: >= 0, multiplies |c|^2.

    Returns:
        The Training: the potential with the weights of the last step, and the losses.

    Raises:
        ValueError: labels that are not finite or of the wrong shape; a structure without any of
            these kinds, or a kind that no structure has; other kinds; numbers out of range; species
            or graphs that the potential refuses.
        TypeError: samples that are no pairs.
        RuntimeError: float64 is off.
    """
    require_x64()
    kinds = tuple(kind for kind in KINDS if kind in weights)
    if not kinds or len(kinds) < len(weights):
        raise ValueError(f"weights is {weights!r}: wanted numbers >= 0 for some of {KINDS}.")
    for kind in kinds:
        check_at_least_zero(f"weight of {kind!r}", weights[kind])
    batch = len(samples) if batch is None else batch
    if not (1 <= batch <= len(samples) and steps >= 1 and learning_rate > 0 and ridge >= 0):
        raise ValueError(
            f"the options are {len(samples)} structures, batch {batch}, steps {steps}, "
            f"learning_rate {learning_rate}, ridge {ridge}: wanted 1 <= batch <= structures, at "
            "least one step, a rate > 0 and a ridge >= 0."
        )
    pairs = [checked_sample(sample, kinds, number) for number, sample in enumerate(samples)]
    checked = [_checked(potential, kinds, number, *pair) for number, pair in enumerate(pairs)]
    for kind in kinds:
        if not any(labels[kind][0] for _, labels in checked):
            raise ValueError(
                f"no structure of samples has a label of kind {kind!r}: wanted at least one; leave "
                "its weight out, or check what makes the labels."
            )
    data = _stacked(checked)
    rates = cast(jax.Array, optax.cosine_decay_schedule(learning_rate, steps)(jnp.arange(steps)))
    loss_weights = {kind: float(weights[kind]) for kind in kinds}, float(ridge)
    state, losses = optax.scale_by_adam().init(potential.coefficients), []
    turns = zip(jax.random.split(key, steps), rates, strict=True)
    for turn in tqdm(turns, total=steps, desc="training", delay=5, leave=False):
        potential, state, loss = _step(potential, state, data, loss_weights, turn, batch)
        losses.append(loss)
    return Training(potential, np.array(losses))


@partial(jax.jit, static_argnames="batch")
def _step(potential, state, data, loss_weights, turn, batch):
    (key, rate), (weights, ridge) = turn, loss_weights
    n = len(jax.tree.leaves(data)[0])
    chosen = jax.random.choice(key, n, (batch,), replace=False)
    part = jax.tree.map(lambda x: x[chosen], data)

    def loss_of(c):
        squares = partial(_weighted_squares, replace(potential, coefficients=c), weights)
        return jnp.sum(jax.vmap(squares)(*part)) * (n / batch) + ridge * jnp.sum(c**2)

    loss, slope = jax.value_and_grad(loss_of)(potential.coefficients)
    update, state = optax.scale_by_adam().update(slope, state)
    return replace(potential, coefficients=potential.coefficients - rate * update), state, loss


def _weighted_squares(potential, weights, graph, labels) -> jax.Array | float:
    """sum_r w_r^2 residual_r^2 of one structure."""
    found, total = observe(potential, graph, tuple(labels)), 0.0
    for kind, (there, label) in labels.items():
        residual = there * (getattr(found, kind) - label)
        if kind == "virial":  # six rows, as in a fit
            residual = jnp.triu(0.5 * (residual + residual.T))
        total += weights[kind] ** 2 * jnp.sum(residual**2)
    return total


def _checked(
    potential, kinds, number: int, graph: Graph, labels: Labels
) -> tuple[Graph, dict[str, tuple[float, np.ndarray]]]:
    """The graph, and by kind 1 and the label, with zeros on padding atoms; 0 and 0 without one."""
    potential.check(graph)
    n = int(np.sum(np.asarray(graph.atom_mask)))
    found = {}
    for kind in kinds:
        there = getattr(labels, kind) is not None
        if there:
            label = checked_label(kind, labels, graph, 0, number)
        else:
            label = np.zeros(label_shapes(n)[kind][0])
        if kind == "forces":
            label = np.pad(label[:n], ((0, len(graph.positions) - n), (0, 0)))
        found[kind] = np.float64(there), label
    return graph, found


def _stacked(items: list[Any]) -> Any:
    """Pytrees of arrays as one, each array padded with zeros to the largest shape among them."""

    def stack(*leaves):
        whole = np.zeros((len(leaves), *np.max([np.shape(x) for x in leaves], axis=0).astype(int)))
        for k, leaf in enumerate(leaves):
            whole[(k, *(slice(m) for m in np.shape(leaf)))] = leaf
        return jnp.asarray(whole, leaves[0].dtype)

    return jax.tree.map(stack, *items)
