"""Atomic structures: one pytree, the crystals the experiments start from, and conversion to ASE.

Units: Å, eV. Rows of `cell` are the lattice vectors, so a lattice shift `s` moves an atom by
`s @ cell`. Two-dimensional lattices lie in the plane z = 0 with `pbc = (True, True, False)`; their
third cell vector only has to be non-zero.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import complete_cell, find_mic, minkowski_reduce
from jax.typing import ArrayLike

from lprjax.atoms.voigt import six_components
from lprjax.numerics.checks import finite_array, require_x64
from lprjax.numerics.host import on_device, on_host, traced

Pbc = tuple[bool, bool, bool]
FLAT = 1e-9
"""Å; a structure thinner than this lies in a plane: a choice, below any bond, above rounding."""
FLATTEST = 1e-8
"""Least volume of a cell over the product of its edges: a choice, well above rounding (1e-16)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in a cell; build one with `make_structure`, which validates.

    Attributes:
        positions: (n, 3) float64, Å.
        cell: (3, 3) float64, Å, rows are lattice vectors.
        species: (n,) int32 atomic numbers.
        pbc: three bools, periodic along each lattice vector; static under `jit`.
    """

    positions: jax.Array
    cell: jax.Array
    species: jax.Array
    pbc: Pbc = dataclasses.field(default=(True, True, True), metadata={"static": True})

    @property
    def n_atoms(self) -> int:
        """Number of atoms, n."""
        return self.positions.shape[0]

    @property
    def volume(self) -> jax.Array:
        """|det cell|, (), Å^3 (of no physical meaning along a direction that is not periodic)."""
        if traced(self.cell):
            return jnp.abs(jnp.linalg.det(self.cell))
        return jax.device_put(np.abs(np.linalg.det(np.asarray(self.cell))))


class Labels(NamedTuple):
    """Results of a reference calculation (or a potential) for a structure; None where absent.

    Attributes:
        energy: eV, of the whole cell.
        forces: (n, 3) eV/Å.
        virial: (3, 3) eV, W = -dE/d(strain) = -V * stress with stress positive in tension.
        force_constants: (n_a, 3, n, 3) eV/Å^2, d2E/dR_a dR_j for the rows a that were asked for.
    """

    energy: Any = None
    forces: Any = None
    virial: Any = None
    force_constants: Any = None


def label_shapes(n: int | None, displaced: int | None = None) -> dict[str, tuple[tuple, str]]:
    """The shape and unit of every label of n atoms: the one list of what `Labels` holds.

    Args:
        n: atoms; None: any number.
        displaced: n_a, atoms displaced for the force constants; None: any number.
    """
    return {
        "energy": ((), "eV"),
        "forces": ((n, 3), "eV/Å"),
        "virial": ((3, 3), "eV"),
        "force_constants": ((displaced, 3, n, 3), "eV/Å^2"),
    }


def _atomic_number(entry: Any) -> int:
    if isinstance(entry, str):
        number = atomic_numbers.get(entry, 0)
    elif isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
        number = int(entry)
    else:
        number = 0
    if not 1 <= number < len(chemical_symbols):
        raise ValueError(
            f"species is {entry!r}: wanted a chemical symbol ('H' ... 'Og') or an atomic number "
            "from 1 to 118; give one per atom, or a single one for all atoms."
        )
    return number


def _species_array(species: Any, n: int) -> np.ndarray:
    if np.ndim(species) == 0:
        species = [species] * n
    entries = np.asarray(species).tolist() if hasattr(species, "dtype") else list(species)
    if len(entries) != n:
        raise ValueError(
            f"species has length {len(entries)}: wanted {n}, one per row of positions; give as "
            "many, or a single symbol for all."
        )
    return np.array([_atomic_number(entry) for entry in entries], dtype=np.int32)


def check_geometry(
    positions: ArrayLike | Sequence[Any], cell: ArrayLike | Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell as float64 numpy arrays, after checking that they describe a crystal.

    Args:
        positions: (n, 3) Å, n >= 1.
        cell: (3, 3) Å.

    Returns:
        The positions (n, 3) and the cell (3, 3), Å.

    Raises:
        ValueError: wrong shapes, no atoms, NaN or infinite entries, or a cell whose volume is
            below 1e-8 of the product of its edge lengths (or that has an edge of length zero).
    """
    positions = finite_array("positions", positions, (None, 3), "Å")
    cell = finite_array("cell", cell, (3, 3), "Å")
    if len(positions) == 0:
        raise ValueError("positions has shape (0, 3): wanted at least one atom.")
    edges = np.linalg.norm(cell, axis=1)
    if abs(np.linalg.det(cell)) <= FLATTEST * np.prod(edges):
        raise ValueError(
            f"cell is {cell.tolist()}, which is singular: wanted three linearly independent "
            "lattice vectors in Å as rows; for a direction that is not periodic give any vector "
            "out of the plane of the others and set its pbc to False."
        )
    return positions, cell


