"""A model that serves somewhere: its architecture by name, its weights in the form they came in."""

from .networks import LIBRARIES, Network, Normalization, build_network
from .weights import FORMATS, FittedWeights, WeightsFile, fit_weights, load_into, read_weights, write_weights

__all__ = [
    "FORMATS",
    "LIBRARIES",
    "FittedWeights",
    "Network",
    "Normalization",
    "WeightsFile",
    "build_network",
    "fit_weights",
    "load_into",
    "read_weights",
    "write_weights",
]
