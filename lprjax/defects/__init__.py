"""Point defects on their lattice: response, error terms, bounds, forms, weights, rates, budgets."""

from lprjax.defects.audit_result import Audit, AuditTerm
from lprjax.defects.audits import audit
from lprjax.defects.bounds import (
    force_residual,
    geometry_bound,
    kantorovich,
    relaxing_bound,
    split_residual,
)
from lprjax.defects.budget import FAILURES, Budget, Term, error_budget
from lprjax.defects.catalogue import (
    DEFECTS,
    antisite,
    crowdion,
    divacancy,
    dumbbell,
    micro_crack,
    named_defect,
    substitution,
    tetrahedral,
)
from lprjax.defects.certified import Certified, certified_stability, stability_certificate
from lprjax.defects.defect import (
    Defect,
    RelaxedDefect,
    clamped,
    decay_profile,
    geometry_error,
    left_basin,
    make_defect,
    relax_defect,
    vacancy,
)
from lprjax.defects.enclosures import Enclosure
from lprjax.defects.first_order import FirstOrder, first_order_error
from lprjax.defects.formation import formation_energy
from lprjax.defects.implicit_derivatives import minimiser, relaxed_formation_energy
from lprjax.defects.lipschitz_bounds import certified_lipschitz, lipschitz_certificate
from lprjax.defects.norms import with_energy_norm
from lprjax.defects.quadratic_forms import ErrorForms, PredictedError, error_forms, predicted_error
from lprjax.defects.rates import Rate, error_rate, fitted_rate
from lprjax.defects.residual_transfer import TransferredError, transferred_error
from lprjax.defects.response import (
    goal_error,
    hessian_solve,
    lipschitz_estimate,
    stability_constant,
)
from lprjax.defects.weights import (
    RecommendedWeights,
    WeightConstants,
    recommended_weights,
    weight_constants,
)

__all__ = [
    "DEFECTS",
    "FAILURES",
    "Audit",
    "AuditTerm",
    "Budget",
    "Certified",
    "Defect",
    "Enclosure",
    "ErrorForms",
    "FirstOrder",
    "PredictedError",
    "Rate",
    "RecommendedWeights",
    "RelaxedDefect",
    "Term",
    "TransferredError",
    "WeightConstants",
    "antisite",
    "audit",
    "certified_lipschitz",
    "certified_stability",
    "clamped",
    "crowdion",
    "decay_profile",
    "divacancy",
    "dumbbell",
    "error_budget",
    "error_forms",
    "error_rate",
    "first_order_error",
    "fitted_rate",
    "force_residual",
    "formation_energy",
    "geometry_bound",
    "geometry_error",
    "goal_error",
    "hessian_solve",
    "kantorovich",
    "left_basin",
    "lipschitz_certificate",
    "lipschitz_estimate",
    "make_defect",
    "micro_crack",
    "minimiser",
    "named_defect",
    "predicted_error",
    "recommended_weights",
    "relax_defect",
    "relaxed_formation_energy",
    "relaxing_bound",
    "split_residual",
    "stability_certificate",
    "stability_constant",
    "substitution",
    "transferred_error",
    "tetrahedral",
    "vacancy",
    "weight_constants",
    "with_energy_norm",
]