def make_structure(
    positions: ArrayLike | Sequence[Any],
    cell: ArrayLike | Sequence[Any],
    species: str | ArrayLike | Sequence[str | int],
    pbc: bool | Sequence[bool] | np.ndarray = (True, True, True),
) -> Structure:
    """A validated `Structure`.

    Args:
        positions: (n, 3) Å, Cartesian; they need not lie inside the cell.
        cell: (3, 3) Å, rows are lattice vectors.
        species: symbols or atomic numbers, one per atom, or a single one for all atoms.
        pbc: one bool or three, periodic along each lattice vector.

    Returns:
        The structure.

    Raises:
        RuntimeError: without float64.
        ValueError: wrong shapes, entries that are not finite, a singular cell or an unknown
            species.
    """
    require_x64()
    positions, cell = check_geometry(positions, cell)
    flags = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)) if np.size(pbc) in (1, 3) else None
    if flags is None:
        raise ValueError(f"pbc is {pbc!r}: wanted one bool or three, one per cell vector.")
    return Structure(  # `jnp.asarray` would compile a copy for every number of atoms
        positions=jax.device_put(positions.copy()),
        cell=jax.device_put(cell.copy()),
        species=jax.device_put(_species_array(species, len(positions))),
        pbc=cast(Pbc, tuple(bool(flag) for flag in flags)),
    )


_CUBE = np.eye(3)
_FCC_PRIMITIVE = 0.5 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
_FCC_SITES = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
_BCC_PRIMITIVE = 0.5 * np.array([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])
_BCC_SITES = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
_ORIGIN = np.zeros((1, 3))


def _crystal(
    element: str | int,
    a: float,
    cell: np.ndarray,
    sites: np.ndarray,
    pbc: bool | Sequence[bool] = True,
) -> Structure:
    """Cell and Cartesian sites in units of a."""
    if not (np.ndim(a) == 0 and math.isfinite(a) and a > 0):
        raise ValueError(f"lattice constant a is {a!r}: wanted a positive length in Å.")
    return make_structure(float(a) * sites, float(a) * cell, element, pbc)


def bcc(element: str | int, a: float, *, primitive: bool = False) -> Structure:
    """Body-centred cubic: 2 atoms in the cube of edge a (Å), or 1 in the primitive cell."""
    cell, sites = (_BCC_PRIMITIVE, _ORIGIN) if primitive else (_CUBE, _BCC_SITES)
    return _crystal(element, a, cell, sites)


def fcc(element: str | int, a: float, *, primitive: bool = False) -> Structure:
    """Face-centred cubic: 4 atoms in the cube of edge a (Å), or 1 in the primitive cell."""
    cell, sites = (_FCC_PRIMITIVE, _ORIGIN) if primitive else (_CUBE, _FCC_SITES)
    return _crystal(element, a, cell, sites)


