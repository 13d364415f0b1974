"""Factors by kind and group of a training set, the energies they count from, and their weights.

Totals of DFT are of the size of 1e5 eV for an atom, and a residual of 1e-3 eV is the last digits of
one. They are taken off at the source, by element, before anything is compressed: by energies of
isolated atoms, or else by the least-squares energies per atom, which leave the fit the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from lprjax.ace.spec import ACESpec
from lprjax.atoms.training_sets import TrainingSet
from lprjax.numerics.checks import check_at_least_zero
from lprjax.potentials.potential import Potential
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import Factor
from lprjax.regression.samples import energies_per_atom

KINDS_OF_FILES = ("energy", "forces", "virial")
"""What extended XYZ has a place for."""
REST = "rest"
"""Group of the structures whose own group is not kept apart."""


def baseline_energies(training_set: TrainingSet) -> dict[str, float]:
    """The energy of an atom of each element that total energies are counted from.

    That of the isolated atom where the files hold it; of the other elements the least-squares
    energies per atom, as `samples.energies_per_atom` says. They are an origin for the fit: a
    potential on an `ACESpec(constant=True)` is the same with any, to rounding, where its constants
    bear no ridge (`smoothness_prior`).

    Args:
        training_set: of structures of N_s atoms, n_sz of them of element z.

    Returns:
        By symbol, eV, of all elements of the set; zero where no energy says anything.
    """
    pairs = zip(training_set.structures, training_set.labels, strict=True)
    labelled = [(np.asarray(s.species), float(y.energy)) for s, y in pairs if y.energy is not None]
    return energies_per_atom(
        [species for species, _ in labelled],
        [energy for _, energy in labelled],
        training_set.elements,
        training_set.reference_energies,
    )


def compress_groups(
    model: ACESpec | Potential,
    training_set: TrainingSet,
    kinds: Sequence[str] | None = None,
    *,
    reference_energies: Mapping[str, float] | None = None,
    per_atom: Sequence[str] = ("energy", "virial"),
    apart: Sequence[str] | None = None,
    mesh: Mesh | None = None,
) -> dict[tuple[str, str], Factor]:
    """One factor per kind and group of a training set, each of the structures that have the kind.

        data = lp.read_training_set("train.xyz")
        energies = lp.baseline_energies(data)
        factors = lp.compress_groups(spec, data, reference_energies=energies)
        result = lp.fit(factors, {"energy": 100.0, "forces": 1.0, ("energy", "liquid"): 30.0})
        potential = lp.linear_potential(spec, result.coefficients, energies)

    Args:
        model: as in `compress_structures`.
        training_set: see `read_training_set`.
        kinds: among "energy", "forces" and "virial"; None: those that the set has labels of.
        reference_energies: by symbol, eV; None: `baseline_energies(training_set)`, for an ACESpec.
            The potential of the fit has to be given the same.
        per_atom: which of "energy" and "virial" are divided by the number of atoms: their weights
            are then in atom/eV, and cells of every size count alike. Others' are in 1/eV.
        apart: the groups that are to have factors, and so weights, of their own; all others are one
            group, "rest". A factor of K columns takes 8 K^2 bytes, whatever is in it. None: all.
        mesh: as in `compress_structures`.

    Returns:
        (kind, group) -> Factor, for every kind that some structure of the group has.

    Raises:
        ValueError: a kind or a group apart that no structure has; and as `compress_structures`.
        TypeError, RuntimeError: as `compress_structures`.
    """
    wanted = checked_training_kinds(training_set, kinds)
    if reference_energies is None and isinstance(model, ACESpec):
        reference_energies = baseline_energies(training_set)
    with tqdm(total=len(training_set.groups), desc="rows", unit=" cells", delay=5) as bar:
        return factors_by_group(
            model,
            kept_apart(training_set, apart),
            wanted,
            bar,
            reference_energies=reference_energies,
            per_atom=per_atom,
            mesh=mesh,
        )


def kept_apart(training_set: TrainingSet, apart: Sequence[str] | None) -> TrainingSet:
    """The set with all groups but a few put together.

    Args:
        training_set: see `read_training_set`.
        apart: the groups that stay; None: all.

    Returns:
        The set with its other structures in the group REST.

    Raises:
        ValueError: a group that no structure has.
    """
    if apart is None:
        return training_set
    names = list(dict.fromkeys(training_set.groups))
    unknown = sorted(set(apart) - set(names))
    if unknown:
        raise ValueError(f"apart has {unknown}: wanted some of the groups, {', '.join(names)}.")
    return training_set._replace(
        groups=[name if name in apart else REST for name in training_set.groups]
    )


def factors_by_group(
    model: ACESpec | Potential,
    training_set: TrainingSet,
    kinds: Sequence[str],
    bar: tqdm,
    **options: Any,
) -> dict[tuple[str, str], Factor]:
    """`compress_groups` of what was checked, and counted on a progress bar.

    Args:
        model: as there.
        training_set: any part of what the kinds were checked for.
        kinds: as `checked_training_kinds` returns them.
        bar: that counts the structures.
        options: of `compress_structures`.

    Returns:
        (kind, group) -> Factor, by kind.
    """
    found: dict[tuple[str, str], Factor] = {}
    for name in dict.fromkeys(training_set.groups):
        places = [place for place, group in enumerate(training_set.groups) if group == name]
        part = training_set.part(places)
        samples = [
            (structure, labels)
            for structure, labels in zip(part.structures, part.labels, strict=True)
            if any(getattr(labels, kind) is not None for kind in kinds)
        ]
        here = [k for k in kinds if any(getattr(labels, k) is not None for _, labels in samples)]
        bar.update(len(places) - len(samples))
        if here:
            factors = compress_structures(model, _counted(samples, bar), here, **options)
            found |= {(kind, name): factors[kind] for kind in here}
    return dict(sorted(found.items(), key=lambda item: kinds.index(item[0][0])))


def _counted(samples, bar: tqdm):
    for sample in samples:
        yield sample
        bar.update()


def checked_training_kinds(
    training_set: TrainingSet, kinds: Sequence[str] | None
) -> tuple[str, ...]:
    """The kinds of observations to compress, after checking that the set has them.

    Args:
        training_set: see `read_training_set`.
        kinds: as in `compress_groups`.

    Returns:
        The kinds, in the order of KINDS_OF_FILES.

    Raises:
        ValueError: a kind that no structure has, or that files have no place for.
    """
    there = [
        kind
        for kind in KINDS_OF_FILES
        if any(getattr(labels, kind) is not None for labels in training_set.labels)
    ]
    wanted = there if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
    if not wanted or not set(wanted) <= set(there):
        raise ValueError(
            f"kinds is {kinds!r}: wanted some of what the training set has labels of, "
            f"{', '.join(there) or 'nothing'}; leave the others out, or name them in a file's keys."
        )
    return tuple(kind for kind in KINDS_OF_FILES if kind in wanted)


def read_weights(
    path: str | Path, *, groups: Sequence[str] | None = None
) -> dict[str | tuple[str, str], float]:
    """Weights of a fit by kind, and by group where it has its own, from a TOML file.

        energy = 100.0   # atom/eV where energies are per atom, 1/eV where they are per cell
        forces = 1.0     # Å/eV
        virial = 1.0     # as energy

        [groups.liquid]  # a group of the training set, as its config_type has it
        energy = 30.0

    A weight multiplies the residual, so its square multiplies the loss.

    Args:
        path: of the file.
        groups: of the training set; None: any name is taken.

    Returns:
        kind -> w and (kind, group) -> w, as `fit` takes them.

    Raises:
        ValueError: a file that is no TOML, and as `weights_by_group`; it names the file.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no TOML ({error}): wanted lines such as `energy = 100.0` and, below them, "
            "`[groups.NAME]`."
        ) from error
    try:
        return weights_by_group(table, groups=groups)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def weights_by_group(
    table: Mapping[str, Any], *, groups: Sequence[str] | None = None
) -> dict[str | tuple[str, str], float]:
    """Weights of a fit from a nested table, after checking it.

    Args:
        table: kind -> w, and under "groups" name -> kind -> w; units as in `read_weights`.
        groups: of the training set; None: any name is taken.

    Returns:
        kind -> w and (kind, group) -> w, as `fit` takes them.

    Raises:
        ValueError: an unknown kind or group; a weight that is no finite number >= 0; no weights.
    """
    by_group = table.get("groups", {})
    if not (
        isinstance(by_group, Mapping) and all(isinstance(w, Mapping) for w in by_group.values())
    ):
        raise ValueError(
            f"groups is {by_group!r}: wanted a table of each group's weights, [groups.NAME]."
        )
    unknown = sorted(set(by_group) - set(by_group if groups is None else groups))
    if unknown:
        known = ", ".join(dict.fromkeys(groups or ()))
        raise ValueError(f"groups has {unknown}: wanted some of the training set's, {known}.")
    found: dict[str | tuple[str, str], float] = {}
    whole = {kind: weight for kind, weight in table.items() if kind != "groups"}
    for group, weights in {None: whole, **by_group}.items():
        where = "" if group is None else f" of group {group!r}"
        for kind, weight in weights.items():
            if kind not in KINDS_OF_FILES:
                raise ValueError(
                    f"{kind!r}{where} has a weight: wanted kinds, {', '.join(KINDS_OF_FILES)}, or "
                    "[groups.NAME]."
                )
            check_at_least_zero(f"weight of {kind!r}{where}", weight)
            found[kind if group is None else (kind, group)] = float(weight)
    if not found:
        raise ValueError("weights are empty: wanted one at least, such as `energy = 100.0`.")
    return found
