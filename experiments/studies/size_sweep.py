"""The sweep over training-cell sizes that `vacancy_convergence` and `defect_rigidity` share."""

from dataclasses import dataclass, field, replace

from experiments.studies import defect_fits
from experiments.systems.observations import OBSERVATION_SETS


@dataclass(frozen=True)
class Config(defect_fits.Config):
    target: int = field(default=8, metadata={"help": "cubic cells per side of the simulation"})
    degree: int = field(default=10, metadata={"help": "total degree of the ACE basis"})
    copies: int = field(default=150, metadata={"help": "rattled defect cells of every size"})
    sizes: tuple[int, ...] = field(
        default=(2, 3, 4, 5), metadata={"help": "cubic cells per side of the training cells"}
    )
    fitted: tuple[str, ...] = field(
        default=tuple(OBSERVATION_SETS),
        metadata={"help": "observation sets", "choices": tuple(OBSERVATION_SETS)},
    )
    floor_degrees: tuple[int, ...] = field(
        default=(8,), metadata={"help": "smaller bases, fitted to E+F: the accuracy floor"}
    )

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
