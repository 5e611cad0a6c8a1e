"""Proofs of forgetting: utility, membership, distances to the retrained reference. What trains is in ``audits``."""

from typing import Any

from ..scores import Evaluation, average_gap, tug_of_war, tug_of_war_mia
from .cost import Cost, measured
from .evaluate import evaluate, evaluate_seeds, split_score
from .features import feature_distance
from .findings import FindingScores, auroc, exact_match, finding_scores
from .leakage import ClassLeakage, class_leakage
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
from .resolution import BesideReferences, beside_references
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
    correct,
    dice,
    dice_scores,
    iou,
    iou_scores,
    per_class_accuracy,
)

__all__ = [
    "FEATURES",
    "BesideReferences",
    "ClassLeakage",
    "Cost",
    "Evaluation",
    "FindingScores",
    "Klom",
    "LayerDistances",
    "MembershipReport",
    "PairedComparison",
    "QuantizedScores",
    "Reading",
    "Seeds",
    "Summary",
    "ULira",
    "VarianceComponents",
    "accuracy",
    "activation_distance",
    "activation_distances",
    "agreement",
    "auroc",
    "average_gap",
    "beside_references",
    "class_leakage",
    "class_matched",
    "completeness",
    "correct",
    "dice",
    "dice_scores",
    "evaluate",
    "evaluate_seeds",
    "exact_match",
    "feature_distance",
    "finding_scores",
    "independent_seeds",
    "iou",
    "iou_scores",
    "js_divergence",
    "js_divergences",
    "klom",
    "klom_floor",
    "klom_values",
    "layerwise_distance",
    "loss_auc",
    "measured",
    "membership_inference",
    "paired_comparison",
    "per_class_accuracy",
    "predict",
    "probability_smaller",
    "quantize_attack",
    "split_score",
    "summary",
    "true_positive_rate",
    "tug_of_war",
    "tug_of_war_mia",
    "u_lira",
    "variance_components",
    "zrf",
]

# The documentation showed these here before what trains had a room of its own.
_MOVED = ("anamnesis_index", "linear_probe")


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import warnings

    home = f"{__name__.rpartition('.')[0]}.audits"
    warnings.warn(f"{__name__}.{name} is {home}.{name} now", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(home), name)
