"""The defects of many crystals that `defect_survey` and `trustworthy_bars` share."""

import math
from dataclasses import dataclass

from experiments.studies import defect_fits
from experiments.systems.materials import distinct, named_pair

FITTED = ("EF", "EFVFC")
PAIRS = (
    *(f"{metal}/vacancy" for metal in ("W", "Mo", "Ta", "Fe")),
    *("W/divacancy-1", "W/dumbbell-111"),
    *(f"{metal}/vacancy" for metal in ("Cu", "Ni", "Al")),
    *("Cu/dumbbell-100", "Si-SW/dumbbell-110", "Si-Tersoff/vacancy", "Si-Tersoff/dumbbell-110"),
)


@dataclass(frozen=True)
class Config:
    pairs: tuple[str, ...] = PAIRS  # material/defect
    sizes: tuple[int, ...] = (2, 3)  # cubic cells per side of the training cells
    most_atoms: int = 220  # in a training cell; larger ones are left out
    target_atoms: int = 400  # at least, of the simulated cell
    order: int = 3  # order of the ACE basis
    degree: int = 10  # total degree of the ACE basis
    copies: int = 60  # rattled defect cells of every size
    lattice_cells: int = 0  # as of the other figures; 0: as far as force constants of a basis reach
    seed: int = 0  # of rattles and strains


@dataclass(frozen=True)
class Point(defect_fits.Config):
    m: int = 2


def points(config: Config) -> list[Point]:
    """One point per pair and size. Raises ValueError for a pair without a material it knows."""
    return [
        Point(
            material=crystal.key,
            defect=defect,
            m=m,
            target=math.ceil((config.target_atoms / crystal.unit_cell.n_atoms) ** (1 / 3)),
            order=config.order,
            degree=config.degree,
            copies=config.copies,
            lattice_cells=config.lattice_cells
            or math.ceil(2 * crystal.r_cut / crystal.lattice_constant),
            seed=config.seed,
        )
        for crystal, defect in distinct([named_pair(pair, "/") for pair in config.pairs])
        for m in config.sizes
        if m**3 * crystal.unit_cell.n_atoms <= config.most_atoms
    ]
