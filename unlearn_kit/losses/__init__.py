"""The loss-design API: terms, targets and schedules, added and scaled into objectives.

>>> from unlearn_kit import losses as L
>>> print(L.linear(3.0, 1.0) * L.bce(on="forget", to=L.Background()) + 0.5 * L.cross_entropy(on="retain"))
linear(3, 1) * bce(forget -> Background(index=0)) + 0.5 * cross_entropy(retain -> Labels)
"""

from ..schedules import Schedule, cosine, every, exponential, inverse, inverse_sqrt, linear
from .batch import IGNORE, Batch, Goal
from .matching import Calibration, Matched, RunnerUp, Table
from .objective import Objective, ObjectiveValue, Term
from .targets import (
    Background,
    Boundary,
    Contradiction,
    Labels,
    OtherClasses,
    RandomLabels,
    Target,
    Teacher,
    Uniform,
)
from .terms import bce, cross_entropy, dice, dice_bce, kl, mse, parameter_norm, term, weight_distance
from .transformed import FLIPS, Transform, Transformed
from .wrapping import Cached, Findings, Within, Without

__all__ = [
    "FLIPS",
    "IGNORE",
    "Background",
    "Batch",
    "Boundary",
    "Cached",
    "Calibration",
    "Contradiction",
    "Findings",
    "Goal",
    "Labels",
    "Matched",
    "Objective",
    "ObjectiveValue",
    "OtherClasses",
    "RandomLabels",
    "RunnerUp",
    "Schedule",
    "Table",
    "Target",
    "Teacher",
    "Term",
    "Transform",
    "Transformed",
    "Uniform",
    "Within",
    "Without",
    "bce",
    "cosine",
    "cross_entropy",
    "dice",
    "dice_bce",
    "every",
    "exponential",
    "inverse",
    "inverse_sqrt",
    "kl",
    "linear",
    "mse",
    "parameter_norm",
    "term",
    "weight_distance",
]
