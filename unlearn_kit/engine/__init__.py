"""The engine: phases, one training loop, callbacks, resume."""

from .callbacks import BestSoFar, Callback, Log, ProgressBar, Run, StopWhen, WeightAverage
from .fit import FitResult, fit
from .phases import Alternate, Phase, streams_for
from .revision import revision
from .stationarity import Stationarity
from .streams import Stream
from .supervised import supervised_phase, train

__all__ = [
    "Alternate",
    "BestSoFar",
    "Callback",
    "FitResult",
    "Log",
    "Phase",
    "ProgressBar",
    "Run",
    "Stationarity",
    "StopWhen",
    "Stream",
    "WeightAverage",
    "fit",
    "revision",
    "streams_for",
    "supervised_phase",
    "train",
]
