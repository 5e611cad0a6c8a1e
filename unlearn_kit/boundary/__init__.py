"""The inner problem of boundary unlearning."""

from .noise import DISTRIBUTIONS
from .search import BoundaryPoints, PerturbedSign

__all__ = ["DISTRIBUTIONS", "BoundaryPoints", "PerturbedSign"]
