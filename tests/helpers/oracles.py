"""Slow, obviously right twins: of the basis in plain NumPy and SciPy, no tables and no tricks; of
potentials over all edges at once, in JAX for the sake of their derivatives."""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import eval_jacobi, sph_harm_y

from lprjax.ace import basis
from lprjax.ace.spec import ACESpec, Channel, tables
from lprjax.atoms.graphs import moved
from lprjax.atoms.structures import Structure
from lprjax.potentials.eam import ZHOU_2004, embedding_energy

L_WEIGHT = 1.5


def real_harmonics(vectors: np.ndarray, l_max: int) -> np.ndarray:
    """Real spherical harmonics of directions (..., 3), (..., (l_max+1)^2), from SciPy's complex
    ones: the Condon–Shortley phase taken out, sine for m < 0 and cosine for m > 0."""
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    polar, azimuth = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    columns = []
    for l in range(l_max + 1):
        for m in range(-l, l + 1):
            value = sph_harm_y(l, abs(m), polar, azimuth)
            part = value.imag if m < 0 else value.real
            columns.append(part * (-1) ** m * (np.sqrt(2) if m else 1))
    return np.stack(columns, axis=-1)


def wigner(l: int, rotation: np.ndarray) -> np.ndarray:
    """D with Y_l(Q u) = D Y_l(u) for any orthogonal Q, by least squares over directions."""
    directions = np.random.default_rng(0).normal(size=(8 * l + 8, 3))
    here = slice(l * l, (l + 1) ** 2)
    before = real_harmonics(directions, l)[:, here]
    after = real_harmonics(directions @ rotation.T, l)[:, here]
    return np.linalg.lstsq(before, after)[0].T


def agnesi(r, r0: float, p: int, q: int):
    """1 / (1 + a h(s)), h = s^q / (1 + s^(q-p)), with a from the condition that the slope be
    extremal at s = 1: (1 + a h) h'' = 2 a h'^2."""
    k = q - p
    h, slope = 1 / 2, (2 * q - k) / 4
    curvature = q * (q - 1) / 2 - q * k / 2 - k * (k - 1) / 4 + k**2 / 4
    a = curvature / (2 * slope**2 - h * curvature)
    s = np.asarray(r) / r0
    return 1 / (1 + a * s**q / (1 + s**k))


def _radial(r, spec: ACESpec, p: int, q: int, beta: int):
    """t(r), and Jacobi polynomials of it normalised by quadrature, (..., n_max)."""
    end = agnesi(spec.r_cut, spec.r0, p, q)
    t = 1 - 2 * (agnesi(r, spec.r0, p, q) - end) / (1 - end)
    alpha, nodes = 2 * spec.cutoff_power, np.polynomial.legendre.leggauss(60)
    polynomials = []
    for n in range(spec.degree):
        x, w = nodes
        square = np.sum(
            w * (1 - x) ** alpha * (1 + x) ** beta * eval_jacobi(n, alpha, beta, x) ** 2
        )
        polynomials.append(eval_jacobi(n, alpha, beta, t) / np.sqrt(square))
    return t, np.stack(polynomials, axis=-1)


def many_body_radial(r, spec: ACESpec):
    """R_n(r) for r < r_cut, (..., degree)."""
    t, polynomials = _radial(r, spec, 2, 4, 4)
    return polynomials * ((1 - t) ** spec.cutoff_power * (1 + t) ** 2)[..., None]


def pair_radial(r, spec: ACESpec):
    """Radial functions of the pair basis for r < r_cut, (..., degree)."""
    _, polynomials = _radial(r, spec, 1, 3, 0)
    r = np.asarray(r)
    return polynomials * (spec.r0 / r * (1 - r / spec.r_cut) ** spec.cutoff_power)[..., None]


def environments(structure: Structure, r_cut: float):
    """For each atom the species (k,) and vectors (k, 3) of its neighbours, trying every image."""
    cell, positions = np.asarray(structure.cell), np.asarray(structure.positions)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = r_cut + np.ptp(positions, axis=0).max()
    ranges = [
        range(-ceil(reach / h), ceil(reach / h) + 1) if periodic else range(1)
        for h, periodic in zip(heights, structure.pbc, strict=True)
    ]
    shifts = np.array(list(product(*ranges)))
    species = np.repeat(np.asarray(structure.species), len(shifts))
    images = (positions[:, None] + shifts @ cell).reshape(-1, 3)
    for position in positions:
        vectors = images - position
        r = np.linalg.norm(vectors, axis=1)
        near = (r < r_cut) & (r > 0)
        yield species[near], vectors[near]


