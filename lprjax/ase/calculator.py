"""Any potential of the library, a fit, or the file of either as a calculator of ASE."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators import calculator as ase_calculator
from ase.stress import full_3x3_to_voigt_6_stress

from lprjax.ace.spec import ACESpec
from lprjax.ase.deviations import checked_factors, deviations_of
from lprjax.ase.verlet_list import Candidates, VerletList
from lprjax.atoms.graphs import moved
from lprjax.atoms.structures import Structure, completed
from lprjax.models.files import SavedFit, load
from lprjax.numerics.checks import is_number, require_x64
from lprjax.potentials.potential import Potential, as_argument, check, cutoff_of, site_energies_of
from lprjax.regression.fitting import Fit
from lprjax.regression.posterior import Calibration

DEVIATIONS = ("energy_deviation", "force_deviation")
"""Results that are made where they are asked for, or with `deviations=True`."""


class Calculator(ase_calculator.Calculator):
    """A calculator of ASE: `atoms.calc = lp.ase.Calculator("model.npz")`.

    =================  ==========  ================================================================
    result             unit        what it is
    =================  ==========  ================================================================
    energy             eV          the sum of the site energies; free_energy is the same
    energies           eV          site energies, (n,)
    forces             eV/Å        -dE/dR, (n, 3)
    stress             eV/Å^3      dE/d(strain) / V, tension positive, (6,) in Voigt order; where
                                   a direction is periodic and the cell has a volume
    energy_deviation   eV          of each site energy, 1/sqrt(LPR), (n,)
    force_deviation    eV/Å        of each force, the root of the sum of its components' 1/PR, (n,)
    =================  ==========  ================================================================

    Deviations need a fit with its factor. They are standard deviations if weighted residuals have
    variance one, or as they were calibrated.

    Neighbours are looked for within the cutoff and a skin, again when an atom has moved half of the
    skin, or with a cell that is strained as much; see `verlet_list`. The results do not depend on
    when that was. Nothing is compiled as atoms move or the cell changes, and for other numbers of
    atoms or neighbours once for each of a few sizes.

    Args:
        model: a potential; a fit, with `spec`; what `lp.load` returns; or the path of a file that
            `lp.save` wrote.
        spec: the basis of a `Fit`, which anything else brings itself.
        reference_energies: of a `Fit`, by symbol, eV, where energies were fitted less those.
        skin: how much further neighbours are looked for, Å, >= 0.
        deviations: True makes deviations with every other result; otherwise ask for them,
            `calc.get_property("energy_deviation", atoms)`.
        calibration: of the deviations, by kind, {"energy": ..., "forces": ...}, as `lp.calibrate`
            makes them from residuals of energies per atom and of force components.

    Raises:
        TypeError: no model; a fit without its spec, or a spec beside anything else.
        ValueError: deviations or a calibration of a model without a fit, a factor of another size,
            or a skin that is no length >= 0.
        RuntimeError: float64 is off.
    """

    name = "lprjax"
    implemented_properties = [
        "energy", "free_energy", "energies", "forces", "stress", *DEVIATIONS,
    ]  # fmt: skip
    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        model: Potential | Fit | SavedFit | str | os.PathLike[str],
        *,
        spec: ACESpec | None = None,
        reference_energies: Mapping[str, float] | None = None,
        skin: float = 1.0,
        deviations: bool = False,
        calibration: Mapping[str, Calibration] | None = None,
    ) -> None:
        require_x64()
        if not (is_number(skin) and skin >= 0):
            raise ValueError(f"skin is {skin!r}: wanted a length >= 0 in Å.")
        super().__init__()
        known = _known(model, spec, reference_energies)
        self.potential: Potential = known.potential() if isinstance(known, SavedFit) else known
        self.saved = known if isinstance(known, SavedFit) else None
        self.factors = checked_factors(self.saved, deviations, calibration)
        self.deviations = deviations
        self.neighbours = VerletList(cutoff_of(self.potential), float(skin))
        self._argument = as_argument(self.potential, "model")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(ase_calculator.all_changes),
    ) -> None:
        """All results of some atoms, for ASE, which calls this where they changed.

        Args:
            atoms: of n atoms.
            properties: which results are asked for.
            system_changes: what changed since the last call.

        Raises:
            ValueError: what the potential refuses, or `build_graph` does.
            PropertyNotImplementedError: deviations of a model without a fit.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        assert isinstance(self.atoms, Atoms)
        structure = _structure(self.atoms)
        if system_changes or "energy" not in self.results:
            self.results = self._evaluated(structure, self.atoms.cell.volume)
        if self.deviations or set(DEVIATIONS) & set(properties):
            if self.saved is None:
                raise ase_calculator.PropertyNotImplementedError(
                    "deviations are of a fit with its factor: wanted an lp.Fit with its spec, or "
                    "the file of one; the model is another potential."
                )
            found = deviations_of(self.saved.spec, structure, self.factors)
            self.results |= dict(zip(DEVIATIONS, found, strict=True))

    def _evaluated(self, structure: Structure, volume: float) -> dict[str, Any]:
        listed = self.neighbours
        candidates = listed.update(structure, partial(check, self.potential))
        n = structure.n_atoms
        positions = np.zeros((len(candidates.atom_mask), 3))
        positions[:n] = structure.positions
        while True:
            sites, slope, cell_slope, most = _derivatives(
                self._argument, candidates, positions, structure.cell,
                listed.r_cut, listed.n_neighbours,
            )  # fmt: skip
            if int(most) <= listed.n_neighbours:
                break
            listed.make_room(int(most))
        energies, gradient = np.asarray(sites)[:n], np.asarray(slope)[:n]
        energy = float(np.sum(energies))
        found = {"energy": energy, "free_energy": energy, "energies": energies.copy()}
        found |= {"forces": -gradient}
        if any(structure.pbc) and volume > 0.0:
            # x -> (1 + strain) x of atoms and lattice vectors
            strained = structure.positions.T @ gradient + structure.cell.T @ np.asarray(cell_slope)
            found["stress"] = full_3x3_to_voigt_6_stress(0.5 * (strained + strained.T) / volume)
        return found