def diamond(element: str | int, a: float, *, primitive: bool = False) -> Structure:
    """Diamond: 8 atoms in the cube of edge a (Å), or 2 in the primitive fcc cell."""
    cell, sites = (_FCC_PRIMITIVE, _ORIGIN) if primitive else (_CUBE, _FCC_SITES)
    return _crystal(element, a, cell, np.concatenate([sites, sites + 0.25]))


def simple_cubic(element: str | int, a: float) -> Structure:
    """Simple cubic: one atom in the cube of edge a (Å)."""
    return _crystal(element, a, _CUBE, _ORIGIN)


def square(element: str | int, a: float) -> Structure:
    """The square lattice of edge a (Å) in the plane z = 0, periodic in x and y only."""
    return _crystal(element, a, _CUBE, _ORIGIN, pbc=(True, True, False))


def supercell(structure: Structure, repeats: Sequence[int] | np.ndarray) -> Structure:
    """The structure repeated (m1, m2, m3) times along its lattice vectors.

    Atom order: the cell index runs slowest, i.e. positions.reshape(m1, m2, m3, n, 3) gives atom b
    of cell (i1, i2, i3) at r_b + (i1, i2, i3) @ cell.

    Args:
        structure: of n atoms.
        repeats: (m1, m2, m3), integers >= 1, with m = 1 where not periodic.

    Returns:
        The structure of m1 m2 m3 n atoms.

    Raises:
        ValueError: other than three integers >= 1, or m > 1 where not periodic.
    """
    m = tuple(repeats) if isinstance(repeats, (tuple, list, np.ndarray)) else (repeats,)
    if len(m) != 3 or not all(isinstance(k, (int, np.integer)) and k >= 1 for k in m):
        raise ValueError(f"repeats is {repeats!r}: wanted three integers >= 1, (m1, m2, m3).")
    if any(k > 1 and not periodic for k, periodic in zip(m, structure.pbc, strict=True)):
        raise ValueError(
            f"repeats is {m}, with pbc {structure.pbc}: wanted 1 along a direction that is not "
            "periodic; or set pbc first with dataclasses.replace."
        )
    return _repeated(structure, (int(m[0]), int(m[1]), int(m[2])))


def _repeated(structure: Structure, m: tuple[int, int, int]) -> Structure:
    positions, cell = on_host(structure.positions), on_host(structure.cell)
    offsets = np.array(list(np.ndindex(m)), dtype=np.float64) @ cell
    copies = np.tile(np.arange(structure.n_atoms), math.prod(m))
    repeated = dataclasses.replace(
        structure,
        positions=(offsets[:, None, :] + positions[None, :, :]).reshape(-1, 3),
        cell=np.array(m, dtype=np.float64)[:, None] * cell,
        species=on_host(structure.species)[copies],
    )
    return on_device(repeated)


def strained(structure: Structure, strain: ArrayLike | Sequence[Any]) -> Structure:
    """The structure under the homogeneous deformation x -> (I + strain) x.

    Args:
        structure: may be traced.
        strain: (3, 3), dimensionless, need not be symmetric; may be traced.

    Returns:
        The structure with positions and cell deformed.

    Raises:
        ValueError: another shape.
    """
    strain = on_host(strain)
    if strain.shape != (3, 3):
        raise ValueError(f"strain has shape {strain.shape}: wanted (3, 3), dimensionless.")
    deformation = (np.eye(3) + strain).T
    positions, cell = (on_host(x) @ deformation for x in (structure.positions, structure.cell))
    return on_device(dataclasses.replace(structure, positions=positions, cell=cell))


def rattled(structure: Structure, key: jax.Array, sigma: ArrayLike | Sequence[float]) -> Structure:
    """The structure with independent Gaussian displacements of standard deviation sigma.

    Args:
        structure: may be traced.
        key: JAX PRNG key.
        sigma: Å, a number or one per Cartesian direction ((s, s, 0) keeps a two-dimensional
            lattice in its plane).

    Returns:
        The structure with its positions displaced.

    Raises:
        ValueError: neither one number nor three.
    """
    sigma = on_host(sigma)
    if sigma.shape not in ((), (3,)):
        raise ValueError(f"sigma has shape {sigma.shape}: wanted a number or three, in Å.")
    n = structure.n_atoms
    noise = on_host(_normal(key, 1 << (n - 1).bit_length()))[:n]  # few shapes: see `_normal`
    sigma = sigma.reshape(1, -1)  # JAX need not broadcast arrays of different rank
    positions = on_host(structure.positions) + sigma * noise
    return on_device(dataclasses.replace(structure, positions=positions))


