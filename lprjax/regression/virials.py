"""In which frame, order, sign and unit are the virials of a data set?

Energies and forces determine a potential, and that has virials of its own. Where the labelled ones
follow another order of their six components, turn the sign or are in another unit, the two go
together crosswise, with the sign or the factor: group by group, as a data set may be made of parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lprjax.ace.potential import linear_potential
from lprjax.ace.spec import ACESpec
from lprjax.atoms.graphs import Graph
from lprjax.atoms.structures import Labels
from lprjax.atoms.voigt import six_components
from lprjax.potentials.data_sets import observe_all
from lprjax.regression.assembly import compress_structures
from lprjax.regression.fitting import fit
from lprjax.regression.samples import checked_label, energies_per_atom

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
_CLEAR = 0.6  # least correlation that decides an order: a choice
_STRAY = 4.0  # standard deviations of the correlation of noise, N^-1/2, that it exceeds: a choice
_PRICE = 0.05  # in correlation, of each component that is moved or turned: a choice
_FACTORS = {"GPa": 160.2177, "kbar": 1602.177}  # of one eV/Å^3
_WITHIN = 1.5  # a factor of two numbers that counts as the same: a choice


class GroupVirials(NamedTuple):
    """What the virials of one group of structures are."""

    group: str
    n_structures: int  # with a virial
    straight: float  # correlation of labels and predictions of the shears, as documented
    found: float  # the same in the order and with the signs that were found
    order: tuple[str, ...]  # which component each of the six labels xx, yy, zz, yz, xz, xy is
    signs: tuple[int, ...]  # of each of the six labels, +1 or -1
    scale: float  # labels over predictions, of deviators and shears
    verdict: str  # "as documented", "undecided", or what is found


class VirialReport(NamedTuple):
    """The verdict on each group; prints as a table."""

    groups: tuple[GroupVirials, ...]

    def __str__(self) -> str:
        """A line for each group."""
        width = max(len("group"), *(len(g.group) for g in self.groups))
        lines = [f"{'group':{width}}  cells  straight  found   scale  virials are"]
        for g in self.groups:
            lines.append(
                f"{g.group:{width}}  {g.n_structures:5d}  {g.straight:8.2f}  {g.found:5.2f}  "
                f"{g.scale:6.3g}  {g.verdict}"
            )
        return "\n".join(lines)


def check_virials(
    spec: ACESpec,
    samples: Iterable[tuple[Graph, Labels]],
    groups: Sequence[str] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    ridge: float = 1e-6,
) -> VirialReport:
    """Tell from energies and forces in which order, sign and unit virials are labelled.

    A potential is fitted to energies (per atom, less the best constant of each element) and forces
    alone. In each group its virials, per atom and less their mean, are correlated with the labels
    in every order and with every sign of the shears, in every order of the axes (by the deviators),
    and with the sign of all turned. An order counts as found where its correlation is above 0.6
    and above four times that of noise, N^-1/2 for N labels; each component that is moved or turned
    must gain 0.05. What does not vary within a group (the shears of a cubic cell) cannot be told;
    two components whose exchange changes the correlation by less are named as not told apart.

        frames = lp.read_extxyz("train.xyz")
        graphs = lp.build_graphs([structure for structure, _, _ in frames], spec.r_cut)
        samples = zip(graphs, (labels for _, labels, _ in frames), strict=True)
        print(lp.check_virials(spec, samples, [info["config_type"] for _, _, info in frames]))

    Args:
        spec: of a small basis, order 2 and degree 8 say.
        samples: graphs with their labels; those without a virial help in the fit.
        groups: of each sample a name, such as its `config_type`; None: one group.
        weights: of "energy" (atom/eV) and "forces" (Å/eV) in the fit; 30 and 1 if None.
        ridge: of the fit, multiplies |c|^2.

    Returns:
        The VirialReport: group by group, in the order of their first sample.

    Raises:
        ValueError: another number of groups than of samples; no forces at all; no virials at all;
            and as `compress_structures` and `fit`.
        TypeError, RuntimeError: as those.
    """
    samples = list(samples)
    names = ["all"] * len(samples) if groups is None else [str(group) for group in groups]
    if len(names) != len(samples):
        raise ValueError(
            f"groups has length {len(names)}: wanted {len(samples)}, a name for each sample."
        )
    given = {"energy": 30.0, "forces": 1.0} if weights is None else dict(weights)
    kinds = [k for k in ("energy", "forces") if any(s[1]._asdict()[k] is not None for s in samples)]
    if "forces" not in kinds:
        raise ValueError("samples hold no forces: wanted some, which decide what virials are.")
    labelled = [(graph, labels) for graph, labels in samples if labels.energy is not None]
    constants = energies_per_atom(
        [np.asarray(graph.species) for graph, _ in labelled],
        [float(labels.energy) for _, labels in labelled],
        spec.elements,
    )
    of_kinds = [s for s in samples if any(s[1]._asdict()[k] is not None for k in kinds)]
    factors = compress_structures(
        spec, of_kinds, kinds, reference_energies=constants, per_atom=("energy",)
    )
    found = fit(factors, {kind: given[kind] for kind in kinds}, ridge=ridge)
    potential = linear_potential(spec, found.coefficients)
    pairs: dict[str, list] = {}
    having = [k for k, (_, labels) in enumerate(samples) if labels.virial is not None]
    observed = observe_all(potential, [samples[k][0] for k in having], ("virial",))
    for number, predicted in zip(having, observed, strict=True):
        graph, labels = samples[number]
        n = np.count_nonzero(np.asarray(graph.atom_mask))
        labelled = checked_label("virial", labels, graph, 0, number)
        both = np.stack([six_components(predicted.virial), six_components(labelled)]) / n
        pairs.setdefault(names[number], []).append(both)
    if not pairs:
        raise ValueError("samples hold no virials: wanted some; there is nothing to check.")
    return VirialReport(
        tuple(judged(name, *np.stack(both, axis=1)) for name, both in pairs.items())
    )


def judged(group: str, predicted: ArrayLike, labelled: ArrayLike) -> GroupVirials:
    """What the labels of one group are, from predictions that are right up to a scatter.

    Args:
        group: its name.
        predicted: (n, 6) virials in Voigt order.
        labelled: (n, 6), in whatever order, sign and unit.

    Returns:
        The GroupVirials.
    """
    p, y = (x - np.mean(x, axis=0) for x in (np.asarray(predicted), np.asarray(labelled)))
    (p_axes, p_shears), (y_axes, y_shears) = _parts(p), _parts(y)
    plain, turned = (1, 1, 1), tuple(product((1, -1), repeat=3))
    candidates = [
        (_best(sign * p_axes, y_axes, (plain,)), _best(sign * p_shears, y_shears, turned), sign)
        for sign in (1, -1)
    ]
    axes, shears, sign = max(candidates, key=lambda found: found[0].score + found[1].score)
    order = (*axes.order, *(3 + k for k in shears.order))
    signs = (*(sign,) * 3, *(sign * s for s in shears.signs))
    mapped = np.hstack([p_axes, p_shears])[:, order] * np.array(signs)
    square = float(np.sum(mapped**2))
    scale = float(np.sum(mapped * np.hstack([y_axes, y_shears]))) / square if square else np.nan
    alike = axes.alike(sign * p_axes, y_axes), shears.alike(sign * p_shears, y_shears)
    clear = max(_CLEAR, _STRAY / np.sqrt(3 * len(p)))
    return GroupVirials(
        group,
        len(p),
        _correlation(p_shears, y_shears),
        shears.correlation,
        tuple(COMPONENTS[k] for k in order),
        signs,
        scale,
        _verdict(axes, shears, sign, scale, clear, alike),
    )


class _Found(NamedTuple):
    """The best order and signs of three components."""

    order: tuple[int, ...]
    signs: tuple[int, ...]
    correlation: float
    score: float

    def alike(self, predicted: np.ndarray, labelled: np.ndarray) -> list[tuple[int, int]]:
        """Pairs whose exchange would do as well, within the price of a component."""
        pairs = []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            order = list(self.order)
            order[i], order[j] = order[j], order[i]
            other = _correlation(predicted[:, order] * np.array(self.signs), labelled)
            if other > self.correlation - _PRICE:
                pairs.append((i, j))
        return pairs


def _parts(six):
    """Deviator of the diagonal (n, 3) and shears (n, 3).

    Without the traces, which cells of one volume leave to the fit's extrapolation.
    """
    trace = np.mean(six[:, :3], axis=1, keepdims=True)
    return six[:, :3] - trace, six[:, 3:]


def _correlation(a, b) -> float:
    """Of all entries together; 0 where one is constant."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / size if size > 0.0 else 0.0


