"""A calculator of ASE without any memory, to compare with."""

import numpy as np
from ase.calculators import calculator as ase_calculator

from lprjax.atoms.graphs import build_graph
from lprjax.atoms.structures import from_ase
from lprjax.potentials.observables import observe


class Plain(ase_calculator.Calculator):
    """The oracle: a new search and `observe` for every call."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential):
        super().__init__()
        self.potential = potential

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        structure = from_ase(atoms)
        graph = build_graph(structure, self.potential.r_cut)
        labels = observe(self.potential, graph, ("energy", "forces", "virial"))
        energy = float(labels.energy)
        self.results = {"energy": energy, "free_energy": energy}
        self.results["forces"] = np.asarray(labels.forces)[: len(atoms)]
        stress = -np.asarray(labels.virial) / structure.volume
        self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
