"""What an audit finds, in numbers and in words: see `audits`, which makes it, for the symbols."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax

from lprjax.atoms.extxyz import write_extxyz
from lprjax.atoms.structures import Structure
from lprjax.crystals.strain_norm import PLAIN, NormUnits
from lprjax.numerics.tables import Table

VERDICTS = ("trust", "add data", "cannot say")
"""Both errors are acceptable anywhere in their ranges; one is not anywhere in its range; else."""


class AuditTerm(NamedTuple):
    """One part of the error of a relaxed defect."""

    name: str  # "energies", "core", "far field"
    norm: float  # eV/Å, of its forces in the negative norm
    geometry: float  # Å, ||D H^+ f||, of its own forces alone
    energy: float  # eV, its share of the error of E_f, signed


class Audit(NamedTuple):
    """What `audit` finds; `print` it.

    Look at `verdict` first. Numbers are NaN before the reference was asked, or where `failures`
    says what went wrong.
    """

    verdict: str  # one of VERDICTS
    advice: str  # why, and what to do next
    calls: int  # of the reference, of the defect's cell
    geometry: float  # ||D(uhat - ubar)||, Å, predicted
    geometry_range: tuple[float, float]  # Å, where it lies
    energy: float  # eV, error of E_f, surrogate less reference, predicted
    energy_range: tuple[float, float]  # eV
    formation_energy: float  # eV, the surrogate's, relaxed; less `energy` it is the reference's
    terms: tuple[AuditTerm, ...]
    eta: float  # ||G||_{-1}, eV/Å, of what the forces differ by at the surrogate's geometry
    stability: float  # c of the surrogate there, eV/Å^2
    hessian_error: float  # delta, how wrong the surrogate's Hessian is, relative
    displacement: jax.Array  # uhat, (n_sites, 3) Å
    corrected: jax.Array  # u1 (u2, ...), (n_sites, 3) Å, where the reference's minimiser should be
    cells: tuple[Structure, ...]  # what to have computed next, energies and forces
    failures: Mapping[str, str]  # what went wrong
    undefined: str | None = None  # why E_f has no value, and energies are NaN
    units: NormUnits = PLAIN  # of geometries, eta and c: here Å ..., of energy norms eV^1/2 ...

    def write(self, path: str | Path) -> None:
        """Write `cells` as extended XYZ, to be labelled elsewhere.

        Args:
            path: of the file.
        """
        write_extxyz(path, self.cells)

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        norm, dual, curvature, _ = self.units
        rows = [
            [t.name, f"{t.norm:.3e}", f"{t.geometry:.3e}", f"{t.energy:.3e}"] for t in self.terms
        ]
        between = lambda ends, unit: f"in [{ends[0]:.3e}, {ends[1]:.3e}] {unit}"  # noqa: E731
        energy = f"energy error {self.energy:.3e} eV, {between(self.energy_range, 'eV')}"
        notes = [
            f"geometry error {self.geometry:.3e} {norm}, {between(self.geometry_range, norm)}",
            f"energy undefined; {self.undefined}" if self.undefined else energy,
            f"eta {self.eta:.3e} {dual}, c {self.stability:.3e} {curvature}, Hessian wrong by "
            f"{100 * self.hessian_error:.2g} % ({'measured' if self.calls > 1 else 'estimated'})",
            f"{self.verdict.upper()}: {self.advice}",
            *(f"FAILED, {kind}: {text}" for kind, text in self.failures.items()),
        ]
        title = f"Audit of a relaxed defect, {self.calls} call{'s' * (self.calls != 1)} of it"
        return Table(
            title, ("term", f"norm ({dual})", f"geometry ({norm})", "energy (eV)"), rows, notes
        )


CURES = {
    "energies": "energies of defect cells, of the difference to the perfect crystal",
    "core": "defect cells: energies and forces, a larger weight on them, or a larger basis",
    "far field": "virials and force constants of bulk cells, or a larger training cell",
    "forces": "defect cells: energies and forces, a larger weight on them, or a larger basis",
}
"""What to add to the training data against each term."""


def judged(found: Audit, acceptable: tuple[float, float]) -> Audit:
    """The audit with its verdict and advice.

    Args:
        found: an audit of numbers.
        acceptable: of geometry, Å, and of the formation energy, eV.

    Returns:
        The same with both.
    """
    limits = {"geometry": acceptable[0], "formation energy": acceptable[1]}
    ends = {"geometry": found.geometry_range, "formation energy": _sizes(found.energy_range)}
    if found.undefined:
        del ends["formation energy"]
    if any(math.isnan(low + high) for low, high in ends.values()):
        return found._replace(verdict="cannot say", advice=_open(found))
    wrong = [name for name, (low, _) in ends.items() if low > limits[name]]
    doubtful = [name for name, (_, high) in ends.items() if high > limits[name]]
    if wrong:
        return found._replace(verdict="add data", advice=_cure(found, wrong))
    if doubtful:
        return found._replace(
            verdict="cannot say",
            advice=f"the {' and the '.join(doubtful)} may be acceptable or not: ask the reference "
            f"once more, for `cells` (calls={found.calls + 1})",
        )
    return found._replace(
        verdict="trust",
        advice="both errors are acceptable"
        if not found.undefined
        else "the geometry is acceptable",
    )


def _sizes(ends: tuple[float, float]) -> tuple[float, float]:
    """The range of |x| for x in a range."""
    low, high = ends
    inside = low <= 0.0 <= high
    return 0.0 if inside else min(abs(low), abs(high)), max(abs(low), abs(high))


def _open(found: Audit) -> str:
    if found.failures:
        return "the numbers say nothing where something failed"
    if not found.calls:
        return "the reference was not asked yet: have `cells` computed, energies and forces"
    share = 100 * found.hessian_error
    return (
        f"the surrogate's Hessian may be wrong by {share:.0f} % along the correction, too much for "
        f"a range: ask the reference once more, for `cells` (calls={found.calls + 1})"
    )


def _cure(found: Audit, wrong: list[str]) -> str:
    """What to add against the largest term of what is wrong."""
    of = (lambda t: t.geometry) if "geometry" in wrong else (lambda t: abs(t.energy))
    largest = max(found.terms, key=of)
    what = f"the {' and the '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} wrong"
    return f"{what}, mostly by {largest.name}: add {CURES[largest.name]}"
