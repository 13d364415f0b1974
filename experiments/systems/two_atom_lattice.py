"""A honeycomb lattice of polynomial bonds round a defect: two atoms per cell, none at a centre.

The energy is that of `bond_lattice`, with four shells of bonds: between the sublattices, within
them, and twice between. The lattice constant is 1, the box periodic, of m x m cells. The defect is
one bond of the shortest under tension, whose dipole is not isotropic: in an isotropic solid, as
this one is, a dilatation centre leaves no force whatever the elastic constants are. The seminorm
K is over the first two shells.

Fields are (n, 2), n = 2 m^2 sites, the sublattice running fastest.
Derived, in the setting of Ortner and Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.systems.bond_lattice import CHANGE, DEFECT, FOURTH, LATTICE, THIRD
from lprjax.numerics.host import on_device

CELL = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
OFFSETS = np.array([[0.0, 0.0], [0.0, np.sqrt(1.0 / 3.0)]])  # of the two atoms
REACH = 1.6  # lattice constants, beyond the fourth shell
SECOND = (1.0, 0.5, 0.3, 0.1)  # the reference's a_2 by shell, which set the unit of energy
NEWTON_STEPS = 20  # far more than the five or six that are needed
TENSION, STIFFER = 2.0, 8.0  # -a_1 and a_2 of the defect's bond, in units of the shortest's a_2


def _star() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the bonds of both sublattices, shell by shell: vectors (2, S, 2), cell shifts (2, S, 2),
    end's sublattice (2, S), shells (S,)."""
    cells = np.array([(i, j) for i in range(-3, 4) for j in range(-3, 4)])
    found = []
    for start in range(2):
        vectors = cells[:, None] @ CELL + OFFSETS[None] - OFFSETS[start]  # (cells, 2, 2)
        lengths = np.linalg.norm(vectors, axis=-1)
        cell, end = np.nonzero((lengths > 1e-9) & (lengths < REACH))
        order = np.lexsort((end, cell, np.round(lengths[cell, end], 9)))
        cell, end = cell[order], end[order]
        found.append((vectors[cell, end], cells[cell], end, lengths[cell, end]))
    vectors, shifts, ends, lengths = (np.stack(each) for each in zip(*found, strict=True))
    shells = np.cumsum(np.diff(lengths[0], prepend=0.0) > 1e-6) - 1
    return vectors, shifts, ends, shells


