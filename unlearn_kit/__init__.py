"""Revise trained vision models: forget chosen training data, keep the rest, prove how well it went.

This package is the core: tasks, losses, the boundary search, the training engine, metrics and composition. The methods
are in ``algorithms``, the command line and the benchmarks in ``benchmarks``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import CheckpointError, DataNotFoundError, DivergenceError

__version__ = "0.2.0"

__all__ = [
    "CheckpointError",
    "DataNotFoundError",
    "DivergenceError",
    "UnlearnResult",
    "UnlearnTask",
    "load_model",
    "results_frame",
    "revise",
    "save_model",
]

# What needs torch is imported when it is first asked for, so that the command line, which enters through this package,
# shows its help at once. Type checkers read the plain imports.
if TYPE_CHECKING:
    from .checkpoints import load_model, save_model
    from .deployed.revision import revise
    from .results import UnlearnResult, results_frame
    from .tasks import UnlearnTask
else:
    _HOMES = {
        "UnlearnResult": "results",
        "UnlearnTask": "tasks",
        "load_model": "checkpoints",
        "results_frame": "results",
        "revise": "deployed.revision",
        "save_model": "checkpoints",
    }

    def __getattr__(name: str) -> object:
        """Import a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value