def atomic_base(spec: ACESpec, species: np.ndarray, vectors: np.ndarray) -> dict:
    """{(z, n, l, m): sum over the neighbours of species z of R_n Y_lm} of one environment."""
    r = np.linalg.norm(vectors, axis=1)
    radial = many_body_radial(r, spec)
    l_max = int(spec.degree / L_WEIGHT)
    angular = real_harmonics(vectors, l_max)
    return {
        (z, n, l, m): np.sum((species == number) * radial[:, n - 1] * angular[:, l * l + l + m])
        for z, number in enumerate(spec.numbers)
        for n in range(1, spec.degree + 1)
        for l in range(l_max + 1)
        for m in range(-l, l + 1)
    }


def site_basis(spec: ACESpec, structure: Structure) -> np.ndarray:
    """B(i), (n, n_columns): explicit sums over images, neighbours, monomials and factors."""
    blocks = np.zeros((structure.n_atoms, len(spec.elements), spec.n_functions))
    for i, (species, vectors) in enumerate(environments(structure, spec.r_cut)):
        base = atomic_base(spec, species, vectors)
        values = []
        for function in tables(spec).functions:
            total = 0.0
            for ms, coefficient in zip(function.monomials, function.coefficients, strict=True):
                term = coefficient
                for (z, n, l), m in zip(function.factors, ms, strict=True):
                    term *= base[z, n, l, m]
                total += term
            values.append(total)
        pairs = pair_radial(np.linalg.norm(vectors, axis=1), spec)
        for number in spec.numbers:
            values += list(np.sum((species == number)[:, None] * pairs, axis=0))
        values += [1.0] * spec.constant
        blocks[i, spec.numbers.index(int(structure.species[i]))] = values
    return blocks.reshape(structure.n_atoms, -1)


def rows(spec: ACESpec, graph):
    """(energy, forces, virial) rows as the dense Jacobian of the summed site basis, column by
    column in the positions and the strain: the plain formulation of `regression.design_rows`."""

    def total(positions, strain):
        deformation = jnp.eye(3) + strain
        strained = moved(graph, positions @ deformation.T, graph.cell @ deformation.T)
        return jnp.sum(basis.site_basis(spec, strained), axis=0)

    at = graph.positions, jnp.zeros((3, 3))
    slopes = jax.jit(jax.jacfwd(total, (0, 1)))(*at)
    forces, virial = (-jnp.moveaxis(slope, 0, -1) for slope in slopes)
    return total(*at), forces, virial


def column_names(spec: ACESpec) -> list[tuple]:
    """(centre, factors) of every column of the design: symbols in place of species indices."""
    t, symbol = tables(spec), spec.elements
    functions = [
        ("many-body", *sorted((symbol[z], n, l) for z, n, l in g.factors)) for g in t.functions
    ]
    functions += [("pair", (s, n)) for s in symbol for n in range(1, spec.degree + 1)]
    functions += [("constant",)] * spec.constant
    return [(centre, *f) for centre in symbol for f in functions]


def n_invariants(degrees: tuple[int, ...], labels: tuple) -> int:
    """Dimension of the O(3)-invariants among products of one vector per label of degree l, equal
    labels being one and the same vector: the mean over the group of the character

        prod over labels of h_k(chi_l),   chi_l(theta) = sum_m cos(m theta),

    h_k the complete symmetric polynomial (k factors with that label). The Haar measure on the
    circle of angles is (1 - cos theta) / 2 pi; equal steps integrate such polynomials exactly."""
    if sum(degrees) % 2:
        return 0  # inversion
    theta = 2 * np.pi * np.arange(256) / 256
    character = np.ones_like(theta)
    for label in set(labels):
        mine = [l for l, other in zip(degrees, labels, strict=True) if other == label]
        p = [
            sum(np.cos(m * j * theta) for m in range(-mine[0], mine[0] + 1)) for j in range(5)
        ]  # power sums: traces of the j-th power of the rotation
        h = [np.ones_like(theta)]
        for k in range(1, len(mine) + 1):
            h.append(sum(p[j] * h[k - j] for j in range(1, k + 1)) / k)  # Newton
        character = character * h[-1]
    mean = np.mean((1 - np.cos(theta)) * character)
    assert abs(mean - round(mean)) < 1e-9
    return round(mean)


