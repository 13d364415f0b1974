"""The seminorm that strains and force errors on a lattice are measured in.

With l over the sites and rho over a stencil of bonds, a lattice function v has

    ||Dv||^2 = sum_l sum_rho |v(l + rho) - v(l)|^2 = v^T K v .

Every bond is counted from both of its ends. On a periodic lattice of m1 x m2 x m3 cells K is
block-circulant: the discrete Fourier transform over the cells leaves one b x b Hermitian block per
wave vector (b atoms per cell; the same block for x, y and z), so that its inverse is exact at the
price of two transforms. Sites are ordered as in `structures.supercell`: the cell runs slowest.

A defect changes K on few sites: vacancies take bonds away, interstitials are extra sites that
bring bonds. To make this one low-rank change of an invertible matrix, all is *grounded*. With z
the constant of norm 1 on the n regular sites of the complete lattice, C the change and E the unit
vectors of the sites it touches,

    G_0 = (K_complete + z z^T) (+) 1 on extra sites,      G = G_0 + E C E^T = K + z z^T + 1 on
                                                              missing sites,
    G^-1 = G_0^-1 - G_0^-1 E (1 + C E^T G_0^-1 E)^-1 C E^T G_0^-1      (Woodbury).

G is positive definite, and where f has zero sum and nothing on missing sites G x = f gives
z^T x = 0, x = 0 on missing sites, and so K x = f.

Source: derived, in the setting of Ortner, Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jax.typing import ArrayLike

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import Structure, supercell
from lprjax.numerics.checks import require_x64
from lprjax.numerics.guarded import root
from lprjax.numerics.host import namespace, on_device, on_host, traced

SAME_LENGTH = 1e-4
"""Å; bonds closer in length than this belong to one shell: a choice."""
NULL = 1e-11
"""Eigenvalues below this share of the largest are zero: a choice, above rounding (1e-16)."""
DIRICHLET_TOLERANCE = 1e-11
"""Of the residual, relative, where sites are held: a choice, above rounding (1e-16)."""
DIRICHLET_STEPS = 500
"""A choice: far more than the few dozen that the preconditioner leaves."""

Numbers = TypeVar("Numbers", jax.Array, np.ndarray)


class NormUnits(NamedTuple):
    """In what a norm and what is measured in it come."""

    norm: str  # of ||Dv||, v in Å
    dual: str  # of ||f||_{-1}, f in eV/Å
    curvature: str  # of v^T H v / ||Dv||^2: stability constants
    change: str  # of D3E[v, v, v] / ||Dv||^3: Lipschitz constants


PLAIN = NormUnits("Å", "eV/Å", "eV/Å^2", "eV/Å^3")
"""Of the norm of the stencil."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceLattice:
    """The sites of a periodic lattice with their stencil, and the exact inverse of its seminorm.

    Build one with `reference_lattice`; change it with `without_sites`, `with_extra_sites` and
    `with_held_sites`. Arrays over the sites hold the regular sites, then the extra ones. Bonds
    that touch a missing site are dropped from the norm and from K; at held sites lattice functions
    vanish, and K is what is left on the others. `solve` follows exactly, so that `negative_norm`
    stays the dual of `strain_norm`. As a preconditioner of `relax` for a crystal:
    jax.tree_util.Partial(ReferenceLattice.solve, lattice).

    Attributes:
        neighbours: (n, S) int32, site at the end of each bond; the site itself on padded slots.
        present: (n,) bool, False at missing sites.
        held: (n,) bool, sites where v = 0; None: none.
        inverse_blocks: (m1, m2, m3 // 2 + 1, b, b) complex, (K_complete + z z^T)^-1 by wave
            vector.
        touched: (t,) int32, the sites on which missing and extra sites change K.
        response: (n, t), G_0^-1 E.
        coupling: (t, t), (1 + C E^T G_0^-1 E)^-1 C.
        repeats: (m1, m2, m3), static.
    """

    neighbours: jax.Array
    present: jax.Array
    held: jax.Array | None
    inverse_blocks: jax.Array
    touched: jax.Array
    response: jax.Array
    coupling: jax.Array
    repeats: tuple[int, int, int] = dataclasses.field(metadata={"static": True})

    @property
    def n_sites(self) -> int:
        """All sites: regular, missing, held and extra."""
        return self.neighbours.shape[0]

    @property
    def n_regular(self) -> int:
        """The sites of the periodic lattice, missing ones included: the first of all."""
        return math.prod(self.repeats) * self.inverse_blocks.shape[-1]

    @functools.cached_property
    def spectrum(self) -> "Spectrum":
        """K(k) of the complete lattice, by its modes; see `Spectrum`."""
        blocks = np.array(self.inverse_blocks)
        zero_mean = np.eye(blocks.shape[-1]) - 1.0 / blocks.shape[-1]
        # The lattice keeps a grounded inverse; at k = 0 K^+ is what is left of it on zero mean.
        blocks[0, 0, 0] = zero_mean @ blocks[0, 0, 0] @ zero_mean
        compliances, modes = np.linalg.eigh(blocks)
        return Spectrum(np.where(compliances > NULL * compliances.max(), compliances, 0.0), modes)

    @property
    def units(self) -> NormUnits:
        """Of the norm, its dual, curvatures and their changes."""
        return PLAIN

    @functools.cached_property
    def vector_spectrum(self) -> "Spectrum":
        """That of displacements: `spectrum` once for each of x, y and z, (..., 3 b)."""
        return over_components(self.spectrum)

    @property
    def complete(self) -> jax.Array:
        """The bonds of the periodic lattice alone, (n_regular, S).

        Those of missing sites are included and those to extra ones are not; the site itself on
        padded slots.
        """
        table = on_host(self.neighbours)[: self.n_regular]
        regular = np.arange(self.n_regular, dtype=table.dtype)[:, None]
        inside = table < self.n_regular
        if traced(table):
            return jnp.where(inside, table, regular)
        return jax.device_put(np.where(inside, table, regular))

    def differences(self, v: jax.Array) -> jax.Array:
        """Dv, (n, S, c), differences v(l + rho) - v(l) of v (n, c); zero on dropped bonds."""
        xp, lattice, v = self._with(v)
        if lattice.held is not None:
            v = xp.where(lattice.held[:, None], 0.0, v)
        kept = lattice.present[:, None] & lattice.present[lattice.neighbours]
        return xp.where(kept[..., None], v[lattice.neighbours] - v[:, None, :], 0.0)

    def strain_by_site(self, v: jax.Array) -> jax.Array:
        """|Dv(l)| = (sum_rho |v(l + rho) - v(l)|^2)^(1/2), (n,), in the unit of v (n, c)."""
        return on_device(root((self.differences(v) ** 2).sum(axis=(1, 2))))

    def strain_norm(self, v: jax.Array) -> jax.Array:
        """||Dv|| = (v^T K v)^(1/2), (), in the unit of v (n, c)."""
        return on_device(root((self.differences(v) ** 2).sum()))

    def apply(self, v: jax.Array) -> jax.Array:
        """K v, (n, c), of v (n, c); zero at missing and at held sites."""
        # The table holds every bond from both ends: half of the sum's gradient is twice one end's.
        xp, lattice, v = self._with(v)
        kv = -2.0 * lattice.differences(v).sum(axis=1)
        if lattice.held is not None:
            kv = xp.where(lattice.held[:, None], 0.0, kv)
        return on_device(kv)

    def solve(self, f: jax.Array) -> jax.Array:
        """K^+ f, (n, c), of f (n, c); zero at missing and at held sites.

        Without held sites the solution has zero mean over the sites that exist. A mean of f, and
        what it holds at missing sites, is outside the range of K and is dropped, as a
        pseudo-inverse does. With held sites K has full rank on the others (Dirichlet conditions):
        conjugate gradients, preconditioned by the inverse without them.
        """
        if self.held is not None:
            self._with(f)  # refuses another shape
            return _held_solve(self, f)
        _, lattice, f = self._with(f)
        return on_device(lattice._in_range(lattice._grounded_inverse(lattice._in_range(f))))

    def negative_norm(self, f: jax.Array) -> jax.Array:
        """||f||_{-1} = (f^T K^+ f)^(1/2) = max_v f^T v / ||Dv||, (), in the unit of f (n, c).

        The maximum is over all v that do not vanish in the norm, for f of zero sum, as forces
        have, and zero at missing sites. With held sites f may have any sum, and what it holds
        there does not count.
        """
        return on_device(root((on_host(f) * on_host(self.solve(f))).sum()))

    def random_force(self, rng: np.random.Generator) -> np.ndarray:
        """Normal random forces of covariance K, (n, 3): K^+ of them is of covariance K^+.

        Divided by its norm that is a direction of which none is preferred by the norm.
        """
        table, n = np.asarray(self.neighbours), self.n_sites
        kept = np.asarray(self.present)[:, None] & np.asarray(self.present)[table]
        noise = np.where(kept[..., None], rng.normal(size=(*table.shape, 3)), 0.0)
        forces = -noise.sum(axis=1)
        np.add.at(forces, table.reshape(-1), noise.reshape(-1, 3))
        free = np.asarray(self.present) & (True if self.held is None else ~np.asarray(self.held))
        return np.where(free[:n, None], forces, 0.0)

    def _with(self, v: jax.Array) -> tuple[Any, "ReferenceLattice", jax.Array]:
        """numpy, or jax.numpy where something is traced; the lattice and v as arrays of that."""
        if v.ndim != 2 or v.shape[0] != self.n_sites:
            raise ValueError(
                f"the lattice function has shape {v.shape}: wanted ({self.n_sites}, 3), one row "
                "per site, missing sites included."
            )
        xp: Any = namespace(self, v)
        lattice, v = (self, v) if xp is jnp else jax.tree.map(np.asarray, (self, v))
        return xp, lattice, v

    def _in_range(self, v: jax.Array) -> jax.Array:
        """v without what is outside the range of K: missing sites, and held ones or the mean."""
        here, xp = self.present[:, None], namespace(self, v)
        if self.held is not None:
            return xp.where(here & ~self.held[:, None], v, 0.0)
        mean = xp.sum(v, axis=0, where=here, keepdims=True) / here.sum()
        return xp.where(here, v - mean, 0.0)

    def _grounded_inverse(self, f: jax.Array) -> jax.Array:
        """G^-1 f."""
        v = _inverse_of_complete(self.inverse_blocks, self.repeats, f, namespace(self, f))
        return v - self.response @ (self.coupling @ v[self.touched])


