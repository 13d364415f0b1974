"""The norm that a crystal's own force constants make: what a strain costs in energy.

In place of K, the plain sum over bonds of `strain_norm`, the bulk's Phi of one potential:

    |v|^2 = v^T S v in eV,    S = Phi on a complete lattice; in eV^1/2 the norm, and its dual.

It is twice the harmonic energy of v, so that the stability constant of a defect is near 1 where its
surroundings are those of the crystal, stiff or soft as they are: what is left in it is the defect.

*Missing sites*: a displacement of the sites that exist is carried to the missing ones at the least
energy, |v|^2 = min over v there of v^T Phi v, so that S is the Schur complement of Phi. It is a
norm, as Phi is; and of forces, which are zero there, the dual is the crystal's own,

    ||f||^2 = f^T Phi^+ f,

one transform, with nothing to correct (of a minimum over v the dual is the restriction). *Extra
sites* are bound to the mean A v of the sites that they have bonds to, by the spring k that holds an
atom of the crystal while all others rest:

    |v|^2 = (regular sites) + k sum_e |v_e - (A v)_e|^2,    k = tr Phi(R = 0) / (3 b) .

With y = v_e - A v the two parts separate, and forces on extra sites act on the others through A^T.
*Held sites*: v = 0 there, and conjugate gradients. *Lattices in a plane*: out of it, where bonds
under tension may not hold, stands K times k / K(R = 0).

Source: derived.
"""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.structures import flat_axes
from lprjax.crystals.phonons import ForceConstants
from lprjax.crystals.strain_norm import (
    NULL,
    NormUnits,
    ReferenceLattice,
    Spectrum,
    over_components,
)
from lprjax.numerics.guarded import root
from lprjax.numerics.host import namespace, on_device, on_host

