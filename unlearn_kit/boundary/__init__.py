"""The inner problem of boundary unlearning: its search, what is guaranteed of it, and gradients through it."""

from .certificate import Certificate
from .hypergradient import SmoothPoints, smoothed_search
from .noise import DISTRIBUTIONS, ORACLE_LOSS, expected_sign
from .radius import BoundaryRadii
from .search import BoundaryPoints, PerturbedSign

__all__ = [
    "DISTRIBUTIONS",
    "ORACLE_LOSS",
    "BoundaryPoints",
    "BoundaryRadii",
    "Certificate",
    "PerturbedSign",
    "SmoothPoints",
    "expected_sign",
    "smoothed_search",
]