@jax.jit
def _held_solve(lattice: ReferenceLattice, f: jax.Array) -> jax.Array:
    """K^+ f where sites are held."""
    f = lattice._in_range(f)
    v, _ = cg(
        lattice.apply,
        f,
        tol=DIRICHLET_TOLERANCE,
        maxiter=DIRICHLET_STEPS,
        M=lambda residual: lattice._in_range(lattice._grounded_inverse(residual)),
    )
    return lattice._in_range(v)  # changes nothing here, but restricts what a gradient sends back


class Spectrum(NamedTuple):
    """K^+(k) = modes compliances modes^H at the wave vectors of a real transform.

    K(k) = sum_R K(R) exp(i k . R), as Phi(k) in `phonons`; what belongs to -k is the complex
    conjugate, and `on_all_waves` puts numbers that are equal for both on the whole grid. The same
    for x, y and z.
    """

    compliances: np.ndarray  # (m1, m2, m3 // 2 + 1, b), 0 for the constant
    modes: np.ndarray  # (m1, m2, m3 // 2 + 1, b, b), unitary

    @property
    def stiffnesses(self) -> np.ndarray:
        """The eigenvalues of K(k), 0 for the constant, (m1, m2, m3 // 2 + 1, b)."""
        strained = self.compliances > 0.0
        return np.where(strained, 1.0 / np.where(strained, self.compliances, 1.0), 0.0)

    @property
    def roots(self) -> np.ndarray:
        """T(k) with T T^H = K^+(k), (m1, m2, m3 // 2 + 1, b, b)."""
        return self.modes * np.sqrt(self.compliances)[..., None, :]


