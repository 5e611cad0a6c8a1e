"""Proofs of forgetting: utility, membership audits, distances to the retrained reference."""

from .audit_design import ShadowAudit, ShadowReport, with_random_labels
from .cost import Cost, measured
from .ensembles import Ensemble, train_ensemble
from .evaluate import Evaluation, evaluate, split_score
from .features import feature_distance
from .leakage import ClassLeakage, class_leakage
from .margins import TensorCache, ensemble_margins
from .membership import (
    FEATURES,
    MembershipReport,
    class_matched,
    loss_auc,
    membership_inference,
    probability_smaller,
    true_positive_rate,
)
from .predict import Reading, predict
from .probe import ProbeReport, linear_probe
from .quantization import QuantizedScores, quantize_attack
from .reference import (
    LayerDistances,
    activation_distance,
    activation_distances,
    agreement,
    completeness,
    js_divergence,
    js_divergences,
    layerwise_distance,
    zrf,
)
from .relearning import AnamnesisIndex, RelearnReport, anamnesis_index, relearn_time
from .shadow import Klom, ULira, klom, klom_floor, klom_values, u_lira
from .statistics import (
    PairedComparison,
    Seeds,
    Summary,
    VarianceComponents,
    independent_seeds,
    paired_comparison,
    summary,
    variance_components,
)
from .utility import (
    accuracy,
    average_gap,
    correct,
    dice,
    dice_scores,
    iou,
    iou_scores,
    per_class_accuracy,
    tug_of_war,
    tug_of_war_mia,
)

__all__ = [
    "FEATURES",
    "AnamnesisIndex",
    "ClassLeakage",
    "Cost",
    "Ensemble",
    "Evaluation",
    "Klom",
    "LayerDistances",
    "MembershipReport",
    "PairedComparison",
    "ProbeReport",
    "QuantizedScores",
    "Reading",
    "RelearnReport",
    "Seeds",
    "ShadowAudit",
    "ShadowReport",
    "Summary",
    "TensorCache",
    "ULira",
    "VarianceComponents",
    "accuracy",
    "activation_distance",
    "activation_distances",
    "agreement",
    "anamnesis_index",
    "average_gap",
    "class_leakage",
    "class_matched",
    "completeness",
    "correct",
    "dice",
    "dice_scores",
    "ensemble_margins",
    "evaluate",
    "feature_distance",
    "independent_seeds",
    "iou",
    "iou_scores",
    "js_divergence",
    "js_divergences",
    "klom",
    "klom_floor",
    "klom_values",
    "layerwise_distance",
    "linear_probe",
    "loss_auc",
    "measured",
    "membership_inference",
    "paired_comparison",
    "per_class_accuracy",
    "predict",
    "probability_smaller",
    "quantize_attack",
    "relearn_time",
    "split_score",
    "summary",
    "train_ensemble",
    "true_positive_rate",
    "tug_of_war",
    "tug_of_war_mia",
    "u_lira",
    "variance_components",
    "with_random_labels",
    "zrf",
]
