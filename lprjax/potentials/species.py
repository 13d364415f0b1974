"""Which elements a reference potential knows: an error at the door, NaN where there is no door.

Inside `jit` the species are not known while the program is built, so no error can be raised
there; a site of an unknown element then has the energy NaN, never the energy of another element.
Padding atoms carry the number 0 and are always welcome.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

N_ELEMENTS = 119


def check_species(species: Array, known: dict[str, int], name: str) -> None:
    """Raise ValueError where `species` holds an atomic number that is neither 0 nor in `known`.

    Does nothing where `species` is a tracer.

    Args:
        species: atomic numbers, shape (n,).
        known: chemical symbol -> atomic number of the elements of the potential.
        name: the potential, for the message.
    """
    if isinstance(species, jax.core.Tracer):
        return
    unknown = sorted(set(np.unique(np.asarray(species)).tolist()) - {0, *known.values()})
    if unknown:
        raise ValueError(
            f"{name} knows {', '.join(f'{s} ({z})' for s, z in known.items())}, but the graph "
            f"holds atomic number(s) {unknown}: name those elements when you make the potential, "
            "or use a potential that knows them"
        )


def species_index(species: Array, numbers: tuple[int, ...]) -> Array:
    """Position of each atomic number in `numbers`, shape (n,); padding gets 0, unknown ones -1."""
    table = np.full(N_ELEMENTS, -1, dtype=np.int32)
    table[list(numbers)] = np.arange(len(numbers))
    table[0] = 0
    return jnp.asarray(table)[species]


def poisoned(site_energies: Array, index: Array) -> Array:
    """Site energies with NaN where `index` (from `species_index`) is -1."""
    return jnp.where(index >= 0, site_energies, jnp.nan)