def over_components(scalar: Spectrum) -> Spectrum:
    """The spectrum of displacements where x, y and z have the same each.

    Args:
        scalar: with b rows for each wave vector.

    Returns:
        The spectrum with 3 b, components fastest.
    """
    modes = np.einsum("...ij,cd->...icjd", scalar.modes, np.eye(3))
    modes = modes.reshape(*modes.shape[:3], 3 * modes.shape[3], -1)
    return Spectrum(np.repeat(scalar.compliances, 3, axis=-1), modes)


def on_all_waves(half: Numbers, repeats: tuple[int, int, int]) -> Numbers:
    """Numbers by wave vector of a real transform, the same for k and -k, for all wave vectors.

    Args:
        half: (m1, m2, m3 // 2 + 1), in any unit, of NumPy or of JAX.
        repeats: (m1, m2, m3).

    Returns:
        The numbers, (m1, m2, m3), of the same kind.
    """
    index, m = np.indices(repeats), np.array(repeats)[:, None, None, None]
    numbers: Any = half
    return numbers[tuple(np.where(index[2] >= half.shape[2], -index % m, index))]


def _inverse_of_complete(inverse_blocks: Any, repeats: Sequence[int], f: Any, xp: Any) -> Any:
    """G_0^-1 f; xp: jax.numpy, or numpy where a compilation is not worth it."""
    b = inverse_blocks.shape[-1]
    n = math.prod(repeats) * b
    waves = xp.fft.rfftn(f[:n].reshape(*repeats, b, -1), axes=(0, 1, 2))
    waves = xp.einsum("xyzab,xyzbc->xyzac", inverse_blocks, waves)
    regular = xp.fft.irfftn(waves, s=repeats, axes=(0, 1, 2)).reshape(n, -1)
    return xp.concatenate([regular, f[n:]])


