"""What two potentials disagree about in the far field of a defect, order by order.

Far from its core a defect is the homogeneous lattice under a small, slowly varying displacement.
With w the displacement there, cut off smoothly towards the core, and E(w) the energy of the
*complete* lattice, the forces of the lattice are

    F(w) = F_1[w] + 1/2 F_2[w, w] + ... ,     F_n the (n + 1)-th derivatives of -E at w = 0,

and each order has a part that the elastic constants carry: the force of the Cauchy-Born energy, the
crystal's energy density (to third order) of the gradient at each site times the volume per site,

    E_CB(w) = V_0 sum_l W(Gw(l)),   Gw(l) = sum_rho (w(l + rho) - w(l)) rho^T M^-1,
    M = sum_rho rho rho^T .

In a multilattice the sublattices shift against each other under strain, by p = Lambda e (internal
strain). What two potentials disagree about there acts at elastic order, though no stress shows it:
in a cell that is strained and shifted as the reference's atoms shift, the surrogate leaves forces

    T e,   T = d(forces on the atoms of the cell) / d(strain) along (e, Lambda_reference e) ,

and in the far field the forces -(P - Lambda G)^T (-T) e, P w the shifts of each cell, G w its
gradient and Lambda the surrogate's. On a lattice whose atoms are all centres of symmetry T = 0.

Site energies play no part: they are not observable, total forces are.

Source: derived, in the setting of Ortner, Wang, Multiscale Model. Simul. 21 (2023) 1053.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lprjax.atoms.graphs import Graph, moved
from lprjax.atoms.structures import Structure, inscribed_diameter, minimum_image
from lprjax.atoms.voigt import COLUMNS, ROWS, SHEARS, VOIGT_TENSOR
from lprjax.crystals.elasticity import cell_graph, elastic_constants, third_order_along
from lprjax.crystals.strain_norm import two_shells
from lprjax.defects.defect import Defect
from lprjax.numerics.guarded import smoothstep
from lprjax.numerics.host import namespace, on_device, on_host, traced
from lprjax.potentials.derivatives import site_energies_and_forces, third_product
from lprjax.potentials.potential import Potential, as_argument, check, graph_for

RANK = 1e-9
"""Singular values of a fit to bonds below this share of the largest are zero: a choice, far above
rounding (1e-16) and far below any ratio of bond lengths."""


def far_field(
    defect: Defect,
    displacement: ArrayLike,
    radius: float,
    internal: ArrayLike | None = None,
) -> jax.Array:
    """The displacement of a defect beyond its core, zero inside.

        w(l) = chi(|l| / radius) (u(l) - a) + Lambda_l sym((u(l) - a) grad chi),

    chi rising smoothly (C2) from 0 at radius / 2 to 1 at radius, a the mean of u between the two,
    so that cutting off adds no strain of its own. The last term is that of a multilattice: its
    sublattices follow the strain that the cut brings, as they follow any other.

    Args:
        defect: where and on which lattice.
        displacement: u, (n_sites, 3) Å.
        radius: L, Å.
        internal: Lambda, (b, 3, 6) Å, of the potential whose geometry it is, as in
            `elastic_constants`; None: the sublattices do not shift.

    Returns:
        w, (n_regular, 3) Å, on the complete lattice.

    Raises:
        ValueError: no atom between radius / 2 and radius, or none beyond it.
    """
    n = defect.reference.n_atoms
    away, distances = minimum_image(
        np.asarray(defect.reference.positions) - np.asarray(defect.centre), defect.reference
    )
    present = np.asarray(defect.lattice.present)[:n]
    rim = present & (distances > 0.5 * radius) & (distances < radius)
    if not (rim.any() and np.any(distances > radius)):
        raise ValueError(
            f"radius is {radius} Å, but the sites reach from 0 to {distances.max():.2f} Å: wanted "
            "one with atoms beyond it and between half of it and it."
        )
    u = np.asarray(displacement)[:n]
    u, t = u - np.mean(u[rim], axis=0), np.clip(2.0 * distances / radius - 1.0, 0.0, 1.0)
    w = smoothstep(t)[:, None] * u
    if internal is None:
        return jax.device_put(w)
    outwards = away / np.maximum(distances, 0.5 * radius)[:, None]  # chi is level inside
    slope = 30.0 * t**2 * (1.0 - t) ** 2 * 2.0 / radius  # of the step
    cut = u[:, :, None] * (outwards * slope[:, None])[:, None, :]
    internal = np.asarray(internal)
    of_site = np.arange(n) % len(internal)
    follow = np.einsum("lci,li->lc", internal[of_site], _strains(cut))
    return jax.device_put(w + follow)


def _strains(slopes: Any) -> Any:
    """Engineering strains (n, 6) of gradients (n, 3, 3)."""
    return (slopes[:, ROWS, COLUMNS] + slopes[:, COLUMNS, ROWS]) * (0.5 * SHEARS)[None]


class Orders(NamedTuple):
    """Forces and energies of the complete lattice under w, order by order."""

    first: jax.Array  # F_1[w], (n, 3) eV/Å
    second: jax.Array  # F_2[w, w] / 2, (n, 3) eV/Å
    rest: jax.Array  # F(w) - F(0) - first - second, (n, 3) eV/Å
    at_rest: jax.Array  # F(0), (n, 3) eV/Å, zero where every site is a centre of symmetry
    energies: jax.Array  # (3,), eV, of first, second and rest: E(w) - E(0) less the linear term


def lattice_orders(potential: Potential, reference: Structure | Graph, w: ArrayLike) -> Orders:
    """The forces of the complete lattice under a displacement, split by order, by autodiff.

    Args:
        potential: graph -> site energies (n,), eV.
        reference: the supercell, its n atoms on their sites; or its graph, made with room for w
            (`lattice_graph`).
        w: (n, 3) Å.

    Returns:
        Orders: forces and energies of first and second order, and the rest.

    Raises:
        TypeError: a potential without cutoff, or neither a pytree nor hashable.
        ValueError: as `build_graph`; w of another shape.
    """
    if isinstance(reference, Structure):
        reference = lattice_graph(potential, reference, w)
    check(potential, reference)
    argument, w = as_argument(potential, "potential"), np.asarray(w)
    n = int(np.sum(np.asarray(reference.atom_mask)))
    if w.shape != (n, 3):
        raise ValueError(f"w has shape {w.shape}: wanted ({n}, 3), one row per lattice site, in Å.")
    w = np.pad(w, ((0, len(reference.positions) - n), (0, 0)))
    there = moved(reference, on_device(np.asarray(reference.positions) + w))
    start, end = (site_energies_and_forces(argument, graph) for graph in (reference, there))
    curvature, third = third_product(argument, reference, w, w)
    at_rest, first, second = (
        np.asarray(start.forces),
        -np.asarray(curvature),
        -0.5 * np.asarray(third),
    )
    rest = np.asarray(end.forces) - at_rest - first - second
    # Site by site, so that the difference keeps the digits that the energy of many atoms loses.
    rise = np.sum(np.asarray(end.sites) - np.asarray(start.sites)) + np.vdot(at_rest, w)
    orders = np.array([-0.5 * np.vdot(first, w), -np.vdot(second, w) / 3.0])
    energies = np.append(orders, rise - np.sum(orders))
    return Orders(*on_device((first[:n], second[:n], rest[:n], at_rest[:n], energies)))


def lattice_graph(
    potential: Potential, reference: Structure, w: ArrayLike, n_atoms: int | None = None
) -> Graph:
    """The graph of the complete lattice with room for displacements.

    Args:
        potential: graph -> site energies (n,), eV.
        reference: the supercell, its n atoms on their sites.
        w: (n, 3) Å.
        n_atoms: padded number of atoms, as in `build_graph`.

    Returns:
        The graph of the undisplaced lattice.

    Raises:
        TypeError: a potential without cutoff.
        ValueError: as `build_graph`.
    """
    farthest = float(np.max(np.linalg.norm(np.asarray(w), axis=1)))
    skin = 2.0 * farthest + 1e-6  # an atom and its neighbour may set off towards each other
    return graph_for(potential, reference, skin=skin, n_atoms=n_atoms)


class SiteGradient(NamedTuple):
    """Gw(l), the gradient of a lattice function: exact for a homogeneous one."""

    neighbours: jax.Array  # (n, S) int32
    weights: jax.Array  # (n, S, 3) 1/Å, M^-1 rho; zero on padded slots

    def __call__(self, w: ArrayLike) -> np.ndarray:
        """Gw of w (n, 3) Å, (n, 3, 3), [l, i, j] = dw_i / dx_j."""
        w, weights = on_host(w), on_host(self.weights)
        differences = w[on_host(self.neighbours)] - w[:, None, :]
        return namespace(w, weights).einsum("lsi,lsj->lij", differences, weights)

    def divergence(self, stresses: np.ndarray) -> np.ndarray:
        """-G^T P of P (n, 3, 3) eV/Å^3 times a volume, (n, 3) eV/Å: the forces of P . Gw."""
        weights = on_host(self.weights)
        pulls = namespace(stresses, weights).einsum("lij,lsj->lsi", stresses, weights)
        return pulls.sum(axis=1) - _added(len(weights), self.neighbours, pulls)


def site_gradient(defect: Defect) -> SiteGradient:
    """The gradient over the bonds of the defect's seminorm, on the complete lattice.

    Blind to shifts of the sublattices: the bonds of a site are fitted, in least squares, by a
    gradient and a shift of each sublattice.

    Args:
        defect: where and on which lattice.

    Returns:
        The gradient.

    Raises:
        ValueError: a supercell not wider than twice its longest bond, in which the nearest image of
            a neighbour need not be the one that the bond leads to.
    """
    table, bonds, shifts = _bonds(defect)
    weights = _fitted(np.concatenate([bonds, shifts], axis=-1))[:, :3]
    return SiteGradient(*on_device((table, np.swapaxes(weights, -1, -2))))


def _bonds(defect: Defect) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends (n, S), vectors (n, S, 3) Å, and +1 at the end's and -1 at the start's sublattice
    (n, S, b) of the bonds of the complete lattice; zeros on padded slots."""
    n, b = defect.reference.n_atoms, defect.unit_cell.n_atoms
    table = np.asarray(defect.lattice.complete)
    positions = np.asarray(defect.reference.positions)
    offsets = (positions[table] - positions[:, None]).reshape(-1, 3)
    bonds = minimum_image(offsets, defect.reference)[0].reshape(*table.shape, 3)
    bonds[table == np.arange(n)[:, None]] = 0.0  # padded slots
    _check_width(defect, float(np.linalg.norm(bonds, axis=-1).max()))
    sublattice = np.eye(b)[np.arange(n) % b]
    return table, bonds, sublattice[table] - sublattice[:, None]


