"""A model that serves somewhere: read as it is, revised, and written back in its own form with a receipt."""

from .networks import LIBRARIES, Network, Normalization, build_network
from .page import preview
from .preflight import preflight
from .requests import add_request, add_revision, serving_now, withdraw_request
from .revision import Revision, revise
from .serving import Deployed, deployed
from .weights import FORMATS, FittedWeights, WeightsFile, fit_weights, load_into, read_weights, write_weights

__all__ = [
    "FORMATS",
    "LIBRARIES",
    "Deployed",
    "FittedWeights",
    "Network",
    "Normalization",
    "Revision",
    "WeightsFile",
    "add_request",
    "add_revision",
    "build_network",
    "deployed",
    "fit_weights",
    "load_into",
    "preflight",
    "preview",
    "read_weights",
    "revise",
    "serving_now",
    "withdraw_request",
    "write_weights",
]