def reference_lattice(
    unit_cell: Structure, repeats: Sequence[int], *, radius: float | None = None
) -> ReferenceLattice:
    """The complete periodic lattice of `supercell(unit_cell, repeats)` with its seminorm.

    Args:
        unit_cell: b atoms; any crystal, primitive or conventional, of any periodicity.
        repeats: (m1, m2, m3) cells; 1 along a direction that is not periodic.
        radius: bonds of the stencil are those no longer than this, Å; None: the first two shells
            of distances (8 + 6 bonds in bcc, 12 + 6 in fcc).

    Returns:
        The lattice, without missing, extra or held sites.

    Raises:
        RuntimeError: float64 is off.
        ValueError: as `supercell` for the repeats; a stencil that leaves the lattice in
            unconnected parts, on which ||D.|| is no norm of the strain.
    """
    require_x64()
    n_sites = supercell(unit_cell, repeats).n_atoms
    m1, m2, m3 = (int(m) for m in repeats)
    bonds = _stencil(unit_cell, two_shells(unit_cell) if radius is None else radius)
    arrays = dict(
        neighbours=_bond_table(*bonds, (m1, m2, m3), unit_cell.n_atoms),
        present=np.ones(n_sites, bool),
        held=None,
        inverse_blocks=_inverse_blocks(*bonds, (m1, m2, m3), unit_cell.n_atoms),
        touched=np.zeros(0, np.int32),
        response=np.zeros((n_sites, 0)),
        coupling=np.zeros((0, 0)),
    )
    return ReferenceLattice(**on_device(arrays), repeats=(m1, m2, m3))


