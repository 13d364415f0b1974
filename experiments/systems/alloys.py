"""Binary alloys to learn from: structures, labels, and factors by composition.

Site energies are a convention: the energy of a bond belongs to both of its ends, and no energy,
force or virial determines how it is shared. In a basis with functions of its own for every
species of the centre, sum_ij R_n(r_ij) over A-B pairs appears twice, once seen from A and once from
B, the same number in every structure: `shared_bonds` gives both ends half of it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.systems.observations import labelled_frames
from lprjax.ace.basis import site_basis
from lprjax.ace.spec import ACESpec, components, tables
from lprjax.atoms.graphs import Graph, build_graphs
from lprjax.atoms.structures import (
    Labels,
    Structure,
    bcc,
    diamond,
    fcc,
    make_structure,
    simple_cubic,
    supercell,
)
from lprjax.potentials import ZHOU_2004
from lprjax.potentials.observables import observe
from lprjax.potentials.potential import Potential
from lprjax.regression.assembly import compress_structures
from lprjax.regression.factors import Factor, merge
from lprjax.regression.fitting import Fit, fit
from lprjax.regression.rigidity import local_prediction_rigidity, prediction_rigidity
from lprjax.regression.rows import design_rows

N_ATOMS = 16  # of every simulated structure: a choice
LATTICES = {  # crystal, cells, nearest neighbours over its edge, over those of bcc
    "bcc": (bcc, (2, 2, 2), np.sqrt(3) / 2, 1.0),
    "fcc": (fcc, (2, 2, 1), np.sqrt(1 / 2), 1.03),
    "sc": (simple_cubic, (4, 2, 2), 1.0, 0.95),
    "diamond": (diamond, (2, 1, 1), np.sqrt(3) / 4, 0.93),
}
"""Four coordination numbers, 16 atoms each; fewer neighbours are closer (factors: a choice)."""
# Disorder of the simulated structures: choices.
STRETCH = (0.93, 1.1)  # of all distances, least and largest factor
SHEAR = 0.03  # largest entry of the strain
RATTLE = 0.12  # Å; a structure's is uniform between zero and this

TRAINING = "NbTa_binary.xyz"
TESTS = ("NbTa_test.xyz", "Nb_test.xyz", "Ta_test.xyz")
SOURCE = (
    "Li, Chen, Zheng, Ong, npj Comput. Mater. 6 (2020) 70: github.com/materialsvirtuallab/maml, "
    "as extended XYZ with energies (eV) and forces (eV/Å)"
)


class Sample(NamedTuple):
    """A structure's graph and the reference's values for it."""

    graph: Graph  # with the cutoff of the basis
    labels: Labels  # energy eV, forces eV/Å, virial eV
    sites: np.ndarray | None = None  # (n,) site energies, eV; None where there are none


def random_alloy(
    elements: Sequence[str],
    count: int,
    rng: np.random.Generator,
    lattices: Sequence[str] = tuple(LATTICES),
) -> Structure:
    """A structure of 16 atoms in random order, with random volume, strain and displacements.

    Args:
        elements: two of Zhou's.
        count: atoms of the second element.
        rng: decides lattice, order, volume, strain and displacements.
        lattices: those that it may be of.

    Returns:
        the structure.
    """
    crystal, cells, bond, closeness = LATTICES[rng.choice(list(lattices))]
    share = count / N_ATOMS
    distance = (1 - share) * ZHOU_2004[elements[0]].re + share * ZHOU_2004[elements[1]].re
    edge = closeness * distance / bond * rng.uniform(*STRETCH)
    perfect = supercell(crystal(elements[0], edge), cells)
    strain = rng.uniform(-SHEAR, SHEAR, (3, 3))
    deformation = np.eye(3) + 0.5 * (strain + strain.T)
    rattle = RATTLE * rng.uniform() * rng.normal(size=(N_ATOMS, 3))
    numbers = np.array([ZHOU_2004[element].number for element in elements])
    return make_structure(
        np.asarray(perfect.positions) @ deformation + rattle,
        np.asarray(perfect.cell) @ deformation,
        numbers[(rng.permutation(N_ATOMS) < count).astype(int)],
    )


def simulated(
    potential: Potential,
    spec: ACESpec,
    structures: Sequence[Structure],
    kinds: Sequence[str],
    offset: float,
) -> list[Sample]:
    """Structures with the potential's labels and site energies.

    Args:
        potential: the reference.
        spec: the basis, whose cutoff the graphs have.
        structures: what is labelled.
        kinds: of labels.
        offset: eV more for every atom of the second element.

    Returns:
        a sample of each structure.
    """
    site_energies = jax.jit(lambda graph: potential(graph))
    seen, samples = build_graphs(structures, potential.r_cut), []
    for graph, near in zip(seen, build_graphs(structures, spec.r_cut), strict=True):
        labels = observe(potential, graph, kinds)
        more = offset * (np.asarray(graph.species) == spec.numbers[1])
        labels = labels._replace(energy=float(labels.energy) + more.sum())
        samples.append(Sample(near, labels, np.asarray(site_energies(graph)) + more))
    return samples


def require_data(folder: str | Path) -> None:
    """Check that all data files are there.

    Args:
        folder: where they are looked for.

    Raises:
        FileNotFoundError: some are missing; the message has their names and their source.
    """
    missing = [name for name in (TRAINING, *TESTS) if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}: wanted the data of {SOURCE}."
        )


def digest(folder: str | Path) -> str:
    """SHA-256 of the data files: records belong to data, wherever they lie.

    Args:
        folder: where the files are.

    Returns:
        hexadecimal digits.
    """
    whole = b"".join((Path(folder) / name).read_bytes() for name in (TRAINING, *TESTS))
    return hashlib.sha256(whole).hexdigest()


def read_binary(path: str | Path, rng: np.random.Generator) -> dict[tuple[int, int], list]:
    """Labelled structures by composition, each composition in random order.

    Args:
        path: extended XYZ.
        rng: decides the order.

    Returns:
        (structure, labels) by atoms of the first and of the second element, in alphabetical
        order.

    Raises:
        ValueError: there are other than two elements, cells of different size, or frames without
            energy or forces.
    """
    frames = [frame[:2] for frame in labelled_frames(path, ("energy", "forces"))]
    numbers = sorted({z for s, _ in frames for z in np.asarray(s.species).tolist()})
    sizes = {structure.n_atoms for structure, _ in frames}
    if len(numbers) != 2 or len(sizes) != 1:
        raise ValueError(
            f"{path} has the elements {numbers} in cells of {sorted(sizes)} atoms: wanted two "
            "elements in cells of one size."
        )
    pool: dict[tuple[int, int], list] = {}
    for k in rng.permutation(len(frames)):
        species = np.asarray(frames[k][0].species)
        counts = tuple(int(np.sum(species == z)) for z in numbers)
        pool.setdefault(counts, []).append(frames[k])
    return pool


def measured(spec: ACESpec, frames: Sequence[tuple[Structure, Labels]]) -> list[Sample]:
    """Samples of labelled structures.

    Args:
        spec: the basis, whose cutoff the graphs have.
        frames: structures and their labels.

    Returns:
        a sample of each, without site energies.
    """
    graphs = build_graphs([structure for structure, _ in frames], spec.r_cut)
    return [Sample(g, labels) for g, (_, labels) in zip(graphs, frames, strict=True)]


def shared_bonds(spec: ACESpec) -> np.ndarray:
    """Coefficients that share the energy of every bond evenly between its ends.

        c = P z

    K - K' is the number of directions of c that change no energy whatsoever.

    Args:
        spec: the basis, of K columns.

    Returns:
        P (K, K') of zeros and ones: the same radial function for A that sees B as for B that sees
        A.
    """
    t, names = tables(spec), []
    for centre in range(len(spec.elements)):
        for k in range(t.n_functions):
            pair, n = divmod(k - t.n_many_body, t.n_max)
            if k < t.n_many_body:
                factors = t.functions[k].factors
                name = ("density", factors[0].z, factors[0].n) if len(factors) == 1 else ()
            else:
                name = ("pair", pair, n) if k < t.n_many_body + t.n_pair else ()
            bond = name and (name[0], frozenset({centre, name[1]}), name[2])
            names.append(bond or (centre, k))
    columns = {name: column for column, name in enumerate(dict.fromkeys(names))}
    shared = np.zeros((len(names), len(columns)))
    shared[np.arange(len(names)), [columns[name] for name in names]] = 1.0
    return shared


def constants(spec: ACESpec) -> np.ndarray:
    """Which columns are the constant of each species.

    Args:
        spec: the basis, of K columns.

    Returns:
        (n_elements, K) bool.
    """
    parts = components(spec)
    return np.stack([parts["constant"] & parts[f"centre {e}"] for e in spec.elements])


def paired_blocks(pool: Mapping, base: Any, most: int) -> dict[tuple, list]:
    """Structures of every other composition, and as many of the base one to give way to them.

    Args:
        pool: structures by composition.
        base: the base composition.
        most: how many structures of each other composition, at most.

    Returns:
        ("new", c): up to `most` structures of composition c; ("old", c): as many of the base
        composition; ("old", base): the rest of it.

    Raises:
        ValueError: the base composition has too few.
    """
    others = {c: values[:most] for c, values in pool.items() if c != base}
    left = list(pool[base])
    if sum(map(len, others.values())) >= len(left):
        raise ValueError(
            f"{len(left)} structures of {base} are too few: wanted more than the "
            f"{sum(map(len, others.values()))} that they give way to; add some, or lower `most`."
        )
    blocks = {}
    for c, values in others.items():
        old, left = left[: len(values)], left[len(values) :]
        blocks |= {("new", c): values, ("old", c): old}
    return blocks | {("old", base): left}


def block_factors(
    spec: ACESpec, blocks: Mapping[tuple, Iterable[Sample]], kinds: Sequence[str]
) -> dict[tuple, Factor]:
    """A factor per (kind, block), in all columns of the basis.

    Args:
        spec: the basis.
        blocks: samples by name of their block.
        kinds: of labels.

    Returns:
        factors by (kind, name of the block).
    """
    found = {}
    for block, samples in blocks.items():
        pairs = ((sample.graph, sample.labels) for sample in samples)
        factors = compress_structures(spec, pairs, kinds)
        found |= {(kind, block): factor for kind, factor in factors.items()}
    return found


def chosen_data(
    factors: Mapping, kinds: Sequence[str], chosen: Iterable, swap: bool
) -> dict[str, Factor]:
    """The factor of each kind, of the base composition and of the chosen ones.

    Args:
        factors: by (kind, block), see `block_factors`.
        kinds: of labels.
        chosen: compositions beside the base one.
        swap: as many structures of the base composition give way, so that the number stays.

    Returns:
        one factor per kind.
    """
    chosen = set(chosen)

    def counts(age: str, composition) -> bool:
        return (age == "new") == (composition in chosen) or (age == "old" and not swap)

    return {
        kind: reduce(
            merge, [f for (k, block), f in factors.items() if k == kind and counts(*block)]
        )
        for kind in kinds
    }


class Probe(NamedTuple):
    """Rows of a test set in the coefficients z, and the reference's values."""

    sites: np.ndarray  # (N, K')
    species: np.ndarray  # (N,)
    structure: np.ndarray  # (N,) which structure a site belongs to
    site_energies: np.ndarray | None  # (N,) eV, where the reference has them
    energies: np.ndarray  # (M,) eV
    forces: np.ndarray | None  # (F, K') 1/Å
    force_labels: np.ndarray | None  # (F,) eV/Å

    @property
    def sizes(self) -> np.ndarray:
        """(M,) number of atoms of each structure."""
        return np.bincount(self.structure)

    @property
    def mean_rows(self) -> np.ndarray:
        """(M, K') rows of the energy per atom."""
        sums = np.zeros((len(self.energies), self.sites.shape[1]))
        np.add.at(sums, self.structure, self.sites)
        return sums / self.sizes[:, None]

    def energy_errors(self, z: np.ndarray) -> np.ndarray:
        """Errors of the energies per atom.

        Args:
            z: (K',) coefficients.

        Returns:
            (M,) eV/atom.
        """
        return self.mean_rows @ z - self.energies / self.sizes


def rows_of(spec: ACESpec, samples: Sequence[Sample], onto: np.ndarray, forces: bool) -> Probe:
    """The rows of a test set, padding left out.

    Args:
        spec: the basis, of K columns.
        samples: the test set.
        onto: (K, K') P of `shared_bonds`.
        forces: whether to make the rows of forces too.

    Returns:
        rows and the reference's values.
    """
    sites = [np.asarray(site_basis(spec, sample.graph)) @ onto for sample in samples]
    species = [np.asarray(sample.graph.species) for sample in samples]
    real = np.concatenate(species) > 0
    force_rows = force_labels = None
    if forces:
        labels = [np.asarray(sample.labels.forces) for sample in samples]
        rows = [design_rows(spec, sample.graph, ("forces",)).forces for sample in samples]
        rows = [np.asarray(r)[: len(f)] for r, f in zip(rows, labels, strict=True)]
        force_rows = np.concatenate([r.reshape(-1, len(onto)) @ onto for r in rows])
        force_labels = np.concatenate([f.ravel() for f in labels])
    known = samples[0].sites is not None
    return Probe(
        np.concatenate(sites)[real],
        np.concatenate(species)[real],
        np.repeat(np.arange(len(samples)), [len(s) for s in species])[real],
        np.concatenate([sample.sites for sample in samples])[real] if known else None,
        np.array([sample.labels.energy for sample in samples]),
        force_rows,
        force_labels,
    )


def weights(kinds: Sequence[str], errors: Sequence[float], n_atoms: int) -> dict[str, float]:
    """1 / error of each kind; energies and virials are of whole cells, their errors per atom.

    Args:
        kinds: of labels.
        errors: eV/atom for energies and virials, eV/Å for forces, in the order of the kinds.
        n_atoms: of a cell.

    Returns:
        the weight of each kind, 1/eV or Å/eV.
    """
    extent = {"energy": n_atoms, "virial": n_atoms}
    return {k: 1.0 / (extent.get(k, 1) * e) for k, e in zip(kinds, errors, strict=False)}


def judged(
    data: Mapping[str, Factor],
    w: Mapping[str, float],
    ridge: float,
    probe: Probe,
    constants: np.ndarray,
) -> dict[str, Any]:
    """Rigidities and errors that one training set leaves on the test structures.

    Args:
        data: factors by kind.
        w: weights by kind.
        ridge: of the fit, 1/eV^2.
        probe: test structures at 1:1, 3:1 and 1:3, as many of each.
        constants: (2, K') the constant of each species.

    Returns:
        "lpr" (N,) 1/eV^2 and "error" (N,) eV of the sites; "energy_mae" (3,) eV/atom by
        composition; "exchange_rigidity" 1/eV^2 and "exchange_error" eV of turning an atom of the
        first element into one of the second; "constants" (4,) 1/eV^2, rigidities of both
        constants, their sum and their difference; "bound" 1/eV^2, the theory's bound of LPR;
        "undetermined", directions that the data leave without a ridge; "vanishing", sites whose
        LPR is zero without a ridge.
    """
    fitted, exact = (fit(data, w, ridge=value) for value in (ridge, 0.0))
    z, difference = np.asarray(fitted.coefficients), constants[0] - constants[1]
    energies = probe.energy_errors(z).reshape(3, -1)
    means = probe.mean_rows.reshape(3, len(probe.energies) // 3, -1).mean(axis=1)
    # The energy of turning an atom of A into one of B: from 3:1 to 1:3 it is half of all atoms.
    exchange = 2.0 * (means[2] - means[1])
    special = np.stack([exchange, *constants, constants.sum(axis=0), difference])
    rows, n = np.concatenate([probe.sites, special]), len(probe.sites)
    rigidity = np.asarray(prediction_rigidity(fitted.factor, rows))
    return {
        "lpr": rigidity[:n],
        "error": probe.sites @ z - probe.site_energies,
        "energy_mae": np.abs(energies).mean(axis=1),
        "exchange_rigidity": rigidity[n],
        "exchange_error": 2.0 * (energies[2].mean() - energies[1].mean()),
        "constants": rigidity[n + 1 :],
        "bound": np.sum((np.asarray(fitted.factor) @ difference) ** 2),
        "undetermined": len(z) - exact.rank,
        "vanishing": np.sum(np.asarray(prediction_rigidity(exact.factor, rows))[:n] == 0.0),
    }


def by_test_set(fits: list[Fit], probes: dict[str, Probe], numbers: list[int]) -> dict[str, Any]:
    """Rigidities and errors of several fits on several test sets.

    Args:
        fits: of the same basis.
        probes: the test sets, by name, with rows of forces.
        numbers: atomic numbers of the species.

    Returns:
        "lpr" (fits, sets, species) 1/eV^2, geometric mean, NaN where a set lacks the species;
        "energy_mae", "energy_bias" eV/atom, "force_mae" and "force_scale", the mean |F|, eV/Å,
        each (fits, sets).
    """
    found = {name: [] for name in ("lpr", "energy_mae", "energy_bias", "force_mae", "force_scale")}
    for fitted, probe in product(fits, probes.values()):
        z = np.asarray(fitted.coefficients)
        lpr = np.asarray(local_prediction_rigidity(fitted.factor, probe.sites))
        mine = [lpr[probe.species == number] for number in numbers]
        energies = probe.energy_errors(z)
        found["lpr"].append([np.exp(np.mean(np.log(m))) if len(m) else np.nan for m in mine])
        found["energy_mae"].append(np.abs(energies).mean())
        found["energy_bias"].append(energies.mean())
        found["force_mae"].append(np.abs(probe.forces @ z - probe.force_labels).mean())
        found["force_scale"].append(np.abs(probe.force_labels).mean())
    shape = (len(fits), len(probes))
    return {name: np.reshape(v, shape + np.shape(v)[1:]) for name, v in found.items()}
