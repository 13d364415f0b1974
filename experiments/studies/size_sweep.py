"""The sweep over training-cell sizes that `vacancy_convergence` and `defect_rigidity` share."""

from dataclasses import dataclass, replace
from typing import Literal

from experiments.studies import defect_fits
from experiments.systems.observations import OBSERVATION_SETS


@dataclass(frozen=True)
class Config(defect_fits.Config):
    target: int = 8  # cubic cells per side of the simulation
    degree: int = 10  # total degree of the ACE basis
    copies: int = 150  # rattled defect cells of every size
    sizes: tuple[int, ...] = (2, 3, 4, 5)  # cubic cells per side of the training cells
    fitted: tuple[Literal[*OBSERVATION_SETS], ...] = tuple(OBSERVATION_SETS)  # observation sets
    floor_degrees: tuple[int, ...] = (8,)  # smaller bases, fitted to E+F: the accuracy floor

    @property
    def name(self) -> str:
        """Of the figure."""
        which = "" if (self.material, self.defect) == ("W", "vacancy") else self.pair
        return "vacancy_convergence" + which

    @property
    def pair(self) -> str:
        return f"_{self.crystal.name}_{self.defect}"


def points(config: Config) -> list[Config]:
    """One point per size and degree, the basis of the figure first."""
    bases = [(config.degree, config.fitted), *((d, ("EF",)) for d in config.floor_degrees)]
    return [
        replace(config, sizes=(m,), degree=degree, fitted=fitted, floor_degrees=())
        for degree, fitted in bases
        for m in config.sizes
    ]