@functools.partial(jax.jit, static_argnums=1)
def _normal(key: jax.Array, n: int) -> jax.Array:
    """Of every shape the first numbers are the same: JAX draws by place."""
    return jax.random.normal(key, (n, 3))


def without_atoms(structure: Structure, atoms: Sequence[int] | np.ndarray) -> Structure:
    """The structure with some of its atoms taken out; the others keep their order.

    Args:
        structure: of n atoms.
        atoms: indices, from 0 to n - 1.

    Returns:
        The structure of the atoms that are left.

    Raises:
        IndexError: an atom that is not there, or anything but whole numbers.
    """
    gone, n = np.asarray(atoms), structure.n_atoms
    if gone.size and (gone.dtype.kind not in "iu" or gone.min() < 0 or gone.max() >= n):
        raise IndexError(f"atoms is {atoms!r}: wanted indices from 0 to {n - 1}.")
    kept = np.delete(np.arange(n), gone.astype(int))
    positions, species = on_host(structure.positions)[kept], on_host(structure.species)[kept]
    return on_device(dataclasses.replace(structure, positions=positions, species=species))


def inscribed_diameter(structure: Structure) -> float:
    """The least distance between opposite faces of the cell, along periodic directions.

    Args:
        structure: of any periodicity.

    Returns:
        The distance, Å; infinite for a cluster.
    """
    widths = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(structure.cell)), axis=0)
    return float(widths[np.array(structure.pbc)].min(initial=np.inf))


