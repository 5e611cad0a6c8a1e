"""Proofs of forgetting: utility, membership audits, distances to the retrained reference."""

from .evaluate import Evaluation, evaluate
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
    "Evaluation",
    "LayerDistances",
    "MembershipReport",
    "Reading",
    "accuracy",
    "activation_distance",
    "activation_distances",
    "agreement",
    "average_gap",
    "class_matched",
    "completeness",
    "correct",
    "dice",
    "dice_scores",
    "evaluate",
    "iou",
    "iou_scores",
    "js_divergence",
    "js_divergences",
    "layerwise_distance",
    "loss_auc",
    "membership_inference",
    "per_class_accuracy",
    "predict",
    "probability_smaller",
    "true_positive_rate",
    "tug_of_war",
    "tug_of_war_mia",
    "zrf",
]
