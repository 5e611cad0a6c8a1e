"""Revise trained vision models: forget chosen training data, keep the rest, prove how well it went.

This package is the core: tasks, losses, the boundary search, the training engine, metrics and composition. The methods
are in ``algorithms``, the command line and the benchmarks in ``benchmarks``.
"""

from .checkpoints import load_model, save_model
from .errors import CheckpointError, DataNotFoundError, DivergenceError
from .results import UnlearnResult
from .tasks import UnlearnTask

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DataNotFoundError",
    "DivergenceError",
    "UnlearnResult",
    "UnlearnTask",
    "load_model",
    "save_model",
]
