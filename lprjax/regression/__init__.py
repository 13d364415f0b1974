"""From rows to factors, fits, rigidities and posteriors, and the choice of the next data."""

from lprjax.regression.assembly import PerAtom, compress_structures, structure_rows
from lprjax.regression.cross_validation import (
    Candidate,
    Front,
    compress_folds,
    merged_folds,
    validation_front,
)
from lprjax.regression.factors import Factor, compress, extend, merge, projected, weighed
from lprjax.regression.fitting import Fit, fit, solution
from lprjax.regression.groups import (
    baseline_energies,
    compress_groups,
    read_weights,
    weights_by_group,
)
from lprjax.regression.influence_results import Envelope, Influence, Moves
from lprjax.regression.influence_shares import InfluenceShare
from lprjax.regression.influences import influence, influence_share, merged_influence
from lprjax.regression.intervals import ErrorBars, error_bars
from lprjax.regression.left_out import (
    StructureFactors,
    left_out_errors,
    left_out_squares,
    structure_factors,
)
from lprjax.regression.loss_choice import (
    ChosenLoss,
    choose_ridge,
    choose_weights,
    left_out_loss,
)
from lprjax.regression.new_structures import Conformal, conformal, split_conformal
from lprjax.regression.posterior import Calibration, calibrate, committee, coverage
from lprjax.regression.rigidity import (
    component_rigidity,
    local_prediction_rigidity,
    prediction_rigidity,
    skmatter_rigidity,
)
from lprjax.regression.rows import design_rows, prediction_rows, vanishing
from lprjax.regression.samples import stacked, stacked_rows
from lprjax.regression.selection import Selection, add_rows, choose, remove_rows
from lprjax.regression.virials import VirialReport, check_virials

__all__ = [
    "Calibration",
    "Candidate",
    "ChosenLoss",
    "Conformal",
    "Envelope",
    "ErrorBars",
    "Factor",
    "Fit",
    "Front",
    "Influence",
    "InfluenceShare",
    "Moves",
    "PerAtom",
    "Selection",
    "StructureFactors",
    "VirialReport",
    "add_rows",
    "baseline_energies",
    "calibrate",
    "check_virials",
    "choose",
    "choose_ridge",
    "choose_weights",
    "committee",
    "component_rigidity",
    "compress",
    "compress_folds",
    "compress_groups",
    "compress_structures",
    "conformal",
    "coverage",
    "design_rows",
    "error_bars",
    "extend",
    "fit",
    "influence",
    "influence_share",
    "left_out_errors",
    "left_out_loss",
    "left_out_squares",
    "local_prediction_rigidity",
    "merge",
    "merged_folds",
    "merged_influence",
    "prediction_rigidity",
    "prediction_rows",
    "projected",
    "read_weights",
    "remove_rows",
    "skmatter_rigidity",
    "solution",
    "split_conformal",
    "stacked",
    "stacked_rows",
    "structure_factors",
    "structure_rows",
    "validation_front",
    "vanishing",
    "weighed",
    "weights_by_group",
]
