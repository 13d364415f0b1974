"""Fit a linear ACE potential to labelled cells, and say how good it is.

$ lprjax fit train.xyz -o model.npz
$ lprjax fit bulk.xyz surfaces.xyz.gz --test test.xyz -o model.npz --choice forces
$ lprjax fit train.xyz -o model.npz --weights energy=100 forces=1 virial=10 --r-cut 5.5
$ lprjax fit train.xyz -o model.npz --weights weights.toml --keys energy=E0 forces=F

Without --weights, weights, ridge and smoothness, the cutoff and its power are chosen by
cross-validation within the training set: all that is tried is a front of energy against force
errors, and --choice a point on it. With --weights one fit is made, unless several bases are named.

The model goes to the file, with its factor (see `lprjax rigidity`), and a picture beside it:
predictions against labels, cumulative errors, rigidities by species.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional, arg

import lprjax as lp
from lprjax.commands.command import Command, Outcome, Say, assignments, checked_output, table

if TYPE_CHECKING:
    from lprjax.commands.errors import Compared
    from lprjax.regression.cross_validation import Candidate

RIDGES, POWERS = (1e-10, 1e-8, 1e-6, 1e-4), (2.0, 4.0)
"""Tried by cross-validation; without it the second of the former and the first of the latter."""
_ATOMS = 1000  # whose rigidity is drawn, about


@dataclass(frozen=True, kw_only=True)
class Flags(Command):
    """What to fit, how, and where it goes."""

    #: extended XYZ, packed or not; isolated atoms among the frames give the reference energies
    train: Annotated[Positional[tuple[Path, ...]], arg(metavar="TRAIN.xyz")]
    #: where the model goes, .npz
    output: Annotated[Path, arg(aliases=("-o",), metavar="MODEL.npz")]
    #: cells that are not fitted, for errors only
    test: Annotated[tuple[Path, ...], arg(metavar="TEST.xyz")] = ()
    order: int = 3  # of the basis: neighbours per product, 1 to 4
    #: total degree of the basis; several: the best one is chosen; none: by the size of the data
    degree: tuple[int, ...] = ()
    #: cutoff, Å; several: the best one; none: 2.0 and 2.3 times r0 (2.0 with --weights)
    r_cut: tuple[float, ...] = ()
    #: order of the zero at the cutoff; several: the best one; none: 2 and 4 (4 with --weights)
    cutoff_power: tuple[int, ...] = ()
    r0: float = 0.0  # distance of nearest neighbours, Å; 0: the data's median
    #: one more constant per element; auto: where no isolated atoms are among the frames
    constant: Literal["auto", "yes", "no"] = "auto"
    #: inner and outer radius, Å, between which the repulsion of nuclei takes over
    core: tuple[float, ...] = ()
    #: a TOML file, or kind=weight; of residuals: atom/eV (energy, virial), Å/eV (forces)
    weights: Annotated[tuple[str, ...], arg(metavar="FILE|KIND=W")] = ()
    #: energies and virials of whole cells: weights are then in 1/eV, and large cells count more
    per_cell: FlagCreatePairsOff[bool] = False
    ridge: tuple[float, ...] = ()  # multiplies |Gamma c|^2; several: the best one
    smoothness: tuple[float, ...] = ()  # power of the prior Gamma; several: the best one
    #: which point on the front; the rules are printed below it
    choice: Literal["balanced", "energy", "forces"] = "balanced"
    folds: int = 5  # of the cross-validation
    #: what labels are called where `read_extxyz` would not find them, e.g. energy=E0
    keys: Annotated[tuple[str, ...], arg(metavar="LABEL=NAME")] = ()
    group_by: str = "config_type"  # the entry of a frame that names its group

    def run(self, say: Say) -> Outcome:
        """Read, choose, fit, say what came of it."""
        from lprjax.commands.pictures import fit_picture, picture_of, save_picture

        checked_output(self.output, ".npz")
        if not self.train:
            raise ValueError("no training set is named: wanted at least one file, train.xyz.")
        data, test = self._read(self.train, say), None
        if self.test:
            test = self._read(self.test, say)
        energies = lp.baseline_energies(data)
        found = self._fitted(data, self._bases(data, say), energies, say)
        sets = self._errors(found, energies, {"train": data, "test": test})
        lpr, species = _rigidities(found, data)

        text, share = "; ".join(data.reports), "cell" if self.per_cell else "atom"
        more: Any = {"spec": found.spec, "reference_energies": energies}
        lp.save(self.output, found.fit, data=f"energies and virials per {share}; {text}", **more)
        errors = [(1e3 * one.energy, one.forces) for one in found.front]
        chosen = found.front.index(found.candidate) if found.candidate else None
        save_picture(fit_picture(sets, lpr, species, errors, chosen), picture_of(self.output))
        return _report(self.output, found, sets, lpr, say)

    def _read(self, paths: Sequence[Path], say: Say) -> lp.TrainingSet:
        keys = assignments("--keys", self.keys)
        data = lp.read_training_set(list(paths), keys=keys, group_by=self.group_by)
        for line in data.reports:
            say(line)
        return data

    def _bases(self, data: lp.TrainingSet, say: Say) -> list[lp.ACESpec]:
        if len(self.core) not in (0, 2):
            raise ValueError(f"--core is {self.core}: wanted two radii, e.g. --core 1.6 2.2.")
        from lprjax.commands.bases import REACH, named_bases, nearest_distance

        r0 = self.r0 or round(nearest_distance(data.structures), 3)
        reach = REACH[:1] if self.weights else REACH
        bases = named_bases(
            data.elements,
            order=self.order,
            degrees=self.degree,
            cutoffs=self.r_cut or [round(times * r0, 2) for times in reach],
            powers=self.cutoff_power or ((4,) if self.weights else (2, 4)),
            r0=r0,
            constant=self._constant(data),
            core=(self.core[0], self.core[1]) if self.core else None,
            n_rows=sum(3 * s.n_atoms + 1 for s in data.structures),
        )
        first = bases[0]
        say(
            f"basis: {', '.join(first.elements)}, order {first.order}, degree "
            f"{_list(b.degree for b in bases)}, r_cut {_list(b.r_cut for b in bases)} Å, r0 {r0} "
            f"Å, zero of order {_list(b.cutoff_power for b in bases)}"
        )
        return bases

    def _constant(self, data: lp.TrainingSet) -> bool:
        if self.constant == "auto":
            return not set(data.elements) <= set(data.reference_energies)
        return self.constant == "yes"

    def _weights(self, data: lp.TrainingSet) -> dict[Any, float] | None:
        if not self.weights:
            return None
        if len(self.weights) == 1 and "=" not in self.weights[0]:
            return dict(lp.read_weights(self.weights[0], groups=data.groups))
        words = assignments("--weights", self.weights)
        try:
            return dict(
                lp.regression.weights_by_group({kind: float(w) for kind, w in words.items()})
            )
        except ValueError as error:
            raise ValueError(f"--weights is {' '.join(self.weights)}: {error}") from error

    def _fitted(
        self,
        data: lp.TrainingSet,
        bases: Sequence[lp.ACESpec],
        energies: Mapping[str, float],
        say: Say,
    ) -> _Chosen:
        weights = self._weights(data)
        ridges, powers = self.ridge or RIDGES, self.smoothness or POWERS
        how: dict[str, Any] = {"reference_energies": energies, "per_atom": _per_atom(self)}
        several = len(bases) > 1 or len(self.ridge) > 1 or len(self.smoothness) > 1
        if weights is not None and not several:
            ridge = self.ridge[0] if self.ridge else RIDGES[1]
            prior = lp.smoothness_prior(bases[0], powers[0])
            factors = lp.compress_groups(bases[0], data, **how)
            given = _of_what_there_is(weights, factors, say)
            return _Chosen(bases[0], lp.fit(factors, given, ridge=ridge, prior=prior), powers[0])
        folds = min(self.folds, len(data.structures))
        # groups without a weight of their own share a factor, however many there are
        apart = [key[1] for key in weights or () if isinstance(key, tuple)]
        how["apart"] = list(dict.fromkeys(apart))
        parts = {basis: lp.compress_folds(basis, data, folds, **how) for basis in bases}
        tried: dict[str, Any] = {"ridges": ridges, "powers": powers}
        if weights is not None:
            keys = {key: None for factors in parts[bases[0]] for key in factors}
            given = _of_what_there_is(weights, keys, say)
            tried |= {"weights": given, "energy": (1.0,), "virial": (1.0,)}
        front = lp.validation_front(parts.items(), **tried)
        say(f"\nheld-out errors, {folds} folds, {len(front.candidates)} losses:\n{front}")
        best = front.chosen(self.choice)
        fitted = best.fit(parts[best.spec])
        return _Chosen(best.spec, fitted, best.power, self.choice, front.best, best)

    def _errors(
        self,
        found: _Chosen,
        energies: Mapping[str, float],
        sets: Mapping[str, lp.TrainingSet | None],
    ) -> dict[str, list[Compared]]:
        from lprjax.commands.errors import UNITS, compared, predictions
        from lprjax.regression.factors import kind_of

        potential = lp.linear_potential(found.spec, found.fit.coefficients, energies)
        kinds = [kind for kind in UNITS if any(kind_of(key) == kind for key in found.fit.weights)]
        return {
            name: compared(
                s.structures, s.labels, s.groups, predictions(potential, s.structures, kinds)
            )
            for name, s in sets.items()
            if s is not None
        }


class _Chosen(NamedTuple):
    """A fit and how it came about."""

    spec: lp.ACESpec
    fit: lp.Fit
    power: float  # of the smoothness prior
    choice: str = ""  # on the front, where there was one
    front: tuple[Candidate, ...] = ()  # that nothing else tried beats in both errors
    candidate: Candidate | None = None  # of them


def _per_atom(flags: Flags) -> tuple[str, ...]:
    """The kinds that are divided by the number of atoms."""
    return () if flags.per_cell else ("energy", "virial")


def _of_what_there_is(
    weights: Mapping[Any, float], keys: Mapping[Any, Any], say: Say
) -> dict[Any, float]:
    """The weights of what the data have labels of."""
    from lprjax.regression.factors import kind_of

    there = {key for key in keys} | {kind_of(key) for key in keys}
    missing = [key for key in keys if key not in weights and kind_of(key) not in weights]
    if missing:
        kinds = " and ".join(dict.fromkeys(str(kind_of(key)) for key in missing))
        raise ValueError(
            f"--weights has none for {kinds}, of which there are labels: wanted one for each kind, "
            f"e.g. {kind_of(missing[0])}=1; a weight of 0 leaves them out."
        )
    for key in weights.keys() - there:
        say(f"no label of {' of '.join(key) if isinstance(key, tuple) else key}: no weight for it")
    return {key: weight for key, weight in weights.items() if key in there}


def _list(values: Any) -> str:
    return " or ".join(f"{value:g}" for value in dict.fromkeys(values))


def _rigidities(found: _Chosen, data: lp.TrainingSet) -> tuple[np.ndarray, list[str]]:
    """LPR of atoms of the training set, evenly spread over its structures, and their symbols."""
    step = max(1, sum(s.n_atoms for s in data.structures) // _ATOMS)
    structures: list[lp.Structure] = data.structures[::step]
    lpr, species = [], []
    for structure, graph in zip(
        structures, lp.build_graphs(structures, found.spec.r_cut, shapes=3), strict=True
    ):
        rows = lp.site_basis(found.spec, graph)
        rigid = lp.local_prediction_rigidity(found.fit.factor, rows)
        lpr.append(np.asarray(rigid)[: structure.n_atoms])
        species += lp.to_ase(structure).get_chemical_symbols()
    return np.concatenate(lpr), species


def _report(
    output: Path, found: _Chosen, sets: Mapping[str, Sequence[Compared]], lpr: np.ndarray, say: Say
) -> Outcome:
    from lprjax.commands.errors import COLUMNS, rows_of
    from lprjax.commands.pictures import picture_of

    spec, fitted = found.spec, found.fit
    rows = [row for name, errors in sets.items() for row in rows_of(name, errors)]
    picture = picture_of(output)
    say("\n" + table(COLUMNS, rows))
    say(
        f"\n{spec.n_columns} functions, rank {fitted.rank}, condition {fitted.condition:.2g}; "
        f"r_cut {spec.r_cut:g} Å, ridge {fitted.ridge:g}, prior of power {found.power:g}"
    )
    if fitted.rank < spec.n_columns:
        say("The data and the ridge leave some functions undetermined: their rigidity is zero.")
    say(f"rigidity of site energies: {np.median(lpr):.3g} (median) 1/eV^2 in the training cells")
    say(f"wrote {output} and {picture}")
    summary = {
        "model": str(output),
        "picture": str(picture),
        "elements": spec.elements,
        "order": spec.order,
        "degree": spec.degree,
        "r_cut": spec.r_cut,
        "r0": spec.r0,
        "cutoff_power": spec.cutoff_power,
        "functions": spec.n_columns,
        "rank": fitted.rank,
        "condition": fitted.condition,
        "ridge": fitted.ridge,
        "smoothness": found.power,
        "choice": found.choice or None,
        "front": [_on_front(one) for one in found.front],
        "weights": {
            " of ".join(k) if isinstance(k, tuple) else k: w for k, w in fitted.weights.items()
        },
        "errors": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        "median_lpr": float(np.median(lpr)),
    }
    return Outcome(summary)


def _on_front(one: Candidate) -> dict[str, Any]:
    """A point of the front: held-out errors in meV/atom and eV/Å, and what they are of."""
    return {
        "energy": 1e3 * one.energy,
        "forces": one.forces,
        "degree": one.spec.degree,
        "r_cut": one.spec.r_cut,
        "cutoff_power": one.spec.cutoff_power,
        "ridge": one.ridge,
        "smoothness": one.power,
        "weights": {
            " of ".join(k) if isinstance(k, tuple) else k: w for k, w in one.weights.items()
        },
    }