def _known(model: Any, spec: ACESpec | None, reference_energies: Mapping[str, float] | None) -> Any:
    """A potential or a `SavedFit`."""
    if isinstance(model, Fit):
        if not isinstance(spec, ACESpec):
            raise TypeError(
                f"spec is {spec!r}: wanted the ACESpec of the rows beside a Fit, which does not "
                "hold its basis."
            )
        return SavedFit(model, spec, reference_energies, "")
    if spec is not None or reference_energies is not None:
        raise TypeError(
            f"spec or reference_energies are given beside a {type(model).__name__}: wanted for a "
            "Fit only; anything else brings its own."
        )
    return load(model) if isinstance(model, str | os.PathLike) else model


def _structure(atoms: Atoms) -> Structure:
    """Of NumPy arrays, without a copy to the device."""
    pbc = tuple(bool(flag) for flag in atoms.pbc)
    cell = completed(np.array(atoms.cell), atoms.pbc)
    arrays: Any = atoms.positions.copy(), cell, np.asarray(atoms.numbers, np.int32)
    return Structure(*arrays, (pbc[0], pbc[1], pbc[2]))


@partial(jax.jit, static_argnames="n_neighbours")
def _derivatives(
    potential: Potential,
    candidates: Candidates,
    positions: jax.Array,
    cell: jax.Array,
    r_cut: jax.Array,
    n_neighbours: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Site energies (n,), dE/dR (n, 3), dE/dh (3, 3), and the neighbours of the atom with most."""
    graph, most = candidates.graph(positions, cell, r_cut, n_neighbours)

    def energy(positions: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
        sites = site_energies_of(potential, moved(graph, positions, cell))
        return jnp.sum(sites), sites

    (_, sites), slopes = jax.value_and_grad(energy, (0, 1), has_aux=True)(positions, cell)
    return sites, *slopes, most
