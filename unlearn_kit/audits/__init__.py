"""What has to train in order to find out: probes, relearning, shadow models, ensembles. Above the engine."""

from .ensembles import Ensemble, train_ensemble
from .few_shot import FewShotReport, few_shot_recovery
from .margins import TensorCache, ensemble_margins
from .nearby import ResidualKnowledge, residual_knowledge
from .neighbours import NeighbourLeakage, neighbour_leakage
from .population import ReferenceMembership, reference_membership
from .probe import ProbeReport, linear_probe
from .relearning import AnamnesisIndex, RelearnReport, anamnesis_index, relearn_time
from .shadow import ShadowAudit, ShadowReport, with_random_labels

__all__ = [
    "AnamnesisIndex",
    "Ensemble",
    "FewShotReport",
    "NeighbourLeakage",
    "ProbeReport",
    "ReferenceMembership",
    "RelearnReport",
    "ResidualKnowledge",
    "ShadowAudit",
    "ShadowReport",
    "TensorCache",
    "anamnesis_index",
    "ensemble_margins",
    "few_shot_recovery",
    "linear_probe",
    "neighbour_leakage",
    "reference_membership",
    "relearn_time",
    "residual_knowledge",
    "train_ensemble",
    "with_random_labels",
]