def _best(predicted, labelled, patterns) -> _Found:
    found = []
    for order, signs in product(permutations(range(3)), patterns):
        correlation = _correlation(predicted[:, order] * np.array(signs), labelled)
        moved = sum(k != order[k] or signs[k] < 0 for k in range(3))
        found.append(_Found(order, signs, correlation, correlation - _PRICE * moved))
    return max(found, key=lambda one: one.score)


def _verdict(axes: _Found, shears: _Found, sign, scale, clear, alike) -> str:
    if max(axes.correlation, shears.correlation) < clear:
        return "undecided"
    said = ["sign turned"] if sign < 0 else []
    for name, found, start in (("axes", axes, 0), ("shears", shears, 3)):
        if found.correlation < clear:
            said.append(f"{name} undecided")
            continue
        moved = [COMPONENTS[start + k] for k in range(3) if found.order[k] != k]
        if len(moved) == 2:
            said.append(" and ".join(moved) + " exchanged")
        elif moved:
            now = [COMPONENTS[start + k] for k in found.order]
            said.append(" ".join(moved) + " are " + " ".join(now))
        turned = [COMPONENTS[start + k] for k in range(3) if found.signs[k] < 0]
        if turned:
            said.append("sign of " + " and ".join(turned) + " turned")
    if not 1.0 / 2.0 < scale < 2.0:
        unit = [u for u, size in _FACTORS.items() if 1 / _WITHIN < scale / size < _WITHIN]
        said.append(f"times {scale:.3g}" + (f": {unit[0]} for eV/Å^3?" if unit else ""))
    said = said or ["as documented"]
    for found, pairs, start in ((axes, alike[0], 0), (shears, alike[1], 3)):
        if found.correlation >= clear:
            said += [
                f"{COMPONENTS[start + i]} and {COMPONENTS[start + j]} not told apart"
                for i, j in pairs
            ]
    return "; ".join(said)
