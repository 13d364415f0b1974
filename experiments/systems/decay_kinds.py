"""What a surrogate may get wrong outside its training radius."""

from dataclasses import dataclass

from lprjax.defects.rates import Rate, error_rate


@dataclass(frozen=True)
class Kind:
    """What is wrong outside, and the theory's slopes in dimension d."""

    label: str
    order: int  # of the derivatives
    keeps: bool = False  # the elastic constants of that order
    sharp: bool = False  # outside begins at once, not over the distance L

    def geometry(self, d: int) -> float:
        return -(d + 1) / 2 if self.sharp else self._rate(d).geometry

    def energy(self, d: int) -> float:
        """NaN for the sharp cut: the change's own energy and what relaxing gains, which falls as
        the geometry error's square, have two powers."""
        return float("nan") if self.sharp else self._rate(d).energy

    def _rate(self, d: int) -> Rate:
        return error_rate(self.order, d, elastic_kept=self.keeps)


KINDS = {
    "elastic": Kind("elastic constants", 2),
    "force_constants": Kind("force constants, C kept", 2, keeps=True),
    "third": Kind("third derivatives", 3),
    "third_kept": Kind("third derivatives, C3 kept", 3, keeps=True),
    "fourth": Kind("fourth derivatives", 4),
    "sharp": Kind("force constants, C kept, sharp cut", 2, keeps=True, sharp=True),
}