VECTORS, SHIFTS, ENDS, SHELLS = _star()
UPWARDS = int(np.argmax(VECTORS[0, :3, 1]))  # the slot of the defect's bond at the first site


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("coefficients", "outside", "table"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Model:
    """Bonds and where they act."""

    coefficients: jax.Array  # (3, shells, 4), a_1 to a_4 by group
    outside: jax.Array  # (n,) chi
    table: jax.Array  # (n, S) the site at the end of each bond

    def only(self, *groups: int) -> "Model":
        """The model without the other groups, each one of LATTICE, CHANGE, DEFECT."""
        kept = np.isin(np.arange(3), groups)
        return dataclasses.replace(self, coefficients=self.coefficients * kept[:, None, None])

    def gradient(self, u: jax.Array) -> jax.Array:
        """dE/du, (n, 2)."""
        return jax.grad(lambda v: energy(self, v)[0])(u)


def energy(model: Model, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energy of the whole box, and what rounding may add to it: terms may cancel.

    Args:
        model: bonds and where they act.
        u: (n, 2) displacement.

    Returns:
        two scalars.
    """
    stretch = u[model.table] - u[:, None]
    rho = jnp.asarray(VECTORS)[jnp.arange(len(u)) % 2]
    s = jnp.sum(rho * stretch + 0.5 * stretch**2, axis=-1)

    def half_bonds(group, s, shells):
        a = model.coefficients[group].T[:, shells]
        a1, a2, a3, a4 = (jnp.broadcast_to(each, s.shape) for each in a)
        return 0.5 * s * (a1 + s * (a2 / 2 + s * (a3 / 6 + s * a4 / 24)))

    terms = half_bonds(LATTICE, s, SHELLS)
    terms += model.outside[:, None] * half_bonds(CHANGE, s, SHELLS)
    terms = terms.at[0, UPWARDS].add(half_bonds(DEFECT, s[0, UPWARDS], 0))
    return jnp.sum(terms), 10 * jnp.finfo(u.dtype).eps * jnp.sum(jnp.abs(terms))


def strain_squares(u: jax.Array, table: jax.Array) -> jax.Array:
    """|Du(l)|^2, (n,), over the first two shells, each bond counted from both of its ends."""
    near = np.flatnonzero(SHELLS < 2)
    return jnp.sum((u[table[:, near]] - u[:, None]) ** 2, axis=(1, 2))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("inverse", "seminorm_inverse", "table"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Transform:
    """The inverses of the homogeneous Hessian and of K, one block per wave vector."""

    inverse: jax.Array  # (m, m, 4, 4) Phi(k)^+
    seminorm_inverse: jax.Array  # (m, m, 4, 4) K(k)^+
    table: jax.Array

    def _applied(self, blocks: jax.Array, f: jax.Array) -> jax.Array:
        m = len(blocks)
        waves = jnp.fft.fft2(f.reshape(m, m, 4), axes=(0, 1))
        waves = jnp.einsum("xyab,xyb->xya", blocks, waves)
        return jnp.fft.ifft2(waves, axes=(0, 1)).real.reshape(f.shape)

    def solve(self, f: jax.Array) -> jax.Array:
        """Phi^+ f, (n, 2), of f (n, 2)."""
        return self._applied(self.inverse, f)

    def negative_norm(self, f: jax.Array) -> jax.Array:
        """(f^T K^+ f)^(1/2) of f (n, 2)."""
        return jnp.sqrt(jnp.vdot(f, self._applied(self.seminorm_inverse, f)))

    def strain_norm(self, v: jax.Array) -> jax.Array:
        """||Dv|| of v (n, 2)."""
        return jnp.sqrt(jnp.sum(strain_squares(v, self.table)))


def table_of(m: int) -> np.ndarray:
    """The site at the end of each bond, (n, S), in a box of m x m cells."""
    cells = np.indices((m, m)).reshape(2, -1).T
    ends = (cells[:, None, None] + SHIFTS[None]) % m  # (m^2, 2, S, 2)
    return ((ends[..., 0] * m + ends[..., 1]) * 2 + ENDS[None]).reshape(2 * m * m, -1)


def distances(m: int) -> np.ndarray:
    """From the middle of the defect's bond by the nearest image, (n,), lattice constants."""
    cells = np.indices((m, m)).reshape(2, -1).T
    sites = (cells @ CELL)[:, None] + OFFSETS - OFFSETS.mean(axis=0)
    images = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]) * m @ CELL
    return np.linalg.norm(sites[..., None, :] + images, axis=-1).min(axis=-1).reshape(-1)


def reference(m: int) -> Model:
    """The lattice with its defect, and no change, in a box of m x m cells."""
    second, nothing = np.array(SECOND), np.zeros(len(SECOND))
    lattice = np.stack([nothing, second, THIRD * second, FOURTH * second], axis=1)
    defect = np.zeros_like(lattice)
    defect[0, :2] = -TENSION, STIFFER
    coefficients = np.stack([lattice, 0.0 * lattice, defect])
    return on_device(Model(coefficients, np.zeros(2 * m * m), table_of(m)))


def blocks(second: np.ndarray, m: int) -> np.ndarray:
    """Phi(k) of the homogeneous lattice, (m, m, 4, 4), at the wave vectors of `numpy.fft.fft2`.

        Phi(k) v = sum over both ends of the bonds of a_2 rho rho . (v(l + rho) - v(l)) / 2

    Args:
        second: (shells,) a_2; or (shells, 2, 2), in place of a_2 rho rho^T.
        m: cells per side.

    Returns:
        the blocks, Hermitian.
    """
    phase = 2j * np.pi * np.indices((m, m)) / m
    found = np.zeros((m, m, 2, 2, 2, 2), complex)  # wave, start, component, end, component
    for start in range(2):
        for rho, shift, end, shell in zip(
            VECTORS[start], SHIFTS[start], ENDS[start], SHELLS, strict=True
        ):
            a = second[shell]
            stiffness = a if np.ndim(a) else a * np.outer(rho, rho)
            wave = np.exp(np.tensordot(shift, phase, axes=1))[..., None, None]
            found[:, :, start, :, start, :] += stiffness
            found[:, :, start, :, end, :] -= stiffness * wave
    return found.reshape(m, m, 4, 4)