def minimum_image(offsets: ArrayLike, structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Vectors reduced to their nearest image in the structure's cell, and their lengths.

    Args:
        offsets: differences of positions, (n, 3) Å.
        structure: whose cell and periodicity count.

    Returns:
        The vectors (n, 3) and their lengths (n,), Å.
    """
    # ASE's short cut for short vectors is right in a reduced cell only, and its search only where
    # the vectors along which there is no period are upright.
    periods = reduced_periods(structure.cell, structure.pbc)
    return find_mic(np.asarray(offsets), periods, structure.pbc)


def flat_axes(structure: Structure) -> np.ndarray:
    """Cartesian axes along which a structure has no extent: across its plane, or its line.

    Args:
        structure: in whose cell only periodic directions count.

    Returns:
        (3,) bool.
    """
    periods = np.abs(np.asarray(structure.cell))[np.array(structure.pbc)]
    return np.ptp(np.asarray(structure.positions), axis=0) + periods.sum(axis=0) <= FLAT


def reduced_periods(cell: ArrayLike, pbc: Pbc) -> np.ndarray:
    """The shortest periods of a lattice, in which its nearest images are among the first ones.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: along which of them there is a period.

    Returns:
        Minkowski-reduced vectors, (3, 3) Å, of the same lattice; upright where not periodic.
    """
    periods = complete_cell(np.asarray(cell) * np.array(pbc)[:, None])
    return minkowski_reduce(periods, pbc)[0]


def from_ase(atoms: Atoms) -> Structure:
    """Structure of an `ase.Atoms`.

    Zero cell vectors of directions that are not periodic are completed to a regular cell, as a
    molecule in ASE has none.

    Args:
        atoms: whose positions, cell, numbers and pbc are taken.

    Returns:
        The structure.

    Raises:
        RuntimeError: as `make_structure`.
        ValueError: as `make_structure`.
    """
    return make_structure(
        atoms.positions, completed(np.array(atoms.cell), atoms.pbc), atoms.numbers, atoms.pbc
    )


def completed(cell: np.ndarray, pbc: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Unit vectors across the others in place of zero ones, where there is no periodicity.

    Args:
        cell: (3, 3) Å.
        pbc: three bools.

    Returns:
        The cell, (3, 3) Å; as it was where a direction of zero length is periodic.
    """
    missing = ~cell.any(axis=1)
    return cell if np.any(np.asarray(pbc)[missing]) else np.asarray(complete_cell(cell))


def to_ase(structure: Structure, labels: Labels | None = None) -> Atoms:
    """`ase.Atoms` of a structure, with labels as its results.

    Cell vectors that `from_ase` made up are zero again: a molecule goes out as it came in.

    Args:
        structure: of n atoms.
        labels: energy (eV), forces (eV/Å) and virial (eV), which becomes stress = -virial / V
            (eV/Å^3), or an entry `virial` of `atoms.info` where the cell has no volume.

    Returns:
        The atoms, with a calculator that holds the results where there are labels.

    Raises:
        ValueError: labels that `check_labels` refuses, or force constants, for which ASE has no
            place.
    """
    cell, pbc = np.asarray(structure.cell), np.array(structure.pbc)
    given = cell * pbc[:, None]
    atoms = Atoms(
        numbers=np.asarray(structure.species),
        positions=np.asarray(structure.positions),
        cell=given if np.array_equal(completed(given, pbc), cell) else cell,
        pbc=pbc,
    )
    if labels is not None:
        labels = check_labels(structure, labels)
        if labels.force_constants is not None:
            raise ValueError(
                f"force_constants has shape {labels.force_constants.shape}: wanted None, as ASE "
                "and extended XYZ have no place for it; keep it with numpy.save, and pass "
                "labels._replace(force_constants=None)."
            )
        results: dict[str, Any] = {"energy": labels.energy, "forces": labels.forces}
        if labels.virial is not None and atoms.cell.rank < 3:
            atoms.info["virial"] = labels.virial
        elif labels.virial is not None:
            results["stress"] = -six_components(labels.virial) / float(structure.volume)
        known = {name: value for name, value in results.items() if value is not None}
        atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms


def check_labels(structure: Structure, labels: Labels) -> Labels:
    """Labels as float64 numpy arrays, after checking that they belong to the structure.

    Args:
        structure: of n atoms.
        labels: of any type that NumPy takes, in the units of `Labels`.

    Returns:
        The labels; the energy is a float.

    Raises:
        ValueError: every label is None, one has the wrong shape for the structure's n atoms (see
            `Labels`), one holds a NaN or an infinity, or the virial is not symmetric.
    """
    if all(value is None for value in labels):
        raise ValueError(
            f"labels is empty, all of {Labels._fields} are None: wanted at least one of them."
        )
    checked: dict[str, Any] = {}
    for name, (shape, unit) in label_shapes(structure.n_atoms).items():
        value = getattr(labels, name)
        checked[name] = None if value is None else finite_array(name, value, shape, unit)
    if checked["energy"] is not None:
        checked["energy"] = float(checked["energy"])
    if checked["virial"] is not None:
        check_symmetric("virial", checked["virial"])
    return Labels(**checked)


def check_symmetric(name: str, tensor: np.ndarray) -> None:
    """Refuse a virial or stress that is not symmetric, as that of any cell without a torque is.

    Args:
        name: what it is called, for the message.
        tensor: (3, 3), eV or eV/Å^3.

    Raises:
        ValueError: two entries differ by more than 1e-4 of the largest, far above the rounding of
            any printed number, and 1e-6, which is nothing.
    """
    gap = np.abs(tensor - tensor.T)
    if gap.max() > 1e-4 * np.abs(tensor).max() + 1e-6:
        i, j = divmod(int(gap.argmax()), 3)
        raise ValueError(
            f"{name} is not symmetric, {tensor[i, j]:g} at {(i, j)} and {tensor[j, i]:g} at "
            f"{(j, i)}: wanted nine numbers, row by row, of a symmetric tensor."
        )
