"""What has to train in order to find out: probes, relearning, shadow models, ensembles. Above the engine."""

from .ensembles import Ensemble, train_ensemble
from .few_shot import FewShotReport, few_shot_recovery
from .margins import TensorCache, ensemble_margins
from .probe import ProbeReport, linear_probe
from .relearning import AnamnesisIndex, RelearnReport, anamnesis_index, relearn_time
from .shadow import ShadowAudit, ShadowReport, with_random_labels

__all__ = [
    "AnamnesisIndex",
    "Ensemble",
    "FewShotReport",
    "ProbeReport",
    "RelearnReport",
    "ShadowAudit",
    "ShadowReport",
    "TensorCache",
    "anamnesis_index",
    "ensemble_margins",
    "few_shot_recovery",
    "linear_probe",
    "relearn_time",
    "train_ensemble",
    "with_random_labels",
]