def seminorm_blocks(m: int) -> np.ndarray:
    """K(k), (m, m, 4, 4): every bond of two shells from both of its ends."""
    near = np.array([1.0, 1.0, 0.0, 0.0])
    return blocks(2.0 * near[:, None, None] * np.eye(2), m)


def transform(m: int) -> Transform:
    """The exact inverses for the reference's lattice."""
    phi, k = blocks(np.array(SECOND), m), seminorm_blocks(m)
    inverses = (np.linalg.pinv(b, rcond=1e-12, hermitian=True) for b in (phi, k))
    return Transform(*map(jnp.asarray, inverses), jnp.asarray(table_of(m)))


def stability_of(model: Model) -> float:
    """The smaller c of the lattice with and without the change, K's being the unit."""
    second, k = np.asarray(model.coefficients[..., 1]), seminorm_blocks(16)
    values, modes = np.linalg.eigh(k)
    root = (
        modes * np.where(values > 1e-9, 1.0 / np.sqrt(np.maximum(values, 1e-9)), 0.0)[..., None, :]
    )
    found = []
    for of_shell in (second[LATTICE], second[LATTICE] + second[CHANGE]):
        reduced = np.swapaxes(root, -1, -2).conj() @ blocks(of_shell, 16) @ root
        found.append(np.linalg.eigvalsh(reduced[values.min(axis=-1) > 1e-9]).min())
    return float(min(found))


def moduli(second: np.ndarray) -> np.ndarray:
    """Bulk modulus, shear modulus and internal strain of the lattice, per cell.

    Args:
        second: (shells,) a_2.

    Returns:
        (3,): second derivatives of the relaxed energy in xx = yy = 1 / sqrt 2 and in
        xx = -yy = 1 / sqrt 2, and the shift along y of the sublattices in the latter.
    """
    isotropic, shear = np.diag([1.0, 1.0]) / np.sqrt(2), np.diag([1.0, -1.0]) / np.sqrt(2)
    hessian = np.zeros((3, 3))
    for start in range(2):
        for rho, end, shell in zip(VECTORS[start], ENDS[start], SHELLS, strict=True):
            slopes = np.array([rho @ isotropic @ rho, rho @ shear @ rho, rho[1] * (end - start)])
            hessian += 0.5 * second[shell] * np.outer(slopes, slopes)
    shift = -hessian[2, 1] / hessian[2, 2]
    return np.array([hessian[0, 0], hessian[1, 1] + shift * hessian[2, 1], shift])


def change(kind: str, strength: float) -> np.ndarray:
    """What the surrogate adds to a_2 outside, so that one kind of moduli is off.

    Args:
        kind: "elastic": both moduli off by the strength, internal strain kept; "internal_strain":
            off by the strength, both moduli kept; "force_constants": all three kept, from a start
            with a last shell that is off by twice the strength.
        strength: relative.

    Returns:
        (shells, 4), a_1 to a_4.
    """
    second = np.array(SECOND)
    factors = {
        "elastic": (1 + strength, 1 + strength, 1.0),
        "internal_strain": (1.0, 1.0, 1 + strength),
        "force_constants": (1.0, 1.0, 1.0),
    }[kind]
    wanted, there = moduli(second) * factors, second.copy()
    if kind == "force_constants":
        there[-1] *= 1 + 2 * strength
    for _ in range(NEWTON_STEPS):  # of least norm, relative: three equations for four a_2
        step = jacobian(there) * second
        there += second * (np.linalg.pinv(step) @ (wanted - moduli(there)))
    found = np.zeros((len(second), 4))
    found[:, 1] = there - second
    return found


def jacobian(second: np.ndarray) -> np.ndarray:
    """Of `moduli`, (3, shells), by central differences."""
    steps = 1e-6 * np.eye(len(second))
    return np.stack([(moduli(second + h) - moduli(second - h)) / 2e-6 for h in steps], axis=1)