_CELLS = (0, 1, 2)  # axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class EnergyLattice(ReferenceLattice):
    """A reference lattice in the norm of force constants; made by `energy_lattice`.

    `strain_norm`, `negative_norm`, `apply` and `solve` are those of S; `differences` and
    `strain_by_site` stay those of bonds, in Å, and `spectrum` that of K.

    Attributes:
        stiffness: (m1, m2, m3 // 2 + 1, 3 b, 3 b) complex eV/Å^2, Phi by wave vector.
        compliance: the same of Phi^+, with translations held by the spring.
        missing: (m,) int32, the regular sites without an atom.
        block: (3 m, 3 m) eV/Å^2, Phi among them.
        averages: (e, n_regular), A.
        spring: (), eV/Å^2, k.
    """

    stiffness: jax.Array
    compliance: jax.Array
    missing: jax.Array
    block: jax.Array
    averages: jax.Array
    spring: jax.Array

    @property
    def units(self) -> NormUnits:
        """Of the norm, its dual, curvatures and their changes."""
        return NormUnits("eV^1/2", "eV^1/2", "1", "eV^-1/2")

    @functools.cached_property
    def vector_spectrum(self) -> Spectrum:
        """Phi^+(k) of the complete lattice, by its modes, (..., 3 b)."""
        stiffnesses, modes = np.linalg.eigh(np.asarray(self.stiffness))
        firm = stiffnesses > NULL * stiffnesses.max()
        compliances = np.where(firm, 1.0 / np.where(firm, stiffnesses, 1.0), 0.0)
        order = np.argsort(compliances, axis=-1, kind="stable")
        return Spectrum(
            np.take_along_axis(compliances, order, -1),
            np.take_along_axis(modes, order[..., None, :], -1),
        )

    @functools.cached_property
    def least_stiffness(self) -> float:
        """c_L, eV/Å^2: the largest for which v^T Phi v >= c_L ||Dv||^2 on the complete lattice."""
        spectrum = over_components(self.spectrum)
        half = spectrum.modes * np.sqrt(spectrum.stiffnesses)[..., None, :]
        ours = self.vector_spectrum.roots
        return 1.0 / float(np.linalg.norm(_adjoint(half) @ ours, ord=2, axis=(-2, -1)).max()) ** 2

    def strain_norm(self, v: jax.Array) -> jax.Array:
        """(v^T S v)^(1/2), (), eV^1/2, of v (n, 3) Å."""
        return on_device(root((on_host(v) * on_host(self.apply(v))).sum()))

    def apply(self, v: jax.Array) -> jax.Array:
        """S v, (n, 3) eV/Å, of v (n, 3) Å; zero at missing and at held sites."""
        xp, lattice, v = self._with(v)
        v = lattice._where_free(v, xp)
        n = lattice.n_regular
        regular, extra = v[:n], v[n:]
        stretched = lattice.present[n:, None] * (extra - lattice.averages @ regular)
        pull = lattice.spring * stretched
        forces = lattice._bulk(lattice.stiffness, lattice._filled(regular, xp), xp)
        forces = forces - lattice.averages.T @ pull
        return on_device(lattice._where_free(xp.concatenate([forces, pull]), xp))

    def on_complete(self, forces: ArrayLike) -> jax.Array:
        """Forces of the complete lattice as forces on the sites that exist, of the same work.

        Those on missing sites are handed on as the crystal would at rest there. In this norm that
        makes no force larger.

        Args:
            forces: (n_regular, 3) eV/Å.

        Returns:
            The forces, (n_sites, 3) eV/Å, zero on missing and on extra sites.
        """
        xp = namespace(self, forces)
        lattice = self if xp is jnp else jax.tree.map(np.asarray, self)
        f = on_host(forces)
        at_rest = lattice._at_missing(f[lattice.missing], xp)
        f = xp.where(
            lattice.present[: lattice.n_regular, None],
            f - lattice._bulk(lattice.stiffness, at_rest, xp),
            0.0,
        )
        extra = xp.zeros((lattice.n_sites - lattice.n_regular, 3))
        return on_device(xp.concatenate([f, extra]))

    def random_force(self, rng: np.random.Generator) -> np.ndarray:
        """Normal random forces of covariance S on the complete lattice with its extra sites."""
        lattice = jax.tree.map(np.asarray, self)
        stiffnesses, modes = np.linalg.eigh(lattice.stiffness)
        half = (modes * np.sqrt(np.maximum(stiffnesses, 0.0))[..., None, :]) @ _adjoint(modes)
        n, extra = self.n_regular, self.n_sites - self.n_regular
        forces = np.asarray(self.on_complete(self._bulk(half, rng.normal(size=(n, 3)), np)))
        pull = np.sqrt(lattice.spring) * lattice.present[n:, None] * rng.normal(size=(extra, 3))
        forces = forces + np.concatenate([-lattice.averages.T @ pull, pull])
        return np.asarray(lattice._where_free(forces, np))

    def _with(self, v: jax.Array) -> tuple[Any, "EnergyLattice", jax.Array]:
        if v.ndim == 2 and v.shape[1] != 3:
            raise ValueError(
                f"the lattice function has shape {v.shape}: wanted three components, which force "
                "constants couple."
            )
        xp, lattice, v = super()._with(v)
        return xp, cast("EnergyLattice", lattice), v

    def _where_free(self, v: Any, xp: Any) -> Any:
        kept = self.present if self.held is None else self.present & ~self.held
        return xp.where(kept[:, None], v, 0.0)

    def _bulk(self, blocks: Any, v: Any, xp: Any) -> Any:
        """A block-circulant product, (n_regular, 3)."""
        waves = xp.fft.rfftn(v.reshape(*self.repeats, -1), axes=_CELLS)
        waves = xp.einsum("xyzab,xyzb->xyza", blocks, waves)
        return xp.fft.irfftn(waves, s=self.repeats, axes=_CELLS).reshape(-1, 3)

    def _at_missing(self, forces: Any, xp: Any) -> Any:
        """Moves (n_regular, 3) of the missing sites alone that bring given forces (m, 3) there."""
        if not len(self.missing):
            return xp.zeros((self.n_regular, 3))
        moves = xp.linalg.solve(self.block, forces.reshape(-1)).reshape(-1, 3)
        return self._one_hot(xp).astype(moves.dtype) @ moves

    def _one_hot(self, xp: Any) -> Any:
        return xp.arange(self.n_regular)[:, None] == self.missing[None]

    def _filled(self, regular: Any, xp: Any) -> Any:
        """v, zero on missing sites, carried to them at the least energy."""
        if not len(self.missing):
            return regular
        pull = self._bulk(self.stiffness, regular, xp)[self.missing]
        return regular - self._at_missing(pull, xp)

    def _grounded_inverse(self, f: jax.Array) -> jax.Array:
        xp, n = namespace(self, f), self.n_regular
        pull = self.present[n:, None] * f[n:]
        moves = self._bulk(self.compliance, f[:n] + self.averages.T @ pull, xp)
        return xp.concatenate([moves, pull / self.spring + self.averages @ moves])


