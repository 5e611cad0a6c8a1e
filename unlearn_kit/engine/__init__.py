"""The engine: phases, one training loop, callbacks, resume."""

from .balance import Cone
from .callbacks import BestSoFar, Callback, Log, ProgressBar, Run, StopWhen, WeightAverage
from .fit import FitResult, fit
from .keeping import keep_best
from .phases import Alternate, Phase, streams_for
from .resumable import resumable
from .revision import Facts, facts_of, revision
from .stationarity import Stationarity
from .streams import Stream
from .supervised import supervised_phase, train
from .tracking import Tracker
from .training import Training, TrainingOptions

__all__ = [
    "Alternate",
    "BestSoFar",
    "Callback",
    "Cone",
    "Facts",
    "FitResult",
    "Log",
    "Phase",
    "ProgressBar",
    "Run",
    "Stationarity",
    "StopWhen",
    "Stream",
    "Tracker",
    "Training",
    "TrainingOptions",
    "WeightAverage",
    "facts_of",
    "fit",
    "keep_best",
    "resumable",
    "revision",
    "streams_for",
    "supervised_phase",
    "train",
]