def _stencil(unit_cell: Structure, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonds (start, end, cell shift) of one cell."""
    graph = build_graph(unit_cell, radius, skin=SAME_LENGTH)
    start, slot = np.nonzero(np.asarray(graph.edge_mask))
    end = np.asarray(graph.neighbours)[start, slot]
    return start, end, np.asarray(graph.shifts)[start, slot].astype(int)


def two_shells(unit_cell: Structure) -> float:
    """The default radius of the stencil: half-way between the second and the third distance.

    Args:
        unit_cell: any crystal.

    Returns:
        The radius, Å.

    Raises:
        ValueError: a cell that is periodic in no direction.
    """
    periodic = np.asarray(unit_cell.cell)[np.array(unit_cell.pbc)]
    reach = float(np.linalg.norm(periodic, axis=1).min(initial=np.inf))
    if not math.isfinite(reach):
        raise ValueError(
            f"pbc of the unit cell is {unit_cell.pbc}, not periodic in any direction: wanted a "
            "crystal."
        )
    while True:
        graph = build_graph(unit_cell, reach, skin=SAME_LENGTH)
        lengths = np.linalg.norm(np.asarray(graph.vectors()), axis=-1)
        lengths = np.sort(lengths[np.asarray(graph.edge_mask)])
        shells = lengths[np.diff(lengths, prepend=-1.0) > SAME_LENGTH]
        if len(shells) > 2:
            return 0.5 * (shells[1] + shells[2])
        reach *= 1.25


def _bond_table(
    start: np.ndarray, end: np.ndarray, shift: np.ndarray, repeats: tuple[int, int, int], b: int
) -> np.ndarray:
    """The bonds of one cell, repeated over the lattice, as a table."""
    cells = np.indices(repeats).reshape(3, -1)
    targets = np.ravel_multi_index(
        [(cells[k][:, None] + shift[:, k]) % repeats[k] for k in range(3)], repeats
    )
    starts = np.arange(cells.shape[1])[:, None] * b + start
    return _table(starts.reshape(-1), (targets * b + end).reshape(-1), cells.shape[1] * b)


def _table(start: np.ndarray, end: np.ndarray, n: int) -> np.ndarray:
    """(n, S) int32: the site at the end of each bond, the site itself on padded slots."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    counts = np.bincount(start, minlength=n)
    table = np.repeat(np.arange(n, dtype=np.int32)[:, None], counts.max(initial=1), axis=1)
    table[start, np.arange(len(start)) - (np.cumsum(counts) - counts)[start]] = end
    return table


def _inverse_blocks(
    start: np.ndarray, end: np.ndarray, shift: np.ndarray, repeats: tuple[int, int, int], b: int
) -> np.ndarray:
    """(K + z z^T)^-1 by wave vectors of a real transform: K(k) = sum_R K(R) exp(2 pi i k.R)."""
    kernel = np.zeros((*repeats, b, b))
    home = np.zeros_like(start)
    forth, back = (-shift % repeats).T, (shift % repeats).T
    np.add.at(kernel, (home, home, home, start, start), 1.0)
    np.add.at(kernel, (home, home, home, end, end), 1.0)
    np.add.at(kernel, (*forth, start, end), -1.0)
    np.add.at(kernel, (*back, end, start), -1.0)
    values, modes = np.linalg.eigh(np.fft.rfftn(kernel, axes=(0, 1, 2)))
    null = values <= NULL * values.max()
    if null.sum() != 1:
        raise ValueError(
            f"the stencil of {len(start)} bonds per cell leaves the lattice in unconnected parts, "
            f"with {null.sum()} functions without strain: wanted 1, the constant; give a larger "
            "radius."
        )
    values[null] = 1.0  # that of z z^T
    return (modes / values[..., None, :]) @ np.swapaxes(modes, -1, -2).conj()


def without_sites(lattice: ReferenceLattice, sites: Sequence[int] | np.ndarray) -> ReferenceLattice:
    """The lattice with sites missing (besides those missing already), regular or extra ones.

    Args:
        lattice: as it is.
        sites: which to take away.

    Returns:
        The lattice without them.

    Raises:
        ValueError: a site out of range, or named twice, or missing already; sites whose removal
            cuts the lattice into unconnected parts.
    """
    index = np.asarray(sites, dtype=int).reshape(-1)
    present = np.array(lattice.present)
    wrong = [s for s in index.tolist() if not (0 <= s < len(present) and present[s])]
    if wrong or len(set(index.tolist())) < len(index):
        raise ValueError(
            f"sites is {index.tolist()}: wanted different sites that exist, from 0 to "
            f"{len(present) - 1}" + (f"; {wrong} do not." if wrong else ".")
        )
    present[index] = False
    return _changed(lattice, np.asarray(lattice.neighbours), present)


def with_extra_sites(
    lattice: ReferenceLattice, bonds: Sequence[Sequence[int] | np.ndarray]
) -> ReferenceLattice:
    """The lattice with sites more, each bonded to given ones; the new sites come last.

    Args:
        lattice: as it is, with its missing and extra sites; hold sites after this, not before.
        bonds: for each new site the existing sites that it is bonded to. A bond has the weight of
            any other, counted from both ends; a site named twice gets two.

    Returns:
        The lattice with them.

    Raises:
        ValueError: a new site without bonds, or with a bond to a site that does not exist; held
            sites.
    """
    if lattice.held is not None:
        raise ValueError(
            "lattice.held has held sites: wanted none; add the extra sites first, then hold."
        )
    old, present = np.asarray(lattice.neighbours), np.asarray(lattice.present)
    ends_of = [np.asarray(ends, dtype=int).reshape(-1) for ends in bonds]
    for ends in ends_of:
        good = (ends >= 0) & (ends < len(old))
        if not len(ends) or not good.all() or not present[ends].all():
            raise ValueError(
                f"an extra site is bonded to sites {ends.tolist()}: wanted at least one, each a "
                f"site that exists, from 0 to {len(old) - 1}."
            )
    ends = np.concatenate([*ends_of, np.zeros(0, int)])
    new = np.repeat(len(old) + np.arange(len(ends_of)), [len(ends) for ends in ends_of])
    start, slot = np.nonzero(old != np.arange(len(old))[:, None])
    neighbours = _table(
        np.concatenate([start, new, ends]),
        np.concatenate([old[start, slot], ends, new]),
        len(old) + len(ends_of),
    )
    return _changed(lattice, neighbours, np.append(present, np.ones(len(ends_of), bool)))


def with_held_sites(
    lattice: ReferenceLattice, held: ArrayLike | Sequence[bool]
) -> ReferenceLattice:
    """The lattice with sites at which every lattice function vanishes: a clamped domain.

    Args:
        lattice: as it is.
        held: (n_sites,) bool, in place of what was held before.

    Returns:
        The lattice with them.

    Raises:
        ValueError: another shape; no site held or, of those that exist, none left.
    """
    mask = np.asarray(held)
    if mask.shape != (lattice.n_sites,) or mask.dtype != bool:
        raise ValueError(
            f"held is {mask.dtype} of shape {mask.shape}: wanted bool, ({lattice.n_sites},)."
        )
    present = np.asarray(lattice.present)
    if not (mask & present).any() or not (~mask & present).any():
        raise ValueError(
            f"held has {int((mask & present).sum())} of {int(present.sum())} sites: wanted some, "
            "and not all."
        )
    return dataclasses.replace(lattice, held=jax.device_put(mask))


def _changed(
    lattice: ReferenceLattice, neighbours: np.ndarray, present: np.ndarray
) -> ReferenceLattice:
    """The lattice with these bonds and sites instead, and the change C of its grounded matrix."""
    if type(lattice) is not ReferenceLattice:
        raise ValueError(
            f"lattice is an {type(lattice).__name__}: wanted a ReferenceLattice; change its sites "
            "first, then its norm."
        )
    n, regular = len(neighbours), lattice.n_regular
    start, end = np.repeat(np.arange(n), neighbours.shape[1]), neighbours.reshape(-1)
    complete = (start < regular) & (end < regular)
    weight = (present[start] & present[end]).astype(float) - complete
    ground = (~present).astype(float) - (np.arange(n) >= regular)
    start, end, weight = (array[weight != 0.0] for array in (start, end, weight))
    touched = np.union1d(np.flatnonzero(ground), start)
    row, column = np.searchsorted(touched, start), np.searchsorted(touched, end)
    change = np.diag(ground[touched])
    for i, j, sign in ((row, row, 1), (column, column, 1), (row, column, -1), (column, row, -1)):
        np.add.at(change, (i, j), sign * weight)
    unit = np.zeros((n, len(touched)))
    unit[touched, np.arange(len(touched))] = 1.0
    response = _inverse_of_complete(np.asarray(lattice.inverse_blocks), lattice.repeats, unit, np)
    mixed = np.eye(len(touched)) + change @ response[touched]
    if np.linalg.svd(mixed, compute_uv=False).min(initial=1.0) < math.sqrt(NULL):
        missing = np.flatnonzero(~present).tolist()
        raise ValueError(
            f"the missing sites are {missing}, without which the lattice falls into parts: wanted "
            "a connected lattice; remove fewer sites."
        )
    changed = dataclasses.replace(
        lattice,
        neighbours=neighbours,
        present=present,
        touched=touched.astype(np.int32),
        response=response,
        coupling=np.linalg.solve(mixed, change),
    )
    return on_device(changed)