def _fitted(design: np.ndarray) -> np.ndarray:
    """The least-squares fit of bonds (n, S) by columns (n, S, c), (n, c, S), of least norm: what
    no bond sees (along z in the plane, a common shift) is zero."""
    return np.linalg.pinv(design, rcond=RANK)


class CellStrain(NamedTuple):
    """Gradient and shifts of the sublattices of each cell, exact where both are homogeneous."""

    neighbours: jax.Array  # (N, b S) int32
    starts: jax.Array  # (N, b S) int32
    weights: jax.Array  # (N, 3 + b, b S), 1/Å and 1; zero on padded slots

    def __call__(self, w: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Of w (n, 3) Å: engineering strains (N, 6), shifts of zero mean (N, b, 3) Å."""
        w, weights = on_host(w), on_host(self.weights)
        differences = w[on_host(self.neighbours)] - w[on_host(self.starts)]
        found = namespace(w, weights).einsum("Ncs,Nsi->Nci", weights, differences)
        return _strains(found[:, :3].swapaxes(-1, -2)), found[:, 3:]

    def transpose(self, stresses: np.ndarray, pulls: np.ndarray) -> np.ndarray:
        """The transpose: of (N, 6) eV and (N, b, 3) eV/Å, (n, 3) eV/Å."""
        xp, weights = namespace(self, stresses, pulls), on_host(self.weights)
        found = xp.concatenate([stresses[:, VOIGT_TENSOR], pulls], axis=1)
        along = xp.einsum("Ncs,Nci->Nsi", weights, found)
        n = pulls.shape[0] * pulls.shape[1]
        return _added(n, self.neighbours, along) - _added(n, self.starts, along)


def _added(n: int, places: Any, values: Any) -> Any:
    """The sums (n, 3) of values (..., 3) that have one place (...)."""
    if traced(places, values):
        return jnp.zeros((n, 3)).at[places].add(values)
    found = np.zeros((n, 3))
    np.add.at(found, np.asarray(places), values)
    return found


def cell_strain(defect: Defect) -> CellStrain:
    """Strain and shifts by cell, from the bonds of the defect's seminorm on the complete lattice.

    The bonds of the cell's b sites are fitted, in least squares, by one gradient and b shifts.

    Args:
        defect: where and on which lattice.

    Returns:
        The map.
    """
    table, bonds, shifts = _bonds(defect)
    n, b = defect.reference.n_atoms, defect.unit_cell.n_atoms
    design = np.concatenate([bonds, shifts], axis=-1).reshape(n // b, -1, 3 + b)
    starts = np.repeat(np.arange(n), table.shape[1]).reshape(n // b, -1)
    ends = table.reshape(n // b, -1)
    return CellStrain(*on_device((ends, starts, _fitted(design))))


def _check_width(defect: Defect, longest: float) -> None:
    """Refuse a supercell that some bond, Å, is not shorter than half of; say which would do."""
    if not inscribed_diameter(defect.reference) > 2.0 * longest > 0.0:
        cell = defect.unit_cell
        longest = max(longest, two_shells(cell))  # in the least cells bonds lead back to the atom
        widths = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell.cell)), axis=0)
        wanted = np.where(cell.pbc, np.floor(2.0 * longest / widths).astype(int) + 1, 1)
        raise ValueError(
            f"the supercell of the defect is {inscribed_diameter(defect.reference):.4g} Å wide: "
            f"wanted more than two of its longest bonds, {2.0 * longest:.4g} Å, so that gradients "
            f"are those of its own bonds; take at least {tuple(wanted.tolist())} unit cells."
        )


class CauchyBorn(NamedTuple):
    """The energy of a lattice that depends on its gradient alone, to third order.

    Per volume, with H the gradient, e = (H + H^T) / 2, and from the crystal's stress s, elastic
    constants C and third-order ones C3 (Brugger's, in the Lagrangian strain e + H^T H / 2):

        second order   C[e, e] / 2 + s : (H^T H - e e) / 2
        third order    (C[e, g] - s : (e g + g e) / 2) + C3[e, e, e] / 6,   g = H^T H / 2
    """

    gradient: SiteGradient
    site_volume: float  # Å^3
    stress: jax.Array  # (6,) eV/Å^3, Voigt
    second: jax.Array  # (6, 6) eV/Å^3, as `elastic_constants` defines them
    third: jax.Array  # (6, 6, 6) eV/Å^3
    cells: CellStrain
    hessian: jax.Array  # (6 + 3 b, 6 + 3 b) eV, eV/Å, eV/Å^2, of a cell in strain and shifts
    internal: jax.Array  # (b, 3, 6) Å, Lambda: how its atoms follow a strain
    followed: jax.Array  # (b, 3, 6) Å, how they do; of a mismatch: the reference's Lambda

    @property
    def unbalanced(self) -> jax.Array:
        """T, (b, 3, 6) eV/Å: forces that a strain leaves on atoms that follow by `followed`."""
        hessian, followed = on_host(self.hessian), on_host(self.followed)
        shifted = hessian[6:, 6:] @ followed.reshape(-1, 6)
        return on_device(-(hessian[6:, :6] + shifted).reshape(-1, 3, 6))

    def densities(self, slope: ArrayLike) -> np.ndarray:
        """Energies per volume of second and third order in gradients H (..., 3, 3), (..., 2),
        eV/Å^3."""
        h, stress, e, g, of_e, of_g, of_both = self._tensors(slope)
        inside = lambda a, b: (a * b).sum(axis=(-2, -1))  # noqa: E731
        second = 0.5 * inside(of_e, e) + inside(stress, g - 0.5 * e @ e)
        third = inside(of_e, g) - inside(stress, e @ g) + inside(of_both, e) / 6.0
        return namespace(self, slope).stack([second, third], axis=-1)

    def stresses(self, slope: ArrayLike) -> np.ndarray:
        """The derivatives of `densities` in H, (..., 2, 3, 3), eV/Å^3."""
        h, stress, e, g, of_e, of_g, of_both = self._tensors(slope)
        symmetric = lambda a: 0.5 * (a + a.swapaxes(-1, -2))  # noqa: E731
        turned = symmetric(stress @ e)
        second = of_e + h @ stress - turned
        third = of_g + h @ (of_e - turned) - symmetric(stress @ g) + 0.5 * of_both
        return namespace(self, slope).stack([second, third], axis=-3)

    def _tensors(self, slope: ArrayLike) -> tuple[np.ndarray, ...]:
        """H, s, e, g, and the tensors C[e], C[g], C3[e, e] of the top."""
        stress, second, third = (on_host(x) for x in (self.stress, self.second, self.third))
        h, xp = on_host(slope), namespace(self, slope)
        ones = (1,) * (h.ndim - 2)
        e, g = 0.5 * (h + h.swapaxes(-1, -2)), 0.5 * h.swapaxes(-1, -2) @ h
        shears = SHEARS.reshape(*ones, 6)
        strain, stretch = (x[..., ROWS, COLUMNS] * shears for x in (e, g))
        of_both = xp.einsum("ijk,...i,...j->...k", third, strain, strain)
        six = (strain @ second, stretch @ second, of_both)
        stress = stress[VOIGT_TENSOR].reshape(*ones, 3, 3)
        return h, stress, e, g, *(x[..., VOIGT_TENSOR] for x in six)

    def energies(self, w: ArrayLike) -> np.ndarray:
        """Energies of second and of third order in w (n, 3) Å, (2,), eV."""
        return self.site_volume * self.densities(self.gradient(w)).sum(axis=0)

    def forces(self, w: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Forces of first and of second order in w (n, 3) Å, (n, 3) eV/Å each."""
        stresses = self.site_volume * self.stresses(self.gradient(w))
        return self.gradient.divergence(stresses[:, 0]), self.gradient.divergence(stresses[:, 1])

    def internal_forces(self, w: ArrayLike) -> np.ndarray:
        """Forces of first order in w (n, 3) Å by the mismatch of internal strain, (n, 3) eV/Å."""
        strains, _ = self.cells(w)
        xp = namespace(self, w)
        pulls = xp.einsum("aci,Ni->Nac", on_host(self.unbalanced), strains)
        return self.cells.transpose(-xp.einsum("aci,Nac->Ni", on_host(self.internal), pulls), pulls)


def cauchy_born(
    potential: Potential,
    defect: Defect,
    cell: Graph | None = None,
    internal: ArrayLike | None = None,
) -> CauchyBorn:
    """The Cauchy-Born energy of the crystal that a defect lives in.

    The crystal is the cell that the defect repeats, with no forces on its atoms; in a multilattice
    the sublattices follow the strain (relaxed constants).

    Args:
        potential: graph -> site energies (n,), eV.
        defect: where and on which lattice.
        cell: the graph of its unit cell, where it was made before (`elasticity.cell_graph`).
        internal: (b, 3, 6) Å, how its atoms follow a strain in constants of third order, where it
            was found before; None: as they do in those of second.

    Returns:
        The energy.

    Raises:
        TypeError, ValueError: as `elastic_constants`.
    """
    cell = cell_graph(potential, defect.unit_cell if cell is None else cell)
    elasticity = elastic_constants(potential, cell)
    internal = elasticity.internal if internal is None else internal
    third = third_order_along(potential, cell, internal)
    return CauchyBorn(
        gradient=site_gradient(defect),
        site_volume=float(defect.reference.volume) / defect.reference.n_atoms,
        stress=elasticity.stress,
        second=elasticity.relaxed,
        third=jax.device_put(third),
        cells=cell_strain(defect),
        hessian=elasticity.hessian,
        internal=elasticity.internal,
        followed=elasticity.internal,
    )


def cauchy_born_mismatch(reference: Potential, surrogate: Potential, defect: Defect) -> CauchyBorn:
    """The Cauchy-Born energy of the surrogate less that of the reference; see `cauchy_born`.

    Args:
        reference: graph -> site energies (n,), eV.
        surrogate: graph -> site energies (n,), eV.
        defect: where and on which lattice.

    Returns:
        The difference.

    Raises:
        TypeError, ValueError: as `elastic_constants`.
    """
    return less(*(cauchy_born(potential, defect) for potential in (surrogate, reference)))


def less(ours: CauchyBorn, theirs: CauchyBorn) -> CauchyBorn:
    """The difference of two Cauchy-Born energies of one lattice.

    All is subtracted but the internal strain: forces act on the shifts of `ours` and are those
    that remain where cells follow as `theirs` do.

    Args:
        ours: what is diminished.
        theirs: what is taken off.

    Returns:
        The difference.
    """
    names = ("stress", "second", "third", "hessian")
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in names}
    change = {name: on_device(on_host(a) - on_host(b)) for name, (a, b) in pairs.items()}
    return ours._replace(**change, followed=theirs.internal)  # hessian: no forces along its Lambda