def energy_lattice(lattice: ReferenceLattice, constants: ForceConstants) -> EnergyLattice:
    """A reference lattice in the norm of a crystal's force constants.

        |v|^2 = v^T Phi v,    ||f||^2 = f^T Phi^+ f

    Args:
        lattice: with its missing, extra and held sites.
        constants: Phi of the homogeneous lattice, on the same cells.

    Returns:
        The lattice; the head of this file says what missing, extra and held sites make of the norm.

    Raises:
        ValueError: force constants of other cells; of a crystal that is not stable, whose Phi is no
            norm; an extra site with bonds to extra sites alone.
    """
    b = lattice.inverse_blocks.shape[-1]
    here, there = (*constants.repeats, constants.blocks.shape[3]), (*lattice.repeats, b)
    if here != there:
        raise ValueError(
            f"(m1, m2, m3, atoms per cell) of the force constants is {here}: wanted {there}, those "
            "of the lattice; make them with the defect's unit cell and repeats."
        )
    flat = flat_axes(constants.unit_cell)
    on_site = np.einsum("aiai->i", np.asarray(constants.blocks)[0, 0, 0]) / b
    spring = float(on_site[~flat].mean())
    stiffness = _with_plain(np.asarray(constants.half_fourier()), lattice, flat, spring)
    values, modes = np.linalg.eigh(stiffness)
    null = values <= NULL * values.max()
    if null.sum() != 3 or not null[0, 0, 0].sum() == 3 or values[~null].min(initial=0.0) < 0:
        raise ValueError(
            f"the crystal's force constants have {int(null.sum())} eigenvalues at or below zero, "
            f"the least {values.min():.3g} eV/Å^2: wanted a stable crystal, with three, its "
            "translations; relax its lattice constant, or take another potential."
        )
    compliance = (modes / np.where(null, spring, values)[..., None, :]) @ _adjoint(modes)
    made = {f.name: getattr(lattice, f.name) for f in dataclasses.fields(ReferenceLattice)}
    missing = np.flatnonzero(~np.asarray(lattice.present)[: lattice.n_regular])
    new = dict(
        stiffness=stiffness,
        compliance=compliance,
        missing=missing.astype(np.int32),
        block=_among(missing, stiffness, lattice.repeats, b),
        averages=_averages(lattice),
        spring=np.array(spring),
    )
    return EnergyLattice(**made, **on_device(new))


def _with_plain(
    stiffness: np.ndarray, lattice: ReferenceLattice, flat: np.ndarray, spring: float
) -> np.ndarray:
    """Phi(k), symmetric to the last digit, with K in place of it along flat axes."""
    blocks = 0.5 * (stiffness + _adjoint(stiffness))
    if not flat.any():
        return blocks
    spectrum, b = lattice.spectrum, lattice.inverse_blocks.shape[-1]
    plain = (spectrum.modes * spectrum.stiffnesses[..., None, :]) @ _adjoint(spectrum.modes)
    on_site = np.einsum("...aa->...", np.fft.irfftn(plain, s=lattice.repeats, axes=_CELLS)[0, 0, 0])
    split = blocks.reshape(*blocks.shape[:3], b, 3, b, 3).copy()
    split[..., flat, :, :] = 0.0
    split[..., :, :, flat] = 0.0
    for axis in np.flatnonzero(flat):
        split[..., axis, :, axis] += plain * spring * b / on_site
    return split.reshape(blocks.shape)


def _among(
    sites: np.ndarray, stiffness: np.ndarray, repeats: tuple[int, int, int], b: int
) -> np.ndarray:
    """Phi between given sites, (3 m, 3 m)."""
    kernel = np.fft.irfftn(stiffness.conj(), s=repeats, axes=_CELLS)  # Phi(R; a, b), R from a to b
    kernel = kernel.reshape(*repeats, b, 3, b, 3)
    *cells, atom = np.unravel_index(sites, (*repeats, b))
    apart = [(c[None] - c[:, None]) % m for c, m in zip(cells, repeats, strict=True)]
    found = kernel[(*apart, atom[:, None], slice(None), atom[None], slice(None))]
    return np.moveaxis(found, 2, 1).reshape(3 * len(sites), 3 * len(sites))


def _averages(lattice: ReferenceLattice) -> np.ndarray:
    n, present = lattice.n_regular, np.asarray(lattice.present)
    found = np.zeros((lattice.n_sites - n, n))
    for row, (site, ends) in enumerate(enumerate(np.asarray(lattice.neighbours)[n:], start=n)):
        ends = ends[(ends < n) & present[ends]]
        if present[site] and not len(ends):
            raise ValueError(
                f"extra site {site} has no bond to a regular site: wanted one at least, which "
                "binds it to the crystal."
            )
        np.add.at(found[row], ends, 1.0 / max(len(ends), 1))
    return found


def _adjoint(blocks: np.ndarray) -> np.ndarray:
    return np.swapaxes(blocks, -1, -2).conj()