def basis_size(n_species: int, order: int, degree: int) -> int:
    """Number of many-body functions of one centre species: no coupling coefficients, only counting
    of invariants for every multiset of (z, n, l) with sum n + 1.5 l <= degree."""
    channels = [
        Channel(z, n, l)
        for z in range(n_species)
        for n in range(1, degree + 1)
        for l in range(int(degree / L_WEIGHT) + 1)
    ]
    return sum(
        n_invariants(tuple(c.l for c in chosen), chosen)
        for v in range(1, order + 1)
        for chosen in combinations_with_replacement(channels, v)
        if sum(c.n + L_WEIGHT * c.l for c in chosen) <= degree
    )


def prior(spec: ACESpec, power: float) -> np.ndarray:
    """Sum over the factors of (n + 1.5 l)^power, by column."""
    cost = {"many-body": lambda s, n, l: n + L_WEIGHT * l, "pair": lambda s, n: n}
    return np.array(
        [sum(cost[kind](*f) ** power for f in factors) for _, kind, *factors in column_names(spec)]
    )


def zhou_sites(graph, r_cut: float):
    """Zhou EAM site energies (n,) of any species, straight from the paper: all edges
    at once, the embedding in every element."""
    table = [ZHOU_2004[e] for e in ZHOU_2004]
    of_number = np.zeros(119, dtype=int)
    of_number[[p.number for p in table]] = np.arange(len(table))
    kind = jnp.asarray(of_number)[graph.species]
    r = jnp.linalg.norm(graph.vectors(), axis=-1)
    mask = graph.edge_mask & (r < r_cut)
    r = jnp.where(mask, r, 2.5)

    def edge(name, kinds):
        return jnp.asarray([getattr(p, name) for p in table])[kinds]

    def pair_functions(kinds):
        s = r / edge("re", kinds)
        g = jnp.exp(-edge("beta", kinds) * (s - 1)) / (1 + (s - edge("lam", kinds)) ** 20)
        h = jnp.exp(-edge("alpha", kinds) * (s - 1)) / (1 + (s - edge("kappa", kinds)) ** 20)
        return edge("fe", kinds) * g, edge("A", kinds) * h - edge("B", kinds) * g

    here = jnp.broadcast_to(kind[:, None], r.shape)
    (f_a, phi_a), (f_b, phi_b) = pair_functions(here), pair_functions(kind[graph.neighbours])
    pair = jnp.where(mask, f_b / f_a * phi_a + f_a / f_b * phi_b, 0.0)
    density = jnp.sum(jnp.where(mask, f_b, 0.0), axis=1)
    embedding = jnp.stack([embedding_energy(p, density) for p in table], axis=1)
    chosen = jnp.take_along_axis(embedding, kind[:, None], axis=1)[:, 0]
    return jnp.where(graph.atom_mask, chosen + 0.25 * jnp.sum(pair, axis=1), 0.0)


def silicon_sites(graph):
    """Stillinger–Weber site energies (n,) by explicit pairs of neighbours, (n, K, K) of them."""
    epsilon, sigma, a, lam, gamma = 2.1683, 2.0951, 1.8, 21.0, 1.2
    vectors = graph.vectors() / sigma
    x = jnp.linalg.norm(vectors, axis=-1)
    mask = graph.edge_mask & (x < a)
    x = jnp.where(mask, x, 1.0)
    soft = jnp.where(mask, jnp.exp(gamma / (x - a)), 0.0)
    pair = 7.049556277 * (0.6022245584 / x**4 - 1) * jnp.exp(1 / (x - a))
    cosines = jnp.sum(vectors[:, :, None] * vectors[:, None], axis=-1) / x[:, :, None] / x[:, None]
    angles = soft[:, :, None] * soft[:, None] * (cosines + 1 / 3) ** 2
    different = jnp.asarray(np.triu(np.ones(angles.shape[1:]), 1))[None]
    energies = 0.5 * jnp.sum(jnp.where(mask, pair, 0.0), axis=1)
    energies += lam * jnp.sum(angles * different, axis=(1, 2))
    return jnp.where(graph.atom_mask, epsilon * energies, 0.0)
