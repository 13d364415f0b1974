"""Error bounds, fits and prediction rigidities for linear machine-learned potentials, in JAX.

    import jax
    import lprjax as lp

    jax.config.update("jax_enable_x64", True)

What a day's work needs is here; the rest is in the packages, in the order of the data: `numerics`,
`atoms`, `potentials`, `ace`, `regression`, `models`, `crystals`, `simulation`, `defects`, `ase`;
`commands` is the command `lprjax`. All of it is loaded when it is first asked for, JAX with it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lprjax.version import __version__

if TYPE_CHECKING:
    from lprjax import (
        ace,
        ase,
        atoms,
        commands,
        crystals,
        defects,
        models,
        numerics,
        potentials,
        regression,
        simulation,
    )
    from lprjax.ace import (
        ACESpec,
        LinearPotential,
        components,
        linear_potential,
        site_basis,
        smoothness_prior,
    )
    from lprjax.atoms import (
        Graph,
        Labels,
        Structure,
        TrainingSet,
        bcc,
        build_graph,
        build_graphs,
        diamond,
        fcc,
        from_ase,
        make_structure,
        rattled,
        read_extxyz,
        read_training_set,
        strained,
        supercell,
        to_ase,
        write_chemiscope,
        write_extxyz,
    )
    from lprjax.crystals import GPA_PER_EV_A3, elastic_constants, equilibrium, force_constants
    from lprjax.defects import (
        DEFECTS,
        Defect,
        audit,
        divacancy,
        error_budget,
        error_forms,
        first_order_error,
        formation_energy,
        named_defect,
        predicted_error,
        recommended_weights,
        relax_defect,
        relaxed_formation_energy,
        vacancy,
        weight_constants,
    )
    from lprjax.models import kernel_potential, last_layer, load, network_potential, save, train
    from lprjax.numerics.memory import use_compilation_cache
    from lprjax.potentials import (
        KINDS,
        ase_potential,
        cached_calculator,
        eam_from_file,
        energy_and_forces,
        named_reference,
        observe,
        observe_all,
        stillinger_weber,
        tersoff,
        validate,
        zbl,
        zhou_eam,
    )
    from lprjax.regression import (
        Fit,
        baseline_energies,
        calibrate,
        check_virials,
        choose,
        choose_ridge,
        choose_weights,
        committee,
        component_rigidity,
        compress_folds,
        compress_groups,
        compress_structures,
        conformal,
        coverage,
        design_rows,
        error_bars,
        fit,
        influence,
        left_out_errors,
        local_prediction_rigidity,
        prediction_rigidity,
        prediction_rows,
        read_weights,
        solution,
        split_conformal,
        structure_factors,
        structure_rows,
        validation_front,
    )
    from lprjax.simulation import molecular_dynamics, relax

__all__ = [
    "__version__",
    "DEFECTS",
    "GPA_PER_EV_A3",
    "KINDS",
    "ACESpec",
    "Defect",
    "Fit",
    "Graph",
    "Labels",
    "LinearPotential",
    "Structure",
    "TrainingSet",
    "ace",
    "ase",
    "ase_potential",
    "atoms",
    "audit",
    "baseline_energies",
    "bcc",
    "build_graph",
    "build_graphs",
    "cached_calculator",
    "calibrate",
    "check_virials",
    "choose",
    "choose_ridge",
    "choose_weights",
    "commands",
    "committee",
    "component_rigidity",
    "components",
    "compress_folds",
    "compress_groups",
    "compress_structures",
    "conformal",
    "coverage",
    "crystals",
    "defects",
    "design_rows",
    "diamond",
    "divacancy",
    "eam_from_file",
    "elastic_constants",
    "energy_and_forces",
    "equilibrium",
    "error_bars",
    "error_budget",
    "error_forms",
    "fcc",
    "first_order_error",
    "fit",
    "force_constants",
    "formation_energy",
    "from_ase",
    "influence",
    "kernel_potential",
    "last_layer",
    "left_out_errors",
    "linear_potential",
    "load",
    "local_prediction_rigidity",
    "make_structure",
    "models",
    "molecular_dynamics",
    "named_defect",
    "named_reference",
    "network_potential",
    "numerics",
    "observe",
    "observe_all",
    "potentials",
    "predicted_error",
    "prediction_rigidity",
    "prediction_rows",
    "rattled",
    "read_extxyz",
    "read_training_set",
    "read_weights",
    "recommended_weights",
    "regression",
    "relax",
    "relax_defect",
    "relaxed_formation_energy",
    "save",
    "simulation",
    "site_basis",
    "smoothness_prior",
    "solution",
    "split_conformal",
    "stillinger_weber",
    "strained",
    "structure_factors",
    "structure_rows",
    "supercell",
    "tersoff",
    "to_ase",
    "train",
    "use_compilation_cache",
    "vacancy",
    "validate",
    "validation_front",
    "weight_constants",
    "write_chemiscope",
    "write_extxyz",
    "zbl",
    "zhou_eam",
]


_PACKAGES = (
    *("numerics", "atoms", "potentials", "ace", "regression", "models", "crystals", "simulation"),
    *("defects", "ase", "commands"),
)
"""In the order of the data: each imports those before it at most."""


def __getattr__(name: str) -> Any:
    """A name of `__all__`, from the first of the packages that offers it, loaded when asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    packages = (importlib.import_module(f"{__name__}.{package}") for package in _PACKAGES)
    found = next(getattr(package, name) for package in packages if name in package.__all__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
